"""Prepared translation files in every form: BPE undone, lines not shifted, directions distinct."""

import gzip
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from data_tools.recipe import read as recipe
from data_tools.train_tokenizer import learn
from finetune.evaluation import scoring
from finetune.evaluation.predictions import Predictions
from finetune.settings import load
from finetune.tasks import (
    _bitext,
    iwslt14,
    iwslt14_en_de,
    multi30k,
    scitldr,
    wmt14,
    wmt14_de_en,
    wmt16,
    wmt16_ro_en,
)
from januslm.config import Refused
from januslm.data import text_pairs
from januslm.data.text_pairs import Pair
from januslm.data.tokenizer import Tokenizer
from januslm.metrics import bleu
from tests.conftest import ROOT

BPE = ("das ist ein ha@@ us .", "ein gro@@ ßes ha@@ us", "gu@@ t")
WHOLE = ("das ist ein haus .", "ein großes haus", "gut")
ENGLISH = ("this is a house .", "a large house", "good")
TASKS = (iwslt14, iwslt14_en_de, wmt14, wmt14_de_en, wmt16, wmt16_ro_en, multi30k)
BOTH_WAYS = ((iwslt14, iwslt14_en_de), (wmt14, wmt14_de_en), (wmt16, wmt16_ro_en))


def lay(folder: Path, stem: str, ends: dict[str, tuple[str, ...]], packed: bool = False) -> None:
    """Write FOLDER/STEM.LANGUAGE(.gz)."""
    path = folder / stem
    path.parent.mkdir(parents=True, exist_ok=True)
    for language, texts in ends.items():
        data = "".join(f"{text}\n" for text in texts).encode()
        if packed:
            path.with_name(f"{path.name}.{language}.gz").write_bytes(gzip.compress(data))
        else:
            path.with_name(f"{path.name}.{language}").write_bytes(data)


def texts(task, root: Path, split: str = "test") -> list[tuple[str, str]]:
    return [(pair.source, pair.targets[0]) for pair in task.read(root, split)]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("german", [BPE, WHOLE], ids=["BPE", "whole words"])
def test_texts_are_whole_words_whatever_the_files_hold(tmp_path, packed, german):
    lay(tmp_path, "iwslt14.tokenized.de-en/test", {"de": german, "en": ENGLISH}, packed)
    assert texts(iwslt14, tmp_path) == list(zip(WHOLE, ENGLISH, strict=True))


def test_a_stray_at_sign_pair_in_raw_text_stays(tmp_path):
    german = ("email me @@ home", *(f"satz {number}" for number in range(50)))
    lay(tmp_path, "test", {"de": german, "en": german})
    assert texts(iwslt14, tmp_path)[0] == (german[0], german[0])


def test_bpe_at_the_end_of_a_line_is_undone_too():
    assert _bitext.whole_words("ein ha@@ us ha@@") == "ein haus ha"


@pytest.mark.parametrize(
    ("task", "stem", "ends"),
    [
        (wmt14, "wmt16_en_de_bpe32k/newstest2014.tok.bpe.32000", ("en", "de")),
        (wmt14, "wmt17_en_de/test", ("en", "de")),
        (wmt14, "wmt14_ende/test.en-de", ("en", "de")),
        (wmt14, "wmt14.en-de/test", ("en", "de")),
        (wmt14, "wmt14/newstest2014", ("en", "de")),
        (wmt16, "wmt16/en-ro/test/test.bpe", ("en", "ro")),
        (wmt16, "newstest2016", ("en", "ro")),
    ],
)
def test_files_are_found_under_the_names_that_archives_give_them(tmp_path, task, stem, ends):
    lay(tmp_path, stem, {ends[0]: ENGLISH, ends[1]: BPE})
    assert texts(task, tmp_path) == list(zip(ENGLISH, WHOLE, strict=True))


