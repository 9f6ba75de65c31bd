"""Trains the pair inside a fixed wall-clock budget: target first, then its assistant, exporting as it goes.

    python train_pair.py --data .carry --out OUT --deadline-seconds 165

Writes OUT/target.safetensors.part*, OUT/assistant.safetensors, OUT/log.json and OUT/eval.json; join.py makes the two
folders. Every stage is fenced: what was exported before a failure stays.
"""

import argparse
import json
import os
import traceback
from pathlib import Path

import torch

import distill
import train_target
from checkpoint import load_assistant, load_target, split
from export import assistant_tensors, target_tensors, write_safetensors
from model import ASSISTANT, TARGET, init_assistant
from ops import Ops
from quick_eval import evaluate
from runtime import Data, Log, process_age


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--deadline-seconds", type=float, default=165.0, help="from the start of the process")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=128, help="rows of 512 tokens per step")
    parser.add_argument("--target-share", type=float, default=0.60)
    parser.add_argument("--compile-seconds", type=float, default=22.0, help="for the target; 60 % of it again later")
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--adam-lr", type=float, default=2e-3)
    parser.add_argument("--resume-target", type=Path, help="an exported target folder; its training is skipped")
    parser.add_argument("--resume-assistant", type=Path, help="an exported assistant folder to go on from")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


class Run:
    def __init__(self, args, log):
        self.args, self.log = args, log
        self.device = torch.device(args.device)
        self.dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self.ops = Ops(log)
        self.data = Data(args.data / "train.npy", self.device, args.batch, args.seed)
        self.length = self.data.rows.shape[1]

    def fence(self, name, function, *args):
        try:
            return function(*args)
        except Exception as e:  # later stages and exports still run
            self.log(f"{name} failed: {type(e).__name__}: {str(e)[:400]}")
            traceback.print_exc()
            return None

    def compile(self, cases, seconds, train=True):
        if self.device.type == "cuda" and seconds > 1:
            took = self.fence("compile", self.ops.compile_all, cases, seconds, train)
            self.log("compiled", parts=len(self.ops.compiled), seconds=round(took or 0.0, 1))

    def train_target(self):
        args = self.args
        masters = load_target(args.resume_target) if args.resume_target else None
        if not masters:
            self.compile(train_target.compile_cases(TARGET, args.batch, self.length, self.device, self.dtype),
                         args.compile_seconds)
        self.stage = train_target.TargetStage(TARGET, self.data, self.device, self.dtype, self.ops, self.log, masters,
                                              args.muon_lr, args.adam_lr)
        if not masters:
            self.fence("target training", self.stage.train, args.deadline_seconds * args.target_share)
        self.fence("target export", self.save_target)

    def save_target(self):
        path = self.args.out / "target.safetensors"
        write_safetensors(path, target_tensors(self.stage.weights.export()))
        split(path)
        self.log("target exported")

    def save_assistant(self, masters):
        write_safetensors(self.args.out / "assistant.safetensors", assistant_tensors(masters))
        self.log("assistant exported")

    def train_assistant(self):
        args = self.args
        masters = load_assistant(args.resume_assistant) if args.resume_assistant else \
            init_assistant(ASSISTANT, TARGET, self.stage.weights.masters)
        self.assistant = distill.AssistantStage(ASSISTANT, TARGET, self.stage, masters, self.data, self.device,
                                                self.dtype, self.ops, self.log, args.muon_lr, args.adam_lr)
        cases = distill.compile_cases(ASSISTANT, args.batch, self.length, self.device, self.dtype, self.assistant.chosen)
        self.compile(cases, args.compile_seconds * 0.4)
        self.compile(distill.frozen_cases(TARGET, args.batch, self.length, self.device, self.dtype),
                     args.compile_seconds * 0.2, train=False)
        self.fence("distillation", self.assistant.train, args.deadline_seconds - 8.0, self.save_assistant)
        self.fence("assistant export", lambda: self.save_assistant(self.assistant.weights.export()))

    def evaluate(self):
        self.ops.compiled.clear()
        result = evaluate(self.assistant, self.args.data, self.device, self.length)
        (self.args.out / "eval.json").write_text(json.dumps(result, indent=1))
        self.log("evaluated", **{k: v for k, v in result.items() if not isinstance(v, (dict, list))})


def main():
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    log = Log(args.out / "log.json", process_age())
    torch.manual_seed(args.seed)
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    log("start", torch=torch.__version__, device=name, deadline=args.deadline_seconds)
    run = Run(args, log)
    log("data ready", rows=len(run.data.rows))
    run.fence("target stage", run.train_target)
    if run.device.type == "cuda":
        torch.cuda.empty_cache()
    run.fence("assistant stage", run.train_assistant)
    run.fence("evaluation", run.evaluate)
    log("end", peak_gib=round(torch.cuda.max_memory_allocated() / 2**30, 1) if run.device.type == "cuda" else 0)
    os._exit(0)  # no slow teardown of compiler workers


if __name__ == "__main__":
    main()
