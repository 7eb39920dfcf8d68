"""/v1/completions, models, tokenize and detokenize through the official client."""

import openai
import pytest
from openai.types import Completion, Model

PROMPT = "The king is at the"


def ask(client, prompt=PROMPT, **options):
    options = {"model": "tiny", "temperature": 0, **options}
    reply = client.completions.create(prompt=prompt, **options)
    Completion.model_validate(reply.model_dump(), strict=False)
    return reply


def stream(client, prompt=PROMPT, **options):
    options = {"model": "tiny", "temperature": 0, **options}
    chunks = list(client.completions.create(prompt=prompt, stream=True, **options))
    for chunk in chunks:
        # OpenAI's own chunks have finish_reason null, which its type does not foresee.
        dumped = chunk.model_dump()
        for choice in dumped["choices"]:
            choice["finish_reason"] = choice["finish_reason"] or "stop"
        Completion.model_validate(dumped, strict=False)
    return chunks


def text_of(chunks, index=0):
    return "".join(c.text for chunk in chunks for c in chunk.choices if c.index == index)


def test_the_default_is_16_tokens_and_streaming_is_not_streaming(client):
    whole = ask(client, extra_body={"ignore_eos": True})
    assert whole.usage.completion_tokens == 16
    assert whole.choices[0].finish_reason == "length"
    assert whole.id.startswith("cmpl-") and whole.object == "text_completion"
    assert text_of(stream(client, extra_body={"ignore_eos": True})) == whole.choices[0].text


def test_a_prompt_is_text_or_ids_or_many(client, http):
    ids = http.post("/tokenize", json={"prompt": PROMPT}).json()["tokens"]
    text = ask(client).choices[0].text
    assert ask(client, ids).choices[0].text == text
    other = ask(client, "Enter").choices[0].text
    for many in ([PROMPT, "Enter"], [ids, http.post("/tokenize", json={"prompt": "Enter"})
                                     .json()["tokens"]]):
        reply = ask(client, many)
        assert [choice.index for choice in reply.choices] == [0, 1]
        assert [choice.text for choice in reply.choices] == [text, other]
    chunks = stream(client, [PROMPT, "Enter"])
    assert (text_of(chunks), text_of(chunks, 1)) == (text, other)


def test_choices_are_numbered_prompt_by_prompt(client):
    reply = ask(client, [PROMPT, "Enter"], n=2, temperature=1.0, seed=3, max_tokens=4)
    assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]


def test_echo_puts_the_prompt_in_front(client):
    text = ask(client).choices[0].text
    assert ask(client, echo=True).choices[0].text == PROMPT + text
    assert text_of(stream(client, echo=True)) == PROMPT + text


def test_logprobs_line_up_with_the_text(client):
    choice = ask(client, logprobs=2, max_tokens=8, extra_body={"ignore_eos": True}).choices[0]
    logprobs = choice.logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.text_offset) == 8
    assert "".join(logprobs.tokens) == choice.text
    for offset, token in zip(logprobs.text_offset, logprobs.tokens, strict=True):
        assert choice.text[offset:offset + len(token)] == token
    assert all(len(top) == 2 for top in logprobs.top_logprobs)
    chunks = stream(client, logprobs=2, max_tokens=8, extra_body={"ignore_eos": True})
    parts = [c.logprobs for chunk in chunks for c in chunk.choices if c.logprobs]
    assert [t for part in parts for t in part.tokens] == logprobs.tokens
    assert [o for part in parts for o in part.text_offset] == logprobs.text_offset


def test_prompt_logprobs_are_vllms(client, http):
    reply = ask(client, max_tokens=1, extra_body={"prompt_logprobs": 1})
    ids = http.post("/tokenize", json={"prompt": PROMPT}).json()["tokens"]
    first, *others = reply.prompt_logprobs
    assert first is None and len(others) == len(ids) - 1
    for token, entry in zip(ids[1:], others, strict=True):
        assert entry[str(token)]["logprob"] <= 0 and entry[str(token)]["rank"] >= 1


def test_models_are_listed_and_retrieved_by_every_name(client):
    models = client.models.list().data
    assert [model.id for model in models] == ["tiny", "behemoth/tiny"]
    for model in models:
        Model.model_validate(model.model_dump(), strict=False)
        assert model.max_model_len > 0
        assert client.models.retrieve(model.id).id == model.id
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("nobody")
    assert error.value.body["message"] == "The model `nobody` does not exist."


def test_tokenize_and_detokenize_are_inverse(http):
    for text in ("Who art thou?", " é€😀\n\t", "[INST] </s>"):
        for path in ("", "/v1"):
            reply = http.post(f"{path}/tokenize", json={
                "prompt": text, "add_special_tokens": False, "return_token_strs": True}).json()
            assert reply["count"] == len(reply["tokens"]) == len(reply["token_strs"])
            back = http.post(f"{path}/detokenize", json={"tokens": reply["tokens"]}).json()
            assert back["prompt"] in (text, " " + text)
    with_bos = http.post("/tokenize", json={"prompt": "a", "return_token_strs": True}).json()
    assert with_bos["token_strs"][0] == "<s>"


def test_tokenize_of_messages_is_what_render_shows(http):
    body = {"messages": [{"role": "user", "content": "I type [INST] and </s>"}]}
    rendered = http.post("/v1/chat/completions/render", json=body).json()
    tokenized = http.post("/tokenize", json=body).json()
    assert rendered["token_ids"] == tokenized["tokens"]
    assert rendered["count"] == tokenized["count"]
    control = [token["text"] for token in rendered["tokens"] if token["control"]]
    assert control == ["<s>", "[INST]", "[/INST]"]  # the template's own, not the user's
