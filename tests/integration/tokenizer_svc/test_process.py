"""The process around the service: command line, health, reflection, metrics, drain."""

import re
import signal
import socket
import subprocess
import urllib.request

import grpc
import pytest
from tokenizer_process import BINARY, ROOT, TINY, TokenizerProcess

SERVICE = "behemoth.tokenizer.v1.TokenizerService"


def command(*arguments, environment=None):
    return subprocess.run([BINARY, *arguments], capture_output=True, text=True, timeout=60,
                          env=environment)


# ---- Command line --------------------------------------------------------------------------------
def test_help_and_version_end_with_zero():
    help_text = command("--help")
    assert help_text.returncode == 0
    for flag in ("--model", "--listen", "--metrics-listen", "--tls-cert-file", "--config"):
        assert flag in help_text.stdout
    assert "BEHEMOTH_METRICS_LISTEN" in help_text.stdout
    version = command("--version")
    assert version.returncode == 0
    assert re.match(r"behemoth-tokenizer \d+\.\d+\.\d+ \(\S+\)\n$", version.stdout)


@pytest.mark.parametrize("arguments, named", [
    (["--model", "x", "--no-such-flag"], "--no-such-flag"),
    (["--model", "x", "--max-text-bytes", "0"], "max-text-bytes"),
    (["--model", "x", "--max-text-bytes", "many"], "max-text-bytes"),
    (["--model", "x", "--drain-timeout-s", "-1"], "drain-timeout-s"),
    (["--model", "x", "--log-level", "loud"], "log-level"),
    (["--model", "x", "--config", "/nowhere.toml"], "/nowhere.toml"),
    ([], "--model"),
])
def test_a_bad_command_line_names_itself_and_ends_with_two(arguments, named):
    result = command(*arguments)
    assert result.returncode == 2
    assert named in result.stderr


def test_flags_come_from_the_environment_and_a_file(start, tmp_path):
    config = tmp_path / "tokenizer.toml"
    config.write_text('max-text-bytes = 7\ndrain_timeout_s = 3\n')
    by_file = start("--config", str(config))
    assert "max-text-bytes=7" in by_file.log[0] and "drain-timeout-s=3" in by_file.log[0]
    by_environment = start("--config", str(config), environment={"BEHEMOTH_MAX_TEXT_BYTES": "9"})
    assert "max-text-bytes=9" in by_environment.log[0]
    with pytest.raises(grpc.RpcError):
        by_file.encode(["8 bytes."])
    assert by_environment.encode(["8 bytes."])


# ---- What cannot start says why ------------------------------------------------------------------
@pytest.mark.parametrize("flag", ["--listen", "--metrics-listen"])
def test_a_taken_port_is_named_and_ends_with_one(flag):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ports = {"--listen": "127.0.0.1:0", "--metrics-listen": "127.0.0.1:0", flag: address}
        result = command("--model", TINY, *(x for pair in ports.items() for x in pair))
    assert result.returncode == 1
    assert address in result.stderr


@pytest.mark.parametrize("files, named", [
    ({}, "neither tokenizer.json nor tokenizer.model"),
    ({"tokenizer.json": "{"}, "tokenizer.json"),
    ({"tokenizer.model": "\xff\xff"}, "tokenizer.model"),
    ({"tokenizer.json": None, "tokenizer_config.json": "[]"}, "tokenizer_config.json"),
    ({"tokenizer.json": None, "tokenizer_config.json": '{"bos_token": "nowhere"}'}, "bos_token"),
])
def test_a_broken_model_folder_names_the_file(files, named, tmp_path):
    for name, text in files.items():
        (tmp_path / name).write_text((TINY / name).read_text() if text is None else text)
    result = command("--model", tmp_path, "--listen", "127.0.0.1:0",
                     "--metrics-listen", "127.0.0.1:0")
    assert result.returncode == 1
    assert named in result.stderr


# ---- Health --------------------------------------------------------------------------------------
def check(service, name):
    return service.health.Check(service.health_pb.HealthCheckRequest(service=name), timeout=20).status


def test_check_knows_the_process_and_the_service(service):
    serving = service.health_pb.HealthCheckResponse.SERVING
    assert check(service, "") == serving and check(service, SERVICE) == serving
    with pytest.raises(grpc.RpcError) as error:
        check(service, "nobody")
    assert error.value.code() == grpc.StatusCode.NOT_FOUND


