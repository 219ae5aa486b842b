"""Every way to write: against brute force on a table, plain formulas, and each other."""

import itertools
import zlib
from copy import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from januslm.config import Refused
from januslm.data.tokenizer import Special
from januslm.decoding import beam, greedy, mask_predict, sample, semi, speculative
from januslm.decoding._templates import Templates, candidates, write
from januslm.inference.incremental import IncrementalDecoder
from januslm.layout import NONE
from januslm.objectives import janus
from januslm.registry import options
from tests.decoders import DECODERS, FOLDER, CountingDecoder, algorithm, settings, taking, taught
from tests.samples import ROOM, SHAPES
from tests.test_incremental import V, built, sentence

SPECIAL = Special()
WORDS = range(5, 9)  # a vocabulary of four
# Every way to write, with both read-outs where its model has them.
READ = [(n, r) for n in DECODERS for r in ("next", "past") if r == "past" or taught(n) == "janus"]


def chance(*key) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


@dataclass
class Texts:
    """The state of the table: what stands so far, per sentence and hypothesis."""

    sources: list
    texts: list
    length_scores: torch.Tensor

    def keep(self, chosen):
        self.sources = [self.sources[i] for i in chosen]
        self.texts = [self.texts[i] for i in chosen]
        self.length_scores = self.length_scores[chosen]

    def choose(self, hypothesis, width, run):
        self.texts = [[ts[int(w)]] for ts, w in zip(self.texts, hypothesis, strict=True)]

    def follow(self, words, run):
        self.texts = [
            [t[: len(t) - run] + tuple(t[len(t) - run + i] for i in way)]
            for (t,), way in zip(self.texts, words.tolist(), strict=True)
        ]

    def take_back(self, words):
        self.texts = [
            [t[: len(t) - int(n)] for t in ts] for ts, n in zip(self.texts, words, strict=True)
        ]


class Table:
    """A model-shaped table: the logits are drawn from what stands before, by a hash."""

    prefix, most_words, most_length, most_block = (0,), 30, 12, 3

    def __init__(self, seed=0):
        self.seed = seed

    def require(self, *ways):
        pass

    def logits(self, *key):
        return chance(self.seed, *key).normal(size=9) * 1.5

    def start(self, sources):
        lengths = [chance(self.seed, *map(int, s)).normal(size=13) for s in sources]
        lengths = torch.tensor(np.array(lengths)).log_softmax(-1)
        return Texts([tuple(map(int, s)) for s in sources], [[()] for _ in sources], lengths)

    def after(self, source, text):
        return self.logits("next", source, tuple(w for w in text if w != 0))

    def step(self, state, words=None, parents=None):
        if words is not None:
            state.texts = [
                [texts[p] + (int(w),) for w, p in zip(row, chosen, strict=True)]
                for texts, row, chosen in zip(
                    state.texts,
                    words,
                    parents if parents is not None else [[0]] * len(words),
                    strict=True,
                )
            ]
        return torch.tensor(
            np.array(
                [
                    [self.after(s, t) for t in ts]
                    for s, ts in zip(state.sources, state.texts, strict=True)
                ]
            )
        )

    def block(self, state, words):
        state.texts = [
            [texts[0 if len(texts) == 1 else w] + tuple(new) for w, new in enumerate(row)]
            for texts, row in zip(state.texts, words.tolist(), strict=True)
        ]
        run = words.shape[-1]
        logits = [
            [[self.after(s, t[: len(t) - run + i + 1]) for i in range(run)] for t in ts]
            for s, ts in zip(state.sources, state.texts, strict=True)
        ]
        return torch.tensor(np.array(logits))

    def draft(self, state, words, size, blocks=0, parents=()):
        run = words.shape[1]
        parents = parents or range(-1, run - 1)
        after, behind = [], []
        for s, (t,), row in zip(state.sources, state.texts, words.tolist(), strict=True):
            ways = []
            for word, parent in zip(row, parents, strict=True):
                ways.append((ways[parent] if parent >= 0 else t) + (word,))
            ways = ways[run - (blocks or run) :]
            after.append([self.after(s, way) for way in ways])
            behind.append([[self.guess(s, way, j) for j in range(size)] for way in ways])
        state.texts = [
            [t + tuple(row)] for (t,), row in zip(state.texts, words.tolist(), strict=True)
        ]
        return torch.tensor(np.array(after)), torch.tensor(np.array(behind))

    def guess(self, source, text, place):
        return self.logits("draft", source, text, place)

    def template(self, length):
        slots = janus.template(length, SPECIAL)
        return slots[np.argsort(slots.position)]

    def slot(self, source, tokens, at):
        return self.logits("mask", source, tuple(tokens), at)

    def fill(self, state, tokens, sizes, first, asked):
        rows = [
            self.slot(state.sources[b], tokens[b, c, : sizes[b, c]].tolist(), at + first)
            for b, c, at in asked.nonzero().tolist()
        ]
        return torch.tensor(np.array(rows)).view(-1, 9)


