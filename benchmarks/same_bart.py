"""One BART with random weights, run by three programs: ours, HF's generate and CTranslate2.

All read it from one folder, as a user would: ours through januslm.interop, CTranslate2 through its
own converter.  `apart` says how far their log p of the same words are from each other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tokenizers
import torch
from tokenizers.models import WordLevel
from torch import Tensor

from januslm.config import Refused
from januslm.data.tokenizer import SPECIALS, Special
from januslm.decoding import greedy
from januslm.inference.cuda_graphs import GraphedDecoder
from januslm.inference.incremental import IncrementalDecoder
from januslm.interop import hf_folder, weights
from januslm.layout import Example
from januslm.model.packing import Packer
from januslm.model.transformer import Seq2Seq
from januslm.objective import LossSettings, Objective, resolve_objective

VOCABULARY = 32000
SPECIAL = Special(mask=VOCABULARY - 1, vocabulary=VOCABULARY)  # as in BART's tokenizer
SIZES = dict(
    d_model=512,
    encoder_ffn_dim=1024,
    decoder_ffn_dim=1024,
    encoder_layers=6,
    decoder_layers=6,
    encoder_attention_heads=4,
    decoder_attention_heads=4,
    max_position_embeddings=256,
)
WORDS = [*SPECIALS[:-1], *map(str, range(4, VOCABULARY - 1)), SPECIALS[-1]]
NO_WORDS = [
    0,
    1,
    3,
    VOCABULARY - 1,
]  # what we never write; EOS is additive_mask by the least length


@dataclass(frozen=True)
class Programs:
    """The same weights in each of the programs."""

    model: Seq2Seq
    hf: object
    translator: object | None  # CTranslate2's, or None
    lacking: str  # why there is none
    device: torch.device
    graphs: bool = False  # ours captures its passes (CUDA)

    def decoder(self, read: str) -> IncrementalDecoder:
        """Ours: AR read from `next` slots (two rows a word, JANUS) or from `past` ones (BART)."""
        if self.graphs:
            return GraphedDecoder(self.model, objective(read))
        return IncrementalDecoder(self.model, objective(read), packed=self.device.type == "cpu")


def objective(read: str) -> Objective:
    """JANUS' objective with that read-out."""
    return resolve_objective(
        {"name": "janus", "read": read}, {}, LossSettings(), "nmt", SPECIAL, "benchmark"
    )


def write(folder: Path, sizes: Mapping[str, int] = SIZES) -> None:
    """The model with a tokenizer of whole words, as transformers saves them.

    Refused where transformers is missing.
    """
    try:
        from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast
        from transformers.utils.logging import disable_progress_bar
    except ModuleNotFoundError:
        raise Refused("transformers is not installed: pip install 'januslm[bench]'") from None
    disable_progress_bar()
    config = BartConfig(
        vocab_size=VOCABULARY,
        **sizes,
        activation_function="relu",
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=0,
        forced_eos_token_id=None,
        normalize_before=False,  # CTranslate2's converter asks for it
    )
    BartForConditionalGeneration(config).save_pretrained(folder)
    words = tokenizers.Tokenizer(
        WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token=SPECIALS[3])
    )
    PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token=SPECIALS[0],
        pad_token=SPECIALS[1],
        eos_token=SPECIALS[2],
        unk_token=SPECIALS[3],
        mask_token=SPECIALS[4],
    ).save_pretrained(folder)


def load(folder: Path, device: torch.device, half: bool, graphs: bool = False) -> Programs:
    """All programs that are installed; half: in bf16, else in fp32."""
    from transformers import BartForConditionalGeneration

    foreign = hf_folder.read(folder)
    model = weights.load(folder, foreign, foreign.sizes)
    hf = BartForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    kind = torch.bfloat16 if half else torch.float32
    model, hf = (m.eval().to(device=device, dtype=kind) for m in (model, hf))
    return Programs(model, hf, *_translator(folder, device, half), device, graphs)


def _translator(folder: Path, device: torch.device, half: bool) -> tuple[object | None, str]:
    """CTranslate2's copy on one thread; or None, and why it cannot run here."""
    try:
        import ctranslate2
    except ModuleNotFoundError:
        return None, "not installed: pip install 'januslm[bench]'"
    made = folder / "ctranslate2"
    if not made.is_dir():
        converter = ctranslate2.converters.TransformersConverter(str(folder))
        converter.convert(str(made), quantization="float32")
    kind = "bfloat16" if half else "float32"
    try:
        translator = ctranslate2.Translator(
            str(made), device=device.type, compute_type=kind, inter_threads=1, intra_threads=1
        )
        translator.translate_batch([[SPECIALS[2]]], max_decoding_length=1)  # loads its libraries
    except (RuntimeError, ValueError) as error:  # built for another CUDA, or without that precision
        return None, f"{device.type}, {kind}: {error}"
    return translator, ""


