"""GLGE Gigaword: first sentence of a news article -> headline; digits are #."""

from finetune.tasks import _glge

METRICS = ("rouge",)
OPTIONS = {"rouge": {"stem": True}}
BASELINES = {"copy": str}  # the whole source, which is one sentence
DECODE = _glge.BEAM_4
FINETUNE = _glge.steady(128)  # at about 34 words a source

FILES = _glge.Files("gigaword")
read, save = FILES.read, FILES.save


def tidy(prediction: str, mode: str) -> str:
    """Official: tokens as in the Penn Treebank, and # for every digit 1, which all digits are."""
    text = _glge.pieces_joined(prediction)
    if mode == "official":
        text = _glge.fix_tokenization(text, _glge.LOWER).replace("1", "#")
    return _glge.brackets_back(text)


def tidy_reference(reference: str, mode: str) -> str:
    """Lower case, brackets as signs."""
    del mode
    return _glge.brackets_back(reference)
