"""Trains the assistant on the frozen target's states, KV and distributions, for several draft steps at once.

For a position p the target's state h[p] is known and token t[p+1] is the newest one. Draft step j reads token t[p+j]
and a state (h[p] first, then its own output), queries at position p over keys 0..p, and guesses token p+j+1, which the
target judges in its row p+j.
"""

import torch
import torch.nn.functional as F

import ops as plain
from model import assistant_step, scale_of
from optim import Optimizer, Weights, schedule
from runtime import Stepper, unpack
from train_target import compile_cases as target_cases
from train_target import logits_of

STEPS = 4
HARD_SHARE = 0.5  # share of the target's greedy token in the goal; the rest is its full distribution


def compile_cases(config, batch, length, device, dtype, chosen):
    hidden, inter, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]

    def rand(*shape, grad=True):
        return torch.randn(*shape, device=device, dtype=dtype).requires_grad_(grad)

    def q_args(d):
        angles = torch.rand(length, d, device=device)
        return lambda: (rand(batch, length, heads, d), rand(d), angles.cos(), angles.sin())

    def loss_args():
        n = batch * length
        probs = torch.softmax(torch.randn(n, config["vocab_size"], device=device, dtype=dtype), -1)
        index = torch.randint(0, n, (chosen,), device=device)
        return rand(chosen, config["vocab_size"]), probs, index, torch.rand(chosen, device=device)

    return [
        ("q_only", "sliding_attention", plain.q_only, q_args(config["head_dim"])),
        ("geglu", "assistant", plain.geglu, lambda: (rand(batch, length, 2 * inter),)),
        ("soft_loss", "", plain.soft_loss, loss_args),
        ("add_rms", "assistant", plain.add_rms,
         lambda: (rand(batch, length, hidden), rand(batch, length, hidden), rand(hidden))),
        ("q_only", "full_attention", plain.q_only, q_args(config["global_head_dim"])),
        ("rms", "assistant", plain.rms, lambda: (rand(batch, length, hidden), rand(hidden))),
    ]


def frozen_cases(target_config, batch, length, device, dtype):
    """The target's parts again, without gradients, and the goal distributions; costliest first."""
    shape = (batch * length, target_config["vocab_size"])
    goal_args = (target_config["final_logit_softcapping"], HARD_SHARE)
    cases = target_cases(target_config, batch, length, device, dtype)
    return [("goal", "", plain.goal, lambda: (torch.randn(*shape, device=device, dtype=dtype), *goal_args))] + \
        [c for c in cases if c[0] in ("qkv", "geglu")]


def shifted(x, by):
    """x[:, p + by] at p; the end of the row is filled with the last column."""
    return torch.cat([x[:, by:], x[:, -1:].expand(-1, by, *x.shape[2:])], 1) if by else x


class AssistantStage:
    def __init__(self, config, target_config, target_stage, masters, data, device, dtype, ops, log, muon_lr=0.02,
                 adam_lr=2e-3, chosen_share=0.4):
        self.config, self.target_config, self.target = config, target_config, target_stage
        self.data, self.device, self.ops, self.log, self.dtype = data, device, ops, log, dtype
        self.weights = Weights(masters, device, dtype)
        self.optimizer = Optimizer(self.weights, muon_lr, adam_lr, low=dtype)
        self.frozen = {k: v.detach() for k, v in target_stage.weights.work.items()}
        self.chosen = int(data.batch * data.rows.shape[1] * chosen_share)
        self.scale = scale_of(target_config)

    @torch.no_grad()
    def teach(self, tokens):
        """The target's states, KV, goal distributions [B*T, V] and greedy tokens [B, T]."""
        t = self.target
        logits, hidden, kv = logits_of(self.target_config, self.frozen, tokens, t.rows, t.attention, self.ops)
        probs, greedy = self.ops.goal(logits.reshape(-1, logits.shape[-1]),
                                      self.target_config["final_logit_softcapping"], HARD_SHARE)
        return hidden, kv, probs, greedy.view(tokens.shape)

    def choose(self, answers):
        """`chosen` positions whose first guessed token is one the model writes (others only if too few)."""
        length = answers.shape[1]
        score = shifted(answers, 2).float() + torch.rand(answers.shape, device=self.device)
        at = torch.arange(length, device=self.device)
        score = torch.where(at < length - STEPS - 2, score, -1.0)
        return torch.topk(score.reshape(-1), self.chosen).indices

    def embedded(self, tokens):
        return self.frozen["embed_tokens.weight"][tokens] * self.scale

    def loss(self, tokens, answers):
        hidden, kv, probs, greedy = self.teach(tokens)
        picked = self.choose(answers)
        followed = (greedy == shifted(tokens, 1)).float()  # did the text take the target's greedy token after row q?
        reach = 0.3 + 0.7 * followed
        state, total, norm = hidden, 0.0, 0.0
        for j in range(1, STEPS + 1):
            z, state = assistant_step(self.config, self.weights.work, self.embedded(shifted(tokens, j)), state, kv,
                                      self.target.rows, self.target.attention, self.ops)
            wanted = shifted(answers, j + 1).float() * 0.95 + 0.05
            weight = (reach * wanted).reshape(-1)[picked]
            logits = F.linear(z.reshape(-1, z.shape[-1])[picked], self.weights.work["embed_tokens.weight"])
            total = total + self.ops.soft_loss(logits, probs, picked + j, weight)
            norm = norm + weight.sum()
            reach = reach * (0.2 + 0.8 * shifted(followed, j))
        return total / norm

    def body(self, index):
        tokens, answers = unpack(self.data.rows[index])
        loss = self.loss(tokens, answers)
        self.optimizer.step(torch.autograd.grad(loss, self.weights.leaves))
        return loss.detach()

    def train(self, until, save, save_every=20.0, report_every=5.0):
        stepper = Stepper(self.body, self.data.batch, self.device, self.log)
        self.optimizer.lr.fill_(0.0)
        stepper.capture(self.data)
        start, steps = self.log.now(), 0
        last_report = last_save = start
        loss = None
        while self.log.now() < until:
            fraction = (self.log.now() - start) / max(until - start, 1e-3)
            self.optimizer.lr.fill_(schedule(fraction))
            loss = stepper(self.data.next_index())
            steps += 1
            if steps % 4:
                continue
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            now = self.log.now()
            if now - last_report > report_every:
                last_report = now
                self.log("assistant", step=steps, loss=round(float(loss), 4),
                         tokens_per_s=int(steps * self.data.batch * self.data.rows.shape[1] / (now - start)))
            if now - last_save > save_every:
                last_save = now
                save(self.weights.export())
        if loss is not None:
            self.log("assistant done", steps=steps, loss=round(float(loss), 4))
        return steps

    @torch.no_grad()
    def accepted(self, tokens):
        """How many of the STEPS own greedy guesses at each p the target accepts [B, T], were the text greedy."""
        hidden, kv, _, greedy = self.teach(tokens)
        state, newest = hidden, shifted(tokens, 1)
        alive = torch.ones_like(tokens, dtype=torch.bool)
        count = torch.zeros_like(tokens)
        for j in range(1, STEPS + 1):
            z, state = assistant_step(self.config, self.weights.work, self.embedded(newest), state, kv,
                                      self.target.rows, self.target.attention, self.ops)
            newest = F.linear(z, self.weights.work["embed_tokens.weight"]).argmax(-1)
            # Right guesses equal the text's own tokens, so the next row of the target is the right judge.
            alive = alive & (newest == shifted(greedy, j)) & (newest == shifted(tokens, j + 1))
            count += alive
        return count, greedy
