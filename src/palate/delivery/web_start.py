"""The first page: choose topics and sources, bring those of another reader, or look at the sample."""

from __future__ import annotations

import tomllib
from functools import lru_cache

import msgspec
from starlette.responses import Response

from palate import people, subscriptions
from palate.database import reading, writing
from palate.delivery.surfaces import pool_topics, spellings
from palate.delivery.web_page import PAGES, Visit, draw, needs_owner, see_other


class StarterFeed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A feed of the starter shelf."""

    title: str
    address: str
    about: str
    language: str
    license: str
    topics: tuple[str, ...]


def start(visit: Visit) -> Response:
    """Offer what there is to read."""
    with reading(visit.serving.engine) as connection:
        known = {source.address for source in subscriptions.list_sources(connection)}
        person = visit.person(connection)
        chosen = people.choices(connection, person).topics if person is not None else ()
        may_change = visit.may_change(connection)
    shelf = [{**msgspec.structs.asdict(feed), "known": feed.address in known} for feed in starter_feeds()]
    return draw(
        visit,
        "start.html",
        first=not known,
        starter=shelf,
        topics=pool_topics(visit.serving.live.pool, chosen) if known else _shelf_topics(),
        chosen_topics=chosen,
        may_change=may_change,
    )


def begin(visit: Visit) -> Response:
    """Keep the topics, and subscribe to what was ticked; to what fits the topics when nothing was."""
    topics = tuple(visit.all_given("topic"))
    addresses = visit.all_given("feed", 2000)
    known = {feed.address: feed for feed in starter_feeds()}
    wanted = [known[address] for address in addresses if address in known]
    if not addresses:
        wanted = [feed for feed in starter_feeds() if set(feed.topics) & set(topics)]
    if addresses:
        needs_owner(visit)
    with writing(visit.serving.engine) as connection:
        person = visit.make_person(connection)
        choices = msgspec.structs.replace(
            people.choices(connection, person), topics=spellings(visit.serving.live.pool, topics)
        )
        people.set_choices(connection, person, choices)
        if visit.may_change(connection):
            for feed in wanted:
                subscriptions.add(
                    connection, "feed", feed.address, visit.now, title=feed.title, options={"labels": list(feed.topics)}
                )
    return see_other(visit, "/")


@lru_cache(1)
def starter_feeds() -> tuple[StarterFeed, ...]:
    """The starter shelf."""
    shelf = tomllib.loads((PAGES / "starter.toml").read_text(encoding="utf-8"))
    return msgspec.convert(shelf["feed"], tuple[StarterFeed, ...])


def _shelf_topics() -> list[str]:
    return list(dict.fromkeys(topic for feed in starter_feeds() for topic in feed.topics))
