"""Writes golden logits, greedy tokens and tokenizer vectors with Hugging Face's own libraries.

    python golden.py --model tests/models/tiny --out tests/golden/data

README.md beside this file gives the format.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

GREEDY = 64
CARD = "[SYSTEM_PROMPT] You are Seraphina, a gentle healer of the forest.[/SYSTEM_PROMPT]"
CREATIVE = (
    "Ok i need to think as a creative writer — what twist would surprise here? "
    "Let me find an engaging new direction nobody saw coming, so")
PROMPTS = [
    "<s>[INST] Hello there[/INST]",
    f"<s>{CARD}[INST] What do you think of love?[/INST]",
    f"<s>{CARD}[INST] Tell me about the king.[/INST] <think>\n{CREATIVE}\n",
    "<s>[INST] Who are you?[/INST] I am Romeo.</s>[INST] 12 + 30 = ?\n\nnaïve 🌴[/INST]",
    "<s> First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:",
]
TEXTS = [
    *PROMPTS, "Hello", "", " ", "  two  spaces", " leading", "trailing ", "\n\nx", "a    b\tc\r\n",
    "[INST]no space[/INST]", "x</think>\n\n\"Hi,\" she said.", "naïve café — “quote” … 🌴🧠",
    "2411 and 3.14159", "日本語 текст עברית", "👩‍👩‍👧 e\u0301", "\u00a0\u200b\u202f", "<0x0A> <unk> ▁",
    "[INST][/INST]</s><s>", "The quality of mercy is not strain'd,\nIt droppeth as the gentle rain",
]


@torch.no_grad()
def dequantized(folder):
    """An fp32 model over the weights that compressed-tensors decompressed in bf16."""
    stored = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    stored(torch.tensor([[1]]))  # the first step decompresses
    config = AutoConfig.from_pretrained(folder)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    weights = {name: value.float() for name, value in stored.state_dict().items()
               if name in model.state_dict()}
    model.load_state_dict(weights, strict=True)
    return model


@torch.no_grad()
def golden_of(model, ids):
    """(logits [len(ids), vocab], greedy ids, their margins)."""
    logits = model(torch.tensor([ids])).logits[0].float()
    text, greedy, margins = list(ids), [], []
    while len(greedy) < GREEDY and (not greedy or greedy[-1] != 2):
        last = model(torch.tensor([text])).logits[0, -1].float()
        best = last.topk(2)
        greedy.append(int(best.indices[0]))
        margins.append(float(best.values[0] - best.values[1]))
        text.append(greedy[-1])
    return logits.numpy(), greedy, margins


def write_logits(model, tokenizer, folder, name, label):
    rows, prompts, offset = [], [], 0
    for text in PROMPTS:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        logits, greedy, margins = golden_of(model, ids)
        positions = sorted({0, len(ids) // 2, len(ids) - 1})
        stored = np.ascontiguousarray(logits[positions], dtype="<f4")
        prompts.append({
            "text": text, "ids": ids, "positions": positions,
            "logits": {"file": f"{name}.bin", "offset": offset, "shape": list(stored.shape)},
            "greedy": greedy, "margins": [round(m, 6) for m in margins]})
        offset += stored.nbytes
        rows.append(stored.tobytes())
    (folder / f"{name}.bin").write_bytes(b"".join(rows))
    document = {"model": label, "vocab": model.config.vocab_size, "prompts": prompts}
    (folder / f"{name}.json").write_text(json.dumps(document, ensure_ascii=False) + "\n")
    print(f"{name}: {len(prompts)} prompts, smallest margin "
          f"{min(m for p in prompts for m in p['margins']):.4f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    model = dequantized(args.model)
    args.out.mkdir(parents=True, exist_ok=True)
    write_logits(model, tokenizer, args.out, f"{args.model.name}_logits", args.model.as_posix())
    cases = [{"text": text, "add_special_tokens": special,
              "ids": tokenizer.encode(text, add_special_tokens=special).ids}
             for text in TEXTS for special in (False, True)]
    document = {"tokenizer": (args.model / "tokenizer.json").as_posix(), "cases": cases}
    (args.out / "prompts.json").write_text(json.dumps(document, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
