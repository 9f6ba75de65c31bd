"""/v1/responses as the real openai client sees it: text, streams, tools, reasoning, the store, errors."""

import json
import threading
import time

import openai
from openai.types.responses import Response

from harness import Checks
from serve_harness import MODEL, Server

QUESTION = "What is a lighthouse?"
TOOL = {"type": "function", "name": "get_weather", "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        "strict": False}
ASK = {
    "text": {"input": QUESTION},
    "tools": {"input": [{"role": "user", "content": "What is the weather in Paris?"}], "tools": [TOOL]},
    "reasoning": {"input": "What is 3 + 4?", "reasoning": {"effort": "low"}},
}


def client_of(server, **more):
    return openai.OpenAI(base_url=server.url + "/v1", api_key=more.pop("api_key", "none"),
                         max_retries=more.pop("max_retries", 0), timeout=120, **more)


def ask(client, kind, **more):
    return client.responses.create(**{"model": MODEL, "max_output_tokens": 96, "temperature": 0, **ASK[kind], **more})


def items(response):
    """The output without what differs from one request to the next."""
    return [item.model_dump(exclude_none=True, exclude={"id", "call_id"}) for item in response.output]


def strict(checks, name, response):
    try:
        Response.model_validate_json(response.to_json(), strict=True)
        checks.check(f"{name}: of OpenAI's type", True)
    except ValueError as error:
        checks.check(f"{name}: of OpenAI's type", False, error)


def streamed(checks, client, kind, **more):
    """Reads a stream; checks that every event is consistent with the items. -> the last response."""
    events = list(ask(client, kind, stream=True, **more))
    types = [event.type for event in events]
    checks.equal(f"{kind}: events are numbered", [event.sequence_number for event in events], list(range(len(events))))
    checks.equal(f"{kind}: the first events", types[:3],
                 ["response.created", "response.in_progress", "response.output_item.added"])
    for event in events:
        try:
            type(event).model_validate_json(event.to_json(), strict=True)
        except ValueError as error:
            checks.check(f"{kind}: {event.type} of OpenAI's type", False, error)
    last = events[-1].response
    texts = {}
    for event in events:
        if event.type.endswith(".delta"):
            texts[event.item_id] = texts.get(event.item_id, "") + event.delta
    expected = {}
    for item in last.output:
        expected[item.id] = item.arguments if item.type == "function_call" else item.content[0].text
    checks.equal(f"{kind}: the deltas are the items", texts, expected)
    done = [event.item.id for event in events if event.type == "response.output_item.done"]
    checks.equal(f"{kind}: items end in order", done, [item.id for item in last.output])
    return last, types


def whole_and_streamed(checks, client, kind):
    whole = ask(client, kind)
    strict(checks, kind, whole)
    last, types = streamed(checks, client, kind)
    checks.equal(f"{kind}: the last event", types[-1], "response.completed")
    checks.equal(f"{kind}: streamed alike", items(last), items(whole))
    checks.equal(f"{kind}: usage streamed", last.usage.output_tokens, whole.usage.output_tokens)
    checks.equal(f"{kind}: total tokens", whole.usage.total_tokens, whole.usage.input_tokens + whole.usage.output_tokens)
    checks.equal(f"{kind}: status", (whole.status, whole.error, whole.incomplete_details), ("completed", None, None))
    return whole


def text(checks, client):
    whole = whole_and_streamed(checks, client, "text")
    chat = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": QUESTION}], temperature=0)
    checks.equal("text: that of a chat", whole.output_text, chat.choices[0].message.content)
    short = ask(client, "text", max_output_tokens=3)
    checks.equal("max_output_tokens", (short.status, short.incomplete_details.reason, short.usage.output_tokens),
                 ("incomplete", "max_output_tokens", 3))
    checks.equal("max_output_tokens: the item is incomplete", short.output[-1].status, "incomplete")
    _, types = streamed(checks, client, "text", max_output_tokens=3)
    checks.equal("max_output_tokens: streamed", types[-1], "response.incomplete")
    told = ask(client, "text", instructions="Answer in French.", metadata={"a": "b"}, max_output_tokens=4)
    checks.check("instructions count", told.usage.input_tokens > short.usage.input_tokens, told.usage)
    checks.equal("the reply repeats the request", (told.instructions, told.metadata, told.max_output_tokens, told.temperature),
                 ("Answer in French.", {"a": "b"}, 4, 0))


def tools(checks, client):
    whole = whole_and_streamed(checks, client, "tools")
    calls = [item for item in whole.output if item.type == "function_call"]
    if not checks.equal("tools: one call", [call.name for call in calls], ["get_weather"]):
        return
    checks.equal("tools: arguments", json.loads(calls[0].arguments), {"city": "Paris"})
    result = {"type": "function_call_output", "call_id": calls[0].call_id, "output": "18 degrees"}
    history = [*ASK["tools"]["input"], *(item.model_dump(exclude_none=True) for item in whole.output), result]
    sent = ask(client, "tools", input=history)
    checks.equal("tools: an answer after the result", [item.type for item in sent.output], ["message"])
    kept = ask(client, "tools", input=[result], previous_response_id=whole.id)
    checks.equal("tools: the same from the store", items(kept), items(sent))
    checks.equal("tools: as many tokens", kept.usage.input_tokens, sent.usage.input_tokens)
    none = ask(client, "tools", tool_choice="none")
    checks.check("tools: tool_choice none", all(item.type == "message" for item in none.output), none)


def reasoning(checks, client):
    whole = whole_and_streamed(checks, client, "reasoning")
    checks.equal("reasoning: first, then a message", [item.type for item in whole.output], ["reasoning", "message"])
    checks.check("reasoning: there is some", len(whole.output[0].content[0].text) > 10, whole.output[0])
    checks.check("reasoning: its tokens are counted",
                 0 < whole.usage.output_tokens_details.reasoning_tokens < whole.usage.output_tokens, whole.usage)


def store(checks, server, client):
    first = ask(client, "text")
    checks.equal("store: read again", client.responses.retrieve(first.id).to_json(), first.to_json())
    more = ask(client, "text", input="And who keeps it?", previous_response_id=first.id)
    checks.check("store: the next one knows the first", more.usage.input_tokens > first.usage.total_tokens - 5, more.usage)
    checks.equal("store: told", (more.previous_response_id, more.store), (first.id, True))
    try:
        client.responses.cancel(first.id)
        checks.check("store: a finished one cannot be cancelled", False)
    except openai.BadRequestError:
        checks.check("store: a finished one cannot be cancelled", True)
    client.responses.delete(first.id)
    for name, call in (("read", lambda: client.responses.retrieve(first.id)),
                       ("cancelled", lambda: client.responses.cancel(first.id)),
                       ("deleted", lambda: client.responses.delete(first.id))):
        try:
            call()
            checks.check(f"store: forgotten, not {name}", False)
        except openai.NotFoundError:
            checks.check(f"store: forgotten, not {name}", True)
    unkept = ask(client, "text", store=False, max_output_tokens=2)
    checks.equal("store: false", server.request("GET", f"/v1/responses/{unkept.id}")[0], 404)
    try:
        ask(client, "text", previous_response_id=unkept.id)
        checks.check("store: an unknown one is refused by name", False)
    except openai.BadRequestError as error:
        checks.equal("store: an unknown one is refused by name", error.param, "previous_response_id")


def abort_and_busy(checks):
    with Server("--max-num-seqs", 1, "--max-num-queued-reqs", 0, "--api-key", "secret", "--response-store-mib", 0) as server:
        client = client_of(server, api_key="secret")
        long = {"model": MODEL, "input": QUESTION, "max_output_tokens": 900, "extra_body": {"ignore_eos": True}}
        stream = client.responses.create(**long, stream=True)
        iterator = iter(stream)
        while next(iterator).type != "response.output_text.delta":
            pass
        try:
            client.responses.create(model=MODEL, input=QUESTION, max_output_tokens=1)
            checks.check("429", False, "no error")
        except openai.RateLimitError as error:
            checks.check("429 with Retry-After", error.response.headers.get("retry-after") is not None)
        retried = []
        patient = client_of(server, api_key="secret", max_retries=20)
        thread = threading.Thread(target=lambda: retried.append(
            patient.responses.create(model=MODEL, input=QUESTION, max_output_tokens=2)))
        thread.start()
        time.sleep(0.2)
        stream.close()
        thread.join(60)
        checks.equal("abort: its place is free for the one that waits", len(retried), 1)
        if retried:
            checks.equal("no store: told", retried[0].store, False)
        try:
            client.responses.create(model=MODEL, input=QUESTION, previous_response_id="resp_1")
            checks.check("no store: refused by name", False)
        except openai.BadRequestError as error:
            checks.equal("no store: refused by name", error.param, "previous_response_id")
    with Server("--shutdown-timeout", 0) as server:
        stream = client_of(server).responses.create(model=MODEL, input=QUESTION, max_output_tokens=900, stream=True,
                                                    extra_body={"ignore_eos": True})
        iterator = iter(stream)
        next(iterator)
        server.process.terminate()
        try:
            types = [event.type for event in iterator]
            checks.check("cut off: the stream ends with an error", False, types[-2:])
        except openai.APIError as error:
            checks.check("cut off: the stream ends with an error", "shutting down" in str(error), error)


def main():
    checks = Checks()
    with Server() as server:
        client = client_of(server)
        text(checks, client)
        tools(checks, client)
        reasoning(checks, client)
        store(checks, server, client)
    abort_and_busy(checks)
    checks.finish()


if __name__ == "__main__":
    main()
