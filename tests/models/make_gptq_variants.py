"""Makes small checkpoints in GPTQ's own layouts, with GPTQModel.

    GPTQMODEL_CPU_WORKERS=4 python make_gptq_variants.py --out tests/models/variants [--only NAME]

The reference's weights are GPTQModel's too: what its torch kernel dequantizes from the saved file.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from gptqmodel import BACKEND, GPTQModel, QuantizeConfig
from gptqmodel.nn_modules.qlinear.torch import TorchLinear
from transformers import AutoTokenizer

from variant_model import calibration, in_fp32, random_model, write_golden

# name: (dtype of the model, config). The scales are float16 in every file; a reader casts them to the
# model's dtype before it multiplies, as GPTQModel and vLLM do.
VARIANTS = {
    "gptq_v1_sym_g128": (torch.bfloat16, {
        "format": "gptq", "sym": True, "group_size": 128, "desc_act": False}),
    "gptq_v1_sym_g64_desc_act_f16": (torch.float16, {
        "format": "gptq", "sym": True, "group_size": 64, "desc_act": True}),
    "gptq_v1_asym_g32": (torch.bfloat16, {
        "format": "gptq", "sym": False, "group_size": 32, "desc_act": False}),
    "gptq_v2_asym_g32": (torch.float16, {
        "format": "gptq_v2", "sym": False, "group_size": 32, "desc_act": False}),
    "gptq_v2_asym_g128_desc_act": (torch.bfloat16, {
        "format": "gptq_v2", "sym": False, "group_size": 128, "desc_act": True}),
}


def quantize(name, plain, folder):
    dtype, options = VARIANTS[name]
    model = random_model(name, dtype=dtype)
    ids = calibration()
    model.save_pretrained(plain)
    AutoTokenizer.from_pretrained(Path(__file__).parent / "tiny").save_pretrained(plain)
    config = QuantizeConfig(bits=4, offload_to_disk=False, device="cpu", **options)
    model = GPTQModel.load(plain, config, dtype=dtype)
    model.quantize([{"input_ids": row, "attention_mask": [1] * len(row)} for row in ids],
                   batch_size=1)
    model.save(folder)


@torch.no_grad()
def dequantized(folder, dtype):
    model = GPTQModel.load(folder, backend=BACKEND.GPTQ_TORCH, device="cpu", dtype=dtype).model
    weights = {name: value for name, value in model.state_dict().items()
               if name.endswith(("norm.weight", "embed_tokens.weight", "lm_head.weight"))}
    for name, module in model.named_modules():
        if isinstance(module, TorchLinear):
            weights[name + ".weight"] = module.dequantize_weight().T.contiguous()
    return weights


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=sorted(VARIANTS))
    args = parser.parse_args()
    for name in [args.only] if args.only else VARIANTS:
        out = args.out / name
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as plain, tempfile.TemporaryDirectory() as folder:
            quantize(name, plain, folder)
            for file in Path(folder).iterdir():
                if file.suffix == ".safetensors" or file.name in {
                        "config.json", "quantize_config.json", "model.safetensors.index.json"}:
                    (out / file.name).write_bytes(file.read_bytes())
            write_golden(name, out, in_fp32(folder, dequantized(folder, VARIANTS[name][0])))
        print(name, "done", flush=True)


if __name__ == "__main__":
    main()
