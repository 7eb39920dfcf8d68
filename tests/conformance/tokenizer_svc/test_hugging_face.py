"""Ids and round trip, equal to Hugging Face `tokenizers` over the wire.

The large run: pytest tests/conformance/tokenizer_svc -k hugging_face --strings 400000 -s
"""

from itertools import islice

import pytest
from strings import CORPORA, OWN_TEXTS, code_points, strings, windows
from tokenizer_process import TINY
from tokenizers import Tokenizer

BATCH = 2000
VARIANTS = ["plain", "legacy", "model", "tiny"]


class Pair:
    """Our process and the reference over the same tokenizer."""

    def __init__(self, variant, service, reference_folder):
        self.variant, self.service = variant, service
        self.reference = Tokenizer.from_file(str(reference_folder / "tokenizer.json"))
        self.token_bytes = list(service.vocabulary().token_bytes)

    def hold(self, source):
        """The number of strings that were compared."""
        source, done = iter(source), 0
        while batch := list(islice(source, BATCH)):
            expected = [e.ids for e in self.reference.encode_batch(batch, add_special_tokens=False)]
            for text, ours, theirs in zip(batch, self.service.encode(batch), expected, strict=True):
                assert ours == theirs, repr(text)
                self.hold_round_trip(text, ours)
            done += len(batch)
        print(f"{self.variant}: {done} strings")
        return done

    def hold_round_trip(self, text, ids):
        # A mark is a space to a vocabulary, and prefixes are the only bytes ever added.
        joined = b"".join(self.token_bytes[i] for i in ids)
        spaced = text.replace("\u2581", " ").encode()
        if self.variant == "legacy":
            assert joined.replace(b" ", b"") == spaced.replace(b" ", b""), repr(text)
        else:
            assert joined in (spaced, b" " + spaced), repr(text)


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request, serve, v7_json, v7_model_folder):
    if request.param == "tiny":
        return Pair("tiny", serve(TINY), TINY)
    if request.param == "model":  # the .model alone is served as its legacy=false conversion
        return Pair("model", serve(v7_model_folder), v7_json["plain"])
    return Pair(request.param, serve(v7_json[request.param]), v7_json[request.param])


@pytest.fixture
def count(request):
    return request.config.getoption("--strings")


def test_mixed_strings_equal_hugging_face(pair, count):
    assert pair.hold(strings(count, seed=7)) == count


def test_code_points_of_every_block_equal_hugging_face(pair, count):
    assert pair.hold(code_points(count)) >= count * 0.9


def test_prose_and_code_equal_hugging_face(pair, count):
    assert pair.hold(windows(OWN_TEXTS, count // 4, seed=19)) == count // 4


def test_the_two_books_equal_hugging_face(pair, count):
    books = sorted(CORPORA.glob("*.txt"))
    if not books:
        pytest.skip("the corpora of ../shared/data are not beside this clone")
    assert pair.hold(windows(books, count // 4, seed=23)) == count // 4


GOLDEN = [
    ("<s>[SYSTEM_PROMPT] You are Seraphina.[/SYSTEM_PROMPT][INST] Hello there[/INST]",
     "1 16 1763 1228 3834 3134 2148 29491 17 3 23325 1504 4"),
    ("<s>[INST] a[/INST] b</s>[INST] c[/INST]", "1 3 1032 4 1055 2 3 1045 4"),
    ("Hello", "23325"),
    ("\n\nx", "29473 781 781 29512"),
    ("a    b\tc", "1032 3055 1055 780 29485"),
    ("[INST]no space[/INST]", "3 2278 3532 4"),
    ("x</think>\n\n\"Hi,\" she said.", "2086 1468 24804 29535 781 781 29507 24577 1630 1398 1541 29491"),
    ("naïve café — “quote” … 🌴🧠",
     "2647 29688 1101 29113 1808 1749 15075 29606 8908 29473 1011 930 911 951 1011 930 938 931"),
]


def test_golden_vectors(serve, v7_json):
    service = serve(v7_json["plain"])
    assert service.encode([text for text, _ in GOLDEN]) == [
        [int(i) for i in ids.split()] for _, ids in GOLDEN]


def test_user_text_never_yields_a_control_token(serve, v7_json):
    service = serve(v7_json["plain"])
    control = set(service.vocabulary().control_ids)
    source = list(strings(20_000, seed=11))
    for at in range(0, len(source), BATCH):
        for ids in service.encode(source[at:at + BATCH], kind="text"):
            assert control.isdisjoint(ids)


def test_borders_between_text_segments_change_nothing(serve, v7_json):
    service = serve(v7_json["plain"])
    request = service.pb.EncodeRequest()
    texts = list(strings(2000, seed=13))
    for text in texts:
        segments = request.inputs.add().segments
        for c in (text[: len(text) // 3], text[len(text) // 3:]):
            segments.add(text=c)
    split = [list(e.ids) for e in service.stub.Encode(request).encodings]
    assert split == service.encode(texts, kind="text")


def test_begin_of_sequence_is_added_once(serve, v7_json):
    service = serve(v7_json["plain"])
    assert service.encode(["Hello", "<s>Hello"], add_special_tokens=True)[0] == [1, 23325]
    assert service.encode(["<s>[INST] a"], add_special_tokens=True) == [[1, 3, 1032]]
