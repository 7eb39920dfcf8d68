#!/usr/bin/env bash
# Puts sentencepiece's C++ source into build/third_party/sentencepiece and builds its static library
# once. Debian's own package bundles a protobuf that aborts beside ours.
#
#   deploy/local/fetch_sentencepiece.sh                      from PyPI, checked against a SHA-256
#   deploy/local/fetch_sentencepiece.sh --archive FILE       the same archive, fetched before
set -euo pipefail

version=0.2.1
sha256=8138cec27c2f2282f4a34d9a016e3374cd40e5c6e9cb335063db66a0a3b71fad
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
out="$root/build/third_party/sentencepiece"
archive=""
if [ "${1:-}" = --archive ]; then archive=${2:?--archive needs a file}; fi

if [ "$(cat "$out/version" 2>/dev/null)" = "$version" ]; then exit 0; fi

mkdir -p "$root/build/third_party"
work=$(mktemp -d "$root/build/third_party/.sentencepiece.XXXXXX")
trap 'rm -rf "$work"' EXIT

if [ -z "$archive" ]; then
  # pip reads an archive's metadata before it hands it out; for that it needs setuptools and wheel.
  { python3 -m venv "$work/venv" &&
    "$work/venv/bin/pip" install -q --disable-pip-version-check setuptools wheel &&
    "$work/venv/bin/pip" download -q --disable-pip-version-check --no-deps --no-binary :all: \
      --no-build-isolation -d "$work" "sentencepiece==$version"; } >"$work/pip.log" 2>&1 ||
    { cat "$work/pip.log" >&2; echo "sentencepiece $version could not be fetched" >&2; exit 1; }
  archive="$work/sentencepiece-$version.tar.gz"
fi
echo "$sha256  $archive" | sha256sum --check --quiet ||
  { echo "$archive is not sentencepiece $version" >&2; exit 1; }
tar -xzf "$archive" -C "$work"

source="$work/sentencepiece-$version/sentencepiece"
cmake -S "$source" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
  -DSPM_ENABLE_SHARED=OFF -DSPM_PROTOBUF_PROVIDER=package -DSPM_ABSL_PROVIDER=internal \
  -DCMAKE_POSITION_INDEPENDENT_CODE=ON >"$work/build.log" 2>&1 &&
  ninja -C "$work/build" sentencepiece-static >>"$work/build.log" 2>&1 ||
  { tail -n 30 "$work/build.log" >&2; echo "sentencepiece could not be built" >&2; exit 1; }

mkdir -p "$work/done/lib" "$work/done/include"
cp "$(find "$work/build" -name libsentencepiece.a)" "$work/done/lib/"
cp "$source/src/sentencepiece_processor.h" "$work/done/include/"
echo "$version" >"$work/done/version"
rm -rf "$out"
mv "$work/done" "$out"
