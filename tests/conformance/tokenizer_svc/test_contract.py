"""What callers do wrong, what hostile text costs, and how the process ends."""

import time
import urllib.request

import grpc
import pytest


def refusal(service, request):
    with pytest.raises(grpc.RpcError) as error:
        service.stub.Encode(request)
    assert service.encode(["Hello"]) == [[23325]]  # healthy after
    return error.value.code(), error.value.details()


def test_bad_requests_name_their_field(serve, v7_json):
    service = serve(v7_json["plain"])
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    assert refusal(service, service.pb.EncodeRequest()) == (invalid, "inputs: empty")
    request = service.pb.EncodeRequest()
    request.inputs.add().segments.add(text="x")
    request.inputs.add().segments.add(control_id=23325)
    code, details = refusal(service, request)
    assert code == invalid and details.startswith("inputs[1].segments[0].control_id:")
    request = service.pb.EncodeRequest()
    request.inputs.add().segments.add()
    code, details = refusal(service, request)
    assert code == invalid and details.startswith("inputs[0].segments[0]:")


def test_more_than_the_limits_is_refused(serve, v7_json):
    service = serve(v7_json["plain"], "--max-text-bytes", "1000")
    request = service.pb.EncodeRequest()
    request.inputs.add().segments.add(text="x" * 1001)
    assert refusal(service, request)[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
    request = service.pb.EncodeRequest(inputs=[service.pb.EncodeInput()] * 4097)
    assert refusal(service, request)[0] == grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("unit", ["a", " ", "\u2581", "\n", "🌴", "[", "=", "ab"])
def test_ten_megabytes_of_one_unit_cost_little_more_than_linear_time(unit, serve, v7_json):
    service = serve(v7_json["plain"])

    def seconds(size):
        text = unit * (size // len(unit.encode()))
        start = time.monotonic()
        service.encode([text], kind="text")
        return time.monotonic() - start

    small, large = seconds(1_000_000), seconds(10_000_000)
    print(f"{unit!r}: 1 MB {small:.2f} s, 10 MB {large:.2f} s")
    assert large < 25 * small + 1  # n squared would be 100


def test_metrics_count_calls(serve, v7_json):
    service = serve(v7_json["plain"])
    service.encode(["Hello"])
    page = urllib.request.urlopen(f"http://{service.metrics}/metrics", timeout=5).read().decode()
    assert 'behemoth_tokenizer_requests_total{code="0",method="Encode"} 1' in page
    assert "behemoth_tokenizer_tokens_total 1" in page
