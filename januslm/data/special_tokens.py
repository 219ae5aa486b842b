"""Which tokens of others' tokenizers are our five special ones, and what is added where one misses.

A tokenizer is handled here as the tree of its JSON (the file format of the `tokenizers` library).
"""

import copy
from dataclasses import dataclass

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")

# What stands for each of ours, in the order of preference: BART, RoBERTa, T5, SentencePiece; BERT;
# GPT-2 and its kin.  A name that no tokenizer has is added after its vocabulary under our own name.
NAMES = {
    "<s>": ("<s>", "[CLS]", "[BOS]", "<bos>", "<cls>", "<|begin_of_text|>", "<|startoftext|>"),
    "<pad>": ("<pad>", "[PAD]", "<|pad|>", "<|padding|>"),
    "</s>": ("</s>", "[SEP]", "[EOS]", "<eos>", "<sep>", "<|endoftext|>", "<|end_of_text|>"),
    "<unk>": ("<unk>", "[UNK]", "<|unk|>"),
    "<mask>": ("<mask>", "[MASK]", "<|mask|>"),
}


@dataclass(frozen=True)
class Adopted:
    """A tree with all five, their names in the order of SPECIALS, and the ids of new ones."""

    tree: dict
    names: tuple[str, ...]
    added: dict[str, int]


def adopt(tree: dict) -> Adopted:
    """Find our five among its tokens and add those that are missing; no id there changes.

    They are those that the file marks as special; a word that a text was full of, as "[CLS]", is
    taken for one only by our own name, which cannot be added, or where the file marks none.
    """
    ids, special = vocabulary(tree), marked(tree)
    silent = not any(special & set(possible) for possible in NAMES.values())
    names, added = [], {}
    for own, possible in NAMES.items():
        here = [name for name in possible if name in special]
        here += [name for name in possible if name in ids and (silent or name == own)]
        names.append(here[0] if here else own)
        if not here:
            added[own] = max(ids.values(), default=-1) + 1
            ids[own] = added[own]
    if added:
        tree = copy.deepcopy(tree)
        tree["added_tokens"] = [*tree.get("added_tokens", ()), *map(entry, added, added.values())]
    return Adopted(tree, tuple(names), added)


def entry(content: str, number: int) -> dict:
    """A special token as `added_tokens` lists it."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": content, **flags, "special": True}


def vocabulary(tree: dict) -> dict[str, int]:
    """All tokens and their ids, the added ones too."""
    words = tree["model"]["vocab"]
    ids = dict(words) if isinstance(words, dict) else {w[0]: i for i, w in enumerate(words)}
    return ids | {token["content"]: token["id"] for token in tree.get("added_tokens") or ()}


def marked(tree: dict) -> set[str]:
    """The added tokens that the file calls special."""
    return {token["content"] for token in tree.get("added_tokens") or () if token.get("special")}


def unspellable(tree: dict, names: tuple[str, ...]) -> dict:
    """The same tokenizer for encoding: no text can spell `names`, nor another special token.

    A model looks words up by their text: a Unigram's "</s>" has the best score of all and would
    win wherever a text has these letters.  They get names with a space, which no pre-tokenizer
    leaves in a word; ids and scores stay.  Nothing is cut or padded, as some files ask for.
    """
    hidden = {name: f"\0 {name}" for name in marked(tree) | set(names)}
    model = dict(tree["model"])
    if isinstance(model["vocab"], dict):
        model["vocab"] = {hidden.get(word, word): i for word, i in model["vocab"].items()}
    else:
        model["vocab"] = [[hidden.get(word, word), *rest] for word, *rest in model["vocab"]]
    if model.get("unk_token") in hidden:
        model["unk_token"] = hidden[model["unk_token"]]
    if merges := model.get("merges"):
        model["merges"] = [pair for pair in merges if _merged(pair) not in hidden]
    tokens = [
        token | {"content": hidden.get(token["content"], token["content"])}
        for token in tree.get("added_tokens") or ()
    ]
    plain = {"truncation": None, "padding": None, "post_processor": None}
    return tree | plain | {"model": model, "added_tokens": tokens}


def _merged(pair: str | list[str]) -> str:
    """What a BPE's merge makes; older files have both halves in one text."""
    return "".join(pair.split(" ", 1) if isinstance(pair, str) else pair)
