"""What rankers are told of a person and some items: the columns of `feature_log`, all computed for many items at once.

Everything is of this moment: the pool and the person as serving has them, counts that fade, and no more than the log holds by
now.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from palate import activity, feature_log
from palate.activity import LIKED, REFUSED, SHOWN, VIEWED
from palate.candidates import found as ways
from palate.domain import to_milliseconds
from palate.feature_log import NAMES, WINDOWS
from palate.happenings import Happenings
from palate.live import History
from palate.models.fields import hours
from palate.pool import NO_DATE, Pool
from palate.ranking.considered import Considered
from palate.ranking.taste import Taste, label_part, source_part
from palate.snapshots import Snapshot
from palate.vocabulary import Vocabulary

Floats = NDArray[np.float32]
Columns = Iterator[tuple[str, Floats | float]]

SECOND = 1_000
HOUR = 3_600_000
NEWEST = 200
"""Of a person's history that is compared with items."""
RECENT = 5
"""Texts that say what somebody is at just now."""
COMPARED = 30
"""Texts of which the nearest is looked for."""
FACTORS = 6
"""Pairs of factors in a snapshot that are told of."""
BEFORE = 20.0
"""How many items at the common rate each rate is held by."""
TRACE = 1e-3
"""Of a view: what has fewer is as if it had so much of one, in a share of all views."""
DAYS_LONG = 3650.0
"""An item without a date is as old as this, in days."""

SOURCE_WINDOWS, CATEGORY_WINDOWS = (1, 2, 3), (1, 2)
"""Over which sources and categories are told of, by their places in WINDOWS."""

PLACE = {name: at for at, name in enumerate(NAMES)}

FOUND = {
    "found_popular": ("popular", "categories"),
    "found_near": ("behaviour", "clusters", "text"),
    "found_groups": ("near", "sources", "labels"),
    "found_fresh": ("fresh", "exploration", "new"),
    "found_followed": ("followed",),
    "found_trending": ("trending",),
}
"""Which ways of finding candidates each column joins."""


@dataclass(frozen=True, eq=False)
class Scene:
    """All that features are computed from."""

    looked: Considered
    happenings: Happenings
    whole: Pool
    """Every item that may be served: what the person met is looked up in it."""
    snapshot: Snapshot | None
    now: datetime
    kept: dict[str, Any] = field(default_factory=dict)
    """What was found out of the person; other candidates of the same call share it."""

    @property
    def moment(self) -> int:
        """Milliseconds since 1970."""
        return to_milliseconds(self.now)

    @property
    def second(self) -> int:
        """The moment at which counts are read: at its second, so that all who ask within it share what is worked out of them."""
        return self.moment // SECOND * SECOND


def of(scene: Scene) -> Floats:
    """(n, F) the columns of `feature_log.NAMES` for each candidate, each in one piece; the place is 0, NaN stands for what isn't
    known."""
    table = np.full((len(NAMES), len(scene.looked)), np.nan, np.float32)
    for part in (context, _model, factors, _item, texts, _counters, _history, _found):
        for name, column in part(scene):
            table[PLACE[name]] = column
    return table.T


def written(scene: Scene) -> list[str]:
    """The features of each candidate as the log keeps them."""
    return feature_log.written(of(scene))


def context(scene: Scene) -> Columns:
    hour = float(hours(np.array([scene.moment]))[0]) / 24 * 2 * np.pi
    yield "position", 0.0
    yield "hour_sin", float(np.sin(hour))
    yield "hour_cos", float(np.cos(hour))
    yield "weekday", float(scene.now.weekday())


def log_odds(probabilities: Floats | np.float32) -> Floats:
    """Within what 16 bits tell apart."""
    inside = np.clip(probabilities, 1e-4, 1 - 1e-4)
    return np.asarray(np.log(inside / (1 - inside)), np.float32)


def _model(scene: Scene) -> Columns:
    looked, pool, taste = scene.looked, scene.looked.pool, scene.looked.judgement.taste
    score = log_odds(looked.values)
    yield "score", score
    yield "score_below_best", score - log_odds(np.float32(looked.best))
    yield "likely", log_odds(looked.scores)
    yield "popularity", log_odds(pool.popularity)
    yield "evidence", np.log1p(pool.evidence)
    yield "item_bias", pool.bias
    if pool.vectors.shape[1] == len(taste.vector) and len(taste.vector):
        yield "vector", pool.vectors @ taste.vector
    yield "source_weight", source_part(taste, pool.source)
    yield "label_weight", _labels_of(taste, pool)


