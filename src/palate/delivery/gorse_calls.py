"""One call of Gorse's surface, and the routes by which it is found."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import unquote

from palate.delivery.context import Serving
from palate.errors import InvalidInput
from palate.people import Scope

MOST = 10_000
"""Things in one answer."""


@dataclass(frozen=True)
class Call:
    """One request: the names in its path, its query, its body as plain JSON or as an Upload, and when it came."""

    now: datetime
    path: Mapping[str, str]
    query: Mapping[str, Sequence[str]]
    body: Any = None
    scores: bool = False
    """Whether recommendations are asked for with their scores (`X-API-Version: 2`)."""

    def text(self, name: str) -> str:
        """The last value in the query by this name; empty when there is none."""
        return next(iter(reversed(self.query.get(name, ()))), "")

    def number(self, name: str, default: int) -> int:
        """A whole number from 0 in the query. Raises InvalidInput."""
        text = self.text(name)
        if not text:
            return default
        if not text.isascii() or not text.isdigit() or len(text) > 9:
            raise InvalidInput(f"`{name}` must be a whole number from 0, not {text[:20]!r}")
        return min(int(text), MOST)

    @property
    def categories(self) -> tuple[str, ...]:
        """All that an item has to be in."""
        own = self.path.get("category", "")
        return tuple(name for name in (own, *self.query.get("category", ())) if name)


@dataclass(frozen=True)
class Answer:
    """A body that has to be told with headers, or comes in parts."""

    body: Any
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True)
class Upload:
    """A body that isn't JSON, and its Content-Type."""

    body: bytes
    kind: str


@dataclass(frozen=True)
class Parts:
    """A body that comes in parts."""

    parts: AsyncIterator[bytes]


@dataclass(frozen=True)
class Route:
    """What is done at a path; a part of it in braces is a name, the last may be left out when it ends in `?`."""

    method: str
    path: str
    do: Callable[[Serving, Call], Awaitable[Any]]
    scope: Scope | None
    body: bool = False
    """Whether a JSON body is read."""
    upload: bool = False
    """Whether any body is read, as an Upload."""

    @property
    def parts(self) -> list[str]:
        """The path, part by part."""
        return self.path.strip("/").split("/")


def find(routes: Sequence[Route], raw_path: bytes) -> tuple[dict[str, Route], dict[str, str]]:
    """The routes at a path as it was sent, by method, and the names in it; none when nothing is there."""
    parts = [unquote(part) for part in raw_path.decode("latin-1").strip("/").split("/")]
    found = dict[str, Route]()
    named = dict[str, str]()
    for route in routes:
        names = _matched(route.parts, parts)
        if names is not None and route.method not in found:
            found[route.method] = route
            named |= names
    return found, named


def _matched(pattern: Sequence[str], parts: Sequence[str]) -> dict[str, str] | None:
    """The names in a path that has this form; None when it hasn't."""
    if pattern[-1].endswith("?}") and len(parts) == len(pattern) - 1:
        pattern = pattern[:-1]
    if len(pattern) != len(parts):
        return None
    names = dict[str, str]()
    for wanted, part in zip(pattern, parts, strict=True):
        if wanted.startswith("{"):
            names[wanted.strip("{?}")] = part
        elif wanted != part:
            return None
    return names
