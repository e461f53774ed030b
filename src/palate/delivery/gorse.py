"""Gorse's REST surface below `/api`: its clients and its users can move over without a change. Docs: `docs/gorse.md`.

It is one more door to this installation, not another one: feedback goes into the log, items into the catalog, and what is
recommended comes out of the feed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from palate.delivery import gorse_bulk as bulk
from palate.delivery import gorse_data as data
from palate.delivery import gorse_lists as lists
from palate.delivery import security
from palate.delivery.answering import MAX_QUERY_FIELDS, authorize, read_body, read_bytes
from palate.delivery.context import ServerParams, Serving, beside, utc_now
from palate.delivery.gorse_calls import Answer, Call, Parts, Route, Upload, find
from palate.delivery.observing import ROUTE, answer, fields
from palate.delivery.refusals import Refusal, no_method, refusal
from palate.errors import DatabaseError

log = logging.getLogger(__name__)


async def live(serving: Serving, call: Call) -> Any:
    """The process answers."""
    return _health(None)


async def ready(serving: Serving, call: Call) -> Any:
    """Events can be made durable now."""
    try:
        await beside(serving, serving.readiness.check)
    except DatabaseError as error:
        raise Refusal(503, "unavailable", msgspec.json.encode(_health(str(error))).decode()) from None
    return _health(None)


def _health(fault: str | None) -> dict[str, Any]:
    well = fault is None
    return {
        "Ready": well,
        "DataStoreError": fault,
        "CacheStoreError": None,
        "DataStoreConnected": well,
        "CacheStoreConnected": True,
    }


ROUTES = (
    Route("GET", "/api/health/live", live, None),
    Route("GET", "/api/health/ready", ready, None),
    Route("POST", "/api/user", data.post_user, "write", body=True),
    Route("POST", "/api/users", data.post_users, "write", body=True),
    Route("GET", "/api/users", data.get_users, "admin"),
    Route("GET", "/api/user/{user}", data.get_user, "read"),
    Route("PATCH", "/api/user/{user}", data.patch_user, "write", body=True),
    Route("DELETE", "/api/user/{user}", data.delete_user, "admin"),
    Route("GET", "/api/user/{user}/feedback/{type?}", data.get_of_user, "read"),
    Route("GET", "/api/user/{user}/neighbors", lists.user_neighbours, "read"),
    Route("POST", "/api/item", data.post_item, "write", body=True),
    Route("POST", "/api/items", data.post_items, "write", body=True),
    Route("GET", "/api/items", data.get_items, "read"),
    Route("GET", "/api/item/{item}", data.get_item, "read"),
    Route("PATCH", "/api/item/{item}", data.patch_item, "write", body=True),
    Route("DELETE", "/api/item/{item}", data.delete_item, "admin"),
    Route("PUT", "/api/item/{item}/category/{category}", data.put_category, "write"),
    Route("DELETE", "/api/item/{item}/category/{category}", data.delete_category, "write"),
    Route("GET", "/api/item/{item}/feedback/{type?}", data.get_of_item, "admin"),
    Route("GET", "/api/item/{item}/neighbors/{category?}", lists.neighbours, "read"),
    Route("POST", "/api/feedback", data.post_feedback, "write", body=True),
    Route("PUT", "/api/feedback", data.put_feedback, "write", body=True),
    Route("GET", "/api/feedback/{type?}", data.get_feedback, "admin"),
    Route("GET", "/api/feedback/{user}/{item}", data.get_of_pair, "read"),
    Route("DELETE", "/api/feedback/{user}/{item}", data.delete_feedback, "write"),
    Route("GET", "/api/feedback/{type}/{user}/{item}", data.get_of_pair, "read"),
    Route("DELETE", "/api/feedback/{type}/{user}/{item}", data.delete_feedback, "write"),
    Route("GET", "/api/recommend/{user}/{category?}", lists.recommend, "read"),
    Route("GET", "/api/collaborative-filtering/{user}", lists.collaborative, "read"),
    Route("GET", "/api/intermediate/recommend/{user}/{category?}", lists.recommend, "read"),
    Route("POST", "/api/session/recommend/{category?}", lists.session, "read", body=True),
    Route("GET", "/api/latest/{category?}", lists.latest, "read"),
    Route("GET", "/api/popular/{category?}", lists.popular, "read"),
    Route("GET", "/api/non-personalized/{name}", lists.non_personalized, "read"),
    Route("GET", "/api/item-to-item/{name}/{item}", lists.neighbours, "read"),
    Route("GET", "/api/user-to-user/{name}/{user}", lists.user_neighbours, "read"),
    Route("GET", "/api/bulk/{what}", bulk.get_lines, "admin"),
    Route("POST", "/api/bulk/{what}", bulk.post_lines, "admin", upload=True),
    Route("GET", "/api/dump", bulk.dump, "admin"),
    Route("POST", "/api/restore", bulk.restore, "admin", upload=True),
)
"""Everything that is answered here, and what an API key must allow for it."""


def create_gorse(serving: Serving) -> ASGIApp:
    """The surface of one installation."""
    server = serving.params.server
    keyed = security.asks_for_keys(server.host, server.names)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            route, named = _route(scope)
            headers = fields(scope)
            if keyed:
                await authorize(serving, route.scope, headers)
            if _writes_back(scope):
                await authorize(serving, "write" if keyed else None, headers)
            call = Call(
                now=utc_now(),
                path=named,
                query=_query(scope["query_string"]),
                body=await _body(route, headers, receive, server),
                scores=headers.get("x-api-version") == "2",
            )
            given = await route.do(serving, call)
        except Exception as error:
            await _refuse(error, scope, send)
        else:
            await _give(send, given)

    return app


def _route(scope: Scope) -> tuple[Route, dict[str, str]]:
    path = scope["raw_path"].removeprefix(scope.get("root_path", "").encode())
    routes, named = find(ROUTES, path)
    if not routes:
        raise Refusal(404, "not_found", "There is nothing at this path; docs/gorse.md lists what there is.")
    route = routes.get(scope["method"])
    if route is None:
        raise no_method(routes)
    scope[ROUTE] = route.path
    return route, named


async def _body(route: Route, headers: Mapping[str, str], receive: Receive, server: ServerParams) -> Any:
    if route.upload:
        return Upload(await read_bytes(headers, receive, server), headers.get("content-type", ""))
    return await read_body(Any if route.body else None, headers, receive, server)


def _writes_back(scope: Scope) -> bool:
    """Whether a request that reads changes something all the same."""
    return scope["method"] == "GET" and b"write-back-type=" in scope["query_string"]


def _query(text: bytes) -> dict[str, list[str]]:
    try:
        return parse_qs(text.decode("latin-1"), max_num_fields=MAX_QUERY_FIELDS)
    except ValueError:
        raise Refusal(400, "invalid_request", f"A query has at most {MAX_QUERY_FIELDS} fields.") from None


async def _refuse(error: Exception, scope: Scope, send: Send) -> None:
    """Gorse tells what is wrong in plain text."""
    refused = refusal(error)
    if refused.status == 500:
        log.exception("%s failed by a mistake of ours.", scope.get(ROUTE))
    where = "" if refused.index is None else f"at index {refused.index}: "
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store"), *refused.headers]
    await answer(send, refused.status, (where + refused.message).encode(), headers)


async def _give(send: Send, given: Any) -> None:
    body, more = (given.body, given.headers) if isinstance(given, Answer) else (given, ())
    headers = [(b"cache-control", b"no-store"), *more]
    if not isinstance(body, Parts):
        headers = headers if any(name == b"content-type" for name, _ in more) else [*headers, JSON]
        await answer(send, 200, msgspec.json.encode(body), headers)
        return
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    async for part in body.parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


JSON = (b"content-type", b"application/json")
