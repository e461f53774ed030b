"""What was shown, with the features that it had then, and what came of it: what rankers learn from.

An impression is an event of type `shown` with features. What the same person did with the item within some time afterwards is
counted to the last impression before it; each type of action has a gain, and the impression's is their sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import columns, database, events, feature_log, identities, sealing
from palate.database import reading
from palate.domain import EventColumns, from_milliseconds, to_milliseconds
from palate.errors import DataFolderError

WANTED = ("seq", "user_key", "item_key", "time", "request", "position", "probability", "features")
"""Columns that are read."""

PAGE = 20_000
"""Rows of the unsealed log fetched at a time."""

LARGEST = 1.0
"""Of an event's value, where it counts as a part of the gain: a watched fraction."""


@dataclass(frozen=True, eq=False)
class Impressions:
    """Rows of equal length n, in the order of the log."""

    user: NDArray[np.int64]
    """Key of the person."""
    item: NDArray[np.int64]
    time: NDArray[np.int64]
    request: NDArray[np.int64]
    """Number of the answer that it was a part of, from 0."""
    position: NDArray[np.int64]
    """Counted from 0."""
    probability: NDArray[np.float32]
    """With which it was chosen for its place; 1 where nothing is said."""
    features: NDArray[np.float32]
    """(n, F), columns of `feature_log`."""
    gain: NDArray[np.float32]
    """What came of it: above 0 for good, below for bad."""

    def __len__(self) -> int:
        return len(self.user)

    def rows(self, wanted: NDArray[Any]) -> Impressions:
        """A part of them."""
        return Impressions(**{field.name: getattr(self, field.name)[wanted] for field in fields(self)})


def read(
    engine: sa.Engine, folder: Path, gains: Mapping[str, float], answer: timedelta, now: datetime, limit: int
) -> Impressions:
    """The newest impressions, `limit` at most, that are old enough for what came of them to be known: `answer` before now.

    Raises DataFolderError when a sealed file is missing or broken.
    """
    for _ in range(5):
        try:
            found = _shown(engine, folder, to_milliseconds(now - answer), limit)
            break
        except FileNotFoundError as error:
            missing = error
    else:
        raise DataFolderError(f"Sealed events are missing: {missing}. Restore the file from a backup.")
    if not len(found):
        return found
    since = from_milliseconds(int(found.time.min()))
    acted = events.read_columns(engine, folder, since=since, types=_forms(gains))
    return with_gains(found, acted, gains, answer)


def _forms(gains: Mapping[str, float]) -> list[str]:
    """The types that count, and what takes them back."""
    return [*gains, *(f"retract:{name}" for name in gains), "retract"]


# --- what came of them ----------------------------------------------------------------------------------------------------


def with_gains(shown: Impressions, acted: EventColumns, gains: Mapping[str, float], answer: timedelta) -> Impressions:
    """The impressions with what came of each: the sum of the gains of the types of action that followed it.

    A type counts once, by its value between 0 and 1 where it has one and its gain is for all of it (`watch`). What was taken
    back later in the log doesn't count.
    """
    place = _followed(shown, acted, answer // timedelta(milliseconds=1))
    gain = np.zeros(len(shown), np.float32)
    for code, name in enumerate(acted.types):
        if name not in gains:
            continue
        of_type = np.flatnonzero((place >= 0) & (acted.type == code))
        taken_back = _taken_back(acted, of_type, name)
        of_type = of_type[~taken_back]
        part = np.ones(len(of_type), np.float32)
        if name == "watch":
            part = np.clip(np.nan_to_num(acted.value[of_type], nan=LARGEST), 0, LARGEST)
        most = np.zeros(len(shown), np.float32)
        np.maximum.at(most, place[of_type], part)
        gain += np.float32(gains[name]) * most
    return replace(shown, gain=gain)


def _followed(shown: Impressions, acted: EventColumns, answer: int) -> NDArray[np.int64]:
    """(actions,) the last impression of the same person and item before each action, −1 where none is within `answer`."""
    order = np.lexsort((shown.time, shown.item, shown.user))
    pairs = np.concatenate((np.stack((shown.user, shown.item), axis=1), np.stack((acted.user, acted.item), axis=1)))
    number = np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1)
    own, theirs = number[: len(shown)][order], number[len(shown) :]
    span = int(max(shown.time.max(initial=0), acted.time.max(initial=0))) + 1
    start = int(min(shown.time.min(initial=span), acted.time.min(initial=span)))
    wide = span - start
    # of one pair in the order of time: one number for both, as few pairs and days keep it within 64 bits
    assert (int(number.max(initial=0)) + 1) * wide < 2**63, "There are too many impressions to be joined at once."
    found = (
        np.searchsorted(own * wide + shown.time[order] - start, theirs * wide + acted.time - start, side="right") - 1
    )
    before = order[np.maximum(found, 0)] if len(order) else np.zeros(len(acted), np.int64)
    good = (found >= 0) & (number[: len(shown)][before] == theirs) & (acted.time - shown.time[before] <= answer)
    return np.where(good, before, -1)


