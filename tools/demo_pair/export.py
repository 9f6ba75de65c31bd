"""Writes weights and the files around them as two Hugging Face folders."""

import json
import os
import shutil
import struct
from pathlib import Path

import torch

from model import ASSISTANT, TARGET
from vocab import special_ids

HERE = Path(__file__).parent
MAX_POSITIONS = 4096


def write_safetensors(path, tensors):
    """BF16 tensors, names sorted, written beside the goal and moved over it."""
    header, offset, blobs = {"__metadata__": {"format": "pt"}}, 0, []
    for name in sorted(tensors):
        t = tensors[name].contiguous()
        if t.dtype != torch.bfloat16:
            raise ValueError(f"{name}: expected bfloat16, got {t.dtype}")
        blob = t.view(torch.int16).numpy().tobytes()
        header[name] = {"dtype": "BF16", "shape": list(t.shape), "data_offsets": [offset, offset + len(blob)]}
        offset += len(blob)
        blobs.append(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    temporary = Path(str(path) + ".tmp")
    with open(temporary, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for blob in blobs:
            f.write(blob)
    os.replace(temporary, path)


def target_tensors(masters):
    out = {f"model.language_model.{k}": v for k, v in masters.items()}
    for i in range(TARGET["num_hidden_layers"]):
        out[f"model.language_model.layers.{i}.layer_scalar"] = torch.ones(1, dtype=torch.bfloat16)
    return out


def assistant_tensors(masters):
    out = {k if "_projection" in k else f"model.{k}": v for k, v in masters.items()}
    for i in range(ASSISTANT["num_hidden_layers"]):
        out[f"model.layers.{i}.layer_scalar"] = torch.ones(1, dtype=torch.bfloat16)
    return out


def text_config(config, shared_layers):
    return {
        "attention_bias": False, "attention_dropout": 0.0, "attention_k_eq_v": True, "bos_token_id": 2,
        "dtype": "bfloat16", "enable_moe_block": False, "eos_token_id": 1,
        "final_logit_softcapping": config["final_logit_softcapping"], "global_head_dim": config["global_head_dim"],
        "head_dim": config["head_dim"], "hidden_activation": "gelu_pytorch_tanh", "hidden_size": config["hidden_size"],
        "hidden_size_per_layer_input": 0, "initializer_range": 0.02, "intermediate_size": config["intermediate_size"],
        "layer_types": config["layer_types"], "max_position_embeddings": MAX_POSITIONS,
        "model_type": "gemma4_unified_text", "moe_intermediate_size": None,
        "num_attention_heads": config["num_attention_heads"], "num_experts": None,
        "num_global_key_value_heads": config["num_global_key_value_heads"],
        "num_hidden_layers": config["num_hidden_layers"], "num_key_value_heads": config["num_key_value_heads"],
        "num_kv_shared_layers": shared_layers, "pad_token_id": 0, "rms_norm_eps": 1e-06,
        "rope_parameters": {
            "full_attention": {"partial_rotary_factor": 0.25, "rope_theta": 1000000.0, "rope_type": "proportional"},
            "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"}},
        "sliding_window": config["sliding_window"], "tie_word_embeddings": True, "top_k_experts": None,
        "use_bidirectional_attention": "vision", "use_cache": True, "use_double_wide_mlp": False,
        "vocab_size": config["vocab_size"], "vocab_size_per_layer_input": config["vocab_size"] if not shared_layers else 0,
    }


def modality_ids():
    ids = special_ids()
    return {"audio_token_id": ids["<|audio|>"], "boa_token_id": ids["<|audio>"], "boi_token_id": ids["<|image>"],
            "eoa_token_index": ids["<audio|>"], "eoi_token_id": ids["<image|>"], "image_token_id": ids["<|image|>"]}


def target_config():
    ids = special_ids()
    return {"architectures": ["Gemma4UnifiedForConditionalGeneration"], "audio_config": None, **modality_ids(),
            "dtype": "bfloat16", "eos_token_id": [1, ids["<turn|>"]], "initializer_range": 0.02,
            "model_type": "gemma4_unified", "text_config": text_config(TARGET, 0), "tie_word_embeddings": True,
            "transformers_version": "5.17.0", "video_token_id": ids["<|video|>"], "vision_config": None}


def assistant_config():
    return {"architectures": ["Gemma4UnifiedAssistantForCausalLM"], "backbone_hidden_size": TARGET["hidden_size"],
            "centroid_intermediate_top_k": 32, "dtype": "bfloat16", **modality_ids(),
            "model_type": "gemma4_unified_assistant", "num_centroids": 2048,
            "text_config": text_config(ASSISTANT, ASSISTANT["num_hidden_layers"]), "tie_word_embeddings": True,
            "transformers_version": "5.17.0", "use_ordered_embeddings": False}


def generation_config(target):
    ids = special_ids()
    eos = [1, ids["<turn|>"], ids["<|tool_response>"]] if target else 1
    return {"bos_token_id": 2, "do_sample": True, "eos_token_id": eos, "pad_token_id": 0,
            "suppress_tokens": [ids["<audio|>"], ids["<image|>"]], "temperature": 1.0, "top_k": 64, "top_p": 0.95,
            "transformers_version": "5.17.0"}


def tokenizer_config():
    named = {"audio_token": "<|audio|>", "boa_token": "<|audio>", "boi_token": "<|image>", "bos_token": "<bos>",
             "eoa_token": "<audio|>", "eoc_token": "<channel|>", "eoi_token": "<image|>", "eos_token": "<eos>",
             "eot_token": "<turn|>", "escape_token": '<|"|>', "etc_token": "<tool_call|>", "etd_token": "<tool|>",
             "etr_token": "<tool_response|>", "image_token": "<|image|>", "mask_token": "<mask>", "pad_token": "<pad>",
             "soc_token": "<|channel>", "sot_token": "<|turn>", "stc_token": "<|tool_call>", "std_token": "<|tool>",
             "str_token": "<|tool_response>", "think_token": "<|think|>", "unk_token": "<unk>"}
    return {**named, "backend": "tokenizers", "extra_special_tokens": [], "padding_side": "left",
            "model_max_length": 1000000000000000019884624838656, "tokenizer_class": "GemmaTokenizer"}


def _write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def write_folders(root, tokenizer_json):
    """Everything but the weights. The assistant has no tokenizer of its own: it works with the target's."""
    target, assistant = Path(root) / "target", Path(root) / "assistant"
    for folder in (target, assistant):
        folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(tokenizer_json, target / "tokenizer.json")
    _write_json(target / "tokenizer_config.json", tokenizer_config())
    shutil.copyfile(HERE / "chat_template.jinja", target / "chat_template.jinja")
    _write_json(target / "config.json", target_config())
    _write_json(assistant / "config.json", assistant_config())
    _write_json(target / "generation_config.json", generation_config(True))
    _write_json(assistant / "generation_config.json", generation_config(False))
    return target, assistant
