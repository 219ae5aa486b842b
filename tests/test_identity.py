"""A run goes on as itself: what changed is said, what would change samples is refused."""

import argparse
import json
import shutil

import pytest

from januslm.config import Refused
from januslm.data import sealed
from januslm.data.tokenizer import train_tokenizer
from januslm.launch.job import Job
from januslm.training import history
from januslm.training.begin import start_of
from januslm.training.run_dir import Start, check_folder, mark, opened
from tests.launching import finish
from tests.ranks import laid, started
from tests.test_translation import ENGLISH, WHOLE, lay

CONFIG = {
    "out": "a",
    "tokenizer": "t.json",
    "tokenizer_sha256": "12ab",
    "model": {"width": 8},
    "objective": {"name": "ar"},
    "noise": {"name": "none"},
    "loss": {"weights": {"ce/ar": 1.0}, "normalize": "tokens", "rise": (0, 0)},
    "data": {
        "train": [{"corpus": "x", "weight": 1}, {"corpus": "y", "weight": 2}],
        "fingerprints": ["f1", "f2"],
        "length": 64,
        "verify": "full",
    },
    "train": {"seed": 1, "batch": 8, "steps": 10, "save_every": 5, "accumulate": 1},
    "optimizer": {"lr": 0.1, "eps": 1e-8},
    "schedule": {"warmup": 3},
}


def with_change(key: str, value) -> dict:
    """CONFIG with another value at a dotted key."""
    found = json.loads(json.dumps(CONFIG))
    *parents, last = key.split("/")
    table = found
    for name in parents:
        table = table[int(name) if name.isdecimal() else name]
    table[last] = value
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("out", "b", "out: 'a' -> 'b'"),
        ("data/train/0/corpus", "z", "data.train[0].corpus: 'x' -> 'z'"),
        ("train/steps", 20, "train.steps: 10 -> 20"),
        ("train/accumulate", 2, "train.accumulate: 1 -> 2"),
        ("optimizer/lr", 0.2, "optimizer.lr: 0.1 -> 0.2"),
        ("schedule/warmup", 4, "schedule.warmup: 3 -> 4"),
        ("data/verify", "lazy", "data.verify: 'full' -> 'lazy'"),
    ],
)
def test_what_changes_no_sample_and_no_objective_is_said(tmp_path, key, value, said):
    opened(tmp_path, CONFIG, 10)
    found = opened(tmp_path, with_change(key, value), 10)
    assert found.notes == [f"changed: {said}"]
    assert opened(tmp_path, with_change(key, value), 10).changes == {}, "said once"


@pytest.mark.parametrize(
    ("key", "value", "allow"),
    [
        ("train/seed", 2, "train.seed"),
        ("train/batch", 4, "train.batch"),
        ("noise/name", "spans", "noise"),
        ("loss/weights", {"ce/ar": 2.0}, "loss.weights.ce/ar"),
        ("data/length", 32, "data.length"),
        ("data/train/1/weight", 1, "data.train[1].weight"),
        ("optimizer/eps", 1e-6, "optimizer.eps"),
    ],
)
def test_what_changes_samples_or_the_objective_needs_to_be_allowed(tmp_path, key, value, allow):
    opened(tmp_path, CONFIG, 10)
    new = with_change(key, value)
    with pytest.raises(Refused) as error:
        opened(tmp_path, new, 10)
    dotted = str(error.value).removeprefix(f"{tmp_path}: ").split(" was ")[0]
    assert f"--allow {dotted} if that is meant" in str(error.value)
    before = sealed.read(tmp_path / "config.json")
    assert before == json.loads(json.dumps(CONFIG)), "a refused start leaves nothing"
    assert list(opened(tmp_path, new, 10, Start(allow=(allow,))).changes) == [dotted]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model/width", 16),
        ("objective/name", "janus"),
        ("tokenizer_sha256", "99"),
        ("data/fingerprints", ["f1", "f3"]),
    ],
)
def test_another_run_is_refused_whatever_is_allowed(tmp_path, key, value):
    opened(tmp_path, CONFIG, 10)
    with pytest.raises(Refused, match="holds another run: there "):
        opened(tmp_path, with_change(key, value), 10, Start(allow=("train", "data", "model")))


