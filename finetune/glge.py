"""GLGE as a whole: the official archives made ready, the overall score, submission files."""

import argparse
import json
import re
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from finetune import report
from finetune.pairs import lines
from finetune.report import Run
from januslm.config import Refused, suggest
from januslm.folder import find

# What the leaderboard averages, in the order of its columns.
_ROUGE = ("rouge-1", "rouge-2", "rouge-l")
_QUESTION = ("rouge-l", "bleu-4", "meteor")
COLUMNS = {
    "cnndm": _ROUGE,
    "gigaword": _ROUGE,
    "xsum": _ROUGE,
    "msnews": _ROUGE,
    "squadqg": _QUESTION,
    "msqg": _QUESTION,
    "coqa": ("f1",),
    "personachat": ("bleu-1", "bleu-2", "distinct-1", "distinct-2"),
}
VERSIONS = ("easy", "medium", "medium+", "hard")
PARTS = tuple(f"{split}.{side}" for split in ("train", "dev", "test") for side in ("src", "tgt"))
MEMBER = re.compile(
    r"(?:^|/)(easy|medium\+?|hard)/([a-z]+)_data/org_data/((?:train|dev|test)\.(?:src|tgt))$"
)
LAYOUT = "{easy,medium,hard}/TASK_data/org_data/{train,dev,test}.{src,tgt}"


def overall(scores: Mapping[str, Mapping[str, float]]) -> float:
    """The leaderboard's score: the mean over eight tasks of the mean over a task's metrics."""
    missing = [task for task in COLUMNS if task not in scores]
    if missing:
        raise Refused(f"the overall score needs all eight tasks; missing: {', '.join(missing)}")
    means = []
    for task, keys in COLUMNS.items():
        lacking = [key for key in keys if key not in scores[task]]
        if lacking:
            raise Refused(f"{task}: no {lacking[0]}; its score is made of {', '.join(keys)}")
        means.append(sum(scores[task][key] for key in keys) / len(keys))
    return sum(means) / len(means)


def prepare(archives: Sequence[Path], out: Path, *, partial: bool = False) -> dict[str, int]:
    """Copy GLGE's files out of its archives to out/VERSION/TASK; lines per "VERSION/TASK/split".

    An archive is a folder, a zip or a tar; training and test data are published separately, so
    there may be several. Refused, with what is missing, unless all parts of every task of a
    version are there or `partial` says that they need not be. Source and target must agree.
    """
    found: set[tuple[str, str, str]] = set()
    stage = Path(out).with_name(Path(out).name + ".part")  # out shows nothing that was refused
    shutil.rmtree(stage, ignore_errors=True)
    for archive in archives:
        inside = 0
        for (version, task, part), stream in _members(Path(archive)):
            inside += 1
            if task in COLUMNS:
                found.add((version, task, part))
                target = stage / version / task / part
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:
                    shutil.copyfileobj(stream, file)
        if not inside:
            raise Refused(f"{archive}: not a GLGE archive; no {LAYOUT} in it")
    missing = absent(found)
    if missing and not partial:
        more = f" and {len(missing) - 6} more" if len(missing) > 6 else ""
        raise Refused(
            f"{', '.join(map(str, archives))}: missing {', '.join(missing[:6])}{more}; the test "
            "sets are a separate download, name both; --partial takes what there is"
        )
    counts = _counted(found, stage)
    for one in found:
        target = Path(out).joinpath(*one)
        target.parent.mkdir(parents=True, exist_ok=True)
        stage.joinpath(*one).replace(target)
    shutil.rmtree(stage)
    return counts


def absent(found: set[tuple[str, str, str]]) -> list[str]:
    """Files that a complete archive of the same versions would also have."""
    versions = [v for v in VERSIONS if any(v == version for version, _, _ in found)]
    wanted = [(v, task, part) for v in versions for task in COLUMNS for part in PARTS]
    return ["/".join(one) for one in wanted if one not in found]


def _counted(found: set[tuple[str, str, str]], out: Path) -> dict[str, int]:
    """Lines of each split; Refused where a side is missing or has another number of lines."""
    counts = {}
    for version, task, part in sorted(found):
        split, _, side = part.partition(".")
        if side == "tgt":
            if (version, task, f"{split}.src") not in found:
                raise Refused(f"{version}/{task}: {split}.tgt is there but {split}.src is not")
            continue
        folder = out / version / task
        if (version, task, f"{split}.tgt") not in found:
            raise Refused(f"{version}/{task}: {split}.src is there but {split}.tgt is not")
        both = [sum(1 for _ in lines(folder / f"{split}.{end}")) for end in ("src", "tgt")]
        if both[0] != both[1]:
            raise Refused(
                f"{version}/{task}: {split}.src has {both[0]} lines, {split}.tgt has {both[1]}"
            )
        counts[f"{version}/{task}/{split}"] = both[0]
    return counts


