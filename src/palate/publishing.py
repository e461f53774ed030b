"""What a cycle learned, written as a snapshot; nobody who was deleted gets into it.

Where there are very many pairs their histories are most of it, and few change from one cycle to the next: snapshots then share
those of an older one, to which serving adds what the log holds since.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import sqlalchemy as sa

from palate import identities, running_tally, scanning, snapshots
from palate.database import reading
from palate.domain import to_milliseconds
from palate.examples import Examples, Memory, Params
from palate.lessons import Lesson
from palate.models import content_scores, indexing, popularity, registry, stored, text_values
from palate.models.implicit_als import ImplicitALS
from palate.models.popularity import Clock, Popularity, PopularityParams
from palate.running_tally import RunningTally
from palate.snapshots import Snapshot
from palate.trial import RankingTest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from palate.examples import Mask
    from palate.pairs import Pairs

FEWEST = 3_000_000
"""Pairs from which on histories are shared: fewer are written soon, and serving has less to read when they are whole."""

SHARE = 0.1
"""Of the pairs' number: as many events may have come since they were made. Serving reads those from the unsealed log, which isn't
sealed before they are in a history."""


@dataclass(frozen=True, eq=False)
class Addition:
    """What a snapshot holds beside its models."""

    header: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def publish(
    engine: sa.Engine,
    data: Path,
    examples: Examples,
    lessons: Sequence[Lesson],
    learned: int,
    params: Params,
    now: datetime,
    *,
    anew: bool = True,
    memory: Memory | None = None,
    addition: Addition | None = None,
) -> str:
    """Publish these models, popularity, and the addition in `data/snapshots`; return the version.

    `learned` is the last event that they have learned of people; histories go as far as the examples, or, unless they are to be
    made `anew`, not quite. In `memory` the sums by item are left for the next cycle.
    """
    before = None if anew else _last_popularity(data / "snapshots")
    counted = _popularity(examples, params.popularity, before, now, memory or Memory())
    models = {lesson.name: lesson.model for lesson in lessons} | {"popularity": counted}
    added = addition or Addition()
    header = {"learned": learned} | _header(examples, models, lessons, params, now) | dict(added.header)
    folder, people = data / "snapshots", examples.users.keys
    last = None if anew else _with_good_histories(folder, examples, header)
    if last is not None:
        people = examples.users.extended(snapshots.people_of_histories(last.arrays)).keys
    gone = _deleted(engine, people)
    if len(gone):  # those of the last snapshot may have them still
        last = None
    arrays = _arrays(examples, models) | _texts(examples, folder, anew) | dict(added.arrays)
    indexes = indexing.arrays(models, arrays, params.index, examples.contents.text)
    if indexes:
        scanning.prepare()  # before anybody serves by them
    arrays |= indexes
    if last is None:
        arrays |= _histories(examples, params.train.history_limit)
    else:
        header["history_seq"] = snapshots.history_seq(last)
    arrays = snapshots.without_users(arrays, gone)
    version = snapshots.publish(folder, header, arrays, last, {} if last is None else _same(last))
    snapshots.forget_user(folder, _deleted(engine, people))  # who was deleted while we wrote
    return version


def _with_good_histories(folder: Path, examples: Examples, header: Mapping[str, Any]) -> Snapshot | None:
    """The snapshot that is served, if its histories mean what ours would and little came since; None where they are few."""
    pairs = examples.pairs
    count = int(np.diff(pairs.offsets)[pairs.kept].sum())
    last = snapshots.load_newest_good(folder, verify=False) if count >= FEWEST else None
    if last is None or any(last.header.get(name) != header[name] for name in ("meaning", "rating_range")):
        return None
    return last if 0 <= examples.seq - snapshots.history_seq(last) <= count * SHARE else None


def _same(last: Snapshot) -> dict[str, str]:
    """Under which names which arrays of the last snapshot are its histories."""
    names = ("history_offsets", "history_items", "history_labels", "history_weights")
    own = "history_users" in last.arrays
    users, items = ("history_users", "history_item_keys") if own else ("users", "items")
    return {name: name for name in names} | {"history_users": users, "history_item_keys": items}


def _last_popularity(folder: Path) -> Popularity | None:
    last = snapshots.load_newest_good(folder, verify=False)
    return stored.load(last, "popularity") if last else None


def _popularity(
    examples: Examples, params: PopularityParams, before: Popularity | None, now: datetime, memory: Memory
) -> Popularity:
    """Trends fade against the newest event: a log that ended years ago is judged as of its end, not as all faded.

    The clock of the last snapshot goes on, with its half-life where the settings name none; a full cycle chooses both.
    """
    tally, memory.tally = memory.tally, None
    if before is None or before.clock is None:
        return _anew(examples, params, to_milliseconds(now), memory)
    settled = msgspec.structs.replace(params, half_life_days=params.half_life_days or before.half_life_days)
    late = examples.later(before.clock.until)
    clock, until = running_tally.progress(before.clock, *late, to_milliseconds(now))
    if tally is None or not _is_of(tally, before.clock, settled):
        return _counted(examples, settled, clock, until, memory)
    memory.tally = tally = running_tally.proceeded(tally, *late, clock)
    found = running_tally.as_of(tally, until, *late, examples.items)
    return popularity.fit_tally(examples.items, found, examples.item_sources, settled, clock)


def _is_of(tally: RunningTally, clock: Clock, params: PopularityParams) -> bool:
    """Whether the sums are by this clock and these settings."""
    return (
        params.window_days is None
        and tally.half_life_days == params.half_life_days
        and np.array_equal(tally.clock.moments, clock.moments)
        and np.array_equal(tally.clock.passed, clock.passed)
    )


def _anew(examples: Examples, params: PopularityParams, now: int, memory: Memory) -> Popularity:
    """With a half-life and a clock of these pairs."""
    chosen, pairs = examples.labelled | examples.weighted, examples.pairs
    newest = int(pairs.time.max(where=chosen, initial=0)) * pairs.unit if chosen.any() else now
    if params.half_life_days is None:
        params = popularity.settled(pairs.rows(chosen & _recent(pairs)), params)
    until = min(now, newest)
    return _counted(examples, params, pairs.clock(chosen, until, params), until, memory)


def _counted(examples: Examples, params: PopularityParams, clock: Clock, until: int, memory: Memory) -> Popularity:
    """From all pairs; the sums of very many are kept."""
    chosen, pairs = examples.labelled | examples.weighted, examples.pairs
    if examples.looked is None or params.window_days is not None:
        found = pairs.tally(chosen, examples.items, until, params, clock)
    else:
        assert params.half_life_days is not None, "The parameters are settled."
        memory.tally = running_tally.counted(pairs, chosen, clock, params.half_life_days)
        found = running_tally.as_of(memory.tally, until, pairs, chosen, examples.items)
    return popularity.fit_tally(examples.items, found, examples.item_sources, params, clock)


def _recent(pairs: Pairs) -> Mask:
    """About the newest `popularity.RECENT`, as many a sample tells."""
    times = pairs.time[:: max(len(pairs) // 1_000_000, 1)]
    share = min(1.0, popularity.RECENT / max(len(pairs), 1))
    since = np.quantile(times, 1 - share, method="lower") if len(times) else 0
    mask: Mask = pairs.time >= since
    return mask


def _deleted(engine: sa.Engine, users: NDArray[np.int64]) -> NDArray[np.int64]:
    with reading(engine) as connection:
        return identities.missing(connection, users)


def _header(
    examples: Examples, models: Mapping[str, Any], lessons: Sequence[Lesson], params: Params, now: datetime
) -> dict[str, Any]:
    means = {
        lesson.name: {"calibration": [lesson.test.calibration.slope, lesson.test.calibration.intercept]}
        for lesson in lessons
        if isinstance(lesson.test, RankingTest)
    }
    return {
        "created": to_milliseconds(now),
        "seq": examples.seq,
        "rule": params.interactions.rule,
        "meaning": _meaning(params),
        "rating_range": list(examples.rating_range) if examples.rating_range else None,
        "models": {name: registry.entry(name).header(model) | means.get(name, {}) for name, model in models.items()},
        "quality": {lesson.name: lesson.test.to_json() for lesson in lessons},
    }


def _meaning(params: Params) -> int:
    """A number that tells what histories say by these settings."""
    return zlib.crc32(msgspec.json.encode([params.interactions, params.train.history_limit]))


def _arrays(examples: Examples, models: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The arrays of a snapshot without histories: every model has a row for each of the snapshot's items."""
    arrays: dict[str, NDArray[Any]] = {"users": examples.users.keys, "items": examples.items.keys}
    for name, model in models.items():
        arrays |= stored.arrays(name, model)
    if set(models) - {"popularity", "fm"}:
        arrays["item_positives"] = _positives(examples, models.get("ials"))
        arrays |= _by_content(examples, arrays["item_positives"])
    return arrays


