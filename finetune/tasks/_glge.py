"""What the eight GLGE tasks share: the official files, and the official mending of predictions."""

import re
import string
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from finetune.tasks import _bitext
from januslm.config import Refused
from januslm.data.text_pairs import Pair, aligned, checked, known, lines, made_for

FILES = {"train": "train", "valid": "dev", "test": "test"}

BEAM_4 = {"beam": 4, "length_penalty": 1.0, "max_length": 140, "no_repeat_ngram": 3}

# Published fine-tuning settings of ProphetNet-large, as tables of a run file (`published = true`).
# Its scripts have three groups of tasks, on any number of GPUs with the same number of examples per
# update.  cnndm has 512.  The others count micro batches of at most 16 sentences and 1,300 tokens,
# 8 per update, or 80 in the last group; `batch` is what that makes of the sources' mean length.
_LIKE_ALL = {
    "data": {"max_source": 512, "max_target": 512},
    "model": {"dropout": 0.1, "attention_dropout": 0.1},
    "loss": {"smoothing": 0.1},
}


def steady(batch: int) -> dict:
    """Settings of cnndm, gigaword, xsum, msnews and squadqg."""
    return _LIKE_ALL | {
        "optimizer": {"lr": 1e-4, "betas": [0.9, 0.999], "weight_decay": 0.01},
        "schedule": {"name": "inverse_sqrt", "warmup": 1000, "start": 1e-7},
        "train": {"epochs": 10.0, "batch": batch, "clip": 0.1},
    }


def fast(batch: int) -> dict:
    """Settings of msqg, coqa and personachat: large batches, a high rate, more epochs."""
    return _LIKE_ALL | {
        "optimizer": {"lr": 5e-4, "betas": [0.9, 0.98], "weight_decay": 0.0},
        "schedule": {"name": "inverse_sqrt", "warmup": 4000, "start": 1e-7},
        "train": {"epochs": 25.0, "batch": batch, "clip": 0.0},
    }


_BRACKETS = dict(zip("()[]{}", ("LRB", "RRB", "LSB", "RSB", "LCB", "RCB"), strict=True))
UPPER = {mark: f"-{name}-" for mark, name in _BRACKETS.items()}
LOWER = {mark: f"-{name.lower()}-" for mark, name in _BRACKETS.items()} | {
    "[UNK]": "UNK",
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
}
_PLAIN = {f"-{name.lower()}-": mark for mark, name in _BRACKETS.items()} | {"``": '"', "''": '"'}


def place(root: Path, task: str) -> Path:
    """Where TASK's files are: root/VERSION's TASK, the official TASK_data/org_data, or root."""
    root = Path(root)
    tried = (root / task, root / f"{task}_data" / "org_data", root / "org_data", root)
    for path in tried:
        if any((path / f"{name}.src").is_file() for name in ("train", "dev", "test")):
            return path
    inside = (task, f"{task}_data")
    versions = [p.name for p in sorted(root.glob("*")) if any((p / n).is_dir() for n in inside)]
    if versions:
        raise Refused(f"{root}: has {', '.join(versions)}; name one of them, {root / versions[0]}")
    raise Refused(
        f"{root}: no {task} there; looked for {task}/ and {task}_data/org_data/ with train.src, "
        "...; GLGE's archive becomes such a folder by `./launch.sh data glge --archive PATH`"
    )


@dataclass(frozen=True)
class Files:
    """A task's official files; `read` and `save` are the functions of a file of finetune/tasks/."""

    task: str

    def read(self, root: Path, split: str, skipped: Counter | None = None) -> Iterator[Pair]:
        """The pairs of a split, one example a line, texts as they are.

        Those of a test set have no targets where there is no test.tgt: leaderboards may keep it.
        """
        folder, name = place(root, self.task), FILES[known(split)]
        made_for(self.task, folder)
        source, target = folder / f"{name}.src", folder / f"{name}.tgt"
        kept_back = split == "test" and not target.is_file()
        texts = zip(lines(source)) if kept_back else aligned(source, target)
        found = (
            Pair(
                f"{self.task}-{name}-{number}", one.strip(), tuple(text.strip() for text in others)
            )
            for number, (one, *others) in enumerate(texts, 1)
        )
        return checked(found, str(source), split, skipped)

    def save(self, folder: Path, split: str, pairs: Iterable[Pair]) -> int:
        """Write pairs as `read` reads them, into a root of this task's own; returns how many."""
        return _bitext.save(folder, FILES[known(split)], ("src", "tgt"), pairs)


