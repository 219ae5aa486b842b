"""The model in the repository: its card is true, and it translates three ways."""

import json
import os
import re
import subprocess
import sys
from pathlib import PurePath

import pytest

import januslm
from januslm.interop.export_folder import read_facts
from tests.conftest import ROOT

FOLDER = ROOT / "models" / "multi30k-de-en"
CARD = (FOLDER / "README.md").read_text(encoding="utf-8")
# German sentences of ours, and words that their translation must have.
SENTENCES = {
    "Ein Mann fährt mit dem Fahrrad durch den Park.": ("man", "bike|bicycle", "park"),
    "Zwei Hunde spielen im Schnee.": ("two dogs", "play", "snow"),
    "Eine Frau in einem roten Kleid singt.": ("woman", "red dress", "sing"),
    "Kinder sitzen an einem Tisch und essen.": ("child|kids", "table", "eat"),
    "Ein kleines Mädchen springt ins Wasser.": ("little|small|young", "girl", "jump", "water"),
}


def strings(value):
    """Every text in a value of JSON."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        return [text for one in value for text in strings(one)]
    return [value] if isinstance(value, str) else []


def test_it_is_small_and_brings_no_path_of_a_machine():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 16e6
    config = json.loads((FOLDER / "config.json").read_text())
    assert not [text for text in strings(config) if PurePath(text).is_absolute()]


def test_the_card_says_what_it_is_and_what_it_can():
    facts = read_facts(FOLDER)
    train = facts.about["train"]
    assert f"| training | steps {train['steps']}, batch {train['batch']}, seed" in CARD
    assert f"objective | {facts.objective} " in CARD
    assert "29,000 pairs" in CARD
    assert "Licence" in CARD
    greedy, speculative = (
        float(re.search(rf"test, {way} \| bleu ([\d.]+)", CARD)[1])
        for way in ("AR greedy", "speculative")
    )
    assert greedy == speculative > 40


@pytest.mark.slow
def test_it_translates_word_by_word_all_at_once_and_speculatively():
    model = januslm.load(FOLDER)
    assert sum(p.numel() for p in model.parameters()) < 8e6
    ar = model.generate(SENTENCES)
    assert model.generate(SENTENCES, algorithm="speculative") == ar
    nar = model.generate(SENTENCES, algorithm="mask_predict", iterations=4)
    for german, *english in zip(SENTENCES, ar, nar, strict=True):
        for text in english:
            for word in SENTENCES[german]:
                assert re.search(word, text.lower()), (german, text)


@pytest.mark.slow
def test_the_readmes_third_command_writes_a_line_in_three_ways():
    [line] = re.findall(
        r"^\./launch\.sh (write models/\S+)", (ROOT / "README.md").read_text(), re.M
    )
    done = subprocess.run(
        [ROOT / "launch.sh", *line.split()],
        input=next(iter(SENTENCES)),
        cwd=ROOT,
        env=os.environ | {"JANUSLM_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    labels = [row.split()[0] for row in done.stdout.splitlines() if row[:1].strip()]
    assert {"AR", "NAR", "speculative"} <= set(labels), done.stdout
    assert done.stdout.count("A man") >= 2


@pytest.mark.slow
def test_the_cards_example_runs():
    [code] = re.findall(r"```python\n(.*?)```", CARD, re.S)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=FOLDER.parent,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
