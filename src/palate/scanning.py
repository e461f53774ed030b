"""The best items of an index's lists by a person's own score, age included: one pass in machine code over what lies side by side.

What the score reads of an item (its vector's bytes, source, labels, date) is kept in the order of the lists, so that a hundred
thousand items are gone through in a millisecond or two. What can't come among the best whatever its labels and source add is left
after its product.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from palate.domain import to_milliseconds
from palate.machine_code import compiled
from palate.models.factorization_machine import MARGIN, link
from palate.models.nearest import Asked, Index
from palate.pool import LABELS_PER_ITEM, NO_DATE, Pool

Floats = NDArray[np.float32]
Bits = NDArray[np.uint8]
Places = NDArray[np.integer[Any]]

FIRST = 4
"""Labels of an item that are reckoned with here."""
ROW, MINUTE, SOURCE, COUNT, LABELS = range(5)
MILLISECONDS = 60_000
"""Of a minute."""
UNDATED = np.iinfo(np.int32).max
"""Minutes of an item without a date: it lies after any now, and so is always new."""
STEPS = 256
"""In a half-life, by which what age takes off is looked up."""
NEAR = 1e-5
"""Of a sum that is told apart from another: what is left after it, for how sums are rounded."""
HALVES = 16
"""Half-lives after which nothing more is taken off."""


@dataclass(frozen=True, eq=False)
class Listed:
    """An inverted file with its m items in the order in which they lie in it, list by list; a place is a number below m."""

    index: Index
    items: NDArray[np.int32]
    """(m, LABELS + FIRST) what a scan reads of each, in one piece, since each piece is waited for: at ROW its row in the pool, −1
    for one that isn't there; at MINUTE when it was published, since 1970; at SOURCE the number of its source, and 1: 0 stands for
    none; at COUNT how many labels it has; and from LABELS on the first of them, as the source."""
    places: NDArray[np.int32]
    """(n,) of each row of the pool, −1 for one that the index doesn't have."""
    columns: Bits
    """(m · d,) the bytes of the vectors list by list, those of a list number by number: many are multiplied by one number at a
    time."""


class Weights(NamedTuple):
    """What a person's score is made of beside the product of vectors."""

    squared: bool
    """Whether the loss is the squared one; else it is the logistic one."""
    start: float
    """What is added to every item's sum."""
    sources: Floats
    """What is added for each number at SOURCE; likewise `labels`."""
    labels: Floats
    curved: bool
    """Whether the logistic curve of slope · product + intercept is a part of the sum, instead of the product."""
    slope: float
    intercept: float


class Age(NamedTuple):
    """What is left of an item's value at each age."""

    now: int
    """Minutes since 1970."""
    a_minute: float
    """Entries of `kept` for a minute."""
    kept: Floats


class Best(NamedTuple):
    """Places of the best, the best first: of all, and of those that the person's own weights lift."""

    every: Places
    lifted: Places


def listed(pool: Pool, index: Index, rows: NDArray[np.int64]) -> Listed:
    """`rows` (vectors of the index,) says where in the pool each of its items is."""
    own = rows[index.members[1]]
    inside = np.flatnonzero(own >= 0)
    places = np.full(len(pool), -1, np.int32)
    places[own[inside]] = inside
    minutes = np.where(pool.published == NO_DATE, UNDATED * MILLISECONDS, pool.published) // MILLISECONDS
    counts = np.diff(pool.label_offsets)
    first = np.minimum(pool.label_offsets[:-1, np.newaxis] + np.arange(FIRST), len(pool.labels))
    labels = np.append(pool.labels, np.int32(-1))[first] + 1
    labels[np.arange(FIRST) >= counts[:, np.newaxis]] = 0
    items = np.column_stack(
        (np.arange(len(pool)), np.clip(minutes, 0, UNDATED), pool.source + 1, counts, labels)
    ).astype(np.int32)
    items = items[own]
    items[own < 0, ROW] = -1
    return Listed(index, items, places, _columns(index))


