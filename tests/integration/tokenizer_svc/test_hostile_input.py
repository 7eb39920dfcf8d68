"""What callers do wrong, and what hostile text costs."""

import threading
import time

import grpc
import pytest

INVALID = grpc.StatusCode.INVALID_ARGUMENT
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def refusal(service, request):
    with pytest.raises(grpc.RpcError) as error:
        service.stub.Encode(request, timeout=60)
    assert len(service.encode(["Hello"])[0]) >= 1  # healthy after
    return error.value.code(), error.value.details()


def test_an_empty_batch_is_refused(service):
    assert refusal(service, service.pb.EncodeRequest()) == (INVALID, "inputs: empty")


@pytest.mark.parametrize("wild", [23325, 500, 4096, 2**31, 2**32 - 1])
def test_a_wild_control_id_is_refused_by_name(wild, service):
    assert wild not in service.vocabulary().control_ids
    request = service.pb.EncodeRequest()
    request.inputs.add().segments.add(text="x")
    request.inputs.add().segments.add(control_id=wild)
    code, details = refusal(service, request)
    assert code == INVALID and details.startswith("inputs[1].segments[0].control_id:")


def test_a_segment_of_no_kind_or_of_a_later_version_s_kind_is_refused(service):
    request = service.pb.EncodeRequest()
    request.inputs.add().segments.add()
    code, details = refusal(service, request)
    assert code == INVALID and details.startswith("inputs[0].segments[0]:")
    # Field 15, a string: what a newer client may send. Unknown fields arrive as no kind at all.
    segment = service.pb.Segment.FromString(b"\x7a\x01x")
    code, details = refusal(
        service, service.pb.EncodeRequest(inputs=[service.pb.EncodeInput(segments=[segment])]))
    assert code == INVALID and details.startswith("inputs[0].segments[0]:")


def test_one_bad_input_fails_the_whole_batch(service):
    request = service.pb.EncodeRequest()
    for _ in range(10):
        request.inputs.add().segments.add(text="good")
    request.inputs[7].segments.add(control_id=4095)
    code, details = refusal(service, request)
    assert code == INVALID and details.startswith("inputs[7].segments[1].control_id:")


def test_a_batch_is_its_inputs_one_by_one(service):
    texts = ["", "a", "Hello there", "\n\n", "🌴", " x " * 50, "[INST]"]
    assert service.encode(texts * 500) == [service.encode([t])[0] for t in texts] * 500


def test_an_input_without_segments_is_the_empty_string(service):
    request = service.pb.EncodeRequest()
    request.inputs.add()
    request.inputs.add(add_special_tokens=True)
    reply = service.stub.Encode(request, timeout=60)
    assert [list(e.ids) for e in reply.encodings] == [[], [1]]


def test_counts_at_their_limit_pass_and_above_it_are_refused(service):
    pb = service.pb
    assert service.encode(["a"] * 4096) == [service.encode(["a"])[0]] * 4096
    assert refusal(service, pb.EncodeRequest(inputs=[pb.EncodeInput()] * 4097))[0] == EXHAUSTED
    segments = [pb.Segment(text="")] * 65536
    service.stub.Encode(pb.EncodeRequest(inputs=[pb.EncodeInput(segments=segments)]), timeout=60)
    request = pb.EncodeRequest(inputs=[pb.EncodeInput(segments=segments),
                                       pb.EncodeInput(segments=segments[:1])])
    assert refusal(service, request)[0] == EXHAUSTED


def test_text_at_its_limit_passes_and_above_it_is_refused(start):
    service = start("--max-text-bytes", "1000")
    assert service.encode(["é" * 500], kind="text")[0]
    for kind in ("text", "marked_text"):
        request = service.pb.EncodeRequest()
        request.inputs.add().segments.add(text="x" * 500)
        setattr(request.inputs.add().segments.add(), kind, "x" * 501)
        assert refusal(service, request)[0] == EXHAUSTED
    # Beyond the text limit and 2 MiB for the rest, gRPC itself refuses the message.
    request = service.pb.EncodeRequest()
    request.inputs.add().segments.add(text="x" * (3 << 20))
    assert refusal(service, request)[0] == EXHAUSTED


def test_bytes_that_are_no_message_harm_nobody(service):
    for name in ("Encode", "GetVocabulary", "NoSuchMethod"):
        call = service.channel.unary_unary(f"/behemoth.tokenizer.v1.TokenizerService/{name}")
        with pytest.raises(grpc.RpcError) as error:
            call(b"\x0a\xff\xff\xff\xff\x0f", timeout=20)
        assert error.value.code() != grpc.StatusCode.UNAVAILABLE
    assert service.encode(["Hello"])


def seconds(service, unit, size):
    text = unit * (size // len(unit.encode()))
    start = time.monotonic()
    assert service.encode([text], kind="text")[0]
    return time.monotonic() - start


@pytest.mark.parametrize("unit", ["a", " ", "\u2581", "\n", "🌴", "[", "=", "ab", "x" * 997 + " "])
def test_ten_megabytes_of_one_unit_cost_little_more_than_linear_time(unit, service):
    small, large = seconds(service, unit, 1_000_000), seconds(service, unit, 10_000_000)
    print(f"{unit[:3]!r}: 1 MB {small:.2f} s, 10 MB {large:.2f} s")
    assert large < 30 * small + 2  # n squared would be 100


def test_megabytes_of_others_hold_up_neither_short_calls_nor_health_checks(service):
    longs = [threading.Thread(target=service.encode, args=(["a" * 8_000_000],)) for _ in range(6)]
    for thread in longs:
        thread.start()
    waits = []
    while any(thread.is_alive() for thread in longs):
        begin = time.monotonic()
        service.encode(["Hello"])
        service.health.Check(service.health_pb.HealthCheckRequest(), timeout=60)
        waits.append(time.monotonic() - begin)
    waits.sort()
    print(f"{len(waits)} pairs of calls, median {waits[len(waits) // 2]:.4f} s")
    # One call that waits its turn behind a long one would make the median the length of a long one.
    assert len(waits) > 20 and waits[len(waits) // 2] < 0.2


def test_long_calls_beyond_the_bound_are_refused_at_once(service):
    request = service.pb.EncodeRequest()
    request.inputs.add().segments.add(text="a" * 2_000_000)
    calls = [service.stub.Encode.future(request, timeout=120) for _ in range(60)]
    codes = [call.code() for call in calls]
    assert set(codes) == {grpc.StatusCode.OK, EXHAUSTED}
    assert codes.count(grpc.StatusCode.OK) >= 16
    assert service.encode(["Hello"])  # healthy after
