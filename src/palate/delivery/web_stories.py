"""The stories of the last hours or days, each with its timeline; and the filters that the feed has too."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import quote, urlencode

from starlette.responses import Response

from palate import front_page
from palate.database import reading
from palate.delivery.web_cards import TITLE, age, web_address
from palate.delivery.web_page import Visit, draw
from palate.front_page import Story, Told
from palate.text.category import CATEGORIES
from palate.text.cleaning import plain_line

PERIODS = {"6h": timedelta(hours=6), "1d": timedelta(days=1), "3d": timedelta(days=3), "7d": timedelta(days=7)}
NAMES = {"6h": "6 hours", "1d": "a day", "3d": "3 days", "7d": "a week"}
DAY = "1d"


@dataclass(frozen=True)
class Filter:
    """What a page is narrowed down to. None: not."""

    language: str | None
    category: str | None

    def query(self, **more: str) -> dict[str, str]:
        """The fields of an address that leads to a page so narrowed."""
        return {name: value for name, value in (("lang", self.language), ("category", self.category)) if value} | more


@dataclass(frozen=True)
class Choice:
    """A link that changes one thing of a filter."""

    name: str
    href: str
    on: bool


@dataclass(frozen=True)
class Line:
    """An item in a story's timeline."""

    href: str
    correct: str
    """Where an owner corrects it."""
    title: str
    source: str
    time: str
    stamp: str
    leads: bool


@dataclass(frozen=True)
class Shown:
    """A story on the page."""

    id: str
    title: str
    href: str
    correct: str
    """Where an owner corrects its headline."""
    language: str | None
    category: str | None
    sources: int
    age: str
    lines: tuple[Line, ...]
    why: str


def filter_of(visit: Visit) -> Filter:
    """What the address asks for; what can't be is left out."""
    category, language = visit.query.get("category", ""), visit.query.get("lang", "")
    plausible = language.isascii() and language.isalpha() and language.islower() and len(language) <= 3
    return Filter(language if plausible else None, category if category in CATEGORIES else None)


def choices(visit: Visit, path: str, chosen: Filter, **more: str) -> dict[str, list[Choice]]:
    """The links by which languages and categories are chosen; none where there is nothing to choose between."""
    pool = visit.serving.live.pool
    languages = sorted(pool.languages.values)
    categories = [name for name in CATEGORIES if name in pool.categories.values]

    def link(name: str, to: Filter) -> Choice:
        query = urlencode(to.query(**more))
        return Choice(name, f"{visit.root}{path}" + (f"?{query}" if query else ""), to == chosen)

    found = {
        "languages": [link(name or "all", Filter(name, chosen.category)) for name in (None, *languages)],
        "categories": [link(name or "all", Filter(chosen.language, name)) for name in (None, *categories)],
    }
    return {name: links for name, links in found.items() if len(links) > 2 or chosen != Filter(None, None)}


def stories(visit: Visit) -> Response:
    """The page of stories."""
    chosen = filter_of(visit)
    period = visit.query.get("period", DAY) if visit.query.get("period") in PERIODS else DAY
    with reading(visit.serving.engine) as connection:
        viewer = visit.serving.live.viewer(connection, visit.user)
    asked = front_page.Asked(visit.now, PERIODS[period], chosen.language, chosen.category, viewer=viewer)
    found = front_page.read(visit.serving.live, asked, visit.serving.params.stories)
    periods = [
        Choice(NAMES[name], f"{visit.root}/stories?{urlencode(chosen.query(period=name))}", name == period)
        for name in PERIODS
    ]
    shown = [_shown(visit, story) for story in found]
    narrowed = choices(visit, "/stories", chosen, period=period)
    with reading(visit.serving.engine) as connection:
        may_correct = visit.may_change(connection)
    return draw(
        visit,
        "stories.html",
        here="/stories",
        stories=shown,
        periods=periods,
        narrowed=narrowed,
        may_correct=may_correct,
    )


def _shown(visit: Visit, story: Story) -> Shown:
    headline = story.headline
    return Shown(
        id=story.id,
        title=_title(headline),
        href=_href(visit, headline),
        correct=_correct(visit, headline),
        language=story.language,
        category=story.category,
        sources=story.standing.sources,
        age=age(max(item.time for item in story.items), visit.now),
        lines=tuple(_line(visit, item, item == headline) for item in story.items) if len(story.items) > 1 else (),
        why=_why(story),
    )


def _line(visit: Visit, item: Told, leads: bool) -> Line:
    source = item.source_title or plain_line(item.source, TITLE) or "no source"
    moment = (
        f"{item.time:%H:%M}" if visit.now - item.time < timedelta(hours=20) else f"{item.time.day} {item.time:%b %H:%M}"
    )
    return Line(_href(visit, item), _correct(visit, item), _title(item), source, moment, item.time.isoformat(), leads)


def _title(item: Told) -> str:
    return item.title or plain_line(item.source_title, TITLE) or "Untitled"


def _href(visit: Visit, item: Told) -> str:
    return web_address(item.url) or f"{visit.root}/item/{quote(item.id, safe='')}"


def _correct(visit: Visit, item: Told) -> str:
    return f"{visit.root}/item/{quote(item.id, safe='')}#correct"


def _why(story: Story) -> str:
    """The factors of its place, in words."""
    one = story.standing
    parts = [
        f"{one.score:.2f} = coverage {one.coverage:.2f}",
        f"freshness {one.freshness:.2f}",
        f"readers {one.readers:.2f}",
    ]
    return " × ".join([*parts, f"mark {one.mark:g}"] if one.mark != 1 else parts)
