"""WMT16: English -> Romanian news."""

from finetune.tasks import _bitext

METRICS = ("bleu",)
OPTIONS = _bitext.MOSES
DECODE = _bitext.BEAM_5

CORPUS = _bitext.BitextFiles(
    ("wmt16", "wmt16/en-ro", "en-ro", "wmt16.en-ro"),
    (
        ("train", "valid", "test"),
        ("train/corpus.bpe", "dev/dev.bpe", "test/test.bpe"),  # Lee et al.'s archive
        ("train", "newsdev2016", "newstest2016"),
    ),
)
DIRECTION = _bitext.Direction("wmt16", CORPUS, ("en", "ro"))
read, save = DIRECTION.read, DIRECTION.save
