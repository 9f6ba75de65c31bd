#!/usr/bin/env python3
"""Long and hard runs of the server with the demo pair; each prints what it found and fails when a promise is broken.

usage: bench/soak/soak.py steady|preempt|overhead|overload|startup [--seconds N] [--clients N] [--out FILE]

steady    many streaming clients: no error, memory flat, every KV block given back
preempt   the same with clients that hang up and so few KV blocks that requests are preempted all the time:
          every answer that was not hung up on has the tokens of its solo answer
overhead  output tokens per second over HTTP beside those of the engine alone, in turn
overload  four times the requests the server can answer: each gets 200 or 429, refusals are quick
startup   from the start of the process to the first 200 of /health
Needs the built program alone (environment variable TANDEM, or build/release/tandem).
"""

import argparse
import json
import statistics
import subprocess
import sys

import server as bench

PROMPTS = str(bench.ROOT / "demo" / "prompts" / "heldout200.jsonl")
FIGURES = ("duration", "completed", "failed", "aborted", "refused", "statuses", "output_throughput", "request_throughput",
           "mean_ttft_ms", "p99_ttft_ms", "mean_itl_ms", "p99_itl_ms", "mean_tpot_ms", "p99_e2el_ms", "median_refusal_ms",
           "p99_refusal_ms", "spec_decode_acceptance_length", "errors")


def figures(result):
    return {key: result[key] for key in FIGURES if key in result}


def load_flags(options, output_len):
    return ["--backend", "openai-chat", "--dataset-name", "custom", "--dataset-path", PROMPTS, "--num-prompts",
            str(options.prompts), "--output-len", str(output_len), "--ignore-eos", "--max-concurrency", str(options.clients)]


