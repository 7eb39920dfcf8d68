"""behemoth-tokenizer as a real process on port 0, for the tests of every layer."""

import os
import re
import subprocess
from pathlib import Path

import contracts
import grpc

ROOT = Path(__file__).resolve().parents[1]
BUILD = Path(os.environ.get("BEHEMOTH_BUILD_DIR", ROOT / "build/release"))
BINARY = BUILD / "bin/behemoth-tokenizer"
TINY = ROOT / "tests/models/tiny"
READY_S = 60  # under a sanitizer, on a busy machine
STOP_S = 60


def compile_stubs():
    """(tokenizer_pb2, tokenizer_pb2_grpc, health_pb2, health_pb2_grpc)."""
    made = contracts.compiled()
    return made.tokenizer_pb, made.tokenizer_grpc, made.health_pb, made.health_grpc


class TokenizerProcess:
    """Started and ready once constructed; RuntimeError with its log if it ends before."""

    def __init__(self, folder, stubs, arguments=(), environment=None, credentials=None, options=()):
        self.pb, pb_grpc, self.health_pb, health_pb_grpc = stubs
        self.process = subprocess.Popen(
            [BINARY, "--model", folder, "--listen", "127.0.0.1:0",
             "--metrics-listen", "127.0.0.1:0", *arguments],
            stderr=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})})
        self.log, self.terminated = [], False
        for line in self.process.stderr:
            self.log.append(line)
            ready = re.search(r"ready listen=(\S+) metrics=(\S+)", line)
            if ready:
                break
        else:
            raise RuntimeError(f"exit {self.process.wait(timeout=READY_S)}: {''.join(self.log)}")
        self.address, self.metrics = ready.groups()
        options = [("grpc.max_receive_message_length", -1), *options]
        self.channel = (grpc.secure_channel(self.address, credentials, options) if credentials
                        else grpc.insecure_channel(self.address, options))
        self.stub = pb_grpc.TokenizerServiceStub(self.channel)
        self.health = health_pb_grpc.HealthStub(self.channel)

    def encode(self, texts, kind="marked_text", add_special_tokens=False):
        request = self.pb.EncodeRequest()
        for text in texts:
            item = request.inputs.add(add_special_tokens=add_special_tokens)
            setattr(item.segments.add(), kind, text)
        return [list(e.ids) for e in self.stub.Encode(request, timeout=120).encodings]

    def vocabulary(self):
        return self.stub.GetVocabulary(self.pb.GetVocabularyRequest(), timeout=60)

    def terminate(self):
        """SIGTERM, once: a second one would end the drain."""
        if not self.terminated:
            self.terminated = True
            self.process.terminate()

    def stop(self):
        """The exit code. The rest of the log is in `log` afterwards."""
        self.terminate()
        self.channel.close()
        self.log += self.process.stderr.readlines()
        return self.process.wait(timeout=STOP_S)
