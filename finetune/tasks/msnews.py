"""GLGE MSNews: news article -> headline."""

from finetune.tasks import _glge
from januslm.data.text_pairs import leading

METRICS = ("rouge",)
OPTIONS = {"rouge": {"stem": True, "level": "summary"}}
BASELINES = {"lead-1": leading}
DECODE = _glge.BEAM_4
FINETUNE = _glge.steady(24)  # at about 310 words a source

NEWS = _glge.News("msnews")
read, save = NEWS.read, NEWS.save
tidy, tidy_reference = NEWS.tidy, NEWS.tidy_reference
