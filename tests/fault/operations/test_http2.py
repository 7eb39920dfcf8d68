"""The gRPC ports under what HTTP/2 lets a stranger send for nothing (operations.md 6, 35): the
connection is ended, the processor and the memory that it took are bounded, others are served."""

import struct
import sys
import threading
import time
from pathlib import Path

import grpc
import pytest
from http2 import (ACK, CANCEL, CONTINUATION, END_HEADERS, HEADERS, PING, RST_STREAM, SETTINGS,
                   Connection, call_headers, frame, literal)

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "gateway"))
from processes import TINY, Process  # noqa: E402

ENCODE, CHECK = "/behemoth.tokenizer.v1.TokenizerService/Encode", "/grpc.health.v1.Health/Check"
ENDED_WITHIN_S = 30   # one to two on a machine of one's own
CPU_S = 3             # of the process, for a flood until its end
GROWTH_MIB = 96

COMMANDS = {
    "tokenizer": ["behemoth-tokenizer"],
    "worker": ["behemoth-worker", "--served-model-name", "tiny", "--backend", "cpu",
               "--cpu-threads", "1"],
}


@pytest.fixture(scope="module", params=COMMANDS)
def served(request):
    process = Process(*COMMANDS[request.param], "--model", TINY, "--listen", "127.0.0.1:0",
                      "--metrics-listen", "127.0.0.1:0")
    yield process
    process.kill()


def resets(path):
    """Calls of `path`, each cancelled in the frame after the one that opens it."""
    block, stream = call_headers(path.encode()), 1
    while True:
        yield b"".join(frame(HEADERS, END_HEADERS, one, block) +
                       frame(RST_STREAM, 0, one, struct.pack(">I", CANCEL))
                       for one in range(stream, stream + 1000, 2))
        stream += 1000


def continuations(payload):
    """A header block without an end."""
    yield frame(HEADERS, 0, 1, call_headers(CHECK.encode()))
    while True:
        yield frame(CONTINUATION, 0, 1, payload) * (1 + 65536 // (9 + len(payload)))


def repeated(one):
    while True:
        yield one * (65536 // len(one))


FLOODS = {
    "resets of a known method": lambda: resets(CHECK),
    "resets of an unknown method": lambda: resets("/no/such"),
    "header fields without end": lambda: continuations(literal(b"x", b"y" * 100) * 100),
    "empty continuations": lambda: continuations(b""),
    "pings": lambda: repeated(frame(PING, ACK, 0, b"12345678")),
    "settings": lambda: repeated(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65535))),
}


def cpu_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def rss_mib(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


class Bystander:
    """Somebody else, who asks for the process's health all the time."""

    def __init__(self, port):
        self.port, self.failed, self.slowest, self.asked = port, [], 0, 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            check = channel.unary_unary(CHECK)
            while not self.stop.wait(0.05):
                began = time.monotonic()
                try:
                    check(b"", timeout=10)
                except grpc.RpcError as error:
                    self.failed.append(error.code())
                self.slowest = max(self.slowest, time.monotonic() - began)
                self.asked += 1

    def end(self):
        self.stop.set()
        self.thread.join(20)


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_ends_its_own_connection_and_nothing_else(served, flood):
    pid = served.process.pid
    bystander = Bystander(served.port)
    cpu, rss, began = cpu_s(pid), rss_mib(pid), time.monotonic()
    flooding = Connection(served.port)
    sent = 0
    for data in FLOODS[flood]():
        if not flooding.send(data) or time.monotonic() - began > ENDED_WITHIN_S:
            break
        sent += len(data)
    took, cpu, grown = time.monotonic() - began, cpu_s(pid) - cpu, rss_mib(pid) - rss
    flooding.close()
    bystander.end()
    print(f"\n{flood}: {sent / 1e6:.1f} MB, ended after {took:.2f} s, processor {cpu:.2f} s, memory "
          f"+{grown:.0f} MiB, another's slowest of {bystander.asked} calls {bystander.slowest:.3f} s")
    assert flooding.dropped, f"still open after {took:.0f} s"
    assert cpu < CPU_S and grown < GROWTH_MIB
    assert bystander.failed == [] and bystander.asked > 0
    assert served.process.poll() is None


def test_a_busy_caller_is_no_flood():
    """Large messages on many streams at once, and cancels at a rate that users can cause."""
    process = Process("behemoth-tokenizer", "--model", TINY, "--listen", "127.0.0.1:0",
                      "--metrics-listen", "127.0.0.1:0")
    try:
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        with grpc.insecure_channel(f"127.0.0.1:{process.port}", options) as channel:
            encode = channel.unary_unary(ENCODE)
            text = b"Who art thou? " * 70_000  # 1 MB
            segment = b"\x0a" + varint(len(text)) + text
            inner = b"\x0a" + varint(len(segment)) + segment
            request = b"\x0a" + varint(len(inner)) + inner
            calls = [encode.future(request, timeout=120) for _ in range(12)]  # as many may wait
            for call in [encode.future(b"", timeout=120) for _ in range(400)]:
                call.cancel()
            assert len({len(call.result()) for call in calls}) == 1
        assert "connection ended" not in "".join(process.log)
    finally:
        process.kill()


def varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])
