#!/usr/bin/env python3
"""The server under 1, 8, 32 and 64 clients beside the engine alone with the same load: tokens/s, times, the cost of HTTP.

usage: bench/soak/serve_load.py [--device cuda|cpu] [--target DIR --assistant DIR] [--layers N] [--clients 1,8]
                                [--drafts K|auto] [--out FILE]

The pair is one of bench/configs with random weights, the demo pair's tokenizer and made-up acceptance, so what is asked
are token ids. Every load runs twice, in the server and in the engine, and the second one counts: graphs are recorded in the
first. A third load of the server samples as Gemma's own defaults do (top-k 64, top-p 0.95), and --asked adds others. Closed
loop: a client sends the next prompt when it has its answer. Needs the built program alone (TANDEM, or build/release/tandem).
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import server as bench

FIGURES = ("duration", "completed", "failed", "output_throughput", "request_throughput", "mean_ttft_ms", "median_ttft_ms",
           "p90_ttft_ms", "p99_ttft_ms", "mean_itl_ms", "median_itl_ms", "p90_itl_ms", "p99_itl_ms", "mean_tpot_ms",
           "median_tpot_ms", "p99_tpot_ms", "p99_e2el_ms", "spec_decode_acceptance_length", "acceptance", "weights")
CONFIGS = bench.ROOT / "bench" / "configs"
RATES = (0.74, 0.50, 0.31, 0.21)  # of the places of a draft, where auto chooses how long it is: 2.76 with four


def make_target(configs, folder):
    """The configs, and the demo pair's tokenizer with as many tokens as they have: one without text would be no part of a
    streamed answer, and the time between parts that of several rounds."""
    for path in pathlib.Path(configs).iterdir():
        shutil.copy(path, folder)
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(pathlib.Path(bench.TARGET) / name, folder)
    config = json.loads((pathlib.Path(configs) / "config.json").read_text())
    tokenizer = json.loads((pathlib.Path(bench.TARGET) / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    taken = set(vocab.values()) | {token["id"] for token in tokenizer["added_tokens"]}
    vocab.update({f"\u2581t{i}": i for i in range(config.get("text_config", config)["vocab_size"]) if i not in taken})
    (pathlib.Path(folder) / "tokenizer.json").write_text(json.dumps(tokenizer))
    return str(folder)


def acceptance(options):
    if options.drafts == "auto":
        return {"synthetic_acceptance_rates": RATES}
    return {"synthetic_acceptance_length": options.length} if options.drafts else {}


def model_flags(options):
    speculative = {"model": options.assistant, "num_speculative_tokens": options.drafts}
    if options.drafts:
        speculative.update(rejection_sample_method="synthetic", **acceptance(options))
    flags = ["--load-format", "dummy", "--device", options.device, "--max-num-batched-tokens", str(options.batched_tokens),
             "--max-model-len", str(options.input_len + options.output_len + 2), "--no-enable-prefix-caching",
             "--speculative-config", json.dumps(speculative)]
    if options.layers:
        flags += ["--hf-overrides", json.dumps({"num_hidden_layers": options.layers})]
    if options.kv_cache_gib:
        flags += ["--kv-cache-gib", str(options.kv_cache_gib)]
    return flags


def load_flags(options, clients):
    return ["--num-prompts", str(max(options.rounds * clients, 4)), "--input-len", str(options.input_len), "--output-len",
            str(options.output_len)]


GREEDY = ["--ignore-eos", "--temperature", "0"]


def asking(temperature, **extra):
    # A grammar ends when it ends.
    endless = [] if "structured_outputs" in extra else ["--ignore-eos"]
    return endless + ["--temperature", str(temperature), "--extra-body", json.dumps(extra)]


SAMPLED = asking(1, top_k=64, top_p=0.95)
# What else requests may ask; with random weights a grammar's tokens are never the likely ones, and drafts never fit it.
ASKED = {"logprobs": asking(0, logprobs=5),
         "sampled-logprobs": asking(1, top_k=64, top_p=0.95, logprobs=5),
         "penalties": asking(1, top_k=64, top_p=0.95, presence_penalty=0.5, frequency_penalty=0.5),
         "bias": asking(0, logit_bias={"500": 2, "501": -100}),
         "json": asking(0, structured_outputs={"json": {"type": "array", "items": {"type": "integer"}, "minItems": 500}}),
         "regex": asking(0, structured_outputs={"regex": "[a-z ]+!"}),
         "no-top-k": asking(1, top_k=-1, top_p=0.95),
         "temperature-alone": asking(1, top_k=-1, top_p=1)}


def over_http(options, target):
    """The reports of the server, by number of clients."""
    reports = {}
    most = max(options.clients)
    with bench.Server(*model_flags(options), "--max-num-seqs", str(most), drafts=0, target=target) as server:
        def load(clients, sampling):
            return bench.bench_serve(server.port, *load_flags(options, clients), *sampling,
                                     "--max-concurrency", str(clients), "--metric-percentiles", "50,90,99")

        ready = server.ready_seconds
        for clients in options.clients:
            load(clients, GREEDY)
            reports[clients] = load(clients, GREEDY)
            reports[clients]["sampled"] = load(clients, SAMPLED)
            reports[clients]["asked"] = {}
            for name in options.asked:
                report = load(clients, ASKED[name])
                reports[clients]["asked"][name] = {key: report[key] for key in FIGURES if key in report}
                print("{:3} clients, {}: {:.1f} tokens/s, ITL median {:.2f} ms, {} failed".format(
                    clients, name, report["output_throughput"], report["median_itl_ms"], report["failed"]), flush=True)
    return ready, reports


def engine_alone(options, target, clients):
    done = subprocess.run([bench.TANDEM, "bench", "throughput", target, *model_flags(options), "--max-num-seqs", str(clients),
                           *load_flags(options, clients), "--num-iters-warmup", "1", "--history", "none", "--output-json", "-"],
                          capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def measure(options):
    report = bench.report_head("the server under load and the engine alone; random weights, synthetic acceptance")
    report.update(target=pathlib.Path(options.target).name, assistant=pathlib.Path(options.assistant).name,
                  num_speculative_tokens=options.drafts, **acceptance(options), input_len=options.input_len,
                  output_len=options.output_len, layers=options.layers or "all", loads=[])
    faults = []
    with tempfile.TemporaryDirectory() as folder:
        target = make_target(options.target, folder)
        report["ready_s"], served = over_http(options, target)
        for clients in options.clients:
            alone = engine_alone(options, target, clients)
            report["device"] = alone["device"]
            http = served[clients]
            cost = 1 - http["output_throughput"] / alone["output_tokens_per_second"]
            report["loads"].append({"clients": clients, "engine_tokens_per_s": alone["output_tokens_per_second"],
                                    "engine_mean_step_ms": alone["mean_step_ms"], "cost_of_http": round(cost, 4),
                                    "sampled_tokens_per_s": http["sampled"]["output_throughput"],
                                    "asked": http["asked"],
                                    **{key: http[key] for key in FIGURES if key in http}})
            print("{:3} clients: {:8.1f} tokens/s, sampled {:8.1f}, engine alone {:8.1f}, HTTP costs {:5.1f} %; TTFT median "
                  "{:.1f} p99 {:.1f} ms; ITL median {:.2f} p99 {:.2f} ms".format(
                      clients, http["output_throughput"], http["sampled"]["output_throughput"],
                      alone["output_tokens_per_second"], 100 * cost, http["median_ttft_ms"],
                      http["p99_ttft_ms"], http["median_itl_ms"], http["p99_itl_ms"]), flush=True)
            if http["failed"] or not http["completed"]:
                faults.append(f"{clients} clients: {http['failed']} requests failed: {http.get('errors')}")
            if cost > options.most_cost:
                faults.append(f"{clients} clients: HTTP costs {100 * cost:.1f} %, more than {100 * options.most_cost:.0f} %")
    return report, faults


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--target", default=str(CONFIGS / "gemma-4-12B-it-fp8"))
    parser.add_argument("--assistant", default=str(CONFIGS / "gemma-4-12B-it-assistant-fp8"))
    parser.add_argument("--layers", type=int, default=0, help="of the target; 0: all")
    parser.add_argument("--clients", default="1,8,32,64", type=lambda text: [int(one) for one in text.split(",")])
    parser.add_argument("--asked", default="", type=lambda text: [one for one in text.split(",") if one],
                        help="more loads, of " + ", ".join(ASKED))
    parser.add_argument("--rounds", type=int, default=2, help="prompts for each client")
    parser.add_argument("--drafts", type=lambda text: text if text == "auto" else int(text), default=4)
    parser.add_argument("--length", type=float, default=2.76, help="mean acceptance length that is made up")
    parser.add_argument("--input-len", type=int, default=512)
    parser.add_argument("--output-len", type=int, default=128)
    parser.add_argument("--batched-tokens", type=int, default=2048)
    parser.add_argument("--kv-cache-gib", type=float, default=0, help="0: as the program has it")
    parser.add_argument("--most-cost", type=float, default=0.03, help="of HTTP; more is a fault")
    parser.add_argument("--out", default=str(bench.ROOT / "bench" / "results" / "serve-load.json"))
    options = parser.parse_args()
    report, faults = measure(options)
    report["faults"] = faults
    bench.write(report, options.out)
    sys.exit("serve_load: " + "; ".join(faults) if faults else 0)


if __name__ == "__main__":
    main()
