"""Makes tests/golden: small random pairs, token ids, and what transformers and the numpy model compute on them.

    python tools/golden/make_goldens.py tests/golden [--only aligned]

--only makes one pair's folder and cases again and leaves the others as they are. Needs torch and transformers 5.17 (CPU). It refuses to write anything unless both sources of truth agree to
1e-5, and prints by how much they differ.
"""

import argparse
import json
import pathlib
import shutil

import numpy as np
import torch

import hf_truth
import pairs
import quantize_pair
import reference
import tensorfile as tf

UNIFIED = pairs.PairSpec(with_media=True)
CLASSIC = pairs.PairSpec(
    family="classic", hidden=52, intermediate=100, vocab=163, layers="sfssf", heads=6, kv_heads=3, global_kv_heads=2,
    head_dim=20, global_head_dim=28, assistant_hidden=36, assistant_intermediate=60, per_layer_config=True, seed=11,
)  # fmt: skip
TEXT_ONLY = pairs.PairSpec(hidden=40, intermediate=76, vocab=149, layers="ssf", head_dim=12, global_head_dim=20, seed=23)
# Sizes that GPU kernels take: multiples of 32 and powers of two.
ALIGNED = pairs.PairSpec(
    hidden=128, intermediate=192, vocab=260, layers="ssf", head_dim=32, global_head_dim=64, window=32, assistant_hidden=64,
    assistant_intermediate=128, seed=31,
)  # fmt: skip
CALIBRATION_SEEDS = range(9000, 9006)
MIN_GAP = 0.12  # of the row's standard deviation, between the two best logits wherever an argmax decides
NOISE = 3e-7  # of a row's RMS: what summing in FP32 in another order does, with room
NOISE_DRAWS = 16


def relative(a, b):
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def smallest_gap(result):
    """Of all rows that choose a token: the last target row and every draft row."""
    rows = [result["logits"][-1], *result.get("draft_logits", [])]
    return min(float(np.diff(np.sort(row)[-2:])[0] / row.std()) for row in rows)


class Noisy:
    """Wraps `linear` so that every output carries the rounding noise of an FP32 implementation."""

    def __init__(self, model, rng):
        self.model, self.exact = model, model.linear
        model.linear = lambda name, x: self.disturb(self.exact(name, x), rng)

    @staticmethod
    def disturb(y, rng):
        return y + NOISE * np.sqrt(np.mean(y * y, axis=-1, keepdims=True)) * rng.standard_normal(y.shape)

    def undo(self):
        self.model.linear = self.exact


def away_from_edges(models, ids, steps, result):
    """Whether no activation lies so near an E4M3 rounding edge that FP32 noise would flip it."""
    rng = np.random.Generator(np.random.PCG64(1))
    noisy = [Noisy(model, rng) for model in models]
    try:
        draws = (reference.trace(*models, ids, steps) for _ in range(NOISE_DRAWS))
        return all(relative(draw[key], result[key]) < 1e-5 for draw in draws for key in result)
    finally:
        for wrapper in noisy:
            wrapper.undo()


