"""A client's connection: uvicorn's, with the hottest requests answered beside the framework and an end for those who dawdle.

A whole, plain `POST` of events, or of items to rank, that breaks no rule costs more around its work than in it; so it is read,
done and answered right here. Whatever is out of the ordinary about a request goes the way of all others, which alone knows how to
refuse.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from concurrent.futures import InvalidStateError
from contextlib import nullcontext
from datetime import datetime
from functools import lru_cache
from typing import Any, ClassVar, cast

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from palate import events, people
from palate.delivery import observing, rating, security
from palate.delivery.context import Serving, utc_now
from palate.delivery.messages import Accepted, PostedEvent, RankQuestion
from palate.delivery.refusals import refusal
from palate.delivery.threads import gone
from palate.errors import PalateError

EVENT_PATHS, RANK_PATHS = ("/v1/events", "/add_event"), ("/v1/rank", "/get_rates")
HOT = {f"POST {path} HTTP/1.1".encode(): path for path in (*EVENT_PATHS, *RANK_PATHS)}
BEGINNINGS = tuple(line + b"\r\n" for line in HOT)
PLAIN_HEADERS = frozenset(
    (
        *(b"accept", b"accept-encoding", b"accept-language", b"authorization", b"connection", b"content-length"),
        *(b"content-type", b"host", b"user-agent", b"x-api-key", b"x-request-id"),
    )
)
"""A request with any other header is not for here: most that matter have one."""

HEAD_SECONDS = 10.0
"""Seconds that the head of a request may take to arrive."""

HEAD = 2_000
"""Bytes of a head that is read here at most."""

HELD = 1_000_000
"""Bytes of further requests that are held while one is answered, before reading is paused; and of one whose end hasn't come."""

END_SECONDS = 1.0
"""Seconds for which the end of a request is waited for here; the framework waits longer."""

Headers = dict[bytes, bytes]

_decode = msgspec.json.Decoder(PostedEvent | list[PostedEvent]).decode
_decode_question = msgspec.json.Decoder(RankQuestion).decode
_encode = msgspec.json.Encoder().encode


def connections(serving: Serving) -> type[asyncio.Protocol]:
    """How uvicorn is to speak with clients of this installation."""
    server = serving.params.server
    keyed = security.asks_for_keys(server.host, server.names)
    bound = {"serving": serving, "keyed": keyed, "answered": deque()}
    return cast("type[asyncio.Protocol]", type("BoundConnection", (Connection,), bound))


