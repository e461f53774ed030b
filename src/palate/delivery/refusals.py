"""How what went wrong is told over HTTP: a status, a short code for programs, a sentence for people."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from palate.delivery.messages import Fault, FaultAnswer
from palate.errors import (
    DatabaseError,
    DataFolderError,
    InvalidCursor,
    InvalidEvent,
    InvalidInput,
    InvalidItem,
    NotDurable,
    NotFound,
    Overloaded,
    PalateError,
)

Headers = tuple[tuple[bytes, bytes], ...]

MEANINGS = {
    400: "The request breaks a rule.",
    401: "An API key is missing or unknown.",
    403: "The key does not allow this, or the request comes from another site.",
    404: "There is no such thing.",
    405: "There is no such method here.",
    408: "The body did not arrive in time.",
    413: "The body is larger than the limit.",
    415: "The body is not JSON as it is.",
    429: "More is waiting than can be done soon; try again after the time in Retry-After.",
    500: "The server made a mistake.",
    503: "Nothing can be made durable now; try again after the time in Retry-After.",
}

CODES: tuple[tuple[type[PalateError], int, str], ...] = (
    (InvalidEvent, 400, "invalid_event"),
    (InvalidItem, 400, "invalid_item"),
    (InvalidCursor, 400, "invalid_cursor"),
    (InvalidInput, 400, "invalid_input"),
    (NotFound, 404, "not_found"),
    (Overloaded, 429, "overloaded"),
    (NotDurable, 503, "not_durable"),
    (DatabaseError, 503, "unavailable"),
    (DataFolderError, 503, "unavailable"),
)


@dataclass
class Refusal(Exception):
    """A request that is answered with a failure."""

    status: int
    code: str
    message: str
    index: int | None = None
    headers: Headers = field(default=())

    def body(self, request: str) -> bytes:
        """The answer's JSON; `request` is the request's id."""
        fault = Fault(code=self.code, message=self.message, index=self.index)
        return msgspec.json.encode(FaultAnswer(error=fault, request=request))


RETRY: Headers = ((b"retry-after", b"1"),)


def refusal(error: Exception) -> Refusal:
    """How an exception is told. One that nobody raised on purpose is a mistake of ours, and tells nothing of the inside."""
    if isinstance(error, Refusal):
        return error
    for kind, status, code in CODES:
        if isinstance(error, kind):
            index = error.index if isinstance(error, InvalidInput) else None
            message = error.reason if isinstance(error, InvalidInput) else str(error)
            return Refusal(status, code, message, index, RETRY if status in (429, 503) else ())
    return Refusal(500, "internal", "The server made a mistake; its log names this request.")


def undecodable(error: Exception) -> Refusal:
    """How a body or a query that does not have its type is told: with the place, and the index within a list."""
    if isinstance(error, msgspec.ValidationError):
        reason, _, place = str(error).partition(" - at `$")
        place = place.rstrip("`")
        index = re.match(r"\[(\d+)\]", place)
        sentence = reason[0].lower() + reason[1:]
        where = place.lstrip(".") or "the request"
        return Refusal(400, "invalid_request", f"{where}: {sentence}", int(index[1]) if index else None)
    if isinstance(error, RecursionError):
        return Refusal(400, "invalid_json", "The JSON is nested too deeply.")
    if isinstance(error, UnicodeDecodeError):
        return Refusal(400, "invalid_json", "The body is not valid UTF-8.")
    return Refusal(400, "invalid_json", f"The body is no valid JSON: {error}.")


def no_method(methods: Iterable[str]) -> Refusal:
    """405, with the methods that there are."""
    allowed = ", ".join(sorted(methods))
    return Refusal(405, "method_not_allowed", f"Use {allowed} here.", headers=((b"allow", allowed.encode()),))
