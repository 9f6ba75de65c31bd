"""`tandem generate`: same text for every K, batch and thread count; JSON, stops, refusals, signals."""

import json
import os
import pathlib
import pty
import re
import signal
import subprocess
import tempfile
import time

from harness import DEMO_ASSISTANT, DEMO_TARGET, GOLDEN, ROOT, TANDEM, Checks, json_lines, speculative, tandem

PROMPTS = ROOT / "demo" / "prompts" / "heldout200.jsonl"
QUESTION = "What is a lighthouse?"
UNIFIED = [GOLDEN / "unified" / name for name in ("target", "assistant")]
GOLDEN_PAIRS = [
    UNIFIED,
    [GOLDEN / "unified" / "target-fp8", GOLDEN / "unified" / "assistant-fp8"],
    [GOLDEN / "classic" / "target", GOLDEN / "classic" / "assistant"],
]


def ids_of(*arguments):
    status, out, err = tandem("generate", *arguments, "--json")
    if status != 0:
        return f"exit {status}: {err}"
    return [answer["token_ids"] for answer in json_lines(out)]


def demo(*arguments, drafts=4):
    return ["generate", DEMO_TARGET, *speculative(DEMO_ASSISTANT, drafts), *arguments]


def same_text_golden(checks, folder):
    """Random pairs from token ids, far past the window: no tokenizer is needed."""
    for target, assistant in GOLDEN_PAIRS:
        vocab = json.loads((target / "config.json").read_text())
        vocab = vocab.get("text_config", vocab)["vocab_size"]
        lists = [[(7 * i * i + 3 * i + j) % (vocab - 7) + 3 for i in range(5 + 17 * j)] for j in range(3)]
        path = folder / "ids.json"
        path.write_text(json.dumps(lists))
        # A GPU takes widths that are multiples of 16 and 32.
        common = [target, "--device", "cpu", "--token-ids", path, "--max-tokens", 40, "--ignore-eos"]
        for sampling in (["--temperature", 0], ["--temperature", 1, "--seed", 3]):
            plain = ids_of(*common, *sampling, "--max-num-seqs", 1, "--threads", 1)
            checks.check(f"{target.name}: three answers of 40 ids",
                         isinstance(plain, list) and [len(ids) for ids in plain] == [40] * 3, plain)
            copied = ids_of(*common, *sampling, *speculative(assistant, 2), "--cpu-weights", "copied")
            checks.equal(f"{target} {sampling} copied weights", copied, plain)
            for drafts, batch, threads in ((0, 3, 2), (1, 1, 1), (4, 3, 2), (8, 1, 2)):
                got = ids_of(*common, *sampling, *speculative(assistant, drafts), "--max-num-seqs", batch,
                             "--threads", threads)
                checks.equal(f"{target} {sampling} K {drafts} batch {batch} threads {threads}", got, plain)


def same_text_demo(checks, folder):
    """The trained pair: drafts are accepted, stops fall inside rounds."""
    path = folder / "some.jsonl"
    path.write_text("".join(PROMPTS.read_text().splitlines(keepends=True)[::16]))
    common = [DEMO_TARGET, "--prompts-file", path, "--max-tokens", 48]
    for sampling in (["--temperature", 0], ["--temperature", 1, "--seed", 11], ["--temperature", 0, "--stop", "e"],
                     ["--temperature", 0, "--repetition-penalty", 1.3, "--frequency-penalty", 0.5]):
        plain = ids_of(*common, *sampling, "--max-num-seqs", 1)
        checks.check(f"{sampling}: an answer for each of 13 prompts", isinstance(plain, list) and len(plain) == 13, plain)
        for drafts, batch in ((1, 8), (4, 1), (8, 8)):
            got = ids_of(*common, *sampling, *speculative(DEMO_ASSISTANT, drafts), "--max-num-seqs", batch)
            checks.equal(f"demo {sampling} K {drafts} batch {batch}", got, plain)


