"""The OpenAPI 3.1 document of the API, composed from the table of its operations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

import msgspec

from palate.delivery.context import Serving
from palate.delivery.messages import FaultAnswer, Id
from palate.delivery.operations import Asked, Operation, Raw
from palate.delivery.refusals import MEANINGS

Json = dict[str, Any]

IN_COMPONENTS = "#/components/schemas/{name}"


def document(operations: Sequence[Operation], root_path: str, keyed: bool) -> Json:
    """The document. `root_path` is where the API is mounted; `keyed` says whether it asks for keys."""
    schemas, components = _schemas(operations)
    paths: dict[str, Json] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation, schemas, keyed)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Palate",
            "version": version("palate"),
            "description": "Events in, feeds out. Times are whole milliseconds since 1970; ids are strings.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": root_path or "/"}],
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": _security_schemes()},
    }


def description(document: Json) -> Operation:
    """The operation that gives the document itself."""
    described = Raw(msgspec.json.encode(document), "application/json")

    async def describe(_: Serving, __: Asked) -> Raw:
        return described

    return Operation(
        name="openapi",
        method="GET",
        path="/openapi.json",
        summary="What the API does, for programs.",
        do=describe,
        answer="application/json",
        scope=None,
    )


def _schemas(operations: Sequence[Operation]) -> tuple[dict[Any, Json], dict[str, Json]]:
    types: list[Any] = [FaultAnswer, Id]
    for operation in operations:
        types += [
            type_ for type_ in (operation.body, operation.answer) if type_ is not None and not isinstance(type_, str)
        ]
    schemas, components = msgspec.json.schema_components(types, ref_template=IN_COMPONENTS)
    return dict(zip(types, schemas, strict=True)), components


def _described(operation: Operation, schemas: dict[Any, Json], keyed: bool) -> Json:
    described: Json = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": {"200": _success(operation, schemas), **_failures(operation, schemas, keyed)},
    }
    if parameters := [*_path_parameters(operation, schemas), *_query_parameters(operation)]:
        described["parameters"] = parameters
    if operation.body is not None:
        content = {"application/json": {"schema": schemas[operation.body]}}
        described["requestBody"] = {"required": True, "content": content}
    if keyed and operation.scope is not None:
        described["security"] = [{"bearer": []}, {"header": []}]
    return described


def _success(operation: Operation, schemas: dict[Any, Json]) -> Json:
    if isinstance(operation.answer, str):
        return {"description": "Done.", "content": {operation.answer: {}}}
    return {"description": "Done.", "content": {"application/json": {"schema": schemas[operation.answer]}}}


def _failures(operation: Operation, schemas: dict[Any, Json], keyed: bool) -> dict[str, Json]:
    content = {"application/json": {"schema": schemas[FaultAnswer]}}
    described: dict[str, Json] = {}
    for status in sorted(set(_statuses(operation, keyed))):
        described[str(status)] = {"description": MEANINGS[status], "content": content}
        if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
            described[str(status)]["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    return described


def _statuses(operation: Operation, keyed: bool) -> Iterator[int]:
    yield from (403, 405, *operation.faults)
    if operation.query or operation.body or operation.parameter:
        yield 400
    if operation.body is not None:
        yield from (408, 413, 415)
    if keyed and operation.scope is not None:
        yield 401
    if operation.scope is not None:
        yield 503


def _path_parameters(operation: Operation, schemas: dict[Any, Json]) -> Iterator[Json]:
    if operation.parameter is not None:
        yield {"name": operation.parameter, "in": "path", "required": True, "schema": schemas[Id]}


def _query_parameters(operation: Operation) -> Iterator[Json]:
    if operation.query is None:
        return
    schema = msgspec.json.schema_components([operation.query], ref_template=IN_COMPONENTS)[1][operation.query.__name__]
    for name, of_field in schema["properties"].items():
        yield {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "schema": _not_null(of_field),
        }


def _not_null(schema: Json) -> Json:
    """A parameter's schema: what may be null in the program is simply left out of a query."""
    choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    rest = {name: value for name, value in schema.items() if name != "anyOf" and value is not None}
    return rest | choices[0] if len(choices) == 1 else rest or schema


def _security_schemes() -> Json:
    return {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
