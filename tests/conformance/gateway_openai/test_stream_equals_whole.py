"""Streaming or not, a request has the same answer: text, reasoning, usage, ends, logprobs, ids.

BEHEMOTH_STREAM_REQUESTS says how many random requests; 1,000 is the long run.
"""

import concurrent.futures
import json
import os
import random

import pytest

COUNT = int(os.environ.get("BEHEMOTH_STREAM_REQUESTS", "120"))
WORDS = ["the", "She", "looked", "Éowyn", "—", "🙂", "naïve", "\n", "“yes”", "a b", "</think>",
         "<think>", "Σίσυφος", "one two three", "I", ".", "?"]


def request_of(seed):
    """(route, body), the same for the same seed. Every draw of the model's has a seed too."""
    dice = random.Random(seed)
    text = lambda most: " ".join(dice.choices(WORDS, k=dice.randint(1, most)))
    body = {"model": "tiny", "seed": dice.randrange(1 << 30), "max_tokens": dice.randint(1, 40),
            "temperature": dice.choice([0, 0.7, 1.3]), "n": dice.choice([1, 1, 1, 2, 3])}
    if dice.random() < 0.5:
        body["stop"] = dice.sample(["e", " t", "\n", "th", "</s>", "ing", "é", "the"], 2)
        body["include_stop_str_in_output"] = dice.random() < 0.3
        body["stop_scope"] = dice.choice(["all", "answer"])
    if dice.random() < 0.4:
        body["banned_strings"] = dice.sample(["a", "the", "E", " s", "é", "or", "ti"], 2)
    if dice.random() < 0.3:
        body["return_token_ids"] = True
    if dice.random() < 0.2:
        body["bad_words"] = ["the", "and"]
    if dice.random() < 0.2:
        body["ignore_eos"] = True
    if dice.random() < 0.3:
        body["echo"] = True
    body["reasoning_format"] = dice.choice(["none", "separate"])
    if dice.random() < 0.5:
        body["prompt"] = text(8) + dice.choice(["", "[INST] x[/INST] <think>\nOk", "<think> a"])
        if dice.random() < 0.4:
            body["logprobs"] = dice.randint(0, 5)
        return "/v1/completions", body
    body["messages"] = [{"role": "user", "content": text(8)}]
    if dice.random() < 0.3:
        body["messages"].append({"role": "assistant", "content": dice.choice(
            ["<think>\nOk", "<think>done</think> So", "She said", "é"])})
    elif dice.random() < 0.5:
        body["thinking"] = {"preset": "creative"}
        if dice.random() < 0.6:
            body["thinking"]["budget_tokens"] = dice.randint(1, 12)
    if dice.random() < 0.4:
        body |= {"logprobs": True, "top_logprobs": dice.randint(0, 3)}
    return "/v1/chat/completions", body


def whole(http, route, body):
    reply = http.post(route, json=body)
    assert reply.status_code == 200, reply.text
    reply = reply.json()
    choices = {}
    for choice in reply["choices"]:
        message = choice.get("message", choice)
        logprobs = choice["logprobs"] or {}
        choices[choice["index"]] = {
            "text": message.get("content", message.get("text")),
            "reasoning": message.get("reasoning_content", message.get("reasoning")) or "",
            "finish": choice["finish_reason"], "stop": choice["stop_reason"],
            "ids": choice.get("token_ids") or [],
            "logprobs": logprobs.get("content") or logprobs.get("token_logprobs") or [],
            "offsets": logprobs.get("text_offset") or []}
    return choices, reply["usage"], reply.get("warnings")


def streamed(http, route, body):
    choices, usage, warnings, done = {}, None, None, False
    body = body | {"stream": True, "stream_options": {"include_usage": True}}
    with http.stream("POST", route, json=body) as reply:
        assert reply.status_code == 200, reply.read()
        for line in reply.iter_lines():
            if not line.startswith("data: "):
                assert line == "" or line.startswith(":"), line
                continue
            assert not done
            if line == "data: [DONE]":
                done = True
                continue
            chunk = json.loads(line[6:])
            usage = chunk.get("usage") or usage
            warnings = chunk.get("warnings", warnings)
            for choice in chunk["choices"]:
                into = choices.setdefault(choice["index"], {
                    "text": "", "reasoning": "", "finish": None, "stop": None, "ids": [],
                    "logprobs": [], "offsets": []})
                delta = choice.get("delta", choice)
                into["text"] += delta.get("content") or delta.get("text") or ""
                into["reasoning"] += (delta.get("reasoning_content") or delta.get("reasoning")
                                      or "")
                into["ids"] += choice.get("token_ids") or []
                logprobs = choice["logprobs"] or {}
                into["logprobs"] += (logprobs.get("content") or logprobs.get("token_logprobs")
                                     or [])
                into["offsets"] += logprobs.get("text_offset") or []
                if choice["finish_reason"]:
                    assert into["finish"] is None, "an end comes once"
                    into["finish"], into["stop"] = choice["finish_reason"], choice["stop_reason"]
    assert done
    return choices, usage, warnings


@pytest.mark.parametrize("part", range(4))
def test_random_requests(http, part):
    def check(seed):
        route, body = request_of(seed)
        one, two = whole(http, route, body), streamed(http, route, body)
        for (index, a), b in zip(sorted(one[0].items()), (v for _, v in sorted(two[0].items()))):
            for key in ("text", "reasoning", "finish", "stop", "ids", "logprobs", "offsets"):
                assert a[key] == b[key], (seed, index, key, body)
        assert one[0].keys() == two[0].keys() == set(range(body["n"]))
        one[1].pop("prompt_tokens_details"), two[1].pop("prompt_tokens_details")  # the cache's
        assert one[1:] == two[1:], (seed, body)
        for choice in one[0].values():
            shown = choice["text"].casefold() if not body.get("echo") else ""
            for banned in body.get("banned_strings", []):
                assert banned.casefold() not in shown, (seed, body)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for _ in pool.map(check, range(part, COUNT, 4)):
            pass
