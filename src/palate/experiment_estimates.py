"""A variant estimated from the log before anybody is served by it.

Chance is in the log where places explored, and only there. So what can be estimated is another share of exploration; what a
variant would have put first that nobody was shown, no log can tell. Models are compared on what exploration showed by
`palate evaluate --exploration`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import sqlalchemy as sa

from palate import off_policy
from palate.database import reading
from palate.domain import to_milliseconds
from palate.errors import InvalidInput, NotFound
from palate.experiment_log import Log, of_names
from palate.off_policy import Estimate, Interval

SETTING = "feed.exploration"


class Estimated(msgspec.Struct, frozen=True, kw_only=True):
    """Likes of what is shown, as it was and as it would be."""

    before: float
    """Share of places that explored, by the settings of now; the log has to have been made with it."""
    after: float
    likes_per_shown: Estimate
    left_out: int
    """Places that another share, or something else, chose."""


def estimate(
    engine: sa.Engine,
    folder: Path,
    settings: Mapping[str, Any],
    before: float,
    liked: tuple[str, ...],
    days: float,
    now: datetime,
) -> Estimated:
    """What a variant with these settings would do to the likes of what is shown. `folder` holds the sealed days.

    Raises InvalidInput for settings of which the log tells nothing, NotFound for a log in which nothing was shown by chance.
    """
    after = settings.get(SETTING)
    if set(settings) != {SETTING} or not isinstance(after, (int, float)) or not 0 <= after < 1:
        raise InvalidInput(
            f"only {SETTING} can be estimated from what was shown by chance; compare models with `palate evaluate --exploration`"
        )
    if not 0 < before < 0.5:
        raise InvalidInput(
            f"with {SETTING} = {before:g} chance can't be told from choice in the log; it has to lie between 0 and 0.5"
        )
    people, rewards, logged = _shown(engine, folder, liked, now - timedelta(days=days), now)
    target = off_policy.explored_more(logged, before, float(after))
    known = ~np.isnan(target)
    if not (known & (logged < 1)).any():
        raise NotFound("Nothing was shown by chance in these days, so there is nothing to learn from.")
    found = off_policy.estimate(rewards[known], logged[known], target[known], people[known])
    return Estimated(before=before, after=float(after), likes_per_shown=found, left_out=int(np.count_nonzero(~known)))


def _shown(
    engine: sa.Engine, folder: Path, liked: tuple[str, ...], since: datetime, now: datetime
) -> tuple[Any, Any, Any]:
    """Person, whether they liked it then or later, and probability, of each time that something was shown."""
    shown, likes = [], []
    with reading(engine) as connection:
        for part in Log(connection, folder, to_milliseconds(since), to_milliseconds(now)).parts():
            rows = of_names(part.types, part.type, {"shown"}) & ~np.isnan(part.probability)
            shown.append(np.rec.fromarrays([part.user[rows], part.item[rows], part.probability[rows]]))
            rows = of_names(part.types, part.type, liked)
            likes.append(np.stack([part.user[rows], part.item[rows]], axis=1))
    if not shown:
        raise NotFound("Nothing was shown in these days, so there is nothing to learn from.")
    user, item, probability = (np.concatenate([one[name] for one in shown]) for name in ("f0", "f1", "f2"))
    pairs = np.concatenate([np.stack([user, item], axis=1), *likes])
    _, number = np.unique(pairs, axis=0, return_inverse=True)
    number = number.reshape(-1)
    return user, np.isin(number[: len(user)], number[len(user) :]), probability


def text(found: Estimated) -> str:
    """What the terminal shows."""
    one = found.likes_per_shown
    lines = [
        f"Likes per item shown, from {one.choices:,} places of {one.people:,} people ({found.left_out:,} more were chosen "
        "otherwise):",
        f"  as it was, {SETTING} = {found.before:g}: {_told(one.logged)}",
        f"  with {SETTING} = {found.after:g}: {_told(one.snips)} (self-normalised), {_told(one.ips)} (plain)",
        f"  which rests on as much as {one.effective:,.0f} choices of equal weight.",
        "Each place is taken by itself, as if what stands before it were the same; what exploring teaches isn't in it.",
    ]
    return "\n".join(lines if one.warning is None else [*lines, one.warning])


def _told(found: Interval) -> str:
    if found.value is None or found.low is None or found.high is None:
        return "not known"
    return f"{found.value:.4f} [{found.low:.4f}, {found.high:.4f}]"
