"""What `features.of` gives, a few times as fast: what differs from candidate to candidate is put down in one pass over them, in
machine code."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.candidates import found
from palate.domain import from_milliseconds
from palate.feature_log import NAMES
from palate.happenings import Happenings
from palate.live import Person
from palate.machine_code import compiled
from palate.pool import NO_DATE, empty_pool
from palate.ranking import considered, features, scoring
from palate.ranking.considered import Age
from palate.ranking.features import FOUND, PLACE, Floats, Scene
from palate.ranking.taste import TasteParams, spread

LOWEST, HIGHEST = np.float32(1e-4), np.float32(1 - 1e-4)
"""Between which odds are told apart."""
HOUR = 3_600_000.0
"""Milliseconds."""
SHOWN, VIEWED, LIKED, REFUSED = range(4)
"""As in `activity`: numbers that the machine code has in it."""
MASKS = np.array([sum(int(found.bit(way)) for way in joined) for joined in FOUND.values()], np.uint16)
"""For each column of ways its bits."""
WINDOWS = 4
SHARES = 2
"""Windows of which an item's share in all views is told."""


def prepare() -> None:
    """Make the machine code that requests would else wait for; kept on disk it is made once for all processes."""
    of(of_nothing())


def of_nothing() -> Scene:
    """No candidates, of nobody."""
    now, nothing = from_milliseconds(0), empty_pool()
    judgement = scoring.judge(nothing, None, Person(), now, 0, TasteParams())
    looked = considered.considered(nothing, np.zeros(0, np.uint16), Person(), judgement, Age(0.0, 1.0))
    return Scene(looked, Happenings(), nothing, None, now)


def of(scene: Scene) -> Floats:
    """(n, F) what `features.of` gives."""
    table = np.empty((len(NAMES), len(scene.looked)), np.float32)
    table[:] = _alike(scene)[:, np.newaxis]
    counts = _counts(scene)
    compiled(_put_down, table, _first_places(), _of_items(scene), _of_person(scene), counts)
    for name, column in _beside(scene):
        table[PLACE[name]] = column
    return table.T


def _first_places() -> tuple[int, ...]:
    """At which places the columns of each kind begin."""
    names = ("score", "age", "item_shown_hour", "source_viewed_day", "same_source_met", "found_popular")
    return tuple(PLACE[name] for name in names)


def _alike(scene: Scene) -> Floats:
    """(F,) what is the same for all candidates; NaN for the other columns."""
    alike = np.full(len(NAMES), np.nan, np.float32)
    history = scene.looked.person.history
    alike[PLACE["history_length"]] = np.log1p(len(history))
    alike[PLACE["history_liked"]] = np.log1p(np.count_nonzero(features.verdicts(history)[0]))
    for name, number in chain(features.context(scene), features.of_user(scene)):
        alike[PLACE[name]] = number
    return alike


def _beside(scene: Scene) -> Iterator[tuple[str, Floats | float]]:
    """What is found for all candidates at once by a product, or for few of them."""
    pool, taste = scene.looked.pool, scene.looked.judgement.taste
    if pool.vectors.shape[1] == len(taste.vector) and len(taste.vector):
        yield "vector", pool.vectors @ taste.vector
    yield "story_size", np.log1p(features.story_sizes(scene.whole, pool))
    yield from features.factors(scene)
    yield from features.texts(scene)
    yield from features.of_story(scene)


def _of_items(scene: Scene) -> tuple[NDArray[Any], ...]:
    looked, pool = scene.looked, scene.looked.pool
    return (
        looked.values,
        looked.scores,
        looked.found,
        pool.popularity,
        pool.evidence,
        pool.bias,
        pool.source,
        pool.category,
        pool.language,
        pool.leads,
        pool.published,
        pool.received,
        pool.label_offsets,
        pool.labels,
    )


def _of_person(scene: Scene) -> tuple[Any, ...]:
    """What the columns of items are read against: for each number of a source, category, label and language what the person
    makes of it, last of none."""
    pool, person, taste = scene.looked.pool, scene.looked.person, scene.looked.judgement.taste
    sources, labels, languages = len(pool.sources), len(pool.label_names), len(pool.languages)
    own, ways = features.habits(scene), scene.looked.found.any()
    reads = spread(pool.languages.find(person.languages), np.float32(1), languages)
    reads[languages] = np.nan
    return (
        float(features.log_odds(np.float32(scene.looked.best))),
        scene.moment,
        int(features.DAYS_LONG * 24 * HOUR),
        spread(taste.sources, taste.source_weights, sources),
        spread(taste.labels, taste.label_weights, labels),
        np.stack(own.sources),
        np.stack(own.categories),
        np.stack(own.labels),
        spread(pool.sources.find(person.followed), np.float32(1), sources),
        spread(pool.label_names.find(person.topics), np.float32(1), labels),
        reads if person.languages else np.full(languages + 1, np.nan, np.float32),
        MASKS if ways else np.zeros(0, np.uint16),
    )


def _counts(scene: Scene) -> tuple[Any, ...]:
    pool, worked = scene.looked.pool, features.worked_out(scene)
    common = np.concatenate((worked.common.view, worked.common.like, worked.common.dislike), axis=1)
    parts = scene.happenings.parts_of_items(pool.keys, scene.second, pool.learned)
    held = features.BEFORE, features.TRACE
    return (*map(tuple, parts), *held, common, worked.of_all, worked.sources, worked.categories)


