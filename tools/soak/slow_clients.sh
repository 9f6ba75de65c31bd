#!/usr/bin/env bash
# Attacks a server with slow clients and asks it for its health, and for an answer, once a second meanwhile.
# usage: tools/soak/slow_clients.sh [CONNECTIONS [SECONDS]]     default: 1000 connections, 30 s for each of four attacks
# Needs slowhttptest and curl; TANDEM names the program. Exits 1 when a probe failed or took longer than a second.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
# shellcheck source=tools/soak/server.sh
source tools/soak/server.sh
need slowhttptest slowhttptest
need curl curl

connections=${1:-1000} seconds=${2:-30}
scratch=$(mktemp -d)
trap 'stop_all "${attack:-}" "$server_pid"; rm -rf "$scratch"' EXIT
ulimit -n 16384 2>/dev/null || ulimit -n "$(ulimit -Hn)"
start_server "$scratch/server.log" || exit 1
echo "$server_url, $connections connections, $seconds s each; probes: /health, and a chat answer of 8 tokens"

# probe PATH CURL_ARGUMENT...: appends "status seconds" to a file of the path's name.
probe() {
  local path=$1
  shift
  curl -s -o /dev/null -m 10 -w '%{http_code} %{time_total}\n' "$@" "$server_url$path" >>"$scratch/${path//\//_}"
}

open_files() {
  local all=("/proc/$server_pid/fd/"*)
  echo "${#all[@]}"
}

# summary FILE: how many, how many of them not 200, median, slowest.
summary() {
  sort -k2 -n "$1" | awk '{ if ($1 != 200) bad++; t[NR] = $2 }
    END { printf "%3d probes, %d failed, median %.3f s, slowest %.3f s", NR, bad, t[int((NR + 1) / 2)], t[NR] }'
}

chat='{"messages": [{"role": "user", "content": "Say something."}], "max_tokens": 8}'
worst=0
for attack_of in "-H slow headers" "-B slow bodies" "-R ranges" "-X slow reading"; do
  mode=${attack_of%% *} path=/v1/chat/completions
  [[ $mode == -X ]] && path=/web/page.css
  rm -f "$scratch"/_*
  peak=0
  slowhttptest "$mode" -c "$connections" -r "$connections" -i 5 -l "$seconds" -s 65536 -x 24 -p 3 \
    -f application/json -w 16 -y 64 -z 8 -n 2 -k 1 -u "$server_url$path" >"$scratch/attack.log" 2>&1 &
  attack=$!
  for ((i = 0; i < seconds; ++i)); do
    probe /health
    probe /v1/chat/completions -H 'Content-Type: application/json' -d "$chat"
    files=$(open_files)
    [[ $files -gt $peak ]] && peak=$files
    sleep 1
  done
  kill "$attack" 2>/dev/null
  wait "$attack" 2>/dev/null
  memory=$(awk '/VmRSS/ { print int($2 / 1024) }' "/proc/$server_pid/status")
  printf '%-16s health: %s\n%-16s answer: %s; at most %d files open, %d MiB resident\n' "${attack_of#* }" \
    "$(summary "$scratch/_health")" "" "$(summary "$scratch/_v1_chat_completions")" "$peak" "$memory"
  awk '$1 != 200 || $2 > 1 { exit 1 }' "$scratch/_health" || worst=1
  awk '$1 != 200 { exit 1 }' "$scratch/_v1_chat_completions" || worst=1
done
for _ in $(seq 200); do
  files=$(open_files)
  [[ $files -lt 40 ]] && break
  sleep 0.1
done
echo "afterwards: $files files open"
exit "$worst"
