"""What would break: a chart without its curves, samples that show nothing, a run that hangs on."""

import html
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.parse
import urllib.request

import numpy as np
import pytest
import torch

from januslm.config import Refused
from januslm.data.token_pairs import sources
from januslm.data.tokenizer import train_tokenizer
from januslm.decoding import greedy, mask_predict
from januslm.inference.incremental import IncrementalDecoder
from januslm.model.config import configure
from januslm.model.transformer import Seq2Seq
from januslm.objective import LossSettings, resolve_objective
from januslm.training import boards
from januslm.training.boards import charts
from januslm.training.samples import GAP, Samples, escaped, marked
from tests.conftest import ROOT
from tests.launching import wait_until
from tests.test_distill import ENGLISH, GERMAN

TERMS = ("ce/ar", "ce/nar", "ce/aux", "ce/length", "kl/ar~aux")
MEASURED = ("accept/ar~nar", "accept/ar~aux")


def test_ar_nar_and_aux_are_in_one_chart():
    found = charts(TERMS, MEASURED, ["bleu"])
    assert found["losses"]["AR, NAR, AUX"] == ["ce/ar", "ce/nar", "ce/aux"]
    assert found["losses"]["KL"] == ["kl/ar~aux"]
    assert found["losses"]["ce/length"] == ["ce/length"]
    assert found["drafts"] == {"share that AR accepts": list(MEASURED)}
    assert found["scores"] == {"bleu": ["bleu"]}
    assert {"tokens_per_second", "data_wait", "mfu"} <= {
        tag for tags in found["speed"].values() for tag in tags
    }
    assert "KL" not in charts(["ce/ar"], [], [])["losses"]
    assert {"scores", "drafts"}.isdisjoint(charts(["ce/ar"], [], []))


def test_a_pass_shows_new_words_bold_and_hidden_ones_as_gaps_whatever_they_are():
    pieces = [("A", ""), (" *man*", "new"), (" in", "new"), (" a", "hidden"), ("b", "hidden")]
    pieces += [(" hat|", "draft"), (" <b>", "accepted")]
    assert marked(pieces) == (r"A **\*man\* in** \_\_ *hat\|* **&lt;b&gt;**")
    from markdown import markdown

    shown = markdown(f"| a |\n|---|\n| {marked(pieces)} |", extensions=["tables"])
    cell = re.search("<td>(.*)</td>", shown)
    assert cell
    assert cell[1] == ("A <strong>*man* in</strong> __ <em>hat|</em> <strong>&lt;b&gt;</strong>")
    assert escaped("a_b\n[c](d) # 1. x") == r"a\_b \[c\]\(d\) \# 1\. x"


def missing(package: str) -> bool:
    return importlib.util.find_spec(package) is None


def test_a_board_with_another_name_is_refused_with_those_there_are():
    boards.check(["tensorboard"], "run.toml")
    with pytest.raises(Refused, match=r"train\.boards: no board 'wandbb'; there are .*'wandb'\?"):
        boards.check(["wandbb"], "run.toml")


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_board_that_is_not_installed_is_refused_with_what_to_install(name):
    if not missing(name):
        pytest.skip(f"{name} is installed")
    with pytest.raises(Refused) as refused:
        boards.check([name], "run.toml")
    assert str(refused.value) == (
        f"run.toml: train.boards: {name} is not installed: pip install 'januslm[{name}]'"
    )


