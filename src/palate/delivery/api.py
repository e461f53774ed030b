"""The HTTP API: what each operation does. Docs: `docs/api.md`; the document for programs: `/openapi.json`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import sqlalchemy as sa
from msgspec.structs import replace
from starlette.types import ASGIApp

from palate import (
    accounts,
    alerts,
    catalog,
    daily_figures,
    database,
    events,
    feed,
    front_page,
    identities,
    ingest,
    memberships,
    outbox,
    people,
    previews,
)
from palate.candidates import similar
from palate.candidates.wanted import Wanted
from palate.database import reading, writing
from palate.delivery import metrics, openapi, security, surfaces
from palate.delivery.answering import answering
from palate.delivery.context import Serving, beside, in_thread
from palate.delivery.forgetting import delete_person
from palate.delivery.messages import (
    Accepted,
    AcceptedItems,
    Deleted,
    FeedAnswer,
    FeedPlace,
    FeedQuestion,
    ItemAnswer,
    PostedEvent,
    PostedItem,
    PostedUser,
    RankAnswer,
    RankQuestion,
    SimilarAnswer,
    SimilarItem,
    SimilarQuestion,
    Status,
    StoredOutcome,
    StoriesAnswer,
    StoriesQuestion,
    StoryAnswer,
    UserAnswer,
)
from palate.delivery.operations import Asked, Operation, Raw
from palate.delivery.rating import post_rank
from palate.delivery.refusals import RETRY, Refusal
from palate.delivery.surfaces import WRITE_PATIENCE
from palate.domain import Event, Feed, FeedRequest, Item, to_milliseconds
from palate.errors import NotFound
from palate.live import Person

FOREVER = timedelta(days=36_500)


def create_api(serving: Serving, root_path: str = "") -> ASGIApp:
    """The API of one installation, mounted at `root_path`."""
    server = serving.params.server
    keyed = security.asks_for_keys(server.host, server.names)
    document = openapi.document(OPERATIONS, root_path, keyed)
    return answering([*OPERATIONS, openapi.description(document)], serving)


async def post_events(serving: Serving, asked: Asked) -> Accepted:
    """Answers only when all events are durable; when one can't be taken, none is."""
    posted: Sequence[PostedEvent] = _several(serving, asked.body)
    checked = events.check_all([event.to_event() for event in posted], asked.now)
    accepted = await asyncio.wrap_future(serving.commits.submit(checked, asked.now)) if checked else 0
    serving.metrics.events.inc(accepted)
    return Accepted(accepted=accepted)


async def get_feed(serving: Serving, asked: Asked) -> FeedAnswer:
    """The next items for a user."""
    served = await in_thread(serving, _serve, serving, _feed_request(asked.query, asked.now))
    places = [FeedPlace.of(ranked) for ranked in served.items]
    return FeedAnswer(
        request=served.request, items=places, cursor=served.cursor, model=served.snapshot, variant=served.variant
    )


def _feed_request(question: FeedQuestion, now: datetime) -> FeedRequest:
    return FeedRequest(
        user=question.user,
        limit=question.limit,
        now=now,
        cursor=question.cursor,
        surface=question.surface,
        window=None if question.window_days is None else timedelta(days=question.window_days),
        exclude=frozenset(question.exclude),
        language=question.lang,
        category=question.category,
        log=question.log,
        explain=question.explain,
    )


def _serve(serving: Serving, request: FeedRequest) -> Feed:
    def append(shown: Sequence[Event]) -> None:
        serving.commits.submit(shown, request.now).result(WRITE_PATIENCE)

    request, by = surfaces.varied(serving, request)
    surface = by.surfaces.get(request.surface)
    return feed.serve(serving.live, request, by.feed, np.random.default_rng(), append, surface=surface)


async def get_similar(serving: Serving, asked: Asked) -> SimilarAnswer:
    """Items like one, by behaviour and by text."""
    return await in_thread(serving, _similar, serving, asked.id, asked.query, asked.now)


