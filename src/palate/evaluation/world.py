"""A simulated world: readers whose tastes drift, sources of their own quality, items that come by the hour, visits.

It is the same for everybody who serves it: who comes when, what is published and how tastes move depend on the seed alone, each
on a stream of chance of its own. What a reader does depends on what they are shown, and where: an item is looked at by its place,
and then taken up by what it promises (Craswell et al., "An Experimental Comparison of Click Position-Bias Models", WSDM 2008, the
examination hypothesis). Whether it is liked then is another matter: some items promise more than they hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from functools import cache
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate.domain import Event, Item, from_milliseconds, to_milliseconds

Floats = NDArray[np.float64]

HOUR = 3_600_000
"""Milliseconds."""

DAY_HOURS = 24


class WorldParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many there are of what, and how they behave. Spreads are standard deviations, in log-odds of a like."""

    readers: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 100
    """People who come."""
    visits_per_day: Annotated[float, msgspec.Meta(gt=0)] = 6.0
    """Mean number of visits of a reader on a day; fewer at night."""
    items_per_hour: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    """Mean number of items published in an hour; fewer at night."""
    backlog_hours: Annotated[int, msgspec.Meta(ge=0)] = 48
    """Hours before the start whose items are there at the start."""
    sources: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 30
    """Of which some publish much more than others."""
    topics: Annotated[int, msgspec.Meta(ge=2, le=1000)] = 8
    """What items are about, and readers like and dislike."""
    page: Annotated[int, msgspec.Meta(ge=1, le=200)] = 10
    """Items shown at a time."""
    more: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.6
    """Probability that a reader asks for another page after one all of which they like for sure; in proportion after others."""
    pages: Annotated[int, msgspec.Meta(ge=1)] = 5
    """Pages in a visit at most."""
    position_bias: Annotated[float, msgspec.Meta(ge=0)] = 0.5
    """The place k of a visit, from 1, is looked at with probability k to the power of minus this."""
    generosity: float = -1.0
    """Log-odds that a reader likes an item of no merit in their eyes, in the mean."""
    generosity_spread: Annotated[float, msgspec.Meta(ge=0)] = 0.5
    """How much readers differ in that."""
    taste_spread: Annotated[float, msgspec.Meta(ge=0)] = 2.0
    """How much a reader's liking of topics differs."""
    drift_days: Annotated[float, msgspec.Meta(gt=0)] = 20.0
    """Days after which half of a reader's taste for topics is another; it varies as much as ever."""
    source_spread: Annotated[float, msgspec.Meta(ge=0)] = 0.5
    """How much sources differ in quality, which all readers feel alike."""
    item_spread: Annotated[float, msgspec.Meta(ge=0)] = 0.5
    """How much items of one source differ in quality."""
    loyalty_spread: Annotated[float, msgspec.Meta(ge=0)] = 0.5
    """How much a reader's liking of single sources differs."""
    promise_spread: Annotated[float, msgspec.Meta(ge=0)] = 0.5
    """How much more, or less, an item promises than it holds: that moves whether it is taken up, and not whether it is liked."""
    ageing: Annotated[float, msgspec.Meta(ge=0)] = 0.3
    """What an item loses with each day of its age."""
    vote_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.8
    """Probability that an item that was taken up gets a like or a dislike."""
    labelled: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.5
    """Share of the sources that label their items with what they are about; of all others the text alone tells."""
    clarity: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.4
    """Share of a text's words that belong to its topics."""


@dataclass(frozen=True, eq=False)
class World:
    """What stays as it is, of R readers, S sources and T topics."""

    params: WorldParams
    seed: int
    start: datetime
    ids: tuple[str, ...]
    """(R,) of the readers."""
    generosity: Floats
    """(R,)"""
    activity: Floats
    """(R,) visits, as a multiple of everybody's mean."""
    loyalty: Floats
    """(R, S)"""
    quality: Floats
    """(S,)"""
    output: Floats
    """(S,) share of all items that a source publishes."""
    about: Floats
    """(S, T) share of a source's items on each topic."""
    labels: NDArray[np.bool_]
    """(S,) whether a source labels its items."""


@dataclass(frozen=True, eq=False)
class Truths:
    """What is true of n items."""

    topics: Floats
    """(n, T): 1 for its topic, ½ for another that it touches."""
    quality: Floats
    """(n,) its source's included."""
    promise: Floats
    """(n,) beyond its quality."""
    source: NDArray[np.int64]
    """(n,) row of the source."""
    published: NDArray[np.int64]
    """(n,) milliseconds since 1970."""

    def __len__(self) -> int:
        return len(self.quality)

    def of(self, rows: NDArray[np.int64] | slice) -> Truths:
        """Those of these rows."""
        return Truths(*(getattr(self, field.name)[rows] for field in fields(self)))


