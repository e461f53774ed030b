"""Archives of a video service that doesn't exist, with everything that goes wrong with real ones: for tests and benchmarks.

Numbers are drawn by hashes of a session's number, so that any amount is made in one pass and the same seed gives the same files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from palate.watching import embedded

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

TICK = 60
"""Seconds between two ticks."""


@dataclass(frozen=True)
class World:
    """How much to make."""

    sessions: int = 10_000
    days: int = 3
    first_day: int = 19_844
    """Number of the first day since 1970: 1 May 2024."""
    people: int = 2_000
    videos: int = 500
    seed: int = 1


def write(folder: Path, world: World, scratch: Path, threads: int | None = None) -> None:
    """Make `sessions-DATE.csv.gz` and `ticks-DATE.csv.gz` of each day, about 20 ticks a session.

    Of the sessions 2 % go on in a second one after the player crashed, 0.5 % are told twice, 1 % have no ticks, 0.05 % never end,
    0.2 % don't tell the video's duration, 0.1 % have a clock in 1973, and one person has 1 % of all. Of the ticks 1 % are told
    twice, 0.5 % belong to no session, and 1 % come with the next day's archive. One row in 2,000 is garbage.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with embedded.connected(scratch, threads) as connection:
        connection.execute("CREATE OR REPLACE MACRO drawn(i, what) AS (hash(i, what) % 1000000) / 1e6")
        for day in range(world.days):
            _make_day(connection, folder, world, day)


def _make_day(connection: DuckDBPyConnection, folder: Path, world: World, day: int) -> None:
    from palate.watching.etl import iso

    first, last = (world.sessions * place // world.days for place in (day, day + 1))
    date = iso(world.first_day + day)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE plays AS {_plays(world, first, last, day)}")
    connection.execute(f"CREATE OR REPLACE TEMP TABLE told AS {_told_sessions()}")
    connection.execute(f"COPY ({_session_rows()}) TO '{folder}/sessions-{date}.csv.gz' (HEADER, COMPRESSION gzip)")
    late = "FALSE" if day == 0 else f"(SELECT count(*) FROM late_{day - 1}) > 0"
    carried = "" if day == 0 else f" UNION ALL SELECT session, time FROM late_{day - 1} WHERE {late}"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE tick_rows AS {_tick_rows(world)}")
    connection.execute(f"CREATE OR REPLACE TEMP TABLE late_{day} AS SELECT session, time FROM tick_rows WHERE late")
    query = f"SELECT session, time FROM tick_rows WHERE NOT late{carried}"
    connection.execute(f"COPY ({query}) TO '{folder}/ticks-{date}.csv.gz' (HEADER, COMPRESSION gzip)")


def _plays(world: World, first: int, last: int, day: int) -> str:
    """One row a viewing: who, what, when, how long the video is and how many ticks were watched."""
    midnight = (world.first_day + day) * 86_400
    seed = world.seed
    return f"""
        SELECT i,
            CASE WHEN drawn(i, {seed}) < .01 THEN 0
                 ELSE 1 + floor(pow(drawn(i, {seed + 1}), 2) * {world.people}) END::INT AS viewer,
            floor(pow(drawn(i, {seed + 2}), 3) * {world.videos})::INT AS video,
            {midnight} + floor(86000 * drawn(i, {seed + 3}))::BIGINT AS start,
            600 + 60 * (hash(video, {seed + 4}) % 51)::INT AS duration,
            CASE WHEN drawn(i, {seed + 5}) < .0005 THEN 1440
                 WHEN drawn(i, {seed + 5}) < .0105 THEN 0
                 WHEN drawn(i, {seed + 6}) < .3 THEN 1 + floor(.15 * drawn(i, {seed + 7}) * duration / {TICK})::INT
                 WHEN drawn(i, {seed + 6}) < .8 THEN floor((.85 + .15 * drawn(i, {seed + 7})) * duration / {TICK})::INT
                 ELSE 1 + floor(drawn(i, {seed + 7}) * duration / {TICK})::INT END AS ticks,
            drawn(i, {seed + 8}) < .02 AND ticks BETWEEN 4 AND 1000 AS crashed, drawn(i, {seed + 9}) AS fate
        FROM range({first}, {last}) AS numbers(i)"""


def _told_sessions() -> str:
    """One row a session: a viewing whose player crashed has two, the second from its fourth tick on."""
    return f"""
        SELECT 's' || i AS session, * EXCLUDE (ticks), CASE WHEN crashed THEN 3 ELSE ticks END AS ticks, start AS began FROM plays
        UNION ALL
        SELECT 's' || i || 'b', * EXCLUDE (ticks), ticks - 3, start + 4 * {TICK} + (i % 100) FROM plays WHERE crashed"""


def _session_rows() -> str:
    row = """session, CASE WHEN fate < .0005 THEN '' ELSE 'viewer-' || viewer END AS "user", 'video-' || video AS video,
        CASE WHEN fate > .999 THEN 100000000 ELSE began END AS start, ['tv', 'phone', 'web'][1 + i % 3] AS device,
        CASE WHEN fate BETWEEN .5 AND .502 THEN '' ELSE duration::VARCHAR END AS duration"""
    return f"SELECT {row} FROM told UNION ALL SELECT {row} FROM told WHERE fate BETWEEN .1 AND .105"


def _tick_rows(world: World) -> str:
    """Ticks of a session a minute apart; some are late, some twice, some of a session that nobody told."""
    drawn = f"drawn(i * 2000 + tick, {world.seed + 20})"
    return f"""
        SELECT CASE WHEN chance < .005 THEN 'lost-' || i ELSE session END AS session, began + {TICK} * tick AS time,
            chance BETWEEN .1 AND .11 AS late
        FROM (SELECT session, began, i, unnest(range(1, ticks + 1)) AS tick, {drawn} AS chance FROM told)
             CROSS JOIN (SELECT 1 AS copy UNION ALL SELECT 2) AS copies
        WHERE copy = 1 OR chance > .99"""
