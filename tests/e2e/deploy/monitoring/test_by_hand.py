"""The README's examples by hand, as they are written: grpcurl against a worker and a tokenizer, and
what the binaries say of themselves."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tools import ROOT, grpcurl  # noqa: E402

sys.path.insert(0, str(ROOT / "tests/fault/gateway"))
from processes import BUILD, TINY, Cluster  # noqa: E402

README = (ROOT / "deploy/README.md").read_text()
EXAMPLES = re.findall(r"^grpcurl .*$", README.split("<!-- grpcurl: begin -->")[1]
                      .split("<!-- grpcurl: end -->")[0], re.M)
# What each example's output must hold, in the order of the README.
EXPECTED = ["behemoth.worker.v1.WorkerService", "repeated uint32 prompt_ids = 2;", '"SERVING"',
            '"served_names"', '"finish"', "behemoth.tokenizer.v1.TokenizerService", '"ids"']


@pytest.fixture(scope="module")
def ports():
    """{port of the README: port here}"""
    cluster = Cluster()
    yield {"8004": str(cluster.worker_ports[0]), "8002": str(cluster.tokenizer_port)}
    cluster.end()


def test_there_is_an_expectation_for_each_example():
    assert len(EXAMPLES) == len(EXPECTED)


@pytest.mark.parametrize("example, expected", list(zip(EXAMPLES, EXPECTED)))
def test_grpcurl_example(ports, example, expected):
    words = shlex.split(re.sub(r"127\.0\.0\.1:(\d+)", lambda m: f"127.0.0.1:{ports[m[1]]}", example))
    result = subprocess.run([grpcurl(), *words[1:]], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert expected in result.stdout


def script(name, *arguments):
    """A script of `helm test`, by a Python without any package."""
    return subprocess.run([sys.executable, "-I", ROOT / "deploy/helm/behemoth/files" / name,
                           *map(str, arguments)], capture_output=True, text=True, timeout=120)


def test_the_scripts_of_helm_test_see_a_working_release_and_a_broken_one(tmp_path):
    cluster = Cluster()
    try:
        addresses = [f"http://127.0.0.1:{one.metrics}"
                     for one in (cluster.gateway, cluster.tokenizer, cluster.workers[0])]
        metrics = script("metrics_call.py", *addresses)
        assert metrics.returncode == 0, metrics.stderr
        for name in ("gateway", "tokenizer", "worker"):
            assert f"behemoth-{name}, " in metrics.stdout
        key = tmp_path / "key"
        key.write_text("any\n")
        card = script("card_call.py", f"http://127.0.0.1:{cluster.port}", "--api-key-file", key)
        assert card.returncode == 0 and "</think>" in card.stdout, card.stderr
        cluster.workers[0].kill()
        assert script("card_call.py", f"http://127.0.0.1:{cluster.port}").returncode == 1
        assert script("metrics_call.py", *addresses).returncode != 0
    finally:
        cluster.end()


def worker(*arguments):
    return subprocess.run([BUILD / "bin/behemoth-worker", *map(str, arguments)], capture_output=True,
                          text=True, timeout=60, cwd=ROOT)


def test_check_model_as_the_readme_has_it():
    command = re.search(r"^behemoth-worker (--check-model .*)$", README, re.M).group(1)
    result = worker(*shlex.split(command))
    assert result.returncode == 0, result.stderr
    for said in ("MistralForCausalLM", "layers", "quantization: ", "fingerprint", "memory plan for 80 GiB"):
        assert said in result.stdout
    assert result.stderr == ""


def test_check_model_plans_for_the_memory_that_is_named():
    small = worker("--check-model", TINY, "--backend", "cpu", "--check-memory-gib", "0.01")
    assert small.returncode == 1 and "memory: weights" in small.stderr
    long = worker("--check-model", TINY, "--backend", "cpu", "--check-memory-gib", "0.5",
                  "--max-model-len", "1000000")
    assert long.returncode == 1 and "max_model_len" in long.stderr


def spoiled(folder, change):
    """A copy of a checkpoint's folder with one thing wrong."""
    source = ROOT / "tests/models/variants/sym_g128"
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    change(folder)
    return folder


def rename_tensor(old, new):
    def change(folder):
        path = folder / "model.safetensors"
        data = path.read_bytes()
        size = int.from_bytes(data[:8], "little")
        header = data[8:8 + size]
        assert old in header and len(old) == len(new)
        path.write_bytes(data[:8] + header.replace(old, new) + data[8 + size:])
    return change


def edit_config(**fields):
    def change(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | fields))
    return change


def cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4096])


@pytest.mark.parametrize("change, named", [
    (rename_tensor(b"model.layers.0.mlp.up_proj", b"model.layers.0.mlp.uq_proj"),
     "model.layers.0.mlp.up_proj"),
    (rename_tensor(b"model.norm.weight", b"model.nerm.weight"), "model.norm.weight"),
    (rename_tensor(b"model.embed_tokens.weight", b"model.embed_tokenz.weight"),
     "model.embed_tokens.weight"),
    (edit_config(hidden_size=512), "input_layernorm.weight: is [256], must be [512]"),
    (edit_config(architectures=["GPT2LMHeadModel"]), "GPT2LMHeadModel"),
    (cut, "model.safetensors"),
    (lambda folder: (folder / "model.safetensors").unlink(), "safetensors"),
], ids=["projection", "norm", "embedding", "dimension", "architecture", "cut", "no_weights"])
def test_check_model_names_what_is_wrong(tmp_path, change, named):
    result = worker("--check-model", spoiled(tmp_path, change), "--backend", "cpu")
    assert result.returncode == 1, result.stdout
    assert named in result.stderr


def test_print_config_hides_secrets_and_starts_nothing():
    result = subprocess.run([BUILD / "bin/behemoth-gateway", "--api-key", "sk-secret", "--threads", "3",
                             "--print-config"], capture_output=True, text=True, timeout=20)
    assert result.returncode == 0 and "sk-secret" not in result.stdout + result.stderr
    assert 'threads = "3"' in result.stdout and 'api-key = "***"' in result.stdout
    assert 'max-in-flight = "8192"' in result.stdout
