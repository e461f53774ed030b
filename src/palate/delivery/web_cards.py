"""Items as a page shows them: what is said of each, in words, with every address checked once more."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from urllib.parse import quote

import sqlalchemy as sa
from markupsafe import Markup

from palate import database, identities, user_index
from palate.domain import Item, Media, RankedItem, Reason
from palate.feature_log import JOINS
from palate.text.cleaning import excerpt, plain_line, sanitise, tidy_url, to_plain

EXCERPT = 320
"""Characters of a card's text."""
TITLE = 160
"""Characters of a title that is made from the text."""

VOTES = ("like", "dislike", "save")
"""Event types that a person switches on and off."""

LICENSES = {
    "CC0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "CC BY": "https://creativecommons.org/licenses/by/{}/",
    "CC BY-SA": "https://creativecommons.org/licenses/by-sa/{}/",
    "CC BY-ND": "https://creativecommons.org/licenses/by-nd/{}/",
    "CC BY-NC": "https://creativecommons.org/licenses/by-nc/{}/",
}


@dataclass(frozen=True)
class Card:
    """One item on a page. Texts are plain: the template escapes them."""

    key: int
    id: str
    title: str
    href: str
    """Where the title leads: to where the item was published, else to its own page."""
    link: str | None
    """Where it was published, None when that isn't known."""
    share: str
    kind: str
    language: str | None
    source: str | None
    source_title: str | None
    author: str | None
    published: datetime | None
    age: str
    excerpt: str | None
    picture: str | None
    beside: bool
    """Whether the picture stands small beside the text, not large above it."""
    duration: str | None
    license: str | None
    license_url: str | None
    votes: frozenset[str] = frozenset()
    hidden: bool = False
    position: int | None = None
    score: float | None = None
    probability: float | None = None
    reasons: tuple[Reason, ...] = ()
    found: tuple[str, ...] = ()
    """By which ways it became a candidate, in words."""
    weighed: tuple[tuple[str, float], ...] = ()
    """What the heavy ranker went by, in words, and what each added to the log-odds; the weightiest first."""
    also: tuple[tuple[str, str], ...] = ()
    """Who else tells its story: name and address."""
    said: str | None = None
    """What a press of a button has done, in a sentence."""
    undo: str | None = None
    """The act that takes it back."""


LEAST_PART = 0.05
"""Log-odds below which a part is not worth a word."""

GONE_BY = {
    "context": "the hour",
    "model": "what you like",
    "item": "its age, language and story",
    "text": "what its text is near to",
    "counters": "what others made of it",
    "history": "what you have met before",
    "found": "how it was found",
}
"""In words, what columns of the heavy ranker are about."""

FOUND_BY = {
    "popular": "what is popular",
    "trending": "what is rising",
    "fresh": "what is new",
    "exploration": "what is hardly known yet",
    "followed": "what you follow",
    "sources": "sources near to you",
    "labels": "topics near to you",
    "categories": "kinds of news near to you",
    "clusters": "groups near to you",
    "behaviour": "what people like you took to",
    "near": "what is near to your taste",
    "new": "what has just come",
    "text": "texts like those you liked",
}
"""In words, the ways by which candidates are found."""


@dataclass(frozen=True)
class CardPage:
    """What the cards of one page share. None where there is none."""

    request: str | None = None
    snapshot: str | None = None
    again: str = ""
    """Keys of its items, to show the same page once more."""
    next: str | None = None
    """Address of the page after it."""
    next_part: str | None = None
    """Address of the cards after it alone."""
    unlogged: bool = False
    """Whether what it shows was not logged as shown: the browser says so when somebody is there."""
    was_again: bool = False
    ration: int | None = None
    ration_done: bool = False


def card(item: Item, key: int, source_title: str | None, now: datetime, root: str) -> Card:
    """An item as a card, before anything is said of the person who looks at it."""
    text = to_plain(item.text) if item.text else ""
    title = item.title or excerpt(text, TITLE) or plain_line(source_title, TITLE) or "Untitled"
    body = text if item.title else text[len(title.rstrip("…")) :].lstrip()
    own = f"{root}/item/{quote(item.id, safe='')}"
    link = web_address(item.url)
    picture = _picture(item.media)
    name, license_url = _license(item.license)
    return Card(
        key=key,
        id=item.id,
        title=title,
        href=link or own,
        link=link,
        share=link or own,
        kind=item.kind,
        language=item.language,
        source=item.source,
        source_title=source_title or plain_line(item.source, TITLE),
        author=item.author,
        published=item.published,
        age=age(item.published, now) if item.published else "",
        excerpt=excerpt(body, EXCERPT) or None,
        picture=picture,
        beside=item.kind not in ("video", "picture"),
        duration=clock(item.duration) if item.duration else None,
        license=name,
        license_url=license_url,
    )


def ranked_card(ranked: RankedItem, now: datetime, root: str) -> Card:
    """A place of a served feed as a card."""
    return replace(
        card(ranked.item, ranked.key, ranked.source_title, now, root),
        position=ranked.position,
        score=ranked.score,
        probability=ranked.probability,
        reasons=ranked.reasons,
        found=tuple(FOUND_BY[name] for name in ranked.found),
        weighed=_weighed(ranked),
        also=also(ranked, root),
    )


