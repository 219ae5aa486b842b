"""Curves as places in a picture: lines, ticks and marks, which the page draws as SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from januslm.runs.logs import Point, thinned

WIDTH, HEIGHT = 440, 230  # of a picture, in its own units
LEFT, RIGHT, TOP, BOTTOM = 56, 10, 10, 26  # what is left free around the curves
EDGES = (LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM)  # left, right, upper and lower
ROW, ROOM = 36, 100  # of a bar: its height, and what is left for its number
POINTS = 400  # of a curve, at most
DOTS = 40  # up to so many points, each is marked


@dataclass(frozen=True)
class Curve:
    """What is to be drawn.  color: 0 to 5; dashed: as validation is, beside training."""

    name: str
    points: Sequence[Point]
    color: int = 0
    dashed: bool = False


@dataclass(frozen=True)
class Line:
    """A curve in its place.  path: the `d` of an SVG path, with a gap at what is not finite."""

    name: str
    path: str
    dots: list[tuple[float, float]]
    color: int
    dashed: bool
    last: str  # its last value


@dataclass(frozen=True)
class Chart:
    """A picture with its axes; ticks: place and text; marks: updates at which a start went on.

    span: the updates and values at its left, right, lower and upper edge.
    """

    title: str
    lines: list[Line]
    across: list[tuple[float, str]]
    up: list[tuple[float, str]]
    marks: list[float]
    span: tuple[float, float, float, float]
    note: str


def chart(title: str, curves: Sequence[Curve], marks: Sequence[int] = ()) -> Chart | None:
    """None where no curve has a point."""
    curves = [curve for curve in curves if any(value is not None for _, value in curve.points)]
    if not curves:
        return None
    drawn = [thinned(curve.points, POINTS) for curve in curves]
    values = [value for points in drawn for _, value in points if value is not None]
    steps = [step for points in drawn for step, _ in points]
    across, up = _ticks(min(steps), max(steps), 5), _ticks(min(values), max(values), 4)
    span = (min(steps), max(steps), min(*values, up[0]), max(*values, up[-1]))
    x = _scale(*span[:2], *EDGES[:2])
    y = _scale(*span[2:], *EDGES[:1:-1])
    lines = [_line(curve, points, x, y) for curve, points in zip(curves, drawn, strict=True)]
    before, after = max(len(curve.points) for curve in curves), max(map(len, drawn))
    note = f"{before:,} records, drawn as {after:,} points" if after < before else ""
    return Chart(
        title,
        lines,
        [(x(value), short(value)) for value in across if min(steps) <= value <= max(steps)],
        [(y(value), short(value)) for value in up],
        [x(mark) for mark in marks if min(steps) <= mark <= max(steps)],
        span,
        note,
    )


@dataclass(frozen=True)
class Bar:
    """One value as a bar; lengths and places in a picture's units; ends: of its interval."""

    label: str
    text: str
    length: float
    ends: tuple[float, float] | None


@dataclass(frozen=True)
class Bars:
    """Values below one another, from 0; the widest fills the picture."""

    title: str
    rows: list[Bar]
    height: int


def bars(title: str, rows: Sequence[tuple[str, float, float | None, str]]) -> Bars | None:
    """rows: label, value, half of its interval, and how it is written; None without any."""
    if not rows:
        return None
    room = WIDTH - ROOM
    unit = room / max(max(value + (half or 0) for _, value, half, _ in rows), 1e-9)
    drawn = [
        Bar(label, text, max(value, 0) * unit, _ends(value, half, unit) if half else None)
        for label, value, half, text in rows
    ]
    return Bars(title, drawn, ROW * len(rows))


def _ends(value: float, half: float, unit: float) -> tuple[float, float]:
    return max(value - half, 0) * unit, (value + half) * unit


def short(value: float) -> str:
    """As few letters as an axis has room for: 0.25, 1,200, 25k, 3e-05."""
    if value == 0:
        return "0"
    size = abs(value)
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= unit:
            return f"{value / (1e3 if letter == 'k' else unit):.4g}{letter}"
    return f"{value:,.4g}" if size < 1e3 else f"{value:,.0f}"


def _line(curve: Curve, points: Sequence[Point], x, y) -> Line:
    parts, pen = [], "M"
    for step, value in points:
        if value is None:
            pen = "M"
            continue
        parts.append(f"{pen}{x(step):.1f} {y(value):.1f}")
        pen = "L"
    finite = [(x(step), y(value)) for step, value in points if value is not None]
    last = next(value for _, value in reversed(curve.points) if value is not None)
    dots = finite if len(finite) <= DOTS and (curve.dashed or len(finite) < 3) else []
    return Line(curve.name, "".join(parts), dots, curve.color, curve.dashed, f"{last:.4g}")


def _scale(low: float, high: float, first: float, last: float):
    """From values to places; a single value lies in the middle."""

    def place(value: float) -> float:
        share = (value - low) / (high - low) if high > low else 0.5
        return first + share * (last - first)

    return place


def _ticks(low: float, high: float, count: int) -> list[float]:
    """About so many round numbers, the first and last of them around low and high."""
    if high <= low:
        return [low]
    rough = (high - low) / count
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [number * step for number in range(first, last + 1)]
