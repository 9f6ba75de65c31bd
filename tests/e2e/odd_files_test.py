"""Files and outputs that are not what they seem: each is refused by name, and none is lost or replaced."""

import json
import os
import pathlib
import resource
import shutil
import struct
import subprocess
import tempfile

from harness import DEMO_ASSISTANT, DEMO_TARGET, TANDEM, Checks, tandem


def prompts_of_the_wrong_kind(checks, folder):
    lines = folder / "roles.jsonl"
    for role in ("5", "null", "[]"):
        lines.write_text('{"messages": [{"role": %s, "content": "Hi"}]}\n' % role)
        checks.refused(f"a role that is {role}", tandem("generate", DEMO_TARGET, "--prompts-file", lines),
                       "roles.jsonl: line 1", "messages[0].role", "expected a string")
    for messages, said in (('[{"role": "user", "content": 5}]', "messages[0].content: expected"), ("[]", "expected at least one message")):
        lines.write_text('{"messages": %s}\n' % messages)
        for flags in ([], ["--system", "Be brief."]):
            checks.refused(f"{messages} {flags}", tandem("generate", DEMO_TARGET, "--prompts-file", lines, *flags), "line 1", said)
    deep = folder / "deep.json"
    deep.write_text("[" * 100000 + "]" * 100000)
    for command in ("generate", "trace"):
        more = ["--out", folder / "trace"] if command == "trace" else []
        checks.refused(f"{command}: ids 100,000 lists deep", tandem(command, DEMO_TARGET, "--token-ids", deep, *more),
                       "deep.json", "nested levels")
    for flag in ("--json-schema", "--grammar"):
        checks.refused(f"{flag} without a name", tandem("generate", DEMO_TARGET, "--prompt", "Hi", flag, ""), "expected a file")


