"""Runs `tandem quantize` and reads what it wrote with independent code (numpy, PyPI safetensors).

    python tests/e2e/quantize_test.py [PROGRAM] [--only TEXT]

PROGRAM defaults to the environment variable TANDEM. Most cases run on the small pairs of tests/golden; the case of
the demo pair also generates text. Interruptions are made with fault_shim.c, which kills the process at a chosen
call that changes files, or lets writes fail as on a full disk.
"""

import argparse
import errno
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from fp8_files import Failure, bf16_to_f32, demand, encode_e4m3, files_of, read_file, read_model  # noqa: E402

ROOT = HERE.parent.parent
GOLDEN = ROOT / "tests" / "golden"
DEMO = ROOT / "demo"
SCHEME = {"dynamic": False, "num_bits": 8, "type": "float"}
KEPT = ("embed_tokens.weight", "pre_projection.weight", "post_projection.weight")


# --- running ------------------------------------------------------------------------------------------------------


class Bench:
    """The program, the golden pair, and a scratch folder."""

    def __init__(self, program, scratch):
        self.program, self.scratch = program, pathlib.Path(scratch)
        self.target, self.assistant = GOLDEN / "unified" / "target", GOLDEN / "unified" / "assistant"
        self.ids = self.scratch / "prompts.json"
        names = ("long", "window_edge", "fp8_long")
        self.ids.write_text(json.dumps([json.loads((GOLDEN / "unified" / f"{n}.ids.json").read_text()) for n in names]))
        self.shim = None

    def command(self, out, *extra, both=True):
        command = [self.program, "quantize", "--target", self.target, "--assistant", self.assistant, "--token-ids",
                   self.ids, "--max-new-tokens", "24", "--out-target", out / "target"]  # fmt: skip
        return [str(part) for part in [*command, *(["--out-assistant", out / "assistant"] if both else []), *extra]]

    def run(self, command, ok=True, **keywords):
        run = subprocess.run(command, capture_output=True, text=True, timeout=600, **keywords)
        if ok:
            demand(run.returncode == 0, f"exit {run.returncode}: {run.stderr.strip()[-400:]}")
        return run

    def quantize(self, name, *extra, **keywords):
        out = self.scratch / name
        out.mkdir()
        self.run(self.command(out, *extra), **keywords)
        return out

    def compile_shim(self):
        compiler = shutil.which("cc") or shutil.which("gcc")
        demand(compiler, "no C compiler for fault_shim.c")
        self.shim = self.scratch / "fault_shim.so"
        self.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(self.shim), str(HERE / "fault_shim.c"), "-ldl"])

    def with_fault(self, command, **faults):
        if self.shim is None:
            self.compile_shim()
        environment = os.environ | {"LD_PRELOAD": str(self.shim)} | {f"FAULT_{k}": str(v) for k, v in faults.items()}
        return self.run(command, ok=False, env=environment)


# --- cases --------------------------------------------------------------------------------------------------------


def check_weights(source, quantized, report, kept_extra=()):
    """Names, dtypes, shapes, scales to the last bit, and every byte of every weight."""
    expected = set()
    for name, (dtype, array) in source.items():
        if name == "lm_head.weight":  # tied: ModelOpt does not repeat the embedding
            embedding = next(n for n in source if n.endswith("embed_tokens.weight"))
            demand(np.array_equal(array, source[embedding][1]), "a head of its own")
            continue
        expected.add(name)
        kept = name.endswith(KEPT) or not name.endswith("_proj.weight") or any(part in name for part in kept_extra)
        got_dtype, got = quantized[name]
        demand(got.shape == array.shape, f"{name}: shape {got.shape}, expected {array.shape}")
        if kept:
            demand(got_dtype == dtype and np.array_equal(got, array), f"{name}: expected the source's bytes")
            continue
        module = name.removesuffix(".weight")
        expected |= {f"{module}.weight_scale", f"{module}.input_scale"}
        demand(got_dtype == "F8_E4M3", f"{name}: {got_dtype}")
        for kind in ("weight_scale", "input_scale"):
            scale_dtype, scale = quantized[f"{module}.{kind}"]
            demand(scale_dtype == "F32" and scale.shape == (), f"{module}.{kind}: {scale_dtype} {scale.shape}")
        values = bf16_to_f32(array)
        scale = np.float32(quantized[f"{module}.weight_scale"][1])
        demand(scale == np.abs(values).max() / np.float32(448), f"{module}: weight_scale is not amax / 448")
        demand(np.array_equal(got, encode_e4m3(values / scale)), f"{name}: bytes differ from an independent encoder")
        canonical = module[module.index("layers.") :]
        amax = np.float32(report["modules"][canonical]["input_amax"])
        demand(np.float32(quantized[f"{module}.input_scale"][1]) == amax / np.float32(448), f"{module}: input_scale")
    demand(set(quantized) == expected, f"names: {sorted(set(quantized) ^ expected)[:5]}")


