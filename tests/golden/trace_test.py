"""Runs `tandem trace` on the small pairs of this folder and compares with the committed truth.

    python tests/golden/trace_test.py [PROGRAM] [--only TEXT] [--compute float32,bfloat16,native]

PROGRAM defaults to the environment variable TANDEM. Error of a tensor: norm(difference) / norm(expected).

Bounds and their reasons
- float32, BF16 weights: 1e-4. FP32 sums in another order differ by some 1e-7; the classic mistakes shift
  some case by 1e-3 or more (tools/golden/mutations.py).
- float32, FP8, `fp8_strict`: 1e-4 too. These token sequences were chosen so that noise of 3e-7 of a row's size,
  added after every linear, moves no activation across an E4M3 rounding edge.
- float32, FP8, `fp8` (long sequences): among some 200,000 activations a few lie on an edge, and two correct
  implementations may round them apart. A flip is as large as quantization noise, and disturbs the rows that read
  it. At worst the two results are independent draws of that noise: sqrt(2) times the quantization error, which the
  maker measured per tensor (about 0.02).
- bfloat16 and native: a value rounded to BF16 errs by at most 2^-9 of itself, 2^-9 / sqrt(3) on average. A layer
  rounds about 17 times on the way of the residual stream (norms, projections, softmax, products, sums), so L layers
  give sqrt(17 L) * 2^-9 / sqrt(3). A draft step adds the assistant's 4 layers and what is left of earlier steps
  (each mixed half and half with a fresh embedding: 4 more in the limit). Twice that is the bound; transformers in
  BF16 stays within one half of it. FP8 activations flip freely under BF16 noise, so the flip bound is added.
Draft tokens must be equal in float32. In the other modes a token may differ where the truth itself is undecided
within the bound; later draft rows then answer another question and are not compared.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from safetensors.numpy import load_file

HERE = pathlib.Path(__file__).resolve().parent
FLOATS = ("logits", "hidden", "draft_logits", "draft_hidden")
ASSISTANT_LAYERS = 4


def relative_error(got, expected):
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def bound(case, compute, name, target_layers):
    flips = np.sqrt(2) * case.get("quantization_errors", {}).get(name, 0.0)
    if compute == "float32":
        return max(1e-4, flips if case["kind"] == "fp8" else 0.0)
    layers = target_layers + (2 * ASSISTANT_LAYERS if name.startswith("draft") else 0)
    return 2 * np.sqrt(17 * layers) * 2.0**-9 / np.sqrt(3) + flips


def undecided(logits, limit):
    """Whether an error of `limit` of the row's size could change its argmax: five sigma on the top-two gap."""
    second, first = np.sort(logits.astype(np.float64))[-2:]
    return first - second < 5 * np.sqrt(2) * limit * np.sqrt(np.mean(logits.astype(np.float64) ** 2))


def comparable_rows(got, expected, limit, errors):
    """How many leading draft rows were made from the same tokens; complains about a wrong token."""
    pairs = [(got["logits"][-1].argmax(), expected["logits"][-1].argmax(), expected["logits"][-1])]
    pairs += zip(got["draft_tokens"], expected["draft_tokens"], expected["draft_logits"])
    for row, (token, wanted, logits) in enumerate(pairs):
        if token != wanted:
            if not undecided(logits, limit):
                errors.append(f"token {row - 1} is {token}, expected {wanted}")
            return row
    return len(pairs) - 1


def compare(got, expected, limits):
    """-> (errors found, 'name error' texts)."""
    errors, shown = [], []
    if set(got) != set(expected):
        return [f"tensors {sorted(got)}, expected {sorted(expected)}"], shown
    for name, tensor in got.items():
        dtype = np.int32 if name == "draft_tokens" else np.float32
        if tensor.dtype != dtype or tensor.shape != expected[name].shape:
            errors.append(f"{name}: {tensor.dtype} {tensor.shape}, expected {expected[name].shape}")
    if errors:
        return errors, shown
    rows = comparable_rows(got, expected, limits["draft_logits"], errors) if "draft_tokens" in got else 0
    for name in FLOATS:
        if name not in expected or (name.startswith("draft") and rows == 0):
            continue
        part = slice(rows) if name.startswith("draft") else slice(None)
        error = relative_error(got[name][part], expected[name][part])
        shown.append(f"{name} {error:.1e}")
        if not error <= limits[name]:  # also catches NaN
            errors.append(f"{name}: relative error {error:.2e}, allowed {limits[name]:.2e}")
    return errors, shown


