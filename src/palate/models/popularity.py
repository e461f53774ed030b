"""What most people take to: the score for somebody nobody knows, and for everybody where most of what is read is new.

Two measures: the *rate* of positive labels of each item, shrunk to that of all, and the *count* of its positives, each by its
weight. Old ones fade. With groups (sources) a person's own shares of the groups say how much each item counts for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from palate import splits
from palate.domain import Interactions, from_milliseconds, to_milliseconds
from palate.models.factorization_machine import ItemSources
from palate.models.material import Known, Material
from palate.vocabulary import Vocabulary, vocabulary

Floats = NDArray[np.float32]
Sums = NDArray[np.float64]

DAY = 24 * 3600 * 1000
STEP = 240 * 1000
"""Milliseconds in which a clock is set: within a step time passes evenly."""
WEAKEST, STRONGEST = 1.0, 1000.0

HALF_LIVES = (365.0, 120.0, 30.0, 10.0, 3.0, 1.0, 0.4, 0.15)
"""Days; what is tried where the settings name none."""
USUAL = 30.0
"""Where too little is told to choose."""
RECENT = 500_000
"""The newest examples, by which it is chosen."""
ENOUGH = 200
"""Positives to foretell, below which nothing is chosen."""


class PopularityParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How popularity is counted."""

    by: Literal["auto", "rate", "count"] = "auto"
    """What items are ordered by: `rate`, the mean label; `count`, the sum of the weights; `auto`, the rate where some labels are
    above ½ and some are not, else the count. The rate that serving starts from is kept with all three."""
    half_life_days: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """After so many days an example counts half; none means by what popularity best foretells the newest of what people took to:
    hours with news, years with films. A day with less going on than is usual is a shorter one, and one without any takes no time:
    a log that rests doesn't fade."""
    window_days: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """What happened longer ago, by the calendar, counts nothing; none means that everything counts."""
    strength: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """How many examples the rate of all items weighs in the rate of one; none means estimated from how items differ."""
    group: Literal["source"] | None = None
    """Whether an item counts for a person by how much of what they took to is of its group; none means the same for all."""
    group_strength: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    """How much of a person's weights everybody's shares of the groups weigh as."""


@dataclass(frozen=True, eq=False)
class Clock:
    """A time that passes with what is going on: a day with fewer examples than is typical is shorter in proportion.

    By the calendar a single new vote on an import of years ago would leave nothing of it. So the new may push out the old only
    as fast as it comes in. A typical day is the one that a typical example is of: Σn² / Σn of the numbers n by day.
    """

    moments: NDArray[np.float64]
    """(K,) milliseconds since 1970, ascending."""
    passed: NDArray[np.float64]
    """(K,) days by then: between two moments they pass evenly, before the first and after the last not at all."""
    typical: float
    """Examples of a typical day."""
    until: int
    """The millisecond up to which the examples are those that it was made of."""

    def at(self, moments: ArrayLike) -> NDArray[np.float64]:
        """The time at these milliseconds since 1970."""
        return np.asarray(np.interp(np.asarray(moments, np.float64), self.moments, self.passed))


@dataclass(frozen=True, eq=False)
class Groups:
    """Which of G groups each of I items is of."""

    of_items: NDArray[np.int32]
    """(I,): −1 for an item of none."""
    share: Floats
    """(G,): of all positive weights; sums to 1."""
    strength: float
    """How much of a person's weights these shares weigh as."""


@dataclass(frozen=True, eq=False)
class Popularity:
    """What is known of each of I items; the prior is Beta(strength · prior_mean, strength · (1 − prior_mean))."""

    items: Vocabulary
    mean: Floats
    """(I,): posterior mean of the positive rate"""
    evidence: Floats
    """(I,): number of examples behind it, each decayed by its age"""
    prior_mean: float
    strength: float
    count: Floats
    """(I,): sum of the weights, refusals subtracted, each decayed by its age"""
    by_count: bool
    """Whether `score_all` orders by `count`, not `mean`."""
    groups: Groups | None = None
    half_life_days: float = USUAL
    clock: Clock | None = None
    """By which examples fade; None where that isn't known."""


