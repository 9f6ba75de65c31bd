#!/usr/bin/env bash
# Builds what runs on a GPU machine into build/device/. usage: tools/device/pack.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tools/deps/build.sh

use_ccache
cmake --preset cuda-sm90 -DTANDEM_TESTS=ON
cmake --build build/cuda-sm90 --target tandem unit_gpu unit_gpu_pair
mkdir -p build/device
for program in tandem tests/gpu/unit_gpu tests/gpu/unit_gpu_pair; do
  strip -o "build/device/$(basename "$program")" "build/cuda-sm90/$program"
done
du -sh build/device
