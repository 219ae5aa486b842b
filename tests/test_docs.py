"""What the documents quote, print, link to and name is there, as it is."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_distill import GERMAN, teach

PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md")
DOCS = sorted([*ROOT.glob("docs/*.md"), *(ROOT / name for name in PAGES)])
TOUR = ROOT / "docs" / "tour.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
QUOTE = re.compile(r"^# (\S+\.py)(?:: ([\w.]+))?$")  # of a function, or of a whole file
FOLDERS = "januslm|pretrain|finetune|data_tools|benchmarks|tests|docs|ds_configs"
NAMED = re.compile(rf"(?<![\w/.-])(?:{FOLDERS})(?:/[\w.-]+)+(?![\w/*{{<])")
LINK = re.compile(r"\]\(([^)\s]+)\)")

EVERY = pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)


def blocks(path: Path, kind: str) -> list[list[str]]:
    """The fenced blocks of one kind, each a list of lines."""
    found = BLOCK.findall(path.read_text(encoding="utf-8"))
    return [body.splitlines() for this, body in found if this == kind]


def quoted_from(file: Path, name: str | None) -> list[str]:
    """The lines of a file, of a function in it, or of Class.method."""
    source = file.read_text(encoding="utf-8")
    if name is None:
        return source.splitlines()
    scope = ast.parse(source).body
    for part in name.split("."):
        node = next(n for n in scope if getattr(n, "name", None) == part)
        scope = node.body
    return source.splitlines()[node.lineno - 1 : node.end_lineno]


def missing(quoted: list[str], real: list[str]) -> list[str]:
    """Quoted lines that are not there, in order; `...` stands for lines that were left out."""
    lost, at, gap = [], 0, True
    for line in quoted:
        if line.strip() == "...":
            gap = True
            continue
        found = next((i for i in range(at, len(real)) if real[i] == line), None)
        if found is None or not (gap or found == at):
            lost.append(line)
            continue
        at, gap = found + 1, False
    return lost


@EVERY
def test_code_is_quoted_as_it_is(path):
    for first, *body in blocks(path, "python"):
        if named := QUOTE.match(first):
            real = quoted_from(ROOT / named[1], named[2])
            assert not missing(body, real), first
            assert named[2] or body == real, f"{first}: not the whole file as it is"


def test_the_tour_quotes_six_files():
    first = [QUOTE.match(body[0]) for body in blocks(TOUR, "python")]
    files = [Path(named[1]).name for named in first if named]
    wanted = ["ar.py", "layout.py", "packing.py", "transformer.py", "losses.py", "trainer.py"]
    assert list(dict.fromkeys(files)) == wanted


@pytest.mark.slow
def test_the_script_of_the_tour_prints_what_the_tour_shows(tmp_path):
    script = next(body for body in blocks(TOUR, "python") if not QUOTE.match(body[0]))
    file = tmp_path / "tour.py"
    file.write_text("\n".join(script) + "\n")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, file], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    shown = [line.rstrip() for body in blocks(TOUR, "text") for line in body]
    printed = [line.rstrip() for line in done.stdout.splitlines()]
    at = 0
    for line in shown:
        assert line in printed[at:], line
        at = printed.index(line, at) + 1


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory) -> Path:
    """A folder as a newcomer has it: a run with predictions, and files of texts."""
    place = tmp_path_factory.mktemp("newcomer")
    rows = [{"id": f"m.{i}", "source": text, "target": text} for i, text in enumerate(GERMAN)]
    (place / "corpora" / "docsum").mkdir(parents=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (place / "corpora" / "docsum" / "test.jsonl").write_text(text)
    run = teach(place / "corpora", task="docsum")
    (place / "runs" / "demo").mkdir(parents=True)
    run.rename(place / "runs" / "demo" / "restore")
    (place / "mine.jsonl").write_text('{"id": 7, "body": "Open a file."}\n')
    (place / "mine.csv").write_text("id,source,body\n7,Open a file.,Close it.\n")
    (place / "launch.sh").symlink_to(ROOT / "launch.sh")
    done = in_shell(place, "./launch.sh generate runs/demo/restore --algorithm beam --limit 200")
    assert done.returncode == 0, done.stderr
    done = in_shell(place, "./launch.sh generate runs/demo/restore --limit 200")
    assert done.returncode == 0, done.stderr
    return place


def in_shell(place: Path, line: str) -> subprocess.CompletedProcess:
    """A line as it is typed, with this interpreter; stdin is empty."""
    variables = {"JANUSLM_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        ["bash", "-c", line.replace("./launch.sh", str(ROOT / "launch.sh"))],
        cwd=place,
        env=os.environ | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def typed(path: Path, pattern: str) -> list[str]:
    """The lines of fenced blocks that match, without what a comment says."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(encoding="utf-8"), re.M | re.S)
    plain = [line for kind, body in found if not kind for line in body.splitlines()]
    lines = [line.partition("  #")[0].strip() for line in plain]
    return [line for line in lines if re.search(pattern, line)]