def a_model_of_one_position(checks, folder):
    """Its pieces of text have no room beside <bos>: there must still be an end to them."""
    target = folder / "target"
    shutil.copytree(DEMO_TARGET, target)
    config = json.loads((target / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 1
    (target / "config.json").write_text(json.dumps(config))
    text = folder / "text.txt"
    text.write_text("a b c")
    checks.refused("eval of one position", tandem("eval", target, "--text", text, timeout=60), "max_position_embeddings")


def a_token_that_overflows(checks, folder):
    """Its embedding is finite, what follows from it in a scored text is not: no figure may be made of that."""
    target = folder / "target"
    shutil.copytree(DEMO_TARGET, target)
    token = json.loads(tandem("tokenize", DEMO_TARGET, "--text", " q")[1])["ids"][-1]
    with open(target / "model.safetensors", "r+b") as weights:
        size = struct.unpack("<Q", weights.read(8))[0]
        header = json.loads(weights.read(size))
        embedding = next(value for name, value in header.items() if name.endswith("embed_tokens.weight"))
        weights.seek(8 + size + embedding["data_offsets"][0] + 2 * token * embedding["shape"][1])
        weights.write(b"\x7f\x7f")
    generation = json.loads((target / "generation_config.json").read_text())
    generation["suppress_tokens"].append(token)
    (target / "generation_config.json").write_text(json.dumps(generation))
    prompt, text = folder / "prompt.txt", folder / "text.txt"
    prompt.write_text("What is a lighthouse?\n")
    text.write_text("The lighthouse is a tower. A q walks.")
    checks.refused("eval of a text with NaN", tandem("eval", target, "--reference", DEMO_TARGET, "--prompts", prompt, "--text",
                                                     text, "--max-new-tokens", 8, "--gate"), f"{target}: text 1", "finite logits")


def more_memory_than_there_is(checks, folder):
    sizes = json.dumps({"hidden_size": 1 << 24, "intermediate_size": 1 << 24})
    status, _, err = tandem("generate", DEMO_TARGET, "--prompt", "Hi", "--load-format", "dummy", "--hf-overrides", sizes)
    checks.check("a model of 2^48 numbers", status == 1 and err.startswith("tandem: error: memory: expected "), (status, err))
    # A system that promises more than it has would end the process when the cache fills.
    status, _, err = tandem("serve", DEMO_TARGET, "--device", "cpu", "--port", 0, "--load-format", "dummy", "--kv-cache-gib", 1e6,
                            "--max-num-seqs", 32000, "--hf-overrides", json.dumps({"max_position_embeddings": 1 << 17}))
    checks.check("a cache larger than memory", status == 1 and err.startswith("tandem: error: memory: expected ") and
                 "for the KV cache" in err, (status, err))


def outputs(checks, folder):
    prompt = folder / "prompt.txt"
    prompt.write_text("Hi\n")
    evaluate = ["eval", DEMO_TARGET, "--prompts", prompt, "--max-new-tokens", 2]
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    status, _, err = tandem(*evaluate, "--out-json", pipe)
    checks.check("a pipe is no file to write", status == 2 and f"{pipe}: expected a file" in err, (status, err))
    checks.check("and stays a pipe", pipe.is_fifo())
    # `tandem ... | head`: who reads the table no further ends the program, after the files are there.
    report, figures, history = folder / "report.json", folder / "figures.json", folder / "history.sqlite"
    for command, out in (([*evaluate, "--out-json", figures], figures),
                         (["bench", "latency", DEMO_TARGET, "--num-iters", 1, "--output-len", 2, "--history", history,
                           "--output-json", report], report)):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run([TANDEM, *map(str, command)], stdout=writer, stderr=subprocess.PIPE)
        os.close(writer)
        checks.check(f"{command[0]}: its file is there although nobody reads the table",
                     done.returncode in (141, -13) and out.exists(), done)
    checks.check("and the run is in the history", "latency" in tandem("bench", "history", "--history", history)[1])
    limited = subprocess.run([TANDEM, *map(str, [*evaluate, "--out-json", folder / "limited.json"])], capture_output=True,
                             preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)))
    checks.check("eval: a file size limit is an error, and the summary is there",
                 limited.returncode == 1 and b"File too large" in limited.stderr and b"perplexity" in limited.stdout, limited)
    checks.equal("and nothing half written is left", sorted(folder.glob("limited*")), [])
    if not os.path.exists("/dev/full"):
        return
    quantize = ["quantize", "--target", DEMO_TARGET, "--assistant", DEMO_ASSISTANT, "--dry-run", "--out-target", folder / "out"]
    ops = ["bench", "ops", DEMO_TARGET, "--rows", 1, "--min-calls", 1, "--min-seconds", 0, "--history", "none",
           "--output-json", "-"]
    for command in (evaluate, quantize, ops):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([TANDEM, *map(str, command)], stdout=full, stderr=subprocess.PIPE)
        checks.check(f"{command[0]}: a full disk is reported", done.returncode == 1 and b"No space left" in done.stderr, done)


def outputs_that_cannot_be(checks, folder):
    """Said before the work: the target, the ids and the server that come first are not there either."""
    (folder / "file").write_text("x")
    ids = folder / "ids.json"
    for name in ("missing/x", "file/x"):
        for flag in ("--out-json", "--out-html"):
            checks.refused(f"eval {flag} {name}", tandem("eval", folder / "none", flag, folder / name), f"{name}.partial")
        checks.refused("eval, one file twice", tandem("eval", folder / "none", "--out-json", folder / "r", "--out-html", f"{folder}/./r"),
                       "--out-html: expected another file than --out-json")
        checks.refused(f"trace {name}", tandem("trace", folder / "none", "--token-ids", ids, "--out", folder / name), f"{name}.partial")
    for command in (["latency", folder / "none"], ["throughput", folder / "none"], ["ops", folder / "none"],
                    ["step", folder / "none"], ["serve", "--port", 9, "--ready-check-timeout-sec", 5]):
        checks.refused(f"bench {command[0]}: --output-json", tandem("bench", *command, "--device=cpu" if len(command) == 2 else "--num-prompts=1",
                       "--history", "none", "--output-json", folder / "file/x"), "file/x.partial")
        status, out, err = tandem("bench", *command, "--history", folder / "file/h")
        checks.check(f"bench {command[0]}: --history", status != 0 and out == "" and "file/h: expected a file" in err, (status, err))


