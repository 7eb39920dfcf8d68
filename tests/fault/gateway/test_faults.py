"""What clients see when a process dies, hangs, drains or comes back (operations.md 6, 38 to 55)."""

import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from processes import Cluster, Stream, ask, call, until  # noqa: E402

LONG = 1200  # tokens: still running whenever a test acts


@pytest.fixture
def cluster():
    started = []

    def start(workers=1):
        started.append(Cluster(workers))
        return started[-1]

    yield start
    for one in started:
        one.end()


def at_rest(one):
    until(lambda: one.metric("behemoth_requests_in_flight") == 0, 10, "no request in flight")


def test_a_killed_worker_ends_its_streams_with_an_error_and_its_return_is_noticed(cluster):
    one = cluster()
    stream = Stream(one.port, LONG).began()
    one.workers[0].send(signal.SIGKILL)
    killed = time.monotonic()
    stream.ended(10)
    assert stream.ended_at - killed < 2
    assert stream.error["code"] == 503 and stream.error["type"] == "ServiceUnavailableError"
    assert stream.closed and not stream.done
    assert all(e["choices"][0]["finish_reason"] is None for e in stream.events)

    status, headers, reply = ask(one.port)
    assert status == 503 and int(headers["Retry-After"]) >= 1
    assert reply["error"]["code"] == 503 and "127.0.0.1" not in reply["error"]["message"]
    assert one.health()[0] == 503
    assert call(one.port, "GET", "/live")[0] == 200

    one.start_worker(one.worker_ports[0])
    one.until_usable(1)
    assert ask(one.port)[0] == 200
    at_rest(one)


def test_a_killed_worker_of_two_costs_only_its_own_streams(cluster):
    one = cluster(workers=2)
    streams = [Stream(one.port, LONG).began(), Stream(one.port, LONG).began()]
    one.workers[0].send(signal.SIGKILL)
    assert [ask(one.port)[0] for _ in range(5)] == [200] * 5  # retried before the first token
    until(lambda: any(s.error for s in streams), 10, "the lost stream's error")
    assert sum(1 for s in streams if s.error) == 1


def test_sigterm_lets_admitted_streams_end_and_refuses_new_ones(cluster):
    one = cluster()
    streams = [Stream(one.port, 150).began() for _ in range(6)]
    one.gateway.send(signal.SIGTERM)
    until(lambda: one.health()[0] == 503, 5, "readiness off")
    status, headers, reply = ask(one.port)
    assert status == 503 and int(headers["Retry-After"]) >= 1
    assert "shutting down" in reply["error"]["message"]
    assert call(one.port, "GET", "/live")[0] == 200
    assert all(stream.ended(100).whole() for stream in streams)
    assert one.gateway.wait() == 0, "".join(one.gateway.log)


def test_a_second_sigterm_ends_at_once(cluster):
    one = cluster()
    Stream(one.port, LONG).began()
    one.gateway.send(signal.SIGTERM)
    until(lambda: "draining" in "".join(one.gateway.log), 5, "the drain")
    until(lambda: one.health()[0] == 503, 5, "readiness off")
    one.gateway.send(signal.SIGTERM)
    assert one.gateway.wait(5) == 130


def test_a_tokenizer_that_is_gone_is_503_and_one_that_is_back_serves(cluster):
    one = cluster()
    running = Stream(one.port, 200).began()
    one.tokenizer.send(signal.SIGKILL)
    until(lambda: one.health()[0] == 503, 5, "readiness off")
    began = time.monotonic()
    status, headers, reply = ask(one.port)
    assert status == 503 and int(headers["Retry-After"]) >= 1 and time.monotonic() - began < 1
    assert reply["error"]["type"] == "ServiceUnavailableError"
    assert one.health()[2]["state"] == "no_tokenizer"
    one.start_tokenizer()
    one.until_usable(1)
    assert ask(one.port)[0] == 200
    assert running.ended().whole()  # who has its ids needs no tokenizer


def test_a_hanging_worker_gets_no_new_request_and_a_woken_one_does(cluster):
    one = cluster(workers=2)
    one.workers[0].send(signal.SIGSTOP)
    one.until_usable(1, 6)
    began = time.monotonic()
    assert [ask(one.port)[0] for _ in range(4)] == [200] * 4
    assert time.monotonic() - began < 10
    one.workers[0].send(signal.SIGCONT)
    one.until_usable(2)


def test_a_worker_that_drains_beside_another_costs_no_client_anything(cluster):
    one = cluster(workers=2)
    streams = [Stream(one.port, 100).began() for _ in range(6)]
    one.workers[0].send(signal.SIGTERM)
    for _ in range(10):
        streams.append(Stream(one.port, 20))
        time.sleep(0.1)
    assert [s.error for s in streams if not s.ended(100).whole()] == []
    assert one.workers[0].wait() == 0
    at_rest(one)


def test_a_client_that_hangs_up_cancels_its_generation(cluster):
    one = cluster()
    Stream(one.port, LONG, hang_up_after=5).ended()
    until(lambda: one.metric('behemoth_cancelled_total{stage="decoding"}') == 1, 5, "one cancel")
    at_rest(one)
    until(lambda: call(one.port, "GET", "/load")[2]["running"] == 0, 5, "an idle worker")


def test_a_log_that_nobody_reads_costs_lines_and_nothing_else(cluster):
    one = cluster()
    deaf = one.start_gateway(heard=False)
    until(lambda: call(deaf.port, "GET", "/health")[0] == 200, 10, "a ready gateway")
    dropped = 0
    for _ in range(60):  # lines of 200 bytes: the pipe, the queue and a batch hold 2.1 MB
        with socket.create_connection(("127.0.0.1", deaf.port), timeout=30) as client:
            bad = (f"POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n"
                   f"X-Request-Id: {'x' * 128}\r\n\r\n{{}}").encode()
            for _ in range(20):
                client.sendall(bad * 20)
                answers = b""
                while answers.count(b"HTTP/1.1 400") < 20:
                    answers += client.recv(1 << 16)
        metrics = urllib.request.urlopen(f"http://127.0.0.1:{deaf.metrics}/metrics").read().decode()
        dropped = int(re.search(r"^behemoth_log_dropped_lines_total (\d+)", metrics, re.M).group(1))
        if dropped > 100:
            break
    assert dropped > 100
    assert ask(deaf.port)[0] == 200
    deaf.send(signal.SIGTERM)
    assert deaf.process.wait(20) == 0


def test_metrics_are_clean_and_true_at_rest(cluster):
    one = cluster()
    assert ask(one.port)[0] == 200
    assert call(one.port, "GET", "/nothing")[0] == 404
    text = one.metrics()
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, text=True,
                             capture_output=True, check=False)
    # The picker's gauges bear vLLM's names, colons included.
    assert [line for line in checked.stderr.splitlines() if not line.startswith("vllm:")] == []
    assert one.metric('behemoth_requests_total{code="200",endpoint="chat"}') == 1
    assert one.metric('behemoth_requests_total{code="404",endpoint="none"}') == 1
    assert one.metric("behemoth_e2e_request_latency_seconds_count") == 1
    assert one.metric("behemoth_time_to_first_token_seconds_count") == 1
    assert one.metric("behemoth_inter_token_latency_seconds_count") == 3
    assert one.metric("behemoth_generation_tokens_total") == 4
    assert one.metric("behemoth_requests_in_flight") == 0
    until(lambda: one.metric("behemoth_workers_usable") == 1, 3, "the pool's gauge")
