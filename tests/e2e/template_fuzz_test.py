"""Random conversations through `tandem tokenize --chat`, compared with PyPI jinja2, for every chat template at hand.

    TANDEM=build/release/tandem python tests/e2e/template_fuzz_test.py [--seed N] [--chats N]
"""

import argparse
import copy
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEMO = ROOT / "demo" / "target"
TEMPLATES = ROOT / "tests" / "data" / "templates"
TANDEM = os.environ.get("TANDEM", str(ROOT / "build" / "release" / "tandem"))

WORDS = [
    "Hello", " world", "\n", "  ", "<|turn>", "<turn|>", "<|channel>thought\n", "<channel|>", '<|"|>', "é", "日本", "👍🏽",
    "İ", "ß", "{", "}", "'", '"', "\\", "call:f{x:1}", "<bos>", "\t", "thought", "\u00a0", "<|tool_call>", "0", "-1.5",
    "\r\n", "<|think|>", "{{ x }}", "{% if %}", "\u2028", "\x1f", "Σ",
]
# Names that are also methods of dict or str, keys that sort by case, schema keywords.
KEYS = [
    "b", "A", "a", "Z", "items", "type", "description", "nullable", "Ab", "é", "get", "x y", "required", "properties",
    "enum", "title", "format", "keys", "values", "copy", "Ä", "ä",
]
NUMBERS = [0, 1, -5, 2**53, 10**15, 2**64 - 1, 1.0, 0.1, 1e20, 1e-7, -2.5, 1e16, 123456.789, 3.0e-5, 1 / 3, -0.0, 1e300]


def text(rng, words=6):
    return "".join(rng.choice(WORDS) for _ in range(rng.randrange(words)))


def value(rng, depth=0):
    kind = rng.randrange(8 if depth < 3 else 6)
    if kind == 0:
        return text(rng)
    if kind == 1:
        return rng.choice([True, False, None])
    if kind in (2, 3):
        return rng.choice(NUMBERS)
    if kind == 4:
        return text(rng, 3)
    if kind == 5:
        return rng.choice([[], {}, ""])
    if kind == 6:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return mapping(rng, depth + 1)


def mapping(rng, depth=1):
    return {rng.choice(KEYS): value(rng, depth) for _ in range(rng.randrange(5))}


def schema(rng, depth=0):
    kind = rng.choice(["string", "integer", "boolean", "array", "object", "OBJECT", "String", ["string", "null"], None])
    result = {} if kind is None else {"type": kind}
    if rng.random() < 0.6:
        result["description"] = text(rng)
    if rng.random() < 0.2:
        result["nullable"] = rng.choice([True, False])
    if rng.random() < 0.3:
        result["enum"] = rng.choice([["a", "b"], [1, 2], [], ["x", None, True]])
    if rng.random() < 0.1:
        result[rng.choice(KEYS)] = value(rng, 2)
    if kind == "array" and depth < 3:
        items = [{"type": "string"}, {"type": ["string", "null"]}, {}, "x"]
        result["items"] = schema(rng, depth + 1) if rng.random() < 0.6 else rng.choice(items)
    if kind in ("object", "OBJECT") and depth < 3:
        result["properties"] = {rng.choice(KEYS): schema(rng, depth + 1) for _ in range(rng.randrange(4))}
        if rng.random() < 0.5:
            result["required"] = rng.sample(KEYS, rng.randrange(3))
    return result


def tool(rng):
    function = {"name": rng.choice(["f", "get_weather", "calc"])}
    if rng.random() < 0.9:
        function["description"] = text(rng)
    if rng.random() < 0.85:
        properties = {rng.choice(KEYS): schema(rng, 1) for _ in range(rng.randrange(4))}
        function["parameters"] = {"type": "object", "properties": properties}
        if rng.random() < 0.1:
            del function["parameters"]["type"]
        if rng.random() < 0.5:
            function["parameters"]["required"] = rng.sample(KEYS, rng.randrange(3))
    if rng.random() < 0.1:
        function["response"] = rng.choice([{"type": "object", "description": "d"}, {"type": "string"}, {}])
    return {"type": "function", "function": function}


def content(rng):
    if rng.random() < 0.75:
        return text(rng, 8)
    return [{"type": "text", "text": text(rng)} for _ in range(rng.randrange(4))]


def tool_call(rng):
    arguments = mapping(rng)
    if rng.random() < 0.3:
        arguments = rng.choice([json.dumps(arguments), "", None])
    return {"id": rng.choice(["c1", "c2"]), "type": "function", "function": {"name": "f", "arguments": arguments}}


