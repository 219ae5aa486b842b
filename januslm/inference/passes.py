"""What each pass of a way to write has left of a text, in pieces that say what is new in them."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from torch import Tensor

from januslm.data.tokenizer import Tokenizer
from januslm.decoding._templates import Templates

# What a piece is: kept from before, written by this pass, hidden again; of a draft that a pass has
# verified: agreed to, and what is still a guess.
OLD, NEW, HIDDEN, ACCEPTED, DRAFT = "", "new", "hidden", "accepted", "draft"
LONGEST_LETTER = 4  # bytes of UTF-8, each of which may be a token

Piece = tuple[str, str]  # a text and what it is


def filled(tokenizer: Tokenizer, templates: Templates, again: Tensor) -> Iterator[Piece]:
    """The first sentence's best template after a pass of mask_predict (its `watch`)."""
    best = int((templates.score[0].sum(-1) / templates.sizes[0]).argmax())
    written = templates.holes[0, best] & ~templates.ends[0, best]
    columns = (templates.full, again, templates.masked)
    tokens, hidden, new = (column[0, best][written].tolist() for column in columns)
    for text, at in letters(tokenizer, tokens):
        kind = HIDDEN if any(hidden[i] for i in at) else NEW if any(new[i] for i in at) else OLD
        yield text, kind


def verified(tokenizer: Tokenizer, text, first: bool) -> Iterator[Piece]:
    """A text after a pass of speculative (its `watch`); first: the draft, before any of them."""
    own = not first and not text.ended  # a word that the pass has chosen itself
    fresh = 0 if first else text.right + own
    rest = [] if text.ended else text.draft[text.places[0] :]
    kinds = [OLD] * (len(text.words) - fresh) + [ACCEPTED] * (fresh - own)
    kinds += [NEW] * own + [DRAFT] * len(rest)
    for piece, at in letters(tokenizer, [*text.words, *rest]):
        yield piece, kinds[at[-1]]


def letters(tokenizer: Tokenizer, tokens: Sequence[int]) -> Iterator[tuple[str, list[int]]]:
    """Each token's text with its place; tokens that make one letter only together come together.

    A text is what its tokens add to those before them: alone, some tokenizers leave its space out.
    """
    at: list[int] = []
    before: list[int] = []  # the last tokens that had a text
    for place in range(len(tokens)):
        at.append(place)
        alone, former = tokenizer.decode(here := [tokens[i] for i in at]), tokenizer.decode(before)
        both = tokenizer.decode([*before, *here])
        text = both.removeprefix(former) if former and both.startswith(former) else alone
        whole = not text.endswith("\ufffd") or len(at) == LONGEST_LETTER
        if whole or place == len(tokens) - 1:
            yield text, at
            at, before = [], here if alone else before


def runs(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Neighbours of one kind as one text; spaces before and after it are of no kind."""
    for kind, group in groupby(pieces, lambda piece: piece[1]):
        text = "".join(one for one, _ in group)
        inside = text.strip()
        before, _, after = text.partition(inside) if inside else (text, "", "")
        yield from (one for one in ((before, OLD), (inside, kind), (after, OLD)) if one[0])
