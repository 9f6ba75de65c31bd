"""Reads our own exported folders back, and splits large files into parts that travel."""

import json
import struct
from pathlib import Path

import torch

PART_BYTES = 14 * 1024 * 1024


def read_safetensors(path):
    raw = Path(path).read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8:8 + size])
    header.pop("__metadata__", None)
    out = {}
    for name, entry in header.items():
        a, b = entry["data_offsets"]
        flat = torch.frombuffer(bytearray(raw[8 + size + a:8 + size + b]), dtype=torch.bfloat16)
        out[name] = flat.view(entry["shape"])
    return out


def load_target(folder):
    """Masters by short name; layer scalars are all one and dropped."""
    prefix = "model.language_model."
    tensors = read_safetensors(Path(folder) / "model.safetensors")
    return {k.removeprefix(prefix): v.float() for k, v in tensors.items() if "layer_scalar" not in k}


def load_assistant(folder):
    tensors = read_safetensors(Path(folder) / "model.safetensors")
    return {k.removeprefix("model."): v.float() for k, v in tensors.items() if "layer_scalar" not in k}


def split(path):
    """path -> path.part0, path.part1, ...; the whole file is removed."""
    raw = Path(path).read_bytes()
    for i in range(0, len(raw), PART_BYTES):
        Path(f"{path}.part{i // PART_BYTES}").write_bytes(raw[i:i + PART_BYTES])
    Path(path).unlink()


def join(path):
    """The inverse of split; the parts stay."""
    parts = sorted(Path(path).parent.glob(Path(path).name + ".part*"), key=lambda p: int(p.suffix[5:]))
    return b"".join(p.read_bytes() for p in parts)
