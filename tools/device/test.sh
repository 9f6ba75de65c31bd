#!/usr/bin/env bash
# Runs the GPU tests; from tools/device/pack.sh's folder. usage: tools/device/test.sh [--sanitize]
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

failed=0
build/device/unit_gpu --gtest_brief=1 || failed=1
build/device/unit_gpu_pair --gtest_brief=1 || failed=1
if [[ ${1:-} == --sanitize ]]; then
  small='*ttention*/2_over_1_of_32:*ttention*/3_over_1_of_512:*HeadPrep*:*RowOps*/32*:*Head*:*Accept*:*Product*/fp8_32_to_32:*Product*/fp8_256_to_256'
  for tool in memcheck racecheck initcheck synccheck; do
    compute-sanitizer --tool "$tool" --error-exitcode 1 build/device/unit_gpu --gtest_brief=1 --gtest_filter="$small" || failed=1
  done
fi
exit "$failed"
