"""Tokenizer, worker and gateway as real processes on port 0, and OpenAI's client in front."""

import os
import re
import subprocess
import time
from pathlib import Path

import httpx
import openai
import pytest

ROOT = Path(__file__).resolve().parents[3]
BUILD = Path(os.environ.get("BEHEMOTH_BUILD_DIR", ROOT / "build/release"))
TINY = ROOT / "tests/models/tiny"
READY_S = 120  # a sanitizer's build on a busy machine
CONTEXT = 1024  # a prompt that fills it takes a second
KEY = "sk-of-the-tests"


class Service:
    """One process; `address` is known once it has said that it is ready."""

    def __init__(self, name, log, *arguments):
        self.name, self.log = name, log
        with open(log, "w") as out:
            self.process = subprocess.Popen(
                [BUILD / "bin" / name, "--listen", "127.0.0.1:0", "--metrics-listen",
                 "127.0.0.1:0", *map(str, arguments)], stdout=out, stderr=out)
        self.address = self.wait_for(r"ready listen=(\S+)")

    def wait_for(self, pattern):
        end = time.monotonic() + READY_S
        while time.monotonic() < end and self.process.poll() is None:
            if found := re.search(pattern, self.log.read_text()):
                return found.group(1)
            time.sleep(0.02)
        raise RuntimeError(f"{self.name} did not become ready:\n{self.log.read_text()}")

    def stop(self):
        self.process.terminate()
        code = self.process.wait(timeout=60)
        assert code == 0, f"{self.name} exits {code}:\n{self.log.read_text()[-2000:]}"


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """Starts a service; all stop in reverse order at the end, each with exit code 0."""
    logs, services = tmp_path_factory.mktemp("logs"), []

    def run(name, *arguments):
        services.append(Service(name, logs / f"{len(services)}_{name}.log", *arguments))
        return services[-1]

    yield run
    for service in reversed(services):
        service.stop()


def wait_until_healthy(address):
    end = time.monotonic() + READY_S
    while time.monotonic() < end:
        reply = httpx.get(f"http://{address}/health")
        if reply.status_code == 200:
            return
        time.sleep(0.05)
    pytest.fail(f"the gateway is not healthy: {reply.text}")


@pytest.fixture(scope="session")
def tokenizer(start):
    return start("behemoth-tokenizer", "--model", TINY)


@pytest.fixture(scope="session")
def worker(start):
    return start("behemoth-worker", "--model", TINY, "--backend", "cpu",
                 "--served-model-name", "tiny,behemoth/tiny", "--max-model-len", CONTEXT)


@pytest.fixture(scope="session")
def backends(tokenizer, worker):
    return ["--tokenizer", tokenizer.address, "--worker", worker.address]


@pytest.fixture(scope="session")
def gateway(start, backends):
    """Its URL."""
    address = start("behemoth-gateway", *backends).address
    wait_until_healthy(address)
    return f"http://{address}"


@pytest.fixture(scope="session")
def locked_gateway(start, backends):
    """The URL of one that asks for KEY."""
    address = start("behemoth-gateway", *backends, "--api-key", KEY).address
    wait_until_healthy(address)
    return f"http://{address}"


@pytest.fixture(scope="session")
def client(gateway):
    return openai.OpenAI(base_url=f"{gateway}/v1", api_key="-", max_retries=0, timeout=120)


@pytest.fixture(scope="session")
def http(gateway):
    with httpx.Client(base_url=gateway, timeout=120) as session:
        yield session