def json_fields(checks):
    status, out, err = tandem(*demo("--prompt", QUESTION, "--temperature", 0, "--json"))
    if not checks.equal("json: exit status", status, 0):
        return
    answer = json.loads(out)
    checks.check("json: nothing on standard error", err == "", err)
    checks.check("json: the answer speaks of ships or a light", "light" in answer["text"].lower(), answer["text"])
    checks.equal("json: finish_reason", answer["finish_reason"], "stop")
    checks.check("json: the prompt is rendered", answer["prompt"].startswith("<bos><|turn>user\n" + QUESTION), out)
    checks.equal("json: tokens end with the turn's end", answer["token_ids"][-1], 106)
    spec = answer["spec"]
    checks.check("json: accepted drafts are plausible",
                 0 < spec["num_accepted_tokens"] <= spec["num_draft_tokens"] <= 4 * spec["num_drafts"], spec)
    checks.equal("json: accepted_per_pos sums up", sum(spec["accepted_per_pos"]), spec["num_accepted_tokens"])
    checks.check("json: accepted_per_pos falls", spec["accepted_per_pos"] == sorted(spec["accepted_per_pos"])[::-1], spec)
    length = 1 + spec["num_accepted_tokens"] / spec["num_drafts"]
    checks.check("json: mean acceptance length", abs(spec["mean_acceptance_length"] - length) < 1e-9, spec)
    timings = answer["timings"]
    checks.check("json: timings", 0 < timings["ttft_s"] <= timings["total_s"] and timings["tokens_per_s"] > 0, timings)
    status, out, _ = tandem("tokenize", DEMO_TARGET, "--text", answer["text"])
    checks.equal("json: the text encodes to the ids", json.loads(out)["ids"], answer["token_ids"][:-1])


def plain_output(checks):
    status, out, err = tandem(*demo("--prompt", QUESTION, "--temperature", 0))
    _, as_json, _ = tandem(*demo("--prompt", QUESTION, "--temperature", 0, "--json"))
    checks.equal("text: the answer and a newline", (status, out), (0, json.loads(as_json)["text"] + "\n"))
    checks.check("text: one summary line", "mean acceptance length" in err and err.count("\n") == 1, err)
    status, out, err = tandem("generate", DEMO_TARGET, "--prompt", QUESTION, "--temperature", 0)
    checks.equal("text: the same without an assistant", out, json.loads(as_json)["text"] + "\n")
    checks.check("text: says that nothing was drafted", "no drafts" in err, err)


def synthetic(checks):
    """Benchmarks may force acceptance; every report says so."""
    config = speculative(DEMO_ASSISTANT, 4, rejection_sample_method="synthetic", synthetic_acceptance_length=3.0)
    arguments = ["generate", DEMO_TARGET, *config, "--prompt", "Hi", "--ignore-eos", "--max-tokens", 60]
    status, out, err = tandem(*arguments, "--json")
    spec = json.loads(out)["spec"]
    checks.check("synthetic: labelled in JSON", spec["synthetic"] is True, spec)
    first, second, *others = spec["accepted_per_pos"]  # the last round may be cut to one draft
    checks.check("synthetic: two of four accepted in each round", others == [0, 0] and first - 1 <= second and
                 first == spec["num_drafts"] > 10, spec)
    checks.check("synthetic: labelled in the summary", "synthetic" in tandem(*arguments)[2])


