"""The three processes as they really run, with the tiny model, on ports of their own."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
BUILD = Path(os.environ.get("BEHEMOTH_BUILD_DIR", ROOT / "build/release"))
TINY = ROOT / "tests/models/tiny"
READY_S = 60


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition, seconds, what):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return value


class Process:
    """Ready once constructed. `log` holds everything that it printed; nobody reads on after the ready
    line of one that is not `heard`."""

    def __init__(self, name, *arguments, heard=True):
        self.log, self.ready, self.heard = [], threading.Event(), heard
        self.process = subprocess.Popen([BUILD / "bin" / name, *map(str, arguments)],
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        assert self.ready.wait(READY_S) and not self.process.poll(), "".join(self.log)

    def _read(self):
        for line in self.process.stdout:
            self.log.append(line)
            if match := re.search(r"ready listen=\S+:(\d+) metrics=\S+:(\d+)", line):
                self.port, self.metrics = map(int, match.groups())
                self.ready.set()
                if not self.heard:
                    return
        self.ready.set()

    def send(self, number):
        self.process.send_signal(number)

    def wait(self, seconds=30):
        code = self.process.wait(seconds)
        self.reader.join(5)
        return code

    def kill(self):
        if self.process.poll() is None:
            self.send(signal.SIGCONT)
            self.process.kill()
        self.process.wait()


class Stream(threading.Thread):
    """One streamed chat. `events` grows as they come; `done`, `error` and `status` say how it ended."""

    def __init__(self, port, tokens, hang_up_after=None):
        super().__init__(daemon=True)
        self.port, self.tokens, self.hang_up_after = port, tokens, hang_up_after
        self.events, self.status, self.error, self.done, self.closed = [], None, None, False, False
        self.first = threading.Event()
        self.ended_at = None
        self.start()

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request("POST", "/v1/chat/completions", body(self.tokens, True),
                               {"Content-Type": "application/json"})
            response = connection.getresponse()
            self.status = response.status
            while line := response.readline():
                if line.startswith(b"data: [DONE]"):
                    self.done = True
                elif line.startswith(b"data: "):
                    event = json.loads(line[6:])
                    self.error = event.get("error", self.error)
                    if "error" not in event:
                        self.events.append(event)
                    if text_of(event):
                        self.first.set()
                    if self.hang_up_after and len(self.events) >= self.hang_up_after:
                        break
            self.closed = True
        except (OSError, http.client.HTTPException) as problem:
            self.error = self.error or repr(problem)
        finally:
            self.ended_at = time.monotonic()
            self.first.set()
            connection.close()

    def began(self):
        assert self.first.wait(60) and self.error is None and self.status == 200, self.error
        return self

    def ended(self, seconds=60):
        self.join(seconds)
        assert not self.is_alive(), "the stream hangs"
        return self

    def whole(self):
        return self.status == 200 and self.done and self.error is None and \
            self.events[-1]["choices"][0]["finish_reason"] == "length"


def text_of(event):
    choices = event.get("choices") or []
    return choices and (choices[0].get("delta") or {}).get("content")


def body(tokens, stream=False):
    return json.dumps({"messages": [{"role": "user", "content": "Who art thou?"}], "stream": stream,
                       "max_tokens": tokens, "ignore_eos": True, "temperature": 0.7, "seed": 7})


def call(port, method, path, payload=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, payload, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.headers, json.loads(response.read() or b"null")
    finally:
        connection.close()


def ask(port, tokens=4):
    return call(port, "POST", "/v1/chat/completions", body(tokens))


class Cluster:
    def __init__(self, workers=1, arguments=()):
        self.all, self.worker_arguments = [], arguments
        self.tokenizer_port, self.worker_ports = free_port(), [free_port() for _ in range(workers)]
        self.tokenizer = self.start_tokenizer()
        self.workers = [self.start_worker(port) for port in self.worker_ports]
        self.gateway = self.start_gateway()
        self.port = self.gateway.port
        until(lambda: self.usable(workers) or self.workers[0].process.poll(), 30, "usable workers")
        # One that dies between being reachable and being ready says why.
        assert not self.workers[0].process.poll(), "".join(self.workers[0].log)

    def start(self, name, *arguments, heard=True):
        self.all.append(Process(name, *arguments, heard=heard))
        return self.all[-1]

    def start_gateway(self, heard=True):
        return self.start(
            "behemoth-gateway", "--tokenizer", f"127.0.0.1:{self.tokenizer_port}", "--worker",
            ",".join(f"127.0.0.1:{port}" for port in self.worker_ports), "--listen", "127.0.0.1:0",
            "--metrics-listen", "127.0.0.1:0", heard=heard)

    def start_tokenizer(self):
        return self.start("behemoth-tokenizer", "--model", TINY, "--listen",
                          f"127.0.0.1:{self.tokenizer_port}", "--metrics-listen", "127.0.0.1:0")

    def start_worker(self, port):
        return self.start("behemoth-worker", "--model", TINY, "--served-model-name", "tiny",
                          "--backend", "cpu", "--cpu-threads", "1", "--listen", f"127.0.0.1:{port}",
                          "--metrics-listen", "127.0.0.1:0", *self.worker_arguments)

    def health(self):
        return call(self.port, "GET", "/health")

    def usable(self, workers):
        status, _, health = self.health()
        return status == 200 and health["workers"]["usable"] == workers

    def until_usable(self, workers, seconds=30):
        until(lambda: self.usable(workers), seconds, f"{workers} usable workers")

    def metrics(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.metrics, timeout=10)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        return text

    def metric(self, name):
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.metrics(), re.M)
        return float(found.group(1)) if found else 0.0

    def end(self):
        for process in self.all:
            process.kill()
