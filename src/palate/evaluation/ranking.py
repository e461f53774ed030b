"""Where a model ranks what people took to: all items in blocks of users, or given candidates, in bounded memory.

Ties: an item that was taken to stands behind every other candidate of equal score, so that a model that can't tell gains nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palate import matrix
from palate.domain import Interactions
from palate.machine_code import compiled
from palate.matrix import Sparse
from palate.models.material import Known, known
from palate.vocabulary import Vocabulary

BLOCK = 2**21
"""Scores that are held at a time by one thread; a row for each user, so that one user's always fit."""

Floats = NDArray[np.float32]
ScoreAll = Callable[[Known], Floats]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of n users (rows, ascending) with items of the model; column −1 for an item that the model doesn't know."""

    row: NDArray[np.int64]
    column: NDArray[np.int64]
    value: NDArray[np.float64]
    """What finding the item is worth, or the pair's label."""

    def of(self, first: int, last: int) -> Pairs:
        """Those of the users first … last − 1, whose rows become 0 …"""
        start, end = np.searchsorted(self.row, [first, last])
        return Pairs(self.row[start:end] - first, self.column[start:end], self.value[start:end])


@dataclass(frozen=True, eq=False)
class Questions:
    """What n users are asked about, in terms of one model's I items."""

    known: Known
    seen: Sparse
    """(n, I): left out of the ranking."""
    relevant: Pairs
    """What they took to, with its worth."""
    judged: Pairs
    """What they gave a label, with it."""
    candidates: Sparse | None
    """(n, I): what is ranked with the relevant items; None: all items."""
    items: Vocabulary

    def __len__(self) -> int:
        return len(self.known.users)


@dataclass(frozen=True, eq=False)
class Ranked:
    """What came out for the b users `first` … of a block."""

    first: int
    relevance: NDArray[np.float64]
    """(b, k or more): worth of what stands at each place, best first; 0 for what is not relevant."""
    total: NDArray[np.int64]
    """(b,) relevant items, also those that stand nowhere."""
    complete: bool
    """Whether `relevance` holds all relevant items, not only those among the first k."""
    lists: NDArray[np.int32]
    """(b, k) columns of the items at the top, −1 where there are fewer candidates."""
    first_hit: NDArray[np.float64]
    """(b,) place, from 1, of the best relevant item among all candidates; infinite where none is among them."""
    auc: NDArray[np.float64]
    """(b,) probability that a relevant item stands before another candidate, a tie counting half; NaN without a pair."""
    judged: NDArray[np.float64]
    """Scores of the block's judged pairs, in their order; NaN for items that the model doesn't know."""


def questions(
    users: NDArray[np.int64],
    known_pairs: Interactions,
    relevant: tuple[Interactions, NDArray[np.float64]],
    judged: Interactions,
    items: Vocabulary,
    candidates: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
    *,
    leave_out_seen: bool = True,
) -> Questions:
    """Questions to these users (keys, ascending) from pairs of theirs; pairs of others are left out.

    `relevant` are interactions and what finding each is worth, `candidates` user and item keys. What a user already has is
    left out of the ranking of all items; given candidates are ranked as they are given, copies of the relevant items dropped.
    """
    rows = Vocabulary(users)
    facts = known(known_pairs, users, items)
    empty = Sparse(np.zeros(len(users) + 1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32), len(items))
    seen = facts.weights if leave_out_seen and candidates is None else empty
    asked = _pairs(relevant[0], relevant[1], rows, items)
    return Questions(
        known=facts,
        seen=seen,
        relevant=asked,
        judged=_pairs(judged, judged.label.astype(np.float64), rows, items),
        candidates=None if candidates is None else _candidates(*candidates, rows, items),
        items=items,
    )