def _columns(index: Index) -> Bits:
    (memory, codes), starts, wide = index.codes, index.members[0], index.width
    columns = np.empty(starts[-1] * wide, np.uint8)
    for code, start, end in zip(codes.tolist(), starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        own = memory[code : code + (end - start) * wide].reshape(end - start, wide)
        columns[start * wide : end * wide] = own.T.reshape(-1)
    return columns


def prepare() -> None:
    """Make the machine code that requests would else wait for; kept on disk it is made once for all processes."""
    memory, nothing, none = np.zeros(1, np.uint8), np.zeros(1, np.float32), np.zeros(0, np.int64)
    memory.flags.writeable = False  # as an array of a snapshot is
    starts, items = np.array([0, 1]), np.zeros((1, LABELS + FIRST), np.int32)
    asked = none, nothing, nothing, 0.0
    weights, years = (True, 0.0, nothing, nothing, False, 1.0, 0.0), (0, 0.0, nothing)
    heaps = nothing, np.zeros(1, np.int64)
    bytes_ = memory, np.zeros(1, np.int64), memory.copy()
    compiled(_scan, bytes_, starts, items, asked, weights, years, memory.copy(), items[0, :0], heaps, heaps)


def age(now: datetime, most: float, half_life_days: float) -> Age:
    """By which an item loses the part `most` of its value as it ages, half of that in each half-life."""
    minutes = half_life_days * 24 * 60
    return Age(to_milliseconds(now) // MILLISECONDS, STEPS / minutes, _kept(most))


@lru_cache(maxsize=8)
def _kept(most: float) -> Floats:
    """What is left at each step."""
    kept: Floats = (1 - most * (1 - np.exp2(-np.arange(STEPS * HALVES + 1) / STEPS))).astype(np.float32)
    return kept


def best(
    items: Listed, asked: Asked, weights: Weights, age: Age, bits: Bits, beside: Places, limits: tuple[int, int]
) -> Best:
    """Of the items in the lists that `asked` names, and of the places `beside`, the best whose bits are set.

    `beside` ascends; what comes twice counts once, and −1 nothing.
    `limits` are how many of all, and how many of those lifted.
    """
    sizes = [max(limit, 1) for limit in limits]  # a heap of nothing has no least
    heaps = [(np.full(size, -np.inf, np.float32), np.zeros(size, np.int64)) for size in sizes]
    starts = items.index.members[0]
    # plain tuples: kept machine code that names a class can't be read once the class is gone
    given = tuple(asked), tuple(weights), tuple(age)
    compiled(_scan, (*items.index.codes, items.columns), starts, items.items, *given, bits, beside, *heaps)
    return Best(*(_falling(*heap)[:limit] for heap, limit in zip(heaps, limits, strict=True)))


def _falling(values: Floats, places: Places) -> Places:
    order = np.argsort(-values, kind="stable")
    return places[order[: np.count_nonzero(values > -np.inf)]]


def readable(
    items: Listed, asked: Asked, weights: Weights, age: Age, bits: Bits, beside: Places, limits: tuple[int, int]
) -> Best:
    """What `best` gives, as it reads."""
    starts = items.index.members[0]
    inside = [np.arange(starts[number], starts[number + 1]) for number in asked.lists.tolist()]
    places = np.unique(np.concatenate([*inside, beside[beside >= 0]])).astype(np.int64)
    rows = items.items[places, ROW]
    places = places[(rows >= 0) & (bits[rows >> 3] >> (rows & 7) & 1 == 1)]
    values, lift = values_of(items, asked, weights, age, places)
    order = np.argsort(-values, kind="stable")
    return Best(places[order][: limits[0]], places[order][lift[order] > 0][: limits[1]])


def values_of(items: Listed, asked: Asked, weights: Weights, age: Age, places: Places) -> tuple[Floats, Floats]:
    """(n,) the values of these places, and what the person's own weights add to their sums."""
    own, products = items.items[places], _products(items, asked, places)
    if weights.curved:
        products = link(weights.slope * products + np.float32(weights.intercept), "logistic")
    lift = weights.labels[own[:, LABELS:]].sum(axis=1) / np.sqrt(np.maximum(own[:, COUNT], 1), dtype=np.float32)
    lift += weights.sources[own[:, SOURCE]]
    raw = products + lift + np.float32(weights.start)
    scores = link(raw, "squared" if weights.squared else "logistic")
    values = np.maximum(raw, scores) if weights.squared else scores
    old = np.maximum(age.now - own[:, MINUTE].astype(np.int64), 0) * age.a_minute
    return values * age.kept[np.minimum(old, len(age.kept) - 1).astype(np.int64)], lift


def _products(items: Listed, asked: Asked, places: Places) -> Floats:
    starts, (memory, codes) = items.index.members[0], items.index.codes
    own = np.searchsorted(starts, places, "right") - 1
    first = codes[own] + (places - starts[own]) * len(asked.step)
    told = memory[first[:, np.newaxis] + np.arange(len(asked.step))].astype(np.float32)
    return np.asarray((told * asked.step).sum(axis=1) + asked.near[own] + np.float32(asked.start), np.float32)


def _scan(
    vectors: Any,
    starts: Any,
    items: Any,
    asked: Any,
    weights: Any,
    age: Any,
    bits: Any,
    beside: Any,
    best: Any,
    lifted: Any,
) -> None:
    """Put the greatest values and their places into heaps, the least first."""
    memory, codes, columns = vectors
    lists, near, step, start = asked
    probed = np.zeros(len(codes), np.bool_)
    by_source = max(weights[2].max(), np.float32(0))
    by_labels = _most_of_labels(weights[3])
    longest = max((starts[1:] - starts[:-1]).max(), len(beside))
    products, lifts = np.empty(longest, np.float32), np.empty(longest, np.float32)
    places, numbers = np.empty(longest, np.int64), np.empty(longest, np.int64)
    for turn in range(len(lists) + 1):
        first, count = 0, 0
        if turn < len(lists):
            own = lists[turn]
            probed[own] = True
            first, count = starts[own], starts[own + 1] - starts[own]
            _multiply_list(columns[first * len(step) :], step, np.float32(near[own] + start), products[:count])
        else:
            count = _multiply_beside(memory, codes, starts, beside, probed, asked, products, places)
        if turn < len(lists):
            places[:count] = np.arange(first, first + count)
        passed = _above(products[:count], _floor(best, lifted, weights, by_source + by_labels), numbers)
        if weights[4]:
            _bend(products, passed, weights[5], weights[6])
        passed = _lift(products, places, passed, items, weights, best, lifted, lifts)
        _sift(products, lifts, places, passed, items, weights, age, bits, best, lifted)


def _most_of_labels(weights: Any) -> Any:
    """The most that an item's labels can add, none of which it has twice."""
    greatest = np.zeros(FIRST, np.float32)
    for weight in weights:
        if weight > greatest[0]:
            greatest[0] = weight
            greatest.sort()
    most, total = np.float32(0), np.float32(0)
    for count in range(FIRST):
        total += greatest[FIRST - 1 - count]
        most = max(most, total / np.float32(np.sqrt(count + 1)))
    return most


def _floor(best: Any, lifted: Any, weights: Any, most: Any) -> Any:
    """What a product must be above for its item to come into a heap, if the person's own weights add the most they can."""
    squared, start, _, _, curved, slope, intercept = weights
    least = min(best[0][0], lifted[0][0]) if most > 0 else best[0][0]
    if curved and slope <= 0:
        return np.float32(-np.inf)
    floor = _least_sum(least, squared) - start - most - NEAR
    return np.float32((_log_odds(floor) - intercept) / slope if curved else floor)


def _above(products: Any, floor: Any, numbers: Any) -> Any:
    """The numbers of those above it: without a branch, which would be guessed wrong half the time."""
    count = 0
    for number in range(len(products)):
        numbers[count] = number
        count += products[number] > floor
    return numbers[:count]


def _bend(products: Any, passed: Any, slope: Any, intercept: Any) -> None:
    """Put the logistic curve of each product in its place."""
    for number in passed:
        products[number] = 1 / (1 + np.exp(-(slope * products[number] + intercept)))


def _lift(products: Any, places: Any, passed: Any, items: Any, weights: Any, best: Any, lifted: Any, lifts: Any) -> Any:
    """Add to products what the person's own weights say, which is kept in `lifts` too; returns which are left that can come into
    a heap."""
    squared, start, of_source, of_label, _, _, _ = weights
    all_above = np.float32(_least_sum(best[0][0], squared) - start - NEAR)
    lifted_above = np.float32(_least_sum(lifted[0][0], squared) - start - NEAR)
    roots = 1 / np.sqrt(np.maximum(np.arange(LABELS_PER_ITEM + 1), 1).astype(np.float32))
    count: Any = 0
    for turn in range(len(passed)):
        number = np.uint64(passed[turn])
        own = items[np.uint64(places[number])]  # unsigned: nothing is counted from an end
        lift = np.float32(0)
        for label in range(FIRST):
            lift += of_label[np.uint32(own[np.uint64(LABELS + label)])]
        lift = of_source[np.uint32(own[np.uint64(SOURCE)])] + lift * roots[np.uint32(own[np.uint64(COUNT)])]
        total = products[number] + lift
        products[number] = total
        lifts[number] = lift
        passed[count] = number  # no later than where it was read from
        count += np.int64((total > all_above) | ((lift > 0) & (total > lifted_above)))
    return passed[:count]


def _multiply_list(columns: Any, step: Any, start: Any, products: Any) -> None:
    """The products of the vectors of a list, whose bytes lie number by number."""
    count = np.uint64(len(products))
    products[:] = start
    at = np.uint64(0)
    for column in range(len(step)):
        own, by = columns[at : at + count], step[column]
        for number in range(count):
            products[number] += by * np.float32(own[number])
        at += count


def _multiply_beside(
    memory: Any, codes: Any, starts: Any, beside: Any, probed: Any, asked: Any, products: Any, places: Any
) -> int:
    """The products of places here and there whose lists weren't looked into; returns how many they are."""
    _, near, step, start = asked
    own, count, wide = 0, 0, np.uint64(len(step))
    for number in range(len(beside)):
        place = beside[number]
        if place < 0 or (number and place == beside[number - 1]):
            continue
        while starts[own + 1] <= place:
            own += 1
        if not probed[own]:
            at = np.uint64(codes[own] + (place - starts[own]) * len(step))
            product = np.float32(near[own] + start)
            for column in range(wide):
                product += step[column] * np.float32(memory[at + column])
            places[count], products[count] = place, product
            count += 1
    return count


def _least_sum(value: Any, squared: bool) -> Any:
    if squared:
        return value if value >= MARGIN else -np.inf
    return _log_odds(value)


def _log_odds(probability: Any) -> Any:
    if probability <= 0:
        return -np.inf
    return np.inf if probability >= 1 else np.log(probability / (1 - probability))


def _sift(
    sums: Any,
    lifts: Any,
    places: Any,
    passed: Any,
    items: Any,
    weights: Any,
    age: Any,
    bits: Any,
    best: Any,
    lifted: Any,
) -> None:
    """Put the open ones of those that passed into the heaps that they are good enough for."""
    (best_values, best_places), (lifted_values, lifted_places) = best, lifted
    squared, start = weights[0], weights[1]
    now, a_minute, kept = age
    for number in passed:
        place = places[number]
        row = items[place, ROW]
        if row < 0 or not (bits[row >> 3] >> (row & 7)) & 1:
            continue
        part = kept[min(int(max(now - items[place, MINUTE], 0) * a_minute), len(kept) - 1)]
        value = np.float32(_value(sums[number] + start, squared) * part)
        if value > best_values[0]:
            _replace_least(best_values, best_places, value, place)
        if lifts[number] > 0 and value > lifted_values[0]:
            _replace_least(lifted_values, lifted_places, value, place)


def _value(raw: Any, squared: bool) -> Any:
    """What `link` says of a sum; of a squared loss the sum itself, where that is more."""
    if squared:
        return raw if raw >= MARGIN else MARGIN * MARGIN / (2 * MARGIN - raw)
    return 1 / (1 + np.exp(-raw))


def _replace_least(values: Any, places: Any, value: Any, place: int) -> None:
    """Of a heap (Williams, "Algorithm 232: Heapsort", 1964)."""
    size, at = len(values), 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and values[child + 1] < values[child]:
            child += 1
        if values[child] >= value:
            break
        values[at], places[at] = values[child], places[child]
        at = child
    values[at], places[at] = value, place
