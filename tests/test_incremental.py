"""Reading with caches gives what the training pass gives."""

import inspect
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from januslm.data.tokenizer import Special
from januslm.inference.incremental import IncrementalDecoder
from januslm.inference.onednn_linear import Packed
from januslm.layout import Example
from januslm.model.config import ModelConfig
from januslm.model.packing import Packer
from januslm.model.transformer import Seq2Seq
from januslm.objective import LossSettings, resolve_objective
from januslm.registry import constant, find, names
from tests.samples import ROOM, named

V = 23
SPECIAL = Special(vocabulary=V)
LIVELY = 0.3
SLOW = pytest.mark.slow


def built(
    name="janus", read="next", query_position="input", dtype=torch.float64, room=None, **config
):
    """A small random model in eval mode with its objective: "NAME option=value switch".

    room: of a source that shares its row with the target; None: there is an encoder.
    """
    name, given = named(name)
    asked = dict(read=read, query_position=query_position) | given
    known = inspect.signature(find("januslm.objectives", name).layout).parameters
    options = {key: value for key, value in asked.items() if key in known}
    objective = resolve_objective(
        {"name": name, **options}, {}, LossSettings(), "nmt", SPECIAL, "test", room
    )
    sizes = dict(vocabulary=V, width=16, ffn=24, heads=2, encoder_layers=2, decoder_layers=2)
    sizes |= dict(max_positions=40, max_length=30, extra_vectors=objective.extra_vectors)
    if room is not None:
        sizes |= dict(encoder_layers=0, max_positions=40 + room)
    model = Seq2Seq(ModelConfig(**sizes | config))
    for p in model.parameters():  # lively: what is written depends on the source
        if p.ndim > 1:
            torch.nn.init.normal_(p, std=LIVELY)
        else:
            p.data += 0.1 * torch.randn_like(p)
    return model.to(dtype).eval(), objective


def sentence(rng, words):
    return np.array([0, *rng.integers(5, V, words), 2])


def taught(model, objective, sources, targets, hidden=None):
    """Logits of the packed training pass by (stream, example): [T - 1 or holes, V]."""
    hidden = hidden or [np.zeros(len(t), bool) for t in targets]
    examples = [
        Example(s, t, objective.layout(t, h, np.random.default_rng(0)))
        for s, t, h in zip(sources, targets, hidden, strict=True)
    ]
    if objective.source_room is not None:
        examples = [replace(e, layout=e.layout.behind(e.source)) for e in examples]
    batch = Packer(objective.loss.weights)(examples)
    logits = model(batch)[0] @ model.vocabulary_weight().T
    out = {}
    for loss_group in batch.loss_groups:
        for name, rows in zip(loss_group.distributions, loss_group.rows, strict=True):
            out.setdefault(name, []).append((rows, logits[rows]))
    order = {name: torch.cat([r for r, _ in parts]).argsort() for name, parts in out.items()}
    return {
        name: torch.cat([x for _, x in parts])[order[name]].detach() for name, parts in out.items()
    }


KINDS, BIASES = names("januslm.model.positions"), names("januslm.model.position_bias")
ALONE = [one for one in BIASES if constant("januslm.model.position_bias", one, "ENCODER", True)]
PLACES = [*KINDS, *(f"none {one}" for one in ALONE), *(f"learned {one}" for one in BIASES)]
ALL = [  # without --quick; with it those that a JANUS of the usual form is
    pytest.param(*one, marks=[] if one[1] == "input" and one[4:6] == (True, "janus") else SLOW)
    for one in itertools.product(
        ("next", "past"),
        ("input", "target"),
        ("post", "pre"),
        PLACES,
        (True, False),
        ("ar", "janus"),
        (None,),
    )
]
ONE_ROW = itertools.product(
    ("next", "past"),
    ("target",),
    ("post", "pre"),
    [*(place for place in PLACES if place != "rotary_cross"), "none prophetnet"],
    (True,),
    ("janus",),
    (ROOM,),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("read", "place", "norm", "positions", "tied", "name", "room"), [*ALL, *ONE_ROW]
)
def test_step_by_step_logits_are_those_of_the_training_pass(
    read, place, norm, positions, tied, name, room
):
    kind, _, bias = positions.partition(" ")
    style = dict(norm=norm, positions=kind, position_bias=bias, tied=tied)
    model, objective = built(name, read, place, room=room, **style)
    rng = np.random.default_rng(1)
    sources = [sentence(rng, n) for n in (3, 6, 4)]
    targets = [sentence(rng, 5) for _ in range(3)]
    want = taught(model, objective, sources, targets)["ar"].view(3, -1, V)
    want = want[:, 1:] if place == "target" else want  # there the first goal is BOS itself
    decoder = IncrementalDecoder(model, objective)
    state = decoder.start(sources)
    logits = [decoder.step(state)]
    for t in range(1, 6):
        logits.append(decoder.step(state, torch.tensor([[y[t]] for y in targets])))
    assert torch.allclose(torch.cat(logits, 1), want, atol=1e-10, rtol=0)


