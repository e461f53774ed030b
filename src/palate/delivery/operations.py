"""What the API can do, as a table: each operation with its path, its scope, its bodies and the function that does it.

Routing, authorisation and the OpenAPI document are all read from this one table, so they can't differ.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from palate.delivery.context import Serving
from palate.people import Scope


@dataclass(frozen=True)
class Asked:
    """One request, already checked: `id` from the path, `query` and `body` as the operation's types, `now` when it came."""

    now: datetime
    id: str = ""
    query: Any = None
    body: Any = None


@dataclass(frozen=True)
class Raw:
    """An answer that is no JSON of ours."""

    body: bytes
    content_type: str


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One thing that the API does. A `path` that ends in `{name}` takes the rest of the path as an id."""

    name: str
    method: str
    path: str
    summary: str
    do: Callable[[Serving, Asked], Awaitable[msgspec.Struct | Raw]]
    answer: type[msgspec.Struct] | str
    """Type of the answer's body, or the media type of one that isn't ours."""
    scope: Scope | None
    """What an API key must allow; None is open to everybody."""
    query: type[msgspec.Struct] | None = None
    body: Any = None
    """Type of the request's body; None takes none."""
    faults: tuple[int, ...] = ()
    """Statuses of failure beyond those that the table's other fields imply."""

    @property
    def prefix(self) -> str:
        """The fixed part of the path."""
        return self.path.partition("{")[0]

    @property
    def parameter(self) -> str | None:
        """Name of the id in the path."""
        return self.path.partition("{")[2].rstrip("}") or None


Table = dict[str, dict[str, Operation]]
"""Operations by path (of those with an id: its fixed part), then by method."""


def table(operations: Sequence[Operation]) -> Table:
    """The operations, ready to be found."""
    found: Table = {}
    for operation in operations:
        found.setdefault(operation.prefix, {})[operation.method] = operation
    return found


def find(operations: Table, path: str) -> tuple[dict[str, Operation], str]:
    """The operations at a path, by method, and the id in the path; none when nothing is there."""
    exact = operations.get(path)
    if exact is not None and not path.endswith("/"):
        return exact, ""
    for prefix, methods in operations.items():
        if prefix.endswith("/") and path.startswith(prefix):
            return methods, path[len(prefix) :]
    return {}, ""
