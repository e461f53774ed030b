"""What a session and its ticks say was watched: the rules, in SQL that keeps to what DuckDB and Spark have in common.

All times are whole milliseconds since 1970 and all sums are of whole numbers, so that no engine or order changes a bit.
A day's views come of the staged tables `sessions` (session, viewer, item, start, device, duration) and `ticks` (session, time).
"""

from __future__ import annotations

from typing import Annotated

import msgspec

DAY = 86_400_000
"""Milliseconds."""
MONTH = 30
"""Days in which a person's views are counted."""

SESSION_COLUMNS = ("session", "user", "video", "start", "device", "duration")
"""Of an archive of sessions; device and duration (seconds of the whole video) may be missing."""
TICK_COLUMNS = ("session", "time")
OPTIONAL = frozenset({"device", "duration"})


class WatchParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How sessions and ticks of a player become views."""

    tick_seconds: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 60
    """What a tick says was watched when it comes after a pause: the player's own interval, or a little more."""
    longest_gap: Annotated[int, msgspec.Meta(ge=1, le=7200)] = 90
    """Seconds between two ticks up to which all of it was watched; a longer gap is a pause."""
    restart_minutes: Annotated[int, msgspec.Meta(ge=0, le=1440)] = 30
    """A session of the same person and video that begins within this time after the last goes on with its view: a player that
    crashed, or a break."""
    longest_hours: Annotated[int, msgspec.Meta(ge=1, le=24)] = 8
    """A session in which more was watched than this is a player that nobody turned off: it counts as no view."""
    skew_seconds: Annotated[int, msgspec.Meta(ge=0, le=3600)] = 60
    """How far before its session's start a tick may lie, since clocks differ."""
    shortest_seconds: Annotated[int, msgspec.Meta(ge=0, le=3600)] = 5
    """What is watched for less is no view."""
    most_views: Annotated[int, msgspec.Meta(ge=1)] = 300
    """Views a person can have in 30 days; who has more is kept out of the log: a shop window, a robot, a shared account."""
    latest_days: Annotated[int, msgspec.Meta(ge=0, le=400)] = 40
    """How many days before its archive's date a row may lie; older ones, and those more than a day after, have a wrong clock."""
    settled_days: Annotated[int, msgspec.Meta(ge=0, le=400)] = 2
    """A day enters the event log when an archive of so many days later is there: what comes still later is in Parquet alone."""


COUNTS = {
    "sessions": "sessions that began on the day, each once",
    "sessions_twice": "rows of a session that was there already",
    "sessions_without_ticks": "sessions of which no tick came",
    "ticks": "ticks of these sessions, each once",
    "ticks_twice": "rows of a tick that was there already",
    "ticks_outside": "ticks before their session, or more than a day after its start",
    "ticks_without_session": "ticks of the day whose session never came",
    "endless": "sessions longer than a person watches",
    "restarts": "sessions that went on with a view",
    "too_short": "views too short to be one",
    "without_duration": "views of videos whose duration nobody told",
    "over_duration": "views longer than their video",
    "two_durations": "videos whose sessions tell durations more than half apart: an id that changed its meaning",
    "views": "views that are kept",
    "viewers": "people who have one",
    "milliseconds": "milliseconds watched in them",
}
"""What is counted for each day, and what it means."""


USED_AGAIN = frozenset({"session_rows", "day_sessions", "played", "session_plays", "whole_views", "day_views"})
"""Tables of a day that more than one query reads: engines keep these once they were computed, and no others."""


def day_tables(params: WatchParams, day: int) -> list[tuple[str, str]]:
    """Names and queries of the tables between the staged ones and a day's views, each on those before it.

    `day` is the number of the day since 1970.
    """
    return [*_sessions_and_ticks(params, day), *_plays(params), *_views(params)]


