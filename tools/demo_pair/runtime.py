"""Device, clock, data and the captured training step."""

import json
import time
from pathlib import Path

import numpy as np
import torch

from model import Attention

PROCESS_START = time.monotonic()
TOKEN_MASK, ANSWER_FLAG = 0x0FFF, 0x1000


def process_age():
    """Seconds since this process was started (not since Python finished importing)."""
    try:
        fields = Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()
        import os

        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return float(Path("/proc/uptime").read_text().split()[0]) - started
    except (OSError, ValueError, IndexError):
        return time.monotonic() - PROCESS_START


class Log:
    def __init__(self, path, offset):
        self.path, self.zero, self.events = path, time.monotonic() - offset, []

    def now(self):
        return time.monotonic() - self.zero

    def __call__(self, text, **values):
        print(f"[{self.now():6.1f}] {text}" + "".join(f" {k}={v}" for k, v in values.items()), flush=True)
        self.events.append({"seconds": round(self.now(), 2), "event": text, **values})
        try:
            self.path.write_text(json.dumps(self.events, indent=0))
        except (OSError, TypeError) as e:
            print("log not written:", e, flush=True)


class Data:
    """Packed rows on the device, drawn in shuffled passes."""

    def __init__(self, path, device, batch, seed=0):
        rows = np.load(path).astype(np.int32)
        self.rows = torch.from_numpy(rows).to(device)
        self.batch, self.device, self.seed = batch, device, seed
        self.generator = torch.Generator(device=device).manual_seed(seed)
        self.order, self.at = None, 0

    def next_index(self):
        if self.order is None or self.at + self.batch > len(self.order):
            repeats = -(-self.batch // len(self.rows))
            orders = [torch.randperm(len(self.rows), generator=self.generator, device=self.device) for _ in
                      range(repeats)]
            self.order, self.at = torch.cat(orders), 0
        self.at += self.batch
        return self.order[self.at - self.batch:self.at]


def unpack(rows):
    """[B, T] packed ids -> tokens (int64) and 'the model writes this token' flags."""
    return (rows & TOKEN_MASK).long(), (rows & ANSWER_FLAG) != 0


def _attention_gap(attention, candidate, config, dtype, device):
    """Largest relative difference of a candidate from the dense form, in values and gradients of both layer kinds."""
    worst = 0.0
    for kind, d, n in (("sliding_attention", config["head_dim"], config["num_key_value_heads"]),
                       ("full_attention", config["global_head_dim"], config["num_global_key_value_heads"])):
        t = attention.masks[kind].shape[0]
        q = torch.randn(2, t, config["num_attention_heads"], d, device=device, dtype=dtype) * 0.3
        k = torch.randn(2, t, n, d, device=device, dtype=dtype)
        v = torch.randn(2, t, n, d, device=device, dtype=dtype)
        leaves = [x.requires_grad_() for x in (q, k, v)]
        results = []
        for f in (attention.dense, candidate):
            out = f(kind, *leaves)
            results.append([out, *torch.autograd.grad((out.float() * torch.cos(out.float() * 3)).sum(), leaves)])
        for a, b in zip(*results, strict=True):
            gap = float((a.float() - b.float()).norm() / a.float().norm())
            worst = max(worst, gap if gap == gap else float("inf"))
    return worst


def choose_attention(attention, config, dtype, device, log):
    """Takes a form of the flash kernel if it agrees with the dense form, which is always right."""
    if device.type != "cuda":
        return
    for candidate in (attention.flash_batch, attention.flash_packed):
        try:
            gap = _attention_gap(attention, candidate, config, dtype, device)
            log(f"attention {candidate.__name__}: differs from dense by {gap:.1e}")
            if gap < 0.03:
                attention.call = candidate
                return
        except Exception as e:  # try the next form
            log(f"attention {candidate.__name__}: {type(e).__name__}: {str(e)[:200]}")
    log("attention: dense")


class Stepper:
    """Runs `body(index) -> metrics tensor` many times: captured as a CUDA graph when that works, plainly otherwise."""

    def __init__(self, body, batch, device, log):
        self.body, self.log = body, log
        self.index = torch.zeros(batch, dtype=torch.long, device=device)
        self.graph, self.out = None, None

    def capture(self, data):
        """Warm up and capture. The caller has set the learning rate to zero, so weights stay as they are."""
        if self.index.device.type != "cuda":
            return
        try:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    self.index.copy_(data.next_index())
                    self.body(self.index)
            torch.cuda.current_stream().wait_stream(side)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.out = self.body(self.index)
            self.graph = graph
            self.log("step captured as a CUDA graph")
        except Exception as e:  # training goes on without the graph
            self.graph = None
            self.log(f"no CUDA graph: {type(e).__name__}: {str(e)[:300]}")
            torch.cuda.synchronize()

    def __call__(self, index):
        self.index.copy_(index)
        if self.graph is None:
            return self.body(self.index)
        self.graph.replay()
        return self.out


def make_attention(config, length, device):
    return Attention(config["sliding_window"], length, device)
