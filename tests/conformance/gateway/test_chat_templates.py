"""The gateway's chat templates against transformers' apply_chat_template: the same bytes, the same
refusals, and control ids only where the template printed them."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import templates
from conversations import CONTROLS, MARK, conversation
from transformers import PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parents[3]
BUILD = Path(os.environ.get("BEHEMOTH_BUILD_DIR", ROOT / "build/release"))
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
NAMES = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]",
         "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[SYSTEM_PROMPT]",
         "[/SYSTEM_PROMPT]", "[THINK]", "[/THINK]", "<|im_start|>", "<|im_end|>", "<start_of_turn>",
         "<end_of_turn>", "<bos>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
         "<|eot_id|>", "<|header_start|>", "<|header_end|>", "<|eot|>", "<|endoftext|>"]
CONTROL = {name: i for i, name in enumerate(NAMES)}
ANY_CONTROL = re.compile("|".join(map(re.escape, sorted(NAMES, key=len, reverse=True))))
CONVERSATIONS = 240


@pytest.fixture(scope="module")
def hugging_face():
    return PreTrainedTokenizerFast(
        tokenizer_file=str(ROOT / "tests/models/tiny/tokenizer.json"), **TOKENS)


class Renderer:
    def __init__(self):
        self.process = subprocess.Popen(
            [BUILD / "tests/render_lines"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            encoding="utf-8")

    def ask(self, line):
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def compile(self, template):
        reply = self.ask({"template": template, "tokens": TOKENS,
                          "control_tokens": [[name, i] for name, i in CONTROL.items()]})
        assert reply == {}, reply


@pytest.fixture(scope="module")
def renderer():
    renderer = Renderer()
    yield renderer
    renderer.process.stdin.close()
    assert renderer.process.wait(timeout=30) == 0


def apply(hugging_face, template, request):
    """(prompt, None) or (None, message of the refusal)."""
    try:
        return hugging_face.apply_chat_template(
            request["messages"], chat_template=template, tokenize=False,
            add_generation_prompt=request["add_generation_prompt"],
            continue_final_message=request["continue_final_message"],
            **request.get("arguments", {})), None
    except Exception as error:  # whatever the template raises is a refusal
        return None, str(error)


def spells_control(request):
    return any(ANY_CONTROL.search(value)
               for message in request["messages"] for value in message.values())


def neutral(request):
    """The same request without any text: what is left of control tokens is the template's."""
    def blank(text):
        return re.sub(r"\S", "x", text)

    return {**request, "messages": [
        {key: value if key == "role" else blank(value) for key, value in m.items()}
        for m in request["messages"]]}


def check(hugging_face, renderer, name, template):
    renderer.compile(template)
    refused, rendered, withheld = 0, 0, 0
    for seed in range(CONVERSATIONS):
        request = conversation(f"{name} {seed}")
        expected, refusal = apply(hugging_face, template, request)
        reply = renderer.ask(request)
        if refusal is not None:
            refused += 1
            assert reply["code"] == "INVALID_ARGUMENT", (seed, refusal, reply)
            # The template's own words; where transformers itself refuses, its reason in ours (its
            # message repeats the prompt).
            ours = "continue_final_message is set"
            words = ours if refusal.startswith(ours) else refusal[:200]
            assert words in reply["error"], (seed, refusal, reply)
            continue
        if "cannot be told apart" in reply.get("error", ""):
            assert name in templates.REWRITES and spells_control(request), seed
            withheld += 1
            continue
        rendered += 1
        assert reply.get("text") == expected, (seed, reply)
        segments = reply["segments"]
        joined = "".join(s if isinstance(s, str) else NAMES[s] for s in segments)
        assert joined == expected, seed
        assert all(isinstance(a, int) or isinstance(b, int) for a, b in zip(segments, segments[1:]))
        assert "" not in segments
        if name in templates.REWRITES or name == "thinks":
            continue
        bare, _ = apply(hugging_face, template, neutral(request))
        ids = [CONTROL[t] for t in ANY_CONTROL.findall(bare)] if bare is not None else None
        mine = [s for s in segments if isinstance(s, int)]
        assert ids is None or mine == ids, seed
    assert refused + rendered + withheld == CONVERSATIONS
    return rendered, refused


@pytest.mark.parametrize("name,template", templates.always().items(), ids=lambda v: v[:24])
def test_our_templates_print_what_transformers_prints(hugging_face, renderer, name, template):
    check(hugging_face, renderer, name, template)


@pytest.mark.parametrize("name,template", templates.extra().items(),
                         ids=lambda v: v[:24] if v else "none")
def test_templates_of_the_folder_print_what_transformers_prints(hugging_face, renderer, name, template):
    check(hugging_face, renderer, name, templates.need(template))


def test_the_seeds_cover_what_they_promise():
    seen = {"refusals": 0, "prefill": 0, "control": 0, "mark": 0, "tool": 0, "empty": 0}
    for seed in range(CONVERSATIONS):
        request = conversation(f"tiny {seed}")
        roles = [m["role"] for m in request["messages"]]
        seen["refusals"] += bool({"tool", "developer"} & set(roles))
        seen["prefill"] += request["continue_final_message"]
        seen["control"] += spells_control(request)
        seen["mark"] += any(MARK in m["content"] for m in request["messages"])
        seen["tool"] += "tool" in roles
        seen["empty"] += any(m["content"] == "" for m in request["messages"])
    assert min(seen.values()) >= 5, seen


def test_a_user_cannot_type_a_control_token(renderer):
    renderer.compile((ROOT / "tests/models/tiny/chat_template.jinja").read_text(encoding="utf-8"))
    for typed in CONTROLS:
        reply = renderer.ask({"messages": [{"role": "user", "content": typed}]})
        assert reply["segments"] == [1, 3, " " + typed, 4]


def test_pieces_of_a_control_token_do_not_join(renderer):
    renderer.compile("[{{ messages[0].content }}]{{ bos_token }}")
    reply = renderer.ask({"messages": [{"role": "user", "content": "INST"}]})
    assert reply == {"text": "[INST]<s>", "segments": ["[INST]", 1]}


def test_a_broken_template_names_its_line(renderer):
    reply = renderer.ask({"template": "a\n{% for m in messages %}\n{{ m.content }", "tokens": TOKENS,
                          "control_tokens": []})
    assert "line 3" in reply["error"]