def _members(archive: Path) -> Iterator[tuple[tuple[str, str, str], IO[bytes]]]:
    """((version, task, part), open file) for everything in an archive that is GLGE's."""
    for name, opened in _contents(archive):
        match = MEMBER.search(name)
        if match:
            with opened() as stream:
                yield match.groups(), stream


def _contents(archive: Path) -> Iterator[tuple[str, Callable[[], IO[bytes]]]]:
    """(name inside, function that opens it); nothing is unpacked, so no name can lead outside."""
    if archive.is_dir():
        base = archive.resolve()
        for path in sorted(base.rglob("*")):
            if path.is_file():
                yield path.as_posix(), lambda path=path: path.open("rb")
    elif archive.is_file() and zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as box:
            for name in box.namelist():
                yield name, lambda name=name: box.open(name)
    elif archive.is_file() and tarfile.is_tarfile(archive):
        with tarfile.open(archive) as box:
            for entry in box:
                if entry.isfile():
                    yield entry.name, lambda entry=entry: box.extractfile(entry)
    else:
        raise Refused(f"{archive}: neither a folder nor a zip nor a tar file")


def submit(run: Run, version: str, folder: Path) -> Path:
    """Write TASK.VERSION.test, one prediction a line, in the official format."""
    broken = next((n for n, text in enumerate(run.predictions, 1) if "\n" in text), None)
    if broken:
        raise Refused(
            f"{run.path}:{broken}: a prediction has a line break; a submission is by line"
        )
    path = folder / f"{run.settings['task']}.{version}.test"
    path.write_text(
        "".join(text + "\n" for text in run.predictions), encoding="utf-8", newline="\n"
    )
    return path


def evaluate(places: Sequence[str], data: Path | None, version: str | None) -> int:
    """Print all tasks of a run and the overall score; write the submission files beside it."""
    if not places:
        raise Refused("evaluate glge: name the folder with the predictions of each task")
    runs = _one_per_task([report.load(path) for path in report.files(places)])
    home = Path(places[0]) if Path(places[0]).is_dir() else Path(places[0]).parent
    version = _version(runs, version)
    for name, run in runs.items():
        if place := report.root(run, data):
            runs[name] = report.against_task(run, find("finetune.tasks", name), place)
    out = home / "submission"
    out.mkdir(exist_ok=True)
    written = [submit(run, version, out) for run in runs.values()]
    print(f"GLGE {version}; {len(written)} submission files in {out}")
    everything: dict[str, dict[str, dict[str, float]]] = {"official": {}, "plain": {}}
    for name, run in runs.items():
        task = find("finetune.tasks", name)
        for mode, scores in everything.items():
            scores[name] = report.scores(run, task, report.metrics(task, ()), mode)
            told = "  ".join(f"{key} {value:.2f}" for key, value in scores[name].items())
            print(f"  {name:<12} {mode:<9} {told}")
    for mode, scores in everything.items():
        print(f"overall, {mode}: {_total(scores)}")
    (home / "scores.json").write_text(
        json.dumps({"version": version, **everything}, indent=1) + "\n"
    )
    return 0


def _total(scores: dict[str, dict[str, float]]) -> str:
    missing = [task for task in COLUMNS if task not in scores]
    return f"none, {', '.join(missing)} missing" if missing else f"{overall(scores):.2f}"


def _one_per_task(runs: Sequence[Run]) -> dict[str, Run]:
    chosen: dict[str, Run] = {}
    for run in runs:
        task = run.settings["task"]
        if task not in COLUMNS:
            raise Refused(f"{run.path}: {task!r} is no GLGE task{suggest(task, COLUMNS)}")
        if task in chosen:
            raise Refused(
                f"two predictions of {task}: {chosen[task].path} and {run.path}; name the one"
            )
        chosen[task] = run
    return {task: chosen[task] for task in COLUMNS if task in chosen}


def _version(runs: Mapping[str, Run], asked: str | None) -> str:
    stated = {run.settings["version"] for run in runs.values() if "version" in run.settings}
    if asked is None and len(stated) == 1:
        asked = stated.pop()
    if asked not in VERSIONS:
        raise Refused(f"--version must be one of {', '.join(VERSIONS)}, got {asked!r}")
    return asked


def main(arguments: Sequence[str] | None = None) -> int:
    """python -m finetune.glge prepare: exit code 0, or 2 and one line on stderr."""
    parser = argparse.ArgumentParser(
        "python -m finetune.glge", description="Make GLGE's official archives ready for the tasks."
    )
    parser.add_argument("verb", choices=["prepare"])
    parser.add_argument("--archive", type=Path, action="append", required=True)
    parser.add_argument("--out", type=Path, required=True, help="becomes OUT/VERSION/TASK/...")
    parser.add_argument("--partial", action="store_true", help="take what there is")
    given = parser.parse_args(arguments)
    try:
        for name, count in prepare(given.archive, given.out, partial=given.partial).items():
            print(f"{name}: {count} lines")
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
