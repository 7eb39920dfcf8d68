"""Who gets in, what is on which port, and what is never written down (operations.md 6, 26 to 31 and
60)."""

import json
import math
import os
import random
import re
import socket
import subprocess
import time
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fixtures import Served

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "gateway"))
from processes import BUILD, ROOT, TINY, Process, call, until  # noqa: E402

KEY = "sk-The-Key-7"
PUBLIC = {"/health", "/live", "/ping", "/version", "/load", "/openapi.json"}


@pytest.fixture(scope="module")
def guarded():
    with Served("--api-key", KEY, "--log-level", "trace") as served:
        yield served


def routes():
    """(method, path) of every route in the source: a new one is held to a key by default."""
    source = (ROOT / "gateway/session/front_door.cc").read_text()
    return re.findall(r'\{"(GET|POST)", "(/[^"]+)", "\w+", Action::\w+', source)


def test_every_route_is_public_by_name_or_needs_a_key(guarded):
    found = routes()
    assert len(found) >= 17 and PUBLIC <= {path for _, path in found}
    for method, path in found:
        status, _, _ = guarded.ask(method, path.replace("*", "x"), "{}" if method == "POST" else None)
        assert (status == 401) == (path not in PUBLIC), (method, path, status)


@pytest.mark.parametrize("headers", [
    {}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Bearer {KEY[:-1]}"},
    {"Authorization": f"Bearer {KEY}x"}, {"Authorization": f"Bearer {KEY.lower()}"},
    {"Authorization": f"Bearer  {KEY}"}, {"Authorization": f"Basic {KEY}"}, {"Authorization": KEY},
    {"x-api-key": "wrong"}, {"x-api-key": ""},
])
def test_whatever_is_wrong_with_a_key_is_the_same_401(guarded, headers):
    status, _, body = guarded.ask("POST", "/v1/chat/completions", "{}", headers)
    reference = guarded.ask("POST", "/v1/chat/completions", "{}")[2]
    assert status == 401 and body == reference


# By hand with 100000. The same of the comparison itself: tests/integration/gateway.
TIMING_SAMPLES = int(os.environ.get("BEHEMOTH_TIMING_SAMPLES", 20_000))


def slope_t(samples):
    """The t statistic of the slope of y over x."""
    n = len(samples)
    mean_x, mean_y = (sum(column) / n for column in zip(*samples))
    xx = sum((x - mean_x) ** 2 for x, _ in samples)
    yy = sum((y - mean_y) ** 2 for _, y in samples)
    r = sum((x - mean_x) * (y - mean_y) for x, y in samples) / math.sqrt(xx * yy)
    return r * math.sqrt((n - 2) / (1 - r * r))


