"""Every shell script passes shellcheck; the two commands refuse what they do not know."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHELLCHECK = Path(sys.executable).parent / "shellcheck"
FOLDERS = ["proto", "gateway", "worker", "tokenizer_svc", "kernels", "deploy", "tests"]
SCRIPTS = [".ci/run", *(path.relative_to(ROOT).as_posix()
                        for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.sh")))]


def test_shellcheck_has_nothing_to_warn_of():
    scripts = [name for name in SCRIPTS if (ROOT / name).is_file()]
    assert "deploy/local/run.sh" in scripts and ".ci/run" in scripts
    result = subprocess.run([SHELLCHECK, "-S", "warning", "-x", *scripts], cwd=ROOT,
                            capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_scripts_can_be_run():
    for name in (".ci/run", "deploy/local/run.sh", "tests/run.sh"):
        assert (ROOT / name).stat().st_mode & 0o111, name
    result = subprocess.run([ROOT / "deploy/local/run.sh", "--help"], capture_output=True, text=True)
    assert result.returncode == 0
    for option in ("--model", "--port", "--backend", "--once", "--no-install"):
        assert option in result.stdout


def test_a_layer_that_does_not_exist_is_refused():
    result = subprocess.run([ROOT / "tests/run.sh", "units"], capture_output=True, text=True)
    assert result.returncode == 2 and "units" in result.stderr
    result = subprocess.run([ROOT / "tests/run.sh", "--sanitize", "memory"], capture_output=True,
                            text=True)
    assert result.returncode == 2 and "memory" in result.stderr


def configure(project, *arguments):
    """steps.sh's, as run.sh and tests/run.sh call it; the folder's cache afterwards."""
    script = f'source "{ROOT}/deploy/local/steps.sh"; root="$1"; shift; configure "$root/build" "$@"'
    done = subprocess.run(["bash", "-c", script, "bash", str(project), *arguments],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return (project / "build/CMakeCache.txt").read_text()


def test_other_arguments_leave_nothing_of_the_earlier_ones(tmp_path):
    """What run.sh configured without the tests, tests/run.sh configures with them."""
    (tmp_path / "CMakeLists.txt").write_text(
        'cmake_minimum_required(VERSION 3.25)\nproject(steps NONE)\n'
        'set(PARTS "all" CACHE STRING "")\nset(KIND "none" CACHE STRING "")\n')
    assert "PARTS:STRING=some" in configure(tmp_path, "-DPARTS=some", "-DKIND=a")
    assert "PARTS:STRING=all" in configure(tmp_path, "-DKIND=a")
