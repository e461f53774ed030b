"""The weights of a blend: what members say made comparable, and the search for the weights that order held-out positives best.

From the best single member on, one weight after another is set to what makes the mean nDCG@k greatest, and changed only where
that is more than chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Way = Literal["rank", "score"]

STEPS = (0.0, 0.03125, 0.0625, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Weights that are tried for a member, relative to the greatest of the others."""
HALFWAY = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 50.0)
"""What is tried for `BlendParams.halfway`."""
NOTHING = np.float32(-1e30)
"""Said of a place without a candidate; finite, so that a weight of 0 makes it 0."""
MARGIN = 0.5
"""A weight is changed when the mean gains more than so many of its standard errors: less is chance."""


@dataclass(frozen=True, eq=False)
class Mix:
    """How what M members say is added up."""

    way: Way
    weights: Floats
    """(2, M): none below 0; for people of whom nothing is known, and for those of whom everything would be."""
    halfway: float
    """Number of known items with which a person's weights lie in the middle of the two."""
    quality: float
    """nDCG on what was held out; NaN where nothing was."""


def weights_of(ends: Floats, told: NDArray[np.int64], halfway: float) -> Floats:
    """(n, M) weights of people with so many known items, between the two of `ends`."""
    share = _trust(told, halfway)[:, None]
    return np.asarray((1 - share) * ends[0] + share * ends[1], np.float32)


def _trust(told: NDArray[np.int64], halfway: float) -> Floats:
    """(n,) told² / (told² + halfway²), 0 where nothing is told. Of two items each says little, of many they say it together:
    held-out people wanted the way to be steeper in its middle than without the squares."""
    square = np.square(told.astype(np.float64))
    return np.asarray(square / np.maximum(square + halfway**2, 1e-9), np.float32)


# --- what members say, made comparable ------------------------------------------------------------------------------------


def comparable(scores: Floats, way: Way, offset: float) -> Floats:
    """(n, I): so that numbers of different models may be added; each person's by themselves."""
    if len(scores) > 1 and scores.strides[0] == 0:
        once = comparable(scores[:1], way, offset)  # the same for everybody
        return np.broadcast_to(once, scores.shape)
    if way == "score":
        spread = scores.std(axis=1, keepdims=True)
        return np.asarray((scores - scores.mean(axis=1, keepdims=True)) / np.maximum(spread, 1e-12), np.float32)
    result = np.empty(scores.shape, np.float32)
    for row, own in zip(result, scores, strict=True):
        row[:] = -np.log(_places(own) + np.float32(offset))
    return result


def comparable_of(scores: Floats, items: NDArray[np.int64], way: Way, offset: float) -> Floats:
    """What `comparable` says of these items of one person, (I,) being the scores of all; without ordering the others."""
    wanted = scores[items]
    if way == "score":
        return np.asarray((wanted - scores.mean()) / max(scores.std(), 1e-12), np.float32)
    ordered = np.sort(scores)
    places = 1 + len(scores) - np.searchsorted(ordered, wanted, side="right")
    return np.asarray(-np.log(places.astype(np.float32) + np.float32(offset)), np.float32)


def _places(scores: Floats) -> Floats:
    """(I,): 1 for the greatest; equal ones share the first of their places."""
    order = np.argsort(-scores)
    ordered = scores[order]
    starts = np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]
    places = np.empty(len(scores), np.float32)
    places[order] = np.maximum.accumulate(np.where(starts, np.arange(1, len(scores) + 1), 0))
    return places


# --- the search -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Stack:
    """What M members say of the candidates of n people, at most C each: what any member puts first.

    People none of whose positives is among them have 0 whatever the weights; they are counted, not kept.
    """

    said: Floats
    """(M, n, C)"""
    row: NDArray[np.int64]
    """(R,) person of each positive that is a candidate, ascending"""
    place: NDArray[np.int64]
    """(R,) where among the candidates it is"""
    totals: NDArray[np.int64]
    """(n,) positives, also those that are no candidates"""
    told: NDArray[np.int64]
    """(n,) how many items are known of each"""
    asked: NDArray[np.int64]
    """(2,) how many people were asked of whom nothing is known, and others, those who aren't kept among them"""

    def of(self, known: int) -> Stack:
        """With those people alone of whom nothing is known, 0, or something, 1."""
        people = np.flatnonzero((self.told > 0) == known)
        new = np.full(len(self.totals), -1, np.int64)
        new[people] = np.arange(len(people))
        kept = new[self.row] >= 0
        asked = np.where(np.arange(2) == known, self.asked, 0)
        row, place = new[self.row[kept]], self.place[kept]
        return Stack(self.said[:, people], row, place, self.totals[people], self.told[people], asked)

    def mean(self, values: NDArray[np.float64]) -> float:
        """Over all who were asked."""
        return float(values.sum() / max(self.asked.sum(), 1))

    def beyond_chance(self, gain: NDArray[np.float64]) -> bool:
        """Whether the mean gain is more than `MARGIN` of its standard errors."""
        mean, square = self.mean(gain), self.mean(gain**2)
        return bool(mean > MARGIN * np.sqrt(max(square - mean**2, 0) / max(self.asked.sum(), 1)))


