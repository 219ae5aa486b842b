"""GLGE XSum: article of the BBC -> its summary in one sentence."""

from finetune.tasks import _glge
from januslm.data.text_pairs import leading

METRICS = ("rouge",)
OPTIONS = {"rouge": {"stem": True, "level": "summary"}}
BASELINES = {"lead-1": leading}
DECODE = _glge.BEAM_4
FINETUNE = _glge.steady(24)  # at about 360 words a source

NEWS = _glge.News("xsum")
read, save = NEWS.read, NEWS.save
tidy, tidy_reference = NEWS.tidy, NEWS.tidy_reference
