"""The flags of `tandem serve`: those that users of vLLM bring along, and those that are refused by name."""

import os

from harness import DEMO_ASSISTANT, DEMO_TARGET, Checks, speculative, tandem
from serve_harness import Server

QUESTION = [{"role": "user", "content": "What is a lighthouse?"}]
REFUSED = [
    (("--ssl-keyfile", "x"), "reverse proxy"), (("--ssl-certfile=x",), "--ssl-certfile"), (("--enable-ssl-refresh",), "reverse proxy"),
    (("-tp", 2), "--tensor-parallel-size"), (("--tensor-paralel-size", 1), "--tensor-parallel-size"),
    (("--no-enable-chunked-prefill",), "cannot be switched off"), (("--enable-chunked-prefill=false",), "cannot be switched off"),
    (("--async-scheduling=maybe",), "--async-scheduling: expected true or false, got maybe"),
    (("--tensor-parallel-size",), "--tensor-parallel-size: expected a value, got none"), (("--model", "x"), "tandem serve DIR"),
    (("--spec-tokens", 2), "num_speculative_tokens"), (("--spec-method", "eagle"), "method: expected"),
    (("--kv-cache-memory-bytes", 1), "--kv-cache-gib"), (("--max-num-seq", 2), "--max-num-seqs"),
    (("--max-model-len", "8x"), "--max-model-len"), (("--max-num-batched-tokens", "1x"), "--max-num-batched-tokens"),
    (("--root-path", "tandem"), "--root-path"), (("--root-path", "/a/"), "--root-path"),
    (("--limit-mm-per-prompt", '{"image": 1}'), "image"), (("--quantization", "modelopt"), "none"),
    (("--speculative-config.mdel", "x"), "mdel"), (("--speculative-config.model",), "--speculative-config"),
    (("--speculative-config.model.name", "x"), "--speculative-config"), (("--seed.x", 1), "--seed"),
    (("--default-chat-template-kwargs", '{"messages": 1}'), "--default-chat-template-kwargs: expected no field 'messages'"),
    (("--default-chat-template-kwargs.tools", "[]"), "'tools'"), (("--default-chat-template-kwargs", "[]"), "expected a JSON object"),
    (("--override-generation-config", '{"top_k": "x"}'), "top_k: expected"),
    (("--override-generation-config", '{"stop": 1}'), '"stop"'),
]


# What users of vLLM pass with this model, each with a value that it takes.
KNOWN = """--host 127.0.0.1|--port 0|--api-key k|--served-model-name a b|--tensor-parallel-size 1|--dtype auto|--max-num-seqs 4
--kv-cache-dtype auto|--enable-prefix-caching|--no-enable-prefix-caching|--enable-chunked-prefill|--async-scheduling
--no-async-scheduling|--enforce-eager|--generation-config vllm|--chat-template x|--default-chat-template-kwargs {}
--enable-auto-tool-choice|--tool-call-parser gemma4|--reasoning-parser gemma4|--enable-prompt-tokens-details|--load-format auto
--seed 1|--trust-remote-code|--disable-log-stats|--enable-request-id-headers|--block-size 16|--stream-interval 2
--attention-backend FLASH_ATTN|--compilation-config {}|--performance-mode x|--optimization-level 2|--scheduling-policy fcfs
--max-num-queued-reqs 8|--shutdown-timeout 5|--root-path /a|--per-request-spec-decode-metrics|--quantization modelopt
--max-model-len 8k|--max-num-batched-tokens 8192|--gpu-memory-utilization 0.5|--limit-mm-per-prompt {"image":0}
--language-model-only|--spec-model x --spec-method mtp --spec-tokens 4|--swap-space 4|--disable-log-requests|--uvicorn-log-level info
--enable-log-requests|--no-enable-log-requests|--max-log-len 10|--distributed-executor-backend mp|--tokenizer-mode auto"""


def text_of(server, **more):
    body = {"messages": QUESTION, "temperature": 0, "max_tokens": 64} | more
    status, reply = server.json("POST", "/v1/chat/completions", {key: value for key, value in body.items() if value is not None})
    if status != 200:
        raise RuntimeError(f"{status}: {reply}")
    return [choice["message"]["content"] for choice in reply["choices"]]


