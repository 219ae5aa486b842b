"""IWSLT14: German -> English talks, as fairseq's prepare-iwslt14.sh leaves them."""

from finetune.tasks import _bitext

METRICS = ("bleu",)
OPTIONS = _bitext.MOSES  # in lower case
DECODE = _bitext.BEAM_5

CORPUS = _bitext.BitextFiles(("iwslt14", "iwslt14.tokenized.de-en"), (("train", "valid", "test"),))
DIRECTION = _bitext.Direction("iwslt14", CORPUS, ("de", "en"))
read, save = DIRECTION.read, DIRECTION.save
