"""deploy's READMEs as a new operator reads them: each command works as it is written where it can run
here, and every other one is listed with the reason (commands.py)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import (NOT_HERE, READMES, ROOT, RUN_DRY, RUN_ELSEWHERE, RUN_HERE, RUN_ON_A_SERVER,
                      commands, is_listed)

sys.path.insert(0, str(ROOT / "tests/fault/gateway"))
from processes import BUILD  # noqa: E402
from tools import helm  # noqa: E402


def type_in(command):
    path = [str(BUILD / "bin"), str(Path(helm()).parent), os.environ["PATH"]]
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120,
                          cwd=ROOT, env={**os.environ, "PATH": ":".join(path)})


def test_every_command_is_run_or_listed_with_a_reason():
    assert sorted(one for one in commands() if not is_listed(one)) == []


def test_no_list_holds_a_command_that_no_readme_has():
    found = commands()
    listed = {*RUN_HERE, *RUN_DRY, *RUN_ON_A_SERVER, *NOT_HERE}
    assert sorted(listed - found) == []
    for pattern, test in RUN_ELSEWHERE.items():
        assert any(pattern.fullmatch(one) for one in found) and (ROOT / test).exists()


def test_a_new_command_would_be_noticed():
    for new in ("kubectl delete pod x", "behemoth-worker --check-model elsewhere", "make all"):
        assert not is_listed(new)
    assert all(len((ROOT / name).read_text()) > 0 for name in READMES) and len(commands()) > 20


@pytest.mark.parametrize("command", RUN_HERE)
def test_it_works_as_it_is_written(command):
    result = type_in(command)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("command", RUN_DRY)
def test_it_works_up_to_the_cluster(command):
    result = type_in(f"{command} {RUN_DRY[command]}")
    assert result.returncode == 0, result.stderr
    assert "kind: StatefulSet" in result.stdout
