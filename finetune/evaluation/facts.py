"""What a predictions file says of itself, in the .json of its name: written and read here."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from januslm.config import build, json_table
from januslm.data import atomic

TIMED = ("batch", "threads", "precision", "graphs")


@dataclass(frozen=True)
class Facts:
    """How predictions were made and what they cost.

    `generate` writes all of it.  Of predictions that come from elsewhere, any part may be there;
    what is not known is empty or None.
    """

    task: str = ""
    task_options: dict = field(default_factory=dict)  # those of its run file
    plugins: list[str] = field(default_factory=list)  # folders that task and metrics may lie in
    split: str = "test"
    algorithm: str = ""
    settings: dict = field(default_factory=dict)  # of the algorithm
    label: str = ""  # the row's name in a table; empty: made of algorithm and settings
    checkpoint: str = ""
    learnt: str = ""  # the task that the checkpoint was trained on
    data: str = ""  # where the task's files lay
    version: str = ""  # of GLGE
    limit: int | None = None  # only so many texts of the split were decoded
    sentences: int | None = None
    batch: int | None = None
    threads: int | None = None
    precision: str = ""
    graphs: bool = False
    seconds: float | None = None
    cpu_seconds: float | None = None
    ms_per_sentence: float | None = None
    tokens: int | None = None  # that were written
    passes: float | None = None  # of the decoder, per sentence
    truncated: int | None = None  # sources that were cut
    empty: dict[str, int] = field(default_factory=dict)  # texts of the test set without words
    unanswered: int = 0  # texts without references
    verified: dict = field(default_factory=dict)  # speculative against greedy

    @property
    def timed(self) -> tuple:
        """What a time is of; two times with another of these are not to be compared."""
        return tuple(getattr(self, name) for name in TIMED)


def read(path: Path) -> Facts:
    """The facts in a file, none if it is not there; keys of others' are left alone.

    Refused, naming the key, where a value is not of its type.
    """
    if not path.is_file():
        return Facts()
    known = {f.name for f in fields(Facts)}
    found = {k: v for k, v in json_table(path).items() if k in known and v is not None}
    return build(Facts, found, str(path))


def write(path: Path, facts: Facts) -> None:
    """Write what is known."""
    known = {k: v for k, v in asdict(facts).items() if v is not None and v not in ("", {}, [])}
    with atomic.plain(path) as file:
        file.write(json.dumps(known, indent=1) + "\n")
