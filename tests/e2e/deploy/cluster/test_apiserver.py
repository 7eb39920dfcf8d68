"""A real kube-apiserver over a real etcd: what the chart renders is admitted by a namespace that enforces
the restricted Pod Security standard, and every upgrade is one in place. No kubelet: no pod runs.

kube-apiserver is not to be had quickly (build_apiserver.sh): without it on the PATH or in build/tools,
and without etcd, this is skipped, and says so."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
for folder in ("chart", "readme"):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / folder))
from commands import RUN_ON_A_SERVER  # noqa: E402
from rendering import (BASE, EXAMPLES, NAMESPACE, RELEASE, TOGGLES, manifests, matrix,  # noqa: E402
                       merged, text_of)
from tools import CACHE, CHART, ROOT, helm  # noqa: E402

CRDS = {"ServiceMonitor": "monitoring.coreos.com/v1", "PodMonitor": "monitoring.coreos.com/v1",
        "PrometheusRule": "monitoring.coreos.com/v1", "ScaledObject": "keda.sh/v1alpha1",
        "HTTPRoute": "gateway.networking.k8s.io/v1", "Certificate": "cert-manager.io/v1",
        "Issuer": "cert-manager.io/v1", "InferencePool": "inference.networking.k8s.io/v1"}


def program(name):
    for found in (shutil.which(name), CACHE / name):
        if found and Path(found).exists():
            return str(found)
    pytest.skip(f"{name} is neither on the PATH nor in build/tools")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    def __init__(self, folder):
        self.folder, self.processes = folder, []
        etcd_port, peer, self.port = free_port(), free_port(), free_port()
        self.start("etcd", "--data-dir", folder / "etcd", "--listen-client-urls",
                   f"http://127.0.0.1:{etcd_port}", "--advertise-client-urls",
                   f"http://127.0.0.1:{etcd_port}", "--listen-peer-urls", f"http://127.0.0.1:{peer}")
        key = folder / "accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        self.start("kube-apiserver", f"--etcd-servers=http://127.0.0.1:{etcd_port}",
                   f"--secure-port={self.port}", "--bind-address=127.0.0.1",
                   f"--cert-dir={folder}/certs", "--service-cluster-ip-range=10.0.0.0/24",
                   "--service-account-issuer=https://test", f"--service-account-key-file={key}",
                   f"--service-account-signing-key-file={key}", "--authorization-mode=AlwaysAllow",
                   "--anonymous-auth=true", "--disable-admission-plugins=ServiceAccount")
        cluster = {"server": f"https://127.0.0.1:{self.port}", "insecure-skip-tls-verify": True}
        (folder / "kubeconfig").write_text(yaml.safe_dump({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}], "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}]}))

    def start(self, name, *arguments):
        log = open(self.folder / f"{name}.log", "w")
        self.processes.append(subprocess.Popen([program(name), *map(str, arguments)], stdout=log,
                                               stderr=log))

    def kubectl(self, *arguments, text=None):
        return subprocess.run([program("kubectl"), "--kubeconfig", self.folder / "kubeconfig",
                               *map(str, arguments)], input=text, capture_output=True, text=True,
                              timeout=120)

    def helm(self, *arguments, values, chart=CHART):
        file = self.folder / "values.yaml"
        file.write_text(yaml.safe_dump(values))
        return subprocess.run([helm(), "--kubeconfig", self.folder / "kubeconfig", "-n", NAMESPACE,
                               *map(str, arguments), chart, "-f", file], capture_output=True, text=True,
                              timeout=120)

    def end(self):
        for process in self.processes:
            process.kill()
            process.wait()


def definition(kind, api_version):
    """A CRD that takes every field: the fields themselves are held to the real schemas elsewhere."""
    group, version = api_version.split("/")
    plural = kind.lower() + "s"
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{plural}.{group}", "annotations": {
                "api-approved.kubernetes.io": "unapproved, a test"}},
            "spec": {"group": group, "scope": "Namespaced",
                     "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
                     "versions": [{"name": version, "served": True, "storage": True,
                                   "schema": {"openAPIV3Schema": anything}}]}}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    for name in ("etcd", "kube-apiserver", "kubectl"):
        program(name)
    one = Server(tmp_path_factory.mktemp("apiserver"))
    try:
        end = time.monotonic() + 120
        while one.kubectl("get", "--raw", "/readyz").returncode != 0:
            assert time.monotonic() < end, (one.folder / "kube-apiserver.log").read_text()[-2000:]
            time.sleep(1)
        for kind, api_version in CRDS.items():
            made = one.kubectl("apply", "-f", "-", text=json.dumps(definition(kind, api_version)))
            assert made.returncode == 0, made.stderr
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": {
            "pod-security.kubernetes.io/enforce": "restricted",
            "pod-security.kubernetes.io/warn": "restricted"}}}
        assert one.kubectl("apply", "-f", "-", text=json.dumps(namespace)).returncode == 0
        time.sleep(3)  # the CRDs' own discovery
        yield one
    finally:
        one.end()


@pytest.mark.parametrize("case", matrix())
def test_a_server_side_dry_run_is_admitted(server, case):
    result = server.kubectl("apply", "--server-side", "--dry-run=server", "-n", NAMESPACE, "-f", "-",
                            text=text_of(case))
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == len(manifests(case))
    if matrix()[case].get("model", {}).get("source") == "hostPath":
        assert "would violate PodSecurity" in result.stderr  # and the README says so
    else:
        assert "would violate PodSecurity" not in result.stderr, result.stderr


def test_every_upgrade_is_one_in_place(server):
    installed = server.helm("install", RELEASE, values=BASE)
    assert installed.returncode == 0, installed.stderr
    for name, change in TOGGLES.items():
        if name == "names":
            continue  # another name is another object
        result = server.helm("upgrade", RELEASE, values=merged(BASE, change))
        assert result.returncode == 0, f"{name}: {result.stderr}"
    for example in EXAMPLES:
        result = server.helm("upgrade", RELEASE, values=yaml.safe_load(example.read_text()))
        assert result.returncode == 0, f"{example.stem}: {result.stderr}"


def test_an_upgrade_from_the_chart_before_its_last_change_is_one_in_place(server, tmp_path):
    """No chart was released yet: the one before is the one of the history."""
    def git(*arguments):
        return subprocess.run(["git", "-c", f"safe.directory={ROOT}", *arguments], cwd=ROOT,
                              capture_output=True)
    chart = CHART.relative_to(ROOT)
    commits = git("log", "-2", "--format=%H", "--", chart).stdout.decode().split()
    if len(commits) < 2:
        pytest.skip("the history does not reach back to another chart")
    archive = git("archive", commits[1], chart).stdout
    subprocess.run(["tar", "-x", "-C", tmp_path], input=archive, check=True)
    for number, example in enumerate(EXAMPLES):
        values, release = yaml.safe_load(example.read_text()), f"before-{number}"
        installed = server.helm("install", release, values=values, chart=tmp_path / chart)
        assert installed.returncode == 0, installed.stderr
        upgraded = server.helm("upgrade", release, values=values)
        assert upgraded.returncode == 0, f"{example.stem}: {upgraded.stderr}"


@pytest.mark.parametrize("command", RUN_ON_A_SERVER)
def test_a_command_of_the_readmes_works_as_it_is_written(server, command):
    path = [str(Path(helm()).parent), str(Path(program("kubectl")).parent), os.environ["PATH"]]
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120,
                            cwd=ROOT, env={**os.environ, "PATH": ":".join(path),
                                           "KUBECONFIG": str(server.folder / "kubeconfig")})
    assert result.returncode == 0, result.stderr


def test_a_changed_selector_would_have_been_refused(server):
    """What the upgrade test could not see if the server took everything."""
    one = next(m for m in manifests("base") if m["kind"] == "StatefulSet")
    one = json.loads(json.dumps(one))
    one["metadata"]["name"] = "another"
    assert server.kubectl("apply", "-n", NAMESPACE, "-f", "-", text=json.dumps(one)).returncode == 0
    one["spec"]["podManagementPolicy"] = "OrderedReady"
    refused = server.kubectl("apply", "-n", NAMESPACE, "-f", "-", text=json.dumps(one))
    assert refused.returncode != 0 and "Forbidden" in refused.stderr
