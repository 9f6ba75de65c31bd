"""Trains the target until a share of the wall clock is used."""

import torch
import torch.nn.functional as F

import ops as plain
from model import Rows, init_target, kv_heads, target_forward
from optim import Optimizer, Weights, schedule
from runtime import Stepper, choose_attention, make_attention, unpack

PROMPT_WEIGHT = 0.1


def compile_cases(config, batch, length, device, dtype):
    """The shapes the target's step uses, costliest parts first."""
    n, hidden, inter = batch * length, config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]

    def rand(*shape, grad=True, kind=dtype):
        return torch.randn(*shape, device=device, dtype=kind).requires_grad_(grad)

    def qkv_args(kind, d):
        kv = kv_heads(config, kind)
        total = heads + kv * (2 if kind == "sliding_attention" else 1)
        angles = torch.rand(length, d, device=device)
        return lambda: (rand(batch, length, total, d), rand(d), rand(d), angles.cos(), angles.sin(), heads, kv)

    def loss_args():
        targets = torch.randint(0, config["vocab_size"], (n,), device=device)
        return rand(n, config["vocab_size"]), targets, torch.rand(n, device=device), config["final_logit_softcapping"]

    return [
        ("qkv", "sliding_attention", plain.qkv, qkv_args("sliding_attention", config["head_dim"])),
        ("geglu", "target", plain.geglu, lambda: (rand(batch, length, 2 * inter),)),
        ("hard_loss", "", plain.hard_loss, loss_args),
        ("add_rms", "target", plain.add_rms,
         lambda: (rand(batch, length, hidden), rand(batch, length, hidden), rand(hidden))),
        ("qkv", "full_attention", plain.qkv, qkv_args("full_attention", config["global_head_dim"])),
        ("rms", "target", plain.rms, lambda: (rand(batch, length, hidden), rand(hidden))),
    ]


def logits_of(config, w, tokens, rows, attention, ops):
    hidden, kv = target_forward(config, w, tokens, rows, attention, ops)
    return F.linear(hidden, w["embed_tokens.weight"]), hidden, kv


class TargetStage:
    def __init__(self, config, data, device, dtype, ops, log, masters=None, muon_lr=0.02, adam_lr=2e-3):
        self.config, self.data, self.ops, self.log, self.device = config, data, ops, log, device
        self.length = data.rows.shape[1]
        self.weights = Weights(masters or init_target(config), device, dtype)
        self.optimizer = Optimizer(self.weights, muon_lr, adam_lr, low=dtype)
        self.rows = Rows(config, self.length, device)
        self.attention = make_attention(config, self.length, device)
        choose_attention(self.attention, config, dtype, device, log)

    def loss(self, tokens, answers):
        w, cap = self.weights.work, self.config["final_logit_softcapping"]
        logits, _, _ = logits_of(self.config, w, tokens, self.rows, self.attention, self.ops)
        targets = F.pad(tokens[:, 1:], (0, 1))
        importance = torch.where(F.pad(answers[:, 1:], (0, 1)), 1.0, PROMPT_WEIGHT) * (targets != 0)
        importance = importance.reshape(-1)
        total = self.ops.hard_loss(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), importance, cap)
        return total / importance.sum()

    def body(self, index):
        tokens, answers = unpack(self.data.rows[index])
        loss = self.loss(tokens, answers)
        self.optimizer.step(torch.autograd.grad(loss, self.weights.leaves))
        return loss.detach()

    def train(self, until, report_every=5.0):
        """Trains until log.now() reaches `until`; returns the number of steps."""
        stepper = Stepper(self.body, self.data.batch, self.device, self.log)
        self.optimizer.lr.fill_(0.0)
        stepper.capture(self.data)
        start, steps, last = self.log.now(), 0, self.log.now()
        loss = None
        while self.log.now() < until:
            fraction = (self.log.now() - start) / max(until - start, 1e-3)
            self.optimizer.lr.fill_(schedule(fraction))
            loss = stepper(self.data.next_index())
            steps += 1
            if steps % 4 == 0:
                if self.device.type == "cuda":
                    torch.cuda.synchronize()
                if self.log.now() - last > report_every:
                    last = self.log.now()
                    self.log("target", step=steps, loss=round(float(loss), 4),
                             tokens_per_s=int(steps * self.data.batch * self.length / (last - start)))
        if loss is not None:
            self.log("target done", steps=steps, loss=round(float(loss), 4))
        return steps
