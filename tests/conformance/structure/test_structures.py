"""What the masks let through, held against Python's own judges: jsonschema, json and re."""

import ast
import json
import os
import random
import re
import subprocess
import time
from pathlib import Path

import jsonschema
import pytest
from schemas import schemas

ROOT = Path(__file__).resolve().parents[3]
BINARY = Path(os.environ.get("BEHEMOTH_BUILD_DIR", ROOT / "build/release")) / "tests/form_samples"
SAMPLES = 5
TOKENS = 600


def sample(requests, timeout=240):
    lines = [json.dumps({"samples": SAMPLES, "max_tokens": TOKENS, **request})
             for request in requests]
    done = subprocess.run([BINARY], input="\n".join(lines) + "\n", capture_output=True, text=True,
                          timeout=timeout)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def texts(answer, case):
    """Of the complete samples; none may have failed."""
    assert "error" not in answer, (case, answer)
    out = []
    for one in answer["samples"]:
        assert "failed" not in one and "rejected" not in one, (case, bytes.fromhex(one["text"]))
        if one["complete"]:
            out.append(bytes.fromhex(one["text"]).decode())
    return out


def test_every_text_of_a_schema_is_valid():
    cases = schemas()
    assert len(cases) >= 200
    answers = sample({"kind": "json_schema", "text": json.dumps(case)} for case in cases)
    complete = 0
    for case, answer in zip(cases, answers, strict=True):
        for text in texts(answer, case):
            complete += 1
            try:
                jsonschema.validate(json.loads(text), case,
                                    cls=jsonschema.Draft202012Validator,
                                    format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
            except (ValueError, jsonschema.ValidationError) as error:
                pytest.fail(f"{json.dumps(case)}\n{text!r}\n{error}")
    # The rest came to their length: what has no bound may go on.
    assert complete > 0.7 * SAMPLES * len(cases)


REGEXES = ["[a-z]+", "^\\d{3}-\\d{4}$", "(yes|no|maybe)", "a{2,4}b?", "[^abc]{3}", "\\S+\\s\\w*",
           "(?:ab|cd)*e", "[A-Z][a-z]{1,8}( [A-Z][a-z]{1,8}){0,2}", "\\$[0-9]+\\.[0-9]{2}", "x.y",
           "(a|b(c|d)){1,3}", "é+日?", "[\\w.-]+@[\\w-]+\\.com", "a*?b+?", "\\\\n\\n\"q\""]


def numbers(draw):
    """Bounds of all sizes, ends open or closed or absent."""
    def bound():
        size = 10.0 ** draw.randint(-8, 17)
        return draw.choice([draw.randint(-20, 20), draw.choice([-1, 1]) * size,
                            round(draw.uniform(-1, 1) * size, draw.randint(0, 8))])

    low, high = sorted((bound(), bound()))
    case = {"type": draw.choice(["number", "integer"])}
    case[draw.choice(["minimum", "exclusiveMinimum", "x-no-minimum"])] = low
    case[draw.choice(["maximum", "exclusiveMaximum", "x-no-maximum"])] = high
    return case


def test_numbers_keep_to_their_bounds_as_doubles():
    draw = random.Random(11)
    cases = [numbers(draw) for _ in range(400)]
    answers = sample({"kind": "json_schema", "text": json.dumps(case)} for case in cases)
    refused = 0
    for case, answer in zip(cases, answers, strict=True):
        if "no number fits" in answer.get("error", ""):
            refused += 1
            continue
        for text in texts(answer, case):
            try:
                jsonschema.validate(json.loads(text), case, cls=jsonschema.Draft202012Validator)
            except jsonschema.ValidationError as error:
                pytest.fail(f"{json.dumps(case)}\n{text!r}\n{error}")
    assert refused < 100


def test_a_constant_that_is_named_as_a_number_s_rule_stays_a_constant():
    case = {"enum": ["number_text_0", "number_text__0"]}
    case = {"type": "object", "required": ["a", "b"], "properties": {
        "a": case, "b": {"type": "number", "minimum": 1, "maximum": 2}}}
    [answer] = sample([{"kind": "json_schema", "text": json.dumps(case), "samples": 20}])
    found = [json.loads(text) for text in texts(answer, case)]
    assert found and {one["a"] for one in found} <= {"number_text_0", "number_text__0"}
    assert all(1 <= one["b"] <= 2 for one in found)


def test_every_text_of_a_regex_matches():
    answers = sample({"kind": "regex", "text": regex} for regex in REGEXES)
    for regex, answer in zip(REGEXES, answers, strict=True):
        found = texts(answer, regex)
        assert found, regex
        for text in found:
            assert re.fullmatch(regex, text), (regex, text)


def test_grammars():
    sums = 'root ::= term ("+" term)*\nterm ::= [0-9]+ | "(" root ")"\n'
    choice = 'root ::= "north" | "south \\"pole\\""'
    first, second = sample([{"kind": "grammar", "text": sums}, {"kind": "grammar", "text": choice}])
    found = texts(first, sums)
    assert found
    for text in found:
        assert re.fullmatch(r"[0-9+()]+", text) and text.count("(") == text.count(")")
        ast.parse(re.sub(r"\b0+(?=\d)", "", text), mode="eval")
    assert set(texts(second, choice)) <= {"north", 'south "pole"'}


def test_forms_of_real_size_are_compiled_soon():
    string = {"type": "string"}
    cases = [{"type": "object", "properties": {f"p{i}": string for i in range(300)}},
             {"type": "object", "properties": {f"p{i}": string for i in range(300)},
              "required": [f"p{i}" for i in range(300)]},
             {"type": "string", "maxLength": 20000},
             {"type": "array", "items": {"type": "integer"}, "maxItems": 2000},
             {"anyOf": [{"type": "object", "properties": {"kind": {"const": f"v{i}"}, "x": string},
                         "required": ["kind"]} for i in range(200)]}]
    for case, answer in zip(cases, sample({"kind": "json_schema", "text": json.dumps(case)}
                                          for case in cases), strict=True):
        assert "error" not in answer, (case, answer)
        assert answer["ms"] < 2000 and answer["bytes"] < 256 << 20, (case, answer)


def test_white_space_between_values_comes_to_an_end():
    case = {"type": "array", "items": {"type": "boolean"}, "minItems": 3}
    [answer] = sample([{"kind": "json_schema", "text": json.dumps(case), "samples": 40}])
    found = [bytes.fromhex(one["text"]).decode() for one in answer["samples"]]
    assert max(len(run) for text in found for run in re.findall(r"\s*", text)) in range(8, 64)


# More and more readings with each letter: who takes too long is lost, and says so.
@pytest.mark.parametrize("regex", ["(a{1,700}){1,700}", "((((a{0,25}){0,25}){0,25}){0,25})",
                                   "(a*)*(a*)*(a*)*(a*)*(a*)*b"])
def test_an_ambiguous_form_ends_in_time(regex):
    start = time.monotonic()
    [answer, alive] = sample([{"kind": "regex", "text": regex, "samples": 1},
                              {"kind": "regex", "text": "a"}])
    assert "error" in answer or answer["samples"][0].get("failed") or answer["samples"][0]["complete"]
    assert time.monotonic() - start < 60
    assert texts(alive, "a")


def test_a_form_behind_a_marker_begins_exactly_there():
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    [answer] = sample([{"kind": "json_schema", "text": json.dumps(schema), "samples": 40,
                        "max_tokens": 4000, "begins_after": "</think>"},])
    seen = 0
    for one in answer["samples"]:
        assert "failed" not in one and "rejected" not in one
        raw = bytes.fromhex(one["text"])
        if b"</think>" in raw:
            seen += 1
            tail = raw.split(b"</think>", 1)[1].decode()
            if one["complete"]:
                assert jsonschema.validate(json.loads(tail), schema) is None
        else:
            assert not one["complete"]
    assert seen > 0


@pytest.mark.parametrize("kind, text", [
    ("json_schema", "{"),
    ("json_schema", "false"),
    ("json_schema", '{"type": "strange"}'),
    ("json_schema", '{"type": "object", "required": ["a"]}'),
    ("json_schema", '{"not": {"type": "string"}}'),
    ("json_schema", '{"type": "integer", "multipleOf": 3}'),
    ("json_schema", '{"type": "number", "multipleOf": 0}'),
    ("json_schema", '{"type": "number", "multipleOf": 1e-20, "maximum": 1}'),
    ("json_schema", '{"type": "number", "minimum": 1, "exclusiveMaximum": 1}'),
    ("json_schema", '{"type": "integer", "minimum": 0.1, "maximum": 0.9}'),
    ("json_schema", '{"type": "number", "minimum": 1e300}'),
    ("json_schema", '{"type": "number", "minimum": "1"}'),
    ("json_schema", '{"type": "number", "minimum": 1, "exclusiveMinimum": true}'),
    ("json_schema", '{"type": "array", "uniqueItems": true}'),
    ("json_schema", '{"type": "string", "pattern": "^(?=a)b"}'),
    ("json_schema", '{"type": "string", "pattern": "a\\"b"}'),
    ("json_schema", '{"oneOf": [{"type": "integer"}, {"type": "number"}]}'),
    ("json_schema", '{"$ref": "http://example.com/schema"}'),
    ("json_schema", '{"$ref": "#/nowhere"}'),
    ("json_schema", '{"type": "string", "maxLength": 1000000}'),
    ("json_schema", '{"type": "array", "maxItems": 999, "items": {"type": "array", "maxItems": 999}}'),
    ("json_schema", '{"type": "object", "properties": {"a\\"b": true}}'),
    ("json_schema", '{"enum": []}'),
    ("json_schema", "[" * 30000),
    ("json_schema", '{"items":' * 6000 + "{}" + "}" * 6000),
    ("json_schema", '{"x":"' + "a" * 70000 + '"}'),
    ("regex", "(((a{1,99}){1,99}){1,99})"),
    ("regex", "a{1,4000000000}"),
    ("regex", "(a"),
    ("regex", "[a"),
    ("regex", "a)"),
    ("regex", "(a)\\1"),
    ("regex", "a++"),
    ("regex", "\\bword\\b"),
    ("regex", "(?<!x)y"),
    ("regex", "("* 20000),
    ("regex", "(" * 30000 + "a" + ")" * 30000),
    ("regex", "(" * 300 + "a" + ")" * 300),
    ("regex", "(a*)*" * 5000),
    ("regex", "(a*)*" * 1000),
    ("regex", "a?" * 16000),
    ("regex", "a?" * 1000),
    ("grammar", "root ::= " + "(" * 30000 + '"a"' + ")" * 30000),
    ("grammar", "root ::= " + "(" * 15000 + '"a"' + ")*" * 15000),
    ("grammar", "root ::= a0\n" + "".join(f"a{i} ::= a{i + 1}\n" for i in range(3000))
     + 'a3000 ::= "x"'),
    ("json_schema", json.dumps({"type": "object",
                                "properties": {f"p{i}": {"type": "string"} for i in range(2200)}})),
    ("regex", "[é-ü]"),
    ("grammar", "root ::= [а-я]"),
    ("grammar", "start ::= \"a\""),
    ("grammar", "root ::= nothing"),
    ("grammar", "root ::= (\"a\""),
    ("grammar", 'root ::= "a"{1,1000000}'),
    ("grammar", ""),
])
def test_what_cannot_be_compiled_is_refused_at_once(kind, text):
    [answer, alive] = sample([{"kind": kind, "text": text}, {"kind": "regex", "text": "a"}])
    assert answer.get("error", "").startswith(f"structure.{kind}: "), answer
    assert answer["ms"] < 2000
    assert texts(alive, "a")
