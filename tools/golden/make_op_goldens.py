"""Makes tests/golden/e4m3.json and rope.json from torch and transformers: goldens of single operations.

    python tools/golden/make_op_goldens.py tests/golden
"""

import argparse
import pathlib

import numpy as np
import torch
from transformers.models.gemma4_unified import configuration_gemma4_unified as configuration
from transformers.models.gemma4_unified import modeling_gemma4_unified as unified

import tensorfile as tf
from make_text_goldens import write_lines

POSITIONS = [0, 1, 1023, 131071]


def e4m3():
    """All 256 bytes as floats, and floats (as their bits) -> bytes: clamp to +-448, nearest, ties to even."""
    decode = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).to(torch.float32).numpy()
    values = decode[:127].astype(np.float64)  # 0 .. 448
    middles = ((values[:-1] + values[1:]) / 2).astype(np.float32)
    rng = np.random.Generator(np.random.PCG64(3))
    chosen = [decode[:127], middles, np.nextafter(middles, np.float32(0)), np.nextafter(middles, np.float32(1e9))]
    chosen.append(np.float32([448, 448.0001, 463.99, 464, 464.01, 479, 480, 512, 1e10, 3.4e38, np.inf]))
    chosen.append(np.float32([2.0**-10, 2.0**-11, 1e-3, 1e-10, 1e-38, 1.4e-45, 2.0**-6, 2.0**-9, 0.0]))
    chosen.append((2.0 ** rng.uniform(-12, 10, 600)).astype(np.float32))
    positive = np.concatenate(chosen).astype(np.float32)
    x = np.concatenate([positive, -positive])
    bytes_ = torch.tensor(x).clamp(-448, 448).to(torch.float8_e4m3fn).view(torch.uint8).numpy()
    assert (bytes_ == tf.to_e4m3_bytes(x)).all()  # and our own encoder agrees
    return {
        "note": "decode: value of each byte, null for NaN. encode: pairs of FP32 bits and byte.",
        "decode": [None if np.isnan(value) else float(value) for value in decode],
        "encode": [[int(bits), int(byte)] for bits, byte in zip(x.view(np.uint32), bytes_)],
    }


def rope():
    """Both RoPE types at the real sizes, FP32 as transformers computes them."""
    config = configuration.Gemma4UnifiedTextConfig(
        num_hidden_layers=6, global_head_dim=512, num_global_key_value_heads=1, attention_k_eq_v=True
    )
    module, rng, cases = unified.Gemma4UnifiedTextRotaryEmbedding(config), torch.Generator().manual_seed(5), []
    for kind, rotated in (("sliding_attention", 128), ("full_attention", 64)):
        frequencies = getattr(module, f"{kind}_inv_freq")
        head = 2 * len(frequencies)
        assert not frequencies[rotated:].any()
        x = torch.randn(1, 1, head, generator=rng)
        cos, sin = module(x, torch.tensor([POSITIONS]), kind)
        index = POSITIONS.index(1023)
        out = unified.apply_rotary_pos_emb(x[None], cos[:, index : index + 1], sin[:, index : index + 1])
        rounded = lambda tensor: [float(f"{value:.9g}") for value in tensor.flatten().tolist()]
        case = {"type": kind, "head_dim": head, "num_rotated_pairs": rotated, **config.rope_parameters[kind]}
        case |= {"positions": POSITIONS, "inv_freq": rounded(frequencies)}
        case["cos"] = [rounded(row[:rotated]) for row in cos[0]]
        case["sin"] = [rounded(row[:rotated]) for row in sin[0]]
        cases.append(case | {"at_1023": {"x": rounded(x), "out": rounded(out)}})
    note = (
        "FP32: angle = position * inv_freq. cos, sin: pair i < num_rotated_pairs, one row a position; the other pairs "
        "have frequency zero. inv_freq may differ by one ulp (pow), so cos and sin by angle * 2^-22 + 2^-22."
    )
    return {"note": note, "cases": cases}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=pathlib.Path)
    args = parser.parse_args()
    write_lines(args.out / "e4m3.json", e4m3())
    write_lines(args.out / "rope.json", rope())


if __name__ == "__main__":
    main()
