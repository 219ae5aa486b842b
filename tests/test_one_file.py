"""One file is enough: a stranger's plug-in of each kind passes its generic tests untouched."""

import filecmp
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

OBJECTIVE = '''\
"""From the middle outwards: a learned vector asks for each word, the nearer ones weigh more."""

import numpy as np

from januslm.layout import NONE, Layout, Rule, stack

STREAMS = ("word", "ask")
WORD, ASK = range(2)
EXTRA_VECTORS = 1

NOISE = {"nmt": ("none", {}), "pretrain": ("infill", {})}
SMOOTHING = {"nmt": 0.1, "pretrain": 0.0}
NORMALIZE = {"nmt": "term", "pretrain": "tokens"}


def sees(q, k):
    """Words see themselves and the words before them in that order, questions the latter only."""
    return (k.stream == WORD) & ((k.rank < q.rank) | ((q.stream == WORD) & (k.rank == q.rank)))


RULE = Rule(STREAMS, sees, {"ask": "aux"})


def weights(preset: str) -> dict[str, float]:
    """One term."""
    return {"ce/aux": 1.0}


def layout(target: np.ndarray, hidden: np.ndarray, special, rng) -> Layout:
    """Slots of one target int64 [T]; BOS is given."""
    at = np.arange(1, len(target))
    rank = np.abs(at - len(target) / 2).argsort(kind="stable").argsort()
    return Layout(
        stack(
            (target[:1], np.arange(1), WORD, NONE, NONE),
            (target[at], at, WORD, rank, NONE),
            (special.extra[0], at, ASK, rank, at, 1 / (1 + rank)),
        ),
        RULE,
    )
'''

BIAS = '''\
"""The nearer the better: a slope for each head, nothing learned (Press 2022, ALiBi)."""

import torch
from torch import Tensor, nn

FAR = 128  # distances that count as one


class PositionBias(nn.Module):
    """The score falls with the distance, by 1/2, 1/4, ... of it in one head after another."""

    def __init__(self, config, layers: int):
        super().__init__()
        slope = 2.0 ** -torch.arange(1, config.heads + 1)
        self.register_buffer("fall", -slope[:, None] * torch.arange(FAR), persistent=False)

    def bucket(self, distance: Tensor) -> Tensor:
        """int64 [...] -> int64 [...]: how far, either way."""
        return distance.abs().clamp(max=FAR - 1)

    def values(self, layer: int, query: Tensor, attention: nn.Module) -> Tensor:
        """[1, H, FAR], the same for all."""
        return self.fall[None].to(query.dtype)
'''

NOISE = '''\
"""Every second word is hidden."""

from typing import Annotated

import numpy as np

from januslm.config import Allowed
from januslm.noise._runs import given


def hide(source, target, special, rng, *, first: Annotated[int, Allowed(low=1, high=2)] = 1):
    """Word `first` and every second one after it; BOS and EOS stay."""
    hidden = np.zeros(len(target), bool)
    hidden[first:-1:2] = True
    return given(source, "every_second"), hidden
'''

TASK = '''\
"""Glosses: a term -> what it means, a tab between them."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from januslm.config import Refused
from januslm.data.text_pairs import Pair, checked, folder, known, lines

METRICS = ("rouge",)
DECODE = {"beam": 5, "max_length": 40}


def read(root: Path, split: str, skipped: Counter | None = None) -> Iterator[Pair]:
    """Pairs of {train,valid,test}.tsv."""
    path = folder(root, "glosses", f"{known(split)}.tsv") / f"{split}.tsv"
    return checked(_pairs(path, split), str(path), split, skipped)


def _pairs(path: Path, split: str) -> Iterator[Pair]:
    for number, line in enumerate(lines(path), 1):
        columns = line.split("\\t")
        if len(columns) != 2:
            raise Refused(f"{path}:{number}: {len(columns)} columns; a line has two")
        yield Pair(f"{split}-{number}", columns[0], (columns[1],))
'''

METRIC = '''\
"""F-score of character trigrams, for languages without spaces."""

from collections import Counter

import numpy as np


def score(predictions: list[str], references: list[list[str]]) -> dict[str, float]:
    """{"char-f": percent}: the mean over lines; of several references the best."""
    values = each(predictions, references)["char-f"]
    return {"char-f": float(values.mean()) if len(values) else 0.0}


def each(predictions: list[str], references: list[list[str]]) -> dict[str, np.ndarray]:
    """The same per line."""
    rows = [
        max(_f(_grams(prediction), _grams(text)) for text in several)
        for prediction, several in zip(predictions, references, strict=True)
    ]
    return {"char-f": 100 * np.array(rows, dtype=float)}


def _grams(text: str) -> Counter:
    letters = f"  {''.join(text.split())}  "
    return Counter(letters[i : i + 3] for i in range(len(letters) - 2))


def _f(ours: Counter, theirs: Counter) -> float:
    return 2 * (ours & theirs).total() / (ours.total() + theirs.total())
'''

