#!/usr/bin/env bash
# Runs the GPU tests; from tools/device/pack.sh's folder. usage: tools/device/test.sh [--long | --sanitize [TOOL...]]
#   --long      also 200 held-out prompts x 128 tokens, K = 0 to 8, batch 1, 8, 32, graphs on and off, and 48 prompts of a pair that is
#               the 12B's but for the values of its weights; all in all six to eight minutes
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
  shift
  python3 tools/device/product_registers.py build/device/unit_gpu || failed=1
  [[ $# -gt 0 ]] || set -- memcheck racecheck initcheck synccheck
  # racecheck does not follow a ring of copies that is used again: its stages are handed back by an arrival at an mbarrier, of one
  # lane after its warp has read. Products are shapes whose rings are filled once. Nor does it follow rows that many warps have made
  # and one lane hands on so.
  unfollowed=('*GpuAttention*/3_over_1_of_512' '*GpuAttention*/4_over_4_of_32_e4m3' '*ScreenedHead*/130_*' '*ScreenedHead*/1000_*'
    '*ScreenedHead*/3001_from_96_*' '*HeadArgmaxOp*/*_from_96_*' '*LikeliestOfHead*/100_*' '*HeadProduct*/fp8_3001*'
    '*GeluProduct.IsThatOfMostRowsToo/bf16_256_to_896_on_132' '*GeluProduct.ARow*/bf16_256_to_896_on_132')
  kernels=('*GpuAttention*/2_over_1_of_32' '*HeadPrep*/4_and_*' '*HeadPrep*/3_and_*'
    '*HeadPrep*/16_and_0_of_512*' '*RowOps*/32*' '*RowOps*/512_rows_72*' 'AssistantInput.*' 'GeluOperand.*' 'Head.RandomRows' 'Head.SpecialRows'
    'Head.HandsDraftsOver' 'FullLogits.*' 'DrawTokens.*'
    'AcceptDrafts.*' 'NextDraftToken.*' 'KeepStates.*' '*ProductTest*/fp8_32_to_32'
    '*ProductTest*/fp8_256_to_256' '*ProductTest*/bf16_512_to_128' '*WideProduct*/32_to_32' '*WideProduct*/160_to_384'
    '*WideRows*/32_rows_3' '*WideRows*/256_rows_41' '*WideHeads*/0' '*WideHeads*/4' '*WideAttention*/8_over_2_of_32*'
    '*WideAttention*/3_over_1_of_512' '*WideAttention*Pages*/8_over_1_of_512' 'WidenedKeys.GiveARow*' '*WideGeluProduct*/192' 'WideOperandTest.*'
    'GatherRows.*' '*GeluProduct*/fp8_160_to_96_on_1' '*GeluProduct.IsProduct*/bf16_256_to_896_on_132' '*RowProduct*/fp8_416_to_336*'
    '*RowProduct*/bf16_256_to_224*' '*HeadProduct*/bf16_1000*')
  for tool in "$@"; do
    [[ $tool == racecheck ]] && sanitize "$tool" unit_gpu "${kernels[@]}"
    [[ $tool == racecheck ]] || sanitize "$tool" unit_gpu "${kernels[@]}" "${unfollowed[@]}"
    # The KV cache is memory that nobody clears: what no row sees is read and not used. The rows that screens measure are handed on
    # as racecheck does not follow.
    case $tool in
      initcheck) ;;
      racecheck) sanitize "$tool" unit_gpu_pair PairSmallTest.GraphsOnAndOffWithoutScreens ;;
      *) sanitize "$tool" unit_gpu_pair 'PairSmallTest.*' ;;
    esac
  done
  exit "$failed"
fi
build/device/unit_gpu --gtest_brief=1 || failed=1
[[ ${1:-} == --long ]] && export TANDEM_LONG=1
# Kernels for prompts take FP8 weights, a cache of E4M3 takes scales: the demo pair has neither.
fp8=$(mktemp -d) && trap 'rm -rf "$fp8"' EXIT
if build/device/tandem quantize --target demo/target --assistant demo/assistant --out-target "$fp8/target" \
  --out-assistant "$fp8/assistant" --num-prompts 6 --max-new-tokens 48 --kv-cache-dtype fp8 \
  >"$fp8/log" 2>&1; then
  export TANDEM_FP8_DEMO=$fp8
else
  cat "$fp8/log" && failed=1
fi
build/device/unit_gpu_pair --gtest_brief=1 || failed=1
exit "$failed"
