"""Small random target + assistant pairs in the layout of the Gemma 4 family. numpy only.

    python tools/golden/pairs.py OUT [--family unified|classic] [--hidden 72 --vocab 197 ...] [--seed 7] [--fp8]

writes OUT/target and OUT/assistant. Weights are random but sensibly scaled, norm weights and layer scalars are
not one, and everything stored is BF16: a pair computes lively numbers and accepts no draft except by chance.
"""

import argparse
import json
import pathlib
from dataclasses import dataclass, fields

import numpy as np

import tensorfile as tf

ASSISTANT_LAYERS = ("sliding_attention",) * 3 + ("full_attention",)


@dataclass
class PairSpec:
    """Sizes of one pair. `layers` spells the target's layer types: s = sliding, f = full."""

    family: str = "unified"  # unified | classic
    hidden: int = 72
    intermediate: int = 136
    vocab: int = 197
    layers: str = "ssfssf"
    heads: int = 4
    kv_heads: int = 2
    global_kv_heads: int = 1
    head_dim: int = 24
    global_head_dim: int = 40
    window: int = 16
    max_positions: int = 4096
    softcap: float = 30.0
    assistant_hidden: int = 40
    assistant_intermediate: int = 72
    with_media: bool = False  # unified only: the eleven vision and audio tensors, tiny
    per_layer_config: bool = False  # spell the full layers' sizes as newer transformers saves them
    seed: int = 7

    def layer_types(self):
        return [{"s": "sliding_attention", "f": "full_attention"}[letter] for letter in self.layers]


def text_config(spec, assistant=False):
    """The `text_config` block in the spelling of the published files."""
    config = {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attention_k_eq_v": True,
        "bos_token_id": 2,
        "enable_moe_block": False,
        "eos_token_id": 1,
        "final_logit_softcapping": None if assistant else spec.softcap,
        "global_head_dim": spec.global_head_dim,
        "head_dim": spec.head_dim,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": spec.assistant_hidden if assistant else spec.hidden,
        "hidden_size_per_layer_input": 0,
        "initializer_range": 0.02,
        "intermediate_size": spec.assistant_intermediate if assistant else spec.intermediate,
        "layer_types": list(ASSISTANT_LAYERS) if assistant else spec.layer_types(),
        "max_position_embeddings": spec.max_positions,
        "model_type": {"unified": "gemma4_unified_text", "classic": "gemma4_text"}[spec.family],
        "moe_intermediate_size": None,
        "num_attention_heads": spec.heads,
        "num_experts": None,
        "num_global_key_value_heads": spec.global_kv_heads,
        "num_hidden_layers": len(ASSISTANT_LAYERS) if assistant else len(spec.layers),
        "num_key_value_heads": spec.kv_heads,
        "num_kv_shared_layers": len(ASSISTANT_LAYERS) if assistant else 0,
        "pad_token_id": 0,
        "rms_norm_eps": 1e-06,
        "rope_parameters": {
            "full_attention": {"partial_rotary_factor": 0.25, "rope_theta": 1000000.0, "rope_type": "proportional"},
            "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"},
        },
        "sliding_window": spec.window,
        "tie_word_embeddings": True,
        "top_k_experts": None,
        "use_bidirectional_attention": "vision",
        "use_cache": True,
        "use_double_wide_mlp": False,
        "vocab_size": spec.vocab,
        "vocab_size_per_layer_input": 0 if assistant else spec.vocab,
    }
    if spec.per_layer_config:
        sizes = {"head_dim": config.pop("global_head_dim"), "num_key_value_heads": config.pop("num_global_key_value_heads")}
        full = [index for index, kind in enumerate(config["layer_types"]) if kind == "full_attention"]
        config["per_layer_config"] = {str(index): sizes for index in full}
    return config


