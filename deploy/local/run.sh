#!/usr/bin/env bash
# One command from a clone to an answer: installs what is missing, builds, starts the three
# processes, sends the model card's own call and shows thinking and answer as they stream, then
# serves until Ctrl-C.
set -euo pipefail
# shellcheck source=deploy/local/steps.sh
source "$(dirname "${BASH_SOURCE[0]}")/steps.sh"

usage() {
  cat <<'TEXT'
deploy/local/run.sh [--model DIR] [--port N] [--backend auto|cuda|cpu] [--once] [--no-install]
  --model DIR    a Hugging Face folder (default: the embedded tests/models/tiny)
  --port N       the API's port (default 8000); metrics and gRPC ports follow it
  --backend B    auto: CUDA if this machine has a GPU and a CUDA build, else the CPU
  --once         end after the first answer, exit 0
  --no-install   never call apt-get or pip; say what is missing instead
TEXT
}

model="$root/tests/models/tiny" port=8000 backend=auto once=no install=yes
while [ $# -gt 0 ]; do
  case "$1" in
    --model) model=${2:?--model needs a folder}; shift ;;
    --port) port=${2:?--port needs a number}; shift ;;
    --backend) backend=${2:?--backend needs auto, cuda or cpu}; shift ;;
    --once) once=yes ;;
    --no-install) install=no ;;
    -h|--help) usage; exit 0 ;;
    *) usage >&2; echo "unknown option: $1" >&2; exit 2 ;;
  esac
  shift
done
case "$port" in ''|*[!0-9]*) echo "--port: '$port' is not a number" >&2; exit 2 ;; esac
[ "$port" -ge 1 ] && [ "$port" -le 65530 ] || { echo "--port: $port is not in 1..65530" >&2; exit 2; }
case "$backend" in auto|cuda|cpu) ;; *) echo "--backend: '$backend' is not auto, cuda or cpu" >&2; exit 2 ;; esac
[ -d "$model" ] || die "the model folder '$model' does not exist"
[ -f "$model/config.json" ] || die "'$model' holds no config.json: is it a Hugging Face model folder?"
model=$(cd "$model" && pwd)

# ---- Install and build ---------------------------------------------------------------------------
if [ "$install" = yes ]; then
  install_packages
fi
cuda=off
if [ "$backend" != cpu ] && { [ "$backend" = cuda ] || [ -e /dev/nvidiactl ]; }; then
  cuda=on
  [ "$install" = yes ] && "$root/deploy/local/fetch_cuda.sh"
fi
out="$root/build/release"
# A build folder that the tests configured serves as well, unless it lacks the CUDA that is asked for.
if [ ! -f "$out/build.ninja" ] || { [ $cuda = on ] && ! grep -q '^BEHEMOTH_CUDA:.*=on' "$out/CMakeCache.txt"; }; then
  configure "$out" -DCMAKE_BUILD_TYPE=Release -DBEHEMOTH_CUDA=$cuda \
    "-DBEHEMOTH_COMPONENTS=kernels;tokenizer_svc;gateway;worker"
fi
build "$out" behemoth-gateway behemoth-tokenizer behemoth-worker

# ---- Ports ---------------------------------------------------------------------------------------
metrics_gateway=$((port + 1)) grpc_tokenizer=$((port + 2)) metrics_tokenizer=$((port + 3))
grpc_worker=$((port + 4)) metrics_worker=$((port + 5))
for p in "$port" "$metrics_gateway" "$grpc_tokenizer" "$metrics_tokenizer" "$grpc_worker" "$metrics_worker"; do
  if (exec 3<>"/dev/tcp/127.0.0.1/$p") 2>/dev/null; then
    die "port $p is taken by another program; choose six free ones in a row with --port"
  fi
done

# ---- Start, and stop everything on the way out ---------------------------------------------------
logs="$root/build/run"
mkdir -p "$logs"
names=() pids=()
start() {
  local name=$1; shift
  "$out/bin/$name" "$@" >"$logs/$name.log" 2>&1 &
  names+=("$name") pids+=($!)
}
stop_all() {
  local i
  trap '' HUP INT TERM
  for ((i = ${#pids[@]} - 1; i >= 0; i--)); do kill -TERM "${pids[i]}" 2>/dev/null || true; done
  for ((i = 0; i < 100; i++)); do
    [ -z "$(jobs -pr)" ] && return
    sleep 0.1
  done
  kill -KILL "${pids[@]}" 2>/dev/null || true
}
trap stop_all EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

failed_process() {
  local i
  for i in "${!pids[@]}"; do
    kill -0 "${pids[i]}" 2>/dev/null && continue
    tail -n 5 "$logs/${names[i]}.log" >&2
    die "${names[i]} ended; its log: $logs/${names[i]}.log"
  done
}

say "Starting tokenizer, worker and gateway (logs: build/run/)"
start behemoth-tokenizer --model "$model" \
  --listen "127.0.0.1:$grpc_tokenizer" --metrics-listen "127.0.0.1:$metrics_tokenizer"
start behemoth-worker --model "$model" --backend "$backend" \
  --listen "127.0.0.1:$grpc_worker" --metrics-listen "127.0.0.1:$metrics_worker"
start behemoth-gateway --tokenizer "127.0.0.1:$grpc_tokenizer" --worker "127.0.0.1:$grpc_worker" \
  --listen "127.0.0.1:$port" --metrics-listen "127.0.0.1:$metrics_gateway"

base="http://127.0.0.1:$port"
for ((waited = 0; ; waited++)); do
  failed_process
  health=$(curl -sS -m 2 -w ' %{http_code}' "$base/health" 2>/dev/null) || health=""
  [ "${health##* }" = 200 ] && break
  [ $((waited % 25)) -eq 24 ] && say "Waiting: ${health% *}"
  sleep 0.2
done

# ---- The model card's own call -------------------------------------------------------------------
say "The model card's call:"
python3 "$root/deploy/local/card_call.py" "$base" || die "the card's call failed; logs: build/run/"

cat <<TEXT

  API      $base/v1        (OpenAI clients, SillyTavern: this is the base URL, any key)
  metrics  http://127.0.0.1:$metrics_gateway/metrics  (tokenizer :$metrics_tokenizer, worker :$metrics_worker)
  gRPC     grpcurl -plaintext 127.0.0.1:$grpc_worker behemoth.worker.v1.WorkerService/GetStatus
TEXT
[ "$once" = yes ] && exit 0
say "Serving. Ctrl-C stops."
while sleep 1; do failed_process; done
