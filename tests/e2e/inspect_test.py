"""`tandem inspect` against counts made from the safetensors headers with other code."""

import json
import pathlib
import shutil
import tempfile

import numpy as np
from safetensors import safe_open

from harness import DEMO_ASSISTANT, DEMO_TARGET, GOLDEN, Checks, tandem

SIZES = {"BF16": 2, "F16": 2, "F32": 4, "F8_E4M3": 1}
TOWERS = ("vision", "audio", "embed_vision", "embed_audio")


def headers(folder):
    """name -> (dtype, shape) of the text model's tensors."""
    tensors = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "np") as file:
            for name in file.keys():
                part = file.get_slice(name)
                tensors[name] = (part.get_dtype(), part.get_shape())
    return {name: value for name, value in tensors.items() if not any(tower in name for tower in TOWERS)}


def scales(folder, suffix):
    values = []
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "np") as file:
            values += [float(np.ravel(file.get_tensor(name))[0]) for name in file.keys() if name.endswith(suffix)]
    return sorted(values)


def inspect(checks, folder, *arguments):
    status, out, err = tandem("inspect", folder, "--json", *arguments)
    checks.equal(f"{folder}: exit status {err}", status, 0)
    return json.loads(out)


def weights(checks, folder):
    report = inspect(checks, folder)
    tensors = headers(folder)
    tied = json.loads((folder / "config.json").read_text())
    tied = tied.get("text_config", tied).get("tie_word_embeddings", True)
    kept = {name: value for name, value in tensors.items() if not (tied and name.endswith("lm_head.weight"))}
    size = sum(SIZES[dtype] * int(np.prod(shape)) for dtype, shape in kept.values())
    checks.equal(f"{folder.name}: weight bytes", report["memory"]["weight_bytes"], size)
    for kind in report["modules"]:
        named = [shape for name, (_, shape) in kept.items() if name.endswith(kind["name"] + ".weight")]
        same = [other for other in report["modules"] if other["name"] == kind["name"]]
        checks.equal(f"{folder.name}: {kind['name']}: count", sum(other["count"] for other in same), len(named))
        checks.equal(f"{folder.name}: {kind['name']}: parameters", sum(other["num_parameters"] for other in same),
                     sum(int(np.prod(shape)) for shape in named))
    return report


def quantized(checks, folder):
    report = weights(checks, folder)
    checks.equal(f"{folder.name}: algorithm", report["quantization"]["algorithm"], "FP8")
    for key in ("weight_scale", "input_scale"):
        ranges = [kind[key] for kind in report["modules"] if kind[key]]
        expected = scales(folder, key)
        got = (min(entry["min"] for entry in ranges), max(entry["max"] for entry in ranges))
        checks.check(f"{folder.name}: {key} from {expected[0]} to {expected[-1]}",
                     np.allclose(got, (expected[0], expected[-1]), rtol=1e-6), got)


def memory(checks):
    report = inspect(checks, DEMO_TARGET, "--length", 1000)
    text = json.loads((DEMO_TARGET / "config.json").read_text())["text_config"]
    full = sum(kind == "full_attention" for kind in text["layer_types"])
    sliding = len(text["layer_types"]) - full
    per_token = full * 2 * 2 * text["num_global_key_value_heads"] * text["global_head_dim"]
    kv = report["memory"]["kv"]
    checks.equal("KV bytes per token", kv["bytes_per_token"], per_token)
    ring_token = sliding * 2 * 2 * text["num_key_value_heads"] * text["head_dim"]
    checks.check("a ring holds the window and more", kv["bytes_per_sequence"] >= ring_token * text["sliding_window"] and
                 kv["bytes_per_sequence"] % ring_token == 0, kv)
    checks.equal("KV bytes of 1,000 tokens", kv["bytes_at_length"], kv["bytes_per_sequence"] + 1024 * per_token)


