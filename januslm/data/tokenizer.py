"""Text to ids and back, with five special tokens that no text can spell.

Ours are byte-level BPE.  Those of others (tokenizer.json, SentencePiece models) keep their ids;
special_tokens.py says which of their tokens are our five.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from januslm.config import Refused
from januslm.data import atomic, sentencepiece_model
from januslm.data.special_tokens import SPECIALS, Adopted, adopt, marked, unspellable
from januslm.data.word_memory import WordMemory, divides

STOPS = (".", "!", "?")
SMALLEST = len(SPECIALS) + 256  # every byte has a token of its own, so nothing is ever unknown


@dataclass(frozen=True)
class Special:
    """The ids of SPECIALS and more.  Ours are 0 to 4; those of others stand anywhere."""

    bos: int = 0
    pad: int = 1
    eos: int = 2
    unk: int = 3
    mask: int = 4
    vocabulary: int = 0  # how many ids there are, these among them
    extra: tuple[int, ...] = ()  # of an objective's learned vectors, which are no words
    stops: tuple[int, ...] = ()  # tokens at whose end a sentence may end

    @property
    def ids(self) -> tuple[int, ...]:
        """Those of SPECIALS, in its order."""
        return self.bos, self.pad, self.eos, self.unk, self.mask

    @cached_property
    def words(self) -> np.ndarray:
        """int64: the ids that are none of these, rising."""
        return np.setdiff1d(np.arange(self.vocabulary), self.ids)

    @property
    def word(self) -> int:
        """The first of them, however small the vocabulary."""
        return min(set(range(len(SPECIALS) + 1)) - set(self.ids))


@dataclass(frozen=True)
class Tokenizer:
    """A vocabulary; `sha256`, of its JSON, is what shards and checkpoints are checked against."""

    model: tokenizers.Tokenizer
    text: str  # JSON, as it is written beside corpora and models
    names: tuple[str, ...] = SPECIALS  # what its file calls them
    added: Mapping[str, int] = field(default_factory=dict)  # of them, what its file had not

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Read a tokenizer.json or a SentencePiece model; raises Refused where it is neither.

        A file that has all of SPECIALS, under one of their NAMES, is `text` as it is.
        """
        try:
            raw = Path(path).read_bytes()
        except OSError as error:
            raise Refused(f"{path}: cannot be read ({error.strerror})") from None
        try:
            if raw[:1] == b"\n" and _json(raw) is None:
                tree, text = sentencepiece_model.converted(raw, str(path)), ""
            else:
                text = raw.decode("utf-8")
                tree = json.loads(text)
            found = adopt(tree)
            if found.added or not text:
                text = json.dumps(found.tree, ensure_ascii=False)
            model = tokenizers.Tokenizer.from_str(text)
        except Refused:
            raise
        except Exception as error:  # `tokenizers` raises bare Exception for a garbled file
            raise Refused(f"{path}: not a tokenizer file ({error})") from None
        _check(model, found, path)
        model.no_truncation()  # which some files ask for
        model.no_padding()
        silent = [name for name in found.names if name not in marked(found.tree)]
        model.add_special_tokens(silent)  # so that no text shows them
        return cls(model, text, found.names, found.added)

    @cached_property
    def sha256(self) -> str:
        """Of `text`."""
        return sha256(self.text.encode()).hexdigest()

    @property
    def note(self) -> str:
        """What there is to say of others' special tokens; "" where all have our names."""
        pairs = zip(SPECIALS, self.names, strict=True)
        same = ", ".join(f"{name} as {own}" for own, name in pairs if name != own)
        new = ", ".join(f"{name} {number}" for name, number in self.added.items())
        parts = (same and f"has {same}", new and f"added after its words: {new}")
        return "; ".join(filter(None, parts))

    def __deepcopy__(self, memo: dict) -> "Tokenizer":
        return self  # nothing of it changes

    def __getstate__(self) -> dict:
        """Without the encoder, whose flag would be lost on the way: it is made again."""
        made = ("_encoder", "_memory")
        return {key: value for key, value in self.__dict__.items() if key not in made}

    @cached_property
    def _encoder(self) -> tokenizers.Tokenizer:
        """The same words, without names by which a text could spell a special token."""
        tree = unspellable(json.loads(self.text), self.names)
        encoder = tokenizers.Tokenizer.from_str(json.dumps(tree))
        encoder.encode_special_tokens = True
        return encoder

    @cached_property
    def _memory(self) -> WordMemory | None:
        tree = unspellable(json.loads(self.text), self.names)
        return WordMemory(self._plain) if divides(tree) else None

    @cached_property
    def special(self) -> Special:
        """The ids that are no words of a text, wherever the file has them."""
        ids = self.model.get_vocab()
        bos, pad, eos, unk, mask = (ids[word] for word in self.names)
        stops = tuple(sorted(i for word, i in ids.items() if word.endswith(STOPS)))
        return Special(bos, pad, eos, unk, mask, self.size, stops=stops)

    @cached_property
    def size(self) -> int:
        """Vocabulary size, specials included: one more than the highest id."""
        return max(self.model.get_vocab().values()) + 1

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        """Ids of each text, int32 [T], no specials added and none made from the text."""
        return self._memory.encode(texts) if self._memory else self._plain(texts)

    def _plain(self, texts: list[str]) -> list[np.ndarray]:
        found = self._encoder.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(one.ids, dtype=np.int32) for one in found]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids; specials are left out."""
        return self.model.decode([int(one) for one in ids], skip_special_tokens=True)


def _json(raw: bytes) -> object:
    try:
        return json.loads(raw)
    except ValueError:
        return None


def _check(model: tokenizers.Tokenizer, found: Adopted, path: str | Path) -> None:
    """Refuse a file whose added tokens do not get the ids it gives them."""
    for token in found.tree.get("added_tokens") or ():
        name, wanted = token["content"], token["id"]
        if (got := model.token_to_id(name)) != wanted:
            raise Refused(f"{path}: {name} should be id {wanted}, and `tokenizers` makes it {got}")


def train_tokenizer(texts: Iterable[str], size: int, path: str | Path) -> Tokenizer:
    """Learn a vocabulary of at most `size` tokens from the texts and write it to `path`.

    The vocabulary is smaller than asked where the texts hold too few repeated words.
    """
    if size < SMALLEST:
        raise Refused(f"a vocabulary needs at least {SMALLEST} tokens, got {size}")
    model = tokenizers.Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    model.train_from_iterator(texts, trainer)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.durable(path) as file:
        file.write(model.to_str())
    return Tokenizer.load(path)
