"""Hidden states at the slots with a goal -> named loss terms, without a [rows, vocabulary] tensor.

Logits, softmax in fp32 and their gradient live for one chunk only: the gradient is known in closed
form, so it is taken in the forward pass, for label-smoothed cross-entropies and symmetric KL at
once (three log-softmaxes where the reference computes fifteen).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = {True: 256, False: 2048}  # rows on a CPU: what a cache holds; else: what outlasts a launch


@dataclass(frozen=True)
class LossGroup:
    """Target words that the same distributions predict: s distributions, n words."""

    distributions: tuple[str, ...]
    rows: Tensor  # int64 [s, n]: which decoded row predicts word j of distribution i
    target: Tensor  # int64 [n]
    weight: Tensor | None = None  # float [s, n], of each prediction; None: 1 everywhere

    def to(self, device) -> "LossGroup":
        weight = None if self.weight is None else self.weight.to(device)
        return LossGroup(self.distributions, self.rows.to(device), self.target.to(device), weight)


def counts(
    loss_groups: list[LossGroup], weights: dict[str, float], examples: int
) -> dict[str, int]:
    """How many words (examples, for the length) each weighted term is summed over."""
    out = {}
    for name in weights:
        of = name.partition("/")[2]
        need = of.split("~")
        words = sum(s.rows.shape[1] for s in loss_groups if set(need) <= set(s.distributions))
        out[name] = examples if of == "length" else words
    return out


def fused(
    hidden: Tensor,
    weight: Tensor,
    loss_groups: list[LossGroup],
    coefficients: dict[str, float],
    *,
    smoothing: float = 0.0,
    detach: str = "none",
    chunk: int = 0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted loss and the plain sums of its terms.

    hidden: [G, D], one row per predicting slot; weight: [V, D], the output embedding.  Returns
    sum(coefficients[name] * sums[name]) and the sums, each over the words that its distributions
    predict: `ce/a` is (1-e) NLL + e mean_v(-log p_v); `kl/a~b` is (KL(a|b) + KL(b|a)) / 2, over the
    vocabulary.  A word counts with its slot's weight, in a pair with the product of both.
    `accept/a~b` is sum_v min(a_v, b_v), the chance that a word drawn from one is kept by whoever
    draws from the other (Leviathan 2023); it has no gradient, and no slot's weight.
    detach "first" stops the gradient into the distribution named first, the teacher.
    chunk: rows at once, 0: as CHUNK says.
    """
    chunk = chunk or CHUNK[hidden.device.type == "cpu"]
    names = [n for n in coefficients if n != "ce/length"]
    recipe = _Recipe(loss_groups, names, [coefficients[n] for n in names], smoothing, detach, chunk)
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):  # the products in its type, all sums in fp32, as in bf16
        low = torch.get_autocast_dtype(kind)
        hidden, weight = hidden.to(low), weight.to(low)
    with torch.autocast(kind, enabled=False):
        loss, sums = _Fused.apply(hidden, weight, recipe)
    return loss, dict(zip(names, sums.unbind(), strict=True))


