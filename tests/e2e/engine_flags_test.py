"""The engine's flags: drafts that are drawn, prefix cache, priorities, K chosen by the engine, FP8 KV cache, memory that is too small."""

import json
import threading
import time

from harness import DEMO_ASSISTANT, DEMO_TARGET, Checks, speculative, tandem
from serve_harness import MODEL, Server

SYSTEM = "You answer in one short sentence. You like trains, boats and long walks, and you never shout at anybody. " * 3


def ask(server, question, **more):
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
    body = {"model": MODEL, "messages": messages, "max_tokens": 24, "temperature": 0, "ignore_eos": True} | more
    status, reply = server.json("POST", "/v1/chat/completions", body)
    return status, reply


def answer(server, question, **more):
    """-> (text, cached tokens or None)"""
    status, reply = ask(server, question, **more)
    if status != 200:
        raise RuntimeError(f"{status}: {reply}")
    cached = reply["usage"].get("prompt_tokens_details", {}).get("cached_tokens")
    return reply["choices"][0]["message"]["content"], cached


def prefix_cache(checks):
    questions = ["Count from 3 to 8.", "Name a colour.", "Name a fruit.", "Count from 3 to 8."]
    with Server("--no-enable-prefix-caching") as server:
        plain = [answer(server, question) for question in questions]
        checks.check("off: usage says nothing of it", all(cached is None for _, cached in plain), plain)
        checks.equal("off: nothing is looked up", server.metric("vllm:prefix_cache_queries_total"), 0)
        server.stop()
    for drafts in (0, 4, "auto"):
        with Server("--enable-prompt-tokens-details", drafts=drafts) as server:
            shown = "".join(server.lines)
            checks.check(f"K {drafts}: the start tells of snapshots", "prefix cache: on" in shown, shown)
            got = [answer(server, question) for question in questions]
            checks.equal(f"K {drafts}: the answers are those without a cache", [text for text, _ in got], [t for t, _ in plain])
            cached = [count for _, count in got]
            checks.equal(f"K {drafts}: the first finds nothing", cached[0], 0)
            checks.check(f"K {drafts}: the third starts behind what all have", cached[2] > 32 and cached[2] % 32 == 0, cached)
            checks.check(f"K {drafts}: the repeated one computes its end alone", cached[3] >= cached[2], cached)
            checks.equal(f"K {drafts}: another salt finds nothing", answer(server, questions[0], cache_salt="x")[1], 0)
            checks.check(f"K {drafts}: the same salt does", answer(server, questions[0], cache_salt="x")[1] > 32)
            hits, queries = (server.metric(f"vllm:prefix_cache_{name}_total") for name in ("hits", "queries"))
            checks.check(f"K {drafts}: metrics count hits", sum(cached) < hits < queries, (cached, hits, queries))
            checks.check(f"K {drafts}: nothing is held at the end", server.wait_idle())
            checks.equal(f"K {drafts}: an empty salt is refused", ask(server, questions[0], cache_salt="")[0], 400)
            server.stop()


def priorities(checks):
    with Server() as server:
        status, reply = ask(server, "Hello", priority=1)
        checks.check("fcfs: a priority is refused by name", status == 400 and reply["error"]["param"] == "priority", reply)
        server.stop()
    with Server("--scheduling-policy", "priority", "--max-num-seqs", 1) as server:
        alone = answer(server, "Hello")[0]
        order, texts = [], {}

        def run(name, priority, tokens):
            texts[name] = answer(server, "Hello", priority=priority, max_tokens=tokens)[0]
            order.append(name)

        first = threading.Thread(target=run, args=("low", 5, 400))
        first.start()
        while server.metric("vllm:num_requests_running") != 1:
            time.sleep(0.01)
        second = threading.Thread(target=run, args=("high", -5, 24))
        second.start()
        first.join()
        second.join()
        checks.equal("priority: the higher one is done first", order, ["high", "low"])
        checks.equal("priority: its text is the same", texts["high"], alone)
        checks.check("priority: the lower one's text begins the same", texts["low"].startswith(alone[:20]), texts)
        checks.equal("priority: one was preempted", server.metric("vllm:num_preemptions_total"), 1)
        server.stop()


def memory(checks):
    pair = [DEMO_TARGET, *speculative(DEMO_ASSISTANT, 4)]
    checks.refused("FP8 KV cache without scales", tandem("serve", *pair, "--kv-cache-dtype", "fp8"), "k_scale")
    checks.refused("an unknown KV type", tandem("serve", *pair, "--kv-cache-dtype", "int4"), "--kv-cache-dtype")
    code, out, err = tandem("serve", *pair, "--kv-cache-gib", 0.0001)
    checks.check("a cache for nobody: both numbers, before a weight is read",
                 code == 1 and out == "" and "KV cache: expected at least" in err and "loading" not in err, (code, out, err))
    with Server("--kv-cache-gib", 0.003, "--max-num-seqs", 64, max_model_len=128) as server:
        log = "".join(server.lines)
        checks.check("few rings: a warning with numbers", "--max-num-seqs 64: " in log and "would do" in log, log)
        server.stop()


def drawn_drafts(checks):
    def generate(method):
        config = speculative(DEMO_ASSISTANT, 4, draft_sample_method=method)
        code, out, err = tandem("generate", DEMO_TARGET, "--device", "cpu", *config, "--prompt", "Write a letter to a friend about a walk.",
                                "--temperature", 1, "--top-k", 64, "--top-p", 0.95, "--seed", 5, "--max-tokens", 200,
                                "--ignore-eos", "--json")
        if code != 0:
            checks.check(f"drafts {method}: an answer", False, err)
            return {}, {}
        answer = json.loads(out)
        return answer["token_ids"], answer["spec"]

    greedy, greedy_counts = generate("greedy")
    drawn, drawn_counts = generate("probabilistic")
    checks.check("drawn drafts: the text is the same", len(greedy) == 200 and drawn == greedy, (greedy, drawn))
    checks.check("drawn drafts: they are others", drawn_counts != greedy_counts, drawn_counts)


def main():
    checks = Checks()
    drawn_drafts(checks)
    prefix_cache(checks)
    priorities(checks)
    memory(checks)
    checks.finish()


if __name__ == "__main__":
    main()