class Connection(HttpToolsProtocol):
    """One connection."""

    serving: ClassVar[Serving]
    keyed: ClassVar[bool]
    answered: ClassVar[deque[tuple[Connection, int | Exception]]]
    """Requests whose events the writer is done with: how many are durable, or why none is."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._between = True
        """Whether the next byte begins a request."""
        self._held: bytearray | None = None
        """What came while a request is answered here; None while none is."""
        self._part: bytearray | None = None
        """What came of a request whose end is still under way; None while none is."""
        self._whole = 0
        """Bytes of that request."""
        self._late: asyncio.TimerHandle | None = None
        self._closing = False
        self._lost = False
        self._begun = 0.0
        self._id = b""
        self._path = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is left to answer."""
        self._lost = True
        self._head_came()
        super().connection_lost(exc)

    def _has_gone(self) -> bool:
        return self._lost

    def shutdown(self) -> None:
        """Answer what is being answered, then close."""
        if self._held is not None:
            self._closing = True
            return
        if self._part is not None:
            self._take_part()
        super().shutdown()

    def on_message_begin(self) -> None:
        """The first byte of a request came."""
        self._between = False
        self._wait_for_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head of a request is whole."""
        self._head_came()
        gone.set(self._has_gone)  # the request that is begun now copies the context
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The last byte of a request came."""
        self._between = True
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Answer a whole request of the hottest, and give all else to the framework."""
        if self._held is not None:
            self._held += data
            if len(self._held) > HELD:
                self.transport.pause_reading()
        elif self._part is not None:
            self._part += data
            if len(self._part) >= self._whole:
                self._take_part()
        elif not (data.startswith(BEGINNINGS) and self._is_idle() and self._take(data)):
            super().data_received(data)

    def _is_idle(self) -> bool:
        most = self.limit_concurrency
        full = most is not None and (len(self.connections) >= most or len(self.tasks) >= most)
        return self._between and not full and (self.cycle is None or self.cycle.response_complete)

    def _take(self, data: bytes) -> bool:
        """Do what a request asks; False for one that the framework has to see."""
        head, _, body = data.partition(b"\r\n\r\n")
        line, _, lines = head.partition(b"\r\n")
        headers = plain_headers(lines) if len(head) <= HEAD else None
        if headers is None or line not in HOT or not self._may(headers, HOT[line]):
            return False
        length = headers.get(b"content-length", b"")
        if length != b"%d" % len(body):
            return (
                length.isdigit()
                and len(body) < int(length) <= HELD
                and self._wait_for_end(data, int(length) - len(body))
            )
        self._begun, self._id, self._path = time.perf_counter(), _request_id(headers), HOT[line]
        try:
            return self._rank(body) if self._path in RANK_PATHS else self._submit(body)
        except (PalateError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False

    def _submit(self, body: bytes) -> bool:
        now = utc_now()
        posted = _decode(body)
        self._submit_all(posted if isinstance(posted, list) else [posted], now)
        self._held = bytearray()
        self._came()
        return True

    def _rank(self, body: bytes) -> bool:
        answer = rating.quick(self.serving, _decode_question(body), utc_now())
        if answer is None:
            return False
        self._came()
        self._answer(200, b"", _encode(answer))
        return True

    def _came(self) -> None:
        self._head_came()
        self._unset_keepalive_if_required()

    def _may(self, headers: Headers, path: str) -> bool:
        """Whether this server is meant, in plain JSON, by somebody who may do this."""
        server = self.serving.params.server
        json = headers.get(b"content-type", b"").partition(b";")[0].strip().lower() == b"application/json"
        named = security.host_allowed(headers.get(b"host", b"").decode("latin-1"), server.host, server.names)
        return json and named and (not self.keyed or self._has_key(headers, "read" if path in RANK_PATHS else "write"))

    def _has_key(self, headers: Headers, scope: people.Scope) -> bool:
        given = (headers.get(name, b"").decode("latin-1") for name in (b"authorization", b"x-api-key"))
        token = security.api_key(*given)
        key = None if token is None else self.serving.keys.get(token)
        return key is not None and key.allows(scope)

    def _submit_all(self, posted: list[PostedEvent], now: datetime) -> None:
        if not 0 < len(posted) <= self.serving.params.server.max_batch:
            raise PalateError("the framework says what is wrong with it")
        columns = events.in_columns(posted)
        if len(posted) < events.TOGETHER or not events.are_plain(columns, now):
            events.check_all([event.to_event() for event in posted], now)
        self.serving.commits.submit_columns(columns, len(posted), now, _Durable(self))

    def answer(self, accepted: int | Exception) -> None:
        """Say how many events are durable, or why none is."""
        if isinstance(accepted, int):
            self.serving.metrics.events.inc(accepted)
            status, extra, body = 200, b"", _encode(Accepted(accepted=accepted))
        else:
            refused = refusal(accepted)
            status, body = refused.status, refused.body(self._id.decode())
            extra = b"".join(b"%s: %s\r\n" % header for header in refused.headers)
        self._answer(status, extra, body)

    def _answer(self, status: int, extra: bytes, body: bytes) -> None:
        seconds, client = time.perf_counter() - self._begun, self.client[0] if self.client else "-"
        asked = ("POST", self._path, self._path)
        with observing.named(self._id) if self.serving.params.server.access_log else nullcontext():
            observing.count(self.serving, asked, status, seconds, client)
        self._send(status, extra, body)

    def _send(self, status: int, extra: bytes, body: bytes) -> None:
        held, self._held = self._held, None
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self._closing:
            extra += b"connection: close\r\n"
        beginning = _beginning(status, tuple(self.server_state.default_headers))
        end = b"x-request-id: %s\r\ncontent-length: %d\r\n\r\n" % (self._id, len(body))
        self.transport.write(b"".join((beginning, extra, end, body)))
        if self._closing:
            self.transport.close()
        else:
            self._go_on(bytes(held or b""))

    def _go_on(self, held: bytes) -> None:
        """With what came meanwhile, or wait for the next request."""
        if not held:
            wait = self.timeout_keep_alive
            self.timeout_keep_alive_task = self.loop.call_later(wait, self.timeout_keep_alive_handler)
            return
        if len(held) > HELD:
            self.transport.resume_reading()
        self.data_received(held)

    def _wait_for_end(self, data: bytes, missing: int) -> bool:
        """Keep what came of a request whose end is still under way."""
        self._came()
        self._part, self._whole = bytearray(data), len(data) + missing
        self._late = self.loop.call_later(END_SECONDS, self._take_part)
        return True

    def _take_part(self) -> None:
        """Go on with what was kept of a request: it is whole, or must not wait any longer."""
        assert self._part is not None, "there is a part"
        data, self._part = bytes(self._part), None
        self._head_came()
        if len(data) < self._whole or not self._take(data):
            super().data_received(data)

    def _wait_for_head(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _head_came(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        self.transport.close()


COMMON = b"content-type: application/json\r\ncache-control: no-store\r\n" + b"".join(
    b"%s: %s\r\n" % header for header in security.HEADERS
)


@lru_cache(maxsize=100)  # one of them holds the date, and changes every second
def _beginning(status: int, headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """Of an answer: all that doesn't depend on the request."""
    line = b"HTTP/1.1 %d %s\r\n" % (status, observing.PHRASES[status])
    return line + b"".join(b"%s: %s\r\n" % header for header in headers) + COMMON


