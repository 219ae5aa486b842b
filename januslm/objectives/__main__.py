"""Draw a layout: `python -m januslm.objectives [NAME] [option=value ...]`.

--source N     behind a source of N tokens, as a model without an encoder reads it
--plugins DIR  with objectives of your own

Without a name, lists the objectives there are.  Rows read columns: '#' may look, '-> 3' must
predict word 3.  The sentence has three words, the first and the last of them hidden.
"""

import sys

import numpy as np

from januslm import registry
from januslm.cli.command import error_line
from januslm.cli.table import drawn
from januslm.config import Refused, assignments
from januslm.data.tokenizer import Special

PACKAGE = "januslm.objectives"
TARGET = np.array([0, 11, 12, 13, 2])  # BOS, three words, EOS
HIDDEN = np.array([False, True, False, True, False])
VOCABULARY = 20


def drawing(name: str, given: dict, source: int | None = None) -> str:
    """The layout of the example sentence; raises Refused for an unknown name, option or value.

    source: how many tokens of one stand before it in the row; None: an encoder has them.
    """
    plugin = registry.find(PACKAGE, name)
    options = registry.options(plugin.layout, given, name)
    extra = tuple(VOCABULARY + i for i in range(getattr(plugin, "EXTRA_VECTORS", 0)))
    special, rng = Special(vocabulary=VOCABULARY, extra=extra), np.random.default_rng(3)
    layout = plugin.layout(TARGET, HIDDEN, special, rng, **options)
    return (layout if source is None else layout.behind(np.resize(TARGET, source))).draw()


def listing() -> str:
    """One line per objective: its name and what it does."""
    known = registry.names(PACKAGE)
    about = [registry.find(PACKAGE, name).__doc__ or "" for name in known]
    rows = [(name, text.partition("\n")[0]) for name, text in zip(known, about, strict=True)]
    return drawn(rows, left=2, heading=False)


def _taken(flag: str, arguments: list[str]) -> tuple[str | None, list[str]]:
    """What stands behind a flag, None where there is none, and the other arguments."""
    if flag not in arguments:
        return None, arguments
    at = arguments.index(flag)
    return "".join(arguments[at + 1 : at + 2]), arguments[:at] + arguments[at + 2 :]


def main(arguments: list[str]) -> int:
    """Exit code: 0, or 2 for what cannot be drawn."""
    try:
        if arguments and arguments[0] in ("-h", "--help"):
            print(__doc__.strip())
            return 0
        plugins, arguments = _taken("--plugins", arguments)
        source, arguments = _taken("--source", arguments)
        if plugins is not None:
            registry.extend(plugins)
        if source is not None and not (source.isdecimal() and 0 < int(source) < 100):
            raise Refused(f"--source must be a number of tokens from 1 to 99, got {source!r}")
        if arguments:
            given = assignments(arguments[1:], "read=past")
            print(drawing(arguments[0], given, None if source is None else int(source)))
        else:
            print(listing())
    except Refused as error:
        print(error_line(str(error)), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
