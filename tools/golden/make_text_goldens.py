"""Makes tests/golden/text: what PyPI tokenizers and jinja2 do with the family's real tokenizer and templates.

    python tools/golden/make_text_goldens.py tests/golden/text --tokenizer tokenizer.json[.xz] --templates DIR

tokenizer.json  strings -> ids (specials matched, and as ordinary text), ids -> text
chat.json       conversations, and each template's rendering of them
jinja.json      small templates for the engine itself
"""

import argparse
import json
import lzma
import pathlib

import jinja2
import jinja2.ext
import tokenizers
from jinja2.sandbox import ImmutableSandboxedEnvironment

import text_cases

SPECIALS = {name + "_token": f"<{name}>" for name in ("bos", "eos", "pad", "unk", "mask")}


def environment():
    """The environment in which chat templates are rendered everywhere: see the Jinja section of the user guide."""
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    return env


def render(template, **variables):
    try:
        return environment().from_string(template).render(**variables), None
    except Exception as error:  # whatever goes wrong in a template is its result
        return None, f"{type(error).__name__}: {error}"


def fnv1a64(ids):
    """Of the ids as little-endian u32: long answers are compared by count and this."""
    value = 0xCBF29CE484222325
    for byte in b"".join(token.to_bytes(4, "little") for token in ids):
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"


def tokenizer_goldens(path):
    raw = lzma.open(path).read() if str(path).endswith(".xz") else pathlib.Path(path).read_bytes()
    matched, plain = (tokenizers.Tokenizer.from_str(raw.decode()) for _ in range(2))
    plain.encode_special_tokens = True
    encode, long_encode, decode = [], [], []
    for text in text_cases.strings():
        case = {"text": text, "ids": matched.encode(text).ids}
        ordinary = plain.encode(text).ids
        if ordinary != case["ids"]:
            case["ids_without_specials"] = ordinary
        encode.append(case)
    for unit, count in text_cases.LONG:
        ids = matched.encode(unit * count).ids
        long_encode.append({"unit": unit, "count": count, "num_ids": len(ids), "ids_fnv1a64": fnv1a64(ids)})
    for ids in text_cases.id_sequences(matched.get_vocab_size(), [case["ids"] for case in encode]):
        texts = [matched.decode(ids, skip_special_tokens=skip) for skip in (False, True)]
        case = {"ids": ids, "text": texts[0]}
        if texts[1] != texts[0]:
            case["text_without_specials"] = texts[1]
        decode.append(case)
    return {"encode": encode, "long": long_encode, "decode": decode}


def chat_goldens(folder):
    files = sorted(path for path in pathlib.Path(folder).iterdir() if ".jinja" in path.name)
    cases = []
    for case in text_cases.conversations():
        expected, error = {}, {}
        for path in files:
            variables = SPECIALS | {"tools": case.get("tools"), "documents": None} | case["kwargs"]
            text, problem = render(path.read_text(), messages=case["messages"], **variables)
            if problem:
                error[path.name] = problem
            else:
                expected[path.name] = text
        cases.append(case | {"expected": expected} | ({"error": error} if error else {}))
    return {"variables": SPECIALS, "templates": [path.name for path in files], "cases": cases}


def jinja_goldens():
    cases = []
    for template, variables in text_cases.snippets():
        text, problem = render(template, **variables)
        case = {"template": template, "variables": variables}
        if any(word in template for word in text_cases.RARE):
            case["rare"] = True  # jinja2 has it, no chat template of the family uses it
        cases.append(case | ({"error": problem} if problem else {"expected": text}))
    return cases


def write_lines(path, value):
    """JSON with one list item a line: small, and a diff stays readable."""
    if isinstance(value, list):
        value = {"cases": value}
    parts = []
    for key, items in value.items():
        if isinstance(items, list):
            lines = ",\n".join(json.dumps(item, ensure_ascii=False, separators=(",", ":")) for item in items)
            parts.append(f"{json.dumps(key)}:[\n{lines}\n]")
        else:
            parts.append(f"{json.dumps(key)}:{json.dumps(items, ensure_ascii=False)}")
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n")
    print(f"{path}: {', '.join(f'{len(v)} {k}' for k, v in value.items())}, {path.stat().st_size} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--templates", required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    write_lines(args.out / "jinja.json", jinja_goldens())
    write_lines(args.out / "chat.json", chat_goldens(args.templates))
    write_lines(args.out / "tokenizer.json", tokenizer_goldens(args.tokenizer))


if __name__ == "__main__":
    main()
