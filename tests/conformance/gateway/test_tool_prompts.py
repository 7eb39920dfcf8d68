"""Prompts with tools: of the model's own template, which has none, mistral-common's v7 ids one for one
through the real tokenizer; of a template that has them, transformers' print."""

import json
import random
import sys
from importlib import resources
from pathlib import Path

import pytest
import templates
from conversations import CONTROLS, THOUGHTS, WORDS
from mistral_common.protocol.instruct.messages import (
    AssistantMessage, SystemMessage, ToolMessage, UserMessage)
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.protocol.instruct.tool_calls import FunctionCall, Tool, ToolCall
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from test_chat_templates import ROOT, TOKENS, Renderer, apply
from transformers import PreTrainedTokenizerFast

sys.path.insert(0, str(ROOT / "tests"))
from tokenizer_process import TokenizerProcess, compile_stubs  # noqa: E402

OWN = (ROOT / "tests/models/tiny/chat_template.jinja").read_text(encoding="utf-8")
CONVERSATIONS = 300
TEXTS = [t for t in (*WORDS, *THOUGHTS, *CONTROLS, "[AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[TOOL_CONTENT]",
                     "a  b ", " leading", '{"json": [1, 2.50, 1e16, true, null]}', "\u2028\U0001f334")
         if "\x00" not in t]
SCHEMAS = [
    None, {}, {"type": "object", "properties": {}},
    {"type": "object", "properties": {"zip": {"type": "string", "description": "\u00e9\u4e2d </s>"},
                                      "a": {"enum": [1, 2.5, -0.0, 1e-7, None, True]}},
     "required": ["zip"], "additionalProperties": False},
    {"$defs": {"X": {"type": "array", "items": {"$ref": "#/$defs/X"}}}, "type": "object",
     "properties": {"x": {"$ref": "#/$defs/X"}, "[INST]": {"type": "string"}}}]
ARGUMENTS = ["", "{}", '{"b": 1, "a": [1.0, 2e3, "\\u00e9\\ud83d\\ude00"]}', "{ \"x\":\n{\"y\" :null}}", "not json",
             '{"cut": "off', '{"text": "[/INST]</s>"}', "[1, 2]", "12345678901234567890123", '{"a": 1, "a": 2}']


def text(r):
    return "".join(r.choice(TEXTS) for _ in range(r.randrange(1, 4)))


def tool(r, name):
    function = {"name": name}
    if r.random() < 0.7:
        function["description"] = text(r)
    if (schema := r.choice(SCHEMAS)) is not None:
        function["parameters"] = schema
    if r.random() < 0.2:
        function["strict"] = r.random() < 0.5
    return {"type": "function", "function": function}


def call_id(r):
    return "".join(r.choice("abcXYZ0189") for _ in range(9))


def turn(r, names):
    """What the assistant does between two words of the user's."""
    messages = []
    for _ in range(r.randrange(3)):
        calls = [{"id": call_id(r), "type": "function", "function": {
            "name": r.choice(names), "arguments": r.choice(ARGUMENTS)}} for _ in range(r.randrange(1, 4))]
        called = {"role": "assistant", "tool_calls": calls}
        if r.random() < 0.3:
            called["content"] = text(r)
        messages.append(called)
        messages += [{"role": "tool", "tool_call_id": call["id"], "content": r.choice(("", text(r), "{}", "[1, 2]"))}
                     for call in calls]
    if not messages or r.random() < 0.7:
        messages += [{"role": "assistant", "content": text(r)} for _ in range(r.choice((1, 1, 2)))]
    return messages


def conversation(seed):
    r = random.Random(seed)
    names = [f"f{i}" if r.random() < 0.5 else f"get_weather-{i}" for i in range(r.randrange(1, 5))]
    messages = [{"role": "system", "content": text(r)} for _ in range(r.choice((0, 0, 1, 2)))]
    for _ in range(r.randrange(4)):
        messages += [{"role": "user", "content": r.choice(("", text(r)))} for _ in range(r.choice((1, 1, 2)))]
        messages += turn(r, names)
    messages.append({"role": "user", "content": text(r)})
    if r.random() < 0.6:
        more = turn(r, names)
        while more and more[-1]["role"] != "tool":  # what comes next is the assistant's
            more.pop()
        messages += more
    request = {"messages": messages, "add_generation_prompt": True}
    if r.random() < 0.85:
        request["tools"] = [tool(r, name) for name in names]
    if r.random() < 0.2 and messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": r.choice(("<think>\nOk i need to think, so\n", "Well,"))})
        request["continue_final_message"], request["add_generation_prompt"] = True, False
    return request


def of_mistral(message, prefix=False):
    role, content = message["role"], message.get("content")
    if role == "tool":
        return ToolMessage(content=content, tool_call_id=message["tool_call_id"])
    if role == "assistant":
        calls = [ToolCall(id=c["id"], function=FunctionCall(**c["function"])) for c in message.get("tool_calls", ())]
        return AssistantMessage(content=content, tool_calls=calls or None, prefix=prefix)
    return (SystemMessage if role == "system" else UserMessage)(content=content)


def speaks_of_tools(request):
    return "tools" in request or any(m.get("tool_calls") for m in request["messages"])


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """The real tokenizer, out of its own file."""
    folder = tmp_path_factory.mktemp("v7")
    model = resources.files("mistral_common") / "data/mistral_instruct_tokenizer_241114.model.v7"
    (folder / "tokenizer.model").write_bytes(Path(str(model)).read_bytes())
    process = TokenizerProcess(folder, compile_stubs())
    yield process
    process.terminate()
    assert process.stop() == 0


