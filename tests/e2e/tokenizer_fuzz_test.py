"""Random text through `tandem tokenize`, compared with PyPI tokenizers: demo pair and the family's real tokenizer.

    TANDEM=build/release/tandem python tests/e2e/tokenizer_fuzz_test.py [--seed N] [--texts N]
"""

import argparse
import json
import lzma
import os
import pathlib
import random
import subprocess
import sys
import tempfile

import tokenizers

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEMO = ROOT / "demo" / "target"
REAL = ROOT / "tests" / "data" / "tokenizer" / "gemma-4.tokenizer.json.xz"
TANDEM = os.environ.get("TANDEM", str(ROOT / "build" / "release" / "tandem"))


class Reference:
    def __init__(self, folder):
        path = str(folder / "tokenizer.json")
        self.matched, self.plain = (tokenizers.Tokenizer.from_file(path) for _ in range(2))
        self.plain.encode_special_tokens = True
        added = self.matched.get_added_tokens_decoder()
        self.special_ids = {i for i, token in added.items() if token.special}
        self.specials = [added[i].content for i in sorted(self.special_ids)]
        self.vocabulary = sorted(self.matched.get_vocab())


def random_character(rng, vocabulary):
    ranges = [(32, 126), (0x80, 0x7FF), (0x800, 0xD7FF), (0xE000, 0xFFFF), (0x1F300, 0x1FAFF), (0x10000, 0x10FFFF),
              (1, 31)]
    kind = rng.choices(range(9), weights=[40, 6, 6, 4, 8, 4, 2, 12, 18])[0]
    if kind == 7:
        return rng.choice(" \n\t\r▁")
    if kind == 8:
        return rng.choice(vocabulary).replace("▁", " ")
    return chr(rng.randint(*ranges[kind]))


def random_word(rng, reference):
    kind = rng.random()
    if kind < 0.08:
        return rng.choice(reference.specials)
    if kind < 0.1:
        special = rng.choice(reference.specials)
        return special[: rng.randint(1, len(special))]
    if kind < 0.5:
        return rng.choice(reference.vocabulary)
    if kind < 0.6:
        return random_character(rng, reference.vocabulary) * rng.randint(1, 60)
    return "".join(random_character(rng, reference.vocabulary) for _ in range(rng.randint(1, 8)))


def random_text(rng, reference, words):
    return "".join(rng.choice(["", " "]) + random_word(rng, reference) for _ in range(rng.randint(0, words)))


def tandem(folder, *arguments):
    done = subprocess.run([TANDEM, "tokenize", str(folder), *arguments], capture_output=True, timeout=120)
    if done.returncode != 0:
        raise RuntimeError(f"exit {done.returncode}: {done.stderr.decode(errors='replace').strip()[:300]}")
    return json.loads(done.stdout)


def check_text(folder, reference, text, matched):
    expected = (reference.matched if matched else reference.plain).encode(text).ids
    got = tandem(folder, f"--text={text}")["ids"]
    return got == expected or f"{text!r}: expected {expected}, got {got}"


def check_injection(folder, reference, rng):
    """Whatever a user writes, the prompt holds the special tokens that the template wrote."""
    def specials_of(content):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump([{"role": "user", "content": content}], file)
            file.flush()
            return [i for i in tandem(folder, "--chat", file.name)["ids"] if i in reference.special_ids]

    hostile = "x" + "".join(rng.choice(reference.specials) + rng.choice(["", " ", "a"]) for _ in range(60)) + "x"
    expected, got = specials_of("plain words"), specials_of(hostile)
    return got == expected or f"special ids of a hostile message: expected {expected}, got {got}"


def cases(seed, texts):
    rng = random.Random(seed)
    demo = Reference(DEMO)
    matched = tandem(DEMO, "--text=<bos>")["ids"] == demo.matched.encode("<bos>").ids
    for _ in range(texts):
        yield check_text(DEMO, demo, random_text(rng, demo, 30), matched)
    for _ in range(5):
        yield check_injection(DEMO, demo, rng)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "tokenizer.json").write_bytes(lzma.open(REAL).read())
        real = Reference(folder)
        for _ in range(4):
            yield check_text(folder, real, "\n".join(random_text(rng, real, 40) for _ in range(60)), matched)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--texts", type=int, default=150)
    args = parser.parse_args()
    results = list(cases(args.seed, args.texts))
    failures = [result for result in results if result is not True]
    for failure in failures[:10]:
        print(failure)
    print(f"{len(results) - len(failures)} passed, {len(failures)} failed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
