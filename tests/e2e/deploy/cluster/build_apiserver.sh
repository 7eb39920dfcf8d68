#!/usr/bin/env bash
# Builds the kube-apiserver that the tests of this folder run against, into build/tools; by hand, a
# quarter of an hour of processor and 3 GB of Go's caches. Needs go. etcd is Debian's etcd-server.
#
#   tests/e2e/deploy/cluster/build_apiserver.sh [FOLDER]    build/tools where none is named
set -euo pipefail

readonly KUBERNETES=1.34.1  # its staging modules are released as 0.34.1
root=$(cd "$(dirname "$0")/../../../.." && pwd)
mkdir -p "${1:-$root/build/tools}"
target=$(cd "${1:-$root/build/tools}" && pwd)
module=$(mktemp -d)
trap 'rm -rf "$module"' EXIT

# k8s.io/kubernetes replaces its staging modules by folders of its own tree, which nobody else may:
# here each is replaced by its release.
go_mod=$(cd "$module" && go mod download -json "k8s.io/kubernetes@v$KUBERNETES" |
  sed -n 's/.*"GoMod": "\(.*\)".*/\1/p')
{
  printf 'module apiserver\n'
  grep '^go ' "$go_mod"
  printf 'require k8s.io/kubernetes v%s\n' "$KUBERNETES"
  awk -v version="v0.${KUBERNETES#*.}" \
    '$1 ~ /^k8s\.io\// && $2 == "v0.0.0" { print "replace " $1 " => " $1 " " version }' "$go_mod"
} > "$module/go.mod"

version=k8s.io/component-base/version
cd "$module"
CGO_ENABLED=0 go build -mod=mod -trimpath -o "$target/kube-apiserver" \
  -ldflags "-s -w -X $version.gitVersion=v$KUBERNETES -X $version.gitMajor=1 -X $version.gitMinor=34" \
  k8s.io/kubernetes/cmd/kube-apiserver
"$target/kube-apiserver" --version
