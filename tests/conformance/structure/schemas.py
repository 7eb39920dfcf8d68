"""JSON Schemas of mixed difficulty, written from the standard (2020-12): every keyword that
worker/structure/README.md claims, alone and nested. Generated, the same at every run."""

import itertools
import json
import random


def leaves():
    yield {}
    yield True
    for name in ("string", "integer", "number", "boolean", "null", "array", "object"):
        yield {"type": name}
    yield {"type": ["string", "null"]}
    yield {"type": ["integer", "array"], "minimum": 3, "maxItems": 2, "items": {"type": "null"}}
    yield {"const": "a \"quoted\" \\ text\n"}
    yield {"const": {"a": [1, None, "x"]}}
    yield {"enum": ["red", "green", 3, None, True, [1, 2], {"k": "v"}]}
    yield {"type": "string", "enum": ["é", "日本", "\u0007", 5]}
    yield {"type": "string", "minLength": 3}
    yield {"type": "string", "maxLength": 5}
    yield {"type": "string", "minLength": 2, "maxLength": 9}
    for pattern in ("^[a-z]{2,5}$", "^a.c$", "^(foo|bar)+$", "[0-9]{3}-[0-9]{4}", "^\\d+\\.\\d{2}$",
                    "^\\w+@\\w+$", "^[^x]{1,4}$", "^\\S{3}$", "^(?:ab?)*c$", "^\\+?[A-F]{2}\\.$",
                    "^.{0,6}$", "^\\u0041é?ü$"):
        yield {"type": "string", "pattern": pattern}
    for name in ("date", "time", "date-time", "uuid", "ipv4", "email", "hostname", "uri"):
        yield {"type": "string", "format": name}
    for low, high in ((0, 9), (-5, 5), (1, 1), (100, 1234), (-1000, -7), (0, 65535)):
        yield {"type": "integer", "minimum": low, "maximum": high}
    yield {"type": "integer", "minimum": 17}
    yield {"type": "integer", "maximum": -3}
    yield {"type": "integer", "exclusiveMinimum": 4, "exclusiveMaximum": 8}
    for low, high in ((0, 1), (-1.5, 2.25), (0.1, 0.3), (100, 100.5), (-1e300, -3), (-90, 90)):
        yield {"type": "number", "minimum": low, "maximum": high}
    yield {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
    yield {"type": "number", "minimum": 0}
    yield {"minimum": -2, "exclusiveMaximum": 1e-7}
    yield {"type": "number", "multipleOf": 0.25, "minimum": -1, "maximum": 1}
    yield {"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 100}
    yield {"type": "integer", "multipleOf": 1000}
    yield {"type": ["number", "null"], "exclusiveMinimum": -40.5, "maximum": 1e15}
    yield {"pattern": "^x+$"}


def arrays(item):
    yield {"type": "array", "items": item}
    yield {"type": "array", "items": item, "minItems": 2, "maxItems": 3}
    yield {"type": "array", "items": item, "maxItems": 1}
    yield {"type": "array", "prefixItems": [item, {"type": "boolean"}], "items": False}
    yield {"type": "array", "prefixItems": [{"type": "null"}, item]}
    yield {"items": item, "minItems": 1}


def objects(value):
    yield {"type": "object", "properties": {"a": value}}
    yield {"type": "object", "properties": {"a": value, "b": {"type": "integer"}}, "required": ["a"]}
    yield {"type": "object", "properties": {"x y": value, "q'é": {"type": "null"}},
           "required": ["x y", "q'é"], "additionalProperties": False}
    yield {"type": "object", "additionalProperties": value}
    yield {"type": "object", "patternProperties": {"^k[0-9]$": value}, "additionalProperties": False}
    yield {"properties": {"a": value, "b": value, "c": value}, "minProperties": 1,
           "maxProperties": 2}
    yield {"type": "object", "properties": {"a": value}, "additionalProperties": {"type": "string"}}


def whole():
    tree = {"type": "object", "properties": {
        "value": {"type": "integer", "minimum": 0, "maximum": 99},
        "children": {"type": "array", "items": {"$ref": "#"}, "maxItems": 2}},
        "required": ["value"]}
    yield tree
    yield {"$defs": {"node": {"anyOf": [{"type": "null"}, {
        "type": "object", "properties": {"next": {"$ref": "#/$defs/node"}},
        "required": ["next"]}]}}, "$ref": "#/$defs/node"}
    yield {"definitions": {"id": {"type": "string", "pattern": "^[A-Z]{3}$"}}, "type": "object",
           "properties": {"id": {"$ref": "#/definitions/id"}, "peers": {
               "type": "array", "items": {"$ref": "#/definitions/id"}, "maxItems": 3}},
           "required": ["id", "peers"]}
    yield {"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 2}]}
    yield {"oneOf": [{"type": "boolean"}, {"type": "null"}, {"type": "array", "maxItems": 0}]}
    yield {"oneOf": [
        {"type": "object", "properties": {"kind": {"const": "cat"}, "lives": {
            "type": "integer", "minimum": 1, "maximum": 9}}, "required": ["kind", "lives"]},
        {"type": "object", "properties": {"kind": {"enum": ["dog", "wolf"]}, "name": {
            "type": "string", "maxLength": 8}}, "required": ["kind"]}]}
    yield {"allOf": [{"type": "integer", "minimum": 10, "maximum": 20}]}
    yield {"title": "T", "description": "d", "default": 1, "examples": [2], "x-own": {"y": 1},
           "$comment": "c", "type": "integer", "minimum": 1, "maximum": 3}


def schemas(count=200):
    """At least `count`; each has a value that fits."""
    made = [*leaves(), *whole()]
    draw = random.Random(7)
    inner = [leaf for leaf in leaves() if leaf is not True]
    level = list(itertools.chain(*(arrays(leaf) for leaf in inner[3:13]),
                                 *(objects(leaf) for leaf in inner[7:20])))
    made += draw.sample(level, 90)
    while len(made) < count:
        value = draw.choice(level)
        made.append(draw.choice([*arrays(value), *objects(value)]))
    return made


if __name__ == "__main__":
    print(*map(json.dumps, schemas()), sep="\n")
