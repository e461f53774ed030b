"""Simulated readers with tastes: what they were shown, viewed, opened, liked and saved, and what they truly like.

They make a demonstration alive and give tests a ground truth. A reader's taste is a logit: their own generosity, the item's
quality (the same for all), favourite and disliked labels, favourite sources, and the languages that they read.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import msgspec
import numpy as np

from palate.domain import Event, Item, to_milliseconds

if TYPE_CHECKING:
    from numpy.typing import NDArray

QUALITY, FAVOURITE_LABEL, DISLIKED_LABEL, FAVOURITE_SOURCE, FOREIGN = 1.5, 2.0, -2.0, 1.5, -3.0
"""What each part of a taste adds to the logit; the quality lies between − and + its number."""


class SimulationParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How simulated readers behave."""

    sessions: Annotated[float, msgspec.Meta(gt=0)] = 4.0
    """Mean number of visits of a reader in the whole time."""
    page: Annotated[int, msgspec.Meta(ge=1)] = 20
    """Items shown in a visit."""
    view_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.8
    """Probability that the first item of a page is viewed; it falls in a straight line to half of that at the last."""
    vote_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.8
    """Probability that a viewed item gets a like or a dislike."""
    mood: Annotated[float, msgspec.Meta(ge=0)] = 0.3
    """Standard deviation of a visit's mood, which moves all logits of that visit."""


@dataclass(frozen=True)
class Reader:
    """A simulated person and their taste."""

    id: str
    labels: frozenset[str]
    """Favourites."""
    disliked_labels: frozenset[str]
    sources: frozenset[str]
    """Favourites."""
    languages: frozenset[str]
    """What they read; items without a language are read by all."""
    generosity: float
    """Logit of liking an average item."""
    activity: float
    """Visits, as a multiple of everybody's mean."""


def readers(rng: np.random.Generator, count: int, items: Sequence[Item]) -> list[Reader]:
    """Readers with tastes over the labels, sources and languages of these items; what is commoner has more fans."""
    labels = sorted(label for item in items for label in item.labels)
    sources = sorted(item.source for item in items if item.source is not None)
    languages = sorted(item.language for item in items if item.language is not None)
    return [_reader(f"reader-{number:04d}", rng, labels, sources, languages) for number in range(1, count + 1)]


def affinities(readers: Sequence[Reader], items: Sequence[Item]) -> NDArray[np.float32]:
    """The ground truth, shape (readers, items): probability that the reader, in a plain mood, likes the item."""
    logits = np.array([[reader.generosity] for reader in readers]) + np.array(
        [QUALITY * _fixed(item, "quality") for item in items]
    )
    logits = logits + FAVOURITE_LABEL * _shared(readers, items, lambda reader: reader.labels, _labels)
    logits += DISLIKED_LABEL * _shared(readers, items, lambda reader: reader.disliked_labels, _labels)
    logits += FAVOURITE_SOURCE * _shared(readers, items, lambda reader: reader.sources, _source)
    logits += FOREIGN * (1 - _shared(readers, items, lambda reader: reader.languages | {""}, _language))
    return _sigmoid(logits)


def simulate(
    items: Sequence[Item],
    readers: Sequence[Reader],
    rng: np.random.Generator,
    now: datetime,
    days: float,
    params: SimulationParams | None = None,
) -> list[Event]:
    """What the readers did in the days before `now`, oldest first; nobody is shown an item twice, or before it was published.

    Viewed carries the dwell in seconds. A page is a random choice of what is out, with fresh items before old ones.
    """
    params = params or SimulationParams()
    published = np.array([to_milliseconds(item.published) if item.published else -1 for item in items], np.int64)
    end, length = to_milliseconds(now), timedelta(days=days) // timedelta(milliseconds=1)
    logits = _logit(affinities(readers, items))
    last_start = end - 1000 * (1 + int(params.page * _LONGEST_DWELL))  # so that no visit reaches beyond the end
    prominence = np.array([_PROMINENCE * _fixed(item, "prominence") for item in items])
    events: list[Event] = []
    for reader, taste in zip(readers, logits, strict=True):
        unseen, visits = np.ones(len(items), bool), rng.poisson(params.sessions * reader.activity)
        for time in np.sort(rng.integers(end - length, max(last_start, end - length + 1), visits)):
            page = _page(unseen, published, prominence, int(time), rng, params.page)
            unseen[page] = False
            mood = rng.normal(0, params.mood)
            shown = [items[place].id for place in page]
            events += _visit(reader.id, shown, _sigmoid(taste[page] + mood), int(time), rng, params)
    return sorted(events, key=lambda event: event.time or 0)


_PROMINENCE = 2.0
"""Logarithm of how much more or less often than others an item is shown at most."""

