"""The command `write`: a prompt on a real terminal, a real pipe, and what it draws."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import januslm
from finetune.side_by_side import FAINT, NEW, PLAIN, letters, pass_segments, wrapped
from finetune.side_by_side import columns as width_of
from januslm.decoding._templates import Templates
from tests.conftest import ROOT
from tests.test_distill import ENGLISH, GERMAN, root, teach  # noqa: F401

CODES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
SENTENCE = GERMAN[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TERM": "xterm"}
ENVIRONMENT.pop("NO_COLOR", None)


def command(*words) -> list[str]:
    return [sys.executable, "-m", "januslm.launch", "write", *map(str, words)]


def piped(text: bytes, *words) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(*words), input=text, cwd=ROOT, env=ENVIRONMENT, capture_output=True, timeout=120
    )


class Terminal:
    """A process on a terminal of its own, 80 columns wide."""

    def __init__(self, *words, **environment):
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.seen = ""
        self.process = subprocess.Popen(
            command(*words),
            cwd=ROOT,
            env=ENVIRONMENT | environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)

    def until(self, text: str, seconds: float = 120) -> str:
        """What is shown from here to `text`."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < end, self.seen
            if select.select([self.ours], [], [], 1)[0]:
                try:
                    self.seen += os.read(self.ours, 4096).decode()
                except OSError:  # the other end is closed
                    assert text in self.seen, self.seen
        shown, _, self.seen = self.seen.partition(text)
        return shown

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def end(self) -> int:
        """The exit code."""
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()
            os.close(self.ours)


def predictions(run, iterations: int) -> dict[str, str]:
    model = januslm.load(run)
    ways = {"AR": {}, "NAR": {"iterations": iterations}, "speculative": {}}
    names = dict(zip(ways, ("greedy", "mask_predict", "speculative"), strict=True))
    made = {
        name: model.generate([SENTENCE], algorithm=names[name], **options)[0]
        for name, options in ways.items()
    }
    return {  # letters alone: lines are broken, and this model writes what is none
        name: "".join(one for one in text if one.isprintable() and one != " ")
        for name, text in made.items()
    }


def rows(text: str) -> list[str]:
    """The texts of a block: lines that go on below a margin are one; times come apart."""
    out: list[str] = []
    for line in text.splitlines():
        label, body = line[:13], line[13:]
        if label.strip() or re.match(r"\d+ pass(es)?, ", body):
            out.append(f"{' '.join(label.split())}|{body}")
        elif out:
            out[-1] += " " + body
    return out


@pytest.mark.slow
def test_a_terminal_shows_three_ways_within_80_columns_and_ends_with_ctrl_d(root):  # noqa: F811
    run = teach(root)
    wanted = predictions(run, 3)
    screen = Terminal(run, "--iterations", 3, "--threads", 1)
    assert "janus, 0.0 M parameters, task iwslt14 | 1 CPU thread, float32" in screen.until("> ")
    for _ in range(2):  # it asks again
        screen.type(SENTENCE + "\n")
        shown = screen.until("\n> ")
        assert NEW in shown
        plain = CODES.sub("", shown).replace("\r", "")
        assert max(map(len, plain.splitlines())) <= 80
        found = rows(plain.partition("\n")[2])  # after what was typed
        labels = [row.partition("|")[0] for row in found if not row.startswith("|")]
        assert labels == ["AR", "NAR 1", "2", "3", "speculative"]
        said = {}
        for row in found:
            said.setdefault(row.partition("|")[0], row.partition("|")[2])
        said = {name: re.sub(r"\s", "", text) for name, text in said.items()}
        assert said["AR"] == said["speculative"] == wanted["AR"]
        assert said["3"] == wanted["NAR"]
        costs = [row for row in found if row.startswith("|")]
        assert re.fullmatch(r"\|\d+ pass(es)?, [\d.]+ ms", costs[0])
        assert re.fullmatch(r"\|3 passes, [\d.]+ ms: [\d.]+x AR's speed", costs[1])
        assert re.fullmatch(r"\|\d+ passes, .*x AR's speed, AR's words", costs[2])
    screen.type("\x04")
    assert screen.end() == 0


@pytest.mark.slow
def test_ctrl_c_at_the_prompt_ends_it_and_no_color_is_heeded(root):  # noqa: F811
    screen = Terminal(teach(root), "--threads", 1, NO_COLOR="1")
    screen.until("> ")
    screen.type("\n")  # nothing to write
    assert CODES.sub("", screen.until("> ")).strip() == ""
    screen.type(SENTENCE + "\n")
    assert not {NEW, FAINT} & set(CODES.findall(screen.until("\n> ")))
    for _ in range(
        5
    ):  # readline misses one that comes while it makes the prompt; people press again
        screen.type("\x03")
        with contextlib.suppress(subprocess.TimeoutExpired):
            screen.process.wait(10)
            break
    assert screen.end() == 0
    assert "Traceback" not in screen.seen


@pytest.mark.slow
def test_ctrl_c_in_a_sentence_stops_it_and_asks_for_the_next(root):  # noqa: F811
    screen = Terminal(teach(root), "--threads", 1, "--iterations", 100_000)
    screen.until("> ")
    screen.type(SENTENCE + "\n")
    screen.until("NAR       1")
    screen.type("\x03")
    screen.until("(stopped)")
    screen.until("> ")
    screen.type("\x04")
    assert screen.end() == 0


