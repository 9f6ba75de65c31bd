"""`tandem serve` as the real OpenAI client sees it: chat, stream, tools, logprobs, completions, 429, keys, drain."""

import json
import signal
import socket
import threading
import time

import openai

from harness import Checks
from serve_harness import MODEL, Server

QUESTION = [{"role": "user", "content": "What is a lighthouse?"}]
LONG = {"messages": QUESTION, "model": MODEL, "temperature": 0, "max_tokens": 400, "extra_body": {"ignore_eos": True}}
TOOL = {"type": "function",
        "function": {"name": "get_weather", "description": "The weather of a city.",
                     "parameters": {"type": "object", "properties": {"city": {"type": "string"}},
                                    "required": ["city"]}}}


def client_of(server, **more):
    return openai.OpenAI(base_url=server.url + "/v1", api_key=more.pop("api_key", "none"), max_retries=0, timeout=120,
                         **more)


def joined(stream):
    """-> (content, finish_reason, usage, number of chunks) of a chat stream."""
    content, reason, usage, chunks = "", None, None, 0
    for chunk in stream:
        chunks += 1
        if chunk.usage:
            usage = chunk.usage
        for choice in chunk.choices:
            content += choice.delta.content or ""
            reason = choice.finish_reason or reason
    return content, reason, usage, chunks


def chat(checks, server, client):
    whole = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0)
    text = whole.choices[0].message.content
    checks.check("chat: the answer speaks of ships or a light", "light" in text.lower(), text)
    checks.equal("chat: finish_reason", whole.choices[0].finish_reason, "stop")
    checks.equal("chat: total tokens", whole.usage.total_tokens,
                 whole.usage.prompt_tokens + whole.usage.completion_tokens)
    stream = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, stream=True,
                                            stream_options={"include_usage": True})
    content, reason, usage, chunks = joined(stream)
    checks.equal("stream: the deltas are the answer", content, text)
    checks.equal("stream: finish_reason", reason, "stop")
    each = [chunk.usage for chunk in client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, stream=True, stream_options={"continuous_usage_stats": True})]
    checks.equal("stream: usage with every chunk that has text",
                 [usage.completion_tokens for usage in each[1:]],
                 sorted(usage.completion_tokens for usage in each[1:]))
    checks.equal("stream: the last of it", each[-1].completion_tokens, whole.usage.completion_tokens)
    checks.equal("stream: usage", usage and usage.model_dump(), whole.usage.model_dump())
    checks.check("stream: several chunks", chunks > 3, chunks)
    checks.check("stream: fewer chunks than tokens: drafts are accepted", chunks < usage.completion_tokens, chunks)
    short = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, max_tokens=3)
    checks.equal("max_tokens: finish_reason", short.choices[0].finish_reason, "length")
    checks.equal("max_tokens: tokens", short.usage.completion_tokens, 3)
    return text


def seeds_and_choices(checks, client):
    def ask(**more):
        return client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=4, seed=7, max_tokens=24,
                                              extra_body={"ignore_eos": True, "top_k": 0}, top_p=1, **more)

    one = ask().choices[0].message.content
    three = ask(n=3)
    texts = [choice.message.content for choice in sorted(three.choices, key=lambda choice: choice.index)]
    checks.equal("n: three choices", len(texts), 3)
    checks.equal("n: the first is the one of n=1", texts[0], one)
    checks.check("n: the others differ", len(set(texts)) == 3, texts)
    checks.equal("n: tokens are counted together", three.usage.completion_tokens, 72)
    streamed = {0: "", 1: "", 2: ""}
    for chunk in ask(n=3, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    checks.equal("n: streamed alike", [streamed[i] for i in range(3)], texts)


def stops(checks, client, text):
    word = text.split()[4]
    stopped = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, stop=[word])
    before = text[: text.index(word)]
    checks.equal("stop: the text before it", stopped.choices[0].message.content, before)
    checks.equal("stop: stop_reason", stopped.choices[0].model_extra.get("stop_reason"), word)
    content, reason, _, _ = joined(client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0,
                                                                  stop=[word], stream=True))
    checks.equal("stop: streamed", (content, reason), (before, "stop"))
    kept = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, stop=[word],
                                          extra_body={"include_stop_str_in_output": True})
    checks.equal("stop: kept when asked", kept.choices[0].message.content, before + word)


