"""GLGE PersonaChat: persona and conversation, joined by [SEP] -> response."""

from finetune.tasks import _glge

METRICS = ("nltk_bleu", "distinct", "bleu")
DECODE = _glge.BEAM_4
FINETUNE = _glge.fast(640)  # at about 120 words a source

FILES = _glge.Files("personachat")
read, save, tidy = FILES.read, FILES.save, _glge.tidy
