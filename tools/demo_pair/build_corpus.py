"""Generates the corpus, trains the tokenizer, packs training rows and writes the held-out evaluation files.

    python build_corpus.py --gsm8k-train F --gsm8k-test F --out .carry --prompts demo/prompts --rows 32000
"""

import argparse
import json
import random
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

import tokenizer_train
from corpus.example import Example
from corpus.explanations import Gsm8k
from corpus.mix import Mixture
from render import render_completion, render_prompt, render_prompt_fast

ROW = 512
ANSWER_FLAG = 1 << 12  # set on tokens the model has to write
_state = {}


def _start_worker(wordnet, gsm8k, tokenizer):
    _state["mix"] = Mixture(wordnet, gsm8k)
    _state["tok"] = Tokenizer.from_str(tokenizer)


def encode(tok, example):
    prompt = tok.encode(render_prompt_fast(example), add_special_tokens=False).ids
    answer = tok.encode(render_completion(example), add_special_tokens=False).ids
    return np.array(prompt + [t | ANSWER_FLAG for t in answer], dtype=np.uint16)


def pack_chunk(job):
    """One worker's share: draw, encode and pack whole conversations into rows of ROW tokens."""
    seed, rows = job
    rng, bins, done = random.Random(seed), [], []
    while len(done) < rows:
        ids = encode(_state["tok"], _state["mix"].draw(rng))
        if len(ids) > ROW:
            continue
        fit = max((b for b in bins if b[0] + len(ids) <= ROW), key=lambda b: b[0], default=None)
        if fit is None:
            fit = [0, []]
            bins.append(fit)
        fit[0] += len(ids)
        fit[1].append(ids)
        if fit[0] >= ROW - 8 or len(bins) > 48:
            full = max(bins, key=lambda b: b[0])
            bins.remove(full)
            row = np.zeros(ROW, dtype=np.uint16)
            row[:full[0]] = np.concatenate(full[1])
            done.append(row)
    return np.stack(done)


STRUCTURE = "user model system thought call:x response:x declaration:x description: parameters: properties: required: type: " \
            "STRING NUMBER OBJECT value: text: city: expression: minutes: word: to:"


def plain_texts(mix, rng, count):
    """Texts for the tokenizer; the words of the template itself appear in every prompt, so they count double."""
    for i in range(count):
        if i % 2 == 0:
            yield STRUCTURE.replace(" ", "\n")
        example = mix.draw(rng)
        for message in example.messages:
            yield str(message.get("content") or "")
        yield example.reasoning + "\n" + example.answer
        for tool in example.tools or []:
            yield json.dumps(tool["function"]["name"]) + " " + tool["function"]["description"]


def record(number, example):
    row = {"id": number, "kind": example.kind, "messages": example.messages}
    if example.tools:
        row["tools"] = example.tools
    if example.thinking:
        row["enable_thinking"] = True
        row["reasoning"] = example.reasoning
    row["completion"] = render_completion(example)
    row["answer"] = example.answer if not example.calls else render_completion(example)
    return row


def held_out_tasks(mix, rng, count):
    seen, out = set(), []
    while len(out) < count:
        example = mix.pick(rng, mix.tasks)
        key = example.key() + str(bool(example.tools))
        if mix.held_out(example) and key not in seen:
            seen.add(key)
            out.append(example)
    return out


def held_out_prose(mix, rng, gsm8k_test, per_kind):
    wanted = {"story": per_kind, "letter": per_kind, "explanation": per_kind * 2 // 3, "animal": per_kind - per_kind * 2 // 3,
              "definition": per_kind}
    seen, out, tries = set(), [], 0
    while any(wanted.values()) and tries < 400000:
        tries += 1
        example = mix.definitions(rng) if rng.random() < 0.5 else mix.pick(rng, mix.prose)
        if wanted.get(example.kind, 0) and mix.held_out(example) and example.key() not in seen:
            seen.add(example.key())
            wanted[example.kind] -= 1
            out.append(example)
    out += rng.sample(Gsm8k(gsm8k_test).examples, per_kind)
    return out


def write_jsonl(path, examples):
    lines = [json.dumps(record(i, e), ensure_ascii=False) for i, e in enumerate(examples)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def single_rows(tok, examples):
    rows = []
    for example in examples:
        ids = encode(tok, example)[:ROW]
        rows.append(np.pad(ids, (0, ROW - len(ids))))
    return np.stack(rows)


def check_short_cut(mix):
    rng = random.Random(7)
    for _ in range(300):
        example = mix.draw(rng)
        assert render_prompt_fast(example) == render_prompt(example)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--gsm8k-train", type=Path, required=True)
    parser.add_argument("--gsm8k-test", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=32000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    args.prompts.mkdir(parents=True, exist_ok=True)
    mix = Mixture(args.wordnet, args.gsm8k_train)
    check_short_cut(mix)
    tokenizer = tokenizer_train.build(plain_texts(mix, random.Random(args.seed), 60000))
    tokenizer_train.save(args.out / "tokenizer.json", tokenizer)
    tok = Tokenizer.from_str(json.dumps(tokenizer))

    tasks = held_out_tasks(mix, random.Random(101), 200)
    prose = held_out_prose(mix, random.Random(102), args.gsm8k_test, 50)
    mixed = held_out_tasks(mix, random.Random(103), 120) + held_out_prose(mix, random.Random(104), args.gsm8k_test, 16)
    random.Random(105).shuffle(mixed)
    write_jsonl(args.prompts / "tasks.jsonl", tasks)
    write_jsonl(args.prompts / "prose.jsonl", prose)
    write_jsonl(args.prompts / "heldout200.jsonl", mixed[:200])
    np.save(args.out / "eval_tasks.npy", single_rows(tok, tasks))
    np.save(args.out / "eval_prose.npy", single_rows(tok, prose))
    (args.out / "eval_kinds.json").write_text(json.dumps({"tasks": [e.kind for e in tasks],
                                                          "prose": [e.kind for e in prose]}))

    chunk = 200
    jobs = [(args.seed * 100003 + i, chunk) for i in range((args.rows + chunk - 1) // chunk)]
    with Pool(args.workers, _start_worker, (args.wordnet, args.gsm8k_train, json.dumps(tokenizer))) as pool:
        rows = np.concatenate(list(pool.imap(pack_chunk, jobs)))
    np.save(args.out / "train.npy", rows)
    flagged = (rows & ANSWER_FLAG) > 0
    print(json.dumps({"rows": len(rows), "tokens": int((rows > 0).sum()), "answer_tokens": int(flagged.sum()),
                      "fill": round(float((rows > 0).mean()), 3)}))


if __name__ == "__main__":
    main()
