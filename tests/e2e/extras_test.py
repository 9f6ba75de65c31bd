"""Fields beyond OpenAI's: K of a request, banned words, scores of named tokens, limits of thoughts, sizes of chunks."""

import json
import re

from harness import Checks
from serve_harness import MODEL, Server

QUESTION = [{"role": "user", "content": "What is a lighthouse?"}]
THINK = {"messages": [{"role": "user", "content": "What is 3 + 4?"}], "chat_template_kwargs": {"enable_thinking": True},
         "max_tokens": 96}


def chat(server, body, path="/v1/chat/completions"):
    status, reply = server.json("POST", path, {"messages": QUESTION, "temperature": 0} | body)
    if status != 200:
        raise RuntimeError(f"{status}: {reply}")
    return reply


def text_of(reply):
    return reply["choices"][0]["message"]["content"]


def drafts_of_requests(checks, server, text):
    for count in range(5):
        reply = chat(server, {"num_speculative_tokens": count})
        spec = reply["metrics"]["speculative_decoding"]
        checks.equal(f"K {count}: the same text", text_of(reply), text)
        checks.check(f"K {count}: that many drafts", len(spec["accepted_per_position"]) == count, spec)
        checks.check(f"K {count}: rounds with drafts", (spec["num_spec_steps"] > 0) == (count > 0), spec)
    status, reply = server.json("POST", "/v1/chat/completions", {"messages": QUESTION, "num_speculative_tokens": 5})
    checks.equal("K beyond the server's", (status, reply["error"]["param"]), (400, "num_speculative_tokens"))


def bad_words(checks, server, text):
    word = text.split()[1].strip(".,")
    plain = chat(server, {"bad_words": [word]})
    checks.check("bad_words: the word does not come", word not in text_of(plain).split(), text_of(plain))
    checks.check("bad_words: an answer does", len(text_of(plain)) > 5, text_of(plain))
    for count in (0, 2):
        checks.equal(f"bad_words: K {count}: the same text",
                     text_of(chat(server, {"bad_words": [word], "num_speculative_tokens": count})), text_of(plain))


def scores(checks, server):
    choice = chat(server, {"logprobs": True, "top_logprobs": 20, "max_tokens": 2, "return_tokens_as_token_ids": True})["choices"][0]
    first = choice["logprobs"]["content"][0]
    ids = [int(entry["token"].split(":")[1]) for entry in first["top_logprobs"]]
    wanted = [ids[7], ids[3]]
    named = chat(server, {"logprobs": True, "logprob_token_ids": wanted, "max_tokens": 2,
                          "return_tokens_as_token_ids": True})["choices"][0]["logprobs"]["content"][0]
    checks.equal("logprob_token_ids: these, in this order", named["top_logprobs"],
                 [first["top_logprobs"][7], first["top_logprobs"][3]])
    checks.equal("logprob_token_ids: the chosen one as well", named["logprob"], first["logprob"])
    prompt = {"prompt": "The sea is", "max_tokens": 1, "temperature": 0, "logprobs": 0, "logprob_token_ids": wanted,
              "return_tokens_as_token_ids": True}
    top = server.json("POST", "/v1/completions", prompt)[1]["choices"][0]["logprobs"]["top_logprobs"][0]
    checks.check("logprob_token_ids: completions", {f"token_id:{i}" for i in wanted} <= set(top), top)


def thoughts(checks, server):
    free = chat(server, THINK)["choices"][0]["message"]
    checks.check("thoughts: there are some", len(free["reasoning"]) > 20, free)
    limited = [chat(server, THINK | {"thinking_token_budget": 5, "num_speculative_tokens": count}) for count in (0, 1, 4)]
    messages = [reply["choices"][0]["message"] for reply in limited]
    checks.check("thoughts: they end early", 0 < len(messages[0]["reasoning"]) < len(free["reasoning"]), messages[0])
    checks.check("thoughts: they begin alike", free["reasoning"].startswith(messages[0]["reasoning"].rstrip()), messages[0])
    checks.check("thoughts: an answer follows", messages[0]["content"], messages[0])
    checks.equal("thoughts: the same for every K", messages[1:], messages[:1] * 2)
    body = THINK | {"thinking": {"type": "enabled", "budget_tokens": 5}, "temperature": 0}
    del body["chat_template_kwargs"]
    status, reply = server.json("POST", "/v1/messages", body)
    thinking = [block["thinking"] for block in reply["content"] if block["type"] == "thinking"]
    checks.equal("thoughts: budget_tokens of /v1/messages", (status, thinking), (200, [messages[0]["reasoning"]]))
    forced = THINK | {"thinking_token_budget": 5, "structured_outputs": {"choice": ["seven", "eight"]}}
    answer = chat(server, forced)["choices"][0]["message"]
    checks.check("thoughts: a form behind them", answer["content"] in ("seven", "eight") and
                 answer["reasoning"] == messages[0]["reasoning"], answer)