def test_splits_never_come_from_two_preparations(tmp_path):
    """With Google's files complete, a lone test.* of another preparation is not mixed in."""
    for stem in ("train.tok.clean.bpe.32000", "newstest2013.tok.bpe.32000"):
        lay(tmp_path, stem, {"en": ENGLISH, "de": BPE})
    lay(tmp_path, "test", {"en": ("raw",), "de": ("roh",)})
    assert len(texts(wmt14, tmp_path, "train")) == 3
    with pytest.raises(Refused, match=r"newstest2014.tok.bpe.32000.en: no such file"):
        texts(wmt14, tmp_path)


@pytest.mark.parametrize(("there", "back"), BOTH_WAYS)
def test_the_other_way_turns_every_pair_round(tmp_path, there, back):
    lay(tmp_path, "test", dict(zip(there.DIRECTION.sides, (WHOLE, ENGLISH), strict=True)))
    assert texts(back, tmp_path) == [(b, a) for a, b in texts(there, tmp_path)]


def test_files_of_different_length_are_refused(tmp_path):
    lay(tmp_path, "test", {"de": BPE, "en": ENGLISH[:2]})
    with pytest.raises(Refused, match=r"test.de has 3 lines and .*test.en has 2"):
        texts(iwslt14, tmp_path)


@pytest.mark.parametrize(("split", "left"), [("train", 2), ("test", 3)])
def test_an_empty_line_is_refused_or_counted_and_shifts_no_test_pair(tmp_path, split, left):
    lay(tmp_path, split, {"de": (BPE[0], "", BPE[2]), "en": ENGLISH})
    with pytest.raises(Refused, match=r"line 2: empty source"):
        texts(iwslt14, tmp_path, split)
    skipped: Counter = Counter()
    found = list(iwslt14.read(tmp_path, split, skipped))
    assert [len(found), skipped] == [left, {"empty source": 1}]
    assert found[-1] == Pair(f"{split}-3", WHOLE[2], (ENGLISH[2],))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.__name__.rpartition(".")[2])
def test_what_a_task_saves_it_reads(tmp_path, task):
    wanted = {
        split: [Pair(f"{split}-{n}", f"{split} \u2028 {n}", (f"ziel\x0c {n}",)) for n in (1, 2)]
        for split in text_pairs.SPLITS
    }
    for split, some in wanted.items():
        assert task.save(tmp_path / "new", split, some) == 2
    assert {split: list(task.read(tmp_path / "new", split)) for split in wanted} == wanted


def test_a_line_feed_inside_a_text_is_not_saved(tmp_path):
    with pytest.raises(Refused, match="train-1: a line feed inside its text"):
        iwslt14.save(tmp_path, "train", [Pair("train-1", "a\nb", ("c",))])
    assert not (tmp_path / "train.de").exists()


def test_scores_are_fairseqs_and_say_so():
    row = Predictions(Path("x"), {}, ["1"], ["q"], ["a b c d e"], [["a b c d e"]])
    for task in TASKS[:-1]:
        scores = scoring.scores(row, task, scoring.metrics(task, []), "plain")
        assert list(scores) == ["bleu fairseq"]


def test_raw_text_under_a_metric_of_tokens_is_doubted(data):
    """iwslt14 also reads raw files, and fairseq's BLEU of those is a number that nobody has."""
    raw = [pair.targets[0].strip() for pair in scitldr.read(data, "test")]
    ends = sum(text[-1] in ".!?" for text in raw)
    assert ends > len(raw) / 2
    tokens = [re.sub(r"([.,!?])", r" \1", text) for text in raw]
    for mode in ("fairseq", "compound"):
        said = bleu.signature(raw, [[text] for text in raw], mode=mode)
        assert said.endswith(
            f"; doubtful: {ends} of {ends} full stops at an end touch a word, as in raw text, "
            "whose BLEU is --metric bleu"
        )
        assert "doubtful" not in bleu.signature(tokens, [[text] for text in tokens], mode=mode)
        assert "doubtful" not in bleu.signature(["x"], [["no stop"]], mode=mode)
    assert "doubtful" not in bleu.signature(raw, [[text] for text in raw])


