"""One model on several ranks: what a client sees is one worker, also when a rank fails or hangs."""

import re
import sys
import time
import urllib.request
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from processes import Cluster, Stream, ask, call, until  # noqa: E402

TWO = ("--tensor-parallel-size", "2")
# tiny has 5 layers: 10 sums and a gathering in a step, and 8 steps of warm-up. So in the stream's
# fortieth step or so.
LATE = 11 * (8 + 40)
STEP_TIMEOUT_S = 2


@pytest.fixture
def cluster():
    started = []

    def start(*arguments):
        started.append(Cluster(1, arguments))
        return started[-1]

    yield start
    for one in started:
        one.end()


def greedy(one):
    payload = ('{"prompt": "Who art thou?", "max_tokens": 40, "temperature": 0, "ignore_eos": true}')
    status, _, reply = call(one.port, "POST", "/v1/completions", payload)
    assert status == 200
    return reply["choices"][0]["text"]


def test_two_and_four_ranks_say_what_one_says(cluster):
    alone = greedy(cluster())
    assert len(alone) > 40
    for ranks in "24":
        one = cluster("--tensor-parallel-size", ranks)
        assert greedy(one) == alone
        page = urllib.request.urlopen(f"http://127.0.0.1:{one.workers[0].metrics}/metrics").read().decode()
        planned = re.findall(r'^behemoth_planned_memory_bytes\{part="weights",rank="(\d)"\} (\S+)', page, re.M)
        assert sorted(rank for rank, _ in planned) == [str(rank) for rank in range(int(ranks))]
        assert len({size for _, size in planned}) == 1


@pytest.mark.parametrize("fault", ["error", "hang"])
def test_a_rank_that_is_lost_fails_streams_typed_and_ends_the_process(cluster, fault):
    one = cluster(*TWO, "--step-timeout-s", STEP_TIMEOUT_S, "--test-rank-fault", f"1:{fault}:{LATE}")
    stream = Stream(one.port, 1200).began()
    last_token, seen = time.monotonic(), 0
    while not stream.closed and stream.is_alive():
        if len(stream.events) != seen:
            last_token, seen = time.monotonic(), len(stream.events)
        time.sleep(0.02)
    assert stream.ended(10).ended_at - last_token < 5
    assert stream.error["code"] == 503 and stream.error["type"] == "ServiceUnavailableError"
    assert not stream.done and 5 < seen < 100
    assert one.workers[0].wait(10) == 1
    log = "".join(one.workers[0].log)
    assert ("rank 1: a rank fault" if fault == "error" else "ranks have not done a step within 2s") in log
    assert ask(one.port)[0] == 503

    one.worker_arguments = TWO
    one.start_worker(one.worker_ports[0])
    one.until_usable(1)
    assert ask(one.port)[0] == 200


def test_a_rank_that_hangs_while_the_model_warms_up_ends_the_process(cluster):
    with pytest.raises(AssertionError) as said:
        cluster(*TWO, "--step-timeout-s", STEP_TIMEOUT_S, "--test-rank-fault", "0:hang:40")
    assert "ranks have not done a step" in str(said.value)
