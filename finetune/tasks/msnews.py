"""GLGE MSNews: news article -> headline."""

from finetune.tasks import _glge

METRICS = ("rouge",)
OPTIONS = {"rouge": {"stem": True, "level": "summary"}}
DECODE = _glge.BEAM_4
FINETUNE = _glge.steady(24)  # at about 310 words a source

NEWS = _glge.News("msnews")
read, save = NEWS.read, NEWS.save
tidy, tidy_reference, lead = NEWS.tidy, NEWS.tidy_reference, NEWS.lead
