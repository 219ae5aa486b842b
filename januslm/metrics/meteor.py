"""METEOR 1.5, the Java program, through the optional package pycocoevalcap."""

import importlib.util
import shutil
import subprocess
from pathlib import Path
from subprocess import DEVNULL, PIPE

import numpy as np

from januslm.config import Refused

INSTALL = "pip install 'januslm[meteor]' (pycocoevalcap, 100 MB) and have java on the PATH"
COMMAND = ("java", "-Xmx2G", "-jar", "meteor-1.5.jar", "-", "-", "-stdio", "-l", "en", "-norm")


def score(predictions: list[str], references: list[list[str]]) -> dict[str, float]:
    """{"meteor": percent} of the whole test set, as METEOR's own summary line has it.

    NLTK's METEOR is another formula with other tables (41 where this one has 25).
    """
    return {"meteor": _run(predictions, references)[1] if predictions else 0.0}


def each(predictions: list[str], references: list[list[str]]) -> dict[str, np.ndarray]:
    """Scores of single lines; their mean is near METEOR's summary but not the same."""
    return {"meteor": np.array(_run(predictions, references)[0] if predictions else [])}


def folder() -> Path:
    """Where meteor-1.5.jar lies; Refused, with what to install, where it does not."""
    found = importlib.util.find_spec("pycocoevalcap")
    if found is None or shutil.which("java") is None:
        lacking = "java is" if found else "pycocoevalcap is"
        raise Refused(f"meteor: {lacking} not installed; {INSTALL}")
    return Path(next(iter(found.submodule_search_locations))) / "meteor"


def _run(predictions: list[str], references: list[list[str]]) -> tuple[list[float], float]:
    place = folder()
    with subprocess.Popen(
        COMMAND, cwd=place, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, encoding="utf-8"
    ) as java:
        counted = []
        for prediction, several in zip(predictions, references, strict=True):
            line = " ||| ".join(["SCORE", *map(_plain, several), _plain(prediction)])
            counted.append(_asked(java, line))
        values = [_asked(java, " ||| ".join(["EVAL", *counted]))]
        values += [java.stdout.readline() for _ in predictions]
        java.stdin.close()
    *lines, summary = [100 * float(value) for value in values]
    return lines, summary


def _asked(java: subprocess.Popen, line: str) -> str:
    """The first line of the answer; one question at a time, or both pipes could fill up."""
    java.stdin.write(line + "\n")
    java.stdin.flush()
    answer = java.stdout.readline().strip()
    if not answer:
        raise Refused(f"meteor: java gave no answer; try `{' '.join(COMMAND)}` in {folder()}")
    return answer


def _plain(text: str) -> str:
    """One line without METEOR's own separator."""
    return " ".join(text.replace("|||", "").split())
