#!/usr/bin/env python3
"""From the start of behemoth-worker to "ready", over a checkpoint of the 123B's layout made for it.

  load_bench.py --bin DIR [--folder /dev/shm/behemoth_load] [--layers 88] [--backend cuda] [--runs 3]
                [--storage-gb 16] [--existing] [--shape NAME=N ...]

--bin holds behemoth-worker, make_checkpoint and upload_bench. First what the storage and PCIe give
(upload_bench over --storage-gb; 0 = not), then one JSON line for each start: seconds to ready, the
worker's own "loaded" line, the peak of its memory. Needs Python 3 alone.
"""
import argparse
import json
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time

READY_LIMIT_S = 240


def make_checkpoint(arguments):
    shape = [part for pair in arguments.shape for part in ("--" + pair.split("=")[0],
                                                           pair.split("=")[1])]
    subprocess.run([arguments.bin / "make_checkpoint", "--out", arguments.folder,
                    "--layers", str(arguments.layers), *shape], check=True)


def measure_storage(arguments):
    subprocess.run([arguments.bin / "upload_bench", arguments.folder, str(arguments.storage_gb)],
                   check=True)


def peak_bytes(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) * 1024


def start_worker(arguments):
    """One start: what the log said, and the seconds it took."""
    command = [arguments.bin / "behemoth-worker", "--model", arguments.folder,
               "--served-model-name", "load-bench", "--backend", arguments.backend,
               "--max-model-len", str(arguments.max_model_len), "--listen", "127.0.0.1:0",
               "--metrics-listen", "127.0.0.1:0"]
    began = time.monotonic()
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    result, lines = {}, []
    try:
        for line in worker.stdout:
            lines.append(line.rstrip())
            fields = dict(re.findall(r"(\w+)=(\S+)", line))
            if " loaded " in line:
                result["loaded"] = {name: float(value) for name, value in fields.items()
                                    if re.fullmatch(r"[\d.]+", value)}
            if " ready " in line:
                result["ready_s"] = round(time.monotonic() - began, 2)
                result["load_and_warm_up_s"] = float(fields["load_s"])
                result["peak_host_bytes"] = peak_bytes(worker.pid)
                break
            if time.monotonic() - began > READY_LIMIT_S:
                break
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=60)
    finally:
        worker.kill()
        worker.wait()
    if "ready_s" not in result:
        sys.exit("the worker did not become ready:\n" + "\n".join(lines[-20:]))
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--folder", type=pathlib.Path, default="/dev/shm/behemoth_load")
    parser.add_argument("--layers", type=int, default=88)
    parser.add_argument("--backend", default="cuda")
    parser.add_argument("--max-model-len", type=int, default=8192)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--storage-gb", type=float, default=16)
    parser.add_argument("--existing", action="store_true",
                        help="the folder holds a checkpoint: neither make nor remove it")
    parser.add_argument("--shape", nargs="*", default=[], help="flags of make_checkpoint")
    arguments = parser.parse_args()
    try:
        if not arguments.existing:
            make_checkpoint(arguments)
        if arguments.storage_gb > 0:
            measure_storage(arguments)
        runs = []
        for _ in range(arguments.runs):
            runs.append(start_worker(arguments))
            print(json.dumps(runs[-1]), flush=True)
        print(f"ready after {statistics.median(run['ready_s'] for run in runs):.2f} s, "
              f"median of {len(runs)}")
    finally:
        if not arguments.existing:
            shutil.rmtree(arguments.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