def _labels_of(taste: Taste, pool: Pool) -> Floats:
    return label_part(taste, pool.label_offsets, pool.labels)


def factors(scene: Scene) -> Columns:
    """By each pair of factors that the snapshot holds: vector of the person, as it was learned, times vector of the item."""
    snapshot, person = scene.snapshot, scene.looked.person
    if snapshot is None or person.key is None:
        return
    users = Vocabulary(np.asarray(snapshot.arrays["users"])).rows(np.array([person.key, *person.keys], np.int64))
    if (users < 0).all():
        return
    user, rows = users[users >= 0][0], scene.looked.pool.learned
    known = rows >= 0
    for number, prefix in enumerate(worked_out(scene).factors, start=1):
        found = np.full(len(rows), np.nan, np.float32)
        vector = snapshot.arrays[f"{prefix}user_vectors"][user].astype(np.float32)
        found[known] = snapshot.arrays[f"{prefix}item_vectors"][rows[known]].astype(np.float32) @ vector
        yield f"factors_{number}", found


def factors_of(snapshot: Snapshot) -> list[str]:
    """How the names of the pairs of factors begin, in a fixed order."""
    arrays = snapshot.arrays
    names = sorted(name.removesuffix("item_vectors") for name in arrays if name.endswith("item_vectors"))
    pairs = [name for name in names if f"{name}user_vectors" in arrays]
    alike = [
        name for name in pairs if arrays[f"{name}user_vectors"].shape[1:] == arrays[f"{name}item_vectors"].shape[1:]
    ]
    return alike[:FACTORS]


def _item(scene: Scene) -> Columns:
    pool, person = scene.looked.pool, scene.looked.person
    since = np.where(pool.published == NO_DATE, scene.moment - DAYS_LONG * 24 * HOUR, pool.published)
    yield "age", np.log1p(np.maximum(scene.moment - since, 0) / HOUR).astype(np.float32)
    yield "age_here", np.log1p(np.maximum(scene.moment - pool.received, 0) / HOUR).astype(np.float32)
    yield "labels", np.diff(pool.label_offsets).astype(np.float32)
    if person.languages:
        reads = np.isin(pool.language, pool.languages.find(person.languages)).astype(np.float32)
        yield "language_match", np.where(pool.language >= 0, reads, np.float32(np.nan))
    yield "leads", pool.leads.astype(np.float32)
    yield "story_size", np.log1p(story_sizes(scene.whole, pool))


def story_sizes(whole: Pool, pool: Pool) -> Floats:
    """(n,) how many others its story has."""
    found, told = np.zeros(len(pool), np.float32), np.flatnonzero(pool.story >= 0)
    if len(told):
        stories = whole.stories
        rows = whole.rows(pool.keys[told])
        number = np.where(rows >= 0, stories.of_row[rows], -1)
        sizes = np.append(np.diff(np.append(stories.starts, len(stories.rows))), 1)
        found[told] = sizes[number] - 1
    return found


def texts(scene: Scene) -> Columns:
    """How near an item's text is to those that the person took to, or refused."""
    if scene.snapshot is None:
        return
    items = scene.happenings.texts(scene.looked.pool.keys, scene.looked.pool.learned)
    if items is None:
        return
    liked, refused = _theirs(scene)
    middles = {"text_near_liked": liked, "text_near_recent": liked[-RECENT:], "text_near_refused": refused}
    asked = {name: _middle(theirs) for name, theirs in middles.items() if len(theirs)}
    if not asked:
        return
    near = items @ np.vstack((*asked.values(), liked[-COMPARED:])).T
    near[~items.any(axis=1)] = np.nan
    yield from zip(asked, near.T, strict=False)
    if len(liked):
        yield "text_nearest", near[:, len(asked) :].max(axis=1)


def middle_of_liked(scene: Scene) -> Floats | None:
    """(DIRECTIONS,) of length 1: where the texts stand that the person took to; None where there are none."""
    liked, _ = _theirs(scene)
    return _middle(liked) if len(liked) else None


def _middle(texts: Floats) -> Floats:
    middle = texts.mean(axis=0)
    return np.asarray(middle / max(float(np.linalg.norm(middle)), 1e-6), np.float32)


