"""Turns an Example into the text the model reads (the family's chat template) and the text it has to write."""

from pathlib import Path

import jinja2

TEMPLATE = Path(__file__).parent / "chat_template.jinja"
TURN_END, TOOL_END = "<turn|>", "<|tool_response>"


def _raise(message):
    raise jinja2.exceptions.TemplateError(message)


def _environment():
    env = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    env.globals["raise_exception"] = _raise
    return env


_template = _environment().from_string(TEMPLATE.read_text())


def render_prompt(example) -> str:
    """The prompt with its generation prompt, exactly as a server renders it."""
    kwargs = {"enable_thinking": True} if example.thinking else {}
    return _template.render(messages=example.messages, tools=example.tools, bos_token="<bos>",
                            add_generation_prompt=True, **kwargs)


def _fast_prompt(example):
    """The two commonest layouts without Jinja (same result, asserted in render_prompt_fast's self-check)."""
    if example.tools or example.thinking or len(example.messages) != 1:
        return None
    text = example.messages[0]["content"].strip()
    return f"<bos><|turn>user\n{text}<turn|>\n<|turn>model\n<|channel>thought\n<channel|>"


_checked = {"n": 0}


def render_prompt_fast(example) -> str:
    fast = _fast_prompt(example)
    if fast is None:
        return render_prompt(example)
    if _checked["n"] < 500:
        _checked["n"] += 1
        if fast != render_prompt(example):
            raise AssertionError("the short cut renders a different prompt than the template")
    return fast


def _argument(value) -> str:
    if isinstance(value, str):
        return f'<|"|>{value}<|"|>'
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def render_completion(example) -> str:
    """What the model writes, up to and including the token that ends its turn."""
    out = ""
    if example.thinking:
        out += f"<|channel>thought\n{example.reasoning}\n<channel|>"
    for name, arguments in example.calls:
        inner = ",".join(f"{k}:{_argument(v)}" for k, v in sorted(arguments.items(), key=lambda kv: kv[0].lower()))
        out += f"<|tool_call>call:{name}{{{inner}}}<tool_call|>"
    if example.calls:
        return out + TOOL_END
    return out + example.answer + TURN_END
