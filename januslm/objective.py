"""What is learnt: an objective with its options, its noise and the weights of its terms."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from types import ModuleType
from typing import Literal

import numpy as np

from januslm import registry
from januslm.config import Refused, setting, suggest
from januslm.data.tokenizer import Special
from januslm.layout import NONE, AnyOrder, ArRead, BlockRead, Example, Layout, Slots
from januslm.model.config import ModelConfig

Normalize = Literal["term", "goals", "tokens", "microbatch"]
TRIED = 64  # examples on which it is looked what an objective asks for


@dataclass(frozen=True)
class LossSettings:
    """How the terms become one number; what is left out is the objective's own preset."""

    # of the terms, ce/ar, kl/ar~aux and so on; the preset's where left out
    weights: dict[str, float] | None = None
    # of labels: so much of the probability is spread over all words
    smoothing: float | None = setting(None, low=0, below=1)
    # what sums of terms are divided by: each by its own count, or all by one: of what the
    # cross-entropies predict (goals), of all target tokens; microbatch: as term, batch by batch
    normalize: Normalize | None = None
    # first: of the two streams of a KL term, the first is a teacher
    detach: Literal["none", "first"] = "none"
    # updates up to which KL is off, and when it is full
    rise: tuple[int, ...] = setting((0, 0), low=0)
    chunk: int = setting(0, low=0)  # rows of logits at once; 0: as many as suit the device

    def __post_init__(self):
        if len(self.rise) != 2 or self.rise[0] > self.rise[1]:
            raise Refused(f"rise must be two updates, the first not later, got {list(self.rise)}")


@dataclass(frozen=True)
class Loss(LossSettings):
    """The same with an objective's preset in the place of what was left out."""

    weights: dict[str, float]
    smoothing: float
    normalize: Normalize

    def at(self, step: int) -> dict[str, float]:
        """The weights of update `step` (the first is 1): KL terms grow in a straight line.

        Streams that have not learnt to predict have nothing to teach each other, and a strong KL
        holds them at each other's beginnings.
        """
        off, full = self.rise
        grown = min(1.0, max(0.0, (step - off) / max(full - off, 1)))
        return {n: w * grown if n.startswith("kl/") else w for n, w in self.weights.items()}


