"""Ends: in time, out of time, twice, too early; and readiness that is never a promise too soon
(operations.md 6, 54, 55 and 58)."""

import signal
import subprocess
import sys
import threading
import time
import time
from pathlib import Path

import pytest
from fixtures import Served

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "gateway"))
from processes import BUILD, TINY, Cluster, Process, Stream, until  # noqa: E402


def test_a_worker_out_of_time_ends_its_streams_with_a_typed_error():
    with Served(worker_flags=("--drain-timeout-s", "1")) as served:
        stream = Stream(served.port, 4000).began()
        served.worker.send(signal.SIGTERM)
        assert served.worker.wait(15) == 0
        stream.ended(10)
        assert stream.error["code"] == 503 and not stream.done
        assert all(event["choices"][0]["finish_reason"] is None for event in stream.events)


def test_a_gateway_out_of_time_cuts_what_is_left_and_ends_with_0():
    with Served("--drain-timeout-s", "1") as served:
        stream = Stream(served.port, 4000).began()
        served.gateway.send(signal.SIGTERM)
        assert served.gateway.wait(20) == 0
        stream.ended(10)
        assert not stream.done and stream.events[-1]["choices"][0]["finish_reason"] is None


@pytest.mark.parametrize("part", ["gateway", "worker"])
def test_a_second_sigterm_ends_at_once(part):
    with Served() as served:
        Stream(served.port, 4000).began()
        one = getattr(served, part)
        one.send(signal.SIGTERM)
        until(lambda: "draining" in "".join(one.log), 10, "the drain")
        one.send(signal.SIGTERM)
        assert one.wait(5) == 130


def test_a_crash_loop_never_looks_ready():
    """A worker that is killed while it loads, three times: /health stays 503 until one has warmed up."""
    cluster = Cluster()
    try:
        cluster.workers[0].kill()
        until(lambda: cluster.health()[0] == 503, 10, "readiness off")
        seen, stop = [], threading.Event()

        def watch():
            while not stop.is_set():
                status, _, health = cluster.health()
                seen.append((time.monotonic(), status, health["state"]))
                time.sleep(0.01)
        watcher = threading.Thread(target=watch)
        watcher.start()
        for _ in range(3):
            process = subprocess.Popen(
                [BUILD / "bin/behemoth-worker", "--model", TINY, "--served-model-name", "tiny",
                 "--backend", "cpu", "--cpu-threads", "1", "--listen",
                 f"127.0.0.1:{cluster.worker_ports[0]}", "--metrics-listen", "127.0.0.1:0"],
                stderr=subprocess.PIPE, text=True)
            for line in process.stderr:
                if "state=warming" in line:
                    break
            process.kill()
            process.wait()
        last_kill = time.monotonic()
        cluster.start_worker(cluster.worker_ports[0])
        cluster.until_usable(1)
        stop.set()
        watcher.join()
        assert {status for when, status, _ in seen if when <= last_kill} == {503}
        assert len(seen) > 20
    finally:
        cluster.end()


def test_a_tokenizer_finishes_what_it_has_and_ends_with_0():
    one = Process("behemoth-tokenizer", "--model", TINY, "--listen", "127.0.0.1:0", "--metrics-listen",
                  "127.0.0.1:0", "--drain-timeout-s", "5")
    one.send(signal.SIGTERM)
    assert one.wait(10) == 0
