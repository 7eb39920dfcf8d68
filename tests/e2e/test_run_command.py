"""The README's first command, as a newcomer types it, and as a newcomer mistypes it."""

import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUN = str(ROOT / "deploy/local/run.sh")


def free_ports(count=6):
    """The first of `count` free ports in a row."""
    for base in range(20000, 60000, 50):
        held = []
        try:
            for port in range(base, base + count):
                held.append(socket.socket())
                held[-1].bind(("127.0.0.1", port))
            return base
        except OSError:
            continue
        finally:
            for one in held:
                one.close()
    raise RuntimeError("no free ports")


def run(*arguments, timeout=240):
    return subprocess.run(
        [RUN, "--no-install", *arguments], capture_output=True, text=True, timeout=timeout, cwd="/"
    )


def services(port):
    """{name: process id} of what runs on a port and the five behind it."""
    listing = subprocess.run(["ps", "-ww", "-eo", "pid,args"], capture_output=True, text=True).stdout
    found = {}
    for line in listing.split("\n"):
        match = re.match(r"\s*(\d+) \S*build/release/bin/behemoth-(\w+) .*", line)
        if match and any(f"127.0.0.1:{p}" in line for p in range(port, port + 6)):
            found[match.group(2)] = int(match.group(1))
    return found


def test_once_shows_thought_and_answer_and_leaves_nothing_running():
    port = free_ports()
    result = run("--once", "--backend", "cpu", "--port", str(port))
    assert result.returncode == 0, result.stdout + result.stderr
    shown = result.stdout.split("The model card's call:")[1]
    assert "<think>" in shown and "</think>" in shown
    answer = shown.split("</think>", 1)[1].split("finish_reason:")[0].strip()
    assert answer
    assert "finish_reason: stop" in shown
    assert services(port) == {}


class Serving:
    """run.sh without --once, once it serves."""

    def __init__(self):
        self.port = free_ports()
        self.process = subprocess.Popen(
            [RUN, "--no-install", "--backend", "cpu", "--port", str(self.port)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )

    def __enter__(self):
        for line in self.process.stdout:
            if "Ctrl-C stops" in line:
                break
        assert set(services(self.port)) == {"gateway", "tokenizer", "worker"}
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
            self.end()

    def end(self):
        """(exit code, last output) once everything is gone."""
        output = self.process.stdout.read()
        return self.process.wait(timeout=30), output


def test_serves_until_it_is_interrupted():
    with Serving() as serving:
        health = urllib.request.urlopen(f"http://127.0.0.1:{serving.port}/health", timeout=5)
        assert health.status == 200
        os.killpg(serving.process.pid, signal.SIGINT)
        assert serving.end()[0] == 130
    assert services(serving.port) == {}


def test_a_process_that_fails_ends_the_others_and_is_named():
    with Serving() as serving:
        os.kill(services(serving.port)["worker"], signal.SIGKILL)
        code, output = serving.end()
    assert code == 1
    assert "behemoth-worker ended" in output
    assert services(serving.port) == {}


def test_a_taken_port_is_said_plainly():
    port = free_ports()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port + 4))
        taken.listen()
        result = run("--once", "--backend", "cpu", "--port", str(port))
    assert result.returncode == 1
    assert f"port {port + 4} is taken" in result.stderr


def test_a_missing_model_is_said_plainly(tmp_path):
    result = run("--once", "--model", str(tmp_path / "nowhere"))
    assert result.returncode == 1
    assert "does not exist" in result.stderr
    result = run("--once", "--model", str(tmp_path))
    assert result.returncode == 1
    assert "config.json" in result.stderr


def test_a_broken_model_ends_with_the_process_s_own_reason(tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / name).write_bytes((ROOT / "tests/models/tiny" / name).read_bytes())
    (tmp_path / "config.json").write_text('{"architectures": ["GPT2LMHeadModel"]}')
    started = time.monotonic()
    result = run("--once", "--backend", "cpu", "--model", str(tmp_path), "--port", str(free_ports()))
    assert result.returncode == 1
    assert "behemoth-worker ended" in result.stderr
    assert time.monotonic() - started < 60


def test_wrong_arguments_name_themselves():
    for arguments, named in (
        (["--prot", "1"], "--prot"), (["--port", "80x"], "80x"), (["--backend", "tpu"], "tpu"),
    ):
        result = run(*arguments)
        assert result.returncode == 2
        assert named in result.stderr
