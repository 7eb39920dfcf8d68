"""What SillyTavern's text backends ask of the servers that it knows (spec model.md 4.3)."""

import json

import httpx
import pytest


def count_of(reply):
    """As SillyTavern reads a token count."""
    tokens = reply.get("tokens")
    return (reply.get("length") or reply.get("count") or reply.get("value")
            or (len(tokens) if tokens else 0))


@pytest.mark.parametrize("route, body", [
    ("/tokenize", {"model": "tiny", "prompt": "Hello there"}),      # vllm
    ("/v1/tokenize", {"model": "tiny", "prompt": "Hello there"}),   # aphrodite
    ("/v1/token/encode", {"text": "Hello there"}),                  # tabby
    ("/v1/internal/encode", {"text": "Hello there"}),               # text-generation-webui
    ("/api/extra/tokencount", {"prompt": "Hello there"}),           # koboldcpp
    ("/tokenize", {"content": "Hello there", "add_special": True}),  # llama.cpp
])
def test_every_token_count_is_the_same(http, route, body):
    expected = http.post("/tokenize", json={"prompt": "Hello there"}).json()["tokens"]
    reply = http.post(route, json=body)
    assert reply.status_code == 200, reply.text
    reply = reply.json()
    assert "warnings" not in reply
    assert count_of(reply) == len(expected)
    assert (reply.get("tokens") or reply.get("ids")) == expected


def test_tabby_decodes(http):
    ids = http.post("/v1/token/encode", json={"text": "Hello", "add_bos_token": False}).json()
    assert http.post("/v1/token/decode", json={"tokens": ids["tokens"]}).json()["text"].strip() \
        == "Hello"


def test_models_as_each_client_reads_them(http):
    first = http.get("/v1/models").json()["data"][0]["id"]
    assert first == "tiny"
    assert http.get("/v1/model/list").json()["data"][0]["id"] == first
    model = http.get("/v1/model").json()
    assert model["id"] == first and model["parameters"]["max_seq_len"] == 1024
    assert http.get("/v1/internal/model/info").json() == {"model_name": first, "lora_names": []}
    props = http.get("/props").json()
    assert props["default_generation_settings"]["n_ctx"] == 1024
    assert props["model_alias"] == first
    assert "[INST]" in props["chat_template"]
    assert props["bos_token"] == "<s>" and props["eos_token"] == "</s>"


def test_llama_completion(http):
    body = {"prompt": "Once upon a time", "n_predict": 12, "seed": 4, "cache_prompt": True,
            "n_probs": 3, "logit_bias": [[5, -1.0], [6, False]], "samplers": ["top_k", "temperature"]}
    plain = http.post("/v1/completions", json=body).json()
    whole = http.post("/completion", json=body).json()
    assert whole["content"] == plain["choices"][0]["text"] and whole["stop"] is True
    assert whole["stop_type"] == "limit" and whole["tokens_predicted"] == 12
    assert whole["tokens_evaluated"] == plain["usage"]["prompt_tokens"]
    first = whole["completion_probabilities"][0]
    assert len(whole["completion_probabilities"]) == 12 and len(first["top_logprobs"]) == 3
    assert {"id", "token", "bytes", "logprob"} <= first.keys()
    text, probabilities, ends = "", [], []
    with http.stream("POST", "/completion", json=body | {"stream": True}) as reply:
        for line in reply.iter_lines():
            if line.startswith("data: "):
                chunk = json.loads(line[6:])
                text += chunk["content"]
                probabilities += chunk.get("completion_probabilities", [])
                ends.append(chunk["stop"])
    assert text == whole["content"] and probabilities == whole["completion_probabilities"]
    assert ends[-1] and not any(ends[:-1])
    assert http.post("/completion", json=body | {"n": 2}).status_code == 400
    apart = body | {"include_reasoning": True}
    reply = http.post("/completion", json=apart).json()
    assert [w["field"] for w in reply["warnings"]] == ["reasoning_format"]
    strict = http.post("/completion", json=apart, headers={"Prefer": "handling=strict"})
    assert strict.status_code == 400 and strict.json()["error"]["param"] == "reasoning_format"
    stopped = http.post("/completion", json=body | {"stop": [text[4:6]]}).json()
    assert stopped["stop_type"] == "word" and stopped["stopping_word"] == text[4:6]


def test_the_doors_ask_for_the_key(locked_gateway):
    for method, route in [("GET", "/v1/model"), ("GET", "/v1/model/list"), ("GET", "/props"),
                          ("GET", "/v1/internal/model/info"), ("POST", "/v1/token/encode"),
                          ("POST", "/v1/token/decode"), ("POST", "/v1/internal/encode"),
                          ("POST", "/api/extra/tokencount"), ("POST", "/completion")]:
        reply = httpx.request(method, locked_gateway + route)
        assert reply.status_code == 401, route