@dataclass(frozen=True, eq=False)
class Tally:
    """What was said of each of I items, summed up; every array is (I,). *Decayed* sums count what is old less."""

    evidence: Sums
    """Number of the labels, decayed."""
    positive: Sums
    """Sum of the labels, decayed."""
    count: Sums
    """Sum of the weights, decayed."""
    labels: Sums
    """Number of the labels."""
    sums: Sums
    """Sum of the labels."""
    squares: float
    """Sum of the squares of all labels."""
    taken: Sums
    """Sum of the weights above 0."""
    differ: bool
    """Whether labels tell good from bad: where all are likes their rate is the same for every item."""


def fit(interactions: Interactions, now: datetime, params: PopularityParams) -> Popularity:
    """Count the labels (0..1; NaN is no example) and weights of each item, old ones less; no groups.

    Items without an example are at the prior. Weights that aren't finite are left out.
    """
    items, params = vocabulary(interactions.item), settled(interactions, params)
    return _fit(items, tally(interactions, items, now, params), params)


def fit_items(material: Material, params: PopularityParams) -> Popularity:
    """With a row for each item of the material, also for those that no interaction is of, and its groups."""
    params = settled(material.interactions, params)
    found = tally(material.interactions, material.items, material.now, params)
    return fit_tally(material.items, found, material.item_sources, params)


def fit_tally(
    items: Vocabulary, found: Tally, sources: ItemSources, params: PopularityParams, known: Clock | None = None
) -> Popularity:
    """`fit_items` from the sums by item, and the clock by which they were made."""
    groups = _groups(items, found, sources, params) if params.group else None
    return replace(_fit(items, found, params), groups=groups, clock=known)


def settled(interactions: Interactions, params: PopularityParams) -> PopularityParams:
    """With a half-life: where none is given, that of `HALF_LIVES` by which the first nine tenths of the newest examples put what
    was taken to in the last tenth nearest to the top, each positive counting 1 / log₂(1 + place). Of those within a hundredth
    of the best the longest.
    """
    if params.half_life_days is not None:
        return params
    usual = msgspec.structs.replace(params, half_life_days=USUAL)
    if not len(interactions):
        return usual
    recent = splits.rows(interactions, splits.newest(interactions.time, min(1.0, RECENT / len(interactions))))
    late = splits.newest(recent.time, 0.1)
    items, wanted = vocabulary(recent.item), recent.item[late & (np.nan_to_num(recent.weight) > 0)]
    if late.all() or len(wanted) < ENOUGH:
        return usual
    before, until = splits.rows(recent, ~late), from_milliseconds(int(recent.time[~late].max()))
    counts = np.bincount(items.rows(wanted), minlength=len(items))
    tried = [msgspec.structs.replace(params, half_life_days=days) for days in HALF_LIVES]
    found = [_foretold(_fit(items, tally(before, items, until, one), one), counts) for one in tried]
    return next(one for one, value in zip(tried, found, strict=True) if value >= 0.99 * max(found))


def _foretold(model: Popularity, counts: NDArray[np.int64]) -> float:
    """Sum over positives, of which `counts` (I,) are of each item, of 1 / log₂(1 + place)."""
    order = np.argsort(-(model.count if model.by_count else model.mean), kind="stable")
    return float((counts[order] / np.log2(2 + np.arange(len(order)))).sum())


def tally(
    interactions: Interactions, items: Vocabulary, now: datetime, params: PopularityParams, known: Clock | None = None
) -> Tally:
    """The sums of all items, of which the interactions name no others; by `settled` parameters and a clock, or their own."""
    assert params.half_life_days is not None, "The parameters are settled."
    positive = np.where(np.isfinite(interactions.weight), interactions.weight, 0) > 0
    told = splits.rows(interactions, _tells(interactions, now, params.window_days))
    passing, until = known or clock_of(told.time, to_milliseconds(now)), to_milliseconds(now)
    rows = items.rows(told.item)
    fading = np.exp2(np.minimum(passing.at(told.time) - passing.at(until), 0) / params.half_life_days)
    labelled = ~np.isnan(told.label)
    labels, of_labels = told.label[labelled].astype(np.float64), rows[labelled]
    weights = np.where(np.isfinite(told.weight), told.weight, 0).astype(np.float64)

    def by_item(rows: NDArray[np.int64], values: NDArray[Any]) -> Sums:
        return np.bincount(rows, values, len(items)).astype(np.float64, copy=False)

    return Tally(
        evidence=by_item(of_labels, fading[labelled]),
        positive=by_item(of_labels, fading[labelled] * labels),
        count=by_item(rows, fading * weights),
        labels=by_item(of_labels, np.ones_like(labels)),
        sums=by_item(of_labels, labels),
        squares=float((labels**2).sum()),
        taken=by_item(items.rows(interactions.item[positive]), interactions.weight[positive]),
        differ=bool((labels > 0.5).any() and (labels <= 0.5).any()),
    )


