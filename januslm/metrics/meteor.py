"""METEOR 1.5, the Java program, through the optional package pycocoevalcap."""

import importlib.util
import re
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

# Java aligns the words; its numbers of a line are summed and become METEOR as its own EVAL does,
# with the parameters for English: the weights of exact, stem, synonym and paraphrase matches.
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
TINY = 1e-300  # in place of a zero that would be divided by
WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])


def score(predictions: list[str], references: list[list[str]]) -> dict[str, float]:
    """{"meteor": percent} of the whole test set, as METEOR's own summary line has it.

    NLTK's METEOR is another formula with other tables (41 where this one has 25).
    """
    if not predictions:
        return {"meteor": 0.0}
    return {
        "meteor": float(total(each(predictions, references)["meteor"].sum(0, keepdims=True))[0])
    }


def each(predictions: list[str], references: list[list[str]]) -> dict[str, np.ndarray]:
    """What METEOR sums over lines: float64 [lines, 23], with the reference that suits each best.

    Lengths and function words of both sides; per kind of match content words, then function words,
    of both sides; chunks; matched words of both sides.
    """
    rows = np.array(_aligned(predictions, references), dtype=float).reshape(-1, 23)
    whole = (rows[:, 21] == rows[:, 0]) & (rows[:, 22] == rows[:, 1]) & (rows[:, 20] == 1)
    rows[whole, 20] = 0  # a line that matches from end to end is not charged for its one chunk
    return {"meteor": rows}


def total(sums: np.ndarray) -> np.ndarray:
    """METEOR in percent of summed statistics: [draws, 23] -> [draws]."""
    content, function = sums[:, 4:20].reshape(-1, 4, 2, 2).transpose(2, 0, 1, 3)  # [draws, 4, 2]
    hits = np.einsum("k,dks->ds", WEIGHTS, DELTA * content + (1 - DELTA) * function)
    lengths = DELTA * (sums[:, :2] - sums[:, 2:4]) + (1 - DELTA) * sums[:, 2:4]
    precision, recall = (hits / np.maximum(lengths, TINY)).T
    mean = 1 / ((1 - ALPHA) / np.maximum(precision, TINY) + ALPHA / np.maximum(recall, TINY))
    matched = np.maximum(sums[:, 21:].mean(axis=1), TINY)
    return 100 * mean * (1 - GAMMA * (sums[:, 20] / matched) ** BETA)


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
    assert found
    assert found.submodule_search_locations
    return Path(next(iter(found.submodule_search_locations))) / "meteor"


def _aligned(predictions: list[str], references: list[list[str]]) -> list[list[str]]:
    """The 23 numbers of each line."""
    place = folder()
    with subprocess.Popen(
        COMMAND, cwd=place, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, encoding="utf-8"
    ) as java:
        rows = []
        for prediction, several in zip(predictions, references, strict=True):
            line = " ||| ".join(["SCORE", *map(_plain, several), _plain(prediction)])
            rows.append(_numbers(_asked(java, line)))
        java.communicate()
    return rows


def _asked(java: subprocess.Popen, line: str) -> str:
    """The first line of the answer; one question at a time, or both pipes could fill up."""
    assert java.stdin
    assert java.stdout
    answer = ""
    with suppress(BrokenPipeError):  # java has ended; why, it has said to nobody
        java.stdin.write(line + "\n")
        java.stdin.flush()
        answer = java.stdout.readline().strip()
    if not answer:
        java.kill()
        with suppress(BrokenPipeError):  # else Popen would meet it again while it leaves
            java.stdin.close()
        raise Refused(f"meteor: java gave no answer; try `{' '.join(COMMAND)}` in {folder()}")
    return answer


def _numbers(answer: str) -> list[str]:
    found = answer.split()
    if len(found) != 23 or not all(re.fullmatch(r"[-+.\deE]+", number) for number in found):
        raise Refused(f"meteor: java answered {answer!r:.80} in place of 23 numbers")
    return found


def _plain(text: str) -> str:
    """One line without METEOR's own separator; as in Python 2, U+00A0 is no white space."""
    return b" ".join(text.replace("|||", "").encode().split()).decode()
