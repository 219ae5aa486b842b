"""Block diffusion beside AR, against its description; `draft` against greedy, word for word."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from januslm.config import Refused
from januslm.data.sampler import sample_rng
from januslm.decoding import blockwise, draft, greedy
from januslm.decoding._forms import chooser
from januslm.inference.cuda_graphs import GraphedDecoder
from januslm.inference.incremental import IncrementalDecoder
from januslm.layout import NONE, Example, Layout, stack
from januslm.model.joint_loss import ModelWithLoss
from januslm.model.packing import Packer
from januslm.objectives.block import GIVEN, MASK, PAST
from tests.decoders import CountingDecoder
from tests.plain_model import decoded, run
from tests.samples import (
    SHAPES,
    SPECIAL,
    coefficients,
    model,
    packed,
    resolved,
    sentence,
    target_slots,
)
from tests.test_decoding import SOURCES, Table
from tests.test_decoding import SPECIAL as FEW
from tests.test_incremental import SPECIAL as SOME
from tests.test_incremental import built
from tests.test_incremental import sentence as some

WAYS = [(given, causal) for given in (False, True) for causal in (True, False)]


def by_formula(slots, size: int, length: int, causal: bool):
    """Blocks and who reads whom, from positions alone: the first place of every block, bool [S, S].

    The first block begins at 1; its end is where the first slot of another block stands.
    """
    masks = slots.stream != PAST
    starts = [1]
    for first in range(2, size + 2):  # the shortest first block that explains the masks behind
        blocks = [1, *range(first, length, size)]
        if (blocks[-1] + size if len(blocks) > 1 else first) == slots.position[masks].max() + 1:
            starts = blocks
    block = [max((s for s in starts if s <= p), default=0) for p in slots.position]

    def sees(q: int, k: int) -> bool:
        if slots.stream[k] == PAST:
            if slots.stream[q] != PAST:
                return slots.position[k] < block[q]
            return slots.position[k] <= slots.position[q] if causal else block[k] <= block[q]
        return slots.stream[q] != PAST and block[k] == block[q]

    count = range(len(slots))
    return starts, np.array([[sees(q, k) for k in count] for q in count])


@pytest.mark.slow
@pytest.mark.parametrize(("given", "causal"), WAYS)
def test_slots_and_rule_are_those_of_the_description(given, causal):
    """400 random cases; every offset comes, and every block ends where a full one would."""
    offsets = set()
    for seed in range(100):
        rng = np.random.default_rng(seed)
        size, length = int(rng.integers(1, 7)), int(rng.integers(3, 20))
        target = sentence(rng, length)
        layout = resolved("block", size=size, given=given, causal=causal).layout(
            target, np.zeros(length, bool), rng
        )
        slots = layout.slots
        starts, seen = by_formula(slots, size, length, causal)
        assert (layout.visible() == seen).all(), layout.draw()
        offsets.add((size, starts[1] if len(starts) > 1 else None))
        words = slots[slots.stream == PAST]
        assert (words.token == target[words.position]).all()
        assert (words.goal == (words.position + 1 if causal else NONE)).all()
        filling = np.sort(slots.position[slots.stream != PAST])
        end = starts[-1] + size if len(starts) > 1 else filling[-1] + 1
        assert (filling == np.arange(1, end)).all()
        masks = slots[slots.stream == MASK]
        assert (masks.token == SPECIAL.mask).all()
        assert (masks.goal == np.where(masks.position < length, masks.position, NONE)).all()
        shown = slots[slots.stream == GIVEN]
        assert (shown.token == target[shown.position]).all()
        assert (shown.goal == NONE).all()
        assert given or not len(shown)
        asked = slots.weight[(slots.stream == MASK) & (slots.goal != NONE)]
        assert given or (asked == 1).all()
        assert len(set(asked)) <= 1, "one share for an example"
    assert len(offsets) > 15


@pytest.mark.slow
def test_masked_words_weigh_as_much_as_all_words_in_the_mean():
    """Diffusion's bound: 1 / share for each of a share of the words."""
    objective, weights = resolved("block", given=True), []
    for seed in range(4000):
        target = sentence(np.random.default_rng(seed), 22)
        slots = objective.layout(target, np.zeros(22, bool), sample_rng(3, seed)).slots
        weights.append(slots.weight[slots.goal != NONE][21:].sum())  # behind the words'
    assert np.mean(weights) == pytest.approx(21, rel=0.1)


