"""Log-probabilities of prompts: echo, prompt_logprobs, token-id prompts and lists; the same for every K."""

import openai

from harness import Checks
from serve_harness import MODEL, Server

PROMPT = "Once upon a time there was"
QUESTION = [{"role": "user", "content": "What is a lighthouse?"}]


def scores(client, **more):
    reply = client.completions.create(**{"model": MODEL, "prompt": PROMPT, "max_tokens": 6, "temperature": 0, "echo": True,
                                         "logprobs": 2, **more})
    return reply.choices[0], reply.usage


def echo(checks, server, client):
    choice, usage = scores(client)
    log = choice.logprobs
    ids = server.json("POST", "/tokenize", {"prompt": PROMPT})[1]["tokens"]
    checks.equal("echo: one entry for each token",
                 [len(log.tokens), len(log.token_logprobs), len(log.top_logprobs), len(log.text_offset)],
                 [len(ids) + 6] * 4)
    checks.equal("echo: the first has none", (log.token_logprobs[0], log.top_logprobs[0]), (None, None))
    checks.check("echo: all others have", all(value <= 0 for value in log.token_logprobs[1:]), log.token_logprobs)
    checks.check("echo: the likeliest come with each", all(len(top) in (2, 3) for top in log.top_logprobs[1:]))
    checks.check("echo: the text is the prompt's, then the answer", choice.text.startswith(PROMPT), choice.text)
    ends = [*log.text_offset[2:], len(choice.text)]
    pieces = [choice.text[begin:end] for begin, end in zip(log.text_offset[1:], ends)]
    checks.equal("echo: offsets cut the text into its tokens", pieces, log.tokens[1:])
    plain, _ = scores(client, echo=False)
    checks.equal("echo: changes nothing of the answer", choice.text, PROMPT + plain.text)
    checks.equal("echo: nor of its log-probabilities", log.token_logprobs[len(ids):], plain.logprobs.token_logprobs)
    chunks = [chunk.choices[0] for chunk in client.completions.create(
        model=MODEL, prompt=PROMPT, max_tokens=6, temperature=0, echo=True, logprobs=2, stream=True)]
    checks.equal("echo: streamed alike", "".join(chunk.text for chunk in chunks), choice.text)
    checks.equal("echo: log-probabilities streamed alike",
                 [value for chunk in chunks for value in chunk.logprobs.token_logprobs], log.token_logprobs)
    checks.equal("echo: offsets streamed alike",
                 [value for chunk in chunks for value in chunk.logprobs.text_offset], log.text_offset)
    nothing, usage = scores(client, max_tokens=0)
    checks.equal("max_tokens 0: the prompt alone", (nothing.text, usage.completion_tokens), (PROMPT, 0))
    checks.equal("max_tokens 0: its log-probabilities", nothing.logprobs.token_logprobs, log.token_logprobs[:len(ids)])
    by_id, _ = scores(client, prompt=ids)
    checks.equal("token ids: the same", by_id.logprobs.token_logprobs, log.token_logprobs)
    lists = client.completions.create(model=MODEL, prompt=[ids, ids[:4]], max_tokens=2, temperature=0, echo=True, logprobs=0)
    checks.equal("lists of ids: two answers", [len(one.logprobs.tokens) for one in lists.choices], [len(ids) + 2, 6])
    checks.equal("lists of ids: a prefix has the same", lists.choices[1].logprobs.token_logprobs[:4],
                 log.token_logprobs[:4])
    # What decoding said of its own words is what their prompt's rows say.
    answer = server.json("POST", "/v1/completions", {"prompt": ids, "max_tokens": 6, "temperature": 0, "logprobs": 0,
                                                     "return_token_ids": True})[1]["choices"][0]
    again, _ = scores(client, prompt=[*ids, *answer["token_ids"]], max_tokens=0)
    checks.equal("decoding and prompts agree to the bit", again.logprobs.token_logprobs[len(ids):],
                 answer["logprobs"]["token_logprobs"])
    return log.token_logprobs


def prompt_logprobs(checks, server):
    body = {"prompt": PROMPT, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 2}
    status, reply = server.json("POST", "/v1/completions", body)
    lists = reply["choices"][0]["prompt_logprobs"]
    ids = server.json("POST", "/tokenize", {"prompt": PROMPT})[1]["tokens"]
    checks.equal("prompt_logprobs: one for each token, none for the first", (len(lists), lists[0]), (len(ids), None))
    for token, entries in zip(ids[1:], lists[1:]):
        ranks = sorted(entry["rank"] for entry in entries.values())
        good = ranks[:2] == [1, 2] and str(token) in entries and len(entries) in (2, 3)
        checks.check("prompt_logprobs: the token and the likeliest", good, entries)
    chat = {"messages": QUESTION, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
    status, reply = server.json("POST", "/v1/chat/completions", chat)
    checks.equal("prompt_logprobs: of a chat", (status, len(reply["prompt_logprobs"])), (200, reply["usage"]["prompt_tokens"]))
    # After other requests with the same prompt have filled the prefix cache.
    for _ in range(2):
        checks.equal("prompt_logprobs: again the same", server.json("POST", "/v1/completions", body)[1]["choices"],
                     server.json("POST", "/v1/completions", body)[1]["choices"])
    for name, more, param in (("streamed", {"stream": True}, "prompt_logprobs"), ("too many", {"prompt_logprobs": 21}, "prompt_logprobs"),
                              ("all", {"prompt_logprobs": -1}, "prompt_logprobs"), ("max_tokens 0 alone", {"max_tokens": 0, "prompt_logprobs": None}, "max_tokens")):
        status, reply = server.json("POST", "/v1/completions", {**body, **more})
        checks.equal(f"prompt_logprobs: {name}: refused", (status, reply["error"]["param"]), (400, param))


def main():
    checks = Checks()
    seen = None
    for drafts in (0, 1, 2, 3, 4):
        with Server("--max-num-batched-tokens", 64, drafts=drafts) as server:
            client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=120)
            if drafts == 4:
                prompt_logprobs(checks, server)
                found = echo(checks, server, client)
            else:
                found = scores(client)[0].logprobs.token_logprobs
            seen = seen or found
            checks.equal(f"the same with {drafts} drafts", found, seen)
    checks.finish()


if __name__ == "__main__":
    main()
