"""What rankers know of a served item, as it was when it was shown: named columns, and their form in the log.

An event of type `shown` carries them in its field `features`, a JSON string: the number of the scheme, a colon, and the columns
as 16-bit floats in base 64. So a ranker learns from what could be known at that moment, and from nothing that came later.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SCHEME = 3
"""Raised when a column changes its meaning or its place; columns of another scheme aren't learned from."""

WINDOWS = ("hour", "day", "week", "ever")
"""Over which things are counted: with half-lives of that length; `ever` forgets nothing."""


def _counted() -> Iterator[str]:
    for window in WINDOWS:
        yield from (f"item_shown_{window}", f"item_viewed_{window}", f"item_liked_{window}")
        yield from (f"item_view_rate_{window}", f"item_like_rate_{window}")
    yield from ("item_dislike_rate_ever", "item_share_hour", "item_share_day")
    for window in WINDOWS[1:]:
        yield from (f"source_viewed_{window}", f"source_view_rate_{window}", f"source_like_rate_{window}")
    for window in WINDOWS[1:3]:
        yield from (f"category_viewed_{window}", f"category_view_rate_{window}", f"category_like_rate_{window}")
    yield from ("story_viewed_hour", "story_viewed_day", "story_like_rate_ever")
    yield from ("user_shown_hour", "user_shown_day", "user_viewed_day", "user_viewed_ever", "user_view_rate_week")
    yield from ("user_like_rate_ever", "user_dislike_rate_ever")


JOINS = {
    "context": ("position", "hour_sin", "hour_cos", "weekday"),
    "model": (
        "score",
        "score_below_best",
        "likely",
        "popularity",
        "evidence",
        "item_bias",
        "vector",
        "source_weight",
        "label_weight",
        *(f"factors_{number}" for number in range(1, 7)),
    ),
    "item": ("age", "age_here", "labels", "language_match", "leads", "story_size"),
    "text": ("text_near_liked", "text_near_recent", "text_nearest", "text_near_refused"),
    "counters": tuple(_counted()),
    "history": (
        "history_length",
        "history_liked",
        "same_source_met",
        "same_source_liked",
        "same_category_met",
        "same_category_liked",
        "same_label_met",
        "same_label_liked",
        "followed",
        "on_topic",
    ),
    "found": ("found_popular", "found_near", "found_groups", "found_fresh", "found_followed", "found_trending"),
}
"""The columns by where they come from: what can be switched off to see what it is worth."""

NAMES: tuple[str, ...] = tuple(name for names in JOINS.values() for name in names)
"""The columns of scheme 3, in their order; NaN stands for what isn't known."""

POSITION = NAMES.index("position")
SCORE = NAMES.index("score")
"""Of what the plain order goes by, in log-odds."""

_LARGEST = float(np.finfo(np.float16).max)
_BYTES = 2 * len(NAMES)


def columns(names: Iterable[str]) -> NDArray[np.int64]:
    """The places of these columns."""
    return np.array([NAMES.index(name) for name in names], np.int64)


def rounded(features: Floats) -> Floats:
    """The features as the log keeps them: who learns and who serves sees the same numbers."""
    return np.clip(features, -_LARGEST, _LARGEST).astype(np.float16).astype(np.float32)


def unrounded(borders: Floats) -> Floats:
    """Borders that tell numbers apart as these do once the numbers are rounded as the log keeps them: asking by them saves the
    rounding. A rounded number is above a border when the number is above the middle between the two halves around it."""
    below = np.clip(borders, -_LARGEST, _LARGEST).astype(np.float16)
    with np.errstate(over="ignore"):  # beyond the largest half lies infinity
        below = np.where(below > borders, np.nextafter(below, np.float16(-np.inf)), below)
        above = np.nextafter(below, np.float16(np.inf))
    middle = (below.astype(np.float32) + above.astype(np.float32)) / 2
    even = below.view(np.uint16) % 2 == 0  # of the two it is the one that the middle itself is rounded to
    found = np.where(even, middle, np.nextafter(middle, np.float32(-np.inf)))
    return np.where(below >= _LARGEST, np.float32(np.inf), found).astype(np.float32)


def written(features: Floats) -> list[str]:
    """Each row (F,) of the features (n, F) as the field of an event, a JSON string."""
    halves = np.clip(features, -_LARGEST, _LARGEST).astype("<f2")
    return [f'"{SCHEME}:{base64.b64encode(row.tobytes()).decode()}"' for row in halves]


def read(texts: Sequence[str | None]) -> tuple[Floats, NDArray[np.bool_]]:
    """(n, F) the features of these fields, and (n,) which of them are of this scheme; the rows of others are NaN."""
    head, wide = f'"{SCHEME}:', 4 * ((_BYTES + 2) // 3)
    good = np.array(
        [text is not None and len(text) == len(head) + wide + 1 and text.startswith(head) for text in texts]
    )
    found = np.full((len(texts), len(NAMES)), np.nan, np.float32)
    for row in np.flatnonzero(good).tolist():
        try:
            raw = base64.b64decode(str(texts[row])[len(head) : -1], validate=True)
        except ValueError:
            raw = b""
        good[row] = len(raw) == _BYTES
        if good[row]:
            found[row] = np.frombuffer(raw, "<f2")
    return found, good.astype(bool)
