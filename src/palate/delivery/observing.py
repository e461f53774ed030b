"""Around every request: its id, its figures, its line in the log, and the headers that every answer carries."""

from __future__ import annotations

import contextvars
import http
import logging
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from palate.delivery import security
from palate.delivery.context import Serving
from palate.delivery.refusals import refusal

access = logging.getLogger("palate.access")
log = logging.getLogger(__name__)

ROUTE = "palate.route"
"""Where in a request's scope the operation that answers it is named, for the figures: a path of an id would be endless."""

PROBES = ("/healthz", "/readyz", "/metrics")
"""What watchers ask for every few seconds: their lines would hide the others."""

SAFE_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,100}")

PHRASES = {status.value: status.phrase.encode() for status in http.HTTPStatus}

_request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="-")


def request_id() -> str:
    """Id of the request that is being answered, in its threads too; "-" outside of any."""
    return _request.get()


class RequestIds(logging.Filter):
    """Gives each log record the attribute `request`, for the format of a handler."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Name the request; every record passes."""
        record.request = request_id()
        return True


def observed(app: ASGIApp, serving: Serving) -> ASGIApp:
    """The application with request ids, metrics, the access log, the headers of every answer, and an end for our mistakes."""

    async def observe(scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        status = 0
        counted = False

        def count_once() -> None:
            nonlocal counted
            if not counted:
                counted = True
                _count(serving, scope, status, time.perf_counter() - started)

        async def send_observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *security.HEADERS, (b"x-request-id", id)]
            elif not message.get("more_body", False):
                count_once()  # before the end is out: whoever has the answer finds it in the log and in the figures
            await send(message)

        with _named(scope) as id:
            try:
                await app(scope, receive, send_observed)
            except Exception as error:
                log.exception("A request failed by a mistake of ours.")
                if status:  # the answer has begun: nothing can be told any more
                    raise
                await refuse(error, send_observed)
            finally:
                count_once()

    return observe


def fields(scope: Scope) -> dict[str, str]:
    """The headers of a request by their names in lower case; of one that comes twice the last."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


async def refuse(error: Exception, send: Send) -> None:
    """Answer with a failure."""
    refused = refusal(error)
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store"), *refused.headers]
    await answer(send, refused.status, refused.body(request_id()), headers)


async def answer(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """Send one whole answer."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def _named(scope: Scope) -> Iterator[bytes]:
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    id = given if SAFE_ID.fullmatch(given) else uuid.uuid4().hex.encode()
    with named(id):
        yield id


@contextmanager
def named(id: bytes) -> Iterator[None]:
    """Within the block a request of this id is answered."""
    token = _request.set(id.decode())
    try:
        yield
    finally:
        _request.reset(token)


def _count(serving: Serving, scope: Scope, status: int, seconds: float) -> None:
    asked = scope["method"], scope["path"], _route(scope)
    count(serving, asked, status, seconds, (scope.get("client") or ("-",))[0])


def count(serving: Serving, asked: tuple[str, str, str], status: int, seconds: float, client: str) -> None:
    """Put a request that was answered, by its method, path and route, into the figures and the log."""
    method, path, route = asked
    serving.metrics.answered(method if route != "none" else "-", route, status, seconds)
    level = logging.DEBUG if path.endswith(PROBES) else logging.INFO
    if serving.params.server.access_log and access.isEnabledFor(level):
        # %r, since a path from outside may hold line ends that would forge a line of the log
        access.log(level, "%s %r %d %.1f ms from %s", method, path, status, seconds * 1000, client)


def _route(scope: Scope) -> str:
    named = scope.get(ROUTE)
    if named is None and (endpoint := scope.get("endpoint")) is not None:
        named = f"page {getattr(endpoint, '__name__', type(endpoint).__name__)}"
    return named or "none"
