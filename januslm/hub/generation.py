"""generation_config.json: how transformers writes what januslm's beam and greedy write."""

from januslm.data.tokenizer import Special

MAX_LENGTH = 200  # words, where no task says it: januslm.decoding's default


def generation_config(
    special: Special, prefix: tuple[int, ...], most_positions: int, most_source: int, usual: dict
) -> dict:
    """usual: decoding options of the task the model was trained on; prefix: before AR's words.

    transformers counts what stands before the first word among the words, januslm does not.
    """
    limit = usual.get("max_length", MAX_LENGTH)
    limit += int(usual.get("max_ratio", 0.0) * most_source)  # of the longest source: no option
    before = len(prefix)
    found = {
        "bos_token_id": special.bos,
        "pad_token_id": special.pad,
        "eos_token_id": special.eos,
        "decoder_start_token_id": prefix[0] if prefix else special.bos,
        "max_length": before + min(limit, most_positions - before) + 1,
        "forced_eos_token_id": special.eos,
        "bad_words_ids": [[one] for one in (special.bos, special.pad, special.unk, special.mask)],
    }
    if before > 1:
        found["forced_bos_token_id"] = prefix[1]
    if (least := usual.get("min_length", 0)) > 0:
        found["min_length"] = before + least
    if size := usual.get("no_repeat_ngram", 0):
        found["no_repeat_ngram_size"] = size
    if (beam := usual.get("beam", 1)) > 1:
        found |= {
            "num_beams": beam,
            "length_penalty": usual.get("length_penalty", 1.0),
            "early_stopping": usual.get("early_stop", True),
        }
    return found
