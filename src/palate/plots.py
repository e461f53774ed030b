"""Plots for a notebook: charts that a cell shows, in the colours of light and dark screens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import ArrayLike, NDArray

from palate import charts
from palate.charts import Axis, Series

Points = Sequence[tuple[float, float]]

BINS = 30
ROOM = 6
"""Names that fit under a chart."""
COLOURS = 6
"""Series that are told apart in one chart."""


@dataclass(frozen=True)
class Plot:
    """One or several charts; the last value of a cell is shown."""

    html: str

    def _repr_html_(self) -> str:
        return f'<div class="palate"><style>{STYLE}</style>{self.html}</div>'

    def __add__(self, other: Plot) -> Plot:
        """Both, beside each other where there is room."""
        return Plot(self.html + other.html)


def lines(
    title: str,
    series: Mapping[str, Points],
    *,
    intervals: Mapping[str, Sequence[tuple[float, float] | None]] | None = None,
    names: Sequence[str] = (),
    joined: bool = True,
    log_x: bool = False,
    log_y: bool = False,
) -> Plot:
    """The points (x, y) of up to six series, each with a line through them unless they aren't `joined`.

    `intervals` are those of each y; `names` stand at the places 0, 1, … of an axis that has no numbers; an axis that is to be
    logarithmic is so where all numbers on it are above 0.
    """
    bounds = intervals or {}
    drawn = [
        Series(
            f"s{number % COLOURS}",
            tuple(points),
            tuple(bounds.get(name, ())),
            _titles(name, points, names),
            line=joined,
        )
        for number, (name, points) in enumerate(series.items())
    ]
    xs = [x for one in drawn for x, _ in one.points] or [0.0]
    ys = [y for one in drawn for _, y in one.points] or [0.0]
    ys += [end for one in drawn for bound in one.bounds if bound is not None for end in bound]
    across = Axis(-0.5, len(names) - 0.5, names=_thinned(names)) if names else charts.axis(xs, log=log_x)
    return _plot(title, charts.chart(across, charts.axis(ys, log=log_y), drawn, title), list(series))


def histogram(title: str, values: ArrayLike, *, log: bool = False, bins: int = BINS) -> Plot:
    """How often each size is among the values, in bins of equal width; of equal ratio with `log`, without what is 0 or less."""
    given = np.asarray(values, np.float64)
    kept = given[np.isfinite(given) & ((given > 0) | (not log))]
    if not len(kept):
        return Plot(f"<figure><figcaption>{escape(title)}</figcaption>nothing to count</figure>")
    edges = _edges(kept, log, bins)
    counts = np.histogram(kept, edges)[0]
    middles = np.sqrt(edges[1:] * edges[:-1]) if log else (edges[1:] + edges[:-1]) / 2
    titles = tuple(
        f"{count} from {low:.4g} to {high:.4g}" for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True)
    )
    points = tuple(zip(middles.tolist(), counts.astype(float).tolist(), strict=True))
    drawn = Series("s0", points, titles=titles, bars=True)
    x, top = charts.axis(edges.tolist(), log=log, margin=0.02), float(counts.max())
    return _plot(title, charts.chart(x, Axis(0, top * 1.06), [drawn], title), [])


def curve(title: str, counts: ArrayLike) -> Plot:
    """What share of all the largest part of the counts has: 1 % of the items may have half of the events."""
    given = np.sort(np.asarray(counts, np.float64))[::-1]
    total = np.cumsum(given) / max(given.sum(), 1.0)
    places = np.unique(np.round(np.geomspace(1, max(len(given), 1), BINS)).astype(int))[: len(given)]
    points = [(place / len(given), float(total[place - 1])) for place in places.tolist()]
    return lines(title, {"share": points or [(1.0, 1.0)]}, log_x=True)


def _thinned(names: Sequence[str]) -> tuple[str, ...]:
    """As many as have room, at equal distances."""
    every = -(-len(names) // ROOM)
    return tuple(name if place % every == 0 else "" for place, name in enumerate(names))


def _edges(values: NDArray[np.float64], log: bool, bins: int) -> NDArray[np.float64]:
    low, high = float(values.min()), float(values.max())
    if low == high:
        low, high = (low / 1.5, high * 1.5) if log else (low - 0.5, high + 0.5)
    return np.geomspace(low, high, bins + 1) if log else np.linspace(low, high, bins + 1)


def _titles(name: str, points: Points, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{name}: {y:.4g} at {names[round(x)] if names else format(x, '.4g')}" for x, y in points)


def _plot(title: str, drawn: str, series: Sequence[str]) -> Plot:
    told = "".join(f'<span class="s{number % COLOURS}">● {escape(name)}</span> ' for number, name in enumerate(series))
    legend = f'<div class="told">{told}</div>' if len(series) > 1 else ""
    return Plot(f"<figure><figcaption>{escape(title)}</figcaption>{drawn}{legend}</figure>")


def _hues() -> str:
    """Six colours a sixth of a circle apart, from blue on."""
    found = []
    for number in range(COLOURS):
        hue = math.fmod(212 + 360 / COLOURS * number * 5, 360)
        found.append(
            f".palate .s{number} {{ color: hsl({hue:.0f} 72% 42%); stroke: currentColor; fill: currentColor; }}"
        )
    return "\n".join(found)


STYLE = f"""
.palate {{ display: flex; flex-wrap: wrap; gap: 14px; color-scheme: light dark; }}
.palate figure {{ margin: 0; width: 420px; }} .palate figcaption, .palate .told {{ font-size: 13px; opacity: .75; }}
.palate .told span {{ stroke: none; }}
.palate .chart {{ width: 100%; height: auto; }} .palate .chart text {{ fill: currentColor; opacity: .7; font: 11px system-ui; }}
{_hues()}
.palate .axis, .palate .grid {{ stroke: currentColor; fill: none; opacity: .35; }} .palate .grid {{ opacity: .12; }}
.palate .line, .palate .whisker {{ fill: none; stroke-width: 1.6; }} .palate .whisker {{ opacity: .6; }}
.palate .bar {{ stroke: none; opacity: .75; }} .palate .dot {{ stroke: none; }}
"""
