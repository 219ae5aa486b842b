"""WMT14: English -> German news."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from finetune.tasks import _bitext
from januslm.data.text_pairs import Pair

METRICS = ("bleu",)
OPTIONS = {"bleu": {"mode": "fairseq"}}  # of Moses tokens; raw files need mode "sacre"
DECODE = {"beam": 5, "length_penalty": 1.0, "max_length": 200}

CORPUS = _bitext.Corpus(
    (
        "wmt14", "wmt14.en-de", "wmt14_en_de", "wmt17_en_de", "wmt14_ende", "wmt16_en_de",
        "wmt16_en_de_bpe32k",
    ),
    (
        ("train", "valid", "test"),  # fairseq's prepare-wmt14en2de.sh, Mask-Predict's get_data.sh
        ("train.en-de", "valid.en-de", "test.en-de"),  # fairseq's archive for NAR models
        (  # Google's, on which Mask-Predict and others report
            "train.tok.clean.bpe.32000",
            "newstest2013.tok.bpe.32000",
            "newstest2014.tok.bpe.32000",
        ),
        ("train.tok.clean", "newstest2013.tok", "newstest2014.tok"),
        ("train", "newstest2013", "newstest2014"),
    ),
)  # fmt: skip
SIDES = ("en", "de")


def read(root: Path, split: str, skipped: Counter | None = None) -> Iterator[Pair]:
    """Pairs of {train,valid,test}.{en,de}(.gz), or named as the archives have them."""
    return _bitext.read(root, "wmt14", CORPUS, SIDES, split, skipped)


def save(folder: Path, split: str, pairs: Iterable[Pair]) -> int:
    """Write pairs as `read` reads them."""
    return _bitext.save(folder, split, SIDES, pairs)
