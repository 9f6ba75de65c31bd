"""The elementwise parts of the models, each compiled on its own if a compiler is there and time allows.

Every part has a plain version. A compiled version is taken only after its values and gradients agreed with the plain
one on random input, and only while the compile budget lasts, so a slow or broken compiler costs seconds at most.
"""

import signal
import time

import torch
import torch.nn.functional as F

EPS = 1e-6


def rms(x, w):
    return F.rms_norm(x, (x.shape[-1],), w, EPS)


def add_rms(x, y, w):
    return x + F.rms_norm(y, (y.shape[-1],), w, EPS)


def geglu(gate_up):
    gate, up = gate_up.chunk(2, -1)
    return F.gelu(gate, approximate="tanh") * up


def _rotate(x, cos, sin):
    half = x.shape[-1] // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], -1)
    return x * cos[:, None] + turned * sin[:, None]


def _norm(x):
    x = x.float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS)


def q_only(q, w, cos, sin):
    return _rotate(_norm(q) * w.float(), cos, sin).to(q.dtype)


def qkv(qkv_raw, q_weight, k_weight, cos, sin, heads, kv):
    """[B, T, heads + kv (+ kv), D] -> q, k, v. Without a V part (k_eq_v), V is the normed raw K."""
    q, k = qkv_raw[:, :, :heads], qkv_raw[:, :, heads:heads + kv]
    v = qkv_raw[:, :, heads + kv:] if qkv_raw.shape[2] > heads + kv else k
    k_out = _rotate(_norm(k) * k_weight.float(), cos, sin).to(k.dtype)
    return q_only(q, q_weight, cos, sin), k_out, _norm(v).to(k.dtype)


def hard_loss(logits, targets, weights, cap):
    """Sums over rows [N, V]: weighted cross-entropy of the softcapped logits."""
    logits = logits.float()
    logits = cap * torch.tanh(logits / cap)
    ce = torch.logsumexp(logits, -1) - logits.gather(-1, targets[:, None])[:, 0]
    return (ce * weights).sum()


def soft_loss(logits, probs, index, weights):
    """Weighted cross-entropy against the target's distributions probs[index] [M, V]."""
    logits = logits.float()
    ce = torch.logsumexp(logits, -1) - (logits * probs[index].float()).sum(-1)
    return (ce * weights).sum()


def goal(logits, cap, hard):
    """Rows [N, V] -> the distribution to learn (part of it on the greedy token) in BF16, and the greedy tokens."""
    capped = cap * torch.tanh(logits.float() / cap)
    greedy = capped.argmax(-1)
    is_greedy = torch.arange(logits.shape[-1], device=logits.device) == greedy[:, None]
    return (torch.softmax(capped, -1) * (1 - hard) + hard * is_greedy).to(logits.dtype), greedy


class _Embed(torch.autograd.Function):
    """Table lookup whose gradient is summed in FP32 without a sort, so that it can be captured in a graph."""

    @staticmethod
    def forward(ctx, table, tokens):
        ctx.save_for_backward(tokens)
        ctx.shape, ctx.dtype = table.shape, table.dtype
        return table[tokens]

    @staticmethod
    def backward(ctx, grad):
        (tokens,) = ctx.saved_tensors
        out = torch.zeros(ctx.shape, dtype=torch.float32, device=grad.device)
        out.index_add_(0, tokens.reshape(-1), grad.reshape(-1, ctx.shape[1]).float())
        return out.to(ctx.dtype), None


class CompileTimeout(Exception):
    pass


def _alarm(_signal, _frame):
    raise CompileTimeout("the compile budget is used up")


class Ops:
    def __init__(self, log=print):
        self.compiled, self.log = {}, log

    def _run(self, name, tag, function, *args):
        """Parts compiled for training and for inference are different programs; each is used in its own mode only."""
        return self.compiled.get((name, tag, torch.is_grad_enabled()), function)(*args)

    @staticmethod
    def embed(table, tokens):
        return _Embed.apply(table, tokens)

    def rms(self, tag, *args):
        return self._run("rms", tag, rms, *args)

    def add_rms(self, tag, *args):
        return self._run("add_rms", tag, add_rms, *args)

    def geglu(self, tag, *args):
        return self._run("geglu", tag, geglu, *args)

    def qkv(self, tag, *args):
        return self._run("qkv", tag, qkv, *args)

    def q_only(self, tag, *args):
        return self._run("q_only", tag, q_only, *args)

    def hard_loss(self, *args):
        return self._run("hard_loss", "", hard_loss, *args)

    def soft_loss(self, *args):
        return self._run("soft_loss", "", soft_loss, *args)

    def goal(self, *args):
        return self._run("goal", "", goal, *args)

    def compile_all(self, cases, seconds, train=True):
        """cases: (name, tag, function, args maker). Compiles until the budget is used up; returns what it took."""
        began = time.monotonic()
        for name, tag, function, make in cases:
            left = seconds - (time.monotonic() - began)
            if left < 1.0:
                self.log(f"compile budget used up before {name} {tag}")
                break
            old = signal.signal(signal.SIGALRM, _alarm)
            signal.setitimer(signal.ITIMER_REAL, left, 2.0)  # again, should one be swallowed
            start = time.monotonic()
            try:
                with torch.set_grad_enabled(train):
                    error = self._try(function, make, (name, tag, train))
                signal.setitimer(signal.ITIMER_REAL, 0)
                self.log(f"compiled {name} {tag} in {time.monotonic() - start:.1f} s, largest error {error:.1e}")
            except BaseException as e:  # any failure leaves the plain version in place
                signal.setitimer(signal.ITIMER_REAL, 0)
                self.compiled.pop((name, tag, train), None)
                self.log(f"not compiled: {name} {tag}: {type(e).__name__}: {str(e)[:200]}")
                if isinstance(e, KeyboardInterrupt):
                    raise
            finally:
                signal.signal(signal.SIGALRM, old)
        return time.monotonic() - began

    def _try(self, function, make, key):
        args = make()
        fast = torch.compile(function, dynamic=False)
        if not torch.is_grad_enabled():
            args = tuple(a.detach() if torch.is_tensor(a) else a for a in args)
        error = 0.0
        for x, y in zip(_values_and_gradients(function, args), _values_and_gradients(fast, args), strict=True):
            gap = (x.float() - y.float()).norm() / (x.float().norm() + 1e-9)
            error = max(error, float(gap))
        if not error < 0.02:
            raise ValueError(f"values differ by {error:.2e}")
        self.compiled[key] = fast
        return error


def _values_and_gradients(function, args):
    leaves = [a for a in args if torch.is_tensor(a) and a.requires_grad]
    out = function(*args)
    outs = out if isinstance(out, tuple) else (out,)
    torch.manual_seed(0)
    if not torch.is_grad_enabled():
        return [o.detach() for o in outs if o.is_floating_point()]
    total = sum((o.float() * torch.randn(o.shape, device=o.device)).sum() for o in outs)
    return [o.detach() for o in outs] + list(torch.autograd.grad(total, leaves))
