#!/usr/bin/env python3
"""Shows that speculation never changes the text: the same tokens for every K, batch size and thread count.

usage: tools/same_text.py [--target DIR] [--assistant DIR] [--prompts FILE] [--limit N] [--max-tokens N]
                          [--drafts 0,1,4] [--batches 1,8] [--threads 1,2] [--temperatures 0,1]

For each temperature the first run (K = 0, no assistant loaded, one at a time, one thread) is the truth; every other
run must give the same token ids for every prompt. One line per run; exit 1 when any token differs.
Needs nothing but the built program (environment variable TANDEM, or build/release/tandem).
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
TANDEM = os.environ.get("TANDEM", str(ROOT / "build" / "release" / "tandem"))


def numbers(text):
    return [int(part) for part in text.split(",")]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default=str(ROOT / "demo" / "target"))
    parser.add_argument("--assistant", default=str(ROOT / "demo" / "assistant"))
    parser.add_argument("--prompts", default=str(ROOT / "demo" / "prompts" / "heldout200.jsonl"))
    parser.add_argument("--token-ids", help="JSON list of lists of ids instead of prompts: needs no tokenizer")
    parser.add_argument("--limit", type=int, default=0, help="only the first N prompts")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--drafts", type=numbers, default=list(range(9)))
    parser.add_argument("--batches", type=numbers, default=[1, 8])
    parser.add_argument("--threads", type=numbers, default=[1, 2])
    parser.add_argument("--temperatures", type=lambda text: text.split(","), default=["0", "1"])
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--ignore-eos", action="store_true")
    return parser.parse_args()


def write_requests(options, folder):
    """The flags that hand over the requests."""
    if options.token_ids:
        lists = json.loads(pathlib.Path(options.token_ids).read_text())
        path = folder / "ids.json"
        path.write_text(json.dumps(lists[: options.limit or None]))
        return ["--token-ids", str(path)]
    lines = pathlib.Path(options.prompts).read_text().splitlines(keepends=True)
    path = folder / "prompts.jsonl"
    path.write_text("".join(lines[: options.limit or None]))
    return ["--prompts-file", str(path)]


def run(options, requests, temperature, drafts, batch, threads):
    """-> (token ids of every answer, seconds, drafted, accepted)."""
    command = [TANDEM, "generate", options.target, *requests, "--json", "--max-tokens", str(options.max_tokens),
               "--temperature", temperature, "--seed", str(options.seed), "--max-num-seqs", str(batch),
               "--threads", str(threads)]
    if options.ignore_eos:
        command.append("--ignore-eos")
    if drafts:
        command += ["--speculative-config",
                    json.dumps({"model": options.assistant, "num_speculative_tokens": drafts})]
    began = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    seconds = time.monotonic() - began
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\nexit {done.returncode}: {done.stderr.decode()}")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    drafted, accepted = (sum(answer["spec"][key] for answer in answers)
                         for key in ("num_draft_tokens", "num_accepted_tokens"))
    return [answer["token_ids"] for answer in answers], seconds, drafted, accepted


def first_difference(got, expected):
    for index, (a, b) in enumerate(zip(got, expected)):
        if a != b:
            place = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
            return f"DIFFERS at prompt {index}, token {place}"
    return "identical" if len(got) == len(expected) else f"DIFFERS: {len(got)} answers, expected {len(expected)}"


def main():
    options = arguments()
    failures = runs = 0
    with tempfile.TemporaryDirectory() as folder:
        requests = write_requests(options, pathlib.Path(folder))
        for temperature in options.temperatures:
            truth, seconds, _, _ = run(options, requests, temperature, 0, 1, 1)
            tokens = sum(map(len, truth))
            print(f"temperature {temperature}: the truth is {len(truth)} answers, {tokens} tokens "
                  f"(K 0, batch 1, 1 thread, {seconds:.1f} s)", flush=True)
            for drafts in options.drafts:
                for batch in options.batches:
                    for threads in options.threads:
                        got, seconds, drafted, accepted = run(options, requests, temperature, drafts, batch, threads)
                        verdict = first_difference(got, truth)
                        failures += verdict != "identical"
                        runs += 1
                        share = f", {100 * accepted / drafted:.0f} % of {drafted} drafts accepted" if drafted else ""
                        print(f"temperature {temperature}, K {drafts}, batch {batch}, {threads} threads: {verdict} "
                              f"({seconds:.1f} s{share})", flush=True)
    print(f"same_text: {runs - failures} of {runs} runs identical")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
