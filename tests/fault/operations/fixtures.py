"""A gateway over a real tokenizer and worker, and ways to call it, for the tests of this folder."""

import http.client
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "gateway"))
from processes import TINY, Process, until  # noqa: E402


class Served:
    """One tokenizer, one worker, one gateway; `gateway_flags` go to the gateway."""

    def __init__(self, *gateway_flags, worker_flags=(), worker_address=None, model=TINY):
        self.all = []
        self.tokenizer = self.start("behemoth-tokenizer", "--model", model, "--listen", "127.0.0.1:0")
        self.worker = self.start("behemoth-worker", "--model", model, "--served-model-name", "tiny",
                                 "--backend", "cpu", "--cpu-threads", "1", "--listen",
                                 "127.0.0.1:0", *worker_flags)
        address = worker_address(self.worker.port) if worker_address else f"127.0.0.1:{self.worker.port}"
        self.gateway = self.start("behemoth-gateway", "--tokenizer",
                                  f"127.0.0.1:{self.tokenizer.port}", "--worker", address, "--listen",
                                  "127.0.0.1:0", *gateway_flags)
        self.port = self.gateway.port
        until(lambda: self.ask("GET", "/health")[0] == 200, 60, "a healthy gateway")

    def start(self, name, *arguments):
        self.all.append(Process(name, *arguments, "--metrics-listen", "127.0.0.1:0"))
        return self.all[-1]

    def ask(self, method="GET", path="/v1/models", payload=None, headers=(), timeout=60):
        """(status, headers, body)"""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, payload,
                               {"Content-Type": "application/json", **dict(headers)})
            reply = connection.getresponse()
            return reply.status, reply.headers, reply.read()
        finally:
            connection.close()

    def log(self):
        return "".join(line for process in self.all for line in process.log)

    def load(self):
        import json
        return json.loads(self.ask("GET", "/load")[2])

    def at_rest(self):
        def idle():
            load = self.load()
            return (load["server_load"], load["running"], load["waiting"], load["kv_use"]) == (0, 0, 0, 0)
        until(idle, 30, "nothing in flight, no block held")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.all:
            process.kill()
