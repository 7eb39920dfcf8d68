"""behemoth-worker as users start it: the tiny checkpoint on the CPU, on port 0."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import grpc
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import contracts  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
BUILD = Path(os.environ.get("BEHEMOTH_BUILD_DIR", ROOT / "build/release"))
TINY = ROOT / "tests/models/tiny"
STOP_S = 60


def pytest_addoption(parser):
    parser.addoption("--requests", type=int, default=170, help="of the solo runs")
    parser.addoption("--kinds", type=int, default=0, help="different ones; 0 = a fifth of them")
    parser.addoption("--seed", type=int, default=1, help="of the solo runs")


@pytest.fixture(scope="session")
def stubs():
    made = contracts.compiled()
    return made.worker_pb, made.worker_grpc


def popen(*arguments, model=TINY):
    return subprocess.Popen(
        [BUILD / "bin/behemoth-worker", "--model", model, "--listen", "127.0.0.1:0",
         "--metrics-listen", "127.0.0.1:0", *map(str, arguments)], stderr=subprocess.PIPE, text=True)


class Worker:
    """Ready once constructed."""

    def __init__(self, stubs, *arguments):
        self.pb, pb_grpc = stubs
        self.process = popen("--backend", "cpu", "--cpu-threads", "2", *arguments)
        self.log = []
        for line in self.process.stderr:
            self.log.append(line)
            ready = re.search(r"\bready listen=(\S+) metrics=(\S+)", line)
            if ready:
                break
        else:
            raise RuntimeError("".join(self.log))
        self.address, self.metrics_address = ready.groups()
        self.stub = pb_grpc.WorkerServiceStub(grpc.insecure_channel(self.address))

    def greedy(self, request_id, ids, max_tokens):
        request = self.pb.GenerateRequest(request_id=request_id, prompt_ids=ids,
                                          max_tokens=max_tokens, include_stop_id=True)
        request.sampling.temperature = 0
        return self.stub.Generate(request, timeout=120)

    def metrics(self):
        text = urllib.request.urlopen(f"http://{self.metrics_address}/metrics").read().decode()
        return {key: float(value) for key, value in re.findall(r"^([^#\s].*) (\S+)$", text, re.M)}

    def load(self):
        """As the worker says now."""
        watch = self.stub.WatchLoad(self.pb.WatchLoadRequest())
        first = next(watch)
        watch.cancel()
        return first

    def resident_bytes(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) << 10

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()  # what a failed test leaves; after stop() there is nothing to kill
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.log += self.process.stderr.readlines()
        return self.process.wait(timeout=STOP_S)
