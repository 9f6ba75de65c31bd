"""Master weights in FP32, working copies in the compute type, and one optimizer step without host decisions.

Matrices inside layers follow Muon (momentum, then the nearest orthogonal matrix by Newton-Schulz), everything else
AdamW. All state is tensors updated in place and the learning rate is a tensor, so a CUDA graph can hold the step.
"""

import torch


NS = (3.4445, -4.7750, 2.0315)


def fused_name(name):
    """The working tensor that holds this master, or the name itself."""
    for part in ("q_proj", "k_proj", "v_proj"):
        if part in name:
            return name.replace(f"self_attn.{part}.weight", "qkv")
    for part in ("gate_proj", "up_proj"):
        if part in name:
            return name.replace(f"mlp.{part}.weight", "gate_up")
    return name


def _part_order(name):
    """Order inside a fused tensor, whatever order the masters came in."""
    parts = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
    return next((i for i, part in enumerate(parts) if part in name), 0)


def is_muon(name, tensor):
    return tensor.dim() == 2 and "embed_tokens" not in name


class Weights:
    """Masters by hub name; `work` by fused name, requiring gradients if `train`."""

    def __init__(self, masters, device, dtype, train=True):
        self.masters = {k: v.to(device, torch.float32) for k, v in masters.items()}
        with_kv = any("k_proj" in k for k in masters)
        self.place, parts = {}, {}
        for name, master in self.masters.items():
            fused = fused_name(name) if with_kv or "q_proj" not in name else name
            parts.setdefault(fused, []).append(name)
        self.work = {}
        for fused, names in parts.items():
            names = sorted(names, key=_part_order)
            tensor = torch.cat([self.masters[n] for n in names]).to(dtype)
            start = 0
            for n in names:
                rows = self.masters[n].shape[0]
                self.place[n] = (fused, start, start + rows)
                start += rows
            self.work[fused] = tensor.requires_grad_(train)
        self.names = list(self.masters)
        self.views = [self.work[f].detach()[a:b] for f, a, b in (self.place[n] for n in self.names)]
        self.leaves = list(self.work.values())
        self.leaf_names = list(self.work)

    def refresh(self):
        torch._foreach_copy_(self.views, [self.masters[n] for n in self.names])

    def split_gradients(self, gradients):
        """Gradients of the working tensors, cut up by master name."""
        by_leaf = dict(zip(self.leaf_names, gradients, strict=True))
        return {n: by_leaf[f][a:b] for n, (f, a, b) in self.place.items()}

    def export(self):
        """BF16 tensors by hub name, on the CPU: exactly what training computed with."""
        return {n: m.detach().to("cpu", torch.bfloat16) for n, m in self.masters.items()}


def orthogonalize(x, steps=5):
    """[n, r, c] -> its nearest semi-orthogonal matrices, roughly."""
    tall = x.shape[1] > x.shape[2]
    x = x.transpose(1, 2) if tall else x
    x = x / (x.float().norm(dim=(1, 2), keepdim=True).to(x.dtype) + 1e-7)
    a, b, c = NS
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.transpose(1, 2) if tall else x


class Optimizer:
    def __init__(self, weights, muon_lr=0.02, adam_lr=2e-3, betas=(0.9, 0.97), momentum=0.95, low=torch.bfloat16):
        self.weights, self.muon_lr, self.adam_lr = weights, muon_lr, adam_lr
        self.betas, self.momentum, self.low = betas, momentum, low
        masters = weights.masters
        device = next(iter(masters.values())).device
        self.lr = torch.ones((), device=device)  # the schedule's factor, written by the host
        self.step_count = torch.zeros((), device=device)
        self.groups = {}
        for name, m in masters.items():
            if is_muon(name, m):
                self.groups.setdefault(tuple(m.shape), []).append(name)
        self.buffers = {shape: torch.zeros(len(names), *shape, device=device) for shape, names in self.groups.items()}
        self.adam = [n for n, m in masters.items() if not is_muon(n, m)]
        self.first = [torch.zeros_like(masters[n]) for n in self.adam]
        self.second = [torch.zeros_like(masters[n]) for n in self.adam]

    @torch.no_grad()
    def step(self, gradients):
        grads = self.weights.split_gradients(gradients)
        self._muon(grads)
        self._adam(grads)
        self.weights.refresh()

    def _muon(self, grads):
        for shape, names in self.groups.items():
            g = torch.stack([grads[n] for n in names]).float()
            buffer = self.buffers[shape]
            buffer.lerp_(g, 1 - self.momentum)
            update = orthogonalize(g.lerp(buffer, self.momentum).to(self.low)).float()
            size = self.muon_lr * max(1.0, shape[0] / shape[1]) ** 0.5
            update = update * (self.lr * -size)
            torch._foreach_add_([self.weights.masters[n] for n in names], list(update.unbind(0)))

    def _adam(self, grads):
        b1, b2 = self.betas
        self.step_count += 1
        g = [grads[n].float() for n in self.adam]
        torch._foreach_lerp_(self.first, g, 1 - b1)
        torch._foreach_mul_(self.second, b2)
        torch._foreach_addcmul_(self.second, g, g, 1 - b2)
        c1 = 1 - b1**self.step_count
        c2 = 1 - b2**self.step_count
        denominators = torch._foreach_div(self.second, c2)
        torch._foreach_sqrt_(denominators)
        torch._foreach_add_(denominators, 1e-8)
        updates = torch._foreach_div(self.first, denominators)
        torch._foreach_mul_(updates, self.lr * (-self.adam_lr) / c1)
        torch._foreach_add_([self.weights.masters[n] for n in self.adam], updates)


def schedule(fraction, warm=0.03, decay_from=0.35, floor=0.02):
    """Factor on the learning rate by elapsed fraction of the stage: warm up, hold, fall linearly."""
    if fraction < warm:
        return max(fraction / warm, 0.05)
    if fraction < decay_from:
        return 1.0
    return max(floor, 1.0 - (1.0 - floor) * (fraction - decay_from) / (1.0 - decay_from))
