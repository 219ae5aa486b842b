"""A model without an encoder, from plain text to scores: one stack reads source and target."""

import inspect
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import januslm
from januslm import registry
from januslm.config import Refused, load
from januslm.data.sampler import sample_rng
from januslm.decoding import greedy, mask_predict
from januslm.inference import request
from januslm.inference.incremental import IncrementalDecoder
from januslm.interop.export_folder import read_facts
from januslm.layout import NONE
from januslm.model.config import configure
from januslm.model.joint_loss import ModelWithLoss
from januslm.model.transformer import Seq2Seq, parameters, size
from januslm.objective import LossSettings, resolve_objective
from januslm.training.settings import PackingSettings
from pretrain.settings import PretrainRun
from tests.conftest import ROOT
from tests.plain_model import decoded
from tests.samples import (
    OBJECTIVES,
    ROOM,
    SPECIAL,
    VOCABULARY,
    coefficients,
    model,
    packed,
    resolved,
    sentence,
)
from tests.test_pipeline import CORPUS, RUN, TUNE, launch, sentences

NOISES = registry.names("januslm.noise")
BARRED = [SPECIAL.bos, SPECIAL.pad, SPECIAL.unk, SPECIAL.mask]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_plain_text_is_the_targets_slots_alone(name):
    """No source is read, and what is hidden is hidden as of pairs."""
    objective = resolved(name, "pretrain", source_room=0)
    usual, _ = objective.plugin.NOISE["nmt"]
    assert objective.noise == usual
    objective.check_data(False, "run.toml")
    target = sentence(np.random.default_rng(0), 12)
    example = objective.example(None, target, sample_rng(1, 1))
    assert example.layout.rule.source == NONE
    assert len(example.source) == 0
    assert example.layout.slots.position.max() < objective.positions(12)
    if name in ("mlm", "mpnet", "xlnet", "cmlm"):
        hidden = np.setdiff1d(example.layout.slots.goal, [NONE])
        given = example.layout.slots.position[example.layout.slots.token == target[hidden[0]]]
        assert 0 < len(hidden) < 12
        assert name != "cmlm" or not len(given)


@pytest.mark.parametrize("noise", NOISES)
def test_options_of_the_source_alone_change_nothing_that_is_hidden(noise):
    """What SOURCE_ALONE says of a noise is true, and it says it of all that it is true of."""
    plugin = registry.find("januslm.noise", noise)
    idle = set(getattr(plugin, "SOURCE_ALONE", ()))
    known = inspect.signature(plugin.hide).parameters.values()
    options = {p.name: p.default for p in known if p.kind is p.KEYWORD_ONLY}
    target = sentence(np.random.default_rng(0), 300)
    changing = set()
    for name, usual in options.items():
        other = {name: 3 if isinstance(usual, int) else 0.9 * usual or 0.5}
        for seed in range(20):
            hidden = []
            for given in ({}, other):
                try:
                    _, found = plugin.hide(None, target, SPECIAL, sample_rng(1, seed), **given)
                except Refused:
                    _, found = plugin.hide(target, target, SPECIAL, sample_rng(1, seed), **given)
                hidden.append(found)
            if (hidden[0] != hidden[1]).any():
                changing.add(name)
    assert changing == set(options) - idle


TABLES = {
    "noise.name: 'infill' spoils the source alone, and with model.encoder_layers = 0 no encoder "
    "reads one; choose 'none'": {"name": "infill"},
    "noise.rotate: is done to the source alone, and with model.encoder_layers = 0 no encoder "
    "reads one; take it out": {"name": "dual_spans", "rotate": 0.5},
    "noise.masked: is done to the source alone, and with model.encoder_layers = 0 no encoder "
    "reads one; take it out": {"name": "blocks", "masked": 0.9},
}


@pytest.mark.parametrize(("message", "table"), TABLES.items())
def test_what_would_be_done_to_a_source_that_nobody_reads_is_refused(message, table):
    given = {"name": "janus"}, table, LossSettings(), "pretrain", SPECIAL, "r"
    resolve_objective(*given)
    with pytest.raises(Refused) as error:
        resolve_objective(*given, 0)
    assert str(error.value) == f"r: {message}"


def test_a_length_needs_a_source():
    loss = LossSettings(weights={"ce/nar": 1.0, "ce/length": 0.1})
    resolved("cmlm", "nmt", loss, source_room=9).check_data(True, "r")
    with pytest.raises(Refused) as error:
        resolved("cmlm", "pretrain", loss, source_room=0).check_data(False, "r")
    assert str(error.value) == (
        "r: loss.weights: ce/length is told from the source, and plain text has none where "
        "model.encoder_layers is 0"
    )


