#!/usr/bin/env bash
# The server on the GPU under 1, 8, 32 and 64 clients, and the engine alone with the same load: about two minutes.
# usage: tools/device/serve.sh [FLAG OF bench/soak/serve_load.py...]     the report goes to $OUT/serve.json, or build/device/
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

export TANDEM=${TANDEM:-$PWD/build/device/tandem}
exec python3 bench/soak/serve_load.py --out "${OUT:-build/device}/serve.json" "$@"