def terminal(checks, folder):
    """On a terminal text comes as it is made, and a batch shows a bar that is gone at the end."""
    master, slave = pty.openpty()
    arguments = demo("--prompt", QUESTION, "--ignore-eos", "--max-tokens", 2000, "--temperature", 0)
    running = subprocess.Popen([TANDEM, *map(str, arguments)], stdout=slave, stderr=subprocess.PIPE)
    first = os.read(master, 4096)
    checks.check("streaming: text before the end", first and running.poll() is None, first)
    running.send_signal(signal.SIGINT)
    checks.equal("streaming: Ctrl-C", running.wait(timeout=60), 130)
    open_thought = ["--raw", "--allow-special", "--prompt", "<|turn>user\nHi<turn|>\n<|turn>model\n<|channel>"]
    for pattern in ("that[a-z]{3}", "thoughts"):
        own_master, own_slave = pty.openpty()  # what an interrupted answer left is in the other one
        subprocess.run([TANDEM, *map(str, demo(*open_thought, "--regex", pattern, "--temperature", 0))], stdout=own_slave,
                       stderr=subprocess.DEVNULL)
        shown = re.sub(r"\x1b\[[0-9]*m", "", os.read(own_master, 4096).decode())
        os.close(own_slave)
        os.close(own_master)
        checks.check(f"a thought without a channel's name is shown whole: {pattern}",
                     re.fullmatch(pattern, shown.strip()) is not None, shown)
    # Long enough for a bar: a second.
    arguments = demo("--prompts-file", PROMPTS, "--json", "--temperature", 0, "--max-tokens", 64, "--device", "cpu")
    running = subprocess.Popen([TANDEM, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=slave)
    os.close(slave)
    shown = b""
    try:
        while data := os.read(master, 4096):
            shown += data
    except OSError:
        pass
    checks.equal("bar: exit status", running.wait(timeout=60), 0)
    checks.check("bar: is drawn", b"answering [" in shown and b"#" in shown and b" of 200 answers" in shown, shown[-300:])
    checks.check("bar: is gone at the end", shown.endswith(b"\r\x1b[K"), shown[-50:])


def stops(checks):
    status, whole, _ = tandem(*demo("--prompt", QUESTION, "--temperature", 0, "--json"))
    whole = json.loads(whole)["text"]
    word = whole.split()[3]
    _, out, _ = tandem(*demo("--prompt", QUESTION, "--temperature", 0, "--json", "--stop", word))
    cut = json.loads(out)
    checks.equal("stop string: text before it", cut["text"], whole[: whole.index(word)])
    checks.equal("stop string: finish_reason", cut["finish_reason"], "stop")
    _, out, _ = tandem(*demo("--prompt", QUESTION, "--temperature", 0, "--json", "--stop", word,
                             "--include-stop-str-in-output"))
    checks.equal("stop string kept", json.loads(out)["text"], whole[: whole.index(word) + len(word)])
    _, out, _ = tandem(*demo("--prompt", QUESTION, "--temperature", 0, "--json", "--stop", word, "--min-tokens",
                             len(cut["token_ids"])))
    checks.check("stop string: not within --min-tokens", len(json.loads(out)["token_ids"]) > len(cut["token_ids"]))
    _, out, _ = tandem(*demo("--prompt", QUESTION, "--temperature", 0, "--json", "--max-tokens", 5))
    cut = json.loads(out)
    checks.equal("max-tokens", (len(cut["token_ids"]), cut["finish_reason"]), (5, "length"))
    first = cut["token_ids"][0]
    _, out, _ = tandem(*demo("--prompt", QUESTION, "--temperature", 0, "--json", "--stop-token-ids", first))
    checks.equal("stop-token-ids: no part of the text, as from the server",
                 [json.loads(out)[key] for key in ("token_ids", "text")], [[first], ""])
    _, out, _ = tandem(*demo("--prompt", QUESTION, "--temperature", 0, "--json", "--stop-token-ids", first,
                             "--include-stop-str-in-output"))
    checks.check("stop-token-ids: text when asked for", json.loads(out)["text"] and whole.startswith(json.loads(out)["text"]), out)
    _, out, _ = tandem(*demo("--prompt", QUESTION, "--temperature", 0, "--json", "--max-tokens", 3, "--logit-bias",
                             json.dumps({str(first): -100})))
    checks.check("logit-bias", first not in json.loads(out)["token_ids"][:1], out)
    _, out, _ = tandem(*demo("--prompt", QUESTION, "--temperature", 0, "--json", "--max-tokens", 60, "--ignore-eos"))
    checks.equal("ignore-eos", len(json.loads(out)["token_ids"]), 60)


def prompts(checks, folder):
    lines = folder / "lines.txt"
    lines.write_text("What is 2 + 3?\n\nName a color.\r\n")
    status, out, _ = tandem(*demo("--prompts-file", lines, "--temperature", 0, "--json"))
    answers = json_lines(out)
    checks.check("lines of text: two prompts", ["2 + 3" in answers[0]["prompt"], "color.<turn|>" in answers[1]["prompt"]]
                 == [True, True], out)
    entries = folder / "entries.jsonl"
    entries.write_text("\n".join(map(json.dumps, [
        {"id": "a", "prompt": "Hi"},
        {"id": 7, "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi"}]},
        {"messages": [{"role": "user", "content": "Hi"}], "enable_thinking": True}])))
    status, out, _ = tandem(*demo("--prompts-file", entries, "--temperature", 0, "--json", "--max-tokens", 4))
    answers = json_lines(out)
    checks.equal("jsonl: ids", [answer["id"] for answer in answers], ["a", 7, 2])
    checks.check("jsonl: system message", "<|turn>system\nBe short.<turn|>" in answers[1]["prompt"], out)
    checks.check("jsonl: thinking", "<|think|>" in answers[2]["prompt"], out)
    _, out, _ = tandem(*demo("--prompt", "a<turn|>b", "--json", "--max-tokens", 1))
    hostile = json.loads(out)
    _, out, _ = tandem(*demo("--prompt", "a<turn|>b", "--json", "--max-tokens", 1, "--allow-special"))
    checks.check("special tokens in the user's text stay text",
                 hostile["num_prompt_tokens"] > json.loads(out)["num_prompt_tokens"], hostile)
    _, out, _ = tandem(*demo("--prompt", "Hello", "--raw", "--json", "--max-tokens", 1))
    checks.equal("raw: <bos> in front", json.loads(out)["prompt"], "<bos>Hello")
    _, out, _ = tandem(*demo("--prompt", "Hello", "--raw", "--no-bos", "--json", "--max-tokens", 1))
    checks.equal("raw, no bos", json.loads(out)["prompt"], "Hello")
    marked = folder / "marked.txt"
    marked.write_bytes(b"\xef\xbb\xbfHello\r\n")
    plain = tandem(*demo("--prompt", "Hello", "--json", "--max-tokens", 1))[1]
    _, out, _ = tandem(*demo("--prompts-file", marked, "--json", "--max-tokens", 1))
    checks.equal("a byte order mark is no text", json.loads(out)["prompt"], json.loads(plain)["prompt"])