def chunks(checks, server, text):
    def stream(**more):
        body = {"messages": QUESTION, "temperature": 0, "stream": True, "return_token_ids": True} | more
        events = server.request("POST", "/v1/chat/completions", body)[2].split("\n\n")
        found = [json.loads(event[6:])["choices"][0] for event in events if event.startswith("data: {")]
        return "".join(c["delta"].get("content", "") for c in found), [len(c.get("token_ids") or []) for c in found[1:]]

    joined, sizes = stream(stream_interval=9, num_speculative_tokens=0)
    checks.equal("stream_interval: the same text", joined, text)
    checks.equal("stream_interval: the first at once", sizes[0], 1)
    checks.check("stream_interval: then nine each", set(sizes[1:-1]) == {9} and 0 < sizes[-1] <= 9, sizes)
    joined, sizes = stream(stream_interval=9)
    checks.check("stream_interval: with drafts at least nine", joined == text and min(sizes[1:-1]) >= 9, sizes)


def tagged_values(checks, server, text):
    """Free text until a trigger comes: the demo pair's own answer brings it."""
    word = text.split()[1]
    tag = {"structures": [{"begin": word + " <", "schema": {"type": "integer", "minimum": 10, "maximum": 99}, "end": ">"}],
           "triggers": [word]}
    forms = [{"structured_outputs": {"structural_tag": tag}}, {"structured_outputs": {"structural_tag": json.dumps(tag)}},
             {"response_format": {"type": "structural_tag", **tag}}]
    answers = [text_of(chat(server, form | {"num_speculative_tokens": count})) for form in forms for count in (0, 4)]
    checks.equal("structural_tag: each way and K the same", answers[1:], answers[:1] * 5)
    found = re.findall(re.escape(word) + r"(.{5})", answers[0], re.DOTALL)
    checks.check("structural_tag: behind each trigger a value", found and all(re.fullmatch(r" <\d\d>", f) for f in found), answers[0])
    checks.check("structural_tag: free text before", answers[0].startswith(text[:text.index(word)] + word), answers[0])
    for bad in ({}, {"structures": [], "triggers": ["a"]}, {**tag, "triggers": ["x"]}, {**tag, "triggers": [word, word[1:]]},
                {"structures": [{"begin": word, "schema": {"not": {}}, "end": ""}], "triggers": [word]}, {"format": {"type": "any_text"}}):
        status, reply = server.json("POST", "/v1/chat/completions", {"messages": QUESTION, "structured_outputs": {"structural_tag": bad}})
        checks.equal(f"structural_tag: refused: {bad}", (status, reply["error"]["param"]), (400, "structured_outputs"))


def one_route_for_all(checks, server, text):
    checks.equal("/invocations: a chat", text_of(chat(server, {}, "/invocations")), text)
    body = {"prompt": "The sea", "max_tokens": 4, "temperature": 0}
    checks.equal("/invocations: a completion", server.json("POST", "/invocations", body)[1]["choices"],
                 server.json("POST", "/v1/completions", body)[1]["choices"])
    reply = server.json("POST", "/invocations", {"input": QUESTION[0]["content"], "temperature": 0})[1]
    checks.equal("/invocations: a response", (reply["object"], reply["output"][-1]["content"][0]["text"]), ("response", text))
    for body, param in (({"nothing": 1}, None), ({"messages": []}, "messages"), ("{", None)):
        status, reply = server.json("POST", "/invocations", body)
        checks.equal(f"/invocations: {body}", (status, reply["error"]["param"]), (400, param))


def own_templates(checks, text):
    own = {"chat_template": "{{ bos_token }}<|turn>user\n{{ messages[0].content }}<turn|>\n<|turn>model\n{{ documents[0].text }}",
           "documents": [{"text": "A lighthouse is"}]}
    with Server("--trust-request-chat-template", "--stream-interval", 4) as server:
        continued = text_of(chat(server, own))
        checks.check("own template: the document began the answer", continued and not continued.startswith("A lighthouse"), continued)
        checks.equal("own template: others have the server's", text_of(chat(server, {})), text)
        bomb = own | {"chat_template": "{% for a in range(99999999) %}{{ a }}{% endfor %}"}
        status, reply = server.json("POST", "/v1/chat/completions", {"messages": QUESTION} | bomb)
        checks.equal("own template: a bomb is refused", status, 400)
        body = {"messages": QUESTION, "temperature": 0, "stream": True, "num_speculative_tokens": 0}
        events = server.request("POST", "/v1/chat/completions", body)[2].count("data: {")
        status, whole = server.json("POST", "/v1/chat/completions", body | {"stream": False})
        tokens = whole["usage"]["completion_tokens"]
        checks.check("--stream-interval: fewer chunks than tokens", events <= tokens / 4 + 4, (events, tokens))


def main():
    checks = Checks()
    with Server("--per-request-spec-decode-metrics") as server:
        text = text_of(chat(server, {}))
        drafts_of_requests(checks, server, text)
        bad_words(checks, server, text)
        scores(checks, server)
        thoughts(checks, server)
        chunks(checks, server, text)
        tagged_values(checks, server, text)
        one_route_for_all(checks, server, text)
        status, reply = server.json("POST", "/v1/chat/completions", {"messages": QUESTION, "model": MODEL, "chat_template": "x"})
        checks.equal("own template: not without trust", (status, reply["error"]["param"]), (400, "chat_template"))
    own_templates(checks, text)
    checks.finish()


if __name__ == "__main__":
    main()
