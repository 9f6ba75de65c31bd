"""Explanations of things and animals, word definitions from WordNet, and GSM8K problems."""

import json
import re
from pathlib import Path

from .example import Example, article, hash_fraction, user
from .facts import ANIMALS, THINGS

MASS_NOUNS = set("""bread cheese honey chocolate salt glass paper wool gravity electricity photosynthesis democracy
friendship""".split())


def _named(noun):
    return noun if noun in MASS_NOUNS else f"{article(noun)} {noun}"


def thing(rng):
    noun, what, more = rng.choice(THINGS)
    name = _named(noun)
    form = rng.randrange(11)
    short = f"{name[0].upper()}{name[1:]} is {what}."
    long = f"{short} {more}."
    prompts = [
        (f"What is {name}?", long), (f"Explain what {name} is.", long), (f"Tell me about {name}.", long),
        (f"Describe {name}.", long), (f"Can you explain what {name} is?", long), (f"What is {name}, please?", long),
        (f"I do not know what {name} is. Please explain.", long), (f"Tell me what {name} is in one sentence.", short),
        (f"Explain {name} in one sentence.", short), (f"In one sentence, what is {name}?", short),
        (f"What is {name}? Answer briefly.", short),
    ]
    return Example("explanation", [user(prompts[form][0])], prompts[form][1])


def animal(rng):
    noun, group, home, food, looks = rng.choice(ANIMALS)
    name = f"{article(noun)} {noun}"
    group_a = f"{article(group)} {group}"
    start = f"{name[0].upper()}{name[1:]} is {group_a}"
    full = f"{start} that lives in {home}. It has {looks}. It eats {food}."
    form = rng.randrange(9)
    prompts = [
        (f"What is {name}?", full), (f"Describe {name}.", full), (f"Tell me about the {noun}.", full),
        (f"Write three sentences about the {noun}.", full), (f"Explain what {name} is.", full),
        (f"What does {name} eat?", f"{name[0].upper()}{name[1:]} eats {food}."),
        (f"Where does {name} live?", f"{name[0].upper()}{name[1:]} lives in {home}."),
        (f"What does {name} look like?", f"{name[0].upper()}{name[1:]} has {looks}."),
        (f"What kind of animal is {name}?", f"{start}."),
    ]
    return Example("animal", [user(prompts[form][0])], prompts[form][1])


def compare_animals(rng):
    a, b = rng.sample(ANIMALS, 2)
    text = (f"{article(a[0]).capitalize()} {a[0]} lives in {a[2]} and eats {a[3]}. "
            f"{article(b[0]).capitalize()} {b[0]} lives in {b[2]} and eats {b[3]}.")
    return Example("animal", [user(f"What is the difference between {article(a[0])} {a[0]} and {article(b[0])} {b[0]}?")],
                   text)


class Definitions:
    """First senses of the most used WordNet nouns, verbs and adjectives. Whole words are held out, not phrasings."""

    PARTS = {"noun": "noun", "verb": "verb", "adj": "adjective"}

    def __init__(self, folder: Path, limit: int):
        ranked = []
        for part, name in self.PARTS.items():
            glosses = self._glosses(folder / f"data.{part}")
            for line in (folder / f"index.{part}").read_text().splitlines():
                fields = line.split()
                if line.startswith(" ") or not fields[0].isalpha():
                    continue
                senses, tagged = int(fields[2]), int(fields[5 + int(fields[3])])
                gloss = glosses.get(fields[-senses])
                if tagged and gloss:
                    ranked.append((-tagged, -senses, fields[0], name, gloss))
        ranked.sort()
        self.entries = [(word, part, gloss) for _, _, word, part, gloss in ranked[:limit]]

    @staticmethod
    def _glosses(path: Path) -> dict:
        out = {}
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("  ") or " | " not in line:
                continue
            gloss = line.split(" | ", 1)[1]
            gloss = re.sub(r"\([^)]*\)", "", gloss).split(";")[0].split(' "')[0].strip()
            gloss = re.sub(r"\s+", " ", gloss)
            if 3 < len(gloss) < 110 and gloss.isascii() and gloss.count('"') == 0 and gloss.count("`") == 0:
                out[line.split()[0]] = gloss
        return out

    def __call__(self, rng):
        word, part, gloss = rng.choice(self.entries)
        prompt = rng.choice([f"Define the {part} {word}.", f"What does the {part} {word} mean?",
                             f"What is the meaning of the {part} {word}?"])
        return Example("definition", [user(prompt)], f"{word.capitalize()} ({part}): {gloss}.")

    @staticmethod
    def held_out(example) -> bool:
        word = example.answer.split(" (")[0].lower()
        return hash_fraction("definition " + word) < 0.04


class Gsm8k:
    """Grade-school word problems with worked answers (MIT); the calculator marks are dropped."""

    def __init__(self, path: Path):
        self.examples = []
        for line in path.read_text().splitlines():
            row = json.loads(line)
            answer = re.sub(r"<<[^>]*>>", "", row["answer"]).replace("\n#### ", "\nAnswer: ")
            self.examples.append(Example("gsm8k", [user(row["question"].strip())], answer.strip()))

    def __call__(self, rng):
        return rng.choice(self.examples)


GENERATORS = [(thing, 7), (animal, 4), (compare_animals, 1)]
