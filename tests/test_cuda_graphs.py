"""Fixed shapes and places give what growing ones give; capture itself is tests/test_gpu.py."""

import numpy as np
import pytest
import torch

from januslm.decoding import greedy
from januslm.inference.cuda_graphs import ROUND, GraphedDecoder
from januslm.inference.incremental import IncrementalDecoder
from tests.decoders import DECODERS, algorithm, settings, taught
from tests.test_incremental import SPECIAL, V, built, sentence

WAYS = [(n, *way) for n in DECODERS for way in (("next", 0), ("past", 1))]


@pytest.mark.slow
@pytest.mark.parametrize("room", [None, 30])
@pytest.mark.parametrize(
    ("name", "read", "patience"),
    [way for way in WAYS if way[1] == "past" or taught(way[0]) == "janus"],
)
def test_every_way_writes_the_same_on_fixed_places(name, read, patience, room):
    places = "rotary" if read == "past" else "learned"
    model, objective = built(taught(name), read=read, positions=places, room=room)
    rng = np.random.default_rng(4)
    sources = [sentence(rng, n) for n in rng.integers(1, 25, 5)]
    decode, given = algorithm(name), settings(name, max_length=36)  # past the first room
    decoder = GraphedDecoder(model, objective, patience)
    want = decode(IncrementalDecoder(model, objective), sources, SPECIAL, **given)
    for _ in range(2):
        for a, b in zip(decode(decoder, sources, SPECIAL, **given), want, strict=True):
            assert a.tokens.tolist() == b.tokens.tolist()
            assert [o.tokens.tolist() for o in a.others] == [o.tokens.tolist() for o in b.others]
            assert a.score == pytest.approx(b.score, abs=1e-6)
    # Without an encoder templates are filled as they are: their places in the cache are lent.
    assert decoder.recorded or (room and not decoder.came)
    assert len(decoder.recorded) == len(decoder.came) or patience


@pytest.mark.slow
@pytest.mark.parametrize("room", [None, 31])
def test_sources_of_many_lengths_are_few_shapes(room):
    model, objective = built(room=room)
    decoder = GraphedDecoder(model, objective)
    rng = np.random.default_rng(4)
    for n in range(1, 30):
        greedy.decode(decoder, [sentence(rng, n)], SPECIAL, min_length=5, max_length=5)
    assert len(decoder.recorded) == len(decoder.came) == (1 if room else 2)
    if not room:
        assert {key[-1][-1] for key in decoder.recorded} == {ROUND, 2 * ROUND}


@pytest.mark.parametrize("room", [None, 30])
def test_two_states_of_one_shape_do_not_disturb_each_other(room):
    model, objective = built(room=room)
    rng = np.random.default_rng(6)
    sources = [[sentence(rng, 4)], [sentence(rng, 4)]]
    words = torch.from_numpy(rng.integers(5, V, (2, 30, 1, 1)))
    plain, fixed = (
        IncrementalDecoder(model, objective),
        GraphedDecoder(model, objective, patience=0),
    )
    want = []
    for source, row in zip(sources, words, strict=True):
        state = plain.start(source)
        want.append([plain.step(state), *(plain.step(state, word) for word in row)])
    states = [fixed.start(source) for source in sources]
    got = [[fixed.step(state)] for state in states]
    for t in range(30):  # in turns
        for state, row, made in zip(states, words, got, strict=True):
            made.append(fixed.step(state, row[t]))
    for a, b in zip(got, want, strict=True):
        assert torch.allclose(torch.cat(a), torch.cat(b), atol=1e-10)