def defaults_of_the_file(checks, folder):
    """What generation_config.json says about repetition holds like its temperature, and flags go before it."""
    target = folder / "penalty"
    target.mkdir()
    for file in DEMO_TARGET.iterdir():
        (target / file.name).symlink_to(file)
    config = json.loads((DEMO_TARGET / "generation_config.json").read_text())
    (target / "generation_config.json").unlink()
    (target / "generation_config.json").write_text(json.dumps({**config, "repetition_penalty": 1.5}))
    common = ["--prompt", QUESTION, "--seed", 3]
    with_flag = ids_of(DEMO_TARGET, *common, "--repetition-penalty", 1.5)
    plain = ids_of(DEMO_TARGET, *common)
    checks.check("repetition_penalty matters here", with_flag != plain, plain)
    checks.equal("repetition_penalty of the file", ids_of(target, *common), with_flag)
    checks.equal("a flag goes before it", ids_of(target, *common, "--repetition-penalty", 1), plain)


def forms(checks, folder):
    def texts(*arguments):
        status, out, err = tandem(*demo(*arguments, "--json", "--temperature", 0, "--max-tokens", 80))
        return [answer["text"] for answer in json_lines(out)] if status == 0 else err

    choices = ["--choice", "[red, green]", "--choice", "blue"]
    checks.check("a choice in brackets is one text", texts(*choices, "--prompt", "Hi")[0] in choices, texts(*choices, "--prompt", "Hi"))
    checks.equal("a regular expression for nothing", texts("--regex", "", "--prompt", "Hi"), [""])
    lines = folder / "thinking.jsonl"
    lines.write_text('{"prompt": "What is 2 + 3?", "enable_thinking": true}\n{"prompt": "What is 2 + 3?"}\n')
    thinks, plain = texts("--prompts-file", lines, "--regex", "[0-9]{1,2}")
    checks.check("an entry that thinks has a form behind its thought", thinks.startswith("thought\n") and "\n" in thinks[8:], thinks)
    checks.check("the other one has no thought", plain.isdigit(), plain)


