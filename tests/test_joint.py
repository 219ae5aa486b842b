"""One joint pass equals three separate ones written by hand: AR alone, NAR alone and AUX alone.

Nothing of our attention, packing or losses is used on that side: padded batches, dense masks filled
by loops from the paper's definition, one head after another, over the same weights.
"""

import numpy as np
import pytest
import torch
from torch.nn.functional import gelu, layer_norm, relu

from januslm.model.joint_loss import ModelWithLoss
from tests.samples import SPECIAL, coefficients, examples, model, packed, resolved

CLOSE = 1e-10
SIZES = [3, 8, 5, 11]


def attend(weights, x, keys, seen):
    """x: [B, A, D]; keys: [B, K, D]; seen: bool [B, A, K]."""
    width, heads = x.shape[-1], weights.heads
    d = width // heads
    q = x @ weights.q_proj.weight.T + weights.q_proj.bias
    both = keys @ weights.kv_proj.weight.T + weights.kv_proj.bias
    k, v = both[..., :width], both[..., width:]
    out = torch.zeros_like(x)
    for h in range(heads):
        part = slice(h * d, (h + 1) * d)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / d**0.5
        scores = torch.where(seen, scores, torch.full_like(scores, -1e300))
        scores = scores - scores.max(-1, keepdim=True).values
        share = scores.exp() / scores.exp().sum(-1, keepdim=True)
        out[..., part] = share @ v[..., part]
    return out @ weights.out_proj.weight.T + weights.out_proj.bias


def normed(norm, x):
    return layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def transformer(net, stack, token, position, seen, memory=None, source=None):
    """The post-norm transformer of `net` over one padded batch; int64 [B, A] -> [B, A, D]."""
    x = net.embedding.weight[token]
    if net.config.embedding_scale:
        x = x * net.config.width**0.5
    x = x + stack.positions.table.weight[position]
    if net.config.embedding_norm:
        x = normed(stack.embedding_layer_norm, x)
    act = gelu if net.config.activation == "gelu" else relu
    for layer in stack.layers:
        x = normed(layer.self_attn_layer_norm, x + attend(layer.self_attn, x, x, seen))
        if memory is not None:
            across = source[:, None, :].expand(-1, x.shape[1], -1)
            x = normed(
                layer.encoder_attn_layer_norm, x + attend(layer.encoder_attn, x, memory, across)
            )
        inner = act(x @ layer.fc1.weight.T + layer.fc1.bias)
        x = normed(layer.final_layer_norm, x + inner @ layer.fc2.weight.T + layer.fc2.bias)
    return x