def _theirs(scene: Scene) -> tuple[Floats, Floats]:
    """Where the texts of the newest items stand that the person took to, and refused; those without words left out."""
    if "texts" not in scene.kept:
        scene.kept["texts"] = _their_texts(scene)
    found: tuple[Floats, Floats] = scene.kept["texts"]
    return found


def _their_texts(scene: Scene) -> tuple[Floats, Floats]:
    history = scene.looked.person.history
    liked, refused = (history.items[mask][-NEWEST:] for mask in verdicts(history))
    found = scene.happenings.texts(np.concatenate((liked, refused)))
    assert found is not None, "The candidates have theirs from the same snapshot."
    told: NDArray[np.bool_] = np.asarray(found.any(axis=1))
    return found[: len(liked)][told[: len(liked)]], found[len(liked) :][told[len(liked) :]]


def verdicts(history: History) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which items of a history were taken to, and which refused."""
    liked = np.where(history.voted, history.labels > 0.5, history.weights > 0)
    refused = np.where(history.voted, history.labels < 0.5, history.weights < 0)
    return liked, refused


# --- counts ---------------------------------------------------------------------------------------------------------------


def _counters(scene: Scene) -> Columns:
    counted, pool, now = scene.happenings, scene.looked.pool, scene.second
    of_all, common = worked_out(scene).of_all, worked_out(scene).common
    yield from _of_items(_turned(counted.of_items(pool.keys, now, pool.learned)), of_all, common)
    yield from _of_group("source", _group(counted, "source", pool.source, now), common, SOURCE_WINDOWS)
    yield from _of_group("category", _group(counted, "category", pool.category, now), common, CATEGORY_WINDOWS)
    yield from of_story(scene)
    yield from of_user(scene)


@dataclass(frozen=True, eq=False)
class WorkedOut:
    """What is the same for all who ask within a second."""

    of_all: Floats
    """(KINDS, HALF_LIVES) what happened to all items together."""
    common: Rates
    """(HALF_LIVES, 1)"""
    hot: dict[str, Floats]
    """By name, columns (1 + hot items,) of what was counted of items; first of one of which nothing was heard."""
    sources: Floats
    """(columns, sources + 1) those of each number, last of none; likewise the next."""
    categories: Floats
    factors: tuple[str, ...]
    """How the names of the snapshot's pairs of factors begin."""


def worked_out(scene: Scene) -> WorkedOut:
    """Of the counts at the scene's second."""
    counted, pool, now = scene.happenings, scene.looked.pool, scene.second
    found: WorkedOut | None = counted.worked_out.get(now)
    if found is None or found.sources.shape[1] <= len(pool.sources):
        found = _worked_out(scene)
        counted.worked_out.add({now: found})
    return found


def _worked_out(scene: Scene) -> WorkedOut:
    counted, pool, now = scene.happenings, scene.looked.pool, scene.second
    of_all = counted.of_all(now)
    common = rates_of(of_all[..., np.newaxis], None)
    hot = _turned(counted.hot.at_rows(np.arange(-1, len(counted.hot)), now))
    sources, categories = (np.append(np.arange(len(of)), -1) for of in (pool.sources, pool.categories))
    return WorkedOut(
        of_all,
        common,
        dict(_of_items(hot, of_all, common)),
        _table(_of_group("source", _group(counted, "source", sources, now), common, SOURCE_WINDOWS)),
        _table(_of_group("category", _group(counted, "category", categories, now), common, CATEGORY_WINDOWS)),
        () if scene.snapshot is None else tuple(factors_of(scene.snapshot)),
    )


def _table(columns: Columns) -> Floats:
    return np.ascontiguousarray([column for _, column in columns], np.float32)


def hot_columns(scene: Scene) -> tuple[dict[str, Floats], NDArray[np.int64]]:
    """Where candidates are very many, what was counted of items: by name columns (1 + hot items,), first of an item of which
    nothing was heard; and the row (n,) of each candidate in them."""
    return worked_out(scene).hot, 1 + scene.happenings.hot.keys.rows(scene.looked.pool.keys)


class _Group(NamedTuple):
    """Counts of g groups of candidates."""

    counts: Floats
    """(KINDS, HALF_LIVES, g + 1), the last of no group."""
    of_item: NDArray[np.int64]
    """(n,) which of them is each candidate's."""


