"""One training or evaluation conversation, and the rule that keeps the two apart."""

import hashlib
from dataclasses import dataclass, field


@dataclass
class Example:
    """A conversation whose last model turn is to be learned.

    `messages` ends with a user (or tool) message; `answer` is the plain text of the model's reply. With `thinking`
    the reply starts with `reasoning` in the thought channel. With `calls` the reply is native tool calls instead.
    """

    kind: str
    messages: list
    answer: str = ""
    tools: list | None = None
    thinking: bool = False
    reasoning: str = ""
    calls: list = field(default_factory=list)

    def key(self) -> str:
        """What identifies the question: every text the model reads, and whether it may think."""
        parts = [str(m.get("content") or m.get("tool_calls")) for m in self.messages]
        return "\x1f".join(parts) + ("\x1fthink" if self.thinking else "")


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict:
    return {"role": "assistant", "content": text}


def system(text: str) -> dict:
    return {"role": "system", "content": text}


def hash_fraction(text: str) -> float:
    """A fixed pseudo-random number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32


def is_held_out(example: Example) -> bool:
    """Four percent of all possible questions are never trained on; evaluation draws from exactly those."""
    return hash_fraction(example.key()) < 0.04


def article(noun: str) -> str:
    return "an" if noun[0].lower() in "aeiou" else "a"


def join_and(items: list) -> str:
    items = [str(i) for i in items]
    if len(items) == 1:
        return items[0]
    return ", ".join(items[:-1]) + " and " + items[-1]
