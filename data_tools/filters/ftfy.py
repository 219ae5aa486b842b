"""Mends text that was decoded wrongly somewhere before (mojibake), with the library ftfy."""

import re
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Literal

from data_tools.documents import Document
from data_tools.filtering import Edited, Prepared
from januslm.config import Refused

Normalization = Literal["none", "NFC", "NFKC"]
# All that can be wrong with ASCII: entities of HTML, and what no text has.
ODD = re.compile(r"[&\x00-\x08\x0b\x0e-\x1f\x7f]")


def prepared(root: Path, folder: Path, **options) -> Prepared:
    """The rule as it is; Refused where ftfy is not there."""
    _mend(**options)
    return Prepared(partial(of_text, **options))


def of_text(
    document: Document,
    *,
    normalization: Normalization = "none",  # form of Unicode; ftfy's own: NFC
    straight_quotes: bool = False,  # curled quotation marks to ' and "
    plain_widths: bool = False,  # full-width and half-width letters to usual ones
    plain_ligatures: bool = False,  # one sign for fi to two letters
    line_feeds: bool = False,  # other line breaks to line feeds
) -> Document | Edited:
    """The text as it was meant; the defaults mend and change no style, as in FineWeb's chain."""
    text = document.text
    if text.isascii() and not ODD.search(text) and not (line_feeds and "\r" in text):
        return document
    mended = _mend(normalization, straight_quotes, plain_widths, plain_ligatures, line_feeds)(text)
    return document if mended == text else Edited(replace(document, text=mended), {})


@cache
def _mend(
    normalization: Normalization,
    straight_quotes: bool,
    plain_widths: bool,
    plain_ligatures: bool,
    line_feeds: bool,
):
    try:
        from ftfy import TextFixerConfig, fix_text
    except ImportError:
        raise Refused("needs ftfy: pip install 'januslm[web]'") from None
    config = TextFixerConfig(
        normalization=None if normalization == "none" else normalization,
        uncurl_quotes=straight_quotes,
        fix_character_width=plain_widths,
        fix_latin_ligatures=plain_ligatures,
        fix_line_breaks=line_feeds,
    )
    return lambda text: fix_text(text, config)
