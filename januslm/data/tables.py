"""Rows of CSV and TSV files: training pairs and texts of one's own are read by the same rules."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from januslm.config import Refused

Row = tuple[str, dict[str, Any]]  # where it stands, for an error; its cells by column

CELL = 1 << 30  # letters; csv's own limit of 131,072 is less than a long document
# In a TSV a tab ends a cell and a line a row, whatever quotes there are.
DIALECTS: dict[str, dict[str, Any]] = {
    "csv": {"delimiter": ",", "strict": True},
    "tsv": {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "quotechar": None},
}


def rows(
    lines: Iterable[str], where: str, kind: str, header: Sequence[str] = (), cell: int = CELL
) -> Iterator[Row]:
    """The rows of a table, by the columns of its first line, or of `header` where it has none.

    lines: with their line ends.  kind: csv or tsv.  cell: letters of one cell, at most.  Empty
    lines are left out.  Refused, with the line, for a row of another width, a column that comes
    twice, a longer cell, and quotes that do not end.
    """
    csv.field_size_limit(cell)
    reader = csv.reader(lines, **DIALECTS[kind])
    names = list(header)
    try:
        for cells in reader:
            place = f"{where}:{reader.line_num}"
            if not cells:
                continue
            if not names:
                names = [name.strip() for name in cells]
                if twice := [name for name in names if names.count(name) > 1]:
                    raise Refused(f"{place}: two columns are called {twice[0]!r}")
                continue
            if len(cells) != len(names):
                raise Refused(
                    f"{place}: {len(cells)} cells, and the columns are {', '.join(names)}"
                )
            yield place, dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise Refused(f"{where}:{reader.line_num}: not a row of cells ({error})") from None


def line(values: Sequence[Any], kind: str) -> str:
    """One row with its line end; what would end a cell or a row of a TSV becomes a blank."""
    if kind == "tsv":
        values = [str(value).translate(dict.fromkeys(map(ord, "\t\r\n"), " ")) for value in values]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n", **DIALECTS[kind]).writerow(values)
    return out.getvalue()