def test_watch_says_the_state_at_once_and_that_the_process_goes(start):
    service = start()
    states = service.health_pb.HealthCheckResponse
    known = service.health.Watch(service.health_pb.HealthCheckRequest(service=SERVICE))
    unknown = service.health.Watch(service.health_pb.HealthCheckRequest(service="nobody"))
    assert next(known).status == states.SERVING
    assert next(unknown).status == states.SERVICE_UNKNOWN
    service.terminate()
    assert next(known).status == states.NOT_SERVING
    with pytest.raises(grpc.RpcError) as error:
        next(known)
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE


# ---- Reflection ----------------------------------------------------------------------------------
def list_services(service):
    """ServerReflectionRequest{list_services: "*"}; names out of the raw reply."""
    call = service.channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    reply = next(call(iter([b"\x3a\x01*"]), timeout=20))
    return set(re.findall(rb"[A-Za-z0-9_.]+\.[A-Za-z0-9_]+", reply))


def test_reflection_lists_the_services(service):
    assert {SERVICE.encode(), b"grpc.health.v1.Health"} <= list_services(service)


def test_reflection_can_be_turned_off(start):
    with pytest.raises(grpc.RpcError) as error:
        list_services(start("--reflection", "false"))
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


# ---- Metrics -------------------------------------------------------------------------------------
def metrics_page(service):
    return urllib.request.urlopen(f"http://{service.metrics}/metrics", timeout=20).read().decode()


def test_metrics_count_calls_and_please_promtool(start):
    service = start()
    tokens = len(service.encode(["Hello"])[0])
    with pytest.raises(grpc.RpcError):
        service.stub.Encode(service.pb.EncodeRequest())
    service.vocabulary()
    page = metrics_page(service)
    for line in ('behemoth_tokenizer_requests_total{code="0",method="Encode"} 1',
                 'behemoth_tokenizer_requests_total{code="3",method="Encode"} 1',
                 'behemoth_tokenizer_requests_total{code="0",method="GetVocabulary"} 1',
                 'behemoth_tokenizer_seconds_count{method="Encode"} 2',
                 f"behemoth_tokenizer_tokens_total {tokens}",
                 "behemoth_tokenizer_text_bytes_total 5"):
        assert line in page
    assert 'behemoth_build_info{' in page
    promtool = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True,
                              text=True, timeout=60)
    assert promtool.returncode == 0, promtool.stdout + promtool.stderr


# ---- Drain ---------------------------------------------------------------------------------------
def long_call(service):
    """A call that takes a second; returns when the process works on it."""
    request = service.pb.EncodeRequest()
    request.inputs.add().segments.add(text="a" * 15_000_000)
    call = service.stub.Encode.future(request, timeout=300)
    while "behemoth_tokenizer_long_calls 1" not in metrics_page(service):
        assert not call.done()
    return call


def test_a_call_in_flight_at_sigterm_is_finished_and_a_later_one_refused(start):
    service = start()
    call = long_call(service)
    service.terminate()
    while "draining" not in service.log[-1]:
        service.log.append(service.process.stderr.readline())
    with pytest.raises(grpc.RpcError) as error:
        while not call.done():
            service.encode(["Hello"])
    # CANCELLED: gRPC's answer on a connection whose client has not yet read that the server goes.
    assert error.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    assert len(call.result().encodings[0].ids) > 1_000_000


def test_the_second_signal_ends_the_process_at_once(stubs):
    service = TokenizerProcess(TINY, stubs)
    long_call(service)
    service.terminate()
    while "draining" not in service.log[-1]:
        service.log.append(service.process.stderr.readline())
    service.process.send_signal(signal.SIGTERM)
    assert service.stop() == 130


# ---- Logs ----------------------------------------------------------------------------------------
def test_no_log_line_holds_text_of_a_request(start):
    service = start("--log-level", "trace")
    service.encode(["the secret of the prompt"])
    with pytest.raises(grpc.RpcError):
        service.stub.Encode(service.pb.EncodeRequest())
    assert service.stop() == 0
    assert "secret" not in "".join(service.log)
    assert str(ROOT) not in "".join(service.log[1:])