@dataclass(frozen=True)
class _Recipe:
    loss_groups: list[LossGroup]
    names: list[str]
    scale: list[float]
    smoothing: float
    detach: str
    chunk: int


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, recipe: _Recipe):
        wants = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        grads = (torch.zeros_like(hidden), torch.zeros_like(weight, dtype=wide)) if wants else None
        sums = hidden.new_zeros(len(recipe.names), dtype=torch.float64)
        for loss_group in recipe.loss_groups:
            work = _Chunk(loss_group.distributions, recipe, sums)
            width = max(1, recipe.chunk // len(loss_group.distributions))
            for start in range(0, loss_group.rows.shape[1], width):
                rows = loss_group.rows[:, start : start + width]
                h = hidden.index_select(0, rows.flatten())
                logits = (h @ weight.t()).to(wide).view(*rows.shape, -1)
                span = slice(start, start + width)
                weights = None if loss_group.weight is None else loss_group.weight[:, span]
                grad = work.run(logits, loss_group.target[span], wants, weights)
                if grads is not None and grad is not None:
                    grad = grad.flatten(0, 1).to(h.dtype)
                    grads[0].index_copy_(0, rows.flatten(), grad @ weight)
                    _accumulate(grads[1], grad, h)
        ctx.save_for_backward(*grads or ())
        ctx.kind = weight.dtype
        loss = (sums * sums.new_tensor(recipe.scale)).sum().to(wide)
        sums = sums.to(wide)
        ctx.mark_non_differentiable(sums)
        return loss, sums

    @staticmethod
    def backward(ctx, outside: Tensor, _):
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * outside, (grad_weight * outside).to(ctx.kind), None


def _accumulate(total: Tensor, grad: Tensor, h: Tensor) -> None:
    if total.dtype == grad.dtype:
        total.addmm_(grad.t(), h)
    else:
        total += grad.t() @ h


class _Chunk:
    """All terms among the distributions of one group, and their gradient in the logits.

    With P = softmax, L = log-softmax of s distributions, a pair (a, b) of weight k adds, with
    D = L_a - L_b, dJ/da = k/2 [P_a (D - <P_a, D> + 1) - P_b], and the mirror image for b.  Summed
    over pairs the parts in D are one s x s matrix times L, the parts in P another times P.
    """

    def __init__(self, distributions: tuple[str, ...], recipe: _Recipe, sums: Tensor):
        self.sums, self.smoothing = sums, recipe.smoothing
        # The term's place, its distributions', its coefficient; of two, which of them learns.
        self.ce: list[tuple[int, int, float]] = []
        self.pairs: list[tuple[int, int, int, float, tuple[bool, bool]]] = []
        self.shared: list[tuple[int, int, int]] = []  # the same two of what is measured alone
        for i, name in enumerate(recipe.names):
            kind, _, of = name.partition("/")
            if not set(need := of.split("~")) <= set(distributions):
                continue
            at = [distributions.index(name) for name in need]
            if kind == "ce":
                self.ce.append((i, at[0], recipe.scale[i]))
            elif kind == "accept":
                self.shared.append((i, at[0], at[1]))
            else:
                learns = (recipe.detach == "none", True)
                self.pairs.append((i, at[0], at[1], recipe.scale[i] / 2, learns))

    def run(
        self, logits: Tensor, target: Tensor, wants: bool, weight: Tensor | None
    ) -> Tensor | None:
        """logits: fp32 [s, n, V], overwritten; target: int64 [n]; weight: float [s, n], None: 1.

        Returns the gradient [s, n, V], if it is wanted.
        """
        e = self.smoothing
        weight = logits.new_ones(len(logits), 1) if weight is None else weight.to(logits.dtype)
        mean = logits.mean(-1) if e else None
        norm = logits.logsumexp(-1)
        log_p = logits.sub_(norm[..., None])
        own = log_p.gather(-1, target.expand(len(log_p), -1)[..., None])[..., 0]
        for i, s, _ in self.ce:
            loss = -own[s] if mean is None else -(1 - e) * own[s] - e * (mean[s] - norm[s])
            self.sums[i] += (loss * weight[s]).sum()
        if not wants and not self.pairs and not self.shared:
            return None
        p = log_p.exp()
        for i, a, b in self.shared:
            self.sums[i] += torch.minimum(p[a], p[b]).sum()
        inner = self._inner(p, log_p)  # <P_a, L_b> for all a, b of pairs
        for i, a, b, _, _ in self.pairs:
            both = inner[a, a] - inner[a, b] + inner[b, b] - inner[b, a]
            self.sums[i] += (both * weight[a] * weight[b]).sum() / 2
        return self._gradient(log_p, p, inner, target, weight) if wants else None

    def _inner(self, p: Tensor, log_p: Tensor) -> dict[tuple[int, int], Tensor]:
        need = {(x, y) for _, a, b, _, _ in self.pairs for x in (a, b) for y in (a, b)}
        return {(x, y): torch.linalg.vecdot(p[x], log_p[y]) for x, y in need}

    def _gradient(self, log_p, p, inner, target, weight: Tensor) -> Tensor:
        (s, n, size), e, words = p.shape, self.smoothing, weight.shape[1]
        spread = p.new_zeros(words, s, s)  # dJ = P * (spread @ L + shift) - swap @ P, by word
        swap = p.new_zeros(words, s, s)
        shift = p.new_zeros(s, n)
        for _, a, b, k, learns in self.pairs:
            scale = k * weight[a] * weight[b]
            for x, y, learn in ((a, b, learns[0]), (b, a, learns[1])):
                if learn:
                    spread[:, x, x] += scale
                    spread[:, x, y] -= scale
                    swap[:, x, y] += scale
                    shift[x] += scale * (1 - inner[x, x] + inner[x, y])
        for _, x, k in self.ce:
            shift[x] += k * weight[x]
        if self.pairs:
            grad = _mixed(spread, log_p).add_(shift[..., None]).mul_(p)
            if words == 1:
                grad.flatten(1).addmm_(swap[0], p.flatten(1), alpha=-1)
            else:
                grad -= _mixed(swap, p)
        else:
            grad = p.mul_(shift[..., None])
        for _, x, k in self.ce:
            scale = (k * weight[x]).expand(n)
            if e:
                grad[x] -= scale[:, None] * e / size
            grad[x].scatter_add_(-1, target[:, None], -scale[:, None] * (1 - e))
        return grad


def _mixed(by: Tensor, x: Tensor) -> Tensor:
    """by [n or 1, s, s] times x [s, n, V], word by word -> [s, n, V]."""
    if len(by) == 1:
        return (by[0] @ x.flatten(1)).view_as(x)
    return torch.einsum("nst,tnv->snv", by, x)
