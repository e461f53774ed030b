"""The calls of Palate's API as values: what to send, how to read the answer, and when to try again. Nothing here does any I/O.

`client.py` carries them out, with and without asyncio. Unknown fields of an answer are passed over: a client outlives its server.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from palate.domain import Event, Item, to_milliseconds
from palate.errors import RequestRefused, Unreachable

T = TypeVar("T")

GIVEN_BY_THE_LOG = ("seq", "received")
TRY_AGAIN = frozenset({408, 429, 502, 503, 504})
"""Statuses that say that the same request may be answered later."""


class ClientParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How patiently a server is asked."""

    timeout: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    """Seconds for a connection, and between two parts of an answer."""
    attempts: Annotated[int, msgspec.Meta(ge=1)] = 6
    """At one request."""
    pause: Annotated[float, msgspec.Meta(ge=0)] = 0.25
    """Seconds before the second attempt at most; twice that before each further one."""
    longest_pause: Annotated[float, msgspec.Meta(ge=0)] = 30.0
    """Seconds before any attempt at most, whatever the server asks for."""
    batch: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 500
    """Events or items in one request."""


# --- what is asked and answered -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """What to send; `path` has its query."""

    method: str
    path: str
    body: bytes | None = None


@dataclass(frozen=True)
class Response:
    """What came back; names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Lost:
    """No answer came, so nobody knows whether the request arrived."""

    reason: str


@dataclass(frozen=True)
class Pause:
    """Wait so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request, and the type of its answer. Every one may be sent again: what comes twice counts once."""

    request: Request
    answer: type[T]
    gone: T | None = None
    """The answer where nothing is left of what an earlier attempt may have deleted."""


class Reason(msgspec.Struct, frozen=True):
    """Why an item was served: see `domain.Reason`."""

    kind: str
    subject: str | None
    text: str
    strength: float


class Part(msgspec.Struct, frozen=True):
    """What one column of the heavy ranker held for an item (None: not known), and what it added to the log-odds."""

    name: str
    value: float | None
    adds: float


class Place(msgspec.Struct, frozen=True):
    """One place of a feed, with what is needed to draw it; `published` in milliseconds since 1970."""

    item: str
    score: float
    position: int
    probability: float
    reasons: tuple[Reason, ...] = ()
    found: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
    story: str | None = None
    title: str | None = None
    url: str | None = None
    source: str | None = None
    source_title: str | None = None
    author: str | None = None
    published: int | None = None
    language: str | None = None
    kind: str = "post"
    labels: tuple[str, ...] = ()


class Feed(msgspec.Struct, frozen=True):
    """A page of a feed. `cursor` asks for the next; send `request` with the events that follow."""

    request: str
    items: tuple[Place, ...]
    cursor: str
    model: str | None
    variant: str | None = None


class Score(msgspec.Struct, frozen=True):
    """The estimated probability (0..1) that the user likes the item."""

    item: str
    score: float


class Ranking(msgspec.Struct, frozen=True):
    """Items in a user's order, best first."""

    items: tuple[Score, ...]
    model: str | None
    variant: str | None = None


class Neighbour(msgspec.Struct, frozen=True):
    """An item like another: see `GET /v1/similar/{item}`."""

    item: str
    score: float
    behaviour: float | None
    text: float | None
    support: float


class Neighbours(msgspec.Struct, frozen=True):
    """Items like one, the most similar first."""

    items: tuple[Neighbour, ...]


class Accepted(msgspec.Struct, frozen=True):
    """How many events or items are durable now."""

    accepted: int


class User(msgspec.Struct, frozen=True):
    """What is known of a user; `ids` are all that they are known by."""

    id: str
    ids: tuple[str, ...]
    labels: dict[str, Any]
    choices: dict[str, Any]
    created: int


class Deleted(msgspec.Struct, frozen=True):
    """What was deleted."""

    deleted: str


class _Fault(msgspec.Struct, frozen=True):
    code: str = "unknown"
    message: str = ""
    index: int | None = None


class _Refusal(msgspec.Struct, frozen=True):
    error: _Fault = _Fault()
    request: str = ""


# --- the calls ----------------------------------------------------------------------------------------------------------------


def stamped(events: Iterable[Event], new_id: Callable[[], str], now: datetime) -> list[Event]:
    """The events with an id and a time each: with those they can be sent again, later too, and count once at their moment."""
    time = to_milliseconds(now)
    return [
        msgspec.structs.replace(event, id=event.id or new_id(), time=time if event.time is None else event.time)
        for event in events
    ]


def post_events(events: Sequence[Event]) -> Call[Accepted]:
    """Record events, which are `stamped`."""
    return Call(_post("/v1/events", [_given(event, GIVEN_BY_THE_LOG) for event in events]), Accepted)


def post_items(items: Sequence[Item]) -> Call[Accepted]:
    """Store items."""
    return Call(_post("/v1/items", [_given(item) for item in items]), Accepted)