def joined(parts: Sequence[Truths]) -> Truths:
    """One after the other."""
    return Truths(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Truths)))


@dataclass(frozen=True)
class Visit:
    """That somebody comes."""

    number: int
    """Among those of its hour."""
    reader: int
    """Row."""
    time: int
    """Milliseconds since 1970."""


_READERS, _SOURCES, _TASTES, _ITEMS, _VISITS, _DEEDS = range(6)
"""Streams of chance."""


def create(params: WorldParams, seed: int, start: datetime) -> World:
    """A world that begins at `start`."""
    people, sources = _chance(seed, _READERS, 0), _chance(seed, _SOURCES, 0)
    weights = 1.0 / np.arange(1, params.sources + 1)  # Zipf's law
    return World(
        params=params,
        seed=seed,
        start=start,
        ids=tuple(f"reader-{number:05d}" for number in range(1, params.readers + 1)),
        generosity=people.normal(params.generosity, params.generosity_spread, params.readers),
        activity=people.gamma(2.0, 0.5, params.readers),
        loyalty=people.normal(0, params.loyalty_spread, (params.readers, params.sources)),
        quality=sources.normal(0, params.source_spread, params.sources),
        output=weights / weights.sum(),
        about=sources.dirichlet(np.full(params.topics, 0.1), params.sources),
        labels=sources.random(params.sources) < params.labelled,
    )


def tastes(world: World) -> Floats:
    """(R, T): what each topic adds for each reader at the start."""
    params = world.params
    return _chance(world.seed, _TASTES, 0).normal(0, params.taste_spread, (params.readers, params.topics))


def drifted(world: World, before: Floats, hour: int) -> Floats:
    """(R, T): the tastes an hour on, which is the hour of this number from 1; their spread stays (Ornstein and Uhlenbeck)."""
    params = world.params
    kept = 0.5 ** (1 / (DAY_HOURS * params.drift_days))
    moved = _chance(world.seed, _TASTES, hour).normal(0, params.taste_spread, before.shape)
    found: Floats = kept * before + np.sqrt(1 - kept**2) * moved
    return found


def published(world: World, hour: int) -> tuple[list[Item], Truths]:
    """What comes out in an hour, in its order; hours before the start are below 0."""
    params, rng = world.params, _chance(world.seed, _ITEMS, hour)
    count = int(rng.poisson(params.items_per_hour * _rhythm(world, hour)))
    source = rng.choice(params.sources, count, p=world.output)
    main = np.array([rng.choice(params.topics, p=world.about[row]) for row in source], np.int64)
    topics = np.zeros((count, params.topics))
    touched = rng.integers(params.topics, size=count)
    topics[np.arange(count), touched] = np.where(rng.random(count) < 0.5, 0.5, 0.0)
    topics[np.arange(count), main] = 1.0
    truths = Truths(
        topics=topics,
        quality=world.quality[source] + rng.normal(0, params.item_spread, count),
        promise=rng.normal(0, params.promise_spread, count),
        source=source,
        published=np.sort(rng.integers(0, HOUR, count)) + _begin(world, hour),
    )
    texts = [_text(row, params.clarity, rng) for row in topics]
    return [_item(world, hour, place, truths, texts[place]) for place in range(count)], truths


def visits(world: World, hour: int) -> list[Visit]:
    """Who comes in an hour, and when, in the order of time."""
    params, rng = world.params, _chance(world.seed, _VISITS, hour)
    rate = params.visits_per_day / DAY_HOURS * _rhythm(world, hour)
    reader = np.repeat(np.arange(params.readers), rng.poisson(rate * world.activity))
    times = np.sort(rng.integers(0, HOUR, len(reader))) + _begin(world, hour)
    comers = zip(rng.permutation(reader).tolist(), times.tolist(), strict=True)
    return [Visit(number, reader, time) for number, (reader, time) in enumerate(comers)]


def liking(world: World, tastes: Floats, reader: int, items: Truths, time: int) -> Floats:
    """(n,): probability that the reader, who takes an item up at this time, likes it: the ground truth."""
    age = (time - items.published) / (DAY_HOURS * HOUR)
    logits = world.generosity[reader] + items.quality + items.topics @ tastes[reader]
    logits += world.loyalty[reader, items.source] - world.params.ageing * age
    return _sigmoid(logits)


def attraction(likings: Floats, items: Truths) -> Floats:
    """(n,): probability that somebody who looks at an item takes it up."""
    odds = likings / (1 - likings) * np.exp(items.promise)
    return odds / (1 + odds)


