#!/usr/bin/env python3
"""Runs `tandem eval` on the demo pair and its FP8 export, whole and sabotaged.

    python tests/e2e/eval_test.py [PROGRAM] [--only TEXT]

PROGRAM defaults to the environment variable TANDEM. Perplexity and KL are computed again with numpy from the logits
that `tandem trace` writes. Each sabotage changes the export's files as a broken exporter would, and the gate must
fail and say what is wrong.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time

import numpy as np
import tokenizers
from eval_support import (DEMO, ROOT, Bench, Failure, change, demand, e4m3_values, read_tensors, scalar, value_of,
                          without_entry)  # fmt: skip

TEXT = """The sum of 47 and 497 is 544. A horse lives in meadows and farms. Dear Maria, I am sorry that I was late last
Monday. The train did not come, and I could not call you. Near a small garden there lived a busy wizard called Paul.
"""


# --- whole exports ------------------------------------------------------------------------------------------------


def case_itself(bench):
    """A pair against itself loses nothing at all."""
    _, figures = bench.eval(DEMO / "target", DEMO / "assistant", "--gate")
    demand(figures["text"]["kl"]["max"] == 0, f"KL {figures['text']['kl']}")
    demand(figures["candidate"] == figures["reference"], "the same pair twice gives other figures")
    demand(all(m["weight_error"] == 0 and m.get("output_error", 0) == 0 for m in figures["modules"]), "errors")


def case_export(bench):
    """The default export passes, and its figures fit together."""
    folder = bench.export()
    run, figures = bench.eval(folder / "target", folder / "assistant", "--gate")
    demand(figures["gate"]["passed"] and not figures["gate"]["causes"], figures["gate"])
    demand("gate        passed" in run.stdout, run.stdout)
    for side in ("candidate", "reference"):
        acceptance = figures[side]["acceptance"]
        rates = acceptance["per_position"]
        length = 1 + acceptance["num_accepted_tokens"] / acceptance["num_drafts"]
        demand(abs(acceptance["mean_acceptance_length"] - length) < 1e-9, acceptance)
        demand(len(rates) == 4 and all(a >= b for a, b in zip(rates, rates[1:])), rates)
        demand(abs(sum(rates) - (length - 1)) < 1e-9, "rates do not add up to the accepted tokens")
        tasks = figures[side]["tasks"].values()
        demand(sum(task["prompts"] for task in tasks) == 20, "tasks do not add up")
        demand(sum(t["acceptance"]["num_drafts"] for t in tasks) == acceptance["num_drafts"], "drafts do not add up")
        demand(figures[side]["exact_match"]["exact"] >= 10, figures[side]["exact_match"])
    quantized = [m for m in figures["modules"] if m["format"] == "fp8"]
    demand(len(quantized) > 80 and all(0 < m["weight_error"] < 0.1 for m in quantized), "weight errors")
    demand(all(abs(m["weight_factor"] - 1) < 0.01 for m in quantized), "weight factors")
    demand(0 < figures["text"]["kl"]["mean"] < 0.02, figures["text"])
    return f"length {figures['candidate']['acceptance']['mean_acceptance_length']:.3f} against " + \
        f"{figures['reference']['acceptance']['mean_acceptance_length']:.3f}, KL {figures['text']['kl']['mean']:.5f}"


def case_fp8_kv(bench):
    """An export with calibrated KV scales, run with an FP8 cache, passes too."""
    folder = bench.export("--kv-cache-dtype", "fp8")
    _, figures = bench.eval(folder / "target", folder / "assistant", "--gate")
    demand(figures["kv_cache_dtype"] == "fp8" and len(figures["kv"]) == 12, "the cache was not FP8")
    demand(figures["gate"]["passed"], figures["gate"])


def case_numpy(bench):
    """Perplexity and KL of a text, computed again from logits with other code."""
    text = bench.scratch / "text.txt"
    text.write_text(TEXT)
    folder = bench.export()
    _, figures = bench.eval(folder / "target", folder / "assistant", "--text", text)
    tokenizer = tokenizers.Tokenizer.from_file(str(DEMO / "target" / "tokenizer.json"))
    ids = [2, *tokenizer.encode(TEXT, add_special_tokens=False).ids]
    (bench.scratch / "ids.json").write_text(json.dumps(ids))
    log_probabilities = []
    for target in (folder / "target", DEMO / "target"):
        out = bench.scratch / "trace.safetensors"
        bench.run("trace", target, "--token-ids", bench.scratch / "ids.json", "--out", out)
        tensors, _ = read_tensors(out)
        logits = np.frombuffer(tensors["logits"][2], np.float32).reshape(tensors["logits"][1]).astype(np.float64)
        log_probabilities.append(logits - np.log(np.exp(logits).sum(1, keepdims=True)))
    ours, theirs = (rows[:-1] for rows in log_probabilities)
    next_ids = np.array(ids[1:])
    kl = (np.exp(theirs) * (theirs - ours)).sum(1)
    got = figures["text"]
    demand(got["tokens"] == len(ids) - 1, f"{got['tokens']} tokens")
    for name, expected, value in (
        ("perplexity", np.exp(-ours[np.arange(len(next_ids)), next_ids].mean()), got["perplexity"]),
        ("reference", np.exp(-theirs[np.arange(len(next_ids)), next_ids].mean()), got["reference_perplexity"]),
        ("KL", kl.mean(), got["kl"]["mean"]),
        ("largest KL", kl.max(), got["kl"]["max"]),
        ("same choice", (ours.argmax(1) == theirs.argmax(1)).mean(), got["same_choice"]),
    ):
        demand(abs(value - expected) <= 1e-5 * abs(expected) + 1e-7, f"{name}: expected {expected}, got {value}")


def case_any_end(bench):
    """The token that ends an answer is no part of it, also where it is not <turn|>."""
    target = bench.scratch / "ends"
    target.mkdir()
    for file in (DEMO / "target").iterdir():
        (target / file.name).symlink_to(file)
    equals = tokenizers.Tokenizer.from_file(str(DEMO / "target" / "tokenizer.json")).token_to_id("=")
    config = json.loads((DEMO / "target" / "generation_config.json").read_text())
    (target / "generation_config.json").unlink()
    (target / "generation_config.json").write_text(json.dumps({**config, "eos_token_id": [1, equals]}))
    prompts = bench.scratch / "ends.jsonl"
    prompts.write_text(json.dumps({"prompt": "What is 304 - 26?", "answer": "304 - 26 "}))
    run = bench.run("eval", target, "--prompts", prompts, codes=(0,))
    demand("1 of 1 answers" in run.stdout, run.stdout)


def case_refusals(bench):
    """What eval cannot do is refused with the flag's name."""
    labels = bench.scratch / "labels.jsonl"
    labels.write_text(json.dumps({"prompt": "a", "answer": None}) + "\n" + json.dumps({"prompt": "b", "answer": 4}))
    ranges = {"model": str(DEMO / "assistant"), "num_speculative_tokens_per_batch_size": [[1, 8, 1]]}
    for arguments, words in (
        (("--gate",), "--reference DIR"),
        (("--max-kl", 1), "--max-kl: expected --reference with it, got none"),
        (("--min-acceptance-ratio", 0.5), "--min-acceptance-ratio: expected --reference with it, got none"),
        (("--speculative-config", json.dumps(ranges)), "num_speculative_tokens_per_batch_size"),
        (("--reference-assistant", DEMO / "assistant"), "--reference DIR"),
        (("--reference", DEMO / "target", "--reference-assistant", DEMO / "assistant"), "--speculative-config"),
        (("--kv-cache-dtype", "int4"), "--kv-cache-dtype"),
        (("--kv-cache-dtype", "fp8"), "k_scale and v_scale"),
        (("--reference", ROOT / "tests" / "golden" / "unified" / "target"), "vocab_size"),
        (("--prompts", bench.scratch / "none.jsonl"), "none.jsonl"),
        (("--prompts", labels), "line 2: answer: expected text, got 4"),
    ):
        run = bench.run("eval", DEMO / "target", *arguments, codes=(2,))
        demand(words in run.stderr, f"{arguments}: {run.stderr}")


