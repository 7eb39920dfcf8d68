"""The real process on port 0, and the model folders it is held against."""

import os
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import grpc
import pytest

ROOT = Path(__file__).resolve().parents[3]
BUILD = Path(os.environ.get("BEHEMOTH_BUILD_DIR", ROOT / "build/release"))


def pytest_addoption(parser):
    parser.addoption("--strings", type=int, default=100_000, help="strings per tokenizer")


@pytest.fixture(scope="session")
def stubs(tmp_path_factory):
    from grpc_tools import protoc

    out = tmp_path_factory.mktemp("stubs")
    code = protoc.main([
        "protoc", f"-I{ROOT / 'proto'}", f"--python_out={out}", f"--grpc_python_out={out}",
        str(ROOT / "proto/behemoth/tokenizer/v1/tokenizer.proto"),
    ])
    assert code == 0
    sys.path.insert(0, str(out))
    from behemoth.tokenizer.v1 import tokenizer_pb2, tokenizer_pb2_grpc

    return tokenizer_pb2, tokenizer_pb2_grpc


class Service:
    def __init__(self, folder, stubs, arguments=()):
        self.pb, pb_grpc = stubs
        self.process = subprocess.Popen(
            [BUILD / "bin/behemoth-tokenizer", "--model", folder, "--listen", "127.0.0.1:0",
             "--metrics-listen", "127.0.0.1:0", *arguments],
            stderr=subprocess.PIPE, text=True)
        self.log = []
        for line in self.process.stderr:
            self.log.append(line)
            ready = re.search(r"ready listen=(\S+) metrics=(\S+)", line)
            if ready:
                break
        else:
            raise RuntimeError("".join(self.log))
        self.metrics = ready.group(2)
        self.channel = grpc.insecure_channel(
            ready.group(1), options=[("grpc.max_receive_message_length", -1)])
        self.stub = pb_grpc.TokenizerServiceStub(self.channel)

    def encode(self, texts, kind="marked_text", add_special_tokens=False):
        request = self.pb.EncodeRequest()
        for text in texts:
            item = request.inputs.add(add_special_tokens=add_special_tokens)
            setattr(item.segments.add(), kind, text)
        return [list(e.ids) for e in self.stub.Encode(request).encodings]

    def stop(self):
        self.channel.close()
        self.process.terminate()
        self.process.stderr.read()
        return self.process.wait(timeout=20)


@pytest.fixture(scope="session")
def serve(stubs):
    running = []

    def start(folder, *arguments):
        running.append(Service(folder, stubs, arguments))
        return running[-1]

    yield start
    for service in running:
        assert service.stop() == 0


@pytest.fixture(scope="session")
def v7_model():
    data = resources.files("mistral_common") / "data/mistral_instruct_tokenizer_241114.model.v7"
    return Path(str(data))


@pytest.fixture(scope="session")
def v7_json(v7_model, tmp_path_factory):
    """tokenizer.json of the real model: {variant: folder}."""
    from convert import write_tokenizer_json

    folders = {}
    for variant in ("plain", "legacy"):
        folders[variant] = tmp_path_factory.mktemp(f"v7_{variant}")
        write_tokenizer_json(v7_model, folders[variant] / "tokenizer.json", variant == "legacy")
    return folders