def _put_down(table: Any, first: Any, items: Any, person: Any, counts: Any) -> None:
    """Every column that is told by these (F, n)."""
    model, item, counted, groups, habits, ways = first
    _put_scores(table[model:], items, person)
    _put_items(table[item:], items, person)
    _put_counts(table[counted:], counts)
    _put_groups(table[groups:], items, counts)
    _put_habits(table[habits:], items, person)
    masks = person[11]
    bits = items[2]
    for way in range(len(masks)):
        for row in range(len(bits)):
            table[ways + way, row] = 1 if bits[row] & masks[way] else 0


def _log_odds(probability: Any) -> Any:
    inside = min(max(probability, LOWEST), HIGHEST)
    return np.log(inside / (np.float32(1) - inside))


def _put_scores(table: Any, items: Any, person: Any) -> None:
    values, scores, _, popularity, evidence, bias, source, _, _, _, _, _, offsets, labels = items
    best, _, _, of_source, of_label, _, _, _, _, _, _, _ = person
    for row in range(len(values)):
        score = _log_odds(values[row])
        table[0, row] = score
        table[1, row] = score - np.float32(best)
        table[2, row] = _log_odds(scores[row])
        table[3, row] = _log_odds(popularity[row])
        table[4, row] = np.log1p(evidence[row])
        table[5, row] = bias[row]
        table[7, row] = of_source[source[row]]
        total, count = np.float32(0), offsets[row + 1] - offsets[row]
        for place in range(offsets[row], offsets[row + 1]):
            total += of_label[labels[place]]
        table[8, row] = total / np.sqrt(max(count, 1))


def _put_items(table: Any, items: Any, person: Any) -> None:
    _, _, _, _, _, _, _, _, language, leads, published, received, offsets, _ = items
    moment, undated, reads = person[1], person[2], person[10]
    for row in range(len(leads)):
        old = undated if published[row] == NO_DATE else moment - published[row]
        table[0, row] = np.log1p(max(old, 0) / HOUR)
        table[1, row] = np.log1p(max(moment - received[row], 0) / HOUR)
        table[2, row] = offsets[row + 1] - offsets[row]
        table[3, row] = reads[language[row]]
        table[4, row] = leads[row]


def _put_counts(table: Any, counts: Any) -> None:
    """Of what was counted up to the snapshot, since then, and of late, all faded by now."""
    learned, recent, newest, before, trace, common, of_all, _, _ = counts
    now = np.empty((4, WINDOWS), np.float32)
    for row in range(table.shape[1]):
        now[:] = 0
        _add(now, learned[0], learned[1][row], learned[2])
        _add(now, recent[0], recent[1][row], recent[2])
        _add(now, newest[0], newest[1][row], newest[2])
        np.maximum(now, np.float32(0), now)
        for window in range(WINDOWS):
            shown, viewed, liked = now[SHOWN, window], now[VIEWED, window], now[LIKED, window]
            met = max(max(shown, viewed), liked + now[REFUSED, window])
            first, held = 5 * window, met + np.float32(before)
            table[first, row] = _log1p(shown)
            table[first + 1, row] = _log1p(viewed)
            table[first + 2, row] = _log1p(liked)
            table[first + 3, row] = (min(viewed, met) + np.float32(before) * common[window, 0]) / held
            table[first + 4, row] = (liked + np.float32(before) * common[window, 1]) / held
            if window == WINDOWS - 1:
                table[5 * WINDOWS, row] = (now[REFUSED, window] + np.float32(before) * common[window, 2]) / held
        for window in range(SHARES):
            share = (now[VIEWED, window] + np.float32(trace)) / (of_all[VIEWED, window] + np.float32(trace))
            table[5 * WINDOWS + 1 + window, row] = np.log(share)


def _add(total: Any, values: Any, at: int, left: Any) -> None:
    if at >= 0:
        for kind in range(4):
            for window in range(WINDOWS):
                total[kind, window] += values[at, kind, window] * left[window]


def _log1p(count: Any) -> Any:
    """Of most items nothing was heard."""
    return np.log1p(count) if count else count


def _put_groups(table: Any, items: Any, counts: Any) -> None:
    source, category = items[6], items[7]
    of_sources, of_categories = counts[7], counts[8]
    for column in range(len(of_sources)):
        for row in range(len(source)):
            table[column, row] = of_sources[column, source[row]]
    for column in range(len(of_categories)):
        for row in range(len(category)):
            table[len(of_sources) + column, row] = of_categories[column, category[row]]


def _put_habits(table: Any, items: Any, person: Any) -> None:
    _, _, _, _, _, _, source, category, _, _, _, _, offsets, labels = items
    _, _, _, _, _, of_sources, of_categories, of_labels, followed, topics, _, _ = person
    for row in range(len(source)):
        for column in range(2):
            table[column, row] = of_sources[column, source[row]]
            table[2 + column, row] = of_categories[column, category[row]]
            total, count = np.float32(0), offsets[row + 1] - offsets[row]
            for place in range(offsets[row], offsets[row + 1]):
                total += of_labels[column, labels[place]]
            table[4 + column, row] = total / count if count else np.nan
        table[6, row] = followed[source[row]]
        on_topic = np.float32(0)
        for place in range(offsets[row], offsets[row + 1]):
            on_topic = max(on_topic, topics[labels[place]])
        table[7, row] = on_topic
