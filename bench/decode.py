#!/usr/bin/env python3
"""Tokens per second of a pair, one request at a time, plain and with drafts, beside the bandwidth that bounds them.

usage: bench/decode.py [--target DIR] [--assistant DIR] [--drafts 0,1,2,4] [--rounds 5] [--prompts N] [--threads 2]
                       [--out bench/results/NAME.json]

Rounds are interleaved (plain, K = 1, K = 2, K = 4, again), so that what else the machine does meets all alike; medians
over the rounds. Tokens per second count decoding alone: tokens after the first, over the time after the first.
The ceiling of plain decoding is the read bandwidth over the bytes of the weights, which every token reads once;
bandwidth is measured on a buffer of the weights' size (a small model stays in the caches) with as many threads, each
timed by its own CPU clock, and is the best of the rounds: other work on the machine can only lower it. Rates of decoding
are wall time; with a load average far above the number of idle cores they say nothing (it is in the report).
Needs nothing but the built program (environment variable TANDEM, or build/release/tandem).
"""

import argparse
import ctypes
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
TANDEM = os.environ.get("TANDEM", str(ROOT / "build" / "release" / "tandem"))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default=str(ROOT / "demo" / "target"))
    parser.add_argument("--assistant", default=str(ROOT / "demo" / "assistant"))
    parser.add_argument("--prompts-file", default=str(ROOT / "demo" / "prompts" / "heldout200.jsonl"))
    parser.add_argument("--prompts", type=int, default=40, help="every n-th of the file, this many")
    parser.add_argument("--drafts", type=lambda text: [int(part) for part in text.split(",")], default=[0, 1, 2, 4])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--out", default=str(ROOT / "bench" / "results" / "decode-demo-bf16.json"))
    return parser.parse_args()


def read_bandwidth(num_bytes, threads, seconds=0.5):
    """GB/s of memchr over `num_bytes`, split between threads, scanned again and again."""
    libc = ctypes.CDLL(None)
    libc.memchr.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    part = num_bytes // threads
    buffers = [ctypes.create_string_buffer(b"\1" * part, part) for _ in range(threads)]
    rates = [0.0] * threads
    barrier = threading.Barrier(threads + 1)

    def scan(index):
        address = ctypes.addressof(buffers[index])
        libc.memchr(address, 0, part)
        barrier.wait()
        began, scanned = time.thread_time(), 0
        while time.thread_time() - began < seconds:
            libc.memchr(address, 0, part)  # ctypes lets other threads run meanwhile
            scanned += part
        rates[index] = scanned / (time.thread_time() - began)

    workers = [threading.Thread(target=scan, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    barrier.wait()
    for worker in workers:
        worker.join()
    return sum(rates) / 1e9


def run(options, prompts, drafts):
    command = [TANDEM, "generate", options.target, "--prompts-file", prompts, "--json", "--temperature", "0",
               "--max-tokens", str(options.max_tokens), "--max-num-seqs", "1", "--threads", str(options.threads)]
    if drafts:
        command += ["--speculative-config",
                    json.dumps({"model": options.assistant, "num_speculative_tokens": drafts})]
    done = subprocess.run(command, capture_output=True)
    if done.returncode != 0:
        sys.exit(done.stderr.decode())
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    seconds = sum(answer["timings"]["total_s"] - answer["timings"]["ttft_s"] for answer in answers)
    spec = {key: sum(answer["spec"][key] for answer in answers)
            for key in ("num_drafts", "num_draft_tokens", "num_accepted_tokens")}
    per_position = [sum(answer["spec"]["accepted_per_pos"][i] for answer in answers) for i in range(drafts)]
    return {"tokens_per_s": sum(len(answer["token_ids"]) - 1 for answer in answers) / seconds,
            "token_ids": [answer["token_ids"] for answer in answers], "spec": spec, "per_position": per_position}


def summarize(runs, drafts):
    rates = [one["tokens_per_s"] for one in runs]
    result = {"num_speculative_tokens": drafts, "tokens_per_s_median": round(statistics.median(rates), 1),
              "tokens_per_s_rounds": [round(rate, 1) for rate in rates]}
    spec = runs[0]["spec"]
    if spec["num_drafts"]:
        result["mean_acceptance_length"] = round(1 + spec["num_accepted_tokens"] / spec["num_drafts"], 3)
        result["acceptance_per_position"] = [round(n / spec["num_drafts"], 3) for n in runs[0]["per_position"]]
    return result


def machine():
    model = "unknown"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    return {"cpu": model, "cores": os.cpu_count(), "load_average": [round(load, 1) for load in os.getloadavg()],
            "commit": commit, "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}


def write_prompts(options, path):
    lines = pathlib.Path(options.prompts_file).read_text().splitlines(keepends=True)
    chosen = lines[:: max(1, len(lines) // options.prompts)][: options.prompts]
    path.write_text("".join(chosen))
    return len(chosen)


def main():
    options = arguments()
    inspected = json.loads(subprocess.run([TANDEM, "inspect", options.target, "--json"], capture_output=True).stdout)
    weight_bytes = inspected["memory"]["weight_bytes"]
    runs = {drafts: [] for drafts in options.drafts}
    bandwidths = []
    with tempfile.TemporaryDirectory() as folder:
        prompts = pathlib.Path(folder) / "prompts.jsonl"
        num_prompts = write_prompts(options, prompts)
        for _ in range(options.rounds):
            bandwidths.append(read_bandwidth(weight_bytes, options.threads))
            for drafts in options.drafts:
                runs[drafts].append(run(options, str(prompts), drafts))
    if any(one["token_ids"] != runs[options.drafts[0]][0]["token_ids"] for many in runs.values() for one in many):
        sys.exit("decode: expected the same tokens from every run, got others")
    bandwidth = max(bandwidths)
    report = {"what": "decode, one request at a time, greedy", "target": inspected["model_type"],
              "shape": inspected["config"], "quantization": inspected["quantization"]["algorithm"] or "BF16",
              "weight_bytes": weight_bytes, "threads": options.threads, "prompts": num_prompts,
              "max_tokens": options.max_tokens, "rounds": options.rounds, "machine": machine(),
              "read_bandwidth_gb_per_s": round(bandwidth, 2),
              "plain_ceiling_tokens_per_s": round(bandwidth * 1e9 / weight_bytes, 1),
              "results": [summarize(runs[drafts], drafts) for drafts in options.drafts]}
    path = pathlib.Path(options.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")
    print(f"read bandwidth {bandwidth:.1f} GB/s over {weight_bytes / 1e6:.1f} MB, {options.threads} threads: plain "
          f"decoding can reach {report['plain_ceiling_tokens_per_s']:.0f} tokens/s")
    for result in report["results"]:
        rate, base = result["tokens_per_s_median"], report["results"][0]["tokens_per_s_median"]
        positions = " ".join(f"{p:.2f}" for p in result.get("acceptance_per_position", []))
        print(f"K {result['num_speculative_tokens']}: {rate:.0f} tokens/s ({rate / base:.2f}x)"
              + (f", mean acceptance length {result['mean_acceptance_length']:.2f}, per position {positions}"
                 if positions else ""))


if __name__ == "__main__":
    main()