def test_the_time_of_a_401_says_nothing_of_how_much_was_right(guarded):
    draw, samples = random.Random(26), []
    asks = [(f"GET /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer "
             f"{KEY[:right]}{'~' * (len(KEY) - right)}\r\n\r\n").encode()
            for right in range(len(KEY))]
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=30) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(TIMING_SAMPLES):
            right = draw.randrange(len(asks))
            began = time.perf_counter_ns()
            raw.sendall(asks[right])
            reply = raw.recv(4096)
            samples.append((right, time.perf_counter_ns() - began))
            assert reply.startswith(b"HTTP/1.1 401") and reply.endswith(b"}}")
    samples.sort(key=lambda sample: sample[1])
    t = slope_t(samples[:len(samples) * 9 // 10])  # the slowest tenth was interrupted
    print(f"\nt = {t:.2f} over {len(samples)} replies, the middle one after "
          f"{samples[len(samples) // 2][1] / 1000:.0f} us")
    assert abs(t) < 4.5  # chance alone: once in 150,000 runs


def test_two_keys_at_once_are_none(guarded):
    request = (f"GET /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n"
               f"Authorization: Bearer {KEY}\r\nConnection: close\r\n\r\n")
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=10) as raw:
        raw.sendall(request.encode())
        assert raw.recv(4096).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize("host", ["a/b", "a?x=1", "a#b", "/v1/models", "evil@a"])
def test_the_host_header_decides_nothing(guarded, host):
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=10) as raw:
        raw.sendall(f"GET /v1/models HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        assert raw.recv(64).split()[1] in (b"400", b"401")


@pytest.mark.parametrize("path", ["//v1/models", "/v1//models", "/V1/models", "/v1/models/.",
                                  "/v1/../v1/models", "/%76%31/models", "/health/../v1/models",
                                  "/v1/models;x", "/health%2f..%2fv1/models"])
def test_no_spelling_of_a_path_goes_round_the_key(guarded, path):
    assert guarded.ask("GET", path)[0] in (400, 401, 404)


def test_metrics_are_on_their_own_port_only(guarded):
    assert guarded.ask("GET", "/metrics", headers={"Authorization": f"Bearer {KEY}"})[0] == 404
    with socket.create_connection(("127.0.0.1", guarded.gateway.metrics), timeout=10) as raw:
        raw.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        assert b"200" not in raw.recv(64).split(b"\r\n")[0]


def test_no_log_at_any_level_holds_prompt_key_path_or_a_forged_line(guarded):
    secret, forged = "the-crown-jewels-lie-under-the-oak", "x\r\nlevel=error forged=1\x1b[31m"
    body = json.dumps({"messages": [{"role": "user", "content": secret}], "max_tokens": 4,
                       "user": forged, "model": "tiny"})
    headers = {"Authorization": f"Bearer {KEY}", "X-Request-Id": "fine-1"}
    assert guarded.ask("POST", "/v1/chat/completions", body, headers)[0] == 200
    assert guarded.ask("POST", "/v1/chat/completions", body.replace("tiny", forged.encode(
        "unicode_escape").decode() + secret), headers)[0] in (400, 404)
    guarded.ask("GET", "/" + secret, headers=headers)
    log = guarded.log()
    assert "level=" in log
    for hidden in (secret, KEY, "forged=1\n", "\x1b"):
        assert hidden not in log, hidden
    assert not re.search(r"0x[0-9a-f]{8,}", log)


def test_one_request_id_for_many_mixes_nothing(guarded):
    def ask(seed):
        body = json.dumps({"messages": [{"role": "user", "content": f"Say {seed}."}], "seed": seed,
                           "max_tokens": 12, "ignore_eos": True, "temperature": 1})
        status, headers, text = guarded.ask("POST", "/v1/chat/completions", body, {
            "Authorization": f"Bearer {KEY}", "X-Request-Id": "the-same"})
        assert status == 200 and headers["X-Request-Id"] == "the-same"
        return json.loads(text)["choices"][0]["message"]["content"]

    alone = [ask(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == alone
    assert len(set(alone)) > 4


@pytest.mark.parametrize("odd", ["a" * 129, "with blank", "ümlaut".encode().decode("latin1"), "{}"])
def test_an_odd_request_id_is_replaced(guarded, odd):
    body = json.dumps({"messages": [{"role": "user", "content": "Hm."}], "max_tokens": 1})
    _, headers, _ = guarded.ask("POST", "/v1/chat/completions", body, {
        "Authorization": f"Bearer {KEY}", "X-Request-Id": odd})
    assert headers["X-Request-Id"] and headers["X-Request-Id"] != odd


def test_a_taken_port_is_named_and_exit_1(guarded):
    for flag in ("--listen", "--metrics-listen"):
        other = "--metrics-listen" if flag == "--listen" else "--listen"
        result = subprocess.run(
            [BUILD / "bin/behemoth-gateway", flag, f"127.0.0.1:{guarded.port}", other, "127.0.0.1:0"],
            capture_output=True, text=True, timeout=30)
        assert result.returncode == 1 and f"127.0.0.1:{guarded.port}" in result.stderr


def test_a_name_that_does_not_resolve_is_waited_for():
    gateway = Process("behemoth-gateway", "--tokenizer", "dns:///nowhere.invalid:1", "--worker",
                      "dns:///nowhere.invalid:2", "--listen", "127.0.0.1:0", "--metrics-listen",
                      "127.0.0.1:0")
    try:
        status, _, body = call(gateway.port, "GET", "/health")
        assert status == 503 and body["workers"]["known"] == 0
        assert call(gateway.port, "GET", "/live")[0] == 200
    finally:
        gateway.kill()


def test_requests_over_ipv6_and_metrics_that_are_not():
    """The metrics library has no IPv6: an address of that kind is refused by name, never half used."""
    try:
        socket.socket(socket.AF_INET6).bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    refused = subprocess.run([BUILD / "bin/behemoth-tokenizer", "--model", TINY, "--listen",
                              "127.0.0.1:0", "--metrics-listen", "[::1]:0"], capture_output=True,
                             text=True, timeout=30)
    assert refused.returncode == 1 and "metrics [::1]:0" in refused.stderr
    started = []

    def start(name, *arguments):
        started.append(Process(name, *arguments, "--metrics-listen", "127.0.0.1:0"))
        return started[-1]
    try:
        tokenizer = start("behemoth-tokenizer", "--model", TINY, "--listen", "[::1]:0")
        worker = start("behemoth-worker", "--model", TINY, "--backend", "cpu", "--cpu-threads", "1",
                       "--listen", "[::1]:0")
        gateway = start("behemoth-gateway", "--tokenizer", f"[::1]:{tokenizer.port}", "--worker",
                        f"[::1]:{worker.port}", "--listen", "[::1]:0")

        def healthy():
            with socket.create_connection(("::1", gateway.port), timeout=5) as raw:
                raw.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                return raw.recv(64).startswith(b"HTTP/1.1 200")
        until(healthy, 60, "health over IPv6")
    finally:
        for one in started:
            one.kill()
