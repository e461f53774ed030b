"""Why each item was served, from the parts of its own score."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from palate.domain import EPOCH, Reason
from palate.models.factorization_machine import Floats
from palate.pool import NO_DATE, Pool, take
from palate.ranking import by_model
from palate.ranking.arranging import Place
from palate.ranking.scoring import Judgement, features
from palate.ranking.taste import source_part

LEAST = 0.005
"""A part of the score below this is no reason."""

NEW = timedelta(days=2)
"""For so long an item counts as new."""

NOVELTY = 0.02
"""Strength of being new: above nothing, below any real reason."""

JUDGED = 3.0
"""Examples behind an item before we say that many liked it."""

REASONS = 3
"""Told of one item at most."""


@dataclass(frozen=True, eq=False)
class Grounds:
    """The parts of the scores of some served items (n), before they are put into words."""

    pool: Pool
    """The served items alone."""
    liked: list[int]
    """(n,) key of the item the person liked or took to that adds most to the score, −1 if there is none."""
    liked_strength: list[float]
    voted: frozenset[int]
    """Keys of the items that were liked by a vote."""
    source: list[int]
    """(n,) number of the source, −1 for none."""
    by_source: list[float]
    """(n,) what the person's own weight for it adds."""
    labels: list[list[int]]
    """(n,) numbers of each item's labels."""
    by_label: Mapping[int, float]
    """What the person's own weights add for each label."""
    popular: list[float]
    """(n,) by how much it is liked more than most; 0 where too few have judged it."""
    fresh: list[bool]
    """(n,) whether it counts as new."""


def grounds(judgement: Judgement, pool: Pool, rows: NDArray[np.int64]) -> Grounds:
    """What the scores of these rows are made of."""
    served, taste = take(pool, rows), judgement.taste
    liked, strength = _most_liked(judgement, served)
    above = np.where(served.evidence < JUDGED, np.float32(0), served.popularity - np.float32(served.model.prior))
    ends, labels = served.label_offsets.tolist(), served.labels.tolist()
    return Grounds(
        pool=served,
        liked=liked.tolist(),
        liked_strength=strength.tolist(),
        voted=frozenset(_voted(judgement).tolist()),
        source=served.source.tolist(),
        by_source=source_part(taste, served.source).tolist(),
        labels=[labels[start:end] for start, end in pairwise(ends)],
        by_label=dict(zip(taste.labels.tolist(), taste.label_weights.tolist(), strict=True)),
        popular=above.tolist(),
        fresh=_fresh(served.published, judgement.now).tolist(),
    )


def _fresh(published: NDArray[np.int64], now: datetime) -> NDArray[np.bool_]:
    since = (now - NEW - EPOCH) / timedelta(milliseconds=1)
    fresh: NDArray[np.bool_] = (published >= since) & (published != NO_DATE)
    return fresh


def liked_keys(grounds: Grounds) -> list[int]:
    """Keys of the items that reasons may name: whoever asks for the reasons looks up their titles."""
    told = zip(grounds.liked, grounds.liked_strength, strict=True)
    return sorted({key for key, strength in told if strength > LEAST})


def reasons(
    grounds: Grounds,
    place: int,
    chosen: Place,
    liked: Mapping[int, tuple[str, str]],
    source_title: Callable[[int], str | None],
) -> tuple[Reason, ...]:
    """Up to three reasons for the item at this place of `grounds`, strongest first; never none.

    `liked` gives id and title of the items of `liked_keys`, `source_title` the title of a source's key.
    """
    found = [
        *_liked(grounds, place, liked),
        *_source(grounds, place, source_title),
        *_labels(grounds, place),
        *_popular(grounds, place),
        *_new(grounds, place, source_title),
    ]
    found.sort(key=lambda reason: -reason.strength)
    if chosen.asked:
        found.insert(0, Reason("ask", None, "Your vote on it tells much about what else you like", LEAST))
    elif chosen.explored or not found:
        found.insert(0, Reason("explore", None, "To learn whether it fits", LEAST))
    return tuple(found[:REASONS])


def _voted(judgement: Judgement) -> NDArray[np.int64]:
    return judgement.voted_keys[judgement.solution.likes]


def _most_liked(judgement: Judgement, served: Pool) -> tuple[NDArray[np.int64], Floats]:
    """For each served item the key of the item that adds most, and how much: what the person's own weights owe to it, and
    what the model does.
    """
    keys, parts = _parts(judgement, served)
    if not len(keys):
        return np.full(len(served), -1, np.int64), np.zeros(len(served), np.float32)
    best = parts.argmax(axis=1)
    return keys[best], parts[np.arange(len(served)), best]


def _parts(judgement: Judgement, served: Pool) -> tuple[NDArray[np.int64], Floats]:
    """Keys (m,) of all that was liked or taken to, and (served, m) what each adds to each score."""
    keys, parts = _voted(judgement), np.zeros((len(served), 0), np.float32)
    if len(keys):
        parts = judgement.solution.of_likes.on(features(served, answer=judgement.answer))
    if judgement.answer is None:
        return keys, parts
    more_keys, more = by_model.contributions(judgement.answer, served)
    every, places = np.unique(np.concatenate((keys, more_keys)), return_inverse=True)
    total = np.zeros((len(served), len(every)), np.float32)
    np.add.at(total.T, places, np.hstack((parts, more)).T)
    return every, total


def _liked(grounds: Grounds, place: int, liked: Mapping[int, tuple[str, str]]) -> list[Reason]:
    strength, key = grounds.liked_strength[place], grounds.liked[place]
    if strength <= LEAST or key not in liked:
        return []
    id, title = liked[key]
    words = f"Because you liked «{title}»" if key in grounds.voted else f"Because «{title}» interested you"
    return [Reason("liked", id, words, strength)]


def _source(grounds: Grounds, place: int, source_title: Callable[[int], str | None]) -> list[Reason]:
    strength = grounds.by_source[place]
    title = _title(grounds, place, source_title) if strength > LEAST else None
    return [] if title is None else [Reason("source", title, f"You like posts from {title}", strength)]


def _labels(grounds: Grounds, place: int) -> list[Reason]:
    numbers, weights = grounds.labels[place], grounds.by_label
    best = max(numbers, key=lambda number: weights.get(number, 0.0), default=None) if weights else None
    strength = 0.0 if best is None else weights.get(best, 0.0)
    if best is None or strength <= LEAST:
        return []
    name = grounds.pool.label_names.values[best]
    return [Reason("label", name, f"You like the topic {name}", strength / math.sqrt(len(numbers)))]


def _popular(grounds: Grounds, place: int) -> list[Reason]:
    strength = grounds.popular[place]
    return [] if strength <= LEAST else [Reason("popular", None, "Many liked it", strength)]


def _new(grounds: Grounds, place: int, source_title: Callable[[int], str | None]) -> list[Reason]:
    title = _title(grounds, place, source_title) if grounds.fresh[place] else None
    return [] if title is None else [Reason("fresh", title, f"New from {title}", NOVELTY)]


def _title(grounds: Grounds, place: int, source_title: Callable[[int], str | None]) -> str | None:
    """Of the item's source."""
    number = grounds.source[place]
    return source_title(grounds.pool.sources.values[number]) if number >= 0 else None
