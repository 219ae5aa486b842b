"""A fine-tuning run goes on as itself only: the same task, words and data."""

import pytest
import torch

from finetune.job import build
from finetune.settings import load, resolve
from januslm.config import Refused
from januslm.data import tokenizer
from januslm.interop import native
from januslm.model.config import configure
from januslm.model.transformer import Seq2Seq
from januslm.training.engine import World
from januslm.training.run_dir import opened
from tests.conftest import ROOT
from tests.test_translation import ENGLISH, WHOLE, lay

SMALL = {"width": 16, "ffn": 32, "heads": 2, "encoder_layers": 1, "decoder_layers": 1}


@pytest.fixture
def home(tmp_path):
    """A data root for iwslt14, and two tokenizers of one size."""
    for split in ("train", "valid"):
        lay(tmp_path / "data", split, {"de": WHOLE, "en": ENGLISH})
    for name, words in (("one", "das haus"), ("other", "the house")):
        tokenizer.train_tokenizer([words] * 9, 265, tmp_path / f"{name}.json")
    words = [tokenizer.Tokenizer.load(tmp_path / f"{name}.json") for name in ("one", "other")]
    assert words[0].size == words[1].size
    return tmp_path


def planned(home, *changes: str, words: str = "one"):
    """What would be trained, of a run file that a user might have."""
    sizes = [f"model.{key}={value}" for key, value in SMALL.items()]
    file = str(ROOT / "finetune/runs/iwslt14_janus.toml")
    given = [f"out={home / 'run'}", f"data.root={home / 'data'}", "train.steps=6", "train.batch=2"]
    given += [f"tokenizer={home / words}.json", *sizes] if words else []
    run = load(file, [*given, *changes])
    return build(resolve(run, file, ""), World(0, 1, torch.device("cpu")))[0]


def begun(plan) -> None:
    plan.folder.mkdir(exist_ok=True)
    opened(plan.folder, plan.config, plan.train.steps)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "words", "message"),
    [
        (["optimizer.lr=1e-3", "train.steps=9"], "one", ""),
        ([], "other", "holds another run: there tokenizer_sha256 = '"),
        (["task=iwslt14_en_de"], "one", "there task = 'iwslt14', here 'iwslt14_en_de'"),
        (["model.ffn=64"], "one", "there model.ffn = 32, here 64"),
        (["data.max_target=99"], "one", "data.max_target was 256 and is now 99, while"),
    ],
)
def test_a_checkpoint_is_not_gone_on_from_with_other_words_or_another_task(
    home, changes, words, message
):
    """Of two tokenizers of one size, ids of one would be trained as words of the other."""
    begun(planned(home))
    again = planned(home, *changes, words=words)
    if not message:
        begun(again)
        return
    with pytest.raises(Refused, match=message):
        begun(again)


def test_the_first_lines_say_from_where_how_long_and_how_often(home, capsys):
    planned(home)
    train, valid, length = capsys.readouterr().out.splitlines()
    assert train.startswith("train: 3 pairs of ")
    assert train.endswith(f" target tokens, from {home / 'data' / 'train.de'} + train.en")
    assert valid.startswith("valid: 3 pairs of ")
    assert length == "6 updates of 2 pairs: 4.0 epochs"


def test_a_template_of_masks_alone_is_refused_with_positions_that_cannot_tell_its_slots_apart(home):
    bare = ("objective.name=cmlm", "model.positions=rotary")
    with pytest.raises(
        Refused,
        match=r"one of learned, rotary_cross, sinusoidal, or objective\.ends true for 'cmlm'",
    ):
        planned(home, *bare)
    planned(home, bare[0], "model.positions=sinusoidal")
    planned(home, *bare, "objective.ends=true")
    planned(home, "objective.name=janus", bare[1])


def test_a_start_from_a_model_of_another_task_is_said(home, capsys, tmp_path):
    words = home / "one.json"
    model = Seq2Seq(configure(SMALL, tokenizer.Tokenizer.load(words).size, "test"))
    for task in ("multi30k", "iwslt14"):
        native.write(home / task, model, words, "janus", {}, {"task": task})
    file = tmp_path / "run.toml"
    file.write_text(
        f'out = "{home / "run"}"\ntask = "iwslt14"\n[train]\nsteps = 6\nbatch = 2\n'
        f'[data]\nroot = "{home / "data"}"\n'
    )
    for task, end in (
        ("multi30k", "4.0 epochs, from a model of task 'multi30k'"),
        ("iwslt14", "4.0 epochs"),
    ):
        run = load(file, [f"start={home / task}"])
        build(resolve(run, str(file), ""), World(0, 1, torch.device("cpu")))
        assert capsys.readouterr().out.endswith(f": {end}\n")
    run = load(file, [f"start={home / 'multi30k'}", f"tokenizer={words}"])
    with pytest.raises(Refused, match=r"tokenizer comes with start = .*multi30k', take it out"):
        resolve(run, str(file), "")
