#!/usr/bin/env python3
"""Writes what follows from the comments of values.yaml: values.schema.json and the README's table.

A comment above a key is "(TYPE) text", over one or more lines:
  int A..B   number A..B   a "?" after int or number also takes null
  bool   string   string REGEX   enum a|b|c   object   map string   map object
  list string   list string REGEX   list object
A key whose value is a map and that has no such comment is a section: its keys are all it may hold.

usage: generate.py [--check]      --check writes nothing and exits 1 if something would change
"""

import json
import re
import sys
from pathlib import Path

import yaml

CHART = Path(__file__).resolve().parent / "behemoth"
BEGIN, END = "<!-- values: begin -->", "<!-- values: end -->"


def comments(text):
    """{path: (type, text)} of every documented key."""
    found, stack, pending = {}, [], []
    for line in text.split("\n"):
        stripped = line.strip()
        if stripped.startswith("#"):
            pending.append(stripped[1:].strip())
            continue
        key = re.match(r"( *)([A-Za-z]\w*):", line)
        if key:
            depth = len(key.group(1)) // 2
            stack = [*stack[:depth], key.group(2)]
            note = re.match(r"\((.*?)\) (.+)", " ".join(pending))
            if note:
                found[tuple(stack)] = note.groups()
        pending = []
    return found


def schema_of(kind):
    """JSON schema of a comment's type."""
    word, _, rest = kind.partition(" ")
    if word.rstrip("?") in ("int", "number"):
        low, high = map(number, rest.split("..", 1))
        name = "integer" if word.startswith("int") else "number"
        return {"type": [name, "null"] if word.endswith("?") else name,
                "minimum": low, "maximum": high}
    if word == "bool":
        return {"type": "boolean"}
    if word == "string":
        return {"type": "string", **({"pattern": rest} if rest else {})}
    if word == "enum":
        return {"type": "string", "enum": rest.split("|")}
    if word == "object":
        return {"type": "object"}
    if word == "map":
        return {"type": "object", "additionalProperties": {"type": rest}}
    if word == "list":
        return {"type": "array", "items": schema_of(rest)}
    raise ValueError(f"no such type: {kind}")


def number(text):
    return float(text) if "." in text else int(text)


def section(values, notes, path=()):
    properties = {}
    for key, value in values.items():
        here = (*path, key)
        if here in notes:
            kind, text = notes[here]
            properties[key] = {"description": text, **schema_of(kind)}
        elif isinstance(value, dict):
            properties[key] = section(value, notes, here)
        else:
            raise ValueError(f"{'.'.join(here)} has no comment of the form (TYPE) text")
    return {"type": "object", "additionalProperties": False, "properties": properties}


def schema(values, notes):
    # "global" of a parent chart holds keys of others as well.
    out = {"$schema": "http://json-schema.org/draft-07/schema#", **section(values, notes)}
    out["properties"]["global"]["additionalProperties"] = True
    return json.dumps(out, indent=1, ensure_ascii=False) + "\n"


def table(values, notes):
    lines = ["| value | default | type | what |", "|---|---|---|---|"]
    for path, (kind, text) in notes.items():
        value = values
        for key in path:
            value = value[key]
        shown = json.dumps(value, ensure_ascii=False)
        cells = (f"`{'.'.join(path)}`", f"`{shown}`", kind.replace("|", " or "), text)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def main():
    text = (CHART / "values.yaml").read_text()
    values, notes = yaml.safe_load(text), comments(text)
    readme = (CHART / "README.md").read_text()
    before, rest = readme.split(BEGIN)
    after = rest.split(END)[1]
    wanted = {
        CHART / "values.schema.json": schema(values, notes),
        CHART / "README.md": f"{before}{BEGIN}\n{table(values, notes)}\n{END}{after}",
    }
    stale = [path for path, content in wanted.items()
             if not path.exists() or path.read_text() != content]
    if "--check" in sys.argv[1:]:
        if stale:
            sys.exit("run deploy/helm/generate.py: " + ", ".join(path.name for path in stale))
        return
    for path in stale:
        path.write_text(wanted[path])


if __name__ == "__main__":
    main()
