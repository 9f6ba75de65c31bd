#!/usr/bin/env bash
# Times kernels, layers and the pair; from tools/device/pack.sh's folder. usage: tools/device/bench.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

for program in bench_product bench_attention bench_rows bench_pair; do
  printf '\n== %s\n' "$program"
  "build/device/$program"
done
