"""ModelOpt FP8 checkpoints of a small pair, calibrated with the numpy reference model. numpy only.

Per linear: weight_scale = max|W| / 448, W_q = E4M3(W / weight_scale) with a FP32 quotient and ties to even;
input_scale = max|x| / 448 over the calibration sequences. The assistant's pre_projection, post_projection and
tied head stay BF16, as does everything that is not a linear of a decoder layer.
"""

import pathlib
import shutil

import numpy as np

import pairs
import reference
import tensorfile as tf

PRODUCER = {"name": "modelopt", "version": "0.47.0"}
FLOAT8 = {"dynamic": False, "num_bits": 8, "type": "float"}
TARGET_EXCLUDE = ["lm_head", "model.embed_audio*", "model.embed_vision*", "model.vision_embedder*"]
ASSISTANT_EXCLUDE = ["lm_head", "post_projection", "pre_projection"]


class MaxObserver:
    def __init__(self):
        self.amax = {}

    def __call__(self, name, x):
        self.amax[name] = max(self.amax.get(name, 0.0), float(np.abs(x).max()))


def calibrate(target, assistant, sequences, draft_steps=4):
    """-> (target amax, assistant amax) over prefill rows and draft rows."""
    target.observe, assistant_max = MaxObserver(), MaxObserver()
    if assistant is not None:
        assistant.observe = assistant_max
    for ids in sequences:
        reference.trace(target, assistant, ids, draft_steps)
    return target.observe.amax, assistant_max.amax


def quantize_tensors(folder, checkpoint, amax, with_kv_scales=False):
    tensors = tf.read_folder(folder)
    for plain, largest in amax.items():
        if plain.endswith((".k", ".v")):
            if with_kv_scales:
                layer = checkpoint.names[plain.split("self_attn.")[0] + "self_attn.q_norm.weight"]
                name = layer.removesuffix("q_norm.weight") + plain.split("self_attn.")[1]
                tensors[name + "_scale"] = tf.f32(largest / 448)
            continue
        if ".layers." not in "." + plain:
            continue  # the two projections of the assistant
        assert largest > 0, f"{plain}: never exercised"
        name = checkpoint.names[plain + ".weight"]
        weight = checkpoint[plain + ".weight"].astype(np.float32)
        scale = np.float32(np.abs(weight).max() / np.float32(448))
        tensors[name] = tf.Tensor("F8_E4M3", tf.to_e4m3_bytes(weight / scale))
        tensors[name + "_scale"] = tf.f32(scale)
        tensors[name.removesuffix("weight") + "input_scale"] = tf.f32(largest / 448)
    return tensors


def write_fp8(source, out, tensors, exclude, kv_fp8=False, shards=1):
    """The folder in both JSON forms: hf_quant_config.json and quantization_config in config.json."""
    source, out = pathlib.Path(source), pathlib.Path(out)
    tf.write_folder(out, tensors, shards)
    quantization = {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8" if kv_fp8 else None, "exclude_modules": exclude}
    tf.write_json(out / "hf_quant_config.json", {"producer": PRODUCER, "quantization": quantization})
    group = {"input_activations": FLOAT8, "weights": FLOAT8, "targets": ["Linear"]}
    block = {"config_groups": {"group_0": group}, "ignore": exclude, "quant_algo": "FP8"}
    if kv_fp8:
        block["kv_cache_scheme"] = FLOAT8
    block.update({"producer": PRODUCER, "quant_method": "modelopt"})
    config = pairs.read_json(source / "config.json")
    tf.write_json(out / "config.json", config | {"quantization_config": block})
    shutil.copy(source / "generation_config.json", out)


def quantize_folder(pair, out, sequences, with_kv_scales=False):
    """PAIR/target and PAIR/assistant -> OUT/target-fp8 and OUT/assistant-fp8."""
    pair, out = pathlib.Path(pair), pathlib.Path(out)
    target, assistant = reference.Target(pair / "target"), reference.Assistant(pair / "assistant")
    target_amax, assistant_amax = calibrate(target, assistant, sequences)
    quantized = quantize_tensors(pair / "target", target, target_amax, with_kv_scales)
    write_fp8(pair / "target", out / "target-fp8", quantized, TARGET_EXCLUDE, kv_fp8=with_kv_scales)
    quantized = quantize_tensors(pair / "assistant", assistant, assistant_amax)
    write_fp8(pair / "assistant", out / "assistant-fp8", quantized, ASSISTANT_EXCLUDE)