@pytest.mark.parametrize("packed", [False, True])
def test_step_by_step_logits_in_single_precision(packed):
    model, objective = built(dtype=torch.float32, extra_vectors=3)
    rng = np.random.default_rng(2)
    sources, targets = [sentence(rng, 4) for _ in range(2)], [sentence(rng, 7) for _ in range(2)]
    want = taught(model, objective, sources, targets)["ar"].view(2, -1, V)
    decoder = IncrementalDecoder(model, objective, packed=packed)
    state = decoder.start(sources)
    logits = [decoder.step(state)]
    for t in range(1, 8):
        logits.append(decoder.step(state, torch.tensor([[y[t]] for y in targets])))
    assert torch.allclose(torch.cat(logits, 1), want, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["janus", "cmlm", "cmlm ends"])
@pytest.mark.parametrize(
    ("norm", "positions", "room"),
    [
        ("post", "learned", None),
        ("pre", "rotary", None),
        ("pre", "rotary_cross", None),
        ("post", "none t5", None),
        ("post", "learned", ROOM),
        ("pre", "rotary", ROOM),
        ("post", "none t5", ROOM),
        ("pre", "none xlnet", ROOM),
    ],
)
def test_filled_logits_are_those_of_the_training_pass(name, norm, positions, room):
    kind, _, bias = positions.partition(" ")
    model, objective = built(name, norm=norm, positions=kind, position_bias=bias, room=room)
    rng = np.random.default_rng(3)
    sources = [sentence(rng, n) for n in (3, 6, 4)]
    targets = [sentence(rng, n) for n in (5, 9, 1)]
    hidden = [rng.random(len(t)) < 0.5 for t in targets]
    for h in hidden:
        h[[0, -1]], h[1] = False, True
    want = taught(model, objective, sources, targets, hidden)["nar"]
    decoder = IncrementalDecoder(model, objective)
    first = int(decoder.template(5).position[0])  # CMLM has no BOS of its own
    tokens = np.full((3, 2, 11 - first), SPECIAL.pad)
    asked = np.zeros(tokens.shape, bool)
    for b, (target, holes) in enumerate(zip(targets, hidden, strict=True)):
        end = len(target) - first
        tokens[b, :, :end] = np.where(holes, SPECIAL.mask, target)[first:]
        asked[b, 0, :end] = holes[first:]
        tokens[b, 1, 1:3] = rng.integers(5, V, 2)  # a second template must not disturb the first
    sizes = torch.tensor([[len(t) - first, 3] for t in targets])
    got = decoder.fill(
        decoder.start(sources), torch.from_numpy(tokens), sizes, first, torch.from_numpy(asked)
    )
    assert torch.allclose(got, want, atol=1e-10, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("read", ["next", "past"])
@pytest.mark.parametrize(
    ("place", "positions", "room"),
    [
        ("input", "rotary", None),
        ("target", "rotary", None),
        ("target", "rotary_cross", None),
        ("target", "rotary", ROOM),
    ],
)
def test_a_block_gives_what_single_steps_give_and_can_be_taken_back(read, place, positions, room):
    model, objective = built(read=read, query_position=place, positions=positions, room=room)
    rng = np.random.default_rng(4)
    sources = [sentence(rng, n) for n in (3, 6, 4)]
    words = torch.from_numpy(rng.integers(5, V, (3, 8)))
    decoder = IncrementalDecoder(model, objective)
    state = decoder.start(sources)
    want = [decoder.step(state), *(decoder.step(state, words[:, [t]]) for t in range(8))]
    want = torch.cat(want, 1)
    head = torch.tensor(decoder.prefix).expand(3, -1)
    state = decoder.start(sources)
    wrong = torch.cat([head, words[:, :2], torch.full((3, 3), 7)], 1)
    got = decoder.block(state, wrong[:, None])[:, 0, head.shape[1] - 1 :]
    assert torch.allclose(got[:, :3], want[:, :3], atol=1e-10)
    state.take_back(torch.tensor([3, 4, 5]))  # each sentence keeps another number of words
    rest = torch.stack([row[n : n + 4] for row, n in zip(words, (2, 1, 0), strict=True)])
    got = decoder.block(state, rest[:, None])[:, 0]
    for row, n in enumerate((2, 1, 0)):
        assert torch.allclose(got[row], want[row, n + 1 : n + 5], atol=1e-10)
    state.take_back(torch.tensor([4, 3, 2]))  # now all stand at two words
    state.keep(torch.tensor([2, 0]))
    got = decoder.step(state, words[[2, 0]][:, [2]])
    assert torch.allclose(got[:, 0], want[[2, 0], 3], atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("read", ["next", "past"])
@pytest.mark.parametrize("room", [None, ROOM])
def test_of_a_block_of_several_hypotheses_one_each_is_kept(read, room):
    model, objective = built(read=read, room=room)
    rng = np.random.default_rng(6)
    sources = [sentence(rng, n) for n in (3, 6, 4)]
    decoder = IncrementalDecoder(model, objective)
    state, texts = decoder.start(sources), [list(decoder.prefix) for _ in sources]
    decoder.block(state, torch.tensor(texts)[:, None])
    for width, run in ((3, 4), (2, 1), (1, 3), (4, 2)):
        words = torch.from_numpy(rng.integers(5, V, (3, width, run)))
        best, wrong = (torch.from_numpy(rng.integers(0, n, 3)) for n in (width, run + 1))
        logits = decoder.block(state, words)
        for b, w in np.ndindex(3, width):
            alone = decoder.start([sources[b]])
            head = torch.tensor([[texts[b] + words[b, w].tolist()]])
            want = decoder.block(alone, head)[0, 0, -run:]
            assert torch.allclose(logits[b, w], want, atol=1e-10)
        if width > 1:
            state.choose(best, width, run)
        state.take_back(wrong)
        for text, row, w, n in zip(texts, words, best, wrong, strict=True):
            text += row[w, : run - n].tolist()


@pytest.mark.parametrize("room", [None, ROOM])
def test_hypotheses_that_change_places_take_their_past_with_them(room):
    model, objective = built(room=room)
    rng = np.random.default_rng(5)
    sources = [sentence(rng, n) for n in (3, 6)]
    decoder = IncrementalDecoder(model, objective)
    state, texts = decoder.start(sources), [[[]], [[]]]
    decoder.step(state)
    for step in range(40 - 3):  # past the first room of the cache
        width = 1 + step % 4
        words = rng.integers(5, V, (2, width))
        parents = rng.integers(0, len(texts[0]), (2, width))
        texts = [
            [texts[b][p] + [w] for w, p in zip(words[b].tolist(), parents[b], strict=True)]
            for b in range(2)
        ]
        logits = decoder.step(state, torch.from_numpy(words), torch.from_numpy(parents))
    for b, w in np.ndindex(*logits.shape[:2]):
        alone = decoder.start([sources[b]])
        head = torch.tensor([[*decoder.prefix, *texts[b][w]]])
        assert torch.allclose(logits[b, w], decoder.block(alone, head[None])[0, 0, -1], atol=1e-10)


@pytest.mark.slow
def test_prepacked_weights_give_the_same_to_rounding():
    torch.manual_seed(1)
    weight, bias = torch.randn(1024, 600), torch.randn(1024)
    for rows in (1, 2, 5, 24, 25, 60):
        x = torch.randn(rows, 600)
        exact = (x.double() @ weight.double().T + bias.double()).float()
        assert torch.allclose(Packed(weight, bias)(x), exact, rtol=1e-5, atol=1e-3)
