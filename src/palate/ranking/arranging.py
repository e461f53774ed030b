"""An order for the top of the list: the best first, but not one source after itself, and now and then something to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate import greedy

REACH = 10
"""Places before the one to be filled that count as its neighbours."""


class Place(msgspec.Struct, frozen=True):
    """One place of the list."""

    row: int
    """Of the pool."""
    probability: float
    """With which this item was chosen for this place."""
    explored: bool
    """Chosen to learn from, against the order."""
    asked: bool = False
    """Chosen for what a vote on it would tell about everything else."""


@dataclass(frozen=True, eq=False)
class Spread:
    """A kind of sameness to avoid: each of the neighbours in an item's own group takes the part `strength` off its value."""

    group: NDArray[np.int32]
    """Group of each candidate, −1 for none."""
    strength: float
    cap: int | None = None
    """Items of one group in a list at most, as long as there are others; None: any number."""


@dataclass(frozen=True, eq=False)
class Likeness:
    """Sameness of content: the neighbour that an item is most like takes the part `strength` · cosine off its value."""

    vectors: NDArray[np.float32]
    """(n, d) of the candidates, each of length 1, or 0 where nothing is known."""
    strength: float


def arrange(
    rows: NDArray[np.int64],
    values: NDArray[np.float32],
    explorable: NDArray[np.bool_],
    spreads: Sequence[Spread],
    share: float,
    limit: int,
    rng: np.random.Generator,
    *,
    likeness: Likeness | None = None,
    owed: NDArray[np.bool_] | None = None,
    compiled: bool = False,
) -> list[Place]:
    """Fill up to `limit` places, each with the candidate of the highest value after the spreads, or, with probability `share`,
    with any of the explorable ones, all as likely; of these with one that is `owed` impressions as long as there is one. `values`
    (positive), `explorable`, `owed`, the groups and the vectors run along `rows`. `compiled`: in machine code.

    The greedy choice of Carbonell and Goldstein, "The Use of MMR" (SIGIR 1998), with sameness of group and of vectors for
    similarity.
    """
    first = np.zeros(len(rows), bool) if owed is None else explorable & owed
    chances = rng.random((max(min(limit, len(rows)), 0), 2))
    choose = _chosen_by_machine if compiled else _chosen
    chosen, probabilities, explored = choose(values, explorable, first, share, chances, spreads, likeness)
    return list(map(Place, rows[chosen].tolist(), probabilities.tolist(), explored.tolist()))


def _chosen_by_machine(
    values: NDArray[np.float32],
    explorable: NDArray[np.bool_],
    owed: NDArray[np.bool_],
    share: float,
    chances: NDArray[np.float64],
    spreads: Sequence[Spread],
    likeness: Likeness | None,
) -> greedy.Chosen:
    """What `_chosen` gives."""
    groups = np.array([spread.group for spread in spreads], np.int32).reshape(len(spreads), len(values))
    kept = np.array([_kept(spread) for spread in spreads], np.float32).reshape(len(spreads), REACH + 1)
    caps = np.array([-1 if spread.cap is None else spread.cap for spread in spreads], np.int64)
    alike = (np.zeros((len(values), 0), np.float32), 0.0) if likeness is None else (likeness.vectors, likeness.strength)
    return greedy.places(values, explorable, owed, share, chances, groups, kept, caps, alike)


def _chosen(
    values: NDArray[np.float32],
    explorable: NDArray[np.bool_],
    owed: NDArray[np.bool_],
    share: float,
    chances: NDArray[np.float64],
    spreads: Sequence[Spread],
    likeness: Likeness | None,
) -> greedy.Chosen:
    """The candidate at each place, with which probability it was chosen for it, and whether against the order.

    `owed` are explorable; `chances` (places, 2) decide whether a place explores, and with which candidate.
    """
    around = _Neighbours(spreads, likeness, len(values))
    free = np.ones(len(values), bool)
    learnable, first = explorable.copy(), owed.copy()
    chosen, probabilities = np.zeros(len(chances), np.int64), np.zeros(len(chances))
    explored = np.zeros(len(chances), bool)
    for place, (chance, which) in enumerate(chances.tolist()):
        best = around.best(values, free)
        drawable = first if first.any() else learnable
        count = int(np.count_nonzero(drawable)) if share else 0
        explores = chance < share and count > 0
        choice = int(np.flatnonzero(drawable)[int(which * count)]) if explores else best
        chosen[place], explored[place] = choice, choice != best
        probabilities[place] = _probability(choice == best, bool(drawable[choice]), count, share)
        around.add(choice)
        free[choice] = learnable[choice] = first[choice] = False
    return chosen, probabilities, explored


