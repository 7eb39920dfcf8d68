#!/usr/bin/env bash
# Builds for one GPU architecture and lays what the GPU suite needs into a folder that runs anywhere
# with a driver (Ubuntu 24.04 or newer): kernel tests, benches, every shared library but glibc's,
# run_bundle.py; with --with-worker also behemoth-worker, the tiny checkpoint, and what load tests need.
#   tests/kernels/make_bundle.sh [--arch 90a-real] [--build DIR] [--out DIR] [--with-worker]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
arch=90a-real build="$root/build/gpu" out="$root/build/gpu_bundle" worker=()
while [ $# -gt 0 ]; do
  case "$1" in
    --arch) arch=${2:?}; shift ;;
    --build) build=${2:?}; shift ;;
    --out) out=${2:?}; shift ;;
    --with-worker) worker=(behemoth-worker make_checkpoint upload_bench) ;;
    *) sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
  esac
  shift
done
limit_bytes=$((64 << 20))
benches=(device_limits decode_chain prefill_chain paged_attention_bench sampling_bench)

# RPATH, not RUNPATH: it also serves what the libraries themselves load.
cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBEHEMOTH_CUDA=on "-DBEHEMOTH_COMPONENTS=kernels;tests${worker[0]:+;worker}" \
  "-DBEHEMOTH_CUDA_ARCHITECTURES=$arch" '-DCMAKE_BUILD_RPATH=$ORIGIN/../lib' \
  '-DCMAKE_EXE_LINKER_FLAGS=-Wl,--disable-new-dtags' >"$build.configure.log" 2>&1 ||
  { tail -n 20 "$build.configure.log" >&2; exit 1; }
cmake --build "$build" --target kernels_test "${benches[@]}" "${worker[@]}"

rm -rf "$out"
mkdir -p "$out/bin" "$out/lib"
cp "$build/tests/kernels_test" "${benches[@]/#/$build/bin/}" "${worker[@]/#/$build/bin/}" "$out/bin/"
if [ ${#worker[@]} -gt 0 ]; then cp -r "$root/tests/models/tiny" "$out/tiny"; fi
cp "$root/tests/kernels/run_bundle.py" "$out/"
git -C "$root" describe --always --dirty --abbrev=12 >"$out/commit"

# glibc's own must be the host's: they match its kernel and its loader. make_checkpoint has no libraries.
for binary in "$out"/bin/*; do
  { ldd "$binary" 2>&1 || true; } | awk '$2 == "=>" && $3 ~ /^\// { print $3 }'
done | sort -u | grep -vE '/(libc|libm|libdl|librt|libpthread|libresolv)\.so' |
  while read -r library; do cp -L "$library" "$out/lib/"; done
strip --strip-debug "$out"/bin/* 2>/dev/null || true

bytes=$(du -sb "$out" | cut -f1)
echo "$out: $((bytes >> 20)) MiB, $(ls "$out/bin" | wc -l) programs, $(ls "$out/lib" | wc -l) libraries"
[ "$bytes" -le "$limit_bytes" ] || { echo "larger than $((limit_bytes >> 20)) MiB" >&2; exit 1; }
