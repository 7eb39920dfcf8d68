"""The worker's process from flags to exit code."""

import hashlib
import json
import signal

import pytest

from conftest import ROOT, STOP_S, TINY, Worker, popen

GOLDEN = ROOT / "tests/golden/data/tiny_logits.json"


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
    (["--kv-cache-dtype", "int3"], 2, "--kv-cache-dtype"),
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
