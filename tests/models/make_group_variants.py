"""Makes small checkpoints with `weight_g_idx`, which compressed-tensors of today no longer writes.

    pip install --no-deps --target OLD compressed-tensors==VERSION     # 0.9.3 or 0.10.2
    PYTHONPATH=OLD python make_group_variants.py --out tests/models/variants

The columns are put into groups by a random order, as GPTQ puts them in the order of their
activations; scales, zero points, packing and the reference's weights are the library's own. Up to
0.9.3 zero points lie unpacked in the file, one signed byte each.
"""

import argparse
import json
from pathlib import Path

import compressed_tensors
import torch
from compressed_tensors.compressors.quantized_compressors.pack_quantized import (
    PackedQuantizationCompressor,
    unpack_from_int32,
)
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.lifecycle.forward import dequantize
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors.torch import load_file, save_file

from variant_model import HEAD128, in_fp32, random_model, write_golden

# version: (name, symmetric, group size, changes of the shape)
VARIANTS = {
    "0.9.3": ("asym_g64_actorder_group_bytes", False, 64, {}),
    "0.10.2": ("sym_g32_actorder_group_head128", True, 32, HEAD128),
}


def grouped(weight, args):
    """(scale, zero point, g_idx) with the columns in a random order."""
    rows, columns = weight.shape
    order = torch.randperm(columns)
    g_idx = torch.empty(columns, dtype=torch.int32)
    g_idx[order] = torch.arange(columns, dtype=torch.int32) // args.group_size
    by_group = weight[:, order].reshape(rows, -1, args.group_size)
    scale, zero = calculate_qparams(by_group.amin(-1), by_group.amax(-1), args)
    return scale.to(weight.dtype), zero.to(torch.int8), g_idx


def stored_weights(folder, args):
    """Every weight of the model as the library reads it back from the file."""
    tensors = load_file(folder / "model.safetensors")
    weights = {name: value for name, value in tensors.items() if name.endswith(".weight")}
    for name in [n for n in tensors if n.endswith(".weight_packed")]:
        module = name.removesuffix(".weight_packed")
        shape = torch.Size(tensors[module + ".weight_shape"])
        weights[module + ".weight"] = dequantize(
            x_q=unpack_from_int32(tensors[name], 4, shape), scale=tensors[module + ".weight_scale"],
            zero_point=tensors.get(module + ".weight_zero_point"), args=args,
            g_idx=tensors[module + ".weight_g_idx"])
    return weights


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    name, symmetric, group_size, changes = VARIANTS[compressed_tensors.__version__]
    args = QuantizationArgs(num_bits=4, type="int", symmetric=symmetric, strategy="group",
                            group_size=group_size, actorder="group")
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    model = random_model(name, changes)
    state, schemes = dict(model.state_dict()), {}
    for module in [n.removesuffix(".weight") for n in state if n.endswith("_proj.weight")]:
        scale, zero, g_idx = grouped(state[module + ".weight"], args)
        state |= {module + ".weight_scale": scale, module + ".weight_zero_point": zero,
                  module + ".weight_g_idx": g_idx}
        schemes[module] = args if compressed_tensors.__version__ == "0.9.3" else scheme
    tensors = PackedQuantizationCompressor().compress(state, schemes)
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    save_file({n: t.contiguous() for n, t in tensors.items()}, folder / "model.safetensors",
              metadata={"format": "pt"})
    config = json.loads(model.config.to_json_string(use_diff=False)) | {
        "architectures": ["MistralForCausalLM"],
        "quantization_config": {
            "config_groups": {"group_0": scheme.model_dump(mode="json")},
            "format": "pack-quantized", "ignore": ["lm_head"], "kv_cache_scheme": None,
            "quant_method": "compressed-tensors", "quantization_status": "compressed",
            "version": compressed_tensors.__version__}}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    write_golden(name, folder, in_fp32(folder, stored_weights(folder, args)))
    print(name, "done", sorted(n for n in tensors if "layers.0.mlp.up_proj" in n))


if __name__ == "__main__":
    main()
