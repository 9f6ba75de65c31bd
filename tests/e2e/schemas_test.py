"""Replies are of the types that OpenAI and Anthropic publish, without coercion; forced tools and schemas on every route."""

import json
from typing import Literal

import anthropic
import openai
import pydantic
from openai.types import Completion, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response

from harness import Checks
from serve_harness import MODEL, Server

QUESTION = [{"role": "user", "content": "What is 3 + 4?"}]
WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
FUNCTION = {"name": "get_weather", "description": "The weather of a city.", "parameters": SCHEMA}
OTHER = {"name": "get_time", "description": "The time in a city.", "parameters": SCHEMA}
CHAT = {"model": MODEL, "messages": QUESTION, "temperature": 0, "max_tokens": 60}


class Place(pydantic.BaseModel):
    """Of bounded length: a text that is cut off is no JSON."""

    name: Literal["Rome", "Oslo"]
    is_capital: bool
    kind: Literal["city", "village"]


def of_type(checks, name, kind, text):
    try:
        kind.model_validate_json(text, strict=True)
        checks.check(f"{name}: of the published type", True)
    except ValueError as error:
        checks.check(f"{name}: of the published type", False, error)


def published_types(checks, server):
    for name, more in (("chat", {}), ("chat with logprobs", {"logprobs": True, "top_logprobs": 2}), ("chat of three", {"n": 3}),
                       ("chat cut off", {"max_tokens": 2}), ("chat with thoughts", {"reasoning_effort": "low"}),
                       ("chat with a call", {"messages": WEATHER, "tools": [{"type": "function", "function": FUNCTION}]})):
        of_type(checks, name, ChatCompletion, server.request("POST", "/v1/chat/completions", {**CHAT, **more})[2])
        stream = {**CHAT, **more, "stream": True, "stream_options": {"include_usage": True}}
        for line in server.request("POST", "/v1/chat/completions", stream)[2].split("\n"):
            if line.startswith("data: {"):
                of_type(checks, name + " chunk", ChatCompletionChunk, line[6:])
    body = {"prompt": ["One", "Two"], "max_tokens": 4, "logprobs": 2}
    of_type(checks, "completion", Completion, server.request("POST", "/v1/completions", body)[2])
    # The type knows no chunk before the last: finish_reason cannot be null in it, and is.
    for line in server.request("POST", "/v1/completions", {**body, "stream": True})[2].split("\n"):
        if line.startswith("data: {") and '"finish_reason":null' not in line:
            of_type(checks, "completion chunk", Completion, line[6:])
    of_type(checks, "model", Model, server.request("GET", f"/v1/models/{MODEL}")[2])
    of_type(checks, "response", Response, server.request("POST", "/v1/responses", {"input": "One", "max_output_tokens": 4})[2])
    of_type(checks, "message", anthropic.types.Message,
            server.request("POST", "/v1/messages", {"messages": QUESTION, "max_tokens": 4})[2])


def schemas(checks, client, other):
    """A schema holds whatever the model would like to say; the sampling is wild on purpose."""
    wild = {"model": MODEL, "temperature": 2, "max_output_tokens": 200}
    for seed in range(3):
        whole = client.responses.parse(input="Tell me of Rome.", text_format=Place, extra_body={"seed": seed}, **wild)
        checks.check("responses: text.format of a pydantic type", isinstance(whole.output_parsed, Place), whole.output_text)
        with client.responses.stream(input="Tell me of Rome.", text_format=Place, extra_body={"seed": seed}, **wild) as stream:
            final = stream.get_final_response()
        checks.equal("responses: streamed alike", final.output_text, whole.output_text)
    message = other.messages.create(
        model=MODEL, max_tokens=200, messages=[{"role": "user", "content": "Tell me of Rome."}], extra_body={"temperature": 2},
        output_config={"format": {"type": "json_schema", "schema": {**Place.model_json_schema(), "additionalProperties": False}}})
    checks.check("messages: output_config.format", Place.model_validate_json(message.content[0].text), message.content)
    for name, call in (
            ("responses", lambda: client.responses.create(model=MODEL, input="x", text={"format": {
                "type": "json_schema", "name": "a", "schema": {"type": "object", "not": {}}}})),):
        try:
            call()
            checks.check(f"{name}: an unsupported keyword is refused by its place", False, "no error")
        except openai.BadRequestError as error:
            checks.check(f"{name}: an unsupported keyword is refused by its place",
                         error.param.startswith("text.format") and "not" in str(error), error)


def forced_tools(checks, client, other):
    tools = [{"type": "function", **function, "strict": True} for function in (FUNCTION, OTHER)]
    for choice, names in (("required", {"get_weather", "get_time"}), ({"type": "function", "name": "get_time"}, {"get_time"})):
        reply = client.responses.create(model=MODEL, input="Hello there.", tools=tools, tool_choice=choice, temperature=0,
                                        max_output_tokens=200, parallel_tool_calls=False)
        calls = [item for item in reply.output if item.type == "function_call"]
        good = len(calls) == 1 and calls[0].name in names and list(json.loads(calls[0].arguments)) == ["city"]
        checks.check(f"responses: tool_choice {choice}", good or reply.status == "incomplete", reply.output)
    tools = [{"name": function["name"], "description": function["description"], "input_schema": SCHEMA, "strict": True}
             for function in (FUNCTION, OTHER)]
    for choice, names in (({"type": "any", "disable_parallel_tool_use": True}, {"get_weather", "get_time"}),
                          ({"type": "tool", "name": "get_time"}, {"get_time"})):
        message = other.messages.create(model=MODEL, max_tokens=200, messages=[{"role": "user", "content": "Hello there."}],
                                        tools=tools, tool_choice=choice, extra_body={"temperature": 0})
        uses = [block for block in message.content if block.type == "tool_use"]
        good = uses and {use.name for use in uses} <= names and all(list(use.input) == ["city"] for use in uses)
        checks.check(f"messages: tool_choice {choice}", good or message.stop_reason == "max_tokens", message.content)


def main():
    checks = Checks()
    with Server() as server:
        client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=120)
        other = anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0, timeout=120)
        published_types(checks, server)
        schemas(checks, client, other)
        forced_tools(checks, client, other)
        checks.equal("/health after all of it", server.request("GET", "/health")[0], 200)
    checks.finish()


if __name__ == "__main__":
    main()