def _weighed(ranked: RankedItem) -> tuple[tuple[str, float], ...]:
    """The parts of its score, those of like columns together."""
    adds = {part.name: part.adds for part in ranked.parts}
    sums = [(GONE_BY[join], sum(adds.get(name, 0.0) for name in names)) for join, names in JOINS.items()]
    return tuple(sorted((one for one in sums if abs(one[1]) >= LEAST_PART), key=lambda one: -abs(one[1])))


def also(ranked: RankedItem, root: str) -> tuple[tuple[str, str], ...]:
    """Who else tells an item's story: name and address of each."""
    return tuple(
        (
            plain_line(one.source_title, TITLE) or one.item,
            web_address(one.url) or f"{root}/item/{quote(one.item, safe='')}",
        )
        for one in ranked.also
    )


def with_votes(connection: sa.Connection, cards: Sequence[Card], person: int | None) -> list[Card]:
    """The cards with what this person has switched on and which sources they hide."""
    if person is None:
        return list(cards)
    found = votes(connection, identities.aliases(connection, person), [card.key for card in cards])
    return [replace(card, votes=found.get(card.key, frozenset())) for card in cards]


def votes(connection: sa.Connection, users: Collection[int], items: Iterable[int]) -> dict[int, frozenset[str]]:
    """What these users have switched on, by item: the newest of like and dislike counts, and save if it was not undone."""
    table, theirs = database.events, user_index.of_users(connection, users)
    types = [prefix + name for name in VOTES for prefix in ("", "retract:")]
    on: dict[int, set[str]] = {}
    for chunk in identities.chunks(items):
        mine = theirs & table.c.item.in_(chunk) & table.c.type.in_([*types, "retract"])
        for row in connection.execute(sa.select(table.c.item, table.c.type).where(mine).order_by(table.c.seq)):
            _switch(on.setdefault(row.item, set()), row.type)
    return {item: frozenset(switched) for item, switched in on.items()}


def _switch(on: set[str], type: str) -> None:
    if type == "retract":
        on.clear()
    elif type.startswith("retract:"):
        on.discard(type.removeprefix("retract:"))
    else:
        on -= {"like", "dislike"} if type in ("like", "dislike") else set()
        on.add(type)


def age(time: datetime, now: datetime) -> str:
    """How long ago, in a word or two.

    >>> from datetime import UTC
    >>> age(datetime(2026, 1, 1, 9, tzinfo=UTC), datetime(2026, 1, 1, 12, 30, tzinfo=UTC))
    '3 h ago'
    """
    past = now - time
    if past < timedelta(minutes=1):
        return "just now"
    if past < timedelta(hours=1):
        return f"{past // timedelta(minutes=1)} min ago"
    if past < timedelta(days=1):
        return f"{past // timedelta(hours=1)} h ago"
    if past < timedelta(days=7):
        days = past // timedelta(days=1)
        return "yesterday" if days == 1 else f"{days} days ago"
    return f"{time.day} {time:%B}" if time.year == now.year else f"{time.day} {time:%B %Y}"


def clock(seconds: float) -> str:
    """A duration as players write it.

    >>> clock(3725)
    '1:02:05'
    """
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def full_text(item: Item) -> Markup | None:
    """The item's text as HTML that may be shown as it is, whoever stored it."""
    if not item.text:
        return None
    safe = sanitise(item.text, item.url)
    return Markup(_LOADED.sub(r"\1https://", safe))


_LOADED = re.compile(r'(<(?:img|source|video|audio)\b[^<>]*?\b(?:src|poster)=")http://')
"""What a page would load without encryption; browsers refuse that, or it tells everybody on the way."""


def media(item: Item) -> list[Media]:
    """The item's pictures, sounds and films whose addresses can be shown, each over https."""
    shown = (
        Media(url=_loaded(one.url) or "", type=one.type, poster=_loaded(one.poster), width=one.width, height=one.height)
        for one in item.media
    )
    text = item.text or ""
    return [one for one in shown if one.url and one.url.split("://", 1)[1] not in text]


def _picture(media: Iterable[Media]) -> str | None:
    stills = (one.url if one.type == "image" else one.poster for one in media)
    return next((address for still in stills if (address := _loaded(still))), None)


def _loaded(url: str | None) -> str | None:
    address = web_address(url)
    return "https" + address.removeprefix("http") if address and address.startswith("http://") else address


def web_address(url: str | None) -> str | None:
    """A web address, None for anything else such as `javascript:`."""
    return tidy_url(url) if url else None


def _license(name: str | None) -> tuple[str | None, str | None]:
    """A licence and the address of its text: it may itself be an address, or the name of a well-known one."""
    if not name:
        return None, None
    if url := web_address(name):
        found = re.search(r"creativecommons\.org/licenses/([a-z-]+)/([\d.]+)", url)
        return (f"CC {found[1].upper()} {found[2]}" if found else "Licence"), url
    family, _, version = name.rpartition(" ")
    return name, LICENSES[family].format(version) if family in LICENSES else None
