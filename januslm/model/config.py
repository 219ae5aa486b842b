"""Sizes and style of a model: read and checked without torch."""

from dataclasses import asdict, dataclass
from typing import Literal

from januslm import registry
from januslm.config import Refused, build, setting, suggest


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and style of a model; PRESETS has named ones."""

    vocabulary: int = setting(low=8, high=2**24)
    width: int = setting(256, low=8, high=2**16)  # numbers in the vector of a token
    ffn: int = setting(1024, low=8, high=2**18)  # inner width of the feed-forward layers
    heads: int = setting(4, low=1, high=2**12)  # of each attention; `width` is a multiple
    encoder_layers: int = setting(3, low=1, high=1000)  # layers that read the source
    decoder_layers: int = setting(3, low=1, high=1000)  # layers that write the target
    # share of what a layer says that is left out in training
    dropout: float = setting(0.1, low=0, below=1)
    # the same of attention weights; FlexAttention has none
    attention_dropout: float = setting(0.0, low=0, below=1)
    activation: Literal["gelu", "relu"] = "gelu"  # of the feed-forward layers
    norm: Literal["post", "pre"] = "post"  # LayerNorm after each sum, or before each layer
    positions: str = "learned"  # a file of januslm/model/positions/
    position_bias: str = ""  # a file of januslm/model/position_bias/, added to the scores; "": none
    norm_eps: float = setting(1e-5, above=0, below=1)  # added to each LayerNorm's variance
    embedding_norm: bool = True  # LayerNorm on the embedded tokens
    embedding_scale: bool = False  # embeddings times the root of `width`
    tied: bool = True  # the output matrix is the embedding
    # places a text may have, learned ones too
    max_positions: int = setting(1024, low=4, high=2**20)
    # longest target, in tokens, that the length classifier tells
    max_length: int = setting(256, low=4, high=2**20)
    # that classifier tells how much longer than its source a target is, not how long
    length_offset: bool = False
    init: Literal["bert", "xavier"] = "bert"  # xavier suits widths under 512
    # learned inputs that are no words, after the vocabulary
    extra_vectors: int = setting(0, low=0, high=2**24)
    # compute layers twice rather than keep what they said: less memory
    activation_checkpointing: bool = False

    def __post_init__(self):
        if self.width % self.heads:
            raise Refused(f"width {self.width} is not a multiple of heads {self.heads}")
        multiple = registry.constant("januslm.model.positions", self.positions, "HEAD_MULTIPLE")
        if (head := self.width // self.heads) % multiple:
            raise Refused(
                f"positions {self.positions!r} need a head's width to be a multiple of {multiple}, "
                f"got {head}"
            )
        if bias := self.position_bias:
            encoder = registry.constant("januslm.model.position_bias", bias, "ENCODER", True)
            if self.positions == "none" and not encoder:
                raise Refused(
                    f"positions 'none' leave the encoder without any: position_bias {bias!r} is "
                    "the decoder's alone; choose other positions"
                )

    @property
    def least_parameters(self) -> int:
        """How many numbers a model of these sizes has at least: embedding, attention, ffn."""
        square, pair = self.width**2, 2 * self.width * self.ffn
        layers = self.encoder_layers * (4 * square + pair) + self.decoder_layers * (
            8 * square + pair
        )
        return self.vocabulary * self.width + layers


_BART = {"activation": "gelu", "embedding_norm": True, "embedding_scale": False}
_FAIRSEQ = {"activation": "relu", "embedding_norm": False, "embedding_scale": True}

# What a narrow model learns fastest with (docs/log.md).
_MODERN = _BART | {"norm": "pre", "positions": "rotary", "init": "xavier", "dropout": 0.0}

PRESETS = {
    "tiny": _MODERN | dict(width=128, ffn=512, heads=4, encoder_layers=2, decoder_layers=2),
    "iwslt": _FAIRSEQ
    | dict(width=512, ffn=1024, heads=4, encoder_layers=6, decoder_layers=6, dropout=0.3),
    "base": _BART
    | dict(width=768, ffn=3072, heads=12, encoder_layers=6, decoder_layers=6, max_length=1024),
    "large": _BART
    | dict(width=1024, ffn=4096, heads=16, encoder_layers=12, decoder_layers=12, max_length=1024),
}


# what decides which tensors a model has, and their shapes; positions do if they are learned
SIZES = (
    "vocabulary",
    "width",
    "ffn",
    "encoder_layers",
    "decoder_layers",
    "norm",
    "embedding_norm",
    "tied",
    "max_length",
    "length_offset",
    "extra_vectors",
    "position_bias",
)


# What weights mean, beside their shapes: with another value they compute something else.
MEANING = ("heads", "activation", "norm_eps", "embedding_scale")

# Keys that no run file says, and who says them.
GIVEN_BY_OTHERS = {"vocabulary": "the tokenizer", "extra_vectors": "the objective"}


def configure(
    table: dict,
    vocabulary: int,
    where: str,
    extra_vectors: int = 0,
    start: ModelConfig | None = None,
) -> ModelConfig:
    """A ModelConfig from a run file's [model] table: `preset` and what differs from it.

    extra_vectors: what the objective needs.  start: of the weights a run starts from, which is what
    a table without a preset differs from.  Raises Refused for an unknown preset, key or value.
    """
    table = dict(table)
    name = table.pop("preset", "" if start else "tiny")
    if not isinstance(name, str) or name not in PRESETS | ({"": {}} if start else {}):
        raise Refused(f"{where}: no model preset {name!r}{suggest(str(name), PRESETS)}")
    usual = PRESETS[name] if name else asdict(start) if start else {}
    given = {"vocabulary": vocabulary, "extra_vectors": extra_vectors}
    for key, owner in GIVEN_BY_OTHERS.items():
        if key in table:
            raise Refused(f"{where}: {key} comes from {owner}, take it out of [model]")
    return build(ModelConfig, usual | table | given, where)


def unlike(one: ModelConfig, other: ModelConfig) -> tuple[str, object, object] | None:
    """What comes first in which two models differ so that weights of one are not the other's."""
    learned = "learned" in (one.positions, other.positions)
    for name in (*SIZES, *MEANING, *(("positions", "max_positions") if learned else ())):
        mine, theirs = getattr(one, name), getattr(other, name)
        if mine != theirs:
            return name, mine, theirs
    return None