def examination(params: WorldParams, positions: NDArray[np.int64]) -> Floats:
    """(n,): probability that the places of a visit, from 0, are looked at (Joachims, Swaminathan and Schnabel, WSDM 2017, §5)."""
    found: Floats = np.power(1.0 + positions, -params.position_bias)
    return found


def chance(world: World, visit: Visit, page: int) -> np.random.Generator:
    """Of what happens on a page of a visit, the same whatever is shown there."""
    return _chance(world.seed, _DEEDS, visit.time, visit.number, page)


@dataclass(frozen=True)
class Page:
    """What somebody is shown at once."""

    user: str
    request: str
    surface: str
    time: int
    """Milliseconds since 1970."""
    items: tuple[str, ...]
    """Ids, in their order."""


def deeds(
    page: Page, looked_at: Floats, taken_up: Floats, liked: Floats, params: WorldParams, rng: np.random.Generator
) -> list[Event]:
    """What a reader does with a page, from its top.

    The three arrays hold for each of its items the probability that it is looked at, then taken up, then liked. An item that is
    taken up is viewed for some seconds, and perhaps opened, voted on and saved.
    """
    draws = rng.random((len(page.items), 6))
    dwell = np.minimum(_LONGEST_DWELL, np.exp(1.2 + 1.5 * liked + 0.6 * rng.standard_normal(len(liked))))
    taken = (draws[:, 0] < looked_at) & (draws[:, 1] < taken_up)
    clock, found = page.time + 1_000, list[Event]()
    for place in np.flatnonzero(taken).tolist():
        clock += int(1_000 * dwell[place])
        found += [
            Event(
                user=page.user,
                item=page.items[place],
                type=type,
                value=value,
                time=clock,
                request=page.request,
                surface=page.surface,
            )
            for type, value in _acts(
                bool(draws[place, 2] < liked[place]), float(dwell[place]), draws[place, 3:], params
            )
        ]
    return found


_LONGEST_DWELL = 90.0
"""Seconds."""


def _acts(likes: bool, dwell: float, draws: Floats, params: WorldParams) -> Iterator[tuple[str, float | None]]:
    """Types and values of what is done with one item, given three uniform numbers."""
    yield "viewed", round(dwell, 1)
    if draws[0] < 0.5:
        yield "opened", None
    if draws[1] < params.vote_share:
        yield ("like" if likes else "dislike"), None
    if likes and draws[2] < 0.1:
        yield "save", None


def _chance(seed: int, stream: int, *of: int) -> np.random.Generator:
    return np.random.default_rng([seed, stream, *(2 * number if number >= 0 else -2 * number - 1 for number in of)])


def _begin(world: World, hour: int) -> int:
    return to_milliseconds(world.start) + hour * HOUR


def _rhythm(world: World, hour: int) -> float:
    """Of the day: mean 1, least at three in the morning."""
    return float(1 + 0.8 * np.sin(2 * np.pi * ((world.start + timedelta(hours=hour)).hour - 9) / DAY_HOURS))


def _sigmoid(logits: Floats) -> Floats:
    found: Floats = 1 / (1 + np.exp(-logits))
    return found


def _item(world: World, hour: int, place: int, truths: Truths, words: list[str]) -> Item:
    source = int(truths.source[place])
    labels = (f"topic {int(truths.topics[place].argmax())}",) if world.labels[source] else ()
    return Item(
        id=f"item-{hour}-{place}",
        title=" ".join(words[:6]),
        text=" ".join(words[6:]),
        source=f"source-{source}",
        published=from_milliseconds(int(truths.published[place])),
        language="en",
        labels=labels,
    )


_WORDS = 60
"""In a text."""

_OWN_WORDS = 150
"""Of a topic, and of no topic."""

_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"


def _text(topics: Floats, clarity: float, rng: np.random.Generator) -> list[str]:
    """Words of the topics, and of no topic."""
    shares = np.append(clarity * topics / topics.sum(), 1 - clarity)
    shelf = rng.choice(len(shares), _WORDS, p=shares)
    return [_word(number) for number in (shelf * _OWN_WORDS + rng.integers(_OWN_WORDS, size=_WORDS)).tolist()]


@cache
def _word(number: int) -> str:
    """A word of three syllables, another for each number below 343,000."""
    syllables = []
    for _ in range(3):
        number, rest = divmod(number, len(_CONSONANTS) * len(_VOWELS))
        syllables.append(_CONSONANTS[rest % len(_CONSONANTS)] + _VOWELS[rest // len(_CONSONANTS)])
    return "".join(syllables)
