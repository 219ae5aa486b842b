"""WMT14: English -> German news."""

from finetune.tasks import _bitext

METRICS = ("bleu",)
OPTIONS = _bitext.MOSES
DECODE = _bitext.BEAM_5

CORPUS = _bitext.BitextFiles(
    (
        "wmt14",
        "wmt14.en-de",
        "wmt14_en_de",
        "wmt17_en_de",
        "wmt14_ende",
        "wmt16_en_de",
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
)
DIRECTION = _bitext.Direction("wmt14", CORPUS, ("en", "de"))
read, save = DIRECTION.read, DIRECTION.save
