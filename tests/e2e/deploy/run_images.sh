#!/usr/bin/env bash
# Runs the three processes from what deploy/docker/image.sh collected: each chrooted into its own tree
# as user 10001, with /proc and /dev/null as a container engine gives them, on a root it cannot write.
# Then the model card's call by the image's own Python, the health checks by the images' own binaries,
# and an orderly end. Needs root.
#
#   tests/e2e/deploy/run_images.sh DIR
set -euo pipefail
out=${1:?usage: run_images.sh DIR}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
user=10001
port=$((20000 + RANDOM % 20000))
declare -A pid=()

inside() { local name=$1; shift; chroot --userspec=$user:$user "$out/$name" "$@"; }

cleanup() {
  local name
  for name in "${!pid[@]}"; do kill -KILL "${pid[$name]}" 2>/dev/null || true; done
  for name in gateway tokenizer worker; do
    umount -q "$out/$name/proc" "$out/$name/dev/null" || true
    rm -rf "${out:?}/$name/proc" "${out:?}/$name/dev"
  done
}
trap cleanup EXIT
trap 'exit 143' INT TERM
for name in gateway tokenizer worker; do
  mkdir -p "$out/$name/proc" "$out/$name/dev"
  : >"$out/$name/dev/null"
  mount -t proc proc "$out/$name/proc"
  mount --bind /dev/null "$out/$name/dev/null"
done

start() {
  local name=$1; shift
  chroot --userspec=$user:$user "$out/$name" "/usr/bin/behemoth-$name" "$@" \
    --metrics-listen=127.0.0.1:0 &
  pid[$name]=$!
}
start tokenizer --model=/opt/behemoth/models/tiny --listen=127.0.0.1:$((port + 1)) \
  --health-listen=127.0.0.1:$((port + 2))
start worker --model=/opt/behemoth/models/tiny --backend=cpu --listen=127.0.0.1:$((port + 3)) \
  --health-listen=127.0.0.1:$((port + 4))
start gateway --tokenizer=127.0.0.1:$((port + 1)) --worker=127.0.0.1:$((port + 3)) \
  --listen=127.0.0.1:$port

until inside gateway /usr/bin/behemoth-gateway --check-health="http://127.0.0.1:$port/health"; do
  kill -0 "${pid[gateway]}" "${pid[tokenizer]}" "${pid[worker]}"
  sleep 0.5
done
inside tokenizer /usr/bin/behemoth-tokenizer \
  --check-health=127.0.0.1:$((port + 2))/behemoth.tokenizer.v1.TokenizerService
inside worker /usr/bin/behemoth-worker \
  --check-health=127.0.0.1:$((port + 4))/behemoth.worker.v1.WorkerService
inside gateway /usr/bin/python3 -I - "http://127.0.0.1:$port" \
  <"$root/deploy/helm/behemoth/files/card_call.py"

for name in gateway worker tokenizer; do
  uids=$(awk '/^Uid:/ {print $2, $3, $4}' "/proc/${pid[$name]}/status")
  kill -TERM "${pid[$name]}"
  code=0
  wait "${pid[$name]}" || code=$?
  echo "$name: uid $uids, exit $code, $(du -sm --apparent-size --exclude=proc "$out/$name" | cut -f1) MB"
  [ "$uids" = "$user $user $user" ] && [ "$code" = 0 ]
  unset "pid[$name]"
done
echo "all three ran from their images as user $user"