def logprobs(checks, client, text):
    reply = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, logprobs=True, top_logprobs=3)
    content = reply.choices[0].logprobs.content
    checks.equal("logprobs: one for each token", len(content), reply.usage.completion_tokens)
    # The last token is the end of the turn.
    checks.equal("logprobs: the bytes are the answer", b"".join(bytes(item.bytes) for item in content[:-1]), text.encode())
    checks.check("logprobs: greedy takes the likeliest",
                 all(item.top_logprobs[0].token == item.token and item.logprob <= 0 for item in content))
    checks.check("logprobs: three each, falling",
                 all(len(item.top_logprobs) == 3 and item.top_logprobs[0].logprob >= item.top_logprobs[2].logprob
                     for item in content))
    streamed = []
    for chunk in client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, logprobs=True,
                                                top_logprobs=3, stream=True):
        for choice in chunk.choices:
            streamed += choice.logprobs.content if choice.logprobs else []
    checks.equal("logprobs: streamed alike", [item.model_dump() for item in streamed],
                 [item.model_dump() for item in content])


def tools_and_thinking(checks, client):
    ask = {"model": MODEL, "messages": [{"role": "user", "content": "What is the weather in Paris?"}], "temperature": 0,
           "tools": [TOOL], "max_tokens": 96}
    whole = client.chat.completions.create(**ask).choices[0]
    calls = {}
    content = ""
    for chunk in client.chat.completions.create(**ask, stream=True):
        for choice in chunk.choices:
            content += choice.delta.content or ""
            for call in choice.delta.tool_calls or []:
                entry = calls.setdefault(call.index, {"name": "", "arguments": ""})
                entry["name"] += call.function.name or ""
                entry["arguments"] += call.function.arguments or ""
    expected = [{"name": call.function.name, "arguments": call.function.arguments}
                for call in whole.message.tool_calls or []]
    checks.equal("tools: streamed alike", [calls[i] for i in sorted(calls)], expected)
    checks.equal("tools: content streamed alike", content, whole.message.content or "")
    if checks.equal("tools: one call", [call["name"] for call in expected], ["get_weather"]):
        checks.equal("tools: finish_reason", whole.finish_reason, "tool_calls")
        checks.equal("tools: arguments", json.loads(expected[0]["arguments"]), {"city": "Paris"})
        ask["messages"] = [*ask["messages"], whole.message.model_dump(exclude_none=True),
                           {"role": "tool", "tool_call_id": whole.message.tool_calls[0].id, "content": "18 degrees"}]
        after = client.chat.completions.create(**ask).choices[0]
        checks.check("tools: an answer after the result", after.message.content and not after.message.tool_calls, after)
    ask["messages"] = ask["messages"][:1]
    none = client.chat.completions.create(**ask, tool_choice="none").choices[0]
    checks.check("tools: tool_choice none", not none.message.tool_calls, none)
    ask = {"model": MODEL, "messages": [{"role": "user", "content": "What is 3 + 4?"}], "temperature": 0,
           "max_tokens": 96, "extra_body": {"chat_template_kwargs": {"enable_thinking": True}}}
    whole = client.chat.completions.create(**ask).choices[0].message
    reasoning, content = "", ""
    for chunk in client.chat.completions.create(**ask, stream=True):
        for choice in chunk.choices:
            reasoning += (choice.delta.model_extra or {}).get("reasoning") or ""
            content += choice.delta.content or ""
    checks.equal("thinking: streamed alike", (reasoning, content),
                 (whole.model_extra.get("reasoning") or "", whole.content or ""))
    checks.check("thinking: there is some", len(reasoning) > 10, reasoning)
    checks.check("thinking: no marker in the text", "<|channel>" not in content + reasoning, content + reasoning)


