"""GLGE MSQG: highlighted answer and passage -> question.

A source is "answer [SEP] passage"; the answer stands first, so cutting never drops it.
"""

from finetune.tasks import _glge

METRICS = ("qg_rouge", "qg_bleu", "meteor")
DECODE = _glge.BEAM_4
FINETUNE = _glge.fast(1280)  # at about 46 words a source

FILES = _glge.Files("msqg")
read, save, tidy = FILES.read, FILES.save, _glge.tidy


def key(source: str) -> str:
    """Lines with one source are one line with several references."""
    return source
