"""The target and its assistant in plain torch, as described by their config: weights are dicts of tensors.

Weight names are the hub's without the `model.language_model.` (target) or `model.` (assistant) prefix. `ops` is an
ops.Ops: the elementwise parts, fused where that is possible. Shapes: B rows, T positions, H heads, D head size.
"""

import torch
import torch.nn.functional as F

NORMS = ["input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"]

TARGET = {
    "hidden_size": 256, "num_hidden_layers": 12, "intermediate_size": 896, "num_attention_heads": 8,
    "num_key_value_heads": 2, "num_global_key_value_heads": 1, "head_dim": 32, "global_head_dim": 64,
    "sliding_window": 64, "vocab_size": 4096, "final_logit_softcapping": 30.0,
    "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 2,
}
ASSISTANT = {
    **TARGET, "hidden_size": 128, "num_hidden_layers": 4, "intermediate_size": 512, "final_logit_softcapping": None,
    "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
}
THETA = {"sliding_attention": 1e4, "full_attention": 1e6}


def head_dim(config, kind):
    return config["head_dim"] if kind == "sliding_attention" else config["global_head_dim"]


def kv_heads(config, kind):
    return config["num_key_value_heads"] if kind == "sliding_attention" else config["num_global_key_value_heads"]


def rope_table(config, kind, length, device):
    """cos and sin [length, D] in FP32. The proportional form rotates a quarter of the pairs; the rest have angle 0."""
    d = head_dim(config, kind)
    rotated = d // 2 if kind == "sliding_attention" else d // 8
    inverse = torch.zeros(d // 2)
    inverse[:rotated] = THETA[kind] ** (-2.0 * torch.arange(rotated) / d)
    angles = torch.arange(length)[:, None].float() * inverse
    angles = torch.cat([angles, angles], -1).to(device)
    return angles.cos(), angles.sin()


def init_target(config, seed=0):
    """FP32 master weights."""
    g = torch.Generator().manual_seed(seed)
    hidden = config["hidden_size"]

    def matrix(rows, cols):
        return torch.randn(rows, cols, generator=g) * cols**-0.5

    weights = {"embed_tokens.weight": torch.randn(config["vocab_size"], hidden, generator=g) * 0.04,
               "norm.weight": torch.ones(hidden)}
    for i, kind in enumerate(config["layer_types"]):
        p, d = f"layers.{i}.", head_dim(config, kind)
        kv = kv_heads(config, kind) * d
        q = config["num_attention_heads"] * d
        weights[p + "self_attn.q_proj.weight"] = matrix(q, hidden)
        weights[p + "self_attn.k_proj.weight"] = matrix(kv, hidden)
        if kind == "sliding_attention":
            weights[p + "self_attn.v_proj.weight"] = matrix(kv, hidden)
        weights[p + "self_attn.o_proj.weight"] = matrix(hidden, q)
        weights[p + "self_attn.q_norm.weight"] = torch.full((d,), 1.5 * d**-0.5)
        weights[p + "self_attn.k_norm.weight"] = torch.ones(d)
        weights[p + "mlp.gate_proj.weight"] = matrix(config["intermediate_size"], hidden)
        weights[p + "mlp.up_proj.weight"] = matrix(config["intermediate_size"], hidden)
        weights[p + "mlp.down_proj.weight"] = matrix(hidden, config["intermediate_size"])
        for n, name in enumerate(NORMS):
            weights[p + name + ".weight"] = torch.full((hidden,), 1.0 if n % 2 == 0 else 0.4)
    return weights


def init_assistant(config, target_config, target_weights, seed=1):
    """Starts from the target: its head is the target's table on its 128 strongest directions."""
    backbone, hidden = target_config["hidden_size"], config["hidden_size"]
    own = init_target(config, seed)
    weights = {k: v for k, v in own.items() if not any(s in k for s in ("k_proj", "v_proj", "k_norm"))}
    table = target_weights["embed_tokens.weight"].float().cpu() * target_weights["norm.weight"].float().cpu()
    _, _, basis = torch.linalg.svd(table - table.mean(0), full_matrices=False)
    basis = basis[:hidden].T.contiguous()  # [backbone, hidden]
    weights["embed_tokens.weight"] = table @ basis
    spread = (backbone / hidden) ** 0.5
    weights["pre_projection.weight"] = torch.cat([0.5 * basis.T, basis.T], 1) * spread * 0.5
    weights["post_projection.weight"] = basis.clone()
    return weights


class Rows:
    """Everything that depends on the row length only: rotation tables and masks."""

    def __init__(self, config, length, device):
        self.rope = {k: rope_table(config, k, length, device) for k in THETA}
        self.window = config["sliding_window"]


class Attention(torch.nn.Module):
    """Causal attention with scale 1.0; sliding layers see `window` keys including the query's own.

    Queries [B, T, H, D] at position p see keys 0..p, which is also what every draft step needs.
    """

    def __init__(self, window, length, device):
        super().__init__()
        i = torch.arange(length, device=device)
        causal = i[:, None] >= i[None]
        near = causal & (i[:, None] - i[None] < window)
        self.masks = {"full_attention": causal, "sliding_attention": near}
        self.window, self.starts, self.call = window, {}, self.dense

    def dense(self, kind, q, k, v):
        n = q.shape[2] // k.shape[2]
        k, v = k.repeat_interleave(n, 2), v.repeat_interleave(n, 2)
        t = q.shape[1]
        out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2),
                                             attn_mask=self.masks[kind][:t, :t], scale=1.0)
        return out.transpose(1, 2)

    def _window(self, kind):
        """Keyword arguments of the flash kernel, and whether its plain causal mode is meant."""
        if kind == "full_attention":
            return {}, True
        return {"window_size_left": self.window - 1, "window_size_right": 0}, False

    def flash_batch(self, kind, q, k, v):
        t, (window, causal) = q.shape[1], self._window(kind)
        return torch.ops.aten._flash_attention_forward(q, k, v, None, None, t, t, 0.0, causal, False, scale=1.0,
                                                       **window)[0]

    def flash_packed(self, kind, q, k, v):
        """The same kernel in its ragged form, with equal row lengths."""
        (b, t), (window, causal) = q.shape[:2], self._window(kind)
        if (b, t) not in self.starts:
            self.starts[b, t] = torch.arange(0, (b + 1) * t, t, dtype=torch.int32, device=q.device)
        starts = self.starts[b, t]
        out = torch.ops.aten._flash_attention_forward(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), starts, starts,
                                                      t, t, 0.0, causal, False, scale=1.0, **window)[0]
        return out.view(q.shape)

    def forward(self, kind, q, k, v):
        return self.call(kind, q, k, v)


