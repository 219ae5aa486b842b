"""BANG against its description: one pass is one causal pass for every chain of masks."""

import numpy as np
import pytest
import torch

from januslm.config import Refused
from januslm.data.sampler import sample_rng
from januslm.decoding import blockwise, draft, greedy, one_pass
from januslm.inference.cuda_graphs import GraphedDecoder
from januslm.inference.incremental import IncrementalDecoder
from januslm.layout import NONE
from januslm.model.joint_loss import ModelWithLoss
from januslm.objectives import bang
from tests.plain_model import decoded
from tests.samples import SHAPES, SPECIAL, coefficients, model, packed, resolved, sentence
from tests.test_relatives import by_word

MASK = SPECIAL.vocabulary  # the one learned vector


@torch.no_grad()
def causal(net, source, token, first: int = 0) -> torch.Tensor:
    """log p [A, V] of a plain decoder, left to right, whose first token stands at `first`."""
    seen = np.tril(np.ones((len(token), len(token)), bool))
    hidden = decoded(net, source, token, np.arange(first, first + len(token)), seen)
    return (hidden @ net.embedding.weight[: net.config.vocabulary].T).log_softmax(-1)


def starts(objective, slots, size: int) -> list[int]:
    """The words behind which chains stand; of blocks all are full but the first and the last."""
    if objective.options["way"] != "semi":
        return list(range(size - 1))
    ahead = objective.options["ahead"]
    found = slots.rank[slots.stream == bang.NEXT].tolist()
    second = found[1] if len(found) > 1 else size - 1
    assert found == [0, *range(second, size - 1, ahead)]
    assert second <= ahead
    return found


