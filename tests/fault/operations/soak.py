#!/usr/bin/env python3
"""A long day in short: mixed load, clients that leave, a worker killed again and again; then the books
must balance and nothing may have grown (operations.md 6, items 62 and 63).

usage: soak.py [--minutes 30] [--kill-every 240] [--clients 6] [--json FILE]
"""

import argparse
import collections
import json
import os
import random
import re
import signal
import sys
import threading
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "gateway"))
from processes import Cluster, Stream, call, until  # noqa: E402

SAMPLE_S = 5


def sample(process):
    """RSS in MiB, open files, threads of a process."""
    pid = process.process.pid
    status = Path(f"/proc/{pid}/status").read_text()
    number = {key: int(re.search(rf"^{key}:\s+(\d+)", status, re.M).group(1))
              for key in ("VmRSS", "Threads")}
    return {"rss_mib": number["VmRSS"] / 1024, "threads": number["Threads"],
            "fds": len(os.listdir(f"/proc/{pid}/fd"))}


class Clients:
    """Each does one thing after the other; `ends` counts what became of them, by HTTP code."""

    def __init__(self, cluster, count, seed):
        self.cluster, self.stop = cluster, threading.Event()
        self.ends, self.lock = collections.Counter(), threading.Lock()
        self.threads = [threading.Thread(target=self.run, args=(random.Random(seed + i),))
                        for i in range(count)]
        for thread in self.threads:
            thread.start()

    def count(self, what):
        with self.lock:
            self.ends[what] += 1

    def run(self, draw):
        while not self.stop.is_set():
            kind = draw.choices(["short", "long", "leaves", "bad", "unknown"], [10, 3, 4, 1, 1])[0]
            if kind == "bad":
                self.count(call(self.cluster.port, "POST", "/v1/chat/completions", "{")[0])
            elif kind == "unknown":
                call(self.cluster.port, "GET", "/nowhere")
            elif kind == "leaves":
                stream = Stream(self.cluster.port, 400, hang_up_after=draw.randint(1, 20))
                stream.ended(120)
                # Its worker may die before it leaves.
                error = stream.error["code"] if isinstance(stream.error, dict) else stream.error
                refused = stream.status != 200 and stream.status
                self.count(error or refused or "left")
            else:
                stream = Stream(self.cluster.port, draw.randint(5, 40) if kind == "short" else 200)
                stream.ended(120)
                error = stream.error["code"] if isinstance(stream.error, dict) else stream.error
                self.count(200 if stream.whole() else error or stream.status)

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(180)


def gateway_counts(cluster):
    """{code: generation requests} of the gateway's own books."""
    found = re.findall(r'^behemoth_requests_total\{code="(\d+)",endpoint="chat"\} (\S+)$',
                       cluster.metrics(), re.M)
    return {int(code): int(float(value)) for code, value in found}


def soak(minutes, kill_every, clients, seed=6):
    """A report; `problems` in it is empty if all is well."""
    cluster = Cluster(workers=2)
    samples, kills = [], 0
    try:
        load = Clients(cluster, clients, seed)
        began, next_kill = time.monotonic(), time.monotonic() + kill_every
        while time.monotonic() - began < 60 * minutes:
            time.sleep(SAMPLE_S)
            samples.append({"s": time.monotonic() - began, "gateway": sample(cluster.gateway),
                            "tokenizer": sample(cluster.tokenizer)})
            if time.monotonic() >= next_kill:
                victim = kills % 2
                kills += 1
                next_kill += kill_every
                cluster.workers[victim].send(signal.SIGKILL)
                cluster.workers[victim].wait()
                cluster.workers[victim] = cluster.start_worker(cluster.worker_ports[victim])
        load.end()
        until(lambda: cluster.metric("behemoth_requests_in_flight") == 0, 30, "no request in flight")
        cluster.until_usable(2)
        until(lambda: call(cluster.port, "GET", "/load")[2]["running"] == 0, 10, "idle workers")
        idle = []
        for worker in cluster.workers:
            with urllib.request.urlopen(f"http://127.0.0.1:{worker.metrics}/metrics") as reply:
                text = reply.read().decode()
            idle.append({name: float(re.search(rf"^{name} (\S+)$", text, re.M).group(1))
                         for name in ("behemoth_running_sequences", "behemoth_waiting_requests",
                                      "behemoth_kv_use_ratio")})
        return report(samples, kills, load.ends, gateway_counts(cluster), idle)
    finally:
        cluster.end()


def part(samples, process, key, begin, end):
    values = sorted(one[process][key] for one in samples[int(len(samples) * begin):
                                                         max(1, int(len(samples) * end))])
    return values[len(values) // 2]


def report(samples, kills, ends, books, idle):
    problems = []
    growth = {}
    for process in ("gateway", "tokenizer"):
        for key in ("rss_mib", "fds", "threads"):
            # The median of the second quarter (all that is lazy has happened) and of the last one.
            first, last = (part(samples, process, key, *span) for span in ((.25, .5), (.75, 1)))
            growth[f"{process} {key}"] = [round(first, 1), round(last, 1)]
            if key == "rss_mib" and "BEHEMOTH_SANITIZE" in os.environ:
                continue  # a sanitizer keeps what was freed
            if last > first * 1.05 + (2 if key != "rss_mib" else 4):
                problems.append(f"{process} {key} grew from {first} to {last}")
    said = collections.Counter({code: count for code, count in books.items() if count})
    heard = collections.Counter({code: count for code, count in ends.items() if code != "left"})
    # Who leaves after the last token is a 200 of the gateway's, before it a 499.
    if sum(said.values()) != sum(ends.values()):
        problems.append(f"{sum(ends.values())} requests sent, {sum(said.values())} counted")
    for code in set(said) | set(heard):
        if code not in (200, 499) and said[code] != heard[code]:
            problems.append(f"code {code}: {heard[code]} heard, {said[code]} counted")
    if any(value for one in idle for value in one.values()):
        problems.append(f"not at rest: {idle}")
    return {"requests": sum(ends.values()), "kills": kills,
            "heard": {str(k): v for k, v in ends.items()},
            "counted": {str(k): v for k, v in said.items()}, "growth": growth, "problems": problems}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--kill-every", type=float, default=240)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = soak(options.minutes, options.kill_every, options.clients)
    text = json.dumps(result, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text)
    sys.exit(1 if result["problems"] else 0)


if __name__ == "__main__":
    main()
