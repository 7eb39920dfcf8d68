"""Requests that are poison: one that the model cannot compute fails alone, one that workers die of is
not given to a third (operations.md 6, 47)."""

import json
import re
import shutil
import signal
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fixtures import Served

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "gateway"))
from processes import TINY, Cluster, Stream, ask, body, call, until  # noqa: E402

POISON = 3000  # a token id
CLEAN_IDS, POISONED_IDS = [1, 50, 60, 70], [1, 50, POISON, 70]
LONG = 1200


@pytest.fixture
def poisoned_model(tmp_path):
    """The tiny checkpoint with a NaN in the embedding of one token."""
    shutil.copytree(TINY, tmp_path / "model")
    path = tmp_path / "model/model.safetensors"
    data = bytearray(path.read_bytes())
    header_bytes = int.from_bytes(data[:8], "little")
    table = json.loads(data[8:8 + header_bytes])["model.embed_tokens.weight"]
    assert table["dtype"] == "BF16"
    row = 8 + header_bytes + table["data_offsets"][0] + 2 * table["shape"][1] * POISON
    data[row:row + 2] = b"\xc0\x7f"
    path.write_bytes(data)
    return tmp_path / "model"


def metric(process, name):
    with urllib.request.urlopen(f"http://127.0.0.1:{process.metrics}/metrics") as reply:
        found = re.search(rf"^{re.escape(name)} (\S+)$", reply.read().decode(), re.M)
    return float(found.group(1)) if found else 0


def test_logits_that_are_not_finite_fail_their_request_alone(poisoned_model):
    with Served(model=poisoned_model) as served:
        def complete(ids):
            payload = json.dumps({"prompt": ids, "max_tokens": 40, "temperature": 0,
                                  "ignore_eos": True})
            status, _, text = served.ask("POST", "/v1/completions", payload)
            return status, json.loads(text)

        def text(reply):
            assert reply[0] == 200, reply
            return reply[1]["choices"][0]["text"]

        alone = text(complete(CLEAN_IDS))
        with ThreadPoolExecutor(8) as pool:
            replies = list(pool.map(complete, [CLEAN_IDS, POISONED_IDS] * 8))
        assert {text(reply) for reply in replies[::2]} == {alone}
        for status, reply in replies[1::2]:
            assert status == 500 and reply["error"]["type"] == "InternalServerError"
        assert metric(served.worker, "behemoth_non_finite_logits_total") == 8
        assert text(complete(CLEAN_IDS)) == alone  # in blocks that held the NaN
        served.at_rest()


def test_a_request_that_two_workers_died_of_is_not_tried_again():
    one = Cluster()
    try:
        for _ in range(2):
            stream = Stream(one.port, LONG).began()
            one.workers[0].send(signal.SIGKILL)
            assert stream.ended(20).error["code"] == 503
            one.workers[0].wait()
            one.workers[0] = one.start_worker(one.worker_ports[0])
            one.until_usable(1)
        for _ in range(3):  # as a client's library retries: the same bytes
            status, _, reply = call(one.port, "POST", "/v1/chat/completions", body(LONG, True))
            assert status == 500 and reply["error"]["code_name"] == "request_quarantined"
        assert one.metric('behemoth_rejected_total{reason="quarantined"}') == 3
        assert ask(one.port)[0] == 200  # another one
        until(lambda: one.metric("behemoth_requests_in_flight") == 0, 10, "rest")
    finally:
        one.end()
