"""Greedy choices in machine code: what stands at each place of a list, and which questions a list asks.

Each beside its readable form: `ranking.arranging` for places, `ranking.asking` for questions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from palate.machine_code import compiled

FREEDOMS = frozenset({"reassoc"})
"""With the order in which sums are added: the last digits of a covariance decide nothing."""

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Rows = NDArray[np.int64]
Chosen = tuple[Rows, Doubles, NDArray[np.bool_]]


def places(
    values: Floats,
    explorable: NDArray[np.bool_],
    owed: NDArray[np.bool_],
    share: float,
    chances: Doubles,
    groups: NDArray[np.int32],
    kept: Floats,
    caps: NDArray[np.int64],
    likeness: tuple[Floats, float],
) -> Chosen:
    """The candidate at each place, with which probability it was chosen for it, and whether against the order.

    `values`, `explorable` and `owed` (which are explorable) are (n,); `chances` (places, 2) decide whether a place explores, and
    with which candidate; `groups` (s, n), `kept` (s, reach + 1), what is left of a value beside so many neighbours of its group,
    and `caps` (s,), −1 for none, are the spreads; `likeness` is (n, d) vectors, with d = 0 for none, and its strength.
    """
    size = len(chances)
    chosen, probabilities, explored = np.zeros(size, np.int64), np.zeros(size), np.zeros(size, np.bool_)
    compiled(
        _choose,
        np.array(values, np.float32),
        (np.array(explorable, np.bool_), np.array(owed, np.bool_)),
        float(share),
        np.array(chances, np.float64),
        (np.array(groups, np.int32), np.array(kept, np.float32), np.array(caps, np.int64)),
        (np.array(likeness[0], np.float32), np.float32(likeness[1])),
        (chosen, probabilities, explored),
    )
    return chosen, probabilities, explored


def questions(
    vectors: Floats,
    source: NDArray[np.int32],
    label_offsets: Rows,
    labels: NDArray[np.int32],
    items: int,
    l2: tuple[float, float, float, float],
    answered: int,
    count: int,
) -> Rows:
    """The first `count` of the `items` to ask about, as rows; the first `answered` of them were asked about before.

    The columns are of the items and, behind them, of the population that answers are to tell about. `l2` are those of a vector's
    column, of the bias, of a source's and of a label's weight.
    """
    constant = np.full((len(vectors), 1), np.sqrt(1 / l2[1]))
    wide = np.append(vectors / np.sqrt(l2[0]), constant, axis=1)
    covariances = wide[:items] @ wide.T
    chosen = np.zeros(min(count, items - answered), np.int64)
    features = np.array(source, np.int32), np.array(label_offsets, np.int64), np.array(labels, np.int32)
    compiled(_ask, covariances, *features, float(l2[2]), float(l2[3]), answered, chosen, fastmath=FREEDOMS)
    return chosen


def prepare() -> None:
    """Make the machine code that requests would else wait for; kept on disk it is made once for all processes."""
    one, none = np.ones((1, 1)), np.zeros(1, np.bool_)
    groups, nothing = np.zeros((1, 1), np.int32), np.zeros((1, 0), np.float32)
    places(_single(1), none, none, 0.0, np.ones((1, 2)), groups, _single([[1, 1]]), np.array([-1]), (nothing, 0.0))
    questions(one.astype(np.float32), groups[0], np.array([0, 1]), groups[0], 1, (1.0, 1.0, 1.0, 1.0), 0, 1)


def _single(values: ArrayLike) -> Floats:
    return np.atleast_1d(np.array(values, np.float32))


def _choose(values: Any, learnable: Any, share: Any, chances: Any, spreads: Any, likeness: Any, found: Any) -> None:
    """Fill the places, one after the other."""
    explorable, first = learnable
    groups, kept, caps = spreads
    chosen, probabilities, explored = found
    count, reach = len(values), kept.shape[1] - 1
    free, full = np.ones(count, np.bool_), np.zeros(count, np.bool_)
    same = np.zeros(groups.shape, np.int64)
    like = np.zeros((reach, count if likeness[0].shape[1] else 0), np.float32)
    worth = np.empty(count, np.float32)
    for place in range(len(chosen)):
        _weigh(values, same, kept, like, likeness[1], worth)
        best = _best(worth, free, full)
        drawable = first if first.any() else explorable
        drawn = np.count_nonzero(drawable) if share > 0 else 0
        choice = best
        if drawn and chances[place, 0] < share:
            choice = _numbered(drawable, int(chances[place, 1] * drawn))
        explores = share if drawn else 0.0
        probability = 1 - explores if choice == best else 0.0
        if drawn and drawable[choice]:
            probability += explores / drawn
        chosen[place], probabilities[place], explored[place] = choice, probability, choice != best
        free[choice] = explorable[choice] = first[choice] = False
        _add(chosen[: place + 1], groups, caps, reach, same, full)
        if len(like[0]):
            _liken(like[place % reach], likeness[0], choice)


def _weigh(values: Any, same: Any, kept: Any, like: Any, strength: Any, worth: Any) -> None:
    """What its neighbours leave of each candidate's value."""
    worth[:] = values
    for kind in range(len(kept)):
        for row in range(worth.size):
            worth[row] *= kept[kind, same[kind, row]]
    if len(like[0]):
        nearest = like[0].copy()
        for turn in range(1, len(like)):
            for row in range(worth.size):
                nearest[row] = max(nearest[row], like[turn, row])
        worth *= np.float32(1) - strength * nearest


