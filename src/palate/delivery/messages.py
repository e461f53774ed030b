"""The bodies that the HTTP API takes and gives. Unknown fields of a request are refused, so that a typo is seen."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from palate.domain import (
    MAX_ID_LENGTH,
    Also,
    Event,
    Item,
    Kind,
    Media,
    Part,
    RankedItem,
    Reason,
    from_milliseconds,
    to_milliseconds,
)
from palate.errors import InvalidItem
from palate.front_page import Story, Told
from palate.people import Person

TEXT = r"^[^\u0000]*$"
"""Neither database may store NUL in a text."""

Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_LENGTH, pattern=r"^[^\u0000]+$")]
# A pattern is asked for in Python, which costs more than all else of an event: what follows only describes theirs, and who takes
# them in refuses NUL.
PlainId = Annotated[str, Meta(min_length=1, max_length=MAX_ID_LENGTH, extra_json_schema={"pattern": r"^[^\u0000]+$"})]
Short = Annotated[str, Meta(max_length=MAX_ID_LENGTH, pattern=TEXT)]
Text = Annotated[str, Meta(pattern=TEXT)]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Milliseconds = Annotated[int, Meta(ge=0, le=253_402_300_799_999)]  # to the end of the year 9999
EventType = Annotated[str, Meta(extra_json_schema={"pattern": r"^(retract:)?[a-z][a-z0-9_.-]{0,63}$"})]
Whole = Annotated[int, Meta(ge=-(2**53), le=2**53)]
# msgspec (0.20 to 0.22) frees a pattern as if it were a type when a text with a pattern shares a union with a list or a dict,
# which corrupts memory. So the pattern is only described here; `people` refuses NUL in a label.
LabelText = Annotated[str, Meta(extra_json_schema={"pattern": TEXT})]
LabelValue = bool | Whole | float | None | LabelText | list[Text]
Language = Annotated[str, Meta(pattern=r"^[a-z]{2,3}$")]
Category = Literal["society", "economy", "technology", "sports", "entertainment", "science", "other"]
Topics = Annotated[tuple[Id, ...], Meta(max_length=200)]


class Wire(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every body."""


class PostedEvent(Wire, frozen=True, kw_only=True, gc=False):
    """Something that happened between a user and an item. `time` is in milliseconds since 1970, now when left out; an event
    whose `id` was taken within seven days counts once. `features` is JSON in a string."""

    user: PlainId
    item: PlainId
    type: EventType
    value: float | None = None
    time: Milliseconds | None = None
    id: PlainId | None = None
    request: PlainId | None = None
    surface: PlainId | None = None
    position: Count | None = None
    snapshot: PlainId | None = None
    variant: PlainId | None = None
    probability: Annotated[float, Meta(gt=0, le=1)] | None = None
    features: str | None = None

    def to_event(self) -> Event:
        """The event as the rest of Palate knows it."""
        return Event(
            user=self.user,
            item=self.item,
            type=self.type,
            value=self.value,
            time=self.time,
            id=self.id,
            request=self.request,
            surface=self.surface,
            position=self.position,
            snapshot=self.snapshot,
            variant=self.variant,
            probability=self.probability,
            features=self.features,
        )


