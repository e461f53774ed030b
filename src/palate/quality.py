"""Quality of incoming data: the figures of each day, what is usual of them, and an alarm when one isn't.

Once a day (UTC) is over its events are counted while they are unsealed; the archives of a player bring the counts of their own
days. What is unusual is an alert on the page of sources, in `/metrics` and in the log, until a day is usual again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

import msgspec
import numpy as np
import sqlalchemy as sa

from palate import alerts, daily_figures, database, usual
from palate.daily_figures import LOG, MEANINGS, PLAYER, Figure
from palate.database import reading, writing
from palate.usual import Range, Taken

log = logging.getLogger(__name__)

UNUSUAL, SILENT, MACHINE = "figure_unusual", "source_silent", "account_machine"
"""Kinds of alerts."""
SILENT_DAYS = 2
"""Days that any source may be silent."""
OFTEN = 3
"""Days on which a source gave something, from which on it is one that goes on giving."""


class QualityParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When the figures of a day call for somebody."""

    usual_days: Annotated[int, msgspec.Meta(ge=7, le=366)] = 28
    """Days before a day that say what is usual."""
    learned_after: Annotated[int, msgspec.Meta(ge=3)] = 14
    """Days that must have a figure before one is called unusual."""
    deviations: Annotated[float, msgspec.Meta(gt=0)] = 4.0
    """Standard deviations from the median up to which a figure is usual."""
    missed_items: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    """A source is silent that by what it gave before would have given so many items since its last one."""
    machine_acts: Annotated[int, msgspec.Meta(ge=10)] = 200
    """Acts of an account on one day, `shown` not counted, from which on it is asked whether a hand moves it."""
    keep_days: Annotated[int, msgspec.Meta(ge=60)] = 400
    """Days for which figures are kept."""


@dataclass(frozen=True)
class Series:
    """A figure over the days, oldest first."""

    origin: str
    name: str
    subject: str
    days: tuple[date, ...]
    taken: tuple[Taken | None, ...]
    """None on a day without it."""
    ranges: tuple[Range | None, ...]
    """What was usual; None while too little was known."""

    @property
    def meaning(self) -> str:
        """What it counts, in words."""
        told = MEANINGS.get(self.name, self.name.replace("_", " ").capitalize())
        return f"{told}: {self.subject}" if self.subject else told


def watch(engine: sa.Engine, params: QualityParams, now: datetime) -> None:
    """Count the days of the log that are over and not counted yet, and tell what is unusual; nothing to do on most calls."""
    with reading(engine) as connection:
        due = _due(connection, params, now)
        counted = [(day, list(daily_figures.count(connection, day))) for day in due]
        machines = _machines(connection, due[-1], params) if due else {}
    if not due:
        return
    with writing(engine) as connection:
        for day, figures in counted:
            enter(connection, LOG, day, figures, params, now)
        _tell(connection, MACHINE, machines, now)
        _tell(connection, SILENT, _silent(connection, due[-1], params), now)
        daily_figures.expire(connection, due[-1] - timedelta(days=params.keep_days))


def enter_archives(
    engine: sa.Engine, counts: Mapping[date, Mapping[str, int]], params: QualityParams, now: datetime
) -> None:
    """Keep what was counted of days of a player's archives, and tell what is unusual.

    `sessions` is a count; all others are shares of the day's sessions.
    """
    with writing(engine) as connection:
        for day, found in sorted(counts.items()):
            sessions = found.get("sessions", 0)
            shares = [
                Figure(name, "", Taken(min(value, sessions), sessions))
                for name, value in sorted(found.items())
                if name != "sessions" and sessions
            ]
            enter(connection, PLAYER, day, [Figure("sessions", "", Taken(sessions)), *shares], params, now)


def enter(
    connection: sa.Connection, origin: str, day: date, figures: Sequence[Figure], params: QualityParams, now: datetime
) -> None:
    """Keep the figures of a day, in place of those that it had, and tell the unusual ones; those of an earlier day are no news.

    A count that the days before had and this one lacks is 0 on it.
    """
    given = {(one.name, one.subject) for one in figures}
    before = daily_figures.read(connection, origin, day - timedelta(days=params.usual_days), day - timedelta(days=1))
    lacking = [
        Figure(*key, Taken(0))
        for key, taken in before.items()
        if key not in given and all(one.out_of is None for one in taken.values())
    ]
    daily_figures.keep(connection, origin, day, [*figures, *lacking])
    if day < (daily_figures.last_day(connection, origin) or day):
        return
    judged = series(connection, origin, day, 1, params)
    _tell(connection, UNUSUAL, {f"{origin} {one.name} {one.subject}".strip(): _said(one) for one in judged}, now)


