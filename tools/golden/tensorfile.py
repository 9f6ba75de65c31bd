"""Safetensors files in plain numpy, with the two number formats numpy lacks: BF16 and E4M3.

A tensor is held as its stored bits (`BF16` -> uint16, `F8_E4M3` -> uint8) beside its dtype name, so that
writing back is exact. `Tensor.value()` widens to float64.
"""

import json
import pathlib
from dataclasses import dataclass

import numpy as np

_NUMPY = {"F64": np.float64, "F32": np.float32, "BF16": np.uint16, "F8_E4M3": np.uint8, "I32": np.int32, "I64": np.int64}


def to_bf16_bits(x):
    """float -> BF16 bits, round to nearest even."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16_bits(bits):
    return (np.asarray(bits, dtype=np.uint16).astype(np.uint32) << 16).view(np.float32)


def round_bf16(x):
    return from_bf16_bits(to_bf16_bits(x))


def _e4m3_values():
    """The 256 values of E4M3 (fn): bias 7, no infinity, NaN at 0x7F and 0xFF."""
    values = np.zeros(256)
    for byte in range(256):
        exponent, mantissa = (byte >> 3) & 15, byte & 7
        magnitude = (8 + mantissa) * 2.0 ** (exponent - 10) if exponent else mantissa * 2.0**-9
        if byte & 0x7F == 0x7F:
            magnitude = np.nan
        values[byte] = -magnitude if byte & 0x80 else magnitude
    return values


E4M3 = _e4m3_values()
_POSITIVE = E4M3[:127]  # 0 .. 448, ascending


def to_e4m3_bytes(x):
    """float64 -> E4M3 byte: clamp to +-448, round to nearest, ties to the even mantissa. NaN -> 0x7F."""
    x = np.asarray(x, dtype=np.float64)
    magnitude = np.minimum(np.abs(x), 448.0)
    upper = np.searchsorted(_POSITIVE, magnitude)  # first value >= magnitude
    lower = np.maximum(upper - 1, 0)
    below, above = magnitude - _POSITIVE[lower], _POSITIVE[np.minimum(upper, 126)] - magnitude
    pick_upper = (above < below) | ((above == below) & (upper % 2 == 0))
    byte = np.where(np.isnan(x), 0x7F, np.where(pick_upper, upper, lower)).astype(np.uint8)
    return byte | (np.signbit(x).astype(np.uint8) << 7)


def round_e4m3(x):
    return E4M3[to_e4m3_bytes(x)]


@dataclass
class Tensor:
    dtype: str
    bits: np.ndarray

    def value(self):
        if self.dtype == "BF16":
            return from_bf16_bits(self.bits).astype(np.float64)
        if self.dtype == "F8_E4M3":
            return E4M3[self.bits]
        return self.bits.astype(np.float64)


def bf16(x):
    return Tensor("BF16", to_bf16_bits(x))


def f32(x):
    return Tensor("F32", np.array(x, dtype=np.float32))


def i32(x):
    return Tensor("I32", np.array(x, dtype=np.int32))


def write(path, tensors):
    """{name: Tensor} -> one file; names sorted, header padded to 8 bytes. Same tensors, same bytes."""
    header, blobs, offset = {"__metadata__": {"format": "pt"}}, [], 0
    for name in sorted(tensors):
        blob = np.ascontiguousarray(tensors[name].bits).tobytes()
        header[name] = {
            "dtype": tensors[name].dtype,
            "shape": list(tensors[name].bits.shape),
            "data_offsets": [offset, offset + len(blob)],
        }
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    pathlib.Path(path).write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blobs))


def read(path):
    data = pathlib.Path(path).read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        array = np.frombuffer(data[begin:end], dtype=_NUMPY[entry["dtype"]]).reshape(entry["shape"])
        tensors[name] = Tensor(entry["dtype"], array)
    return tensors


def read_folder(folder):
    """All tensors of a checkpoint folder, sharded or not."""
    folder = pathlib.Path(folder)
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return read(folder / "model.safetensors")
    tensors = {}
    for shard in sorted(set(json.loads(index.read_text())["weight_map"].values())):
        tensors.update(read(folder / shard))
    return tensors


def write_folder(folder, tensors, shards=1):
    """Weights of a checkpoint folder; with shards > 1 also the index file."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if shards == 1:
        write(folder / "model.safetensors", tensors)
        return
    names, weight_map = sorted(tensors), {}
    for number in range(shards):
        part = names[number * len(names) // shards : (number + 1) * len(names) // shards]
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        write(folder / file, {name: tensors[name] for name in part})
        weight_map.update({name: file for name in part})
    total = sum(tensor.bits.nbytes for tensor in tensors.values())
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def write_json(path, value):
    pathlib.Path(path).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