def log_p(logits):
    return logits - np.logaddexp.reduce(logits)


def every_text(table, source, most, least=0, ngram=0):
    """(log p with EOS, words) of all texts over the four words."""
    for n in range(least, most + 1):
        for words in itertools.product(WORDS, repeat=n):
            grams = [words[i : i + ngram] for i in range(n - ngram + 1)] if ngram else []
            if len(set(grams)) == len(grams):
                steps = [
                    log_p(table.after(source, words[:i]))[w] for i, w in enumerate((*words, 2))
                ]
                yield sum(steps), words


SOURCES = [np.array([0, *range(5, 5 + n), 2]) for n in (1, 4, 2, 3, 6)]


@pytest.mark.slow
@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0, -0.5])
@pytest.mark.parametrize(
    ("least", "ngram", "early"), [(0, 0, True), (2, 0, False), (0, 2, True), (1, 1, False)]
)
def test_a_beam_as_wide_as_all_texts_finds_the_best_of_all(penalty, least, ngram, early):
    table = Table()
    found = beam.decode(
        table,
        SOURCES[:3],
        SPECIAL,
        beam=64,
        length_penalty=penalty,
        max_length=3,
        min_length=least,
        no_repeat_ngram=ngram,
        early_stop=early,
        n_best=4,
    )
    for source, output in zip(SOURCES, found, strict=False):
        texts = every_text(table, tuple(map(int, source)), 3, least, ngram)
        best = sorted(((p / (len(w) + 1) ** penalty, w) for p, w in texts), reverse=True)[:4]
        outputs = [output, *output.others]
        assert [tuple(o.tokens) for o in outputs] == [w for _, w in best]
        assert np.allclose([o.score for o in outputs], [p for p, _ in best])


def test_greedy_is_a_beam_of_one():
    for seed in range(8):
        one = greedy.decode(Table(seed), SOURCES, SPECIAL, max_length=12)
        other = beam.decode(Table(seed), SOURCES, SPECIAL, beam=1, max_length=12)
        assert [(tuple(a.tokens), a.passes) for a in one] == [
            (tuple(b.tokens), b.passes) for b in other
        ]
        assert np.allclose([a.score for a in one], [b.score for b in other])


def test_without_early_stop_no_beam_is_worse():
    for seed in range(8):
        early, late = (
            beam.decode(Table(seed), SOURCES, SPECIAL, beam=3, max_length=8, early_stop=stop)
            for stop in (True, False)
        )
        assert all(b.score >= a.score - 1e-12 for a, b in zip(early, late, strict=True))


LIMITED = taking("min_length", "max_length", "max_ratio", "no_repeat_ngram")


@pytest.mark.slow
@pytest.mark.parametrize("name", LIMITED)
def test_no_ngram_comes_twice_and_lengths_are_kept(name):
    for seed in range(5):
        outputs = algorithm(name)(
            Table(seed),
            SOURCES,
            SPECIAL,
            no_repeat_ngram=2,
            min_length=4,
            max_length=6,
            max_ratio=0.5,
        )
        for source, output in zip(SOURCES, outputs, strict=True):
            words = output.tokens.tolist()
            assert 4 <= len(words) <= 6 + len(source) // 2
            assert set(words) <= set(WORDS)
            assert len(set(itertools.pairwise(words))) == len(words) - 1