def test_no_term_is_weighed_that_nothing_teaches():
    assert set(resolved("block").loss.weights) == {"ce/ar", "ce/nar", "kl/ar~nar"}
    assert set(resolved("block", causal=False).loss.weights) == {"ce/nar"}
    assert resolved("block", causal=False).ar_read is None


@pytest.mark.slow
@pytest.mark.parametrize("causal", [True, False])
def test_loss_and_every_log_p_are_those_of_the_description(causal):
    """150 random cases each, the model written without layouts, packing or plans."""
    nets = {room: model(resolved("block", source_room=room)) for room in SHAPES}
    for seed in range(150):
        rng, room = np.random.default_rng(seed), SHAPES[seed // 2 % 2]
        size, length = int(rng.integers(1, 7)), int(rng.integers(3, 16))
        given = {"given": bool(seed % 2), "causal": causal, "source_room": room}
        objective, net = resolved("block", size=size, **given), nets[room]
        source, target = sentence(rng, int(rng.integers(3, 9))), sentence(rng, length)
        if room and seed % 8 == 7:  # a language model of plain text
            source = None
        example = objective.example(source, target, sample_rng(1, seed))
        slots = target_slots(example)
        _, seen = by_formula(slots, size, length, causal)
        hidden = decoded(net, example.source, slots.token, slots.position, seen)
        log_p = (hidden @ net.embedding.weight[: net.config.vocabulary].T).log_softmax(-1)
        total = torch.zeros((), dtype=torch.float64)
        smooth, batch = objective.loss.smoothing, packed(objective, [example])
        read = {"ar": slots.stream == PAST, "nar": slots.stream == MASK}
        for name, weight in objective.loss.weights.items():
            if name.startswith("kl/"):
                ar, nar = ((read[n] & (slots.goal != NONE)).nonzero()[0] for n in ("ar", "nar"))
                pairs = [(a, m) for m in nar for a in ar if slots.goal[a] == slots.goal[m]]
                terms = [
                    slots.weight[m]
                    * 0.5
                    * ((log_p[a].exp() - log_p[m].exp()) * (log_p[a] - log_p[m])).sum()
                    for a, m in pairs
                ]
            else:
                asking = (read[name[3:]] & (slots.goal != NONE)).nonzero()[0]
                terms = [
                    slots.weight[i]
                    * -((1 - smooth) * log_p[i, target[slots.goal[i]]] + smooth * log_p[i].mean())
                    for i in asking
                ]
            total = total + weight * sum(terms) / max(len(terms), 1)
        loss, _ = ModelWithLoss(net, objective.loss)(
            batch, coefficients(objective.loss.weights, batch)
        )
        assert loss.item() == pytest.approx(total.item(), rel=1e-9), seed


def test_a_position_too_many_is_counted_before_the_start():
    assert resolved("block", size=8).positions(20) == 27
    assert resolved("ar").positions(20) == 20
    assert resolved("block", size=8, source_room=9).positions(20) == 36


@pytest.mark.slow
@pytest.mark.parametrize("room", SHAPES)
@pytest.mark.parametrize("positions", ["learned", "rotary", "sinusoidal"])
def test_what_a_pass_reads_is_what_training_reads(positions, room):
    """AR's logits and each block's, of ragged sentences, from caches and from the packed pass."""
    net, objective = built("block", positions=positions, room=room)
    rng, size = np.random.default_rng(3), objective.options["size"]
    sources, targets = [some(rng, n) for n in (3, 6)], [some(rng, 9) for _ in range(2)]
    decoder = IncrementalDecoder(net, objective)
    state = decoder.start(sources)
    first, _ = decoder.draft(state, torch.tensor([[0], [0]]), 2)
    words = torch.tensor(np.array([t[1:5] for t in targets]))
    # Sentence 0 takes two of the words back, and reads them again beside sentence 1's next.
    one, _ = decoder.draft(state, words, 3)
    state.take_back(torch.tensor([2, 0]))
    words = torch.tensor(np.array([targets[0][3:7], targets[1][5:9]]))
    two, behind = decoder.draft(state, words, size)
    plain = IncrementalDecoder(net, objective)
    for b, (source, target) in enumerate(zip(sources, targets, strict=True)):
        alone = plain.start([source])
        want = [plain.step(alone)[0]]
        want += [plain.step(alone, torch.tensor([[int(w)]]))[0] for w in target[1:9]]
        want = torch.cat(want)
        assert torch.allclose(first[b], want[:1], atol=1e-10, rtol=0)
        read = 3 if b == 0 else 5
        assert torch.allclose(two[b], want[read : read + 4], atol=1e-10, rtol=0)
        assert torch.allclose(one[b], want[1:5], atol=1e-10, rtol=0)
        for j in range(4):
            at = read + j + 1  # the block stands behind that word
            wanted = block_behind(net, objective, source, target, at, size)
            assert torch.allclose(behind[b, j], wanted, atol=1e-10, rtol=0), (b, j)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["block", "bang"])
