#!/usr/bin/env bash
# Times every kernel at the shapes of the 12B and 31B pairs, and the steps of the 12B pair; from tools/device/pack.sh's folder.
# usage: tools/device/bench.sh [ops | step [FLAG...]]     reports go to $OUT, or build/device/; SIZES="12B" leaves the 31B out,
# LOADS=8x2048,64x2048 chooses the batches
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

tandem=${TANDEM:-build/device/tandem}
out=${OUT:-build/device}
configs=bench/configs

ops() {
  for size in ${SIZES:-12B 31B}; do
    printf '\n== kernels, %s\n' "$size"
    "$tandem" bench ops "$configs/gemma-4-$size-it-fp8" --device cuda --history none --output-json "$out/ops-$size.json" \
      --speculative-config "{\"model\": \"$configs/gemma-4-$size-it-assistant-fp8\"}"
  done
}

# Acceptance is made up: a mean length of 2.76 with four drafts. Loads also run with as many drafts as the engine chooses.
step() {
  printf '\n== steps, 12B\n'
  "$tandem" bench step "$configs/gemma-4-12B-it-fp8" --device cuda --load-format dummy --history none \
    --output-json "$out/step-12B.json" --context 1024 --prefill-tokens 2048 --max-num-batched-tokens 2048 \
    --loads "${LOADS:-1x512,1x8192,8x2048,32x2048,64x2048}" --speculative-config "{
      \"model\": \"$configs/gemma-4-12B-it-assistant-fp8\", \"num_speculative_tokens\": \"auto\",
      \"rejection_sample_method\": \"synthetic\", \"synthetic_acceptance_rates\": [0.74, 0.50, 0.31, 0.21]}" "$@"
}

case ${1:-all} in
  ops) ops ;;
  step) shift && step "$@" ;;
  *) ops && step ;;
esac