@pytest.mark.parametrize("name", LIMITED)
def test_a_text_ends_where_the_rules_leave_no_word(name):
    """Four words, none twice, at least six: after the fourth only the end is left."""
    for output in algorithm(name)(
        Table(), SOURCES, SPECIAL, no_repeat_ngram=1, min_length=6, max_length=8
    ):
        assert sorted(output.tokens.tolist()) == sorted(WORDS)
        assert np.isfinite(output.score)


def test_a_least_length_is_refused_whatever_the_batch():
    limits = dict(min_length=4, max_length=1, max_ratio=0.8)
    for some in (SOURCES[:1], SOURCES[4:], SOURCES):
        with pytest.raises(Refused, match="min_length 4 is above the longest possible output, 1"):
            greedy.decode(Table(), some, SPECIAL, **limits)


@pytest.mark.parametrize("rescore", [False, True])
def test_lengths_around_the_longest_give_no_text_twice(rescore):
    for output in mask_predict.decode(
        Table(), SOURCES, SPECIAL, iterations=2, length_beam=20, lengths="around", rescore=rescore
    ):
        texts = [tuple(one.tokens) for one in (output, *output.others)]
        assert len(set(texts)) == len(texts) > 1


def plain_mask_predict(table, source, iterations, lengths):
    """The algorithm as it is described, one template at a time."""
    best = (-np.inf, None)
    for length in lengths:
        tokens = [0, *[4] * (length - 2), 2]
        score = [0.0] * length
        for turn in range(iterations):
            holes = [i for i in range(length) if tokens[i] == 4]
            filled = list(tokens)
            for i in holes:
                p = log_p(table.slot(source, tokens, i))
                filled[i] = max(WORDS, key=lambda w: p[w])
                score[i] = p[filled[i]]
            tokens = list(filled)
            hide = (length - 2) * (iterations - turn - 1) // iterations
            for i in sorted(range(1, length - 1), key=lambda i: score[i])[:hide]:
                tokens[i] = 4
        best = max(best, (sum(score) / length, tuple(filled[1:-1])))
    return best


@pytest.mark.parametrize(
    ("kind", "iterations", "extra"), [("topk", 4, False), ("around", 10, True), ("topk", 1, False)]
)
def test_mask_predict_does_what_is_written_in_its_paper(kind, iterations, extra):
    table = Table(3)
    found = mask_predict.decode(
        table,
        SOURCES,
        SPECIAL,
        iterations=iterations,
        lengths=kind,
        early_stop=False,
        extra_pass=extra,
    )
    scores = table.start(SOURCES).length_scores.numpy()
    for source, row, output in zip(SOURCES, scores, found, strict=True):
        order = sorted(range(3, 13), key=lambda n: -row[n])
        around = [min(max(order[0] + d, 3), 12) for d in (-1, 0, 1)]
        lengths = order[:3] if kind == "topk" else around
        want = plain_mask_predict(table, tuple(map(int, source)), iterations + extra, lengths)
        assert tuple(output.tokens) == want[1]
        assert output.score == pytest.approx(want[0])


def test_rescoring_prefers_what_the_left_to_right_streams_prefer():
    table = Table(4)
    given = dict(iterations=3, length_beam=4)
    plain = mask_predict.decode(table, SOURCES, SPECIAL, **given)
    for source, old, new in zip(
        SOURCES,
        plain,
        mask_predict.decode(table, SOURCES, SPECIAL, rescore=True, **given),
        strict=True,
    ):
        key = tuple(map(int, source))
        score = {}
        for o in (old, *old.others):
            words = tuple(o.tokens.tolist())
            steps = [log_p(table.after(key, words[:i]))[w] for i, w in enumerate((*words, 2))]
            score[words] = sum(steps) / len(steps)
        assert len(score) == 4
        assert tuple(new.tokens.tolist()) == max(score, key=score.get)
        assert new.score == pytest.approx(max(score.values()))
        assert new.passes == old.passes + 1


