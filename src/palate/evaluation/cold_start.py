"""How good the lists of new people are after so few of their events, by any model: held-out people, full ranking.

The model learns from everybody else. A held-out person's first positives are what it knows of them; what they took to later has
to be found among all items but those first ones, so that all numbers of events compare.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate import metrics, splits
from palate.domain import Interactions, from_milliseconds
from palate.evaluation.replay import Quality, summary
from palate.matrix import Sparse
from palate.models import material as materials
from palate.models.registry import Entry, entry


class ColdStartParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is held out, and what is asked of a model."""

    events: tuple[int, ...] = (0, 1, 3, 10, 30, 100)
    """After how many positives quality is measured, ascending."""
    people: Annotated[int, msgspec.Meta(ge=2)] = 500
    """People held out, chosen by chance among those with enough positives; at most half of them."""
    later: Annotated[int, msgspec.Meta(ge=1)] = 5
    """Positives beyond the first that a held-out person must at least have."""
    k: Annotated[int, msgspec.Meta(ge=1)] = 10
    """Length of the list that nDCG looks at."""


def cold_start(
    pairs: Interactions, name: str, model_params: msgspec.Struct, params: ColdStartParams, rng: np.random.Generator
) -> list[Quality]:
    """nDCG@k of the named model and of popularity after each number of events. Pairs of weight above 0 are positives.

    Among equal scores the wanted come last. Raises NotFound for an unknown name, ValueError when too few have enough events.
    """
    pairs = splits.rows(pairs, pairs.weight > 0)
    held = _hold_out(pairs, params, rng)
    apart = np.isin(pairs.user, held)
    now = from_milliseconds(int(pairs.time.max()))
    learned = materials.material(splits.rows(pairs, ~apart), now)
    own = splits.rows(pairs, apart)
    place = _places(own, rng)
    wanted = splits.rows(own, place >= max(params.events))
    people = np.unique(held)
    rest = learned, own, place, wanted, people, params
    model = _measured(entry(name), model_params, *rest)
    popular = _measured(entry("popularity"), entry("popularity").params(), *rest)[:, :1]
    values = np.concatenate([model, popular], axis=1)[:, :, np.newaxis]
    return summary(values, params.events, (f"ndcg@{params.k}",), rng)


def _hold_out(pairs: Interactions, params: ColdStartParams, rng: np.random.Generator) -> NDArray[np.int64]:
    users, counts = np.unique(pairs.user, return_counts=True)
    able = users[counts >= max(params.events) + params.later]
    count = min(params.people, len(able) // 2)
    if count < 2:
        raise ValueError(f"Too few people have {max(params.events) + params.later} positives.")
    return rng.choice(able, count, replace=False)


def _places(own: Interactions, rng: np.random.Generator) -> NDArray[np.int64]:
    """Of each pair its place among its person's, oldest first; by chance within a millisecond."""
    order = np.lexsort((rng.random(len(own)), own.time, own.user))
    starts = np.searchsorted(own.user[order], own.user[order])
    place = np.empty(len(own), np.int64)
    place[order] = np.arange(len(own)) - starts
    return place


def _measured(
    model: Entry,
    model_params: msgspec.Struct,
    learned: materials.Material,
    own: Interactions,
    place: NDArray[np.int64],
    wanted: Interactions,
    people: NDArray[np.int64],
    params: ColdStartParams,
) -> NDArray[np.float64]:
    """(people, numbers of events)"""
    fitted = model.fit(learned, model_params, 1)
    target = materials.known(wanted, people, learned.items).weights
    first = materials.known(splits.rows(own, place < max(params.events)), people, learned.items).weights
    total = np.bincount(np.searchsorted(people, wanted.user), minlength=len(people))
    columns = []
    for events in params.events:
        known = materials.known(splits.rows(own, place < events), people, learned.items)
        scores = np.array(model.score_all(fitted, known), np.float32)
        relevant = np.zeros_like(scores)
        scores[_cells(first)] = -np.inf
        relevant[_cells(target)] = 1
        columns.append(metrics.ndcg_at(metrics.relevance(relevant, scores)[:, : params.k], params.k, total))
    return np.column_stack(columns)


def _cells(matrix: Sparse) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    return np.repeat(np.arange(len(matrix)), matrix.counts), matrix.columns
