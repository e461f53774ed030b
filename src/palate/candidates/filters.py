"""What may not be served to a person, as one mask over the pool."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from palate.domain import to_milliseconds
from palate.live import Person
from palate.pool import NO_DATE, Pool
from palate.rules import Viewer
from palate.surface_params import SurfaceParams

Mask = NDArray[np.bool_]


def allowed(pool: Pool, person: Person, now: datetime, window: timedelta) -> Mask:
    """(n,) true for what the rules let the person see, is neither stale nor from the future, in a language they read, and from no
    source they hide.
    """
    mask = in_window(pool, now, window) & in_languages(pool, person.languages) & ~from_sources(pool, person.hidden)
    return mask & open_to(pool, person.viewer, now)


def open_to(pool: Pool, viewer: Viewer, now: datetime) -> Mask:
    """What rights, age and region let somebody see at this moment."""
    allowed = pool.rules.allows(viewer, now)
    return np.ones(len(pool), bool) if allowed.all() else allowed[pool.rule]


def of_surface(pool: Pool, surface: SurfaceParams) -> Mask:
    """What a surface shows."""
    mask = np.ones(len(pool), bool)
    if surface.languages:
        mask &= np.isin(pool.language, pool.languages.find(surface.languages))
    if surface.categories:
        mask &= np.isin(pool.category, pool.categories.find(surface.categories))
    if surface.kinds:
        mask &= np.isin(pool.kind, pool.kinds.find(surface.kinds))
    if surface.labels:
        mask &= with_labels(pool, pool.label_names.find(surface.labels))
    return mask


def in_window(pool: Pool, now: datetime, window: timedelta) -> Mask:
    """Published within the window before now, or without a date."""
    latest = to_milliseconds(now)
    earliest = latest - window // timedelta(milliseconds=1)
    mask: Mask = ((pool.published >= earliest) & (pool.published <= latest)) | (pool.published == NO_DATE)
    return mask


def in_languages(pool: Pool, languages: tuple[str, ...]) -> Mask:
    """In one of these languages or in one that isn't known; all when there are none."""
    if not languages:
        return np.ones(len(pool), bool)
    read = np.zeros(len(pool.languages) + 1, bool)
    read[pool.languages.find(languages)] = True
    read[-1] = True  # −1, not known
    return read[pool.language]


def about(pool: Pool, language: str | None, category: str | None) -> Mask:
    """In this language and of this category, each where it is given."""
    mask = np.ones(len(pool), bool)
    if language is not None:
        mask &= np.isin(pool.language, pool.languages.find([language]))
    if category is not None:
        mask &= np.isin(pool.category, pool.categories.find([category]))
    return mask


def from_sources(pool: Pool, sources: tuple[int, ...]) -> Mask:
    """From one of these sources (keys)."""
    if not sources:
        return np.zeros(len(pool), bool)
    named = np.zeros(len(pool.sources) + 1, bool)
    named[pool.sources.find(sources)] = True
    named[-1] = False  # −1, no source
    return named[pool.source]


def without(pool: Pool, mask: Mask, keys: NDArray[np.int64]) -> Mask:
    """The mask with these items taken out."""
    if not len(keys):
        return mask
    rows = pool.rows(keys)
    mask = mask.copy()
    mask[rows[rows >= 0]] = False
    return mask


def only(pool: Pool, keys: NDArray[np.int64]) -> Mask:
    """These items alone."""
    return ~without(pool, np.ones(len(pool), bool), keys)


def with_labels(pool: Pool, labels: NDArray[np.int32]) -> Mask:
    """With at least one of these labels (numbers)."""
    hits = np.concatenate(([0], np.cumsum(_among(pool, labels))))
    return hits[pool.label_offsets[1:]] > hits[pool.label_offsets[:-1]]


def with_all_labels(pool: Pool, names: Sequence[str]) -> Mask:
    """With every one of these labels; all items when there are none."""
    mask = np.ones(len(pool), bool)
    for name in names:
        mask &= with_labels(pool, pool.label_names.find([name]))
    return mask


def first_label(pool: Pool, rows: NDArray[np.int64], labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """For each row the first of its labels that is among these (numbers), −1 where none is."""
    wanted = set(labels.tolist())
    found = [next((own for own in pool.labels_of(row).tolist() if own in wanted), -1) for row in rows.tolist()]
    return np.array(found, np.int32)


def main_label(pool: Pool, rows: NDArray[np.int64]) -> NDArray[np.int32]:
    """For each row the first of its labels (number), −1 where it has none."""
    starts = pool.label_offsets[rows]
    has = starts < pool.label_offsets[rows + 1]
    found = np.full(len(rows), -1, np.int32)
    found[has] = pool.labels[starts[has]]
    return found


def _among(pool: Pool, labels: NDArray[np.int32]) -> Mask:
    """For each entry of `pool.labels`, whether it is one of these."""
    wanted = np.zeros(len(pool.label_names), bool)
    wanted[labels] = True
    return wanted[pool.labels]
