# shellcheck shell=bash
# Sourced by the scripts of this folder: a server with the demo pair on a free port, stopped when the script ends.

# start_server LOG FLAG...: sets server_pid and server_url.
start_server() {
  local log=$1
  shift
  "${TANDEM:-build/release/tandem}" serve demo/target --port 0 --served-model-name demo --max-model-len 4096 \
    --speculative-config '{"model": "demo/assistant", "num_speculative_tokens": 4}' "$@" >/dev/null 2>"$log" &
  server_pid=$!
  for _ in $(seq 300); do
    server_url=$(sed -n 's/.*ready: \(http:[^ ]*\)$/\1/p' "$log")
    [[ -n $server_url ]] && return 0
    kill -0 "$server_pid" 2>/dev/null || break
    sleep 0.1
  done
  echo "the server did not start: $(tail -n 1 "$log")" >&2
  return 1
}

# stop_all PID...: ends what the script started, and waits for it.
stop_all() {
  local pid
  for pid in "$@"; do
    kill "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
  done
}

# need COMMAND PACKAGE: says what to install.
need() {
  command -v "$1" >/dev/null || { echo "expected $1 (Debian: apt-get install $2)" >&2 && exit 2; }
}
