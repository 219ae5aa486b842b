"""GLGE CoQA: conversation, question and passage, joined by [SEP] -> answer."""

from finetune.tasks import _glge

METRICS = ("coqa_f1",)
DECODE = _glge.BEAM_4
FINETUNE = _glge.fast(240)  # at about 350 words a source

FILES = _glge.Files("coqa")
read, save, tidy = FILES.read, FILES.save, _glge.tidy
