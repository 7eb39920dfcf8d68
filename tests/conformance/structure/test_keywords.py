"""No keyword of JSON Schema is passed over: each that the standard's own metaschemas name is enforced,
refused by name, or an annotation by the standard."""

import json
from fractions import Fraction

import jsonschema
import pytest
from jsonschema_specifications import REGISTRY
from test_structures import sample, texts

DRAFT = "https://json-schema.org/draft/2020-12/meta/"
METASCHEMAS = [*(DRAFT + name for name in ("core", "applicator", "unevaluated", "validation",
                                           "meta-data", "format-annotation", "content")),
               "https://json-schema.org/draft/2019-09/meta/core",
               "https://json-schema.org/draft/2019-09/meta/applicator",
               *(f"http://json-schema.org/draft-0{n}/schema#" for n in (3, 4, 6, 7))]
# They say something about a schema, or carry what others refer to; a reference to an anchor is
# refused.
ANNOTATIONS = {"$schema", "$vocabulary", "$comment", "$anchor", "$dynamicAnchor", "$recursiveAnchor",
               "id", "title", "description", "default", "deprecated", "readOnly", "writeOnly",
               "examples", "contentEncoding", "contentMediaType", "contentSchema"}
NULL = {"type": "null"}
OF_NUMBERS = {"minimum": 0.5, "maximum": 1000, "exclusiveMinimum": 3, "exclusiveMaximum": 3.25,
              "multipleOf": 0.01}
# Without its keyword each lets something else through, or is refused.
ENFORCED = {
    "type": {"type": "integer"},
    "enum": {"enum": [3, "a"]},
    "const": {"const": 7},
    "anyOf": {"anyOf": [NULL, {"const": 1}]},
    "oneOf": {"oneOf": [NULL, {"type": "boolean"}]},
    "allOf": {"allOf": [NULL]},
    "$ref": {"$defs": {"a": NULL}, "$ref": "#/$defs/a"},
    "$defs": {"$defs": {"a": NULL}, "$ref": "#/$defs/a"},
    "definitions": {"definitions": {"a": NULL}, "$ref": "#/definitions/a"},
    "properties": {"type": "object", "properties": {"a": NULL}, "required": ["a"]},
    "required": {"type": "object", "properties": {"a": NULL}, "required": ["a"]},
    "additionalProperties": {"type": "object", "additionalProperties": NULL},
    "patternProperties": {"type": "object", "patternProperties": {"^.*$": NULL}, "minProperties": 1},
    "minProperties": {"type": "object", "properties": {"a": NULL, "b": NULL}, "minProperties": 1},
    "maxProperties": {"type": "object", "properties": {"a": NULL, "b": NULL}, "maxProperties": 1},
    "items": {"type": "array", "items": NULL},
    "prefixItems": {"type": "array", "prefixItems": [NULL], "minItems": 1},
    "minItems": {"type": "array", "items": NULL, "minItems": 2},
    "maxItems": {"type": "array", "items": NULL, "maxItems": 1},
    "minLength": {"type": "string", "minLength": 4},
    "maxLength": {"type": "string", "maxLength": 1},
    "pattern": {"type": "string", "pattern": "^[ab]{3}$"},
    "format": {"type": "string", "format": "uuid"},
    **{keyword: {"type": "number", keyword: value} for keyword, value in OF_NUMBERS.items()},
}
REFUSED = {
    "$dynamicRef": "#a", "$recursiveRef": "#", "not": NULL, "if": NULL, "then": NULL, "else": NULL,
    "dependentSchemas": {"a": NULL}, "dependentRequired": {"a": ["b"]}, "dependencies": {"a": ["b"]},
    "unevaluatedProperties": False, "propertyNames": {"maxLength": 1}, "additionalItems": False,
    "unevaluatedItems": False, "contains": NULL, "minContains": 1, "maxContains": 1,
    "uniqueItems": True, "divisibleBy": 2, "extends": {}, "disallow": "null",
}


def judge(text, schema):
    """Numbers as they are written: 0.07 is a multiple of 0.01."""
    exact = json.loads(json.dumps(schema), parse_float=Fraction)
    jsonschema.validate(json.loads(text, parse_float=Fraction), exact,
                        cls=jsonschema.Draft202012Validator,
                        format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
    bounds = {key: value for key, value in schema.items() if key != "multipleOf"}
    jsonschema.validate(json.loads(text), bounds, cls=jsonschema.Draft202012Validator)


def breaks(text, schema):
    try:
        return judge(text, schema)
    except jsonschema.ValidationError:
        return True


def asked(schemas, **more):
    return sample([{"kind": "json_schema", "text": json.dumps(schema), "max_tokens": 120, **more}
                   for schema in schemas])


def test_every_keyword_of_the_standard_is_enforced_refused_or_an_annotation():
    keywords = {name for uri in METASCHEMAS for name in REGISTRY[uri].contents["properties"]}
    assert len(keywords) > 50
    tables = [set(ENFORCED), set(REFUSED), ANNOTATIONS, {"$id"}]
    assert set.union(*tables) == keywords
    assert sum(map(len, tables)) == len(keywords)


def test_what_is_enforced_holds_and_matters():
    without = [{key: value for key, value in schema.items() if key != keyword}
               for keyword, schema in ENFORCED.items()]
    answers = asked([*ENFORCED.values(), *without], samples=40)
    for keyword, schema, held, free in zip(ENFORCED, ENFORCED.values(), answers,
                                           answers[len(ENFORCED):], strict=False):
        found = texts(held, schema)
        assert found, keyword
        for text in found:
            judge(text, schema)
        assert "error" in free or any(breaks(text, schema) for text in texts(free, schema)), keyword


@pytest.mark.parametrize("nest", [lambda s: s, lambda s: {"properties": {"a": s}},
                                  lambda s: {"items": s}, lambda s: {"anyOf": [NULL, s]}])
def test_what_is_not_is_refused_by_name(nest):
    answers = asked([nest({"type": ["object", "array", "integer"], keyword: value})
                     for keyword, value in REFUSED.items()])
    for keyword, answer in zip(REFUSED, answers, strict=True):
        assert f'"{keyword}"' in answer.get("error", ""), (keyword, answer)


def test_what_is_written_beside_another_keyword_is_enforced_or_refused_by_name():
    """$ref, enum, anyOf and the like with a neighbour that restricts further."""
    heads = {"$ref": "#/$defs/a", "const": 1, "enum": [1, 20], "anyOf": [{"type": "integer"}],
             "oneOf": [{"type": "integer"}], "allOf": [{"type": "integer"}]}
    cases = [{"$defs": {"a": {"type": "integer"}}, head: value, "maximum": 7}
             for head, value in heads.items()]
    for head, answer in zip(heads, asked(cases), strict=True):
        assert '"maximum"' in answer.get("error", ""), (head, answer)


def test_an_identifier_below_the_top_would_move_references():
    top, below = asked([{"$id": "http://a.example/s", "type": "null"},
                        {"properties": {"a": {"$id": "http://a.example/t", "$ref": "#/$defs/b"}},
                         "$defs": {"b": NULL}}])
    assert "samples" in top and '"$id"' in below.get("error", "")


def test_what_restricts_nothing_is_taken():
    [answer] = asked([{"type": "array", "items": NULL, "uniqueItems": False, "maxItems": 3}])
    assert texts(answer, "uniqueItems")
