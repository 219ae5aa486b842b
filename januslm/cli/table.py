"""Rows of text as a table for people."""


def drawn(rows: list[list[str]]) -> str:
    """Columns of equal width under a line; the first to the left, the others to the right.

    rows[0] is the heading. A column that holds nothing but "-" is left out.
    """
    columns = list(zip(*rows, strict=True))
    kept = [c for i, c in enumerate(columns) if i == 0 or any(cell != "-" for cell in c[1:])]
    sizes = [max(map(len, column)) for column in kept]
    lines = []
    for row in zip(*kept, strict=True):
        cells = [row[0].ljust(sizes[0])]
        cells += [cell.rjust(size) for cell, size in zip(row[1:], sizes[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * size for size in sizes))
    return "\n".join(lines)
