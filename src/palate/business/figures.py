"""The figures themselves: log → tables → sums by part of the people → values with intervals.

Sums are added up by DuckDB within a stated memory; values and intervals come from the sums alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import metrics
from palate.business import lifetime, log, queries
from palate.business.lifetime import Cohorts, Lifetime
from palate.business.queries import BUCKETS, DAY, SUMS, Grain, Rules
from palate.domain import from_milliseconds, to_milliseconds
from palate.errors import DataFolderError, NotFound
from palate.evaluation.measuring import Figure
from palate.interactions import InteractionParams
from palate.report_params import ReportParams
from palate.watching.embedded import connected

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

EVERYBODY = ""
"""The variant of all people together."""

QUIET = timedelta(days=7)
"""A log in which nothing came for so long has ended: figures end with it."""

ATTEMPTS = 5
"""As often as files are looked for that were replaced before they were read."""

NEEDS = "The report is added up by DuckDB: install `palate[report]`."


@dataclass(frozen=True)
class Line:
    """A period of one variant's people, or of everybody's."""

    period: str
    """Its first day; the report's for all of it."""
    variant: str
    """EVERYBODY; `none` for people of whom no event names a variant, `several` for whom they name more than one."""
    complete: bool
    people: int
    """Who was active."""
    visits: int
    figures: dict[str, Figure]
    """By name; see MEANINGS."""


@dataclass(frozen=True)
class Report:
    """All figures."""

    first: str
    """Its first day, a Monday."""
    end: str
    """The moment from which on nothing counts."""
    events: int
    machines: int
    """Accounts that are left out."""
    catalogue: int
    """Items at its end."""
    total: list[Line]
    weeks: list[Line]
    days: list[Line]
    cohorts: list[dict[str, Any]]
    """By variant and first week: `people`, and in `active` the share of them that was active so many weeks later."""
    lifetimes: dict[str, Lifetime]
    """By variant."""
    unit: str
    """Of lifetime values."""
    stated: list[str]

    @property
    def variants(self) -> list[str]:
        """EVERYBODY first."""
        return [line.variant for line in self.total]


RATIOS = {
    "retention": ("retained", "followed"),
    "hours_per_person": ("hours", "people"),
    "visits_per_person": ("visits", "people"),
    "visits_without_view": ("empty_visits", "visits"),
    "views_per_visit": ("views", "visits"),
    "likes_per_view": ("likes", "views"),
    "reach": ("personal", "people"),
}
"""Figures that are one sum over another."""

MEANINGS = {
    "retention": "share of a period's active people who were active in the next; over all: from week to week",
    "hours_per_person": "hours watched and read, per active person",
    "visits_per_person": "visits per active person",
    "visits_without_view": "share of the visits in which nothing was viewed",
    "views_per_visit": "items viewed in a visit: its depth",
    "likes_per_view": "likes over views",
    "reach": "share of the active people with a list of their own",
    "recommended": "share of the catalogue that was shown to somebody",
    "watched": "share of the catalogue that was viewed by somebody",
}


def report(
    engine: sa.Engine,
    folder: Path,
    params: ReportParams,
    types: InteractionParams,
    now: datetime,
    *,
    scratch: Path,
    weeks: int = 12,
    threads: int | None = None,
    random: np.random.Generator,
) -> Report:
    """The figures of the last `weeks` complete weeks and what came since.

    `folder` holds the sealed days; `scratch`, an empty folder, what doesn't fit into memory. Raises NotFound for an empty log,
    DataFolderError for a broken one, SettingsError when DuckDB isn't installed.
    """
    with connected(scratch, threads, params.memory_mb, NEEDS) as connection:
        attach = partial(_attached, connection, engine, folder, params, types, now, scratch, weeks)
        rules, events = _read(connection, engine, attach)
        return _added_up(connection, rules, params, events, random)


def _read(
    connection: DuckDBPyConnection, engine: sa.Engine, attach: Callable[[], tuple[Rules, int]]
) -> tuple[Rules, int]:
    """All that is read of the log, once attached, as tables; anew when a sealed file was replaced meanwhile."""
    import duckdb

    for left in reversed(range(ATTEMPTS)):
        listed = log.sealed(engine)
        try:
            rules, events = attach()
            for name, query in queries.tables(rules):
                connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {query}")
            return rules, events
        except (DataFolderError, duckdb.IOException) as error:
            if not left or log.sealed(engine) == listed:
                raise (error if isinstance(error, DataFolderError) else log.broken(error)) from error
    raise AssertionError("the last attempt ends in one way or the other")


def _attached(
    connection: DuckDBPyConnection,
    engine: sa.Engine,
    folder: Path,
    params: ReportParams,
    types: InteractionParams,
    now: datetime,
    scratch: Path,
    weeks: int,
) -> tuple[Rules, int]:
    """The log as a view, when it begins and ends, and how many events it has."""
    log.attach(connection, engine, folder, scratch, now)
    span = f"SELECT min(time), max(time), count(*) FROM log WHERE time <= {to_milliseconds(now)}"
    row = connection.execute(span).fetchone()
    assert row is not None, "A query of counts has one row."
    oldest, newest, events = row
    if not events:
        raise NotFound("There are no events yet, and so no figures.")
    end = to_milliseconds(now) if now - from_milliseconds(newest) < QUIET else newest + 1
    return _rules(params, types, int(oldest), int(end), weeks), int(events)


