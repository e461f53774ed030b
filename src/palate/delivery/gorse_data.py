"""Gorse's surface: users, items and feedback, in and out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from palate import catalog, events, gorse_feedback, gorse_records, gorse_tables, identities, people
from palate.database import reading, writing
from palate.delivery.context import Serving, in_thread
from palate.delivery.forgetting import delete_person
from palate.delivery.gorse_calls import Call
from palate.delivery.gorse_messages import (
    GorseFeedback,
    GorseItem,
    GorseUser,
    feedback_answer,
    item_answer,
    read_body,
    read_cursor,
    read_list,
    stored_of_item,
    to_event,
    to_type,
    user_answer,
    write_cursor,
)
from palate.delivery.gorse_storing import TICK, at, put_items, put_users
from palate.domain import Event
from palate.errors import NotFound
from palate.gorse_feedback import Feedback, Triple

PAGE = 1000
"""Things of a bulk answer that are read at a time."""


def affected(rows: int) -> dict[str, int]:
    """The answer to whoever changes something."""
    return {"RowAffected": rows}


# --- users ------------------------------------------------------------------------------------------------------------------


async def post_user(serving: Serving, call: Call) -> Any:
    """Store a user in place of what was known of them."""
    return await in_thread(serving, _put_users, serving, call, [read_body(call.body, GorseUser)])


async def post_users(serving: Serving, call: Call) -> Any:
    """Store several."""
    return await in_thread(serving, _put_users, serving, call, read_list(call.body, GorseUser))


def _put_users(serving: Serving, call: Call, given: Sequence[GorseUser]) -> Any:
    return affected(put_users(serving.engine, given, call.now))


async def patch_user(serving: Serving, call: Call) -> Any:
    """Change what is given of a user."""
    return await in_thread(serving, _patch_user, serving, call, read_body(call.body, GorseUser))


def _patch_user(serving: Serving, call: Call, patch: GorseUser) -> Any:
    known = _user(serving, call)
    labels = known["Labels"] if patch.labels is None else patch.labels
    comment = known["Comment"] if patch.comment is None else patch.comment
    return _put_users(serving, call, [GorseUser(user_id=call.path["user"], labels=labels, comment=comment)])


async def get_user(serving: Serving, call: Call) -> Any:
    """A user, or 404."""
    return await in_thread(serving, _user, serving, call)


def _user(serving: Serving, call: Call) -> dict[str, Any]:
    with reading(serving.engine) as connection:
        found = people.get(connection, call.path["user"])
        if found is None:
            raise NotFound("user not found")
        return {**_user_answers(connection, [found])[0], "UserId": call.path["user"]}


def _user_answers(connection: sa.Connection, found: Sequence[people.Person]) -> list[dict[str, Any]]:
    records = gorse_records.read(connection, gorse_tables.users, {one.key: one.labels for one in found})
    return [user_answer(one, records.get(one.key)) for one in found]


async def get_users(serving: Serving, call: Call) -> Any:
    """A page of all users."""
    return await in_thread(serving, _page_of_users, serving, call)


def _page_of_users(serving: Serving, call: Call) -> Any:
    after, n = _place(call), _page_size(serving, call)
    found, place = _users_after(serving, after, n)
    return {"Cursor": write_cursor(place if len(found) == n else None), "Users": found}


def _users_after(serving: Serving, after: int, n: int) -> tuple[list[dict[str, Any]], tuple[int] | None]:
    with reading(serving.engine) as connection:
        found = people.page(connection, after, n)
        return _user_answers(connection, found), (found[-1].key,) if found else None


async def delete_user(serving: Serving, call: Call) -> Any:
    """Forget a user and all they did."""
    return affected(int(await in_thread(serving, delete_person, serving.engine, serving.data, call.path["user"])))


# --- items ------------------------------------------------------------------------------------------------------------------


async def post_item(serving: Serving, call: Call) -> Any:
    """Store an item in place of what was known of it."""
    return await in_thread(serving, _put_items, serving, call, [read_body(call.body, GorseItem)])


async def post_items(serving: Serving, call: Call) -> Any:
    """Store several."""
    return await in_thread(serving, _put_items, serving, call, read_list(call.body, GorseItem))


def _put_items(serving: Serving, call: Call, given: Sequence[GorseItem]) -> Any:
    rows = put_items(serving.engine, given, call.now)
    serving.live.refresh(call.now)
    return affected(rows)


async def patch_item(serving: Serving, call: Call) -> Any:
    """Change what is given of an item."""
    return await in_thread(serving, _patch_item, serving, call, read_body(call.body, GorseItem))


def _patch_item(serving: Serving, call: Call, patch: GorseItem) -> Any:
    known = read_body(_item(serving, call), GorseItem)
    given = {name: value for name, value in msgspec.structs.asdict(patch).items() if value is not None}
    return _put_items(serving, call, [msgspec.structs.replace(known, **(given | {"item_id": call.path["item"]}))])


async def put_category(serving: Serving, call: Call) -> Any:
    """Put an item into a category."""
    return await in_thread(serving, _categorise, serving, call, True)


async def delete_category(serving: Serving, call: Call) -> Any:
    """Take an item out of a category."""
    return await in_thread(serving, _categorise, serving, call, False)


def _categorise(serving: Serving, call: Call, into: bool) -> Any:
    category = call.path["category"]
    others = [name for name in _item(serving, call)["Categories"] if name != category]
    return _patch_item(serving, call, GorseItem(categories=[*others, category] if into else others))


async def get_item(serving: Serving, call: Call) -> Any:
    """An item, or 404."""
    return await in_thread(serving, _item, serving, call)


def _item(serving: Serving, call: Call) -> dict[str, Any]:
    with reading(serving.engine) as connection:
        found = catalog.get(connection, call.path["item"])
        if found is None:
            raise NotFound("item not found")
        return {**_item_answers(connection, [found])[0], "ItemId": call.path["item"]}


def _item_answers(connection: sa.Connection, found: Sequence[catalog.StoredItem]) -> list[dict[str, Any]]:
    stored = {one.key: stored_of_item(one.item) for one in found}
    records = gorse_records.read(connection, gorse_tables.items, stored)
    return [item_answer(one.item, one.state == "hidden", records.get(one.key)) for one in found]


async def get_items(serving: Serving, call: Call) -> Any:
    """A page of all items, or those whose title holds what is searched."""
    return await in_thread(serving, _page_of_items, serving, call)


def _page_of_items(serving: Serving, call: Call) -> Any:
    after, n = _place(call), _page_size(serving, call)
    found, place = _items_after(serving, after, n, call.text("q"))
    return {"Cursor": write_cursor(place if len(found) == n else None), "Items": found}


def _items_after(
    serving: Serving, after: int, n: int, search: str = ""
) -> tuple[list[dict[str, Any]], tuple[int] | None]:
    with reading(serving.engine) as connection:
        found = catalog.page(connection, after, n, search)
        return _item_answers(connection, found), (found[-1].key,) if found else None


async def delete_item(serving: Serving, call: Call) -> Any:
    """Take an item out, with its feedback."""
    return await in_thread(serving, _delete_item, serving, call)


def _delete_item(serving: Serving, call: Call) -> Any:
    with writing(serving.engine) as connection:
        keys = identities.item_keys(connection, [call.path["item"]], None)
        deleted = catalog.delete(connection, call.path["item"], call.now)
        for key in keys.values():
            gorse_feedback.forget_item(connection, key)
    serving.live.refresh(call.now)
    return affected(int(deleted))


# --- feedback ---------------------------------------------------------------------------------------------------------------


async def post_feedback(serving: Serving, call: Call) -> Any:
    """Record feedback; a value is added to what there is."""
    given = _events(serving, call)
    if all(event.value is None for event in given):
        return await _commit(serving, call, given)
    return await in_thread(serving, _put_feedback, serving, call, given, False)


async def put_feedback(serving: Serving, call: Call) -> Any:
    """Record feedback in place of what there is."""
    return await in_thread(serving, _put_feedback, serving, call, _events(serving, call), True)


def _events(serving: Serving, call: Call) -> list[Event]:
    body = call.body if isinstance(call.body, list | None) else [call.body]
    given = read_list(body, GorseFeedback)
    made = [at(index, lambda one=one: to_event(one, serving.params.gorse)) for index, one in enumerate(given)]  # type: ignore[misc]
    return [events.check(event, index, call.now) for index, event in enumerate(made)]


async def _commit(serving: Serving, call: Call, given: Sequence[Event]) -> Any:
    """Nothing has to be added up: the same quick way as `/v1/events`."""
    if given:
        await asyncio.wrap_future(serving.commits.submit(given, call.now))
        await in_thread(serving, _admit, serving, call, given)
    return affected(len(given))


def _put_feedback(serving: Serving, call: Call, given: Sequence[Event], overwrite: bool) -> Any:
    gorse_feedback.catch_up(serving.engine, serving.data)
    rows = gorse_feedback.add(serving.engine, given, overwrite, call.now)
    _admit(serving, call, given)
    return affected(rows)


def _admit(serving: Serving, call: Call, given: Sequence[Event]) -> None:
    """Items that only feedback names are items like all others, as they are in Gorse."""
    ids = {event.item for event in given}
    with reading(serving.engine) as connection:
        stubs = catalog.stubs(connection, ids)
    if stubs:
        with writing(serving.engine) as connection:
            catalog.admit(connection, stubs, call.now + TICK)
        serving.live.refresh(call.now)
    serving.metrics.events.inc(len(given))


async def get_feedback(serving: Serving, call: Call) -> Any:
    """A page of all feedback, of one type where that is named."""
    return await in_thread(serving, _page_of_feedback, serving, call)


def _page_of_feedback(serving: Serving, call: Call) -> Any:
    gorse_feedback.catch_up(serving.engine, serving.data)
    place, n = read_cursor(call.text("cursor"), Triple), _page_size(serving, call)
    with reading(serving.engine) as connection:
        found = gorse_feedback.find(connection, types=_types(serving, call), after=place, limit=n)
    place = found[-1].place if found and len(found) == n else None
    return {"Cursor": write_cursor(place), "Feedback": _told(serving, found)}


async def get_of_user(serving: Serving, call: Call) -> Any:
    """What a user said."""
    return await in_thread(serving, _told_of, serving, call)


async def get_of_item(serving: Serving, call: Call) -> Any:
    """What was said of an item."""
    return await in_thread(serving, _told_of, serving, call)


async def get_of_pair(serving: Serving, call: Call) -> Any:
    """What a user said of an item: a list, or one object where the type is named."""
    found = await in_thread(serving, _told_of, serving, call)
    return (found[0] if found else {}) if "type" in call.path else found


def _told_of(serving: Serving, call: Call) -> list[dict[str, Any]]:
    gorse_feedback.catch_up(serving.engine, serving.data)
    with reading(serving.engine) as connection:
        user, item = call.path.get("user"), call.path.get("item")
        person = None if user is None else people.identify(connection, user)
        keys = {} if item is None else identities.item_keys(connection, [item], None)
        if (user is not None and person is None) or (item is not None and not keys):
            return []
        users = None if person is None else person.keys
        own = None if item is None else keys[item]
        found = gorse_feedback.find(connection, users=users, item=own, types=_types(serving, call))
    return _told(serving, found)


async def delete_feedback(serving: Serving, call: Call) -> Any:
    """Take back what a user said of an item."""
    return affected(await in_thread(serving, _take_back, serving, call))


def _take_back(serving: Serving, call: Call) -> int:
    gorse_feedback.catch_up(serving.engine, serving.data)
    types = _types(serving, call) or ()
    return gorse_feedback.take_back(serving.engine, types, call.path["user"], call.path["item"], call.now)


def _told(serving: Serving, found: Sequence[Feedback]) -> list[dict[str, Any]]:
    """Each type, user and item once: a view and a recommendation that was written back may be of one name."""
    told = [feedback_answer(one, serving.params.gorse) for one in found]
    return list({(one["UserId"], one["ItemId"], one["FeedbackType"]): one for one in told}.values())


def _types(serving: Serving, call: Call) -> set[str] | None:
    """Our types behind the type in the path: what is written back keeps Gorse's name (see `gorse_lists`)."""
    theirs = call.path.get("type")
    return {to_type(theirs, serving.params.gorse), theirs} if theirs else None


# --- all of it --------------------------------------------------------------------------------------------------------------


Reader = Callable[[Any], tuple[list[dict[str, Any]], Any]]
"""(where to go on, None: at the beginning) → a page, and where the next one begins."""


async def reader(serving: Serving, what: Literal["users", "items", "feedback"]) -> Reader:
    """By which all of it is read, page by page."""
    if what == "feedback":
        await in_thread(serving, gorse_feedback.catch_up, serving.engine, serving.data)
        return lambda after: _feedback_after(serving, after)
    after_ = _users_after if what == "users" else _items_after
    return lambda after: after_(serving, after[0] if after else 0, PAGE)


def _feedback_after(serving: Serving, after: Triple | None) -> tuple[list[dict[str, Any]], Triple | None]:
    with reading(serving.engine) as connection:
        found = gorse_feedback.find(connection, after=after, limit=PAGE)
    return _told(serving, found), found[-1].place if found else None


def _place(call: Call) -> int:
    place: tuple[int] | None = read_cursor(call.text("cursor"), tuple[int])
    return place[0] if place else 0


def _page_size(serving: Serving, call: Call) -> int:
    return call.number("n", serving.params.gorse.default_n)