DECODER = '''\
"""Word by word: of the two likeliest words the one whose next word is likelier too."""

from collections.abc import Sequence

import numpy as np
import torch

from januslm.decoding import Output
from januslm.decoding._constraints import log_p, rules, top
from januslm.decoding.greedy import Count, Length, Ratio


@torch.inference_mode()
def decode(
    decoder,
    sources: Sequence[np.ndarray],
    special,
    *,
    min_length: Count = 0,
    max_length: Length = 200,
    max_ratio: Ratio = 0.0,
    no_repeat_ngram: Count = 0,
) -> list[Output]:
    """The score is log p per word, EOS too."""
    decoder.require("word by word")
    state = decoder.start(sources)
    logits = decoder.step(state)
    allowed = rules(
        decoder,
        sources,
        special,
        logits.device,
        min_length=min_length,
        max_length=max_length,
        max_ratio=max_ratio,
        no_repeat_ngram=no_repeat_ngram,
    )
    written = torch.empty(len(sources), 1, 0, dtype=torch.long, device=logits.device)
    total = torch.zeros(len(sources), dtype=torch.float64, device=logits.device)
    out: list[Output | None] = [None] * len(sources)
    rows = torch.arange(len(sources), device=logits.device)
    while None in out:
        value, word = top(allowed(log_p(logits), written)[:, 0], 2)
        ahead = decoder.block(state, word[..., None])[:, :, 0]
        longer = torch.cat([written.expand(-1, 2, -1), word[..., None]], -1)
        look = allowed(log_p(ahead), longer).amax(-1).masked_fill(word == special.eos, 0.0)
        best = (value + look).argmax(-1)
        total += value[rows, best]
        count = written.shape[-1] + 1
        for row in (word[rows, best] == special.eos).nonzero()[:, 0].tolist():
            if out[row] is None:
                tokens = written[row, 0].cpu().numpy()
                out[row] = Output(tokens, float(total[row]) / count, count + 1)
        state.choose(best, 2, 1)
        written, logits = longer[rows, best][:, None], ahead[rows, best][:, None]
    return out
'''


def mbox() -> str:
    """The source that docs/corpora.md shows whole."""
    text = (ROOT / "docs" / "corpora.md").read_text(encoding="utf-8")
    (found,) = re.findall(r'```python\n("""Mail archives.*?)```', text, re.DOTALL)
    return found


MAILS = (
    "From a@example.org Mon Jan  1 00:00:00 2024\nSubject: one\n\nThe first mail.\n\n"
    "From b@example.org Tue Jan  2 00:00:00 2024\nSubject: two\n\nThe second mail.\n"
)
READ = """\
documents = 2
first = "The first mail."
dropped = 0
[options]
files = ["sources/*.mbox"]
"""
GLOSS = "sun\tthe star of the earth\nmoon\twhat goes around the earth\n"


def draw(tree: Path) -> None:
    """The drawing of an objective, made as docs/objectives.md says."""
    command = [sys.executable, "-m", "januslm.objectives", "middle_out"]
    done = subprocess.run(command, cwd=tree, env=within(tree), capture_output=True, check=True)
    (tree / "tests" / "drawings" / "middle_out.txt").write_bytes(done.stdout)


@dataclass(frozen=True)
class PlugIn:
    """A file a stranger writes, and the drawing or fixture that its generic tests start from."""

    path: str
    text: Callable[[], str]
    tests: str  # the files of the kind's generic tests
    least: int  # so many of them must run
    fixtures: dict[str, str] = field(default_factory=dict)
    prepared: Callable[[Path], None] = lambda tree: None


KINDS = {
    "objective": PlugIn(
        "januslm/objectives/middle_out.py",
        lambda: OBJECTIVE,
        "test_registry test_layouts test_leaks test_packing test_model test_overfit",
        10,
        prepared=draw,
    ),
    "position bias": PlugIn(
        "januslm/model/position_bias/alibi.py", lambda: BIAS, "test_incremental test_attention", 10
    ),
    "noise": PlugIn("januslm/noise/every_second.py", lambda: NOISE, "test_noise", 3),
    "task": PlugIn(
        "finetune/tasks/glosses.py",
        lambda: TASK,
        "test_tasks",
        8,
        {f"tasks/glosses/{split}.tsv": GLOSS for split in ("train", "valid", "test")},
    ),
    "metric": PlugIn("januslm/metrics/char_f.py", lambda: METRIC, "test_metrics", 4),
    "decoder": PlugIn(
        "januslm/decoding/look_two.py", lambda: DECODER, "test_decoding test_cuda_graphs", 11
    ),
    "source": PlugIn(
        "data_tools/sources/mbox.py",
        mbox,
        "test_sources",
        4,
        {"sources/mbox.toml": READ, "sources/mails.mbox": MAILS},
    ),
}


def within(tree: Path) -> dict[str, str]:
    """The environment of a process that imports from the copy and nothing else of ours."""
    return os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}


def ours() -> list[str]:
    """Every file of the working tree that git knows or would take."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Path:
    """A copy of the working tree."""
    tree = tmp_path_factory.mktemp("one_file") / "house"
    for name in ours():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tree / name)
    return tree


@pytest.mark.parametrize("kind", KINDS)
def test_one_new_file_passes_the_generic_tests_of_its_kind(kind, house):
    plugin, name = KINDS[kind], Path(KINDS[kind].path).stem
    new = {plugin.path: plugin.text()}
    new |= {f"tests/fixtures/{path}": text for path, text in plugin.fixtures.items()}
    for path, text in new.items():
        assert not (house / path).exists(), f"{path} is there already"
        (house / path).parent.mkdir(parents=True, exist_ok=True)
        (house / path).write_text(text, encoding="utf-8")
    plugin.prepared(house)
    files = [f"tests/{file}.py" for file in plugin.tests.split()]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", name, *files]
    done = subprocess.run(command, cwd=house, env=within(house), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= plugin.least, done.stdout
    assert not re.search(r"failed|skipped", done.stdout), done.stdout
    known = ours()
    assert filecmp.cmpfiles(ROOT, house, known, shallow=False) == (known, [], [])