def test_every_way_through_a_tree_is_read_as_if_it_stood_alone(name):
    """Logits after each word, each block, and what follows the way that is kept."""
    net, objective = built(name)
    decoder = IncrementalDecoder(net, objective)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        sources = [some(rng, n) for n in (3, 6)]
        run, size = int(rng.integers(3, 9)), min(3, decoder.most_block)
        parents = (-1, *(int(rng.integers(-1, n)) for n in range(1, run)))
        words = torch.from_numpy(rng.integers(5, 12, (2, run)))
        state = decoder.start(sources)
        head = torch.tensor(decoder.prefix).expand(2, -1)
        decoder.draft(state, head, 0)
        after, behind = decoder.draft(state, words, size, parents=parents)
        ways: list[list[int]] = []
        for node, parent in enumerate(parents):
            ways.append([*(ways[parent] if parent >= 0 else []), node])
        for way in ways:
            alone = decoder.start(sources)
            decoder.draft(alone, head, 0)
            one, block = decoder.draft(alone, words[:, way], size)
            assert torch.allclose(after[:, way], one, atol=1e-10, rtol=0)
            assert torch.allclose(behind[:, way[-1]], block[:, -1], atol=1e-10, rtol=0)
        kept = [ways[int(rng.integers(run))] for _ in sources]
        deep = max(map(len, ways))
        filled = [way + [0] * (deep - len(way)) for way in kept]
        state.follow(torch.tensor(filled), run)
        state.take_back(torch.tensor([deep - len(way) for way in kept]))
        more, _ = decoder.draft(state, words[:, :1], size)
        for row, way in enumerate(kept):
            alone = decoder.start(sources[row : row + 1])
            decoder.draft(alone, head[:1], 0)
            read = torch.cat([words[row : row + 1, way], words[row : row + 1, :1]], 1)
            one, _ = decoder.draft(alone, read, size)
            assert torch.allclose(more[row, 0], one[0, -1], atol=1e-10, rtol=0)


def block_behind(net, objective, source, target, at: int, size: int):
    """float [size, V]: of one full block that begins at `at`, through the packed training pass."""
    longer = np.resize(target, at + size)  # each mask of the block has a word to predict
    past, masks = np.arange(at), np.arange(at, at + size)
    slots = stack((longer[past], past, PAST, past, NONE), (SOME.mask, masks, MASK, at, masks))
    layout = Layout(slots, objective.plugin.RULE)
    layout = layout if objective.source_room is None else layout.behind(source)
    batch = Packer({"ce/nar": 1.0})([Example(source, longer, layout)])
    hidden, _ = net(batch)
    (group,) = batch.loss_groups
    rows = group.rows.flatten().sort().values
    return (hidden[rows] @ net.vocabulary_weight().T).detach()