@dataclass(frozen=True)
class News(Files):
    """A task of news and headlines, scored by files2rouge."""

    def tidy(self, prediction: str, mode: str) -> str:
        """Official: sentences on lines of their own, as files2rouge writes them for the script."""
        text = pieces_joined(prediction)
        return sentences_apart(text) if mode == "official" else text

    def tidy_reference(self, reference: str, mode: str) -> str:
        """The same for references."""
        return sentences_apart(reference) if mode == "official" else reference


def tidy(prediction: str, mode: str) -> str:
    """Both modes: word pieces joined, where the official script changes nothing else."""
    del mode
    return pieces_joined(prediction)


def pieces_joined(text: str) -> str:
    """Word pieces of BERT back to words, as the scripts' `sed "s/ ##//g"` does."""
    return text.replace(" ##", "")


def brackets_back(text: str) -> str:
    """What bs_pyrouge does to both sides before ROUGE: lower case, -lrb- to ( and `` to a quote.

    ROUGE drops signs but would count "lrb" as a word.
    """
    return re.sub("|".join(map(re.escape, _PLAIN)), lambda m: _PLAIN[m.group()], text.lower())


def sentences_apart(text: str) -> str:
    """What files2rouge does to both sides before ROUGE: a new line after each " . "."""
    return text.replace(" . ", " .\n")


def fix_tokenization(text: str, marks: dict[str, str]) -> str:
    """Predictions of a model with BERT's word pieces to tokens as the Penn Treebank has them.

    Official for cnndm, gigaword and squadqg. It does not do to the references what it does to
    predictions ("1 , 000" becomes "1,000"), hence the plain mode without it.
    """
    tokens = text.split()
    out: list[str] = []
    opened = {'"': False, "'": False}
    hyphen = False  # the last token ended in a hyphen that the next one belongs to
    i = 0
    while i < len(tokens):
        glue, hyphen = hyphen, False
        token = tokens[i]
        if token in marks:
            out.append(marks[token])
        elif token == '"':
            out.append("''" if opened[token] else "``")
            opened[token] = not opened[token]
        elif token == "'":
            i += _apostrophe(tokens, i, out, opened)
        elif token in ".,":
            i += _point(tokens, i, out)
        elif token == "-":
            step, hyphen = _hyphen(tokens, i, out)
            i += step
        elif glue and out and token[0] not in string.punctuation:
            out[-1] += token
        else:
            out.append(token)
        i += 1
    return " ".join(out)


# Each of these appends to `out`, or lengthens its last token, and tells how many further tokens
# it has used up.


def _apostrophe(tokens: list[str], i: int, out: list[str], opened: dict[str, bool]) -> int:
    after = tokens[i + 1] if i + 1 < len(tokens) else ""
    if after == "t" and out and out[-1].endswith("n"):
        out[-1] = out[-1][:-1]
        out.append("n't")
        return 1
    if after in ("s", "d", "ll"):
        out.append("'" + after)
        return 1
    out.append("'" if opened["'"] else "`")
    opened["'"] = not opened["'"]
    return 0


def _point(tokens: list[str], i: int, out: list[str]) -> int:
    mark, rest = tokens[i], tokens[i + 1 :]
    last, after = (out[-1] if out else ""), (rest[0] if rest else "")
    if mark == "." and rest[:2] == [".", "."]:
        out.append("...")
        return 2
    if mark == "," and out and rest and _number(last) and _number(after):
        out[-1] += "," + after
        return 1
    if mark == "." and last.isdigit() and after.isdigit():
        out[-1] += "." + after
        return 1
    if mark == "." and _letter(last) and _letter(after) and rest[1:2] == ["."]:
        # The official script looks for further letters one token too far, and it takes the second
        # point twice: "U . N ." becomes "U.N. .". Published scores have it so.
        used = 2
        while _letter("".join(rest[used + 1 : used + 2])) and rest[used + 2 : used + 3] == ["."]:
            used += 2
        out[-1] += "." + "".join(rest[:used])
        return 1
    out.append(mark)
    return 0


def _hyphen(tokens: list[str], i: int, out: list[str]) -> tuple[int, bool]:
    after = tokens[i + 1] if i + 1 < len(tokens) else ""
    if after == "-":
        out.append("--")
        return 1, False
    inside = 0 < i < len(tokens) - 1
    if inside and out[-1] not in string.punctuation and after[0] not in string.punctuation:
        out[-1] += "-"
        return 0, True
    out.append("-")
    return 0, False


def _number(token: str) -> bool:
    return all(letter.isdigit() or letter == "," for letter in token)


def _letter(token: str) -> bool:
    return len(token) == 1 and token.isupper()
