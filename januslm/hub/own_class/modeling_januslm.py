"""A januslm model in transformers: AR by `generate()`, NAR by `mask_predict()`, `draft()`, ..

Needs torch and transformers alone; tensors are named as in januslm/model/transformer.py.
B = texts, N = source tokens, S = decoder inputs, K = keys, D = width, H = heads, V = vocabulary,
C = lengths tried for one text, L = slots of the longest of them.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, gelu, relu, scaled_dot_product_attention
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from .configuration_januslm import JanusLMConfig

SHORTEST = 3  # BOS, one word, EOS


@dataclass
class Reading:
    """How one pass attends."""

    position: Tensor  # int64 [S], of the inputs
    key_position: Tensor  # int64 [K]
    mask: Tensor | None  # bool [B or 1, 1, S, K]: which input sees which key; None: all see all
    memory_mask: Tensor | None = None  # bool [B, 1, 1, N]: source tokens that are no padding
    keys: int | None = None  # so many inputs, the first, can be read; None: all
    passing: int = 0  # so many inputs after those can be read in this pass alone: no cache has them
    cache: Any = None  # transformers' EncoderDecoderCache, or None


class Positions(nn.Module):
    """What is added to embedded tokens for the place they stand at."""

    def __init__(self, config: JanusLMConfig):
        super().__init__()
        self.kind = config.positions
        if self.kind == "learned":
            self.table = nn.Embedding(config.max_positions, config.width)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        if self.kind == "learned":
            return x + self.table(position)
        if self.kind == "sinusoidal":
            half = x.shape[-1] // 2
            step = -math.log(1e4) / max(half - 1, 1)
            rate = torch.exp(torch.arange(half, device=x.device) * step)
            angle = position[:, None] * rate
            return x + torch.cat([angle.sin(), angle.cos()], -1).to(x.dtype)
        return x


class T5Bias(nn.Module):
    """A table of buckets in both directions, the same for all layers of a stack (Raffel 2020)."""

    BUCKETS, FAR = 32, 128

    def __init__(self, config: JanusLMConfig, layers: int):
        super().__init__()
        self.table = nn.Embedding(self.BUCKETS, config.heads)

    def bucket(self, distance: Tensor) -> Tensor:
        """int64, a key's place minus the query's -> int64."""
        half, exact, far = self.BUCKETS // 2, self.BUCKETS // 4, distance.abs()
        grown = torch.log(far.clamp(min=1) / exact) / math.log(self.FAR / exact) * (half - exact)
        near = torch.where(far < exact, far, (exact + grown.long()).clamp(max=half - 1))
        return near + half * (distance > 0)

    def values(self, layer: int, query: Tensor, attention: "Attention") -> Tensor:
        """What a layer's attention reads [B, S, D] -> [B or 1, H, S or 1, buckets]."""
        return self.table.weight.t()[None, :, None]


class ProphetNetBias(nn.Module):
    """Buckets of how far back a key stands, weighed by the reader's hidden state (Qi 2020)."""

    BUCKETS, FAR = 32, 128

    def __init__(self, config: JanusLMConfig, layers: int):
        super().__init__()
        each = (nn.Linear(config.width, self.BUCKETS * config.heads) for _ in range(layers))
        self.relative_pos_embeddings = nn.ModuleList(each)

    def bucket(self, distance: Tensor) -> Tensor:
        back, exact = (-distance).clamp(min=0), self.BUCKETS // 2
        grown = torch.log(back.clamp(min=1) / exact) / math.log(self.FAR / exact) * exact
        return torch.where(back < exact, back, (exact + grown.long()).clamp(max=self.BUCKETS - 1))

    def values(self, layer: int, query: Tensor, attention: "Attention") -> Tensor:
        found = self.relative_pos_embeddings[layer](query)
        return found.unflatten(-1, (self.BUCKETS, attention.heads)).permute(0, 3, 1, 2)


