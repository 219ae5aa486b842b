"""Byte-level BPE: text to ids and back, with five special tokens that no text can spell."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from januslm.config import Refused
from januslm.data import atomic

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
STOPS = (".", "!", "?")
SMALLEST = len(SPECIALS) + 256  # every byte has a token of its own, so nothing is ever unknown


@dataclass(frozen=True)
class Special:
    """The ids of SPECIALS and more.  Ours are 0 to 4; BART's tokenizer has <mask> at the end."""

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
    """A trained vocabulary; `sha256` is what shards and checkpoints are checked against."""

    model: tokenizers.Tokenizer
    sha256: str

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Read a `tokenizers` JSON file; raises Refused unless SPECIALS are among its tokens."""
        try:
            raw = Path(path).read_bytes()
            model = tokenizers.Tokenizer.from_str(raw.decode("utf-8"))
        except OSError as error:
            raise Refused(f"{path}: cannot be read ({error.strerror})") from None
        except Exception as error:  # `tokenizers` raises bare Exception for a garbled file
            raise Refused(f"{path}: not a tokenizer file ({error})") from None
        if missing := [word for word in SPECIALS if model.token_to_id(word) is None]:
            wanted = ", ".join(SPECIALS)
            raise Refused(f"{path}: no token {', '.join(missing)}; a tokenizer must have {wanted}")
        # Without this the text "<mask>" becomes the special token; the file does not keep the flag.
        model.encode_special_tokens = True
        return cls(model, sha256(raw).hexdigest())

    def __deepcopy__(self, memo: dict) -> "Tokenizer":
        return self  # nothing of it changes, and its copy would make tokens of texts

    def __setstate__(self, state: dict) -> None:
        """Unpickled, it is as it was loaded: the flag is lost on the way."""
        self.__dict__.update(state)
        self.model.encode_special_tokens = True

    @cached_property
    def special(self) -> Special:
        """The ids that are no words of a text, wherever the file has them."""
        ids = self.model.get_vocab()
        bos, pad, eos, unk, mask = (ids[word] for word in SPECIALS)
        stops = tuple(sorted(i for word, i in ids.items() if word.endswith(STOPS)))
        return Special(bos, pad, eos, unk, mask, self.size, stops=stops)

    @property
    def size(self) -> int:
        """Vocabulary size, specials included."""
        return self.model.get_vocab_size()

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        """Ids of each text, int32 [T], no specials added and none made from the text."""
        found = self.model.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(one.ids, dtype=np.int32) for one in found]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids; specials are left out."""
        return self.model.decode([int(one) for one in ids], skip_special_tokens=True)


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
