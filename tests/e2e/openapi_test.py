"""/openapi.json: a valid description, of the routes that there are and of the replies that they give."""

import json
import re

import jsonschema
from openapi_spec_validator import validate

from harness import ROOT, Checks
from serve_harness import MODEL, Server

CHAT = {"messages": [{"role": "user", "content": "What is 3 + 4?"}], "max_tokens": 40, "temperature": 0}
TOOL = {"name": "get_weather", "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}
WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]
THINK = {"chat_template_kwargs": {"enable_thinking": True}}
ASK = [
    ("POST", "/v1/chat/completions", CHAT), ("POST", "/v1/chat/completions", {**CHAT, **THINK, "n": 2}),
    ("POST", "/v1/chat/completions", {**CHAT, "logprobs": True, "top_logprobs": 2, "prompt_logprobs": 1,
                                      "return_token_ids": True, "return_draft_info": True, "stop": ["7"]}),
    ("POST", "/v1/chat/completions", {"messages": WEATHER, "temperature": 0, "tools": [{"type": "function", "function": TOOL}]}),
    ("POST", "/v1/completions", {"prompt": ["a", "b"], "max_tokens": 4, "logprobs": 1, "echo": True, "prompt_logprobs": 0}),
    ("POST", "/v1/responses", {"input": "What is 3 + 4?", "reasoning": {"effort": "low"}, "max_output_tokens": 40}),
    ("POST", "/v1/responses", {"input": WEATHER, "temperature": 0, "tools": [{"type": "function", **TOOL}]}),
    ("POST", "/v1/messages", {"messages": CHAT["messages"], "max_tokens": 60, "thinking": {"type": "adaptive"}}),
    ("POST", "/v1/messages", {"messages": WEATHER, "max_tokens": 96, "temperature": 0,
                              "tools": [{"name": TOOL["name"], "input_schema": TOOL["parameters"]}]}),
    ("POST", "/v1/messages/count_tokens", {"messages": WEATHER}), ("POST", "/v1/messages", {"messages": WEATHER}),
    ("POST", "/invocations", CHAT), ("POST", "/invocations", {"prompt": "a", "max_tokens": 2}), ("POST", "/invocations", {}),
    ("POST", "/v1/chat/completions", {**CHAT, "bad_words": ["7"], "logprobs": True, "logprob_token_ids": [5, 6],
                                      "num_speculative_tokens": 1, "thinking_token_budget": 3, "documents": [], **THINK}),
    ("POST", "/v1/chat/completions", {}), ("POST", "/v1/responses", {}), ("POST", "/v1/completions", {}),
    ("GET", "/v1/responses/resp_none", None), ("POST", "/v1/responses/resp_none/cancel", None),
    ("DELETE", "/v1/responses/resp_none", None),
    ("POST", "/tokenize", {"prompt": "a", "return_token_strs": True}), ("POST", "/detokenize", {"tokens": [300]}),
    ("POST", "/tokenize", {"messages": WEATHER}),
    ("GET", "/v1/models", None), ("GET", f"/v1/models/{MODEL}", None), ("GET", "/v1/models/none", None), ("GET", "/health", None),
    ("GET", "/ping", None), ("POST", "/ping", None), ("GET", "/version", None), ("GET", "/load", None), ("GET", "/metrics", None),
    ("GET", "/openapi.json", None),
]
FIELDS = {"ChatRequest": ("/v1/chat/completions", CHAT), "CompletionRequest": ("/v1/completions", {"prompt": "a", "max_tokens": 1}),
          "ResponseRequest": ("/v1/responses", {"input": "a", "max_output_tokens": 1}),
          "MessagesRequest": ("/v1/messages", {"messages": WEATHER, "max_tokens": 1}),
          "CountTokensRequest": ("/v1/messages/count_tokens", {"messages": WEATHER}),
          "TokenizeRequest": ("/tokenize", {"prompt": "a"}), "TokenizeChatRequest": ("/tokenize", {"messages": WEATHER}), "DetokenizeRequest": ("/detokenize", {"tokens": [300]})}


def route_of(document, path):
    for template in sorted(document["paths"], key=lambda name: name.count("{")):
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
            return template
    raise KeyError(path)


def replies(checks, server, document):
    asked = set()
    for method, path, body in ASK:
        route = route_of(document, path)
        operation = document["paths"][route][method.lower()]
        asked.add((route, method.lower()))
        status, headers, text = server.request(method, path, body)
        name = f"{method} {path} {status}"
        if not checks.check(f"{name}: described", str(status) in operation["responses"], text[:200]):
            continue
        content = operation["responses"][str(status)]["content"]
        kind = headers["Content-Type"].split(";")[0]
        if not checks.check(f"{name}: type of the content", kind in content, kind) or kind != "application/json":
            continue
        schema = {**content[kind]["schema"], "components": document["components"]}
        try:
            jsonschema.validate(json.loads(text), schema, jsonschema.Draft202012Validator)
            checks.check(f"{name}: as described", True)
        except jsonschema.ValidationError as error:
            checks.check(f"{name}: as described", False, error.message + " at " + error.json_path)
    described = {(route, method) for route, operations in document["paths"].items() for method in operations}
    checks.equal("every operation has been asked", asked, described)


def streams(checks, server, document):
    schema = {"$ref": "#/components/schemas/ChatCompletionChunk", "components": document["components"]}
    body = {**CHAT, **THINK, "stream": True, "stream_options": {"include_usage": True}}
    events = server.request("POST", "/v1/chat/completions", body)[2].split("\n\n")
    chunks = [json.loads(event[6:]) for event in events if event.startswith("data: {")]
    faults = [error.message for chunk in chunks for error in jsonschema.Draft202012Validator(schema).iter_errors(chunk)]
    checks.check("chunks: as described", len(chunks) > 3 and not faults, faults)


def fields(checks, server, document):
    """Every field that is described is one that the server knows: it does not call it unknown."""
    for name, (path, body) in FIELDS.items():
        for field in document["components"]["schemas"][name]["properties"]:
            status, text = server.request("POST", path, {**body, field: body.get(field)})[::2]
            checks.check(f"{path}: {field} is known", "expected a known field" not in text, text)
        status, text = server.request("POST", path, {**body, "no_such_field": 1})[::2]
        checks.check(f"{path}: others are not", status == 400 and "no_such_field" in text, text)


def main():
    checks = Checks()
    with Server("--per-request-spec-decode-metrics") as server:
        document = json.loads(server.request("GET", "/openapi.json")[2])
        validate(document)
        checks.equal("info.version", document["info"]["version"], server.json("GET", "/version")[1]["version"])
        source = (ROOT / "src" / "server" / "service.cc").read_text()
        served = set(re.findall(r'^      \{"(/[^"]*)", \{', source, re.MULTILINE))
        checks.equal("every route is described", {re.sub(r"/v1/models/\{id\}", "/v1/models", path) for path in document["paths"]}, served)
        replies(checks, server, document)
        streams(checks, server, document)
        fields(checks, server, document)
    with Server("--api-key", "secret") as server:
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                status = server.request(method.upper(), path.replace("{id}", "x"))[0]
                checks.equal(f"key: {method} {path}", status == 401, operation.get("security") != [])
    checks.finish()


if __name__ == "__main__":
    main()