def trace(program, case, compute, folder):
    out = pathlib.Path(folder) / "trace.safetensors"
    command = [program, "trace", str(HERE / case["target"]), "--token-ids", str(HERE / case["ids"])]
    if case["assistant"]:
        command += ["--assistant", str(HERE / case["assistant"]), "--draft-steps", str(case["draft_steps"])]
    command += ["--compute", compute, "--out", str(out)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if run.returncode != 0:
        raise RuntimeError(f"exit {run.returncode}: {(run.stderr or run.stdout).strip()[-400:]}")
    return load_file(out)


def layers_of(case):
    config = json.loads((HERE / case["target"] / "config.json").read_text())
    return config.get("text_config", config)["num_hidden_layers"]


def expected_of(case):
    """The committed truth, cut to the steps this case asks for."""
    expected = load_file(HERE / case["expected"])
    if not case["assistant"]:
        return {name: expected[name] for name in ("logits", "hidden")}
    cut = {name: value[: case["draft_steps"]] for name, value in expected.items() if name.startswith("draft")}
    return expected | cut


def derived_cases(cases):
    """The same truth asked in other ways: the target alone, and fewer draft steps."""
    first = cases[0]
    yield first | {"name": first["name"] + ", target alone", "assistant": None}
    yield first | {"name": first["name"] + ", one step", "draft_steps": 1}


def check_the_checks(case):
    """A comparison that cannot fail proves nothing: disturbed truth must be refused."""
    truth = expected_of(case)
    limits = {name: bound(case, "float32", name, layers_of(case)) for name in FLOATS}
    mistakes = {name: truth | {name: truth[name] * np.float32(1 + 2e-4)} for name in FLOATS}
    other = truth["draft_tokens"].copy()
    other[-1] += 1
    mistakes["draft_tokens"] = truth | {"draft_tokens": other}
    mistakes["nan"] = truth | {"hidden": np.full_like(truth["hidden"], np.nan)}
    mistakes["shape"] = truth | {"logits": truth["logits"][:-1]}
    missed = [name for name, wrong in mistakes.items() if not compare(wrong, truth, limits)[0]]
    return [f"not noticed: {missed}"] if missed or compare(truth, truth, limits)[0] else []


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program", nargs="?", default=os.environ.get("TANDEM"))
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    parser.add_argument("--compute", default="float32,bfloat16,native")
    args = parser.parse_args()
    if not args.program:
        parser.error("name the tandem program, as an argument or in TANDEM")
    cases = json.loads((HERE / "cases.json").read_text())
    outcomes = [check_the_checks(cases[0])]
    print(f"{'FAIL' if outcomes[0] else 'ok'}    the comparison itself refuses disturbed truth {outcomes[0] or ''}")
    for case in [*cases, *derived_cases(cases)]:
        for compute in args.compute.split(","):
            label = f"{case['name']} ({compute})"
            if args.only not in label:
                continue
            limits = {name: bound(case, compute, name, layers_of(case)) for name in FLOATS}
            with tempfile.TemporaryDirectory() as folder:
                try:
                    errors, shown = compare(trace(args.program, case, compute, folder), expected_of(case), limits)
                except (RuntimeError, OSError, subprocess.TimeoutExpired) as problem:
                    errors, shown = [str(problem)], []
            outcomes.append(errors)
            print(f"{'FAIL' if errors else 'ok':5} {label}: {', '.join(shown)} {'; '.join(errors)}".rstrip(), flush=True)
    failed = sum(1 for errors in outcomes if errors)
    print(f"{len(outcomes) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
