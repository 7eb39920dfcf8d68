#!/usr/bin/env bash
# One command from a clone to a verdict: installs what is missing, builds, runs every layer that
# needs no GPU. Ends with ctest's own closing lines.
#
#   tests/run.sh                          all of it
#   tests/run.sh unit tidy                these layers (the ctest labels)
#   tests/run.sh --sanitize address       in build/address (address; undefined; thread; or the first
#                                         two in one: address,undefined in build/address-undefined)
set -euo pipefail
# shellcheck source=deploy/local/steps.sh
source "$(dirname "${BASH_SOURCE[0]}")/../deploy/local/steps.sh"
cd "$root"

layers=() sanitize=""
while [ $# -gt 0 ]; do
  case "$1" in
    --sanitize) sanitize=${2:?--sanitize needs address, undefined, thread or address,undefined}; shift ;;
    unit|property|kernels|integration|conformance|golden|fault|fuzz|e2e|tidy) layers+=("$1") ;;
    -h|--help) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) echo "unknown layer or option: $1" >&2; exit 2 ;;
  esac
  shift
done
case "$sanitize" in
  ''|address|undefined|thread|address,undefined) ;;
  *) echo "--sanitize: '$sanitize' is not address, undefined, thread or address,undefined" >&2; exit 2 ;;
esac

install_packages test

# ---- Python: what others wrote, pinned ------------------------------------------------------------
venv="$root/build/venv"
if ! cmp -s tests/requirements.txt "$venv/requirements.txt"; then
  say "Installing tests/requirements.txt into build/venv"
  rm -rf "$venv"
  /usr/bin/python3 -m venv "$venv"
  "$venv/bin/pip" install -q --disable-pip-version-check -r tests/requirements.txt ||
    die "pip could not install tests/requirements.txt; the lines above say why"
  cp tests/requirements.txt "$venv/requirements.txt"
fi

# ---- Build ---------------------------------------------------------------------------------------
folder=${sanitize//,/-}
out="$root/build/${folder:-release}"
arguments=(-DCMAKE_BUILD_TYPE=Release "-DBEHEMOTH_TEST_PYTHON=$venv/bin/python")
if [ -n "$sanitize" ]; then
  arguments+=("-DBEHEMOTH_SANITIZE=$sanitize" -DBEHEMOTH_CUDA=off)
elif deploy/local/fetch_cuda.sh; then
  arguments+=(-DBEHEMOTH_CUDA=on)
else
  say "No CUDA compiler: the kernels are not compiled in this run"
  arguments+=(-DBEHEMOTH_CUDA=off)
fi
configure "$out" "${arguments[@]}"
build "$out"

# ---- Fuzz: clang's libFuzzer in a folder of its own, ASan and UBSan together -----------------------
wants() { [ ${#layers[@]} -eq 0 ] || [[ " ${layers[*]} " == *" $1 "* ]]; }
clang=$(compgen -c clang++- | grep -E '^clang\+\+-[0-9]+$' | sort -V | tail -n 1 || true)
if [ -z "$sanitize" ] && wants fuzz && grep -rqs behemoth_fuzz tests/fuzz/*/; then
  [ -n "$clang" ] || die "the fuzz layer needs clang, which install_packages should have brought"
  configure "$root/build/fuzz" -DCMAKE_BUILD_TYPE=Release "-DCMAKE_CXX_COMPILER=$clang" \
    "-DCMAKE_C_COMPILER=${clang/++/}" -DBEHEMOTH_FUZZ=ON -DBEHEMOTH_SANITIZE=address,undefined \
    -DBEHEMOTH_CUDA=off
  build "$root/build/fuzz" fuzzers
  say "Fuzzing"
  ctest --test-dir "$root/build/fuzz" --output-on-failure --no-tests=error -j 2 -L '^fuzz$'
  [ "${layers[*]:-}" = fuzz ] && exit 0
fi

# ---- Run -----------------------------------------------------------------------------------------
say "Testing"
pattern=$(IFS='|'; echo "${layers[*]:-}")
exec ctest --test-dir "$out" --output-on-failure --no-tests=error -j 2 ${pattern:+-L "^($pattern)$"}
