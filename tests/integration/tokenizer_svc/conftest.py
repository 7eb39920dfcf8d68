"""The real process with the tiny model."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tokenizer_process import TINY, TokenizerProcess, compile_stubs  # noqa: E402


@pytest.fixture(scope="session")
def stubs():
    return compile_stubs()


@pytest.fixture(scope="module")
def service(stubs):
    """One process for all tests of a file; it must end well."""
    process = TokenizerProcess(TINY, stubs)
    yield process
    assert process.stop() == 0, "".join(process.log)


@pytest.fixture
def start(stubs):
    """Further processes, each ended by its test or here."""
    running = []

    def one(*arguments, **options):
        folder = options.pop("folder", TINY)
        running.append(TokenizerProcess(folder, stubs, arguments, **options))
        return running[-1]

    yield one
    for process in running:
        assert process.stop() == 0, "".join(process.log)