@dataclass(frozen=True)
class Objective:
    """An objective with its options resolved: how an example is made and what it is scored by."""

    name: str
    plugin: ModuleType
    options: dict
    noise: str
    hide: Callable
    noise_options: dict
    loss: Loss
    special: Special
    measured: tuple[str, ...] = ()  # what validation measures beside the terms of the loss
    # tokens of the longest source that stands before the target in its row, as a model without an
    # encoder reads it; None: an encoder does
    source_room: int | None = None

    def example(self, source, target: np.ndarray, rng: np.random.Generator) -> Example:
        """One training example from int64 [N] source (None: plain text) and int64 [T] target."""
        given = self._no_source if source is None else source
        read, hidden = self.hide(given, target, self.special, rng, **self.noise_options)
        layout = self.layout(target, hidden, rng)
        if self.source_room is None:
            return Example(read, target, layout)
        if source is None:  # what a noise makes of plain text would be the source's
            return Example(target[:0], target, layout)
        return Example(read, target, layout.behind(read))

    @cached_property
    def _no_source(self) -> np.ndarray | None:
        """What the noise is given of plain text: no source, or an empty one that nobody reads."""
        fits = self.source_room is None or not self._unfit(pairs=False)
        return None if fits else np.empty(0, np.int64)

    def layout(self, target: np.ndarray, hidden: np.ndarray, rng: np.random.Generator) -> Layout:
        """The slots of one target; `hidden` bool [T]; rng: the example's own random stream."""
        return self.plugin.layout(target, hidden, self.special, rng, **self.options)

    @property
    def extra_vectors(self) -> int:
        """How many learned inputs it needs that are no words."""
        return len(self.special.extra)

    def positions(self, length: int) -> int:
        """How many positions the slots of a target of so many tokens may take, and its source's."""
        made = self._declared("positions")
        return (made(length) if made else length) + (self.source_room or 0)

    @property
    def ar_read(self) -> ArRead | None:
        """How it is read word by word; None for what writes all at once alone."""
        made = self._declared("ar_read")
        return made and made()

    @property
    def block_read(self) -> BlockRead | None:
        """How it is read block by block; None where no block behind the words was taught."""
        if made := self._declared("block_read"):
            return made()
        read = self.ar_read
        if read is None or not read.drafts:
            return None
        return BlockRead(read.words, read.drafts, read.query, read.prefix)

    @property
    def any_order(self) -> Callable[[int], AnyOrder] | None:
        """How texts of a length are written in any order; None where one alone was taught."""
        made = self._declared("any_order")
        return made if made and made(2) is not None else None

    @property
    def template(self) -> Callable[[int], Slots] | None:
        """What mask-predict starts from, by its length; None for what writes word by word alone."""
        return self._declared("template")

    def _declared(self, name: str) -> Callable | None:
        """A function of the plug-in with the options that it asks for, if the plug-in has it."""
        if (made := getattr(self.plugin, name, None)) is None:
            return None
        known = inspect.signature(made).parameters
        options = {key: value for key, value in self.options.items() if key in known}
        return partial(made, special=self.special, **options)

    @property
    def row(self) -> Callable[[int], Slots] | None:
        """What a text is written from in one pass without a model of its length, by the places.

        None for what does not learn that.
        """
        made = self._declared("row")
        return made if made and made(2) is not None else None

    @property
    def starts_from_masks_alone(self) -> bool:
        """Whether what is written all at once starts without a word that is given."""
        template = self.template
        alone = template is not None and bool((template(9).goal != NONE).all())
        return alone or self.row is not None

    def check_fit(self, model: ModelConfig, where: str) -> None:
        """Refuse a model that could never learn this."""
        if model.extra_vectors < self.extra_vectors:
            raise Refused(
                f"{where}: {self.name!r} needs model.extra_vectors of {self.extra_vectors}, the "
                f"model has {model.extra_vectors}: start from one that was pretrained with it"
            )
        apart = partial(registry.constant, "januslm.model.positions", name="TELLS_MASKS_APART")
        told = apart(model.positions)
        if self.source_room:  # masks read the source, each at another distance
            told = model.positions != "none" or bool(model.position_bias)
        if self.starts_from_masks_alone and not told:
            kinds = registry.names("januslm.model.positions")
            crosses = partial(registry.constant, "januslm.model.positions", name="CROSS")
            able = [k for k in kinds if apart(k) and (model.has_encoder or not crosses(k))]
            raise Refused(
                f"{where}: model.positions must be one of {', '.join(able)}{self._other_start()} "
                f"for {self.name!r}: it writes from masks alone, which {model.positions!r} cannot "
                "tell apart"
            )

    def check_data(self, pairs: bool, where: str) -> None:
        """Refuse a noise that is for plain text where there are pairs, or the other way round.

        Where no encoder reads the source of plain text, a noise for either does.
        """
        alone = self.source_room is not None and not pairs
        if alone and "ce/length" in self.loss.weights:
            raise Refused(
                f"{where}: loss.weights: ce/length is told from the source, and plain text has "
                "none where model.encoder_layers is 0"
            )
        why = self._unfit(pairs)
        if why and not (alone and not self._unfit(pairs=True)):
            folder = "januslm.noise"
            able = [
                name
                for name in registry.names(folder)
                if not _unfit(registry.find(folder, name).hide, pairs, self.special, {})
            ]
            data = "pairs" if pairs else "plain text"
            raise Refused(f"{where}: {why}; possible for {data} are {', '.join(able)}")

    def _unfit(self, pairs: bool) -> str:
        return _unfit(self.hide, pairs, self.special, self.noise_options)

    def _other_start(self) -> str:
        """The options that would give it words to start from, as the end of an error's list."""
        switches = [key for key, value in self.options.items() if isinstance(value, bool)]
        turned = {key: replace(self, options=self.options | {key: True}) for key in switches}
        return "".join(
            f", or objective.{key} true"
            for key, other in turned.items()
            if not other.starts_from_masks_alone
        )


