#!/usr/bin/env python3
"""The whole GPU suite in a folder that make_bundle.sh made: kernel and engine tests,
compute-sanitizer over a reduced set, benches, and at the 123B's shape decode, prefill and loading.
Writes report.json and report.md; needs Python 3 and a driver, nothing else.

  run_bundle.py [--out DIR] [--only NAME,NAME] [--layers 88] [--sweep] [--soak-requests 20000] [--ptx]

--ptx, for a bundle of --arch "80;90a-real": kernel and engine tests once more with the code that the
driver compiles from sm_80's PTX, which GPUs of other kinds run.

Exit status: 0 all ran and passed; 1 something failed; 3 something could not be run (said why).
"""
import argparse
import datetime
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
# Small shapes of every kernel: a sanitizer slows a kernel by one to two orders of magnitude.
REDUCED = ":".join([
    "*DecodeGemmTest*/1", "*RowBits*/0", "EmbeddingTest.*", "*RmsNormWidths*/0",
    "*RopeVariants*/0", "SiluMulTest.*", "KvBlockCopyTest.*", "*AttentionVariants*/0",
    "SampleTest.TiesGo*", "SampleTest.ABroken*", "*SampleVocabularies.EveryStage*/2",
    "*SampleVocabularies.Repeats*/2", "TokenUseTest.*",
])
SANITIZERS = ["memcheck", "racecheck", "synccheck", "initcheck"]
SANITIZER_PLACES = ["/usr/local/cuda/bin", "/opt/cuda/bin"]


def steps(arguments, sanitizer):
    """(name, command or None, reason it cannot run, seconds allowed)"""
    binary = lambda name, *rest: [str(HERE / "bin" / name), *rest]
    yield "kernel_tests", binary("kernels_test", "--gtest_brief=1"), "", 300
    if arguments.ptx:
        for name, test in [("kernel_tests_ptx", "kernels_test"),
                           ("engine_tests_ptx", "worker_cuda_test")]:
            if (HERE / "bin" / test).exists():
                yield name, ["env", "CUDA_FORCE_PTX_JIT=1", *binary(test, "--gtest_brief=1")], "", 600
    for tool in SANITIZERS:
        command = sanitizer and [sanitizer, "--tool", tool, "--error-exitcode", "9",
                                 *binary("kernels_test", "--gtest_brief=1",
                                         "--gtest_filter=" + REDUCED)]
        yield f"sanitizer_{tool}", command, "no compute-sanitizer on this machine", 300
    if (HERE / "bin" / "worker_cuda_test").exists():
        yield from worker_steps(arguments, sanitizer, binary)
    layers = str(arguments.layers)
    sweep = ["sweep"] if arguments.sweep else []
    yield "device_limits", binary("device_limits", layers), "", 120
    yield "decode_chain", binary("decode_chain", layers, *sweep), "", 300
    yield "prefill_chain", binary("prefill_chain"), "", 120
    yield "paged_attention_bench", binary("paged_attention_bench"), "", 200
    yield "sampling_bench", binary("sampling_bench"), "", 120


