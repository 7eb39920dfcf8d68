"""Both doors refuse what wrong_requests.py lists, by the field's name, and serve on."""

import contracts
import grpc
import pytest
from wrong_requests import (ANY_VALUE, ARRIVES, CHAT, COMPLETIONS, LISTS, STAYS, encode_cases,
                            generate_cases, leaves, properties, right_encoding, right_request, spoilt)

INVALID = grpc.StatusCode.INVALID_ARGUMENT
PROMPTS = {COMPLETIONS: {"prompt": "a"}, CHAT: {"messages": [{"role": "user", "content": "a"}]}}
SERVICE = "behemoth.worker.v1.WorkerService"


class Doors:
    """The two services, asked without a gateway."""

    def __init__(self, tokenizer, worker):
        made = contracts.compiled()
        self.pb, self.encode_pb, self.health_pb = made.worker_pb, made.tokenizer_pb, made.health_pb
        self.channel = grpc.insecure_channel(worker.address)
        self.worker = made.worker_grpc.WorkerServiceStub(self.channel)
        self.health = made.health_grpc.HealthStub(self.channel)
        self.tokenizer = made.tokenizer_grpc.TokenizerServiceStub(
            grpc.insecure_channel(tokenizer.address, [("grpc.max_receive_message_length", -1)]))
        status = self.worker.GetStatus(self.pb.GetStatusRequest())
        self.limits = status.limits
        self.vocabulary_size = status.model.vocabulary_size
        vocabulary = self.tokenizer.GetVocabulary(self.encode_pb.GetVocabularyRequest())
        control = set(vocabulary.control_ids)
        self.worker.SetVocabulary(self.pb.SetVocabularyRequest(control_ids=vocabulary.control_ids, tokens=[
            b"" if i in control else text for i, text in enumerate(vocabulary.token_bytes)]))

    def refusal(self, case):
        """What is wrong with the answer to a case on the wire; None if nothing is."""
        try:
            request = spoilt(right_request(self.pb), case.path, case.value)
        except ValueError:  # the field's type has no room for it
            return None
        return judged(case, lambda: list(self.worker.Generate(request, timeout=60)))

    def steps(self):
        """How many the engine has taken, once it has nothing to do."""
        watch = self.worker.WatchLoad(self.pb.WatchLoadRequest(interval={"nanos": 50_000_000}))
        steps = next(load.steps for load in watch
                     if not load.running_sequences and not load.waiting_requests)
        watch.cancel()
        return steps

    def tokens(self, request_id):
        events = self.worker.Generate(right_request(self.pb, request_id), timeout=60)
        return [i for event in events for i in event.tokens.ids]


def judged(case, call):
    try:
        call()
    except grpc.RpcError as error:
        named = case.named or case.path
        if error.code() == INVALID and error.details().startswith(f"{named}:"):
            return None
        return case.path, str(case.value)[:60], error.code().name, error.details()[:120]
    return case.path, str(case.value)[:60], "served"


@pytest.fixture(scope="module")
def doors(tokenizer, worker, gateway):
    return Doors(tokenizer, worker)


@pytest.fixture(scope="module")
def cases(http, doors):
    document = http.get("/openapi.json").json()
    return list(generate_cases(document, doors.pb, doors.vocabulary_size,
                               doors.limits.context_tokens))


def test_what_is_right_is_served(doors):
    assert len(doors.tokens("right")) == 4
    assert len(doors.tokenizer.Encode(right_encoding(doors.encode_pb)).encodings[0].ids) > 1


def test_the_worker_refuses_each_by_name_and_its_engine_never_hears_of_it(doors, cases):
    before, tokens = doors.steps(), None
    wrong = [answer for case in cases if case.path if (answer := doors.refusal(case))]
    assert not wrong, "\n".join(map(str, wrong))
    assert doors.steps() == before
    tokens = doors.tokens("after")
    assert len(tokens) == 4 and tokens == doors.tokens("again")
    health = doors.health.Check(doors.health_pb.HealthCheckRequest(service=SERVICE))
    assert health.status == doors.health_pb.HealthCheckResponse.SERVING


def test_the_tokenizer_refuses_each_by_name(doors):
    wrong = []
    for case in encode_cases(doors.vocabulary_size):
        request = spoilt(right_encoding(doors.encode_pb), case.path, case.value)
        wrong.append(judged(case, lambda: doors.tokenizer.Encode(request, timeout=60)))
    assert not any(wrong), wrong
    assert doors.tokenizer.Encode(right_encoding(doors.encode_pb)).encodings[0].ids


def test_the_gateway_refuses_each_by_name(http, cases):
    wrong = []
    for case in cases:
        if case.rest is None:
            continue
        reply = http.post(case.route, json=PROMPTS[case.route] | case.rest)
        named = "" if case.param is None else case.param or next(iter(case.rest))
        if reply.status_code != 400 or not (reply.json()["error"]["param"] or "").startswith(named):
            wrong.append((str(case.rest)[:80], reply.status_code, reply.text[:160]))
    assert not wrong, "\n".join(map(str, wrong))
    assert http.get("/health").status_code == 200
    assert http.post(COMPLETIONS, json={"prompt": "a", "max_tokens": 1}).status_code == 200


def test_bytes_that_are_no_message_harm_nobody(doors):
    """Text that is not UTF-8, a length beyond the end: gRPC's own library says no."""
    name = b"\x0a\x05right"
    for method in ("Generate", "Control", "SetVocabulary"):
        call = doors.channel.unary_stream(f"/{SERVICE}/{method}")
        for wrong in (b"\x0a\x02\xff\xfe", name + b"\x72\x03\x12\x01\xff", b"\x0a\xff\xff\xff\xff\x0f"):
            with pytest.raises(grpc.RpcError) as error:
                list(call(wrong, timeout=20))
            assert error.value.code() not in (grpc.StatusCode.UNAVAILABLE,
                                              grpc.StatusCode.DEADLINE_EXCEEDED)
    assert len(doors.tokens("alive")) == 4


def test_every_field_of_the_messages_has_a_case_or_a_reason(doors, cases):
    for descriptor, paths in (
            (doors.pb.GenerateRequest.DESCRIPTOR, {case.path for case in cases}),
            (doors.encode_pb.EncodeRequest.DESCRIPTOR, {c.path for c in encode_cases(1)})):
        fields = {path for path, _ in leaves(descriptor)}
        any_value = set(ANY_VALUE[descriptor.name])
        assert any_value <= fields and not any_value & paths
        assert not fields - paths - any_value, descriptor.name


def test_every_field_of_rest_has_a_case_or_a_reason(http, cases):
    names = {schema.get("x-alias-of", name)
             for _, name, schema in properties(http.get("/openapi.json").json())}
    known = set(STAYS) | set(ARRIVES) | set(LISTS)
    sent = {name for case in cases for name in case.rest or ()}
    assert known <= names
    assert not names - known - sent
    assert not (set(ARRIVES) | set(LISTS)) - sent