@pytest.mark.slow
def test_ctrl_c_while_it_loads_ends_without_a_traceback(root):  # noqa: F811
    screen = Terminal(teach(root))
    screen.until("loading")
    os.killpg(screen.process.pid, signal.SIGINT)
    screen.until("interrupted")
    assert screen.end() == 130


@pytest.mark.slow
def test_a_pipe_gets_a_block_a_line_without_colours(root):  # noqa: F811
    run = teach(root)
    done = piped(f"\ufeff{SENTENCE}\r\n\n{GERMAN[0]}".encode(), run, "--iterations", "2")
    assert done.returncode == 0, done.stderr.decode()
    out = done.stdout.decode()
    assert "\x1b" not in out
    assert re.findall(r"^> (.*)$", out, re.M) == [SENTENCE, "", GERMAN[0]]
    assert len(re.findall(r"^AR  ", out, re.M)) == len(re.findall(r"^NAR  ", out, re.M)) == 2
    said = done.stderr.decode().splitlines()
    assert said[0] == f"loading {run / 'export'}"
    assert len(said) == 2


@pytest.mark.slow
@pytest.mark.long
def test_only_what_was_taught_is_shown(root):  # noqa: F811
    ways = {"ar": ["AR"], "cmlm": ["NAR"], "janus": ["AR", "NAR", "speculative"]}
    ways["block"] = ["AR", "draft"]
    for objective, names in ways.items():
        out = piped(SENTENCE.encode(), teach(root, objective=objective)).stdout.decode()
        assert re.findall(r"^(\w+)  ", out, re.M) == names


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        (b"", (), "stdin: has no texts"),
        (b"gut\nsch\xf6n\n", (), "stdin:2: not UTF-8 text: invalid start byte 0xf6, byte 4"),
        (b"x", ("--iterations", "0"), "--iterations must be at least 1, got 0"),
        (b"x", ("--iterations", "many"), "argument --iterations: invalid int value: 'many'"),
        (b"x", ("--threads", "5000"), "cores, got 5,000"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(root, text, words, message):  # noqa: F811
    done = piped(text, teach(root), *words)
    assert done.returncode == 2
    last = done.stderr.decode().splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in done.stderr.decode()


def test_a_run_that_was_taught_no_lengths_has_no_nar(root):  # noqa: F811
    from dataclasses import replace

    from finetune.write import chosen
    from januslm.interop.export_folder import read_facts

    facts = read_facts(teach(root))
    ways, notes = chosen(facts, 7)
    assert ways["mask_predict"]["iterations"] == 7
    assert not notes
    pretrained = replace(facts, about={"loss": {"weights": {"ce/ar": 1.0, "ce/nar": 1.0}}})
    ways, notes = chosen(pretrained, 7)
    assert list(ways) == ["greedy", "speculative"]
    assert notes == ["NAR is left out: the checkpoint has not been taught how long texts are"]


WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30)
STYLED = st.lists(st.tuples(WORDS, st.sampled_from([PLAIN, NEW, FAINT])), max_size=6)


@given(STYLED, st.integers(2, 40))
def test_wrapping_loses_no_letter_and_is_never_too_wide(segments, width):
    lines = wrapped(segments, width)
    assert all(width_of(line) <= width for line in lines)
    letters_of = [
        (one, style) for text, style in segments for one in text if one.isprintable() and one != " "
    ]
    kept = [(one, style) for line in lines for text, style in line for one in text if one != " "]
    assert kept == letters_of


def test_control_characters_never_reach_the_terminal():
    assert wrapped([("a\x1b[31mb\nc\u2028d", PLAIN)], 40) == [[("a [31mb c d", PLAIN)]]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=12))
def test_letters_are_the_text(words, text):
    tokens = words.encode([text])[0].tolist()
    found = list(letters(words, tokens))
    assert "".join(one for one, _ in found) == text
    assert [i for _, at in found for i in at] == list(range(len(tokens)))


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    from januslm.data import tokenizer

    place = tmp_path_factory.mktemp("words") / "tokenizer.json"
    return tokenizer.train_tokenizer([*GERMAN, *ENGLISH], 300, place)


def test_a_pass_shows_what_is_new_what_stands_and_what_is_hidden_again(words):
    ids = words.encode(["satz 3 kurz"])[0].tolist()
    names = [words.decode([i]) for i in ids]
    size = len(ids) + 2
    full = torch.tensor([[[0, *ids, 2]]])

    def at(*places):
        chosen = torch.zeros(1, 1, size, dtype=torch.bool)
        chosen[0, 0, list(places)] = True
        return chosen

    holes = at(*range(1, size - 1))
    templates = Templates(
        full, full, at(1, 2), holes, at(), torch.zeros(1, 1, size), torch.tensor([[size]]), 0
    )
    found = list(pass_segments(words, templates, at(2)))
    blank = " _" if names[1].startswith(" ") else "_"
    assert found == [(names[0], NEW), (blank, FAINT), *((name, PLAIN) for name in names[2:])]
