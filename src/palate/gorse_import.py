"""All of a Gorse installation into this one: from its running server, page by page, or from files of its bulk export.

A page is durable before the next one is asked for, and its cursor is remembered: an import that was cut off goes on where it was.
What comes twice counts once: users and items replace what there was of them, and feedback has an id made of what it says.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

import httpx
import msgspec
import sqlalchemy as sa

from palate import catalog, database, events, identities
from palate.database import reading, writing
from palate.delivery.gorse_messages import (
    GorseFeedback,
    GorseItem,
    GorseParams,
    GorseUser,
    read_body,
    to_event,
    to_item,
)
from palate.delivery.gorse_storing import put_items, put_users
from palate.domain import Event
from palate.errors import ArchiveError, InvalidInput
from palate.sources import archive
from palate.sources.archive import BadRow
from palate.transfer import Progress, Report

What = Literal["users", "items", "feedback"]

PAGE = 1000
"""Things asked for at a time."""
ATTEMPTS = 6
"""At one page, while the server doesn't answer or says that it can't now."""
POSITION = "gorse_import"
"""Name in `meta` of where an import from a server was."""

Row = tuple[int, Any]
"""Its number, counted from 1, and the thing as JSON."""


@dataclass(frozen=True)
class Source:
    """A running server of Gorse: its address, such as http://host:8088, and its key, None where it asks for none."""

    address: str
    key: str | None = None
    transport: httpx.BaseTransport | None = None
    """In tests something else than a network."""


def from_server(
    engine: sa.Engine,
    source: Source,
    params: GorseParams,
    clock: Callable[[], datetime],
    progress: Callable[[What], Progress] = lambda _: lambda _: None,
    pause: Callable[[float], None] = time.sleep,
) -> dict[What, Report]:
    """Take in users, items and feedback of a server. Raises ArchiveError when it can't be asked; calling again then goes on."""
    headers = {} if source.key is None else {"X-API-Key": source.key}
    reports = {what: Report() for what in get_args(What)}
    begun, cursor = _begun(engine, source.address)
    with httpx.Client(base_url=source.address, headers=headers, timeout=60, transport=source.transport) as client:
        for what in get_args(What)[get_args(What).index(begun) :]:
            told = progress(what)
            for rows, after in _pages(client, what, cursor, pause):
                take(engine, what, rows, params, clock(), reports[what])
                _remember(engine, source.address, what, after)
                told(reports[what].taken)
            cursor = ""
    with writing(engine) as connection:
        connection.execute(sa.delete(database.meta).where(database.meta.c.name == POSITION))
    return reports


def from_files(
    engine: sa.Engine,
    paths: Sequence[Path],
    params: GorseParams,
    clock: Callable[[], datetime],
    progress: Callable[[What], Progress] = lambda _: lambda _: None,
) -> dict[What, Report]:
    """Take in files of JSON lines, users and items before feedback, whatever their names. Raises ArchiveError."""
    reports = {what: Report() for what in get_args(What)}
    kinds = sorted(((_kind(path), path) for path in paths), key=lambda one: get_args(What).index(one[0]))
    for what, path in kinds:
        told = progress(what)
        for rows in identities.chunks(_lines(path), PAGE):
            take(engine, what, rows, params, clock(), reports[what])
            told(reports[what].taken)
    return reports


def take(
    engine: sa.Engine, what: What, rows: Sequence[Row], params: GorseParams, now: datetime, report: Report
) -> None:
    """Store what can be of these rows, durable when this returns; the others are named in the report."""
    if what == "users":
        users = _good(rows, report, lambda row: _checked(read_body(row, GorseUser), "user_id"))
        report.taken += put_users(engine, users, now)
    elif what == "items":
        items = _good(rows, report, lambda row: _storable(_checked(read_body(row, GorseItem), "item_id")))
        report.taken += put_items(engine, items, now)
    else:
        said = _good(rows, report, lambda row: events.check(_event(row, params), None, now))
        with writing(engine) as connection:
            report.taken += events.append(connection, said, now)
            catalog.admit(connection, {event.item for event in said}, now)


def _good(rows: Sequence[Row], report: Report, make: Callable[[Any], Any]) -> list[Any]:
    made = []
    for number, row in rows:
        try:
            made.append(make(row))
        except InvalidInput as error:
            report.leave_out(BadRow(number, error.reason))
    return made