_FRESH_FOR = 2 * 86_400_000
"""Milliseconds in which an item's chance to be shown falls to a half."""

_LONGEST_DWELL = 90.0
"""Seconds."""


def _reader(
    id: str, rng: np.random.Generator, labels: Sequence[str], sources: Sequence[str], languages: Sequence[str]
) -> Reader:
    favourites = _some(rng, labels, 4)
    return Reader(
        id=id,
        labels=favourites,
        disliked_labels=_some(rng, labels, 3) - favourites,
        sources=_some(rng, sources, 2),
        languages=_some(rng, languages, 2),
        generosity=float(rng.normal(-0.5, 0.7)),
        activity=float(rng.gamma(2.0, 0.5)),
    )


def _some(rng: np.random.Generator, values: Sequence[str], draws: int) -> frozenset[str]:
    """What so many draws find; a value that is there often is drawn often, and may be drawn twice."""
    return frozenset(values[place] for place in rng.integers(0, len(values), min(draws, len(values))).tolist())


def _labels(item: Item) -> Iterable[str]:
    return item.labels


def _source(item: Item) -> Iterable[str]:
    return () if item.source is None else (item.source,)


def _language(item: Item) -> Iterable[str]:
    return (item.language or "",)


def _shared(
    readers: Sequence[Reader],
    items: Sequence[Item],
    wanted: Callable[[Reader], Iterable[str]],
    offered: Callable[[Item], Iterable[str]],
) -> NDArray[np.float32]:
    """1 where the item offers something that the reader wants, else 0; (readers, items)."""
    names = sorted({name for item in items for name in offered(item)})
    places = {name: place for place, name in enumerate(names)}
    wants = np.zeros((len(readers), len(names)), np.float32)
    offers = np.zeros((len(items), len(names)), np.float32)
    for row, reader in enumerate(readers):
        wants[row, [places[name] for name in wanted(reader) if name in places]] = 1
    for row, item in enumerate(items):
        offers[row, [places[name] for name in offered(item)]] = 1
    shared: NDArray[np.float32] = np.minimum(wants @ offers.T, 1)
    return shared


def _fixed(item: Item, what: str) -> float:
    """A number from −1 to 1 that looks random, and is the same for all readers and in every run: the item's id decides it."""
    return 2 * zlib.crc32(f"{what} {item.id}".encode()) / 0xFFFFFFFF - 1


def _page(
    unseen: NDArray[np.bool_],
    published: NDArray[np.int64],
    prominence: NDArray[np.float64],
    time: int,
    rng: np.random.Generator,
    size: int,
) -> NDArray[np.int64]:
    """Places of a weighted sample without replacement (Gumbel top-k), in the order of the page."""
    out = np.flatnonzero(unseen & (published <= time))
    age = np.where(published[out] < 0, _FRESH_FOR, time - published[out])
    return out[np.argsort(rng.gumbel(size=len(out)) + prominence[out] - np.log1p(age / _FRESH_FOR))[::-1][:size]]


def _visit(
    user: str,
    shown: Sequence[str],
    likes: NDArray[np.float32],
    time: int,
    rng: np.random.Generator,
    params: SimulationParams,
) -> Iterator[Event]:
    """One page, read from the top. `likes` is the probability of a like for each of its items."""
    request = f"simulated-{user}-{time}"
    for position, item in enumerate(shown):
        yield Event(
            user=user, item=item, type="shown", time=time, request=request, surface="simulation", position=position
        )
    clock = time + 1_000
    reach = params.view_share * (1 - 0.5 * np.arange(len(shown)) / max(1, len(shown)))
    for place in np.flatnonzero(rng.random(len(shown)) < reach).tolist():
        dwell = min(_LONGEST_DWELL, float(rng.lognormal(1.2 + 1.5 * likes[place], 0.6)))
        clock += int(1000 * dwell)
        for type, value in _actions(float(likes[place]), round(dwell, 1), rng.random(4), params):
            yield Event(
                user=user, item=shown[place], type=type, value=value, time=clock, request=request, surface="simulation"
            )


def _actions(
    like: float, dwell: float, chance: NDArray[np.float64], params: SimulationParams
) -> Iterator[tuple[str, float | None]]:
    """Types and values of what follows a view, given four uniform numbers."""
    yield "viewed", dwell
    if chance[0] < 0.05 + 0.4 * like:
        yield "opened", None
    if chance[1] < params.vote_share:
        yield "like" if chance[2] < like else "dislike", None
    if chance[3] < 0.2 * like**2:
        yield "save", None


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float32]:
    return (1 / (1 + np.exp(-logits))).astype(np.float32)


def _logit(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    exact = probabilities.astype(np.float64)
    return np.asarray(np.log(exact / (1 - exact)))
