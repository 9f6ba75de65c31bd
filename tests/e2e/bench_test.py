"""tandem bench: each benchmark end to end on the demo pair and on dummy weights, the client against a server, history."""

import http.server
import json
import pathlib
import signal
import socketserver
import subprocess
import tempfile
import threading
import time

from harness import DEMO_ASSISTANT, DEMO_TARGET, ROOT, TANDEM, Checks, speculative, tandem
from serve_harness import Server

FP8 = ROOT / "bench" / "configs" / "gemma-4-12B-it-fp8"
SYNTHETIC = {"rejection_sample_method": "synthetic", "synthetic_acceptance_length": 2.76}
QUICK = ["--min-calls", 2, "--min-seconds", 0]


def run(checks, name, *arguments, history="none"):
    """The report of a benchmark that must succeed."""
    status, out, err = tandem("bench", *arguments, "--history", history, "--output-json", "-")
    if not checks.equal(f"{name}: exit {err[-400:]}", status, 0):
        return {}
    return json.loads(out)


def test_engine(checks):
    latency = run(checks, "latency", "latency", DEMO_TARGET, *speculative(DEMO_ASSISTANT, 4), "--batch-size", 2,
                  "--input-len", 20, "--output-len", 30, "--num-iters-warmup", 1, "--num-iters", 3)
    checks.equal("latency: iterations", len(latency["latencies"]), 3)
    checks.check("latency: percentiles lie between", min(latency["latencies"]) <= latency["percentiles"]["50"]
                 <= max(latency["latencies"]), latency)
    checks.check("latency: the first token comes before the last", 0 < latency["median_ttft"] < latency["avg_latency"])
    checks.check("latency: real acceptance is not called synthetic", "acceptance" not in latency)
    checks.check("latency: a roofline of what each round reads", 0 < latency["share_of_roofline"])
    ranges = run(checks, "ranges", "latency", DEMO_TARGET, "--batch-size", 2, "--output-len", 4, "--num-iters", 1,
                 *speculative(DEMO_ASSISTANT, 4, num_speculative_tokens_per_batch_size=[[1, 1, 4], [2, 8, 0]]))
    checks.check("latency: none where rounds differ in drafts", "share_of_roofline" not in ranges, ranges)
    throughput = run(checks, "throughput", "throughput", DEMO_TARGET, "--num-prompts", 5, "--input-len", 16,
                     "--output-len", 9, "--random-range-ratio", 0, "--num-iters-warmup", 1)
    checks.equal("throughput: tokens", (throughput["total_input_tokens"], throughput["total_output_tokens"]), (80, 45))
    checks.check("throughput: rate", abs(throughput["tokens_per_second"] * throughput["elapsed_time"] - 125) < 1e-6)


def test_synthetic(checks):
    """Made-up acceptance has the mean it is asked for, and every report says what it is."""
    report = run(checks, "synthetic", "throughput", DEMO_TARGET, "--load-format", "dummy",
                 *speculative(DEMO_ASSISTANT, 4, **SYNTHETIC), "--num-prompts", 8, "--input-len", 8, "--output-len", 250)
    checks.equal("synthetic: said", (report["acceptance"], report["model"]["weights"]), ("synthetic", "dummy"))
    length = report["speculation"]["mean_acceptance_length"]
    # 724 rounds of variance 0.18 deviate by 0.016; the cut of the last round adds some.
    checks.check("synthetic: mean length", abs(length - 2.76) < 0.1, length)
    checks.equal("synthetic: first position", report["speculation"]["acceptance_per_position"][0], 1.0)
    status, out, _ = tandem("bench", "latency", DEMO_TARGET, "--load-format", "dummy", "--history", "none",
                            *speculative(DEMO_ASSISTANT, 4, **SYNTHETIC), "--batch-size", 1, "--output-len", 8,
                            "--num-iters-warmup", 0, "--num-iters", 1)
    checks.check("synthetic: in the table", status == 0 and "synthetic acceptance, dummy weights" in out, out)


