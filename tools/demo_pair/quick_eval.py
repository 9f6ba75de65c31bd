"""A teacher-forced look at held-out conversations: exact for tasks the target gets right, a lower bound elsewhere."""

import json

import numpy as np
import torch

from runtime import unpack


def walk(accepted, first, last):
    """Rounds and tokens of speculative decoding along known text whose answer spans tokens first..last."""
    p, rounds, tokens = first - 1, 0, 0
    while p + 1 < last:
        step = min(int(accepted[p]) + 1, last - p - 1)
        rounds, tokens, p = rounds + 1, tokens + step, p + step
    return rounds, tokens


def evaluate(stage, folder, device, length):
    kinds = json.loads((folder / "eval_kinds.json").read_text())
    result = {}
    for name in ("tasks", "prose"):
        rows = torch.from_numpy(np.load(folder / f"eval_{name}.npy").astype(np.int32))[:, :length].to(device)
        counts, hits = [], []
        for chunk in rows.split(32):
            tokens, _ = unpack(chunk)
            count, greedy = stage.accepted(tokens)
            counts.append(count.cpu())
            hits.append((greedy[:, :-1] == tokens[:, 1:]).cpu())
        counts, hits = torch.cat(counts), torch.cat(hits)
        answers = unpack(rows)[1].cpu()
        per_kind, right, rounds, tokens = {}, 0, 0, 0
        for i, kind in enumerate(kinds[name]):
            at = answers[i].nonzero()[:, 0]
            first, last = int(at[0]), int(at[-1])
            exact = bool(hits[i, first - 1:last].all())
            r, t = walk(counts[i], first, last)
            entry = per_kind.setdefault(kind, [0, 0, 0, 0])
            for j, value in enumerate((1, exact, r, t)):
                entry[j] += value
            right, rounds, tokens = right + exact, rounds + r, tokens + t
        result[f"{name}_exact"] = round(right / len(kinds[name]), 4)
        result[f"{name}_acceptance_length"] = round(tokens / max(rounds, 1), 3)
        result[f"{name}_per_kind"] = {k: {"n": v[0], "exact": v[1], "length": round(v[3] / max(v[2], 1), 2)}
                                      for k, v in sorted(per_kind.items())}
    return result
