"""Everything is replaced, one process after the other, while clients stream: nobody notices.

Two gateways, two tokenizers, two workers, as the chart runs them. Clients use gateways that are
ready, as a service's endpoints do; the order of each replacement is Kubernetes': a Deployment starts
the new one first, takes the old one out of the endpoints, waits (preStop), sends SIGTERM; a
StatefulSet ends one pod and starts it again at the same address (operations.md 6, 54 to 56)."""

import os
import resource
import signal
import statistics
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "gateway"))
from processes import TINY, Process, Stream, call, free_port, until  # noqa: E402

TOKENS = 24       # of a stream: a third of a second when nothing else runs
CLIENTS = 4
STREAMS = 500     # at least, over the restarts
PRE_STOP_S = 1    # endpoints are read every 50 ms here, not every few seconds
QUIET = 0.25      # of the cores' time, taken by others: below it they are not overcommitted


class Fleet:
    """Gateways by port, tokenizers and workers by fixed address."""

    def __init__(self):
        self.all = []
        self.tokenizer_ports = [free_port(), free_port()]
        self.worker_ports = [free_port(), free_port()]
        self.tokenizers = {port: self.tokenizer(port) for port in self.tokenizer_ports}
        self.workers = {port: self.worker(port) for port in self.worker_ports}
        self.endpoints = []  # gateways that clients may use
        for _ in range(2):
            self.endpoints.append(self.ready_gateway())

    def start(self, name, *arguments):
        self.all.append(Process(name, *arguments, "--metrics-listen", "127.0.0.1:0"))
        return self.all[-1]

    def tokenizer(self, port):
        return self.start("behemoth-tokenizer", "--model", TINY, "--listen", f"127.0.0.1:{port}")

    def worker(self, port):
        return self.start("behemoth-worker", "--model", TINY, "--served-model-name", "tiny",
                          "--backend", "cpu", "--cpu-threads", "1", "--listen", f"127.0.0.1:{port}")

    def ready_gateway(self):
        tokenizers = ",".join(f"127.0.0.1:{port}" for port in self.tokenizer_ports)
        one = self.start("behemoth-gateway", "--tokenizer", f"ipv4:{tokenizers}", "--worker",
                         ",".join(f"127.0.0.1:{port}" for port in self.worker_ports),
                         "--listen", "127.0.0.1:0")
        self.until_usable(one, 2)
        return one

    def until_usable(self, gateway, workers):
        def usable():
            status, _, body = call(gateway.port, "GET", "/health")
            return status == 200 and body["workers"]["usable"] == workers
        until(usable, 60, f"{workers} usable workers")

    def end(self):
        for process in self.all:
            process.kill()

    # ---- Replacements ----
    def replace_gateway(self, old):
        fresh = self.ready_gateway()
        self.endpoints.append(fresh)
        self.endpoints.remove(old)
        time.sleep(PRE_STOP_S)
        old.send(signal.SIGTERM)
        assert old.wait(60) == 0, "".join(old.log)

    def replace_tokenizer(self, port):
        self.tokenizers[port].send(signal.SIGTERM)
        assert self.tokenizers[port].wait(60) == 0
        self.tokenizers[port] = self.tokenizer(port)
        time.sleep(1)  # readiness, and the callers' channels

    def replace_worker(self, port):
        self.workers[port].send(signal.SIGTERM)
        assert self.workers[port].wait(60) == 0
        self.workers[port] = self.worker(port)
        for gateway in list(self.endpoints):
            self.until_usable(gateway, 2)


class Load:
    """Clients that stream one after the other until told to stop."""

    def __init__(self, fleet):
        self.fleet, self.done, self.stop = fleet, [], threading.Event()
        self.threads = [threading.Thread(target=self.client, args=(i,)) for i in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def client(self, number):
        turn = number
        while not self.stop.is_set():
            turn += 1
            endpoints = list(self.fleet.endpoints)
            began = time.monotonic()
            stream = Stream(endpoints[turn % len(endpoints)].port, TOKENS).ended(120)
            self.done.append((began, time.monotonic() - began, stream))

    def until(self, count):
        until(lambda: len(self.done) >= count, 300, f"{count} streams")

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(120)
            assert not thread.is_alive()


def p99(seconds):
    return statistics.quantiles(seconds, n=100)[98]


class Cores:
    """Who has the processors: this test with its processes, or others."""

    def __init__(self, fleet):
        self.fleet = fleet
        self.began, self.busy, self.own = time.monotonic(), self.busy_s(), self.own_s()

    @staticmethod
    def busy_s():
        user, nice, system, _, _, interrupts, soft, steal = map(
            int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
        return (user + nice + system + interrupts + soft + steal) / os.sysconf("SC_CLK_TCK")

    def own_s(self):
        alive = 0
        for process in self.fleet.all:
            stat = Path(f"/proc/{process.process.pid}/stat")
            if process.process.poll() is None:
                fields = stat.read_text().rsplit(")", 1)[1].split()
                alive += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        mine, ended = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(
            resource.RUSAGE_CHILDREN)
        return alive + mine.ru_utime + mine.ru_stime + ended.ru_utime + ended.ru_stime

    def others(self):
        """Their share of all cores since this was made."""
        theirs = (self.busy_s() - self.busy) - (self.own_s() - self.own)
        return theirs / ((time.monotonic() - self.began) * os.cpu_count())


def test_a_rolling_restart_of_everything_fails_no_stream():
    fleet = Fleet()
    try:
        cores, load = Cores(fleet), Load(fleet)
        load.until(150)
        before = [seconds for _, seconds, _ in load.done]
        first = len(load.done)
        rounds, took = 0, {}
        while len(load.done) < first + STREAMS:
            rounds += 1
            for what, replace, targets in (
                    ("gateways", fleet.replace_gateway, list(fleet.endpoints)),
                    ("tokenizers", fleet.replace_tokenizer, fleet.tokenizer_ports),
                    ("workers", fleet.replace_worker, fleet.worker_ports)):
                begin = len(load.done)
                for target in targets:
                    replace(target)
                took.setdefault(what, []).extend(s for _, s, _ in load.done[begin:])
        load.end()
        during = load.done[first:]
        failed = [(s.status, s.error) for _, _, s in during if not s.whole()]
        slowest, others = p99([seconds for _, seconds, _ in during]), cores.others()
        print(f"\n{rounds} restarts of everything, {len(during)} streams, {len(failed)} failed, p99 "
              f"{slowest:.2f} s (before: {p99(before):.2f} s), p99 by what was replaced: "
              + ", ".join(f"{what} {p99(seconds):.2f} s" for what, seconds in took.items())
              + f"; others had {others:.0%} of the cores")
        assert failed == []
        if others < QUIET:
            assert slowest <= 2 * p99(before)
        else:
            # Then it is the neighbours that are measured, most of all while a worker loads beside
            # the one that serves: held is what has little to compute.
            assert p99(took["gateways"] + took["tokenizers"]) <= 2 * max(p99(before), 1)
    finally:
        fleet.end()
