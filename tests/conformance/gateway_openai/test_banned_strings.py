"""Banned strings on a real model: never shown, seeds reproducible, everything else as it was."""

import pytest

PROMPT = {"model": "tiny", "prompt": "Once upon a time", "max_tokens": 48, "temperature": 1}


def say(http, **more):
    reply = http.post("/v1/completions", json=PROMPT | more)
    assert reply.status_code == 200, reply.text
    return reply.json()


@pytest.mark.parametrize("seed", range(12))
def test_what_it_said_is_not_said_again(http, seed):
    free = say(http, seed=seed)["choices"][0]["text"]
    assert len(free) > 12
    at = next(i for i in range(8, len(free) - 3) if free[i:i + 3].isprintable())
    banned = free[at:at + 3]
    other = say(http, seed=seed, banned_strings=[banned.upper()])
    text = other["choices"][0]["text"]
    assert banned.casefold() not in text.casefold()
    # Up to the token in which it began nothing has changed: draws are keyed by position.
    first = free.casefold().find(banned.casefold())
    assert text[:max(0, first - 16)] == free[:max(0, first - 16)]
    assert other["usage"]["completion_tokens"] > 48, "what was taken back is counted"
    assert say(http, seed=seed, banned_strings=[banned.upper()])["choices"] == other["choices"]


def test_a_ban_that_does_not_occur_changes_nothing(http):
    free = say(http, seed=5)
    banned = say(http, seed=5, banned_strings=["no such words at all"])
    assert banned["choices"] == free["choices"]
    assert banned["usage"]["completion_tokens"] == free["usage"]["completion_tokens"]


def test_a_thinking_budget_is_exact(http):
    for budget in (1, 3, 7):
        reply = http.post("/v1/chat/completions", json={
            "model": "tiny", "messages": [{"role": "user", "content": "hi"}], "seed": 3,
            "max_tokens": 40, "thinking": {"preset": "creative", "budget_tokens": budget}}).json()
        free = http.post("/v1/chat/completions", json={
            "model": "tiny", "messages": [{"role": "user", "content": "hi"}], "seed": 3,
            "max_tokens": 40, "thinking": {"preset": "creative"}}).json()
        thought = reply["choices"][0]["message"]["reasoning_content"]
        assert free["choices"][0]["message"]["reasoning_content"].startswith(thought)
        assert reply["choices"][0]["message"]["content"], reply
        closing = len(http.post("/tokenize", json={
            "prompt": "\n</think>\n\n", "add_special_tokens": False}).json()["tokens"])
        reasoning = reply["usage"]["completion_tokens_details"]["reasoning_tokens"]
        assert budget < reasoning <= budget + closing, "the budget, and what closes the block"
