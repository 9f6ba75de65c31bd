"""The target and its assistant in plain numpy, FP64: a second, independent source of truth.

Written from the architecture's description alone, not after any implementation. BF16 weights are widened;
FP8 linears are simulated exactly: activation / input_scale, clamped, rounded to E4M3, times the E4M3 weights,
times both scales. The embedding scale is sqrt(hidden_size) rounded to BF16, as a BF16 model has it.
"""

import json
import pathlib

import numpy as np

import tensorfile as tf


def rms(x, weight=None, eps=1e-6):
    x = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    return x if weight is None else x * weight


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def inverse_frequencies(head_dim, rope):
    """[head_dim / 2]; the proportional form keeps the first quarter of the pairs and stills the rest."""
    index = np.arange(head_dim // 2)
    frequencies = rope["rope_theta"] ** (-2.0 * index / head_dim)
    if rope["rope_type"] == "proportional":
        rotated = int(rope["partial_rotary_factor"] * head_dim // 2)
        frequencies[rotated:] = 0.0
    return frequencies


def rope(x, positions, frequencies):
    """x [rows, heads, head_dim]: pair (i, i + head_dim / 2) turns by position * frequency i."""
    angle = positions[:, None, None] * frequencies
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], axis=-1)


def attend(q, k, v, visible):
    """q [rows, heads, d]; k, v [keys, kv_heads, d]; visible [rows, keys]. Softmax scale is 1."""
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    scores = np.einsum("rhd,khd->hrk", q, k)
    scores = np.where(visible[None], scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("hrk,khd->rhd", weights, v).reshape(q.shape[0], -1)


class Checkpoint:
    """Weights under the published names without their prefix, and linears that hide their precision.

    `observe(name, x)`, when set, sees the input of every linear and what attention reads as K (`k_proj.k`) and
    V (`v_proj.v`): calibration and edge margins use it.
    """

    def __init__(self, folder):
        config = json.loads((pathlib.Path(folder) / "config.json").read_text())
        self.top, self.text = config, config.get("text_config", config)
        stored = tf.read_folder(folder)
        self.names = {self._plain(name): name for name in stored}  # plain -> as stored
        self.tensors = {self._plain(name): tensor.value() for name, tensor in stored.items()}
        self.observe = None

    @staticmethod
    def _plain(name):
        for prefix in ("model.language_model.", "language_model.model.", "language_model.", "model."):
            if name.startswith(prefix):
                return name[len(prefix) :]
        return name

    def __getitem__(self, name):
        return self.tensors[name]

    def linear(self, name, x):
        if self.observe:
            self.observe(name, x)
        weight = self.tensors[name + ".weight"]
        if name + ".weight_scale" not in self.tensors:
            return x @ weight.T
        input_scale = self.tensors[name + ".input_scale"]
        return tf.round_e4m3(x / input_scale) @ weight.T * (input_scale * self.tensors[name + ".weight_scale"])

    def head_dim(self, kind):
        """The full layers' own size is stored either flat or per layer, never both."""
        if kind == "full_attention" and "per_layer_config" in self.text:
            return self.text["per_layer_config"][str(self.text["layer_types"].index(kind))]["head_dim"]
        return self.text["global_head_dim" if kind == "full_attention" else "head_dim"]

    def layer(self, number, kind, x, positions, kv, visible):
        """One decoder layer. kv is None (make own K and V) or the (k, v) to read. Returns x and (k, v)."""
        p, d, rows = f"layers.{number}.", self.head_dim(kind), x.shape[0]
        frequencies = inverse_frequencies(d, self.text["rope_parameters"][kind])
        a = rms(x, self[p + "input_layernorm.weight"])
        q = rms(self.linear(p + "self_attn.q_proj", a).reshape(rows, -1, d), self[p + "self_attn.q_norm.weight"])
        q = rope(q, positions, frequencies)
        if kv is None:
            raw = self.linear(p + "self_attn.k_proj", a).reshape(rows, -1, d)
            k = rope(rms(raw, self[p + "self_attn.k_norm.weight"]), positions, frequencies)
            if p + "self_attn.v_proj.weight" in self.tensors:
                raw = self.linear(p + "self_attn.v_proj", a).reshape(rows, -1, d)
            kv = (k, rms(raw))
            if self.observe:
                self.observe(p + "self_attn.k_proj.k", kv[0])
                self.observe(p + "self_attn.v_proj.v", kv[1])
        mixed = self.linear(p + "self_attn.o_proj", attend(q, *kv, visible))
        x = x + rms(mixed, self[p + "post_attention_layernorm.weight"])
        m = rms(x, self[p + "pre_feedforward_layernorm.weight"])
        gated = gelu_tanh(self.linear(p + "mlp.gate_proj", m)) * self.linear(p + "mlp.up_proj", m)
        x = x + rms(self.linear(p + "mlp.down_proj", gated), self[p + "post_feedforward_layernorm.weight"])
        return x * self[p + "layer_scalar"], kv


class Target(Checkpoint):
    def embed(self, ids):
        scale = tf.round_bf16(np.sqrt(self.text["hidden_size"])).astype(np.float64)
        return self["embed_tokens.weight"][ids] * scale

    def forward(self, ids):
        """-> logits [n, vocab], hidden [n, hidden], {layer type: (k, v) of its last layer}."""
        positions = np.arange(len(ids))
        distance = positions[:, None] - positions[None]
        x, shared = self.embed(ids), {}
        for number, kind in enumerate(self.text["layer_types"]):
            visible = distance >= 0
            if kind == "sliding_attention":
                visible &= distance < self.text["sliding_window"]
            x, shared[kind] = self.layer(number, kind, x, positions, None, visible)
        hidden = rms(x, self["norm.weight"])
        logits = hidden @ self.tensors.get("lm_head.weight", self["embed_tokens.weight"]).T
        cap = self.text["final_logit_softcapping"]
        return (cap * np.tanh(logits / cap) if cap else logits), hidden, shared


class Assistant(Checkpoint):
    def step(self, embedding, state, position, shared):
        """One draft row -> logits [vocab], next state [backbone]. The state enters second."""
        x = self.linear("pre_projection", np.concatenate([embedding, state])[None])
        for number, kind in enumerate(self.text["layer_types"]):
            kv = shared[kind]
            if kind == "sliding_attention":
                kv = tuple(part[-self.text["sliding_window"] :] for part in kv)
            visible = np.ones((1, kv[0].shape[0]), dtype=bool)
            x, _ = self.layer(number, kind, x, np.array([position]), kv, visible)
        z = rms(x, self["norm.weight"])
        return (z @ self["embed_tokens.weight"].T)[0], self.linear("post_projection", z)[0]


def trace(target, assistant, ids, draft_steps):
    """What `tandem trace` writes, in FP64."""
    logits, hidden, shared = target.forward(np.array(ids))
    out = {"logits": logits, "hidden": hidden}
    if assistant is None:
        return out
    token, state, rows = int(np.argmax(logits[-1])), hidden[-1], {"logits": [], "hidden": [], "tokens": []}
    for _ in range(draft_steps):
        step_logits, state = assistant.step(target.embed([token])[0], state, len(ids) - 1, shared)
        token = int(np.argmax(step_logits))
        rows["logits"].append(step_logits)
        rows["hidden"].append(state)
        rows["tokens"].append(token)
    out.update({"draft_" + name: np.array(values) for name, values in rows.items()})
    return out
