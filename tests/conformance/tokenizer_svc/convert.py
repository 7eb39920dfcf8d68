"""tokenizer.json from a sentencepiece BPE model, as transformers' Llama conversion lays it out."""

import json

from sentencepiece import sentencepiece_model_pb2 as spm_proto

MARK = "\u2581"


def merges_of(pieces):
    ids = {p.piece: i for i, p in enumerate(pieces)}
    merges = []
    for piece in pieces:
        text = piece.piece
        splits = [(text[:k], text[k:]) for k in range(1, len(text))]
        splits = [s for s in splits if s[0] in ids and s[1] in ids]
        splits.sort(key=lambda s: (ids[s[0]], ids[s[1]]))
        merges += [(left, right, piece.score) for left, right in splits]
    merges.sort(key=lambda m: (m[2], len(m[0]), len(m[1])), reverse=True)
    return [[left, right] for left, right, _ in merges]


def write_tokenizer_json(model_path, out, legacy):
    model = spm_proto.ModelProto.FromString(model_path.read_bytes())
    pieces = model.pieces
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": MARK}
    back = {"type": "Replace", "pattern": {"String": MARK}, "content": " "}
    content = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [
            {"id": i, "content": p.piece, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": p.type != 4}
            for i, p in enumerate(pieces) if p.type in (2, 3, 4)
        ],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": MARK}, replace]} if legacy else None,
        "pre_tokenizer": None if legacy else {
            "type": "Metaspace", "replacement": MARK, "prepend_scheme": "first", "split": False},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "Sequence", "decoders": [
            back, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "fuse_unk": True,
            "continuing_subword_prefix": None, "end_of_word_suffix": None,
            "byte_fallback": True, "ignore_merges": False,
            "vocab": {p.piece: i for i, p in enumerate(pieces)}, "merges": merges_of(pieces)},
    }
    out.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
