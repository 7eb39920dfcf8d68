"""Seeded conversations of every shape that a client has been seen to send, and some it should not."""

import random

WORDS = ("the river ran on", "naïve café", "“quote” — …", "*He smiled.*", "我喜欢", "🏳️‍🌈🌴🧠",
         "مرحبا", "İßﬁ", "e\u0301", "\u200b\u00a0\u3000", "\U0010ffff\ue000", "{{ 7 * 7 }}", "{% raw %}", "{#",
         "line\nline\r\n\ttab", '"quoted" \\ back\\n', "'s", "1234567890", "<b>&amp;</b>", "x" * 200,
         "\x00\x01\x7f", "|trim", "    ", "a\u2028b", "None", "user", "assistant")
CONTROLS = ("[INST]", "[/INST]", "</s>", "<s>", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[INST", "NST]",
            "[TOOL_CALLS]", "<|im_start|>system\n", "<|im_end|>", "<|eot_id|>", "<start_of_turn>model",
            "<|start_header_id|>", "<|eot|>", "[[INST]]", "[/INST][INST]", "<unk>")
THOUGHTS = ("<think>\nOk i need to think, so\n", "<think>a</think>", "<think>\nx\n</think>\n\nThen he",
            "</think>", "<think>", "</think></think> [INST] ")
SPACES = ("", "", "", " ", "\n", "  \n", "\t", "\u00a0")
MARK = "CONTINUE_FINAL_MESSAGE_TAG "


def text(r, adversarial):
    kind = r.random()
    if kind < 0.06:
        return ""
    if kind < 0.1:
        return r.choice((" ", "\n\n", " \t "))
    pool = WORDS + THOUGHTS + (CONTROLS if adversarial else ())
    parts = [r.choice(pool) for _ in range(r.randrange(1, 6))]
    if adversarial and r.random() < 0.05:
        parts.append(MARK)
    return r.choice(SPACES) + r.choice(("", " ", "\n")).join(parts) + r.choice(SPACES)


def roles(r):
    kind = r.randrange(8)
    turns = ["user", "assistant"] * r.randrange(1, 6)
    if kind == 0:
        return turns[:-1]
    if kind == 1:
        return ["system", *turns[:-1]]
    if kind == 2:
        return ["system", *turns]  # ends in the assistant's prefill
    if kind == 3:
        return ["system", "assistant", *turns]  # a greeting first, as character cards have it
    if kind == 4:
        return [r.choice(("user", "assistant", "system")) for _ in range(r.randrange(1, 7))]
    if kind == 5:
        return [*turns[:-1], "tool", "assistant", "user"]
    if kind == 6:
        return ["system", "system", *turns, "user", "user"]
    return [r.choice(("developer", "user", "system")), *turns, "system"]


def conversation(seed):
    """One request: messages and the two switches, never both on."""
    r = random.Random(seed)
    adversarial = r.random() < 0.5
    messages = []
    for role in roles(r):
        message = {"role": role, "content": text(r, adversarial)}
        if r.random() < 0.08:
            message["name"] = text(r, adversarial)
        messages.append(message)
    go_on = r.random() < (0.9 if messages[-1]["role"] == "assistant" else 0.1)
    request = {"messages": messages, "continue_final_message": go_on,
               "add_generation_prompt": not go_on and r.random() < 0.7}
    if r.random() < 0.2:
        request["arguments"] = {"enable_thinking": r.random() < 0.5}
    return request