def described(net, objective, source, target, slots, nar: bool) -> dict:
    """{distribution: {word: log p [V]}}, a pass for each chain."""
    size, ahead, way = len(target), objective.options["ahead"], objective.options["way"]
    if nar:
        rows = causal(net, source, [MASK] * (size - 1), first=1)
        return {"nar": {t: rows[t - 1] for t in range(1, size)}}
    found: dict[str, dict] = {}
    lasts = starts(objective, slots, size)
    ends = [*lasts[1:], size - 1] if way == "semi" else [size - 1] * len(lasts)
    for last, end in zip(lasts, ends, strict=True):
        masks = min(1 if way in ("ar", "mixed") else ahead, end - last)
        rows = causal(net, source, [*target[: last + 1].tolist(), *[MASK] * masks])
        for n in range(1, masks + 1):
            name = "ar" if n == 1 else f"ahead{n}"
            found.setdefault(name, {})[last + n] = rows[last + n]
    return found


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("way", ["streams", "ar", "nar", "mixed", "semi"])
def test_one_pass_is_one_causal_pass_for_every_chain(way):
    """100 random cases each, from one word to fourteen: every log p, and the loss."""
    drawn = set()
    for seed in range(100):
        rng = np.random.default_rng(seed)
        shape, ahead = SHAPES[seed // 2 % 2], int(rng.integers(1, 10))
        objective = resolved("bang", way=way, ahead=ahead, source_room=shape)
        net = model(objective, position_bias="prophetnet" if seed % 2 else "")
        source, target = sentence(rng, 5), sentence(rng, int(rng.integers(3, 17)))
        example = objective.example(source, target, sample_rng(1, seed))
        nar = (example.layout.slots.stream == bang.MASK).any()
        drawn.add(nar)
        want = described(net, objective, source, target, example.layout.slots, nar)
        for name in objective.plugin.RULE.distributions:
            got = by_word(net, objective, example, name)
            assert got.keys() == {int(target[t]) for t in want.get(name, {})}
            for t, log_p in want.get(name, {}).items():
                found = got[int(target[t])].log_softmax(-1)
                assert torch.allclose(found, log_p, atol=1e-9, rtol=0), (seed, name, t)
        batch, weights = packed(objective, [example]), objective.loss.weights
        with torch.no_grad():
            terms, _ = ModelWithLoss(net, objective.loss)(batch, coefficients(weights, batch))
        smoothing, loss = objective.loss.smoothing, 0.0
        for words in want.values():
            each = [
                (1 - smoothing) * -log_p[target[t]] - smoothing * log_p.mean()
                for t, log_p in words.items()
            ]
            loss += float(torch.stack(each).mean())
        assert float(terms) == pytest.approx(loss, abs=1e-9)
    assert drawn == {"mixed": {True, False}, "nar": {True}}.get(way, {False})


def test_the_masks_of_a_hidden_run_know_its_own_words_alone():
    objective = resolved("bang", "pretrain", ahead=3)
    target, hidden = sentence(np.random.default_rng(0), 12), np.zeros(12, bool)
    hidden[[2, 3, 4, 5, 8, 9]] = True
    slots = objective.layout(target, hidden, sample_rng(1, 1)).slots
    goals = [slots.goal[slots.stream == n].tolist() for n in range(4)]
    assert goals == [[NONE] * 6, [2, 3, 4, 5, 8, 9], [3, 4, 5, 9], [4, 5]]


@pytest.mark.parametrize("share", [0.05, 0.95])
def test_both_terms_of_mixed_are_weighed_however_rare_one_is(share):
    weights = resolved("bang", way="mixed", nar=share).loss.weights
    assert weights == {"ce/ar": 1.0, "ce/nar": 1.0}


def written(way: str, room: int | None = None, **config):
    objective = resolved("bang", way=way, ahead=4, source_room=room)
    net = model(objective, **config).eval()
    rng = np.random.default_rng(2)
    return net, objective, [sentence(rng, int(n)) for n in (3, 9, 4, 6)]


def likeliest(log_p, ends: bool) -> int:
    """The best word, or EOS where it may be one."""
    barred = [SPECIAL.bos, SPECIAL.pad, SPECIAL.unk, SPECIAL.mask]
    allowed = log_p.clone()
    allowed[[*barred, *([] if ends else [SPECIAL.eos])]] = -torch.inf
    return int(allowed.argmax())


@pytest.mark.slow
@pytest.mark.parametrize("way", ["nar", "mixed"])
@pytest.mark.parametrize("collapse", [True, False])
@pytest.mark.parametrize("room", SHAPES)
def test_one_pass_reads_the_row_up_to_its_first_eos(way, collapse, room):
    net, objective, sources = written(way, room)
    lengths = set()
    for kind in (IncrementalDecoder, GraphedDecoder):
        outputs = one_pass.decode(kind(net, objective), sources, SPECIAL, collapse=collapse)
        for source, output in zip(sources, outputs, strict=True):
            rows = causal(net, source, [MASK] * (len(source) + 1), first=1)
            words, score = [], []
            for place, log_p in enumerate(rows):
                word = likeliest(log_p, True) if place < len(source) else SPECIAL.eos
                score.append(float(log_p[word]))
                if word == SPECIAL.eos:
                    break
                if not (collapse and words and words[-1] == word):
                    words.append(word)
            assert output.tokens.tolist() == words
            assert output.score == pytest.approx(np.mean(score), abs=1e-9)
            lengths.add(len(words))
    assert len(lengths) > 1


@pytest.mark.slow
@pytest.mark.parametrize("way", ["streams", "semi"])
@pytest.mark.parametrize("block", [0, 3])
@pytest.mark.parametrize("room", SHAPES)
def test_blockwise_writes_the_chain_behind_the_words_again_and_again(way, block, room):
    net, objective, sources = written(way, room)
    limits = {"max_length": 10, "min_length": 2}
    decoder = IncrementalDecoder(net, objective)
    outputs = blockwise.decode(decoder, sources, SPECIAL, block=block, **limits)
    for source, output in zip(sources, outputs, strict=True):
        words, score, passes = [SPECIAL.bos], 0.0, 0
        while words[-1] != SPECIAL.eos:
            rows = causal(net, source, [*words, *[MASK] * (block or 4)])[len(words) :]
            passes += 1
            for log_p in rows:
                done = len(words) - 1
                word = likeliest(log_p, done >= 2) if done < 10 else SPECIAL.eos
                words.append(word)
                score += float(log_p[word])
                if word == SPECIAL.eos:
                    break
        assert output.tokens.tolist() == words[1:-1]
        assert output.score == pytest.approx(score / (len(words) - 1), abs=1e-9)
        assert output.passes == passes


@pytest.mark.slow
@pytest.mark.parametrize("positions", ["learned", "rotary"])
@pytest.mark.parametrize("room", SHAPES)
def test_its_chains_draft_what_greedy_writes(positions, room):
    net, objective, sources = written("streams", room, positions=positions)
    decoder = IncrementalDecoder(net, objective)
    slow = greedy.decode(decoder, sources, SPECIAL, max_length=12)
    fast = draft.decode(decoder, sources, SPECIAL, max_length=12)
    assert sum(one.passes for one in fast) < sum(one.passes for one in slow)
    for a, b in zip(fast, slow, strict=True):
        assert a.tokens.tolist() == b.tokens.tolist()
        assert a.score == pytest.approx(b.score, abs=1e-9)


def test_masks_alone_need_positions_that_tell_them_apart():
    for way in ("nar", "mixed"):
        objective = resolved("bang", way=way)
        with pytest.raises(Refused, match="writes from masks alone, which 'rotary' cannot tell"):
            objective.check_fit(model(objective, positions="rotary").config, "run.toml")
    resolved("bang").check_fit(model(resolved("bang"), positions="rotary").config, "run.toml")
