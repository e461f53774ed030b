"""What the pages and the bot do alike: take down what people do, count what they were shown, name topics, tell what is known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime

import msgspec
import numpy as np
import sqlalchemy as sa

from palate import database, events, identities, people, user_index
from palate.database import reading
from palate.delivery.context import Serving
from palate.domain import Event, FeedRequest, to_milliseconds
from palate.experiments import Varied
from palate.people import Choices, Person
from palate.pool import Pool

WRITE_PATIENCE = 30.0
"""Seconds that somebody waits for what they did to be durable."""
TOPICS = 24
"""Labels that are offered as topics."""
MOST_TOPICS = 200
"""What a person's choices hold."""


def record(serving: Serving, happened: Sequence[Event], now: datetime) -> None:
    """Add events to the log; they are durable on return. Raises InvalidEvent, NotDurable, Overloaded."""
    checked = [events.check(event, index, now) for index, event in enumerate(happened)]
    accepted = serving.commits.submit(checked, now).result(WRITE_PATIENCE)
    serving.metrics.events.inc(accepted)


def varied(
    serving: Serving, request: FeedRequest, connection: sa.Connection | None = None
) -> tuple[FeedRequest, Varied]:
    """The request with the variants of the running experiments that this person is served by, and the settings that these make.

    `connection` is a transaction to read in, None: one of its own.
    """
    served, variant = serving.varying.of(request.user, request.now, connection)
    return replace(request, variant=variant), served


def shown_since(connection: sa.Connection, person: int | None, since: datetime) -> int:
    """Items that were shown to the person, wherever, at this time or later."""
    if person is None:
        return 0
    table = database.events
    mine = user_index.of_users(connection, identities.aliases(connection, person)) & (table.c.type == "shown")
    query = sa.select(sa.func.count(sa.distinct(table.c.item))).where(mine & (table.c.time >= to_milliseconds(since)))
    return int(connection.scalar(query) or 0)


def pool_topics(pool: Pool, chosen: Iterable[str]) -> list[str]:
    """What can be offered as topics: those chosen, then labels of the items that can be served, the commonest first.

    Of spellings that differ in case alone only the first is offered.
    """
    counts = np.bincount(pool.labels, minlength=len(pool.label_names))
    common = [pool.label_names.values[number] for number in np.argsort(-counts, kind="stable") if counts[number]]
    offered: dict[str, str] = {}
    for label in (*chosen, *common):
        offered.setdefault(label.casefold(), label)
    return list(offered.values())[:TOPICS]


def spellings(pool: Pool, topics: Iterable[str]) -> tuple[str, ...]:
    """The topics with every way in which the pool's labels write them, since labels are compared as they are."""
    wanted = {topic.casefold() for topic in topics}
    found = [label for label in pool.label_names.values if label.casefold() in wanted]
    return tuple(dict.fromkeys((*topics, *found)))[:MOST_TOPICS]


def everything_known(serving: Serving, user: str) -> bytes:
    """All that is known of a person, as one JSON file."""
    with reading(serving.engine) as connection:
        person = people.get(connection, user)
    told = {
        "ids": person.ids if person else [],
        "labels": person.labels if person else {},
        "choices": person.choices if person else Choices(),
        "events": list(_own_events(serving, person)) if person else [],
    }
    return msgspec.json.format(msgspec.json.encode(told), indent=1)


def _own_events(serving: Serving, person: Person) -> Iterator[Event]:
    for batch in events.stream(serving.engine, serving.data / "events"):
        yield from (event for event in batch if event.user in person.ids)
