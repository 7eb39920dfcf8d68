"""The chart rendered by helm itself, and the matrix of values that the tests hold it to."""

import itertools
import random
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tools import CHART, helm  # noqa: E402

RELEASE, NAMESPACE = "story", "serving"
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))

# What a toggle sets over the base: each alone, all at once, and random sets of them.
BASE = {"model": {"source": "pvc", "pvc": {"existingClaim": "weights"}}}
TOGGLES = {
    "embedded": {"model": {"source": "embedded"}},
    "host_path": {"model": {"source": "hostPath", "hostPath": {"path": "/data/model"}}},
    "image": {"model": {"source": "image", "image": {"reference": "models/behemoth:1"}}},
    "sub_path": {"model": {"pvc": {"subPath": "gptq"}, "servedNames": ["big", "small"]}},
    "cpu": {"worker": {"backend": "cpu", "cpuThreads": 4}},
    "two_gpus": {"worker": {"gpu": {"tensorParallelSize": 2}, "replicas": 2}},
    "no_check": {"worker": {"checkModel": False, "prefixCaching": False, "vllmMetrics": False}},
    "keda": {"worker": {"autoscaling": {"kind": "keda", "prometheusAddress": "http://p:9090"}}},
    "worker_hpa": {"worker": {"autoscaling": {"kind": "hpa", "maxReplicas": 8}}},
    "runtime_class": {"worker": {"runtimeClassName": "nvidia", "priorityClassName": "high",
                                 "nodeSelector": {"gpu": "h100"}}},
    "gateway_hpa": {"gateway": {"autoscaling": {"enabled": True}}},
    "keys": {"gateway": {"apiKeys": {"existingSecret": "keys"}}, "tests": {"apiKeySecret": "key"}},
    "https": {"gateway": {"tls": {"existingSecret": "https"}}},
    "presets": {"gateway": {"thinkingPresets": {"calm": {"prefill": "Slowly now,"}}}},
    "annotated": {"gateway": {"podAnnotations": {"a": "b"}, "podLabels": {"team": "x"},
                              "service": {"annotations": {"c": "d"}, "type": "LoadBalancer"}}},
    "ingress": {"gateway": {"ingress": {"enabled": True, "host": "api.test", "className": "nginx",
                                        "tlsSecret": "api"}}},
    "route": {"gateway": {"route": {"enabled": True, "parentRefs": [{"name": "edge"}],
                                    "hostnames": ["api.test"]}}},
    "pool": {"gateway": {"inferencePool": {"enabled": True, "endpointPicker": "picker"},
                         "route": {"enabled": True, "parentRefs": [{"name": "edge"}]}}},
    "mtls": {"mtls": {"enabled": True}},
    "mtls_secrets": {"mtls": {"enabled": True, "certManager": False, "existingSecrets": {
        "gateway": "g", "tokenizer": "t", "worker": "w"}}},
    "hardened": {"hardened": True, "global": {"logLevel": "warn"}},
    "open_network": {"networkPolicy": {"enabled": False}},
    "narrow_network": {"networkPolicy": {"gatewayFrom": [{"podSelector": {}}], "metricsFrom": []}},
    "service_monitor": {"monitoring": {"kind": "serviceMonitor", "labels": {"release": "prom"}}},
    "pod_monitor": {"monitoring": {"kind": "podMonitor"}},
    "rules": {"monitoring": {"prometheusRule": {"enabled": True}}},
    "dashboards": {"monitoring": {"dashboards": {"enabled": True, "annotations": {"folder": "b"}}}},
    "no_tests": {"tests": {"enabled": False}},
    "no_budgets": {part: {"podDisruptionBudget": {"enabled": False}}
                   for part in ("gateway", "tokenizer", "worker")},
    "own_accounts": {part: {"serviceAccount": {"create": False, "name": "mine"}}
                     for part in ("gateway", "tokenizer", "worker")},
    "no_pre_stop": {"gateway": {"drain": {"preStopSeconds": 0}}},
    "long_drain": {"gateway": {"drain": {"timeoutSeconds": 900, "preStopSeconds": 30}},
                   "worker": {"drain": {"timeoutSeconds": 600, "preStopSeconds": 5,
                                        "terminationGracePeriodSeconds": 700}}},
    "slow_disk": {"worker": {"startup": {"slowestReadMBPerSecond": 20, "weightsGB": 250}}},
    "digests": {part: {"image": {"digest": "sha256:" + "ab" * 32}}
                for part in ("gateway", "tokenizer", "worker")},
    "names": {"fullnameOverride": "a-name-that-is-much-longer-than-what-fits-into-one-label"},
    "extra": {"extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
        "name": "{{ .Release.Name }}-extra"}, "data": {"a": "b"}}]},
    "arguments": {"gateway": {"extraArgs": ["--idle-timeout-ms=1000"]},
                  "worker": {"extraArgs": ["--itl-target-ms=50"]}},
    "pull_secrets": {"global": {"imagePullSecrets": [{"name": "pull"}], "runAsUser": 1234}},
}
EXCLUSIVE = [{"embedded", "host_path", "image", "sub_path"}, {"keda", "worker_hpa"},
             {"mtls", "mtls_secrets"}, {"open_network", "narrow_network"}, {"route", "pool"},
             {"service_monitor", "pod_monitor"}, {"two_gpus", "cpu"}]


def merged(*layers):
    out = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, dict) and isinstance(out.get(key), dict)
            out[key] = merged(out[key], value) if both else value
    return out


def compatible(names):
    return all(len(group & set(names)) <= 1 for group in EXCLUSIVE)


def random_sets(count, seed=6):
    draw = random.Random(seed)
    while count:
        names = draw.sample(sorted(TOGGLES), draw.randint(4, 14))
        if compatible(names):
            count -= 1
            yield names


def everything():
    """As many toggles at once as exclude each other nowhere."""
    names = []
    for name in TOGGLES:
        if compatible([*names, name]):
            names.append(name)
    return names


@cache
def matrix():
    """{name: values}"""
    sets = [[], *([name] for name in TOGGLES), everything(), *random_sets(16)]
    cases = {"+".join(names) or "base": merged(BASE, *(TOGGLES[n] for n in names)) for names in sets}
    return cases | {path.stem: yaml.safe_load(path.read_text()) for path in EXAMPLES}


def run_helm(*arguments, values=None):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(values or {}, file)
        file.flush()
        return subprocess.run([helm(), *map(str, arguments), "-f", file.name], text=True,
                              capture_output=True, timeout=60)


def template(values):
    return run_helm("template", RELEASE, CHART, "-n", NAMESPACE, values=values)


@cache
def text_of(case):
    result = template(matrix()[case])
    assert result.returncode == 0, result.stderr
    return result.stdout


@cache
def manifests(case):
    """Shared by all tests: read only."""
    return [one for one in yaml.load_all(text_of(case), yaml.CSafeLoader) if one]


def workloads(case):
    """(kind/name, pod metadata, pod spec) of everything that becomes a pod."""
    for one in manifests(case):
        name = f"{one['kind']}/{one['metadata']['name']}"
        if one["kind"] in ("Deployment", "StatefulSet"):
            yield name, one["spec"]["template"]["metadata"], one["spec"]["template"]["spec"]
        elif one["kind"] == "Pod":
            yield name, one["metadata"], one["spec"]


def containers(spec):
    return itertools.chain(spec.get("initContainers", []), spec["containers"])