def _taken_back(acted: EventColumns, places: NDArray[np.int64], name: str) -> NDArray[np.bool_]:
    """Which of these events of a type a later one in the log undoes."""
    kept = name in ("shown", "viewed")  # what a plain `retract` leaves
    undoing = [form for form in (f"retract:{name}", *(() if kept else ("retract",))) if form in acted.types]
    codes = [acted.types.index(form) for form in undoing]
    undone = np.flatnonzero(np.isin(acted.type, codes))
    result = np.zeros(len(places), bool)
    if not len(undone):
        return result
    last: dict[tuple[int, int], int] = {}
    for row in undone.tolist():
        pair = int(acted.user[row]), int(acted.item[row])
        last[pair] = max(last.get(pair, 0), int(acted.seq[row]))
    for number, row in enumerate(places.tolist()):
        result[number] = last.get((int(acted.user[row]), int(acted.item[row])), 0) > int(acted.seq[row])
    return result


# --- the log --------------------------------------------------------------------------------------------------------------


def _shown(engine: sa.Engine, folder: Path, before: int, limit: int) -> Impressions:
    """The newest so many, nothing said of what came of them."""
    with reading(engine) as connection:
        persons = columns.persons(identities.joined(connection))
        table = database.sealed
        parts = list(connection.scalars(sa.select(table.c.path).order_by(table.c.first_seq.desc())))
        pages = [_of_rows(page, before) for page in _hot(connection, limit)]
    count = sum(map(len, pages))
    for path in parts:
        if count >= limit:
            break
        pages.append(_of_rows(list(sealing.read_shown(sealing.at_hand(engine, folder, path), WANTED)), before))
        count += len(pages[-1])
    found = _joined(pages)
    newest = np.argsort(found.seq, kind="stable")[-limit:]
    chosen = found.impressions.rows(newest)
    return replace(chosen, user=persons.of(chosen.user))


def _hot(connection: sa.Connection, limit: int) -> Iterator[list[tuple[Any, ...]]]:
    """Unsealed rows of WANTED, the newest first."""
    table = database.events.c
    named = [table[name.removesuffix("_key")] for name in WANTED]
    query = sa.select(*named).where(table.type == "shown", table.features.is_not(None)).order_by(table.seq.desc())
    before, count = 2**63 - 1, 0
    while count < limit:
        page = database.plain_rows(connection.execute(query.where(table.seq < before).limit(PAGE)))
        yield page
        if len(page) < PAGE:
            return
        before, count = page[-1][0], count + len(page)


@dataclass(frozen=True, eq=False)
class _Page:
    seq: NDArray[np.int64]
    names: list[str]
    """Of the answers, as the impressions number them."""
    impressions: Impressions

    def __len__(self) -> int:
        return len(self.seq)


def _of_rows(rows: list[tuple[Any, ...]], before: int) -> _Page:
    """The rows with features of this scheme that happened before a millisecond."""
    rows = [row for row in rows if row[3] < before]
    seq, user, item, time, request, position, probability, texts = (
        (list(column) for column in zip(*rows, strict=True)) if rows else ([] for _ in WANTED)
    )
    features, good = feature_log.read(list(texts))
    names = list(dict.fromkeys(str(name) for name in request))
    number = {name: place for place, name in enumerate(names)}
    whole = Impressions(
        user=np.array(user, np.int64),
        item=np.array(item, np.int64),
        time=np.array(time, np.int64),
        request=np.array([number[str(name)] for name in request], np.int64),
        position=np.array([0 if place is None else place for place in position], np.int64),
        probability=np.array([1.0 if chance is None else chance for chance in probability], np.float32),
        features=features,
        gain=np.zeros(len(rows), np.float32),
    )
    return _Page(np.array(seq, np.int64)[good], names, whole.rows(good))


def _joined(pages: list[_Page]) -> _Page:
    """All pages as one, an answer's number the same in each."""
    names = list(dict.fromkeys(name for page in pages for name in page.names))
    number = {name: place for place, name in enumerate(names)}
    moved = [np.array([number[name] for name in page.names], np.int64)[page.impressions.request] for page in pages]
    joined = {
        field.name: np.concatenate([getattr(page.impressions, field.name) for page in pages])
        for field in fields(Impressions)
    }
    joined["request"] = np.concatenate(moved)
    return _Page(np.concatenate([page.seq for page in pages]), names, Impressions(**joined))