def _mlp_and_residual(w, p, x, attn_out, ops, tag):
    x = ops.add_rms(tag, x, attn_out, w[p + "post_attention_layernorm.weight"])
    m = ops.rms(tag, x, w[p + "pre_feedforward_layernorm.weight"])
    gate_up = F.linear(m, w[p + "gate_up"])
    down = F.linear(ops.geglu(tag, gate_up), w[p + "mlp.down_proj.weight"])
    return ops.add_rms(tag, x, down, w[p + "post_feedforward_layernorm.weight"])


def target_forward(config, w, tokens, rows, attention, ops):
    """States after the final norm [B, T, hidden] and the KV of the last layer of each kind."""
    b, t = tokens.shape
    heads, kv_of = config["num_attention_heads"], {}
    x = ops.embed(w["embed_tokens.weight"], tokens) * scale_of(config)
    for i, kind in enumerate(config["layer_types"]):
        p, d, n = f"layers.{i}.", head_dim(config, kind), kv_heads(config, kind)
        a = ops.rms("target", x, w[p + "input_layernorm.weight"])
        qkv = F.linear(a, w[p + "qkv"]).view(b, t, -1, d)
        cos, sin = rows.rope[kind]
        q, k, v = ops.qkv(kind, qkv, w[p + "self_attn.q_norm.weight"], w[p + "self_attn.k_norm.weight"],
                          cos[:t], sin[:t], heads, n)
        kv_of[kind] = (k, v)
        out = attention(kind, q, k, v).reshape(b, t, heads * d)
        x = _mlp_and_residual(w, p, x, F.linear(out, w[p + "self_attn.o_proj.weight"]), ops, "target")
    return ops.rms("target", x, w["norm.weight"]), kv_of


def scale_of(config):
    """sqrt(hidden_size) rounded to BF16, as a BF16 model has it."""
    return float(torch.tensor(config["hidden_size"] ** 0.5).bfloat16())


def assistant_step(config, w, embedded, state, kv_of, rows, attention, ops):
    """One draft step for all positions p at once: (z [B, T, hidden], next state [B, T, backbone]).

    `embedded` is the target's scaled embedding of the newest token of each position, `state` the target state at p
    or the previous step's output. Queries sit at position p whatever the step.
    """
    b, t, _ = embedded.shape
    heads = config["num_attention_heads"]
    y = F.linear(torch.cat([embedded, state], -1), w["pre_projection.weight"])
    for i, kind in enumerate(config["layer_types"]):
        p, d = f"layers.{i}.", head_dim(config, kind)
        a = ops.rms("assistant", y, w[p + "input_layernorm.weight"])
        q = F.linear(a, w[p + "self_attn.q_proj.weight"]).view(b, t, heads, d)
        cos, sin = rows.rope[kind]
        q = ops.q_only(kind, q, w[p + "self_attn.q_norm.weight"], cos[:t], sin[:t])
        out = attention(kind, q, *kv_of[kind]).reshape(b, t, heads * d)
        y = _mlp_and_residual(w, p, y, F.linear(out, w[p + "self_attn.o_proj.weight"]), ops, "assistant")
    z = ops.rms("assistant", y, w["norm.weight"])
    return z, F.linear(z, w["post_projection.weight"])


def softcap(config, logits):
    cap = config["final_logit_softcapping"]
    return logits if cap is None else cap * torch.tanh(logits / cap)