def _sessions_and_ticks(params: WatchParams, day: int) -> list[tuple[str, str]]:
    """What the day has, each once."""
    start, end = day * DAY, (day + 1) * DAY
    return [
        (
            "session_rows",
            f"""SELECT *, row_number() OVER (PARTITION BY session
                    ORDER BY start, viewer, item, device NULLS LAST, duration NULLS LAST) AS place
                FROM sessions WHERE start >= {start} AND start < {end}""",
        ),
        ("day_sessions", "SELECT session, viewer, item, start, device, duration FROM session_rows WHERE place = 1"),
        (
            "tick_rows",
            f"""SELECT day_sessions.session, day_sessions.start, ticks.time,
                    ticks.time >= day_sessions.start - {1000 * params.skew_seconds}
                        AND ticks.time < day_sessions.start + {DAY} AS inside
                FROM ticks JOIN day_sessions ON ticks.session = day_sessions.session""",
        ),
    ]


def _plays(params: WatchParams) -> list[tuple[str, str]]:
    """How much of each session was watched, and how long each video is. A tick told twice is a gap of nothing."""
    return [
        (
            "steps",
            """SELECT session, start, time, inside, lag(time) OVER (PARTITION BY session, inside ORDER BY time) AS before
               FROM tick_rows""",
        ),
        (
            "gaps",
            """SELECT session, time, inside, before IS NULL OR before < time AS fresh,
                    greatest(0, time - coalesce(before, start)) AS gap
               FROM steps""",
        ),
        (
            "played",
            f"""SELECT session, max(CASE WHEN inside THEN time END) AS ended, CAST(count(*) AS BIGINT) AS rows_told,
                    CAST(sum(CASE WHEN inside THEN 1 ELSE 0 END) AS BIGINT) AS inside_told,
                    CAST(sum(CASE WHEN inside AND fresh THEN 1 ELSE 0 END) AS BIGINT) AS ticks,
                    CAST(sum(CASE WHEN NOT inside THEN 0 WHEN gap <= {1000 * params.longest_gap} THEN gap
                        ELSE {1000 * params.tick_seconds} END) AS BIGINT) AS watched
                FROM gaps GROUP BY session""",
        ),
        (
            "session_plays",
            f"""SELECT day_sessions.*, coalesce(played.watched, 0) AS watched, coalesce(played.ticks, 0) AS ticks,
                    greatest(start, coalesce(played.ended, start)) AS ended,
                    coalesce(played.watched, 0) > {params.longest_hours * 3_600_000} AS endless
                FROM day_sessions LEFT JOIN played ON day_sessions.session = played.session""",
        ),
        (
            "durations",
            """SELECT item, max(duration) AS longest, min(duration) AS shortest
               FROM day_sessions WHERE duration > 0 GROUP BY item""",
        ),
    ]


def _views(params: WatchParams) -> list[tuple[str, str]]:
    """Sessions that go on with one another as one view."""
    return [
        (
            "chained",
            """SELECT *, max(ended) OVER (PARTITION BY viewer, item ORDER BY start, session
                    ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
               FROM session_plays WHERE NOT endless""",
        ),
        (
            "numbered",
            f"""SELECT *, sum(CASE WHEN start - before <= {60_000 * params.restart_minutes} THEN 0 ELSE 1 END) OVER (
                    PARTITION BY viewer, item ORDER BY start, session ROWS UNBOUNDED PRECEDING) AS number
                FROM chained""",
        ),
        (
            "whole_views",
            """SELECT viewer, numbered.item, number, min(start) AS start, CAST(sum(watched) AS BIGINT) AS watched,
                    CAST(count(*) AS BIGINT) AS sessions, min(device) AS device, coalesce(max(duration), max(longest)) AS duration
               FROM numbered LEFT JOIN durations ON numbered.item = durations.item GROUP BY viewer, numbered.item, number""",
        ),
        (
            "day_views",
            f"""SELECT viewer AS "user", item, 'watch' AS type,
                    least(1e0, CAST(watched AS DOUBLE) / 1e3 / duration) AS value, start AS time,
                    CAST(watched AS DOUBLE) / 1e3 AS seconds, duration, sessions, device
                FROM whole_views WHERE watched >= {1000 * params.shortest_seconds} AND duration > 0""",
        ),
    ]