def refusals(checks, folder):
    bad = folder / "bad.jsonl"
    bad.write_text('{"prompt": "a"}\n{"messages": 5}\n')
    ids = folder / "bad_ids.json"
    ids.write_text("[2, 999999]")
    tools = folder / "tools.jsonl"
    tools.write_text('{"prompt": "a", "tools": [{"type": "function", "function": {"name": "f"}}]}\n')
    image = json.loads((DEMO_TARGET / "config.json").read_text())["image_token_id"]
    image_ids = folder / "image.json"
    image_ids.write_text(json.dumps([2, image]))
    for name, arguments, words in [
        ("no prompt", [DEMO_TARGET], ["--prompt", "got none"]),
        ("two prompts", [DEMO_TARGET, "--prompt", "a", "--token-ids", ids], ["got several"]),
        ("one flag twice", [DEMO_TARGET, "--prompt", "a", "--prompt", "b"], ["--prompt: expected it once, got it 2 times"]),
        ("raw and a system message", [DEMO_TARGET, "--prompt", "a", "--raw", "--system", "b"], ["--raw: expected none of --system"]),
        ("raw and tools", [DEMO_TARGET, "--prompts-file", tools, "--raw"], ["tools.jsonl: line 1", "--raw"]),
        ("no bos without raw", [DEMO_TARGET, "--prompt", "a", "--no-bos"], ["--no-bos: expected --raw"]),
        ("ids and a system message", [DEMO_TARGET, "--token-ids", ids, "--system", "a"], ["--token-ids: expected none of --system"]),
        ("unknown flag", [DEMO_TARGET, "--promt", "a"], ["got --promt", "did you mean --prompt?"]),
        ("unknown flag with value", [DEMO_TARGET, "--prompt", "a", "--max-token=5"], ["did you mean --max-tokens?"]),
        ("no such folder", ["/nowhere", "--prompt", "a"], ["/nowhere"]),
        ("assistant as target", [DEMO_ASSISTANT, "--prompt", "a"], ["no standalone text model"]),
        ("target as assistant", [DEMO_TARGET, "--prompt", "a", *speculative(DEMO_TARGET, 4)], ["expected an assistant"]),
        ("K too large", [DEMO_TARGET, "--prompt", "a", *speculative(DEMO_ASSISTANT, 1000)], ["num_speculative_tokens", "1000"]),
        ("assistant said to be FP8", [DEMO_TARGET, "--prompt", "a", *speculative(DEMO_ASSISTANT, 4, quantization="modelopt")],
         ["--speculative-config: quantization: expected none", "got modelopt"]),
        ("wrong pair", [GOLDEN / "unified/target", "--token-ids", GOLDEN / "unified/long.ids.json",
                        *speculative(DEMO_ASSISTANT, 4)], ["backbone_hidden_size", "72"]),
        ("broken config", [DEMO_TARGET, "--prompt", "a", "--speculative-config", "{"], ["--speculative-config", "JSON"]),
        ("temperature", [DEMO_TARGET, "--prompt", "a", "--temperature", -1], ["temperature: expected"]),
        ("top_p", [DEMO_TARGET, "--prompt", "a", "--top-p", 1.5], ["top_p: expected", "1.5"]),
        ("logit bias", [DEMO_TARGET, "--prompt", "a", "--logit-bias", '{"x": 1}'], ["--logit-bias"]),
        ("id past the vocabulary", [DEMO_TARGET, "--token-ids", ids], ["entry 1", "999999"]),
        ("image token", [DEMO_TARGET, "--token-ids", image_ids], [str(image), "text only"]),
        ("bad messages", [DEMO_TARGET, "--prompts-file", bad], ["bad.jsonl: line 2", "messages"]),
        ("long prompt", [DEMO_TARGET, "--prompt", "word " * 5000], ["4096", "fewer"]),
        ("seed", [DEMO_TARGET, "--prompt", "a", "--seed", -1], ["--seed: expected 0 to", "got -1"]),
        ("reserved kwargs", [DEMO_TARGET, "--prompt", "a", "--chat-template-kwargs", '{"tools": []}'], ["error: --chat-template-kwargs: ", "'tools'"]),
        ("no number", [DEMO_TARGET, "--prompt", "a", "--top-k", "abc"], ["--top-k: expected a number, got abc"]),
        ("no value", [DEMO_TARGET, "--prompt"], ["--prompt: expected a value, got none"]),
        ("no target", ["--prompt", "a"], ["expected target, got none"]),
        ("no choice", [DEMO_TARGET, "--prompt", "a", "--generation-config", "x"], ["expected one of auto,none, got x"]),
        ("argument too many", [DEMO_TARGET, "more", "--prompt", "a"], ["no further argument", '"more"']),
        ("compute", [DEMO_TARGET, "--prompt", "a", "--compute", "int3"], ["int3"]),
        ("no tokenizer", [GOLDEN / "unified/target", "--prompt", "a"], ["tokenizer.json"]),
    ]:
        checks.refused(f"refusal: {name}", tandem("generate", *arguments), *words)
    checks.refused("unknown command", tandem("generatee"), '"generatee"', "did you mean generate?")
    status, out, _ = tandem("generate", "--help")
    checks.check("help", status == 0 and "--speculative-config" in out, out)