def message(rng):
    role = rng.choice(["user", "user", "assistant", "assistant", "assistant", "tool", "system", "developer", "critic"])
    result = {"role": role, "content": content(rng)}
    if role == "assistant":
        if rng.random() < 0.2:
            result["content"] = None
        if rng.random() < 0.5:
            result["tool_calls"] = [tool_call(rng) for _ in range(rng.randrange(3))]
        if rng.random() < 0.3:
            result[rng.choice(["reasoning", "reasoning_content"])] = rng.choice([text(rng), None])
        if rng.random() < 0.15:
            result["tool_responses"] = [{"name": rng.choice(["f", ""]), "response": value(rng)}]
    if role == "tool":
        if rng.random() < 0.7:
            result["tool_call_id"] = rng.choice(["c1", "c2", "c3"])
        if rng.random() < 0.4:
            result["name"] = "named"
    return result


def chat(rng):
    kwargs = {}
    for name in ("enable_thinking", "preserve_thinking"):
        if rng.random() < 0.4:
            kwargs[name] = rng.choice([True, False])
    return {
        "messages": [message(rng) for _ in range(rng.randrange(1, 8))],
        "tools": rng.choice([None, None, [tool(rng)], [tool(rng), tool(rng)]]),
        "kwargs": kwargs,
        "generate": rng.choice([True, False]),
    }


def environment():
    def raise_exception(text):
        raise jinja2.exceptions.TemplateError(text)

    def tojson(item, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(item, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    result = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                           extensions=["jinja2.ext.loopcontrols"])
    result.filters["tojson"] = tojson
    result.globals["raise_exception"] = raise_exception
    return result


def with_parsed_arguments(messages):
    """What a server does before rendering: the text of a tool call's arguments becomes a mapping."""
    messages = copy.deepcopy(messages)
    for entry in messages:
        for call in entry.get("tool_calls") or []:
            arguments = call["function"]["arguments"]
            if not isinstance(arguments, dict):
                call["function"]["arguments"] = json.loads(arguments) if arguments else {}
    return messages


def expected_prompt(template, entry):
    try:
        return template.render(messages=with_parsed_arguments(entry["messages"]), tools=entry["tools"],
                               add_generation_prompt=entry["generate"], bos_token="<bos>", eos_token="<eos>",
                               **entry["kwargs"])
    except Exception:  # whatever makes jinja2 fail must be refused
        return None


def tandem_prompt(folder, entry):
    command = [TANDEM, "tokenize", str(folder), "--chat", str(folder / "messages.json")]
    (folder / "messages.json").write_text(json.dumps(entry["messages"]))
    if entry["tools"] is not None:
        (folder / "tools.json").write_text(json.dumps(entry["tools"]))
        command += ["--tools", str(folder / "tools.json")]
    if entry["kwargs"]:
        command += ["--template-kwargs", json.dumps(entry["kwargs"])]
    if not entry["generate"]:
        command += ["--no-generation-prompt"]
    done = subprocess.run(command, capture_output=True, timeout=120)
    if done.returncode < 0:
        raise RuntimeError(f"ended by signal {-done.returncode}")
    return json.loads(done.stdout)["prompt"] if done.returncode == 0 else None


def templates():
    yield from sorted(path for path in TEMPLATES.iterdir() if path.suffix != ".md")
    if (DEMO / "chat_template.jinja").exists():
        yield DEMO / "chat_template.jinja"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--chats", type=int, default=25)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    passed, failures, refused = 0, [], 0
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        shutil.copy(DEMO / "tokenizer.json", folder / "tokenizer.json")
        for path in templates():
            shutil.copy(path, folder / "chat_template.jinja")
            with open(path, newline="", encoding="utf-8") as file:
                template = environment().from_string(file.read())
            for _ in range(args.chats):
                entry = chat(rng)
                expected, got = expected_prompt(template, entry), tandem_prompt(folder, entry)
                refused += expected is None
                if got == expected:
                    passed += 1
                else:
                    failures.append(f"{path.name}: {json.dumps(entry)}\n  expected {expected!r}\n  got      {got!r}")
    for failure in failures[:5]:
        print(failure)
    if refused * 2 > passed:
        failures.append("")
        print(f"jinja2 refused {refused} of the conversations: too many for this test to mean much")
    print(f"{passed} passed, {len(failures)} failed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
