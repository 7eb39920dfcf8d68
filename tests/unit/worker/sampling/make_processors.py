"""Writes processors.json: what Hugging Face's own logits processors make of some rows.

    python make_processors.py                      # torch 2.11, transformers 5.17

Frequency and presence penalties, which transformers lacks, are the OpenAI API reference's formula:
logit[id] -= count[id] * frequency_penalty + (count[id] > 0) * presence_penalty.
"""

import json
from pathlib import Path

import torch
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

VOCABULARY = 48
CASES = [
    {},
    {"temperature": 0.6}, {"temperature": 1.7}, {"temperature": 0.05},
    {"top_k": 1}, {"top_k": 7}, {"top_k": 500},
    {"top_p": 0.1}, {"top_p": 0.5}, {"top_p": 0.95}, {"top_p": 0.999},
    {"min_p": 0.02}, {"min_p": 0.3}, {"min_p": 1.0},
    {"repetition_penalty": 1.3}, {"repetition_penalty": 0.7},
    {"frequency_penalty": 0.9}, {"frequency_penalty": -1.1}, {"presence_penalty": 1.5},
    {"repetition_penalty": 1.15, "frequency_penalty": 0.4, "presence_penalty": -0.6},
    {"temperature": 0.8, "min_p": 0.05, "top_k": 12, "top_p": 0.8},
    {"temperature": 1.4, "top_k": 20, "top_p": 0.6, "repetition_penalty": 1.2},
    {"temperature": 0.7, "min_p": 0.1, "top_p": 0.9, "presence_penalty": 0.8},
]


def case(number, params):
    torch.manual_seed(1000 + number)
    row = torch.randn(1, VOCABULARY) * 2.5
    prompt = torch.randint(0, VOCABULARY, (6,)).tolist()
    output = torch.randint(0, VOCABULARY // 3, (9,)).tolist()
    ids = torch.tensor([prompt + output])
    adjusted = row.clone()
    if "repetition_penalty" in params:
        adjusted = RepetitionPenaltyLogitsProcessor(params["repetition_penalty"])(ids, adjusted)
    counts = torch.bincount(torch.tensor(output), minlength=VOCABULARY).float()
    adjusted = adjusted - counts * params.get("frequency_penalty", 0)
    adjusted = adjusted - (counts > 0) * params.get("presence_penalty", 0)
    kept = adjusted
    warpers = [TemperatureLogitsWarper(float(params.get("temperature", 1.0)))]
    if "min_p" in params:
        warpers.append(MinPLogitsWarper(params["min_p"]))
    if "top_k" in params:
        warpers.append(TopKLogitsWarper(params["top_k"]))
    if "top_p" in params:
        warpers.append(TopPLogitsWarper(params["top_p"]))
    for warper in warpers:
        kept = warper(ids, kept)
    return {"params": params, "prompt": prompt, "output": output, "logits": row[0].tolist(),
            "adjusted": adjusted[0].tolist(),
            "probabilities": torch.softmax(kept[0].double(), 0).tolist(),
            "logprobs": torch.log_softmax(row[0].double(), 0).tolist()}


def main():
    cases = [case(number, params) for number, params in enumerate(CASES)]
    out = Path(__file__).parent / "processors.json"
    out.write_text(json.dumps({"cases": cases}) + "\n")


if __name__ == "__main__":
    main()
