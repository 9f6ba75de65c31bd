"""/v1/messages as the real anthropic client sees it: messages, streams, tools, thinking, counting, errors, keys."""

import re
import threading
import time

import anthropic

from harness import Checks
from serve_harness import MODEL, Server

QUESTION = [{"role": "user", "content": "What is a lighthouse?"}]
TOOL = {"name": "get_weather", "description": "The weather of a city.",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}
GREEDY = {"temperature": 0}  # the client has no argument for it any more
ASK = {
    "text": {"messages": QUESTION, "extra_body": GREEDY},
    "tools": {"messages": [{"role": "user", "content": "What is the weather in Paris?"}], "tools": [TOOL],
              "extra_body": GREEDY},
    "thinking": {"messages": [{"role": "user", "content": "What is 3 + 4?"}], "extra_body": GREEDY,
                 "thinking": {"type": "enabled", "budget_tokens": 1024}},
}
EVENTS = re.compile(r"message_start (block_start (block_delta )+block_stop )*message_delta message_stop ")


def client_of(server, **more):
    return anthropic.Anthropic(base_url=server.url, api_key=more.pop("api_key", "none"),
                               max_retries=more.pop("max_retries", 0), timeout=120, **more)


def ask(client, kind, **more):
    return client.messages.create(model=MODEL, max_tokens=96, **ASK[kind], **more)


def blocks(message):
    return [block.model_dump(exclude_none=True, exclude={"id"}) for block in message.content]


def strict(checks, name, message):
    """The reply is one that the client's own types take without coercion."""
    try:
        anthropic.types.Message.model_validate_json(message.to_json(), strict=True)
        checks.check(f"{name}: of Anthropic's type", True)
    except ValueError as error:
        checks.check(f"{name}: of Anthropic's type", False, error)


def whole_and_streamed(checks, client, kind):
    whole = ask(client, kind)
    strict(checks, kind, whole)
    with client.messages.stream(model=MODEL, max_tokens=96, **ASK[kind]) as stream:
        order = "".join(event.type.replace("content_", "") + " " for event in stream
                        if event.type in ("message_start", "content_block_start", "content_block_delta",
                                          "content_block_stop", "message_delta", "message_stop"))
        final = stream.get_final_message()
    checks.check(f"{kind}: events in order", EVENTS.fullmatch(order), order)
    checks.equal(f"{kind}: streamed alike", blocks(final), blocks(whole))
    checks.equal(f"{kind}: stop_reason streamed", final.stop_reason, whole.stop_reason)
    checks.equal(f"{kind}: usage streamed", final.usage.output_tokens, whole.usage.output_tokens)
    count = client.messages.count_tokens(model=MODEL, **ASK[kind])
    checks.equal(f"{kind}: count_tokens is what the prompt has", count.input_tokens,
                 whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0))
    return whole


def text(checks, server, client):
    whole = whole_and_streamed(checks, client, "text")
    checks.equal("text: one block", [block.type for block in whole.content], ["text"])
    answer = whole.content[0].text
    checks.check("text: speaks of a light", "light" in answer.lower(), answer)
    checks.equal("text: stop_reason", whole.stop_reason, "end_turn")
    short = client.messages.create(model=MODEL, max_tokens=3, messages=QUESTION, extra_body=GREEDY)
    checks.equal("max_tokens", (short.stop_reason, short.usage.output_tokens), ("max_tokens", 3))
    word = answer.split()[4]
    stopped = ask(client, "text", stop_sequences=[word])
    checks.equal("stop_sequences: where it stops", stopped.content[0].text, answer[: answer.index(word)])
    checks.equal("stop_sequences: which", (stopped.stop_reason, stopped.stop_sequence), ("stop_sequence", word))
    with client.messages.stream(model=MODEL, max_tokens=96, messages=QUESTION, extra_body=GREEDY,
                                stop_sequences=[word]) as stream:
        final = stream.get_final_message()
    checks.equal("stop_sequences: streamed", (final.stop_reason, final.stop_sequence), ("stop_sequence", word))
    begun = [*QUESTION, {"role": "assistant", "content": " ".join(answer.split()[:5])}]
    on = client.messages.create(model=MODEL, max_tokens=40, messages=begun, extra_body=GREEDY)
    chat = server.json("POST", "/v1/chat/completions", {"messages": begun, "max_tokens": 40, "temperature": 0,
                                                        "continue_final_message": True, "add_generation_prompt": False})
    checks.equal("an answer that is begun is gone on with", on.content[0].text, chat[1]["choices"][0]["message"]["content"])
    system = client.messages.create(model=MODEL, max_tokens=8, messages=QUESTION,
                                    system=[{"type": "text", "text": "Answer in French."}])
    checks.check("system: counts", system.usage.input_tokens > short.usage.input_tokens, system.usage)
    return answer


def tools(checks, client):
    whole = whole_and_streamed(checks, client, "tools")
    uses = [block for block in whole.content if block.type == "tool_use"]
    if not checks.equal("tools: one call", [use.name for use in uses], ["get_weather"]):
        return
    checks.equal("tools: stop_reason", whole.stop_reason, "tool_use")
    checks.equal("tools: input", uses[0].input, {"city": "Paris"})
    checks.check("tools: id", uses[0].id.startswith("toolu_"), uses[0].id)
    messages = [*ASK["tools"]["messages"], {"role": "assistant", "content": whole.content},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": uses[0].id,
                                              "content": "18 degrees"}]}]
    after = client.messages.create(model=MODEL, max_tokens=96, messages=messages, tools=[TOOL], extra_body=GREEDY)
    checks.equal("tools: an answer after the result", [block.type for block in after.content], ["text"])
    messages[-2] = {"role": "assistant", "content": [block.model_dump() for block in whole.content]}
    same = client.messages.create(model=MODEL, max_tokens=96, messages=messages, tools=[TOOL], extra_body=GREEDY)
    checks.equal("tools: blocks come back with all the client's fields, null where unset", same.content, after.content)
    none = ask(client, "tools", tool_choice={"type": "none"})
    checks.check("tools: tool_choice none", all(block.type == "text" for block in none.content), none)


