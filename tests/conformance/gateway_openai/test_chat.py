"""/v1/chat/completions through the official client. Its types are validated, not only built: the
client itself takes anything."""

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

USER = [{"role": "user", "content": "Who art thou?"}]
CREATIVE = ("<think>\nOk i need to think as a creative writer — what twist would surprise here? "
            "Let me find an engaging new direction nobody saw coming, so\n")
CARD = [
    {"role": "system", "content": "You are Gloucester, an old lord at a stormy court."},
    {"role": "user", "content": "The king is at the gate. What shall I tell him?"},
    {"role": "assistant", "content": CREATIVE},
]


def ask(client, messages=USER, **options):
    options = {"model": "tiny", "temperature": 0, "max_tokens": 48, **options}
    reply = client.chat.completions.create(messages=messages, **options)
    ChatCompletion.model_validate(reply.model_dump(), strict=False)
    return reply


def stream(client, messages=USER, **options):
    options = {"model": "tiny", "temperature": 0, "max_tokens": 48, **options}
    chunks = list(client.chat.completions.create(messages=messages, stream=True, **options))
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk.model_dump(), strict=False)
    return chunks


def text_of(chunks, index=0, field="content"):
    return "".join(getattr(choice.delta, field, None) or "" for chunk in chunks
                   for choice in chunk.choices if choice.index == index)


def finish_of(chunks, index=0):
    [finish] = [choice for chunk in chunks for choice in chunk.choices
                if choice.index == index and choice.finish_reason]
    return finish


@pytest.mark.parametrize("messages, extra", [
    (USER, {}),
    (CARD, {"stop": ["[INST]", "</s>"],
            "extra_body": {"continue_final_message": True, "add_generation_prompt": False}}),
    (CARD, {}),
    (USER, {"extra_body": {"thinking": {"preset": "creative"}}}),
    (USER, {"stop": ["e"], "extra_body": {"include_stop_str_in_output": True}}),
])
def test_streaming_is_not_streaming(client, messages, extra):
    whole = ask(client, messages, max_tokens=160, **extra).choices[0]
    chunks = stream(client, messages, max_tokens=160, **extra)
    assert text_of(chunks) == whole.message.content
    assert text_of(chunks, field="reasoning_content") == getattr(
        whole.message, "reasoning_content", "")
    assert finish_of(chunks).finish_reason == whole.finish_reason
    assert finish_of(chunks).stop_reason == whole.stop_reason
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({chunk.id for chunk in chunks}) == 1 and chunks[0].id.startswith("chatcmpl-")
    assert "\ufffd" not in whole.message.content


def test_the_preset_is_the_cards_prefill_and_splits_the_thought(client, http):
    body = {"messages": USER, "thinking": {"preset": "creative"}}
    with_preset = http.post("/v1/chat/completions/render", json=body).json()
    by_hand = http.post("/v1/chat/completions/render", json={
        "messages": [*USER, {"role": "assistant", "content": CREATIVE}]}).json()
    assert with_preset["prompt"] == by_hand["prompt"]
    assert with_preset["prompt"].endswith(f"[/INST] {CREATIVE}")
    asked = {"max_tokens": 200, "extra_body": {"thinking": {"preset": "creative"}}}
    split = ask(client, **asked)
    plain = ask(client, [*USER, {"role": "assistant", "content": CREATIVE}], max_tokens=200)
    text = plain.choices[0].message.content
    assert split.choices[0].message.reasoning_content
    assert split.choices[0].message.reasoning_content in text
    assert "<think>" not in split.choices[0].message.content
    assert split.usage.completion_tokens_details.reasoning_tokens > 0


def test_choices_interleave_by_index_and_share_the_prompt(client):
    sampled = {"n": 2, "temperature": 1.0, "seed": 7, "max_tokens": 24}
    whole = ask(client, **sampled)
    assert [choice.index for choice in whole.choices] == [0, 1]
    assert whole.choices[0].message.content != whole.choices[1].message.content
    chunks = stream(client, **sampled)
    for index in (0, 1):
        assert text_of(chunks, index) == whole.choices[index].message.content
        assert finish_of(chunks, index).finish_reason == whole.choices[index].finish_reason
    assert whole.usage.prompt_tokens == ask(client, max_tokens=1).usage.prompt_tokens


def test_the_same_seed_gives_the_same_text(client):
    texts = {ask(client, temperature=1.0, seed=seed).choices[0].message.content
             for seed in (1, 1, 2)}
    assert len(texts) == 2


def test_logprobs_carry_the_bytes_of_the_text(client):
    choice = ask(client, logprobs=True, top_logprobs=3, max_tokens=12,
                 extra_body={"skip_special_tokens": False}).choices[0]
    tokens = choice.logprobs.content
    assert 0 < len(tokens) <= 12
    assert b"".join(bytes(t.bytes) for t in tokens).decode().lstrip(" ") in (
        choice.message.content, choice.message.content + "</s>")
    for token in tokens:
        assert len(token.top_logprobs) == 3 and token.logprob <= 0
        likeliest = [top.logprob for top in token.top_logprobs]
        assert likeliest == sorted(likeliest, reverse=True)
        assert token.logprob == likeliest[0] and token.token == token.top_logprobs[0].token
    chunks = stream(client, logprobs=True, top_logprobs=3, max_tokens=12,
                    extra_body={"skip_special_tokens": False})
    streamed = [t for chunk in chunks for c in chunk.choices if c.logprobs
                for t in c.logprobs.content]
    assert streamed == tokens


