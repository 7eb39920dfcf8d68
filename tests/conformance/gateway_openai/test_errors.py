"""Each kind of refusal as the official client raises it, and as the bytes of spec api.md section 5.
Values out of range, of every field, at both doors: wrong_requests.py."""

import json

import openai
import pytest

from conftest import KEY

USER = [{"role": "user", "content": "Who art thou?"}]


def refused(client, kind, **options):
    options = {"model": "tiny", "messages": USER, "max_tokens": 4, **options}
    with pytest.raises(kind) as error:
        client.chat.completions.create(**options)
    return error.value


@pytest.mark.parametrize("options, param", [
    ({"temperature": -1}, "temperature"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "king", "content": "a"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/x.png"}}]}]},
     "messages[0].content[0]"),
    ({"tools": [{"type": "function", "function": {"name": "f g"}}]}, "tools[0].function.name"),
    ({"extra_body": {"thinking": {"preset": "nobody"}}}, "thinking"),
    ({"extra_body": {"no_repeat_ngram_size": 3}}, "no_repeat_ngram_size"),
    ({"extra_body": {"chat_template": "{{ 1 }}"}}, "chat_template"),
    ({"extra_body": {"add_generation_prompt": True, "continue_final_message": True}},
     "continue_final_message"),
    ({"extra_headers": {"Prefer": "handling=strict"}, "extra_body": {"frobnicate": 1}},
     "frobnicate"),
])
def test_a_bad_request_names_its_field(client, options, param):
    for stream in (False, True):
        error = refused(client, openai.BadRequestError, stream=stream, **options)
        assert error.status_code == 400
        assert error.body["type"] == "BadRequestError" and error.body["code"] == 400
        assert (error.body["param"] or "").startswith(param)


def test_the_template_refuses_in_its_own_words(client):
    error = refused(client, openai.BadRequestError, messages=[
        *USER, {"role": "developer", "content": "a"}])
    assert error.body["param"] == "messages"
    assert "Only user, system and assistant roles are supported!" in error.body["message"]


def test_a_prompt_over_the_context_says_which_limit_and_how_long(client):
    limit = client.models.retrieve("tiny").max_model_len
    long = [{"role": "user", "content": "king " * limit}]
    for options in ({"messages": long}, {"max_tokens": limit}):
        error = refused(client, openai.BadRequestError, **options)
        assert error.body["param"] == "input_tokens"
        assert error.body["code_name"] == "context_length_exceeded"
        assert str(limit) in error.body["message"]


def test_prompt_and_output_may_fill_the_context_to_the_last_token(client, http):
    limit = client.models.retrieve("tiny").max_model_len
    ids = http.post("/tokenize", json={"prompt": "king " * (2 * limit)}).json()["tokens"]
    for prompt, status in ((limit - 1, 200), (limit, 400)):
        reply = http.post("/v1/completions", json={"prompt": ids[:prompt], "max_tokens": 1})
        assert reply.status_code == status, reply.text


def test_an_unknown_model_is_not_found(client):
    error = refused(client, openai.NotFoundError, model="nobody")
    assert error.body == {"message": "The model `nobody` does not exist.", "type": "NotFoundError",
                          "param": "model", "code": 404}


def test_a_wrong_key_is_an_authentication_error(locked_gateway):
    wrong = openai.OpenAI(base_url=f"{locked_gateway}/v1", api_key="sk-wrong", max_retries=0)
    error = refused(wrong, openai.AuthenticationError)
    assert error.body["type"] == "AuthenticationError"
    assert "www-authenticate" in error.response.headers
    right = openai.OpenAI(base_url=f"{locked_gateway}/v1", api_key=KEY, max_retries=0)
    assert right.models.list().data[0].id == "tiny"


@pytest.mark.parametrize("path, body, code", [
    ("/v1/chat/completions", b"", 400),
    ("/v1/chat/completions", b"{\"messages\":", 400),
    ("/v1/chat/completions", b"[]", 400),
    ("/v1/chat/completions", b"{\"messages\":" + b"[" * 10000, 400),
    ("/v1/completions", b"{\"prompt\":\"\xff\"}", 400),
    ("/v1/completions", b"{\"prompt\":\"\\ud800\"}", 400),
    ("/v1/completions", b"{\"prompt\":\"a\",\"temperature\":NaN}", 400),
    ("/v1/completions", b"{\"prompt\":\"a\",\"temperature\":1e400}", 400),
    ("/tokenize", b"{}", 400),
    ("/detokenize", b"{\"tokens\":[99999999]}", 400),
    ("/v1/nothing", b"{}", 404),
    ("/v1/models", b"{}", 405),
])
def test_every_refusal_has_the_same_shape(http, path, body, code):
    reply = http.post(path, content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code == code
    error = json.loads(reply.content)["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["code"] == code
    assert reply.headers["content-type"].startswith("application/json")


def test_other_content_is_refused(http):
    body = b'{"prompt":"a"}'
    for headers in ({"Content-Type": "text/plain"},
                    {"Content-Type": "application/json", "Content-Encoding": "gzip"}):
        assert http.post("/v1/completions", content=body, headers=headers).status_code == 415