def post_rank(user: str, items: Sequence[str], log: bool) -> Call[Ranking]:
    """Put items into a user's order."""
    return Call(_post("/v1/rank", {"user": user, "items": items, "log": log}), Ranking)


def get_feed(user: str, **asked: Any) -> Call[Feed]:
    """The next items for a user; `asked` as in the query of `/v1/feed`, None for the server's own choice."""
    return Call(_get("/v1/feed", {"user": user, **asked}), Feed)


def get_similar(item: str, limit: int, user: str | None) -> Call[Neighbours]:
    """Items like one."""
    return Call(_get(f"/v1/similar/{quote(item, safe='')}", {"limit": limit, "user": user}), Neighbours)


def delete_item(item: str) -> Call[Deleted]:
    """Take an item out."""
    return Call(Request("DELETE", f"/v1/items/{quote(item, safe='')}"), Deleted, gone=Deleted(item))


def post_user(user: str, labels: Mapping[str, Any] | None, aliases: Sequence[str]) -> Call[User]:
    """Make a user known, with labels, and with other ids that are theirs."""
    given: dict[str, Any] = {"id": user} | ({} if labels is None else {"labels": labels})
    return Call(_post("/v1/users", given | ({"aliases": aliases} if aliases else {})), User)


def get_user(user: str) -> Call[User]:
    """What is known of a user."""
    return Call(Request("GET", f"/v1/users/{quote(user, safe='')}"), User)


def delete_user(user: str) -> Call[Deleted]:
    """Forget a person everywhere."""
    return Call(Request("DELETE", f"/v1/users/{quote(user, safe='')}"), Deleted, gone=Deleted(user))


def batches(things: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The things in parts of at most `size`."""
    for start in range(0, len(things), size):
        yield things[start : start + size]


def _post(path: str, body: Any) -> Request:
    return Request("POST", path, msgspec.json.encode(body))


def _get(path: str, query: Mapping[str, Any]) -> Request:
    given = {name: _plain(value) for name, value in query.items() if value is not None}
    return Request("GET", f"{path}?{urlencode(given, doseq=True)}" if given else path)


def _plain(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def _given(thing: msgspec.Struct, without: Sequence[str] = ()) -> dict[str, Any]:
    """What is said of a thing; what isn't known is left out."""
    fields = {name: getattr(thing, name) for name in thing.__struct_fields__ if name not in without}
    return {name: value for name, value in fields.items() if value is not None}


# --- sending, and sending again -----------------------------------------------------------------------------------------------


def exchange(
    call: Call[T], params: ClientParams, chance: Callable[[], float], now: Callable[[], datetime]
) -> Generator[Request | Pause, Response | Lost | None, T]:
    """What to do until the call is answered: yields each request and each pause, is sent what came back, returns the answer.

    `chance` draws from 0..1, so that many clients don't come back at one moment. Raises RequestRefused, and Unreachable when all
    attempts are used up.
    """
    why = "it was not asked"
    for attempt in range(params.attempts):
        came = yield call.request
        assert came is not None, "a request is followed by what came back"
        if isinstance(came, Response) and came.status not in TRY_AGAIN:
            return call.gone if attempt and came.status == 404 and call.gone is not None else read(call, came)
        why = came.reason if isinstance(came, Lost) else f"it answers {came.status}"
        if attempt + 1 < params.attempts:
            yield Pause(pause(attempt, came, params, chance(), now()))
    raise Unreachable(f"The server didn't answer {params.attempts} times: {why}.")


def pause(attempt: int, came: Response | Lost, params: ClientParams, chance: float, now: datetime) -> float:
    """Seconds before the next attempt: what the server asks for in Retry-After, or a part drawn of ever longer ones."""
    asked = None if isinstance(came, Lost) else retry_after(came.headers.get("retry-after"), now)
    drawn = params.pause * 2.0**attempt * (0.5 + chance / 2)
    return min(drawn if asked is None else asked + params.pause * chance, params.longest_pause)


def retry_after(header: str | None, now: datetime) -> float | None:
    """Seconds that a Retry-After asks for, as a number or as a time; None when it says nothing that can be read."""
    header = (header or "").strip()
    if header.isascii() and header.isdigit():
        return float(header[:9])
    try:
        return max((parsedate_to_datetime(header).astimezone(UTC) - now).total_seconds(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return None


def read(call: Call[T], response: Response) -> T:
    """The answer. Raises RequestRefused with what the server said."""
    if response.status != 200:
        raise _refused(call, response)
    try:
        return msgspec.json.decode(response.body, type=call.answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestRefused(
            f"{call.request.path} is answered by something that isn't Palate: {error}.", 200
        ) from error


def _refused(call: Call[Any], response: Response) -> RequestRefused:
    try:
        said = msgspec.json.decode(response.body, type=_Refusal)
    except (msgspec.DecodeError, UnicodeDecodeError):
        said = _Refusal()
    message = said.error.message or f"{call.request.method} {call.request.path} is answered with {response.status}."
    return RequestRefused(message, response.status, said.error.code, said.error.index, said.request)
