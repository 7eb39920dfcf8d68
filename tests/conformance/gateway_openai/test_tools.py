"""Tool calls through the official client: forced ones by the grammar, which makes even the tiny model
call; streaming = not streaming; calls and results go back into the prompt."""

import json
import re

import jsonschema
import openai
import pytest

USER = [{"role": "user", "content": "What is the weather in Elsinore?"}]
WEATHER = {"type": "object", "properties": {
    "city": {"enum": ["Elsinore", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9},
    "where": {"$ref": "#/$defs/Where"}},
    "required": ["city", "where"],
    "$defs": {"Where": {"type": "object", "properties": {"indoors": {"type": "boolean"}},
                        "required": ["indoors"]}}}
TOOLS = [{"type": "function", "function": {
              "name": "get_weather", "description": "Weather of a city", "parameters": WEATHER}},
         {"type": "function", "function": {"name": "get_time"}}]
SCHEMAS = {"get_weather": WEATHER, "get_time": {"type": "object", "maxProperties": 0}}
NAMED = {"type": "function", "function": {"name": "get_weather"}}
ONE = {"tool_choice": "required", "parallel_tool_calls": False}


def ask(client, messages=USER, seed=1, **options):
    options = {"model": "tiny", "temperature": 1, "max_tokens": 400, "seed": seed, "tools": TOOLS, **options}
    return client.chat.completions.create(messages=messages, **options)


def check(choice):
    """The calls of a finished choice."""
    assert choice.finish_reason == "tool_calls"
    calls = choice.message.tool_calls
    assert calls and not choice.message.content
    for call in calls:
        assert call.type == "function" and re.fullmatch("[a-zA-Z0-9]{9}", call.id)
        jsonschema.validate(json.loads(call.function.arguments), SCHEMAS[call.function.name])
    assert len({call.id for call in calls}) == len(calls)
    return calls


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("choice", [{"tool_choice": NAMED}, ONE])
def test_a_call_that_must_come_comes_and_fits_its_schema(client, seed, choice):
    calls = check(ask(client, seed=seed, **choice).choices[0])
    assert len(calls) == 1
    if choice is not ONE:
        assert calls[0].function.name == "get_weather"


def test_required_may_be_several(client):
    counts = set()
    for seed in range(12):
        choice = ask(client, seed=seed, tool_choice="required").choices[0]
        if choice.finish_reason == "tool_calls":  # else it went on to its length
            counts.add(len(check(choice)))
    assert max(counts) > 1, counts


@pytest.mark.parametrize("options", [{"tool_choice": NAMED}, ONE, ONE | {"n": 2}, {"tool_choice": "required"},
                                     {"tool_choice": "required", "max_tokens": 12}])
def test_streaming_is_not_streaming(client, options):
    for seed in range(3):
        whole = ask(client, seed=seed, **options).choices
        streamed = [{"calls": [], "content": "", "finish": None} for _ in whole]
        pieces = 0
        for chunk in ask(client, seed=seed, stream=True, **options):
            for choice in chunk.choices:
                to = streamed[choice.index]
                to["content"] += choice.delta.content or ""
                to["finish"] = choice.finish_reason or to["finish"]
                for call in choice.delta.tool_calls or ():
                    pieces += 1
                    if call.index == len(to["calls"]):  # the first of a call has all but arguments
                        assert call.function.name and call.type == "function"
                        assert re.fullmatch("[a-zA-Z0-9]{9}", call.id)
                        to["calls"].append([call.function.name, ""])
                    else:
                        assert call.index == len(to["calls"]) - 1
                        assert call.id is None and call.function.name is None and call.type is None
                    to["calls"][call.index][1] += call.function.arguments
        for one, other in zip(whole, streamed):
            calls = [[c.function.name, c.function.arguments] for c in one.message.tool_calls or ()]
            assert other["calls"] == calls
            assert other["content"] == (one.message.content or "")
            assert other["finish"] == one.finish_reason
        assert pieces > sum(len(s["calls"]) for s in streamed) or options.get("max_tokens")


def test_the_client_s_own_stream_helper_puts_the_call_together(client):
    with client.chat.completions.stream(model="tiny", messages=USER, tools=TOOLS, tool_choice=NAMED,
                                        temperature=1, seed=2, max_tokens=400) as stream:
        events = [event.type for event in stream]
        check(stream.get_final_completion().choices[0])
    assert "tool_calls.function.arguments.delta" in events and "tool_calls.function.arguments.done" in events


def test_the_reply_goes_back_with_its_result(client, http):
    reply = ask(client, tool_choice=NAMED).choices[0].message
    result = {"role": "tool", "tool_call_id": reply.tool_calls[0].id, "content": "Rain."}
    messages = [*USER, reply.model_dump(exclude_none=True), result]
    after = ask(client, messages, tool_choice="none", max_tokens=20)
    assert after.choices[0].message.tool_calls is None and not getattr(after, "warnings", None)
    rendered = http.post("/v1/chat/completions/render", json={"messages": messages, "tools": TOOLS}).json()
    control = [t["text"] for t in rendered["tokens"] if t["control"]]
    assert control == ["<s>", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[INST]", "[/INST]", "[TOOL_CALLS]",
                       "</s>", "[TOOL_RESULTS]", "[TOOL_CONTENT]", "[/TOOL_RESULTS]"]
    assert f'"id": "{reply.tool_calls[0].id}"' in rendered["prompt"]
    assert rendered["prompt"].endswith(f"[TOOL_RESULTS] {reply.tool_calls[0].id}[TOOL_CONTENT] Rain.[/TOOL_RESULTS]")
    count = http.post("/tokenize", json={"messages": messages, "tools": TOOLS}).json()
    assert count["tokens"] == rendered["token_ids"]


def test_the_model_decides_where_nothing_is_forced(client):
    """The tiny model was never shown a tool: its text is text. With a bias it calls."""
    plain = ask(client, max_tokens=20).choices[0]
    assert plain.message.tool_calls is None and plain.message.content and plain.finish_reason in ("stop", "length")
    biased = ask(client, max_tokens=20, logit_bias={"5": 100}, temperature=0).choices[0]
    assert biased.message.tool_calls is None  # one list after another, each without a call


def test_strict_and_no_parallel_calls_hold_where_the_model_decides(client):
    """The bias makes it call, right away; behind the token the form holds."""
    strict = [{"type": "function", "function": {**TOOLS[0]["function"], "strict": True}}]
    for options in ({"tools": strict}, {"tools": strict, "parallel_tool_calls": False}):
        for seed in range(3):
            choice = ask(client, seed=seed, logit_bias={"5": 100}, **options).choices[0]
            calls = choice.message.tool_calls
            if choice.finish_reason == "length":  # in the middle of one
                assert "parallel_tool_calls" not in options
                calls.pop()
            for call in calls:
                jsonschema.validate(json.loads(call.function.arguments), WEATHER)
            assert len(calls) == 1 or "parallel_tool_calls" not in options
    free = ask(client, tools=strict, max_tokens=20).choices[0]
    assert free.message.content and free.message.tool_calls is None


def test_none_shows_the_tools_and_never_calls(client, http):
    banned = ask(client, tool_choice="none", logit_bias={"5": 100}, temperature=0, max_tokens=20)
    free = ask(client, tool_choice="none", temperature=0, max_tokens=20)
    assert banned.choices[0].message.content == free.choices[0].message.content
    def shown(choice):
        return http.post("/v1/chat/completions/render",
                         json={"messages": USER, "tools": TOOLS, "tool_choice": choice}).json()["token_ids"]
    assert shown("none") == shown("auto") == shown("required")[:-1]


def test_malformed_calls_are_content_and_named(http):
    """The token for calls, wherever a bias makes it come, and then the model's own prose."""
    body = {"messages": USER, "tools": TOOLS, "max_tokens": 60}

    def ask(bias, seed, **more):
        reply = http.post("/v1/chat/completions", json={**body, "logit_bias": {"5": bias}, "seed": seed, **more})
        assert reply.status_code == 200
        return reply

    for bias, seed in ((bias, seed) for bias in range(10, 40, 2) for seed in range(3)):
        whole = ask(bias, seed).json()
        if "warnings" in whole:
            break
    else:
        pytest.fail("no bias made a malformed call")
    choice = whole["choices"][0]
    assert [w["field"] for w in whole["warnings"]] == ["tool_calls"] and "malformed" in whole["warnings"][0]["message"]
    assert choice["finish_reason"] == "stop" and "tool_calls" not in choice["message"]
    assert choice["message"]["content"]
    lines = [line[6:] for line in ask(bias, seed, stream=True).text.split("\n") if line.startswith("data: {")]
    chunks = [json.loads(line) for line in lines]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert "".join(delta.get("content", "") for delta in deltas) == choice["message"]["content"]
    assert chunks[-1]["warnings"] == whole["warnings"]


@pytest.mark.parametrize("seed", range(3))
def test_thoughts_come_first(client, seed):
    """The budget closes the block; behind it the call is made to come."""
    thinking = {"extra_body": {"thinking": {"preset": "creative", "budget_tokens": 12}}}
    choice = ask(client, seed=seed, tool_choice=NAMED, **thinking).choices[0]
    assert choice.message.reasoning_content and not choice.message.content
    check(choice)
    content, reasoning, name, arguments = "", "", "", ""
    for chunk in ask(client, seed=seed, tool_choice=NAMED, stream=True, **thinking):
        delta = chunk.choices[0].delta
        content += delta.content or ""
        reasoning += getattr(delta, "reasoning_content", None) or ""
        for call in delta.tool_calls or ():
            name += call.function.name or ""
            arguments += call.function.arguments
    assert (content, reasoning) == ("", choice.message.reasoning_content)
    assert [name, arguments] == [choice.message.tool_calls[0].function.name,
                                 choice.message.tool_calls[0].function.arguments]


def test_a_thought_that_ends_by_itself_is_followed_by_the_call(client):
    thinking = {"extra_body": {"thinking": {"prefill": "so"}}}
    ended = 0
    for seed in range(12):
        choice = ask(client, seed=seed, tool_choice=NAMED, **thinking).choices[0]
        if choice.finish_reason == "tool_calls":
            check(choice)
            ended += 1
        if ended == 2:
            break
    assert ended == 2


def test_a_prefill_is_content_in_front_of_the_call(client, http):
    messages = [*USER, {"role": "assistant", "content": "Let me look."}]
    rendered = http.post("/v1/chat/completions/render", json={
        "messages": messages, "tools": TOOLS, "tool_choice": NAMED}).json()
    assert rendered["prompt"].endswith("[/INST] Let me look.[TOOL_CALLS]")
    check(ask(client, messages, tool_choice=NAMED).choices[0])


def test_ids_of_other_servers_are_taken(client, http):
    messages = [*USER, {"role": "assistant", "content": None, "tool_calls": [
        {"id": "call_abc", "type": "function", "function": {"name": "get_time", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "call_abc", "content": "Noon."}]
    reply = ask(client, messages, max_tokens=3)
    assert [w["field"] for w in reply.warnings] == ["messages[1].tool_calls[0].id", "messages[2].tool_call_id"]


@pytest.mark.parametrize("options, param", [
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {
        "type": "object", "properties": {"a": {"type": "integer", "multipleOf": 2}}}}}],
      "tool_choice": "required"}, "tools"),
    ({"tool_choice": {"type": "function", "function": {"name": "h"}}}, "tool_choice.function.name"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"messages": [*USER, {"role": "tool", "tool_call_id": "a", "content": "x"}]}, "messages[1].tool_call_id"),
    ({"functions": [{"name": "f"}]}, "functions"),
])
def test_what_cannot_be_is_a_400_that_names_the_field(client, options, param):
    extra = {"extra_body": {"functions": options.pop("functions")}} if "functions" in options else {}
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, **{**options, **extra})
    assert refused.value.body["param"] == param, refused.value.body