def test_step_and_ops(checks):
    step = run(checks, "step", "step", DEMO_TARGET, "--device", "cpu", "--load-format", "dummy",
               *speculative(DEMO_ASSISTANT, 2, rejection_sample_method="synthetic", synthetic_acceptance_length=2.0),
               "--context", 100, "--max-rows", 4, "--prefill-tokens", 32, *QUICK)["step"]
    checks.equal("step: rows", [one["rows"] for one in step["verify"]], [1, 2, 3, 4])
    checks.equal("step: rounds", [one["num_draft_tokens"] for one in step["rounds"]], [0, 1, 2])
    # A mean length of 2.0 with two drafts is one certain draft: rounds with K = 1 have it too.
    checks.equal("step: lengths", [one["mean_length"] for one in step["rounds"]], [1, 2, 2])
    body = step["bytes"]["target_body"] + step["bytes"]["target_head"] + step["bytes"]["target_kv"]
    checks.equal("step: bytes of a verify", step["verify"][0]["bytes"], body)
    checks.check("step: shares", all(0 < one["share_of_roofline"] for one in step["verify"] + step["rounds"]))
    # The cache that would serve, refused as there where the checkpoint has no scales.
    checks.refused("step: an FP8 cache without scales", tandem("bench", "step", DEMO_TARGET, "--kv-cache-dtype", "fp8", "--history", "none", *QUICK),
                   "k_scale", "--kv-cache-dtype bfloat16")
    checks.refused("step: a prompt that no request can have", tandem("bench", "step", DEMO_TARGET, "--device", "cpu", "--prefill-tokens", 4097,
                                                                    "--history", "none", *QUICK),
                   "--prefill-tokens", "at most 4096")
    ops = run(checks, "ops", "ops", FP8, "--rows", "1,2", "--only", "o", "--hf-overrides", '{"num_hidden_layers": 6}',
              *QUICK)["ops"]
    checks.equal("ops: names", [(one["name"], one["rows"], one["format"]) for one in ops],
                 [("sliding o", 1, "fp8"), ("sliding o", 2, "fp8"), ("down", 1, "fp8"), ("down", 2, "fp8"),
                  ("full o", 1, "fp8"), ("full o", 2, "fp8")])
    checks.equal("ops: shape", (ops[2]["in"], ops[2]["out"], ops[2]["num_in_model"]), (15360, 3840, 6))


def test_dummy_pair(checks):
    """The 12B pair's shapes, cut to nothing in width: FP8 where its config says so, and a text comes out."""
    overrides = {"num_hidden_layers": 6, "hidden_size": 64, "intermediate_size": 96}
    with tempfile.TemporaryDirectory() as folder:
        ids = pathlib.Path(folder) / "ids.json"
        ids.write_text("[300, 301, 302]")
        arguments = ["generate", FP8, "--load-format", "dummy", "--hf-overrides", json.dumps(overrides),
                     "--token-ids", ids, "--max-tokens", 12, "--temperature", 0, "--json"]
        status, out, err = tandem(*arguments)
        checks.equal(f"dummy: generates {err}", status, 0)
        again = tandem(*arguments)[1]
        checks.equal("dummy: the same weights each time", json.loads(again)["token_ids"], json.loads(out)["token_ids"])


