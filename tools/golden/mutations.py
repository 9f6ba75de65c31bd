"""Proves that the goldens can fail: the numpy model with one classic mistake at a time, against tests/golden.

    python tools/golden/mutations.py tests/golden

Prints the relative error that each mistake causes in its clearest case and exits 1 if any stays under five
times the tolerance of 1e-4.
"""

import json
import pathlib
import sys

import numpy as np

import reference
import tensorfile as tf

LIMIT = 5e-4


def tweak(name, target, assistant):
    """Plants one mistake. Everything else stays as it is."""
    models = [target, assistant]
    if name == "window one longer":
        target.text["sliding_window"] += 1
    elif name == "window one shorter":
        target.text["sliding_window"] -= 1
    elif name == "draft window one longer":
        assistant.text["sliding_window"] += 1
    elif name == "draft position one later":
        step = assistant.step
        assistant.step = lambda embedding, state, position, shared: step(embedding, state, position + 1, shared)
    elif name == "state before embedding":
        step = assistant.step
        assistant.step = lambda embedding, state, position, shared: step(state, embedding, position, shared)
    elif name == "embedding scale not rounded to BF16":
        target.embed = lambda ids: target["embed_tokens.weight"][ids] * np.sqrt(target.text["hidden_size"])
    elif name == "no layer scalar":
        for model in models:
            model.tensors |= {key: np.ones(1) for key in model.tensors if key.endswith("layer_scalar")}
    elif name == "softcap in the drafter":
        step = assistant.step
        capped = lambda row: (30 * np.tanh(row[0] / 30), row[1])
        assistant.step = lambda *inputs: capped(step(*inputs))
    elif name == "no softcap":
        target.text["final_logit_softcapping"] = None
    elif name == "rope exponent over the rotated part":
        for model in models:
            model.text["rope_parameters"]["full_attention"]["rope_theta"] **= 4.0
    elif name == "rope turns the whole head":
        for model in models:
            model.text["rope_parameters"]["full_attention"]["partial_rotary_factor"] = 1.0
    elif name == "drafter reads the next KV head":
        target.layer = _shared_rolled(target.layer)
    else:
        raise ValueError(name)


def _shared_rolled(layer):
    def rolled(number, kind, x, positions, kv, visible):
        x, (k, v) = layer(number, kind, x, positions, kv, visible)
        return x, (np.roll(k, 1, axis=1), np.roll(v, 1, axis=1))

    return rolled


MISTAKES = [
    "window one longer", "window one shorter", "draft window one longer", "draft position one later",
    "state before embedding", "embedding scale not rounded to BF16", "no layer scalar", "softcap in the drafter",
    "no softcap", "rope exponent over the rotated part", "rope turns the whole head", "drafter reads the next KV head",
]  # fmt: skip


def main():
    golden, weak = pathlib.Path(sys.argv[1]), 0
    cases = [case for case in json.loads((golden / "cases.json").read_text()) if case["kind"] == "exact" and case["assistant"]]
    for mistake in MISTAKES:
        worst = (0.0, "")
        for case in cases:
            target, assistant = reference.Target(golden / case["target"]), reference.Assistant(golden / case["assistant"])
            tweak(mistake, target, assistant)
            ids = json.loads((golden / case["ids"]).read_text())
            got, expected = reference.trace(target, assistant, ids, case["draft_steps"]), tf.read(golden / case["expected"])
            for name in ("logits", "hidden", "draft_logits"):
                truth = expected[name].value()
                error = np.linalg.norm(got[name] - truth) / np.linalg.norm(truth)
                worst = max(worst, (float(error), f"{name} of {case['name']}"))
        weak += worst[0] < LIMIT
        print(f"{mistake:40} {worst[0]:.1e} in {worst[1]}")
    sys.exit(1 if weak else 0)


if __name__ == "__main__":
    main()
