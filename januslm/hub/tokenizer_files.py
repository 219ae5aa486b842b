"""The tokenizer as PreTrainedTokenizerFast reads it: our file, and BOS and EOS around texts."""

import json

from tokenizers.processors import TemplateProcessing

from januslm.data.tokenizer import Tokenizer


def tokenizer_files(tokenizer: Tokenizer, most: int) -> dict[str, str]:
    """File name -> text.  most: tokens that a source may have, BOS and EOS among them."""
    special = tokenizer.special
    bos, pad, eos, unk, mask = tokenizer.names
    model = type(tokenizer.model).from_str(tokenizer.model.to_str())
    model.post_processor = TemplateProcessing(
        single=f"{bos} $A {eos}",
        pair=f"{bos} $A {eos} {eos} $B {eos}",
        special_tokens=[(bos, special.bos), (eos, special.eos)],
    )
    names = {
        "bos_token": bos,
        "pad_token": pad,
        "eos_token": eos,
        "unk_token": unk,
        "mask_token": mask,
    }
    config = names | {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": most,
        "model_input_names": ["input_ids", "attention_mask"],
        "padding_side": "right",
        "truncation_side": "right",
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,  # a text that says <mask> is a text
    }
    return {
        "tokenizer.json": model.to_str(),
        "tokenizer_config.json": json.dumps(config, indent=1) + "\n",
        "special_tokens_map.json": json.dumps(names, indent=1) + "\n",
    }