def completions(checks, server, client):
    prompt = "Once upon a time"
    reply = client.completions.create(model=MODEL, prompt=prompt, max_tokens=12, temperature=0, logprobs=2)
    text = reply.choices[0].text
    checks.equal("completions: max_tokens", reply.usage.completion_tokens, 12)
    log = reply.choices[0].logprobs
    checks.equal("completions: logprobs", (len(log.tokens), "".join(log.tokens)), (12, text))
    checks.equal("completions: text_offset", log.text_offset[1], len(log.tokens[0]))
    status, tokens = server.json("POST", "/tokenize", {"prompt": prompt})
    checks.equal("tokenize: status and count", (status, tokens["count"]), (200, len(tokens["tokens"])))
    checks.equal("tokenize: <bos> in front", tokens["tokens"][0], 2)
    status, back = server.json("POST", "/detokenize", {"tokens": tokens["tokens"][1:]})
    checks.equal("detokenize", (status, back), (200, {"prompt": prompt}))
    ids = client.completions.create(model=MODEL, prompt=tokens["tokens"], max_tokens=12, temperature=0)
    checks.equal("completions: ids give the same", ids.choices[0].text, text)
    both = client.completions.create(model=MODEL, prompt=[prompt, "The sea"], max_tokens=12, temperature=0, echo=True)
    checks.equal("completions: two prompts", [choice.index for choice in both.choices], [0, 1])
    checks.equal("completions: echo", both.choices[0].text, prompt + text)
    checks.check("completions: echo of the second", both.choices[1].text.startswith("The sea"))
    pieces = "".join(chunk.choices[0].text for chunk in client.completions.create(
        model=MODEL, prompt=prompt, max_tokens=12, temperature=0, stream=True))
    checks.equal("completions: streamed alike", pieces, text)


REFUSED = [
    ("broken JSON", "{", 400, None), ("no object", "[]", 400, None), ("no messages", {}, 400, "messages"),
    ("empty messages", {"messages": []}, 400, "messages"),
    ("another model", {"messages": QUESTION, "model": "gpt"}, 404, "model"),
    ("unknown field", {"messages": QUESTION, "temperatur_e": 1}, 400, "temperatur_e"),
    ("temperature as text", {"messages": QUESTION, "temperature": "hot"}, 400, "temperature"),
    ("top_p 0", {"messages": QUESTION, "top_p": 0}, 400, "top_p"),
    ("n 0", {"messages": QUESTION, "n": 0}, 400, "n"), ("max_tokens 0", {"messages": QUESTION, "max_tokens": 0}, 400, "max_tokens"),
    ("too long", {"messages": QUESTION, "max_tokens": 5000}, 400, "messages"),
    ("min over max", {"messages": QUESTION, "max_tokens": 5, "min_tokens": 6}, 400, "min_tokens"),
    ("stop empty", {"messages": QUESTION, "stop": ""}, 400, "stop"),
    ("logit_bias id", {"messages": QUESTION, "logit_bias": {"99999999": 1}}, 400, "logit_bias"),
    ("stream_options alone", {"messages": QUESTION, "stream_options": {}}, 400, "stream_options"),
    ("json_schema", {"messages": QUESTION, "response_format": {"type": "json_schema"}}, 400, "response_format"),
    ("a forced tool, and none there", {"messages": QUESTION, "tool_choice": "required"}, 400, "tool_choice"),
    ("image", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, 400, None),
    ("top_logprobs alone", {"messages": QUESTION, "top_logprobs": 2}, 400, "top_logprobs"),
    ("deep JSON", '{"messages":' + "[" * 200 + "]" * 200 + "}", 400, None),
    ("seed too large", {"messages": QUESTION, "seed": 2**64}, 400, "seed"),
]


