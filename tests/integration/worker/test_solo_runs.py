"""A worker under everything at once, through gRPC: 64 requests at a time in a pool too small for
them, prompts with common beginnings, callers that leave in every way. Each text that was finished
is bitwise that of the request alone in a worker of its own; what was cut short is a beginning of it.

The full number, by hand (worker/README.md has the figures):
    pytest -s tests/integration/worker/test_solo_runs.py --requests 10000
"""

import os
import queue
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from conftest import Worker

CONCURRENT = 64
CONTEXT = 256
VOCABULARY = 4096
# 5 layers x (K and V) x 4 heads x 64 elements x 64 tokens x 4 bytes
BLOCK_BYTES = 5 * 2 * 4 * 64 * 64 * 4
# Room for 48 sequences of one block and for the block that each may need next, which is what
# admission asks for; not for long ones that grow to four.
POOL_BLOCKS = 96
SOLO_BLOCKS = 64
# A request of low priority waits while others of its key keep coming: for the whole run, if need be.
PATIENCE_S = 7200
# Every so many requests as many long ones come in a row, so that all callers hold one at a time.
LONG_EVERY, LONG = 768, range(64, 160)


def is_long(number):
    return number % LONG_EVERY in LONG


def roll_request(pb, dice, number, long):
    """What one caller asks. Seeded, so that it means the same alone."""
    stem = 300 + 1000 * dice.randrange(3)
    prompt = [1]
    if not long and dice.random() < 0.4:
        prompt += range(stem, stem + dice.randint(64, 130))
    prompt += [dice.randrange(300, VOCABULARY) for _ in range(dice.randint(1, 40))]
    request = pb.GenerateRequest(prompt_ids=prompt, max_tokens=dice.randint(150, 200) if long else dice.randint(1, 40),
                                 ignore_eos=long,
                                 num_sequences=dice.randint(2, 4) if not long and dice.random() < 0.15 else 1,
                                 cache_salt="salt" if dice.random() < 0.2 else "",
                                 fairness_key=f"key{dice.randrange(4)}",
                                 priority=dice.randint(-3, 3))
    sampling = request.sampling
    sampling.seed = number
    sampling.temperature = 0.0 if dice.random() < 0.25 else 0.9
    sampling.top_p = 0.95 if dice.random() < 0.5 else 1.0
    sampling.repetition_penalty = 1.1 if dice.random() < 0.3 else 1.0
    sampling.frequency_penalty = 0.5 if dice.random() < 0.3 else 0.0
    if dice.random() < 0.3:
        request.logprobs.top = dice.randrange(3)
    return request


class Heard:
    """One stream as it came."""

    def __init__(self, sequences):
        self.texts = [[] for _ in range(sequences)]  # of (id, logprob, alternatives)
        self.reasons = [None] * sequences
        self.cached = self.preemptions = 0
        self.status = grpc.StatusCode.OK

    def take(self, response):
        if response.HasField("tokens"):
            tokens = response.tokens
            extras = ([(p.logprob, tuple(p.top_ids), tuple(p.top_logprobs)) for p in tokens.logprobs]
                      or [None] * len(tokens.ids))
            self.texts[tokens.sequence] += zip(tokens.ids, extras)
        elif response.HasField("finish"):
            finish = response.finish
            self.reasons[finish.sequence] = finish.reason
            self.cached = max(self.cached, finish.usage.cached_tokens)
            self.preemptions += finish.timings.preemptions

    def tokens(self):
        return sum(map(len, self.texts))


def listen(worker, request, leave=None, leave_after=0):
    """To the end, or until `leave` is done: hang up, Control, or a deadline that is too short."""
    heard = Heard(request.num_sequences)
    stream = worker.stub.Generate(request, timeout=0.05 if leave == "deadline" else PATIENCE_S)
    left = False
    try:
        if leave == "hang up" and leave_after == 0:
            stream.cancel()
        for response in stream:
            heard.take(response)
            if left or leave in (None, "deadline") or heard.tokens() < leave_after:
                continue
            left = True
            if leave == "hang up":
                stream.cancel()
            else:
                control = worker.pb.ControlRequest(request_id=request.request_id)
                control.cancel.SetInParent()
                try:
                    worker.stub.Control(control, timeout=60)
                except grpc.RpcError as late:
                    assert late.code() == grpc.StatusCode.NOT_FOUND
    except grpc.RpcError as end:
        heard.status = end.code()
    return heard


def difference(pb, heard, alone, leave):
    """Empty, or how what was heard differs from the solo run."""
    may_end = {None: {grpc.StatusCode.OK}, "control": {grpc.StatusCode.OK},
               "hang up": {grpc.StatusCode.OK, grpc.StatusCode.CANCELLED},
               "deadline": {grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED}}[leave]
    if heard.status not in may_end:
        return f"ended {heard.status}"
    for number, (text, whole) in enumerate(zip(heard.texts, alone.texts)):
        reason = heard.reasons[number]
        if reason is None and heard.status == grpc.StatusCode.OK:
            return f"sequence {number} has no finish"
        if reason == pb.Finish.REASON_CANCELLED and leave != "control":
            return f"sequence {number} was cancelled by nobody"
        cut = reason in (None, pb.Finish.REASON_CANCELLED)
        if not cut and reason != alone.reasons[number]:
            return f"sequence {number} finished {reason}, alone {alone.reasons[number]}"
        if text != (whole[:len(text)] if cut else whole):
            return f"sequence {number}: {text}, alone {whole}"
    return ""


