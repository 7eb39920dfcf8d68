"""Bar 9 by hand: build/venv/bin/python tests/bench/gateway/run.py [BUILD_DIR].

The gateway between a token source and a load client, all on this machine; prints one line a figure.
The time to the first byte is the client's, from the request's first byte to the reply's: gateway,
both calls to the source, the kernel and the client, all on the same cores. On a machine that others
use, `chrt -f 10` in front gives the three the cores for the seconds that it takes.
"""

import re
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

BUILD = Path(sys.argv[1] if len(sys.argv) > 1 else "build/release")


def source(*arguments):
    process = subprocess.Popen([BUILD / "tests/token_source", "0", *map(str, arguments)],
                               stdout=subprocess.PIPE, text=True)
    return process, int(process.stdout.readline())


def gateway(upstream, threads=2):
    process = subprocess.Popen(
        [BUILD / "bin/behemoth-gateway", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0",
         "--tokenizer", f"127.0.0.1:{upstream}", "--worker", f"127.0.0.1:{upstream}",
         "--threads", str(threads)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in process.stdout:
        if match := re.search(r"ready listen=127\.0\.0\.1:(\d+)", line):
            break
    # A log that nobody reads would fill its pipe and stop the gateway.
    threading.Thread(target=process.stdout.read, daemon=True).start()
    port = int(match.group(1))
    for _ in range(100):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
            return process, port
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the gateway does not become ready")


def client(port, mode, *arguments):
    command = [BUILD / "tests/gateway_load_client", str(port), mode, *map(str, arguments)]
    print(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip(), flush=True)


def memory_kib(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()).group(1))


def processor_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def end(*processes):
    for process in processes:
        process.terminate()
        process.wait(30)


def speed():
    upstream, upstream_port = source()
    front, port = gateway(upstream_port)
    client(port, "ttfb", 1, 200, 1)  # warm
    for clients in (1, 2, 4, 8):
        before = processor_s(front.pid), processor_s(upstream.pid)
        client(port, "ttfb", clients, 2000 // clients, 1)
        took = processor_s(front.pid) - before[0], processor_s(upstream.pid) - before[1]
        print(f"  of processor for each request: gateway {took[0] * 500:.0f} us, source "
              f"{took[1] * 500:.0f} us")
    before, began = processor_s(front.pid), time.monotonic()
    client(port, "throughput", 64, 4, 2000)
    print(f"throughput: the gateway took {processor_s(front.pid) - before:.2f} s of processor in "
          f"{time.monotonic() - began:.2f} s")
    end(front, upstream)


def idle(streams=5000):
    upstream, upstream_port = source(0, 1)  # one token each, then silence
    front, port = gateway(upstream_port)
    before = memory_kib(front.pid)
    holder = subprocess.Popen([BUILD / "tests/gateway_load_client", str(port), "idle", str(streams),
                               "1", "64"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    print(f"idle: {holder.stdout.readline().strip()}; RSS {before / 1024:.0f} MiB before, "
          f"{memory_kib(front.pid) / 1024:.0f} MiB with {streams} streams", flush=True)
    holder.communicate("\n")
    end(front, upstream)


if __name__ == "__main__":
    speed()
    idle()
