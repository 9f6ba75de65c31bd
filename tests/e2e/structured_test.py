"""Structured output and forced tool calls through the real OpenAI client, for every K, against the demo pair.

The demo pair is small and has seen no JSON: whatever form its answers have comes from the grammar.
"""

import collections
import concurrent.futures
import datetime
import enum
import json
import re
import time

import jsonschema
import openai
import pydantic

from harness import ROOT, Checks
from serve_harness import MODEL, Server

FORMATS = jsonschema.Draft202012Validator.FORMAT_CHECKER
QUESTION = [{"role": "user", "content": "What is a lighthouse?"}]


class Kind(enum.Enum):
    TOWER = "tower"
    HOUSE = "house"


class Part(pydantic.BaseModel):
    name: str = pydantic.Field(min_length=1, max_length=12)
    height: float = pydantic.Field(ge=0, le=100)


class Building(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    kind: Kind
    built: datetime.date
    parts: list[Part] = pydantic.Field(min_length=1, max_length=2)
    keeper: str | None = pydantic.Field(default=None, max_length=8)
    stories: int = pydantic.Field(gt=0, lt=20)


TOOLS = [{"type": "function", "function": {
    "name": "get_weather", "strict": True,
    "parameters": {"type": "object", "additionalProperties": False, "required": ["city", "days", "unit"],
                   "properties": {"city": {"type": "string", "maxLength": 10},
                                  "days": {"type": "integer", "minimum": 1, "maximum": 7},
                                  "unit": {"enum": ["C", "F"]}}}}},
         {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}]


def client_of(server):
    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=300)


def ask(client, **more):
    return client.chat.completions.create(model=MODEL, messages=QUESTION, seed=3, **more).choices[0]


def schemas(checks, client):
    """-> answers, to compare between servers of different K."""
    form = {"type": "json_schema", "json_schema": {"name": "building", "strict": True,
                                                   "schema": Building.model_json_schema()}}
    answers = []
    for temperature in (0, 1):
        choice = ask(client, response_format=form, temperature=temperature, max_tokens=400)
        checks.equal(f"pydantic schema, temperature {temperature}: ends by itself", choice.finish_reason, "stop")
        try:
            Building.model_validate_json(choice.message.content)
        except pydantic.ValidationError as error:
            checks.check(f"pydantic schema, temperature {temperature}", False, f"{error}\n{choice.message.content}")
        answers.append(choice.message.content)
        stream = client.chat.completions.create(model=MODEL, messages=QUESTION, seed=3, response_format=form,
                                                temperature=temperature, max_tokens=400, stream=True)
        checks.equal("the deltas are the answer",
                     "".join(c.choices[0].delta.content or "" for c in stream if c.choices), choice.message.content)
    parsed = client.chat.completions.parse(model=MODEL, messages=QUESTION, response_format=Building, seed=3,
                                           temperature=0, max_tokens=400)
    checks.check("parse() gives the object", isinstance(parsed.choices[0].message.parsed, Building),
                 parsed.choices[0].message)
    return answers


def outputs(checks, client):
    answers = []
    for name, outputs, good in (
            ("choice", {"choice": ["a tower", "a ship"]}, lambda t: t in ("a tower", "a ship")),
            ("regex", {"regex": r"[A-Z][a-z]{3,8}: \d{2}\.\d"}, lambda t: re.fullmatch(r"[A-Z][a-z]{3,8}: \d{2}\.\d", t)),
            ("grammar", {"grammar": 'root ::= sum\nsum ::= num ("+" num){1,3}\nnum ::= [1-9] [0-9]{0,2}'},
             lambda t: re.fullmatch(r"[1-9]\d{0,2}(\+[1-9]\d{0,2}){1,3}", t)),
            ("json", {"json": {"type": "array", "items": {"enum": [1, "x", None]}, "minItems": 2, "maxItems": 3}},
             lambda t: 2 <= len(json.loads(t)) <= 3)):
        choice = ask(client, temperature=1, max_tokens=120, extra_body={"structured_outputs": outputs})
        checks.check(f"{name}: {choice.message.content!r}", choice.finish_reason == "stop" and good(choice.message.content),
                     choice)
        answers.append(choice.message.content)
    completion = client.completions.create(model=MODEL, prompt="A lighthouse is", seed=3, temperature=1, max_tokens=60,
                                           extra_body={"structured_outputs": {"choice": ["yes", "no"]}})
    checks.check("completions take it too", completion.choices[0].text in ("yes", "no"), completion)
    return answers