def test_serve(checks, folder):
    history = str(pathlib.Path(folder) / "deep" / "history.sqlite")
    with Server("--max-num-seqs", 4, "--max-num-queued-reqs", 3) as server:
        shape = ["serve", "--port", server.port, "--input-len", 12, "--output-len", 10, "--ignore-eos", "--temperature", 0]
        closed = run(checks, "serve", *shape, "--num-prompts", 12, "--max-concurrency", 4, "--num-warmups", 2,
                     "--save-detailed", "--return-token-ids", "--label", "closed", history=history)
        checks.equal("serve: all answered", (closed["completed"], closed["failed"]), (12, 0))
        checks.equal("serve: tokens as the server counts",
                     (closed["total_input_tokens"], closed["total_output_tokens"]), (144, 120))
        checks.equal("serve: token ids", [len(one["token_ids"]) for one in closed["requests"]], [10] * 12)
        checks.equal("serve: at most so many at once", closed["max_concurrent_requests"], 4)
        checks.check("serve: times are in order", all(0 < one["ttft"] <= one["latency"] for one in closed["requests"]))
        checks.check("serve: acceptance from /metrics", 1 <= closed["spec_decode_acceptance_length"] <= 5, closed)
        checks.equal("serve: drafts per position",
                     len(closed["spec_decode_per_position_acceptance_rates"]), 4)
        opened = run(checks, "open loop", *shape, "--num-prompts", 10, "--request-rate", 20, "--label", "open", history=history)
        starts = opened["duration"]
        checks.check("open loop: lasts as long as the arrivals", starts >= 0.5, starts)
        chat = run(checks, "chat", "serve", "--port", server.port, "--backend", "openai-chat", "--dataset-name", "custom",
                   "--dataset-path", ROOT / "demo" / "prompts" / "tasks.jsonl", "--num-prompts", 5, "--output-len", 20,
                   "--max-concurrency", 2)
        checks.equal("chat: all answered", chat["completed"], 5)
        random_chat = run(checks, "random chat", *shape, "--backend", "openai-chat", "--num-prompts", 2, "--max-concurrency", 1)
        checks.equal("random chat: answered", random_chat["completed"], 2)
        flood = run(checks, "flood", *shape, "--num-prompts", 40)
        checks.equal("flood: answered or refused", set(flood["statuses"]) - {"200", "429"}, set())
        checks.check("flood: refusals are counted", flood["refused"] > 0 and flood["p99_refusal_ms"] > 0, flood["statuses"])
        aborted = run(checks, "hang up", *shape, "--num-prompts", 20, "--max-concurrency", 4,
                      "--abort-rate", 1)
        # A short answer may end before the part at which its client would have hung up, and a new client may
        # find the seat of one that has just left still taken.
        checks.check("hang up: some", aborted["aborted"] > 0, aborted["aborted"])
        checks.equal("hang up: the others answered or refused",
                     aborted["aborted"] + aborted["completed"] + aborted.get("refused", 0), 20)
        timed = run(checks, "duration", *shape, "--num-prompts", 2, "--max-concurrency", 2, "--duration", 2)
        checks.check("duration: prompts come again", timed["completed"] > 2 and timed["duration"] >= 2, timed["completed"])
        stopped = subprocess.Popen([TANDEM, "bench", *map(str, shape), "--num-prompts", "1000", "--request-rate", "20",
                                    "--history", history, "--output-json", "-"], stdout=subprocess.PIPE, text=True)
        time.sleep(1)
        stopped.send_signal(signal.SIGINT)
        report = json.loads(stopped.communicate(timeout=30)[0])
        checks.equal("Ctrl-C: said, and not kept (test_history counts)", (stopped.returncode, report["interrupted"]), (130, True))
    return history


def test_synthetic_server(checks):
    """The server says what it is, and the client repeats it."""
    with Server("--load-format", "dummy", *speculative(DEMO_ASSISTANT, 4, **SYNTHETIC)) as server:
        arguments = ["serve", "--port", server.port, "--input-len", 8, "--output-len", 120, "--ignore-eos",
                     "--num-prompts", 8, "--max-concurrency", 4]
        report = run(checks, "synthetic server", *arguments)
        checks.equal("synthetic server: said", (report.get("acceptance"), report.get("weights")), ("synthetic", "dummy"))
        length = report["spec_decode_acceptance_length"]
        checks.check("synthetic server: mean length", abs(length - 2.76) < 0.15, length)
        out = tandem("bench", *arguments, "--history", "none")[1]
        checks.check("synthetic server: in the table", "Speculative Decoding (synthetic)" in out and "dummy" in out, out)


