"""Every way to be wrong, once: as REST says it and as the wire does.

A case's `rest` are the fields of a body, beside a prompt; `path` is the field of the message that
`value` spoils in a request that is right otherwise. What JSON cannot say has no `rest`; what the
message's type has no room for, or what never leaves the gateway, has no `path`. The ranges come from
/openapi.json, which is made of the table that the gateway validates with.
"""

import math
from typing import Any, NamedTuple

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"


class Case(NamedTuple):
    path: str = ""  # "sampling.logit_bias.id": of repeated messages the first
    value: Any = None  # of the field, or a function that spoils the message that holds it
    named: str = ""  # what INVALID_ARGUMENT begins with; "" = the path
    rest: dict | None = None
    param: str | None = ""  # what the 400 names, or begins with; "" = the first field of `rest`;
    # None = no single one: the fields do not go together
    route: str = COMPLETIONS


# Where each field of REST arrives that has a range or a bound of its own.
ARRIVES = {
    "temperature": "sampling.temperature", "top_p": "sampling.top_p", "top_k": "sampling.top_k",
    "min_p": "sampling.min_p", "repetition_penalty": "sampling.repetition_penalty",
    "presence_penalty": "sampling.presence_penalty",
    "frequency_penalty": "sampling.frequency_penalty", "typical_p": "sampling.typical_p",
    "top_n_sigma": "sampling.top_n_sigma", "xtc_probability": "sampling.xtc_probability",
    "xtc_threshold": "sampling.xtc_threshold", "smoothing_factor": "sampling.smoothing_factor",
    "smoothing_curve": "sampling.smoothing_curve", "dry_multiplier": "sampling.dry.multiplier",
    "dry_base": "sampling.dry.base", "dry_allowed_length": "sampling.dry.allowed_length",
    "dynatemp_low": "sampling.dynamic_temperature.low",
    "dynatemp_high": "sampling.dynamic_temperature.high",
    "dynatemp_exponent": "sampling.dynamic_temperature.exponent",
    "max_tokens": "max_tokens", "min_tokens": "min_tokens", "n": "num_sequences",
    "logprobs": "logprobs.top", "top_logprobs": "logprobs.top", "prompt_logprobs": "logprobs.top",
    "priority": "priority", "cache_salt": "cache_salt", "user": "fairness_key",
}
# The same field on a list of its own.
LISTS = {"stop_token_ids": "stop_token_ids", "allowed_token_ids": "sampling.allowed_ids",
         "custom_token_bans": "sampling.banned_ids", "prompt": "prompt_ids"}

# Fields that cannot be wrong, each because.
ANY_VALUE = {
    "GenerateRequest": {
        "ignore_eos": "a flag", "include_stop_id": "a flag", "rewindable": "a flag",
        "logprobs.prompt": "a flag", "structure.dumps_spaces": "a flag",
        "sampling.seed": "each of 2^64 is a seed",
        "sampling.dry.last_n": "more than the context is the whole context",
    },
    "EncodeRequest": {
        "inputs.add_special_tokens": "a flag",
        "inputs.segments.text": "each text has ids; its length is bounded together, not here",
        "inputs.segments.marked_text": "each text has ids; its length is bounded together, not here",
    },
}
# Fields of REST that reach neither of the two services as they are, each because.
STAYS = {
    **dict.fromkeys(["messages", "continue_final_message", "add_generation_prompt", "chat_template",
                     "chat_template_kwargs", "thinking", "tools", "tool_choice",
                     "parallel_tool_calls"], "becomes the prompt, in the gateway"),
    **dict.fromkeys(["model", "request_id"], "names something of the gateway's"),
    **dict.fromkeys(["add_special_tokens", "ignore_eos", "include_stop_str_in_output",
                     "ban_eos_token", "temperature_last"], "a flag"),
    **dict.fromkeys(["stop", "stop_scope", "banned_strings", "skip_special_tokens"],
                    "is done to the text, in the gateway"),
    **dict.fromkeys(["echo", "reasoning_format", "separate_reasoning", "include_reasoning",
                     "stream", "stream_options", "return_token_ids", "return_timings"],
                    "is the shape of the reply"),
    "truncate_prompt_tokens": "is done to the prompt, in the gateway",
    "best_of": "must equal n",
    "seed": "each integer of 64 bits is a seed",
    "dry_penalty_last_n": "more than the context is the whole context",
}


