"""Greedy decoding with real drafting and verification on the CPU: exact match and acceptance length.

    python evaluate_reference.py --demo demo --prompts demo/prompts/tasks.jsonl --limit 40

Whole prefixes are recomputed in every round, so this is slow and simple: a truth to compare faster engines with.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer

from checkpoint import load_assistant, load_target
from corpus.example import Example
from model import ASSISTANT, TARGET, Rows, assistant_step, scale_of, target_forward
from ops import Ops
from optim import Weights
from render import render_prompt
from runtime import make_attention
from vocab import special_ids

LENGTH = 768


class Pair:
    def __init__(self, demo, dtype):
        cpu = torch.device("cpu")
        self.target = Weights(load_target(demo / "target"), cpu, dtype, train=False).work
        self.assistant = Weights(load_assistant(demo / "assistant"), cpu, dtype, train=False).work
        self.rows, self.attention = Rows(TARGET, LENGTH, cpu), make_attention(TARGET, LENGTH, cpu)
        self.ops, self.scale = Ops(), scale_of(TARGET)
        ids = special_ids()
        self.stop = {1, ids["<turn|>"], ids["<|tool_response>"]}
        self.suppress = [ids["<audio|>"], ids["<image|>"]]

    def run(self, tokens):
        """States [T, hidden], KV, and the greedy token after each position."""
        hidden, kv = target_forward(TARGET, self.target, torch.tensor([tokens]), self.rows, self.attention, self.ops)
        logits = (hidden[0] @ self.target["embed_tokens.weight"].T).float()
        logits[:, self.suppress] = float("-inf")
        return hidden, kv, logits.argmax(-1).tolist()

    def draft(self, hidden, kv, at, newest, k):
        """k greedy guesses after `newest`, from the target's state at position `at` and keys 0..at."""
        state, out = hidden[:, :at + 1], []
        kv = {kind: (a[:, :at + 1], b[:, :at + 1]) for kind, (a, b) in kv.items()}
        for _ in range(k):
            embedded = self.target["embed_tokens.weight"][newest] * self.scale
            z, state = assistant_step(ASSISTANT, self.assistant, embedded.expand(1, at + 1, -1), state, kv, self.rows,
                                      self.attention, self.ops)
            logits = (z[0, -1] @ self.assistant["embed_tokens.weight"].T).float()
            logits[self.suppress] = float("-inf")
            newest = int(logits.argmax())
            out.append(newest)
        return out

    @torch.no_grad()
    def generate(self, prompt, limit, k):
        """(new tokens, accepted count of every round)."""
        hidden, kv, greedy = self.run(prompt)
        tokens, rounds = prompt + [greedy[-1]], []
        while len(tokens) - len(prompt) < limit and tokens[-1] not in self.stop and len(tokens) + k < LENGTH:
            at = len(tokens) - 2
            guesses = self.draft(hidden, kv, at, tokens[-1], k)
            hidden, kv, greedy = self.run(tokens + guesses)
            n = 0
            while n < k and guesses[n] == greedy[at + 1 + n]:
                n += 1
            rounds.append(n)
            for token in guesses[:n] + [greedy[at + 1 + n]]:
                tokens.append(token)
                if token in self.stop:
                    break
        return tokens[len(prompt):][:limit], rounds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, required=True)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=1000, help="number of prompts")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--k", type=int, default=4)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--show", action="store_true", help="print every answer that differs from the expected one")
    args = parser.parse_args()
    pair = Pair(args.demo, getattr(torch, args.dtype))
    tok = Tokenizer.from_file(str(args.demo / "target" / "tokenizer.json"))
    per_kind, per_position, start = {}, [0] * args.k, time.monotonic()
    for line in args.prompts.read_text().splitlines()[:args.limit]:
        row = json.loads(line)
        example = Example(row["kind"], row["messages"], tools=row.get("tools"), thinking=row.get("enable_thinking", False))
        prompt = tok.encode(render_prompt(example), add_special_tokens=False).ids
        wanted = tok.encode(row["completion"], add_special_tokens=False).ids
        new, rounds = pair.generate(prompt, args.max_tokens, args.k)
        entry = per_kind.setdefault(row["kind"], [0, 0, 0, 0])
        for i, value in enumerate((1, new == wanted, len(rounds), sum(rounds))):
            entry[i] += value
        for n in rounds:
            for i in range(n):
                per_position[i] += 1
        if args.show and new != wanted:
            print(json.dumps({"kind": row["kind"], "ask": row["messages"][-1]["content"], "want": row["completion"],
                              "got": tok.decode(new, skip_special_tokens=False)}, ensure_ascii=False))
    n, exact, rounds, accepted = (sum(e[i] for e in per_kind.values()) for i in range(4))
    for kind, e in sorted(per_kind.items()):
        print(f"{kind:24} n {e[0]:3}  exact {e[1]:3}  acceptance length {1 + e[3] / max(e[2], 1):.2f}")
    print(json.dumps({"prompts": n, "exact": exact, "exact_share": round(exact / n, 4), "rounds": rounds,
                      "acceptance_length": round(1 + accepted / max(rounds, 1), 3),
                      "accepted_per_pos": [round(c / max(rounds, 1), 3) for c in per_position],
                      "seconds": round(time.monotonic() - start, 1)}))


if __name__ == "__main__":
    main()
