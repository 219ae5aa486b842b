"""Masks e-mail addresses, public IP addresses and telephone numbers."""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from data_tools.documents import Document
from data_tools.filtering import Edited

# Bounded everywhere, so that no text takes long; ASCII, since scripts without spaces may precede.
EMAIL = re.compile(
    r"(?<![\w.!#$%&'*+/=?^`{|}~-])[\w!#$%&'*+/=?^`{|}~-]{1,64}(?:\.[\w!#$%&'*+/=?^`{|}~-]{1,64}){0,8}"
    r"@(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.){1,8}[a-zA-Z]{2,63}(?![\w-])",
    re.ASCII,
)
IP4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d)", re.ASCII)
IP6 = re.compile(r"(?<![\w:.])[23][0-9a-fA-F]{3}:[0-9a-fA-F:]{2,34}(?![\w:])", re.ASCII)
# +49 30 901820, 0049..., (212) 555-0100, 212-555-0100, 212.555.0100
PHONE = re.compile(
    r"(?<![\w.,:/@#=+-])"
    r"(?:(?:\+|00)[1-9]\d{0,2}(?:[ ./-]?\(\d{1,5}\))?(?:[ ./-]?\d{1,4}){2,6}"
    r"|\(\d{3}\)[ .-]?\d{3}[ .-]\d{4}"
    r"|(?:1[ .-])?[2-9]\d{2}([ .-])[2-9]\d{2}\1\d{4})"
    r"(?![\w@]|[.,:/-]\d)",
    re.ASCII,
)


def of_text(
    document: Document,
    *,
    email: str = "email@example.com",
    ip: str = "192.0.2.1",
    phone: str = "(555) 555-0100",
) -> Document | Edited:
    """The text with what belongs to persons replaced; the counts say how much of each.

    email: stands in the place of every address; "" leaves them, here and below.
    ip: for public addresses, IPv4 and IPv6; those of networks at home and of examples stay.
    phone: for numbers with a country code, and for North American ones, (212) 555-0100 or alike.
    """
    text, edits = document.text, Counter[str]()
    for what, pattern, mask, hint, holds in (
        ("e-mail addresses", EMAIL, email, "@", _any),
        ("IP addresses", IP4, ip, ".", _public),
        ("IP addresses", IP6, ip, ":", _public),
        ("telephone numbers", PHONE, phone, "", _dialled),
    ):
        if mask and hint in text:
            text, count = _masked(text, pattern, mask, holds)
            edits[what] += count
    edits = +edits  # without those of which there are none
    return Edited(replace(document, text=text), edits) if edits else document


def _masked(
    text: str, pattern: re.Pattern, mask: str, holds: Callable[[str], bool]
) -> tuple[str, int]:
    count = 0

    def instead(found: re.Match) -> str:
        nonlocal count
        if found[0] == mask or not holds(found[0]):
            return found[0]
        count += 1
        return mask

    return pattern.sub(instead, text), count


def _any(text: str) -> bool:
    return True


def _public(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False


def _dialled(text: str) -> bool:
    """Whether there are as many digits as the plan of the world's numbers (E.164) has."""
    return 7 <= sum(map(str.isdigit, text)) <= 15
