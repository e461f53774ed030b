"""Gorse's surface: what is recommended, similar, popular and new."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate import feed, gorse_feedback, identities
from palate.candidates import filters, similar
from palate.candidates.filters import Mask
from palate.candidates.wanted import Wanted
from palate.database import reading, writing
from palate.delivery.context import Serving, in_thread
from palate.delivery.gorse_calls import Answer, Call
from palate.delivery.gorse_messages import GorseFeedback, read_duration, read_list, to_event, to_type
from palate.delivery.surfaces import varied
from palate.domain import Event, EventColumns, FeedRequest, RankedItem, from_milliseconds, to_milliseconds
from palate.errors import NotFound
from palate.experiments import Varied
from palate.live import Person
from palate.pool import NO_DATE, Pool
from palate.rules import Viewer

SURFACE = "gorse"

LONGEST_COMMIT = 30.0
"""Seconds that a thread waits for the commit of what is written back."""


async def recommend(serving: Serving, call: Call) -> Any:
    """The next items for a user. Nothing is logged or used up but what the caller has written back."""
    return await in_thread(serving, _recommend, serving, call)


async def collaborative(serving: Serving, call: Call) -> Any:
    """The same, always with scores."""
    return await in_thread(serving, _recommend, serving, replace(call, scores=True))


def _recommend(serving: Serving, call: Call) -> Any:
    n, offset = _span(serving, call)
    request = FeedRequest(
        user=identities.check_id(call.path["user"], "the user id"),
        limit=n + offset,
        now=call.now,
        surface=SURFACE,
        window=timedelta(days=serving.params.gorse.item_days),
        labels=call.categories,
        log=False,
    )
    request, by = varied(serving, request)
    found, id = _served(serving, request, by)
    chosen = found[offset : offset + n]
    if (theirs := call.text("write-back-type")) and chosen:
        delay = read_duration(call.text("write-back-delay") or "0")
        _write_back(serving, request, chosen, id, to_written_back(serving, theirs), delay)
    return _scores(chosen) if call.scores else [ranked.item.id for ranked in chosen]


def _served(serving: Serving, request: FeedRequest, by: Varied) -> tuple[list[RankedItem], str]:
    """As many items as the request wants or there are, and the id of the answer."""
    rng = _generator(request)
    found, id = list[RankedItem](), ""
    while len(found) < request.limit:
        wanted = min(request.limit - len(found), by.feed.limit_max)
        surface = by.surfaces.get(SURFACE)
        asked = feed.serve(serving.live, replace(request, limit=wanted), by.feed, rng, _refuse, surface=surface)
        found += asked.items
        id, request = id or asked.request, replace(request, cursor=asked.cursor)
        if len(asked.items) < wanted:
            break
    return found, id


def _refuse(_: Sequence[Event]) -> None:
    raise AssertionError("a feed that logs nothing appends no events")


def _generator(request: FeedRequest) -> np.random.Generator:
    """Chance that stays for an hour, so that a caller who asks for offsets gets the pages of one list."""
    said = msgspec.json.encode((request.user, to_milliseconds(request.now) // 3_600_000))
    return np.random.default_rng(int.from_bytes(hashlib.blake2b(said, digest_size=16).digest()))


def to_written_back(serving: Serving, theirs: str) -> str:
    """The type of event that a recommendation is written back as. A view that nobody has had yet teaches nothing: what is
    written back as one keeps Gorse's name."""
    ours = to_type(theirs, serving.params.gorse)
    meaning = serving.params.interactions.types.get(ours)
    return theirs if meaning is not None and meaning.viewed and theirs != ours else ours


def _write_back(
    serving: Serving, request: FeedRequest, chosen: Sequence[RankedItem], id: str, type: str, delay: timedelta
) -> None:
    """Log what was recommended as shown, and as the feedback that the caller named: at once, or when the delay is over."""
    time = to_milliseconds(request.now + delay)
    shown = feed.shown(chosen, id, request, serving.live.pool.model.version)
    said = [Event(user=request.user, item=ranked.item.id, type=type, request=id, surface=SURFACE) for ranked in chosen]
    happened = [msgspec.structs.replace(event, time=time) for event in (*shown, *said)]
    if delay:
        with writing(serving.engine) as connection:
            due = request.now + delay
            gorse_feedback.write_back_later(connection, request.user, happened, due, request.now)
    else:
        serving.commits.submit(happened, request.now).result(LONGEST_COMMIT)


async def session(serving: Serving, call: Call) -> Any:
    """Items for somebody of whom nothing is known but the feedback in the body; nothing of it is kept."""
    return await in_thread(serving, _session, serving, call)


def _session(serving: Serving, call: Call) -> Any:
    n, offset = _span(serving, call)
    given = [to_event(one, serving.params.gorse) for one in read_list(call.body, GorseFeedback)]
    with reading(serving.engine) as connection:
        keys = identities.item_keys(connection, {event.item for event in given}, None)
    request = FeedRequest(
        user="",
        limit=n + offset,
        now=call.now,
        window=timedelta(days=serving.params.gorse.item_days),
        labels=call.categories,
        log=False,
    )
    history = _columns([event for event in given if event.item in keys], keys, call.now)
    found = feed.visit(serving.live, history, request, serving.params.feed, np.random.default_rng(0))
    return _scores(found[offset:])