def test_stopping_early_is_stopping_when_a_pass_changes_nothing():
    model, objective = built()
    rng = np.random.default_rng(5)
    sources = [sentence(rng, n) for n in rng.integers(2, 12, 10)]
    decoder = IncrementalDecoder(model, objective)
    options = {"iterations": 10, "length_beam": 1, "early_stop": True}
    early = mask_predict.decode(decoder, sources, SPECIAL, **options)
    for source, output in zip(sources, early, strict=True):
        words = []
        for done in range(1, output.passes + 1):
            templates = _templates_after(decoder, source, done)
            words.append(tuple(templates.full[0, 0].tolist()))
        resolved = words[-1] == words[-2] if len(words) > 1 else False
        assert resolved or output.passes >= 10 - 10 // len(words[-1])
        assert all(a != b for a, b in itertools.pairwise(words[:-1]))


def _templates_after(decoder, source, passes):
    state = decoder.start([source])
    templates = Templates.of(
        decoder, state.length_scores[:, 3:].argmax(1, keepdim=True) + 3, SPECIAL
    )
    for done in range(1, passes + 1):
        templates = templates.filled(decoder, state, SPECIAL)
        if done < passes:
            templates = templates.hidden(mask_predict.schedule(10)(templates, done), SPECIAL)
    return templates


# What every file of the folder promises


def test_every_fixture_belongs_to_an_algorithm():
    assert {path.stem for path in FOLDER.glob("*.toml")} <= set(DECODERS)


@pytest.mark.parametrize("name", DECODERS)
def test_options_are_checked_by_name(name):
    assert isinstance(options(algorithm(name), {}, "decode"), dict)
    with pytest.raises(Refused, match="decode: unknown key 'beem'"):
        options(algorithm(name), {"beem": 3}, "decode")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "read"), READ)
def test_a_text_has_words_a_score_and_the_passes_it_took(name, read):
    model, objective = built(taught(name), read=read)
    rng = np.random.default_rng(8)
    for words in (1, 4, 9):
        decoder, source = CountingDecoder(model, objective), sentence(rng, words)
        (output,) = algorithm(name)(decoder, [source], SPECIAL, **settings(name, max_length=9))
        assert output.passes == decoder.word_by_word + decoder.all_at_once > 0
        for one in (output, *output.others):
            assert (one.tokens.ndim, one.tokens.dtype) == (1, np.int64)
            assert len(one.tokens) <= decoder.most_words
            assert (one.tokens > max(SPECIAL.mask, SPECIAL.unk)).all(), "a special token is no word"
            assert np.isfinite(one.score)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["ar", "cmlm"])
@pytest.mark.parametrize("name", DECODERS)
def test_a_checkpoint_that_writes_in_one_way_is_used_or_refused_by_name(name, objective):
    decoder = CountingDecoder(*built(objective))
    try:
        outputs = algorithm(name)(decoder, SOURCES, SPECIAL, **settings(name))
    except Refused as refused:
        assert f"objective '{objective}' cannot write" in str(refused)  # noqa: PT017
    else:
        assert len(outputs) == len(SOURCES)
        unlearnt = decoder.all_at_once if objective == "ar" else decoder.word_by_word
        assert not unlearnt, "passes that the checkpoint never learnt; see decoder.require"


