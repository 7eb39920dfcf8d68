"""GPTQ W4A16 g128 of the trained bf16 weights by llm-compressor, into the tiny checkpoint's files.

    python quantize.py --trained DIR --corpus DIR --out DIR      (DIR of --out holds config.json)

256 generated chats calibrate, 128 others measure the loss before and after (all tokens, fp32).
config.json keeps the project's own keys; its quantization_config is what llm-compressor wrote.
"""

import argparse
import json
import random
import shutil
import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from chats import ChatGenerator
from corpus import Corpus
from train import render


def chat_ids(corpus, tokenizer, seed, count):
    generator = ChatGenerator(corpus, random.Random(seed))
    texts = ("".join(t for t, _ in render(generator.chat())) for _ in range(count))
    return [tokenizer.encode(t, add_special_tokens=False).ids[:1024] for t in texts]


@torch.no_grad()
def loss(model, chats):
    total = tokens = 0
    for ids in chats:
        x = torch.tensor([ids])
        logits = model(x).logits[0, :-1].float()
        total += torch.nn.functional.cross_entropy(logits, x[0, 1:], reduction="sum").item()
        tokens += len(ids) - 1
    return total / tokens


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trained", type=Path, required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=77)
    args = parser.parse_args()

    corpus, tokenizer = Corpus(args.corpus), Tokenizer.from_file(str(args.out / "tokenizer.json"))
    held = chat_ids(corpus, tokenizer, args.seed + 1, 128)
    before = loss(AutoModelForCausalLM.from_pretrained(args.trained, dtype=torch.float32), held)

    model = AutoModelForCausalLM.from_pretrained(args.trained, dtype=torch.bfloat16)
    calibration = chat_ids(corpus, tokenizer, args.seed, 256)
    dataset = Dataset.from_dict({
        "input_ids": calibration, "attention_mask": [[1] * len(ids) for ids in calibration]})
    oneshot(model=model, dataset=dataset, num_calibration_samples=len(calibration),
            max_seq_length=1024,
            recipe=GPTQModifier(targets="Linear", scheme="W4A16", ignore=["lm_head"]))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, save_compressed=True)
        written = json.loads((Path(folder) / "config.json").read_text())["quantization_config"]
        shutil.copyfile(Path(folder) / "model.safetensors", args.out / "model.safetensors")
    config = json.loads((args.out / "config.json").read_text())
    config["quantization_config"] = written
    (args.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")

    after = loss(AutoModelForCausalLM.from_pretrained(args.out, dtype=torch.float32), held)
    report = json.loads((args.trained / "training.json").read_text())
    report |= {"loss_fp32": before, "loss_w4a16": after, "chats_measured": len(held)}
    (args.out / "recipe" / "losses.json").write_text(json.dumps(report, indent=2) + "\n")
    print(report)


if __name__ == "__main__":
    main()
