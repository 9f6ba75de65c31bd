"""The mixture: which generator is asked how often, and how its questions are held out."""

from pathlib import Path

from . import arithmetic, explanations, small_talk, stories, tool_tasks, word_tasks
from .example import is_held_out

TASK_MODULES = [arithmetic, word_tasks, tool_tasks, small_talk]
GSM8K_SHARE, DEFINITION_SHARE, PROSE_SHARE = 0.045, 0.09, 0.115
# Kinds with so few possible questions that leaving some out would leave out the fact itself.
CLOSED_KINDS = {"days", "months", "plural", "number_word", "opposite"}


class Mixture:
    """Draws training examples; the same object draws held-out ones for evaluation."""

    def __init__(self, wordnet: Path, gsm8k_train: Path, words: int = 3000):
        self.tasks = [g for module in TASK_MODULES for g in module.GENERATORS]
        self.prose = [g for module in (stories, explanations) for g in module.GENERATORS]
        self.definitions = explanations.Definitions(wordnet, words)
        self.gsm8k = explanations.Gsm8k(gsm8k_train)

    @staticmethod
    def pick(rng, generators):
        return rng.choices([g for g, _ in generators], [w for _, w in generators])[0](rng)

    def held_out(self, example) -> bool:
        if example.kind == "definition":
            return self.definitions.held_out(example)
        if example.kind in CLOSED_KINDS or (example.kind == "small_talk" and len(example.messages) == 1):
            return False
        return is_held_out(example)

    def draw(self, rng):
        """One training example (never a held-out one)."""
        while True:
            u = rng.random()
            if u < GSM8K_SHARE:
                return self.gsm8k(rng)
            if u < GSM8K_SHARE + DEFINITION_SHARE:
                example = self.definitions(rng)
            elif u < GSM8K_SHARE + DEFINITION_SHARE + PROSE_SHARE:
                example = self.pick(rng, self.prose)
            else:
                example = self.pick(rng, self.tasks)
            if not self.held_out(example):
                return example