def suite(checks, server):
    """What the pair generates for the schemas of the official suite satisfies them, says another implementation."""
    folder = ROOT / "tests" / "data" / "json_schema" / "draft2020-12"
    counts = collections.Counter()
    schemas_ = [group["schema"] for file in sorted(folder.glob("*.json")) for group in json.loads(file.read_text())]

    def one(schema):
        body = {"model": MODEL, "prompt": "An example:", "max_tokens": 120, "temperature": 1, "seed": 7,
                "structured_outputs": {"json": json.dumps(schema)}}
        return schema, *server.json("POST", "/v1/completions", body)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for schema, status, reply in pool.map(one, schemas_):
            if status == 400:
                counts["refused"] += 1
                continue
            choice = reply["choices"][0] if status == 200 else {}
            if choice.get("finish_reason") != "stop":
                counts["cut off" if status == 200 else "failed"] += 1
                continue
            counts["whole"] += 1
            fault = None
            try:
                jsonschema.Draft202012Validator(schema, format_checker=FORMATS).validate(json.loads(choice["text"]))
            except (ValueError, jsonschema.ValidationError) as error:
                fault = error
            checks.check("suite: an answer satisfies its schema", fault is None, f"{schema} {choice['text']} {fault}")
    print("suite, generated:", dict(counts))
    checks.equal("suite: nothing failed", counts["failed"], 0)
    checks.check("suite: many are whole", counts["whole"] > 60, counts)


def tools(checks, client):
    answers = []
    for name, choice_of, more in (("required", "required", {"parallel_tool_calls": False}),
                                  ("named", {"type": "function", "function": {"name": "get_weather"}}, {})):
        choice = ask(client, tools=TOOLS, tool_choice=choice_of, temperature=1, max_tokens=300, **more)
        calls = choice.message.tool_calls or []
        checks.equal(f"{name}: finish_reason", choice.finish_reason, "tool_calls")
        if name == "required":
            checks.equal("one call at a time", len(calls), 1)
        for call in calls:
            arguments = json.loads(call.function.arguments)
            if call.function.name == "get_weather":
                good = (set(arguments) == {"city", "days", "unit"} and len(arguments["city"]) <= 10
                        and 1 <= arguments["days"] <= 7 and arguments["unit"] in ("C", "F"))
            else:
                good = call.function.name == "now" and arguments == {}
            checks.check(f"{name}: {call.function.name}({call.function.arguments})", good, call)
        if name == "named":
            checks.check("the tool that was named", calls and {c.function.name for c in calls} == {"get_weather"}, calls)
        answers.append([(c.function.name, c.function.arguments) for c in calls])
    auto = ask(client, tools=TOOLS, temperature=0, max_tokens=60)
    checks.check("a strict tool leaves the model free not to call it", auto.finish_reason in ("stop", "length", "tool_calls"),
                 auto)
    return answers


def thinking(checks, client):
    """The form begins after the thought."""
    choice = ask(client, temperature=1, max_tokens=300, reasoning_effort="low",
                 extra_body={"structured_outputs": {"choice": ["yes", "no"]}})
    content = choice.message.content
    good = content in ("yes", "no") if choice.finish_reason == "stop" else not content
    checks.check("after a thought: the answer or nothing yet", good, choice)