def refusals(checks, server):
    for name, body, status, param in REFUSED:
        got, reply = server.json("POST", "/v1/chat/completions", body)
        error = reply.get("error", {})
        checks.equal(f"refused: {name}: status", got, status)
        checks.check(f"refused: {name}: OpenAI's form", sorted(error) == ["code", "message", "param", "type"], reply)
        if param:
            checks.equal(f"refused: {name}: param", error.get("param"), param)
    for method, path, status in (("GET", "/nowhere", 404), ("GET", "/v1/chat/completions", 405), ("POST", "/health", 405),
                                 ("GET", "/v1/models/other", 404), ("HEAD", "/v1/chat/completions", 405), ("HEAD", "/nowhere", 404)):
        checks.equal(f"{method} {path}", server.request(method, path)[0], status)
    checks.equal("another content type", server.request("POST", "/tokenize", "{}", {"Content-Type": "text/plain"})[0], 415)
    for path in ("/health", "/ping", "/version", "/v1/models", "/metrics", "/load", "/v1/models/" + MODEL):
        checks.equal(f"GET {path}", server.request("GET", path)[0], 200)
        checks.equal(f"HEAD {path}", server.request("HEAD", path)[0], 200)


def abort(checks, server, client):
    stream = client.chat.completions.create(**LONG, stream=True)
    next(iter(stream))
    stream.close()
    checks.check("abort: the slot is free again", server.wait_idle(), server.request("GET", "/metrics")[2][:300])
    text = server.request("GET", "/metrics")[2]
    checks.check("abort: it is counted", 'finished_reason="abort"} 0\n' not in text, text)
    checks.check("metrics: drafts were accepted", server.metric("vllm:spec_decode_num_accepted_tokens_total") > 0)


def everything_with_one_server(checks):
    with Server() as server:
        client = client_of(server)
        text = chat(checks, server, client)
        seeds_and_choices(checks, client)
        stops(checks, client, text)
        logprobs(checks, client, text)
        tools_and_thinking(checks, client)
        completions(checks, server, client)
        refusals(checks, server)
        abort(checks, server, client)
        checks.equal("SIGTERM: exit status", server.stop(), 0)
    with Server(drafts=0) as plain:
        content, _, _, _ = joined(client_of(plain).chat.completions.create(model=MODEL, messages=QUESTION, temperature=0,
                                                                           stream=True))
        checks.equal("the same text without drafts", content, text)


def busy(checks):
    """One place and no queue: 429 for the next, which the client retries."""
    with Server("--max-num-seqs", 1, "--max-num-queued-reqs", 0, "--api-key", "secret", "--enable-request-id-headers",
                "--per-request-spec-decode-metrics") as server:
        client = client_of(server, api_key="secret")
        checks.equal("key: /health needs none", server.request("GET", "/health")[0], 200)
        for path in ("/metrics", "/v1/models", "/nowhere"):
            checks.equal(f"key: {path} needs one", server.request("GET", path)[0], 401)
        try:
            client_of(server, api_key="secres").models.list()
            checks.check("key: a wrong one", False)
        except openai.AuthenticationError:
            checks.check("key: a wrong one", True)
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw:
            raw.sendall(b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
            checks.check("key: refused before the body is sent", raw.recv(100).startswith(b"HTTP/1.1 401 "))
        checks.equal("models", [model.id for model in client.models.list()], [MODEL])
        reply = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0)
        status, headers, _ = server.request("POST", "/v1/completions", {"prompt": "a", "max_tokens": 1},
                                            {"Authorization": "Bearer secret", "X-Request-Id": "mine-7"})
        checks.equal("request id: comes back", (status, headers.get("X-Request-Id")), (200, "mine-7"))
        spec = (reply.model_extra or {}).get("metrics", {}).get("speculative_decoding", {})
        checks.check("statistics of the request", spec.get("num_accepted_tokens", 0) > 0, spec)
        stream = client.chat.completions.create(**{**LONG, "max_tokens": 900}, stream=True)
        iterator = iter(stream)
        next(iterator)
        try:
            client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=1)
            checks.check("429", False, "no error")
        except openai.RateLimitError as error:
            checks.check("429 with Retry-After", error.response.headers.get("retry-after") is not None)
        retried = []
        patient = openai.OpenAI(base_url=server.url + "/v1", api_key="secret", max_retries=20, timeout=120)
        thread = threading.Thread(target=lambda: retried.append(
            patient.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=2)))
        thread.start()
        time.sleep(0.2)
        stream.close()
        thread.join(60)
        checks.equal("429: the client's retry gets through", len(retried), 1)
        checks.equal("exit status", server.stop(), 0)