def by_blocks(net, source, size: int, steps: int, threshold: float, causal: bool, most: int):
    """Text, score and passes of block diffusion, each pass whole and without caches."""
    barred = [SPECIAL.bos, SPECIAL.pad, SPECIAL.unk, SPECIAL.mask]
    every = torch.ones(len(source), len(source), dtype=torch.bool)
    memory = run(net, net.encoder, torch.from_numpy(source), torch.arange(len(source)), every)
    words, score, passes, shown_twice = [SPECIAL.bos], 0.0, 0, 0
    while True:
        block, value = [SPECIAL.mask] * size, [0.0] * size
        for step in range(1, steps + 1):
            tokens = torch.tensor([*words, *block])
            old, whole = len(words), len(words) + size
            # Of finished blocks, or word by word; a block in work reads all that is there.
            group = [i if causal else (i - 1) // size for i in range(old)] + [whole] * size
            seen = torch.tensor([[k <= q for k in group] for q in group])
            hidden = run(net, net.decoder, tokens, torch.arange(whole), seen, memory)
            log_p = (hidden[old:] @ net.embedding.weight[: net.config.vocabulary].T).log_softmax(-1)
            full = list(block)
            shown_twice += step > 1 and any(word != SPECIAL.mask for word in block)
            for i in range(size):
                if block[i] == SPECIAL.mask:
                    allowed = log_p[i].clone()
                    allowed[barred] = -torch.inf
                    full[i] = int(allowed.argmax()) if old - 1 + i < most else SPECIAL.eos
                    value[i] = float(log_p[i, full[i]])
            passes += 1
            n = full.index(SPECIAL.eos) + 1 if SPECIAL.eos in full else size
            doubtful = sorted(range(n), key=lambda i: value[i])[: n * (steps - step) // steps]
            again = [i for i in doubtful if np.exp(value[i]) <= threshold]
            block = [full[i] if i < n and i not in again else SPECIAL.mask for i in range(size)]
            if not again:
                break
        n = full.index(SPECIAL.eos) if SPECIAL.eos in full else size
        words += full[:n]
        score += sum(value[: n + (n < size)])
        if n < size:
            return words[1:], score / len(words), passes, shown_twice


@pytest.mark.slow
@pytest.mark.parametrize("causal", [True, False])
@torch.no_grad()
def test_blocks_in_several_passes_are_written_as_without_caches(causal):
    """48 ragged batches: words, score and passes, for AR's blocks and for bd3lms'."""
    saved, shown, lengths = 0, 0, set()
    for seed in range(48):
        torch.manual_seed(seed % 6)
        rng = np.random.default_rng(seed)
        size = int(rng.integers(2, 6))
        objective = resolved("block", given=True, causal=causal, size=size)
        net = model(objective).eval()
        net.embedding.weight[SPECIAL.eos] *= 1.5  # likelier in some places, and less in others
        steps, threshold = int(rng.integers(1, size + 2)), float(rng.choice([0.2, 0.6, 1.0]))
        used = int(rng.integers(1, size + 1)) if seed % 3 == 0 else size
        sources = [sentence(rng, int(n)) for n in rng.integers(3, 9, 3)]
        decoder = (GraphedDecoder if seed % 5 == 4 else IncrementalDecoder)(net, objective)
        options = {"block": used, "steps": steps, "threshold": threshold, "max_length": 11}
        for source, output in zip(
            sources, blockwise.decode(decoder, sources, SPECIAL, **options), strict=True
        ):
            text, score, passes, twice = by_blocks(net, source, used, steps, threshold, causal, 11)
            assert output.tokens.tolist() == text, seed
            assert output.score == pytest.approx(score, abs=1e-9)
            assert output.passes == passes
            saved += passes < steps * (len(text) // used + 1)
            shown += twice
            lengths.add(len(text))
    assert saved > 5, "a threshold that saves nothing proves little"
    assert shown > 50
    assert len(lengths) > 3


def test_blocks_of_masks_alone_are_written_in_one_pass_or_refused():
    objective = resolved("block")
    decoder = IncrementalDecoder(model(objective).eval(), objective)
    sources = [sentence(np.random.default_rng(0), 5)]
    [one] = blockwise.decode(decoder, sources, SPECIAL, max_length=9)
    assert one.passes == len(one.tokens) // 8 + 1
    with pytest.raises(Refused, match="'block' cannot write or rescore a block in several passes"):
        blockwise.decode(decoder, sources, SPECIAL, steps=2)
    bd3lms = resolved("block", causal=False)
    with pytest.raises(Refused, match="cannot write or rescore word by word; it can blockwise"):
        greedy.decode(IncrementalDecoder(model(bd3lms).eval(), bd3lms), sources, SPECIAL)


LIMITS = [
    {},
    {"form": "one"},
    {"form": "two"},
    {"form": "one", "block": 1},
    {"form": "two", "block": 3},
    {"form": "one", "block": 4, "lines": 4},
    {"form": "two", "lines": 6, "no_repeat_ngram": 2},
    {"no_repeat_ngram": 2},
    {"min_length": 9},
    {"max_length": 3},
    {"max_ratio": 0.5, "max_length": 1},
]


@pytest.mark.slow
@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_draft_writes_exactly_what_greedy_writes(limits):
    shorter = 0
    for seed in range(6):
        torch.manual_seed(seed)
        net, objective = built("block", room=SHAPES[seed % 2])
        rng = np.random.default_rng(seed)
        sources = [some(rng, n) for n in rng.integers(1, 12, 9)]
        decoder = CountingDecoder(net, objective)
        given = {"max_length": 25} | limits
        fast = draft.decode(decoder, sources, SOME, **given)
        how = {key: given.pop(key, None) for key in ("form", "block", "lines")}
        slow = greedy.decode(decoder, sources, SOME, **given)
        for one, other in zip(fast, slow, strict=True):
            assert one.tokens.tolist() == other.tokens.tolist()
            assert one.score == pytest.approx(other.score, abs=1e-9)
            assert one.passes <= other.passes or how["form"] == "two"
            shorter += one.passes < other.passes
    drafts = how["form"] and how["block"] != 1
    assert shorter or not drafts


@pytest.mark.slow
@hypothesis(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.fixed_dictionaries(
        {
            "form": st.sampled_from(["auto", "one", "two"]),
            "block": st.integers(0, 3),
            "lines": st.integers(0, 6),
        }
    ),
    st.fixed_dictionaries(
        {
            "max_length": st.integers(4, 9),
            "min_length": st.integers(0, 4),
            "no_repeat_ngram": st.integers(0, 3),
            "max_ratio": st.sampled_from([0.0, 0.5]),
        }
    ),
)
def test_draft_writes_what_greedy_writes_whatever_is_drafted(seed, how, limits):
    fast = draft.decode(Table(seed), SOURCES, FEW, **how, **limits)
    slow = greedy.decode(Table(seed), SOURCES, FEW, **limits)
    for one, other in zip(fast, slow, strict=True):
        assert one.tokens.tolist() == other.tokens.tolist()
        assert one.score == pytest.approx(other.score)


def test_a_perfect_draft_takes_a_pass_for_each_block():
    class Sure(Table):
        """Each word follows from its place, for AR and for the masks alike."""

        most_block = 4

        def after(self, source, text):
            return np.eye(9)[5 + len(text) % 3] * 9 if len(text) < 13 else np.eye(9)[FEW.eos] * 9

        def guess(self, source, text, place):
            return self.after(source, (*text, *[5] * place))

    for output in draft.decode(Sure(), SOURCES, FEW, form="one"):
        # Greedy needs a pass for each of the words and one for EOS; here each pass but the first
        # confirms the three words of its draft and adds one.
        words = len(output.tokens)
        assert output.passes == 1 + -(-words // 4)


def test_where_no_draft_was_ever_right_greedy_itself_writes():
    decoder = Table(3)
    seen = chooser(decoder, "words").acceptance
    for _ in range(500):
        seen.count(0, None)
    fast = draft.decode(decoder, SOURCES, FEW)
    slow = greedy.decode(Table(3), SOURCES, FEW)
    assert [one.passes for one in fast] == [one.passes for one in slow]
    assert seen.seen == [500]  # nothing was drafted
