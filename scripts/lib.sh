# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
# Sourced by the other scripts: a known working folder and environment, whatever the caller's is.
set -euo pipefail
export PATH="${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}"
export HOME="${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}"
export LC_ALL=C.UTF-8
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

jobs() { nproc; }

# With ccache, clones of the repository share objects, wherever they lie.
export CCACHE_BASEDIR="$root" CCACHE_NOHASHDIR=1

# configure PRESET: once; CMake reruns itself when its files change. Where nothing is built twice,
# sources are compiled in batches.
configure() {
  local preset=$1 options=()
  [[ -f build/$preset/build.ninja ]] && return
  if command -v ccache >/dev/null; then options=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache); fi
  if [[ ${CI:-} == true ]]; then options+=(-DCMAKE_UNITY_BUILD=ON); fi
  cmake --preset "$preset" "${options[@]}" >/dev/null || {
    rm -f "build/$preset/CMakeCache.txt"
    die "cmake --preset $preset failed; is everything of scripts/packages.txt installed?"
  }
}

# build PRESET [TARGET...]
build() {
  local preset=$1
  shift
  configure "$preset"
  if (($#)); then set -- --target "$@"; fi
  cmake --build --preset "$preset" -j "$(jobs)" "$@"
}
