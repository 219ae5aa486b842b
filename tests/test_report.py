"""The report of runs: what it must show, what must not break it, and how it looks in a browser."""

import base64
import hashlib
import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from finetune import generate
from finetune.report import __main__ as report
from finetune.report import page, training
from finetune.report.charts import HEIGHT, LEFT, POINTS, RIGHT, TOP, WIDTH, Curve, chart
from januslm.config import Refused
from januslm.data import sealed, tokenizer
from januslm.data.token_pairs import Limits, Pairs, prepare
from januslm.inference import request
from januslm.runs import logs
from januslm.runs.__main__ import compared
from januslm.runs.__main__ import main as runs_main
from januslm.runs.compare import facts_of
from januslm.training import history
from januslm.training.log import Log
from tests.browser import FOUND, Browser
from tests.test_distill import ENGLISH, GERMAN, teach
from tests.test_translation import lay

EVIL = "<script>alert('x')</script>&amp;"
needs_browser = pytest.mark.skipif(FOUND is None, reason="no Chromium here to look at pages with")


def logged(run: Path, updates: int = 30, **config) -> Path:
    """What training leaves in a run's folder, written by what writes it there."""
    run.mkdir(exist_ok=True)
    about = {
        "out": str(run),
        "task": "iwslt14",
        "train": {"steps": updates},
        "objective": {"name": "janus", "read": "next"},
        "data": {"pairs": {"train": "none"}},
        "tokenizer_sha256": "0123456789abcdef",
    } | config
    (run / "config.json").write_text(sealed.document(about))
    log = Log(run)
    for step in range(1, updates + 1):
        terms = {"ce/ar": 5 / step, "ce/nar": 6 / step, "ce/aux": 5.5 / step, "kl/ar~nar": 0.1}
        speed = {"lr": 1e-3 / step, "tokens_per_second": 1000.0 + step, "memory_gb": 0.5}
        log.record("train", step=step, samples=4 * step, loss=9 / step, **terms, **speed)
        if step % 10 == 0:
            log.record("valid", step=step, loss=10 / step, **terms, acceptance=0.1 * step / 10)
    history.add(run, "start", step=0, world=2, hosts=["a", "a"], versions={"torch": "2"})
    history.add(run, "saved", step=10)
    facts = {"code": "0.1.0 abc", "changes": {"train.steps": [20, 30]}}
    history.add(run, "start", step=10, world=1, hosts=["b"], **facts)
    history.add(run, "stop", step=30, code=85, reason="SIGTERM")
    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a run in it: a model of random weights, with data, logs and prepared pairs."""
    base = tmp_path_factory.mktemp("report")
    for split in ("train", "valid", "test"):
        lay(base / "data", split, {"de": GERMAN, "en": ENGLISH})
    run = logged(teach(base / "data"))
    words = tokenizer.Tokenizer.load(run / "export" / "tokenizer.json")
    for split in ("train", "valid"):
        limits = Limits(40, 20, "cut")
        prepare(request.find(run).task, base / "data", split, words, limits, run / "data" / split)
    return base


@pytest.fixture
def run(made, tmp_path) -> Path:
    """A copy of the run, to be spoilt."""
    shutil.copytree(made / "iwslt14-janus", tmp_path / "run")
    return tmp_path / "run"


def predicted(run: Path) -> None:
    """What `generate` leaves of two ways."""
    for words in (["max_length=8"], ["--algorithm", "mask_predict", "iterations=2"]):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["generate", str(run), *words, "--threads", "1"])
            assert generate.main() == 0


def html(*runs: Path, examples: int = 0) -> str:
    return page.written([facts_of(run) for run in runs], examples, 4, 1)


class Reader(HTMLParser):
    """The texts of a page, its elements, and the addresses that it names."""

    def __init__(self, text: str):
        super().__init__()
        self.texts, self.elements, self.addresses, self.scripts = [], [], [], []
        self.script = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append(tag)
        self.script = tag == "script"
        self.addresses += [v for k, v in attributes if k in ("src", "href", "srcset", "data")]

    def handle_endtag(self, tag):
        self.script = False

    def handle_data(self, data):
        (self.scripts if self.script else self.texts).append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)


def test_the_page_tells_losses_starts_data_layout_and_what_is_missing(run):
    found = Reader(html(run)).text
    for part in ("Cross-entropy of each distribution", "AR validation", "acceptance validation"):
        assert part in found
    assert "7 pairs, " in found
    assert "train.de" in found
    assert "NOT the texts that the run was trained on" in found
    assert "g given   m mask" in found
    assert "the process before it was killed, or lost with its machine" in found
    assert "2 processes on a, torch 2" in found
    assert "1 process on b, januslm 0.1.0 abc, changed: train.steps: [20, 30]" in found
    assert "SIGTERM (exit code 85)" in found
    lost = "killed, or lost with its machine: no stop was written"
    assert f"2 starts; ended by: SIGTERM (exit code 85), {lost}" in found
    assert "No predictions" in found
    assert "Examples were not asked for" in found
    assert "Damaged or missing" not in found


def test_the_texts_of_a_run_are_recognised_by_their_hashes(run):
    mark = Pairs(run / "data/train", 1, tokenizer.Special()).fingerprint  # as training notes it
    logged(run, data={"pairs": {"train": mark}})
    assert "the texts that the run was trained on, by their hashes" in html(run)


@pytest.mark.slow
def test_scores_and_examples_of_every_way_are_in_the_page(run):
    predicted(run)
    found = html(run, examples=2)
    text = Reader(found).text
    assert "iwslt14, test: 7 texts" in text
    assert {"AR greedy", "NAR 2 iterations, 3 lengths"} <= set(Reader(found).texts)
    assert "no intervals: they need 20 texts" in text
    assert found.count("<article>") == 2
    assert found.count('data-way="speculative"') == 2
    assert found.count('data-label="pass 4"') == 2
    assert text.count(GERMAN[1]) == 1
    assert "AR's words" in text


def test_a_run_without_an_export_or_without_data_says_so(made, run, tmp_path):
    (run / "export").rename(tmp_path / "away")
    assert "No examples: " in Reader(html(run, examples=1)).text
    (tmp_path / "away").rename(run / "export")
    (made / "data").rename(made / "elsewhere")
    try:
        assert f"No examples: {made / 'data'}" in Reader(html(run, examples=1)).text
    finally:
        (made / "elsewhere").rename(made / "data")


def test_a_pretrained_model_is_asked_nothing_and_the_page_says_why(run):
    file = run / "export" / "config.json"
    about = json.loads(file.read_text())
    file.write_text(json.dumps(about | {"about": {"loss": about["about"].get("loss", {})}}))
    found = Reader(html(run, examples=1)).text
    assert f"No examples: {run} was not trained on a task" in found


@pytest.mark.slow
def test_what_stands_in_a_run_is_text_and_never_markup(run):
    logged(run, start=EVIL, **{EVIL: 1}, objective={"name": EVIL})
    predicted(run)
    file = run / "predictions" / "test.greedy.max_length-8.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    (run / "predictions" / "evil.jsonl").write_text(
        "".join(json.dumps(row | {"prediction": EVIL, "source": EVIL}) + "\n" for row in rows)
    )
    (run / "predictions" / "evil.json").write_text(
        json.dumps({"task": "iwslt14", "label": EVIL, "split": "valid"})
    )
    Log(run).record("train", step=31, **{EVIL: 1.0})
    history.add(run, "stop", step=31, code=1, reason=EVIL)
    found = html(run, examples=1)
    read = Reader(found)
    assert read.elements.count("script") == 1
    assert "<script>alert" not in found
    assert read.text.count(EVIL) >= 5


def test_nothing_is_fetched_and_only_its_own_script_may_run(run):
    found = html(run)
    read = Reader(found)
    assert all(address.startswith("#") for address in read.addresses)
    assert not {"link", "iframe", "img", "object"} & set(read.elements)
    mark = base64.b64encode(hashlib.sha256("".join(read.scripts).encode()).digest()).decode()
    rule = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{mark}'"
    assert f'content="{rule}"' in found
    assert "url(" not in found
    assert "@import" not in found


FILES = ("train.jsonl", "valid.jsonl", "history.jsonl", "config.json", "done",
         "data/train/manifest.json", "predictions/a.jsonl", "predictions/a.json")  # fmt: skip
DAMAGE = {
    "half": lambda raw: raw[: len(raw) // 2 + 1],
    "flipped": lambda raw: raw[:9] + bytes([raw[9] ^ 1]) + raw[10:],
    "other bytes": lambda raw: bytes(range(256)),
    "another table": lambda raw: b"[3]\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_named_and_the_rest_is_told(run, damage):
    (run / "done").write_text(sealed.document({"step": 30}))
    (run / "predictions").mkdir()
    row = {"id": "a", "source": "b", "prediction": "c", "references": ["d"]}
    (run / "predictions/a.jsonl").write_text(json.dumps(row) + "\n")
    (run / "predictions/a.json").write_text(json.dumps({"task": "iwslt14", "algorithm": "x"}))
    assert "Damaged" not in html(run)
    for name in FILES:
        whole = (run / name).read_bytes()
        (run / name).write_bytes(DAMAGE[damage](whole))
        found = Reader(html(run)).text
        assert str(run / name) in found, name
        assert "At a glance" in found
        (run / name).write_bytes(whole)


@pytest.mark.parametrize("name", ["train.jsonl", "valid.jsonl", "history.jsonl"])
def test_a_missing_log_leaves_the_rest(run, name):
    (run / name).unlink()
    found = Reader(html(run)).text
    assert (str(run / name) in found) == (name != "history.jsonl")  # older runs have none
    assert ("No history." in found) == (name == "history.jsonl")


@pytest.mark.parametrize(
    "config",
    [
        {"train": 3, "objective": "x", "data": [1]},
        {"task": 5, "out": {}, "objective": {"name": 3, "read": None}},
        {"data": {"pairs": 3, "train": 4, "fingerprints": 5}, "plugins": 7},
        {"objective": {"name": "janus", "nonsense": 1}},
    ],
)
def test_tables_of_other_types_than_ours_do_not_end_it(run, config):
    logged(run, **config)
    history.add(run, "start", step="x", hosts=3, versions=4, changes=5)
    history.add(run, "stop")
    Log(run).record("train", step=40, loss="much", lr=True, **{"ce/ar": None})
    assert "At a glance" in html(run)


def test_two_runs_show_what_differs_and_curves_of_both(run, tmp_path):
    other = logged(tmp_path / "other", updates=20, objective={"name": "ar"})
    found = Reader(html(run, other)).text
    assert "Settings that differ" in found
    assert "objective.name" in found
    assert "AR: cross-entropy" in found
    assert "other validation" in found
    table = compared([facts_of(run), facts_of(other)])
    rows = {line[:40].strip(): line for line in table.splitlines()}
    assert rows["train.steps"].split()[-2:] == ["30", "20"]
    assert rows["ce/ar"].split()[-6:] == ["0.1667", "/", "0.1667", "0.25", "/", "0.25"]
    assert rows["acceptance"].split()[-6:] == ["-", "/", "0.3", "-", "/", "0.2"]
    assert rows["tokens a second (median)"].split()[-2:] == ["1,016", "1,010"]
    assert "'janus'" in rows["objective.name"]
    assert "train.seed" not in rows


def test_a_comparison_has_the_scores_that_evaluate_left(run, tmp_path):
    table = {"AR": {"bleu": 3.5, "ms_per_sentence": 2.0, "file": "a"}, "copy": {"bleu": 9.0}}
    scores = [{"task": "t", "split": "test", "modes": {"plain": table}}]
    (run / "scores.json").write_text(json.dumps(scores))
    other = logged(tmp_path / "other")
    (other / "scores.json").write_text("{")
    found = compared([facts_of(run), facts_of(other)])
    assert "bleu 3.50, AR" in found
    assert "bleu 3.50, 2.0 ms a text" in found
    assert "cannot be read: Expecting" in found


def parameters(run: Path) -> list[str]:
    lines = compared([facts_of(run)] * 2).splitlines()
    return next(line.split() for line in lines if line.startswith("  parameters"))


def test_the_parameters_are_those_of_the_exported_model(run):
    count = sum(one.numel() for one in load_file(run / "export" / "model.safetensors").values())
    assert parameters(run) == ["parameters", *[f"{count / 1e6:.1f}", "M"] * 2]
    (run / "export" / "model.safetensors").write_bytes(b"spoilt")
    assert parameters(run) == ["parameters", "-", "-"]


def test_one_run_is_too_few_to_compare(run, monkeypatch, capsys):
    for words, message in (
        ([run], "runs compare takes the folders of two runs or more"),
        ([run, run / "none"], f"{run / 'none'}: no run: "),
    ):
        monkeypatch.setattr(sys, "argv", ["runs", "compare", *map(str, words)])
        assert runs_main() == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_a_config_that_cannot_be_read_is_no_difference_of_every_key(run, tmp_path):
    others = [logged(tmp_path / name, updates=20) for name in ("one", "two")]
    (others[0] / "config.json").write_text("{}")
    found = compared([facts_of(run), *map(facts_of, others)])
    [row] = [line for line in found.splitlines() if line.startswith("  train.steps")]
    assert row.split()[1:] == ["30", "?", "20"]
    assert f"damaged: {others[0] / 'config.json'}" in found


@given(st.lists(st.none() | st.floats(-1e9, 1e9), min_size=1, max_size=2000))
def test_a_thinned_curve_keeps_its_ends_of_height_and_its_order(values):
    points = list(enumerate(values))
    kept = logs.thinned(points, 100)
    assert len(kept) <= 100
    assert kept == sorted(kept, key=lambda point: point[0])
    finite = [value for value in values if value is not None]
    for end in (min, max):
        assert end(finite, default=0) == end([v for _, v in kept if v is not None], default=0)


@given(st.lists(st.none() | st.floats(-1e12, 1e12), min_size=1, max_size=50))
def test_a_chart_lies_inside_its_picture(values):
    made = chart("x", [Curve("a", list(enumerate(values)))], [len(values) // 2])
    if all(value is None for value in values):
        assert made is None
        return
    [line] = made.lines
    places = [part.split() for part in line.path.replace("M", "L").split("L")[1:]]
    assert len(places) == sum(value is not None for value in values)
    for x, y in places:
        assert LEFT - 0.1 <= float(x) <= WIDTH
        assert TOP - 0.1 <= float(y) <= HEIGHT
    heights = [at for at, _ in made.up]
    assert heights == sorted(heights, reverse=True)
    assert all(TOP - 0.1 <= at <= HEIGHT for at in heights)
    assert 1 <= len(heights) <= 8


def test_a_gap_is_drawn_where_a_value_is_not_finite_and_thinning_is_said():
    made = chart("x", [Curve("a", [(1, 1.0), (2, None), (3, 2.0)])])
    assert made.lines[0].path.count("M") == 2
    assert made.note == ""
    long = chart("x", [Curve("a", [(n, float(n % 7)) for n in range(5000)])])
    assert long.note == f"5,000 records, drawn as {POINTS} points"


def test_restarts_are_marked_in_the_curves(run):
    [losses, *_] = training.charts(facts_of(run))
    assert len(losses.marks) == 1
    assert training.marks(facts_of(run)) == [10]


def test_runs_are_named_without_what_they_share(tmp_path, monkeypatch):
    for folders, names in (
        (["runs/a"], ["runs/a"]),
        (["runs/a", "runs/b"], ["a", "b"]),
        (["x/runs/a", "x/runs/a/b", "x/c"], ["runs/a", "runs/a/b", "c"]),
        (["x/a", "x/a/b"], ["a", "a/b"]),
    ):
        assert page._names([Path(folder) for folder in folders]) == names
    monkeypatch.chdir(tmp_path)
    assert page._names([Path()]) == [tmp_path.name]


def said(monkeypatch, capsys, *words) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["report", *map(str, words)])
    code = report.main()
    return code, capsys.readouterr().err


def test_a_mistake_is_one_line_and_nothing_is_written(run, tmp_path, monkeypatch, capsys):
    for words, message in (
        ([tmp_path / "none"], f"error: {tmp_path / 'none'}: no run: "),
        ([run, tmp_path / "none"], f"error: {tmp_path / 'none'}: no run: "),
        ([run, "-o", tmp_path / "no/r.html"], "no/r.html: there is no folder "),
        ([run, "-o", run], f"{run}: is a folder; name a file in it"),
        ([run, "--examples", "-1"], "--examples must be at least 0, got -1"),
        ([run, "--threads", "0"], "--threads must be at least 1, got 0"),
    ):
        before = sorted(tmp_path.rglob("*"))
        code, error = said(monkeypatch, capsys, *words)
        assert code == 2
        assert message in error
        assert [line[:7] for line in error.splitlines() if line[:7] != "reading"] == ["error: "]
        assert sorted(tmp_path.rglob("*")) == before


def test_a_former_report_is_replaced_and_survives_one_that_fails(
    run, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "r.html"
    out.write_text("former")
    (tmp_path / "r.html.new").mkdir()  # what is written aside cannot be
    assert said(monkeypatch, capsys, run, "-o", out, "--examples", "0")[0] == 2
    assert out.read_text() == "former"
    (tmp_path / "r.html.new").rmdir()
    assert said(monkeypatch, capsys, run, run, "-o", out, "--examples", "0")[0] == 0
    assert out.read_text().endswith("</html>\n")
    assert "Differences" not in out.read_text()  # one run that was named twice
    assert not (tmp_path / "r.html.new").exists()


@pytest.fixture(scope="module")
def opened(made, tmp_path_factory):
    """A report with examples, and a browser to look at it."""
    base = tmp_path_factory.mktemp("browser")
    shutil.copytree(made / "iwslt14-janus", base / "run")
    predicted(base / "run")
    (base / "r.html").write_text(html(base / "run", examples=2))
    browser = Browser(base / "profile")
    yield browser, (base / "r.html").as_uri()
    browser.close()


SHOWN = """[...document.querySelectorAll('article:first-of-type [data-way=mask_predict] .step')]
  .filter(one => one.checkVisibility()).map(one => one.dataset.label + '|' + one.innerText)"""
WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@needs_browser
@pytest.mark.slow
@pytest.mark.long
def test_in_a_browser_a_slider_steps_through_passes_and_nothing_is_fetched(opened):
    browser, address = opened
    browser.open(address, 1200)
    [last] = browser.value(SHOWN)
    assert last.startswith("pass 4|")
    browser.value("location.hash = '#step=1'")
    [first] = browser.value(SHOWN)
    assert first.startswith("pass 1|")
    assert "_" in first
    assert first.partition("|")[2] != last.partition("|")[2]
    slider = "document.querySelector('article [data-way=mask_predict]').previousElementSibling"
    browser.value(f"{slider}.querySelector('input').stepUp()")
    browser.value(f"{slider}.querySelector('input').dispatchEvent(new Event('input'))")
    assert browser.value(SHOWN)[0].startswith("pass 2|")
    browser.value(f"{slider}.querySelectorAll('button')[1].click()")
    assert browser.value(SHOWN)[0].startswith("pass 3|")
    assert browser.value(f"{slider}.querySelector('output').textContent") == "pass 3 (3 of 4)"
    assert browser.said == []
    assert {one for one in browser.asked if one != "about:blank"} == {address}


@needs_browser
@pytest.mark.slow
@pytest.mark.long
def test_a_pointer_on_a_chart_reads_the_values_of_its_curves(opened):
    browser, address = opened
    browser.open(address, 1200)
    shown = "document.querySelector('#training figure').innerText"
    before = browser.value(shown)
    assert "AR 0.1667" in before  # 5 / 30: the last update
    browser.value("document.querySelector('#training figure svg').scrollIntoView()")
    box = browser.value(
        "JSON.stringify(document.querySelector('#training figure svg').getBoundingClientRect())"
    )
    place = json.loads(box)
    # Update 10 of 1 to 30 in a picture 440 wide, of which 56 are left free and 10 right.
    across = (LEFT + (WIDTH - LEFT - RIGHT) * 9 / 29) / WIDTH
    x, y = place["x"] + place["width"] * across, place["y"] + place["height"] / 2
    browser.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    text = browser.value(shown)
    assert "update 10" in text
    assert re.search(r"AR 0\.(49|50)", text)
    assert re.search(r"NAR 0\.(59|60)", text)
    browser.ask("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    assert browser.value(shown) == before


@needs_browser
@pytest.mark.slow
@pytest.mark.long
def test_on_a_phone_nothing_is_wider_than_the_screen_and_without_script_all_passes_are_there(
    opened,
):
    browser, address = opened
    browser.open(address, 360)
    assert browser.value("innerWidth") == 360
    assert browser.value(WIDE) == 0
    assert browser.value("document.querySelector('figure svg').clientWidth") > 300
    browser.open(address, 360, script=False)
    labels = [one.partition("|")[0] for one in browser.value(SHOWN)]
    assert labels == ["pass 1", "pass 2", "pass 3", "pass 4"]
    assert browser.value("document.querySelectorAll('input').length") == 0
    assert browser.value(WIDE) == 0


@needs_browser
@pytest.mark.slow
@pytest.mark.long
def test_paper_has_all_passes_and_no_sliders_and_the_dark_is_dark(opened):
    browser, address = opened
    browser.open(address, 800)
    paper = "getComputedStyle(document.documentElement).backgroundColor"
    browser.ask("Emulation.setEmulatedMedia", media="print")
    assert len(browser.value(SHOWN)) == 4
    assert not browser.value("document.querySelector('.bar').checkVisibility()")
    assert browser.value(paper) == "rgb(255, 255, 255)"
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.ask("Emulation.setEmulatedMedia", media="screen", features=dark)
    assert browser.value(paper) == "rgb(20, 23, 27)"


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(Refused, match="no run"):
        facts_of(tmp_path)
