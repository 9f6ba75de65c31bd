#!/usr/bin/env bash
# What a layer of the 12B target takes in a step, five sliding ones and a full one on average: the difference between 18 layers and 6,
# by rows at 1,024 keys and for the batches of LOADS.
# usage: tools/device/layer.sh [FLAG OF tandem bench step...]     reports go to $OUT, or build/device/
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

tandem=${TANDEM:-build/device/tandem}
out=${OUT:-build/device}

for layers in 6 18; do
  "$tandem" bench step bench/configs/gemma-4-12B-it-fp8 --device cuda --load-format dummy --history none --context 1024 --max-rows 9 \
    --prefill-tokens 128 --loads "${LOADS:-8x2048,64x2048}" --loads-on-device-clock \
    --speculative-config '{"model": "bench/configs/gemma-4-12B-it-assistant-fp8", "num_speculative_tokens": 1}' \
    --hf-overrides "{\"num_hidden_layers\": $layers}" \
    --output-json "$out/layers-$layers.json" "$@" >"$out/layers-$layers.txt"
done
python3 - "$out/layers-6.json" "$out/layers-18.json" <<'P'
import json
import sys

few, many = (json.load(open(path))["step"] for path in sys.argv[1:])


def print_layer(what: str, time: str, one: dict, other: dict) -> None:
    us, bytes_us = ((other[key] - one[key]) * 1000 / 12 for key in (time, "roofline_ms"))
    print(f"{what}: {us:.1f} us a layer, {bytes_us:.1f} are bytes")


for one, other in zip(few["verify"], many["verify"]):
    print_layer(f"{one['rows']} rows", "ms", one, other)
for one, other in zip(few["loads"], many["loads"]):
    if one["num_draft_tokens"] == 0:
        print_layer(f"{one['batch']} sequences of {one['context']}", "device_ms", one, other)
P