def names(checks, folder):
    """A name in a file neither begins a line of its own nor speaks to the terminal."""
    config = json.loads((DEMO_TARGET / "config.json").read_text())
    config["model_type"] = "x\n\x1b[31mtandem: info: all is well"
    model = folder / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(config))
    checks.refused("control characters", tandem("inspect", model), r"got x\x0a\x1b[31mtandem: info: all is well")


def odd_values(checks):
    """Values that the parser of flags would take for others, or refuse in words of its own."""
    huge = "9" * 23
    generate = ["generate", DEMO_TARGET, "--prompt", "Hi"]
    for flag in ("--no-enable-prefix-caching", "--enable-prefix-caching", "--json"):
        for value in (huge, f"-{huge}", "5k", "-2", "maybe"):
            checks.refused(f"{flag}={value}", tandem(*generate, f"{flag}={value}", timeout=60),
                           f"generate: {flag}: expected true or false, got {value}")
    checks.refused("in a command inside a command", tandem("bench", "step", "/nowhere", f"--no-enable-prefix-caching={huge}"),
                   f"bench step: --no-enable-prefix-caching: expected true or false, got {huge}")
    checks.equal("off", tandem(*generate, "--max-tokens", 1, "--json=off", "--no-enable-prefix-caching=FALSE")[0], 0)
    for flag in ("--seed", "--temperature", "--top-k", "--stop-token-ids", "--max-tokens"):
        checks.refused(f"{flag}=", tandem(*generate, f"{flag}="), f"{flag}: expected a number, got nothing")
    for value in (huge, f"-{huge}"):
        checks.refused(f"--top-k {value}", tandem(*generate, "--top-k", value),
                       f"--top-k: expected {-2**63} to {2**63 - 1}, got {value}")
    for value in ("1e9", "1.5", "5XB", "99999999999999999GB"):
        checks.refused(f"--max-shard-size {value}", tandem("quantize", "--target", "/nowhere", "--max-shard-size", value),
                       f"--max-shard-size: expected a size such as 5GB, got {value}")
    checks.refused("flags that exclude each other", tandem("bench", "history", "--compare", 1, 2, "--show", 1),
                   "expected no --", "beside it, got both")
    for command in (["latency", DEMO_TARGET], ["serve", "--port", 9]):
        checks.refused(f"bench {command[0]}: endless prompts", tandem("bench", *command, "--input-len", 2**63 - 1),
                       f"--input-len: expected 1 to 16777216, got {2**63 - 1}")


def main():
    checks = Checks()
    odd_values(checks)
    for part in (prompts_of_the_wrong_kind, a_model_of_one_position, a_token_that_overflows,
                 more_memory_than_there_is, outputs, outputs_that_cannot_be, names):
        with tempfile.TemporaryDirectory() as folder:
            part(checks, pathlib.Path(folder))
    for command in (["quantize", "--target", DEMO_TARGET, "--out-target", "/nowhere/x", "--auto-exclude"],
                    ["eval", DEMO_TARGET, "--max-kl"], ["generate", DEMO_TARGET, "--prompt", "Hi", "--kv-cache-gib"],
                    ["bench", "serve", "--port", 9, "--ready-check-timeout-sec"]):
        for nan in ("nan", "-NaN"):
            checks.refused(f"{command} {nan}", tandem(*command, nan, timeout=60), f"{command[-1]}: expected a number, got {nan}")
    quantize = ["quantize", "--target", DEMO_TARGET, "--out-target", "/nowhere/x", "--dry-run"]
    for command in ([*quantize, "--seed"], [*quantize, "--max-shard-size"], ["serve", "/nowhere", "--seed"],
                    ["generate", DEMO_TARGET, "--prompt", "Hi", "--seed"], ["bench", "latency", "/nowhere", "--seed"]):
        for value in ("-1", 2**64, *(["-5GB"] if "--max" in command[-1] else [])):
            checks.refused(f"{command} {value}", tandem(*command, value, timeout=60),
                           f"{command[-1]}: expected 0 to 18446744073709551615, got {value}")
    checks.equal("the largest seed", tandem("generate", DEMO_TARGET, "--prompt", "Hi", "--max-tokens", 1, "--seed", 2**64 - 1)[0], 0)
    checks.finish()


if __name__ == "__main__":
    main()
