"""Seeded strings of every kind that has ever broken a tokenizer."""

import random
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
# Prose, tables and code that a clone holds.
OWN_TEXTS = [ROOT / name for name in (
    "LICENSE", "README.md", "CMakeLists.txt", "proto/behemoth/worker/v1/worker.proto",
    "tokenizer_svc/encoder.cc", "tests/models/tiny/recipe/chats.py")]
# The two books, where they lie beside the clone: an extra layer.
CORPORA = ROOT.parent / "shared/data/corpus"
SCALARS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]

CONTROLS = ["<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[REF]",
            "[/REF]", "<unk>", "[control_17]", "<think>", "</think>", "[INST", "<0x0A>", "\u2581"]
EMOJI = ["😀", "🔥", "👩‍👩‍👧", "🏳️‍🌈", "🌴🧠", "☀", "✨", "👍🏽", "🇩🇪"]
BLOCKS = [(0x20, 0x7E), (0xA0, 0x24F), (0x370, 0x3FF), (0x400, 0x4FF), (0x590, 0x5FF),
          (0x600, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F), (0x2000, 0x206F), (0x20A0, 0x27BF),
          (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xFE00, 0xFFFD),
          (0x1D400, 0x1D7FF), (0x1F300, 0x1FAFF), (0x10000, 0x10FFFF)]
CORPUS = ("It is a truth she told nobody: \"the river—naïve, café-bright—ran on…\"\n\n*He smiled.* "
          "def f(x):\n    return {'a': [1, 2.5e-3, 0xFF]}  # 1234567890\n\tThe end's near; don't. ")


def piece(r):
    kind = r.randrange(9)
    if kind == 0:
        at = r.randrange(len(CORPUS))
        return (CORPUS * 2)[at:at + r.randrange(1, 90)]
    if kind == 1:
        low, high = r.choice(BLOCKS)
        return "".join(chr(r.randint(low, high)) for _ in range(r.randrange(1, 16)))
    if kind == 2:
        return r.choice(EMOJI) * r.randrange(1, 4)
    if kind == 3:
        return " " * r.randrange(1, 40)
    if kind == 4:
        return r.choice("\n\t\r\x00\x01\x7f\x1b\u200b\u202f\u00a0\ufeff") * r.randrange(1, 6)
    if kind == 5:
        return "".join(r.choice("0123456789.,-") for _ in range(r.randrange(1, 25)))
    if kind == 6:
        return r.choice(CONTROLS)
    if kind == 7:
        return r.choice("aeo .!-=*_\u2581") * r.randrange(1, 60)
    return r.choice(["Hello", " world", "ing", "\u0301", " the", "ß", "İ", "ﬁ", "…", "’s"])


def strings(count, seed):
    r = random.Random(seed)
    for _ in range(count):
        yield "".join(piece(r) for _ in range(r.randrange(1, 7)))


def code_points(count):
    """`count` scalar values, evenly spread (all of them from 100,000 on): alone, behind a letter,
    before a space."""
    step = 1 if count >= 100_000 else len(SCALARS) // count + 1
    for i, c in enumerate(SCALARS[::step]):
        yield (chr(c), "a" + chr(c), chr(c) + " b", "a " + chr(c) * 3)[i % 4]


def windows(paths, count, seed):
    r = random.Random(seed)
    texts = [path.read_text(encoding="utf-8") for path in paths]
    for _ in range(count):
        text = r.choice(texts)
        at = r.randrange(len(text))
        yield text[at:at + r.randrange(1, 600)]
