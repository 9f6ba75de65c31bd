"""On every route, with 0 to 4 drafts: the deltas of a stream put together are the answer that comes whole, and the same."""

import json

from harness import Checks
from serve_harness import MODEL, Server

QUESTION = [{"role": "user", "content": "What is a lighthouse?"}]
WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
SAMPLED = {"model": MODEL, "temperature": 1.5, "seed": 11, "top_k": 40}
GREEDY = {"model": MODEL, "temperature": 0}
FUNCTION = {"name": "get_weather", "description": "The weather of a city.", "parameters": SCHEMA}


def events(server, path, body):
    text = server.request("POST", path, {**body, "stream": True})[2]
    lines = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def add(parts, kind, text):
    """Text of one kind after text of the same kind is one part."""
    if text:
        if not parts or parts[-1][0] != kind:
            parts.append([kind, ""])
        parts[-1][1] += text


def chat_parts(server, body, stream):
    parts = []
    if stream:
        deltas = [choice["delta"] for event in events(server, "/v1/chat/completions", body) for choice in event["choices"]]
    else:
        deltas = [server.json("POST", "/v1/chat/completions", body)[1]["choices"][0]["message"]]
    for delta in deltas:
        add(parts, "reasoning", delta.get("reasoning"))
        add(parts, "text", delta.get("content"))
        for call in delta.get("tool_calls") or []:
            add(parts, "call", (call["function"].get("name") or "") + call["function"].get("arguments", ""))
    return parts


def completion_parts(server, body, stream):
    replies = events(server, "/v1/completions", body) if stream else [server.json("POST", "/v1/completions", body)[1]]
    return "".join(choice["text"] for reply in replies for choice in reply["choices"])


def response_parts(server, body, stream):
    parts = []
    if not stream:
        for item in server.json("POST", "/v1/responses", body)[1]["output"]:
            add(parts, item["type"], item["name"] + item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"])
        return parts
    kinds = {}
    for event in events(server, "/v1/responses", body):
        if event["type"] == "response.output_item.added":
            kinds[event["item"]["id"]] = event["item"]["type"]
            add(parts, event["item"]["type"], event["item"].get("name"))
        elif event["type"].endswith(".delta"):
            add(parts, kinds[event["item_id"]], event["delta"])
    return parts


def message_parts(server, body, stream):
    parts = []
    if not stream:
        for block in server.json("POST", "/v1/messages", body)[1]["content"]:
            add(parts, block["type"], block["name"] + json.dumps(block["input"]) if block["type"] == "tool_use"
                else block[block["type"]])
        return parts
    for event in events(server, "/v1/messages", body):
        if event["type"] == "content_block_start":
            parts.append([event["content_block"]["type"], event["content_block"].get("name", ""), ""])
        elif event["type"] == "content_block_delta":
            delta = event["delta"]
            parts[-1][1] += delta.get("text", "") + delta.get("thinking", "")
            parts[-1][2] += delta.get("partial_json", "")
    return [[kind, text + (json.dumps(json.loads(arguments)) if kind == "tool_use" else "")] for kind, text, arguments in parts]


THINK = {"chat_template_kwargs": {"enable_thinking": True}}
ROUTES = {
    "chat": (chat_parts, [
        {**SAMPLED, "messages": QUESTION, "max_tokens": 60}, {**GREEDY, **THINK, "messages": QUESTION, "max_tokens": 80},
        {**SAMPLED, "messages": QUESTION, "max_tokens": 60, "stop": ["the ", "."]},
        {**GREEDY, "messages": WEATHER, "tools": [{"type": "function", "function": FUNCTION}], "max_tokens": 80}]),
    "completions": (completion_parts, [
        {**SAMPLED, "prompt": "Once upon a time", "max_tokens": 60}, {**GREEDY, "prompt": "The sea", "echo": True, "max_tokens": 60},
        {**SAMPLED, "prompt": "A list:", "max_tokens": 60, "stop": ["\n", "e "], "include_stop_str_in_output": True}]),
    "responses": (response_parts, [
        {**SAMPLED, "input": QUESTION, "max_output_tokens": 60},
        {**GREEDY, "input": QUESTION, "reasoning": {"effort": "high"}, "max_output_tokens": 80},
        {**GREEDY, "input": WEATHER, "tools": [{"type": "function", **FUNCTION}], "max_output_tokens": 80}]),
    "messages": (message_parts, [
        {**SAMPLED, "messages": QUESTION, "max_tokens": 60}, {**SAMPLED, "messages": QUESTION, "max_tokens": 60, "stop_sequences": ["the "]},
        {**GREEDY, "messages": QUESTION, "thinking": {"type": "adaptive"}, "max_tokens": 80},
        {**GREEDY, "messages": WEATHER, "max_tokens": 80,
         "tools": [{"name": "get_weather", "description": "The weather of a city.", "input_schema": SCHEMA}]}]),
}


def main():
    checks = Checks()
    first = {}
    for drafts in range(5):
        with Server(drafts=drafts) as server:
            for route, (read, bodies) in ROUTES.items():
                for index, body in enumerate(bodies):
                    whole, streamed = read(server, body, False), read(server, body, True)
                    name = f"{route} {index} with {drafts} drafts"
                    checks.check(f"{name}: there is something", whole, whole)
                    checks.equal(f"{name}: streamed alike", streamed, whole)
                    checks.equal(f"{name}: as with none", whole, first.setdefault((route, index), whole))
    kinds = {part[0] for (route, _), parts in first.items() if route != "completions" for part in parts}
    checks.check("texts, thoughts and calls were among them",
                 {"text", "reasoning", "call", "message", "function_call", "thinking", "tool_use"} <= kinds, kinds)
    checks.finish()


if __name__ == "__main__":
    main()