def summed_up(sums: Sums) -> Tally:
    """From (I, 8): the decayed and other sums in the order of `Tally`, and the number of labels above ½."""
    evidence, positive, count, labels, values, squares, taken, above = sums.T
    differ = bool(0 < above.sum() < labels.sum())
    return Tally(evidence, positive, count, labels, values, float(squares.sum()), taken, differ)


def _fit(items: Vocabulary, found: Tally, params: PopularityParams) -> Popularity:
    # half an example of each kind: a rate of 0 or 1 would be a prior that no evidence moves
    prior_mean = float((found.positive.sum() + 0.5) / (found.evidence.sum() + 1))
    strength = params.strength or _strength(found)
    mean = (found.positive + strength * prior_mean) / (found.evidence + strength)
    by_count = params.by == "count" or (params.by == "auto" and not found.differ)
    half_life = params.half_life_days or USUAL
    sums = _short(mean), _short(found.evidence), prior_mean, strength, _short(found.count)
    return Popularity(items, *sums, by_count, half_life_days=half_life)


def score_all(model: Popularity, known: Known) -> Floats:
    """(n, I): the same order for everybody, unless there are groups: then rates and counts above 0 are multiplied by how much
    likelier than others the person is to take to the item's group."""
    base = model.count if model.by_count else model.mean
    if model.groups is None:
        return np.broadcast_to(base, (len(known.users), len(base)))
    scores = np.empty((len(known.users), len(base)), np.float32)
    for person, row in enumerate(scores):
        row[:] = base * np.where(base > 0, _liking(model.groups, *known.weights.row(person)), 1)
    return scores


def _liking(groups: Groups, items: NDArray[np.int32], weights: Floats) -> NDArray[np.float64]:
    """(I,): the person's share of each item's group over everybody's; 1 for items of no group."""
    of_known = groups.of_items[items]
    told = (of_known >= 0) & (weights > 0)
    own = np.bincount(of_known[told], weights[told], minlength=len(groups.share))
    share = (own + groups.strength * groups.share) / (own.sum() + groups.strength)
    relative = np.append(share / np.maximum(groups.share, 1e-12), 1.0)
    return np.asarray(relative[groups.of_items], np.float64)


def _groups(items: Vocabulary, found: Tally, sources: ItemSources, params: PopularityParams) -> Groups:
    keys = sources.of(items.keys)
    names = vocabulary(keys[keys >= 0])
    of_items = names.rows(keys).astype(np.int32)
    told = of_items >= 0
    # one more for each: what nobody took to yet has a share too
    sums = 1 + np.bincount(of_items[told], found.taken[told], minlength=len(names))
    return Groups(of_items, (sums / sums.sum()).astype(np.float32), params.group_strength)


def _short(values: ArrayLike) -> Floats:
    return np.asarray(values, np.float32)


def _tells(interactions: Interactions, now: datetime, window_days: float | None) -> NDArray[np.bool_]:
    """Which have a label or a weight, and lie in the window."""
    told = ~np.isnan(interactions.label) | (np.nan_to_num(interactions.weight) != 0)
    if window_days is not None:
        told &= to_milliseconds(now) - interactions.time <= window_days * DAY
    return np.asarray(told)


def score(popularity: Popularity, items: ArrayLike) -> Floats:
    """Expected label (0..1) of each item key; those it doesn't know are at the prior."""
    rows = popularity.items.rows(items)
    result = np.full(rows.shape, popularity.prior_mean, np.float32)
    result[rows >= 0] = popularity.mean[rows[rows >= 0]]
    return result


def clock(days: NDArray[np.int64], counts: NDArray[np.int64], until: int) -> Clock:
    """From the number of examples of each day that has any, by the day since 1970; up to a moment soon after `until`."""
    typical = float((counts.astype(np.float64) ** 2).sum() / max(counts.sum(), 1)) or 1.0
    ends = np.cumsum(np.minimum(counts / typical, 1))
    end = _step_after(until)
    if not len(days):
        return Clock(np.array([float(end)]), np.zeros(1), typical, until)
    moments, first = np.unique(np.concatenate((days, days + 1)).astype(np.float64) * DAY, return_index=True)
    passed = np.concatenate(([0], ends[:-1], ends))[first]
    before = moments < end
    return Clock(
        np.append(moments[before], end),
        np.append(passed[before], np.interp(end, moments, passed)),
        typical,
        until,
    )


