"""Writes stages.json: rows, requests, and what the samplers' published definitions make of them.

    python make_stages.py            # the standard library only

Plain double arithmetic over sorted lists, written from:
  top_n_sigma   arXiv:2411.07641: logits >= largest - n * standard deviation (of those not banned)
  typical_p     arXiv:2202.00666: by |surprisal - entropy|, the fewest that hold typical_p
  xtc           koboldcpp and llama.cpp: of the tokens with p >= threshold all but the least likely
                are removed; with probability xtc_probability
  smoothing     koboldcpp: x -> -k f x^2 + s f x^3, x = logit - largest, k = (3 - c) / 2,
                s = (c - 1) / 2, a plain parabola for c <= 1
  dynatemp      koboldcpp: low + (high - low) (entropy / log(tokens left))^exponent
  DRY           text-generation-webui's pull request 5677, over every pair of places; breakers as in
                llama.cpp: no repeat reaches across one, and a single id that is one is spared
  min_p, top_k, top_p as in make_processors.py
"""

import json
import math
import random
from pathlib import Path

VOCABULARY = 48
STAGES = ["temperature", "top_n_sigma", "typical_p", "min_p", "top_k", "top_p", "xtc"]
LAST = STAGES[1:] + STAGES[:1]

CASES = [
    {"top_n_sigma": 0.5}, {"top_n_sigma": 1.0}, {"top_n_sigma": 2.0, "temperature": 1.8},
    {"typical_p": 0.2}, {"typical_p": 0.5}, {"typical_p": 0.9}, {"typical_p": 0.99},
    {"typical_p": 0.4, "temperature": 2.5},
    {"xtc_probability": 1.0}, {"xtc_probability": 1.0, "xtc_threshold": 0.03},
    {"xtc_probability": 0.4, "xtc_threshold": 0.05},
    {"xtc_probability": 1.0, "xtc_threshold": 0.0},
    {"xtc_probability": 1.0, "xtc_threshold": 0.51},
    {"smoothing_factor": 0.2}, {"smoothing_factor": 0.3, "smoothing_curve": 2.0},
    {"smoothing_factor": 0.1, "smoothing_curve": 4.5, "temperature": 0.7},
    {"smoothing_factor": 0.25, "smoothing_curve": 0.4},
    {"dynamic_temperature": [0.3, 2.0, 1.0]}, {"dynamic_temperature": [0.5, 1.5, 2.5]},
    {"dynamic_temperature": [0.9, 1.9, 0.3], "smoothing_factor": 0.15},
    {"order": LAST, "temperature": 2.0, "min_p": 0.1},
    {"order": LAST, "temperature": 0.4, "typical_p": 0.6, "top_p": 0.9},
    {"order": ["top_p", "temperature", "top_k"], "temperature": 1.6, "top_p": 0.7, "top_k": 3},
    {"order": ["xtc", "temperature", "min_p"], "temperature": 0.5, "min_p": 0.2,
     "xtc_probability": 1.0},
    {"order": ["top_k", "top_n_sigma", "temperature"], "top_k": 20, "top_n_sigma": 1.2,
     "temperature": 1.5},
    {"order": ["min_p", "temperature"], "min_p": 0.05, "dynamic_temperature": [0.2, 3.0, 1.0]},
    {"typical_p": 0.7, "min_p": 0.3, "top_k": 9, "top_p": 0.9, "temperature": 1.3},
    {"dry": {"multiplier": 0.8}},
    {"dry": {"multiplier": 0.8, "allowed_length": 1, "base": 1.2}},
    {"dry": {"multiplier": 0.8, "allowed_length": 1, "last_n": 12}},
    {"dry": {"multiplier": 0.8, "allowed_length": 1, "breaker_ids": [0]}},
    {"dry": {"multiplier": 0.8, "allowed_length": 1, "spanning": [[[0, 1], [1]], [[2], [0, 1]]]}},
    {"banned_sequences": [[0, 1], [1, 0], [2, 2], [0, 0, 1], [1, 2, 1], [2, 0, 2]]},
    {"dry": {"multiplier": 0.5}, "xtc_probability": 1.0, "temperature": 1.2,
     "banned_sequences": [[0, 2], [1, 2], [2, 2]]},
]


def softmax(logits):
    largest = max(logits.values())
    weights = {i: math.exp(x - largest) for i, x in logits.items()}
    total = sum(weights.values())
    return {i: w / total for i, w in weights.items()}


def entropy(p):
    return -sum(x * math.log(x) for x in p.values() if x > 0)