def test_what_needs_an_encoder_is_refused_without_one():
    stack = configure({"encoder_layers": 0}, 100, "r")
    with pytest.raises(Refused) as error:
        configure({"encoder_layers": 0, "positions": "rotary_cross"}, 100, "r")
    assert str(error.value) == (
        "r: positions 'rotary_cross' turn cross-attention too, and encoder_layers = 0 leaves "
        "none: choose 'rotary', which tells source and target apart by distance"
    )
    with pytest.raises(Refused) as error:
        PackingSettings(encoder_passes=2).check(stack, "r")
    assert str(error.value) == (
        "r: packing.encoder_passes = 2 needs an encoder, and model.encoder_layers is 0; take it out"
    )
    configure({"encoder_layers": 0, "positions": "none", "position_bias": "prophetnet"}, 100, "r")


def test_masks_that_read_a_source_in_their_row_are_told_apart_by_distance():
    stack = replace(configure({"encoder_layers": 0}, 100, "r"), positions="rotary")
    resolved("cmlm", source_room=9).check_fit(stack, "r")
    none = replace(stack, positions="none")
    resolved("cmlm", source_room=9).check_fit(replace(none, position_bias="t5"), "r")
    for room, config in ((0, stack), (9, none)):
        with pytest.raises(Refused) as error:
            resolved("cmlm", source_room=room).check_fit(config, "r")
        assert str(error.value) == (
            "r: model.positions must be one of learned, sinusoidal, or objective.ends true for "
            f"'cmlm': it writes from masks alone, which {config.positions!r} cannot tell apart"
        )


def test_a_stack_has_no_encoder_and_no_cross_attention():
    usual, stack = (configure({"encoder_layers": n}, 300, "r") for n in (2, 0))
    names = set(Seq2Seq(stack).state_dict())
    assert not [n for n in names if n.startswith("encoder.") or "encoder_attn" in n]
    assert names < set(Seq2Seq(usual).state_dict())
    assert size(stack) == parameters(Seq2Seq(stack))
    assert stack.least_parameters <= size(stack) < 1.1 * stack.least_parameters


@torch.no_grad()
def likeliest(net, source, words: list[int]) -> int:
    """The next word after BOS and these, from the model without caches."""
    row = np.array([SPECIAL.bos, *words])
    seen = np.tril(np.ones((len(row), len(row)), bool))
    logits = decoded(net, source, row, np.arange(len(row)), seen)[-1] @ net.embedding.weight.T
    logits[BARRED] = -torch.inf
    return int(logits.argmax())


def test_greedy_is_the_plain_model_word_by_word():
    objective = resolved("ar", source_room=ROOM)
    net, rng = model(objective).eval(), np.random.default_rng(0)
    sources = [np.empty(0, np.int64), *(sentence(rng, n) for n in (3, 9, 16, 5))]
    outputs = greedy.decode(IncrementalDecoder(net, objective), sources, SPECIAL, max_length=12)
    for source, output in zip(sources, outputs, strict=True):
        words: list[int] = []
        while len(words) < 12 and (word := likeliest(net, source, words)) != SPECIAL.eos:
            words.append(word)
        assert output.tokens.tolist() == words
    assert len({tuple(output.tokens) for output in outputs}) > 2


def test_one_pass_of_mask_predict_is_the_plain_model_with_every_word_hidden():
    objective = resolved("cmlm", source_room=ROOM)
    net, rng = model(objective).eval(), np.random.default_rng(1)
    sources = [sentence(rng, n) for n in (3, 9)] + [np.empty(0, np.int64), sentence(rng, 16)]
    decoder = IncrementalDecoder(net, objective)
    given = {"iterations": 1, "length_beam": 3}
    outputs = mask_predict.decode(decoder, sources, SPECIAL, **given)
    for source, output in zip(sources, outputs, strict=True):
        for one in (output, *output.others):
            count = len(one.tokens) + 1  # and EOS
            seen = np.ones((count, count), bool)
            masks, places = np.full(count, SPECIAL.mask), np.arange(1, count + 1)
            with torch.no_grad():
                logits = decoded(net, source, masks, places, seen) @ net.embedding.weight.T
            logits[:, [*BARRED, SPECIAL.eos]] = -torch.inf
            assert one.tokens.tolist() == logits[:-1].argmax(-1).tolist()