class PostedMedia(Media, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A picture, sound or film of an item, by reference."""

    url: Text
    poster: Text | None = None
    width: Count | None = None
    height: Count | None = None


class PostedItem(Wire, frozen=True, kw_only=True):
    """An item to store. `text` is plain text or HTML and is sanitised; `published` is in milliseconds since 1970 or in the form
    2026-01-31T12:00:00Z; `duration` is in seconds."""

    id: Id
    title: Text | None = None
    text: Text | None = None
    url: Text | None = None
    source: Id | None = None
    author: Text | None = None
    published: Milliseconds | Annotated[datetime, Meta(tz=True)] | None = None
    language: Short | None = None
    kind: Kind = "post"
    duration: Annotated[float, Meta(ge=0)] | None = None
    media: Annotated[tuple[PostedMedia, ...], Meta(max_length=100)] = ()
    labels: Annotated[tuple[Short, ...], Meta(max_length=100)] = ()
    license: Text | None = None

    def to_item(self, index: int) -> Item:
        """The item as the rest of Palate knows it. Raises InvalidItem with its place in the request."""
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        return Item(**(values | {"published": self._published(index)}))

    def _published(self, index: int) -> datetime | None:
        if not isinstance(self.published, datetime):
            return None if self.published is None else from_milliseconds(self.published)
        try:
            return from_milliseconds(to_milliseconds(self.published))
        except OverflowError:
            raise InvalidItem("`published` lies outside the years 1 to 9999", index) from None


class Accepted(Wire, frozen=True, kw_only=True):
    """How many events are durable now; repeats of known ids count."""

    accepted: int


class StoredOutcome(Wire, frozen=True, kw_only=True):
    """What became of one item: `merged` means that its address was known already, under the `id` given here."""

    id: str
    outcome: Literal["new", "updated", "unchanged", "merged"]


class AcceptedItems(Wire, frozen=True, kw_only=True):
    """The outcome of each item, in the order of the request."""

    accepted: int
    items: list[StoredOutcome]


class ItemAnswer(Wire, frozen=True, kw_only=True):
    """A stored item, with the number of events of each type that name it."""

    id: str
    title: str | None
    text: str | None
    url: str | None
    source: str | None
    author: str | None
    published: int | None
    language: str | None
    kind: str
    duration: float | None
    media: tuple[Media, ...]
    labels: tuple[str, ...]
    license: str | None
    events: dict[str, int]

    @classmethod
    def of(cls, item: Item, events: dict[str, int]) -> ItemAnswer:
        """The answer for an item."""
        values = {name: getattr(item, name) for name in item.__struct_fields__}
        return cls(**(values | {"published": _milliseconds(item.published), "events": events}))


class RankQuestion(Wire, frozen=True, kw_only=True):
    """Items to put into this user's order."""

    user: Id
    items: list[PlainId]
    log: bool = False
    """Whether the answer is what the user is shown, in its order: rankers learn from what is shown and what comes of it."""


class Score(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """The estimated probability (0..1) that the user likes the item."""

    item: str
    score: float


class RankAnswer(Wire, frozen=True, kw_only=True):
    """The items, best first. `model` is the version of the snapshot that scored; null before the first. `variant` says of which
    experiments by which variants they were ordered, null for none: give it back in the events of what you show of them."""

    items: list[Score]
    model: str | None
    variant: str | None


class SimilarQuestion(Wire, frozen=True, kw_only=True):
    """How many items like one; `lang` and `category` leave out all others. What rules of rights, age and region close to `user`
    is left out; without one, what they close to somebody of whom nothing is known."""

    limit: Annotated[int, Meta(ge=1, le=200)] = 20
    lang: Language | None = None
    category: Category | None = None
    user: Id | None = None


class SimilarItem(Wire, frozen=True, kw_only=True):
    """An item like another. `behaviour` and `text` are cosines, null where nothing is known; `support` is the number of recent
    examples of that of the two of which less is known: score = w · behaviour + (1 − w) · text, w = support / (support + 5)."""

    item: str
    score: float
    behaviour: float | None
    text: float | None
    support: float


class SimilarAnswer(Wire, frozen=True, kw_only=True):
    """Items, the most similar first."""

    items: list[SimilarItem]


class FeedQuestion(Wire, frozen=True, kw_only=True):
    """Which feed. `log=false` neither logs what is shown nor uses it up; `window_days` leaves out what is older; `lang` and
    `category` leave out all others. `explain` adds the parts of the heavy ranker's scores."""

    user: Id
    limit: Annotated[int, Meta(ge=1, le=200)] = 20
    cursor: Annotated[str, Meta(max_length=4000)] | None = None
    log: bool = True
    surface: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_.-]{0,31}$")] = "api"
    window_days: Annotated[float, Meta(gt=0, le=36_500)] | None = None
    lang: Language | None = None
    category: Category | None = None
    exclude: Annotated[list[Id], Meta(max_length=1000)] = []
    explain: bool = False


PARTS = 12
"""Of one item's score that are told at most."""


class FeedPlace(Wire, frozen=True, kw_only=True):
    """One place of a feed. `probability` is that with which the item was chosen for it; `also` are other items of its story;
    `found` names the ways by which it became a candidate, none where every item was looked at; `parts`, if they were asked for,
    say what the weightiest columns of the heavy ranker held (null: not known) and what each added to the log-odds."""

    item: str
    score: float
    position: int
    probability: float
    reasons: tuple[Reason, ...]
    story: str | None
    also: tuple[Also, ...]
    found: tuple[str, ...]
    parts: tuple[Part, ...]
    title: str | None
    url: str | None
    source: str | None
    source_title: str | None
    author: str | None
    published: int | None
    language: str | None
    kind: str
    duration: float | None
    media: tuple[Media, ...]
    labels: tuple[str, ...]

    @classmethod
    def of(cls, ranked: RankedItem) -> FeedPlace:
        """The answer for one ranked item."""
        item = ranked.item
        return cls(
            item=item.id,
            score=ranked.score,
            position=ranked.position,
            probability=ranked.probability,
            reasons=ranked.reasons,
            story=ranked.story,
            also=ranked.also,
            found=ranked.found,
            parts=ranked.parts[:PARTS],
            title=item.title,
            url=item.url,
            source=item.source,
            source_title=ranked.source_title,
            author=item.author,
            published=_milliseconds(item.published),
            language=item.language,
            kind=item.kind,
            duration=item.duration,
            media=item.media,
            labels=item.labels,
        )


class FeedAnswer(Wire, frozen=True, kw_only=True):
    """A feed. `cursor` continues it; `request` ties later events to it; `model` is the version of the snapshot; `variant` says
    of which experiments by which variants it was made, null for none."""

    request: str
    items: list[FeedPlace]
    cursor: str
    model: str | None
    variant: str | None


class StoriesQuestion(Wire, frozen=True, kw_only=True):
    """Which stories: of items published in the last `period` seconds, in one language and of one category where these are given.
    `explain` adds the factors of each story's place; `user` is whom the rules of rights, age and region look at, without one
    somebody of whom nothing is known."""

    period: Annotated[int, Meta(ge=60, le=31_622_400)] = 86_400
    lang: Language | None = None
    category: Category | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 50
    explain: bool = False
    user: Id | None = None


class StoryItem(Wire, frozen=True, kw_only=True):
    """An item of a story. `published` is when it came to us where its source doesn't say."""

    item: str
    title: str | None
    url: str | None
    source: str | None
    source_title: str | None
    published: int

    @classmethod
    def of(cls, told: Told) -> StoryItem:
        """The answer for one item."""
        return cls(
            item=told.id,
            title=told.title,
            url=told.url,
            source=told.source,
            source_title=told.source_title,
            published=to_milliseconds(told.time),
        )


class StoryFactors(Wire, frozen=True, kw_only=True):
    """Why a story stands where it stands: its score is coverage × freshness × readers × mark."""

    coverage: float
    freshness: float
    readers: float
    mark: float
    best_time: int


class StoryAnswer(Wire, frozen=True, kw_only=True):
    """A story: its headline, and all its items of the period in the order of time."""

    story: str
    title: str | None
    item: str
    language: str | None
    category: str | None
    sources: int
    score: float
    items: list[StoryItem]
    factors: StoryFactors | None

    @classmethod
    def of(cls, told: Story, explain: bool) -> StoryAnswer:
        """The answer for one story."""
        standing = told.standing
        factors = {name: getattr(standing, name) for name in StoryFactors.__struct_fields__}
        return cls(
            story=told.id,
            title=told.headline.title,
            item=told.headline.id,
            language=told.language,
            category=told.category,
            sources=standing.sources,
            score=standing.score,
            items=[StoryItem.of(item) for item in told.items],
            factors=StoryFactors(**factors) if explain else None,
        )


class StoriesAnswer(Wire, frozen=True, kw_only=True):
    """Stories, the most important first."""

    stories: list[StoryAnswer]


class UserChoices(Wire, frozen=True, kw_only=True):
    """What a user chose: labels of items and languages that they want, how old an item may be for them, and after how many
    items a day their feed ends. Empty and null mean the installation's own."""

    topics: Topics = ()
    languages: Topics = ()
    window_days: Annotated[int, Meta(ge=1, le=36_500)] | None = None
    daily_ration: Annotated[int, Meta(ge=1, le=10_000)] | None = None


class PostedUser(Wire, frozen=True, kw_only=True):
    """A user with labels (language, age, place … any) and choices. Given ones replace all there were; others stay. `aliases` are
    other ids that turned out to be theirs, such as that of a visitor before they logged in: what was done under those counts."""

    id: Id
    labels: dict[Id, LabelValue] | None = None
    choices: UserChoices | None = None
    aliases: Annotated[tuple[Id, ...], Meta(max_length=100)] = ()


class UserAnswer(Wire, frozen=True, kw_only=True):
    """A person. `ids` are all that they are known by; `created` is in milliseconds since 1970."""

    id: str
    ids: tuple[str, ...]
    labels: dict[str, LabelValue]
    choices: UserChoices
    created: int

    @classmethod
    def of(cls, person: Person) -> UserAnswer:
        """The answer for a person."""
        choices = {name: getattr(person.choices, name) for name in UserChoices.__struct_fields__}
        return cls(
            id=person.id,
            ids=person.ids,
            labels=person.labels,
            choices=UserChoices(**choices),
            created=to_milliseconds(person.created),
        )


class Deleted(Wire, frozen=True, kw_only=True):
    """What was deleted."""

    deleted: str


class Status(Wire, frozen=True, kw_only=True):
    """The server is well."""

    status: Literal["ok"] = "ok"


class Fault(Wire, frozen=True, kw_only=True, omit_defaults=True):
    """What was wrong: a short `code` for programs, a sentence for people, and the place in a list."""

    code: str
    message: str
    index: int | None = None


class FaultAnswer(Wire, frozen=True, kw_only=True):
    """Every answer that is not a success. `request` is the id of the request in the server's log."""

    error: Fault
    request: str


def _milliseconds(time: datetime | None) -> int | None:
    return None if time is None else to_milliseconds(time)
