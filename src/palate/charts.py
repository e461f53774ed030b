"""Charts as inline SVG, in the colours of the page that they stand in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 300, 150
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 24
"""Room around the field, for what stands at the axes."""


@dataclass(frozen=True)
class Series:
    """Points of one kind; `name` is also the class of their colour."""

    name: str
    points: tuple[tuple[float, float], ...]
    """x and y."""
    bounds: tuple[tuple[float, float] | None, ...] = ()
    """Interval of each y, where it is to be drawn."""
    titles: tuple[str, ...] = ()
    """What is said of each point when it is pointed at."""
    line: bool = False
    bars: bool = False
    """From the foot up to each y, side by side, instead of dots."""


@dataclass(frozen=True)
class Axis:
    """Where numbers lie on a line."""

    low: float
    high: float
    log: bool = False
    names: tuple[str, ...] = ()
    """Of the places 0, 1, … where they are no numbers; nothing stands at "" ones."""

    def share(self, value: float) -> float:
        """0 at its beginning, 1 at its end."""
        low, high, value = (math.log(part) if self.log else part for part in (self.low, self.high, value))
        return 0.5 if high <= low else (value - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        """Places and what stands there."""
        if self.names:
            return [(float(place), name) for place, name in enumerate(self.names) if name]
        values = _powers(self.low, self.high) if self.log else _rounds(self.low, self.high)
        return [(value, f"{value:.4g}") for value in values]


def axis(values: Sequence[float], *, log: bool = False, margin: float = 0.06) -> Axis:
    """An axis with room for these values; logarithmic if it is to be and all are above 0."""
    log = log and min(values) > 0
    low, high = min(values), max(values)
    if log:
        room = (high / low) ** margin if high > low else 1.5
        return Axis(low / room, high * room, log=True)
    room = (high - low) * margin or abs(high) * margin or 1.0
    return Axis(low - room, high + room)


def chart(x: Axis, y: Axis, series: Sequence[Series], label: str, shaded: Sequence[tuple[float, float]] = ()) -> str:
    """An SVG element: series over `x`, with stretches of it shaded; `label` says what it shows to who can't see it."""
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">',
        *(_shade(x, first, last) for first, last in shaded),
        *_grid(x, y),
        *(part for one in series for part in _drawn(x, y, one)),
        "</svg>",
    ]
    return "".join(parts)


def _across(x: Axis, value: float) -> float:
    return round(LEFT + x.share(value) * (WIDTH - LEFT - RIGHT), 1)


def _down(y: Axis, value: float) -> float:
    return round(TOP + (1 - y.share(value)) * (HEIGHT - TOP - BOTTOM), 1)


def _shade(x: Axis, first: float, last: float) -> str:
    start, end = _across(x, first), _across(x, last)
    return (
        f'<rect class="overfit" x="{start}" y="{TOP}" width="{round(end - start, 1)}" '
        f'height="{HEIGHT - TOP - BOTTOM}"><title>training gets better, validation worse</title></rect>'
    )


def _grid(x: Axis, y: Axis) -> list[str]:
    foot = HEIGHT - BOTTOM
    lines = [f'<path class="axis" d="M{LEFT} {TOP}V{foot}H{WIDTH - RIGHT}"/>']
    for value, name in y.ticks():
        at = _down(y, value)
        lines.append(f'<path class="grid" d="M{LEFT} {at}H{WIDTH - RIGHT}"/>')
        lines.append(f'<text class="tick" x="{LEFT - 6}" y="{at + 3.5}" text-anchor="end">{escape(name)}</text>')
    for value, name in x.ticks():
        at = _across(x, value)
        lines.append(f'<path class="axis" d="M{at} {foot}v4"/>')
        lines.append(f'<text class="tick" x="{at}" y="{foot + 15}" text-anchor="middle">{escape(name)}</text>')
    return lines


def _drawn(x: Axis, y: Axis, series: Series) -> list[str]:
    places = [(_across(x, one), _down(y, other)) for one, other in series.points]
    parts = []
    if series.line and len(places) > 1:
        path = "L".join(f"{across} {down}" for across, down in places)
        parts.append(f'<path class="line {series.name}" d="M{path}"/>')
    for (across, _), bound in zip(places, series.bounds, strict=False):
        if bound is not None:
            low, high = _down(y, bound[0]), _down(y, bound[1])
            parts.append(f'<path class="whisker {series.name}" d="M{across} {low}V{high}"/>')
    titles = series.titles or ("",) * len(places)
    for (across, down), title in zip(places, titles, strict=True):
        inside = f"<title>{escape(title)}</title>" if title else ""
        kind = f'class="{"bar" if series.bars else "dot"} {series.name}"'
        parts.append(_bar(kind, across, down, len(places), inside) if series.bars else _dot(kind, across, down, inside))
    return parts


def _dot(kind: str, across: float, down: float, inside: str) -> str:
    return f'<circle {kind} cx="{across}" cy="{down}" r="3.5">{inside}</circle>'


def _bar(kind: str, across: float, down: float, count: int, inside: str) -> str:
    width = round((WIDTH - LEFT - RIGHT) / max(count, 1), 1)
    start, height = round(across - width / 2, 1), round(HEIGHT - BOTTOM - down, 1)
    return f'<rect {kind} x="{start}" y="{down}" width="{width}" height="{height}">{inside}</rect>'


def _rounds(low: float, high: float) -> list[float]:
    """About five round numbers."""
    if high <= low:
        return [low]
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 2.5, 5, 10) if (high - low) / (step * factor) <= 5)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _powers(low: float, high: float) -> list[float]:
    """Powers of ten, with 2 and 5 between where fewer than two would be there."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 2, 5)):
        found = [factor * 10.0**power for power in powers for factor in factors]
        found = [value for value in found if low <= value <= high]
        if len(found) > 1:
            return found
    return found or [low, high]