class XLNetBias(nn.Module):
    """The query against a learned map of the distance's wave (Yang 2019, Dai 2019)."""

    FAR = 128

    def __init__(self, config: JanusLMConfig, layers: int):
        super().__init__()
        width = config.width
        self.r = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(layers))
        biases = (nn.Parameter(torch.zeros(width)) for _ in range(layers))
        self.r_r_bias = nn.ParameterList(biases)

    def bucket(self, distance: Tensor) -> Tensor:
        return distance.clamp(-self.FAR, self.FAR) + self.FAR

    def values(self, layer: int, query: Tensor, attention: "Attention") -> Tensor:
        width, heads = query.shape[-1], attention.heads
        half = (width + 1) // 2
        rate = 1e4 ** (-torch.arange(half, dtype=torch.float64) / half)
        angle = torch.arange(self.FAR, -self.FAR - 1, -1)[:, None] * rate
        wave = torch.cat([angle.sin(), angle.cos()], 1)[:, :width].float().to(query)
        asks = query @ attention.q_proj.weight.t() + self.r_r_bias[layer]
        far = self.r[layer](wave).unflatten(-1, (heads, -1)).permute(1, 2, 0)  # [H, d, buckets]
        asks = asks.unflatten(-1, (heads, -1)).transpose(1, 2)
        return asks @ far * asks.shape[-1] ** -0.5


BIASES = {"prophetnet": ProphetNetBias, "t5": T5Bias, "xlnet": XLNetBias}
DECODERS = ("prophetnet",)  # biases that the encoder has none of


def rotate(x: Tensor, position: Tensor) -> Tensor:
    """Rotary positions: x [B, H, S, d] turned by position int64 [S]."""
    half = x.shape[-1] // 2
    rate = 1e4 ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = position[:, None] * rate
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    one, other = x[..., :half], x[..., half:]
    return torch.cat([one * cos - other * sin, one * sin + other * cos], -1)


class Attention(nn.Module):
    """Multi-head attention over keys and values [B, H, K, d] that are made beforehand."""

    def __init__(self, config: JanusLMConfig):
        super().__init__()
        self.heads = config.heads
        self.q_proj = nn.Linear(config.width, config.width)
        self.kv_proj = nn.Linear(config.width, 2 * config.width)
        self.out_proj = nn.Linear(config.width, config.width)

    def keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        k, v = self.kv_proj(x).unflatten(-1, (2, self.heads, -1)).unbind(-3)
        return k.transpose(1, 2), v.transpose(1, 2)

    def queries(self, x: Tensor) -> Tensor:
        return self.q_proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        values = scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out_proj(values.transpose(1, 2).flatten(-2))


def _norm(config: JanusLMConfig) -> nn.LayerNorm:
    return nn.LayerNorm(config.width, eps=config.norm_eps)


def _spread(values: Tensor, bucket: Tensor) -> Tensor:
    """[B or 1, H, S or 1, buckets], of each query, at int64 [S, K] -> [B or 1, H, S, K]."""
    values = values.expand(-1, -1, len(bucket), -1)
    return values.gather(-1, bucket.expand(*values.shape[:2], -1, -1))