def refusals(checks, server, client):
    def status(**body):
        code, reply = server.json("POST", "/v1/chat/completions", {"model": MODEL, "messages": QUESTION, **body})
        return code, reply.get("error", {}).get("message", ""), reply.get("error", {}).get("param")

    def schema(value):
        return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": value}}}

    where = "response_format.json_schema.schema#"
    for name, body, start in (
            ("keyword", schema({"properties": {"a": {"not": {}}}}), where + "/properties/a/not: expected"),
            ("format", schema({"format": "iri"}), where + "/format: expected"),
            ("nothing satisfies it", schema(False), "response_format.json_schema.schema: expected"),
            ("no schema", {"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
            ("type", {"response_format": {"type": "xml"}}, "response_format.type: expected"),
            ("two forms", {"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs: expected"),
            ("none", {"structured_outputs": {}}, "structured_outputs: expected"),
            ("both", {"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}},
             "structured_outputs: expected"),
            ("old names", {"guided_json": {"type": "integer"}}, "guided_json:"),
            ("regex", {"structured_outputs": {"regex": "(?=a)"}}, "structured_outputs.regex: expected"),
            ("grammar", {"structured_outputs": {"grammar": "root ::= x"}}, ""),
            ("min_tokens", {"structured_outputs": {"regex": "a"}, "min_tokens": 4}, "min_tokens: expected"),
            ("ignore_eos", {"structured_outputs": {"regex": "a"}, "ignore_eos": True}, "ignore_eos: expected"),
            ("forced without tools", {"tool_choice": "required"}, "tool_choice: expected"),
            ("unknown tool", {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}},
             "tool_choice: expected"),
            ("strict tool", {"tools": [{"type": "function", "function": {"name": "f", "strict": True, "parameters": {
                "type": "object", "properties": {"a": {"not": {}}}}}}]},
             "tools[0].function.parameters#/properties/a/not: expected")):
        code, message, _ = status(**body)
        checks.check(f"refused: {name}", code == 400 and message.startswith(start), (code, message))
    for name, outputs in (("regex", {"regex": "(((.{0,99}){0,99}){0,99}){0,99}"}),
                          ("grammar", {"grammar": "root ::= " + "(" * 30000 + '"a"' + ")" * 30000}),
                          ("schema", {"json": json.dumps({"items": {"pattern": "^.{0,900}$"}})})):
        started = time.monotonic()
        code, message, _ = status(structured_outputs=outputs)
        checks.check(f"bomb: {name}", code == 400 and time.monotonic() - started < 20, (code, message))
    checks.equal("the server is well", server.request("GET", "/health")[0], 200)


def other_routes(checks, client):
    reply = client.responses.create(model=MODEL, input="What is a lighthouse?", temperature=0, max_output_tokens=300,
                                    text={"format": {"type": "json_schema", "name": "part", "strict": True,
                                                     "schema": Part.model_json_schema()}})
    try:
        Part.model_validate_json(reply.output_text)
    except pydantic.ValidationError as error:
        checks.check("responses: text.format", False, f"{error}\n{reply.output_text}")


def main():
    checks = Checks()
    answers = {}
    for drafts in (4, 0, 1):
        with Server("--max-num-seqs", 4, drafts=drafts) as server:
            client = client_of(server)
            answers[drafts] = [schemas(checks, client), outputs(checks, client), tools(checks, client)]
            if drafts == 4:
                thinking(checks, client)
                refusals(checks, server, client)
                other_routes(checks, client)
                suite(checks, server)
                checks.check("drafts are accepted inside a grammar",
                             (server.metric("vllm:spec_decode_num_accepted_tokens_total") or 0) > 0)
            checks.equal("stops", server.stop(), 0)
    for drafts in (0, 1):
        checks.equal(f"K = {drafts} gives the text of K = 4", answers[drafts], answers[4])
    checks.finish()


if __name__ == "__main__":
    main()