@pytest.fixture(scope="module")
def renderer(service):
    renderer = Renderer()
    vocabulary = service.vocabulary()
    renderer.control = [[vocabulary.token_bytes[i].decode(), i] for i in vocabulary.control_ids]
    renderer.template = None

    def compile(template):
        assert renderer.ask({"template": template, "tokens": TOKENS, "control_tokens": renderer.control}) == {}

    renderer.compile = compile
    yield renderer
    renderer.process.stdin.close()
    assert renderer.process.wait(timeout=30) == 0


def encoded(service, segments):
    request = service.pb.EncodeRequest()
    item = request.inputs.add()
    for segment in segments:
        if isinstance(segment, str):
            item.segments.add().text = segment
        else:
            item.segments.add().control_id = segment
    return list(service.stub.Encode(request, timeout=60).encodings[0].ids)


def test_the_ids_are_mistral_common_s(renderer, service):
    renderer.compile(OWN)
    reference = MistralTokenizer.v7()
    seen = {"calls": 0, "tools": 0, "open": 0}
    for seed in range(CONVERSATIONS):
        request = conversation(seed)
        if not speaks_of_tools(request):
            continue
        reply = renderer.ask(request)
        assert "segments" in reply, (seed, reply)
        *before, last = request["messages"]
        expected = reference.encode_chat_completion(ChatCompletionRequest(
            messages=[*map(of_mistral, before), of_mistral(last, "continue_final_message" in request)],
            tools=[Tool.from_openai(t) for t in request["tools"]] if "tools" in request else None)).tokens
        assert encoded(service, reply["segments"]) == expected, (seed, reply["text"])
        seen["calls"] += any("tool_calls" in m for m in request["messages"])
        seen["tools"] += "tools" in request
        seen["open"] += "continue_final_message" in request
    assert min(seen.values()) > 30, seen


def test_a_prefill_keeps_its_end_and_a_finished_message_does_not(renderer):
    """mistral-common strips both; a client's prefill is its own, to the byte."""
    renderer.compile(OWN)
    request = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b  "}],
               "tools": [{"type": "function", "function": {"name": "f"}}]}
    assert renderer.ask(request | {"continue_final_message": True})["text"].endswith("[/INST] b  ")
    assert renderer.ask(request)["text"].endswith("[/INST] b</s>")


@pytest.mark.parametrize("messages, words", [
    ([{"role": "developer", "content": "a"}, {"role": "user", "content": "b"}], "not developer"),
    ([{"role": "system", "content": "a"}], "Tools need a message of the user's"),
    ([{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}], "must say something"),
])
def test_what_has_no_such_form_is_refused(renderer, messages, words):
    renderer.compile(OWN)
    reply = renderer.ask({"messages": messages, "tools": [{"type": "function", "function": {"name": "f"}}]})
    assert reply["code"] == "INVALID_ARGUMENT" and words in reply["error"]


def test_a_model_without_the_tokens_is_refused(renderer):
    tokens = {"template": "{{ messages[0].content }}", "tokens": TOKENS, "control_tokens": [["<s>", 1], ["</s>", 2]]}
    assert renderer.ask(tokens) == {}
    reply = renderer.ask({"messages": [{"role": "user", "content": "a"}], "tools": [{}]})
    assert "takes no tools" in reply["error"]


def for_templates(request):
    """Arguments as values, as transformers' documentation and vLLM hand them to templates."""
    messages = json.loads(json.dumps(request["messages"]))
    for message in messages:
        message.setdefault("content", "")
        for call in message.get("tool_calls", ()):
            try:
                value = json.loads(call["function"]["arguments"])
            except ValueError:
                continue
            if isinstance(value, dict):
                call["function"]["arguments"] = value
    return {**request, "messages": messages, "continue_final_message": request.get("continue_final_message", False)}


WITH_TOOLS = """{{ bos_token }}{% for m in messages %}{% if loop.last and tools %}[AVAILABLE_TOOLS]{% for t in tools -%}
{{ t.function | tojson }}{% endfor %}[/AVAILABLE_TOOLS]{% endif %}[{{ m.role }}]{{ m.content }}{% for c in m.tool_calls or [] %}
[TOOL_CALLS]{{ c.id }}{{ c.function.name }}{{ c.function.arguments | tojson }}{% endfor %}{{ m.tool_call_id }}{% endfor %}"""


def templates_with_tools():
    """Ours, and where the data lies mistral-common's own and another family's."""
    yield WITH_TOOLS
    for name in ("mistral_common_v7_spm", "hf_qwen2.5-instruct"):
        path = templates.FOLDER / f"{name}.jinja"
        if path.exists():
            yield path.read_text(encoding="utf-8")


@pytest.mark.parametrize("template", list(templates_with_tools()))
def test_a_template_that_takes_tools_prints_them_itself(renderer, template):
    renderer.compile(template)
    hugging_face = PreTrainedTokenizerFast(tokenizer_file=str(ROOT / "tests/models/tiny/tokenizer.json"), **TOKENS)
    names = {i: name for name, i in renderer.control}
    rendered = 0
    for seed in range(200):
        request = conversation(f"template {seed}")
        if '"a": 1, "a"' in json.dumps(request["messages"]).replace("\\", ""):
            continue  # a name twice stays text here
        shown = for_templates(request)
        expected, refusal = apply(hugging_face, template, {**shown, "arguments": {"tools": request.get("tools")}})
        reply = renderer.ask(request)
        if "cannot be told apart" in reply.get("error", ""):
            continue
        if refusal is not None:
            assert refusal[:200] in reply["error"], (seed, refusal, reply)
            continue
        assert reply.get("text") == expected, (seed, reply)
        assert "".join(s if isinstance(s, str) else names[s] for s in reply["segments"]) == expected
        rendered += 1
    assert rendered > 50