def launched(place, *words: str) -> subprocess.Popen:
    return subprocess.Popen(
        ["bash", str(ROOT / "launch.sh"), *words],
        cwd=place,
        env=os.environ | {"JANUSLM_PYTHON": sys.executable},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def answer(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://localhost:{port}/{path}", timeout=20) as found:
        return found.read().decode()


def asked_of_hparams(port: int, what: str, query: dict) -> dict:
    usual = {"experimentName": "", "allowedStatuses": ["STATUS_SUCCESS"]}
    query = (usual if what == "session_groups" else {}) | query
    asked = urllib.parse.urlencode({"request": json.dumps(query)})
    return json.loads(answer(port, f"data/plugin/hparams/{what}?{asked}"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_tensorboard_shows_the_charts_of_a_run_and_ends_when_it_is_told_to(tmp_path, number):
    from januslm.training.tensorboard import TensorBoard

    board = TensorBoard(tmp_path / "one" / "board")
    config = {"optimizer": {"lr": 1e-3}, "train": {"steps": 4, "keep": 2}, "data": {"root": "x"}}
    board.begin(config, charts(TERMS, MEASURED, ["bleu"]), ["bleu"])
    for step in (1, 2):
        board.numbers(step, **{"ce/ar": 2.0 / step, "valid/ce/ar": 3.0 / step, "valid/bleu": step})
    board.end(done=True)
    port = free_port()
    process = launched(tmp_path, "tensorboard", ".", "--port", str(port))
    assert process.stdout is not None
    assert f":{port}/ reads .; Ctrl-C ends it" in process.stdout.readline()
    wait_until(lambda: "one/board/valid" in answer(port, "data/runs"), 60)
    layout = json.loads(answer(port, "data/plugin/custom_scalars/layout"))
    titles = {
        one["title"]: [chart["title"] for chart in one["chart"]] for one in layout["category"]
    }
    assert titles == {
        heading: list(of) for heading, of in charts(TERMS, MEASURED, ["bleu"]).items()
    }
    for run, points in (("", [[1, 2.0], [2, 1.0]]), ("/valid", [[1, 3.0], [2, 1.5]])):
        asked = urllib.parse.urlencode({"run": f"one/board{run}", "tag": "^ce/ar$"})
        found = json.loads(answer(port, f"data/plugin/custom_scalars/scalars?{asked}"))
        assert found["regex_valid"]
        assert [point[1:] for point in found["tag_to_events"]["ce/ar"]] == points
    compared = asked_of_hparams(port, "experiment", {"experimentName": ""})
    differing = {one["name"] for one in compared["hparamInfos"] if one.get("differs")}
    [metric] = [one["name"] for one in compared["metricInfos"]]
    assert metric == {"group": "valid", "tag": "bleu"}
    assert differing == {"optimizer.lr", "train.steps"}, "the columns that are seen at first"
    assert "data.root" not in {one["name"] for one in compared["hparamInfos"]}
    query = {"startIndex": 0, "sliceSize": 9, "colParams": [{"metric": metric}]}
    [trial] = asked_of_hparams(port, "session_groups", query)["sessionGroups"]
    assert (trial["name"], trial["hparams"]["optimizer.lr"]) == ("one/board", 1e-3)
    assert [one["value"] for one in trial["metricValues"]] == [2.0], "the last one"
    process.send_signal(number)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 0, said
    name = "Ctrl-C" if number == signal.SIGINT else number.name
    assert said == f"ended by {name}\n"


@pytest.mark.slow
@pytest.mark.long
def test_a_port_that_is_taken_and_a_folder_that_is_not_there_are_mistakes(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        words = ("tensorboard", ".", "--host", "127.0.0.1", "--port", port)
        said, _ = (busy := launched(tmp_path, *words)).communicate(timeout=60)
    assert busy.returncode == 2, said
    assert re.fullmatch(r"error: TensorBoard cannot answer: .*port.*\n", said), said
    said, _ = (none := launched(tmp_path, "tensorboard", "nowhere")).communicate(timeout=60)
    assert (none.returncode, said) == (
        2,
        "error: nowhere: no such folder; name one with runs below it\n",
    )
    said, _ = (helped := launched(tmp_path, "tensorboard", "--help")).communicate(timeout=60)
    assert helped.returncode == 0
    assert "--port" in said


def hosted(folder, package: str) -> str:
    """A run and its going on, in one process each, as ranks do; what was printed."""
    script = """
import sys
from pathlib import Path
from januslm.training.hosted import Hosted
from januslm.training.log import Log

folder = Path(sys.argv[1])
for steps in ((1, 2), (3, 4)):
    board = Hosted(sys.argv[2], folder, Log(folder).borne)
    board.begin({"optimizer": {"lr": 0.5}}, {}, [])
    for step in steps:
        board.numbers(step, loss=4.0 / step)
        board.text(step, "samples", "#### 1\\n**new**")
    board.end(done=True)
"""
    variables = {"WANDB_MODE": "offline", "TRACKIO_DIR": str(folder / "trackio")}
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder), package],
        env=os.environ | variables | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(missing("wandb"), reason="wandb is not installed: pip install januslm[wandb]")
def test_weights_and_biases_has_the_curves_offline_and_one_run_that_goes_on(tmp_path):
    assert hosted(tmp_path, "wandb") == ""
    points, names = [], set()
    for file in sorted((tmp_path / "board" / "wandb").glob("offline-run-*/*.wandb")):
        names.add(file.stem)
        # Its package has no reader of these files: an item is a key and a value, as JSON.
        found = re.findall(rb"\x12\x04loss\x82\x01.([0-9.]+)", file.read_bytes())
        points.append({float(value) for value in found})
    assert points == [{4.0, 2.0}, {4 / 3, 1.0}]
    assert len(names) == 1


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(missing("trackio"), reason="not installed: pip install januslm[trackio]")
def test_trackio_has_the_curves_of_one_run_that_goes_on(tmp_path):
    import sqlite3

    assert hosted(tmp_path, "trackio") == ""
    [file] = (tmp_path / "trackio").glob("januslm*.db")
    with sqlite3.connect(file) as database:
        rows = database.execute("select run_name, step, metrics from metrics").fetchall()
    found = [(name, step, json.loads(metrics)) for name, step, metrics in rows]
    assert {step: one["loss"] for _, step, one in found if "loss" in one} == {
        1: 4.0, 2: 2.0, 3: 4 / 3, 4: 1.0
    }  # fmt: skip
    assert len({name for name, *_ in found}) == 1


def plain(markdown: str) -> str:
    """A line of a sample without its marks."""
    return html.unescape(re.sub(r"\\(.)|\*", lambda found: found[1] or "", markdown))


def test_samples_show_every_pass_and_end_in_what_each_way_writes(tmp_path):
    words = train_tokenizer([*GERMAN, *ENGLISH], 300, tmp_path / "tokenizer.json")
    objective = resolve_objective({"name": "janus"}, {}, LossSettings(), "nmt", words.special, "t")
    sizes = {"width": 16, "ffn": 32, "heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    torch.manual_seed(3)
    model = Seq2Seq(configure(sizes | {"max_length": 32, "max_positions": 64}, words.size, "t"))
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.5)
    decoder = IncrementalDecoder(model.eval(), objective)
    [source], _ = sources([GERMAN[0]], words, 40)
    [target], _ = sources([ENGLISH[0]], words, 20)
    example = objective.example(source, target, np.random.default_rng(0))
    page = Samples(decoder, words, knows_lengths=True).page([example])
    rows = dict(re.findall(r"^`(.*?)` (.*?)(?:  )?$", page, re.M))
    assert plain(rows["source"]) == GERMAN[0]
    [ar] = greedy.decode(decoder, [source], words.special, max_length=len(target))
    [nar] = mask_predict.decode(decoder, [source], words.special, iterations=4, length_beam=1)
    written = [" ".join(words.decode(one.tokens).split()) for one in (ar, nar)]
    assert plain(rows[f"AR, {ar.passes} passes"]) == written[0]
    filled = [rows[f"NAR pass {number}"] for number in (1, 2, 3, 4)]
    assert plain(filled[-1]) == written[1]
    gaps = [text.count(GAP) for text in filled]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > gaps[-1] == 0
    verified = [(label, text) for label, text in rows.items() if label.startswith("speculative")]
    assert verified[0][0] == "speculative draft"
    assert plain(verified[-1][1]) == written[0], "greedy's own words"
    agreed = [int(re.search(r": (\d+) of it", label)[1]) for label, _ in verified[1:]]
    assert sum(agreed) + len(agreed) in (len(ar.tokens), len(ar.tokens) + 1)
