"""Judgements that still hold: who comes again a moment later has rarely voted in between."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from palate.lately import Lately
from palate.live import Person, State
from palate.pool import Pool
from palate.ranking import scoring
from palate.ranking.scoring import Judgement
from palate.ranking.taste import TasteParams, Tastes
from palate.snapshots import Snapshot
from palate.stock import Stock


@dataclass(frozen=True, eq=False)
class Judged:
    """A judgement and all that it follows from but the moment. Neither items nor snapshot are kept alive by it."""

    judgement: Judgement
    stock: weakref.ref[Stock]
    base: weakref.ref[Pool]
    snapshot: weakref.ref[Snapshot] | None
    person: Person
    chosen: tuple[list[int], list[int]]
    rows: NDArray[np.int64]
    """Of what was voted on."""
    first_items: int


Memory = Lately[tuple[int, ...], Judged]
"""What was found last for people, by the keys of their ids."""


def find(
    memory: Memory,
    state: State,
    person: Person,
    now: datetime,
    first_items: int,
    params: TasteParams,
    tastes: Tastes | None = None,
) -> Judgement:
    """What `scoring.judge_in` gives, found anew only where anything is other than it was for the person last."""
    before = memory.get(person.keys) if person.keys else None
    if before is not None and _holds(before, state, person, first_items, params):
        return replace(before.judgement, now=now)
    judgement = scoring.judge_in(state, person, now, first_items, params, tastes)
    if person.keys and state.stock.base.model.ranker is None:  # an answer of a ranker takes in the whole history
        memory.add({person.keys: _judged(judgement, state, person, first_items)})
    return judgement


def _judged(judgement: Judgement, state: State, person: Person, first_items: int) -> Judged:
    stock = state.stock
    return Judged(
        judgement=judgement,
        stock=weakref.ref(stock),
        base=weakref.ref(stock.base),
        snapshot=None if state.snapshot is None else weakref.ref(state.snapshot),
        person=person,
        chosen=_chosen(stock, person),
        rows=_voted_rows(stock, person),
        first_items=first_items,
    )


def _holds(before: Judged, state: State, person: Person, first_items: int, params: TasteParams) -> bool:
    same = before.judgement.params == params and before.first_items == first_items
    return same and _same_items(before, state, person) and _same_person(before, state, person, first_items)


def _same_items(before: Judged, state: State, person: Person) -> bool:
    """Whether what was voted on is known as it was."""
    stock, snapshot = state.stock, None if before.snapshot is None else before.snapshot()
    if snapshot is not state.snapshot or before.base() is not stock.base:
        return False
    if before.stock() is stock:
        return True
    rows = _voted_rows(stock, person)
    return np.array_equal(rows, before.rows) and bool((rows < len(stock.base)).all())


def _same_person(before: Judged, state: State, person: Person, first_items: int) -> bool:
    """Whether votes, choices and what was learned are as they were."""
    then = before.person
    new = len(person.history) < first_items
    if person.bias != then.bias or new != (len(then.history) < first_items):
        return False
    if not _equal(person.vector, then.vector) or _chosen(state.stock, person) != before.chosen:
        return False
    if person.history is then.history:
        return True
    own, old = person.history.of_items(person.history.voted), then.history.of_items(then.history.voted)
    return np.array_equal(own.items, old.items) and np.array_equal(own.labels, old.labels)


def _equal(one: NDArray[np.float32] | None, other: NDArray[np.float32] | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other)


def _chosen(stock: Stock, person: Person) -> tuple[list[int], list[int]]:
    """Numbers of the sources and topics that the person chose: those that no item had yet have none."""
    base = stock.base
    return base.sources.find(person.followed).tolist(), base.label_names.find(person.topics).tolist()


def _voted_rows(stock: Stock, person: Person) -> NDArray[np.int64]:
    return stock.rows(person.history.items[person.history.voted])
