"""The figures of each day of incoming data, with what is usual, for owners."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, timedelta

from markupsafe import Markup
from starlette.responses import Response

from palate import alerts, quality
from palate.charts import Axis, axis, chart
from palate.charts import Series as Drawn
from palate.daily_figures import LOG, PLAYER
from palate.database import reading
from palate.delivery.web_cards import age
from palate.delivery.web_page import Visit, draw, needs_owner
from palate.quality import Series

DAYS = 60
"""Days that are shown."""
TITLES = {LOG: "The event log", PLAYER: "Archives of the player"}
STEP = 14
"""Days from one date below a chart to the next."""


@dataclass(frozen=True)
class Panel:
    """One figure."""

    title: str
    words: str
    unusual: bool
    svg: Markup


def quality_page(visit: Visit) -> Response:
    """The page."""
    needs_owner(visit)
    yesterday = visit.now.astimezone(UTC).date() - timedelta(days=1)
    params = visit.serving.params.quality
    with reading(visit.serving.engine) as connection:
        told = alerts.list_alerts(connection)
        found = {origin: quality.series(connection, origin, yesterday, DAYS, params) for origin in TITLES}
    return draw(
        visit,
        "quality.html",
        here="/sources",
        alerts=[(one.text, age(one.time, visit.now)) for one in told],
        sections=[(TITLES[origin], [_panel(one) for one in series]) for origin, series in found.items() if series],
        params=params,
    )


def _panel(one: Series) -> Panel:
    known = [(taken, usual) for taken, usual in zip(one.taken, one.ranges, strict=True) if taken is not None]
    if not known:
        return Panel(one.meaning, "nothing in these days", False, Markup(""))
    taken, usual = known[-1]
    share = taken.out_of is not None
    words = quality.told(taken.value, share)
    if usual is not None:
        words += f", usually {quality.told(usual.low, share)} to {quality.told(usual.high, share)}"
    return Panel(one.meaning, words, usual is not None and not usual.holds(taken.value), _drawn(one))


def _drawn(one: Series) -> Markup:
    """The days as dots with their usual range; unusual ones in a colour of their own."""
    groups: dict[str, list[int]] = {"usual": [], "unusual": []}
    for place, (taken, usual) in enumerate(zip(one.taken, one.ranges, strict=True)):
        if taken is not None:
            groups["usual" if usual is None or usual.holds(taken.value) else "unusual"].append(place)
    heights = [taken.value for taken in one.taken if taken is not None]
    heights += [end for usual in one.ranges if usual is not None for end in (usual.low, usual.high)]
    names = tuple(f"{day:%-d %b}" if place % STEP == STEP // 2 else "" for place, day in enumerate(one.days))
    x = Axis(-1, len(one.days), names=names)
    series = [_dots(one, name, places) for name, places in groups.items() if places]
    return Markup(chart(x, axis([0.0, *heights]), series, one.meaning))


def _dots(one: Series, name: str, places: list[int]) -> Drawn:
    points, bounds, titles = [], [], []
    for place in places:
        taken, usual = one.taken[place], one.ranges[place]
        assert taken is not None, "Only days with a figure are drawn."
        points.append((float(place), taken.value))
        bounds.append(None if usual is None else (usual.low, usual.high))
        titles.append(f"{one.days[place]}: {quality.told(taken.value, taken.out_of is not None)}")
    return Drawn(name, tuple(points), tuple(bounds), tuple(titles))
