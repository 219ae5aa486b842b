"""A trained model in Python: a torch module that writes texts and says how likely texts are."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from januslm import registry
from januslm.config import Refused
from januslm.data.token_pairs import sources
from januslm.decoding import Output, _scores
from januslm.inference import generator, request
from januslm.inference.cuda_graphs import GraphedDecoder
from januslm.inference.incremental import IncrementalDecoder
from januslm.inference.request import ALGORITHMS, PRECISIONS
from januslm.interop import native
from januslm.interop.export_folder import FILES, ExportFacts, read_facts
from januslm.model.transformer import Seq2Seq

SCORED = 8  # texts whose logits are in memory at a time


@dataclass(frozen=True)
class Written:
    """What was written for one text."""

    text: str
    score: float  # what the algorithm ranks by; near log p per word
    passes: int  # of the decoder, for this text
    others: tuple["Written", ...] = ()  # n-best, further samples or lengths


class TrainedModel(Seq2Seq):
    """A torch module with the weights and tensor names of an export, and what they were taught.

    It is in eval mode when it is loaded; `generate` and `score` are always without dropout.
    """

    def __init__(self, facts: ExportFacts):
        super().__init__(facts.config)
        path = facts.folder / FILES[0]
        native.fill(self, native.load(path), path)
        self.facts, self.tokenizer = facts, facts.tokenizer
        self._ready: tuple[tuple, IncrementalDecoder] | None = None
        self.eval()

    def __getstate__(self) -> dict:
        """A copy, or what is pickled, makes a decoder of its own weights."""
        return self.__dict__ | {"_ready": None}

    def generate(
        self,
        texts: Iterable[str],
        *,
        algorithm: str = "greedy",
        batch: int = 16,
        longer: Literal["refuse", "cut"] = "refuse",
        **options,
    ) -> list[str]:
        """What the model writes for each text, in their order.

        algorithm, options: a file of januslm/decoding and its keyword-only arguments, else the
        options of the task it was trained on, else their defaults.  longer: what is done with
        texts over the length that was trained.  Refused (a ValueError) for what does not fit; a
        warning for options that only other algorithms have.
        """
        return [one.text for one in self._made(texts, algorithm, batch, longer, options)]

    def outputs(
        self,
        texts: Iterable[str],
        *,
        algorithm: str = "greedy",
        batch: int = 16,
        longer: Literal["refuse", "cut"] = "refuse",
        **options,
    ) -> list[Written]:
        """The same with scores, passes and further texts."""
        return self._made(texts, algorithm, batch, longer, options)

    def score(
        self,
        pairs: Iterable[tuple[str, str]],
        *,
        distribution: Literal["ar", "nar"] = "ar",
    ) -> list[float]:
        """log p of the second text of each pair, given the first: natural logarithms, summed.

        "ar": each word, and the end, from the words before it.  "nar": each word where all are
        hidden and their number is given.  With the sign turned it is training's ce/ar, or its
        ce/nar with every word hidden, without smoothing.
        """
        ways = {"ar": "word by word", "nar": "all at once"}
        if distribution not in ways:
            raise Refused(f"distribution must be one of {', '.join(ways)}, got {distribution!r}")
        decoder = self.incremental()
        decoder.require(ways[distribution])
        several = list(pairs)
        heads = self._tokens((source for source, _ in several), "refuse")
        eos = self.tokenizer.special.eos
        words = self.tokenizer.encode(_texts(target for _, target in several))
        tails = [np.append(np.asarray(one, np.int64), eos) for one in words]
        self._check_targets(tails, decoder.most_words)
        found = np.zeros(len(several))
        order = np.argsort([len(h) + len(t) for h, t in zip(heads, tails, strict=True)])
        with self._still(), torch.inference_mode():
            for start in range(0, len(order), SCORED):
                mine = order[start : start + SCORED]
                state = decoder.start([heads[i] for i in mine])
                chosen = [tails[i] for i in mine]
                if distribution == "ar":
                    each = [
                        row[0]
                        for row in _scores.word_by_word(decoder, state, [[t] for t in chosen])
                    ]
                else:
                    each = _scores.all_at_once(decoder, state, chosen, decoder.special)
                found[mine] = [values.sum() for values in each]
        return found.tolist()

    def incremental(self) -> IncrementalDecoder:
        """What decoding algorithms ask, with the weights as they are now.

        Made anew where weights have changed, which a write through `.data` hides.
        """
        mark = tuple(
            (p.data_ptr(), p.dtype, p.device, None if p.is_inference() else p._version)
            for p in self.parameters()
        )
        if self._ready is None or self._ready[0] != mark:
            self._ready = mark, IncrementalDecoder(self, request.objective(self.facts), packed=True)
        return self._ready[1]

    def graphed(self) -> GraphedDecoder:
        """The same with captured passes, on a CUDA device alone; see cuda_graphs.py."""
        return GraphedDecoder(self, request.objective(self.facts))

    def _made(
        self, texts: Iterable[str], algorithm: str, batch: int, longer: str, given: dict
    ) -> list[Written]:
        settings = request.settings(self.facts, algorithm, given, request.usual(self.facts))
        for line in request.notes(self.facts, algorithm, given):
            warnings.warn(line, stacklevel=3)
        if batch < 1:
            raise Refused(f"batch must be at least 1, got {batch}")
        arrays = self._tokens(texts, longer)
        if not arrays:
            return []
        ways = {algorithm: partial(registry.find(ALGORITHMS, algorithm).decode, **settings)}
        with self._still():
            decoder, special = self.incremental(), self.tokenizer.special
            made = generator.write(decoder, ways, arrays, special, batch)
        return [self._written(output) for output in made[algorithm].outputs]

    @contextmanager
    def _still(self) -> Iterator[None]:
        """Without dropout, and in the mode it was in afterwards."""
        was = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(was)

    def _tokens(self, texts: Iterable[str], longer: str) -> list[np.ndarray]:
        """int64 [N] each, from BOS to EOS."""
        if longer not in ("refuse", "cut"):
            raise Refused(f"longer must be refuse or cut, got {longer!r}")
        most = request.limits(self.facts).source
        arrays, cut = sources(_texts(texts), self.tokenizer, most)
        if cut and longer == "refuse":
            raise Refused(
                f"{len(cut)} of {len(arrays)} texts, number {cut[0]} the first, are longer than "
                f"the {most} tokens the model was trained for; shorten them, or have them cut: "
                'longer="cut"'
            )
        return arrays

    def _check_targets(self, tails: Sequence[np.ndarray], most: int) -> None:
        long = [i for i, tokens in enumerate(tails) if len(tokens) > most]
        if long:
            raise Refused(
                f"the second text of pair {long[0]} has {len(tails[long[0]])} tokens with its end; "
                f"there are positions for {most}"
            )

    def _written(self, output: Output) -> Written:
        return Written(
            generator.text(self.tokenizer, output),
            output.score,
            output.passes,
            tuple(self._written(other) for other in output.others),
        )


def _texts(texts: Iterable[str]) -> list[str]:
    """A list of them; Refused for what is none, above all for one text alone."""
    if isinstance(texts, str):
        raise Refused(f"a list of texts is wanted, got one text: {texts[:40]!r}")
    several = list(texts)
    for number, text in enumerate(several):
        if not isinstance(text, str):
            raise Refused(f"text {number} must be a str, got {text!r:.40}")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Refused(f"text {number} has half of a surrogate pair: no UTF-8 text") from None
    return several


def load(
    run: str | Path, *, device: str | torch.device | None = None, precision: str | None = None
) -> TrainedModel:
    """The model of a run's folder, or of an export's, ready to write.

    device: a GPU where there is one, else the CPU.  precision: fp32 or bf16, by default bf16 on
    a GPU and fp32 on a CPU, where bf16 is slower.  Refused, a ValueError that names the file, for
    what is no exported model.
    """
    return opened(read_facts(run), device, precision)


def opened(
    facts: ExportFacts, device: str | torch.device | None = None, precision: str | None = None
) -> TrainedModel:
    """The same for an export whose facts are read already."""
    if precision not in (None, *PRECISIONS):
        raise Refused(f"precision must be {' or '.join(PRECISIONS)}, got {precision!r}")
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    kind = PRECISIONS[precision or ("fp32" if place.type == "cpu" else "bf16")]
    return TrainedModel(facts).to(place, getattr(torch, kind))
