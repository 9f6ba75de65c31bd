"""Trains the 4,096-token BPE tokenizer in the family's schema: byte fallback, no pre-tokenizer, real low ids."""

import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from vocab import BYTE_BASE, FIRST_FREE, MODALITY, NEWLINE_RUNS, SPACE, SPACE_RUNS, VOCAB_SIZE, special_ids


def _learn_merges(texts, alphabet: list, room: int):
    """BPE on words: merges never cross a space, a digit, a newline or a punctuation mark."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    pattern = Regex(f"{SPACE}?[A-Za-z_]+|\\n|.")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern, behavior="isolated")
    trainer = trainers.BpeTrainer(vocab_size=room, initial_alphabet=alphabet, special_tokens=["<unk>"],
                                  limit_alphabet=len(alphabet), min_frequency=2, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return [tuple(m) if not isinstance(m, str) else tuple(m.split(" ")) for m in model["merges"]]


def build(texts) -> dict:
    """tokenizer.json as a dict. `texts` are plain training texts without special tokens."""
    alphabet = [chr(c) for c in range(33, 127)] + [SPACE] + list("\u00e9\u00b0\u2013\u2019\u201c\u201d\u20ac\u00a3")
    free = VOCAB_SIZE - len(MODALITY) - FIRST_FREE
    merges = _learn_merges(texts, alphabet + ["\n"], free + 2)
    runs = []
    for unit, lengths in (("\n", range(2, NEWLINE_RUNS.stop)), (SPACE, SPACE_RUNS)):
        runs += [(unit * (n - 1), unit) for n in lengths]
        runs += [(unit * 2, unit * 2)] if lengths.stop > 4 else []
    vocab = dict(special_ids())
    vocab.update({f"<0x{b:02X}>": BYTE_BASE + b for b in range(256)})
    vocab.update({"\n" * n: 106 + n for n in NEWLINE_RUNS})
    vocab.update({SPACE * n: 136 + n for n in SPACE_RUNS})
    next_id = FIRST_FREE
    kept = list(runs)
    for token in alphabet:
        vocab[token] = next_id
        next_id += 1
    for left, right in merges:
        token = left + right
        if token not in vocab:
            if next_id >= VOCAB_SIZE - len(MODALITY) or left not in vocab or right not in vocab:
                continue
            vocab[token] = next_id
            next_id += 1
        kept.append((left, right))
    used, unused = set(vocab.values()), 0
    for i in range(VOCAB_SIZE):
        if i not in used:
            vocab["[multimodal]" if i == 5 else f"<unused{unused}>"] = i
            unused += i != 5
    return _schema(vocab, kept)


def _schema(vocab: dict, merges: list) -> dict:
    added = [{"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True} for text, i in sorted(special_ids().items(), key=lambda kv: kv[1])]
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
                          "invert": False},
        "post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}],
                           "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                           "special_tokens": {}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": dict(sorted(vocab.items(), key=lambda kv: kv[1])), "merges": [list(m) for m in merges]},
    }


def save(path: Path, tokenizer: dict) -> None:
    path.write_text(json.dumps(tokenizer, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
