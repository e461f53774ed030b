"""A client of Palate's API for Python programs, with and without asyncio. Docs: `docs/client.md`.

    with Client("http://127.0.0.1:8080") as palate:
        palate.send([Event(user="ann", item="post-1", type="like")])
        feed = palate.feed("ann")

What doesn't arrive is sent again, after pauses; each event has an id, so nothing counts twice, and what is given up comes back
with the error. Both clients do the calls of `client_calls.py`.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TypeVar

import httpx

from palate import client_calls as calls
from palate.client_calls import (
    Accepted,
    Call,
    ClientParams,
    Deleted,
    Feed,
    Lost,
    Neighbour,
    Neighbours,
    Pause,
    Place,
    Ranking,
    Reason,
    Request,
    Response,
    Score,
    User,
)
from palate.domain import Event, Item, Media
from palate.errors import ClientError, RequestRefused, Unreachable

__all__ = [
    "Accepted",
    "AsyncClient",
    "Client",
    "ClientError",
    "ClientParams",
    "Deleted",
    "Event",
    "Feed",
    "Item",
    "Media",
    "Neighbour",
    "Neighbours",
    "Place",
    "Ranking",
    "Reason",
    "RequestRefused",
    "Score",
    "Unreachable",
    "User",
]

T = TypeVar("T")


class Client:
    """Asks one server, from any number of threads. `key` is an API key, None where the server asks for none.

    Every call raises RequestRefused for what the server refuses, and Unreachable when it doesn't answer in all its attempts.
    """

    def __init__(
        self,
        address: str,
        key: str | None = None,
        params: ClientParams | None = None,
        *,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.params = params or ClientParams()
        self._sleep = sleep
        self._http = httpx.Client(
            base_url=address, headers=_headers(key), timeout=self.params.timeout, transport=transport
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def send(self, events: Iterable[Event]) -> int:
        """Record events: durable when this returns their number. What has no id and no time gets them.

        When the server can't be reached, the error's `left` are the events that may not have arrived: send them again.
        """
        given = calls.stamped(events, _new_id, _now())
        for start in range(0, len(given), self.params.batch):
            try:
                self.call(calls.post_events(given[start : start + self.params.batch]))
            except ClientError as error:
                error.left = tuple(given[start:])
                raise
        return len(given)

    def rank(self, user: str, items: Sequence[str], log: bool = False) -> Ranking:
        """The items in this user's order; with `log` they count as shown in that order, and the rankers learn from it."""
        return self.call(calls.post_rank(user, items, log))

    def feed(self, user: str, **asked: Any) -> Feed:
        """The next items for a user: `limit`, `cursor`, `log`, `surface`, `window_days`, `lang`, `category`, `exclude`,
        `explain`."""
        return self.call(calls.get_feed(user, **asked))

    def similar(self, item: str, limit: int = 20, user: str | None = None) -> Neighbours:
        """Items like this one, of those that the rules let this user see; None: somebody of whom nothing is known."""
        return self.call(calls.get_similar(item, limit, user))

    def put_items(self, items: Iterable[Item]) -> int:
        """Store items; known ones are updated. Returns how many there were."""
        parts = calls.batches(list(items), self.params.batch)
        return sum(self.call(calls.post_items(part)).accepted for part in parts)

    def delete_item(self, item: str) -> None:
        """Take an item out."""
        self.call(calls.delete_item(item))

    def put_user(self, user: str, labels: Mapping[str, Any] | None = None, aliases: Sequence[str] = ()) -> User:
        """Make a user known; `labels` replace those there were, `aliases` are anonymous ids that turned out to be theirs."""
        return self.call(calls.post_user(user, labels, aliases))

    def user(self, user: str) -> User:
        """What is known of a user."""
        return self.call(calls.get_user(user))

    def delete_user(self, user: str) -> None:
        """Forget a person everywhere."""
        self.call(calls.delete_user(user))

    def call(self, call: Call[T]) -> T:
        """Do a call of `client_calls`."""
        steps = calls.exchange(call, self.params, random.random, _now)
        step = next(steps)
        try:
            while True:
                step = steps.send(self._do(step))
        except StopIteration as done:
            answer: T = done.value
            return answer

    def _do(self, step: Request | Pause) -> Response | Lost | None:
        if isinstance(step, Pause):
            self._sleep(step.seconds)
            return None
        try:
            return _response(self._http.request(step.method, step.path, content=step.body, headers=_kind(step)))
        except httpx.TransportError as error:
            return Lost(str(error) or type(error).__name__)


class AsyncClient:
    """The same for asyncio: every call is awaited."""

    def __init__(
        self,
        address: str,
        key: str | None = None,
        params: ClientParams | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Any] = asyncio.sleep,
    ) -> None:
        self.params = params or ClientParams()
        self._sleep = sleep
        self._http = httpx.AsyncClient(
            base_url=address, headers=_headers(key), timeout=self.params.timeout, transport=transport
        )

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def send(self, events: Iterable[Event]) -> int:
        """See `Client.send`."""
        given = calls.stamped(events, _new_id, _now())
        for start in range(0, len(given), self.params.batch):
            try:
                await self.call(calls.post_events(given[start : start + self.params.batch]))
            except ClientError as error:
                error.left = tuple(given[start:])
                raise
        return len(given)

    async def rank(self, user: str, items: Sequence[str], log: bool = False) -> Ranking:
        """See `Client.rank`."""
        return await self.call(calls.post_rank(user, items, log))

    async def feed(self, user: str, **asked: Any) -> Feed:
        """See `Client.feed`."""
        return await self.call(calls.get_feed(user, **asked))

    async def similar(self, item: str, limit: int = 20, user: str | None = None) -> Neighbours:
        """See `Client.similar`."""
        return await self.call(calls.get_similar(item, limit, user))

    async def put_items(self, items: Iterable[Item]) -> int:
        """See `Client.put_items`."""
        parts = calls.batches(list(items), self.params.batch)
        return sum([(await self.call(calls.post_items(part))).accepted for part in parts])

    async def delete_item(self, item: str) -> None:
        """See `Client.delete_item`."""
        await self.call(calls.delete_item(item))

    async def put_user(self, user: str, labels: Mapping[str, Any] | None = None, aliases: Sequence[str] = ()) -> User:
        """See `Client.put_user`."""
        return await self.call(calls.post_user(user, labels, aliases))

    async def user(self, user: str) -> User:
        """See `Client.user`."""
        return await self.call(calls.get_user(user))

    async def delete_user(self, user: str) -> None:
        """See `Client.delete_user`."""
        await self.call(calls.delete_user(user))

    async def call(self, call: Call[T]) -> T:
        """Do a call of `client_calls`."""
        steps = calls.exchange(call, self.params, random.random, _now)
        step = next(steps)
        try:
            while True:
                step = steps.send(await self._do(step))
        except StopIteration as done:
            answer: T = done.value
            return answer

    async def _do(self, step: Request | Pause) -> Response | Lost | None:
        if isinstance(step, Pause):
            await self._sleep(step.seconds)
            return None
        try:
            return _response(await self._http.request(step.method, step.path, content=step.body, headers=_kind(step)))
        except httpx.TransportError as error:
            return Lost(str(error) or type(error).__name__)


def _headers(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def _kind(request: Request) -> dict[str, str]:
    return {} if request.body is None else {"Content-Type": "application/json"}


def _response(answer: httpx.Response) -> Response:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    return Response(answer.status_code, headers, answer.content)


def _new_id() -> str:
    return uuid.uuid4().hex


def _now() -> datetime:
    return datetime.now(UTC)