def _similar(serving: Serving, id: str, question: SimilarQuestion, now: datetime) -> SimilarAnswer:
    with reading(serving.engine) as connection:
        keys = identities.item_keys(connection, [id], None)
        if not keys:
            raise NotFound("There is no item with this id.")
        asks = Person(viewer=serving.live.viewer(connection, question.user))
        wanted = Wanted(asks, now, FOREVER, language=question.lang, category=question.category)
        found = similar.find(connection, serving.live, keys[id], wanted, question.limit)
        ids = identities.item_ids(connection, found.keys.tolist())
    rows = zip(found.keys.tolist(), found.scores, found.behaviour, found.text, found.support, strict=True)
    items = [
        SimilarItem(
            item=ids[key], score=float(score), behaviour=_known(behaviour), text=_known(text), support=float(support)
        )
        for key, score, behaviour, text, support in rows
        if key in ids
    ]
    return SimilarAnswer(items=items)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


async def get_stories(serving: Serving, asked: Asked) -> StoriesAnswer:
    """The news, the same for everybody but for what rules close to them."""
    question: StoriesQuestion = asked.query
    found = await in_thread(serving, _stories, serving, question, asked.now)
    return StoriesAnswer(stories=[StoryAnswer.of(story, question.explain) for story in found])


def _stories(serving: Serving, question: StoriesQuestion, now: datetime) -> Sequence[front_page.Story]:
    with reading(serving.engine) as connection:
        viewer = serving.live.viewer(connection, question.user)
    period = timedelta(seconds=question.period)
    wanted = front_page.Asked(now, period, question.lang, question.category, question.limit, viewer)
    return front_page.read(serving.live, wanted, serving.params.stories)


async def post_items(serving: Serving, asked: Asked) -> AcceptedItems:
    """Stores items; they can be served at once."""
    posted: Sequence[PostedItem] = _several(serving, asked.body)
    items = [item.to_item(index) for index, item in enumerate(posted)]
    stored = await in_thread(serving, _store, serving, items, asked.now)
    serving.metrics.items.inc(len(stored))
    outcomes = [StoredOutcome(id=one.id, outcome=one.outcome) for one in stored]
    return AcceptedItems(accepted=len(outcomes), items=outcomes)


def _store(serving: Serving, items: Sequence[Item], now: datetime) -> Sequence[catalog.Stored]:
    stored = ingest.store_items(serving.engine, items, now, understand=False)
    serving.live.refresh(now)
    return stored


async def get_item(serving: Serving, asked: Asked) -> ItemAnswer:
    """A stored item and how often what happened to it."""
    return await in_thread(serving, _item, serving, asked.id)


def _item(serving: Serving, id: str) -> ItemAnswer:
    with reading(serving.engine) as connection:
        stored = catalog.get(connection, id)
        if stored is None:
            raise NotFound("There is no item with this id.")
        return ItemAnswer.of(stored.item, events.counts_of_item(connection, stored.key))


async def delete_item(serving: Serving, asked: Asked) -> Deleted:
    """The item is served no more, and its content is gone."""
    await in_thread(serving, _delete_item, serving, asked.id, asked.now)
    return Deleted(deleted=asked.id)


def _delete_item(serving: Serving, id: str, now: datetime) -> None:
    with writing(serving.engine) as connection:
        if not catalog.delete(connection, id, now):
            raise NotFound("There is no item with this id.")
    serving.live.refresh(now)


async def post_user(serving: Serving, asked: Asked) -> UserAnswer:
    """Makes a user known, or changes what is known of them."""
    posted: PostedUser = asked.body
    return await in_thread(serving, _put_user, serving, posted, asked.now)


