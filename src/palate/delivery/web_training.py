"""What the training loop did, and what the newest model predicts for one person over the whole pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import sqlalchemy as sa
from markupsafe import Markup
from numpy.typing import NDArray
from starlette.responses import Response

from palate import database, feed, identities
from palate.database import reading
from palate.delivery.refusals import Refusal
from palate.delivery.web_cards import age
from palate.delivery.web_page import Visit, draw, inline_json
from palate.domain import from_milliseconds, to_milliseconds
from palate.pool import NO_DATE, of_keys
from palate.snapshots import Snapshot

CYCLES = 60
"""Newest cycles that are shown."""
POINTS = 4000
"""Points of the loss curve in all."""
DRAWN = 20_000
"""Items of the scatter; of a larger pool a sample is drawn, but all are counted."""
PEOPLE = 100
"""People to choose among."""
TOLD = 12
"""Columns that the heavy ranker goes by most."""
DAY = 86_400_000
WIDTH, HEIGHT, LEFT, BOTTOM = 920, 300, 44, 24
"""Of the drawings made here, for pages without JavaScript."""


@dataclass(frozen=True)
class ShownCycle:
    """One row of the table, with its loss curve."""

    kind: str
    reason: str
    started: datetime
    seconds: float
    examples: int
    version: str | None
    loss: float | None
    prior_loss: float | None
    losses: NDArray[np.float32]


@dataclass(frozen=True)
class Scatter:
    """Predictions for one person over the pool. `above[i]` items score at least i / 100."""

    age: NDArray[np.float64]
    """Days since each item was published or came."""
    score: NDArray[np.float32]
    served: NDArray[np.bool_]
    above: list[int]
    threshold: float | None
    """The lowest score among the served; None when nothing is."""


@dataclass(frozen=True)
class ShownModel:
    """How a model of the served snapshot did on what it hadn't learned, in words."""

    name: str
    measure: str
    own: str
    other: str
    """Of the prior or of popularity, by the same measure."""
    held_out: int
    verdict: str


def training(visit: Visit) -> Response:
    """The page of the training loop."""
    with reading(visit.serving.engine) as connection:
        cycles = _cycles(connection)
        may_choose = visit.may_change(connection)
        person = _chosen(visit, may_choose)
        people = some_people(connection) if may_choose else []
    scatter = _scatter(visit, person)
    threshold = _threshold(visit, scatter)
    losses = _loss_curve(cycles)
    mine = person == visit.user
    return draw(
        visit,
        "training.html",
        here="/training",
        state=_state(visit, cycles),
        cycles=cycles,
        current=visit.serving.live.pool.model.version,
        models=_models(visit),
        ranker_words=_ranker_words(visit),
        loss_data=inline_json(losses),
        loss_svg=_loss_svg(losses),
        loss_words=_loss_words(cycles),
        person=None if mine else person,
        person_words="you" if mine else person,
        may_choose=may_choose,
        people=people,
        scores=len(scatter.score),
        score_data=inline_json(_score_columns(scatter)),
        score_svg=_score_svg(scatter, threshold),
        threshold=threshold,
        above=scatter.above[round(100 * threshold)],
    )


def _cycles(connection: sa.Connection) -> list[ShownCycle]:
    """The newest cycles, newest first."""
    table = database.cycles
    return [
        ShownCycle(
            kind=row.kind,
            reason=row.reason,
            started=from_milliseconds(row.started),
            seconds=row.seconds,
            examples=row.examples,
            version=row.version,
            loss=row.loss,
            prior_loss=row.prior_loss,
            losses=np.frombuffer(row.losses, np.float32),
        )
        for row in connection.execute(sa.select(table).order_by(table.c.key.desc()).limit(CYCLES))
    ]


def _state(visit: Visit, cycles: Sequence[ShownCycle]) -> str:
    published = [cycle for cycle in cycles if cycle.version is not None]
    if not published:
        return "No model has been published yet; until then everybody gets what is new."
    last = published[0]
    words = f"The last model was published {age(last.started, visit.now)}, from {last.examples:,} examples."
    if last.loss is None or last.prior_loss is None:
        return words
    return (
        f"{words} Its loss on the newest votes was {last.loss:.4f}; always guessing the mean has {last.prior_loss:.4f}."
    )


def _models(visit: Visit) -> list[ShownModel]:
    """The models of the served snapshot that were tested."""
    snapshot, served = visit.serving.live.snapshot, visit.serving.live.pool.model.name
    if snapshot is None:
        return []
    quality = snapshot.header.get("quality") or {}
    tested = [(name, found) for name, found in quality.items() if isinstance(found, dict) and found.get("held_out")]
    return [*(_model(name, found, served) for name, found in tested), *_rankers(snapshot)]


