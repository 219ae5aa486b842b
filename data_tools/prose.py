"""From a docstring to its English: paragraphs without code, doctests, tables and markup."""

import inspect
import re

_NAMES = (
    "Args|Arguments|Parameters|Params|Other Parameters|Keyword Args|Keyword Arguments|Attributes|"
    "Returns?|Return value|Yields?|Raises?|Receives|Throws|Warns|Examples?|Usage|References?|"
    "See [Aa]lso|Shape|Inputs?|Outputs?|Methods|Properties|Members|Fields|Options|Side effects|"
    "Reference|Todo|TODO"
)
SECTION = re.compile(rf"(?:{_NAMES})(?: *\([^)]*\))?(?:::?(?:\s|$)|$)")
HEADING = re.compile(r"[A-Z#][\w #/-]{0,40}:{1,2}$")
RULE = re.compile(r"([-=~^*+#`.\"_])\1{2,}\s*$|[+|][-+=| ]{3,}$|[=-]{2,}( +[=-]{2,})+$")
FENCE = re.compile(r"```|~~~")
FIELD = re.compile(r"[:@](?:param|parameter|type|arg|return|rtype|raise|var|ivar|key|yield)\w*\b")
ASIDE = re.compile(r"\.\. *(?:note|warning|tip|important|caution|admonition)::\s*")
ROLE = re.compile(r":[a-zA-Z:+-]+:`~?([^`<]*?)(?:\s*<[^`]*>)?`")
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)|<[^<>]*>|`([^`<]+?)\s*<[^`>]*>`_{1,2}")
SPACE = re.compile(r"\s+")
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")


def letters(text: str) -> float:
    """The share of letters and spaces; code and tables have few."""
    return sum(c.isalpha() or c == " " for c in text) / len(text) if text else 0.0


def words(text: str) -> list[str]:
    """The words of a text, in lower case; digits and signs are none."""
    return WORD.findall(text.lower())


def paragraphs(text: str, sections: bool = True, least: float = 0.75) -> list[str]:
    """The paragraphs of English in a docstring or a document, each one line.

    `sections`: whether to keep what stands under Args, Returns, Examples and their like.
    `least`: paragraphs with a smaller share of letters are left out.
    """
    found = (_tidy(" ".join(lines)) for lines in _blocks(text, sections))
    return [one for one in found if one and letters(one) >= least]


def _tidy(text: str) -> str:
    text = LINK.sub(r"\1\2", ROLE.sub(r"\1", text))
    return SPACE.sub(" ", text.replace("`", "").replace("**", "")).strip().removesuffix("::")


def _blocks(text: str, sections: bool) -> list[list[str]]:
    """Lines grouped into paragraphs; headings, code, doctests and unwanted sections are gone."""
    lines = [line.rstrip() for line in inspect.cleandoc(text).expandtabs().split("\n")]
    blocks: list[list[str]] = [[]]
    hidden = None  # lines indented deeper than this belong to something that is left out
    fenced = doctest = swallowed = False
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        bare = line.strip()
        indent = len(line) - len(line.lstrip())
        fenced ^= bool(FENCE.match(bare))
        if not bare:
            doctest = False
            blocks.append([])
            continue
        if hidden is not None and indent > hidden:
            continue
        hidden = None
        underlined = bool(RULE.match(after.strip())) and not RULE.match(bare)
        swallowed &= not underlined
        doctest |= bare.startswith(">>>")
        if fenced or doctest or swallowed or RULE.match(bare) or FENCE.match(bare):
            continue
        section = SECTION.match(bare)
        if underlined or section or HEADING.match(bare):
            blocks.append([])
            if section and not sections:
                swallowed, hidden = underlined, indent
            continue
        if aside := ASIDE.match(bare):
            blocks.append([bare[aside.end() :]])
        elif bare.startswith("..") or FIELD.match(bare):
            hidden = indent
            blocks.append([])
        else:
            blocks[-1].append(bare)
            if bare.endswith("::"):
                hidden = indent
                blocks.append([])
    return [block for block in blocks if block]