def rank(
    score_all: ScoreAll,
    questions: Questions,
    k: int,
    *,
    whole: bool = False,
    threads: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[Ranked]:
    """Rank for each user, in blocks, in order; the first k places are told, and with `whole` those of the whole ranking.

    Memory is bounded by `BLOCK`, the number of threads (None: one a core) and twice that number of results that wait.
    """
    height = max(1, BLOCK // max(len(questions.items), 1))
    starts = range(0, len(questions), height)
    workers = threads or os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        waiting = []
        for start in starts:
            waiting.append(pool.submit(_block, score_all, questions, start, height, k, whole))
            if len(waiting) > 2 * workers:
                yield _told(waiting.pop(0).result(), progress)
        for result in waiting:
            yield _told(result.result(), progress)


def _told(ranked: Ranked, progress: Callable[[int], None]) -> Ranked:
    progress(len(ranked.total))
    return ranked


# --- one block ------------------------------------------------------------------------------------------------------------


def _block(score_all: ScoreAll, questions: Questions, first: int, height: int, k: int, whole: bool) -> Ranked:
    last = min(first + height, len(questions))
    rows = np.arange(first, last)
    scores = np.array(score_all(questions.known.of(rows)), np.float32, order="C")  # a copy: rows are masked
    assert scores.shape == (len(rows), len(questions.items)), "A model scores every item for every user."
    assert np.isfinite(scores).all(), "A model's scores are finite."
    judged, relevant = questions.judged.of(first, last), questions.relevant.of(first, last)
    of_judged = np.where(judged.column >= 0, scores[judged.row, judged.column], np.nan).astype(np.float64)
    scores = _masked(scores, questions, rows, relevant)
    offsets = np.searchsorted(relevant.row, np.arange(len(rows) + 1))
    lists = np.full((len(rows), k), -1, np.int32)
    places = np.full(len(relevant.row), -1, np.int64)
    compiled(_loops, scores, offsets, relevant.column, lists, places)
    first_hit, auc = _of_whole(scores, offsets, relevant.column) if whole else (np.zeros(len(rows)),) * 2
    complete = bool((relevant.value != 1).any())
    relevance = _relevance(relevant, places, offsets, k, complete)
    return Ranked(first, relevance, np.diff(offsets), complete, lists, first_hit, auc, of_judged)


def _masked(scores: Floats, questions: Questions, rows: NDArray[np.int64], relevant: Pairs) -> Floats:
    """Scores of what is ranked, −∞ for what isn't."""
    if questions.candidates is None:
        seen = matrix.taken(questions.seen, rows)
        scores[np.repeat(np.arange(len(rows)), seen.counts), seen.columns] = -np.inf
        return scores
    given = matrix.taken(questions.candidates, rows)
    kept = np.full(scores.shape, -np.inf, np.float32)
    for row, column in (
        (np.repeat(np.arange(len(rows)), given.counts), given.columns),
        (relevant.row[relevant.column >= 0], relevant.column[relevant.column >= 0]),
    ):
        kept[row, column] = scores[row, column]
    return kept


def _relevance(
    relevant: Pairs, places: NDArray[np.int64], offsets: NDArray[np.int64], k: int, complete: bool
) -> NDArray[np.float64]:
    """(b, k) worth by place; `complete` has more columns, for those behind place k: the best list is made of all."""
    width = k
    if complete:
        behind = places < 0
        before = np.concatenate(([0], np.cumsum(behind)))
        places = np.where(behind, k + before[:-1] - before[offsets[relevant.row]], places)
        width = int(places.max(initial=k - 1)) + 1
    result = np.zeros((len(offsets) - 1, width))
    found = places >= 0
    result[relevant.row[found], places[found]] = relevant.value[found]
    return result


def _of_whole(
    scores: Floats, offsets: NDArray[np.int64], columns: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Place of the first relevant item, and AUC, of each row."""
    ordered = np.sort(scores, axis=1)
    first, auc = np.full(len(scores), np.inf), np.full(len(scores), np.nan)
    for row in np.flatnonzero(np.diff(offsets)):
        own = columns[offsets[row] : offsets[row + 1]]
        asked = len(own)
        mine = np.sort(scores[row, own[own >= 0]])
        hidden = int(np.searchsorted(ordered[row], -np.inf, side="right"))
        mine = mine[mine > -np.inf]
        others = scores.shape[1] - hidden - len(mine)
        below = np.searchsorted(ordered[row], mine, side="left") - hidden - np.searchsorted(mine, mine, side="left")
        up_to = np.searchsorted(ordered[row], mine, side="right") - hidden - np.searchsorted(mine, mine, side="right")
        if len(mine):
            first[row] = 1 + others - below[-1]
        if others:
            auc[row] = (below + up_to).sum() / (2 * others * asked)
    return first, auc


# --- the first places -----------------------------------------------------------------------------------------------------


def _readable(
    scores: Floats,
    offsets: NDArray[np.int64],
    columns: NDArray[np.int64],
    lists: NDArray[np.int32],
    places: NDArray[np.int64],
) -> None:
    """For each row the k best columns, and the place of each relevant one among the first k (−1: it isn't there).

    In `lists` the lower column of equal scores comes first. `places` go by score alone: relevant columns stand behind all
    others of equal score. Columns of −∞ are nowhere.
    """
    k = lists.shape[1]
    for row, own in enumerate(scores):
        best = np.lexsort((np.arange(len(own)), -own))[:k]
        best = best[own[best] > -np.inf]
        lists[row, : len(best)] = best
        mine = np.arange(offsets[row], offsets[row + 1])
        mine = mine[columns[mine] >= 0]
        mine = mine[own[columns[mine]] > -np.inf]
        relevant = np.zeros(len(own), bool)
        relevant[columns[mine]] = True
        order = np.lexsort((relevant, -own))
        standing = np.empty(len(own), np.int64)
        standing[order] = np.arange(len(own))
        found = standing[columns[mine]]
        places[mine] = np.where(found < k, found, -1)


def _loops(
    scores: Floats,
    offsets: NDArray[np.int64],
    columns: NDArray[np.int64],
    lists: NDArray[np.int32],
    places: NDArray[np.int64],
) -> None:
    """What is compiled: `_readable` in one pass over each row."""
    k = lists.shape[1]
    width = scores.shape[1]
    values = np.empty(k + 1, np.float32)
    names = np.empty(k + 1, np.int32)
    for row in range(len(scores)):
        held, low = 0, np.float32(-np.inf)
        for start in range(0, width, 64):
            end = min(start + 64, width)
            # most stretches hold nothing for the top, which one sweep tells that the processor does eight at a time
            above = 0
            for column in range(start, end):
                above += scores[row, column] > low
            if above == 0:
                continue
            for column in range(start, end):
                score = scores[row, column]
                if score <= low:
                    continue
                place = held if held <= k else k
                while place > 0 and values[place - 1] < score:
                    values[place], names[place] = values[place - 1], names[place - 1]
                    place -= 1
                values[place], names[place] = score, column
                held = min(held + 1, k + 1)
                if held > k:
                    low = np.float32(values[k])
        for place in range(min(held, k)):
            lists[row, place] = names[place]
        for n in range(offsets[row], offsets[row + 1]):
            if columns[n] < 0:
                continue
            score = scores[row, columns[n]]
            if score == -np.inf or (held > k and score < values[k]):
                continue
            reached = 0  # candidates that score as much or more
            if held > k and score == values[k]:
                for column in range(width):
                    reached += scores[row, column] >= score
            else:
                while reached < held and values[reached] >= score:
                    reached += 1
            behind = 0  # relevant ones of the same score that stand behind this one
            for other in range(offsets[row], offsets[row + 1]):
                if columns[other] >= 0 and scores[row, columns[other]] == score and other > n:
                    behind += 1
            place = reached - 1 - behind
            if place < k:
                places[n] = place


# --- keys to rows and columns ---------------------------------------------------------------------------------------------


def _pairs(pairs: Interactions, values: NDArray[np.float64], users: Vocabulary, items: Vocabulary) -> Pairs:
    row = users.rows(pairs.user)
    kept = (row >= 0) & ~np.isnan(values)
    row, column, values = row[kept], items.rows(pairs.item[kept]), values[kept]
    order = np.argsort(row, kind="stable")
    return Pairs(row[order], column[order], values[order])


def _candidates(user: NDArray[np.int64], item: NDArray[np.int64], users: Vocabulary, items: Vocabulary) -> Sparse:
    row, column = users.rows(user), items.rows(item)
    kept = (row >= 0) & (column >= 0)
    row, column = row[kept], column[kept]
    return matrix.sparse(row, column, np.ones(len(row), np.float32), (len(users), len(items)))