def _rankers(snapshot: Snapshot) -> list[ShownModel]:
    """The heavy ranker, if one was learned."""
    found = snapshot.header.get("rankers") or {}
    if found.get("ndcg") is None:
        return []
    verdict = "is served" if found["served"] else "no better than the plain score: not served"
    own, plain = f"{found['ndcg']:.4f}", f"{found['plain_ndcg']:.4f}"
    return [ShownModel("heavy ranker", "nDCG@10 of what was shown", own, plain, found["impressions"], verdict)]


def _ranker_words(visit: Visit) -> str | None:
    """What the heavy ranker goes by, the weightiest first; None where there is none."""
    snapshot = visit.serving.live.snapshot
    found = {} if snapshot is None else snapshot.header.get("rankers") or {}
    weighty = list(found.get("importances", {}).items())[:TOLD]
    if not weighty:
        return None
    named = ", ".join(f"{name.replace('_', ' ')} ({share:.0f} %)" for name, share in weighty)
    return f"The heavy ranker, learned from {found['learned_from']:,} impressions, goes by: {named}."


def _model(name: str, found: dict[str, Any], served: str) -> ShownModel:
    verdict = "is served" if name == served else "worse than popularity: not served" if found.get("worse") else ""
    names = ("loss", "loss", "prior_loss") if "loss" in found else ("nDCG@10", "ndcg", "popularity_ndcg")
    own, other = (f"{found[key]:.4f}" for key in names[1:])
    return ShownModel(name, names[0], own, other, found["held_out"], verdict)


# The loss