def _texts(examples: Examples, folder: Path, anew: bool) -> dict[str, NDArray[Any]]:
    """Where the items' texts stand: in the directions of the last snapshot, if it has some, unless all is to be made `anew`."""
    last = None if anew else snapshots.load_newest_good(folder, verify=False)
    directions = None if last is None else text_values.directions_of(last.arrays)
    return text_values.to_arrays(examples.contents.text, None if directions is None else np.asarray(directions))


def _histories(examples: Examples, limit: int) -> dict[str, NDArray[Any]]:
    history = examples.pairs.history(examples.users, examples.items, limit)
    return {
        "history_offsets": history.offsets,
        "history_items": history.columns,
        "history_labels": history.labels,
        "history_weights": history.weights,
    }


def _positives(examples: Examples, ials: ImplicitALS | None) -> NDArray[np.int32]:
    """How many people took to each item: models that rank have learned nothing of those with 0.

    A model that was learned elsewhere may know more than our log.
    """
    pairs, counts = examples.pairs, np.zeros(len(examples.items), np.int32)
    taken = pairs.columns[examples.taught & (pairs.weight > 0)]
    counts[examples.items.rows(pairs.items.keys)] = np.bincount(taken, minlength=len(pairs.items))
    return counts if ials is None else np.maximum(counts, ials.item_examples)


def _by_content(examples: Examples, positives: NDArray[np.int32]) -> dict[str, NDArray[Any]]:
    """By what models that rank place items of which they have learned nothing."""
    found = content_scores.fit(examples.contents, positives, examples.content)
    return {} if found is None else content_scores.to_arrays(found, examples.contents)
