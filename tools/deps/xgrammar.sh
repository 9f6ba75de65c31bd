#!/usr/bin/env bash
# Puts the pinned C++ sources of xgrammar (PyPI, Apache-2.0) into .deps/ and prints where they are. Quick when they are
# there. cmake runs this and compiles them with the rest: nothing of them is committed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

version=0.2.8
sha256=8305646fd2b319d6c3003f51a1665e54cbbe9cba1fb636bc41d0b46434ccbb80
folder=$PWD/.deps/xgrammar-$version

if [[ -f $folder/NOTICE ]]; then
  echo "$folder"
  exit 0
fi
mkdir -p .deps
exec 9>.deps/xgrammar.lock
flock 9
if [[ ! -f $folder/NOTICE ]]; then
  work=$(mktemp -d "$PWD/.deps/xgrammar.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  python=/usr/bin/python3
  [[ -x $python ]] || python=python3
  "$python" -m venv "$work/venv"

  # pip asks the package's build system for its name before it hands over the archive; this stands in for it, so that
  # nothing is built and nothing else is downloaded.
  mkdir -p "$work/stand_in/scikit_build_core"
  touch "$work/stand_in/scikit_build_core/__init__.py"
  cat >"$work/stand_in/scikit_build_core/build.py" <<PYTHON
import pathlib


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    folder = pathlib.Path(metadata_directory) / "xgrammar-$version.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: xgrammar\nVersion: $version\n")
    return folder.name
PYTHON
  echo "xgrammar==$version --hash=sha256:$sha256" >"$work/requirements.txt"
  PYTHONPATH=$work/stand_in "$work/venv/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps \
    --no-build-isolation --no-binary xgrammar --require-hashes -r "$work/requirements.txt" -d "$work" >&2

  mkdir "$work/sources"
  tar -xzf "$work/xgrammar-$version.tar.gz" -C "$work/sources" --strip-components=1 \
    --exclude=cpp/tvm_ffi "xgrammar-$version/cpp" "xgrammar-$version/include" "xgrammar-$version/3rdparty/picojson" \
    "xgrammar-$version/3rdparty/dlpack" "xgrammar-$version/LICENSE" "xgrammar-$version/NOTICE"
  rm -rf "$folder" "$work/sources/cpp/tvm_ffi"
  mv "$work/sources" "$folder"
fi
echo "$folder"