def apart(programs: Programs, sources: list[np.ndarray], words: int) -> dict[str, float]:
    """How far log p of random targets are from each other at most.

    "past": our cached steps against HF's teacher-forced pass, all words of the vocabulary; "next":
    our cached steps against our own teacher-forced pass; "CTranslate2": the targets against HF's.
    """
    rng = np.random.default_rng(1)
    targets = [np.array([SPECIAL.bos, *rng.integers(5, VOCABULARY, words), 2]) for _ in sources]
    with torch.inference_mode():
        truth = _forced(programs, sources, targets).cpu()
        found = {
            "past": _largest(truth, _stepped(programs.decoder("past"), sources, targets)),
            "next": _largest(
                _packed(programs, sources, targets),
                _stepped(programs.decoder("next"), sources, targets),
            ),
        }
        if programs.translator:
            goals = torch.from_numpy(np.stack(targets)[:, 1:, None])
            scored = programs.translator.score_batch(
                spelt(sources), spelt([t[1:-1] for t in targets])
            )
            got = torch.tensor([score.log_probs for score in scored])
            found["CTranslate2"] = _largest(truth.gather(-1, goals)[..., 0], got)
    return found


def same_words(programs: Programs, sources: list[np.ndarray], words: int) -> dict[str, int]:
    """How many sentences each program writes greedily as ours does, special tokens barred."""
    decoder = programs.decoder("past")
    limits = dict(min_length=words, max_length=words)
    ours = [o.tokens.tolist() for o in greedy.decode(decoder, sources, SPECIAL, **limits)]
    theirs = programs.hf.generate(
        **batch(sources, programs.device),
        num_beams=1,
        do_sample=False,
        min_new_tokens=words,
        max_new_tokens=words,
        suppress_tokens=NO_WORDS,
    )
    found = {"HF": theirs[:, 1:].cpu().numpy().tolist()}
    if programs.translator:
        results = programs.translator.translate_batch(
            spelt(sources),
            beam_size=1,
            min_decoding_length=words,
            max_decoding_length=words,
            suppress_sequences=[[WORDS[i]] for i in NO_WORDS],
        )
        ids = {word: i for i, word in enumerate(WORDS)}
        found["CTranslate2"] = [[ids[word] for word in r.hypotheses[0]] for r in results]
    return {name: sum(map(list.__eq__, ours, texts)) for name, texts in found.items()}


def spelt(texts: Sequence[np.ndarray]) -> list[list[str]]:
    """Our ids as the words that CTranslate2 reads."""
    return [[WORDS[i] for i in text] for text in texts]


def batch(sources: list[np.ndarray], device: torch.device) -> dict[str, Tensor]:
    """Our sources, all of one length, as HF reads them."""
    ids = torch.from_numpy(np.stack(sources)).to(device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _forced(programs: Programs, sources, targets) -> Tensor:
    """HF's log p, float [B, T, V] by our ids, of one teacher-forced pass."""
    read = torch.from_numpy(np.stack(targets)[:, :-1]).to(programs.device)
    logits = programs.hf(**batch(sources, programs.device), decoder_input_ids=read).logits
    return _log_p(logits)


def _stepped(decoder: IncrementalDecoder, sources, targets) -> Tensor:
    """Ours, word by word out of the cache."""
    state = decoder.start(sources)
    targets_ = torch.from_numpy(np.stack(targets)).to(state.at.device)
    steps = [decoder.step(state)]
    steps += [decoder.step(state, targets_[:, at, None]) for at in range(1, targets_.shape[1] - 1)]
    return _log_p(torch.cat(steps, 1))


def _packed(programs: Programs, sources, targets) -> Tensor:
    """Ours with `next` slots, in the packed pass of training."""
    kind = objective("next")
    examples = [
        Example(s, t, kind.layout(t, np.zeros(len(t), bool), np.random.default_rng(0)))
        for s, t in zip(sources, targets, strict=True)
    ]
    made = Packer(kind.loss.weights)(examples).to(programs.device)
    rows = torch.cat([loss_group.rows[0] for loss_group in made.loss_groups])
    hidden = programs.model(made)[0][rows.sort()[0]]
    logits = hidden @ programs.model.vocabulary_weight().T
    return _log_p(logits.view(len(sources), -1, VOCABULARY))


def _log_p(logits: Tensor) -> Tensor:
    return logits.float().log_softmax(-1)


def _largest(a: Tensor, b: Tensor) -> float:
    return float((a.cpu().float() - b.cpu().float()).abs().max())
