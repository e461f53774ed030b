"""Globo's clicks as what people watched: the part of an article that was read, as an event file for `palate tune`.

    PALATE_DATA=… python benchmarks/watched.py watched.parquet [--share 0.33]

The dwell of a click is the gap to the next one of its session; gaps of exactly 30 s are padding. An article is read to its end
after the dwell that four in five of its readers don't exceed, of all articles where fewer than ten were timed. People with one view
alone are left out.
"""

from __future__ import annotations

import argparse
import os
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SHORTEST, LONGEST, PADDING = 1_000, 1_800_000, 30_000
"""Milliseconds of a dwell."""
TIMED = 10
WHOLE = 0.8


def watched(data: Path, share: float) -> pa.Table:
    table = pq.read_table(data / "feedback/globo-clicks/clicks.parquet")
    user, session, item, time = (
        table[name].to_numpy().astype(np.int64)
        for name in ("user_id", "session_id", "click_article_id", "click_timestamp")
    )
    order = np.lexsort((time, session))
    user, session, item, time = (column[order] for column in (user, session, item, time))
    gap = np.append(np.where(session[1:] == session[:-1], np.diff(time), -1), -1)
    kept = (gap >= SHORTEST) & (gap <= LONGEST) & (gap != PADDING)
    user, item, time, gap = (column[kept] for column in (user, item, time, gap))
    value = np.minimum(gap / lengths(item, gap), 1.0)
    chosen = np.array([zlib.crc32(b"%d" % one) < share * 2**32 for one in range(int(user.max()) + 1)])[user]
    several = np.bincount(user)[user] >= 2
    kept = np.flatnonzero(chosen & several)
    kept = kept[np.argsort(time[kept], kind="stable")]
    return pa.table(
        {
            "user": pa.array(user[kept]).cast(pa.string()),
            "item": pa.array(item[kept]).cast(pa.string()),
            "type": pa.array(["watch"] * len(kept)),
            "value": pa.array(value[kept]),
            "time": pa.array(time[kept], pa.timestamp("ms", tz="UTC")),
        }
    )


def lengths(item: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """(n,) after how many milliseconds the article of each dwell is read to its end."""
    order = np.lexsort((gap, item))
    counts = np.bincount(item)
    ends = np.cumsum(counts)
    place = np.clip(ends - counts + np.floor(WHOLE * counts).astype(np.int64), 0, len(gap) - 1)
    typical = np.quantile(gap, WHOLE)
    return np.where(counts >= TIMED, gap[order][place], typical)[item]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--share", type=float, default=0.33, help="of the people")
    asked = parser.parse_args()
    table = watched(Path(os.environ["PALATE_DATA"]), asked.share)
    pq.write_table(table, asked.file)
    people, items = (len(table[name].unique()) for name in ("user", "item"))
    print(f"{len(table):,} views of {people:,} people and {items:,} articles")


if __name__ == "__main__":
    main()
