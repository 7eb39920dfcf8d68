"""Makes small checkpoints in the layouts that llm-compressor can write, with golden data beside each.

    python make_variants.py --out tests/models/variants [--only NAME]

Random bf16 weights (seeded by the variant's name), hidden 256, 2 layers, 256 ids, no tokenizer;
GPTQ by llm-compressor on random ids. `golden.json` + `golden.bin` have the format of README.md.
"""

import argparse
import json
import tempfile
import zlib
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from transformers import AutoTokenizer, MistralConfig, MistralForCausalLM

from golden import dequantized, golden_of

SHAPE = {
    "vocab_size": 256, "hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 1024, "bos_token_id": 1, "eos_token_id": 2, "sliding_window": None,
    "tie_word_embeddings": False,
}
# name: (weight scheme, ignored modules, changes of the shape, shard size)
VARIANTS = {
    "sym_g128": ({}, ["lm_head"], {}, None),
    "asym_g128": ({"symmetric": False}, ["lm_head"], {}, None),
    "sym_g32_sharded": ({"group_size": 32}, ["lm_head"], {}, "200KB"),
    "asym_g64_actorder_static": (
        {"group_size": 64, "symmetric": False, "actorder": "static"}, ["lm_head"], {}, None),
    "sym_g128_mixed": (
        {}, ["lm_head", "re:.*layers.0.mlp.down_proj", "re:.*layers.1.self_attn.*"], {}, None),
    "sym_g64_tied_head128": (
        {"group_size": 64}, ["lm_head"],
        {"tie_word_embeddings": True, "head_dim": 128, "num_attention_heads": 2,
         "num_key_value_heads": 1}, None),
}


def quantized(name, plain, folder):
    scheme, ignore, changes, shard = VARIANTS[name]
    torch.manual_seed(zlib.crc32(name.encode()))
    model = MistralForCausalLM(MistralConfig(**(SHAPE | changes), rope_theta=1e6, dtype="bfloat16"))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.normal_(0, 0.08)
            else:
                weight.uniform_(0.5, 1.5)
    model.to(torch.bfloat16).save_pretrained(plain)  # oneshot reads the model's own folder again
    model = MistralForCausalLM.from_pretrained(plain, dtype=torch.bfloat16)
    ids = torch.randint(3, SHAPE["vocab_size"], (32, 64)).tolist()
    data = Dataset.from_dict({"input_ids": ids, "attention_mask": [[1] * 64] * 32})
    weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group",
               "group_size": 128, "actorder": None} | scheme
    unused = AutoTokenizer.from_pretrained(Path(__file__).parent / "tiny")  # oneshot wants one
    oneshot(model=model, processor=unused, dataset=data, num_calibration_samples=32,
            max_seq_length=64, recipe=GPTQModifier(
                ignore=ignore,
                config_groups={"group_0": {"targets": ["Linear"], "weights": weights}}))
    options = {"max_shard_size": shard} if shard else {}
    model.save_pretrained(folder, save_compressed=True, **options)


def write_golden(name, folder):
    model, offset, rows, prompts = dequantized(folder), 0, [], []
    draw = np.random.default_rng(zlib.crc32(name.encode()))
    for length in (1, 9, 70):
        ids = [1, *draw.integers(3, SHAPE["vocab_size"], length - 1).tolist()]
        logits, greedy, margins = golden_of(model, ids)
        positions = sorted({0, length // 2, length - 1})
        stored = np.ascontiguousarray(logits[positions], dtype="<f4")
        prompts.append({
            "ids": ids, "positions": positions,
            "logits": {"file": "golden.bin", "offset": offset, "shape": list(stored.shape)},
            "greedy": greedy, "margins": [round(m, 6) for m in margins]})
        offset += stored.nbytes
        rows.append(stored.tobytes())
    (folder / "golden.bin").write_bytes(b"".join(rows))
    document = {"model": name, "vocab": SHAPE["vocab_size"], "prompts": prompts}
    (folder / "golden.json").write_text(json.dumps(document) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=sorted(VARIANTS))
    args = parser.parse_args()
    for name in [args.only] if args.only else VARIANTS:
        with tempfile.TemporaryDirectory() as plain, tempfile.TemporaryDirectory() as folder:
            quantized(name, plain, folder)
            (args.out / name).mkdir(parents=True, exist_ok=True)
            for file in Path(folder).iterdir():
                if file.suffix in {".json", ".safetensors"} and "generation" not in file.name:
                    (args.out / name / file.name).write_bytes(file.read_bytes())
        write_golden(name, args.out / name)
        print(name, "done", flush=True)


if __name__ == "__main__":
    main()
