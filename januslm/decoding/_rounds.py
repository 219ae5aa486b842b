"""Pass after pass of a draft: in one form throughout, or in whatever form pays."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from januslm.decoding import Output
from januslm.decoding._costs import Costs, clock, costs
from januslm.decoding._forms import Acceptance, Chooser, Form, Kind
from januslm.decoding._trees import Tree

AGAIN = 32  # passes after which the form is chosen anew


class Drafted(Protocol):
    """What is written of one sentence, and the draft of what follows; empty: there is none."""

    draft: Sequence


# read(rows, head, tree, masks): one pass over a tree of each row's draft, with so many masks behind
# each word; returns how many words of what each row read were wrong, int64 [B].
Read = Callable[[list, tuple[int, ...], Tree, int], Tensor]


class Fixed:
    """One form: of two passes a round, the one that drafts where there is no draft."""

    def __init__(self, form: Form):
        self.form, self.acceptance = form, Acceptance()

    def one_pass(self, read: Read, rows: list, head: tuple[int, ...]) -> Tensor:
        """head: the prefix in the first pass, then empty; returns what `read` does."""
        return read(rows, head, *self.next_pass(rows))

    def next_pass(self, rows: Sequence[Drafted]) -> tuple[Tree, int]:
        """What is verified, and how many masks stand behind each word."""
        form, drafted = self.form, any(text.draft for text in rows)
        masks = 0 if form.kind == "two" and drafted else form.masks
        return form.tree if drafted and form.kind != "greedy" else Tree(), masks


class Cheapest(Fixed):
    """The form that promises most words a second, chosen anew after some passes.

    size: masks behind a word, at most; lines: too.
    """

    def __init__(
        self,
        decoder,
        device: torch.device,
        sources: Sequence[np.ndarray],
        chooser: Chooser,
        size: int,
        lines: int,
    ):
        self.form, self.acceptance = Form("greedy"), chooser.acceptance
        self.decoder, self.device = decoder, device
        self.sources, self.chooser = sources, chooser
        self.size, self.lines = size, lines
        self.cost: Costs | None = None  # that the form was chosen by
        self.left = 0
        self.last: tuple[float, Kind, float] | None = None  # pass: when it began, what it promised

    def pays(self) -> bool:
        """Whether anything is to be drafted for these sources."""
        self._choose(len(self.sources))
        return self.form.kind != "greedy"

    def plainly(self, written: Callable[[], list[Output]]) -> list[Output]:
        """What another algorithm writes without a draft; its time is remembered."""
        assert self.cost is not None, "pays() chooses"
        began, outputs = clock(self.device), written()
        promised = max(output.passes for output in outputs) * self.cost(1)
        self.chooser.took("greedy", clock(self.device) - began, promised)
        return outputs

    def one_pass(self, read: Read, rows: list, head: tuple[int, ...]) -> Tensor:
        began = clock(self.device)
        if self.last:  # up to this one, so that nothing done between passes is forgotten
            since, kind, promised = self.last
            self.chooser.took(kind, began - since, promised)
        cost = self._choose(len(rows))
        tree, masks = self.next_pass(rows)
        promised = cost((1 + len(tree)) * (1 + masks))
        self.last = None if head else (began, self.form.kind, promised)
        return read(rows, head, tree, masks)

    def _choose(self, batch: int) -> Costs:
        """The form for batches of this size; again where that or enough passes have changed it."""
        cost = costs(self.decoder, self.sources[:batch], self.decoder.most_block)
        if cost is not self.cost or not self.left:
            self.form = self.chooser.best(cost, self.size, self.lines)
            self.cost, self.left = cost, AGAIN
        self.left -= 1
        return cost