def target_config(spec):
    config = {
        "architectures": [
            {"unified": "Gemma4UnifiedForConditionalGeneration", "classic": "Gemma4ForConditionalGeneration"}[spec.family]
        ],
        "audio_config": None,
        "dtype": "bfloat16",
        "eos_token_id": [1, 106],
        "model_type": {"unified": "gemma4_unified", "classic": "gemma4"}[spec.family],
        "text_config": text_config(spec),
        "tie_word_embeddings": True,
        "vision_config": None,
    }
    if spec.with_media:
        config["vision_config"] = {
            "mm_embed_dim": spec.hidden,
            "mm_posemb_size": 6,
            "model_patch_size": 2,
            "model_type": "gemma4_unified_vision",
            "output_proj_dims": spec.hidden,
            "patch_size": 2,
            "pooling_kernel_size": 1,
            "rms_norm_eps": 1e-06,
        }
        config["audio_config"] = {"audio_embed_dim": 10, "model_type": "gemma4_unified_audio", "rms_norm_eps": 1e-06}
    return config


def assistant_config(spec):
    return {
        "architectures": [
            {"unified": "Gemma4UnifiedAssistantForCausalLM", "classic": "Gemma4AssistantForCausalLM"}[spec.family]
        ],
        "backbone_hidden_size": spec.hidden,
        "centroid_intermediate_top_k": 32,
        "dtype": "bfloat16",
        "model_type": {"unified": "gemma4_unified_assistant", "classic": "gemma4_assistant"}[spec.family],
        "num_centroids": 2048,
        "text_config": text_config(spec, assistant=True),
        "tie_word_embeddings": True,
        "use_ordered_embeddings": False,
    }


class _Draw:
    """Random BF16 tensors from one seed; every call takes the next part of the stream."""

    def __init__(self, seed):
        self.rng = np.random.Generator(np.random.PCG64(seed))

    def linear(self, rows, columns, gain=1.0):
        return tf.bf16(self.rng.standard_normal((rows, columns)) * gain / np.sqrt(columns))

    def table(self, rows, columns, deviation):
        return tf.bf16(self.rng.standard_normal((rows, columns)) * deviation)

    def around(self, size, centre, spread):
        return tf.bf16(centre + spread * self.rng.standard_normal(size))

    def scalar(self, low, high):
        return tf.bf16(self.rng.uniform(low, high, 1))


def _layer(draw, spec, prefix, kind, hidden, intermediate, own_kv):
    full = kind == "full_attention"
    head = spec.global_head_dim if full else spec.head_dim
    kv_rows = head * (spec.global_kv_heads if full else spec.kv_heads)
    tensors = {
        "input_layernorm.weight": draw.around(hidden, 1.0, 0.2),
        "post_attention_layernorm.weight": draw.around(hidden, 0.6, 0.2),
        "pre_feedforward_layernorm.weight": draw.around(hidden, 1.1, 0.2),
        "post_feedforward_layernorm.weight": draw.around(hidden, 0.5, 0.2),
        "layer_scalar": draw.scalar(0.6, 1.2),
        "mlp.gate_proj.weight": draw.linear(intermediate, hidden),
        "mlp.up_proj.weight": draw.linear(intermediate, hidden),
        "mlp.down_proj.weight": draw.linear(hidden, intermediate),
        "self_attn.q_proj.weight": draw.linear(spec.heads * head, hidden),
        "self_attn.o_proj.weight": draw.linear(hidden, spec.heads * head),
        "self_attn.q_norm.weight": draw.around(head, 0.7, 0.15),  # with k_norm: scores of a few units
    }
    if own_kv:
        tensors["self_attn.k_norm.weight"] = draw.around(head, 0.6, 0.15)
        tensors["self_attn.k_proj.weight"] = draw.linear(kv_rows, hidden)
        if not full:
            tensors["self_attn.v_proj.weight"] = draw.linear(kv_rows, hidden)
    return {prefix + name: tensor for name, tensor in tensors.items()}


def target_tensors(spec):
    """{published tensor name: Tensor}; linears are [out, in]."""
    draw, root = _Draw(spec.seed), "model.language_model."
    tensors = {
        root + "embed_tokens.weight": draw.table(spec.vocab, spec.hidden, 0.8),
        root + "norm.weight": draw.around(spec.hidden, 1.2, 0.3),
    }
    for number, kind in enumerate(spec.layer_types()):
        prefix = f"{root}layers.{number}."
        tensors.update(_layer(draw, spec, prefix, kind, spec.hidden, spec.intermediate, own_kv=True))
    if spec.with_media:
        tensors.update(_media_tensors(draw, spec))
    return tensors


