"""behemoth-worker as users start it: the tiny checkpoint on the CPU, from flags to exit code."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import grpc
import pytest

ROOT = Path(__file__).resolve().parents[3]
BUILD = Path(os.environ.get("BEHEMOTH_BUILD_DIR", ROOT / "build/release"))
TINY = ROOT / "tests/models/tiny"
GOLDEN = ROOT / "tests/golden/data/tiny_logits.json"
STOP_S = 60


@pytest.fixture(scope="session")
def stubs():
    from grpc_tools import protoc

    out = tempfile.mkdtemp(prefix="behemoth-stubs-")
    proto = ROOT / "proto/behemoth/worker/v1/worker.proto"
    assert protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"--python_out={out}",
                        f"--grpc_python_out={out}", str(proto)]) == 0
    sys.path.insert(0, out)
    from behemoth.worker.v1 import worker_pb2, worker_pb2_grpc

    return worker_pb2, worker_pb2_grpc


def popen(*arguments, model=TINY):
    return subprocess.Popen(
        [BUILD / "bin/behemoth-worker", "--model", model, "--listen", "127.0.0.1:0",
         "--metrics-listen", "127.0.0.1:0", *arguments], stderr=subprocess.PIPE, text=True)


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
        self.metrics_address = ready.group(2)
        self.stub = pb_grpc.WorkerServiceStub(grpc.insecure_channel(ready.group(1)))

    def greedy(self, request_id, ids, max_tokens):
        request = self.pb.GenerateRequest(request_id=request_id, prompt_ids=ids,
                                          max_tokens=max_tokens, include_stop_id=True)
        request.sampling.temperature = 0
        return self.stub.Generate(request, timeout=120)

    def metrics(self):
        text = urllib.request.urlopen(f"http://{self.metrics_address}/metrics").read().decode()
        return {key: float(value) for key, value in re.findall(r"^([^#\s].*) (\S+)$", text, re.M)}

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.log += self.process.stderr.readlines()
        return self.process.wait(timeout=STOP_S)


def tokens_of(stream):
    ids, finish = [], None
    for response in stream:
        ids += response.tokens.ids
        finish = response.finish if response.HasField("finish") else finish
    return ids, finish


@pytest.fixture(scope="module")
def worker(stubs):
    running = Worker(stubs)
    yield running
    assert running.stop() == 0, "".join(running.log)


def test_greedy_tokens_are_transformers_own(worker):
    """The golden files hold, per token, how far ahead it was: what the logits' bound (10^-3 is a
    hundred times it) cannot decide is not compared."""
    prompts = json.loads(GOLDEN.read_text())["prompts"]
    assert prompts
    for number, prompt in enumerate(prompts):
        ids, finish = tokens_of(worker.greedy(f"golden-{number}", prompt["ids"], 64))
        near_ties = [i for i, margin in enumerate(prompt["margins"]) if margin < 1e-3]
        sure = near_ties[0] if near_ties else len(prompt["greedy"])
        assert sure > 0
        assert ids[:sure] == prompt["greedy"][:sure]
        assert finish.usage.prompt_tokens == len(prompt["ids"])


def test_a_prompt_that_was_seen_is_not_computed_again(worker):
    prompt = [1] + list(range(500, 700))
    request = ("seen-1", prompt, 8)
    first, _ = tokens_of(worker.greedy(*request))
    again, finish = tokens_of(worker.greedy("seen-2", prompt, 8))
    assert again == first
    assert finish.usage.cached_tokens == 192  # three blocks of 64


def test_status_names_model_limits_and_state(worker):
    status = worker.stub.GetStatus(worker.pb.GetStatusRequest())
    assert status.state == worker.pb.WORKER_STATE_READY
    assert status.load.percent == 100
    assert list(status.model.served_names) == ["tiny"]
    assert status.model.vocabulary_size == 4096
    tokenizer_file = (TINY / "tokenizer.json").read_bytes()
    assert status.model.tokenizer_fingerprint == hashlib.sha256(tokenizer_file).hexdigest()
    assert status.limits.context_tokens == 8192
    assert status.limits.blocks * status.limits.tokens_per_block >= 8192
    assert 0 < status.devices[0].planned_bytes < status.devices[0].memory_bytes


def test_metrics_tell_the_truth_at_rest(worker):
    tokens_of(worker.greedy("counted", [1, 2, 3], 4))
    metrics = worker.metrics()
    vllm = '{engine="0",model_name="tiny"}'
    assert metrics[f"vllm:num_requests_running{vllm}"] == 0
    assert metrics[f"vllm:num_requests_waiting{vllm}"] == 0
    assert metrics['behemoth_engine_state{state="ready"}'] == 1
    ended = sum(v for k, v in metrics.items() if k.startswith("behemoth_worker_requests_total"))
    assert ended == metrics["behemoth_worker_request_seconds_count"] > 0


def test_sigterm_lets_a_running_stream_finish(stubs):
    running = Worker(stubs, "--served-model-name", "a,b")
    stream = running.greedy("last", [1, 2, 3], 200)
    assert next(stream).HasField("progress")
    running.process.send_signal(signal.SIGTERM)
    ids, finish = tokens_of(stream)
    assert ids and finish is not None
    assert running.process.wait(timeout=STOP_S) == 0


def test_sigterm_while_loading_ends_soon_and_well():
    process = popen("--backend", "cpu")
    for line in process.stderr:
        if "loading listen=" in line:
            break
    process.send_signal(signal.SIGTERM)
    process.stderr.read()
    assert process.wait(timeout=5) == 0


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (["--backend", "tpu"], 2, "--backend"),
    (["--no-such-flag"], 2, "--no-such-flag"),
    (["--max-num-seqs", "0"], 2, "--max-num-seqs"),
    (["--max-step-tokens", "8"], 2, "--max-step-tokens"),
    (["--kv-cache-dtype", "fp8"], 2, "--kv-cache-dtype"),
    (["--max-model-len", "9000"], 1, "max_model_len"),
    (["--max-model-len", "4096", "--kv-cache-memory-bytes", "1000000"], 1, "4096 tokens"),
    (["--gpu-memory-limit-gib", "0.001"], 1, "weights"),
    (["--tls-cert-file", "absent.pem"], 1, "--tls-key-file"),
])
def test_a_bad_start_says_what_and_ends(arguments, code, message):
    process = popen(*arguments)
    log = process.stderr.read()
    assert process.wait(timeout=STOP_S) == code, log
    assert message in log


def test_a_context_that_does_not_fit_is_capped_and_said(stubs):
    running = Worker(stubs, "--kv-cache-memory-bytes", "8000000", "--no-tokenizer-fingerprint")
    status = running.stub.GetStatus(running.pb.GetStatusRequest())
    assert status.limits.context_tokens == status.limits.blocks * status.limits.tokens_per_block
    assert 64 <= status.limits.context_tokens < 8192
    assert status.model.tokenizer_fingerprint == ""
    assert any("context capped" in line for line in running.log)
    assert running.stop() == 0
