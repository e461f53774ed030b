"""The OpenAPI document, held against what the server does."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from palate.delivery import openapi
from palate.delivery.api import OPERATIONS
from palate.delivery.application import create_app
from palate.delivery.context import ServingParams, open_serving
from palate.delivery.operations import Operation

Serve = Callable[[Any], AbstractContextManager[httpx.Client]]

DOCUMENT = openapi.document(OPERATIONS, "", keyed=False)
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)

# Rules that a schema can't say: features that are JSON, times at most a day ahead, cursors that we signed, whole numbers
# that are written without a fraction.
UNSAID: dict[str, list[Any]] = {
    name: [positive_data_acceptance] for name in ("postEvents", "addEvent", "postItems", "postUser", "getFeed")
}


def test_what_the_document_allows_is_answered_as_it_says(client: httpx.Client) -> None:
    for operation in OPERATIONS:
        hold_against(client, operation, GenerationMode.POSITIVE)


def test_what_the_document_forbids_is_refused(data: Path, serve: Serve) -> None:
    with open_serving(data, None, ServingParams()) as serving, serve(create_app({"": serving})) as client:
        for operation in OPERATIONS:
            if operation.body or operation.query:
                hold_against(client, operation, GenerationMode.NEGATIVE)


def hold_against(client: httpx.Client, operation: Operation, mode: GenerationMode) -> None:
    """Ask what the document allows or forbids, and see that the answer is one of those that it describes."""

    @settings(max_examples=6, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=SCHEMA[operation.path][operation.method].as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case[Any]) -> None:
        case.call_and_validate(base_url=str(client.base_url), excluded_checks=UNSAID.get(operation.name))

    ask()


def test_the_document_is_served_and_describes_all_operations(client: httpx.Client) -> None:
    served = client.get("/openapi.json").json()
    assert served == json.loads(json.dumps(DOCUMENT))
    described = {(method.upper(), path) for path, methods in served["paths"].items() for method in methods}
    assert described == {(operation.method, operation.path) for operation in OPERATIONS}


def test_the_document_names_the_mount_and_the_keys() -> None:
    document = openapi.document(OPERATIONS, "/own", keyed=True)
    assert document["servers"] == [{"url": "/own"}]
    assert document["paths"]["/v1/events"]["post"]["security"] == [{"bearer": []}, {"header": []}]
    assert "security" not in document["paths"]["/healthz"]["get"]
    assert "401" in document["paths"]["/v1/feed"]["get"]["responses"]