@pytest.mark.slow
@pytest.mark.parametrize("room", SHAPES)
@pytest.mark.parametrize(("name", "read"), READ)
def test_a_batch_of_many_is_many_batches_of_one(name, read, room):
    model, objective = built(taught(name), read=read, room=room)
    rng = np.random.default_rng(4)
    sources = [sentence(rng, n) for n in rng.integers(1, 12, 9)]
    decoder, decode = IncrementalDecoder(model, objective), algorithm(name)
    given = settings(name, max_length=9, max_ratio=1.0)
    together = decode(decoder, sources, SPECIAL, **given)
    alone = [decode(decoder, [s], SPECIAL, **given)[0] for s in sources]
    several = len({len(o.tokens) for o in alone})
    assert several > (1 if room else 3), "sentences that all end together prove little"
    for a, b in zip(together, alone, strict=True):
        assert (a.tokens.tolist(), a.passes) == (b.tokens.tolist(), b.passes)
        assert [o.tokens.tolist() for o in a.others] == [o.tokens.tolist() for o in b.others]
        assert a.score == pytest.approx(b.score, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["input", "target"])
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"block": 8, "shifts": 3},
        {"shifts": 1},
        {"shifts": 5, "block": 3},
        {"block": 4, "draft_iterations": 3},
        {"no_repeat_ngram": 2},
        {"block": 8, "min_length": 9},
    ],
)
def test_speculative_writes_exactly_what_greedy_writes(place, given):
    limits = {k: v for k, v in given.items() if k in ("no_repeat_ngram", "min_length")}
    for seed, (read, room) in enumerate((("next", None), ("past", None), ("past", ROOM))):
        torch.manual_seed(seed)
        model, objective = built(read=read, query_position=place, room=room)
        rng = np.random.default_rng(seed)
        sources = [sentence(rng, n) for n in rng.integers(1, 12, 12)]
        decoder = IncrementalDecoder(model, objective)
        slow = greedy.decode(decoder, sources, SPECIAL, max_length=25, **limits)
        fast = speculative.decode(decoder, sources, SPECIAL, max_length=25, **given)
        assert [o.tokens.tolist() for o in slow] == [o.tokens.tolist() for o in fast]
        assert np.allclose([o.score for o in slow], [o.score for o in fast])


def test_a_watch_of_speculative_sees_every_word_come_and_changes_none():
    model, objective = built(read="next", query_position="input")
    decoder = IncrementalDecoder(model, objective)
    source = sentence(np.random.default_rng(3), 9)
    seen = []

    def watch(texts):
        [text] = texts
        seen.append((list(text.words), text.right, text.ended, list(text.draft)))

    [output] = speculative.decode(decoder, [source], SPECIAL, watch, max_length=25)
    [alone] = speculative.decode(decoder, [source], SPECIAL, max_length=25)
    assert output.tokens.tolist() == alone.tokens.tolist()
    assert seen[0][0] == []
    assert len(seen[0][3]) > 0
    for (before, *_), (words, right, ended, draft) in itertools.pairwise(seen):
        assert words[: len(before)] == before
        assert len(words) == len(before) + right + (not ended)
        taken = words[len(before) : len(before) + right]
        assert any(draft[i : i + right] == taken for i in range(len(draft) + 1))
    assert seen[-1][0] == output.tokens.tolist()
    assert seen[-1][2]
    assert len(seen) == output.passes  # the first is of the draft


