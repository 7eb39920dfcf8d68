"""What the variants share: a small random model, and the golden data beside each checkpoint.

Hidden 256, 2 layers, 256 ids, no tokenizer. `golden.json` + `golden.bin` have README.md's format.
"""

import json
import zlib

import numpy as np
import torch
from transformers import AutoConfig, MistralConfig, MistralForCausalLM

from golden import golden_of

SHAPE = {
    "vocab_size": 256, "hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 1024, "bos_token_id": 1, "eos_token_id": 2, "sliding_window": None,
    "tie_word_embeddings": False,
}
HEAD128 = {"head_dim": 128, "num_attention_heads": 2, "num_key_value_heads": 1}


def random_model(name, changes=None, dtype=torch.bfloat16):
    """Weights of `dtype`, seeded by the variant's name."""
    torch.manual_seed(zlib.crc32(name.encode()))
    shape = SHAPE | (changes or {})
    config = MistralConfig(**shape, rope_theta=1e6, dtype=str(dtype).removeprefix("torch."))
    model = MistralForCausalLM(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.normal_(0, 0.08)
            else:
                weight.uniform_(0.5, 1.5)
    return model.to(dtype).eval()


def calibration():
    """32 rows of 64 random ids; random_model() has just seeded the generator."""
    return torch.randint(3, SHAPE["vocab_size"], (32, 64)).tolist()


@torch.no_grad()
def in_fp32(folder, weights):
    """The reference model: transformers in fp32 over `weights`, name -> tensor of any float type."""
    config = AutoConfig.from_pretrained(folder)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = MistralForCausalLM(config).float().eval()
    wide = {name: value.float() for name, value in weights.items()}
    missing, unexpected = model.load_state_dict(wide, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()
    assert bool(missing) == config.tie_word_embeddings
    return model


def write_golden(name, folder, model):
    offset, rows, prompts = 0, [], []
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
