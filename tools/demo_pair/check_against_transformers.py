"""Compares the plain-torch models with transformers' on exported folders, in FP32 on the CPU.

    python check_against_transformers.py --demo demo
"""

import argparse
from pathlib import Path

import torch
from transformers import AutoTokenizer, Gemma4UnifiedAssistantForCausalLM, Gemma4UnifiedForConditionalGeneration

from checkpoint import load_assistant, load_target
from model import ASSISTANT, TARGET, Rows, assistant_step, scale_of, softcap, target_forward
from ops import Ops
from optim import Weights
from runtime import make_attention

CPU = torch.device("cpu")


def gap(a, b):
    return float((a - b).norm() / b.norm())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, required=True)
    parser.add_argument("--length", type=int, default=150)
    args = parser.parse_args()
    torch.manual_seed(0)
    tokens = torch.randint(5, 4000, (1, args.length))
    theirs, info = Gemma4UnifiedForConditionalGeneration.from_pretrained(
        args.demo / "target", dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    print("target loading:", {k: v for k, v in info.items() if v})
    drafter, info = Gemma4UnifiedAssistantForCausalLM.from_pretrained(
        args.demo / "assistant", dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    print("assistant loading:", {k: v for k, v in info.items() if v})
    ours = Weights(load_target(args.demo / "target"), CPU, torch.float32, train=False).work
    own = Weights(load_assistant(args.demo / "assistant"), CPU, torch.float32, train=False).work
    rows, attention, ops = Rows(TARGET, args.length, CPU), make_attention(TARGET, args.length, CPU), Ops()
    with torch.no_grad():
        hidden, kv = target_forward(TARGET, ours, tokens, rows, attention, ops)
        logits = softcap(TARGET, hidden @ ours["embed_tokens.weight"].T)
        out = theirs(input_ids=tokens, output_hidden_states=True, return_shared_kv_states=True)
        worst = gap(logits, out.logits)
        print(f"target logits: relative difference {worst:.1e}")
        shared = {k: (a.transpose(1, 2), b.transpose(1, 2)) for k, (a, b) in kv.items()}
        window = TARGET["sliding_window"]
        shared["sliding_attention"] = tuple(x[:, :, -window:] for x in shared["sliding_attention"])
        newest, state = logits[:, -1].argmax(-1, keepdim=True), hidden
        their_state = hidden[:, -1:]
        for step in range(1, 5):
            embedded = ours["embed_tokens.weight"][newest] * scale_of(TARGET)
            wide = embedded.expand(1, args.length, -1)
            z, state = assistant_step(ASSISTANT, own, wide, state, kv, rows, attention, ops)
            mine = (z @ own["embed_tokens.weight"].T)[:, -1]
            result = drafter(inputs_embeds=torch.cat([embedded, their_state], -1),
                             position_ids=torch.tensor([[args.length - 1]]), shared_kv_states=shared)
            their_state = result.last_hidden_state
            difference = max(gap(mine, result.logits[:, -1]), gap(state[:, -1:], their_state))
            worst = max(worst, difference)
            print(f"draft step {step}: relative difference {difference:.1e}")
            newest = mine.argmax(-1, keepdim=True)
    tok = AutoTokenizer.from_pretrained(args.demo / "target")
    text = tok.apply_chat_template([{"role": "user", "content": "What is 2 + 2?"}], add_generation_prompt=True,
                                   tokenize=False)
    print(repr(text), tok(text, add_special_tokens=False).input_ids)
    raise SystemExit(0 if worst < 1e-4 else "differs by more than 1e-4")


if __name__ == "__main__":
    main()