def test_semi_writes_each_block_from_the_blocks_before_it():
    table = Table(6)
    for source, output in zip(SOURCES, semi.decode(table, SOURCES, SPECIAL, block=2), strict=True):
        key = tuple(map(int, source))
        length = int(table.start([source]).length_scores[0, 3:].argmax()) + 3
        tokens = [0, *[4] * (length - 2), 2]
        for start in range(1, length - 1, 2):
            places = range(start, min(start + 2, length - 1))
            words = [max(WORDS, key=lambda w: table.slot(key, tokens, i)[w]) for i in places]
            tokens[start : start + len(words)] = words
        assert output.tokens.tolist() == tokens[1:-1]
        assert output.passes == -(-(length - 2) // 2)


def test_speculative_with_a_perfect_draft_needs_two_passes():
    class Sure(Table):
        """Both streams know the same text by heart."""

        def slot(self, source, tokens, at):
            return np.eye(9)[5 + at % 4] * 9

        def after(self, source, text):
            words = [w for w in text if w != 0]
            right = all(w == 5 + (i + 1) % 4 for i, w in enumerate(words))
            length = int(self.start([np.array(source)]).length_scores[0, 3:].argmax()) + 1
            return np.eye(9)[2 if right and len(words) == length else 5 + (len(words) + 1) % 4] * 9

    outputs = speculative.decode(Sure(), SOURCES, SPECIAL, block=16)
    assert [o.passes for o in outputs] == [2] * len(SOURCES)
    slow = greedy.decode(Sure(), SOURCES, SPECIAL)
    assert [o.tokens.tolist() for o in outputs] == [o.tokens.tolist() for o in slow]


def test_sampling_follows_the_table():
    scores = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(4000, 4)
    drawn = torch.rand(4000)
    counts = sample.draw(scores, drawn, 1.0, 0, 1.0)[1][:, 0].bincount(minlength=4) / 4000
    assert torch.allclose(counts, scores[0].exp(), atol=0.03)
    assert set(sample.draw(scores, drawn, 1.0, 2, 1.0)[1][:, 0].tolist()) == {0, 1}
    assert set(sample.draw(scores, drawn, 1.0, 0, 0.75)[1][:, 0].tolist()) == {0, 1}
    assert set(sample.draw(scores, drawn, 1e-3, 0, 1.0)[1][:, 0].tolist()) == {0}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "way"),
    [("cmlm", "greedy"), ("ar", "mask_predict"), ("ar", "speculative"), ("cmlm", "beam")],
)
def test_what_a_checkpoint_never_learnt_is_refused(name, way):
    model, objective = built(name)
    with pytest.raises(Refused, match=f"objective '{name}' cannot write"):
        algorithm(way)(IncrementalDecoder(model, objective), SOURCES, SPECIAL)


def test_cmlm_writes_its_own_end():
    model, objective = built("cmlm")
    decoder = IncrementalDecoder(model, objective)
    template = decoder.template(5)
    assert (template.goal != NONE).sum() == 4
    outputs = mask_predict.decode(decoder, SOURCES, SPECIAL, length_beam=1)
    for source, output in zip(SOURCES, outputs, strict=True):
        length = int(decoder.start([source]).length_scores[0, 3:].argmax()) + 3
        assert len(output.tokens) == length - 2
        assert (output.tokens > 4).all()


def test_a_source_the_model_has_no_positions_for_is_refused():
    model, objective = built()
    with pytest.raises(Refused, match="source 1 of the batch has 41 tokens; possible: 1 to 40"):
        IncrementalDecoder(model, objective).start([np.arange(4), np.zeros(41, int)])
    with pytest.raises(Refused, match="source 0 of the batch has 9 tokens; possible: 0 to 8"):
        IncrementalDecoder(*built(room=8)).start([np.zeros(9, int)])


def test_top_is_topk():
    from januslm.decoding._constraints import top

    scores = torch.randn(7, 5003)
    for k in (1, 3, 10):
        value, at = top(scores, k)
        assert torch.equal(value, scores.topk(k)[0])
        assert torch.equal(scores.gather(1, at), value)


@pytest.mark.slow
@pytest.mark.parametrize("room", SHAPES)
@pytest.mark.parametrize("name", DECODERS)
def test_every_way_works_in_half_precision_up_to_the_last_position(name, room):
    model, objective = built(taught(name), dtype=torch.bfloat16, room=room)
    decoder = IncrementalDecoder(model, objective, packed=True)
    for output in algorithm(name)(decoder, SOURCES, SPECIAL):
        assert len(output.tokens) <= decoder.most_words
        assert (output.tokens > 4).all()


@pytest.mark.parametrize("room", SHAPES)
def test_a_state_can_be_copied_and_its_twin_used_up(room):
    model, objective = built(room=room)
    decoder = IncrementalDecoder(model, objective)
    state = decoder.start(SOURCES)
    twin = copy(state)
    write(
        decoder,
        twin,
        SPECIAL,
        candidates(twin.length_scores, 1, "topk", 20),
        mask_predict.schedule(3),
    )
    assert len(state) == len(SOURCES)
    assert decoder.step(state).shape[-1] == V