def going_on(old: Clock, until: int, count: int) -> Clock:
    """The clock up to a moment soon after `until`, when it met `count` more examples since its own `until`; what it said of the
    time before stays true. Itself when it says already how that moment is reached.
    """
    end = _step_after(until)
    if end <= old.moments[-1]:
        return old
    pace = min(count / old.typical / (until - old.until), 1 / DAY)
    passed = old.passed[-1] + pace * (end - old.moments[-1])
    return Clock(np.append(old.moments, end), np.append(old.passed, passed), old.typical, until)


def _step_after(moment: int) -> int:
    return -(-moment // STEP) * STEP


def clock_of(times: NDArray[np.int64], until: int) -> Clock:
    """The clock of examples at these milliseconds."""
    return clock(*np.unique(times // DAY, return_counts=True), until)


def ages(times: NDArray[np.int64], now: datetime) -> NDArray[np.float64]:
    """How many days each example is old, by the clock of all of them."""
    passing = clock_of(times, to_milliseconds(now))
    return np.maximum(passing.at(to_milliseconds(now)) - passing.at(times), 0)


def _strength(found: Tally) -> float:
    """Variance of labels within an item over that of the items' rates, by the method of moments.

    For labels 0 and 1 that is the strength of the Beta prior; for grades it is what Bühlmann and Straub, "Glaubwürdigkeit
    für Schadensätze" (1970), weigh a group's mean with. Age does not count here: it changes how much is known of the items,
    not how they differ.
    """
    told = found.labels > 0
    counts, sums = found.labels[told], found.sums[told]
    n, groups = float(counts.sum()), len(counts)
    if n <= groups:
        return WEAKEST if not n else STRONGEST
    between = float((sums**2 / counts).sum() - sums.sum() ** 2 / n)
    within = (found.squares - float((sums**2 / counts).sum())) / (n - groups)
    spread = (between - (groups - 1) * within) / max(n - float((counts**2).sum()) / n, 1e-9)
    if spread <= 0:
        return STRONGEST
    return float(np.clip(within / spread, WEAKEST, STRONGEST))


def to_arrays(model: Popularity) -> dict[str, NDArray[Any]]:
    """The arrays of a snapshot."""
    arrays: dict[str, NDArray[Any]] = {
        "popularity": model.mean,
        "popularity_evidence": model.evidence,
        "popularity_count": model.count,
    }
    if model.clock is not None:
        arrays["popularity_clock"] = np.stack((model.clock.moments, model.clock.passed))
    if model.groups is None:
        return arrays
    return arrays | {"popularity_group": model.groups.of_items, "popularity_group_share": model.groups.share}


def header(model: Popularity) -> dict[str, Any]:
    """The numbers beside the arrays."""
    numbers: dict[str, Any] = {"mean": model.prior_mean, "strength": model.strength, "by_count": model.by_count}
    numbers["half_life_days"] = model.half_life_days
    if model.clock is not None:
        numbers |= {"typical_day": model.clock.typical, "until": model.clock.until}
    return numbers if model.groups is None else numbers | {"group_strength": model.groups.strength}


def from_arrays(arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any], items: Vocabulary) -> Popularity:
    """The model that a snapshot holds, on its arrays. Snapshots from before there were counts have the rate alone."""
    groups = passing = None
    if "popularity_clock" in arrays:
        moments, passed = arrays["popularity_clock"]
        passing = Clock(moments, passed, float(header["typical_day"]), int(header["until"]))
    if "group_strength" in header:
        groups = Groups(arrays["popularity_group"], arrays["popularity_group_share"], float(header["group_strength"]))
    return Popularity(
        items,
        arrays["popularity"],
        arrays["popularity_evidence"],
        float(header["mean"]),
        float(header["strength"]),
        arrays.get("popularity_count", arrays["popularity"]),
        bool(header.get("by_count", False)),
        groups,
        float(header.get("half_life_days", USUAL)),
        passing,
    )
