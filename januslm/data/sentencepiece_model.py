"""A SentencePiece model as a tokenizer of the `tokenizers` library, each piece with its own id."""

import base64
from collections.abc import Iterator
from typing import Any

from januslm.config import Refused
from januslm.data.special_tokens import entry

SPACE = "▁"
UNIGRAM, BPE = 1, 2  # trainer_spec.model_type
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # of a piece


def converted(raw: bytes, where: str) -> dict:
    """The tree of a tokenizer.json that encodes as SentencePiece does; Refused where none can."""
    proto = _parsed(raw, where)
    pieces, trained, normal = proto.pieces, proto.trainer_spec, proto.normalizer_spec
    kinds = {piece.type for piece in pieces}
    if trained.model_type not in (UNIGRAM, BPE):
        raise Refused(f"{where}: a SentencePiece model of words or characters; use unigram or bpe")
    if trained.model_type == BPE and USER_DEFINED in kinds:
        raise Refused(
            f"{where}: a SentencePiece BPE with user-defined symbols, which `tokenizers` would "
            "encode otherwise; name the tokenizer.json that belongs to it"
        )
    if trained.treat_whitespace_as_suffix:
        raise Refused(f"{where}: a SentencePiece model with spaces at the ends of words")
    special = [i for i, piece in enumerate(pieces) if piece.type in (UNKNOWN, CONTROL, UNUSED)]
    alone = trained.split_by_whitespace and not trained.allow_whitespace_only_pieces
    space: dict[str, Any] = {"replacement": SPACE, "prepend_scheme": "never", "split": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [entry(pieces[i].piece, i) for i in special],
        "normalizer": {"type": "Sequence", "normalizers": list(_normalizers(normal))},
        "pre_tokenizer": {"type": "Metaspace", **space} if alone else None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": list(_decoders(normal, BYTE in kinds))},
        "model": (_unigram if trained.model_type == UNIGRAM else _bpe)(pieces, BYTE in kinds),
    }


def _parsed(raw: bytes, where: str):
    try:
        from sentencepiece import sentencepiece_model_pb2
    except ImportError:
        raise Refused(
            f"{where}: SentencePiece models need more: pip install 'januslm[sentencepiece]'"
        ) from None
    proto = vars(sentencepiece_model_pb2)["ModelProto"]()  # protobuf makes it at import
    try:
        proto.ParseFromString(raw)
        whole = sum(piece.type == UNKNOWN for piece in proto.pieces) == 1
    except Exception:  # protobuf's DecodeError has no stable place
        whole = False
    if not whole:
        raise Refused(f"{where}: not a tokenizer file (neither JSON nor a SentencePiece model)")
    return proto


def _normalizers(normal) -> Iterator[dict]:
    """Its table of characters, its spaces, and the space before the first word."""
    if normal.precompiled_charsmap:
        table = base64.b64encode(normal.precompiled_charsmap).decode()
        yield {"type": "Precompiled", "precompiled_charsmap": table}
    if normal.remove_extra_whitespaces:
        # Spaces alone: what else is white the table has made one, or it is a letter.
        for pattern, content in (("^ +| +$", ""), (" {2,}", " ")):
            yield {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}
    if normal.add_dummy_prefix:
        yield {"type": "Prepend", "prepend": SPACE}
    yield {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}


def _decoders(normal, fallback: bool) -> Iterator[dict]:
    yield {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    if fallback:
        yield {"type": "ByteFallback"}
    yield {"type": "Fuse"}
    if normal.add_dummy_prefix:
        yield {"type": "Strip", "content": " ", "start": 1, "stop": 0}


def _unigram(pieces, fallback: bool) -> dict:
    scores = [piece.score for piece in pieces if piece.type == NORMAL] or [0.0]
    vocab = []
    for piece in pieces:
        score = piece.score
        if piece.type == USER_DEFINED:  # SentencePiece's own rule; not below what is unknown
            score = max(len(piece.piece.encode()) * max(scores) - 0.1, min(scores))
        vocab.append([piece.piece, score])
    unknown = next(i for i, piece in enumerate(pieces) if piece.type == UNKNOWN)
    return {"type": "Unigram", "unk_id": unknown, "vocab": vocab, "byte_fallback": fallback}


def _bpe(pieces, fallback: bool) -> dict:
    """Merges in the order of their results' scores, as SentencePiece takes the best pair first."""
    ids = {piece.piece: i for i, piece in enumerate(pieces)}
    normal = {piece.piece: piece.score for piece in pieces if piece.type == NORMAL}
    merges = [
        (-score, cut, [word[:cut], word[cut:]])
        for word, score in normal.items()
        for cut in range(1, len(word))
        if word[:cut] in normal and word[cut:] in normal
    ]
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": next(piece.piece for piece in pieces if piece.type == UNKNOWN),
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": fallback,
        "vocab": ids,
        "merges": [pair for _, _, pair in sorted(merges)],
    }