def _group(counted: Happenings, name: str, group: NDArray[np.integer], now: int) -> _Group:
    counts = counted.groups.get(name)
    keys = group.astype(np.int64)
    if counts is None:
        return _Group(np.zeros((len(activity.KINDS), len(activity.HALF_LIVES), 1), np.float32), np.zeros_like(keys))
    rows = np.where(keys >= 0, counts.keys.rows(keys), -1)
    if len(counts) > len(keys):  # those that are there alone
        return _Group(_turned(counts.at_rows(np.append(rows, -1), now)), np.arange(len(keys)))
    return _Group(_turned(counts.at_rows(np.append(np.arange(len(counts)), -1), now)), rows)


def _turned(counts: Floats) -> Floats:
    """(KINDS, HALF_LIVES, n) of (n, KINDS, HALF_LIVES)."""
    return np.ascontiguousarray(counts.transpose(1, 2, 0))


@dataclass(frozen=True, eq=False)
class Rates:
    """(HALF_LIVES, n) each: of what was shown, how much was viewed; of what was met, how much was liked and refused."""

    view: Floats
    like: Floats
    dislike: Floats


def rates_of(counts: Floats, common: Rates | None) -> Rates:
    """Held at the common rates by `BEFORE` items, so that few say little; where nothing was ever counted, by those of nobody."""
    shown, viewed, liked, refused = (counts[kind] for kind in (SHOWN, VIEWED, LIKED, REFUSED))
    met = np.maximum(np.maximum(shown, viewed), liked + refused)
    start = common or _NOBODYS

    def held(part: Floats, before: Floats) -> Floats:
        return np.asarray((part + BEFORE * before) / (met + BEFORE), np.float32)

    return Rates(held(np.minimum(viewed, met), start.view), held(liked, start.like), held(refused, start.dislike))


_NOBODYS = Rates(*(np.full((1, 1), rate, np.float32) for rate in (0.1, 0.05, 0.01)))
"""Where nothing was ever counted."""


def _of_items(counts: Floats, of_all: Floats, common: Rates) -> Iterator[tuple[str, Floats]]:
    rates, logs = rates_of(counts, common), np.log1p(counts[:REFUSED])
    for place, window in enumerate(WINDOWS):
        yield f"item_shown_{window}", logs[SHOWN, place]
        yield f"item_viewed_{window}", logs[VIEWED, place]
        yield f"item_liked_{window}", logs[LIKED, place]
        yield f"item_view_rate_{window}", rates.view[place]
        yield f"item_like_rate_{window}", rates.like[place]
    yield "item_dislike_rate_ever", rates.dislike[3]
    for place, window in enumerate(WINDOWS[:2]):
        # as quiet hours and busy ones have it: how many of its views make an item the talk of the day depends on them
        yield f"item_share_{window}", np.log((counts[VIEWED, place] + TRACE) / (of_all[VIEWED, place] + TRACE))


def _of_group(name: str, group: _Group, common: Rates, places: tuple[int, ...]) -> Columns:
    rates = rates_of(group.counts, common)
    for place in places:
        yield f"{name}_viewed_{WINDOWS[place]}", np.log1p(group.counts[VIEWED, place])[group.of_item]
        yield f"{name}_view_rate_{WINDOWS[place]}", rates.view[place][group.of_item]
        yield f"{name}_like_rate_{WINDOWS[place]}", rates.like[place][group.of_item]


def of_story(scene: Scene) -> Columns:
    """What happened to the stories of the candidates."""
    story, common = scene.looked.pool.story, worked_out(scene).common
    if (story < 0).all():
        yield from (("story_viewed_hour", 0.0), ("story_viewed_day", 0.0), ("story_like_rate_ever", common.like[3]))
        return
    group = _group(scene.happenings, "story", story, scene.second)
    yield "story_viewed_hour", np.log1p(group.counts[VIEWED, 0])[group.of_item]
    yield "story_viewed_day", np.log1p(group.counts[VIEWED, 1])[group.of_item]
    yield "story_like_rate_ever", rates_of(group.counts, common).like[3][group.of_item]


