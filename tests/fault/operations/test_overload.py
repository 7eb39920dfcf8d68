"""More than can be done: what is refused is refused at once and says when to come back, the rest runs
as before, nobody starves, nothing leaks (operations.md 6, 40 and 43 to 45)."""

import http.client
import random
import socket
import sys
import threading
import time
from pathlib import Path

from fixtures import Served

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "gateway"))
from processes import Stream, body, until  # noqa: E402

TOKENS = 16


def measure(served, clients, seconds):
    """(tokens a second of whole streams, [(status, seconds, Retry-After) of refusals])."""
    stop, tokens, refused, lock = threading.Event(), [0], [], threading.Lock()

    def run():
        while not stop.is_set():
            began = time.monotonic()
            connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
            connection.request("POST", "/v1/chat/completions", body(TOKENS),
                               {"Content-Type": "application/json"})
            reply = connection.getresponse()
            took = time.monotonic() - began
            reply.read()
            connection.close()
            with lock:
                if reply.status == 200:
                    tokens[0] += TOKENS
                else:
                    refused.append((reply.status, took, reply.headers["Retry-After"]))
            if reply.status != 200:
                stop.wait(0.5)  # half of what Retry-After asks for: these clients are rude

    threads = [threading.Thread(target=run) for _ in range(clients)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join(60)
    return tokens[0] / (time.monotonic() - began), refused


def test_ten_times_the_load_is_refused_early_and_the_rest_runs_on():
    with Served("--max-in-flight", "4") as served:
        measure(served, 4, 2)
        peak, refused = measure(served, 4, 8)
        assert refused == []
        goodput, refused = measure(served, 40, 12)
        delays = sorted(seconds for _, seconds, _ in refused)
        print(f"\npeak {peak:.0f} tokens/s, under ten times the clients {goodput:.0f}; {len(refused)} "
              f"refused, median after {delays[len(delays) // 2] * 1000:.1f} ms, 95 % within "
              f"{delays[len(delays) * 95 // 100] * 1000:.1f} ms")
        assert len(refused) > 50
        assert {status for status, _, _ in refused} == {503}
        assert all(int(after) >= 1 for _, _, after in refused)
        assert delays[len(delays) // 2] < 0.05
        # 90 % is the aim; the clients of this test take their share of the same two cores.
        assert goodput > 0.7 * peak
        served.at_rest()
        after, _ = measure(served, 4, 4)
        assert after > 0.7 * peak


def test_a_full_gateway_refuses_before_it_reads_the_body():
    with Served("--max-in-flight", "1") as served:
        running = Stream(served.port, 1500, hang_up_after=100).began()
        head = (b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                b"Content-Length: 8000000\r\nExpect: 100-continue\r\n\r\n")
        with socket.create_connection(("127.0.0.1", served.port), timeout=10) as raw:
            began = time.monotonic()
            raw.sendall(head)
            reply = raw.recv(4096)
            assert reply.startswith(b"HTTP/1.1 503") and b"Retry-After" in reply
            assert b"100 Continue" not in reply and time.monotonic() - began < 2
        running.ended()
        served.at_rest()


def test_a_full_queue_is_503_and_empties():
    with Served(worker_flags=("--max-num-seqs", "1", "--queue-max-requests", "2")) as served:
        streams = [Stream(served.port, 300) for _ in range(8)]
        until(lambda: sum(s.status == 503 for s in streams) >= 4, 20, "four refusals")
        assert all(s.ended(120).whole() or s.status == 503 for s in streams)
        # Two that wait, and those that had begun by then: none if all came within one step.
        assert 2 <= sum(s.whole() for s in streams) <= 4
        served.at_rest()


def test_one_key_cannot_starve_another(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("greedy\nmodest\n")
    with Served("--api-key-file", keys, worker_flags=("--max-num-seqs", "2")) as served:
        ended = {}

        def ask(name, key):
            status, _, _ = served.ask("POST", "/v1/chat/completions", body(60),
                                      {"Authorization": f"Bearer {key}"}, timeout=180)
            ended[name] = (status, time.monotonic())
        threads = [threading.Thread(target=ask, args=(f"greedy {i}", "greedy")) for i in range(16)]
        for thread in threads:
            thread.start()
        until(lambda: served.load()["waiting"] >= 8, 20, "a queue")
        threads.append(threading.Thread(target=ask, args=("modest", "modest")))
        threads[-1].start()
        for thread in threads:
            thread.join(180)
        assert {status for status, _ in ended.values()} == {200}
        earlier = sum(when < ended["modest"][1] for _, when in ended.values())
        assert earlier <= 8, f"{earlier} of the greedy key's 16 came first"


def test_a_storm_of_cancels_leaves_nothing_behind():
    draw = random.Random(6)
    with Served() as served:
        left = [1000]
        lock = threading.Lock()

        def run(seed):
            mine = random.Random(seed)
            while True:
                with lock:
                    if left[0] == 0:
                        return
                    left[0] -= 1
                raw = socket.create_connection(("127.0.0.1", served.port), timeout=30)
                payload = body(400, stream=True).encode()
                raw.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: "
                            b"application/json\r\nContent-Length: %d\r\n\r\n" % len(payload) + payload)
                time.sleep(mine.choice([0, 0, 0.001, 0.01, 0.05, 0.1]))
                raw.close()

        threads = [threading.Thread(target=run, args=(draw.random(),)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        served.at_rest()
        assert Stream(served.port, 5).ended().whole()
        until(lambda: served.load()["running"] == 0, 5, "rest")
