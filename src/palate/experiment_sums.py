"""What the people of an experiment did: sums of each person over its days, read from the log once, day by day.

A person belongs to it from the moment on when they were first shown something under one of its variants: who was never served
can't have been moved. All that they do from then on counts, wherever they do it. People who were shown more than one
variant (two ids that were joined later) are left out, and counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import database
from palate.database import reading
from palate.domain import to_milliseconds
from palate.experiment_log import DAY, Log, Mask, Numbers, Part, chosen, date_of, of_names
from palate.experiments import ExperimentParams, Stored, variant_in
from palate.interactions import InteractionParams
from palate.report_params import ReportParams
from palate.vocabulary import Vocabulary, vocabulary

SUMS = (
    "people", "shown", "views", "likes", "opens", "comments", "visits", "empty_visits", "hours", "followed_days", "kept_days",
    "followed_weeks", "kept_weeks",
)  # fmt: skip
"""What is known of each person at each look; `people` is 1."""

MINUTE = 60_000
"""Milliseconds."""

SEVERAL = -2
"""Stands for the variant of people who were shown more than one."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What counts."""

    viewed: frozenset[str]
    liked: frozenset[str]
    opened: frozenset[str]
    commented: frozenset[str]
    fractions: frozenset[str]
    dwells: frozenset[str]
    longest_dwell: float
    """Seconds."""
    unasked: frozenset[str]
    """Surfaces on which `shown` doesn't say that the person was there."""
    visit_gap: int
    """Milliseconds."""
    most_events: int | None
    """Of a day, `shown` not counted, above which an account is a machine."""


def rules_of(params: ExperimentParams, report: ReportParams, types: InteractionParams) -> Rules:
    """What counts, by the settings: the same as in `palate report`."""
    return Rules(
        viewed=frozenset(name for name, type in types.types.items() if type.viewed),
        liked=frozenset(report.liked),
        opened=frozenset(params.opened),
        commented=frozenset(params.commented),
        fractions=frozenset(report.fractions),
        dwells=frozenset(report.dwells),
        longest_dwell=60.0 * report.longest_dwell_minutes,
        unasked=frozenset(report.unasked_surfaces),
        visit_gap=MINUTE * report.visit_minutes,
        most_events=types.max_events_per_day,
    )


@dataclass(frozen=True, eq=False)
class Day:
    """What was known at the end of a day, of everybody who had been shown a variant by then."""

    day: str
    complete: bool
    variant: Numbers
    """(people,) place of each person's variant in the experiment."""
    sums: NDArray[np.float64]
    """(people, SUMS)."""
    several: int
    """People who are left out since they were shown more than one variant."""
    machines: int
    """Accounts that are left out since no person does so much in a day."""
    reached: tuple[int, ...]
    """Items that were shown to anybody, by variant."""
    catalogue: int
    """Live items that had come by then."""