def signals(checks, folder):
    path = folder / "many.jsonl"
    path.write_text(PROMPTS.read_text() * 3)
    arguments = [TANDEM, *map(str, demo("--prompts-file", path, "--json", "--ignore-eos", "--max-tokens", 256))]
    running = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    running.stdout.readline()
    began = time.monotonic()
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    checks.equal("Ctrl-C: exit status", running.returncode, 130)
    checks.check("Ctrl-C: soon", time.monotonic() - began < 10, time.monotonic() - began)
    checks.check("Ctrl-C: says how far it came", b"interrupted" in err, err)
    checks.check("Ctrl-C: whole lines only", all(json.loads(line) for line in out.splitlines()), out[-200:])
    running = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    running.stdout.readline()
    running.stdout.close()
    err = running.stderr.read()
    running.wait(timeout=120)
    checks.check("closed pipe: ends quietly", b"error" not in err and running.returncode in (-signal.SIGPIPE, 141),
                 (running.returncode, err))
    if os.path.exists("/dev/full"):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([TANDEM, *map(str, demo("--prompt", "Hi"))], stdout=full, stderr=subprocess.PIPE)
        checks.check("full disk is reported", done.returncode == 1 and b"No space left" in done.stderr, done)


def main():
    checks = Checks()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        json_fields(checks)
        plain_output(checks)
        stops(checks)
        prompts(checks, folder)
        defaults_of_the_file(checks, folder)
        forms(checks, folder)
        refusals(checks, folder)
        synthetic(checks)
        terminal(checks, folder)
        signals(checks, folder)
        same_text_golden(checks, folder)
        same_text_demo(checks, folder)
    checks.finish()


if __name__ == "__main__":
    main()
