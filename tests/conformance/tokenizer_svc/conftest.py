"""The model folders that the real process is held against."""

import sys
from importlib import resources
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tokenizer_process import TokenizerProcess, compile_stubs  # noqa: E402


def pytest_addoption(parser):
    parser.addoption("--strings", type=int, default=12_000,
                     help="strings per tokenizer and kind")


@pytest.fixture(scope="session")
def serve():
    """One process per folder and arguments, all of them stopped at the end."""
    stubs, running = compile_stubs(), {}

    def start(folder, *arguments):
        key = (str(folder), *arguments)
        if key not in running:
            running[key] = TokenizerProcess(folder, stubs, arguments)
        return running[key]

    yield start
    for service in running.values():
        service.terminate()  # all at once: each takes a second to close its metrics port
    for service in running.values():
        assert service.stop() == 0, "".join(service.log)


@pytest.fixture(scope="session")
def v7_model():
    data = resources.files("mistral_common") / "data/mistral_instruct_tokenizer_241114.model.v7"
    return Path(str(data))


@pytest.fixture(scope="session")
def v7_model_folder(v7_model, tmp_path_factory):
    """A folder that ships tokenizer.model alone."""
    folder = tmp_path_factory.mktemp("v7_model")
    (folder / "tokenizer.model").write_bytes(v7_model.read_bytes())
    return folder


@pytest.fixture(scope="session")
def v7_json(v7_model, tmp_path_factory):
    """tokenizer.json of the real model: {variant: folder}."""
    from convert import write_tokenizer_json

    folders = {}
    for variant in ("plain", "legacy"):
        folders[variant] = tmp_path_factory.mktemp(f"v7_{variant}")
        write_tokenizer_json(v7_model, folders[variant] / "tokenizer.json", variant == "legacy")
    return folders