def runner(checks, client):
    """The client's own loop of calls: it asks for a thread, and does without when that is refused."""
    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """The weather of a city."""
        return f"{city}: 18 degrees"

    replies = client.beta.messages.tool_runner(model=MODEL, max_tokens=96, messages=ASK["tools"]["messages"],
                                               tools=[get_weather], extra_body=GREEDY)
    checks.equal("tool_runner: a call, then an answer", [reply.stop_reason for reply in replies], ["tool_use", "end_turn"])


def thinking(checks, client):
    whole = whole_and_streamed(checks, client, "thinking")
    checks.equal("thinking: first, then text", [block.type for block in whole.content], ["thinking", "text"])
    checks.check("thinking: there is some, signed", len(whole.content[0].thinking) > 10 and whole.content[0].signature)
    again = [*ASK["thinking"]["messages"], {"role": "assistant", "content": whole.content},
             {"role": "user", "content": "And plus 1?"}]
    reply = client.messages.create(model=MODEL, max_tokens=96, messages=again, extra_body=GREEDY,
                                   thinking={"type": "disabled"})
    checks.check("thinking: blocks may come back; switched off there are none",
                 all(block.type == "text" for block in reply.content), reply)


def errors(checks, server, client):
    def refused(name, kind, part, **body):
        try:
            client.messages.create(**{"model": MODEL, "max_tokens": 5, "messages": QUESTION, **body})
            checks.check(f"refused: {name}", False, "no error")
        except anthropic.APIStatusError as error:
            checks.check(f"refused: {name}", isinstance(error, kind) and part in str(error), error)
            checks.equal(f"refused: {name}: Anthropic's form", (error.body["type"], sorted(error.body["error"])),
                         ("error", ["message", "type"]))

    image = [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "http://x"}}]}]
    refused("image", anthropic.BadRequestError, "messages[0].content[0].type", messages=image)
    refused("too long", anthropic.BadRequestError, "at most", max_tokens=5000)
    refused("model", anthropic.NotFoundError, "model", model="claude")
    refused("unknown field", anthropic.BadRequestError, "tempo", extra_body={"tempo": 3})
    refused("server tool", anthropic.BadRequestError, "tools[0].type",
            tools=[{"type": "web_search_20250305", "name": "web_search"}])
    for method, path, status in (("GET", "/v1/messages", 405), ("POST", "/v1/messages/none", 404)):
        got, reply = server.json(method, path)
        checks.equal(f"{method} {path}", (got, reply["type"]), (status, "error"))
    got, reply = server.json("POST", "/v1/messages", "{")
    checks.equal("broken JSON", (got, reply["error"]["type"]), (400, "invalid_request_error"))


def abort(checks, server, client):
    with client.messages.stream(model=MODEL, max_tokens=900, messages=QUESTION,
                                extra_body={"ignore_eos": True}) as stream:
        for event in stream:
            if event.type == "content_block_delta":
                break
    checks.check("abort: the slot is free again", server.wait_idle())
    checks.check("abort: it is counted", 'finished_reason="abort"} 0\n' not in server.request("GET", "/metrics")[2])


def busy(checks):
    with Server("--max-num-seqs", 1, "--max-num-queued-reqs", 0, "--api-key", "secret") as server:
        client = client_of(server, api_key="secret")
        checks.check("x-api-key is taken", client.messages.count_tokens(model=MODEL, messages=QUESTION).input_tokens > 3)
        try:
            client_of(server, api_key="secre").messages.count_tokens(model=MODEL, messages=QUESTION)
            checks.check("a wrong key", False)
        except anthropic.AuthenticationError as error:
            checks.equal("a wrong key", error.body["error"]["type"], "authentication_error")
        long = {"model": MODEL, "max_tokens": 900, "messages": QUESTION, "extra_body": {"ignore_eos": True}}
        with client.messages.stream(**long) as stream:
            next(iter(stream))
            try:
                client.messages.create(model=MODEL, max_tokens=1, messages=QUESTION)
                checks.check("429", False, "no error")
            except anthropic.RateLimitError as error:
                checks.check("429 with Retry-After", error.response.headers.get("retry-after") is not None)
            retried = []
            patient = client_of(server, api_key="secret", max_retries=20)
            thread = threading.Thread(target=lambda: retried.append(
                patient.messages.create(model=MODEL, max_tokens=2, messages=QUESTION)))
            thread.start()
            time.sleep(0.2)
        thread.join(60)
        checks.equal("429: the client's retry gets through", len(retried), 1)


def main():
    checks = Checks()
    with Server() as server:
        client = client_of(server)
        text(checks, server, client)
        tools(checks, client)
        runner(checks, client)
        thinking(checks, client)
        errors(checks, server, client)
        abort(checks, server, client)
    busy(checks)
    checks.finish()


if __name__ == "__main__":
    main()
