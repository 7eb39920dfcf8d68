"""What the chart and the compose files tell the processes is what the processes take: every argument of
every container of the matrix goes to the real binary, which prints its settings and ends."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "chart"))
from rendering import containers, matrix, workloads  # noqa: E402
from tools import ROOT, hadolint  # noqa: E402

sys.path.insert(0, str(ROOT / "tests/fault/gateway"))
from processes import BUILD  # noqa: E402

DOCKER = ROOT / "deploy/docker"


@cache
def refused(process, arguments):
    """'' if the process takes them, else what it says."""
    result = subprocess.run([BUILD / f"bin/behemoth-{process}", *arguments, "--print-config"],
                            capture_output=True, text=True, timeout=20)
    return "" if result.returncode == 0 else result.stderr


@pytest.mark.parametrize("case", matrix())
def test_every_argument_of_the_chart_is_taken(case):
    for name, _, spec in workloads(case):
        for one in containers(spec):
            process = re.search(r"behemoth/(\w+)[:@]", one["image"]).group(1)
            if one.get("command") or any(a.startswith("--check-health") for a in one["args"]):
                continue
            assert refused(process, tuple(one["args"])) == "", name


def services(*files):
    merged = {}
    for file in files:
        for name, service in yaml.safe_load((DOCKER / file).read_text())["services"].items():
            merged[name] = {**merged.get(name, {}), **service}
    return merged


@pytest.mark.parametrize("files", [("compose.yaml",), ("compose.yaml", "compose.gpu.yaml")])
def test_every_argument_of_compose_is_taken(files):
    for name, service in services(*files).items():
        if name in ("gateway", "tokenizer", "worker"):
            assert refused(name, tuple(service["command"])) == "", name
            assert service["read_only"] and service["cap_drop"] == ["ALL"]
            grace = int(service["stop_grace_period"].rstrip("s"))
            drain = [int(a.split("=")[1]) for a in service["command"] if "drain-timeout" in a]
            assert grace >= (drain or [10])[0] + 10
        assert not service["image"].endswith(":latest")


def test_hadolint_finds_nothing():
    result = subprocess.run([hadolint(), DOCKER / "Dockerfile"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_images_ask_their_own_processes():
    text = (DOCKER / "Dockerfile").read_text()
    for process in ("gateway", "tokenizer", "worker"):
        stage = text.split(f"FROM scratch AS {process}\n")[1].split("\nFROM ")[0]
        assert "USER 10001:10001" in stage
        command = re.search(r'CMD \["(\S+)", "(--check-health=\S+)"\]', stage)
        assert command.group(1) == f"/usr/bin/behemoth-{process}"
        # Nothing listens here: a real question, and a real answer.
        assert "behemoth-" in refused(process, (command.group(2),))