OWN = [
    *typed(ROOT / "docs" / "decoding.md", r"\bwrite runs/demo|--input"),
    *typed(ROOT / "docs" / "interop.md", r"\bexport runs/demo"),
    *typed(ROOT / "README.md", r"\b(write|generate|evaluate) runs/demo"),
]


@pytest.mark.slow
@pytest.mark.parametrize("line", OWN)
def test_commands_for_texts_of_ones_own_run_as_they_are_written(newcomer, line):
    done = in_shell(newcomer, line)
    asks = " write " in line and "echo" not in line  # nobody types a sentence here
    assert done.returncode == (2 if asks else 0), done.stdout + done.stderr
    assert not asks or done.stderr.endswith("error: stdin: has no texts\n")


def test_every_such_command_is_found():
    assert len(OWN) == 11


# What stands for something else in the documents' commands.
STANDS_FOR = {
    "RUN": "runs/demo/restore",
    "A": "runs/demo/restore",
    "B": "runs/demo/restore",
    "CORPUS.toml": "docstrings",
    "OUT": "corpora/docstrings",
    "OUT_DIR": "made",
    "FOLDER": "bart",
    "NAME": "janus",
    "tests/drawings/NAME.txt": "drawing.txt",
    "DATA": "data",
    "TO": "made",
    "FILE": "made.html",
    "N": "2",
}
# Looked at alone: they would train, serve, or take minutes.
LONG = ("demo", "test", "setup", "data", "pretrain", "finetune", "tensorboard", "distill")
TYPED = re.compile(
    r"(\./launch\.sh|januslm|(?:\.venv/bin/)?python -m (?:januslm|benchmarks)\S*) (.*)"
)
# What is asked for need not be there; that it is asked for by a word which is known, must be.
ABSENT = re.compile(
    r"no such|cannot be read|no data of|not there|no corpus|no run|is no |has no |matches no file|"
    r"nothing below|no predictions|no checkpoint|no tokenizer|needs --hostfile|are free|"
    r"there are no|no export|train it with|no token"
)


def documented() -> list[str]:
    """Every command of ours in a fenced block, to the comment behind it, once."""
    found = []
    for path in DOCS:
        lines = [line.removeprefix("$ ") for line in typed(path, r"^(\$ )?" + TYPED.pattern)]
        found += [re.split(r" {2,}| # | \\$", line)[0] for line in lines]
    return list(dict.fromkeys(found))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("line", documented())
def test_every_command_of_the_documents_is_understood(newcomer, line):
    """It does what it says, or misses what a newcomer does not have: data, a corpus, a host."""
    program, rest = TYPED.match(line).groups()
    words = [STANDS_FOR.get(word, word) for word in rest.split(" ")]
    if program.endswith(("launch.sh", "januslm")):
        program = "./launch.sh"
        words += ["--dry-run"] if words[0] in LONG and "--dry-run" not in words else []
    else:
        program = program.replace(".venv/bin/python", "python").replace("python", sys.executable)
        words += ["--help"] if "benchmarks" in program else []
    done = in_shell(newcomer, " ".join([program, *words]))
    error = done.stderr.strip().splitlines()[-1:] or [""]
    asks = "write" in words and "echo" not in line  # nobody types a sentence here
    known = done.returncode == 0 or asks or (done.returncode == 2 and ABSENT.search(error[0]))
    assert known, (done.returncode, done.stdout[-300:], done.stderr[-600:])


@pytest.mark.slow
@pytest.mark.parametrize("path", [ROOT / "docs" / "python.md", ROOT / "README.md"])
def test_the_python_of_the_documents_runs_as_it_is_written(newcomer, path):
    code = [line for body in blocks(path, "python") if not QUOTE.match(body[0]) for line in body]
    (newcomer / "documented.py").write_text("\n".join(code) + "\n")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "documented.py"],
        cwd=newcomer,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[")


@EVERY
def test_links_lead_somewhere(path):
    for target in LINK.findall(path.read_text(encoding="utf-8")):
        file, _, anchor = target.partition("#")
        if target.startswith("http"):
            continue
        place = (path.parent / file).resolve() if file else path
        assert place.exists(), target
        assert not anchor or anchor in anchors(place), target


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as code hosts make them."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.strip().replace(" ", "-") for heading in plain}


@EVERY
def test_files_that_are_named_are_there(path):
    """Written with a wildcard or NAME they stand for files to come."""
    named = [n for n in NAMED.findall(path.read_text(encoding="utf-8")) if "NAME" not in n]
    assert not [name for name in named if not (ROOT / name.rstrip(".")).exists()]