def right_request(pb, request_id="right"):
    """Every field has a value that is served."""
    return pb.GenerateRequest(
        request_id=request_id, prompt_ids=[1, 40, 41, 42], max_tokens=4, min_tokens=1,
        num_sequences=1, stop_token_ids=[43], ignore_eos=True, include_stop_id=True,
        rewindable=False, cache_salt="salt", fairness_key="key", priority=1,
        logprobs={"top": 1, "prompt": True},
        structure={"regex": "[a-z ]{1,80}", "begins_after": "</think>", "dumps_spaces": False},
        sampling={
            "temperature": 1, "top_p": 0.9, "top_k": 40, "min_p": 0.01, "repetition_penalty": 1.1,
            "presence_penalty": 0.1, "frequency_penalty": 0.1, "seed": 7,
            "logit_bias": [{"id": 44, "bias": 1}], "banned_ids": [45], "typical_p": 0.99,
            "top_n_sigma": 3, "xtc_probability": 0.1, "xtc_threshold": 0.1, "smoothing_factor": 0.1,
            "smoothing_curve": 1, "dynamic_temperature": {"low": 0.5, "high": 1.5, "exponent": 1},
            "dry": {"multiplier": 0.8, "base": 1.75, "allowed_length": 2, "last_n": 64,
                    "breaker_ids": [46], "spanning_breakers": [{"heads": [47], "tail": [48]}]},
            "order": range(1, 8), "banned_sequences": [{"ids": [49, 50]}]})


def right_encoding(pb):
    return pb.EncodeRequest(inputs=[{"segments": [{"text": "Who art"}, {"control_id": 1}]}])


def spoilt(request, path, value):
    """`request` with the case in it; ValueError if the field's type has no such value."""
    *above, name = path.split(".")
    holder = request
    for step in above:
        holder = getattr(holder, step)
        holder = holder if hasattr(holder, "DESCRIPTOR") else holder[0]
    if callable(value):
        value(holder)
    elif isinstance(value, list):
        del getattr(holder, name)[:]
        getattr(holder, name).extend(value)
    else:
        setattr(holder, name, value)
    return request


def more(name, entries):
    """Spoils a message by further entries of its field `name`."""
    entries = list(entries)
    return lambda holder: [getattr(holder, name).add(**entry) for entry in entries]


def leaves(descriptor, above=""):
    """(path, field) of everything that holds a value."""
    for field in descriptor.fields:
        if field.message_type:
            yield from leaves(field.message_type, f"{above}{field.name}.")
        else:
            yield above + field.name, field


def properties(document):
    """(route, name, schema) of each field that works; a field of both doors once."""
    schemas, seen = document["components"]["schemas"], set()
    for route, body in ((COMPLETIONS, "CompletionRequest"), (CHAT, "ChatRequest")):
        for name, schema in schemas[body]["properties"].items():
            if schema["x-support"] == "works" and name not in seen:
                seen.add(name)
                yield route, name, schema