def padded(columns: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """int64 [B, A] and which are real."""
    most = max(map(len, columns))
    token = torch.tensor([c + [SPECIAL.pad] * (most - len(c)) for c in columns])
    return token, torch.tensor([[i < len(c) for i in range(most)] for c in columns])


class Separate:
    """Three passes over the same sentences, each with an encoder pass of its own."""

    def __init__(self, net, made):
        self.net, self.made = net, made
        token, self.real = padded([e.source.tolist() for e in made])
        position = torch.arange(token.shape[1]).expand_as(token)
        seen = self.real[:, None, :].expand(-1, token.shape[1], -1)
        self.memory = transformer(net, net.encoder, token, position, seen)
        self.holes = [
            sorted(set(e.layout.slots.goal[e.layout.slots.stream == 1].tolist())) for e in made
        ]

    def run(self, slots: list[list[tuple]], sees) -> dict[tuple, torch.Tensor]:
        """Decode slots (kind, token, position); -> log p by (sentence, kind, position)."""
        token, _ = padded([[t for _, t, _ in line] for line in slots])
        position, _ = padded([[p for _, _, p in line] for line in slots])
        seen = torch.zeros(len(slots), token.shape[1], token.shape[1], dtype=torch.bool)
        for b, line in enumerate(slots):
            for i in range(token.shape[1]):
                seen[b, i, min(i, len(line) - 1)] = i >= len(line)  # padding must read something
            for i, q in enumerate(line):
                for j, k in enumerate(line):
                    seen[b, i, j] = sees(b, q, k)
        out = transformer(self.net, self.net.decoder, token, position, seen, self.memory, self.real)
        logits = out @ self.net.embedding.weight.T
        log_p = logits - logits.exp().sum(-1, keepdim=True).log()
        found = {}
        for b, line in enumerate(slots):
            for i, (kind, _, p) in enumerate(line):
                found[b, kind, p] = log_p[b, i]
        return found

    def ar(self, place: str) -> dict[tuple, torch.Tensor]:
        """log p(y_t | y_<t, x), by (sentence, t): queries B ask, words A are read up to them."""
        slots, shift = [], 1 if place == "input" else 0
        for e in self.made:
            words = e.target.tolist()
            words = words[:-1] if place == "input" else [SPECIAL.eos, *words[:-1]]
            line = [("A", w, i) for i, w in enumerate(words)]
            slots.append(line + [("B", SPECIAL.mask, i) for i in range(len(words))])
        found = self.run(slots, lambda b, q, k: k[0] == "A" and k[2] <= q[2])
        return {(b, i + shift): x for (b, kind, i), x in found.items() if kind == "B"}

    def nar(self) -> dict[tuple, torch.Tensor]:
        """log p(y_m | the words that are not hidden, x): a masked language model."""
        slots = [
            [
                ("M" if i in holes else "U", SPECIAL.mask if i in holes else w, i)
                for i, w in enumerate(e.target.tolist())
            ]
            for e, holes in zip(self.made, self.holes, strict=True)
        ]
        found = self.run(slots, lambda b, q, k: True)
        return {(b, i): x for (b, kind, i), x in found.items() if kind == "M"}

    def aux(self) -> dict[tuple, torch.Tensor]:
        """log p(y_k | given words, hidden words before k, that the holes from k on exist, x)."""
        slots = []
        for e, holes in zip(self.made, self.holes, strict=True):
            words = e.target.tolist()
            line = [("U", w, i) for i, w in enumerate(words) if i not in holes]
            for kind in "MYQ":
                line += [(kind, words[i] if kind == "Y" else SPECIAL.mask, i) for i in holes]
            slots.append(line)

        def sees(b, q, k):
            if k[0] == "Q":
                return False
            if k[0] == "U":
                return True
            if q[0] in "UM":
                return k[0] == "M"
            known = k[2] <= q[2] if q[0] == "Y" else k[2] < q[2]
            return known if k[0] == "Y" else not known

        found = self.run(slots, sees)
        return {(b, i): x for (b, kind, i), x in found.items() if kind == "Q"}


def joint(net, batch) -> dict[str, dict[int, list[torch.Tensor]]]:
    """log p of the joint pass, by stream and by the word that is to be predicted."""
    hidden, _ = net(batch)
    log_p = (hidden @ net.embedding.weight.T).log_softmax(-1)
    found = {}
    for loss_group in batch.loss_groups:
        for stream, rows in zip(loss_group.distributions, loss_group.rows, strict=True):
            for row, word in zip(rows.tolist(), loss_group.target.tolist(), strict=True):
                found.setdefault(stream, {}).setdefault(word, []).append(log_p[row])
    return found


def setting(place: str, style: dict, preset: str = "nmt"):
    """A model, its objective and examples; in one sentence no word comes twice."""
    net = model(vocabulary=64, **style)
    objective = resolved("janus", preset, query_position=place)
    made = examples(objective, np.random.default_rng(3), SIZES)
    return net, objective, made


STYLES = [
    {"activation": "gelu", "embedding_norm": True, "embedding_scale": False},
    {"activation": "relu", "embedding_norm": False, "embedding_scale": True},
]


@pytest.mark.slow
@pytest.mark.parametrize("style", STYLES, ids=["bart", "fairseq"])
@pytest.mark.parametrize("place", ["input", "target"])
def test_the_joint_pass_equals_three_separate_passes(place, style):
    net, objective, made = setting(place, style)
    one = Separate(net, made)
    separate = {"ar": one.ar(place), "nar": one.nar(), "aux": one.aux()}
    together = joint(net, packed(objective, made))
    for number, e in enumerate(made):
        alone = joint(net, packed(objective, [e]))
        for stream, wanted in separate.items():
            for log_p, word in (
                (x, int(e.target[t])) for (b, t), x in wanted.items() if b == number
            ):
                assert torch.allclose(alone[stream][word][0], log_p, atol=CLOSE, rtol=0)
                near = [(x - log_p).abs().max() for x in together[stream][word]]
                assert min(near) < CLOSE, "packed with others it is another distribution"


def cross_entropy(log_p: torch.Tensor, word: int, smoothing: float) -> torch.Tensor:
    return -(1 - smoothing) * log_p[word] - smoothing * log_p.mean()


def divergence(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return ((a.exp() * (a - b)).sum() + (b.exp() * (b - a)).sum()) / 2


def length_term(net, one: Separate) -> torch.Tensor:
    """Sum over sentences: -log p(length | mean of the encoder's states)."""
    total = 0.0
    for b, e in enumerate(one.made):
        mean = one.memory[b, : len(e.source)].mean(0)
        total = total - (net.length_head.weight @ mean).log_softmax(0)[len(e.target)]
    return total


def by_formula(net, made, place: str, preset: str) -> torch.Tensor:
    """Translation: every term its own mean; pretraining: sums over all target tokens."""
    one = Separate(net, made)
    ar, nar, aux = one.ar(place), one.nar(), one.aux()
    smoothing = 0.1 if preset == "nmt" else 0.0

    def ce(found):
        return sum(cross_entropy(x, made[b].target[t], smoothing) for (b, t), x in found.items())

    def between(a, b):
        return sum(divergence(a[at], b[at]) for at in nar)

    if preset == "nmt":
        total = ce(ar) / len(ar) + 0.5 * (ce(nar) + ce(aux)) / len(nar)
        total = total + 0.1 * length_term(net, one) / len(made)
        pairs = between(ar, nar) + 3 * between(ar, aux) + between(nar, aux)
        return total + pairs / len(nar)
    total = 0.5 * (ce(ar) + ce(nar) + ce(aux)) + 0.5 * (between(nar, aux) + between(ar, aux))
    return total / sum(len(e.target) for e in made)


@pytest.mark.parametrize(("preset", "place"), [("nmt", "input"), ("pretrain", "target")])
def test_the_published_loss_and_its_gradient_come_out_of_the_joint_pass(preset, place):
    net, objective, made = setting(place, STYLES[1], preset)
    batch = packed(objective, made)
    weights = objective.loss.weights
    scale = coefficients(weights, batch)
    if objective.loss.normalize == "tokens":
        scale = {name: w / batch.tokens for name, w in weights.items()}
    found, _ = ModelWithLoss(net, objective.loss)(batch, scale)
    wanted = by_formula(net, made, place, preset)
    assert abs(found - wanted) < CLOSE
    slopes = torch.autograd.grad(found, list(net.parameters()), allow_unused=True)
    truth = torch.autograd.grad(wanted, list(net.parameters()), allow_unused=True)
    for (name, _), a, b in zip(net.named_parameters(), slopes, truth, strict=True):
        assert (a is None) == (b is None), name
        assert a is None or torch.allclose(a, b, atol=1e-9, rtol=1e-8), name