def _loss_curve(cycles: Sequence[ShownCycle]) -> dict[str, Any]:
    """All cycles' curves one after the other, oldest first, as columns; a full cycle begins with a mark."""
    full: list[float | None] = []
    incremental: list[float | None] = []
    restarts = []
    limit = max(POINTS // max(len(cycles), 1), 20)
    for cycle in reversed(cycles):
        if cycle.kind == "full":
            restarts.append(len(full))
        values: list[float | None] = [
            round(float(loss), 5) if np.isfinite(loss) else None for loss in thinned(cycle.losses, limit)
        ]
        none: list[float | None] = [None] * len(values)
        full += values if cycle.kind == "full" else none
        incremental += none if cycle.kind == "full" else values
    return {"batch": list(range(len(full))), "full": full, "incremental": incremental, "restarts": restarts}


def thinned(values: NDArray[np.float32], limit: int) -> list[float]:
    """At most `limit` values: means of neighbours.

    >>> thinned(np.array([1, 3, 5, 7], np.float32), 2)
    [2.0, 6.0]
    """
    if len(values) <= limit:
        return [float(value) for value in values]
    return [float(part.mean()) for part in np.array_split(values, limit)]


def _loss_words(cycles: Sequence[ShownCycle]) -> str:
    full = sum(cycle.kind == "full" for cycle in cycles)
    return (
        f"{len(cycles)} cycles from left to right, {full} of them full: each dashed line is a restart. "
        "Where a cycle had many mini-batches, a point is the mean of neighbouring ones."
    )


def _loss_svg(losses: dict[str, Any]) -> Markup:
    series = [("full", losses["full"]), ("more", losses["incremental"])]
    values = [value for _, column in series for value in column if value is not None]
    if not values:
        return Markup("")
    low, high = min(values), max(values)
    across = (WIDTH - LEFT - 8) / max(len(losses["batch"]) - 1, 1)
    up = (HEIGHT - BOTTOM - 8) / max(high - low, 1e-9)

    def place(at: int, value: float) -> str:
        return f"{LEFT + at * across:.1f},{HEIGHT - BOTTOM - (value - low) * up:.1f}"

    parts = [_frame(f"{low:.3f}", f"{high:.3f}")]
    parts += [
        f'<line class="restart" x1="{LEFT + at * across:.1f}" x2="{LEFT + at * across:.1f}" y1="8" y2="{HEIGHT - BOTTOM}"/>'
        for at in losses["restarts"]
    ]
    for name, column in series:
        for run in _runs(column):
            points = " ".join(place(at, column[at]) for at in run)
            parts.append(f'<polyline class="{name}" points="{points}"/>')
    return _svg(parts, "Loss by mini-batch over the last cycles")


def _runs(column: Sequence[float | None]) -> list[list[int]]:
    """Stretches of places without a gap."""
    runs: list[list[int]] = []
    for at, value in enumerate(column):
        if value is None:
            continue
        if runs and runs[-1][-1] == at - 1:
            runs[-1].append(at)
        else:
            runs.append([at])
    return runs


def _frame(low: str, high: str) -> str:
    base = HEIGHT - BOTTOM
    return (
        f'<line class="axis" x1="{LEFT}" x2="{WIDTH - 8}" y1="{base}" y2="{base}"/>'
        f'<line class="axis" x1="{LEFT}" x2="{LEFT}" y1="8" y2="{base}"/>'
        f'<text x="{LEFT - 6}" y="{base}" text-anchor="end">{low}</text>'
        f'<text x="{LEFT - 6}" y="16" text-anchor="end">{high}</text>'
    )


def _svg(parts: Sequence[str], label: str) -> Markup:
    """A drawing; every part is made of numbers and words of ours."""
    return Markup(f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>')


# The scores


def _chosen(visit: Visit, may_choose: bool) -> str:
    person = visit.query.get("person", "").strip()
    if not person or person == visit.user:
        return visit.user
    if not may_choose:
        raise Refusal(403, "forbidden", "Only an owner of this server may look at other people's predictions.")
    return identities.check_id(person, "the person")


def some_people(connection: sa.Connection) -> list[str]:
    """Ids of people, the newest last."""
    table = database.users
    query = sa.select(table.c.id).where(table.c.person.is_(None)).order_by(table.c.key).limit(PEOPLE)
    return list(connection.scalars(query))


def _scatter(visit: Visit, user: str) -> Scatter:
    live, params = visit.serving.live, visit.serving.params.feed
    found = feed.predicted(live, user, visit.now, params)
    pool = of_keys(live.pool, found.keys, live.snapshot)
    since = np.where(pool.published == NO_DATE, pool.received, pool.published)
    counts = np.bincount(np.clip((100 * found.scores).astype(np.int64), 0, 100), minlength=101)
    return Scatter(
        age=np.maximum(to_milliseconds(visit.now) - since, 0) / DAY,
        score=found.scores,
        served=found.served,
        above=np.cumsum(counts[::-1])[::-1].tolist(),
        threshold=found.threshold,
    )


def _threshold(visit: Visit, scatter: Scatter) -> float:
    """The threshold asked for, in hundredths; the lowest score among the served when none is."""
    try:
        asked = float(visit.query["threshold"])
    except (KeyError, ValueError):
        asked = 0.5 if scatter.threshold is None else scatter.threshold
    return int(100 * min(max(asked, 0.0), 1.0)) / 100 if np.isfinite(asked) else 0.5


def _drawn(scatter: Scatter, limit: int) -> NDArray[np.int64]:
    """Places of the items that are drawn: all that were served, and of the others evenly many."""
    others = np.flatnonzero(~scatter.served)
    step = max(len(others) // limit, 1)
    return np.concatenate((others[::step], np.flatnonzero(scatter.served)))


def _score_columns(scatter: Scatter) -> dict[str, Any]:
    places = _drawn(scatter, DRAWN)
    places = places[np.argsort(scatter.age[places], kind="stable")]
    score = [round(float(value), 4) for value in scatter.score[places]]
    served = scatter.served[places].tolist()
    return {
        "age": [round(float(value), 3) for value in scatter.age[places]],
        "score": [None if mark else value for value, mark in zip(score, served, strict=True)],
        "served": [value if mark else None for value, mark in zip(score, served, strict=True)],
        "above": scatter.above,
    }


def _score_svg(scatter: Scatter, threshold: float) -> Markup:
    if not len(scatter.score):
        return Markup("")
    places = _drawn(scatter, 800)
    oldest = max(float(scatter.age[places].max()), 1e-9)
    across, up = (WIDTH - LEFT - 16) / oldest, HEIGHT - BOTTOM - 8
    line = HEIGHT - BOTTOM - threshold * up
    parts = [_frame("0", "1"), f'<line class="line" x1="{LEFT}" x2="{WIDTH - 8}" y1="{line:.1f}" y2="{line:.1f}"/>']
    for at in places:
        x, y = WIDTH - 12 - scatter.age[at] * across, HEIGHT - BOTTOM - float(scatter.score[at]) * up
        name, radius = ("served", 4) if scatter.served[at] else ("pool", 2)
        parts.append(f'<circle class="{name}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 6}">{oldest:.0f} days ago</text>')
    parts.append(f'<text x="{WIDTH - 8}" y="{HEIGHT - 6}" text-anchor="end">now</text>')
    return _svg(parts, "Predicted score of each item in the pool, by age")
