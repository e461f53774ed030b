"""The light ranker: of tens of thousands of candidates the thousand among which the heavy one finds its best."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.machine_code import compiled
from palate.models import additive, text_values
from palate.models.additive import Additive
from palate.models.factorization_machine import Floats
from palate.pool import NO_DATE
from palate.rankers import GIVEN_COLUMNS, HOT_COLUMNS, Rankers
from palate.ranking import feature_kernels, features
from palate.ranking.features import DAYS_LONG, HOUR, Scene
from palate.ranking.taste import spread

SCORE, AGE, LEADS, BY_SOURCE, BY_CATEGORY, BY_LABEL, TEXT, WAYS = (
    GIVEN_COLUMNS.index(name)
    for name in (
        "score",
        "age",
        "leads",
        "source_weight",
        "same_category_met",
        "label_weight",
        "text_near_liked",
        "found_popular",
    )
)
"""Where the columns of each kind begin."""
LOWEST, HIGHEST = np.float32(1e-4), np.float32(1 - 1e-4)
"""Between which odds are told apart."""
UNDATED = int(DAYS_LONG * 24 * HOUR)


def find(scene: Scene, rows: NDArray[np.int64], rankers: Rankers) -> NDArray[np.int64]:
    """As many as `rankers` let through of these rows (ascending) of the scene's candidates, ascending."""
    keep = rankers.let_through(len(rows))
    if len(rows) <= keep:
        return rows
    value = scene.looked.values[rows] if rankers.light is None else _said(scene, rows, rankers.light)
    return np.sort(rows[np.argpartition(-value, keep)[:keep]])


def _said(scene: Scene, rows: NDArray[np.int64], light: Additive) -> Floats:
    """(n,) of these rows. Where they are most of all, all are asked: to take the others out would cost more."""
    looked = scene.looked
    if 2 * len(rows) > len(looked):
        return additive.said(light, given(scene), *hot(scene))[rows]
    scene = replace(scene, looked=looked.take(rows))
    return additive.said(light, given(scene), *hot(scene))


def columns(scene: Scene) -> Floats:
    """(C, n): `LIGHT_COLUMNS`, as `features.of` gives them, 0 for NaN, save that only of hot items anything was counted."""
    counted, rows = hot(scene)
    return np.concatenate((given(scene), counted[:, rows]))


def hot(scene: Scene) -> tuple[Floats, NDArray[np.int64]]:
    """(c, 1 + hot) what was counted of hot items, and (n,) which is each candidate's."""
    counted, rows = features.hot_columns(scene)
    return np.stack([counted[name] for name in HOT_COLUMNS]), rows


def given(scene: Scene) -> Floats:
    """(D, n): `GIVEN_COLUMNS`, as `features.of` gives them, 0 for NaN."""
    looked, pool = scene.looked, scene.looked.pool
    table = np.empty((len(GIVEN_COLUMNS), len(looked)), np.float32)
    table[LEADS - 1], table[LEADS] = pool.bias, pool.leads
    told = [_fixed(column) for column in (looked.values, looked.scores, pool.popularity, pool.evidence)]
    compiled(_probabilities, tuple(told), table[SCORE:AGE])
    compiled(_ages, scene.moment, UNDATED, _fixed(pool.published), _fixed(pool.received), table[AGE : AGE + 2])
    np.log(table[: AGE + 2], out=table[: AGE + 2])
    of_source, of_category, of_label = _of_groups(scene)
    compiled(_look_up, of_source, _fixed(pool.source), table[BY_SOURCE : BY_SOURCE + 3])
    compiled(_look_up, of_category, _fixed(pool.category), table[BY_CATEGORY : BY_CATEGORY + 2])
    compiled(_of_labels, of_label, _fixed(pool.label_offsets), _fixed(pool.labels), table[BY_LABEL : BY_LABEL + 4])
    compiled(_of_ways, _fixed(looked.found), feature_kernels.MASKS, table[WAYS:])
    table[TEXT] = _near(scene)
    return table


def _fixed(column: NDArray[Any]) -> NDArray[Any]:
    """As machine code is made for: an array that may be written to is another kind."""
    found = np.ascontiguousarray(column).view()
    found.flags.writeable = False
    return found


def prepare() -> None:
    """Make the machine code that requests would else wait for."""
    given(feature_kernels.of_nothing())
    text_values.products(np.zeros((0, 1), np.float16), np.zeros(0, np.int64), np.zeros(1, np.float32))


def _of_groups(scene: Scene) -> tuple[Floats, Floats, Floats]:
    """(3, sources + 1), (2, categories + 1) and (3, labels + 1): what the person makes of each, last of none."""
    pool, taste, own = scene.looked.pool, scene.looked.judgement.taste, features.habits(scene)
    by_source = spread(taste.sources, taste.source_weights, len(pool.sources))
    by_label = spread(taste.labels, taste.label_weights, len(pool.label_names))
    return np.stack((by_source, *own.sources)), np.stack(own.categories), np.stack((by_label, *own.labels))


def _near(scene: Scene) -> Floats | float:
    """(n,) how near each text is to the mean of those that the person took to; 0 where nothing is known."""
    spaces, pool = scene.happenings.spaces, scene.looked.pool
    if scene.snapshot is None or spaces is None or spaces.directions is None:
        return 0.0
    middle = features.middle_of_liked(scene)
    return 0.0 if middle is None else spaces.near(pool.keys, pool.learned, middle)


# --- machine code, of which `features.of` is what it means ----------------------------------------------------------------


def _probabilities(columns: Any, table: Any) -> None:
    """Odds of three, and one more than the last, of which the logarithm is still to be taken."""
    values, scores, popularity, evidence = columns
    _odds(values, table[0])
    _odds(scores, table[1])
    _odds(popularity, table[2])
    for row in range(len(evidence)):
        table[3, row] = evidence[row] + np.float32(1)


def _odds(probabilities: Any, found: Any) -> None:
    for row in range(len(probabilities)):
        inside = min(max(probabilities[row], LOWEST), HIGHEST)
        found[row] = inside / (np.float32(1) - inside)


def _ages(now: int, undated: int, published: Any, received: Any, table: Any) -> None:
    """One more than the hours, of which the logarithm is still to be taken."""
    hour = np.float32(1 / HOUR)
    for row in range(len(published)):
        old = undated if published[row] == NO_DATE else now - published[row]
        table[0, row] = np.float32(1) + np.float32(max(old, 0)) * hour
        table[1, row] = np.float32(1) + np.float32(max(now - received[row], 0)) * hour


def _look_up(values: Any, numbers: Any, table: Any) -> None:
    for column in range(len(values)):
        for row in range(len(numbers)):
            table[column, row] = values[column, numbers[row]]


def _of_labels(values: Any, offsets: Any, labels: Any, table: Any) -> None:
    for row in range(len(offsets) - 1):
        weight, met, liked = np.float32(0), np.float32(0), np.float32(0)
        for place in range(offsets[row], offsets[row + 1]):
            label = labels[place]
            weight += values[0, label]
            met += values[1, label]
            liked += values[2, label]
        count = np.float32(max(offsets[row + 1] - offsets[row], 1))
        table[0, row] = weight / np.sqrt(count)
        table[1, row], table[2, row] = met / count, liked / count
        table[3, row] = offsets[row + 1] - offsets[row]


def _of_ways(found: Any, masks: Any, table: Any) -> None:
    for way in range(len(masks)):
        for row in range(len(found)):
            table[way, row] = np.float32(1) if found[row] & masks[way] else np.float32(0)
