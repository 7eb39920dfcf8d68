"""The contracts as Python's gRPC has them, generated from this checkout's protos."""

import functools
import importlib
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import grpc

PROTO = Path(__file__).resolve().parents[1] / "proto"
FILES = {"tokenizer": "behemoth/tokenizer/v1/tokenizer", "worker": "behemoth/worker/v1/worker",
         "health": "grpc/health/v1/health"}


@functools.cache
def compiled():
    """{tokenizer, worker, health}_pb: messages; {...}_grpc: stubs."""
    from grpc_tools import protoc

    out = tempfile.mkdtemp(prefix="behemoth-stubs-")
    assert protoc.main(["protoc", f"-I{PROTO}", f"--python_out={out}", f"--grpc_python_out={out}",
                        *(str(PROTO / f"{file}.proto") for file in FILES.values())]) == 0
    # The health protocol's folder is named as the grpc package is: both are one package here.
    grpc.__path__.append(str(Path(out) / "grpc"))
    sys.path.insert(0, out)
    found = {}
    for name, file in FILES.items():
        module = file.replace("/", ".")
        found[f"{name}_pb"] = importlib.import_module(f"{module}_pb2")
        found[f"{name}_grpc"] = importlib.import_module(f"{module}_pb2_grpc")
    return SimpleNamespace(**found)
