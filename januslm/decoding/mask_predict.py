"""All at once: predict every word, hide the least certain, predict these again from the rest.

Mask-Predict (Ghazvininejad 2019), with JANUS' choices of length as an option.
"""

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from januslm.data.tokenizer import Special
from januslm.decoding import Output
from januslm.decoding._options import Beam, Choice, Length
from januslm.decoding._scores import word_by_word
from januslm.decoding._templates import Templates, candidates, ranked, write

RESCORED = 8  # sentences whose logits are in memory at a time
NEEDS = ("all at once",)  # how a checkpoint must have learnt to write
Watch = Callable[[Templates, Tensor], None]


@torch.inference_mode()
def decode(
    decoder,
    sources: Sequence[np.ndarray],
    special,
    watch: Watch | None = None,
    *,
    iterations: Length = 10,  # passes
    length_beam: Beam = 3,  # lengths that are tried side by side
    lengths: Choice = "topk",
    early_stop: bool = False,
    extra_pass: bool = False,
    ban_specials: bool = True,
    rescore: bool = False,
) -> list[Output]:
    """The length whose template has the highest mean log p wins; others holds the rest of them.

    lengths: the `length_beam` likeliest, or JANUS' likeliest and its neighbours.  early_stop: a
    sentence ends when a pass changes no word; faster and worse, since the first passes, which see
    little that they did not see before, often change none.  extra_pass: one pass more than
    `iterations`, as JANUS' published code counts them.  ban_specials: special tokens are no words;
    without it, as in JANUS' code, they are written like any, a mask is filled again, and a pad is
    no word: it leaves the count of those to hide, the text and its score.
    rescore: the model's left-to-right streams choose the length, in one more pass; the score is
    then theirs.  watch(templates, again): called after each pass with what it has filled and what
    is hidden again, bool [B, C, L].
    """
    decoder.require(*NEEDS)
    if rescore:
        decoder.require("word by word")
    state = decoder.start(sources)
    tried = candidates(state.length_scores, length_beam, lengths, decoder.most_length)
    hide = schedule(iterations + extra_pass, None if ban_specials else special)
    if watch is not None:
        hide = watched(hide, watch)
    outputs = write(decoder, copy.copy(state), special, tried, hide, early_stop, ban_specials)
    return rescored(decoder, state, outputs, special) if rescore else outputs


def watched(hide: Callable[[Templates, int], Tensor], watch: Watch) -> Callable:
    """The same rule, which tells what it says."""

    def telling(templates: Templates, done: int) -> Tensor:
        again = hide(templates, done)
        watch(templates, again)
        return again

    return telling


def schedule(passes: int, written: Special | None = None) -> Callable[[Templates, int], Tensor]:
    """After pass s of S the floor(n (1 - s / S)) least certain of n words are hidden again.

    written: special tokens that may have been written: a mask is to be written anew in the next
    pass, if there is one, and a pad is none of the n words.
    """

    def hide(templates: Templates, done: int) -> Tensor:
        words = templates.holes if written is None else templates.without(written.pad).holes
        masked = templates.uncertain(words.sum(-1) * (passes - done) // passes)
        if written is None or done == passes:
            return masked
        return masked | (templates.tokens == written.mask)

    return hide


def rescored(decoder, state, outputs: list[Output], special) -> list[Output]:
    """Candidates ranked anew by what the left-to-right streams think of them, EOS included."""
    new = []
    for start in range(0, len(outputs), RESCORED):
        some = outputs[start : start + RESCORED]
        texts = [[np.append(o.tokens, special.eos) for o in (best, *best.others)] for best in some]
        twin = copy.copy(state)
        twin.keep(torch.arange(start, start + len(some), device=state.length_scores.device))
        for best, row, values in zip(some, texts, word_by_word(decoder, twin, texts), strict=True):
            new.append(
                ranked(
                    [
                        Output(text[:-1], float(value[-len(text) :].mean()), best.passes + 1)
                        for text, value in zip(row, values, strict=True)
                    ]
                )
            )
    return new