def _rules(params: ReportParams, types: InteractionParams, oldest: int, end: int, weeks: int) -> Rules:
    rules = Rules(
        first_day=0,
        end=end,
        viewed=tuple(sorted(name for name, type in types.types.items() if type.viewed)),
        liked=params.liked,
        fractions=params.fractions,
        dwells=params.dwells,
        longest_dwell=60 * params.longest_dwell_minutes,
        unasked=params.unasked_surfaces,
        visit_gap=60_000 * params.visit_minutes,
        personal_items=params.personal_items,
        most_events=types.max_events_per_day,
    )
    first_week = max(rules.last("week") + 1 - weeks, (oldest // DAY + 3) // 7)
    return replace(rules, first_day=first_week * 7 - 3)


def _added_up(
    connection: DuckDBPyConnection, rules: Rules, params: ReportParams, events: int, random: np.random.Generator
) -> Report:
    sums = {grain: _sums(connection, grain, rules) for grain in queries.NUMBER}
    cohorts = _cohorts(connection, rules)
    if {variant for _, variant in sums["all"]} == {EVERYBODY, "none"}:  # no event names a variant
        sums = {grain: _of_everybody(cells) for grain, cells in sums.items()}
        cohorts.pop("none", None)
    _take_over_retention(sums)
    shares = {grain: _shares(connection, grain, rules) for grain in queries.NUMBER}
    lines = _lines(sums, shares, rules, random)
    machines = connection.execute("SELECT count(*) FROM machines").fetchone()
    assert machines is not None, "A query of counts has one row."
    return Report(
        first=_date(rules.first_day),
        end=from_milliseconds(rules.end).astimezone(UTC).isoformat(timespec="minutes"),
        events=events,
        machines=int(machines[0]),
        catalogue=shares["all"].size(0),
        total=lines["all"],
        weeks=lines["week"],
        days=lines["day"],
        cohorts=[row for variant in cohorts for row in _told(cohorts[variant], variant)],
        lifetimes={
            variant: lifetime.value(cohorts[variant], _hours(sums["week"], variant), params.lifetime, random)
            for variant in sorted(cohorts)
        },
        unit=params.lifetime.unit,
        stated=_stated(rules, params),
    )


Sums = dict[tuple[int, str], NDArray[np.float64]]
"""By period and variant: (BUCKETS, len(SUMS))."""


def _sums(connection: DuckDBPyConnection, grain: Grain, rules: Rules) -> Sums:
    found: Sums = {}
    for period, variant, bucket, *row in _rows(connection, queries.sums(grain, rules)):
        cell = found.setdefault((period, variant or EVERYBODY), np.zeros((BUCKETS, len(SUMS))))
        cell[bucket] = row
    for period in range(rules.first(grain), max((period for period, _ in found), default=-1) + 1):
        found.setdefault((period, EVERYBODY), np.zeros((BUCKETS, len(SUMS))))
    return found


def _of_everybody(cells: Sums) -> Sums:
    return {key: cell for key, cell in cells.items() if key[1] == EVERYBODY}


def _rows(connection: DuckDBPyConnection, query: str) -> Iterator[tuple[Any, ...]]:
    cursor = connection.execute(query)
    while rows := cursor.fetchmany(10_000):
        yield from rows


def _take_over_retention(sums: Mapping[Grain, Sums]) -> None:
    """All of the report has no next: its retention is that of its weeks."""
    places = [SUMS.index("retained"), SUMS.index("followed")]
    for (_, variant), cell in sums["all"].items():
        cell[:, places] = sum(week[:, places] for (_, other), week in sums["week"].items() if other == variant)


@dataclass(frozen=True)
class _Shares:
    """Of the catalogue, by period and variant."""

    used: dict[tuple[int, str], tuple[int, int]]
    """Items shown and items viewed."""
    came: NDArray[np.int64]
    """Ascending: the day on which each item came."""
    last: dict[int, int]
    """The last day of each period."""

    def size(self, period: int) -> int:
        """Items that had come by the end of the period."""
        return int(np.searchsorted(self.came, self.last[period], side="right"))


def _shares(connection: DuckDBPyConnection, grain: Grain, rules: Rules) -> _Shares:
    used = {
        (period, variant or EVERYBODY): (shown, viewed)
        for period, variant, shown, viewed in _rows(connection, queries.catalogue(grain, rules))
    }
    days = list(_rows(connection, queries.ITEMS_BY_DAY))
    came = np.sort(np.repeat([day for day, _ in days], [count for _, count in days])).astype(np.int64)
    today = (rules.end - 1) // DAY
    last = {
        "day": {day: day for day in range(rules.first_day, today + 1)},
        "week": {week: week * 7 + 3 for week in range(rules.first("week"), (today + 3) // 7 + 1)},
        "all": {0: today},
    }[grain]
    return _Shares(used, came, last)


def _lines(
    sums: Mapping[Grain, Sums], shares: Mapping[Grain, _Shares], rules: Rules, random: np.random.Generator
) -> dict[Grain, list[Line]]:
    """Every period of every variant; all intervals come of one drawing of people."""
    cells = [(grain, period, variant) for grain in sums for period, variant in sorted(sums[grain])]
    cases = [
        (sums[grain][period, variant][:, [SUMS.index(part) for part in parts]], metrics.mean_of)
        for grain, period, variant in cells
        for parts in RATIOS.values()
    ]
    values = [
        _figure(*case, bounds) for case, bounds in zip(cases, metrics.intervals_of_sums(cases, random), strict=True)
    ]
    lines: dict[Grain, list[Line]] = {grain: [] for grain in sums}
    for place, (grain, period, variant) in enumerate(cells):
        own = dict(zip(RATIOS, values[place * len(RATIOS) : (place + 1) * len(RATIOS)], strict=True))
        total = sums[grain][period, variant].sum(axis=0)
        lines[grain].append(
            Line(
                period=_date({"day": period, "week": period * 7 - 3, "all": rules.first_day}[grain]),
                variant=variant,
                complete=period <= rules.last(grain),
                people=int(total[SUMS.index("people")]),
                visits=int(total[SUMS.index("visits")]),
                figures=own | _catalogue_figures(shares[grain], period, variant),
            )
        )
    return lines


def _figure(parts: NDArray[np.float64], finish: metrics.Finish, bounds: tuple[float, float]) -> Figure:
    value = float(finish(parts.sum(axis=0)))
    if np.isnan(value):
        return Figure(None)
    return Figure(value, *bounds) if not np.isnan(bounds[0]) else Figure(value)


def _catalogue_figures(shares: _Shares, period: int, variant: str) -> dict[str, Figure]:
    """Without intervals: how many items many people meet together isn't a sum over them."""
    size, (shown, viewed) = shares.size(period), shares.used.get((period, variant), (0, 0))
    return {
        "recommended": Figure(shown / size if size else None),
        "watched": Figure(viewed / size if size else None),
    }


def _cohorts(connection: DuckDBPyConnection, rules: Rules) -> dict[str, Cohorts]:
    """Of each variant whose people came in the report's time."""
    first, last = rules.first("week"), rules.last("week")
    weeks = max(last - first + 1, 0)
    found: dict[str, NDArray[np.float64]] = {}
    for cohort, variant, bucket, age, people in _rows(connection, queries.cohorts(rules)):
        active = found.setdefault(variant or EVERYBODY, np.zeros((BUCKETS, weeks, weeks)))
        if cohort + age <= last:
            active[bucket, cohort - first, age] = people
    return {variant: Cohorts(first, active) for variant, active in found.items()}


def _told(cohorts: Cohorts, variant: str) -> list[dict[str, Any]]:
    counts = cohorts.active.sum(axis=0)
    return [
        {
            "week": _date((cohorts.first + row) * 7 - 3),
            "variant": variant,
            "people": int(counts[row, 0]),
            "active": [round(float(count / counts[row, 0]), 6) for count in counts[row, : len(counts) - row]],
        }
        for row in range(len(counts))
        if counts[row, 0]
    ]


def _hours(sums: Sums, variant: str) -> NDArray[np.float64]:
    """(BUCKETS, 2): hours, and in how many weeks people were active, each counted in its own."""
    places = [SUMS.index("hours"), SUMS.index("people")]
    cells = [cell[:, places] for (_, other), cell in sums.items() if other == variant]
    return np.sum(cells, axis=0) if cells else np.zeros((BUCKETS, 2))


def _date(day: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()


def _stated(rules: Rules, params: ReportParams) -> list[str]:
    machines = (
        f" Accounts with more than {rules.most_events:,} events on a day, shown ones not counted, are left out."
        if rules.most_events is not None
        else ""
    )
    return [
        "Days and weeks are of UTC, weeks begin on Monday. Ids of one person count as that person." + machines,
        "Active in a period is who has any event in it"
        + (f", on {', '.join(rules.unasked)} any but shown" if rules.unasked else "")
        + f". A visit is a run of a person's events without a pause of more than {params.visit_minutes} minutes; it belongs to "
        "the period in which it begins.",
        f"A view is an item met in a visit by events of the types {', '.join(rules.viewed)}, however many of them.",
        f"A like is an event of {', '.join(rules.liked)}.",
        f"Hours are the value of {', '.join(rules.fractions)} times the item's duration, and the seconds of "
        f"{', '.join(rules.dwells)}, at most {params.longest_dwell_minutes} minutes of one event. Items without a duration give "
        "none of the first.",
        f"Reach counts who had viewed {params.personal_items} different items by the end of the period: from then on there is a "
        "list of their own.",
        "The catalogue of a period are the items that are live today and had been published, received or met by its end.",
        "A person's variant is the one that all their events in this time name.",
        "Intervals hold 95 %: people are drawn with replacement, in 256 parts, 1,000 times. Shares of the catalogue have none.",
        *lifetime.stated(params.lifetime),
    ]