def of_user(scene: Scene) -> Columns:
    """What the person did of late; nothing of somebody new."""
    if scene.looked.person.key is None:
        return
    counts = scene.happenings.of_user(scene.looked.person.key, scene.second)
    rates = rates_of(counts[..., np.newaxis], worked_out(scene).common)
    yield "user_shown_hour", float(np.log1p(counts[SHOWN, 0]))
    yield "user_shown_day", float(np.log1p(counts[SHOWN, 1]))
    yield "user_viewed_day", float(np.log1p(counts[VIEWED, 1]))
    yield "user_viewed_ever", float(np.log1p(counts[VIEWED, 3]))
    yield "user_view_rate_week", float(rates.view[2, 0])
    yield "user_like_rate_ever", float(rates.like[3, 0])
    yield "user_dislike_rate_ever", float(rates.dislike[3, 0])


# --- the person's own history ---------------------------------------------------------------------------------------------


def _history(scene: Scene) -> Columns:
    person, pool = scene.looked.person, scene.looked.pool
    history = person.history
    liked, _ = verdicts(history)
    yield "history_length", float(np.log1p(len(history)))
    yield "history_liked", float(np.log1p(np.count_nonzero(liked)))
    own = habits(scene)
    yield "same_source_met", own.sources.met[pool.source]
    yield "same_source_liked", own.sources.liked[pool.source]
    yield "same_category_met", own.categories.met[pool.category]
    yield "same_category_liked", own.categories.liked[pool.category]
    yield "same_label_met", _means(pool.label_offsets, own.labels.met[pool.labels])
    yield "same_label_liked", _means(pool.label_offsets, own.labels.liked[pool.labels])
    yield "followed", _among(pool.source, pool.sources.find(person.followed))
    yield "on_topic", _any_label(pool, pool.label_names.find(person.topics))


class Habit(NamedTuple):
    """Of each of c groups, and last of none, (c + 1,)."""

    met: Floats
    """The logarithm of one more than how many of its items the person met lately."""
    liked: Floats
    """The share of these that they took to, held at a half by two items."""


class Habits(NamedTuple):
    """What a person met lately, by the numbers of the pool."""

    sources: Habit
    categories: Habit
    labels: Habit


def habits(scene: Scene) -> Habits:
    """Of the person who asks."""
    if "habits" not in scene.kept:
        scene.kept["habits"] = _habits(scene)
    found: Habits = scene.kept["habits"]
    return found


def _habits(scene: Scene) -> Habits:
    history, pool, whole = scene.looked.person.history, scene.looked.pool, scene.whole
    rows = whole.rows(history.items[-NEWEST:])
    there, taken = rows[rows >= 0], verdicts(history)[0][-NEWEST:][rows >= 0]
    counts = whole.label_offsets[there + 1] - whole.label_offsets[there]
    starts = np.cumsum(counts) - counts
    places = np.arange(counts.sum()) - np.repeat(starts - whole.label_offsets[there], counts)
    return Habits(
        _habit(whole.source[there], taken, len(pool.sources)),
        _habit(whole.category[there], taken, len(pool.categories)),
        _habit(whole.labels[places], np.repeat(taken, counts), len(pool.label_names)),
    )


def _habit(theirs: NDArray[np.integer], liked: NDArray[np.bool_], count: int) -> Habit:
    told = theirs >= 0
    met, good = (np.bincount(theirs[told], weights, count + 1).astype(np.float32) for weights in (None, liked[told]))
    return Habit(np.log1p(met), (good + 1) / (met + 2))


def _among(numbers: NDArray[np.integer], wanted: NDArray[np.int32]) -> Floats:
    if not len(wanted):
        return np.zeros(len(numbers), np.float32)
    return np.isin(numbers, wanted).astype(np.float32)


def _means(offsets: NDArray[np.int64], values: Floats) -> Floats:
    """(n,) the mean of each item's own values; NaN where it has none."""
    counts, found = np.diff(offsets), np.full(len(offsets) - 1, np.nan, np.float32)
    filled = np.flatnonzero(counts)
    if len(filled):
        found[filled] = np.add.reduceat(values, offsets[filled]) / counts[filled]
    return found


def _any_label(pool: Pool, wanted: NDArray[np.int32]) -> Floats:
    if not len(wanted):
        return np.zeros(len(pool), np.float32)
    has = np.nan_to_num(_means(pool.label_offsets, _among(pool.labels, wanted)))
    return (has > 0).astype(np.float32)


def _found(scene: Scene) -> Columns:
    """NaN where every item was looked at."""
    bits = scene.looked.found
    if not bits.any():
        return
    for name, joined in FOUND.items():
        mask = np.uint16(sum(int(ways.bit(way)) for way in joined))
        yield name, (bits & mask > 0).astype(np.float32)
