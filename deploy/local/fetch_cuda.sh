#!/usr/bin/env bash
# Makes a CUDA 13 compiler available: prints the path of nvcc. An installed toolkit wins; otherwise
# NVIDIA's own Python packages (105 MB) go to build/third_party/cuda, which CMakeLists.txt looks at.
#   fetch_cuda.sh [--with-disassembler]
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
target="$root/build/third_party/cuda"
version='13.0.*'

if installed=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null); then
  echo "$installed"
  exit 0
fi
packages=("cuda-toolkit[nvcc,crt,nvvm,cudart,cccl,profiler]==$version")
[ "${1:-}" = --with-disassembler ] && packages+=(nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm)

if [ ! -x "$target/bin/nvcc" ] || { [ "${1:-}" = --with-disassembler ] && [ ! -x "$target/bin/cuobjdump" ]; }; then
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  /usr/bin/env python3 -m venv "$scratch/venv" >&2
  "$scratch/venv/bin/pip" install --quiet --disable-pip-version-check \
    --target "$scratch/site" "${packages[@]}" >&2
  rm -rf "$target"
  mkdir -p "$(dirname "$target")"
  mv "$scratch/site/nvidia/cu13" "$target"
  # The packages lack the names that a linker and CMake's FindCUDAToolkit look for.
  ln -sfn lib "$target/lib64"
  for library in "$target"/lib/lib*.so.*; do
    ln -sfn "$(basename "$library")" "${library%%.so.*}.so"
  done
fi
echo "$target/bin/nvcc"
