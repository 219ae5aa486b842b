"""Multi30k: German captions of pictures -> English, raw text, test set 2016."""

from finetune.tasks import _bitext

METRICS = ("bleu",)
DECODE = {"beam": 5, "length_penalty": 1.0, "max_length": 60}

CORPUS = _bitext.BitextFiles(("multi30k",), (("train", "val", "test_2016_flickr"),))
DIRECTION = _bitext.Direction("multi30k", CORPUS, ("de", "en"))
read, save = DIRECTION.read, DIRECTION.save