def series(connection: sa.Connection, origin: str, last: date, length: int, params: QualityParams) -> list[Series]:
    """The figures of the days up to `last`, with what was usual of each; single sources are left out."""
    shown = daily_figures.days(last - timedelta(days=length - 1), last)
    found = daily_figures.read(connection, origin, shown[0] - timedelta(days=params.usual_days), last)
    return [
        Series(
            origin=origin,
            name=name,
            subject=subject,
            days=tuple(shown),
            taken=tuple(taken.get(day) for day in shown),
            ranges=tuple(_usual(taken, day, params) for day in shown),
        )
        for (name, subject), taken in found.items()
    ]


def _usual(taken: Mapping[date, Taken], day: date, params: QualityParams) -> Range | None:
    today = taken.get(day)
    past = [taken.get(day - timedelta(days=back)) for back in range(params.usual_days, 0, -1)]
    if today is None or sum(one is not None for one in past) < params.learned_after:
        return None
    return usual.usual_range(past, today, params.deviations)


def _said(one: Series) -> str | None:
    """What is unusual of the last day, in a sentence; None if nothing is."""
    taken, within = one.taken[-1], one.ranges[-1]
    if taken is None or within is None or within.holds(taken.value):
        return None
    share = taken.out_of is not None
    where = "too low" if taken.value < within.low else "too high"
    return (
        f"{one.meaning}: {told(taken.value, share)} on {one.days[-1]} is {where}; "
        f"usual is {told(within.low, share)} to {told(within.high, share)}."
    )


def told(value: float, share: bool) -> str:
    """A figure in words."""
    return f"{100 * value:.3g} %" if share else f"{value:,.0f}"


def _due(connection: sa.Connection, params: QualityParams, now: datetime) -> list[date]:
    """Days that are over and not counted; in a new installation from that of its first unsealed event on."""
    counted = daily_figures.last_day(connection, LOG)
    first = daily_figures.first_day(connection) if counted is None else counted + timedelta(days=1)
    if first is None:
        return []
    today = now.astimezone(UTC).date()
    return daily_figures.days(max(first, today - timedelta(days=params.usual_days)), today - timedelta(days=1))


def _machines(connection: sa.Connection, day: date, params: QualityParams) -> dict[str, str | None]:
    """Accounts that no hand moves, with the sentence to tell; None for those that were told of and are so no more."""
    found: dict[str, str | None] = dict.fromkeys(_subjects(connection, MACHINE))
    for user, times in daily_figures.acts(connection, day, params.machine_acts):
        why = usual.machine_like(np.array(times, np.int64))
        if why is not None:
            found[user] = (
                f"{user} acts like a machine: {len(times):,} acts on {day}, and {why}. "
                "To learn nothing from it, name it in [train] robots."
            )
    return found


def _silent(connection: sa.Connection, day: date, params: QualityParams) -> dict[str, str | None]:
    """Sources that ought to have given something, with the sentence to tell; None for those that gave something or are gone.

    Who was read once alone, or is paused, isn't silent.
    """
    days = daily_figures.days(day - timedelta(days=params.usual_days), day)
    active = _active(connection)
    found: dict[str, str | None] = {subject: None for subject in _subjects(connection, SILENT) if subject not in active}
    for (_, source), taken in daily_figures.read(connection, LOG, days[0], day, of_sources=True).items():
        given = [taken[one].count if one in taken else 0.0 for one in days]
        quiet = (day - max(taken)).days
        if quiet < SILENT_DAYS or source not in active:
            found[source] = None
        elif sum(number > 0 for number in given) >= OFTEN and usual.missed(given) >= params.missed_items:
            found[source] = f"{active[source]} has given nothing for {quiet} days; look whether it is still read."
    return found


def _active(connection: sa.Connection) -> dict[str, str]:
    """Names of the sources that are read, by id."""
    table = database.sources
    rows = connection.execute(sa.select(table.c.id, table.c.title).where(table.c.status == "active"))
    return {id: title or id for id, title in rows}


def _subjects(connection: sa.Connection, kind: str) -> list[str]:
    return [one.subject for one in alerts.list_alerts(connection) if one.kind == kind]


def _tell(connection: sa.Connection, kind: str, found: Mapping[str, str | None], now: datetime) -> None:
    """Start or end the alert about each subject; None ends it."""
    for subject, text in found.items():
        if text is None:
            alerts.end(connection, kind, subject, now)
        elif alerts.start(connection, kind, subject, text, now):
            log.warning("%s", text)
