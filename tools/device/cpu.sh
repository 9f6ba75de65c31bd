#!/usr/bin/env bash
# Measures the CPU path on two quiet cores: kernels against their definition, projections alone, a slice of the 12B pair
# and the whole of it, with random weights, beside the read bandwidth of the same run.
# usage: tools/device/cpu.sh [--programs FOLDER] [--out FOLDER] [PART...]; parts: tests linear places slice whole; default: all
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

programs=build/device
out=${OUT:-build/device/cpu-results}
parts=()
while (($#)); do
  case $1 in
    --programs) programs=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    tests | linear | places | slice | whole) parts+=("$1"); shift ;;
    *) echo "cpu.sh: expected --programs, --out, tests, linear, places, slice or whole, got $1" >&2; exit 2 ;;
  esac
done
((${#parts[@]})) || parts=(tests linear places slice whole)
mkdir -p "$out"

# Two cores of the machine, not two threads of one core.
first=$(awk -F'[,-]' '{print $1}' /sys/fs/cgroup/cpuset.cpus.effective 2>/dev/null || true)
first=${first:-0}
siblings=$(cat "/sys/devices/system/cpu/cpu$first/topology/thread_siblings_list" 2>/dev/null || echo "$first")
second=$((first + 1))
[[ ,${siblings//-/,}, == *,$second,* ]] && second=$((first + 2))
on_two_cores=(taskset -c "$first,$second")

assistant=bench/configs/gemma-4-12B-it-assistant-fp8
target=bench/configs/gemma-4-12B-it-fp8
# Four drafts, 2.76 tokens a round, chosen by chance: random weights accept nothing.
speculative="{\"model\": \"$assistant\", \"num_speculative_tokens\": 4, \"rejection_sample_method\": \"synthetic\", \"synthetic_acceptance_length\": 2.76}"

step() { # NAME FLAG...
  local name=$1
  shift
  printf '\n== step, %s\n' "$name"
  "${on_two_cores[@]}" "$programs/tandem" bench step "$target" --device cpu --load-format dummy --threads 2 \
    --speculative-config "$speculative" --history none --output-json "$out/cpu-step-$name.json" "$@"
}

part_tests() {
  printf '\n== unit tests of the kernels\n'
  "$programs/unit_ops" --gtest_brief=1 --gtest_filter='-Golden.*'  # their files stay where it was built
}

part_linear() {
  printf '\n== projections\n'
  "${on_two_cores[@]}" "$programs/bench_linear" --threads 2 --isas amx --rows 1,5,16,128 --only 12B \
    --json "$out/cpu-linear-amx-2.json"
}

part_places() {
  printf '\n== projections from small pages and from a file\n'
  "${on_two_cores[@]}" "$programs/bench_linear" --threads 2 --isas amx --rows 1 --only '12B sliding' --rounds 8 \
    --memory-mib 768 --places large-pages,small-pages,file --json "$out/cpu-places-amx.json"
}

part_slice() {
  local slice=(--hf-overrides '{"num_hidden_layers": 6}' --turns 5 --min-calls 5)
  step slice "${slice[@]}" --max-rows 5 --prefill-tokens 128
  step slice-head-as-stored "${slice[@]}" --max-rows 1 --prefill-tokens 0 --draft-head checkpoint
}

part_whole() {
  step whole --turns 2 --min-calls 2 --min-seconds 0 --max-rows 1 --prefill-tokens 0
}

lscpu | grep -E 'Model name|^CPU\(s\)|Thread|L2|L3' || true
echo "cores $first and $second; load $(cut -d' ' -f1-3 /proc/loadavg); large pages: $(cat /sys/kernel/mm/transparent_hugepage/enabled)"
for part in "${parts[@]}"; do
  before=$SECONDS
  "part_$part"
  echo "($part: $((SECONDS - before)) s)"
done