def test_without_any_source_it_writes_as_beside_others():
    objective = resolved("janus", source_room=ROOM)
    net = model(objective).eval()
    decoder, nothing = IncrementalDecoder(net, objective), np.empty(0, np.int64)
    beside = sentence(np.random.default_rng(0), 9)
    for way, given in ((greedy, {"max_length": 9}), (mask_predict, {"iterations": 3})):
        alone = way.decode(decoder, [nothing, nothing], SPECIAL, **given)
        [other, _] = way.decode(decoder, [nothing, beside], SPECIAL, **given)
        for one in alone:
            assert one.tokens.tolist() == other.tokens.tolist()
            assert one.score == pytest.approx(other.score, abs=1e-9)


def test_a_text_stops_where_its_row_ends_whatever_its_source_and_batch():
    """Every text has the positions that the longest source leaves, so batches change nothing."""
    objective = resolved("ar", source_room=ROOM)
    net, rng = model(objective, max_positions=ROOM + 9).eval(), np.random.default_rng(0)
    decoder = IncrementalDecoder(net, objective)
    assert decoder.most_words == 8
    sources = [sentence(rng, n) for n in (3, ROOM)]
    given = {"max_length": 99, "min_length": 8}
    for output in greedy.decode(decoder, sources, SPECIAL, **given):
        assert len(output.tokens) == 8


