"""Structured output through the official client: the text has its form, or the request is a 400."""

import json
import re

import jsonschema
import openai
import pytest

USER = [{"role": "user", "content": "Who art thou?"}]
PERSON = {"type": "object", "properties": {
    "name": {"type": "string", "maxLength": 12},
    "age": {"type": "integer", "minimum": 0, "maximum": 120},
    "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2}},
    "required": ["name", "age"]}


def ask(client, seed=1, **options):
    options = {"model": "tiny", "temperature": 1, "max_tokens": 400, "seed": seed, **options}
    return client.chat.completions.create(messages=USER, **options).choices[0]


def named(schema, strict=True):
    return {"type": "json_schema", "json_schema": {"name": "it", "schema": schema, "strict": strict}}


@pytest.mark.parametrize("seed", range(5))
def test_a_schema_is_kept(client, seed):
    choice = ask(client, seed, response_format=named(PERSON))
    assert choice.finish_reason == "stop"
    jsonschema.validate(json.loads(choice.message.content), PERSON)


def test_streaming_is_not_streaming_and_ends_by_itself(client):
    options = {"model": "tiny", "temperature": 1, "max_tokens": 400, "seed": 3,
               "response_format": named(PERSON)}
    whole = client.chat.completions.create(messages=USER, **options).choices[0]
    chunks = list(client.chat.completions.create(messages=USER, stream=True, **options))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"


def test_each_of_n_has_the_form(client):
    reply = client.chat.completions.create(
        messages=USER, model="tiny", temperature=1, max_tokens=400, n=3, seed=5,
        response_format=named(PERSON))
    for choice in reply.choices:
        jsonschema.validate(json.loads(choice.message.content), PERSON)
    assert len({choice.message.content for choice in reply.choices}) > 1


def test_every_field_that_asks_for_a_form(client):
    integer = {"type": "integer", "minimum": 5, "maximum": 8}
    for extra in ({"guided_json": integer}, {"guided_json": json.dumps(integer)},
                  {"json_schema": integer}, {"structured_outputs": {"json": integer}}):
        assert 5 <= int(ask(client, extra_body=extra).message.content) <= 8
    for extra in ({"guided_regex": "[a-f]{3}-\\d"}, {"structured_outputs": {"regex": "[a-f]{3}-\\d"}}):
        assert re.fullmatch(r"[a-f]{3}-\d", ask(client, extra_body=extra).message.content)
    choices = ["yes", "no \"or\" yes", "né\n"]
    for extra in ({"guided_choice": choices}, {"structured_outputs": {"choice": choices}}):
        assert ask(client, extra_body=extra).message.content in choices
    grammar = 'root ::= "[" ("x" | "y"){2,4} "]"'
    for name in ("guided_grammar", "grammar", "grammar_string"):
        assert re.fullmatch(r"\[[xy]{2,4}\]", ask(client, extra_body={name: grammar}).message.content)
    choice = ask(client, response_format={"type": "json_object"})
    assert choice.finish_reason == "length" or isinstance(json.loads(choice.message.content), dict)


def test_the_form_comes_behind_the_thoughts(client):
    """The budget closes the block: from there on the text has the form."""
    reply = ask(client, response_format=named(PERSON), extra_body={
        "thinking": {"preset": "creative", "budget_tokens": 12}})
    assert reply.message.reasoning_content
    jsonschema.validate(json.loads(reply.message.content), PERSON)


@pytest.mark.parametrize("options, param", [
    ({"response_format": named({"type": "integer", "multipleOf": 2})},
     "response_format.json_schema.schema"),
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"extra_body": {"guided_regex": "(a"}}, "guided_regex"),
    ({"extra_body": {"guided_regex": "((a{1,999}){1,999}){1,999}"}}, "guided_regex"),
    ({"extra_body": {"guided_choice": []}}, None),
    ({"extra_body": {"guided_choice": [1]}}, "guided_choice"),
    ({"extra_body": {"grammar_string": "root ::= nothing"}}, "grammar_string"),
    ({"extra_body": {"structured_outputs": {"shape": 1}}}, "structured_outputs.shape"),
    ({"extra_body": {"guided_regex": "a", "grammar": 'root ::= "a"'}}, "grammar"),
])
def test_what_cannot_be_is_a_400_that_names_the_field(client, options, param):
    if param is None:  # an empty list asks for nothing
        assert ask(client, max_tokens=3, **options).finish_reason == "length"
        return
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, **options)
    assert refused.value.body["param"] == param, refused.value.body