class Layer(nn.Module):
    """Self-attention, attention to the source if there is one, feed-forward."""

    def __init__(self, config: JanusLMConfig, number: int, crosses: bool):
        super().__init__()
        self.number, self.pre, self.drop = number, config.norm == "pre", config.dropout
        self.turns = config.positions in ("rotary", "rotary_cross")
        self.turns_cross = config.positions == "rotary_cross"
        self.act = gelu if config.activation == "gelu" else relu
        self.self_attn = Attention(config)
        self.self_attn_layer_norm = _norm(config)
        if crosses:
            self.encoder_attn = Attention(config)
            self.encoder_attn_layer_norm = _norm(config)
        self.fc1 = nn.Linear(config.width, config.ffn)
        self.fc2 = nn.Linear(config.ffn, config.width)
        self.final_layer_norm = _norm(config)

    def forward(self, x: Tensor, reading: Reading, bias, memory=None) -> Tensor:
        """x: [B, S, D]; bias: a scheme and the buckets int64 [S, K]; memory: [B, N, D]."""
        x = self._add(self.self_attn_layer_norm, x, lambda h: self._read_own(h, reading, bias))
        if memory is not None:
            x = self._add(
                self.encoder_attn_layer_norm, x, lambda h: self._read_source(h, reading, memory)
            )
        return self._add(self.final_layer_norm, x, lambda h: self.fc2(self.act(self.fc1(h))))

    def _add(self, norm: nn.LayerNorm, x: Tensor, change) -> Tensor:
        more = dropout(change(norm(x) if self.pre else x), self.drop, self.training)
        return x + more if self.pre else norm(x + more)

    def _read_own(self, h: Tensor, reading: Reading, bias) -> Tensor:
        keys = h.shape[1] if reading.keys is None else reading.keys
        read = keys + reading.passing
        q, both = self.self_attn.queries(h), self.self_attn.keys(h[:, :read])
        k, v = both
        if self.turns:
            q, k = rotate(q, reading.position), rotate(k, reading.position[:read])
        if reading.cache is not None:
            passing = k[:, :, keys:], v[:, :, keys:]
            both = reading.cache.self_attention_cache.update(
                k[:, :, :keys], v[:, :, :keys], self.number
            )
            k, v = (torch.cat(parts, 2) for parts in zip(both, passing, strict=True))
        mask = reading.mask
        if bias is not None:
            scheme, bucket = bias
            scores = _spread(scheme.values(self.number, h, self.self_attn), bucket)
            mask = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
        return self.self_attn(q, k, v, mask)

    def _read_source(self, h: Tensor, reading: Reading, memory: Tensor) -> Tensor:
        if reading.cache is None:
            k, v = self._source_keys(memory)
        elif reading.cache.is_updated.get(self.number):
            known = reading.cache.cross_attention_cache.layers[self.number]
            k, v = known.keys, known.values
        else:
            k, v = self._source_keys(memory)
            k, v = reading.cache.cross_attention_cache.update(k, v, self.number)
            reading.cache.is_updated[self.number] = True
        q = self.encoder_attn.queries(h)
        q = rotate(q, reading.position) if self.turns_cross else q
        return self.encoder_attn(q, k, v, reading.memory_mask)

    def _source_keys(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        k, v = self.encoder_attn.keys(memory)
        if self.turns_cross:
            k = rotate(k, torch.arange(k.shape[2], device=k.device))
        return k, v


class Stack(nn.Module):
    """Positions, embedding norm and layers."""

    def __init__(self, config: JanusLMConfig, layers: int, crosses: bool):
        super().__init__()
        self.drop = config.dropout
        self.positions = Positions(config)
        kind = config.position_bias
        wanted = kind and (crosses or kind not in DECODERS)
        self.position_bias: Any = BIASES[kind](config, layers) if wanted else None
        norms = (config.embedding_norm, config.norm == "pre")
        self.embedding_layer_norm, self.final_layer_norm = (
            _norm(config) if wanted else nn.Identity() for wanted in norms
        )
        self.layers = nn.ModuleList(Layer(config, i, crosses) for i in range(layers))

    def run(self, x: Tensor, reading: Reading, memory: Tensor | None = None) -> Tensor:
        """Embedded tokens [B, S, D] -> [B, S, D]."""
        x = self.embedding_layer_norm(self.positions(x, reading.position))
        x = dropout(x, self.drop, self.training)
        bias, scheme = None, self.position_bias
        if scheme is not None:
            bias = scheme, scheme.bucket(reading.key_position - reading.position[:, None])
        for layer in self.layers:
            x = layer(x, reading, bias, memory)
        return self.final_layer_norm(x)


class Encoder(Stack):
    """The source side, called as transformers calls encoders."""

    main_input_name = "input_ids"

    def __init__(self, config: JanusLMConfig, embed):
        super().__init__(config, config.encoder_layers, crosses=False)
        self.embed = embed  # a method of the whole model, whose table both sides share

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_):
        """int64 [B, N], BOS .. EOS, padded at the right -> last_hidden_state [B, N, D]."""
        position = torch.arange(input_ids.shape[1], device=input_ids.device)
        reading = Reading(position, position, _real(attention_mask))
        return BaseModelOutput(last_hidden_state=self.run(self.embed(input_ids), reading))


class JanusLMForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """Encoder, decoder and length head over one embedding table."""

    config_class = JanusLMConfig
    _input_embed_layer = "embedding"
    _no_split_modules = ["Layer"]  # noqa: RUF012  # transformers' way

    def __init__(self, config: JanusLMConfig):
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocabulary + config.extra_vectors, config.width)
        self.encoder = Encoder(config, self.embed)
        self.decoder = Stack(config, config.decoder_layers, crosses=True)
        self.length_head = nn.Linear(config.width, config.lengths, bias=False)
        if not config.tied:
            self.lm_head = nn.Linear(config.width, config.vocabulary, bias=False)
        self.post_init()

    def _source_side(self, *_, **__) -> Encoder:
        return self.encoder

    get_encoder = _source_side  # transformers 4 asks for it, 5 finds it by itself

    def embed(self, token: Tensor) -> Tensor:
        x = self.embedding(token)
        return x * math.sqrt(self.config.width) if self.config.embedding_scale else x

    def logits(self, x: Tensor) -> Tensor:
        """[.., D] -> [.., V]."""
        if not self.config.tied:
            return self.lm_head(x)
        return x @ self.embedding.weight[: self.config.vocabulary].t()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs=None,
        cache=None,
        past_key_values=None,  # what `cache` was called before transformers 5
        labels: Tensor | None = None,
        **_,
    ) -> Seq2SeqLMOutput:
        """AR's logits [B, T, V]: of the word that follows each of decoder_input_ids int64 [B, T].

        The first of them are config.ar_prefix.
        """
        if self.config.ar_prefix is None:
            raise ValueError(self._no_ar())
        if labels is not None:
            raise ValueError("this class only writes: train the model with januslm")
        if decoder_input_ids is None:
            raise ValueError("decoder_input_ids is missing: config.ar_prefix and the words so far")
        cache = past_key_values if cache is None else cache
        if encoder_outputs is None:
            encoder_outputs = self.encoder(input_ids, attention_mask)
        words, device = decoder_input_ids.shape[1], decoder_input_ids.device
        before = 0 if cache is None else cache.self_attention_cache.get_seq_length()
        key_position = torch.arange(before + words, device=device)
        position = key_position[before:]
        mask = (key_position <= position[:, None])[None, None]
        if decoder_attention_mask is not None:
            mask = mask & decoder_attention_mask[:, None, None, : before + words].bool()
        tokens, passing = decoder_input_ids, 0
        if self.config.asks:  # slots that ask for the next word see what the word sees
            asking = torch.full_like(tokens, self.config.query_token_id)
            tokens = torch.cat([tokens, asking], 1)
            asked = (position + self.config.query_behind).clamp(max=self.config.max_positions - 1)
            position, mask = torch.cat([position, asked]), mask.repeat(1, 1, 2, 1)
            if self.config.query_own:  # and themselves
                passing, key_position = words, torch.cat([key_position, asked])
                own = torch.eye(words, dtype=torch.bool, device=device)
                own = torch.cat([torch.zeros_like(own), own]).expand(*mask.shape[:2], -1, -1)
                mask = torch.cat([mask, own], 3)
        real = _real(attention_mask)
        reading = Reading(position, key_position, mask, real, words, passing, cache)
        memory = encoder_outputs[0]
        x = self.decoder.run(self.embed(tokens), reading, memory)[:, -words:]
        return Seq2SeqLMOutput(logits=self.logits(x), encoder_last_hidden_state=memory)

    def generate(self, inputs: Tensor | None = None, *args, **kwargs):
        """AR, as any model's; AR's first words are given to it where there are several."""
        if self.config.ar_prefix is None:
            raise ValueError(self._no_ar())
        given = inputs if inputs is not None else kwargs.get("input_ids")
        if "decoder_input_ids" not in kwargs and given is not None:
            prefix = torch.tensor(self.config.ar_prefix, device=given.device)
            kwargs["decoder_input_ids"] = prefix.expand(len(given), -1)
        return super().generate(inputs, *args, **kwargs)

    @torch.no_grad()
    def mask_predict(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        iterations: int = 10,
        length_beam: int = 3,
    ) -> Tensor:
        """NAR, int64 [B, T]: words and EOS, then padding.  Ghazvininejad 2019.

        All words are written at once and the least certain ones anew, in `iterations` passes;
        of the `length_beam` likeliest lengths the one with the highest mean log p wins.
        """
        config = self.config
        if config.template is None:
            raise ValueError("this model writes word by word alone: use generate()")
        if self.training:
            raise ValueError("call .eval() before mask_predict()")
        memory = self.encoder(input_ids, attention_mask)[0]
        lengths = self._likeliest_lengths(memory, attention_mask, length_beam)
        count = lengths.shape[1]
        memory = memory.repeat_interleave(count, 0)
        memory_mask = _real(attention_mask)
        memory_mask = None if memory_mask is None else memory_mask.repeat_interleave(count, 0)
        first, head, tail = (config.template[name] for name in ("first", "head", "tail"))
        sizes = lengths.flatten()[:, None] - first  # [B * C, 1]
        position = first + torch.arange(int(sizes.max()), device=sizes.device)
        step = position - first
        holes = (step >= len(head)) & (step < sizes - len(tail))
        ends = holes & (step == sizes - 1)  # only EOS can stand there
        tokens = torch.full_like(holes, config.mask_token_id, dtype=torch.long)
        for place, token in enumerate(head):
            tokens[:, place] = token
        for place, token in enumerate(reversed(tail)):
            tokens.scatter_(1, sizes - 1 - place, token)
        score = torch.zeros(tokens.shape, device=tokens.device, dtype=torch.float64)
        reading = Reading(position, position, (step < sizes)[:, None, None], memory_mask)
        masked = holes
        for done in range(1, iterations + 1):
            logits = self.logits(self.decoder.run(self.embed(tokens), reading, memory))
            value, word = self._choice(logits, ends)
            tokens, score = torch.where(masked, word, tokens), torch.where(masked, value, score)
            again = holes.sum(1, keepdim=True) * (iterations - done) // iterations
            if not again.any():
                break
            doubt = score.masked_fill(~holes, torch.inf).argsort(dim=1, stable=True)
            masked = torch.zeros_like(holes).scatter(1, doubt, step < again)
            tokens = tokens.masked_fill(masked, config.mask_token_id)
        return self._best(tokens, score.sum(1) / sizes[:, 0], holes & ~ends, count)

    @torch.no_grad()
    def draft(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, max_words: int = 200
    ) -> Tensor:
        """Greedy's words in fewer passes, int64 [B, T] as mask_predict's; one text at a time.

        A pass reads the words so far, the words it guessed before, and behind each of the latter a
        block of masks: words up to the first wrong guess stand, the block behind it guesses on.
        """
        most = self._blocks(max_words)
        return self._one_by_one(input_ids, attention_mask, lambda one: self._drafted(one, most))

    @torch.no_grad()
    def blockwise(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, max_words: int = 200
    ) -> Tensor:
        """Semi-NAR, int64 [B, T] as mask_predict's: each pass writes a block, unchecked."""
        most = self._blocks(max_words)
        return self._one_by_one(input_ids, attention_mask, lambda one: self._blockwise(one, most))

    @torch.no_grad()
    def one_pass(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, max_words: int = 200
    ) -> Tensor:
        """NAR in one pass, int64 [B, T] as mask_predict's (BANG, Qi 2021).

        As many masks as the source has tokens; the text ends at the first EOS, and of equal tokens
        side by side one stays.
        """
        self._require(self.config.row, "was not taught to write from a row of masks")
        most = min(max_words, self.config.max_positions - 2)
        return self._one_by_one(input_ids, attention_mask, lambda one: self._row(one, most))

    def _no_ar(self) -> str:
        way = "one_pass" if self.config.row else "mask_predict"
        return f"this model writes all at once: use {way}()"

    def _require(self, able: bool, lacks: str) -> None:
        if not able:
            raise ValueError(f"this model {lacks}")
        if self.training:
            raise ValueError("call .eval() before it writes")

    def _blocks(self, max_words: int) -> int:
        """Most words of a text that is written in blocks."""
        self._require(self.config.block > 0, "was not taught to draft blocks")
        return min(max_words, self.config.max_positions - len(self.config.ar_prefix))

    def _one_by_one(self, input_ids: Tensor, attention_mask: Tensor | None, write) -> Tensor:
        """`write` makes of int64 [1, N] the words int64 [T], without EOS."""
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        pairs = zip(input_ids, real.bool(), strict=True)
        return self._padded([write(ids[one][None]) for ids, one in pairs])

    def _row(self, source: Tensor, most: int) -> Tensor:
        c, memory = self.config, self.encoder(source)[0]
        places = max(1, min(source.shape[1], most))
        position = 1 + torch.arange(places + 1, device=source.device)
        mask = (position <= position[:, None])[None, None]
        tokens = torch.full_like(position, c.query_token_id)[None]
        reading = Reading(position, position, mask)
        found = self._words(self.decoder.run(self.embed(tokens), reading, memory))[0]
        ends = (found[:places] == c.eos_token_id).nonzero()
        words = found[: ends[0, 0] if len(ends) else places]
        return torch.unique_consecutive(words)

    def _drafted(self, source: Tensor, most: int) -> Tensor:
        eos, prefix = self.config.eos_token_id, self.config.ar_prefix
        memory = self.encoder(source)[0]
        words: list[int] = []
        guess: list[int] = []
        while True:
            guess = guess[: most - len(words)]
            guess = guess[: guess.index(eos)] if eos in guess else guess
            after, behind = self._draft_pass([*prefix, *words, *guess], len(guess) + 1, memory)
            right = 0
            while right < len(guess) and guess[right] == after[right]:
                right += 1
            words += after[: right + 1]
            guess = behind[right][1:]
            if words[-1] == eos or len(words) > most:
                return source.new_tensor(words[:-1])

    def _blockwise(self, source: Tensor, most: int) -> Tensor:
        eos, memory = self.config.eos_token_id, self.encoder(source)[0]
        words: list[int] = []
        while eos not in words and len(words) <= most:
            words += self._draft_pass([*self.config.ar_prefix, *words], 1, memory)[1][0]
        return source.new_tensor(words[: words.index(eos)] if eos in words[:most] else words[:most])

    def _draft_pass(self, words: list[int], last: int, memory: Tensor) -> tuple[list, list]:
        """What follows each of the `last` words, and what the block behind each says."""
        c, size, device = self.config, self.config.block, memory.device
        step, blocks = torch.arange(len(words), device=device), torch.arange(last, device=device)
        block = blocks.repeat_interleave(size)  # of each mask
        first = len(words) - last + blocks  # the word that each block stands behind
        place = (first[:, None] + 1 + torch.arange(size, device=device)).flatten()
        reads = torch.cat([step, first[block]])[:, None] >= step
        own = block[:, None] == block
        if c.chain:
            own = own & (place[:, None] >= place)
        own = torch.nn.functional.pad(own, (0, 0, len(words), 0))
        place = torch.cat([step, place]).clamp(max=c.max_positions - 1)
        reading = Reading(place, place, torch.cat([reads, own], 1)[None, None])
        tokens = torch.tensor([words + [c.query_token_id] * len(block)], device=device)
        found = self._words(self.decoder.run(self.embed(tokens), reading, memory))[0]
        behind = found[len(words) :].view(last, size)
        after = behind[:, 0] if c.asks else found[len(words) - last : len(words)]
        return after.tolist(), behind.tolist()

    def _words(self, x: Tensor) -> Tensor:
        """[.., D] -> the likeliest words or EOS, int64 [..]."""
        c, scores = self.config, self.logits(x)
        barred = [c.bos_token_id, c.pad_token_id, c.unk_token_id, c.mask_token_id]
        scores[..., barred] = -torch.inf
        return scores.argmax(-1)

    def _likeliest_lengths(self, memory: Tensor, attention_mask, count: int) -> Tensor:
        """int64 [B, C], BOS and EOS counted."""
        real = memory.new_ones(memory.shape[:2]) if attention_mask is None else attention_mask
        real = real.to(memory.dtype)[..., None]
        scores = self.length_head((memory * real).sum(1) / real.sum(1))
        if self.config.length_offset:
            kinds = self.config.lengths
            offset = torch.arange(kinds, device=scores.device) - real.sum(1).long()
            scores = scores.gather(1, (offset + kinds // 2).clamp(0, kinds - 1))
        most = min(self.config.max_positions, self.config.lengths - 1)
        scores = _log_p(scores)[:, : most + 1]
        scores[:, :SHORTEST] = -torch.inf
        return scores.topk(min(count, most + 1 - SHORTEST)).indices

    def _choice(self, logits: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
        """log p and the likeliest word of each slot [B * C, L]; special tokens are no words."""
        c = self.config
        scores = _log_p(logits)
        end = scores[..., c.eos_token_id].clone()
        no_words = [c.bos_token_id, c.pad_token_id, c.eos_token_id, c.unk_token_id, c.mask_token_id]
        scores[..., no_words] = -torch.inf
        value, word = scores.max(-1)
        return torch.where(ends, end, value), word.masked_fill(ends, c.eos_token_id)

    def _best(self, tokens: Tensor, mean: Tensor, words: Tensor, count: int) -> Tensor:
        """The words of the best of each text's lengths, int64 [B, T]."""
        rows = mean.view(-1, count).argmax(1) + torch.arange(0, len(mean), count).to(mean.device)
        return self._padded([tokens[row][words[row]] for row in rows.tolist()])

    def _padded(self, texts: list[Tensor]) -> Tensor:
        """With EOS, side by side."""
        ended = [torch.cat([text, text.new_tensor([self.config.eos_token_id])]) for text in texts]
        pad = self.config.pad_token_id
        return nn.utils.rnn.pad_sequence(ended, batch_first=True, padding_value=pad)


def _log_p(logits: Tensor) -> Tensor:
    """In fp32 at least."""
    return logits.log_softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))


def _real(attention_mask: Tensor | None) -> Tensor | None:
    """bool [B, 1, 1, N] of a mask [B, N]."""
    return None if attention_mask is None else attention_mask[:, None, None].bool()