def _checked(given: Any, name: str) -> Any:
    identities.check_id(getattr(given, name), "the id")
    return given


def _storable(item: GorseItem) -> GorseItem:
    to_item(item)
    return item


def _event(row: Any, params: GorseParams) -> Event:
    """The event, with an id by which the same feedback counts once."""
    event = to_event(read_body(row, GorseFeedback), params)
    said = msgspec.json.encode((event.type, event.user, event.item, event.value, event.time))
    return msgspec.structs.replace(event, id=f"gorse-{hashlib.blake2b(said, digest_size=16).hexdigest()}")


# --- a server ---------------------------------------------------------------------------------------------------------------


def _pages(
    client: httpx.Client, what: What, cursor: str, pause: Callable[[float], None]
) -> Iterator[tuple[list[Row], str]]:
    """Pages of all things of a kind from a cursor on, each with the cursor of the next, empty after the last."""
    number = 0
    while True:
        page = _asked(client, f"/api/{what}", {"n": PAGE, "cursor": cursor}, pause)
        found, after = page.get(what.capitalize()), page.get("Cursor")
        if not isinstance(found, list | None) or not isinstance(after, str | None):
            raise ArchiveError(f"{client.base_url} doesn't answer as Gorse does: is that its address?")
        rows = list(enumerate(found or (), number + 1))
        yield rows, after or ""
        number += len(rows)
        if not after or after == cursor:
            return
        cursor = after


def _asked(client: httpx.Client, path: str, query: dict[str, Any], pause: Callable[[float], None]) -> dict[str, Any]:
    for attempt in range(ATTEMPTS):
        try:
            answer = client.get(path, params=query)
            if answer.status_code < 500 and answer.status_code != 429:
                return _read(answer)
            why = f"it answers {answer.status_code}"
        except httpx.TransportError as error:
            why = str(error) or type(error).__name__
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise ArchiveError(f"{client.base_url} is no address; give one such as http://host:8088.") from error
        if attempt + 1 < ATTEMPTS:
            pause(0.5 * 2**attempt)
    raise ArchiveError(
        f"{client.base_url} can't be asked now: {why}. What came so far is kept; the same command goes on."
    )


def _read(answer: httpx.Response) -> dict[str, Any]:
    if answer.status_code in (401, 403):
        raise ArchiveError(f"{answer.url.copy_with(query=None)} wants another key: give it with --key.")
    try:
        page = answer.json() if answer.status_code == 200 else None
    except ValueError:
        page = None
    if not isinstance(page, dict):
        said = answer.text[:100].strip()
        raise ArchiveError(
            f"{answer.url.copy_with(query=None)} answers {answer.status_code}, not as Gorse does: {said}"
        )
    return page


def _begun(engine: sa.Engine, address: str) -> tuple[What, str]:
    """Where the last import from this address was cut off: at the beginning when there was none."""
    with reading(engine) as connection:
        found = connection.scalar(sa.select(database.meta.c.value).where(database.meta.c.name == POSITION))
    place = msgspec.json.decode(found) if found else {}
    if place.get("address") != address:
        return "users", ""
    return place["what"], place["cursor"]


def _remember(engine: sa.Engine, address: str, what: What, cursor: str) -> None:
    if not cursor:  # the next kind begins
        at = get_args(What).index(what) + 1
        what = get_args(What)[min(at, len(get_args(What)) - 1)]
    value = msgspec.json.encode({"address": address, "what": what, "cursor": cursor}).decode()
    with writing(engine) as connection:
        insert = identities.insert_new(connection, database.meta).values(name=POSITION, value=value)
        connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_={"value": value}))


# --- files ------------------------------------------------------------------------------------------------------------------


def _kind(path: Path) -> What:
    """What a file holds, by the names in its first line."""
    for _, row in _lines(path):
        names = {name.lower() for name in row} if isinstance(row, dict) else set[str]()
        if {"userid", "itemid"} <= names:
            return "feedback"
        if names & {"userid", "itemid"}:
            return "users" if "userid" in names else "items"
        raise ArchiveError(
            f"{path} holds no users, items or feedback of Gorse: its lines have no UserId and no ItemId."
        )
    return "users"  # an empty file is one of anything


def _lines(path: Path) -> Iterator[Row]:
    for number, line in archive.lines(path):
        if line.strip():
            try:
                yield number, msgspec.json.decode(line)
            except (msgspec.DecodeError, RecursionError):
                yield number, None
