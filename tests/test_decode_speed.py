"""The speed tables compare equals: what they check can fail, and ratios are paired."""

import statistics

import numpy as np
import pytest
import torch

from benchmarks import decode_speed, decode_trained, same_bart, timing
from benchmarks.cli_runs import Way
from benchmarks.decode_vs_others import ENOUGH, systems
from benchmarks.timing import Ratio, Spent
from januslm import registry as folder_of

CPU = torch.device("cpu")
SMALL = dict(
    d_model=32,
    encoder_ffn_dim=48,
    decoder_ffn_dim=48,
    encoder_layers=2,
    decoder_layers=2,
    encoder_attention_heads=4,
    decoder_attention_heads=4,
    max_position_embeddings=32,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small BART; its weights are wide enough that every part of it moves the logits."""
    pytest.importorskip("transformers", reason="transformers is a dev dependency")
    place = tmp_path_factory.mktemp("bart")
    torch.manual_seed(0)
    same_bart.write(place, SMALL | {"init_std": 0.2})
    return place


@pytest.fixture
def programs(folder):
    return same_bart.load(folder, CPU, half=False)


def sentences(count, size, seed=0):
    rng = np.random.default_rng(seed)
    return [np.array([0, *rng.integers(5, same_bart.VOCABULARY, size), 2]) for _ in range(count)]


def test_all_programs_mean_the_same_by_one_folder(programs):
    found = same_bart.apart(programs, sentences(3, 7), 9)
    assert {"past", "next"} <= set(found)
    assert max(found.values()) < ENOUGH
    assert set(same_bart.same_words(programs, sentences(3, 7), 9).values()) == {3}


@pytest.mark.parametrize(
    "part", ["decoder.layers.1.encoder_attn.q_proj.bias", "encoder.layers.0.fc1.weight"]
)
def test_another_weight_in_one_program_is_noticed(programs, part):
    with torch.no_grad():
        parameter = programs.model.get_parameter(part)
        parameter.copy_(parameter.roll(1, 0) + 0.05)
    assert same_bart.apart(programs, sentences(2, 7), 5)["past"] > ENOUGH


@pytest.mark.slow
def test_every_system_is_forced_to_the_length(programs):
    calls = systems(programs, sentences(2, 6), tokens=8)
    for call in calls.values():
        call()  # asserts its own lengths
    assert {"HF beam 5", "beam 5", "beam 5, past", "NAR 1", "NAR 10 x 3"} <= set(calls)


def test_the_table_has_algorithms_with_options_that_they_know():
    for way in decode_trained.WAYS:
        algorithm = folder_of.find("januslm.decoding", way.algorithm)
        chosen = folder_of.options(algorithm.decode, way.options, way.name)
        assert way.options.items() <= chosen.items()
    names = [way.name for way in decode_trained.WAYS]
    assert len(set(names)) == len(names)


def test_systems_take_turns_and_warming_up_does_not_count():
    order = []
    runs = {name: lambda name=name: order.append(name) for name in "abc"}
    times = timing.turns(runs, rounds=3, warm=2, device=CPU)
    assert {name: len(each) for name, each in times.items()} == dict.fromkeys("abc", 3)
    assert "".join(order) == "abccbaabccbaabc"


def test_a_ratio_is_the_median_of_pairs_not_of_medians():
    base, system = [4.0, 10.0, 6.0], [2.0, 1.0, 6.0]
    found = timing.ratio(base, system)
    assert (found.median, found.low, found.high) == (2.0, 1.0, 10.0)
    assert found.median != statistics.median(base) / statistics.median(system)


def test_latency_and_throughput_are_of_the_medians_of_rounds():
    # Three sentences, two rounds each; then all three at once.
    alone = [[Spent(c, 2 * c) for c in pair] for pair in ((0.1, 0.3), (0.2, 0.2), (1.0, 3.0))]
    times = {"w": {1: alone, 3: [[Spent(0.5, 1.0), Spent(1.5, 3.0)]]}}
    facts = {"file": "w.jsonl", "settings": {}, "passes": 4.0, "tokens": 24, "sentences": 3}
    quality = {"w.jsonl": {"bleu": (30.0, 1.5)}}
    made = decode_trained.Written([], [], [], facts)
    row = decode_trained.row(Way("w", "greedy"), made, quality, times, CPU)
    each = [200.0, 200.0, 2000.0]
    for kind, factor in (("cpu", 1), ("wall", 2)):
        for q in (50, 95):
            want = np.percentile(each, q) * factor
            assert row["ms_at_batch_1"][f"{kind} p{q}"] == pytest.approx(want)
    assert row["sentences_per_second"] == pytest.approx({"1": 3 / 2.4, "3": 3 / 1.0})
    assert row["best_batch"] == 3
    assert row["tokens_per_pass"] == pytest.approx(2.0)
    assert row["scores"] == {"bleu": [30.0, 1.5]}


@pytest.mark.parametrize(
    ("identical", "fewer", "nar", "missed"),
    [
        (100, 2.0, 3.0, []),
        (99, 2.0, 3.0, ["99 of 100"]),
        (100, 1.7, 3.0, ["1.70x fewer passes"]),
        (100, 2.0, 2.4, ["2.40x, floor 2.5x"]),
    ],
)
def test_a_floor_that_is_missed_is_named(identical, fewer, nar, missed):
    verified = {"identical": identical, "fewer_passes": fewer}
    rows = {"speculative, three readings": {"verified": verified}}
    ratios = {"AR beam 5 / NAR 4": Ratio(nar, nar, nar)}
    found = decode_trained.judged(rows, ratios, 100, CPU)
    assert len(found) == len(missed)
    assert all(part in line for part, line in zip(missed, found, strict=True))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--run", "nowhere"], "nowhere"),
        (["--run", "x", "--limit", "0"], "--limit must be at least 1, got 0"),
        (["--limit", "5"], "go with --run"),
        (["--graphs", "--device", "cpu"], "only a CUDA device"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(words, says, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["decode_speed", *words])
    assert decode_speed.main() == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
