#!/usr/bin/env bash
# What an image is made of, step by step: the Dockerfile runs exactly this, and so does a chroot.
#
#   image.sh install          packages of a build (deploy/local/steps.sh knows them)
#   image.sh build [cuda]     the three binaries, stripped, into build/image/bin
#   image.sh collect DIR      DIR/{gateway,tokenizer,worker}: each the whole content of an image
#
# An image holds one binary, the libraries that it loads, the tiny model, a list of its packages,
# and no shell: what is not there cannot be used against anyone.
set -euo pipefail
# shellcheck source=deploy/local/steps.sh
source "$(dirname "${BASH_SOURCE[0]}")/../local/steps.sh"
cd "$root"

out="$root/build/image"
user=10001
# The parts of Python's library that an HTTP and template process has no use for.
python_unused=(ensurepip idlelib lib2to3 pydoc_data test tkinter turtledemo unittest distutils
  sqlite3 dbm curses xmlrpc multiprocessing asyncio 'config-*')
python_modules_unused='_(sqlite3|curses|curses_panel|tkinter|dbm|gdbm|testcapi|test|xx|ctypes_test|asyncio|multiprocessing|lzma|bz2|crypt|uuid)|nis|ossaudiodev|readline|audioop|resource|termios|xxlimited'

build_binaries() {
  local cuda=off
  [ "${1:-}" = cuda ] && cuda=on && "$root/deploy/local/fetch_cuda.sh"
  configure "$out" -DCMAKE_BUILD_TYPE=Release -DBEHEMOTH_CUDA=$cuda \
    "-DBEHEMOTH_COMPONENTS=kernels;tokenizer_svc;gateway;worker" "-DBEHEMOTH_COMMIT=${COMMIT:-}"
  build "$out" behemoth-gateway behemoth-tokenizer behemoth-worker
  strip "$out"/bin/behemoth-{gateway,tokenizer,worker}
}

# copy_in TREE FILE: at the same path; a link's target under the link's name.
copy_in() { install -D -p "$(readlink -f "$2")" "$1$2"; }

# libraries FILE...: the paths of all that they load.
libraries() { ldd "$@" | sed -nE 's/^\t(.* => )?(\/[^ ]+) \(.*/\2/p' | sort -u; }

collect_base() {
  local tree=$1 name=$2 file
  rm -rf "$tree"
  mkdir -p "$tree"/{etc,tmp,usr/bin,usr/share/behemoth}
  chmod 1777 "$tree/tmp"
  cp -p "$out/bin/behemoth-$name" "$tree/usr/bin/"
  for file in $(libraries "$out/bin/behemoth-$name"); do copy_in "$tree" "$file"; done
  echo "behemoth:x:$user:$user::/:/nonexistent" >"$tree/etc/passwd"
  echo "behemoth:x:$user:" >"$tree/etc/group"
  echo "hosts: files dns" >"$tree/etc/nsswitch.conf"
  cp LICENSE "$tree/usr/share/behemoth/"
}

# The tokenizer needs all but the weights.
collect_model() {
  local tree=$1 name=$2 file
  for file in tests/models/tiny/*.{json,jinja,model,safetensors}; do
    [ "$name" = tokenizer ] && [ "${file##*.}" = safetensors ] && continue
    install -D -p -m 644 "$file" "$tree/opt/behemoth/models/tiny/$(basename "$file")"
  done
}

# The gateway renders templates with Jinja2 in an embedded CPython; `helm test` uses the same one.
collect_python() {
  local tree=$1 library part module
  library=$(/usr/bin/python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
  mkdir -p "$tree$library" "$tree/usr/lib/python3/dist-packages"
  cp -rp "$library/." "$tree$library/"
  for part in "${python_unused[@]}"; do
    # shellcheck disable=SC2086 # a pattern
    rm -rf "${tree:?}$library"/$part
  done
  find "$tree$library/lib-dynload" -regextype posix-extended \
    -regex ".*/($python_modules_unused)[^/]*\.so" -delete
  for part in jinja2 markupsafe; do
    cp -rp "/usr/lib/python3/dist-packages/$part" "$tree/usr/lib/python3/dist-packages/"
  done
  find "$tree" -name '*.opt-?.pyc' -delete
  copy_in "$tree" /usr/bin/python3
  while read -r module; do copy_in "$tree" "$module"; done < <(
    libraries /usr/bin/python3 "$tree$library"/lib-dynload/*.so)
}

# Equal inputs give equal files: what differs from build to build is the clock.
settle() {
  local tree=$1 epoch=${SOURCE_DATE_EPOCH:-0}
  find "$tree" -depth -exec touch -h -d "@$epoch" {} +
}

collect() {
  local target=$1 name
  for name in gateway tokenizer worker; do
    say "Collecting $name"
    collect_base "$target/$name" "$name"
    [ "$name" = gateway ] || collect_model "$target/$name" "$name"
    [ "$name" = gateway ] && collect_python "$target/$name"
    /usr/bin/python3 deploy/docker/sbom.py "$name" "$target/$name" \
      >"$target/$name/usr/share/behemoth/sbom.spdx.json"
    settle "$target/$name"
  done
  du -sh --apparent-size "$target"/*
}

case "${1:-}" in
  install) install_packages ;;
  build) build_binaries "${2:-}" ;;
  collect) collect "${2:?collect needs a folder}" ;;
  *) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