def test_history(checks, history):
    status, out, _ = tandem("bench", "history", "--history", history)
    rows = out.splitlines()
    checks.check("history: both runs, newest first", status == 0 and len(rows) == 3 and "open" in rows[1] and "closed" in rows[2], out)
    status, out, _ = tandem("bench", "history", "--history", history, "--label", "closed")
    checks.equal("history: filtered", len(out.splitlines()), 2)
    status, out, _ = tandem("bench", "history", "--history", history, "--compare", 1, 2)
    checks.check("history: compared", status == 0 and "output_throughput" in out and "ratio" in out, out)
    status, out, _ = tandem("bench", "history", "--history", history, "--show", 1)
    checks.equal("history: shown", json.loads(out)["label"], "closed")
    other = str(pathlib.Path(history).with_name("other.sqlite"))
    run(checks, "label", "ops", FP8, "--only", "full o", "--rows", 1, "--label", "\x1b[31mred", *QUICK, history=other)
    _, out, _ = tandem("bench", "history", "--history", other)
    checks.check("history: a label is no command for the terminal", "red" in out and "\x1b" not in out, out)
    checks.refused("history: no such run", tandem("bench", "history", "--history", history, "--show", 9), "9")
    checks.refused("history: no such file", tandem("bench", "history", "--history", "/nowhere/h.sqlite"), "/nowhere/h.sqlite")


class Broken(http.server.BaseHTTPRequestHandler):
    """A server that promises a stream and breaks off."""

    def log_message(self, *unused):
        pass

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(b'data: {"choices": [{"text": "a"}]}\n\n')


def test_broken_server(checks):
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Broken) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        status, out, err = tandem("bench", "serve", "--port", server.server_address[1], "--model", "x", "--num-prompts", 3,
                                  "--history", "none", "--output-json", "-")
        checks.equal("broken: exit", status, 1)
        report = json.loads(out)
        checks.equal("broken: nothing succeeded", (report["completed"], report["failed"]), (0, 3))
        checks.check("broken: said why", "without [DONE]" in str(report["errors"]), report["errors"])
        server.shutdown()


def test_refusals(checks):
    checks.refused("no command", tandem("bench"), "bench")
    checks.refused("unknown flag", tandem("bench", "latency", DEMO_TARGET, "--batch-sise", 3), "--batch-sise", "--batch-size",
                   "tandem bench latency --help")
    checks.refused("rate", tandem("bench", "serve", "--request-rate", "fast"), "--request-rate", "fast")
    checks.refused("dataset", tandem("bench", "serve", "--dataset-name", "custom"), "--dataset-path")
    checks.refused("https", tandem("bench", "serve", "--base-url", "https://x"), "TLS")
    checks.refused("nobody there", tandem("bench", "serve", "--port", 1, "--ready-check-timeout-sec", 0), "127.0.0.1:1")
    checks.refused("device", tandem("bench", "ops", FP8, "--device", "tpu"), "--device", "tpu")
    checks.refused("loads on a CPU", tandem("bench", "step", DEMO_TARGET, "--device", "cpu", "--loads", "8x64"), "--loads", "GPU")
    checks.refused("the clock of no loads", tandem("bench", "step", DEMO_TARGET, "--loads-on-device-clock"),
                   "--loads-on-device-clock: expected --loads with it")
    checks.refused("metadata", tandem("bench", "ops", FP8, "--metadata", "x"), "KEY=VALUE")
    checks.refused("metadata of the report's own", tandem("bench", "ops", FP8, "--metadata", "benchmark=serve", "--history", "none"),
                   "--metadata", "benchmark")
    for limit in ("ttft:", "tpot:-5", "e2el:nan", "itl:5"):
        checks.refused(f"goodput {limit}", tandem("bench", "serve", "--goodput", limit), "--goodput", limit)
    checks.refused("a header with a blank", tandem("bench", "serve", "--header", "X Y=1"), "--header")
    checks.refused("half a comparison", tandem("bench", "history", "--compare", 1), "--compare: expected 2 values, got 1")
    checks.refused("overrides", tandem("bench", "ops", FP8, "--hf-overrides", "[1]"), "--hf-overrides")
    checks.refused("only", tandem("bench", "ops", FP8, "--only", "nothing", "--history", "none"), "--only")


def main():
    checks = Checks()
    test_engine(checks)
    test_synthetic(checks)
    test_step_and_ops(checks)
    test_dummy_pair(checks)
    with tempfile.TemporaryDirectory() as folder:
        test_history(checks, test_serve(checks, folder))
    test_synthetic_server(checks)
    test_broken_server(checks)
    test_refusals(checks)
    checks.finish()


if __name__ == "__main__":
    main()