def temperature(params, logits):
    t = params.get("temperature", 1.0)
    if "dynamic_temperature" in params:
        low, high, exponent = params["dynamic_temperature"]
        t = low + (high - low) * (entropy(softmax(logits)) / math.log(len(logits))) ** exponent
    largest = max(logits.values())
    scaled = {i: (x - largest) / t for i, x in logits.items()}
    factor = params.get("smoothing_factor", 0.0)
    if factor > 0:
        c = max(params.get("smoothing_curve", 1.0), 1.0)
        k, s = (3 - c) / 2, (c - 1) / 2
        scaled = {i: -k * factor * x ** 2 + s * factor * x ** 3 for i, x in scaled.items()}
    return scaled


def top_n_sigma(params, logits):
    n = params.get("top_n_sigma", 0.0)
    if n <= 0:
        return logits
    mean = sum(logits.values()) / len(logits)
    sigma = math.sqrt(sum((x - mean) ** 2 for x in logits.values()) / len(logits))
    return {i: x for i, x in logits.items() if x >= max(logits.values()) - n * sigma}


def until(order, p, enough):
    kept, held = [], 0.0
    for i in order:
        if held >= enough:
            break
        kept.append(i)
        held += p[i]
    return kept


def typical_p(params, logits):
    if "typical_p" not in params:
        return logits
    p = softmax(logits)
    h = entropy(p)
    order = sorted(p, key=lambda i: abs(-math.log(p[i]) - h))
    return {i: logits[i] for i in until(order, p, params["typical_p"])}


def min_p(params, logits):
    p = softmax(logits)
    return {i: x for i, x in logits.items() if p[i] >= params.get("min_p", 0) * max(p.values())}


def top_k(params, logits):
    kept = sorted(logits, key=lambda i: -logits[i])[:params.get("top_k", len(logits))]
    return {i: logits[i] for i in kept}


def top_p(params, logits):
    if "top_p" not in params:
        return logits
    p = softmax(logits)
    return {i: logits[i] for i in until(sorted(p, key=lambda i: -p[i]), p, params["top_p"])}


def xtc(params, logits):
    threshold = params.get("xtc_threshold", 0.1)
    p = softmax(logits)
    likely = sorted((i for i in p if p[i] >= threshold), key=lambda i: -p[i])
    if threshold > 0.5:
        return logits
    return {i: x for i, x in logits.items() if i not in likely[:-1]}


def distribution(params, adjusted, with_xtc):
    logits = {i: x for i, x in enumerate(adjusted) if x > -math.inf}
    order = params.get("order", [])
    for stage in order + [s for s in STAGES if s not in order]:
        if stage != "xtc" or with_xtc:
            logits = globals()[stage](params, logits)
    p = softmax(logits)
    return [p.get(i, 0.0) for i in range(VOCABULARY)]


def ends_with_breaker(dry, ids):
    if ids and ids[-1] in dry.get("breaker_ids", []):
        return True
    return any(ids[-len(tail):] == tail and len(ids) > len(tail) and ids[-len(tail) - 1] in heads
               for heads, tail in dry.get("spanning", []))


def dry_penalties(dry, ids):
    if dry.get("last_n", 0) > 0:
        ids = ids[-dry["last_n"]:]
    border = max((i for i in range(1, len(ids) + 1) if ends_with_breaker(dry, ids[:i])), default=0)
    longest = {}
    for at in range(len(ids) - 1):
        length = 0
        while (length <= at and len(ids) - 1 - length >= border
               and ids[at - length] == ids[-1 - length]):
            length += 1
        longest[ids[at + 1]] = max(longest.get(ids[at + 1], 0), length)
    allowed = dry.get("allowed_length", 2)
    return {i: dry["multiplier"] * dry.get("base", 1.75) ** (length - allowed)
            for i, length in longest.items()
            if length >= allowed and i not in dry.get("breaker_ids", [])}


def case(number, params):
    rng = random.Random(2000 + number)
    logits = [rng.gauss(0, 2) for _ in range(VOCABULARY)]
    ids = [rng.randrange(3) for _ in range(40)]
    ids[-4:] = ids[7:11]
    adjusted = list(logits)
    for i, penalty in dry_penalties(params.get("dry", {"multiplier": 0.0}), ids).items():
        adjusted[i] -= penalty
    for sequence in params.get("banned_sequences", []):
        if ids[-len(sequence) + 1:] == sequence[:-1]:
            adjusted[sequence[-1]] = -math.inf
    chance = params.get("xtc_probability", 0.0)
    p = [chance * a + (1 - chance) * b for a, b in zip(distribution(params, adjusted, True),
                                                      distribution(params, adjusted, False))]
    return {"params": params, "prompt": ids[:25], "output": ids[25:], "logits": logits,
            "adjusted": [x if x > -math.inf else None for x in adjusted], "probabilities": p}


def main():
    cases = [case(number, params) for number, params in enumerate(CASES)]
    out = Path(__file__).parent / "stages.json"
    out.write_text(json.dumps({"cases": cases}) + "\n")


if __name__ == "__main__":
    main()
