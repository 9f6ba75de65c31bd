#!/usr/bin/env bash
# Runs the end-to-end tests of the program on the GPU, JOBS (8) at a time; from the folder of tools/device/pack.sh --python.
# usage: tools/device/e2e.sh [TEST...]     names of tests/e2e without _test.py; all of them where none is named
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

export PYTHONPATH=$PWD/build/device/python PYTHONDONTWRITEBYTECODE=1
program=$PWD/build/device/tandem
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
export folder TANDEM=$folder/tandem
# A program takes what the card has left: here each has as much KV cache as on a CPU.
cat >"$TANDEM" <<END
#!/usr/bin/env bash
case "\${1:-} \${2:-}" in
  "serve "* | "generate "*) exec "$program" "\$1" --kv-cache-gib 4 "\${@:2}" ;;
  "bench latency" | "bench throughput") exec "$program" bench "\$2" --kv-cache-gib 4 "\${@:3}" ;;
  *) exec "$program" "\$@" ;;
esac
END
chmod -R a+rx "$folder"  # a test runs it as another user

run() {
  local status=ok
  timeout 600 python3 "tests/e2e/$1_test.py" >"$folder/$1.log" 2>&1 || status=FAILED
  if [[ $status == FAILED ]]; then grep "^FAIL" "$folder/$1.log" | cut -c1-400 || tail -n 20 "$folder/$1.log"; fi
  echo "$status $1: $(tail -n 1 "$folder/$1.log")"
  [[ $status == ok ]]
}
export -f run

tests=("$@")
if [[ $# -eq 0 ]]; then
  for test in tests/e2e/*_test.py; do tests+=("$(basename "$test" _test.py)"); done
fi
printf '%s\n' "${tests[@]}" | xargs -P "${JOBS:-8}" -I{} bash -c 'run {}'
