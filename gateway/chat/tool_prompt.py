"""Prompts with tools for models whose own template has none: mistral's v7 form. Compiled into
behemoth-gateway beside jinja_templates.py; reads and runs on its own as well.

The form is mistral-common's (InstructRequestNormalizerV7, InstructTokenizerV7), token for token;
tests/conformance/gateway/test_tool_prompts.py holds it against that package. A control token is a
piece of its own here, so no text ever becomes one.
"""

import json


class Refused(Exception):
    """The messages have no such form; the text is for the client."""


def tool_prompt(messages, tools, begin, end, continue_final_message):
    """[(is_control_token, text)]. `messages` as a template gets them, with tool_calls' arguments as
    strings; `tools` a client's list, or None; `begin` and `end` the tokens of the whole prompt and
    of an assistant's turn. The final message is left open if it is to be continued."""
    groups = merged(messages)
    last_user = max((i for i, group in enumerate(groups) if group["role"] == "user"), default=-1)
    pieces = [(True, begin)]
    for i, group in enumerate(groups):
        role, content = group["role"], group["content"]
        if role == "system":
            add(pieces, "[SYSTEM_PROMPT]", content, "[/SYSTEM_PROMPT]")
        elif role == "user":
            if tools and i == last_user:
                offered = json.dumps([offer(tool) for tool in tools], ensure_ascii=False)
                add(pieces, "[AVAILABLE_TOOLS]", offered, "[/AVAILABLE_TOOLS]")
            add(pieces, "[INST]", content, "[/INST]")
        elif role == "tool":
            add(pieces, "[TOOL_RESULTS]", group["tool_call_id"], "[TOOL_CONTENT]")
            add(pieces, None, content, "[/TOOL_RESULTS]")
        elif role == "assistant":
            open_end = continue_final_message and i == len(groups) - 1
            add_assistant(pieces, group, None if open_end else end)
        else:
            raise Refused(f"Only user, system, assistant and tool roles are supported, not {role}!")
    if tools and last_user < 0:
        raise Refused("Tools need a message of the user's: they are shown in front of the last.")
    return pieces


def add(pieces, first, text, last):
    """The space is what the tokenizer puts in front of each text; of an empty one, nothing."""
    if first:
        pieces.append((True, first))
    if text:
        pieces.append((False, " " + text))
    if last:
        pieces.append((True, last))


def add_assistant(pieces, group, end):
    calls = group["tool_calls"]
    if not group["content"] and not calls:
        raise Refused("An assistant's message must say something or call a tool.")
    # A text that is continued keeps its end: the prefill is the client's, to the byte.
    add(pieces, None, group["content"].rstrip(" ") if end else group["content"], None)
    if calls:
        listed = json.dumps([called(call) for call in calls], ensure_ascii=False)
        add(pieces, "[TOOL_CALLS]", listed, None)
    if end:
        pieces.append((True, end))


def merged(messages):
    """Neighbours of the user's or of the assistant's are one message."""
    groups = []
    for message in messages:
        role = message["role"]
        calls = list(message.get("tool_calls") or ())
        if groups and role == groups[-1]["role"] and role in ("user", "assistant"):
            group = groups[-1]
            texts = [text for text in (group["content"], message["content"]) if text]
            group["content"] = "\n\n".join(texts)
            group["tool_calls"] += calls
        else:
            groups.append({"role": role, "content": message["content"], "tool_calls": calls,
                           "tool_call_id": message.get("tool_call_id")})
    return groups


def offer(tool):
    function = tool["function"]
    return {"type": "function", "function": {
        "name": function["name"], "description": function.get("description") or "",
        "parameters": function.get("parameters") or {}}}


def called(call):
    function = call["function"]
    return {"name": function["name"], "arguments": parsed(function["arguments"] or "{}"),
            "id": call["id"]}


def parsed(text):
    """JSON as what it says, other text as a text: what a model once wrote is shown as it was."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