def _media_tensors(draw, spec):
    root, patch = "model.vision_embedder.", 12  # 2 x 2 pixels x 3 colours
    tensors = {
        root + "patch_dense.weight": draw.linear(spec.hidden, patch),
        root + "patch_dense.bias": draw.around(spec.hidden, 0.0, 0.1),
        root + "pos_embedding": tf.bf16(draw.rng.standard_normal((6, 2, spec.hidden))),
        "model.embed_vision.embedding_projection.weight": draw.linear(spec.hidden, spec.hidden),
        "model.embed_audio.embedding_projection.weight": draw.linear(spec.hidden, 10),
    }
    for norm, size in (("patch_ln1", patch), ("patch_ln2", spec.hidden), ("pos_norm", spec.hidden)):
        tensors[f"{root}{norm}.weight"] = draw.around(size, 1.0, 0.1)
        tensors[f"{root}{norm}.bias"] = draw.around(size, 0.0, 0.1)
    return tensors


def assistant_tensors(spec):
    draw = _Draw(spec.seed + 1_000_003)
    tensors = {
        "model.embed_tokens.weight": draw.table(spec.vocab, spec.assistant_hidden, 0.5),
        "model.norm.weight": draw.around(spec.assistant_hidden, 1.2, 0.3),
        "pre_projection.weight": draw.linear(spec.assistant_hidden, 2 * spec.hidden),
        "post_projection.weight": draw.linear(spec.hidden, spec.assistant_hidden),
    }
    for number, kind in enumerate(ASSISTANT_LAYERS):
        prefix = f"model.layers.{number}."
        sizes = (spec.assistant_hidden, spec.assistant_intermediate)
        tensors.update(_layer(draw, spec, prefix, kind, *sizes, own_kv=False))
    return tensors


def read_json(path):
    return json.loads(pathlib.Path(path).read_text())


def generation_config(eos):
    return {"bos_token_id": 2, "do_sample": True, "eos_token_id": eos, "pad_token_id": 0}


def write_checkpoint(folder, config, tensors, eos=1, shards=1):
    folder = pathlib.Path(folder)
    tf.write_folder(folder, tensors, shards)
    tf.write_json(folder / "config.json", config)
    tf.write_json(folder / "generation_config.json", generation_config(eos))


def write_text_only(folder, spec, prefix="model.", explicit_head=False):
    """The text tower saved alone: a flat config, another prefix, perhaps a copy of the tied head."""
    config = {"architectures": ["Gemma4UnifiedForCausalLM"], "dtype": "bfloat16"} | text_config(spec)
    tensors = {name.replace("model.language_model.", prefix): t for name, t in target_tensors(spec).items()}
    if explicit_head:
        tensors["lm_head.weight"] = tensors[prefix + "embed_tokens.weight"]
    write_checkpoint(folder, config, tensors, [1, 106])


def write_pair(folder, spec, shards=1):
    """FOLDER/target and FOLDER/assistant, BF16."""
    folder = pathlib.Path(folder)
    write_checkpoint(folder / "target", target_config(spec), target_tensors(spec), [1, 106], shards)
    write_checkpoint(folder / "assistant", assistant_config(spec), assistant_tensors(spec))


def random_ids(spec, length, seed):
    """Token ids of a test sequence: BOS, then uniform over the vocabulary."""
    rng = np.random.Generator(np.random.PCG64(seed))
    return [2] + [int(token) for token in rng.integers(3, spec.vocab, length - 1)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out")
    parser.add_argument("--fp8", action="store_true", help="also write OUT/target-fp8 and OUT/assistant-fp8")
    for field in fields(PairSpec):
        if field.type is bool:
            parser.add_argument("--" + field.name.replace("_", "-"), action="store_true")
        else:
            parser.add_argument("--" + field.name.replace("_", "-"), type=field.type, default=field.default)
    args = parser.parse_args()
    spec = PairSpec(**{field.name: getattr(args, field.name) for field in fields(PairSpec)})
    write_pair(args.out, spec)
    if args.fp8:
        import quantize_pair  # kept apart: BF16 pairs need neither calibration nor the reference model

        sequences = [random_ids(spec, min(3 * spec.window, 96), spec.seed + index) for index in range(4)]
        quantize_pair.quantize_folder(args.out, args.out, sequences)


if __name__ == "__main__":
    main()
