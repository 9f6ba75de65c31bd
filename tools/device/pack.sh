#!/usr/bin/env bash
# Builds what runs on a GPU machine into build/device/. usage: tools/device/pack.sh [--python VERSION]
#   --python  also the packages of the end-to-end tests (e2e.sh) for that version of Python, but for a browser's
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
if [[ ${1:-} == --python ]]; then
  rm -rf build/device/python
  python3 -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --target build/device/python \
    --python-version "$2" --only-binary=:all: --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 \
    --requirement <(grep -vE '^(playwright|greenlet)=' tools/deps/requirements-test.txt)
fi
du -sh build/device