def accepted(checks):
    """The published command word for word, and what comes with it."""
    with Server("--quantization", "none", "--max_num_batched_tokens", 8192, "--gpu-memory-utilization", 0.5,
                "--limit-mm-per-prompt", '{"image": 0, "audio": 0}', "--enable-auto-tool-choice",
                "--tool-call-parser", "gemma4", "--reasoning-parser=gemma4", "--max-num-seqs", 3, "--max-num-seqs", 2,
                "-tp", 1, "-O3", "--no-enable-lora", "--enforce_eager", "--device", "cpu") as server:
        log = "".join(server.lines)
        for word in ("target:", "assistant:", "BF16", "4 draft tokens", "KV cache:", " 2 requests at once",
                     "--gpu-memory-utilization", "--tensor-parallel-size 1: changes nothing", "--optimization-level 3: "):
            checks.check(f"start: the log says {word}", word in log, log)
        checks.equal("start: exit status", server.stop(), 0)


def known(checks):
    """None of them is called unknown: what is wrong is that there is no model."""
    for flag in KNOWN.replace("\n", "|").split("|"):
        code, _, err = tandem("serve", "nowhere", *flag.split(" "))
        checks.check(f"known: {flag}", code == 2 and "known flag" not in err and "nowhere" in err, err)


def refused(checks):
    pair = [DEMO_TARGET, *speculative(DEMO_ASSISTANT, 4)]
    for words, said in REFUSED:
        checks.refused(f"refused: {words}", tandem("serve", *pair, *words), said)
    secret = tandem("serve", *pair, "--hf-token", "hf_secret")
    checks.check("refused: a token is not repeated", secret[0] == 2 and "hf_secret" not in secret[2], secret)
    other = tandem("serve", DEMO_TARGET, *speculative(DEMO_ASSISTANT, 4, quantization="modelopt"))
    checks.refused("refused: an assistant that is something else", other, "quantization: expected none")


def spellings(checks):
    os.environ["TANDEM_API_KEY"] = "secret"
    try:
        with Server("--spec-method", "mtp", "--spec-model", DEMO_ASSISTANT, "--spec-tokens", 3, drafts=None) as server:
            checks.check("--spec-...: as in --speculative-config", "3 draft tokens" in "".join(server.lines), server.lines)
            statuses = [server.request("GET", "/version", headers=headers)[0] for headers in ({}, {"Authorization": "Bearer secret"})]
            checks.equal("TANDEM_API_KEY: it is asked for", statuses, [401, 200])
    finally:
        del os.environ["TANDEM_API_KEY"]
    with Server("--root-path", "/tandem/one", "--api-key", "secret") as server:
        asked = {"/tandem/one/health": 200, "/health": 200, "/tandem/one/v1/models": 401, "/tandem/one/": 200, "/tandem/one": 401,
                 "/tandem/onehealth": 401, "/tandem/one//health": 401, "/tandem/one/tandem/one/health": 401}
        checks.equal("--root-path", {path: server.request("GET", path)[0] for path in asked}, asked)
    with Server("--speculative-config.model", DEMO_ASSISTANT, "--speculative_config.num_speculative_tokens=2",
                "--default-chat-template-kwargs.enable_thinking", "false", "--max-num-batched-tokens", "1k",
                "--override-generation-config", '{"temperature": 0, "repetition_penalty": 1.5}', drafts=None) as server:
        checks.check("keys of JSON one by one", "2 draft tokens" in "".join(server.lines), server.lines)
        checks.equal("--override-generation-config: defaults of requests", text_of(server, temperature=None),
                     text_of(server, repetition_penalty=1.5))


def drafts_by_batch_size(checks):
    table = {"num_speculative_tokens_per_batch_size": [[1, 1, 4], [2, 16, 0]], "kv_cache_dtype": "fp8"}
    with Server(drafts=4, **table) as server:
        log = "".join(server.lines)
        checks.check("K by batch size: the log says so", "4 from 1 requests on, 0 from 2 requests on" in log, log)
        checks.check("a key that changes nothing: a note", "kv_cache_dtype: changes nothing" in log, log)
        alone = text_of(server)
        first = server.metric("vllm:spec_decode_num_drafts_total")
        checks.check("K by batch size: one alone drafts", first > 0, first)
        checks.equal("K by batch size: the same text", text_of(server, n=2), alone * 2)
        more = server.metric("vllm:spec_decode_num_drafts_total") - first
        checks.check("K by batch size: two together hardly ever", more <= first / 2, (first, more))


def main():
    checks = Checks()
    accepted(checks)
    known(checks)
    refused(checks)
    spellings(checks)
    drafts_by_batch_size(checks)
    checks.finish()


if __name__ == "__main__":
    main()