# --- sabotages ----------------------------------------------------------------------------------------------------


def case_scale_dropped(bench):
    folder = bench.copy_export("dropped")

    def edit(tensors):
        for name in [name for name in tensors if name.endswith(".weight_scale")]:
            del tensors[name]

    change(folder / "assistant", edit)
    return bench.demand_failure(folder, "the export lost its scales")


def case_scale_of_one(bench):
    folder = bench.copy_export("ones")

    def edit(tensors):
        for name in tensors:
            if name.endswith(".weight_scale"):
                tensors[name] = scalar(1)

    change(folder / "assistant", edit)
    return bench.demand_failure(folder, "the export lost its scales: weight_scale is 1")


def case_scale_doubled(bench):
    folder = bench.copy_export("doubled")

    def edit(tensors):
        for name in tensors:
            if name.endswith(".weight_scale"):
                tensors[name] = scalar(2 * value_of(tensors[name]))

    change(folder / "assistant", edit)
    return bench.demand_failure(folder, "are 2.00 times the reference's")


def case_pre_projection_fp8(bench):
    folder = bench.copy_export("pre_projection")
    assistant = folder / "assistant"

    def edit(tensors):
        name = next(name for name in tensors if name.endswith("pre_projection.weight"))
        bits = np.frombuffer(tensors[name][2], np.uint16)
        values = (bits.astype(np.uint32) << 16).view(np.float32)
        scale = np.float32(np.abs(values).max() / 448)
        grid = np.array([v for v in e4m3_values() if v == v], np.float64)
        magnitudes = np.abs(values / scale)
        upper = np.clip(np.searchsorted(grid, magnitudes), 1, 126)
        nearest = np.where(grid[upper] - magnitudes < magnitudes - grid[upper - 1], upper, upper - 1)
        codes = nearest.astype(np.uint8) | (np.signbit(values).astype(np.uint8) << 7)
        tensors[name] = ["F8_E4M3", tensors[name][1], codes.tobytes()]
        tensors[name.replace(".weight", ".weight_scale")] = scalar(scale)
        tensors[name.replace(".weight", ".input_scale")] = scalar(0.1)

    change(assistant, edit)
    for file in ("config.json", "hf_quant_config.json"):
        path = assistant / file
        path.write_text(json.dumps(without_entry(json.loads(path.read_text()), "pre_projection")))
    return bench.demand_failure(folder, "pre_projection is FP8 but must stay BF16")


