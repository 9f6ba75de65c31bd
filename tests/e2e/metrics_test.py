"""/metrics against what was asked, the dashboard and alerts against /metrics, the log's lines, the acceptance warning."""

import json
import pathlib
import re
import shutil
import struct
import subprocess
import tempfile
import time

from exposition import parse
from harness import DEMO_ASSISTANT, ROOT, Checks
from serve_harness import MODEL, Server

VLLM = {
    "gauge": "num_requests_running num_requests_waiting kv_cache_usage_perc cache_config_info",
    "counter": "prefix_cache_queries_total prefix_cache_hits_total num_preemptions_total prompt_tokens_total "
               "generation_tokens_total request_success_total spec_decode_num_drafts_total "
               "spec_decode_num_draft_tokens_total spec_decode_num_accepted_tokens_total "
               "spec_decode_num_accepted_tokens_per_pos_total",
    "histogram": "request_prompt_tokens request_generation_tokens request_params_n request_params_max_tokens "
                 "iteration_tokens_total time_to_first_token_seconds inter_token_latency_seconds "
                 "e2e_request_latency_seconds request_queue_time_seconds request_prefill_time_seconds "
                 "request_decode_time_seconds request_inference_time_seconds",
}
OTHERS = {"counter": "http_requests_total process_cpu_seconds_total tandem:request_refused_total "
                     "tandem:acceptance_warnings_total",
          "gauge": "process_resident_memory_bytes process_open_fds process_start_time_seconds tandem:healthy "
                   "tandem:run_info",
          "histogram": "http_request_duration_seconds"}
# Words of PromQL that look like metrics.
PROMQL = {"rate", "increase", "sum", "max", "min", "by", "le", "histogram_quantile", "ignoring", "group_left", "or",
          "label_values"}


def scrape(server):
    return parse(server.request("GET", "/metrics")[2])


def ask(server, number, **more):
    body = {"model": MODEL, "messages": [{"role": "user", "content": f"Count from {number} to {number + 9}."}],
            "max_tokens": 24, "temperature": 0, "ignore_eos": True, "return_draft_info": True, **more}
    return server.json("POST", "/v1/chat/completions", body)[1]


def workload(server):
    """-> usage and draft counts of the answers, summed."""
    answers = [ask(server, i) for i in range(4)] + [ask(server, 9, n=2)]
    choices = [choice for answer in answers for choice in answer["choices"]]
    server.request("POST", "/v1/chat/completions", "{")
    return {"prompt": sum(answer["usage"]["prompt_tokens"] for answer in answers) + answers[-1]["usage"]["prompt_tokens"],
            "output": sum(answer["usage"]["completion_tokens"] for answer in answers),
            "drafted": sum(choice["draft_info"]["num_drafted"] for choice in choices),
            "choices": len(choices), "requests": len(answers)}


