"""Draw a layout: `python -m januslm.objectives [NAME] [option=value ...]`.

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


def drawing(name: str, given: dict) -> str:
    """The layout of the example sentence; raises Refused for an unknown name, option or value."""
    plugin = registry.find(PACKAGE, name)
    options = registry.options(plugin.layout, given, name)
    extra = tuple(VOCABULARY + i for i in range(getattr(plugin, "EXTRA_VECTORS", 0)))
    special, rng = Special(vocabulary=VOCABULARY, extra=extra), np.random.default_rng(3)
    return plugin.layout(TARGET, HIDDEN, special, rng, **options).draw()


def listing() -> str:
    """One line per objective: its name and what it does."""
    known = registry.names(PACKAGE)
    about = [registry.find(PACKAGE, name).__doc__ or "" for name in known]
    rows = [(name, text.partition("\n")[0]) for name, text in zip(known, about, strict=True)]
    return drawn(rows, left=2, heading=False)


def main(arguments: list[str]) -> int:
    """Exit code: 0, or 2 for what cannot be drawn."""
    try:
        if arguments and arguments[0] in ("-h", "--help"):
            print(__doc__.strip())
        elif arguments:
            print(drawing(arguments[0], assignments(arguments[1:], "read=past")))
        else:
            print(listing())
    except Refused as error:
        print(error_line(str(error)), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