def health_within(server, expected, seconds=10):
    """The status of /health as soon as it is the expected one, else the last."""
    end = time.monotonic() + seconds
    while True:
        status = server.request("GET", "/health")[0]
        if status == expected or time.monotonic() > end:
            return status
        time.sleep(0.01)


def drain(checks):
    """SIGTERM lets the stream end. One place for eight long choices: it lasts much longer than the look at /health."""
    with Server("--max-num-seqs", 1, "--shutdown-timeout", 300) as server:
        stream = client_of(server).chat.completions.create(**{**LONG, "max_tokens": 900, "n": 8}, stream=True)
        iterator = iter(stream)
        first = next(iterator)
        server.process.send_signal(signal.SIGTERM)
        checks.equal("drain: /health", health_within(server, 503), 503)
        checks.equal("drain: no new request", server.json("POST", "/v1/completions", {"prompt": "a"})[0], 503)
        reasons = {}
        for chunk in [first, *iterator]:
            for choice in chunk.choices:
                reasons[choice.index] = choice.finish_reason
        checks.equal("drain: every choice ends whole", reasons, dict.fromkeys(range(8), "length"))
        checks.equal("drain: exit status", server.process.wait(40), 0)


def second_signal(checks):
    """One signal waits for the stream, a second one does not."""
    with Server() as server:
        stream = client_of(server).chat.completions.create(**LONG, n=8, stream=True)
        next(iter(stream))
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        checks.equal("second signal: exit status", server.process.wait(10), 130)
    with Server("--shutdown-timeout", 0) as server:
        stream = client_of(server).chat.completions.create(**LONG, n=8, stream=True)
        iterator = iter(stream)
        next(iterator)
        server.process.send_signal(signal.SIGTERM)
        try:
            for _ in iterator:
                pass
            checks.check("no time to drain: the stream ends with an error", False)
        except openai.APIError as error:
            checks.check("no time to drain: the stream ends with an error", "shutting down" in str(error), error)
        checks.equal("no time to drain: exit status", server.process.wait(20), 0)


def many_in_a_tiny_cache(checks):
    """Twelve streams where the KV cache holds about six: preempted ones go on with the same words."""
    prompts = [f"Count from {i} to {i + 5} and tell me why." for i in range(12)]
    ask = {"model": MODEL, "max_tokens": 60, "temperature": 1, "extra_body": {"ignore_eos": True}}

    def answer(client, index):
        messages = [{"role": "user", "content": prompts[index]}]
        return joined(client.chat.completions.create(messages=messages, seed=index, stream=True, **ask))[0]

    with Server() as server:
        client = client_of(server)
        alone = [answer(client, i) for i in range(len(prompts))]
        server.stop()
    with Server("--kv-cache-gib", 0.003, "--block-size", 16, "--max-num-seqs", 12, max_model_len=128) as server:
        client = client_of(server)
        together = [None] * len(prompts)

        def run(index):
            together[index] = answer(client, index)

        threads = [threading.Thread(target=run, args=(i,)) for i in range(len(prompts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        checks.equal("tiny cache: every answer is the one it gets alone", together, alone)
        checks.check("tiny cache: everything is free again", server.wait_idle())
        checks.check("tiny cache: some were preempted", server.metric("vllm:num_preemptions_total") > 0)
        checks.equal("tiny cache: exit status", server.stop(), 0)


def main():
    checks = Checks()
    everything_with_one_server(checks)
    busy(checks)
    drain(checks)
    second_signal(checks)
    many_in_a_tiny_cache(checks)
    checks.finish()


if __name__ == "__main__":
    main()
