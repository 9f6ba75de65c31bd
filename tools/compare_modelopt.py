#!/usr/bin/env python3
"""Compares `tandem quantize` with NVIDIA's own exporter on the demo target: same weights, same text, both FP8.

    python tools/compare_modelopt.py [PROGRAM] [--work DIR]

Needs torch, transformers and nvidia-modelopt, so it is no part of ./check. Both sides calibrate on the same token ids,
without generating (one new token), so that the activations are the same up to BF16 rounding. Compared: tensor names,
dtypes and shapes, weight scales to the last bit, every weight byte for both quotients, input scales, the JSON files.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import modelopt.torch.quantization as mtq
import torch
import transformers
from modelopt.torch.export import export_hf_checkpoint
from safetensors.torch import load_file

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROMPTS = ROOT / "demo" / "prompts" / "heldout200.jsonl"


def token_ids(source, count):
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    lines = PROMPTS.read_text().splitlines()[:count]
    texts = [json.loads(line) for line in lines]
    texts = [t for t in texts if "tools" not in t]
    return [
        tokenizer.apply_chat_template(t["messages"], add_generation_prompt=True, return_dict=False) for t in texts
    ]


def ours(program, source, ids, work, quotient):
    out = work / f"tandem-{quotient}"
    (work / "ids.json").write_text(json.dumps(ids))
    subprocess.run(
        [program, "quantize", "--target", source, "--out-target", out, "--token-ids", work / "ids.json",
         "--max-new-tokens", "1", "--quotient", quotient, "--force"], check=True, capture_output=True)  # fmt: skip
    return out


def theirs(source, ids, work):
    model = transformers.AutoModelForImageTextToText.from_pretrained(source, dtype=torch.bfloat16).eval()

    def loop(quantized):
        with torch.no_grad():
            for prompt in ids:
                quantized(input_ids=torch.tensor([prompt]))

    mtq.quantize(model, mtq.FP8_DEFAULT_CFG, loop)
    out = work / "modelopt"
    with torch.no_grad():
        export_hf_checkpoint(model, export_dir=out)
    return out


def tensors_of(folder):
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(file)
    return tensors


def compare(name, mine, other):
    """Prints one line per kind; returns whether the format and the weight scales agree."""
    missing, added = sorted(set(other) - set(mine)), sorted(set(mine) - set(other))
    print(f"{name}: {len(mine)} tensors, ModelOpt {len(other)}; only ModelOpt {missing[:4]}, only Tandem {added[:4]}")
    shared = sorted(set(mine) & set(other))
    forms = [n for n in shared if mine[n].dtype != other[n].dtype or mine[n].shape != other[n].shape]
    print(f"{name}: other dtype or shape: {[(n, mine[n].dtype, other[n].dtype, other[n].shape) for n in forms][:3]}")
    scales = [n for n in shared if n.endswith("weight_scale")]
    equal = sum(bool(torch.equal(mine[n].reshape(-1), other[n].float().reshape(-1))) for n in scales)
    print(f"{name}: {equal} of {len(scales)} weight scales equal to the last bit")
    weights = [n for n in shared if mine[n].dtype == torch.float8_e4m3fn and n not in forms]
    total = sum(mine[n].numel() for n in weights)
    differ = sum(int((mine[n].view(torch.uint8) != other[n].view(torch.uint8)).sum()) for n in weights)
    print(f"{name}: {differ} of {total} weight bytes differ ({100 * differ / max(1, total):.4f} %)")
    ratios = [float(mine[n] / other[n].reshape(())) for n in shared if n.endswith("input_scale")]
    if ratios:
        print(f"{name}: {len(ratios)} input scales, ratio to ModelOpt's {min(ratios):.4f} to {max(ratios):.4f}")
    others = [n for n in shared if n not in forms and n not in weights and not n.endswith("_scale")]
    unequal = [n for n in others if not torch.equal(mine[n], other[n])]
    print(f"{name}: {len(others) - len(unequal)} of {len(others)} unquantized tensors equal {unequal[:3]}")
    return not missing and not added and not forms and equal == len(scales) and not unequal


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program", nargs="?", default=os.environ.get("TANDEM"))
    parser.add_argument("--source", default=ROOT / "demo" / "target", type=pathlib.Path)
    parser.add_argument("--prompts", default=24, type=int)
    parser.add_argument("--work", type=pathlib.Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = args.work or pathlib.Path(scratch)
        work.mkdir(exist_ok=True)
        ids = token_ids(args.source, args.prompts)
        exported = theirs(args.source, ids, work)
        agree = True
        for quotient in ("float32", "bfloat16"):
            mine = ours(args.program, args.source, ids, work, quotient)
            agree &= compare(quotient, tensors_of(mine), tensors_of(exported))
        for name in ("hf_quant_config.json", "config.json"):
            mine, other = (json.loads((folder / name).read_text()) for folder in (work / "tandem-float32", exported))
            key = "quantization" if name.startswith("hf") else "quantization_config"
            print(f"{name}: Tandem {json.dumps(mine[key])[:700]}\n{name}: ModelOpt {json.dumps(other[key])[:700]}")
    sys.exit(0 if agree else 1)


if __name__ == "__main__":
    main()