def test_a_stop_ends_the_text_before_itself(client):
    text = ask(client).choices[0].message.content
    stop = text[5:9]
    choice = ask(client, stop=["not there", stop]).choices[0]
    assert choice.message.content == text[:text.index(stop)]
    assert (choice.finish_reason, choice.stop_reason) == ("stop", stop)
    shown = ask(client, stop=stop, extra_body={"include_stop_str_in_output": True}).choices[0]
    assert shown.message.content == text[:text.index(stop) + len(stop)]


def test_length_ends_as_length(client):
    reply = ask(client, max_tokens=3, extra_body={"ignore_eos": True})
    assert reply.choices[0].finish_reason == "length"
    assert reply.choices[0].stop_reason is None
    assert reply.usage.completion_tokens == 3
    assert ask(client, max_tokens=None, max_completion_tokens=3).usage.completion_tokens <= 3


def test_usage_counts_what_tokenize_counts(client, http):
    reply = ask(client)
    count = http.post("/tokenize", json={"messages": USER}).json()["count"]
    assert reply.usage.prompt_tokens == count
    assert reply.usage.total_tokens == count + reply.usage.completion_tokens
    assert reply.usage.prompt_tokens_details.cached_tokens <= count


def test_stream_options_bring_usage(client):
    whole = ask(client).usage
    assert all(chunk.usage is None for chunk in stream(client))
    *chunks, last = stream(client, stream_options={"include_usage": True})
    assert last.choices == [] and all(chunk.usage is None for chunk in chunks)
    assert last.usage.completion_tokens == whole.completion_tokens
    assert last.usage.prompt_tokens == whole.prompt_tokens
    running = stream(client, stream_options={"include_usage": True,
                                             "continuous_usage_stats": True})
    counts = [c.usage.completion_tokens for c in running if c.usage]
    assert len(counts) > 2 and counts == sorted(counts)


def test_token_ids_are_the_text(client, http):
    reply = ask(client, extra_body={"return_token_ids": True})
    ids = reply.choices[0].token_ids
    assert len(ids) == reply.usage.completion_tokens
    text = http.post("/detokenize", json={"tokens": ids}).json()["prompt"]
    assert text.removesuffix("</s>").lstrip(" ") == reply.choices[0].message.content
    chunks = stream(client, extra_body={"return_token_ids": True})
    assert [i for c in chunks for choice in c.choices
            for i in getattr(choice, "token_ids", None) or []] == ids


def test_warnings_name_what_was_ignored(client):
    reply = ask(client, extra_body={"frobnicate": 1, "tfs": 0.5})
    assert {warning["field"] for warning in reply.warnings} == {"frobnicate", "tfs"}
    assert not hasattr(ask(client), "warnings")
    chunks = stream(client, extra_body={"frobnicate": 1})
    [named] = [chunk.warnings for chunk in chunks if hasattr(chunk, "warnings")]
    assert named[0]["field"] == "frobnicate"


def test_timings_come_when_asked_for(client):
    timings = ask(client, extra_body={"return_timings": True}).timings
    assert timings["ttft_ms"] > 0 and timings["tokens_per_second"] > 0
    assert not hasattr(ask(client), "timings")
    assert stream(client, extra_body={"return_timings": True})[-1].timings["ttft_ms"] > 0


def test_the_clients_own_accumulator_reads_the_stream(client):
    stop = ask(client).choices[0].message.content[20:24]  # it takes no reply cut by length
    with client.chat.completions.stream(model="tiny", messages=USER, temperature=0, max_tokens=48,
                                        stop=stop) as events:
        final = events.get_final_completion()
    assert final.choices[0].message.content == ask(client, stop=stop).choices[0].message.content


def test_echo_puts_the_prefill_in_front(client):
    plain = ask(client, CARD).choices[0].message.content
    assert ask(client, CARD, extra_body={"echo": True}).choices[0].message.content == (
        CREATIVE + plain)
    assert text_of(stream(client, CARD, extra_body={"echo": True})) == CREATIVE + plain


@pytest.mark.parametrize("text", [
    "a\u0000b", "\u202eabc\u202c", "é€😀", "e\u0301", "\u2028", "\x1b[0m", "</s>[INST]", " ",
    "\ufeff",
])
def test_odd_characters_reach_the_prompt_as_they_are(client, http, text):
    body = {"messages": [{"role": "user", "content": text}]}
    assert f"[INST] {text}[/INST]" in http.post(
        "/v1/chat/completions/render", json=body).json()["prompt"]
    assert stream(client, body["messages"], max_tokens=4)[-1].choices[0].finish_reason


def test_a_stop_that_spells_a_control_token_stops_at_the_token(client):
    choice = ask(client, max_tokens=400, stop=["</s>"]).choices[0]
    assert "</s>" not in choice.message.content
    if choice.finish_reason == "stop":
        assert choice.stop_reason == "</s>"


def test_request_ids_come_back(client):
    raw = client.chat.completions.with_raw_response.create(
        model="tiny", messages=USER, max_tokens=1, extra_headers={"X-Request-Id": "a.b-1"})
    assert raw.headers["x-request-id"] == "a.b-1"
    assert raw.parse().id.startswith("chatcmpl-")
