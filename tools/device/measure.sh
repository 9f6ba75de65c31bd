#!/usr/bin/env bash
# All that a change of kernels is judged by: tests, then steps, a layer, kernels of the 12B pair and the server, with the seconds that
# each took. Stops where a test fails.
# usage: tools/device/measure.sh [PART...]     parts: test step layer ops serve; reports and output go to $OUT, or build/device/
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

export OUT=${OUT:-build/device} SIZES=${SIZES:-12B}
(($#)) || set -- test step layer ops serve
for part in "$@"; do
  case $part in
    test | layer | serve) command=("tools/device/$part.sh") ;;
    step | ops) command=(tools/device/bench.sh "$part") ;;
    *) echo "measure.sh: expected test, step, layer, ops or serve, got $part" >&2 && exit 2 ;;
  esac
  before=$SECONDS
  "${command[@]}" >"$OUT/$part.txt" 2>&1
  status=$?
  tail -n 60 "$OUT/$part.txt"
  echo "($part: $((SECONDS - before)) s, exit status $status)"
  [[ $part != test || $status == 0 ]] || exit 1
done
