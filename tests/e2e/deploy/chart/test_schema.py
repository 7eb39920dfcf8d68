"""Every value of values.yaml is refused by helm, with its path, where its type or range is wrong;
so are values that contradict each other."""

import importlib.util
import re
import subprocess
import sys

import pytest
import yaml
from rendering import BASE, CHART, merged, template

spec = importlib.util.spec_from_file_location("generate", CHART.parent / "generate.py")
generate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generate)
NOTES = generate.comments((CHART / "values.yaml").read_text())

ANOTHER_TYPE = {"int": "many", "number": "many", "bool": "perhaps", "string": [1], "enum": 7,
                "object": "text", "map": "text", "list": "text"}


def at(path, value):
    for key in reversed(path):
        value = {key: value}
    return value


def bad_values():
    """(path, value) of every wrong type and every value just out of range."""
    for path, (kind, _) in NOTES.items():
        word, _, rest = kind.partition(" ")
        yield path, ANOTHER_TYPE[word.rstrip("?")]
        if word.rstrip("?") in ("int", "number"):
            low, high = map(generate.number, rest.split(".."))
            step = 1 if word.startswith("int") else low / 2 or 0.5
            yield path, low - step
            yield path, high + 1
            if word.startswith("int"):
                yield path, low + 0.5
        elif word == "enum":
            yield path, rest.split("|")[0] + "x"
        elif word == "string" and rest:
            yield path, "" if rest == ".+" else "no such value"
        elif word == "list" and rest.startswith("string ^"):
            yield path, ["no such value"]
        elif word in ("map", "list") and rest == "string":
            yield path, {"key": [1]} if word == "map" else [[1]]
    for section in ((), ("gateway",), ("worker", "drain"), ("monitoring", "prometheusRule")):
        yield (*section, "noSuchKey"), 1


def named(path):
    """How helm writes a path: /worker/drain/timeoutSeconds, or worker.drain with an unknown key."""
    return re.compile(r"[/.']".join(path[:-1]) + r".*" + re.escape(path[-1]) if path[:-1]
                      else re.escape(path[-1]), re.S)


BAD = list(bad_values())


def test_there_is_a_bad_value_for_every_value():
    assert {path for path, _ in BAD} >= set(NOTES) and len(BAD) > 2 * len(NOTES)


@pytest.mark.parametrize("path, value", BAD, ids=lambda x: str(x)[:60])
def test_a_bad_value_is_refused_with_its_path(path, value):
    result = template(merged(BASE, at(path, value)))
    assert result.returncode != 0
    assert named(path).search(result.stderr), result.stderr


CONTRADICTIONS = {
    "model.pvc.existingClaim": {"model": {"source": "pvc", "pvc": {"existingClaim": ""}}},
    "model.hostPath.path": {"model": {"source": "hostPath"}},
    "model.image.reference": {"model": {"source": "image", "image": {"reference": "models/a:latest"}}},
    "gateway.image.tag": {"gateway": {"image": {"tag": "latest"}}},
    "gateway.extraArgs": {"gateway": {"extraArgs": ["--api-key=secret"]}},
    "gateway.ingress.host": {"gateway": {"ingress": {"enabled": True}}},
    "gateway.route.parentRefs": {"gateway": {"route": {"enabled": True}}},
    "gateway.inferencePool.endpointPicker": {"gateway": {"inferencePool": {"enabled": True}}},
    "gateway.autoscaling.minReplicas": {"gateway": {"autoscaling": {
        "enabled": True, "minReplicas": 9, "maxReplicas": 2}}},
    "gateway.drain.timeoutSeconds": {"worker": {"drain": {"timeoutSeconds": 181}}},
    "gateway.drain.terminationGracePeriodSeconds": {"gateway": {"drain": {
        "preStopSeconds": 15, "timeoutSeconds": 180, "terminationGracePeriodSeconds": 204}}},
    "worker.drain.terminationGracePeriodSeconds": {"worker": {"drain": {
        "terminationGracePeriodSeconds": 30}}},
    "tokenizer.drain.terminationGracePeriodSeconds": {"tokenizer": {"drain": {
        "timeoutSeconds": 30, "terminationGracePeriodSeconds": 39}}},
    "worker.autoscaling.prometheusAddress": {"worker": {"autoscaling": {"kind": "keda"}}},
    "worker.autoscaling.scaleDownSeconds": {"worker": {"autoscaling": {
        "kind": "hpa", "scaleDownSeconds": 190}}},
    "worker.autoscaling.minReplicas": {"worker": {"autoscaling": {
        "kind": "hpa", "minReplicas": 5, "maxReplicas": 4}}},
    "mtls.existingSecrets.gateway": {"mtls": {"enabled": True, "certManager": False}},
}


@pytest.mark.parametrize("path", CONTRADICTIONS)
def test_values_that_contradict_each_other_are_refused(path):
    result = template(merged(BASE, CONTRADICTIONS[path]))
    assert result.returncode != 0 and f"{path}:" in result.stderr, result.stderr


def test_a_grace_period_that_is_just_enough_is_taken():
    result = template(merged(BASE, {"gateway": {"drain": {"terminationGracePeriodSeconds": 205}}}))
    assert result.returncode == 0, result.stderr


def test_schema_and_readme_follow_from_the_comments():
    result = subprocess.run([sys.executable, CHART.parent / "generate.py", "--check"],
                            capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_every_value_has_a_place_in_a_template():
    templates = "\n".join(path.read_text() for path in (CHART / "templates").rglob("*") if path.is_file())
    whole = {("gateway", "resources"), ("tokenizer", "resources"), ("worker", "resources")}
    unused = [".".join(path) for path in NOTES if path not in whole
              and path[:3] != ("monitoring", "prometheusRule", "thresholds")
              and not re.search(rf"\.{path[-1]}\b", templates)]
    assert unused == []


def test_the_defaults_are_what_values_yaml_says():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert template(merged(values, BASE)).stdout == template(BASE).stdout
