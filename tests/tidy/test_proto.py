"""The wire contracts: buf's lint rules, and no breaking change against what was committed before."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"
BUF = Path(sys.executable).parent / "buf"


def buf(*arguments):
    return subprocess.run([BUF, *map(str, arguments)], cwd=PROTO, capture_output=True, text=True)


def git(*arguments):
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True)


def committed_proto(revision, folder):
    """proto/ as of a revision; skips, and says so, where the clone does not hold it."""
    if git("rev-parse", "--verify", "--quiet", revision + "^{commit}").returncode != 0:
        pytest.skip(f"no base: this clone has no {revision} (shallow, or its first commit)")
    archive = git("archive", revision, "proto")
    if archive.returncode != 0:
        pytest.skip(f"no base: {revision} holds no proto/")
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    return folder / "proto"


def test_buf_finds_nothing_to_lint():
    result = buf("lint")
    assert result.returncode == 0, result.stdout + result.stderr


# HEAD: what is being edited. HEAD^: what the last commit did. origin/main: what a branch does.
@pytest.mark.parametrize("base", ["HEAD", "HEAD^", "origin/main"])
def test_no_message_breaks_its_committed_form(base, tmp_path):
    result = buf("breaking", "--against", committed_proto(base, tmp_path))
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("old, new", [
    ("string text = 1;", "bytes text = 1;"),
    ("bool add_special_tokens = 2;", "bool add_special_tokens = 3;"),
    ("rpc Encode(", "rpc Tokenize("),
])
def test_a_known_break_is_found(old, new, tmp_path):
    changed = tmp_path / "proto"
    shutil.copytree(PROTO, changed)
    path = changed / "behemoth/tokenizer/v1/tokenizer.proto"
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    result = subprocess.run([BUF, "breaking", "--against", PROTO], cwd=changed,
                            capture_output=True, text=True)
    assert result.returncode != 0 and "tokenizer.proto" in result.stdout