def check_memory(report, samples, faults):
    report["rss_kb_begin"], report["rss_kb_end"] = samples[0]["rss_kb"], samples[-1]["rss_kb"]
    report["rss_slope_kb_per_minute"] = round(bench.slope_kb_per_minute(samples), 1)
    report["threads"] = sorted({one["threads"] for one in samples})
    report["files_end"] = samples[-1]["files"]
    report["samples"] = samples[:: max(1, len(samples) // 60)]
    # Short runs still fill their buffers; allocators breathe a little in long ones.
    if samples[-1]["s"] >= 240 and report["rss_slope_kb_per_minute"] > 200:
        faults.append("memory grows")


def steady(options):
    report = bench.report_head("steady: streaming clients without a pause")
    faults = []
    with bench.Server("--max-num-seqs", str(options.clients), "--max-model-len", "1024") as server:
        report["command"] = server.shown_command()
        # The memory of KV blocks is the process's only once they are written, and the prefix cache takes new ones first.
        blocks = int(server.label("vllm:cache_config_info", "num_gpu_blocks"))
        bench.bench_serve(server.port, "--input-len", "480", "--output-len", "2", "--num-prompts", str(blocks // 12),
                          "--max-concurrency", str(options.clients))
        bench.bench_serve(server.port, *load_flags(options, 64), "--duration", "5")
        files_before = server.usage()["files"]
        watch = bench.Watch(server)
        result = bench.bench_serve(server.port, *load_flags(options, 128), "--duration", str(options.seconds))
        samples = watch.stop()
        report.update(clients=options.clients, **figures(result))
        report["left"] = server.idle()
        report["files_begin"] = files_before
        check_memory(report, samples, faults)
        report["files_end"] = server.usage()["files"]
    if result["failed"]:
        faults.append("requests failed")
    if any(report["left"].values()):
        faults.append("blocks or requests are left")
    if report["files_end"] > files_before + 2:
        faults.append("open files grow")
    return report, faults


def preempt(options):
    report = bench.report_head("preempt: clients hang up, KV blocks are scarce; survivors equal their solo answers")
    faults = []
    sampled = ["--extra-body", json.dumps({"seed": 11, "temperature": 0.8}), "--return-token-ids", "--save-detailed"]
    with bench.Server("--max-num-seqs", "1", "--max-model-len", "512", drafts=0) as server:
        flags = load_flags(options, 160)
        flags[flags.index("--max-concurrency") + 1] = "1"
        solo = bench.bench_serve(server.port, *flags, *sampled)
    answers = {one["prompt"]: one["token_ids"] for one in solo["requests"] if one["success"]}
    if len(answers) != options.prompts:
        raise SystemExit(f"expected {options.prompts} solo answers, got {len(answers)}")
    with bench.Server("--max-num-seqs", str(options.clients), "--max-model-len", "512",
                      "--kv-cache-gib", str(options.kv_cache_gib)) as server:
        report["command"] = server.shown_command()
        report["kv_blocks"] = int(server.label("vllm:cache_config_info", "num_gpu_blocks"))
        watch = bench.Watch(server)
        result = bench.bench_serve(server.port, *load_flags(options, 160), *sampled, "--abort-rate", "0.25",
                                   "--duration", str(options.seconds))
        samples = watch.stop()
        report["left"] = server.idle()
        report["preemptions"] = server.metric("vllm:num_preemptions_total")
        check_memory(report, samples, faults)
    survivors = [one for one in result["requests"] if one["success"]]
    different = [one["prompt"] for one in survivors if one["token_ids"] != answers[one["prompt"]]]
    report.update(clients=options.clients, solo_answers=len(answers), survivors=len(survivors),
                  different=len(different), **figures(result))
    if different:
        faults.append(f"{len(different)} answers differ from their solo answers: prompts {sorted(set(different))[:10]}")
    if result["failed"]:
        faults.append("requests failed")
    if report["preemptions"] < 10 or result["aborted"] < len(result["requests"]) / 8:
        faults.append("hardly anything was preempted or hung up on: the run shows nothing")
    if any(report["left"].values()):
        faults.append("blocks or requests are left")
    return report, faults


# What is accepted depends on the text, and the two sides draw other prompts: made-up acceptance is the same for both.
SYNTHETIC = bench.speculative_config(4, rejection_sample_method="synthetic", synthetic_acceptance_length=2.76)


def engine_alone(options, count):
    done = subprocess.run([bench.TANDEM, "bench", "throughput", bench.TARGET, "--speculative-config",
                           SYNTHETIC, "--max-num-seqs", str(options.clients), "--max-num-batched-tokens",
                           "2048", "--input-len", "64", "--output-len", "128", "--num-prompts", str(count), "--history",
                           "none", "--output-json", "-"], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def over_http(options, count):
    with bench.Server("--max-num-seqs", str(options.clients), "--max-num-batched-tokens", "2048", "--max-model-len", "194",
                      "--max-num-queued-reqs", str(count), "--speculative-config", SYNTHETIC, drafts=0) as server:
        return bench.bench_serve(server.port, "--input-len", "64", "--output-len", "128", "--num-prompts", str(count),
                                 "--ignore-eos", "--temperature", "0")


def overhead(options):
    report = bench.report_head("overhead: the engine alone and over HTTP, in turn; synthetic acceptance")
    count, alone, served = 4 * options.clients, [], []
    for _ in range(options.rounds):
        alone.append(engine_alone(options, count)["output_tokens_per_second"])
        result = over_http(options, count)
        if result["failed"]:
            return report, ["requests failed"]
        served.append(result["output_throughput"])
    share = 1 - statistics.median(served) / statistics.median(alone)
    report.update(requests=count, clients=options.clients, engine_tokens_per_s=alone, http_tokens_per_s=served,
                  cost_of_http=round(share, 4), last=figures(result))
    return report, ["HTTP costs more than 5 %"] if share > 0.05 else []


def overload(options):
    report = bench.report_head("overload: four times what the server can answer")
    with bench.Server("--max-num-seqs", "8", "--max-model-len", "256", "--max-num-queued-reqs", "16") as server:
        report["command"] = server.shown_command()
        shape = ["--input-len", "64", "--output-len", "64", "--ignore-eos", "--temperature", "0"]
        full = bench.bench_serve(server.port, *shape, "--num-prompts", "200", "--max-concurrency", "8")
        rate = full["request_throughput"]
        result = bench.bench_serve(server.port, *shape, "--num-prompts", str(int(4 * rate * options.seconds)),
                                   "--request-rate", str(4 * rate))
        report["left"] = server.idle()
    report.update(capacity_requests_per_s=rate, offered_requests_per_s=4 * rate,
                  goodput_share=result["request_throughput"] / rate, **figures(result))
    faults = []
    if set(result["statuses"]) - {"200", "429"}:
        faults.append(f"statuses {result['statuses']}")
    if not result.get("refused"):
        faults.append("nothing was refused: the run shows nothing")
    elif result["p99_refusal_ms"] >= 50:
        faults.append("refusals are slow")
    if any(report["left"].values()):
        faults.append("blocks or requests are left")
    return report, faults


def startup(options):
    report = bench.report_head("startup: from the process's start to the first 200 of /health")
    seconds = []
    for _ in range(max(3, options.rounds)):
        with bench.Server() as server:
            seconds.append(round(server.ready_seconds, 3))
    report["seconds"] = seconds
    return report, ["slower than 1 s"] if statistics.median(seconds) >= 1 else []


RUNS = {"steady": steady, "preempt": preempt, "overhead": overhead, "overload": overload, "startup": startup}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", choices=RUNS)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--prompts", type=int, default=200, help="different ones, sent again and again")
    parser.add_argument("--rounds", type=int, default=3, help="of overhead and startup")
    parser.add_argument("--kv-cache-gib", type=float, default=0.021, help="of preempt")
    parser.add_argument("--out", help="default: bench/results/soak-RUN.json")
    options = parser.parse_args()
    report, faults = RUNS[options.run](options)
    report["faults"] = faults
    bench.write(report, options.out or bench.ROOT / "bench" / "results" / f"soak-{options.run}.json")
    print(json.dumps({key: value for key, value in report.items() if key != "samples"}, indent=1))
    sys.exit(f"soak: {options.run}: " + "; ".join(faults) if faults else 0)


if __name__ == "__main__":
    main()
