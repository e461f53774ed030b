"""One person's best items by each model of a snapshot, and by each member of its blend: to be looked at beside one another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from palate.candidates import filters
from palate.live import Person
from palate.models import stored
from palate.models.blend import Blend
from palate.pool import Pool, with_snapshot
from palate.ranking import by_model, scoring
from palate.ranking.taste import TasteParams
from palate.snapshots import Snapshot


class Pick(NamedTuple):
    """An item of a list."""

    key: int
    score: float | None
    """Probability that the person likes it; None where a member says only what is better."""


@dataclass(frozen=True)
class Column:
    """One list."""

    model: str
    member: str | None
    """Of a blend: its name with the stretch of history, such as ials@30d."""
    picks: tuple[Pick, ...]


@dataclass(frozen=True)
class Looked:
    """For whom, and how."""

    person: Person
    now: datetime
    window: timedelta
    limit: int
    first_items: int
    taste: TasteParams


def columns(pool: Pool, snapshot: Snapshot, looked: Looked) -> Iterator[Column]:
    """A list by each model of the snapshot that can be served, and by each member of a blend. What was met or may not be shown is
    in none of them."""
    for name in stored.names(snapshot):
        own = with_snapshot(pool, snapshot, name)
        if own.model.name != name:
            continue  # worse than popularity
        allowed = filters.allowed(own, looked.person, looked.now, looked.window)
        allowed = filters.without(own, allowed, looked.person.history.items)
        judgement = scoring.judge(own, snapshot, looked.person, looked.now, looked.first_items, looked.taste)
        scores, values = scoring.order_values(judgement, own)
        picks = (Pick(int(own.keys[row]), float(scores[row])) for row in _best(values, allowed, looked.limit))
        yield Column(name, None, tuple(picks))
        yield from _members(own, allowed, looked)


def _members(pool: Pool, allowed: filters.Mask, looked: Looked) -> Iterator[Column]:
    ranker = pool.model.ranker
    if ranker is None or not isinstance(ranker.model, Blend) or not (looked.person.history.weights > 0).any():
        return
    known = by_model.as_known(looked.person.history, looked.person.key or 0, ranker)
    learned = allowed & (pool.row >= 0)
    for member in ranker.model.members:
        said = member.entry.score_all(member.model, known)[0]
        values = np.append(said, np.float32(0))[pool.row]
        picks = (Pick(int(pool.keys[row]), None) for row in _best(values, learned, looked.limit))
        yield Column(pool.model.name, member.name, tuple(picks))


def _best(values: NDArray[np.float32], allowed: filters.Mask, limit: int) -> list[int]:
    rows = np.flatnonzero(allowed)
    found: list[int] = rows[np.argsort(-values[rows], kind="stable")[:limit]].tolist()
    return found
