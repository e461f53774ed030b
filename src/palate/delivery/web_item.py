"""One item: its whole text, how it does with everybody, and why this person got it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from starlette.responses import Response

from palate import catalog, counters, events
from palate.database import reading
from palate.delivery.web_cards import CardPage, full_text, media
from palate.delivery.web_feed import cards_of
from palate.delivery.web_labels import correction
from palate.delivery.web_page import Visit, draw
from palate.errors import NotFound

GRID = 4000
"""Points at which the posterior's distribution is summed up."""


@dataclass(frozen=True)
class Bias:
    """How well everybody likes an item: the posterior of its positive rate, all 0..1."""

    mean: float
    low: float
    high: float
    prior: float
    evidence: str
    item: float | None
    """The item's bias in the model, in the model's own unit; None without a model."""


def item(visit: Visit) -> Response:
    """The page of one item."""
    id = visit.request.path_params["id"]
    serving = visit.serving
    with reading(serving.engine) as connection:
        stored = catalog.get(connection, id)
        if stored is None:
            raise NotFound("There is no item at this address, or it was taken back.")
        counts = events.counts_of_item(connection, stored.key)
        elsewhere = counters.of_item(connection, stored.key)
        correct = correction(visit, connection, stored) if visit.may_change(connection) else None
    [shown] = cards_of(visit, [stored.key])
    return draw(
        visit,
        "item.html",
        card=shown,
        page=CardPage(again=str(stored.key)),
        text=full_text(stored.item),
        media=media(stored.item),
        labels=stored.item.labels,
        counts=counts,
        elsewhere=elsewhere,
        bias=_bias(visit, stored.key),
        correct=correct,
    )


def _bias(visit: Visit, key: int) -> Bias | None:
    snapshot, pool = visit.serving.live.snapshot, visit.serving.live.pool
    row = int(pool.rows(np.array([key], np.int64))[0])
    if snapshot is None or row < 0:
        return None
    popularity = snapshot.header["models"]["popularity"]
    mean, evidence = float(pool.popularity[row]), float(pool.evidence[row])
    low, high = beta_interval(mean, popularity["strength"] + evidence)
    seen = (
        "Nobody has judged it yet."
        if evidence < 0.05
        else f"Judged {evidence:.1f} times, recent judgements counting most."
    )
    return Bias(mean, low, high, float(popularity["mean"]), seen, float(pool.bias[row]))


def beta_interval(mean: float, total: float, mass: float = 0.95) -> tuple[float, float]:
    """The central interval that holds `mass` of the Beta distribution with this mean and α + β = `total`.

    >>> low, high = beta_interval(0.5, 2)  # α = β = 1 is the uniform distribution
    >>> round(low, 2), round(high, 2)
    (0.03, 0.97)
    """
    x = (np.arange(GRID) + 0.5) / GRID
    log_density = (mean * total - 1) * np.log(x) + ((1 - mean) * total - 1) * np.log1p(-x)
    below = np.cumsum(np.exp(log_density - log_density.max()))
    low, high = np.searchsorted(below / below[-1], [(1 - mass) / 2, (1 + mass) / 2])
    return float(x[low]), float(x[min(high, GRID - 1)])