class _Durable:
    """Told by the writer of one request's events; without the locks of a future, which cost as much as all else about it."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection: Connection | None = connection

    def set_running_or_notify_cancel(self) -> bool:
        """They are written even if the client has gone."""
        return True

    def set_result(self, result: int, /) -> None:
        """So many are durable."""
        self._tell(result)

    def set_exception(self, exception: BaseException, /) -> None:
        """They are not. Raises InvalidStateError when something was told before."""
        assert isinstance(exception, Exception), "a commit fails by an exception"
        self._tell(exception)

    def _tell(self, accepted: int | Exception) -> None:
        """In the writer's thread: one call wakes the loop for all that a commit has made durable."""
        if self._connection is None:
            raise InvalidStateError
        connection, self._connection = self._connection, None
        answered = connection.answered
        answered.append((connection, accepted))
        if len(answered) == 1:
            connection.loop.call_soon_threadsafe(_answer_all, answered)


@lru_cache(maxsize=1000)  # a client sends the same again and again
def plain_headers(lines: bytes) -> Headers | None:
    """The headers of a request by their names in lower case; None when there is anything about them to think about."""
    headers: Headers = {}
    for line in lines.split(b"\r\n"):
        name, _, value = line.partition(b":")
        name = name.lower()
        if name not in PLAIN_HEADERS or name in headers or not value.strip().isascii():
            return None
        headers[name] = value.strip(b" \t")
    if any(b"\n" in value or b"\r" in value or b"\0" in value for value in headers.values()):
        return None
    return (
        headers if headers.get(b"connection", b"keep-alive").lower() == b"keep-alive" else None
    )  # nobody changes them


def _request_id(headers: Headers) -> bytes:
    given = headers.get(b"x-request-id", b"")
    return given if observing.SAFE_ID.fullmatch(given) else b"%032x" % random.getrandbits(128)


def _answer_all(answered: deque[tuple[Connection, int | Exception]]) -> None:
    while answered:
        connection, accepted = answered.popleft()
        connection.answer(accepted)
