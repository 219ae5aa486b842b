"""A trained model, asked for the next word or for all words at once, with everything cached.

B = sentences, W = hypotheses of one sentence, R = words each of them adds, L = length of a
template, N = source tokens, H = heads, d = width of a head, V = vocabulary.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from januslm.config import Refused
from januslm.inference.block_writing import Blocks
from januslm.inference.filling import Filling
from januslm.inference.kv_cache import Batched, Cached, Kept, Shared, State, additive_mask, both
from januslm.inference.onednn_linear import Packed, fits, packed_copy
from januslm.inference.request import check_ways
from januslm.layout import NONE, ArRead, Rule, Slots, stack, visible
from januslm.model.attention import AttentionPlan, Side, dense
from januslm.model.packing import Encoded
from januslm.model.transformer import Seq2Seq
from januslm.objective import Objective


class IncrementalDecoder:
    """What decoding algorithms ask: `start` a batch, then `step`, `block` or `fill`.

    packed: keep a second copy of the weights in oneDNN's layout (CPU, fp32 only): faster
    for few rows, equal to rounding.  Weights that change later are not noticed.
    """

    def __init__(self, model: Seq2Seq, objective: Objective, packed: bool = False):
        assert model.config.has_encoder == (objective.source_room is None), "two ways to read"
        packed = packed and fits(model.vocabulary_weight())
        self.model = packed_copy(model) if packed else model
        self.objective, self.special, self.name = objective, objective.special, objective.name
        self.read = objective.ar_read
        self.asks = self.read is not None and self.read.asks != self.read.words
        self.prefix = self.read.prefix if self.read else ()
        self.template_slots, self.row_slots = objective.template, objective.row
        self.blocks, self.any_order = objective.block_read, objective.any_order
        self.drafting: dict[tuple, tuple[Tensor, Tensor, int]] = {}  # see draft
        self.rule = objective.plugin.RULE
        self.vocabulary = model.config.vocabulary
        weight = model.vocabulary_weight()
        self.layers = list(self.model.decoder.layers)
        self.logits: Callable[[Tensor], Tensor] = (
            Packed(weight) if packed else lambda x: linear(x, weight)
        )

    @property
    def room(self) -> int:
        """How many positions a text may take; its source, where it shares the row, has its own."""
        return self.model.config.max_positions - (self.objective.source_room or 0)

    @property
    def most_words(self) -> int:
        """How many words there are positions for."""
        return self.room - len(self.prefix)

    @property
    def most_length(self) -> int:
        """The greatest length, BOS and EOS counted, that the length head and the positions know."""
        return min(self.room, self.model.config.max_length - 1)

    @property
    def most_row(self) -> int:
        """The greatest length, BOS and EOS counted, of a text that is written in one pass."""
        return self.room

    @property
    def most_block(self) -> int:
        """How many masks behind a word the checkpoint was taught to read at once."""
        return len(self.blocks.asks) if self.blocks else 0

    def require(self, *ways: str) -> None:
        """Refuse what the checkpoint never learnt: "word by word" or "all at once"."""
        check_ways(self.objective, ways)

    def template(self, length: int) -> Slots:
        """The slots mask-predict starts from, by position; `length` counts BOS and EOS."""
        assert self.template_slots is not None, "require() refuses it"
        slots = self.template_slots(length)
        assert visible(self.rule, slots, slots).all(), f"{self.name}: a template that hides slots"
        return slots[np.argsort(slots.position)]

    @torch.inference_mode()
    def start(self, sources: Sequence[np.ndarray]) -> State:
        """Read int64 [N] each, BOS .. EOS; keys and values of each layer are made here, once.

        A model without an encoder writes from no source as well, N = 0.
        """
        room = self.objective.source_room
        least, most = (1, self.model.config.max_positions) if room is None else (0, room)
        for number, source in enumerate(sources):
            if not least <= len(source) <= most:
                raise Refused(
                    f"source {number} of the batch has {len(source)} tokens; possible: {least} to "
                    f"{most}"
                )
        assert not self.model.training, "decoding needs model.eval()"
        sizes = np.array([len(s) for s in sources])
        device, token = self.model.embedding.weight.device, self.model.config.length == "token"
        encoded = _encoded(sources, sizes, device, token)
        step = np.arange(sizes.max())
        first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        last = np.maximum(sizes[:, None] - 1, 0)
        at = torch.from_numpy((first[:, None] + np.minimum(step, last)).clip(max=sizes.sum() - 1))
        real = torch.from_numpy(step < sizes[:, None])
        layout = at.to(device), real.to(device)
        return self._encode(encoded, *layout) if room is None else self._lead(encoded, *layout)

    def _encode(self, encoded: Encoded, at: Tensor, real: Tensor) -> State:
        """at: int64 [B, N], where each source's tokens lie among all; real: bool, its own ones."""
        memory = self.model.encode(encoded)
        lengths = self.model.length_logits(memory, encoded).float().log_softmax(-1)
        memory, memory_position = encoded.read(memory)
        turns = self.model.decoder.memory_turns(memory_position)
        pairs = [
            both(layer.encoder_attn.keys(memory, turns), lambda x: x[at].transpose(1, 2))
            for layer in self.layers
        ]
        memory_mask = None if real.all() else additive_mask(real[:, None, None], memory.dtype)
        return State(pairs, memory_mask, lengths, torch.zeros_like(at[:, 0]), at[:, :0])

    def _lead(self, encoded: Encoded, at: Tensor, real: Tensor) -> State:
        """The same without an encoder: one pass of the stack, whose keys begin the cache."""
        config, size = self.model.config, at.shape[1]
        kept = [Kept(encoded.plan) for _ in self.layers]
        if size:
            x = self._through(encoded.token, encoded.position, kept, None, [], None, None)
            cache = [both(plan.read, lambda x: x[at].transpose(1, 2)) for plan in kept]
        else:
            x = self.model.embedding.weight[:0]
            empty = x.new_empty(len(at), config.heads, 0, config.width // config.heads)
            cache = [(empty, empty)] * len(kept)
        return State(
            memory=[],
            memory_mask=None,
            length_scores=self.model.length_logits(x, encoded).float().log_softmax(-1),
            at=encoded.sizes,
            key_position=torch.arange(size, device=at.device).expand(len(at), -1),
            cache=cache,
            used=size,
            self_mask=None if real.all() else real[:, None],
            source=size,
        )

    @torch.inference_mode()
    def step(
        self, state: State, words: Tensor | None = None, parents: Tensor | None = None
    ) -> Tensor:
        """Logits of the next word [B, W, V] of each hypothesis, after `words` int64 [B, W].

        words None: nothing is written yet, W = 1.  parents int64 [B, W]: which hypothesis of the
        step before each one continues; None: its own.
        """
        if words is None:
            prefix = torch.tensor(self.prefix, device=state.at.device).expand(len(state), 1, -1)
            return self._write(state, prefix, None, ask_all=False)[:, :, -1]
        return self._write(state, words[..., None], parents, ask_all=True)[:, :, 0]

    @torch.inference_mode()
    def block(self, state: State, words: Tensor) -> Tensor:
        """One pass for R words in a row, int64 [B, W, R] -> logits [B, W, R, V] after each.

        The prefix is `self.prefix`.  Where one hypothesis was, several may go on: `state.choose`
        keeps one of them, and `state.take_back` undoes its words that turn out wrong.
        """
        return self._write(state, words, None, ask_all=True)

    @torch.inference_mode()
    def draft(
        self,
        state: State,
        words: Tensor,
        size: int,
        blocks: int = 0,
        parents: tuple[int, ...] = (),
    ) -> tuple[Tensor, Tensor]:
        """One pass for R words, int64 [B, R], and `size` masks after the last `blocks` of them.

        blocks: A of the words; 0: all.  parents: of each word the one before it, -1 for what is
        cached; (): the words stand in a row.  Logits [B, A, V] of the next word after each of them,
        and [B, A, size, V] of the block that stands behind it; the first of a block asks for that
        next word too.  Only the words join the cache: of a tree `state.follow` keeps one way.
        """
        assert self.read is not None, "require() refuses it"
        (batch, run), device = words.shape, words.device
        asked, asking = blocks or run, max(size, int(self.asks))
        if not asking and not parents and asked == run:
            after = self.block(state, words[:, None])[:, 0]
            return after, after[:, :, None][:, :, :0]
        key = parents or (*range(-1, run - 1),), asked, asking
        if key not in self.drafting:
            self.drafting[key] = _drafting(self.rule, self.read, *key, device)
        behind, new, deep = self.drafting[key]
        masks = torch.full((batch, asked * asking), self.read.query, device=device)
        place = (state.at[:, None] + behind).clamp(max=self.model.config.max_positions - 1)
        if state.self_mask is None:
            old = torch.ones(batch, 1, state.used, dtype=torch.bool, device=device)
        else:
            old = state.self_mask
            state.self_mask = torch.cat([old, torch.ones_like(words, dtype=torch.bool)[:, None]], 2)
        look = torch.cat([old.expand(-1, len(new), -1), new.expand(batch, -1, -1)], 2)
        both_masks = (additive_mask(look[:, None], self.model.embedding.weight.dtype),) * 2
        state.at = state.at + deep
        state.key_position = torch.cat([state.key_position, place], 1)
        state.make_room(place.shape[1])
        tokens = torch.cat([words, masks], 1)
        every = torch.arange(tokens.shape[1], device=device)
        x = self._layers(state, tokens, place, every, every, both_masks)
        state.used += run
        state.key_position = state.key_position[:, : state.used]
        logits = self.logits(x).view(batch, -1, self.vocabulary)
        block = logits[:, run:].reshape(batch, asked, asking, self.vocabulary)
        after = block[:, :, 0] if self.asks else logits[:, run - asked : run]
        return after, block[:, :, :size]

    def filling(self, state: State, lengths: Sequence[int]) -> Filling:
        """Texts of these lengths, BOS and EOS counted, to be written in any order; uses it up."""
        assert self.any_order is not None, "require() refuses it"
        return Filling(self.extend, self.rule, state, [self.any_order(n) for n in lengths])

    def block_writing(self, state: State) -> Blocks:
        """Texts to be written block by block; uses the state up."""
        assert self.blocks is not None, "require() refuses it"
        return Blocks(self.extend, self.rule, state, self.blocks)

    @torch.inference_mode()
    def extend(
        self, state: State, tokens: Tensor, place: Tensor, look: Tensor, kept: int
    ) -> Tensor:
        """One pass over slots of any streams, int64 [B, S] at these places of the target.

        The first `kept` join the cache; logits [B, S - kept, V] of the others.  look: bool
        [B, S, K + S], who reads the K latest of the cache and whom of these slots; what was cached
        before is read by all.
        """
        (batch, size), device = tokens.shape, tokens.device
        place = (state.at[:, None] + place).clamp(max=self.model.config.max_positions - 1)
        if before := state.used + size - look.shape[2]:
            old = torch.ones(batch, 1, before, dtype=torch.bool, device=device)
            if state.self_mask is not None:
                old = state.self_mask[..., :before]
            look = torch.cat([old.expand(-1, size, -1), look], 2)
        if state.self_mask is not None:
            new = torch.ones(batch, 1, kept, dtype=torch.bool, device=device)
            state.self_mask = torch.cat([state.self_mask, new], 2)
        mask = additive_mask(look[:, None], self.model.embedding.weight.dtype)
        state.key_position = torch.cat([state.key_position, place], 1)
        state.make_room(size, ahead=4)  # the first may be as long as a text
        every = torch.arange(size, device=device)
        masks = mask, mask[:, :, kept:]
        x = self._layers(state, tokens, place, every, every[kept:], masks)
        state.used += kept
        state.key_position = state.key_position[:, : state.used]
        return self.logits(x).view(batch, size - kept, self.vocabulary)

    def _write(self, state: State, words: Tensor, parents, ask_all: bool) -> Tensor:
        """words int64 [B, W, R] -> logits [B, W, R or 1, V]; the words join the cache.

        Rows lie sentence by sentence: W * R past slots, then as many that ask for the next word.
        """
        (batch, width, run), device = words.shape, words.device
        size, streams = width * run, 1 + self.asks
        mask = self._look(state, width, run, parents)
        tokens = words.flatten(1)
        if self.read and self.asks:
            tokens = torch.cat([tokens, torch.full_like(tokens, self.read.query)], 1)
        place = state.at[:, None] + torch.arange(run, device=device).repeat(streams * width)
        own = self.read is not None and self.asks and self.read.own
        if self.read and self.asks:
            place[:, size:] += self.read.behind
        # What is ended, and the filling of short blocks, may stand beyond the last position.
        place = place.clamp(max=self.model.config.max_positions - 1)
        state.at = state.at + run
        rows = torch.arange(streams * size, device=device).view(streams, width, run)
        keys, rows = rows[: 1 + own].flatten(), rows[-1, :, 0 if ask_all else -1 :].flatten()
        state.key_position = torch.cat([state.key_position, place[:, : len(keys)]], 1)
        state.make_room(len(keys))
        masks: tuple[Tensor | None, Tensor | None] = (None, None)
        if own:
            both = _with_itself(mask, state.used, size, self.model.embedding.weight)
            masks = both, both[:, :, rows]
        elif mask is not None:
            masks = mask.repeat(1, 1, streams, 1), mask[:, :, rows % size]
        x = self._layers(state, tokens, place, keys, rows, masks)
        state.used += size
        state.key_position = state.key_position[:, : state.used]
        return self.logits(x).view(batch, width, -1, self.vocabulary)

    def _look(self, state: State, width: int, run: int, parents) -> Tensor | None:
        """Who reads which place, float [B, 1, W * R, used + W * R]; brings self_mask up to date."""
        batch, device, old = len(state), state.at.device, state.self_mask
        if width == 1 and old is None and run == 1:
            return None
        if old is None:
            old = torch.ones(batch, 1, state.used, dtype=torch.bool, device=device)
        elif parents is not None:
            old = old.gather(1, parents[..., None].expand(-1, -1, state.used))
        old = old.expand(batch, width, -1)
        own = torch.eye(width, dtype=torch.bool, device=device).repeat_interleave(run, 1)
        if width > 1 or state.self_mask is not None:
            state.self_mask = mask = torch.cat([old, own.expand(batch, -1, -1)], 2)
            if run == 1:
                return additive_mask(mask[:, None], self.model.embedding.weight.dtype)
        back = torch.ones(run, run, dtype=torch.bool, device=device).tril().repeat(width, width)
        new = own.repeat_interleave(run, 0) & back
        look = torch.cat([old.repeat_interleave(run, 1), new.expand(batch, -1, -1)], 2)
        return additive_mask(look[:, None], self.model.embedding.weight.dtype)

    def _layers(self, state: State, tokens, place, keys, rows, masks) -> Tensor:
        """tokens, place int64 [B, S]; keys, rows: which of the S can be read, which are wanted.

        masks: for the inner layers and for the last -> [B * rows, D].
        """
        batch = len(tokens)
        last = len(self.layers) - 1
        plans = [
            Cached(pair, state.used, batch, masks[i == last], state.key_position)
            for i, pair in enumerate(state.cache)
        ]
        rows = rows if len(rows) < tokens.shape[1] else None
        return self._through(
            tokens,
            place,
            plans,
            Shared(batch, state.memory_mask),
            state.memory,
            everywhere(keys, *tokens.shape) if self.asks else None,
            everywhere(rows, *tokens.shape),
        )

    def _through(
        self,
        tokens,
        place,
        plans: Sequence[AttentionPlan],
        cross: AttentionPlan | None,
        memory,
        keys,
        rows,
    ) -> Tensor:
        """The decoder's layers, each reading by its own plan -> [wanted rows, D]."""
        place = place.flatten()
        stack = self.model.decoder
        x = stack.embed_positions(self.model.embed(tokens.flatten()), place)
        for i, (layer, plan) in enumerate(zip(self.layers, plans, strict=True)):
            wanted = rows if i == len(self.layers) - 1 else None
            view = stack.view(plan, place, cross=cross, keys=keys, rows=wanted)
            x = layer(x, view, memory[i] if memory else None)
        return stack.final_layer_norm(x)

    @torch.inference_mode()
    def fill(
        self, state: State, tokens: Tensor, sizes: Tensor, first: int, asked: Tensor
    ) -> Tensor:
        """One pass over C templates per sentence, all slots of which see each other.

        tokens int64 [B, C, L] at the positions first, first + 1, ..; sizes int64 [B, C]; asked bool
        [B, C, L] -> logits [A, V] in the order of asked.nonzero().
        """
        batch, templates, length = tokens.shape
        step = torch.arange(length, device=tokens.device)
        look = step < sizes.view(-1, 1, 1)
        rows, wanted = _rows(asked.view(batch * templates, length))
        x = self._templates(
            state, tokens.reshape(-1, length), first + step, None if look.all() else look, rows
        )
        return self.logits(x if wanted is None else x.index_select(0, wanted))

    @torch.inference_mode()
    def row(self, state: State, length: int) -> Tensor:
        """One pass from masks alone, for texts of up to `length` tokens with BOS and EOS.

        Logits [B, length - 1, V]; whoever reads them finds where a text ends.
        """
        assert self.row_slots is not None, "require() refuses it"
        slots, device = self.row_slots(length), state.at.device
        token, place = (torch.from_numpy(x).to(device) for x in (slots.token, slots.position))
        look = torch.from_numpy(visible(self.rule, slots, slots)).to(device)
        x = self._templates(state, token.expand(len(state), -1), place, look[None], None)
        return self.logits(x).view(len(state), len(slots), self.vocabulary)

    def _templates(self, state: State, tokens, place, look, rows) -> Tensor:
        """tokens int64 [B * C, L] at place [L] of the target -> [rows, D].

        look: bool [B * C or 1, L or 1, L], who reads whom; None: all.  rows: as of _rows.
        """
        most = self.model.config.max_positions - 1
        if self.model.config.has_encoder:
            place = place.clamp(max=most).repeat(len(tokens))
            mask = None
            if look is not None:
                mask = additive_mask(look[:, None], self.model.embedding.weight.dtype)
            return self._alone(state, tokens, place, mask, rows)
        return self._behind_source(state, tokens, place, look, rows)

    def _behind_source(self, state: State, tokens, place, look, rows) -> Tensor:
        """The same where the source begins the cache: the templates of a sentence lie side by side.

        Their places in the cache are free again afterwards.
        """
        assert state.used == state.source, "templates are filled before words are written"
        batch, length = len(state), tokens.shape[1]
        count = len(tokens) // batch
        place = state.at[:, None] + place.repeat(count)
        place = place.clamp(max=self.model.config.max_positions - 1)
        last = mask = _beside(state, look, count, length, self.model.embedding.weight)
        if rows is not None:
            first = torch.arange(batch, device=rows.device)[:, None] * count * length
            own = (rows.view(batch, -1) - first)[:, None, :, None]
            last = mask.gather(2, own.expand(-1, -1, -1, mask.shape[3]))
        key_position = torch.cat([state.key_position, place], 1)
        state.make_room(count * length, ahead=1)
        final = len(self.layers) - 1
        plans = [
            Cached(pair, state.used, batch, last if i == final else mask, key_position)
            for i, pair in enumerate(state.cache)
        ]
        return self._through(tokens, place, plans, None, [], None, rows)

    def _alone(self, state: State, tokens, place, mask, rows) -> Tensor:
        """Templates that read themselves, and the memory.  place int64 [B * C * L]."""
        plans = [Batched(len(tokens), mask)] * len(self.layers)
        cross = Shared(len(state), state.memory_mask)
        return self._through(tokens, place, plans, cross, state.memory, None, rows)


def _beside(state: State, look: Tensor | None, count: int, length: int, like: Tensor) -> Tensor:
    """What templates read that lie side by side behind their source: float [B, 1, C L, N + C L].

    look: bool [B C or 1, L or 1, L]; None: each all of itself.
    """
    batch, device = len(state), like.device
    own = torch.ones(1, 1, 1, dtype=torch.bool, device=device) if look is None else look
    own = own.expand(batch * count, length, length).view(batch, count, length, 1, length)
    itself = torch.eye(count, dtype=torch.bool, device=device)[:, None, :, None]
    new = (own & itself).view(batch, count * length, count * length)
    old = state.self_mask
    if old is None:
        old = torch.ones(batch, 1, state.used, dtype=torch.bool, device=device)
    seen = torch.cat([old.expand(-1, count * length, -1), new], 2)
    return additive_mask(seen[:, None], like.dtype)


def _with_itself(mask: Tensor | None, used: int, size: int, like: Tensor) -> Tensor:
    """What S words may read, and S asking slots: the same and each itself; float [B, 1, 2S, K + S].

    mask: float [B, 1, S, K] of the words, K = used + S; None: they may read all, S = 1.
    """
    if mask is None:
        mask = like.new_zeros(1, 1, 1, used + 1)
    self = additive_mask(torch.eye(size, dtype=torch.bool, device=like.device), like.dtype)
    none = additive_mask(torch.zeros(size, size, dtype=torch.bool, device=like.device), like.dtype)
    new = torch.cat([none, self]).expand(len(mask), 1, -1, -1)
    return torch.cat([mask.repeat(1, 1, 2, 1), new], 3)


def _drafting(
    rule: Rule, read: ArRead, parents: tuple[int, ...], asked: int, size: int, device
) -> tuple[Tensor, Tensor, int]:
    """R words and a block behind each of the last `asked`: places, who reads whom, words in a row.

    -> int64 [S], bool [S, S], the longest way.
    """
    run = len(parents)
    way = np.eye(run, dtype=bool)  # [R, R]: which words lead to a word, it among them
    for word, parent in enumerate(parents):
        if parent >= 0:
            way[word] |= way[parent]
    depth = way.sum(1) - 1
    last, streams = np.arange(run)[-asked:], [rule.streams.index(n) for n in read.drafts[:size]]
    behind = depth[last][:, None] + 1 + np.arange(size)
    slots = stack(
        (0, depth, rule.streams.index(read.words), depth, NONE),
        (0, behind.ravel(), np.tile(streams, asked), depth[last].repeat(size), NONE),
    )
    owner = np.concatenate([np.arange(run), last.repeat(size)])  # the word a slot is, or is behind
    look = visible(rule, slots, slots) & way[owner][:, owner]
    places = torch.from_numpy(slots.position).to(device)
    return places, torch.from_numpy(look).to(device), int(depth.max()) + 1


def everywhere(index: Tensor | None, batch: int, each: int) -> Tensor | None:
    """The same rows of every sentence: int64 [n], among `each` -> int64 [batch * n]."""
    if index is None or batch == 1:
        return index
    return (torch.arange(batch, device=index.device)[:, None] * each + index).flatten()


def _rows(asked: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Flat places whose output is wanted, as many in each row (padding repeats); which are real."""
    if asked.all():
        return None, None
    counts = asked.sum(1)
    most = max(1, int(counts.max()))
    order = (~asked).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
    start = torch.arange(len(asked), device=asked.device)[:, None] * asked.shape[1]
    real = torch.arange(most, device=asked.device) < counts[:, None]
    return (start + order).flatten(), None if real.all() else real.flatten().nonzero()[:, 0]


def _encoded(
    sources: Sequence[np.ndarray], sizes: np.ndarray, device, length_token: bool
) -> Encoded:
    """The sources one after another, without padding; a row for [LEN] before each if it has one."""
    lengths, before = sizes, int(length_token)
    sources, sizes = [np.pad(s, (before, 0)) for s in sources], sizes + before
    group = np.repeat(np.arange(len(sizes)), sizes)
    plan: AttentionPlan = Batched(len(sizes))
    if (sizes != sizes[0]).any():
        plan = dense(Side(group), Side(group)).to(device)
    place = np.concatenate([np.maximum(np.arange(s) - before, 0) for s in sizes])
    columns: tuple[np.ndarray, ...] = np.concatenate(sources), place, group, lengths
    if length_token:
        first = np.cumsum(sizes) - sizes
        columns = *columns, first, np.delete(np.arange(len(place)), first)
    token, position, example, length, *apart = (
        torch.from_numpy(np.asarray(c, np.int64)).to(device) for c in columns
    )
    return Encoded(token, position, example, length, plan, *apart)