def _columns(given: Sequence[Event], keys: dict[str, int], now: datetime) -> EventColumns:
    """The events as one person's columns, in the order of their times."""
    latest = to_milliseconds(now)
    types = tuple(sorted({event.type for event in given}))
    ordered = sorted(given, key=lambda event: latest if event.time is None else event.time)
    return EventColumns(
        seq=np.arange(1, len(ordered) + 1, dtype=np.int64),
        user=np.zeros(len(ordered), np.int64),
        item=np.array([keys[event.item] for event in ordered], np.int64),
        type=np.array([types.index(event.type) for event in ordered], np.uint16),
        value=np.array([np.nan if event.value is None else event.value for event in ordered], np.float32),
        time=np.array([latest if event.time is None else event.time for event in ordered], np.int64),
        types=types,
    )


async def latest(serving: Serving, call: Call) -> Any:
    """The newest items; their score is their time in seconds since 1970."""
    return await in_thread(serving, _latest, serving, call)


def _latest(serving: Serving, call: Call) -> Any:
    pool = serving.live.pool
    times = np.where(pool.published == NO_DATE, pool.received, pool.published)
    return _best(serving, call, pool, times // 1000)


async def popular(serving: Serving, call: Call) -> Any:
    """What everybody likes."""
    return await in_thread(serving, _popular, serving, call)


def _popular(serving: Serving, call: Call) -> Any:
    pool = serving.live.pool
    return _best(serving, call, pool, pool.popularity)


async def non_personalized(serving: Serving, call: Call) -> Any:
    """The list of a name: `latest`, and by every other name what is popular, with the time of the model."""
    found = await in_thread(serving, _latest if call.path["name"] == "latest" else _popular, serving, call)
    snapshot = serving.live.snapshot
    made = call.now if snapshot is None else from_milliseconds(int(snapshot.header["created"]))
    return Answer(found, ((b"last-modified", format_datetime(made.astimezone(UTC), usegmt=True).encode()),))


def _best(serving: Serving, call: Call, pool: Pool, values: NDArray[Any]) -> list[dict[str, Any]]:
    """The items with the largest values, equals by the newest."""
    n, offset = _span(serving, call)
    user = call.text("user-id") or None
    with reading(serving.engine) as connection:
        mask = _wanted(serving, call, pool, serving.live.viewer(connection, user))
        if user is not None:
            person = serving.live.person(connection, identities.check_id(user, "user-id"), serving.live.snapshot)
            mask = filters.without(pool, mask, person.history.items)
    rows = np.flatnonzero(mask)[::-1]
    rows = rows[np.argsort(-values[rows], kind="stable")][offset : offset + n]
    return _named(serving, pool.keys[rows], values[rows])


def _wanted(serving: Serving, call: Call, pool: Pool, viewer: Viewer) -> Mask:
    window = timedelta(days=serving.params.gorse.item_days)
    mask = filters.in_window(pool, call.now, window) & filters.with_all_labels(pool, call.categories)
    return mask & filters.open_to(pool, viewer, call.now)


async def neighbours(serving: Serving, call: Call) -> Any:
    """Items like this one."""
    return await in_thread(serving, _neighbours, serving, call)


def _neighbours(serving: Serving, call: Call) -> Any:
    n, offset = _span(serving, call)
    with reading(serving.engine) as connection:
        keys = identities.item_keys(connection, [call.path["item"]], None)
        if not keys:
            raise NotFound("item not found")
        nobody, window = (
            Person(viewer=serving.live.viewer(connection, None)),
            timedelta(days=serving.params.gorse.item_days),
        )
        [key] = keys.values()
        wanted = Wanted(nobody, call.now, window, labels=tuple(call.categories))
        found = similar.find(connection, serving.live, key, wanted, n + offset)
    return _named(serving, found.keys[offset:], found.scores[offset:])


async def user_neighbours(serving: Serving, call: Call) -> Any:
    """Users with a taste like this one's."""
    return await in_thread(serving, _user_neighbours, serving, call)


def _user_neighbours(serving: Serving, call: Call) -> Any:
    n, offset = _span(serving, call)
    with reading(serving.engine) as connection:
        found = similar.users(connection, serving.live, call.path["user"], n + offset)
    return [{"Id": id, "Score": score} for id, score in found[offset:]]


def _span(serving: Serving, call: Call) -> tuple[int, int]:
    """How many are wanted, and how many are passed over before."""
    return call.number("n", serving.params.gorse.default_n), call.number("offset", 0)


def _scores(found: Sequence[RankedItem]) -> list[dict[str, Any]]:
    return [{"Id": ranked.item.id, "Score": ranked.score} for ranked in found]


def _named(serving: Serving, keys: NDArray[np.int64], scores: NDArray[Any]) -> list[dict[str, Any]]:
    with reading(serving.engine) as connection:
        ids = identities.item_ids(connection, keys.tolist())
    places = zip(keys.tolist(), scores.tolist(), strict=True)
    return [{"Id": ids[key], "Score": score} for key, score in places if key in ids]
