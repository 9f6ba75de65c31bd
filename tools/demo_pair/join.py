"""Makes demo/target and demo/assistant from what a training run left behind.

    python join.py --run OUT --tokenizer .carry/tokenizer.json --demo demo
"""

import argparse
from pathlib import Path

from checkpoint import join, read_safetensors
from export import write_folders


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--demo", type=Path, required=True)
    args = parser.parse_args()
    target, assistant = write_folders(args.demo, args.tokenizer)
    (target / "model.safetensors").write_bytes(join(args.run / "target.safetensors"))
    source = args.run / "assistant.safetensors"
    if source.exists():
        (assistant / "model.safetensors").write_bytes(source.read_bytes())
    for folder in (target, assistant):
        if (folder / "model.safetensors").exists():
            tensors = read_safetensors(folder / "model.safetensors")
            size = (folder / "model.safetensors").stat().st_size
            print(f"{folder}: {len(tensors)} tensors, {sum(t.numel() for t in tensors.values()):,} parameters, {size:,} B")


if __name__ == "__main__":
    main()
