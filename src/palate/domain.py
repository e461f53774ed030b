"""The values that pass between stages. All are frozen; none knows a stage.

Words: an *item* is anything shown (post, article, video); a *source* is the channel or feed it came from; an *event* is
something that happened between a user and an item (we showed it, they liked it); a *candidate* is an item that may be
served; a *snapshot* is a published model. Times are aware UTC; at the API's edge and in the event log they are whole
milliseconds since 1970. Keys are 64-bit whole numbers that the database gives (`identities.py`); ids are what outsiders say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_ID_LENGTH = 200

Kind = Literal["post", "article", "video", "audio", "picture", "other"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_milliseconds(time: datetime) -> int:
    """Milliseconds since 1970 of an aware time, exact (floats of seconds lose the last digits)."""
    return (time - EPOCH) // timedelta(milliseconds=1)


def from_milliseconds(milliseconds: int) -> datetime:
    """The aware UTC time of milliseconds since 1970. Raises OverflowError beyond the years 1 to 9999."""
    return EPOCH + timedelta(milliseconds=milliseconds)


class Media(msgspec.Struct, frozen=True, kw_only=True):
    """A picture, sound or film of an item, by reference: we never store the bytes."""

    url: str
    type: Literal["image", "video", "audio"] = "image"
    poster: str | None = None
    """Address of a still picture to show before a film plays."""
    width: int | None = None
    height: int | None = None


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """An item as a source or a caller gives it, and as it is stored.

    `text` is sanitised HTML once `text.cleaning` has seen it, plain or raw HTML before. None means unknown: an item without
    `published` never goes stale, one without `url` is known by its `id` alone, one without title and text is ranked by its
    source and by behaviour.
    """

    id: str
    title: str | None = None
    text: str | None = None
    url: str | None = None
    source: str | None = None
    """Id of the source (`sources.id`)."""
    author: str | None = None
    published: datetime | None = None
    language: str | None = None
    """ISO 639-1 code."""
    kind: Kind = "post"
    duration: float | None = None
    """Seconds, of a film or a sound."""
    media: tuple[Media, ...] = ()
    labels: tuple[str, ...] = ()
    """Topics, genres, tags: any short strings, compared as they are."""
    license: str | None = None
    """Named with the item where its text is shown under a licence that asks for it."""


@dataclass(frozen=True, eq=False)
class Understanding:
    """What is known of an item's text before anybody has judged it."""

    language: str | None
    """As the source says, else as it was detected; None where neither can tell."""
    detected: str | None
    """The likeliest language; None where the source said one, or there was nothing to tell it from."""
    confidence: float
    """In the language; 1 where the source said it."""
    category: str | None
    """The likeliest of `text.category.CATEGORIES`; None for what is no news, and where that can't be told."""
    probabilities: NDArray[np.float32] | None
    """(8,) of `text.category.CLASSES`; None where there is no model of the language."""
    vector: NDArray[np.float16]
    """(embedding.LENGTH,) of the whole text, for taste; zero where there is no word."""
    lead: bytes | None
    """Vector and keywords of its beginning, for stories, as `embedding.packed` packs them; None where there is no word."""


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Something that happened between a user and an item; one row of the durable log.

    `type` is one of the settings' types, any other short name, `retract:TYPE` (undoes that type of this user and item) or
    `retract` (undoes all of them). `value` is the type's own measure (a rating, a watched fraction, dwell in seconds), None
    where there is none. `time` is when it happened, in milliseconds since 1970; None means now. `request` to `features` say how
    the item came before the person; all None when we did not show it.
    """

    user: str
    item: str
    type: str
    value: float | None = None
    time: int | None = None
    id: str | None = None
    """The client's own id: the same id within seven days counts once."""
    request: str | None = None
    surface: str | None = None
    position: int | None = None
    snapshot: str | None = None
    variant: str | None = None
    probability: float | None = None
    features: str | None = None
    """What the rankers knew when it was shown, as JSON."""
    seq: int | None = None
    """Its place in the log, given by the log and ignored when an event comes in; so is `received`."""
    received: int | None = None
    """When the log took it, in milliseconds since 1970; None for an event that isn't from a log."""