def day_counts(params: WatchParams, day: int) -> str:
    """The query of a day's counts, one row with the columns of `COUNTS`, on the tables of `day_tables`."""
    short = 1000 * params.shortest_seconds
    start, end = day * DAY, (day + 1) * DAY
    parts = {
        "sessions": "FROM day_sessions",
        "sessions_twice": "FROM session_rows WHERE place > 1",
        "sessions_without_ticks": "FROM session_plays WHERE ticks = 0",
        "ticks_without_session": f"""FROM ticks WHERE ticks.time >= {start} AND ticks.time < {end}
                                     AND NOT EXISTS (SELECT 1 FROM sessions WHERE sessions.session = ticks.session)""",
        "endless": "FROM session_plays WHERE endless",
        "too_short": f"FROM whole_views WHERE watched < {short}",
        "without_duration": f"FROM whole_views WHERE watched >= {short} AND NOT coalesce(duration, 0) > 0",
        "over_duration": f"FROM whole_views WHERE watched >= {short} AND watched > 1.05e3 * duration",
        "two_durations": "FROM durations WHERE shortest < 5e-1 * longest",
        "views": "FROM day_views",
    }
    counted = [f"(SELECT count(*) {source}) AS {name}" for name, source in parts.items()]
    counted += [
        "(SELECT coalesce(sum(ticks), 0) FROM played) AS ticks",
        "(SELECT coalesce(sum(inside_told - ticks), 0) FROM played) AS ticks_twice",
        "(SELECT coalesce(sum(rows_told - inside_told), 0) FROM played) AS ticks_outside",
        "(SELECT coalesce(sum(sessions - 1), 0) FROM whole_views) AS restarts",
        '(SELECT count(DISTINCT "user") FROM day_views) AS viewers',
        "(SELECT coalesce(sum(CAST(round(1e3 * seconds) AS BIGINT)), 0) FROM day_views) AS milliseconds",
    ]
    return "SELECT " + ",\n    ".join(counted)


def heavy(params: WatchParams) -> str:
    """The query of the people with more than `most_views` in any 30 days that end with a view of theirs, on the table `views`."""
    return f"""SELECT DISTINCT "user" FROM (
        SELECT "user", count(*) OVER (PARTITION BY "user" ORDER BY time
            RANGE BETWEEN {MONTH * DAY} PRECEDING AND CURRENT ROW) AS views
        FROM views) AS counted WHERE views > {params.most_views} ORDER BY "user" """


def staged(kind: str, columns: dict[str, str], date: int | None, params: WatchParams) -> str:
    """The query that reads the table `rows` of an archive, all columns text, to staged rows with their `day`.

    `columns` gives the archive's own name of each of ours that it has; `date` is the number of the archive's day, None where its
    name tells none. Rows that say nothing have the day −1, those of a clock that is off −2; `millis` reads a time.
    """

    def text(name: str) -> str:
        return f"""nullif(trim("{columns[name]}"), '')""" if name in columns else "CAST(NULL AS VARCHAR(200))"

    ids = ("session", "user", "video") if kind == "sessions" else ("session",)
    time = f"millis({text('start' if kind == 'sessions' else 'time')})"
    known = " AND ".join(
        [f"coalesce(length({text(name)}), 0) BETWEEN 1 AND 200" for name in ids] + [f"{time} IS NOT NULL"]
    )
    number = f"CAST(floor({time} / {DAY:.2e}) AS INTEGER)"
    off = "FALSE" if date is None else f"{number} NOT BETWEEN {date - params.latest_days} AND {date + 1}"
    day = f"CASE WHEN NOT ({known}) THEN -1 WHEN {off} THEN -2 ELSE {number} END AS day"
    if kind == "ticks":
        return f"SELECT {text('session')} AS session, {time} AS time, {day} FROM rows"
    duration = f"TRY_CAST({text('duration')} AS DOUBLE)"
    return f"""SELECT {text("session")} AS session, {text("user")} AS viewer, {text("video")} AS item, {time} AS start,
        {text("device")} AS device,
        CASE WHEN {duration} > 0 AND {duration} < 1e6 THEN {duration} END AS duration, {day} FROM rows"""