def worker_steps(arguments, sanitizer, binary):
    yield "engine_tests", binary("worker_cuda_test", "--gtest_brief=1"), "", 300
    memcheck = sanitizer and [sanitizer, "--tool", "memcheck", "--error-exitcode", "9",
                              *binary("worker_cuda_test", "--gtest_brief=1",
                                      "--gtest_filter=*Preemption*:*Copied*:*Golden*/tiny")]
    yield "engine_memcheck", memcheck, "no compute-sanitizer on this machine", 300
    shape = "tests/bench/worker/mistral_large_123b"
    yield ("serving_bench", binary("serving_bench", "--backend", "cuda", "--model", shape,
                                   "--load-format", "random"), "", 300)
    yield ("serving_bench_fp8", binary("serving_bench", "--backend", "cuda", "--model", shape,
                                       "--load-format", "random", "--kv", "fp8", "--only",
                                       "decode_b16_1k"), "", 120)
    files = "/dev/shm/behemoth_123b"
    yield "make_checkpoint", binary("make_checkpoint", "--out", files), "", 120
    yield ("load_checkpoint", binary("serving_bench", "--backend", "cuda", "--model", files,
                                     "--only", "decode_b1"), "", 180)
    load_bench = str(HERE / "tests" / "bench" / "worker" / "load_bench.py")
    yield ("load_ready", [sys.executable, load_bench, "--bin", str(HERE / "bin"), "--folder", files,
                          "--existing", "--storage-gb", "8"], "", 300)
    shutil.rmtree(files, ignore_errors=True)
    yield ("soak", binary("worker_solo_runs_test", "--backend=cuda", "--gtest_brief=1",
                          f"--requests={arguments.soak_requests}"), "", 560)


def run(name, command, reason, limit_s):
    if not command:
        return {"name": name, "status": "not run", "reason": reason}
    start = time.monotonic()
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=limit_s, cwd=HERE)
        output, code = done.stdout, done.returncode
    except subprocess.TimeoutExpired as late:
        output, code = (late.stdout or b"").decode(errors="replace"), -1
    status = "passed" if code == 0 else "failed"
    # A suite whose cases all skip has shown nothing.
    if code == 0 and "no CUDA device on this machine" in output:
        status = "not run"
    return {"name": name, "status": status, "exit_code": code,
            "command": " ".join(pathlib.Path(c).name if c.startswith("/") else c for c in command),
            "seconds": round(time.monotonic() - start, 1), "lines": output.splitlines()}


def device():
    try:
        query = "--query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem,power.limit"
        return subprocess.run(["nvidia-smi", query, "--format=csv,noheader"], text=True,
                              capture_output=True, timeout=30).stdout.strip()
    except OSError:
        return "no nvidia-smi"


def markdown(report):
    text = [f"# GPU suite\n\n{report['date']}, commit {report['commit']}, {report['device']}\n",
            "| step | status | seconds |", "|---|---|---|"]
    text += [f"| {s['name']} | {s['status']}{': ' + s['reason'] if 'reason' in s else ''} "
             f"| {s.get('seconds', '')} |" for s in report["steps"]]
    for step in report["steps"]:
        if "lines" in step:
            text += [f"\n## {step['name']}\n`{step['command']}`\n```", *step["lines"], "```"]
    return "\n".join(text) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=HERE)
    parser.add_argument("--only", default="", help="names of steps, or beginnings of names")
    parser.add_argument("--layers", type=int, default=88)
    parser.add_argument("--soak-requests", type=int, default=20000)
    parser.add_argument("--ptx", action="store_true", help="sm_80's PTX as well")
    parser.add_argument("--sweep", action="store_true", help="decode_chain over all its choices")
    arguments = parser.parse_args()
    sanitizer = shutil.which("compute-sanitizer") or next(
        (os.path.join(place, "compute-sanitizer") for place in SANITIZER_PLACES
         if os.path.exists(os.path.join(place, "compute-sanitizer"))), None)
    wanted = tuple(name for name in arguments.only.split(",") if name)
    report = {"date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
              "commit": (HERE / "commit").read_text().strip(), "device": device(), "steps": []}
    for step in steps(arguments, sanitizer):
        if wanted and not step[0].startswith(wanted):
            continue
        report["steps"].append(run(*step))
        last = report["steps"][-1]
        print(f"{last['name']}: {last['status']}", *last.get("lines", [])[-60:], sep="\n",
              flush=True)
        # After every step: a run that is cut off leaves what it had.
        (arguments.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
        (arguments.out / "report.md").write_text(markdown(report))
    states = {step["status"] for step in report["steps"]}
    sys.exit(1 if "failed" in states else 3 if "not run" in states or not states else 0)


if __name__ == "__main__":
    main()
