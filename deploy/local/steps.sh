# shellcheck shell=bash
# Steps that deploy/local/run.sh and tests/run.sh share. Sourced, never run.
# Each step says what it does, does nothing when its result is already there, and ends the script
# with one plain sentence when it cannot be done.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
die() { printf '\nstopped: %s\n' "$*" >&2; exit 1; }

# The packages of a build and, with "test", of the tests. Debian 12 and Ubuntu 24.04.
packages() {
  local boost=libboost1.83-dev clang=18
  if [ "$(. /etc/os-release && echo "$ID$VERSION_ID")" = debian12 ]; then
    boost=libboost1.81-dev clang=19
  fi
  echo build-essential cmake ninja-build git pkg-config ccache lld curl ca-certificates \
    libgrpc++-dev protobuf-compiler-grpc libprotobuf-dev protobuf-compiler libabsl-dev \
    prometheus-cpp-dev "$boost" nlohmann-json3-dev libcli11-dev libspdlog-dev libssl-dev \
    pybind11-dev python3-dev python3-venv python3-pip python3-jinja2
  if [ "${1:-}" = test ]; then
    echo libgtest-dev libgmock-dev libbenchmark-dev prometheus openssl procps \
      "clang-$clang" "clang-format-$clang" "clang-tidy-$clang" "libclang-rt-$clang-dev"
  fi
}

# install_packages [test]: only what is missing; needs root only then.
install_packages() {
  local missing=() package
  for package in $(packages "${1:-}"); do
    dpkg-query -W -f='${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' ||
      missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  command -v apt-get >/dev/null ||
    die "this is not Debian or Ubuntu; install the equivalents of: ${missing[*]}"
  [ "$(id -u)" = 0 ] || die "${#missing[@]} packages are missing. As root, run:
  apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
  say "Installing ${#missing[@]} packages"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq || die "apt-get update failed; the lines above say why"
  apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 "${missing[@]}" >/dev/null ||
    die "apt-get install failed; the lines above say why"
}

# configure DIR [cmake arguments]: once; Ninja notices changed CMake files by itself. Other arguments
# than last time begin with a fresh cache, so that nothing of the earlier ones stays: a folder that
# run.sh configured without the tests would otherwise have none for tests/run.sh either.
configure() {
  local dir=$1; shift
  local stamp="$dir/.configured" arguments="$*"
  [ -f "$dir/build.ninja" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$arguments" ] && return
  say "Configuring ${dir#"$root"/}"
  mkdir -p "$dir"
  cmake --fresh -S "$root" -B "$dir" -G Ninja "$@" >"$dir/configure.log" 2>&1 ||
    { tail -n 30 "$dir/configure.log" >&2; die "cmake failed; the whole log: $dir/configure.log"; }
  echo "$arguments" >"$stamp"
}

# build DIR [targets]: progress on one line where there is a terminal.
build() {
  local dir=$1; shift
  say "Building ${dir#"$root"/} $*"
  NINJA_STATUS='[%f/%t %es] ' ninja -C "$dir" "$@" || die "the build failed; the lines above say where"
}
