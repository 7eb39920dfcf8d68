#!/usr/bin/env bash
# Builds for one GPU architecture and lays what the GPU suite needs into a folder that runs anywhere
# with a driver (Ubuntu 24.04 or newer): kernel tests, benches, every shared library but glibc's,
# run_bundle.py; with --with-worker also the worker, its tests and benches, and the checkpoints.
# FOLDER.tar.xz beside it is what travels: the programs share most of their bytes.
#   tests/kernels/make_bundle.sh [--arch 90a-real] [--build DIR] [--out FOLDER] [--with-worker]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
arch=90a-real build="$root/build/gpu" out="$root/build/gpu_bundle" worker=() worker_tests=()
while [ $# -gt 0 ]; do
  case "$1" in
    --arch) arch=${2:?}; shift ;;
    --build) build=${2:?}; shift ;;
    --out) out=${2:?}; shift ;;
    --with-worker)
      worker=(behemoth-worker make_checkpoint upload_bench serving_bench)
      worker_tests=(worker_cuda_test worker_solo_runs_test) ;;
    *) sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
  esac
  shift
done
limit_bytes=$((64 << 20))
benches=(device_limits decode_chain prefill_chain paged_attention_bench sampling_bench)

# RPATH, not RUNPATH: it also serves what the libraries themselves load.
cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBEHEMOTH_CUDA=on "-DBEHEMOTH_COMPONENTS=kernels;tests${worker[0]:+;worker}" \
  "-DBEHEMOTH_CUDA_ARCHITECTURES=$arch" -DBEHEMOTH_TEST_ROOT=. '-DCMAKE_BUILD_RPATH=$ORIGIN/../lib' \
  '-DCMAKE_EXE_LINKER_FLAGS=-Wl,--disable-new-dtags' >"$build.configure.log" 2>&1 ||
  { tail -n 20 "$build.configure.log" >&2; exit 1; }
cmake --build "$build" --target kernels_test "${benches[@]}" "${worker[@]}" "${worker_tests[@]}"

rm -rf "$out"
mkdir -p "$out/bin" "$out/lib"
for program in kernels_test "${benches[@]}" "${worker[@]}" "${worker_tests[@]}"; do
  cp "$(find "$build/bin" "$build/bench" "$build/tests" -maxdepth 1 -name "$program" | head -n 1)" "$out/bin/"
done
if [ ${#worker[@]} -gt 0 ]; then
  mkdir -p "$out/tests/golden" "$out/tests/bench/worker"
  cp -r "$root/tests/models" "$out/tests/"
  cp -r "$root/tests/golden/data" "$out/tests/golden/"
  cp -r "$root/tests/bench/worker/"{mistral_large_123b,load_bench.py} "$out/tests/bench/worker/"
fi
cp "$root/tests/kernels/run_bundle.py" "$out/"
git -C "$root" describe --always --dirty --abbrev=12 >"$out/commit"

# glibc's own must be the host's: they match its kernel and its loader. make_checkpoint has no libraries.
for binary in "$out"/bin/*; do
  { ldd "$binary" 2>&1 || true; } | awk '$2 == "=>" && $3 ~ /^\// { print $3 }'
done | sort -u | grep -vE '/(libc|libm|libdl|librt|libpthread|libresolv)\.so' |
  while read -r library; do cp -L "$library" "$out/lib/"; done
strip --strip-debug "$out"/bin/* 2>/dev/null || true

# A window as wide as the programs together: what they share is stored once.
tar -C "$(dirname "$out")" -I 'xz -T1 --lzma2=preset=1,dict=256MiB' -cf "$out.tar.xz" "$(basename "$out")"
bytes=$(stat -c %s "$out.tar.xz")
echo "$out.tar.xz: $((bytes >> 20)) MiB, $(ls "$out/bin" | wc -l) programs, $(ls "$out/lib" | wc -l) libraries"
[ "$bytes" -le "$limit_bytes" ] || { echo "larger than $((limit_bytes >> 20)) MiB" >&2; exit 1; }
