#!/usr/bin/env python3
"""Measures `tandem quantize` on a target with the shapes of the 12B model and meaningless weights, made on the fly.

    python tools/quantize_memory.py [PROGRAM] [--layers 48] [--work DIR] [--threads N]

Shapes come from the 12B model's safetensors header and config in tests/data/configs; fewer --layers make the file
smaller and change nothing else. Calibration is one short prompt: what is measured is the pass over the weights.
Memory is the process's own (anonymous and shared), which leaves out the page cache that mapped files sit in; the
mapped part is printed beside it. Times are those of phases, recognised by what the program has written so far.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np

CONFIGS = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "configs"
NAME = "gemma-4-12B-it"
BLOCK = 32 << 20  # values made once and repeated
PROMPT = [2, 105, 2364, 107, 9259, 236764, 1217, 659, 611, 236881, 106, 107, 105, 4368, 107]


def shapes(layers):
    header = json.loads((CONFIGS / f"{NAME}.safetensors_header.json").read_text())
    header.pop("__metadata__", None)
    for name, entry in header.items():
        parts = name.split(".")
        if "layers" in parts and int(parts[parts.index("layers") + 1]) >= layers:
            continue
        yield name, entry["shape"]


def write_config(folder, layers):
    config = json.loads((CONFIGS / f"{NAME}.config.json").read_text())
    text = config["text_config"]
    text["num_hidden_layers"] = layers
    text["layer_types"] = text["layer_types"][:layers]
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(CONFIGS / f"{NAME}.generation_config.json", folder / "generation_config.json")


def write_weights(path, layers):
    """One safetensors file; norms are ones, everything else N(0, 0.02)."""
    block = np.random.default_rng(1).normal(0, 0.02, BLOCK).astype(np.float32)
    block = (block.view(np.uint32) >> 16).astype(np.uint16)
    ones = np.full(1 << 16, 0x3F80, np.uint16)
    header, offset = {}, 0
    entries = list(shapes(layers))
    for name, shape in entries:
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in entries:
            source = ones if len(shape) == 1 else block
            left = int(np.prod(shape))
            while left > 0:
                part = source[: min(left, source.size)]
                file.write(part.data)
                left -= part.size
    return offset


def status_kb(pid):
    fields = {}
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("RssAnon", "RssFile", "RssShmem"):
            fields[name] = int(value.split()[0])
    return fields


def watch(command, out):
    """Runs the command; -> (exit status, seconds per phase, peak memory per phase in MB)."""
    begin = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    partial = out.with_name(out.name + ".partial") / "model.safetensors.partial"
    peaks, ends, phase = {}, {}, "load, calibrate, measure"
    while process.poll() is None:
        if phase != "write" and (partial.exists() or any(partial.parent.glob("model-*.partial"))):
            ends[phase], phase = time.monotonic() - begin, "write"
        try:
            fields = status_kb(process.pid)
        except (OSError, ValueError):
            fields = {}
        if fields:
            own = (fields["RssAnon"] + fields["RssShmem"]) / 1e3
            peak = peaks.setdefault(phase, [0.0, 0.0])
            peak[0], peak[1] = max(peak[0], own), max(peak[1], fields["RssFile"] / 1e3)
        time.sleep(0.02)
    ends[phase] = time.monotonic() - begin
    return process.returncode, ends, peaks


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program", nargs="?", default=os.environ.get("TANDEM"))
    parser.add_argument("--layers", type=int, default=48)
    parser.add_argument("--threads", default="0")
    parser.add_argument("--scale", default="max")
    parser.add_argument("--work", type=pathlib.Path)
    parser.add_argument("--limit-mb", type=float, default=4000, help="fail above this")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.work) as scratch:
        work = pathlib.Path(scratch)
        source, out = work / "source", work / "fp8"
        source.mkdir()
        write_config(source, args.layers)
        size = write_weights(source / "model.safetensors", args.layers)
        (work / "ids.json").write_text(json.dumps([PROMPT]))
        print(f"source: {args.layers} of 48 layers, {size / 1e9:.2f} GB", flush=True)
        code, ends, peaks = watch(
            [args.program, "quantize", "--target", source, "--out-target", out, "--token-ids", work / "ids.json",
             "--max-new-tokens", "2", "--threads", args.threads, "--scale", args.scale], out)  # fmt: skip
        before, written = 0.0, sum(f.stat().st_size for f in out.glob("*.safetensors"))
        for phase, end in ends.items():
            own, mapped = peaks[phase]
            print(f"{phase}: {end - before:.1f} s, peak {own:.0f} MB own memory, {mapped:.0f} MB mapped files")
            before = end
        print(f"exit {code}; wrote {written / 1e9:.2f} GB in {before:.1f} s altogether")
        peak = max(own for own, _ in peaks.values())
        sys.exit(0 if code == 0 and peak < args.limit_mb else 1)


if __name__ == "__main__":
    main()
