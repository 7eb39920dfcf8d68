#!/usr/bin/env python3
"""Writes behemoth.rules.yaml, the chart's alerts for a Prometheus without Kubernetes: default
thresholds, jobs as in prometheus.yaml.

usage: generate.py [--check]      --check writes nothing and exits 1 if something would change
"""

import sys
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
CHART = HERE.parent / "helm/behemoth"
TARGET = HERE / "behemoth.rules.yaml"


def rules():
    text = (CHART / "files/alerts.yaml").read_text()
    monitoring = yaml.safe_load((CHART / "values.yaml").read_text())["monitoring"]["prometheusRule"]
    filled = {component: f'job="behemoth-{component}"' for component in
              ("gateway", "tokenizer", "worker")}
    filled |= {"runbook": monitoring["runbookUrl"], "gpu": "", **monitoring["thresholds"]}
    for name, value in filled.items():
        text = text.replace(f"%{name}%", str(value))
    head = "# Made by generate.py from the chart's files/alerts.yaml.\n"
    return head + text[text.index("groups:"):]


def main():
    wanted = rules()
    if "--check" in sys.argv[1:]:
        if not TARGET.exists() or TARGET.read_text() != wanted:
            sys.exit("run deploy/prometheus/generate.py")
        return
    TARGET.write_text(wanted)


if __name__ == "__main__":
    main()