class _Neighbours:
    """What the last places take off each candidate's value, kept up as they are filled."""

    def __init__(self, spreads: Sequence[Spread], likeness: Likeness | None, count: int) -> None:
        self._spreads = spreads
        self._likeness = likeness
        self._chosen: list[int] = []
        self._same = [np.zeros(count, np.int64) for _ in spreads]
        self._kept = [_kept(spread) for spread in spreads]
        self._like = np.zeros((REACH, count), np.float32)
        self._full = np.zeros(count, bool)

    def best(self, values: NDArray[np.float32], free: NDArray[np.bool_]) -> int:
        """The free candidate with most of its value left beside its neighbours; of a group below its cap while there is one."""
        values = values.copy()
        for kept, same in zip(self._kept, self._same, strict=True):
            values *= kept[same]
        if self._likeness is not None:
            values *= 1 - np.float32(self._likeness.strength) * self._like.max(axis=0)
        found = int(np.argmax(np.where(free, values, -1)))
        if not self._full[found]:
            return found
        below = free & ~self._full
        return int(np.argmax(np.where(below, values, -1))) if below.any() else found

    def add(self, choice: int) -> None:
        """This candidate has the next place; the one that is too far back now counts no longer."""
        self._chosen.append(choice)
        gone = self._chosen[-REACH - 1] if len(self._chosen) > REACH else None
        for spread, same in zip(self._spreads, self._same, strict=True):
            same += _of_group(spread, choice)
            if gone is not None:
                same -= _of_group(spread, gone)
            if spread.cap is not None and np.count_nonzero(_of_group(spread, choice)[self._chosen]) >= spread.cap:
                self._full |= _of_group(spread, choice)
        if self._likeness is not None:
            cosines = self._likeness.vectors @ self._likeness.vectors[choice]
            self._like[(len(self._chosen) - 1) % REACH] = np.clip(cosines, 0, 1)


def _kept(spread: Spread) -> NDArray[np.float32]:
    """(REACH + 1,) what is left of a value beside so many neighbours of its group."""
    kept: NDArray[np.float32] = np.float32(1 - spread.strength) ** np.arange(REACH + 1, dtype=np.float32)
    return kept


def _of_group(spread: Spread, choice: int) -> NDArray[np.bool_]:
    """Candidates of the group of this one."""
    alike: NDArray[np.bool_] = (spread.group == spread.group[choice]) & (spread.group >= 0)
    return alike


def asks(place: int) -> bool:
    """Whether a question stands at this place of a session, counted from 0: at the second, and at each third after it."""
    return place % 3 == 1


def with_questions(places: Sequence[Place], questions: NDArray[np.int64], first: int) -> list[Place]:
    """A list as long, with these rows of the pool where questions stand, its own first place being `first`; what came last gives
    way to them. There are no more questions than places for them."""
    rows = questions.tolist()
    asked = [Place(row, 1.0, explored=False, asked=True) for row in rows]
    rest = iter([place for place in places if place.row not in rows])
    together = []
    for number in range(first, first + len(places)):
        together.append(asked.pop(0) if asked and asks(number) else next(rest))
    return together


def hit(place: int, share: float) -> bool:
    """Whether this place of a session, counted from 0, belongs to what everybody likes, when this share of all does."""
    return int((place + 1) * share) > int(place * share)


def with_hits(places: Sequence[Place], hits: NDArray[np.int64], share: float, first: int, limit: int) -> list[Place]:
    """Up to `limit` places, the first of them number `first` of a session, of which this share goes to these rows of the pool;
    when the places end the list does, and when the hits do the places go on."""
    own = {place.row: place for place in places}
    together: dict[int, Place] = {}
    others, waiting = iter(places), iter(hits.tolist())
    for number in range(first, first + limit):
        row = next((row for row in waiting if row not in together), None) if hit(number, share) else None
        place = None if row is None else own.get(row, Place(row, 1.0, explored=False))
        place = place or next((place for place in others if place.row not in together), None)
        if place is None:
            break
        together[place.row] = place
    return list(together.values())


def _probability(best: bool, explorable: bool, learnable: int, share: float) -> float:
    share = share if learnable else 0.0
    return best * (1 - share) + (share / learnable if explorable and learnable else 0.0)
