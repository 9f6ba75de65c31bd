"""The same numbers from transformers (5.17): the first source of truth. Needs torch, CPU is enough.

The assistant is called directly, with position, state and shared KV passed explicitly: transformers' own
draft loop uses another position, a stale key and the wrong first state, and its sliding mask an inclusive
distance. Here the sliding KV handed over is already cut to the last `sliding_window` keys.
"""

import numpy as np
import torch
from transformers import AutoConfig
from transformers.models.gemma4 import modeling_gemma4 as classic
from transformers.models.gemma4_assistant import modeling_gemma4_assistant as classic_assistant
from transformers.models.gemma4_unified import modeling_gemma4_unified as unified
from transformers.models.gemma4_unified_assistant import modeling_gemma4_unified_assistant as unified_assistant

CLASSES = {
    "gemma4_unified": unified.Gemma4UnifiedForConditionalGeneration,
    "gemma4_unified_text": unified.Gemma4UnifiedForCausalLM,
    "gemma4": classic.Gemma4ForConditionalGeneration,
    "gemma4_text": classic.Gemma4ForCausalLM,
    "gemma4_unified_assistant": unified_assistant.Gemma4UnifiedAssistantForCausalLM,
    "gemma4_assistant": classic_assistant.Gemma4AssistantForCausalLM,
}


def load(folder, dtype):
    """A checkpoint folder through from_pretrained, so that the folder itself is checked too."""
    model_class = CLASSES[AutoConfig.from_pretrained(folder).model_type]
    model, info = model_class.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager", output_loading_info=True
    )
    assert not info["missing_keys"] - {"lm_head.weight"} and not info["unexpected_keys"], info
    if hasattr(model.get_input_embeddings(), "embed_scale"):
        scale = model.get_input_embeddings().embed_scale
        scale.fill_(float(torch.tensor(float(scale)).to(torch.bfloat16)))
    return model.eval()


@torch.no_grad()
def trace(target, assistant, ids, draft_steps):
    base = target.model
    out = base(input_ids=torch.tensor([ids]), use_cache=False, return_shared_kv_states=True)
    logits = target(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    result = {"logits": logits, "hidden": out.last_hidden_state[0]}
    if assistant is not None:
        window = target.config.get_text_config().sliding_window
        shared = dict(out.shared_kv_states)
        shared["sliding_attention"] = tuple(part[:, :, -window:] for part in shared["sliding_attention"])
        token, state = int(logits[-1].argmax()), out.last_hidden_state[:, -1:]
        steps = []
        for _ in range(draft_steps):
            embedding = target.get_input_embeddings()(torch.tensor([[token]]))
            row = assistant(
                inputs_embeds=torch.cat([embedding, state], dim=-1),
                position_ids=torch.tensor([[len(ids) - 1]]),
                shared_kv_states=shared,
            )
            state, token = row.last_hidden_state, int(row.logits[0, 0].argmax())
            steps.append((row.logits[0, 0], state[0, 0], token))
        result["draft_logits"] = torch.stack([step[0] for step in steps])
        result["draft_hidden"] = torch.stack([step[1] for step in steps])
        result["draft_tokens"] = torch.tensor([step[2] for step in steps])
    return {name: value.to(torch.float32).numpy().astype(np.float64) for name, value in result.items()}


def simulate_fp8(model, tensors):
    """Replaces every linear that has scales by simulated W8A8 in FP32, with torch's own E4M3 cast."""
    for name, module in model.named_modules():
        if name + ".weight_scale" not in tensors:
            continue
        weight = torch.tensor(tensors[name + ".weight"].value(), dtype=torch.float32)
        weight_scale, input_scale = (float(tensors[f"{name}.{kind}"].value()) for kind in ("weight_scale", "input_scale"))

        def forward(x, weight=weight, weight_scale=weight_scale, input_scale=input_scale):
            rounded = (x / input_scale).clamp(-448, 448).to(torch.float8_e4m3fn).to(torch.float32)
            return torch.nn.functional.linear(rounded, weight) * (input_scale * weight_scale)

        module.forward = forward
    return model
