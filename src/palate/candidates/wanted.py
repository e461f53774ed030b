"""What one call asks for, and what of a pool that is: the filters of a request as they read, over every item."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from palate.candidates import filters, stories
from palate.candidates.filters import Mask
from palate.live import Person
from palate.pool import Pool
from palate.surface_params import SurfaceParams

ANYWHERE = SurfaceParams()
"""A surface that the settings don't name."""


def _no_keys() -> NDArray[np.int64]:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class Wanted:
    """Who asks for what, where."""

    person: Person
    now: datetime
    window: timedelta
    """Items published longer ago stay out."""
    surface: SurfaceParams = ANYWHERE
    language: str | None = None
    """Only items in this language."""
    category: str | None = None
    """Only news of this category."""
    labels: tuple[str, ...] = ()
    """Only items that have all of these."""
    among: NDArray[np.int64] | None = None
    """Keys of the only items that may be served; None: all."""
    given: NDArray[np.int64] = field(default_factory=_no_keys)
    """Keys of items that this session had: they and their stories stay out."""
    excluded: NDArray[np.int64] = field(default_factory=_no_keys)
    """Keys of items that are to be left out."""


def allowed(pool: Pool, wanted: Wanted) -> Mask:
    """(n,) what may be served in this call, whether the person has met it before or not."""
    mask = narrowed(pool, fitting(pool, wanted), wanted)
    mask = stories.without(pool, mask, wanted.given)
    return filters.without(pool, mask, np.concatenate((wanted.given, wanted.excluded)))


def fitting(pool: Pool, wanted: Wanted) -> Mask:
    """(n,) what fits the person's choices, without what they have refused and its stories."""
    person = wanted.person
    mask, refused = filters.allowed(pool, person, wanted.now, wanted.window), stories.refused(pool, person.history)
    return filters.without(pool, stories.without(pool, mask, refused), refused)


def narrowed(pool: Pool, mask: Mask, wanted: Wanted) -> Mask:
    """The mask with what the surface shows alone, and what is asked for."""
    if wanted.surface is not ANYWHERE:
        mask = mask & filters.of_surface(pool, wanted.surface)
    if wanted.language is not None or wanted.category is not None:
        mask = mask & filters.about(pool, wanted.language, wanted.category)
    if wanted.among is not None:
        mask = mask & filters.only(pool, wanted.among)
    if wanted.labels:
        mask = mask & filters.with_all_labels(pool, wanted.labels)
    return mask


def of_all_themes(wanted: Wanted) -> Wanted:
    """The same for everything that the surface's theme leaves out, too."""
    return replace(wanted, surface=ANYWHERE, among=None)


def unseen(pool: Pool, mask: Mask, person: Person) -> Mask:
    """The mask without what the person has met, and without the stories of it."""
    met = person.history.items
    return stories.without(pool, filters.without(pool, mask, met), met)
