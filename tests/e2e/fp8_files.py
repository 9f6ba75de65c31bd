"""Reads quantized checkpoints with numpy and PyPI safetensors, and nothing of the product: for tests."""

import json

import numpy as np
import safetensors

DTYPES = {"F32": np.float32, "BF16": np.uint16, "F8_E4M3": np.uint8, "I32": np.int32}


class Failure(Exception):
    """A check that did not hold."""


def demand(condition, message):
    if not condition:
        raise Failure(message)


def read_file(path):
    """name -> (dtype, array) of one safetensors file; BF16 as uint16 and E4M3 as uint8 bits."""
    raw = path.read_bytes()
    listed = {name for name, _ in safetensors.deserialize(raw)}  # the library's own checks
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    header.pop("__metadata__", None)
    demand(set(header) == listed, f"{path}: the library reads other names")
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        data = np.frombuffer(raw[8 + size + begin : 8 + size + end], DTYPES[entry["dtype"]])
        demand(begin % data.itemsize == 0, f"{name}: not aligned")
        tensors[name] = (entry["dtype"], data.reshape(entry["shape"]))
    return tensors


def read_model(folder):
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return read_file(folder / "model.safetensors")
    weight_map = json.loads(index.read_text())["weight_map"]
    tensors = {}
    for shard in sorted(set(weight_map.values())):
        tensors |= read_file(folder / shard)
    demand(set(tensors) == set(weight_map), "the index names other tensors than the shards hold")
    return tensors


def bf16_to_f32(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def e4m3_values():
    """The 128 values of sign bit 0, written after the format's definition; NaN for 0x7f."""
    codes = np.arange(128)
    exponent, mantissa = codes >> 3, codes & 7
    values = np.where(exponent == 0, mantissa / 8 * 2.0**-6, (1 + mantissa / 8) * 2.0 ** (exponent - 7.0))
    values[127] = np.nan
    return values


def encode_e4m3(values):
    """Nearest value, ties to the even code, magnitudes beyond 448 clamped. values float32."""
    grid = e4m3_values()[:127]
    magnitude = np.minimum(np.abs(values.astype(np.float64)), 448.0)
    upper = np.clip(np.searchsorted(grid, magnitude), 1, 126)
    lower = upper - 1
    to_upper, to_lower = grid[upper] - magnitude, magnitude - grid[lower]
    take_upper = (to_upper < to_lower) | ((to_upper == to_lower) & (upper % 2 == 0))
    code = np.where(take_upper, upper, lower).astype(np.uint8)
    return code | (np.signbit(values).astype(np.uint8) << 7)


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
