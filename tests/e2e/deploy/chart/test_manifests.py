"""The whole matrix of values: what helm renders is what Kubernetes takes, in three versions."""

import copy
import json
import subprocess
from functools import cache
from pathlib import Path

import pytest
from jsonschema import Draft7Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7
from rendering import CHART, EXAMPLES, manifests, matrix, run_helm, text_of
from tools import KUBERNETES, kubeconform, kubernetes_schemas

CRDS = Path(__file__).resolve().parents[1] / "crds"


@cache
def validator(version, kind, api_version):
    group, _, number = api_version.rpartition("/")
    crd = CRDS / f"{kind.lower()}_{number}.json"
    if "." in group and crd.exists():
        return Draft7Validator(json.loads(crd.read_text()))
    folder = kubernetes_schemas() / f"v{version}"
    name = f"{kind.lower()}-{group.split('.')[0] + '-' if group else ''}{number}.json"
    registry = Registry().with_resource("_definitions.json", Resource(
        json.loads((folder / "_definitions.json").read_text()), DRAFT7))
    return Draft7Validator(json.loads((folder / name).read_text()), registry=registry)


def test_the_matrix_is_wide_enough():
    assert len(matrix()) >= 40


@pytest.mark.parametrize("case", matrix())
@pytest.mark.parametrize("version", KUBERNETES)
def test_every_manifest_is_what_kubernetes_takes(version, case):
    errors = []
    for one in manifests(case):
        check = validator(version, one["kind"], one["apiVersion"])
        errors += [f"{one['kind']}/{one['metadata']['name']}: {error.json_path}: {error.message}"
                   for error in check.iter_errors(one)]
    assert errors == []


@pytest.mark.parametrize("change, path", [
    (lambda spec: spec.update(replicsa=1), "replicsa"),
    (lambda spec: spec["template"]["spec"]["containers"][0].update(image=5), "image"),
])
def test_a_known_mistake_is_found(change, path):
    one = copy.deepcopy(next(m for m in manifests("base") if m["kind"] == "StatefulSet"))
    change(one["spec"])
    found = [str(e) for e in validator(KUBERNETES[-1], one["kind"], one["apiVersion"]).iter_errors(one)]
    assert any(path in text for text in found)


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubeconform_agrees(version, tmp_path):
    for number, case in enumerate(matrix()):
        (tmp_path / f"{number}.yaml").write_text(text_of(case))
    result = subprocess.run(
        [kubeconform(), "-strict", "-summary", "-n", "2", "-kubernetes-version", version,
         "-schema-location",
         f"{kubernetes_schemas()}/v{version}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json",
         "-schema-location", f"{CRDS}/{{{{.ResourceKind}}}}_{{{{.ResourceAPIVersion}}}}.json",
         tmp_path], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-1000:]
    assert "Errors: 0" in result.stdout and "Skipped: 0" in result.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_helm_lint_is_strict_and_clean(example):
    result = run_helm("lint", "--strict", CHART, "-f", example)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "WARNING" not in result.stdout and "ERROR" not in result.stdout