def fp8_cache(checks, folder):
    """A checkpoint that asks for an FP8 cache is run with one, which takes half the bytes."""
    copy = folder / "fp8-cache"
    shutil.copytree(GOLDEN / "unified" / "target-fp8", copy)
    (copy / "hf_quant_config.json").unlink(missing_ok=True)
    config = json.loads((copy / "config.json").read_text())
    before = inspect(checks, copy)["memory"]["kv"]
    config["quantization_config"]["kv_cache_scheme"] = {"dynamic": False, "num_bits": 8, "type": "float"}
    (copy / "config.json").write_text(json.dumps(config))
    after = inspect(checks, copy)["memory"]["kv"]
    checks.equal("the KV cache's dtype", (before["dtype"], after["dtype"]), ("BF16", "F8_E4M3"))
    for key in ("bytes_per_token", "bytes_per_sequence", "bytes_at_length"):
        checks.equal(f"an FP8 cache's {key}", 2 * after[key], before[key])


def pairs(checks):
    found = {pathlib.Path(entry["dir"]).name: entry["fits"] for entry in inspect(checks, DEMO_TARGET)["pairs_with"]}
    checks.equal("the demo target finds its assistant", found.get("assistant"), True)
    report = inspect(checks, DEMO_ASSISTANT, "--with", DEMO_TARGET)
    checks.equal("the assistant fits the target", [entry["fits"] for entry in report["pairs_with"]], [True])
    checks.equal("the assistant is one", report["kind"], "assistant")
    report = inspect(checks, DEMO_ASSISTANT, "--with", GOLDEN / "unified" / "target")
    checks.check("another target does not fit", not report["pairs_with"][0]["fits"] and
                 "72" in report["pairs_with"][0]["reason"], report["pairs_with"])


def text(checks):
    status, out, _ = tandem("inspect", DEMO_TARGET)
    for word in ("target", "BF16", "mlp.up_proj", "KV cache", "pairs with", "assistant", "fits"):
        checks.check(f"the text names {word}", status == 0 and word in out, out)
    status, out, _ = tandem("inspect", DEMO_ASSISTANT)
    checks.check("an assistant says what it is", "no text model by itself" in out, out)


def refusals(checks, folder):
    copy = folder / "broken"
    shutil.copytree(GOLDEN / "unified" / "target", copy)
    data = bytearray((copy / "model.safetensors").read_bytes())
    (copy / "model.safetensors").write_bytes(data[:-8])
    checks.refused("truncated", tandem("inspect", copy), "model.safetensors")
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    name = next(name for name in header if name.endswith("layers.0.mlp.up_proj.weight"))
    end = 8 + length + header[name]["data_offsets"][1]
    data[end - 2 : end] = b"\xc0\x7f"  # a BF16 NaN
    (copy / "model.safetensors").write_bytes(data)
    checks.refused("NaN, with --check-values", tandem("inspect", copy, "--check-values"), name, "NaN")
    checks.refused("no folder", tandem("inspect", folder / "none"), "none")
    checks.refused("no model", tandem("inspect", folder), "config.json")
    checks.refused("unknown flag", tandem("inspect", DEMO_TARGET, "--jsn"), "did you mean --json?")


def main():
    checks = Checks()
    for folder in (DEMO_TARGET, DEMO_ASSISTANT, GOLDEN / "classic" / "target"):
        report = weights(checks, folder)
        checks.equal(f"{folder}: not quantized", report["quantization"]["quantized"], False)
    for folder in (GOLDEN / "unified" / "target-fp8", GOLDEN / "unified" / "assistant-fp8"):
        quantized(checks, folder)
    memory(checks)
    pairs(checks)
    text(checks)
    with tempfile.TemporaryDirectory() as folder:
        fp8_cache(checks, pathlib.Path(folder))
        refusals(checks, pathlib.Path(folder))
    checks.finish()


if __name__ == "__main__":
    main()