def resolve_objective(
    table: Mapping,
    noise_table: Mapping,
    loss: LossSettings,
    preset: str,
    special: Special,
    where: str,
    source_room: int | None = None,
) -> Objective:
    """An Objective from the tables [objective], [noise] and [loss] of a run file.

    preset: "nmt" (pairs) or "pretrain" (plain text).  source_room: see Objective; with it the usual
    noise is that for pairs, since no encoder reads what is spoilt.  Raises Refused, naming key and
    choices.
    """
    table, noise_table = dict(table), dict(noise_table)
    if "name" not in table:
        raise Refused(f"{where}: objective.name is missing")
    name = table.pop("name")
    preset = table.pop("preset", preset)
    plugin = registry.find("januslm.objectives", name)
    extra = getattr(plugin, "EXTRA_VECTORS", 0)
    special = replace(special, extra=tuple(special.vocabulary + i for i in range(extra)))
    if preset not in list(plugin.NOISE):  # a list compares with anything, a dict may not
        raise Refused(f"{where}: objective.preset must be one of {', '.join(plugin.NOISE)}")
    options = registry.options(plugin.layout, table, f"{where}: objective")
    kind = preset if source_room is None or "nmt" not in plugin.NOISE else "nmt"
    usual, usual_options = plugin.NOISE[kind]
    noise_name = noise_table.pop("name", usual)
    noise = registry.find("januslm.noise", noise_name)
    hide = noise.hide
    if source_room is not None:
        _check_read(noise_name, noise, noise_table, f"{where}: noise")
    given = (usual_options if noise_name == usual else {}) | noise_table
    noise_options = registry.options(hide, given, f"{where}: noise")
    taught = _taught(plugin, special, options)
    if (weights := loss.weights) is None:
        able = [*terms_of(taught), "ce/length"]
        weights = {name: w for name, w in plugin.weights(preset).items() if name in able}
    check_weights(weights, taught, f"{where}: loss.weights")
    known = {
        "weights": {k: w for k, w in weights.items() if w},
        "smoothing": plugin.SMOOTHING[preset] if loss.smoothing is None else loss.smoothing,
        "normalize": plugin.NORMALIZE[preset] if loss.normalize is None else loss.normalize,
    }
    complete = Loss(**vars(loss) | known)
    drafts = [other for other in taught if other != "ar"] if "ar" in taught else []
    measured = tuple(f"accept/ar~{other}" for other in drafts)
    both = noise_name, hide, noise_options
    return Objective(name, plugin, options, *both, complete, special, measured, source_room)


def _check_read(name: str, noise: ModuleType, table: Mapping, where: str) -> None:
    """Refuse what a noise would do to the source alone, where no encoder reads that."""
    idle = getattr(noise, "SOURCE_ALONE", ())
    known = inspect.signature(noise.hide).parameters.values()
    options = [p.name for p in known if p.kind is p.KEYWORD_ONLY]
    why = "and with model.encoder_layers = 0 no encoder reads one"
    if options and set(options) <= set(idle):
        raise Refused(f"{where}.name: {name!r} spoils the source alone, {why}; choose 'none'")
    for key in table:
        if key in idle:
            raise Refused(f"{where}.{key}: is done to the source alone, {why}; take it out")


def _taught(plugin: ModuleType, special: Special, options: Mapping) -> list[str]:
    """The distributions that have goals with these options: found on examples."""
    target = np.array([special.bos, *[special.mask] * 30, special.eos])
    hidden, rule, found = target == special.mask, plugin.RULE, set()
    for seed in range(TRIED):
        slots = plugin.layout(target, hidden, special, np.random.default_rng(seed), **options).slots
        found |= set(rule.distribution[slots.stream[slots.goal != NONE]])
    return [name for place, name in enumerate(rule.distributions) if place in found]


def _unfit(hide: Callable, pairs: bool, special: Special, options: Mapping) -> str:
    """What a noise says of pairs, or of plain text, if it is not for them; "" where it is."""
    word = special.word
    text = np.array([special.bos, word, word, special.eos])
    try:
        hide(text if pairs else None, text, special, np.random.default_rng(0), **options)
    except Refused as refused:
        return str(refused)
    return ""


def terms_of(distributions) -> list[str]:
    """Every term that distributions over common words can give, as logs and run files name it."""
    names = list(distributions)
    pairs = [f"kl/{a}~{b}" for a in names for b in names if a != b]
    return [f"ce/{name}" for name in names] + pairs


def check_weights(weights: dict[str, float], distributions, where: str) -> None:
    """Refuse a weight for a term that does not exist, or a negative one."""
    known = [*terms_of(distributions), "ce/length"]
    for name, weight in weights.items():
        if name not in known:
            raise Refused(f"{where}: no loss term {name!r}{suggest(name, known)}")
        if weight < 0:
            raise Refused(f"{where}: the weight of {name} must be at least 0, got {weight}")
    if not any(weights.values()):
        raise Refused(
            f"{where}: nothing would be learnt: a weight must be above 0, got {dict(weights)}; "
            f"there are {', '.join(known)}"
        )
