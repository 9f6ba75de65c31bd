"""Raw abuse of /v1/responses and /v1/messages: wrong types everywhere, huge and deep bodies, disconnects in streams."""

import copy
import json
import random
import socket
import time

from harness import Checks
from serve_harness import MODEL, Server
from serve_hostile_test import Raw, num_aborted, post

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
BODIES = {
    "/v1/responses": {
        "model": MODEL, "instructions": "Be brief.", "max_output_tokens": 1, "temperature": 0, "store": True, "metadata": {"a": "b"},
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
                  {"type": "reasoning", "id": "rs", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
                  {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{\"city\": \"x\"}"},
                  {"type": "function_call_output", "call_id": "c", "output": "18"}],
        "tools": [{"type": "function", "name": "f", "description": "d", "parameters": SCHEMA, "strict": False}],
        "tool_choice": "auto", "text": {"format": {"type": "text"}}, "reasoning": {"effort": "low"}, "include": [],
        "bad_words": ["ship"], "num_speculative_tokens": 1, "stream_interval": 2, "thinking_token_budget": 5,
        "truncation": "disabled", "previous_response_id": None, "stream_options": {"include_obfuscation": False}},
    "/v1/messages": {
        "model": MODEL, "max_tokens": 1, "temperature": 0, "system": [{"type": "text", "text": "Be brief."}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]},
                     {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm.", "signature": "s"},
                                                       {"type": "tool_use", "id": "t", "name": "f", "input": {"city": "x"}}]},
                     {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "is_error": False,
                                                   "content": [{"type": "text", "text": "18"}]}]}],
        "tools": [{"name": "f", "description": "d", "input_schema": SCHEMA}], "tool_choice": {"type": "auto"},
        "bad_words": ["ship"], "num_speculative_tokens": 1, "stream_interval": 2,
        "stop_sequences": ["STOP"], "thinking": {"type": "enabled", "budget_tokens": 5}, "metadata": {"user_id": "u"}},
}
WRONG = [None, True, -1, 0, 1.5, 1e300, 2**63, 2**64, "", "x", "\u0000\ud7ff", [], [None], [[]], {}, {"type": 3}, {"type": "x"},
         {"a": {"b": []}}, ["x", 3], "x" * 5000]


def places(value, path=()):
    """Every place in a JSON value."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def replaced(body, path, value):
    body = copy.deepcopy(body)
    place = body
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return body


def wrong_types(checks, server, path, body):
    status, reply = server.json("POST", path, body)
    checks.equal(f"{path}: good as it is", status, 200)
    random.seed(3)
    statuses = {}
    for place in places(body):
        if not place:
            continue
        for value in random.sample(WRONG, 6):
            changed = replaced(body, place, value)
            status, text = server.request("POST", path, json.dumps(changed))[::2]
            statuses[status] = statuses.get(status, 0) + 1
            good = status == 200 or (status in (400, 404) and json.loads(text)["error"]["message"])
            checks.check(f"{path}: {place} = {str(value)[:40]}: 200 or a refusal", good, f"{status} {text[:200]}")
    checks.check(f"{path}: most are refused, some are harmless", statuses.get(400, 0) > statuses.get(200, 0) > 5, statuses)


def huge_and_deep(checks, server, path, body):
    text_path = ("input", 0, "content", 0, "text") if path == "/v1/responses" else ("messages", 0, "content", 0, "text")
    list_key = text_path[0]
    cases = [("a long prompt", replaced(body, text_path, "word " * 400_000)),
             ("many items", {**body, list_key: body[list_key][:1] * 20_000}),
             ("many tools", {**body, "tools": body["tools"] * 5000}),
             ("a long id", {**body, "metadata": {"a": "b" * 1_000_000}})]
    for name, case in cases:
        status = server.request("POST", path, json.dumps(case), timeout=120)[0]
        checks.check(f"{path}: {name}", status == 400 or (name == "a long id" and status == 200), status)
    for deep in (99, 5000):
        value = "[" * deep + "]" * deep
        status = server.request("POST", path, '{"%s": %s}' % (list_key, value))[0]
        checks.equal(f"{path}: {deep} levels", status, 400)
    for name, data in (("no JSON", b"\xff\xfe"), ("a list", b"[]"), ("cut off", b'{"input": '), ("NUL", b'{"input": "\x00"}'),
                       ("half a surrogate", b'{"input": "\\ud800", "messages": "\\ud800", "max_tokens": 1}'),
                       ("bytes that are no UTF-8", b'{"input": "\xc3\x28"}'), ("twice", b'{"input": "a", "input": 3}')):
        status = server.request("POST", path, data)[0]
        checks.equal(f"{path}: {name}", status, 400)


def disconnects(checks, server, path, body):
    long = {**body, "ignore_eos": True, "max_output_tokens" if path == "/v1/responses" else "max_tokens": 900, "tools": []}
    text, stream = json.dumps(long), json.dumps({**long, "stream": True})
    for name, data, read in (("the request", post(text, path=path), 0), ("the first event", post(stream, path=path), 1),
                             ("some kilobytes", post(stream, path=path), 6000)):
        before = num_aborted(server)
        with Raw(server) as raw:
            raw.send(data)
            if read:
                raw.read_some(read)
            else:
                time.sleep(0.1)
            raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        checks.check(f"{path}: gone after {name}: everything is free again", server.wait_idle())
        checks.equal(f"{path}: gone after {name}: aborted", num_aborted(server) - before, 1)


def ids(checks, server):
    for name, path in (("slashes", "/v1/responses/../../etc/passwd"), ("a long one", "/v1/responses/" + "a" * 7000), ("none", "/v1/responses/"),
                       ("percent", "/v1/responses/%00%ff"), ("deeper", "/v1/responses/a/b/c")):
        checks.equal(f"a stored response: {name}", server.request("GET", path)[0], 404)
    checks.equal("cancel: none", server.request("POST", "/v1/responses//cancel")[0], 404)
    checks.equal("cancel: of nothing", server.request("POST", "/v1/responses/cancel")[0], 405)


def store_is_bounded(checks):
    with Server("--response-store-mib", 1) as server:
        body = {"input": "Hello", "max_output_tokens": 1, "metadata": {"a": "b" * 100_000}}
        kept = [server.json("POST", "/v1/responses", body)[1]["id"] for _ in range(20)]
        found = [server.request("GET", f"/v1/responses/{one}")[0] for one in kept]
        checks.check("the store: old ones go, new ones stay", found[0] == 404 and found[-1] == 200 and 5 < found.count(200) < 11, found)


def main():
    checks = Checks()
    with Server("--max-num-seqs", 2) as server:
        for path, body in BODIES.items():
            wrong_types(checks, server, path, body)
            huge_and_deep(checks, server, path, body)
            disconnects(checks, server, path, body)
        ids(checks, server)
        checks.equal("/health after all of it", server.request("GET", "/health")[0], 200)
        checks.equal("exit status", server.stop(), 0)
    store_is_bounded(checks)
    checks.finish()


if __name__ == "__main__":
    main()