# Of JANUS' scripts: lr, dropout, weight decay, tokens x GPUs x accumulation, seed.
PUBLISHED = {
    "iwslt14": (5e-4, 0.3, 1e-4, (4096, 2, 1), 2048),
    "wmt14": (7e-4, 0.2, 0.01, (8192, 4, 4), 64),
    "wmt16": (7e-4, 0.3, 0.01, (8192, 4, 1), 64),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_run_files_hold_the_published_settings(name):
    lr, dropout, decay, (tokens, gpus, accumulation), seed = PUBLISHED[name]
    run = load(ROOT / f"finetune/runs/{name}_janus.toml")
    assert (run.task, run.out) == (name, f"runs/{name}/janus")
    assert run.objective == {"name": "janus"}
    assert run.optimizer.lr == lr
    assert (run.optimizer.weight_decay, tuple(run.optimizer.betas)) == (decay, (0.9, 0.98))
    assert (run.schedule.name, run.schedule.warmup) == ("inverse_sqrt", 10000)
    assert (run.schedule.start, run.train.steps) == (1e-7, 200_000)
    assert (run.model["preset"], run.model["dropout"]) == ("iwslt", dropout)
    sizes = (run.model.get("ffn", 1024), run.model.get("heads", 4))
    assert sizes == ((1024, 4) if name == "iwslt14" else (2048, 8))
    assert (run.train.accumulate, run.train.clip, run.train.seed) == (accumulation, 0.0, seed)
    # Examples, not tokens: the same budget at 28 to 32 tokens a pair, in equal parts per process.
    assert 28 <= tokens * gpus * accumulation / run.train.batch <= 32.5
    assert run.train.batch % (gpus * accumulation) == 0
    assert (run.loss.normalize, run.packing.encoder_passes) == ("microbatch", 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "stem", "ends"),
    [
        ("iwslt14", "iwslt14.tokenized.de-en/train", ("de", "en")),
        ("wmt14", "wmt16_en_de_bpe32k/train.tok.clean.bpe.32000", ("en", "de")),
        ("wmt16", "wmt16/en-ro/train/corpus.bpe", ("en", "ro")),
    ],
)
def test_the_joint_vocabulary_is_of_the_words_that_its_task_reads(tmp_path, name, stem, ends):
    """Both languages, and no "@@", which the task never shows to the model."""
    lay(tmp_path, stem, dict(zip(ends, (BPE * 9, ENGLISH * 9), strict=True)))
    changes = [f"root={tmp_path}", f"out={tmp_path / 'corpus'}"]
    learn(recipe(str(ROOT / f"data_tools/corpora/{name}.toml"), changes), print)
    words = Tokenizer.load(tmp_path / "corpus" / "tokenizer.json")
    assert load(ROOT / f"finetune/runs/{name}_janus.toml").tokenizer == (
        f"corpora/{name}/tokenizer.json"
    )
    assert not [one for one in words.model.get_vocab() if "@@" in one]
    assert [len(e) for e in words.encode([" haus", " house"])] == [1, 1]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.__name__.rpartition(".")[2])
def test_a_distillation_is_read_by_its_own_task_only(tmp_path, task):
    """Its files may be named as another task's, with the languages swapped."""
    name = task.__name__.rpartition(".")[2]
    for other in TASKS:
        made_for = other.__name__.rpartition(".")[2]
        task.save(tmp_path, "train", [Pair("train-1", "eins", ("one",))])
        (tmp_path / "distill.json").write_text(json.dumps({"about": {"task": made_for}}))
        if made_for == name:
            assert texts(task, tmp_path, "train") == [("eins", "one")]
            continue
        message = f"distill.json: a distillation of task '{made_for}', not of '{name}'"
        with pytest.raises(Refused, match=message):
            texts(task, tmp_path, "train")
