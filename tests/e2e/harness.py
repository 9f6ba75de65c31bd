"""What the end-to-end tests share: running the program, counting checks."""

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
TANDEM = os.environ.get("TANDEM", str(ROOT / "build" / "release" / "tandem"))
DEMO_TARGET = ROOT / "demo" / "target"
DEMO_ASSISTANT = ROOT / "demo" / "assistant"
GOLDEN = ROOT / "tests" / "golden"


def tandem(*arguments, stdin=None, timeout=300):
    """-> (exit status, standard output, standard error) as text."""
    done = subprocess.run([TANDEM, *map(str, arguments)], input=stdin, capture_output=True, timeout=timeout)
    return done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8")


def speculative(assistant, drafts, **more):
    """The two arguments of --speculative-config."""
    config = {"model": str(assistant), "num_speculative_tokens": drafts, **more}
    return ["--speculative-config", json.dumps(config)]


def json_lines(text):
    return [json.loads(line) for line in text.splitlines()]


class Checks:
    def __init__(self):
        self.passed, self.failed = 0, 0

    def check(self, name, good, detail=""):
        if good:
            self.passed += 1
        else:
            self.failed += 1
            print(f"FAILED {name}: {str(detail)[:600]}")
        return bool(good)

    def equal(self, name, got, expected):
        return self.check(name, got == expected, f"expected {expected!r}, got {got!r}")

    def refused(self, name, result, *words):
        """One line on standard error with all the words, nothing on standard output, exit 2."""
        status, out, err = result
        good = status == 2 and out == "" and err.startswith("tandem: error: ") and err.count("\n") == 1
        good = good and all(word in err for word in words)
        return self.check(name, good, f"exit {status}, {out[:200]!r}, {err[:400]!r}")

    def finish(self):
        print(f"{self.passed} passed, {self.failed} failed")
        sys.exit(1 if self.failed else 0)
