"""What the figures are, in SQL: tables on the views of `log.attach`, each on those before it.

Times are milliseconds since 1970, days and weeks their numbers: a day from 1970-01-01 on, a week from the Monday before it.
`person` is who stands behind a user key, after aliases are resolved. Of every figure there are sums by `bucket`, a part of the
people drawn by their keys: from them come its value and its interval, however many people there are.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from palate.watching.embedded import quoted

DAY = 86_400_000
"""Milliseconds."""

BUCKETS = 256

Grain = Literal["day", "week", "all"]

NUMBER: dict[Grain, str] = {"day": "day", "week": "(day + 3) // 7", "all": "0"}
"""Number of the period in which a `day` lies."""


@dataclass(frozen=True)
class Rules:
    """What counts, and from when to when."""

    first_day: int
    end: int
    """Milliseconds: nothing from here on counts; periods that end later aren't complete."""
    viewed: tuple[str, ...]
    """Types of events that say that an item was seen."""
    liked: tuple[str, ...]
    fractions: tuple[str, ...]
    """Types whose value is the part of the item's duration that was watched."""
    dwells: tuple[str, ...]
    """Types whose value is seconds."""
    longest_dwell: int
    """Seconds of one event."""
    unasked: tuple[str, ...]
    """Surfaces on which `shown` doesn't say that the person was there."""
    visit_gap: int
    """Milliseconds without an event that end a visit."""
    personal_items: int
    """Items a person has viewed before there can be a list of their own."""
    most_events: int | None
    """Events of a day, `shown` not counted, above which an account is a machine."""

    @property
    def last_day(self) -> int:
        """The last complete day."""
        return self.end // DAY - 1

    def last(self, grain: Grain) -> int:
        """The last complete period."""
        return {"day": self.last_day, "week": (self.last_day + 4) // 7 - 1, "all": -1}[grain]

    def first(self, grain: Grain) -> int:
        """The first period of the report, which begins with it."""
        return {"day": self.first_day, "week": (self.first_day + 3) // 7, "all": 0}[grain]


def tables(rules: Rules) -> list[tuple[str, str]]:
    """Names and queries of the tables from the log to sums by bucket, in the order in which they are made."""
    return [*_events(rules), *_people(rules), *_visits(rules), *_periods(rules)]


def _events(rules: Rules) -> list[tuple[str, str]]:
    seconds = f"""CASE WHEN log.type IN ({_listed(rules.fractions)})
                  THEN least(greatest(log.value, 0), 1) * coalesce(items.duration, 0)
                  WHEN log.type IN ({_listed(rules.dwells)}) THEN least(greatest(log.value, 0), {rules.longest_dwell})
                  END"""
    return [
        (
            "everything",
            f"""SELECT coalesce(aliases.person, log.user_key) AS person, log.item_key AS item, log.time,
                    CAST(log.time // {DAY} AS INTEGER) AS day, log.type = 'shown' AS shown,
                    log.type <> 'shown' OR coalesce(log.surface, '') NOT IN ({_listed(rules.unasked)}) AS present,
                    log.type IN ({_listed(rules.viewed)}) AS viewed, log.type IN ({_listed(rules.liked)}) AS liked,
                    CAST(coalesce({seconds}, 0) AS FLOAT) AS seconds, log.variant
                FROM log LEFT JOIN aliases ON aliases.alias = log.user_key LEFT JOIN items ON items.item = log.item_key
                WHERE log.time < {rules.end}""",
        ),
        (
            "machines",
            f"""SELECT DISTINCT person FROM (SELECT person FROM everything WHERE NOT shown GROUP BY person, day
                HAVING count(*) > {rules.most_events})"""
            if rules.most_events is not None
            else "SELECT CAST(NULL AS BIGINT) AS person WHERE FALSE",
        ),
        ("acts", "SELECT everything.* FROM everything ANTI JOIN machines USING (person)"),
    ]


def _people(rules: Rules) -> list[tuple[str, str]]:
    """Each person's part, variant (in the report's time; `several` where that changed) and first day."""
    recent = f"FILTER (day >= {rules.first_day})"
    return [
        (
            "people",
            f"""SELECT person, CAST(hash(person) % {BUCKETS} AS INTEGER) AS bucket, min(day) FILTER (present) AS first_day,
                    CASE WHEN min(variant) {recent} < max(variant) {recent} THEN 'several'
                         ELSE coalesce(min(variant) {recent}, 'none') END AS variant
                FROM acts GROUP BY person""",
        ),
        ("first_views", "SELECT person, item, min(time) AS time FROM acts WHERE viewed GROUP BY person, item"),
        (
            "personal",
            f"""SELECT person, CAST(time // {DAY} AS INTEGER) AS day
                FROM (SELECT person, time, row_number() OVER (PARTITION BY person ORDER BY time) AS place FROM first_views)
                WHERE place = {rules.personal_items}""",
        ),
    ]


def _visits(rules: Rules) -> list[tuple[str, str]]:
    """Runs of a person's events. Those of one millisecond are of one visit: the sum takes all of its moment at once. However many
    events say that an item was viewed, it is one view of that visit.
    """
    return [
        (
            "visits",
            f"""SELECT person, CAST(min(time) // {DAY} AS INTEGER) AS day, count(viewed) AS views
                FROM (SELECT person, number, min(time) AS time, viewed
                      FROM (SELECT person, time, viewed, sum(begins) OVER (PARTITION BY person ORDER BY time) AS number
                            FROM (SELECT person, time, CASE WHEN viewed THEN item END AS viewed,
                                      CASE WHEN time - lag(time) OVER (PARTITION BY person ORDER BY time)
                                           <= {rules.visit_gap} THEN 0 ELSE 1 END AS begins
                                  FROM acts WHERE present AND day >= {rules.first_day - 1}))
                      GROUP BY person, number, viewed)
                GROUP BY person, number HAVING min(time) >= {rules.first_day * DAY}""",
        ),
    ]


def _periods(rules: Rules) -> list[tuple[str, str]]:
    found = []
    for grain, number in NUMBER.items():
        found += [
            (
                f"active_{grain}",
                f"""SELECT person, {number} AS period, count(*) FILTER (liked) AS likes, sum(seconds) / 3600 AS hours
                    FROM acts WHERE present AND day >= {rules.first_day} GROUP BY person, period""",
            ),
            (
                f"visits_{grain}",
                f"""SELECT person, {number} AS period, count(*) AS visits, count(*) FILTER (views = 0) AS empty_visits,
                        sum(views) AS views FROM visits GROUP BY person, period""",
            ),
        ]
    return found


SUMS = (
    "people", "retained", "followed", "personal", "visits", "empty_visits", "views", "likes", "hours",
)  # fmt: skip
"""What is added up for each period, variant and bucket; `followed` are the people of periods whose next one is complete."""


def sums(grain: Grain, rules: Rules) -> str:
    """Rows (period, variant, bucket, SUMS); a variant of NULL is everybody."""
    number = NUMBER[grain].replace("day", "personal.day")
    personal = "personal.day IS NOT NULL" if grain == "all" else f"{number} <= active.period"
    return f"""
        SELECT active.period, people.variant, people.bucket, count(*), count(later.person),
            count(*) FILTER (active.period < {rules.last(grain)}), count(*) FILTER ({personal}),
            coalesce(sum(visits), 0), coalesce(sum(empty_visits), 0), coalesce(sum(views), 0),
            sum(active.likes), sum(active.hours)
        FROM active_{grain} AS active JOIN people USING (person)
            LEFT JOIN active_{grain} AS later ON later.person = active.person AND later.period = active.period + 1
                AND later.period <= {rules.last(grain)}
            LEFT JOIN visits_{grain} AS visited ON visited.person = active.person AND visited.period = active.period
            LEFT JOIN personal ON personal.person = active.person
        GROUP BY GROUPING SETS ((active.period, people.bucket), (active.period, people.variant, people.bucket))"""


def cohorts(rules: Rules) -> str:
    """Rows (first week, variant, bucket, weeks since, people active then), of people whose first week is in the report."""
    first = "(people.first_day + 3) // 7"
    return f"""
        SELECT {first} AS first_week, people.variant, people.bucket, active_week.period - {first} AS age, count(*)
        FROM active_week JOIN people USING (person) WHERE people.first_day >= {rules.first_day}
        GROUP BY GROUPING SETS ((first_week, people.bucket, age), (first_week, people.variant, people.bucket, age))"""


def catalogue(grain: Grain, rules: Rules) -> str:
    """Rows (period, variant, items shown, items viewed): of those that are in the catalogue. A variant of NULL is everybody."""
    return f"""
        SELECT period, variant, count(DISTINCT item) FILTER (shown), count(DISTINCT item) FILTER (viewed)
        FROM (SELECT {NUMBER[grain]} AS period, people.variant, acts.item, bool_or(shown) AS shown, bool_or(viewed) AS viewed
              FROM acts JOIN people USING (person) SEMI JOIN items ON items.item = acts.item
              WHERE day >= {rules.first_day} AND (shown OR viewed) GROUP BY period, people.variant, acts.item)
        GROUP BY GROUPING SETS ((period), (period, variant))"""


ITEMS_BY_DAY = f"""
    SELECT CAST(least(came, first) // {DAY} AS INTEGER) AS day, count(*)
    FROM items LEFT JOIN (SELECT item, min(time) AS first FROM acts GROUP BY item) AS used USING (item) GROUP BY day"""
"""Rows (day, items that came then): with their publication, their arrival or their first event, whichever was first."""


def _listed(names: Collection[str]) -> str:
    return ", ".join(quoted(name) for name in names) or "NULL"
