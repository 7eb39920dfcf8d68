#!/usr/bin/env bash
# Makes the source of xgrammar's C++ core available in DIR (worker/structure needs it): its source
# distribution of the Python package index, of one version and hash. CMake runs this once.
#   fetch_xgrammar.sh DIR
set -euo pipefail

target=$1
version=0.1.25
hash=sha256:70ce16b27e8082f20808ed759b0733304316facc421656f0f30cfce514b5b77a

[ -f "$target/.version" ] && [ "$(cat "$target/.version")" = "$version" ] && exit 0
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
/usr/bin/env python3 -m venv "$scratch/venv"
echo "xgrammar==$version --hash=$hash" >"$scratch/requirements.txt"
"$scratch/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --require-hashes \
  --no-binary xgrammar --dest "$scratch" --requirement "$scratch/requirements.txt"
mkdir "$scratch/source"
tar -xzf "$scratch/xgrammar-$version.tar.gz" -C "$scratch/source" --strip-components=1
echo "$version" >"$scratch/source/.version"
rm -rf "$target"
mkdir -p "$(dirname "$target")"
mv "$scratch/source" "$target"