def test_accumulation_changes_the_objective_where_each_micro_batch_is_a_mean(tmp_path):
    each = with_change("loss/normalize", "microbatch")
    opened(tmp_path, each, 10)
    each["train"]["accumulate"] = 2
    with pytest.raises(Refused, match=r"train\.accumulate was 1 and is now 2, while"):
        opened(tmp_path, each, 10)


def test_a_key_to_allow_that_no_run_has_is_refused_with_a_guess(tmp_path):
    with pytest.raises(Refused, match=r"--allow train.sed: no such key; .* mean 'train.seed'\?"):
        check_folder(tmp_path, CONFIG, Start(allow=("train.sed",)))


@pytest.mark.slow
def test_a_configuration_that_is_gone_or_damaged_is_refused_with_the_way_out(tmp_path):
    opened(tmp_path, CONFIG, 10)
    whole = (tmp_path / "config.json").read_bytes()
    for place in range(0, len(whole) * 8, 7):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        (tmp_path / "config.json").write_bytes(flipped)
        try:
            said = repr(check_folder(tmp_path, CONFIG))
        except Refused as error:
            said = str(error)
        named = said.startswith(f"{tmp_path / 'config.json'}: ") and "--from-scratch" in said
        assert named or said == "{}", place  # white space, or the like
    (tmp_path / "config.json").unlink()
    assert check_folder(tmp_path, CONFIG) == {}, "nothing was learnt there yet"
    history.add(tmp_path, "saved", step=5)
    with pytest.raises(Refused) as error:
        check_folder(tmp_path, CONFIG)
    assert str(error.value) == (
        f"{tmp_path / 'config.json'} is gone, but the run has a checkpoint of step 5 in its "
        "history.jsonl: put it back, --allow config.json to take what this start says for it, or "
        "--from-scratch"
    )
    assert check_folder(tmp_path, CONFIG, Start(allow=("config.json",))) == {}


@pytest.mark.slow
def test_no_bit_of_the_mark_of_a_finished_run_is_believed_if_changed(tmp_path):
    opened(tmp_path, CONFIG, 10)
    facts = {"code": 0, "step": 10, "loss": 1.5, "validation": {"loss": 2.0}}
    mark(tmp_path, facts)
    whole = (tmp_path / "done").read_bytes()
    for place in range(len(whole) * 8):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        (tmp_path / "done").write_bytes(flipped)
        assert opened(tmp_path, CONFIG, 10).done in (None, facts), place


