"""The API as a plain ASGI application: find the operation, check who asks, read the body, do it, answer in JSON."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from palate import people
from palate.database import reading
from palate.delivery import security
from palate.delivery.context import ServerParams, Serving, beside, utc_now
from palate.delivery.observing import ROUTE, answer, fields, refuse
from palate.delivery.operations import Asked, Operation, Raw, Table, find, table
from palate.delivery.refusals import Refusal, no_method, refusal, undecodable
from palate.identities import check_id

log = logging.getLogger(__name__)

MAX_QUERY_FIELDS = 2000
CLOSE = ((b"connection", b"close"),)  # the rest of a body that we won't read


def answering(operations: Sequence[Operation], serving: Serving) -> ASGIApp:
    """The application that does these operations for one installation."""
    known = table(operations)
    server = serving.params.server
    keyed = security.asks_for_keys(server.host, server.names)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            operation, id = _operation(known, scope)
            headers = fields(scope)
            if keyed:
                await authorize(serving, operation.scope, headers)
            asked = Asked(
                now=utc_now(),
                id=id,
                query=_query(operation.query, scope["query_string"]),
                body=await read_body(operation.body, headers, receive, server),
            )
            given = await operation.do(serving, asked)
        except Exception as error:
            if refusal(error).status == 500:
                log.exception("%s failed by a mistake of ours.", scope.get(ROUTE))
            await refuse(error, send)
        else:
            await _give(send, given)

    return app


def _operation(known: Table, scope: Scope) -> tuple[Operation, str]:
    methods, id = find(known, scope["path"].removeprefix(scope.get("root_path", "")))
    if not methods:
        raise Refusal(404, "not_found", "There is nothing at this path; /openapi.json lists what there is.")
    operation = methods.get(scope["method"])
    if operation is None:
        raise no_method(methods)
    scope[ROUTE] = operation.path
    return operation, check_id(id, operation.parameter) if operation.parameter else ""


async def authorize(serving: Serving, scope: people.Scope | None, headers: Mapping[str, str]) -> None:
    """Raises Refusal unless the request carries a key that allows this; None needs none."""
    if scope is None:
        return
    token = security.api_key(headers.get("authorization"), headers.get("x-api-key"))
    if token is None:
        raise _unauthorized("Send an API key as `Authorization: Bearer KEY`; `palate keys create` makes one.")
    key = serving.keys.get(token)
    if key is None:
        key = await beside(serving, _key, serving, token)
        if key is None:
            raise _unauthorized("This API key is unknown or revoked.")
        serving.keys.put(token, key)
    if not key.allows(scope):
        raise Refusal(403, "forbidden", f"This needs an API key with the scope {scope}.")


def _key(serving: Serving, token: str) -> people.ApiKey | None:
    with reading(serving.engine) as connection:
        return people.check_key(connection, token)


def _unauthorized(message: str) -> Refusal:
    return Refusal(401, "unauthorized", message, headers=((b"www-authenticate", b"Bearer"),))


def _query(type_: type[msgspec.Struct] | None, text: bytes) -> Any:
    if type_ is None:
        return None
    try:
        pairs = parse_qsl(text.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS)
    except ValueError:
        raise Refusal(400, "invalid_request", f"A query has at most {MAX_QUERY_FIELDS} fields.") from None
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in _lists(type_):
            values.setdefault(name, []).append(value)
        elif name in values:
            raise Refusal(400, "invalid_request", f"`{name}` is given twice.")
        else:
            values[name] = value
    try:
        return msgspec.convert(values, type_, strict=False)
    except msgspec.ValidationError as error:
        raise undecodable(error) from None


@lru_cache
def _lists(type_: type[msgspec.Struct]) -> frozenset[str]:
    fields = msgspec.inspect.type_info(type_).fields  # type: ignore[attr-defined]  # it is a struct
    return frozenset(field.name for field in fields if isinstance(field.type, msgspec.inspect.ListType))


async def read_body(type_: Any, headers: Mapping[str, str], receive: Receive, server: ServerParams) -> Any:
    """The body as this type; None for the type None. Raises Refusal for one that isn't it, or that is too large or too slow."""
    if type_ is None:
        return None
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "unsupported_type", "Send the body as `Content-Type: application/json`.", headers=CLOSE)
    body = await read_bytes(headers, receive, server)
    try:
        return _decoder(type_).decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise undecodable(error) from None


async def read_bytes(headers: Mapping[str, str], receive: Receive, server: ServerParams) -> bytes:
    """The body. Raises Refusal for one that is packed, too large or too slow."""
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Refusal(415, "unsupported_type", "Send the body without Content-Encoding.", headers=CLOSE)
    if int(headers.get("content-length", 0)) > server.max_body:
        raise _too_large(server)
    try:
        async with asyncio.timeout(server.body_seconds):
            return await _read(receive, server)
    except TimeoutError:
        raise Refusal(
            408, "timeout", f"The body must arrive within {server.body_seconds:g} s.", headers=CLOSE
        ) from None


async def _read(receive: Receive, server: ServerParams) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False) and len(body) <= server.max_body:
        return body
    parts, size = [body], len(body)
    while message.get("more_body", False):
        if size > server.max_body:
            break
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
    if size > server.max_body:
        raise _too_large(server)
    return b"".join(parts)


def _too_large(server: ServerParams) -> Refusal:
    return Refusal(413, "too_large", f"A body has at most {server.max_body} bytes; send less at a time.", headers=CLOSE)


@lru_cache
def _decoder(type_: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(type_)


async def _give(send: Send, given: msgspec.Struct | Raw) -> None:
    if isinstance(given, Raw):
        body, kind = given.body, given.content_type.encode()
    else:
        body, kind = msgspec.json.encode(given), b"application/json"
    await answer(send, 200, body, [(b"content-type", kind), (b"cache-control", b"no-store")])
