"""Makes small checkpoints in the layouts that llm-compressor and transformers write today.

    python make_variants.py --out tests/models/variants [--only NAME]

GPTQ by llm-compressor on random ids; the model and the golden data: variant_model.py.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from safetensors.torch import load_file
from transformers import AutoTokenizer, MistralForCausalLM

from golden import dequantized
from variant_model import HEAD128, calibration, in_fp32, random_model, write_golden

# name: (weight scheme, ignored modules, changes of the shape, shard size)
QUANTIZED = {
    "sym_g128": ({}, ["lm_head"], {}, None),
    "asym_g128": ({"symmetric": False}, ["lm_head"], {}, None),
    "sym_g32_sharded": ({"group_size": 32}, ["lm_head"], {}, "200KB"),
    "asym_g64_actorder_static": (
        {"group_size": 64, "symmetric": False, "actorder": "static"}, ["lm_head"], {}, None),
    "sym_g128_mixed": (
        {}, ["lm_head", "re:.*layers.0.mlp.down_proj", "re:.*layers.1.self_attn.*"], {}, None),
    "sym_g64_tied_head128": (
        {"group_size": 64}, ["lm_head"], HEAD128 | {"tie_word_embeddings": True}, None),
    "sym_g128_head128": ({}, ["lm_head"], HEAD128, None),
    "sym_channel": ({"strategy": "channel", "group_size": None}, ["lm_head"], {}, None),
}
# name: (dtype, shard size); half as wide, to stay small
PLAIN = {"plain_bf16": (torch.bfloat16, None), "plain_f16_sharded": (torch.float16, "200KB")}
NARROW = {"hidden_size": 128, "intermediate_size": 128}


def quantize(name, plain, folder):
    scheme, ignore, changes, shard = QUANTIZED[name]
    random_model(name, changes).save_pretrained(plain)  # oneshot reads the model's own folder again
    ids = calibration()
    model = MistralForCausalLM.from_pretrained(plain, dtype=torch.bfloat16)
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


def make(name, out):
    with tempfile.TemporaryDirectory() as plain, tempfile.TemporaryDirectory() as folder:
        if name in PLAIN:
            dtype, shard = PLAIN[name]
            options = {"max_shard_size": shard} if shard else {}
            random_model(name, NARROW, dtype).save_pretrained(folder, **options)
        else:
            quantize(name, plain, folder)
        out.mkdir(parents=True, exist_ok=True)
        for file in Path(folder).iterdir():
            if file.suffix in {".json", ".safetensors"} and "generation" not in file.name:
                (out / file.name).write_bytes(file.read_bytes())
    if name in PLAIN:
        weights = {}
        for file in out.glob("*.safetensors"):
            weights |= load_file(file)
        write_golden(name, out, in_fp32(out, weights))
    else:
        write_golden(name, out, dequantized(out))
    print(name, "done", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=sorted(QUANTIZED | PLAIN))
    args = parser.parse_args()
    for name in [args.only] if args.only else QUANTIZED | PLAIN:
        make(name, args.out / name)


if __name__ == "__main__":
    main()