def run_alone(stubs, requests):
    """Each by itself: one after the other, nothing shared, nothing cached."""
    solo = []
    with Worker(stubs, "--max-model-len", CONTEXT, "--no-enable-prefix-caching",
                "--kv-cache-memory-bytes", SOLO_BLOCKS * BLOCK_BYTES) as worker:
        for number, request in enumerate(requests):
            request.request_id = f"solo-{number}"
            solo.append(listen(worker, request))
            assert solo[-1].status == grpc.StatusCode.OK
        assert worker.stop() == 0
    return solo


class Storm:
    """`count` requests over CONCURRENT callers, each held against its solo run when it ends."""

    def __init__(self, worker, kinds, solo, dice):
        self.worker, self.kinds, self.solo, self.dice = worker, kinds, solo, dice
        self.long = [kind for kind, request in enumerate(kinds) if request.ignore_eos]
        self.short = [kind for kind, request in enumerate(kinds) if not request.ignore_eos]
        self.lock = threading.Lock()
        self.wrong = queue.SimpleQueue()
        self.ended = self.cached = self.preemptions = self.tokens = 0
        self.left = {"hang up": 0, "control": 0, "deadline": 0}

    def one(self, number):
        with self.lock:
            kind = self.dice.choice(self.long if is_long(number) else self.short)
            leave = self.dice.choice(list(self.left)) if self.dice.random() < 0.2 else None
            leave_after = self.dice.randint(0, self.kinds[kind].max_tokens)
            request = self.worker.pb.GenerateRequest()
            request.CopyFrom(self.kinds[kind])
        request.request_id = f"r-{number}"
        if request.ignore_eos:  # a long one shares its blocks with nobody, not even with its like
            request.cache_salt = request.request_id
        heard = listen(self.worker, request, leave, leave_after)
        found = difference(self.worker.pb, heard, self.solo[kind], leave)
        if found:
            self.wrong.put(f"request {number} of kind {kind}, leaving by {leave}: {found}")
        with self.lock:
            self.ended += 1
            if self.ended % 1000 == 0:
                print(f"{self.ended} requests, {self.preemptions} preemptions", flush=True)
            self.tokens += heard.tokens()
            self.cached += heard.cached > 0
            self.preemptions += heard.preemptions
            if leave and (heard.status != grpc.StatusCode.OK
                          or self.worker.pb.Finish.REASON_CANCELLED in heard.reasons):
                self.left[leave] += 1

    def run(self, first, count):
        with ThreadPoolExecutor(CONCURRENT) as callers:
            for done in [callers.submit(self.one, first + i) for i in range(count)]:
                done.result()
        assert self.wrong.empty(), self.wrong.get()


class MostRows(threading.Thread):
    """How many sequences ever ran side by side, by WatchLoad."""

    def __init__(self, worker):
        super().__init__(daemon=True)
        self.seen = 0
        request = worker.pb.WatchLoadRequest()
        request.interval.FromMilliseconds(50)
        self.watch = worker.stub.WatchLoad(request)
        self.start()

    def run(self):
        try:
            for load in self.watch:
                self.seen = max(self.seen, load.running_sequences)
        except grpc.RpcError:
            pass  # cancelled by end()

    def end(self):
        self.watch.cancel()
        self.join()
        return self.seen


def at_rest(worker):
    end = time.monotonic() + 30
    while True:
        load = worker.load()
        if load.running_sequences == load.waiting_requests == load.waiting_tokens == 0:
            return load
        assert time.monotonic() < end, load
        time.sleep(0.05)


def settled(worker, pool_blocks):
    """At rest, with every block back: bytes and descriptors that it holds then."""
    assert at_rest(worker).free_blocks == pool_blocks
    return worker.resident_bytes(), worker.descriptors()


def test_every_text_is_bitwise_its_solo_run(stubs, request):
    option = request.config.getoption
    count, seed = option("--requests"), option("--seed")
    dice = random.Random(seed)
    kinds = [roll_request(stubs[0], dice, number, long=number % 8 == 0)
             for number in range(option("--kinds") or max(40, count // 5))]
    began = time.monotonic()
    solo = run_alone(stubs, kinds)
    print(f"\nseed {seed}: {len(kinds)} kinds alone in {time.monotonic() - began:.0f} s", flush=True)

    with Worker(stubs, "--max-num-seqs", CONCURRENT, "--max-model-len", CONTEXT, "--max-step-tokens",
                192, "--kv-cache-memory-bytes", POOL_BLOCKS * BLOCK_BYTES) as worker:
        assert settled(worker, POOL_BLOCKS)
        storm, rows, warm = Storm(worker, kinds, solo, dice), MostRows(worker), count // 5
        storm.run(0, warm)  # until every buffer has had its size once
        bytes_before, descriptors_before = settled(worker, POOL_BLOCKS)
        began = time.monotonic()
        storm.run(warm, count - warm)
        seconds = time.monotonic() - began
        bytes_after, descriptors_after = settled(worker, POOL_BLOCKS)
        most_rows = rows.end()
        print(f"{storm.ended} requests, {CONCURRENT} at a time, the last {count - warm} in "
              f"{seconds:.0f} s: {storm.tokens} tokens, at most {most_rows} sequences side by side in "
              f"{POOL_BLOCKS} blocks, {storm.preemptions} preemptions, {storm.cached} prefix hits, left "
              f"early {storm.left}; RSS {bytes_before >> 10} -> {bytes_after >> 10} KiB, descriptors "
              f"{descriptors_before} -> {descriptors_after}", flush=True)
        assert worker.stop() == 0
    assert storm.ended == count
    assert descriptors_after <= descriptors_before
    if "BEHEMOTH_SANITIZE" not in os.environ:  # a sanitizer keeps what was freed
        assert bytes_after <= bytes_before * 1.02 + (4 << 20)  # glibc's arenas settle slowly
    assert storm.preemptions > 0 and storm.cached > 0 and all(storm.left.values())
    assert most_rows > CONCURRENT // 2
