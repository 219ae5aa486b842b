"""Corpus BLEU by sacreBLEU, in three named modes, and its signature."""

import re
from itertools import zip_longest
from typing import Literal, get_args

import numpy as np
from sacrebleu.metrics import BLEU

from januslm.config import Refused

# sacre: sacreBLEU as it is, on raw text.  fairseq: what fairseq-score prints, on text that is
# already tokenized.  compound: the same after hyphenated words are split on both sides, as the
# scripts of JANUS and others do before they report NAR; never to be set beside the other two.
Mode = Literal["sacre", "fairseq", "compound"]
MODES = get_args(Mode)


def score(
    predictions: list[str],
    references: list[list[str]],
    *,
    mode: Mode = "sacre",  # which script's: sacrebleu's, or another's texts and tokens
    lowercase: bool = False,  # compare in lower case
) -> dict[str, float]:
    """{"bleu": percent}, with every reference that a line has."""
    ours, theirs = _texts(predictions, references, mode)
    streams = [list(stream) for stream in zip_longest(*theirs)]  # None where a line has fewer
    if not ours:
        return {"bleu": 0.0}
    return {"bleu": _metric(mode, lowercase).corpus_score(ours, streams).score}


def each(
    predictions: list[str],
    references: list[list[str]],
    *,
    mode: Mode = "sacre",
    lowercase: bool = False,
) -> dict[str, np.ndarray]:
    """What BLEU sums over lines: float64 [lines, 10], 4 matches, 4 n-gram totals, 2 lengths."""
    ours, theirs = _texts(predictions, references, mode)
    metric = _metric(mode, lowercase, effective_order=True)
    rows = []
    for prediction, several in zip(ours, theirs, strict=True):
        line = metric.sentence_score(prediction, several)
        rows.append([*line.counts, *line.totals, line.sys_len, line.ref_len])
    return {"bleu": np.array(rows, dtype=float).reshape(-1, 10)}


def total(sums: np.ndarray, *, mode: str = "sacre", lowercase: bool = False) -> np.ndarray:
    """BLEU in percent of summed statistics: [draws, 10] -> [draws]."""
    del lowercase  # spent when the statistics were counted
    matches, grams, (ours, theirs) = sums[:, :4], sums[:, 4:8], sums[:, 8:].T
    missed = np.rint(matches) == 0
    # sacreBLEU's "exp": the first order without a match counts as half of one, the next a quarter.
    least = 0.5 ** missed.cumsum(1) if mode == "sacre" else np.zeros_like(matches)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.where(missed, least, matches) / grams)
        brevity = np.exp(np.minimum(0, 1 - theirs / ours))
    scores = 100 * brevity * np.exp(np.where(grams > 0.5, logs, -np.inf).mean(1))
    return np.where(missed.all(1), 0.0, scores)


def signature(
    predictions: list[str],
    references: list[list[str]],
    *,
    mode: Mode = "sacre",
    lowercase: bool = False,
) -> str:
    """What was computed, in sacreBLEU's own words, with "compound|" before it in that mode.

    It ends with a doubt where the references look raw and the mode is for tokenized text.
    """
    ours, theirs = _texts(predictions, references, mode)
    metric = _metric(mode, lowercase)
    if ours:
        metric.corpus_score(ours, [list(stream) for stream in zip_longest(*theirs)])
    signature = ("compound|" if mode == "compound" else "") + str(metric.get_signature())
    return signature + ("" if mode == "sacre" else _doubt(references))


def _doubt(references: list[list[str]]) -> str:
    ends = [re.search(r"(.)[.!?]$", text) for several in references for text in several]
    stopped = [end.group(1) for end in ends if end]
    glued = sum(not before.isspace() for before in stopped)
    if glued <= len(stopped) / 2:  # Moses leaves a space there, but for abbreviations
        return ""
    return (
        f"; doubtful: {glued:,} of {len(stopped):,} full stops at an end touch a word, as in raw "
        "text, whose BLEU is --metric bleu"
    )


def split_compounds(text: str) -> str:
    """well-known -> well ##AT##-##AT## known."""
    return re.sub(r"(\S)-(\S)", r"\1 ##AT##-##AT## \2", text)


def _metric(mode: str, lowercase: bool, effective_order: bool = False) -> BLEU:
    if mode == "sacre":
        return BLEU(lowercase=lowercase, effective_order=effective_order)
    return BLEU(
        lowercase=lowercase,
        force=True,  # the text is tokenized on purpose: no warning about it
        tokenize="none",
        smooth_method="none",
        effective_order=effective_order,
    )


def _texts(
    predictions: list[str], references: list[list[str]], mode: str
) -> tuple[list[str], list[list[str]]]:
    if mode not in MODES:
        raise Refused(f"bleu: mode must be one of {', '.join(MODES)}, got {mode!r}")
    if len(predictions) != len(references):
        raise Refused(f"bleu: {len(predictions)} predictions for {len(references)} references")
    if mode != "compound":
        return predictions, references
    return (
        [split_compounds(text) for text in predictions],
        [[split_compounds(text) for text in several] for several in references],
    )