def _put_user(serving: Serving, posted: PostedUser, now: datetime) -> UserAnswer:
    with writing(serving.engine) as connection:
        person = people.get(connection, posted.id)
        if person is None or posted.labels is not None:
            person = people.upsert_user(connection, posted.id, posted.labels or {}, now)
        if posted.choices is not None:
            chosen = {name: getattr(posted.choices, name) for name in posted.choices.__struct_fields__}
            people.set_choices(connection, person.key, replace(person.choices, **chosen))
        identities.user_keys(connection, posted.aliases, now)  # also of a visitor who hasn't done anything yet
        for alias in posted.aliases:
            people.merge(connection, alias, person.key)
        return _answer_user(connection, posted.id)


async def get_user(serving: Serving, asked: Asked) -> UserAnswer:
    """What is known of a user."""
    return await in_thread(serving, _user, serving, asked.id)


def _user(serving: Serving, id: str) -> UserAnswer:
    with reading(serving.engine) as connection:
        return _answer_user(connection, id)


def _answer_user(connection: sa.Connection, id: str) -> UserAnswer:
    person = people.get(connection, id)
    if person is None:
        raise NotFound("There is no user with this id.")
    return UserAnswer.of(person)


async def delete_user(serving: Serving, asked: Asked) -> Deleted:
    """Forgets a person everywhere: their events, sealed files and snapshots included."""
    if not await in_thread(serving, delete_person, serving.engine, serving.data, asked.id):
        raise NotFound("There is no user with this id.")
    return Deleted(deleted=asked.id)


async def healthz(serving: Serving, asked: Asked) -> Status:
    """The process answers."""
    return Status()


async def readyz(serving: Serving, asked: Asked) -> Status:
    """Events can be made durable now, and this process goes on."""
    if serving.readiness.stopping:
        raise Refusal(503, "stopping", "This process is about to stop.", headers=RETRY)
    await beside(serving, serving.readiness.check)
    return Status()


async def show_metrics(serving: Serving, asked: Asked) -> Raw:
    """What Prometheus reads."""
    await beside(serving, _measure, serving, asked.now)
    return Raw(serving.metrics.render(), metrics.CONTENT_TYPE)


def _measure(serving: Serving, now: datetime) -> None:
    """Take the figures that change without a request."""
    snapshot, pool = serving.live.snapshot, serving.live.pool
    serving.metrics.snapshot_age.set(
        float("nan") if snapshot is None else to_milliseconds(now) / 1000 - snapshot.header["created"] / 1000
    )
    serving.metrics.pool.set(len(pool))
    with reading(serving.engine) as connection:
        failing = connection.scalar(sa.select(sa.func.count()).where(database.sources.c.failures > 0))
        _measure_telegram(serving, connection)
        _measure_quality(serving, connection)
        serving.metrics.bot_queue.set(outbox.depth(connection))
        serving.metrics.count_bot_sends(outbox.counts(connection))
    serving.metrics.source_errors.set(failing or 0)


def _measure_telegram(serving: Serving, connection: sa.Connection) -> None:
    names = {one.key: one.name for one in accounts.list_accounts(connection)}
    joined = memberships.count_joined(connection)
    serving.metrics.telegram.set(
        memberships.count_outcomes(connection),
        memberships.waited(connection),
        {name: joined.get(key, 0) for key, name in names.items()},
        previews.drift(connection),
    )


def _measure_quality(serving: Serving, connection: sa.Connection) -> None:
    serving.metrics.alerts.clear()
    for kind, count in Counter(one.kind for one in alerts.list_alerts(connection)).items():
        serving.metrics.alerts.labels(kind).set(count)
    serving.metrics.daily.clear()
    for labels, taken in daily_figures.newest(connection).items():
        serving.metrics.daily.labels(*labels).set(taken.value)


def _several(serving: Serving, body: Any) -> Sequence[Any]:
    """The things in a body that holds one or a list of them."""
    things = body if isinstance(body, list) else [body]
    limit = serving.params.server.max_batch
    if len(things) > limit:
        raise Refusal(400, "too_many", f"One request takes at most {limit}; send the rest in others.")
    return things


