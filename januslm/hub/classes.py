"""Which form a model is exported in, and that form's config.json; no torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any, Literal

import numpy as np

from januslm.config import Refused, json_table
from januslm.inference import request
from januslm.interop.export_folder import FILES, ExportFacts
from januslm.layout import NONE, ArRead, Codes, visible
from januslm.objective import Objective

TARGETS = {
    "hf": "BART where it fits, else a class of its own",
    "bart": "BART: AR alone",
    "januslm": "our own folder in half the size, with a model card",
}
OWN = {
    "positions": ("learned", "sinusoidal", "rotary", "rotary_cross", "none"),
    "position_bias": ("", "prophetnet", "t5", "xlnet"),
    "length": ("mean", "token"),
}
TRIED = range(3, 12)  # lengths of a template that are looked at


@dataclass(frozen=True)
class Exported:
    """What is written of a model, beside its weights and its tokenizer."""

    form: Literal["bart", "class", "januslm"]  # transformers' class, ours in it, our own folder
    config: dict  # config.json
    read: ArRead | None  # how AR is written
    left: str = ""  # what the class has no place for

    @property
    def kind(self) -> str:
        """In the words of what `export` says."""
        return {
            "bart": "BART",
            "class": "its own class: trust_remote_code=True",
            "januslm": "this project's folder, in bf16",
        }[self.form]

    @property
    def prefix(self) -> tuple[int, ...]:
        return self.read.prefix if self.read else ()


def choose(facts: ExportFacts, to: str) -> Exported:
    """The form for `--to`; Refused, with what to do, where it cannot express the model."""
    if to == "januslm":
        return Exported("januslm", _portable(facts), request.objective(facts).ar_read)
    if not facts.config.has_encoder:
        raise Refused(
            f"{facts.folder}: has no encoder (model.encoder_layers is 0): neither transformers' "
            "BART nor the exported modelling file reads a source in the row of its target; "
            "januslm.load opens it as it is"
        )
    objective = request.objective(facts)
    read, nar = objective.ar_read, bool(objective.template or objective.row)
    blocks = bool(read and read.drafts)
    why = _no_bart(facts, objective)
    if to == "bart" and why:
        raise Refused(
            f"{facts.folder}: transformers' BART cannot be it, since {why}; --to hf exports it "
            "with a class of its own"
        )
    if to == "bart" or not (why or nar or blocks):
        left = "NAR and the length head" if nar else "the blocks that draft" if blocks else ""
        return Exported("bart", _bart(facts, read), read, left)
    return _own(facts, objective)


def _portable(facts: ExportFacts) -> dict:
    """config.json as it is, without the places where things lay on the machine that trained it."""
    table = json_table(facts.folder / FILES[1])
    about = _named(table.get("about", {}))
    if isinstance(about.get("data"), dict):
        about["data"].pop("root", None)
    return table | {"about": about}


def _named(value: Any) -> Any:
    """A value of JSON with the last name of each path that begins at a root."""
    if isinstance(value, Mapping):
        return {key: _named(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_named(one) for one in value]
    absolute = isinstance(value, str) and PurePath(value).is_absolute()
    return PurePath(value).name if absolute else value


def _no_bart(facts: ExportFacts, objective: Objective) -> str:
    """Why BART cannot be this model; "" where it can."""
    config, read = facts.config, objective.ar_read
    if read is None:
        return f"objective {objective.name!r} does not write word by word, and BART does"
    if read.asks != read.words:
        return "its AR is read from masks beside the words (objective.read = 'next')"
    special = objective.special
    if read.prefix not in ((special.bos,), (special.eos, special.bos)):
        return f"its texts begin with the tokens {list(read.prefix)}"
    wanted = {
        "norm": "post",
        "positions": "learned",
        "position_bias": "",
        "norm_eps": 1e-5,
        "embedding_norm": True,
        "tied": True,
        "length": "mean",  # its encoder reads no [LEN]
    }
    for key, value in wanted.items():
        if (got := getattr(config, key)) != value:
            return f"BART has model.{key} {value!r} and this one {got!r}"
    return ""


def _shared(facts: ExportFacts, prefix: tuple[int, ...]) -> dict:
    special = facts.tokenizer.special
    return {
        "is_encoder_decoder": True,
        "bos_token_id": special.bos,
        "pad_token_id": special.pad,
        "eos_token_id": special.eos,
        "decoder_start_token_id": prefix[0] if prefix else special.bos,
        "dtype": "float32",
    }


def _bart(facts: ExportFacts, read: ArRead | None) -> dict:
    assert read is not None, "_no_bart refuses it"
    config = facts.config
    return _shared(facts, read.prefix) | {
        "architectures": ["BartForConditionalGeneration"],
        "model_type": "bart",
        "vocab_size": config.vocabulary,
        "d_model": config.width,
        "encoder_layers": config.encoder_layers,
        "decoder_layers": config.decoder_layers,
        "encoder_attention_heads": config.heads,
        "decoder_attention_heads": config.heads,
        "encoder_ffn_dim": config.ffn,
        "decoder_ffn_dim": config.ffn,
        "activation_function": config.activation,
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "activation_dropout": 0.0,
        "max_position_embeddings": config.max_positions,
        "scale_embedding": config.embedding_scale,
        "forced_eos_token_id": facts.tokenizer.special.eos,
        "tie_word_embeddings": True,
    }


def _own(facts: ExportFacts, objective: Objective) -> Exported:
    """Refused for what the modelling file does not know."""
    config, read, where = facts.config, objective.ar_read, facts.folder
    for key, able in OWN.items():
        if (got := getattr(config, key)) not in able:
            raise Refused(
                f"{where}: model.{key} {got!r} is not known to the exported modelling file, which "
                f"has {', '.join(filter(None, able))}: add it to januslm/hub/own_class/"
            )
    template, row = _template(objective, where), objective.row is not None
    if row:
        _check_row(objective, where)
    if read is None and template is None and not row:
        raise Refused(
            f"{where}: a checkpoint of objective {objective.name!r} writes in no way that the "
            "exported modelling file knows: fine-tune it with one it knows, as ar or janus, and "
            "export that"
        )
    chain = _chain(objective, where) if read else False
    model = {
        key: value
        for key, value in asdict(config).items()
        if key not in ("init", "activation_checkpointing", "attention_dropout", "max_length")
    } | {"lengths": config.max_length}  # max_length is a word of transformers' own
    special = objective.special
    prefix = read.prefix if read else ()
    writing = {
        "mask_token_id": special.mask,
        "unk_token_id": special.unk,
        "ar_prefix": list(prefix) or None,
        "asks": bool(read and read.asks != read.words),
        "query_token_id": _query(objective),
        "query_behind": read.behind if read else 0,
        "query_own": bool(read and read.own),
        "block": len(read.drafts) if read else 0,
        "chain": chain,
        "row": row,
        "template": template,
    }
    names = {
        "architectures": ["JanusLMForConditionalGeneration"],
        "model_type": "januslm",
        "auto_map": {
            "AutoConfig": "configuration_januslm.JanusLMConfig",
            "AutoModelForSeq2SeqLM": "modeling_januslm.JanusLMForConditionalGeneration",
        },
        "tie_word_embeddings": False,  # the class ties by itself, as `tied` says
    }
    return Exported("class", _shared(facts, prefix) | names | model | writing, read)


def _query(objective: Objective) -> int:
    """The token of slots that ask, and of the masks of a block or a row."""
    if objective.ar_read:
        return objective.ar_read.query
    return int(objective.row(2).token[0]) if objective.row else objective.special.mask


def _chain(objective: Objective, where) -> bool:
    """Whether masks of a block read the ones before them alone; False: each other.

    Refused where a slot reads anything else than the exported modelling file knows: words read the
    words up to themselves, a slot beside a word what the word reads and, if it does, itself; so
    does a block behind a word.
    """
    read, rule = objective.ar_read, objective.plugin.RULE
    assert read is not None
    word = np.arange(TRIED.start)
    kinds = list(dict.fromkeys([read.words, read.asks, *read.drafts]))
    streams = np.array([rule.streams.index(kind) for kind in kinds]).repeat(len(word))
    rank = np.tile(word, len(kinds))
    seen = visible(rule, Codes(streams, rank), Codes(streams, rank))
    drafts = [rule.streams.index(kind) for kind in read.drafts]

    def wanted(chain: bool) -> np.ndarray:
        of, at = streams[:, None], rank[:, None]
        out = (streams == streams[0]) & (rank <= at)
        if read.own:
            out |= (streams == of) & (of != streams[0]) & (rank == at)
        block = np.isin(of, drafts) & np.isin(streams, drafts) & (rank == at)
        return out | (block & (streams <= of) if chain else block)

    for chain in (False, True):
        if (seen == wanted(chain)).all():
            return chain and len(drafts) > 1
    raise Refused(
        f"{where}: objective {objective.name!r} reads in a way that the exported modelling file "
        "does not know; fine-tune it with one it knows, as ar or janus, and export that"
    )


def _check_row(objective: Objective, where) -> None:
    """Refuse a row that is not masks from place 1 on which read the ones before them."""
    assert objective.row is not None
    for length in TRIED:
        slots = objective.row(length)
        order = np.arange(1, length)
        plain = (slots.position == order).all() and (slots.token == _query(objective)).all()
        if not plain or (visible(objective.plugin.RULE, slots, slots) != np.tri(len(order))).any():
            raise Refused(
                f"{where}: what objective {objective.name!r} writes from in one pass is not a row "
                "of masks, which is all that the exported modelling file knows"
            )


def _template(objective: Objective, where) -> dict | None:
    """What mask-predict starts from, for any length: where it begins, and the tokens given."""
    if objective.template is None:
        return None
    found = []
    for length in TRIED:
        slots = objective.template(length)
        slots = slots[np.argsort(slots.position)]
        holes = np.flatnonzero(slots.goal != NONE)
        first = int(slots.position[0])
        head, tail = slots.token[: holes[0]], slots.token[holes[-1] + 1 :]
        plain = (
            (slots.position == np.arange(first, length)).all()
            and len(holes) == holes[-1] - holes[0] + 1
            and (slots.token[holes] == objective.special.mask).all()
        )
        found.append((plain, first, head.tolist(), tail.tolist()))
    if len(set(map(str, found))) > 1 or not found[0][0]:
        raise Refused(
            f"{where}: the template of objective {objective.name!r} is not a row of masks between "
            "given ends, which is all that the exported modelling file knows"
        )
    return dict(zip(("first", "head", "tail"), found[0][1:], strict=True))