class Maker:
    def __init__(self, out):
        self.out, self.cases = pathlib.Path(out), []

    def models(self, target, assistant):
        load = lambda kind, name: kind(self.out / name) if name else None
        return load(reference.Target, target), load(reference.Assistant, assistant)

    def choose_ids(self, spec, length, steps, models, seed, strict=False):
        """The first random sequence whose argmax decisions are clear (and, strict, no rounding edge is near)."""
        for attempt in range(2000):
            ids = pairs.random_ids(spec, length, seed + attempt)
            result = reference.trace(*models, ids, steps)
            if smallest_gap(result) >= MIN_GAP and (not strict or away_from_edges(models, ids, steps, result)):
                return ids, result
        raise SystemExit(f"no sequence of {length} tokens is clear enough")

    def write_expected(self, name, result, bf16=False):
        tensors = {key: (tf.bf16 if bf16 else tf.f32)(value) for key, value in result.items()}
        if "draft_tokens" in result:
            tensors["draft_tokens"] = tf.i32(result["draft_tokens"])
        tf.write(self.out / name, tensors)

    def exact_case(self, name, spec, target, assistant, length, steps, seed):
        """BF16 weights: FP32 results of transformers, cross-checked; its BF16 results for information."""
        models = self.models(target, assistant)
        ids, second = self.choose_ids(spec, length, steps, models, seed)
        truth, low = (
            hf_truth.trace(*(hf_truth.load(self.out / f, dtype) if f else None for f in (target, assistant)), ids, steps)
            for dtype in (torch.float32, torch.bfloat16)
        )
        self.check(name, truth, second)
        (self.out / f"{name}.ids.json").write_text(json.dumps(ids) + "\n")
        self.write_expected(f"{name}.f32.safetensors", truth)
        self.write_expected(f"{name}.bf16.safetensors", low, bf16=True)
        errors = {key: relative(low[key], truth[key]) for key in truth if key != "draft_tokens"}
        print(f"  BF16 against FP32: {', '.join(f'{k} {v:.1e}' for k, v in errors.items())}")
        self.add(name, target, assistant, steps, "exact", name, f"{name}.f32.safetensors", bf16_errors=errors)

    def fp8_case(self, name, spec, target, assistant, length, steps, seed, strict, plain):
        """Simulated W8A8 of the numpy model. `plain` names the BF16 folders, to measure the quantization error."""
        models = self.models(target, assistant)
        ids, truth = self.choose_ids(spec, length, steps, models, seed, strict)
        self.check(name, truth, self.fp8_transformers(plain, (target, assistant), ids, steps), limit=1e-5 if strict else 1)
        unquantized = reference.trace(*self.models(*plain), ids, steps)
        noise = {key: relative(truth[key], unquantized[key]) for key in truth if key != "draft_tokens"}
        (self.out / f"{name}.ids.json").write_text(json.dumps(ids) + "\n")
        self.write_expected(f"{name}.f32.safetensors", truth)
        kind = "fp8_strict" if strict else "fp8"
        self.add(name, target, assistant, steps, kind, name, f"{name}.f32.safetensors", quantization_errors=noise)

    def fp8_transformers(self, plain, quantized, ids, steps):
        models = []
        for folder, fp8 in zip(plain, quantized):
            model = hf_truth.load(self.out / folder, torch.float32) if folder else None
            models.append(hf_truth.simulate_fp8(model, tf.read_folder(self.out / fp8)) if folder else None)
        return hf_truth.trace(*models, ids, steps)

    def check(self, name, truth, second, limit=1e-5):
        errors = {key: relative(second[key], truth[key]) for key in truth}
        print(f"{name}: transformers against numpy: {', '.join(f'{k} {v:.1e}' for k, v in errors.items())}")
        assert all(error <= limit for error in errors.values()), name

    def add(self, name, target, assistant, steps, kind, ids, expected, **more):
        case = {"name": name, "target": target, "assistant": assistant, "ids": f"{ids}.ids.json"}
        self.cases.append(case | {"draft_steps": steps, "kind": kind, "expected": expected} | more)

    def pair(self, name, spec, shards=1):
        pairs.write_pair(self.out / name, spec, shards)
        return f"{name}/target", f"{name}/assistant"

    def unified(self):
        pair = self.pair("unified", UNIFIED)
        self.exact_case("unified/long", UNIFIED, *pair, 91, 5, 100)
        self.exact_case("unified/window_edge", UNIFIED, *pair, 17, 8, 200)
        self.exact_case("unified/one_token", UNIFIED, *pair, 1, 2, 300)
        plain, both = self.quantized("unified", UNIFIED)
        self.fp8_case("unified/fp8_strict", UNIFIED, *both, 18, 4, 1000, True, plain)
        self.fp8_case("unified/fp8_long", UNIFIED, *both, 91, 4, 2000, False, plain)
        mixed = (("fp8_target_only", "target-fp8", "assistant"), ("fp8_assistant_only", "target", "assistant-fp8"))
        for name, target, assistant in mixed:
            pair = (f"unified/{target}", f"unified/{assistant}")
            self.fp8_case(f"unified/{name}", UNIFIED, *pair, 18, 3, 3000, True, plain)

    def classic(self):
        pair = self.pair("classic", CLASSIC, shards=2)
        self.exact_case("classic/long", CLASSIC, *pair, 83, 3, 100)
        self.exact_case("classic/two_windows", CLASSIC, *pair, 33, 8, 200)
        plain, both = self.quantized("classic", CLASSIC, with_kv_scales=True)
        self.fp8_case("classic/fp8_strict", CLASSIC, *both, 18, 4, 1000, True, plain)
        self.fp8_case("classic/fp8_long", CLASSIC, *both, 91, 4, 2000, False, plain)

    def text_only(self):
        pairs.write_text_only(self.out / "text_only/plain", TEXT_ONLY)
        self.exact_case("text_only/long", TEXT_ONLY, "text_only/plain", None, 70, 0, 100)
        prefixed = "text_only/prefixed"
        pairs.write_text_only(self.out / prefixed, TEXT_ONLY, "model.language_model.", explicit_head=True)
        more = {"bf16_errors": self.cases[-1]["bf16_errors"]}
        self.add("text_only/prefixed", prefixed, None, 0, "exact", "text_only/long", self.cases[-1]["expected"], **more)

    def aligned(self):
        pair = self.pair("aligned", ALIGNED)
        self.exact_case("aligned/long", ALIGNED, *pair, 150, 5, 100)
        plain, both = self.quantized("aligned", ALIGNED)
        self.fp8_case("aligned/fp8_long", ALIGNED, *both, 150, 4, 2000, False, plain)

    def quantized(self, name, spec, with_kv_scales=False):
        """Writes FP8 folders beside the plain ones; the names of both."""
        calibration = [pairs.random_ids(spec, 80, seed) for seed in CALIBRATION_SEEDS]
        quantize_pair.quantize_folder(self.out / name, self.out / name, calibration, with_kv_scales=with_kv_scales)
        return [(f"{name}/target{end}", f"{name}/assistant{end}") for end in ("", "-fp8")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out")
    folders = ("unified", "classic", "text_only", "aligned")
    parser.add_argument("--only", choices=folders)
    args = parser.parse_args()
    maker = Maker(args.out)
    path = maker.out / "cases.json"
    kept = json.loads(path.read_text()) if args.only else []
    for folder in [args.only] if args.only else folders:
        shutil.rmtree(maker.out / folder, ignore_errors=True)
        getattr(maker, folder)()
        kept = [case for case in kept if not case["name"].startswith(f"{folder}/")]
    tf.write_json(path, kept + maker.cases)


if __name__ == "__main__":
    main()
