#!/usr/bin/env python3
"""Writes the table of metrics in deploy/README.md from what the three processes themselves say.

usage: metrics_page.py GATEWAY TOKENIZER WORKER      three http://HOST:PORT of running processes that
                                                     have served a request
"""

import re
import sys
import urllib.request
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- metrics: begin -->", "<!-- metrics: end -->"


def families(text):
    """{name: (type, labels, help)} of an exposition."""
    found = {}
    for name, words in re.findall(r"^# HELP (\S+) (.*)$", text, re.M):
        kind = re.search(rf"^# TYPE {re.escape(name)} (\w+)$", text, re.M).group(1)
        series = re.findall(rf"^{re.escape(name)}(?:_bucket)?\{{([^}}]*)\}}", text, re.M)
        labels = sorted({label for one in series for label in re.findall(r'(\w+)="', one)} - {"le"})
        found[name] = (kind, labels, words)
    return found


def table(pages):
    """Rows of {process: exposition}; what several processes serve alike is one row."""
    rows = {}
    for process, text in pages.items():
        for name, (kind, labels, words) in families(text).items():
            rows.setdefault((name, kind, ", ".join(labels), words), []).append(process)
    lines = ["| metric | type | labels | served by | what |", "|---|---|---|---|---|"]
    for (name, kind, labels, words), processes in sorted(rows.items()):
        by = "all" if len(processes) == len(pages) else ", ".join(processes)
        lines.append(f"| `{name}` | {kind} | {labels} | {by} | {words} |")
    return "\n".join(lines)


def main(addresses):
    pages = {}
    for process, address in zip(("gateway", "tokenizer", "worker"), addresses, strict=True):
        with urllib.request.urlopen(f"{address}/metrics", timeout=10) as reply:
            pages[process] = reply.read().decode()
    before, rest = README.read_text().split(BEGIN)
    README.write_text(f"{before}{BEGIN}\n{table(pages)}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main(sys.argv[1:])
