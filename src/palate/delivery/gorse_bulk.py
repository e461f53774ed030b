"""Everything at once by Gorse's surface: JSON lines, and the stream of its dump, in and out.

A dump holds, after each kind's mark, its messages by protobuf's wire format with their length before them, and a mark at its end.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from palate import gorse_feedback
from palate.delivery import gorse_data as data
from palate.delivery.context import Serving, in_thread
from palate.delivery.gorse_calls import Answer, Call, Parts, Upload
from palate.delivery.gorse_messages import read_time
from palate.errors import InvalidInput, NotFound

What = Literal["users", "items", "feedback"]

PAGE = 1000
"""Things that are stored in one transaction."""

_PUT = {"users": data.post_users, "items": data.post_items, "feedback": data.put_feedback}


async def get_lines(serving: Serving, call: Call) -> Any:
    """All users, items or feedback as JSON lines."""
    read = await data.reader(serving, _what(call))
    return Answer(Parts(_as_lines(serving, read)), ((b"content-type", b"application/jsonl"),))


async def _as_lines(serving: Serving, read: data.Reader) -> AsyncIterator[bytes]:
    async for found in _pages(serving, read):
        yield b"".join(msgspec.json.encode(one) + b"\n" for one in found)


async def _pages(serving: Serving, read: data.Reader) -> AsyncIterator[list[dict[str, Any]]]:
    place: Any = None
    while True:
        found, place = await in_thread(serving, read, place)
        if not found:
            return
        yield found


def _what(call: Call) -> What:
    what = call.path["what"]
    if what not in _PUT:
        raise NotFound("there are bulk users, items and feedback")
    return what  # type: ignore[return-value]  # it is one of them


async def post_lines(serving: Serving, call: Call) -> Any:
    """Store users, items or feedback of JSON lines, the body or the field `file` of a form; a thousand are stored as a whole."""
    rows = [_object(number, line) for number, line in enumerate(file_of(call.body).splitlines()) if line.strip()]
    return data.affected(await _store(serving, call, _what(call), rows))


def _object(number: int, line: bytes) -> Any:
    try:
        return msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"this line is no JSON: {error}", number) from None


async def _store(serving: Serving, call: Call, what: What, rows: Sequence[Any]) -> int:
    for begin in range(0, len(rows), PAGE):
        try:
            await _PUT[what](serving, replace(call, body=list(rows[begin : begin + PAGE])))
        except InvalidInput as error:
            raise InvalidInput(error.reason, None if error.index is None else begin + error.index) from None
    return len(rows)


def file_of(upload: Upload) -> bytes:
    """The body, or what a form holds by the name `file`. Raises InvalidInput."""
    boundary = re.search(r'^multipart/form-data;.*boundary="?([^";]+)', upload.kind)
    if boundary is None:
        return upload.body
    for part in upload.body.split(b"--" + boundary[1].encode("latin-1"))[1:]:
        head, _, content = part.partition(b"\r\n\r\n")
        if re.search(rb'\bname="?file"?\s*(;|\r|$)', head):
            return content.removesuffix(b"\r\n")
    raise InvalidInput("send the lines as the body, or as the field `file` of a form")


# --- dumps ----------------------------------------------------------------------------------------------------------------

MARKS: Mapping[int, What] = {-1: "users", -2: "items", -3: "feedback"}
"""By which the messages of a kind begin; 0 ends a dump."""

FIELDS: Mapping[What, Mapping[int, tuple[str, str]]] = {
    "users": {1: ("UserId", "text"), 2: ("Labels", "json"), 3: ("Comment", "text")},
    "items": {
        2: ("ItemId", "text"),
        3: ("IsHidden", "truth"),
        4: ("Categories", "texts"),
        5: ("Timestamp", "time"),
        6: ("Labels", "json"),
        7: ("Comment", "text"),
    },
    "feedback": {
        2: ("FeedbackType", "text"),
        3: ("UserId", "text"),
        4: ("ItemId", "text"),
        5: ("Timestamp", "time"),
        6: ("Comment", "text"),
    },
}
"""Numbers, names and forms of a message's fields. Feedback has no value there."""


async def dump(serving: Serving, call: Call) -> Any:
    """All users, items and feedback as Gorse dumps them."""
    await in_thread(serving, gorse_feedback.catch_up, serving.engine, serving.data)
    return Answer(Parts(_dumped(serving)), ((b"content-type", b"application/octet-stream"),))


