"""No field of a request without a test that sends it (spec api.md 3).

A field that works is sent by a test of its own; one that is refused, warned of or without effect is
named by tests/unit/gateway/api/field_table_test.cc, which enumerates those by the table.
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "gateway/api/field_table.cc"
# They walk over the table itself: a field's name there is no test of the field.
WALKERS = {"field_table_test.cc", "openapi_test.cc", "test_openapi.py"}


def fields():
    """(name, support) of every row."""
    rows = re.findall(r"\{\s*(\.name = .*?)\},?\s*(?://[^\n]*)?\n", TABLE.read_text(), re.S)
    for row in rows:
        support = re.search(r"\.support = S::(\w+)", row)
        yield re.search(r'\.name = "([^"]+)"', row)[1], support[1] if support else "kWorks"


def read_tests():
    folders = [ROOT / "tests/unit/gateway", ROOT / "tests/conformance"]
    files = [file for folder in folders for suffix in ("*.cc", "*.h", "*.py")
             for file in folder.rglob(suffix)]
    own = "\n".join(file.read_text() for file in files if file.name not in WALKERS)
    named = (ROOT / "tests/unit/gateway/api/field_table_test.cc").read_text()
    return own, named


def test_every_field_is_sent_by_a_test():
    own, named = read_tests()
    rows = list(fields())
    assert len(rows) > 120, "the table is read"
    missing = [name for name, support in rows
               if f'"{name}"' not in (own if support == "kWorks" else own + named)
               and f'{name}=' not in own]
    assert not missing, missing