def test_from_scratch_moves_aside_and_deletes_nothing(tmp_path):
    opened(tmp_path, CONFIG, 10)
    (tmp_path / "checkpoints" / "step-00000005").mkdir(parents=True)
    (tmp_path / "logs").mkdir()
    history.add(tmp_path, "saved", step=5)
    other = with_change("model/width", 16)
    [note] = opened(tmp_path, other, 10, Start(from_scratch=True)).notes
    [aside] = tmp_path.glob("before-*")
    assert note == f"starting from scratch; what was there is in {aside}"
    assert sorted(path.name for path in aside.iterdir()) == [
        "checkpoints",
        "config.json",
        "history.jsonl",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == [aside.name, "config.json", "logs"]


def test_a_restart_does_not_begin_from_scratch_once_more(monkeypatch):
    options = argparse.Namespace(allow=["train.seed"], from_scratch=True)
    for count, scratch in ((None, True), ("0", True), ("1", False)):
        if count is not None:
            monkeypatch.setenv("SLURM_RESTART_COUNT", count)
        assert start_of(options) == Start(("train.seed",), scratch)
    job = Job("pretrain", ("run.toml", "--from-scratch", "--allow", "train.seed"), {"a": 1})
    assert job.again.arguments == ("run.toml", "--allow", "train.seed")
    assert Job("pretrain", ("--from", "--fp=3"), {"a": 1}).again.arguments == ("--fp=3",)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return laid(tmp_path_factory.mktemp("identity"))


@pytest.mark.long
@pytest.mark.slow
def test_a_run_that_has_learnt_never_begins_anew_by_itself(base):
    def run(*words: str) -> tuple[list[int], str]:
        return finish(started(base, "out=life", "train.keep=1", *words, processes=1))

    codes, said = run("train.steps=3")
    assert codes == [0], said
    folder = base / "life"
    events = [event["event"] for event in history.read(folder)]
    assert events == ["start", "saved", "stop"]
    codes, said = run("train.steps=6", "train.seed=2")
    assert codes == [2], said
    assert said.startswith("error: life: train.seed was 1 and is now 2, while the run goes on: ")
    shutil.move(base / "corpus", base / "moved")
    try:
        corpora = [f'data.{s}=[{{corpus="{base}/moved/{s}"}}]' for s in ("train", "valid")]
        codes, said = run("train.steps=6", "train.seed=2", "--allow", "train.seed", *corpora)
    finally:
        shutil.move(base / "moved", base / "corpus")
    assert codes == [0], said
    for line in (
        "changed: train.seed: 1 -> 2",
        f"changed: data.train[0].corpus: '{base}/corpus/train' -> '{base}/moved/train'",
        "going on from step-00000003, after 12 samples",
    ):
        assert f"{line}\n" in said
    last = [event for event in history.read(folder) if event["event"] == "start"][-1]
    assert last["changes"]["train.seed"] == [1, 2]

    words = ("train.steps=9", "train.seed=2")
    weights = next((folder / "checkpoints" / "step-00000006").rglob("*.pt"))
    weights.write_bytes(weights.read_bytes()[:-9])
    log = (folder / "train.jsonl").read_bytes()
    codes, said = run(*words)
    assert codes == [2], said
    refusal = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(refusal) == 1
    assert "life: no checkpoint can be gone on from, but the run has a checkpoint" in refusal[0]
    assert f"damaged: step-00000006 is not complete: {weights.name} has " in refusal[0]
    assert "--from-scratch" in refusal[0]
    assert weights.exists()
    assert (folder / "train.jsonl").read_bytes() == log
    shutil.rmtree(folder / "checkpoints")
    codes, said = run(*words)
    assert codes == [2], said
    codes, said = run(*words, "--from-scratch", "train.steps=2")
    assert codes == [0], said
    [aside] = folder.glob("before-*")
    assert (aside / "train.jsonl").read_bytes() == log


@pytest.mark.slow
def test_another_zero_stage_is_refused_before_torch_comes(base):
    codes, said = finish(started(base, "out=zero", "train.steps=3", processes=1))
    assert codes == [0], said
    command = ("out=zero", "train.steps=4", "--ds", "zero2_bf16", "--check", "1")
    codes, said = finish(started(base, *command, processes=1))
    assert codes == [2], said
    assert "step-00000003 was written with ZeRO stage 2 in fp32, " in said
    assert "zero2_bf16 asks for stage 2 in bf16: keep the former" in said


TUNE = """
out = "{base}/tuned"
task = "iwslt14"
tokenizer = "{base}/words.json"
[data]
root = "{base}/pairs"
max_source = 40
max_target = 20
[model]
width = 16
ffn = 32
heads = 2
encoder_layers = 1
decoder_layers = 1
positions = "learned"
[train]
steps = 2
batch = 2
[schedule]
warmup = 1
[packing]
samples = 0
"""


@pytest.mark.long
@pytest.mark.slow
def test_fine_tuning_does_not_go_on_with_other_pairs_under_the_same_path(tmp_path):
    for split in ("train", "valid"):
        lay(tmp_path / "pairs", split, {"de": WHOLE, "en": ENGLISH})
    train_tokenizer(["das haus", "the house"] * 9, 265, tmp_path / "words.json")
    (tmp_path / "run.toml").write_text(TUNE.format(base=tmp_path))

    def run(*words: str) -> tuple[list[int], str]:
        return finish(started(tmp_path, *words, processes=1, verb="finetune"))

    codes, said = run()
    assert codes == [0], said
    shutil.copytree(tmp_path / "pairs", tmp_path / "moved")
    codes, said = run("train.steps=3", f"data.root={tmp_path / 'moved'}")
    assert codes == [0], said
    root = tmp_path.resolve()
    assert f"changed: data.root: '{root / 'pairs'}' -> '{root / 'moved'}'" in said
    lay(tmp_path / "moved", "train", {"de": WHOLE, "en": ENGLISH[::-1]})
    codes, said = run("train.steps=4", f"data.root={tmp_path / 'moved'}")
    assert codes == [2], said
    [line] = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "data.pairs.train was '" in line
    assert "--allow data.pairs.train if that is meant" in line
    [replay] = started(tmp_path, processes=1, verb="finetune.replay", given=("tuned", "3"))
    codes, said = finish([replay])
    assert codes == [0], said
    assert "weights of tuned/checkpoints/step-00000002, after step 2" in said
    assert "0 of 2 examples have terms that are not finite" in said
