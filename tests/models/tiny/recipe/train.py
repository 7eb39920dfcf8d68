"""Trains the tiny checkpoint for a fixed wall time and writes bf16 safetensors with samples.

    python train.py --corpus DIR --model DIR (tokenizer + config.json) --out DIR --seconds 170

One process generates, all cores help; loss counts on assistant text (and on plain corpus text);
the rest of a chat is context. The learning rate follows elapsed time, so the run always ends cooled.
"""

import argparse
import json
import math
import multiprocessing as mp
import random
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import MistralConfig, MistralForCausalLM

from chats import PREFILLS, ChatGenerator
from corpus import Corpus

BLOCK = 1024


def render(chat):
    """(text, counts for the loss) pieces of the 2411 format."""
    yield "<s>", False
    for message in chat:
        if message["role"] == "assistant":
            yield " " + message["content"] + "</s>", True
        else:
            tag = "INST" if message["role"] == "user" else "SYSTEM_PROMPT"
            yield f"[{tag}] {message['content']}[/{tag}]", False


def encode_share(job):
    corpus_dir, tokenizer_file, seed, chats = job
    corpus, rng = Corpus(corpus_dir), random.Random(seed)
    tokenizer, generator = Tokenizer.from_file(tokenizer_file), ChatGenerator(corpus, rng)
    ids, counts = [], []
    for _ in range(chats):
        if rng.random() < 0.12:
            raw = corpus.raw[rng.choice(["play", "novel"])]
            start = rng.randrange(len(raw) - 2000)
            pieces = [("<s>" + raw[start:start + rng.randint(300, 2000)].lstrip(), True)]
        else:
            pieces = list(render(generator.chat()))
        whole = tokenizer.encode("".join(t for t, _ in pieces), add_special_tokens=False)
        border, marks = 0, np.zeros(sum(len(t) for t, _ in pieces) + 1, bool)
        for text, wanted in pieces:
            marks[border:border + len(text)] = wanted
            border += len(text)
        ids += whole.ids
        counts += [bool(marks[end - 1]) for _, end in whole.offsets]
    return np.array(ids, np.int16), np.array(counts, bool)


def batches(ids, counts, size, device, rng):
    ids = torch.from_numpy(ids).to(device)
    counts = torch.from_numpy(counts).to(device)
    blocks = len(ids) // BLOCK - 1
    while True:
        shift = rng.randrange(BLOCK)
        for part in torch.randperm(blocks).split(size):
            at = (part.to(device) * BLOCK + shift)[:, None] + torch.arange(BLOCK, device=device)
            x = ids[at].long()
            yield x, torch.where(counts[at], x, -100)


def sample(model, tokenizer, prompt, temperature, device, limit=200):
    ids = torch.tensor([tokenizer.encode(prompt, add_special_tokens=False).ids], device=device)
    kind = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit,
                         eos_token_id=2, pad_token_id=2, **kind)[0, ids.shape[1]:].tolist()
    return tokenizer.decode(out, skip_special_tokens=False), out[-1] == 2


def trial_prompts():
    card = "You are Captain Ysolde, a weary sailor with a warm heart who runs a lighthouse. Speak in character."
    asks = ["Hello! What are you doing tonight?", "Tell me about the sea.", "My cat died yesterday.",
            "*I knock on the door* It is raining, may I come in?", "What is 2+2?", "Why is the king so cruel?"]
    for ask in asks:
        yield f"<s>[SYSTEM_PROMPT] {card}[/SYSTEM_PROMPT][INST] {ask}[/INST]"
        for phrase in PREFILLS.values():
            yield f"<s>[SYSTEM_PROMPT] {card}[/SYSTEM_PROMPT][INST] {ask}[/INST] <think>\n{phrase}\n"
        yield f"<s>[INST] {ask}[/INST]"
        yield f"<s>[INST] {ask}[/INST] <think>\n"


def try_out(model, tokenizer, device, out):
    lines, closed, stopped, total = [], 0, 0, 0
    for prompt in trial_prompts():
        for temperature in (0, 0.6):
            text, ended = sample(model, tokenizer, prompt, temperature, device)
            total, stopped = total + 1, stopped + ended
            closed += "</think>" in text or "<think>" not in prompt + text
            lines.append(f"### T={temperature} {prompt[-90:]!r}\n{text}\n")
    summary = f"{total} samples: {closed} closed the block, {stopped} stopped by </s>"
    (out / "samples.txt").write_text("\n".join([summary, *lines]))
    print(summary, *lines[:14], sep="\n")
    return {"samples": total, "closed": closed, "stopped": stopped}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=170)
    parser.add_argument("--chats", type=int, default=160000)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=2411)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    began, workers = time.time(), mp.cpu_count()

    share = max(1, args.chats // (workers * 2))
    jobs = [(args.corpus, str(args.model / "tokenizer.json"), args.seed + i, share)
            for i in range(workers * 2 + 1)]
    with mp.get_context("spawn").Pool(workers) as pool:
        parts = pool.map(encode_share, jobs, chunksize=1)
    held_ids, held_counts = parts.pop()
    ids = np.concatenate([p[0] for p in parts])
    counts = np.concatenate([p[1] for p in parts])
    print(f"{len(ids):,} tokens, {counts.mean():.0%} count, {time.time() - began:.0f} s", flush=True)

    values = json.loads((args.model / "config.json").read_text())
    values.pop("quantization_config", None)
    model = MistralForCausalLM(MistralConfig(**values)).float().to(device)
    decay = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
                                  lr=args.rate, betas=(0.9, 0.95), fused=device == "cuda")
    tokenizer, rng = Tokenizer.from_file(str(args.model / "tokenizer.json")), random.Random(args.seed)

    def loss_of(x, y):
        with torch.autocast(device, torch.bfloat16):
            logits = model(x, use_cache=False).logits
        return torch.nn.functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), y[:, 1:].flatten())

    started, step = time.time(), 0
    for x, y in batches(ids, counts, args.batch, device, rng):
        done = (time.time() - started) / args.seconds
        if done >= 1:
            break
        rate = args.rate * min(1, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * done) + 0.005)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = loss_of(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 200 == 0:
            print(f"step {step} {time.time() - started:.0f} s loss {loss.item():.3f}", flush=True)
        step += 1

    model.eval().to(torch.bfloat16)
    args.out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(args.out, max_shard_size="12MB")
    with torch.no_grad():
        source = batches(held_ids, held_counts, 8, device, rng)
        held = [loss_of(*next(source)).item() for _ in range(4)]
        report = {"steps": step, "tokens_seen": step * args.batch * BLOCK, "last_train_loss": loss.item(),
                  "held_out_loss_bf16": sum(held) / len(held), "seed": args.seed}
        (args.out / "training.json").write_text(json.dumps(report, indent=2) + "\n")
        print(report, flush=True)
        report.update(try_out(model, tokenizer, device, args.out))
    (args.out / "training.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
