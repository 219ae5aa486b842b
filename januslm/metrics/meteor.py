"""METEOR 1.5, the Java program, through the optional package pycocoevalcap."""

import importlib.util
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE

import numpy as np

from januslm.config import Refused

INSTALL = f"{sys.executable} -m pip install 'pycocoevalcap>=1.2' (the extra [meteor], 100 MB)"
COMMAND = ("java", "-Xmx2G", "-jar", "meteor-1.5.jar", "-", "-", "-stdio", "-l", "en", "-norm")


def score(predictions: list[str], references: list[list[str]]) -> dict[str, float]:
    """{"meteor": percent} of the whole test set, as METEOR's own summary line has it.

    NLTK's METEOR is another formula with other tables (41 where this one has 25).
    """
    return {"meteor": _run(predictions, references)[1] if predictions else 0.0}


def each(predictions: list[str], references: list[list[str]]) -> dict[str, np.ndarray]:
    """Scores of single lines; their mean is near METEOR's summary but not the same."""
    return {"meteor": np.array(_run(predictions, references)[0] if predictions else [])}


def missing() -> str:
    """What keeps METEOR from running here and how to mend it; "" where nothing does."""
    if importlib.util.find_spec("pycocoevalcap") is None:
        return f"meteor: pycocoevalcap is not installed; {INSTALL}"
    if shutil.which("java") is None:
        return "meteor: java is not on the PATH; install a Java runtime, version 8 or newer"
    return ""


def folder() -> Path:
    """Where meteor-1.5.jar lies; Refused, with what to install, where it does not."""
    if why := missing():
        raise Refused(why)
    found = importlib.util.find_spec("pycocoevalcap")
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
    answer = ""
    with suppress(BrokenPipeError):  # java has ended; why, it has said to nobody
        java.stdin.write(line + "\n")
        java.stdin.flush()
        answer = java.stdout.readline().strip()
    if not answer:
        java.kill()
        raise Refused(f"meteor: java gave no answer; try `{' '.join(COMMAND)}` in {folder()}")
    return answer


def _plain(text: str) -> str:
    """One line without METEOR's own separator."""
    return " ".join(text.replace("|||", "").split())