def check_configs(source, folder, exclusions, activations=True, kv=False):
    config, original = (json.loads((path / "config.json").read_text()) for path in (folder, source))
    inner = config.pop("quantization_config")
    demand(config == original, "config.json: other keys changed")
    demand(inner["quant_method"] == "modelopt" and inner["quant_algo"] == "FP8", "quantization_config: method")
    demand(inner["ignore"] == exclusions, f"ignore: {inner['ignore']}, expected {exclusions}")
    group = {"weights": SCHEME, "targets": ["Linear"]} | ({"input_activations": SCHEME} if activations else {})
    demand(inner["config_groups"] == {"group_0": group}, f"config_groups: {inner['config_groups']}")
    demand(inner.get("kv_cache_scheme") == (SCHEME if kv else None), "kv_cache_scheme")
    hf = json.loads((folder / "hf_quant_config.json").read_text())
    quantization = {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8" if kv else None, "exclude_modules": exclusions}
    demand(hf == {"producer": inner["producer"], "quantization": quantization}, f"hf_quant_config.json: {hf}")
    demand(set(hf["producer"]) == {"name", "version"} and hf["producer"]["name"] == "modelopt", "producer")


def format_case(bench):
    out = bench.quantize("format")
    lists = {"target": ["lm_head"], "assistant": ["lm_head", "post_projection", "pre_projection"]}
    for name, source in (("target", bench.target), ("assistant", bench.assistant)):
        tensors = read_model(source)
        exclusions = list(lists[name])
        for tower in ("embed_audio", "embed_vision", "vision_embedder"):
            if any(tensor.startswith(f"model.{tower}.") for tensor in tensors):
                exclusions.append(f"model.{tower}*")
        report = json.loads((out / name / "quantization_report.json").read_text())
        check_weights(tensors, read_model(out / name), report)
        check_configs(source, out / name, exclusions)
        carried = {p.name for p in source.iterdir()} - {"model.safetensors", "config.json"}
        for file in carried:
            demand((out / name / file).read_bytes() == (source / file).read_bytes(), f"{name}/{file}: not carried")
    # The check itself must notice a wrong byte and a wrong scale.
    good = read_model(out / "target")
    name = next(n for n in good if n.endswith("up_proj.weight"))
    for broken in (name, name + "_scale"):
        wrong = good | {broken: (good[broken][0], good[broken][1] + good[broken][1].dtype.type(1))}
        try:
            check_weights(read_model(bench.target), wrong, json.loads((out / "target/quantization_report.json").read_text()))
        except Failure:
            continue
        raise Failure(f"a wrong {broken} was not noticed")


def options_case(bench):
    """kv scales, weight-only, exclusions and shards keep the format; mse and percentile keep its meaning."""
    out = bench.quantize("options", "--kv-cache-dtype", "fp8", "--weight-only", "--exclude", "*.down_proj", "--exclude",
                         "layers.1.self_attn.o_proj", "--max-shard-size", "100KB")  # fmt: skip
    source, got = read_model(bench.target), read_model(out / "target")
    report = json.loads((out / "target" / "quantization_report.json").read_text())
    demand((out / "target" / "model.safetensors.index.json").exists(), "no index")
    kv = {name: got.pop(name) for name in [*got] if name.endswith(("k_scale", "v_scale"))}
    check_weights(source, got, report, kept_extra=("down_proj", "layers.1.self_attn.o_proj"))
    layers = json.loads((bench.target / "config.json").read_text())
    layers = layers.get("text_config", layers)["num_hidden_layers"]
    demand(len(kv) == 2 * layers, f"{len(kv)} KV scales for {layers} layers")
    for layer, entry in enumerate(report["kv_layers"]):
        for kind in "kv":
            name = next(n for n in kv if f"layers.{layer}.self_attn.{kind}_proj.{kind}_scale" in n)
            demand(kv[name][1] == np.float32(entry[f"{kind}_amax"]) / np.float32(448), name)
    ignore = json.loads((out / "target" / "config.json").read_text())["quantization_config"]["ignore"]
    demand(sum(entry.endswith("down_proj") for entry in ignore) == layers, f"ignore: {ignore}")
    check_configs(bench.target, out / "target", ignore, activations=False, kv=True)
    for scale in ("mse", "percentile"):
        other = read_model(bench.quantize(scale, "--scale", scale) / "target")
        kind = "weight_scale" if scale == "mse" else "input_scale"
        plain = read_model(bench.scratch / "format" / "target")
        ratios = [float(other[n][1] / plain[n][1]) for n in plain if n.endswith(kind)]
        demand(all(0 < r <= 1 for r in ratios) and min(ratios) < 1, f"{scale}: ratios {min(ratios)} to {max(ratios)}")


def spellings_case(bench):
    """Other model types and name prefixes: the source's names are kept, and the result loads."""
    for name, folder in (("classic", "classic/target"), ("plain", "text_only/plain"), ("prefixed", "text_only/prefixed")):
        source, out = GOLDEN / folder, bench.scratch / name
        ids = bench.scratch / f"{name}.json"
        ids.write_text((source.parent / "long.ids.json").read_text())
        bench.run([bench.program, "quantize", "--target", str(source), "--out-target", str(out), "--token-ids", str(ids),
                   "--max-new-tokens", "8"])  # fmt: skip
        report = json.loads((out / "quantization_report.json").read_text())
        check_weights(read_model(source), read_model(out), report)
        bench.run([bench.program, "trace", str(out), "--token-ids", str(ids), "--out", str(bench.scratch / "t")])


def identical_case(bench):
    reference = bench.scratch / "format"
    for name, extra in (("again", ["--threads", "2"]), ("one_thread", ["--threads", "1"])):
        out = bench.quantize(name, *extra)
        for model in ("target", "assistant"):
            demand(files_of(out / model) == files_of(reference / model), f"{name}: {model} differs")


def loads_case(bench):
    """The pair runs, in all combinations, and is near the source without being it."""
    out, errors = bench.scratch / "format", {}
    ids = bench.scratch / "ids.json"
    ids.write_text(json.dumps(json.loads(bench.ids.read_text())[0]))
    for target in (bench.target, out / "target"):
        for assistant in (bench.assistant, out / "assistant"):
            file = bench.scratch / "trace.safetensors"
            bench.run([bench.program, "trace", str(target), "--assistant", str(assistant), "--token-ids", str(ids),
                       "--out", str(file)])  # fmt: skip
            trace = read_file(file)
            errors[target == bench.target, assistant == bench.assistant] = trace
    source = errors.pop((True, True))
    for (plain_target, plain_assistant), trace in errors.items():
        for name, plain in (("logits", plain_target), ("draft_logits", plain_target and plain_assistant)):
            got, expected = trace[name][1][:1 if "draft" in name else None], source[name][1][:1 if "draft" in name else None]
            error = np.linalg.norm(got - expected) / np.linalg.norm(expected)
            demand(error == 0 if plain else 0 < error < 0.3, f"{name}: relative error {error:.3f}")


def check_leftovers(bench, out, reference, label):
    """Whatever has a config.json is the finished model; nothing else loads."""
    finished = 0
    for folder in [path for path in out.rglob("*") if path.is_dir()]:
        if (folder / "config.json").exists():
            demand(files_of(folder) == files_of(reference / folder.name), f"{label}: {folder.name} is a half model")
            finished += 1
            continue
        load = bench.run([bench.program, "trace", str(folder), "--token-ids", str(bench.scratch / "ids.json"), "--out",
                          str(bench.scratch / "x.safetensors")], ok=False)  # fmt: skip
        demand(load.returncode == 2, f"{label}: {folder.name} loads (exit {load.returncode})")
    return finished


def kill_case(bench):
    reference, log = bench.scratch / "format", bench.scratch / "calls"
    probe = bench.scratch / "probe"
    probe.mkdir()
    demand(bench.with_fault(bench.command(probe), LOG=log).returncode == 0, "the run without a fault failed")
    calls = int(log.read_text())
    demand(calls > 40, f"only {calls} calls that change files")
    # The last calls are the renames that publish; the others are spread over the run.
    points = sorted({*np.linspace(1, calls - 12, 14, dtype=int).tolist(), *range(calls - 11, calls + 1)})
    for point in points:
        out = bench.scratch / f"kill{point}"
        out.mkdir()
        run = bench.with_fault(bench.command(out), AT=point)
        demand(run.returncode == -signal.SIGKILL, f"call {point}: exit {run.returncode}")
        finished = check_leftovers(bench, out, reference, f"killed at call {point}")
        if finished == 0:  # and the next run just works
            bench.run(bench.command(out))
            for model in ("target", "assistant"):
                demand(files_of(out / model) == files_of(reference / model), f"after call {point}: {model} differs")
            demand(len(list(out.iterdir())) == 2, f"after call {point}: leftovers {list(out.iterdir())}")
        shutil.rmtree(out)
    return f"{len(points)} of {calls} calls"


def full_disk_case(bench):
    calls = int((bench.scratch / "calls").read_text())
    for point in np.linspace(2, calls - 14, 6, dtype=int).tolist():
        out = bench.scratch / f"full{point}"
        out.mkdir()
        run = bench.with_fault(bench.command(out), AT=point, ERRNO=errno.ENOSPC)
        demand(run.returncode == 1 and "No space left" in run.stderr, f"call {point}: {run.returncode} {run.stderr}")
        demand(not list(out.iterdir()), f"call {point}: left {list(out.iterdir())}")
    out = bench.scratch / "limit"
    out.mkdir()
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # noqa: E731
    run = bench.run(bench.command(out), ok=False, preexec_fn=limit)
    demand(run.returncode == 1 and "File too large" in run.stderr, f"file size limit: {run.returncode} {run.stderr}")
    demand(not list(out.iterdir()), "file size limit: something is left")


def small_disk_case(bench):
    """A file system too small for even the target, one that holds either but not both, one for both and nothing else."""
    if not shutil.which("unshare"):
        return "skipped: no unshare"
    sizes = {m: (bench.scratch / "format" / m / "model.safetensors").stat().st_size for m in ("target", "assistant")}
    script = 'mount -t tmpfs -o size="$0" tmpfs "$1" || exit 77; cd "$1"; shift; "$@"; code=$?; ls -A; exit $code'
    for size, words in ((sizes["target"] // 2, "of free space for the quantized model"),
                        (sizes["target"] + sizes["assistant"] // 2, "of free space for both quantized models"),
                        (sum(sizes.values()) + 16384, "No space left")):
        out = bench.scratch / f"disk{size}"
        out.mkdir()
        run = bench.run(["unshare", "-rm", "sh", "-c", script, str(size), str(out), *bench.command(out)], ok=False)
        if run.returncode == 77 or run.stderr.startswith("unshare:"):
            return "skipped: may not mount"
        demand(run.returncode == 1 and words in run.stderr, f"{size} bytes: exit {run.returncode}: {run.stderr}")
        demand(run.stdout == "", f"{size} bytes: left {run.stdout}")


def read_only_case(bench):
    out = bench.scratch / "readonly"
    out.mkdir(mode=0o555)
    keywords = {}
    if os.geteuid() == 0:  # root may write anywhere
        if not os.access(bench.program, os.X_OK) or not shutil.which("setpriv"):
            return "skipped: root without setpriv"
        keywords = {"prefix": ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]}
        bench.scratch.chmod(0o755)
        tree = pathlib.Path(__file__)
        if subprocess.run([*keywords["prefix"], "test", "-r", tree], check=False).returncode != 0:
            return f"skipped: other users may not read {tree.parent}"
    run = bench.run([*keywords.get("prefix", []), *bench.command(out)], ok=False)
    words = f"{out / 'target.partial'}: expected to make the folder, got: Permission denied"
    demand(run.returncode == 2 and words in run.stderr, f"{run.returncode} {run.stderr}")
    demand(not list(out.iterdir()), "something is left")


def interrupt_case(bench):
    out = bench.scratch / "interrupt"
    out.mkdir()
    command = bench.command(out)
    command[command.index("--max-new-tokens") + 1] = "100000"
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (out / "assistant.partial").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    demand(process.returncode == 130, f"exit {process.returncode}: {stderr}")
    demand(not list(out.iterdir()), f"left {list(out.iterdir())}")


def refusals_case(bench):
    cases = {
        "neither": (["--target", bench.target], "--out-target, --out-assistant or both"),
        "no assistant": (["--target", bench.target, "--out-assistant", "a"], "--assistant"),
        "scale": ([*bench.command(bench.scratch / "r")[2:], "--scale", "entropy"], "max, mse or percentile"),
        "percentile of none": ([*bench.command(bench.scratch / "r")[2:], "--percentile", "99"], "--scale percentile"),
        "in the way": (bench.command(bench.scratch / "format")[2:], "--force"),
        "pattern": ([*bench.command(bench.scratch)[2:], "--exclude", "layers.99.*"], "layers.99.*"),
        "quantized": ([*bench.command(bench.scratch)[2:], "--target", GOLDEN / "unified/target-fp8"], "already"),
    }
    for label, (arguments, words) in cases.items():
        if label == "quantized":
            arguments = [a for i, a in enumerate(arguments) if i not in (0, 1)]
        run = bench.run([bench.program, "quantize", *map(str, arguments)], ok=False)
        demand(run.returncode == 2 and words in run.stderr, f"{label}: exit {run.returncode}: {run.stderr}")
    dry = bench.run([*bench.command(bench.scratch / "dry"), "--dry-run"])
    demand("would go to" in dry.stdout and not (bench.scratch / "dry").exists(), f"--dry-run: {dry.stdout}")


def demo_case(bench):
    """The shipped pair with default prompts: quantized, loaded, and it still answers."""
    if not (DEMO / "target" / "model.safetensors").exists():
        return "skipped: no demo pair"
    out = bench.scratch / "demo"
    out.mkdir()
    bench.run([bench.program, "quantize", "--target", str(DEMO / "target"), "--assistant", str(DEMO / "assistant"),
               "--out-target", str(out / "target"), "--out-assistant", str(out / "assistant"), "--num-prompts", "6",
               "--max-new-tokens", "48"])  # fmt: skip
    report = json.loads((out / "target" / "quantization_report.json").read_text())
    check_weights(read_model(DEMO / "target"), read_model(out / "target"), report)
    config = json.dumps({"model": str(out / "assistant"), "num_speculative_tokens": 4})
    run = bench.run([bench.program, "generate", str(out / "target"), "--speculative-config", config, "--prompt",
                     "455 - 46 =", "--temperature", "0", "--max-tokens", "16"])  # fmt: skip
    demand("409" in run.stdout, f"the FP8 pair answers {run.stdout!r} to 455 - 46")


CASES = (format_case, options_case, spellings_case, identical_case, loads_case, kill_case, full_disk_case,
         small_disk_case, read_only_case, interrupt_case, refusals_case, demo_case)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program", nargs="?", default=os.environ.get("TANDEM"))
    parser.add_argument("--only", default="", help="run the cases whose name contains this (and format, first)")
    args = parser.parse_args()
    if not args.program:
        parser.error("name the tandem program, as an argument or in TANDEM")
    failed = passed = 0
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(str(pathlib.Path(args.program).resolve()), scratch)
        for case in CASES:
            name = case.__name__.removesuffix("_case")
            if args.only not in name and name != "format":
                continue
            begin = time.monotonic()
            try:
                note = case(bench)
                passed += 1
                print(f"ok   {name} ({time.monotonic() - begin:.1f} s) {note or ''}".rstrip(), flush=True)
            except (Failure, OSError, KeyError, ValueError, StopIteration, subprocess.TimeoutExpired) as problem:
                failed += 1
                print(f"FAIL {name}: {problem!r}", flush=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
