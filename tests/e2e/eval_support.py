"""What eval_test.py stands on: safetensors files by hand, and the program with the demo pair and its FP8 exports."""

import json
import pathlib
import shutil
import subprocess

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DEMO = ROOT / "demo"
GATE_FAILED = 3
SHORT = ("--limit", "20", "--max-new-tokens", "48")


class Failure(Exception):
    pass


def demand(condition, message):
    if not condition:
        raise Failure(message)


# --- files --------------------------------------------------------------------------------------------------------


def read_tensors(path):
    """name -> [dtype, shape, bytes], in file order; and the header's metadata."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    metadata = header.pop("__metadata__", None)
    names = sorted(header, key=lambda name: header[name]["data_offsets"])
    tensors = {}
    for name in names:
        begin, end = header[name]["data_offsets"]
        tensors[name] = [header[name]["dtype"], header[name]["shape"], raw[8 + size + begin : 8 + size + end]]
    return tensors, metadata


def write_tensors(path, tensors, metadata):
    header, payload = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(payload), len(payload) + len(data)]}
        payload += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + payload)


def change(folder, edit):
    path = folder / "model.safetensors"
    tensors, metadata = read_tensors(path)
    edit(tensors)
    write_tensors(path, tensors, metadata)


def scalar(value):
    return ["F32", [], np.float32(value).tobytes()]


def value_of(tensor):
    return float(np.frombuffer(tensor[2], np.float32)[0])


# --- running ------------------------------------------------------------------------------------------------------


class Bench:
    """The program, the demo pair, its FP8 exports, and a scratch folder."""

    def __init__(self, program, scratch):
        self.program, self.scratch = program, pathlib.Path(scratch)
        self.exports = {}

    def run(self, *arguments, codes=(0,)):
        command = [str(part) for part in (self.program, *arguments)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=600)
        demand(run.returncode in codes, f"exit {run.returncode}: {run.stdout.strip()[-600:]} {run.stderr[-600:]}")
        return run

    def export(self, *flags):
        """The FP8 pair, made once for each set of flags."""
        if flags not in self.exports:
            out = self.scratch / f"fp8_{len(self.exports)}"
            out.mkdir()
            self.run("quantize", "--target", DEMO / "target", "--assistant", DEMO / "assistant", "--out-target",
                     out / "target", "--out-assistant", out / "assistant", "--num-prompts", "12", "--max-new-tokens",
                     "48", *flags)  # fmt: skip
            self.exports[flags] = out
        return self.exports[flags]

    def copy_export(self, name, *flags):
        folder = self.scratch / name
        shutil.copytree(self.export(*flags), folder)
        return folder

    def eval(self, target, assistant, *flags, codes=(0,), offset=None, reference=DEMO):
        config = {"model": str(assistant), "num_speculative_tokens": 4}
        if offset is not None:
            config["draft_position_offset"] = offset
        out = self.scratch / "figures.json"
        out.unlink(missing_ok=True)
        run = self.run("eval", target, "--speculative-config", json.dumps(config), "--prompts",
                       DEMO / "prompts" / "tasks.jsonl", "--reference", reference / "target", "--reference-assistant",
                       reference / "assistant", "--out-json", out, *SHORT, *flags, codes=codes)  # fmt: skip
        return run, json.loads(out.read_text()) if out.exists() else None

    def demand_failure(self, folder, words, **keywords):
        run, _ = self.eval(folder / "target", folder / "assistant", "--gate", codes=(GATE_FAILED,), **keywords)
        demand(words in run.stdout, f"expected the gate to say {words!r}, got:\n{run.stdout}")
        causes = [line.strip() for line in run.stdout.splitlines() if "cause:" in line]
        return "; ".join(causes)[:240]


def e4m3_values():
    for code in range(128):
        exponent, mantissa = code >> 3, code & 7
        if code == 127:
            yield float("nan")
        else:
            yield mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)


def without_entry(value, entry):
    if isinstance(value, list):
        return [without_entry(item, entry) for item in value if not (isinstance(item, str) and entry in item)]
    if isinstance(value, dict):
        return {key: without_entry(item, entry) for key, item in value.items()}
    return value
