"""Ids and round trip, equal to Hugging Face `tokenizers` over the wire."""

from itertools import islice
from pathlib import Path

import pytest
from strings import strings
from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parents[3]
BATCH = 2000


@pytest.mark.parametrize("variant", ["plain", "legacy", "model", "tiny"])
def test_ids_and_round_trip_equal_hugging_face(variant, serve, v7_json, v7_model, tmp_path, request):
    if variant == "tiny":
        folder = ROOT / "tests/models/tiny"
        reference = Tokenizer.from_file(str(folder / "tokenizer.json"))
    elif variant == "model":  # the .model alone is served as its legacy=false conversion
        (tmp_path / "tokenizer.model").write_bytes(v7_model.read_bytes())
        folder = tmp_path
        reference = Tokenizer.from_file(str(v7_json["plain"] / "tokenizer.json"))
    else:
        folder = v7_json[variant]
        reference = Tokenizer.from_file(str(folder / "tokenizer.json"))
    service = serve(folder)
    token_bytes = service.stub.GetVocabulary(service.pb.GetVocabularyRequest()).token_bytes
    source = strings(request.config.getoption("--strings"), seed=7)
    done = 0
    while batch := list(islice(source, BATCH)):
        expected = [e.ids for e in reference.encode_batch(batch, add_special_tokens=False)]
        for text, ours, theirs in zip(batch, service.encode(batch), expected, strict=True):
            assert ours == theirs, repr(text)
            # A mark is a space to a vocabulary, and prefixes are the only bytes ever added.
            joined = b"".join(token_bytes[i] for i in ours)
            spaced = text.replace("\u2581", " ").encode()
            if variant == "legacy":
                assert joined.replace(b" ", b"") == spaced.replace(b" ", b""), repr(text)
            else:
                assert joined in (spaced, b" " + spaced), repr(text)
        done += len(batch)
    assert done == request.config.getoption("--strings")


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
    control = set(service.stub.GetVocabulary(service.pb.GetVocabularyRequest()).control_ids)
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
