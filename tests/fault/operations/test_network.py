"""The network between us misbehaves, and so do clients: slow, cut, stalled, chopped up, too many
(operations.md 6, 33, 34, 41 and 42). The fault injector is a TCP proxy of the test's own."""

import json
import resource
import select
import socket
import struct
import sys
import threading
import time
from pathlib import Path

import pytest
from fixtures import Served

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "gateway"))
from processes import Stream, body, until  # noqa: E402


class Proxy:
    """Passes bytes between whoever connects and a port, the way `fault` says at the moment."""

    def __init__(self, target):
        self.target, self.fault, self.passed, self.closed = target, "none", 0, False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while not self.closed:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        try:
            server = socket.create_connection(("127.0.0.1", self.target))
        except OSError:
            client.close()
            return
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        other = {client: server, server: client}
        try:
            while not self.closed:
                readable, _, _ = select.select([client, server], [], [], 0.05)
                if self.fault == "reset":
                    for one in other:
                        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return
                if self.fault == "stall":
                    time.sleep(0.05)
                    continue
                for one in readable:
                    data = one.recv(65536)
                    if not data:
                        return
                    self.send(other[one], data)
        except OSError:
            pass
        finally:
            client.close()
            server.close()

    def send(self, to, data):
        if self.fault == "latency":
            time.sleep(0.2)
        if self.fault == "slice":
            for i in range(len(data)):
                to.sendall(data[i:i + 1])
        elif self.fault == "narrow":  # 20 KB/s
            time.sleep(len(data) / 20_000)
            to.sendall(data)
        else:
            to.sendall(data)

    def close(self):
        self.closed = True
        self.listener.close()


@pytest.fixture
def between():
    """(served, proxy): the proxy stands between gateway and worker."""
    proxies = []

    def through(port):
        proxies.append(Proxy(port))
        return f"127.0.0.1:{proxies[-1].port}"

    with Served("--request-timeout-s", "20", worker_address=through) as served:
        yield served, proxies[0]
    proxies[0].close()


@pytest.mark.parametrize("fault", ["latency", "slice", "narrow"])
def test_a_bad_line_slows_a_stream_and_breaks_nothing(between, fault):
    served, proxy = between
    proxy.fault = fault
    stream = Stream(served.port, 20).ended(60)
    assert stream.whole(), stream.error
    proxy.fault = "none"
    served.at_rest()


def test_a_reset_line_is_a_typed_error_and_forgotten_at_once(between):
    served, proxy = between
    stream = Stream(served.port, 1500).began()
    proxy.fault = "reset"
    began = time.monotonic()
    stream.ended(10)
    assert time.monotonic() - began < 2 and stream.error["code"] == 503 and not stream.done
    proxy.fault = "none"
    until(lambda: Stream(served.port, 3).ended().whole(), 20, "a whole stream")
    served.at_rest()


def test_a_stalled_line_ends_by_keepalive_and_by_deadline(between):
    served, proxy = between
    stream = Stream(served.port, 1500).began()
    proxy.fault = "stall"
    stream.ended(25)  # 10 s to the ping, 5 s for its answer; the request's own 20 s at the latest
    assert stream.error["code"] in (503, 504) and not stream.done
    status, headers, _ = served.ask("POST", "/v1/chat/completions", body(3), timeout=30)
    assert status == 503 and int(headers["Retry-After"]) >= 1
    proxy.fault = "none"
    until(lambda: Stream(served.port, 3).ended().whole(), 30, "a whole stream")
    served.at_rest()


def test_a_deadline_is_an_error_and_frees_the_worker():
    with Served("--request-timeout-s", "1") as served:
        began = time.monotonic()
        stream = Stream(served.port, 4000).ended(10)
        assert stream.error["code"] == 504 and not stream.done and time.monotonic() - began < 3
        status, _, text = served.ask("POST", "/v1/chat/completions", body(4000))
        assert status == 504 and json.loads(text)["error"]["code"] == 504
        served.at_rest()


def test_slow_heads_are_cut_and_cost_others_nothing():
    with Served("--head-timeout-ms", "1000") as served:
        slow = []
        for _ in range(300):
            slow.append(socket.create_connection(("127.0.0.1", served.port)))
            slow[-1].sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHos")
        began = time.monotonic()
        assert Stream(served.port, 5).ended().whole()
        # Each has its second; then 408 or nothing, and the end.
        for one in slow:
            one.settimeout(10)
            reply = one.recv(4096)
            assert reply == b"" or reply.startswith(b"HTTP/1.1 408")
            one.close()
        assert time.monotonic() - began < 15
        served.at_rest()


def test_accepting_recovers_from_a_flood_to_the_limit_of_files():
    with Served() as served:
        pid = served.gateway.process.pid
        hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
        in_use = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (in_use + 20, hard))
        flood = []
        for _ in range(60):
            flood.append(socket.create_connection(("127.0.0.1", served.port)))
        before = cpu_seconds(pid)
        time.sleep(2)
        assert cpu_seconds(pid) - before < 1, "it spins"
        for one in flood:
            one.close()
        until(lambda: Stream(served.port, 3).ended().whole(), 15, "a whole stream")
        # Connect and reset, thousands of times.
        for _ in range(3000):
            one = socket.socket()
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.connect(("127.0.0.1", served.port))
            one.close()
        assert Stream(served.port, 3).ended().whole()
        until(lambda: len(list(Path(f"/proc/{pid}/fd").iterdir())) <= in_use + 2, 10, "its files back")


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100