def learned(
    told: Sequence[Sequence[Mapping[Way, Stack]]], impersonal: NDArray[np.int64], k: int, halfway: float | None
) -> Mix:
    """What orders best: `told` has for each held-out slice (one at least) what was said to people as they are, then to beginners.

    `impersonal` are the members that say the same to everybody, and alone are asked of whom nothing is known. `halfway` is
    learned where it is None. Of several ways of mixing the best one is taken.
    """
    found = []
    for way in told[0][0]:
        people = _joined([parts[0][way] for parts in told])
        everybody = _joined([part[way] for parts in told for part in parts])
        found.append(_learned_by(way, people, everybody, impersonal, k, halfway))
    return max(found, key=lambda mix: mix.quality)


def _learned_by(
    way: Way, people: Stack, everybody: Stack, impersonal: NDArray[np.int64], k: int, halfway: float | None
) -> Mix:
    """The mix for people as they are, and its nDCG with them, not with beginners.

    For people of whom nothing is known there are weights of the popularities alone: what others say changes as soon as something
    is known, and then the way from these weights to the others wouldn't begin with what is served to all. Without any popularity
    the two are the same.
    """
    for_all = _search(people, k, _best_single(people, k))
    weights = np.tile(for_all, (2, 1))
    new, old = everybody.of(0), people.of(1)
    if len(new.row) and len(impersonal):
        alone = replace(new, said=new.said[impersonal])
        weights[0] = 0
        weights[0, impersonal] = _search(alone, k, _best_single(alone, k))
    if len(old.row):
        weights[1] = _search(old, k, for_all)
        weights[0] = weights[0] if len(impersonal) else weights[1]
    halfway = _halfway(everybody, weights, k) if halfway is None else halfway
    quality = people.mean(_values(people, _between(people, weights, halfway), k))
    return Mix(way, weights, halfway, quality)


def _halfway(stack: Stack, ends: Floats, k: int) -> float:
    """The one that orders best, or the greatest that is worse by no more than chance: what holds for everybody is safer."""
    found = [_values(stack, _between(stack, ends, tried), k) for tried in HALFWAY]
    best = found[int(np.argmax([values.sum() for values in found]))]
    return max(tried for tried, values in zip(HALFWAY, found, strict=True) if not stack.beyond_chance(best - values))


def _between(stack: Stack, ends: Floats, halfway: float) -> Floats:
    """(n, C): the mix by each person's own weights."""
    share = _trust(stack.told, halfway)[:, None]
    return np.asarray((1 - share) * _mixed(stack, ends[0]) + share * _mixed(stack, ends[1]), np.float32)


def _joined(stacks: Sequence[Stack]) -> Stack:
    """The people of all, one after the other."""
    starts = np.cumsum([0, *(len(stack.totals) for stack in stacks)])
    said = [stack.said[:, person] for stack in stacks for person in range(len(stack.totals))]
    return Stack(
        padded(said, len(stacks[0].said)),
        np.concatenate([stack.row + start for stack, start in zip(stacks, starts, strict=False)]),
        np.concatenate([stack.place for stack in stacks]),
        np.concatenate([stack.totals for stack in stacks]),
        np.concatenate([stack.told for stack in stacks]),
        np.sum([stack.asked for stack in stacks], axis=0),
    )


def padded(lists: Sequence[Floats], members: int) -> Floats:
    """(M, n, C) from (M, c) of each of n."""
    width = max((part.shape[1] for part in lists), default=0)
    result = np.full((members, len(lists), width), NOTHING, np.float32)
    for person, part in enumerate(lists):
        result[:, person, : part.shape[1]] = part
    return result


def _mixed(stack: Stack, weights: Floats) -> Floats:
    """(n, C): the weighted sum of what members say."""
    return np.asarray(np.tensordot(weights, stack.said, 1), np.float32)


def _values(stack: Stack, mixed: Floats, k: int) -> NDArray[np.float64]:
    """(n,) nDCG@k of a mix; a positive stands behind all others of equal score."""
    own = mixed[stack.row, stack.place]
    before = (mixed[stack.row] >= own[:, None]).sum(axis=1) - 1
    gains = np.where(before < k, 1 / np.log2(before + 2), 0)
    best = np.cumsum(1 / np.log2(np.arange(k) + 2))[np.minimum(stack.totals, k) - 1]
    return np.asarray(np.bincount(stack.row, gains, minlength=len(stack.totals)) / best, np.float64)


def _best_single(stack: Stack, k: int) -> Floats:
    """A weight of 1 for the member that is best alone."""
    alone = [_values(stack, said, k).sum() for said in stack.said]
    weights: Floats = np.zeros(len(alone), np.float32)
    weights[int(np.argmax(alone))] = 1
    return weights


def _search(stack: Stack, k: int, weights: Floats) -> Floats:
    """(M,) weights, the greatest 1: one after another is changed for what orders best, until no change gains beyond chance."""
    values = _values(stack, _mixed(stack, weights), k)
    for _ in range(5):
        before = weights
        for member in range(len(weights)):
            weights, values = _line(stack, k, weights, values, member)
        if np.array_equal(before, weights):
            break
    return weights


def _line(
    stack: Stack, k: int, weights: Floats, values: NDArray[np.float64], member: int
) -> tuple[Floats, NDArray[np.float64]]:
    """The best of what one member's weight can be, if it gains beyond chance; and each person's nDCG with it."""
    others = weights.copy()
    others[member] = 0
    if not others.any():
        return weights, values
    base = _mixed(stack, others)
    tried = [np.float32(step * others.max()) for step in STEPS]
    found = [_values(stack, base + weight * stack.said[member], k) for weight in tried]
    best = int(np.argmax([each.sum() for each in found]))
    if not stack.beyond_chance(found[best] - values):
        return weights, values
    others[member] = tried[best]
    return np.asarray(others / others.max(), np.float32), found[best]
