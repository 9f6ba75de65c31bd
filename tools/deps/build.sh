# shellcheck shell=bash
# Sourced by ./quickstart and ./check: how the program is built.

# shellcheck disable=SC2034  # used by those who source this
program=build/release/tandem

# use_ccache: the same sources in another folder are not compiled again.
use_ccache() {
  export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1
}

# build_program: the release program alone. A folder that ./check configured with tests keeps them.
build_program() {
  local tests=()
  [[ -f build/release/CMakeCache.txt ]] || tests=(-DTANDEM_TESTS=OFF)
  cmake --preset release "${tests[@]}" && cmake --build build/release --target tandem
}