@dataclass(frozen=True)
class Fetched:
    """What one reading of a source gave."""

    items: tuple[Item, ...] = ()
    deleted: tuple[str, ...] = ()
    """Ids of items that the source took back."""
    counters: dict[str, dict[str, float]] = field(default_factory=dict)
    """By item id: views, likes and the like that the source itself counts."""
    state: dict[str, Any] = field(default_factory=dict)
    """What the next reading needs (ETag, Last-Modified, the address after a permanent redirect …); JSON."""
    title: str | None = None
    """The source's own name, None if it has none."""
    site: str | None = None
    """Address of the page that the source belongs to."""
    language: str | None = None


@dataclass(frozen=True)
class EventColumns:
    """Events as columns of equal length, in the order of the log. What the loops read and the models learn from."""

    seq: NDArray[np.int64]
    user: NDArray[np.int64]
    """Key of the person: aliases that were joined are already resolved."""
    item: NDArray[np.int64]
    type: NDArray[np.uint16]
    """Index into `types`."""
    value: NDArray[np.float32]
    """NaN where the event has none."""
    time: NDArray[np.int64]
    types: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.seq)


@dataclass(frozen=True)
class Interactions:
    """All events of one user with one item, merged to one label and weight; sorted by (user, item), each pair once.

    Items that were only shown have the label NaN: they are no example, but the person has seen them.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    label: NDArray[np.float32]
    """0..1, or NaN for no example."""
    weight: NDArray[np.float32]
    """For implicit models: strength of the positive, below 0 of the refusal; 0 is no evidence of either."""
    time: NDArray[np.int64]
    """Of the newest event that decided the label, milliseconds since 1970."""

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True)
class FeedRequest:
    """One call for a feed. None means the installation's or the person's own choice."""

    user: str
    limit: int
    now: datetime
    cursor: str | None = None
    surface: str = "api"
    window: timedelta | None = None
    """Items published longer ago than this stay out."""
    exclude: frozenset[str] = frozenset()
    language: str | None = None
    """Only items in this language."""
    category: str | None = None
    """Only news of this category."""
    labels: tuple[str, ...] = ()
    """Only items that have all of these labels."""
    log: bool = True
    """False (prefetch, outlets): nothing is logged and nothing is used up."""
    variant: str | None = None
    """Of which experiments by which variants it is served, as the log says it; None: of none."""
    explain: bool = False
    """Whether the parts of the heavy ranker's scores are wanted."""


class Part(msgspec.Struct, frozen=True, gc=False):
    """What one column of the heavy ranker held for a served item, and what it added to the log-odds."""

    name: str
    """Of `feature_log.NAMES`."""
    value: float | None
    """None: not known."""
    adds: float


class Reason(msgspec.Struct, frozen=True, gc=False):
    """Why an item was served, in a form that a page puts into words.

    `kind` is `liked` (because you liked `subject`, an item id), `source` or `label` (you like what comes from it), `popular`
    (many liked it), `fresh` (new from the source `subject`), `explore` (to learn whether it fits), `ask` (a vote on it tells much
    about somebody new). `strength` is its share of the score, comparable within one item.
    """

    kind: Literal["liked", "source", "label", "popular", "fresh", "explore", "ask"]
    subject: str | None
    text: str
    strength: float


class Also(msgspec.Struct, frozen=True, gc=False):
    """Another item of the same story."""

    item: str
    """Its id."""
    url: str | None
    source_title: str | None


class RankedItem(msgspec.Struct, frozen=True, gc=False):
    """One place of a served feed."""

    key: int
    item: Item
    source_title: str | None
    score: float
    """Estimated probability (0..1) that the person likes it."""
    probability: float
    """With which it was chosen for this place: 1 without exploration."""
    position: int
    """Counted from 0 within the session."""
    reasons: tuple[Reason, ...]
    story: str | None = None
    """Id of the story it belongs to; None for an item that is alone."""
    also: tuple[Also, ...] = ()
    """Others of its story, those first that the person is likelier to like."""
    features: str | None = None
    """What the rankers knew of it, as the log keeps it (`feature_log`)."""
    found: tuple[str, ...] = ()
    """Names of the ways by which it became a candidate; none where every item was looked at."""
    parts: tuple[Part, ...] = ()
    """Those of its score by the heavy ranker, the weightiest first; none where they weren't wanted or there is no such ranker."""


@dataclass(frozen=True)
class Feed:
    """An answer to a `FeedRequest`."""

    request: str
    items: tuple[RankedItem, ...]
    cursor: str
    snapshot: str | None
    """Version of the model that scored; None before the first."""
    variant: str | None = None
    """That of the request."""