def names_and_values(checks, server):
    before, faults = scrape(server)
    checks.equal("before any request: clean", faults, [])
    sums = workload(server)
    after, faults = scrape(server)
    checks.equal("after requests: clean", faults, [])
    for prefix, names in (("vllm:", VLLM), ("", OTHERS)):
        for kind, words in names.items():
            for name in words.split():
                found = after.get(prefix + name)
                checks.equal(f"{prefix}{name}", found and found.type, kind)
                # An alert on a counter that is not there yet misses its first step.
                checks.check(f"{prefix}{name}: there from the start", prefix + name in before and before[prefix + name].samples
                             or name.startswith("http"), name)

    def value(name, suffix="", **labels):
        return after["vllm:" + name].value(suffix, **labels)

    for name, suffix, expected in (("prompt_tokens_total", "", sums["prompt"]), ("generation_tokens_total", "", sums["output"]),
                                   ("spec_decode_num_draft_tokens_total", "", sums["drafted"]),
                                   ("request_prompt_tokens", "_sum", sums["prompt"]),
                                   ("request_generation_tokens", "_sum", sums["output"]),
                                   ("iteration_tokens_total", "_sum", sums["prompt"] + sums["output"]),
                                   ("request_params_n", "_count", sums["requests"]), ("request_params_n", "_sum", 6),
                                   ("request_params_max_tokens", "_sum", 24 * sums["choices"])):
        checks.equal(f"value of {name}{suffix}", value(name, suffix), expected)
    for name in ("time_to_first_token_seconds", "e2e_request_latency_seconds", "request_queue_time_seconds",
                 "request_decode_time_seconds"):
        checks.equal(f"value of {name}_count", value(name, "_count"), sums["choices"])
    checks.equal("ended by length", value("request_success_total", finished_reason="length"), sums["choices"])
    checks.equal("accepted, by place", value("spec_decode_num_accepted_tokens_per_pos_total"),
                 value("spec_decode_num_accepted_tokens_total"))
    checks.check("some were accepted", 0 < value("spec_decode_num_accepted_tokens_total") < sums["drafted"])
    checks.equal("refused", after["tandem:request_refused_total"].value(reason="invalid"), 1)
    checks.equal("healthy", after["tandem:healthy"].value(), 1)
    between = value("inter_token_latency_seconds", "_count")
    checks.check("time between tokens: every token but each first step's", sums["output"] - 5 * sums["choices"] <= between < sums["output"],
                 between)
    resident = int(pathlib.Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * 4096
    shown = after["process_resident_memory_bytes"].value()
    checks.check("resident memory", abs(shown - resident) < 0.2 * resident, (shown, resident))
    started = after["process_start_time_seconds"].value()
    checks.check("start time", abs(time.time() - started) < 300, started)
    for name, family in before.items():
        if family.type == "counter" and family.samples:
            checks.check(f"{name} never falls", family.value() <= after[name].value())
    return after


def used(expression):
    """-> (metrics, labels) that an expression of PromQL names."""
    plain = re.sub(r'"(?:[^"\\]|\\.)*"', '""', re.sub(r"\[[^\]]*\]", "", expression))
    labels = {word for part in re.findall(r"\{([^}]*)\}", plain) for word in re.findall(r"(\w+)\s*[=!]", part)}
    labels |= {word for part in re.findall(r"(?:by|ignoring|on) \(([^)]*)\)", plain) for word in re.findall(r"\w+", part)}
    labels |= {word for part in re.findall(r"ignoring\(([^)]*)\)", plain) for word in re.findall(r"\w+", part)}
    words = set(re.findall(r"[a-zA-Z_:][\w:]*", re.sub(r"\{[^}]*\}|(?:by|ignoring) ?\([^)]*\)", "", plain)))
    return words - PROMQL, labels


def expressions():
    """(where, expression) of the dashboard and the alerts."""
    board = json.loads((ROOT / "deploy" / "grafana" / "tandem.json").read_text(encoding="utf-8"))
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            yield f"dashboard, {panel['title']}", target["expr"]
    for note in board["annotations"]["list"]:
        yield f"dashboard, note {note['name']}", note["expr"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield f"dashboard, variable {variable['name']}", variable["definition"].replace(", " + variable["definition"].split(", ")[-1], ")")
    rules = (ROOT / "deploy" / "prometheus" / "tandem.rules.yml").read_text(encoding="utf-8")
    for number, expression in enumerate(re.findall(r"^ +expr: (.*)$", rules, re.MULTILINE)):
        yield f"alert {number}", expression


def dashboard(checks, families):
    samples = {name: set(dict(labels)) for family in families.values() for name, labels, _ in family.samples}
    everything = list(expressions())
    checks.check("dashboard and alerts: there are expressions", len(everything) > 40, len(everything))
    seen = set()
    for where, expression in everything:
        metrics, labels = used(expression)
        seen |= metrics
        unknown = sorted(name for name in metrics if name not in samples)
        checks.check(f"{where}: metrics exist", metrics and not unknown, (unknown, expression))
        # job and instance come from Prometheus.
        known = set().union({"instance", "job"}, *(samples.get(name, set()) for name in metrics))
        checks.check(f"{where}: labels exist", labels <= known, (labels - known, expression))
    for name in ("vllm:time_to_first_token_seconds_bucket", "vllm:inter_token_latency_seconds_bucket", "tandem:healthy",
                 "vllm:spec_decode_num_accepted_tokens_per_pos_total", "vllm:prefix_cache_hits_total"):
        checks.check(f"dashboard: shows {name}", name in seen)
    board = json.loads((ROOT / "deploy" / "grafana" / "tandem.json").read_text(encoding="utf-8"))
    numbers = [panel["id"] for panel in board["panels"]]
    checks.equal("dashboard: ids are unique", len(set(numbers)), len(numbers))
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in board["panels"]]
    checks.equal("dashboard: no two panels in one place", len(set(places)), len(places))


def promtool(checks, server):
    """Prometheus' own tool, where it is installed: the text, and the syntax of every expression."""
    program = shutil.which("promtool")
    if not program:
        print("promtool is not installed: its rules were checked by exposition.py alone")
        return
    text = server.request("GET", "/metrics")[2]
    done = subprocess.run([program, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line and "should not contain ':'" not in line]
    checks.equal("promtool: nothing but vLLM's names", [line for line in lines if "iteration_tokens_total" not in line], [])
    with tempfile.TemporaryDirectory() as folder:
        rules = [{"record": f"a:{i}", "expr": expression.replace("$__rate_interval", "1m").replace("$__interval", "1m")}
                 for i, (where, expression) in enumerate(expressions()) if "variable" not in where]
        path = pathlib.Path(folder) / "rules.yml"
        path.write_text(json.dumps({"groups": [{"name": "all", "rules": rules}]}))
        done = subprocess.run([program, "check", "rules", str(path)], capture_output=True, text=True, timeout=60)
        checks.equal("promtool: every expression is PromQL", done.returncode, 0)


def log_lines(checks, server):
    """The two lines of every 10 seconds, in vLLM's words, with numbers that fit each other."""
    end = time.monotonic() + 30
    number = 0
    while time.monotonic() < end and not any("SpecDecoding metrics" in line for line in server.lines):
        ask(server, number := number + 1)
    text = "".join(server.lines)
    checks.check("log: throughput", re.search(
        r"Avg prompt throughput: [\d.]+ tokens/s, Avg generation throughput: [\d.]+ tokens/s, Running: \d+ reqs, "
        r"Waiting: \d+ reqs, .*KV cache usage: [\d.]+%, Prefix cache hit rate: [\d.]+%", text), text)
    found = re.search(r"SpecDecoding metrics: Mean acceptance length: ([\d.]+), Accepted throughput: [\d.]+ tokens/s, "
                      r"Drafted throughput: [\d.]+ tokens/s, Accepted: (\d+) tokens, Drafted: (\d+) tokens, "
                      r"Per-position acceptance rate: ([\d., ]+), Avg Draft acceptance rate: ([\d.]+)%", text)
    if not checks.check("log: speculation", found, text):
        return
    accepted, drafted = int(found.group(2)), int(found.group(3))
    rates = [float(rate) for rate in found.group(4).split(", ")]
    checks.check("log: the rate is accepted / drafted", abs(float(found.group(5)) - 100 * accepted / drafted) < 0.06)
    checks.check("log: the length is 1 + the sum over places", abs(float(found.group(1)) - 1 - sum(rates)) < 0.01, found.group(0))


def empty_assistant(folder):
    """The demo assistant with zeros for weights: it drafts the same token for ever."""
    shutil.copytree(DEMO_ASSISTANT, folder)
    path = next(folder.glob("*.safetensors"))
    data = path.read_bytes()
    begin = 8 + struct.unpack("<Q", data[:8])[0]
    path.write_bytes(data[:begin] + bytes(len(data) - begin))
    return folder


def acceptance_warning(checks):
    with tempfile.TemporaryDirectory() as scratch:
        folder = empty_assistant(pathlib.Path(scratch) / "assistant")
        config = json.dumps({"model": str(folder), "num_speculative_tokens": 4})
        with Server("--speculative-config", config) as server:
            checks.equal("warning: none yet", scrape(server)[0]["tandem:acceptance_warnings_total"].value(), 0)
            for number in range(20):
                if ask(server, number, max_tokens=60) and scrape(server)[0]["tandem:acceptance_warnings_total"].value() > 0:
                    break
            families, _ = scrape(server)
            checks.equal("warning: counted", families["tandem:acceptance_warnings_total"].value(), 1)
            drafts = families["vllm:spec_decode_num_drafts_total"].value()
            checks.check("warning: after 200 rounds", 200 <= drafts < 300, drafts)
            text = "".join(server.lines)
            checks.check("warning: in the log, with what to do", "the target accepted the first drafted token in" in text
                         and "tandem inspect" in text, text[-800:])


def main():
    checks = Checks()
    with Server() as server:
        families = names_and_values(checks, server)
        dashboard(checks, families)
        promtool(checks, server)
        log_lines(checks, server)
        checks.equal("SIGTERM: exit status", server.stop(), 0)
    acceptance_warning(checks)
    checks.finish()


if __name__ == "__main__":
    main()