OPERATIONS = (
    Operation(
        name="postEvents",
        method="POST",
        path="/v1/events",
        summary="Record what happened: one event or a list, durable when the answer comes.",
        do=post_events,
        body=PostedEvent | list[PostedEvent],
        answer=Accepted,
        scope="write",
        faults=(429,),
    ),
    Operation(
        name="postRank",
        method="POST",
        path="/v1/rank",
        summary="Put items into a user's order, best first; unknown ones get the prior.",
        do=post_rank,
        body=RankQuestion,
        answer=RankAnswer,
        scope="read",
    ),
    Operation(
        name="addEvent",
        method="POST",
        path="/add_event",
        summary="The same as /v1/events.",
        do=post_events,
        body=PostedEvent | list[PostedEvent],
        answer=Accepted,
        scope="write",
        faults=(429,),
    ),
    Operation(
        name="getRates",
        method="POST",
        path="/get_rates",
        summary="The same as /v1/rank.",
        do=post_rank,
        body=RankQuestion,
        answer=RankAnswer,
        scope="read",
    ),
    Operation(
        name="getSimilar",
        method="GET",
        path="/v1/similar/{item}",
        summary="Items like one, by what people did with both and by what both say.",
        do=get_similar,
        query=SimilarQuestion,
        answer=SimilarAnswer,
        scope="read",
        faults=(404,),
    ),
    Operation(
        name="getFeed",
        method="GET",
        path="/v1/feed",
        summary="The next items for a user; never repeats within a session.",
        do=get_feed,
        query=FeedQuestion,
        answer=FeedAnswer,
        scope="read",
        faults=(429,),
    ),
    Operation(
        name="getStories",
        method="GET",
        path="/v1/stories",
        summary="The stories of the last hours or days, the most important first.",
        do=get_stories,
        query=StoriesQuestion,
        answer=StoriesAnswer,
        scope="read",
    ),
    Operation(
        name="postItems",
        method="POST",
        path="/v1/items",
        summary="Store one item or a list; known ids and addresses are updated.",
        do=post_items,
        body=PostedItem | list[PostedItem],
        answer=AcceptedItems,
        scope="write",
    ),
    Operation(
        name="getItem",
        method="GET",
        path="/v1/items/{item}",
        summary="A stored item, and the number of its events by type.",
        do=get_item,
        answer=ItemAnswer,
        scope="read",
        faults=(404,),
    ),
    Operation(
        name="deleteItem",
        method="DELETE",
        path="/v1/items/{item}",
        summary="Take an item out.",
        do=delete_item,
        answer=Deleted,
        scope="admin",
        faults=(404,),
    ),
    Operation(
        name="postUser",
        method="POST",
        path="/v1/users",
        summary="Make a user known, or change their labels and choices.",
        do=post_user,
        body=PostedUser,
        answer=UserAnswer,
        scope="write",
    ),
    Operation(
        name="getUser",
        method="GET",
        path="/v1/users/{user}",
        summary="What is known of a user.",
        do=get_user,
        answer=UserAnswer,
        scope="read",
        faults=(404,),
    ),
    Operation(
        name="deleteUser",
        method="DELETE",
        path="/v1/users/{user}",
        summary="Forget a person everywhere: events, sealed files, snapshots.",
        do=delete_user,
        answer=Deleted,
        scope="admin",
        faults=(404,),
    ),
    Operation(
        name="healthz",
        method="GET",
        path="/healthz",
        summary="Whether the process answers.",
        do=healthz,
        answer=Status,
        scope=None,
    ),
    Operation(
        name="readyz",
        method="GET",
        path="/readyz",
        summary="Whether events can be made durable now.",
        do=readyz,
        answer=Status,
        scope=None,
        faults=(503,),
    ),
    Operation(
        name="metrics",
        method="GET",
        path="/metrics",
        summary="Figures for Prometheus.",
        do=show_metrics,
        answer="text/plain",
        scope="read",
    ),
)
"""Everything that the API does, but for its own description."""