def case_kv_scale_of_one(bench):
    folder = bench.copy_export("kv", "--kv-cache-dtype", "fp8")

    def edit(tensors):
        names = [name for name in tensors if name.endswith((".k_scale", ".v_scale"))]
        demand(len(names) >= 24, f"expected KV scales, got {names}")
        for name in names:
            tensors[name] = scalar(1)

    change(folder / "target", edit)
    return bench.demand_failure(folder, "KV scales were not inherited")


def case_wrong_offset(bench):
    return bench.demand_failure(bench.export(), "position offset", offset=1)


def case_wrong_assistant(bench):
    """An assistant of the right shapes that was made for another target: here, its values in another order."""
    folder = bench.copy_export("other")
    shutil.rmtree(folder / "assistant")
    shutil.copytree(DEMO / "assistant", folder / "assistant")
    random = np.random.default_rng(1)

    def edit(tensors):
        for dtype, shape, data in [tensors[name] for name in tensors if len(tensors[name][1]) == 2]:
            demand(dtype == "BF16", dtype)
        for name in tensors:
            if len(tensors[name][1]) == 2:
                tensors[name][2] = random.permutation(np.frombuffer(tensors[name][2], np.uint16)).tobytes()

    os.chmod(folder / "assistant" / "model.safetensors", 0o644)
    change(folder / "assistant", edit)
    return bench.demand_failure(folder, "wrong pair")


def case_swapped_halves(bench):
    """pre_projection reads the hidden state where the embedding should be."""
    folder = bench.copy_export("halves")

    def edit(tensors):
        name = next(name for name in tensors if name.endswith("pre_projection.weight"))
        bits = np.frombuffer(tensors[name][2], np.uint16).reshape(tensors[name][1])
        tensors[name][2] = np.roll(bits, bits.shape[1] // 2, axis=1).tobytes()

    change(folder / "assistant", edit)
    return bench.demand_failure(folder, "two halves exchanged")


def case_wrong_target(bench):
    """A target with its hidden state in another order answers as before, but no assistant can read it."""
    folder = bench.copy_export("reordered")
    for name in ("target", "assistant"):
        shutil.rmtree(folder / name)
        shutil.copytree(DEMO / name, folder / name)
    path = folder / "target" / "model.safetensors"
    os.chmod(path, 0o644)
    hidden = json.loads((DEMO / "target" / "config.json").read_text())["text_config"]["hidden_size"]
    order = np.random.default_rng(2).permutation(hidden)

    def edit(tensors):
        for name, (_, shape, data) in tensors.items():
            values = np.frombuffer(data, np.uint16).reshape(shape)
            axis = 0 if len(shape) == 1 or name.endswith(("o_proj.weight", "down_proj.weight")) else 1
            if shape and shape[axis] == hidden:
                tensors[name][2] = np.ascontiguousarray(np.take(values, order, axis)).tobytes()

    change(folder / "target", edit)
    _, figures = bench.eval(folder / "target", folder / "assistant", reference=folder)
    demand(figures["candidate"]["exact_match"]["exact"] >= 10, "the reordered target answers something else")
    return bench.demand_failure(folder, "although the weights equal the reference's", reference=folder)


CASES = [case_itself, case_export, case_fp8_kv, case_numpy, case_any_end, case_refusals, case_scale_dropped,
         case_scale_of_one, case_scale_doubled, case_pre_projection_fp8, case_kv_scale_of_one, case_wrong_offset,
         case_wrong_assistant, case_swapped_halves, case_wrong_target]  # fmt: skip


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", nargs="?", default=os.environ.get("TANDEM"))
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    if not options.program:
        parser.error("expected the program's path, or TANDEM in the environment")
    passed, failed = 0, 0
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(options.program, scratch)
        for case in CASES:
            name = case.__name__.removeprefix("case_")
            if options.only not in name:
                continue
            start = time.monotonic()
            try:
                note = case(bench)
                passed += 1
                print(f"ok   {name} ({time.monotonic() - start:.1f} s){': ' + note if note else ''}", flush=True)
            except Failure as failure:
                failed += 1
                print(f"FAIL {name}: {failure}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
