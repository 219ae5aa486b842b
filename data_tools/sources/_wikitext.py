"""Wikitext to plain text: prose, headings and lists stay; templates, tables and notes go.

One pass that takes time in the length of the page, with what opens on a stack.  Templates are not
expanded: that needs the whole wiki.  mwparserfromhell 0.7.2 takes ten times the time and leaves
notes, tables and captions of pictures in the text.
"""

import html
import re
from collections.abc import Collection
from typing import NamedTuple

# Elements whose content is no prose.
_GONE = (
    "ref|gallery|math|chem|ce|timeline|score|syntaxhighlight|source|pre|code|imagemap|hiero|graph|"
    "mapframe|maplink|templatestyles|table|style|script"
)
_TOKEN = re.compile(
    rf"""
      (?P<comment> <!--.*?(?:-->|\Z) )
    | (?P<gone> <(?P<name>{_GONE})\b[^<>]*(?<!/)> )
    | (?P<tag> </?[A-Za-z][^<>]*> )
    | (?P<open> \{{\{{ | \[\[ | ^[\ \t:*#]*\{{\| )
    | (?P<close> \}}\}} | \]\] | ^[\ \t]*\|\}}(?!\}}) )
    | (?P<web> \[(?:https?:|ftp:)?//[^\s\[\]]*(?P<label>[^\[\]\n]*)\] )
    | (?P<switch> __[A-Z]+__ )
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE | re.IGNORECASE,
)
DEEPEST = 40  # what opens in what opened, ...: more would take time in the square of it
_CLOSES = {"}}": "{{", "]]": "[[", "|}": "{|"}
_BREAKS = re.compile(r"</?(?:br|p|div|li|ul|ol|tr|h[1-6]|blockquote|poem)\b", re.IGNORECASE)
# What pictures and categories are called in every wiki; a dump says what else in its own.
GONE_SPACES = frozenset({"file", "image", "media", "category"})
_LANGUAGE = re.compile(r"\s*[a-z]{2,3}(?:-[a-z-]+)?:")  # [[de:Haus]], without words of its own
_LIST = re.compile(r"^[*#:;]+[ \t]*")
_QUOTES = re.compile(r"'{2,5}")


class _Opened(NamedTuple):
    kind: str  # "{{", "[[", "{|" or "" for the page
    parts: list[str]


def plain(wikitext: str, gone: Collection[str] = GONE_SPACES) -> str:
    """The text of a page.  gone: namespaces, in lower case, whose links are no words."""
    return _lines(html.unescape(_QUOTES.sub("", _without_markup(wikitext, gone))))


def _without_markup(text: str, gone: Collection[str]) -> str:
    stack, at = [_Opened("", [])], 0
    last: dict[str, int] = {}  # where an element ends for the last time
    while found := _TOKEN.search(text, at):
        stack[-1].parts.append(text[at : found.start()])
        at = found.end()
        if found["gone"]:
            name = found["name"].lower()
            ends = re.compile(rf"</{name}\b[^<>]*>", re.IGNORECASE)
            if name not in last:
                last[name] = max((end.start() for end in ends.finditer(text)), default=-1)
            if last[name] >= at and (end := ends.search(text, at)):
                at = end.end()  # one that never ends takes away nothing
        elif found["tag"]:
            stack[-1].parts.append("\n" if _BREAKS.match(found["tag"]) else "")
        elif found["open"]:
            if len(stack) > DEEPEST:
                continue
            stack.append(_Opened(found["open"].lstrip(" \t:*#"), []))
        elif found["close"]:
            _close(stack, found["close"].strip(), gone)
        elif found["web"]:
            stack[-1].parts.append(found["label"].strip())
    stack[-1].parts.append(text[at:])
    # what never ends is taken as text
    return "".join(part for opened in stack for part in opened.parts)


def _close(stack: list[_Opened], sign: str, gone: Collection[str]) -> None:
    """End what a sign ends, with all that opened in it and did not end."""
    kinds = [one.kind for one in stack[-8:]]
    if _CLOSES[sign] not in kinds:
        return
    while True:
        kind, parts = stack.pop()
        if kind == _CLOSES[sign]:
            break
        stack[-1].parts.extend(parts)
    if kind == "[[":
        stack[-1].parts.append(_link("".join(parts), gone))


def _link(inside: str, gone: Collection[str]) -> str:
    """The words of [[page|words]]; none of a picture, a category, another language."""
    target, bar, words = inside.partition("|")
    if target.partition(":")[0].strip().lower().replace("_", " ") in gone:
        return ""
    if not bar and _LANGUAGE.match(target):
        return ""
    return words if bar else target.strip().removeprefix(":")


def _lines(text: str) -> str:
    """Lines without marks of lists, one blank line at most, no heading of an empty section."""
    kept: list[str] = []
    headings: list[tuple[int, str]] = []
    for line in text.splitlines():
        line = line.strip()
        if title := line.strip("= \t") if line[:1] == line[-1:] == "=" else "":
            level = len(line) - len(line.lstrip("="))
            headings = [one for one in headings if one[0] < level] + [(level, title)]
            continue
        line = _LIST.sub("", line)
        if line:
            for _, title in headings:
                kept += ["", title, ""]
            headings = []
            kept.append(line)
        elif kept and kept[-1]:
            kept.append("")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()
