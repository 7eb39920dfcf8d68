#!/usr/bin/env python3
"""Makes the JSON schemas beside this file from the projects' own CRDs, as Go modules carry them:
descriptions dropped, and fields that a CRD does not know refused, as `kubeconform -strict` wants.

Needs go and PyYAML. usage: make.py
"""

import json
import subprocess
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
SOURCES = [
    ("github.com/prometheus-operator/prometheus-operator@v0.85.0", "example/prometheus-operator-crd/"
     "monitoring.coreos.com_{}.yaml", ["servicemonitors", "podmonitors", "prometheusrules"]),
    ("github.com/kedacore/keda/v2@v2.21.0", "config/crd/bases/keda.sh_{}.yaml", ["scaledobjects"]),
    ("github.com/cert-manager/cert-manager@v1.21.2", "deploy/crds/cert-manager.io_{}.yaml",
     ["certificates", "issuers"]),
    ("sigs.k8s.io/gateway-api@v1.5.0", "config/crd/standard/"
     "gateway.networking.k8s.io_{}.yaml", ["httproutes"]),
    ("sigs.k8s.io/gateway-api-inference-extension@v1.3.0", "config/crd/bases/"
     "inference.networking.k8s.io_{}.yaml", ["inferencepools"]),
]
KEPT = {"type", "properties", "required", "items", "enum", "pattern", "minimum", "maximum",
        "minLength", "maxLength", "minItems", "maxItems", "additionalProperties", "format",
        "oneOf", "anyOf", "allOf", "not"}


def strict(schema):
    kept = {key: value for key, value in schema.items() if key in KEPT}
    if schema.get("x-kubernetes-int-or-string"):
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    if "properties" in kept:
        kept["properties"] = {name: strict(value) for name, value in kept["properties"].items()}
    for key in ("items", "additionalProperties", "not"):
        if isinstance(kept.get(key), dict):
            kept[key] = strict(kept[key])
    if "properties" in kept and "additionalProperties" not in kept and "type" in kept and \
            not schema.get("x-kubernetes-preserve-unknown-fields"):
        kept["additionalProperties"] = False
    return kept


def main():
    for module, pattern, names in SOURCES:
        listing = subprocess.run(["go", "mod", "download", "-json", module], check=True,
                                 capture_output=True, text=True)
        folder = Path(json.loads(listing.stdout)["Dir"])
        for name in names:
            crd = yaml.safe_load((folder / pattern.format(name)).read_text())["spec"]
            for version in crd["versions"]:
                if not version["storage"]:
                    continue
                schema = strict(version["schema"]["openAPIV3Schema"])
                schema["properties"]["metadata"] = {"type": "object"}
                path = HERE / f"{crd['names']['kind'].lower()}_{version['name']}.json"
                path.write_text(json.dumps({"source": module, **schema}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