def out_of_range(document):
    """One beyond each end of each field, under each of its names."""
    for route, name, schema in properties(document):
        wrong = []
        if "maximum" in schema:
            wrong += [schema.get("exclusiveMinimum", schema["minimum"] - 1), schema["maximum"] + 1]
        if schema.get("type", [""])[0] == "string" and "x-max-bytes" in schema:
            wrong += ["a" * (schema["x-max-bytes"] + 1), "é" * (schema["x-max-bytes"] // 2 + 1)]
        path = ARRIVES.get(schema.get("x-alias-of", name), "")
        for value in wrong:
            yield Case(path, value, rest={name: value}, route=route)


def of_every_number(descriptor, vocabulary):
    """What no field of its type may hold, wherever it stands."""
    for path, field in leaves(descriptor):
        if field.cpp_type == field.CPPTYPE_FLOAT:
            for value in (math.nan, math.inf, -math.inf):
                yield Case(path, value, named="sampling.logit_bias" if "bias" in path else "")
        if field.enum_type:
            for value in (0, -1, max(field.enum_type.values_by_number) + 1):
                yield Case(path, [value])
        if field.name in ("id", "heads", "tail", "begins_after_id") or field.name.endswith("ids"):
            for wild in (vocabulary, 2**31, 2**32 - 1):
                value = ([wild, wild] if path.endswith("sequences.ids") else [wild]
                         ) if field.is_repeated else wild
                inside = [m for m in (".logit_bias", ".spanning_breakers", ".banned_sequences")
                          if m in path]
                yield Case(path, value, named=path[:path.index(inside[0])] + inside[0] if inside
                           else "")


def wild_ids(vocabulary):
    for name in LISTS:
        for wild in (vocabulary, 2**31, 2**32 - 1):
            yield Case(rest={name: [wild]})


def of_lists(vocabulary, context):
    """Too many, too long, twice, or none."""
    many = {str(i): 1 for i in range(1025)}
    bias = "sampling.logit_bias"
    yield Case("prompt_ids", [], rest={"prompt": []})
    yield Case("prompt_ids", [5] * context, rest={"prompt": [5] * context}, param="input_tokens")
    yield Case("prompt_ids", [5] * (context + 1), rest={"prompt": [5] * (context + 1)},
               param="input_tokens")
    yield Case("max_tokens", context, rest={"max_tokens": context}, param="input_tokens")
    yield Case("min_tokens", 5, rest={"min_tokens": 5, "max_tokens": 4}, param="min_tokens")
    yield Case("stop_token_ids", [5] * 257, rest={"stop_token_ids": [5] * 257})
    yield Case("sampling.allowed_ids", [5] * (vocabulary + 1),
               rest={"allowed_token_ids": [5] * (2**18 + 1)})
    yield Case("sampling.allowed_ids", [45], "sampling.banned_ids",
               {"allowed_token_ids": [45], "custom_token_bans": [45]}, None)
    yield Case("sampling.banned_ids", [5] * (vocabulary + 1),
               rest={"custom_token_bans": [5] * (2**18 + 1)})
    yield Case("sampling.banned_ids", list(range(vocabulary)))
    yield Case("sampling.allowed_ids", [43], "min_tokens",
               {"allowed_token_ids": [43], "stop_token_ids": [43], "min_tokens": 1}, None)
    for wrong in (100.5, -101):
        yield Case(f"{bias}.bias", wrong, bias, {"logit_bias": {"5": wrong}}, "logit_bias")
    yield Case(rest={"logit_bias": {"x": 1}})
    yield Case(bias, more("logit_bias", ({"id": i, "bias": 1} for i in range(100, 1124))),
               rest={"logit_bias": many})
    yield Case(bias, more("logit_bias", [{"id": 44, "bias": 2}]),
               rest={"logit_bias": [[44, 1], [44, 2]]}, param="logit_bias")


def of_samplers():
    yield Case("sampling.order", [1, 2, 1])
    yield Case("sampling.order", [99], rest={"sampler_order": ["nobody"]}, param="sampler_order")
    yield Case(rest={"sampler_order": [7]}, param="sampler_order")
    yield Case("sampling.repetition_penalty", 9e-7, rest={"repetition_penalty": 9e-7})
    yield Case("sampling.repetition_penalty", 1e-45)
    yield Case("sampling.dynamic_temperature.high", 0.4,
               rest={"dynatemp_low": 1, "dynatemp_high": 0.4}, param="dynatemp_high")
    yield Case("sampling.dynamic_temperature.exponent", 0, rest={
        "dynatemp_low": 1, "dynatemp_high": 2, "dynatemp_exponent": 0}, param="dynatemp_exponent")
    yield Case("sampling.dynamic_temperature.high", 1.5e6,
               rest={"temperature": 1e6, "dynatemp_range": 5e5}, param="dynatemp_range")
    yield Case("sampling.dry.base", 0.5, rest={"dry_multiplier": 1, "dry_base": 0.5},
               param="dry_base")
    yield Case("sampling.dry.allowed_length", 0,
               rest={"dry_multiplier": 1, "dry_allowed_length": 0}, param="dry_allowed_length")
    yield Case("sampling.dry.allowed_length", 1025)
    yield Case("sampling.dry.breaker_ids", [5] * 100000)
    yield from of_breakers()
    yield from of_banned_sequences()


def of_breakers():
    spanning = "sampling.dry.spanning_breakers"
    for wrong in (5, "[1]", ["a" * 41], [""], [str(i) for i in range(65)]):
        yield Case(rest={"dry_sequence_breakers": wrong})
    yield Case(f"{spanning}.heads", [], spanning)
    yield Case(f"{spanning}.tail", [], spanning)
    yield Case(f"{spanning}.tail", [5] * 17, spanning)
    yield Case(f"{spanning}.heads", [5] * 16384, spanning)
    yield Case(spanning, more("spanning_breakers", [{"heads": [5], "tail": [5]}] * 1024))


def of_banned_sequences():
    banned = "sampling.banned_sequences"
    for wrong in (5, [""], ["  "], ["a" * 257], ["a"] * 513):
        yield Case(rest={"bad_words": wrong})
    yield Case(f"{banned}.ids", [5], banned)
    yield Case(f"{banned}.ids", [5] * 65, banned)
    yield Case(banned, more("banned_sequences", [{"ids": [5, 6]}] * 1024))
    yield Case(banned, more("banned_sequences", [{"ids": [5] * 64}] * 256))


def of_structures():
    rest = {"json_schema": "guided_json", "regex": "guided_regex", "grammar": "guided_grammar"}
    wrong = {
        "json_schema": ["{", "[]", '{"type":"strange"}', '{"not":{}}', '{"$ref":"#/nowhere"}',
                        '{"x":"' + "a" * 65536 + '"}', "[" * 30000],
        "regex": ["(a", "(a)\\1", "a{1,4000000000}", "a" * 65537, "(" * 20000],
        "grammar": ["root ::= nothing", "start ::= \"a\"", 'root ::= "' + "a" * 65536 + '"'],
    }
    for kind, texts in wrong.items():
        for text in texts:
            yield Case(f"structure.{kind}", text, rest={rest[kind]: text})
    for kind in ("json_schema", "grammar"):
        yield Case(f"structure.{kind}", "")
    yield Case("structure.regex", lambda structure: structure.ClearField("regex"), "structure",
               rest={"structured_outputs": {"nobody": 1}}, param="structured_outputs")
    yield Case(rest={"guided_regex": "a", "json_schema": {"type": "null"}}, param="json_schema")
    for wrong_format in ({"type": "xml"}, {"type": "json_schema"}, {"type": 1}):
        yield Case(rest={"response_format": wrong_format}, param="response_format")
    for choices in ([""], [5], "a", ["a"] * 1025):
        yield Case(rest={"guided_choice": choices}, param="guided_choice")
    yield Case("structure.begins_after", "a" * 65)
    yield Case("structure.begins_after_id", 5)  # together with begins_after


def of_names():
    for wrong in ("", "a b", "a" * 129, "é"):
        yield Case("request_id", wrong, rest={"request_id": wrong} if wrong else None)
    for name in ("guided_json", "guided_regex", "guided_grammar", "grammar", "response_format",
                 "dynamic_temperature", "logit_bias", "prompt", "stop", "custom_token_bans",
                 "sampler_order", "banned_strings"):
        yield Case(rest={name: True})


def generate_cases(document, pb, vocabulary, context):
    yield from out_of_range(document)
    yield from of_every_number(pb.GenerateRequest.DESCRIPTOR, vocabulary)
    yield from wild_ids(vocabulary)
    yield from of_lists(vocabulary, context)
    yield from of_samplers()
    yield from of_structures()
    yield from of_names()


def encode_cases(vocabulary):
    yield Case("inputs", lambda request: request.ClearField("inputs"))
    yield Case("inputs.segments", lambda input: input.segments.add(), "inputs[0].segments[2]")
    for wild in (1000, vocabulary, 2**31, 2**32 - 1):
        yield Case("inputs.segments.control_id", wild, "inputs[0].segments[0].control_id")