def reversed_words(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A source of two to five words, and the target: the same from behind."""
    words = 5 + rng.permutation(20)[: int(rng.integers(2, 6))]
    bos, eos = [SPECIAL.bos], [SPECIAL.eos]
    return np.concatenate([bos, words, eos]), np.concatenate([bos, words[::-1], eos])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "positions", "least"), [("ar", "rotary", 20), ("cmlm", "learned", 40)]
)
def test_it_writes_what_sources_say_that_it_has_never_seen(name, positions, least):
    """Words, places and, of cmlm, lengths are learnt from the row alone."""
    objective = resolved(name, source_room=ROOM)
    net = model(
        objective, double=False, width=64, ffn=128, heads=4, norm="pre", positions=positions
    )
    for layer in (one for one in net.modules() if hasattr(one, "reset_parameters")):
        layer.reset_parameters()
    for p in (one for one in net.parameters() if one.ndim == 2):
        torch.nn.init.normal_(p, std=0.08)
    trained, rng = ModelWithLoss(net, objective.loss), np.random.default_rng(0)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=3e-3)
    for step in range(300):
        batch = packed(objective, [objective.example(*reversed_words(rng), rng) for _ in range(64)])
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1, (step + 1) / 30) * (1 - step / 300)
        optimizer.zero_grad()
        trained(batch, coefficients(objective.loss.weights, batch))[0].backward()
        optimizer.step()
    pairs = [reversed_words(np.random.default_rng(10**6 + i)) for i in range(50)]
    way, given = (greedy, {"max_length": 9}) if name == "ar" else (mask_predict, {"iterations": 2})
    decoder = IncrementalDecoder(net.eval(), objective)
    outputs = way.decode(decoder, [source for source, _ in pairs], SPECIAL, **given)
    right = [
        output.tokens.tolist() == target[1:-1].tolist()
        for output, (_, target) in zip(outputs, pairs, strict=True)
    ]
    assert sum(right) >= least, sum(right)


# From the command line

STACK = ("model.encoder_layers=0", "packing.samples=1")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A corpus, pairs, and a run file of a tiny model for each."""
    place = tmp_path_factory.mktemp("shapes")
    lines = sentences()[:200]
    (place / "plain.txt").write_text("\n".join(lines))
    (place / "corpus.toml").write_text(CORPUS.format(out=place / "corpus"))
    for verb in ("tokenizer", "build"):
        launch("data", verb, place / "corpus.toml", f"root={place}")
    (place / "run.toml").write_text(RUN.format(out=place / "pre", corpus=place / "corpus"))
    (place / "docsum").mkdir()
    for split, part in (("train", lines[:40]), ("valid", lines[40:50]), ("test", lines[50:60])):
        rows = [
            {"id": f"{split}-{i}", "package": split, "source": line, "target": line[:30]}
            for i, line in enumerate(part)
        ]
        (place / "docsum" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    tune = TUNE.partition("[loss]")[0] + "[train]\nsteps = 2\nbatch = 4\n[schedule]\nwarmup = 1\n"
    (place / "tune.toml").write_text(
        tune.format(out=place / "tuned", start=place / "pre", root=place / "docsum")
    )
    return place


@pytest.fixture(scope="module")
def pretrained(base):
    """A function: the folder of a stack that has learnt an objective from plain text."""
    made = {}

    def pretrain(name: str):
        if name not in made:
            made[name] = base / name
            words = (*STACK, f"objective.name={name}", f"out={made[name]}")
            launch("pretrain", base / "run.toml", *words)
        return made[name]

    return pretrain


@pytest.mark.slow
@pytest.mark.long
def test_a_stack_goes_on_bit_for_bit(base, pretrained):
    whole, parts = pretrained("block"), base / "parts"
    words = ("pretrain", base / "run.toml", *STACK, "objective.name=block", f"out={parts}")
    launch(*words, "train.steps=2")
    assert "going on from step-00000002" in launch(*words)
    one, two = (load_file(run / "export" / "model.safetensors") for run in (whole, parts))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not [name for name in one if "encoder" in name]
    logs = [(run / "valid.jsonl").read_text().splitlines()[-1] for run in (whole, parts)]
    first, second = ({k: v for k, v in json.loads(log).items() if "/" in k} for log in logs)
    assert first == second


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("learnt", "tuned", "ways"),
    [
        ("mlm", "cmlm", ("mask_predict",)),
        ("block", "block", ("greedy", "draft")),
        ("mpnet", "janus", ("greedy", "speculative")),
    ],
)
def test_a_stack_of_plain_text_is_tuned_on_pairs_and_decoded(base, pretrained, learnt, tuned, ways):
    out = base / f"{learnt}-{tuned}"
    words = [f"start={pretrained(learnt)}", f"objective.name={tuned}", f"out={out}"]
    if tuned != "cmlm":
        words += ['validate.metrics=["rouge"]', "validate.texts=2"]
    said = launch("finetune", base / "tune.toml", *words)
    assert "done: step 2" in said
    assert "Traceback" not in said
    for way in ways:
        launch("generate", out, "--algorithm", way, "--batch", 4, "--limit", 9)
    files = sorted((out / "predictions").glob("*.jsonl"))
    rows = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
    texts = [[row["prediction"] for row in one if "prediction" in row] for one in rows]
    assert [len(one) for one in texts] == [9] * len(ways)
    assert texts == texts[:1] * len(ways), "a draft changes nothing of what greedy writes"
    assert len(januslm.load(out).generate(["Open a file."], algorithm=ways[0])) == 1
    if tuned == "block":
        assert "rouge-1" in launch("evaluate", out / "predictions")
        error = launch("export", out, base / "hf", code=2)
        assert "has no encoder (model.encoder_layers is 0): neither transformers' BART" in error
        assert not (base / "hf").exists()


@pytest.mark.slow
def test_a_stack_of_plain_text_alone_reads_no_source(base, tmp_path):
    words = ("pretrain", base / "run.toml", *STACK, "objective.name=ar", f"out={tmp_path / 'lm'}")
    launch(*words, "train.steps=1", "train.validate_every=1")
    facts = read_facts(tmp_path / "lm")
    with pytest.raises(Refused, match="was trained on plain text alone, so it has never read a so"):
        request.limits(facts)
    with pytest.raises(Refused, match="fine-tune it on pairs"):
        januslm.load(tmp_path / "lm").generate(["A text."])
    # Of nothing it writes a text, which boards show.
    decoder = januslm.load(tmp_path / "lm").incremental()
    [output] = greedy.decode(decoder, [np.empty(0, np.int64)], facts.tokenizer.special)
    assert len(output.tokens) >= 0
    words = ("finetune", base / "tune.toml", f"start={tmp_path / 'lm'}", "objective.name=ar")
    error = launch(*words, f"out={tmp_path / 'x'}", "data.max_source=1010", code=2)
    assert error.endswith(
        "data.max_source = 1010 and data.max_target = 16 share a row where model.encoder_layers is "
        "0: it takes 1027 positions, model.max_positions is 1024\n"
    )


RUNS = ("bert", "mpnet", "xlnet", "block_lm")


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_published_shape_is_what_its_run_file_says(name):
    run = load(PretrainRun, ROOT / "pretrain" / "runs" / f"{name}.toml")
    objective = resolve_objective(run.objective, run.noise, run.loss, "pretrain", SPECIAL, name, 0)
    config = configure(run.model, VOCABULARY, name, objective.extra_vectors)
    objective.check_fit(config, name)
    objective.check_data(False, name)
    assert not config.has_encoder
    assert objective.positions(run.data.length + 1) <= config.max_positions