def _best(worth: Any, free: Any, full: Any) -> int:
    """The free candidate of most worth; of a group below its cap while there is one."""
    best, below = -1, -1
    most, most_below = np.float32(-1), np.float32(-1)
    for row in range(worth.size):
        if free[row] and worth[row] > most:
            best, most = row, worth[row]
        if free[row] and not full[row] and worth[row] > most_below:
            below, most_below = row, worth[row]
    return below if below >= 0 else best


def _numbered(marked: Any, number: int) -> int:
    """The marked candidate of this number."""
    row = -1
    for _ in range(number + 1):
        row += 1
        while not marked[row]:
            row += 1
    return row


def _add(chosen: Any, groups: Any, caps: Any, reach: int, same: Any, full: Any) -> None:
    """The last of the chosen counts as a neighbour from now on, and the one that is too far back no longer."""
    for kind in range(len(groups)):
        group = groups[kind]
        own, gone = group[chosen[-1]], np.int32(-1)
        if len(chosen) > reach:
            gone = group[chosen[-reach - 1]]
        for row in range(group.size):
            same[kind, row] += np.int64(own >= 0 and group[row] == own) - np.int64(gone >= 0 and group[row] == gone)
        if caps[kind] >= 0 and own >= 0:
            taken = 0
            for row in chosen:
                taken += group[row] == own
            if taken >= caps[kind]:
                full |= group == own


def _liken(like: Any, vectors: Any, choice: int) -> None:
    """How much each candidate is like the one chosen."""
    for row in range(len(like)):
        cosine = np.float32(0)
        for column in range(vectors.shape[1]):
            cosine += vectors[row, column] * vectors[choice, column]
        like[row] = min(max(cosine, np.float32(0)), np.float32(1))


def _ask(
    covariances: Any, source: Any, offsets: Any, labels: Any, by_source: Any, by_label: Any, answered: int, chosen: Any
) -> None:
    """Choose questions by the covariances of scores, (items, items and population), to which sources and labels are added."""
    _relate(covariances, source, offsets, labels, by_source, by_label)
    asked = np.zeros(len(covariances), np.bool_)
    for row in range(answered):
        asked[row] = True
        _answer(covariances, row)
    for number in range(len(chosen)):
        if number:
            _answer(covariances, chosen[number - 1])
        chosen[number] = _most_telling(covariances, asked)
        asked[chosen[number]] = True


def _relate(covariances: Any, source: Any, offsets: Any, labels: Any, by_source: Any, by_label: Any) -> None:
    """Add what items have in common beside their vectors; the labels of each are of length 1 together."""
    starts, those = _postings(offsets, labels)
    lengths = np.sqrt(np.maximum(offsets[1:] - offsets[:-1], 1))
    for row in range(len(covariances)):
        own = covariances[row]
        if source[row] >= 0:
            for other in range(source.size):
                own[other] += 1 / by_source if source[other] == source[row] else 0.0
        for place in range(offsets[row], offsets[row + 1]):
            label = labels[place]
            for other in those[starts[label] : starts[label + 1]]:
                own[other] += 1 / (by_label * lengths[row] * lengths[other])


def _postings(offsets: Any, labels: Any) -> Any:
    """Which items have each label: those of label l are `those[starts[l]:starts[l + 1]]`."""
    starts = np.zeros(labels.max() + 2 if len(labels) else 1, np.int64)
    for label in labels:
        starts[label + 1] += 1
    starts = np.cumsum(starts)
    those, filled = np.empty(len(labels), np.int64), starts.copy()
    for row in range(len(offsets) - 1):
        for place in range(offsets[row], offsets[row + 1]):
            those[filled[labels[place]]] = row
            filled[labels[place]] += 1
    return starts, those


def _most_telling(covariances: Any, asked: Any) -> int:
    """The item after whose answer the population's scores vary least."""
    items = len(covariances)
    best, most = -1, -np.inf
    for row in range(items):
        if asked[row]:
            continue
        own, left = covariances[row], 0.0
        for other in range(items, own.size):
            left += own[other] * own[other]
        gain = left / (1 + own[row])
        if gain > most or best < 0:
            best, most = row, gain
    return best


def _answer(covariances: Any, row: int) -> None:
    """What is left of the covariances after the answer about an item, whose noise has variance 1."""
    told = covariances[row].copy()
    part = covariances[:, row] / (1 + told[row])
    for item in range(len(covariances)):
        own, lost = covariances[item], part[item]
        for other in range(own.size):
            own[other] -= lost * told[other]