def by_day(
    engine: sa.Engine, folder: Path, stored: Stored, rules: Rules, now: datetime, after: str = ""
) -> Iterator[Day]:
    """The sums at the end of each day (UTC) from the experiment's start to its stop or `now`, later than the day `after`.

    `folder` holds the sealed days. Raises DataFolderError when one of their files is missing or broken.
    """
    start, end = to_milliseconds(stored.started), to_milliseconds(min(now, stored.stopped or now))
    with reading(engine) as connection:  # one state for all of it: what is sealed meanwhile is still where it was
        log = Log(connection, folder, start, end)
        exposed = _exposed(log, stored)
        if not len(exposed.people):
            return
        tally = _Tally(exposed, rules, start, end, *_items(connection))
        for number, parts in _by_number(map(tally.relevant, log.parts()), start):
            yield from _days(tally, number, after)
            tally.add(parts)
        yield from _days(tally, (end - 1) // DAY + 1, after)


def _days(tally: _Tally, number: int, after: str) -> Iterator[Day]:
    """The days before this one that were not told yet."""
    for day in range(tally.told + 1, number):
        tally.told = day
        if date_of(day) > after:
            yield tally.day(day)


def _by_number(parts: Iterator[Part], start: int) -> Iterator[tuple[int, list[Part]]]:
    """The events of each day on which the log received them; days follow one another, but for an hour around midnight."""
    held: dict[int, list[Part]] = {}
    for part in parts:
        if not len(part.user):
            continue
        numbers = np.maximum(part.received, start) // DAY
        for number in np.unique(numbers).tolist():
            held.setdefault(number, []).append(chosen(part, numbers == number))
        newest = int(numbers.max())
        for number in sorted(number for number in held if number < newest - 1):
            yield number, held.pop(number)
    yield from sorted(held.items())


# --- who takes part -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Exposed:
    """Everybody who was shown a variant, ascending by key."""

    people: Vocabulary
    variant: Numbers
    """Its place in the experiment, SEVERAL for people who were shown more than one."""
    since: Numbers
    """Milliseconds: the first time."""
    day: Numbers
    """Number of the day on which the log received that."""
    variants: int


def _exposed(log: Log, stored: Stored) -> _Exposed:
    place = {one.name: number for number, one in enumerate(stored.experiment.variants)}
    found: list[tuple[Numbers, ...]] = []
    for part in log.parts(named_only=True):
        named = [place.get(variant_in(text, stored.experiment.name) or "", -1) for text in part.variants]
        variant = np.array(named, np.int64)[part.variant]
        rows = (variant >= 0) & of_names(part.types, part.type, {"shown"})
        found.append((part.user[rows], variant[rows], part.time[rows], part.received[rows] // DAY))
    user, variant, time, day = (np.concatenate([piece[at] for piece in found] or [_none()]) for at in range(4))
    people = vocabulary(user)
    places, n = people.rows(user), len(people)
    low, high, since, first = (np.full(n, fill, np.int64) for fill in (2**62, -1, 2**62, 2**62))
    np.minimum.at(low, places, variant)
    np.maximum.at(high, places, variant)
    np.minimum.at(since, places, time)
    np.minimum.at(first, places, day)
    return _Exposed(people, np.where(low == high, low, SEVERAL), since, first, len(place))


def _none() -> Numbers:
    return np.zeros(0, np.int64)


# --- adding up ------------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Tally:
    """Sums that grow day by day."""

    exposed: _Exposed
    rules: Rules
    start: int
    end: int
    durations: tuple[Vocabulary, NDArray[np.float64]]
    """Keys and seconds of the items that last."""
    came: Numbers
    """When each live item came, ascending."""
    told: int = field(init=False)
    """Number of the last day that was told of."""

    def __post_init__(self) -> None:
        n = len(self.exposed.people)
        self.first_day = self.start // DAY
        self.told = self.first_day - 1
        self._sums = np.zeros((n, len(SUMS)))
        self._active = np.zeros((n, (self.end - 1) // DAY - self.first_day + 1), bool)
        self._last_time = np.full(n, -(2**62), np.int64)
        self._last_viewed = np.ones(n, bool)
        self._machine = np.zeros(n, bool)
        self._open = _none()
        """Pairs of a person and an item that was viewed in a visit which may go on."""
        self._shown: list[Numbers] = [_none() for _ in range(self.exposed.variants)]

    def relevant(self, part: Part) -> Part:
        """What counts of it, with rows of people for their keys."""
        rows = self.exposed.people.rows(part.user)
        counts = (rows >= 0) & (part.time >= self.exposed.since[rows])
        return chosen(part._replace(user=rows), counts)

    def add(self, parts: list[Part]) -> None:
        """The relevant events that the log received on a day."""
        for part in parts:
            self._count(part)
        self._find_machines(parts)
        self._visit(parts)

    def day(self, number: int) -> Day:
        """What was known at its end."""
        here = self.exposed.day <= number
        alone = self.exposed.variant >= 0
        kept = here & alone & ~self._machine
        complete = (number + 1) * DAY <= self.end
        sums = self._sums[kept]
        sums[:, SUMS.index("people")] = 1
        last = number - self.first_day + (1 if complete else 0)  # days that are over
        active = self._active[kept, :last]
        weeks = _by_week(active)
        for name, matrix in (("days", active), ("weeks", weeks)):
            before, after = matrix[:, :-1], matrix[:, 1:]
            sums[:, SUMS.index(f"followed_{name}")] = before.sum(axis=1)
            sums[:, SUMS.index(f"kept_{name}")] = (before & after).sum(axis=1)
        return Day(
            day=date_of(number),
            complete=complete,
            variant=self.exposed.variant[kept],
            sums=sums,
            several=int(np.count_nonzero(here & ~alone)),
            machines=int(np.count_nonzero(here & alone & self._machine)),
            reached=tuple(len(items) for items in self._shown),
            catalogue=int(np.searchsorted(self.came, min((number + 1) * DAY, self.end))),
        )

    def _count(self, part: Part) -> None:
        rows, rules, n = part.user, self.rules, len(self._sums)
        shown = of_names(part.types, part.type, {"shown"})
        kinds = {"likes": rules.liked, "opens": rules.opened, "comments": rules.commented}
        masks = {"shown": shown} | {name: of_names(part.types, part.type, types) for name, types in kinds.items()}
        for name, mask in masks.items():
            self._sums[:, SUMS.index(name)] += np.bincount(rows[mask], minlength=n)
        self._sums[:, SUMS.index("hours")] += np.bincount(rows, self._seconds(part) / 3600, n)
        present = self._present(part)
        day = np.clip(part.time // DAY - self.first_day, 0, self._active.shape[1] - 1)
        self._active[rows[present], day[present]] = True
        variant = self.exposed.variant[rows]
        for number in range(self.exposed.variants):
            mine = np.unique(part.item[shown & (variant == number)])
            self._shown[number] = np.union1d(self._shown[number], mine)

    def _seconds(self, part: Part) -> NDArray[np.float64]:
        keys, durations = self.durations
        places = keys.rows(part.item)
        lasts = np.where(places >= 0, np.append(durations, 0.0)[places], 0.0)
        value = np.nan_to_num(part.value, nan=0.0)
        watched = np.clip(value, 0, 1) * lasts * of_names(part.types, part.type, self.rules.fractions)
        dwelt = np.clip(value, 0, self.rules.longest_dwell) * of_names(part.types, part.type, self.rules.dwells)
        return np.asarray(watched + dwelt)

    def _present(self, part: Part) -> Mask:
        """Which events say that the person was there."""
        unasked = of_names(part.surfaces, part.surface, self.rules.unasked)
        return ~(unasked & of_names(part.types, part.type, {"shown"}))

    def _find_machines(self, parts: list[Part]) -> None:
        if self.rules.most_events is None:
            return
        acts = np.zeros(len(self._sums), np.int64)
        for part in parts:
            did = ~of_names(part.types, part.type, {"shown"})
            acts += np.bincount(part.user[did], minlength=len(acts))
        self._machine |= acts > self.rules.most_events

    def _visit(self, parts: list[Part]) -> None:
        """Runs of a person's events without a long pause; one that goes on from the day before is still the same visit."""
        row, time, viewed, item = self._presence(parts)
        if not len(row):
            return
        first = np.append(True, row[1:] != row[:-1])
        pause = np.diff(time, prepend=0)
        pause[first] = time[first] - self._last_time[row[first]]
        begins = pause > self.rules.visit_gap
        run = np.cumsum(begins | first) - 1
        starts = np.flatnonzero(begins | first)
        saw = np.bincount(run, viewed) > 0
        whose, goes_on, n = row[starts], ~begins[starts], len(self._sums)
        filled = goes_on & saw & ~self._last_viewed[whose]
        self._sums[:, SUMS.index("visits")] += np.bincount(whose[~goes_on], minlength=n)
        self._sums[:, SUMS.index("empty_visits")] += np.bincount(whose[~goes_on & ~saw], minlength=n)
        self._sums[:, SUMS.index("empty_visits")] -= np.bincount(whose[filled], minlength=n)
        last = np.append(whose[1:] != whose[:-1], True)
        ends = np.append(starts[1:], len(row))[last] - 1
        self._last_viewed[whose[last]] = saw[last] | (goes_on[last] & self._last_viewed[whose[last]])
        self._last_time[whose[last]] = np.maximum(self._last_time[whose[last]], time[ends])
        self._look(run[viewed], item[viewed], whose, goes_on, last)

    def _look(self, run: Numbers, item: Numbers, whose: Numbers, goes_on: Mask, last: Mask) -> None:
        """What was viewed counts once in a visit, however many events say so.

        Of each run: whose it is, whether it goes on from the day before, and whether it is the person's last.
        """
        run, item = _split(np.unique(_pairs(run, item)))
        looks = _pairs(whose[run], item)
        fresh = ~(goes_on[run] & np.isin(looks, self._open))
        self._sums[:, SUMS.index("views")] += np.bincount(whose[run[fresh]], minlength=len(self._sums))
        still = np.isin(_split(self._open)[0], whose[goes_on & last])
        self._open = np.concatenate([self._open[still], looks[fresh & last[run]]])

    def _presence(self, parts: list[Part]) -> tuple[Numbers, Numbers, Mask, Numbers]:
        """Person, time, whether it is a view, and item, of each event that says that somebody was there; by person and time."""
        found = []
        for part in parts:
            present = self._present(part)
            viewed = of_names(part.types, part.type, self.rules.viewed)
            found.append((part.user[present], part.time[present], viewed[present], part.item[present]))
        row, time, item = (np.concatenate([piece[at] for piece in found]) for at in (0, 1, 3))
        viewed = np.concatenate([piece[2] for piece in found])
        order = np.lexsort((time, row))
        return row[order], time[order], viewed[order], item[order]


_ITEM_BITS = 36
"""Of a pair in one number."""


def _pairs(of: Numbers, item: Numbers) -> Numbers:
    """Each with its item, as one number."""
    return np.asarray(of << _ITEM_BITS | item)


def _split(pairs: Numbers) -> tuple[Numbers, Numbers]:
    """The two parts of such numbers."""
    return pairs >> _ITEM_BITS, pairs & (1 << _ITEM_BITS) - 1


def _by_week(active: Mask) -> Mask:
    """Whole weeks from the first day on in which a person was active."""
    weeks = active.shape[1] // 7
    return np.asarray(active[:, : 7 * weeks].reshape(len(active), weeks, 7).any(axis=2), bool)


def _items(connection: sa.Connection) -> tuple[tuple[Vocabulary, NDArray[np.float64]], Numbers]:
    """Keys and seconds of the items that last, and when each live item came (ascending)."""
    table = database.items.c
    lasting = sa.select(table.key, table.duration).where(table.duration.is_not(None)).order_by(table.key)
    rows = database.plain_rows(connection.execute(lasting))
    came = database.plain_rows(connection.execute(sa.select(table.received).where(table.state == "live")))
    keys = np.array([row[0] for row in rows], np.int64)
    durations = np.array([row[1] for row in rows], np.float64)
    return (Vocabulary(keys), durations), np.sort(np.array([row[0] for row in came], np.int64))
