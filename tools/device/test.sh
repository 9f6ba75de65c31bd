#!/usr/bin/env bash
# Runs the GPU tests; from tools/device/pack.sh's folder. usage: tools/device/test.sh [--long | --sanitize]
#   --long      also 200 held-out prompts x 128 tokens, K = 0 to 8, batch 1, 8, 32, graphs on and off: a minute and a half
#   --sanitize  compute-sanitizer instead: every kernel on small odd shapes, and the demo pair with and without graphs
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

failed=0

# sanitize TOOL PROGRAM PATTERN...: fails too when a pattern names no test.
sanitize() {
  local tool=$1 program=$2 pattern
  shift 2
  for pattern in "$@"; do
    "build/device/$program" --gtest_list_tests --gtest_filter="$pattern" | grep -q '^  ' ||
      { echo "test.sh: $program: expected tests named $pattern, got none" && failed=1; }
  done
  echo "== $tool: $program"
  timeout 240 compute-sanitizer --tool "$tool" --error-exitcode 1 "build/device/$program" --gtest_brief=1 \
    --gtest_filter="$(IFS=: && echo "$*")" || failed=1
}

if [[ ${1:-} == --sanitize ]]; then
  kernels=('*ttention*/2_over_1_of_32' '*ttention*/3_over_1_of_512' '*HeadPrep*' '*RowOps*/32*' '*Head*' '*Accept*'
    '*Product*/fp8_32_to_32' '*Product*/fp8_256_to_256')
  for tool in memcheck racecheck initcheck synccheck; do
    sanitize "$tool" unit_gpu "${kernels[@]}"
    # The KV cache is memory that nobody clears: what no row sees is read and not used.
    [[ $tool == initcheck ]] || sanitize "$tool" unit_gpu_pair 'PairSmallTest.*'
  done
  exit "$failed"
fi
build/device/unit_gpu --gtest_brief=1 || failed=1
[[ ${1:-} == --long ]] && export TANDEM_LONG=1
build/device/unit_gpu_pair --gtest_brief=1 || failed=1
exit "$failed"
