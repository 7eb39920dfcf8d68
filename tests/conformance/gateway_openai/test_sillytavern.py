"""SillyTavern's backends: its requests go in, what its code reads of the replies must be there.

sillytavern/*.json: one backend each, calls and fields as spec model.md 4.2 and 4.3 list them (its
release 1.12.12) with the neutral preset; written from that list, not recorded. Replies are read as
src/endpoints/backends/{text,chat}-completions.js and public/scripts/textgen-settings.js read them.
"""

import json
from pathlib import Path

import pytest

BACKENDS = {path.stem: json.loads(path.read_text())
            for path in sorted((Path(__file__).parent / "sillytavern").glob("*.json"))}
EVERY = pytest.mark.parametrize("name", BACKENDS)
# What a role-play user turns on, as far as the backend's request has the field.
ROLE_PLAY = {
    "temperature": 1, "top_p": 0.95, "typical_p": 0.98, "typical": 0.98, "min_p": 0.02,
    "repetition_penalty": 1.1, "rep_pen": 1.1, "repeat_penalty": 1.1, "presence_penalty": 0.1,
    "frequency_penalty": 0.1, "top_k": 200, "dynamic_temperature": True, "dynatemp_low": 0.5,
    "dynatemp_high": 1.5, "dynatemp_min": 0.5, "dynatemp_max": 1.5, "dynatemp_range": 0.5,
    "smoothing_factor": 0.2, "dry_multiplier": 0.8, "xtc_probability": 0.5, "nsigma": 3,
    "temperature_last": True, "ban_eos_token": True, "custom_token_bans": "7", "min_tokens": 3,
    "banned_strings": ["the", "Thou art"], "logit_bias": {"9": -5}}
PRESETS = pytest.mark.parametrize("preset", [{}, ROLE_PLAY], ids=["neutral", "role_play"])
TOKENIZING = pytest.mark.parametrize("name", [name for name in BACKENDS
                                              if BACKENDS[name]["tokenize"]])


def text_of(reply):
    """`extractMessageFromData`, and the same of a stream's objects."""
    if not reply.get("choices"):
        return reply.get("content", "")
    choice = reply["choices"][0]
    said = choice.get("delta") or choice.get("message") or choice
    return said.get("content") or said.get("text") or ""


def tokens_of(reply):
    """`parseTextgenLogprobs` and its chat sibling: each token with its alternatives."""
    if "completion_probabilities" in reply:
        return [(one["token"], {top["token"]: top["logprob"] for top in one["top_logprobs"]})
                for one in reply["completion_probabilities"]]
    if not reply.get("choices") or not (logprobs := reply["choices"][0].get("logprobs")):
        return []
    if "content" in logprobs:
        return [(one["token"], {top["token"]: top["logprob"] for top in one["top_logprobs"]})
                for one in logprobs["content"]]
    return list(zip(logprobs["tokens"], logprobs["top_logprobs"], strict=True))


def body_of(name, preset):
    body = dict(BACKENDS[name]["body"])
    body |= {key: value for key, value in preset.items() if key in body}
    if isinstance(BACKENDS[name]["body"].get("custom_token_bans"), list):  # aphrodite's is ids
        body["custom_token_bans"] = [7]
    return body


def events_of(http, path, body):
    reply = http.post(path, json={**body, "stream": True})
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("text/event-stream")
    lines = [line[6:] for line in reply.text.split("\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def at(value, path):
    for step in path.split("."):
        value = value[int(step)] if step.isdigit() else value[step]
    return value


@EVERY
def test_it_connects(http, name):
    for path, read in BACKENDS[name]["status"]:
        reply = http.get(path)
        assert reply.status_code == 200, f"{path}: {reply.text}"
        assert at(reply.json(), read), f"{path}: no {read}"


@EVERY
@PRESETS
def test_it_generates_and_is_told_of_all_that_was_not_done(http, name, preset):
    backend = BACKENDS[name]
    reply = http.post(backend["generate"], json=body_of(name, preset))
    assert reply.status_code == 200, reply.text
    whole = reply.json()
    assert text_of(whole)
    warned = backend["warned"] + ([] if preset else backend.get("warned_neutral", []))
    assert sorted(one["field"] for one in whole.get("warnings", [])) == sorted(warned)


@EVERY
@PRESETS
def test_its_stream_is_its_reply(http, name, preset):
    backend, body = BACKENDS[name], body_of(name, preset)
    whole = http.post(backend["generate"], json=body).json()
    events = events_of(http, backend["generate"], body)
    assert "".join(map(text_of, events)) == text_of(whole)
    streamed = [token for event in events for token in tokens_of(event)]
    assert streamed == tokens_of(whole)
    assert streamed and all(len(top) >= 5 for _, top in streamed)


@EVERY
def test_its_stops_stop(http, name):
    backend = BACKENDS[name]
    body = {**backend["body"], "ignore_eos": True}
    text = text_of(http.post(backend["generate"], json=body).json())
    stop = text[4:7]
    names = [field for field in ("stop", "stopping_strings") if field in body]
    for stops in ([stop], [*body["stop"], stop][-4:]):
        asked = {**body, **dict.fromkeys(names, stops)}
        stopped = http.post(backend["generate"], json=asked).json()
        assert text_of(stopped) == text[:text.index(stop)]
        reason = stopped["choices"][0]["stop_reason"] if "choices" in stopped else \
            stopped["stopping_word"]
        assert reason == stop


@TOKENIZING
def test_it_counts_tokens(http, name):
    """`count` and `ids` as src/endpoints/tokenizers.js picks them out of each server's reply."""
    ask = BACKENDS[name]["tokenize"]
    text = "Who art thou? [INST] é😀"
    reply = http.post(ask["path"], json={**ask["body"], ask["text"]: text}).json()
    count = next(reply[key] for key in ("length", "count", "value") if key in reply)
    ids = reply.get("tokens", reply.get("ids"))
    expected = http.post("/tokenize", json={"prompt": text,
                                            "add_special_tokens": ask["special"]}).json()["tokens"]
    assert (count, ids) == (len(expected), expected)
    assert "warnings" not in reply