async def _dumped(serving: Serving) -> AsyncIterator[bytes]:
    for mark, what in MARKS.items():
        yield _number(mark)
        async for found in _pages(serving, await data.reader(serving, what)):
            messages = [written(what, one) for one in found]
            yield b"".join(_number(len(message)) + message for message in messages)
    yield _number(0)


def _number(value: int) -> bytes:
    return value.to_bytes(8, "little", signed=True)


async def restore(serving: Serving, call: Call) -> Any:
    """Store what a dump holds; a thousand of a kind are stored as a whole."""
    kinds: dict[What, list[Any]] = {"users": [], "items": [], "feedback": []}
    for what, one in read_dump(call.body.body):
        kinds[what].append(one)
    return {what.capitalize(): await _store(serving, call, what, rows) for what, rows in kinds.items()}


def read_dump(body: bytes) -> Iterator[tuple[What, dict[str, Any]]]:
    """Each thing of a dump as the JSON that the surface takes. Raises InvalidInput."""
    place, what = 0, None
    while place < len(body):
        size = int.from_bytes(body[place : place + 8], "little", signed=True)
        place += 8
        if size == 0:
            return
        if size < 0:
            what = MARKS.get(size)
        elif what is None or place + size > len(body):
            raise InvalidInput("this is no dump of Gorse, or it is cut off")
        else:
            yield what, read(what, body[place : place + size])
            place += size


# --- protobuf's wire format -----------------------------------------------------------------------------------------------


def written(what: What, one: Mapping[str, Any]) -> bytes:
    """A message with these fields; what is empty is left out."""
    found = bytearray()
    for number, (name, form) in FIELDS[what].items():
        value = one.get(name)
        if form == "truth" and value:
            found += _varint(number << 3) + b"\x01"
        for content in _contents(form, value):
            found += _varint(number << 3 | 2) + _varint(len(content)) + content
    return bytes(found)


def _contents(form: str, value: Any) -> list[bytes]:
    if form == "json":
        return [msgspec.json.encode(value)]
    if not value or form == "truth":
        return []
    if form == "texts":
        return [text.encode() for text in value]
    return [value.encode() if form == "text" else _moment(value)]


def _moment(text: str) -> bytes:
    """A time of whole seconds, as google.protobuf.Timestamp."""
    time = read_time(text)
    return b"" if time is None else b"\x08" + _varint(int(time.timestamp()) % 2**64)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


def read(what: What, message: bytes) -> dict[str, Any]:
    """The fields of a message by their names. Raises InvalidInput for one that can't be read."""
    found: dict[str, Any] = {}
    try:
        for number, value in _fields(message):
            name, form = FIELDS[what].get(number, ("", ""))
            if form == "texts":
                found.setdefault(name, []).append(_READ["text"](value))
            elif form:
                found[name] = _READ[form](value)
    except (IndexError, ValueError, TypeError, AttributeError, OverflowError, msgspec.DecodeError):
        raise InvalidInput(f"a message among the {what} of this dump can't be read") from None
    return found


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Numbers and values: whole numbers, or bytes."""
    place = 0
    while place < len(message):
        key, place = _read_varint(message, place)
        if key & 7 == 0:
            value, place = _read_varint(message, place)
            yield key >> 3, value
        elif key & 7 in _SIZES or key & 7 == 2:
            size, place = (_SIZES[key & 7], place) if key & 7 in _SIZES else _read_varint(message, place)
            if place + size > len(message):
                raise ValueError("it is cut off")
            yield key >> 3, message[place : place + size]
            place += size
        else:
            raise ValueError("no such wire type")


_SIZES = {1: 8, 5: 4}
"""Of wire types whose values always take as many bytes."""


def _read_varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value, place, shift = value | (byte & 127) << shift, place + 1, shift + 7
        if byte < 128:
            return value, place
        if shift > 63:
            raise ValueError("too long a number")


def _read_moment(message: bytes) -> str:
    seconds = dict(_fields(message)).get(1, 0)
    return datetime.fromtimestamp(seconds if seconds < 2**63 else seconds - 2**64, UTC).isoformat()


_READ: Mapping[str, Callable[[Any], Any]] = {
    "text": lambda value: value.decode(),
    "json": lambda value: msgspec.json.decode(value) if value else None,
    "truth": bool,
    "time": _read_moment,
}
