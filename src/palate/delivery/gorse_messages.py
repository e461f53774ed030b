"""The bodies of Gorse's surface, and what they are in our terms: `gorse.py` does what is asked by them.

Names are read whatever their case and unknown ones are passed over, as Gorse itself does.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, structs

from palate.domain import MAX_ID_LENGTH, Event, Item, from_milliseconds, to_milliseconds
from palate.errors import InvalidInput
from palate.gorse_feedback import Feedback, Triple
from palate.people import Label, Person
from palate.sources.archive import gorse_strings

T = TypeVar("T", bound=msgspec.Struct)
Json = Any

NEVER = "0001-01-01T00:00:00Z"
"""How Gorse writes a time that isn't known."""

Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_LENGTH)]


class GorseParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The surface for clients of Gorse, below `/api`."""

    types: dict[str, str] = msgspec.field(default_factory=lambda: {"read": "viewed"})
    """Our type of event for each of Gorse's types of feedback; a type that isn't here keeps its name."""
    default_n: Annotated[int, Meta(ge=1, le=200)] = 10
    """Items in an answer where the caller doesn't say."""
    item_days: Annotated[float, Meta(gt=0, le=36_500)] = 36_500.0
    """Items published longer ago than so many days aren't recommended here; Gorse calls it `item_ttl`."""

    def __post_init__(self) -> None:
        for theirs, ours in self.types.items():
            if not re.fullmatch(r"[a-z][a-z0-9_.-]{0,63}", ours) or ours.startswith(("retract", "shown")):
                raise ValueError(f"types: {theirs!r} can't be {ours!r}, which is no type that feedback may have")


class GorseItem(msgspec.Struct, kw_only=True, rename="pascal"):
    """An item, in a request and an answer; in a patch None leaves what there is."""

    item_id: str = ""
    is_hidden: bool | None = None
    categories: list[str] | None = None
    timestamp: str | None = None
    labels: Json = None
    comment: str | None = None


class GorseUser(msgspec.Struct, kw_only=True, rename="pascal"):
    """A user, in a request and an answer; in a patch None leaves what there is."""

    user_id: str = ""
    labels: Json = None
    comment: str | None = None


class GorseFeedback(msgspec.Struct, kw_only=True, rename="pascal"):
    """Feedback in a request."""

    feedback_type: str = ""
    user_id: str = ""
    item_id: str = ""
    value: float | None = None
    timestamp: str | None = None
    labels: Json = None
    comment: str | None = None


def read_body(body: Any, kind: type[T]) -> T:
    """One object of a body. Raises InvalidInput for one that can't be it."""
    if not isinstance(body, dict):
        raise InvalidInput(f"a JSON object is needed here, not {_kind(body)}")
    names = {field.encode_name.lower(): field.encode_name for field in structs.fields(kind)}
    known = {names[name.lower()]: value for name, value in body.items() if name.lower() in names}
    try:
        return msgspec.convert(known, kind)
    except msgspec.ValidationError as error:
        raise InvalidInput(str(error).replace(" - at `$.", " in `")) from None


def read_list(body: Any, kind: type[T]) -> list[T]:
    """The objects of a body that is a list; null is none. Raises InvalidInput with the place of a bad one."""
    if not isinstance(body, list | None):
        raise InvalidInput(f"a JSON list is needed here, not {_kind(body)}")
    found = list[T]()
    for index, one in enumerate(body or ()):
        try:
            found.append(read_body(one, kind))
        except InvalidInput as error:
            raise InvalidInput(error.reason, index) from None
    return found


def _kind(body: Any) -> str:
    return "an object" if isinstance(body, dict) else "a list" if isinstance(body, list) else "this"


# --- times ------------------------------------------------------------------------------------------------------------------


def read_time(text: str | None) -> datetime | None:
    """A time in any usual form; None for an empty one and for the year 1. Raises InvalidInput."""
    text = (text or "").strip()
    if not text or text.startswith("0001-01-01"):
        return None
    try:
        return _iso(text) or _seconds(text) or parsedate_to_datetime(text).astimezone(UTC)
    except (ValueError, TypeError, OverflowError, OSError):
        raise InvalidInput(f"{text[:60]!r} is no time; write it as 2026-01-31T12:00:00Z") from None


def _iso(text: str) -> datetime | None:
    cleaned = re.sub(r" (UTC|GMT|[A-Z]{3,4})$", "", text).replace("/", "-")
    cleaned = re.sub(r"(\d) ([+-]\d)", r"\1\2", cleaned)
    cleaned = re.sub(r"\.(\d{6})\d+", r".\1", cleaned)  # Go writes nanoseconds
    try:
        time = datetime.fromisoformat(cleaned) if "-" in cleaned else None
    except ValueError:
        return None
    return None if time is None else time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC)


def _seconds(text: str) -> datetime | None:
    if not re.fullmatch(r"\d{9,13}", text):
        return None
    return from_milliseconds(int(text) if len(text) > 11 else 1000 * int(text))


def write_time(time: datetime | None) -> str:
    """A time as Gorse writes it: RFC 3339 in UTC, with as much of a second as there is."""
    if time is None:
        return NEVER
    text = time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f"{time.microsecond:06d}".rstrip("0")
    return f"{time.year:04d}{text[text.index('-') :]}{'.' + fraction if fraction else ''}Z"


UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def read_duration(text: str) -> timedelta:
    """A duration as Go writes it, such as 1h30m. Raises InvalidInput for another, for one below 0 and for more than a year."""
    parts = re.findall(r"(\d+(?:\.\d*)?)(ms|us|µs|ns|h|m|s)", text)
    seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    if (text != "0" and "".join(map("".join, parts)) != text) or not seconds <= 366 * 86_400:
        raise InvalidInput(f"{text[:60]!r} is no duration; write it as 10m or 1h30m, a year at most")
    return timedelta(seconds=seconds)


# --- items and users --------------------------------------------------------------------------------------------------------


def to_item(given: GorseItem) -> Item:
    """The item as the rest of Palate knows it: categories are labels, and so are all texts in Gorse's labels."""
    labels = dict.fromkeys([*(given.categories or ()), *gorse_strings(given.labels)])
    return Item(
        id=given.item_id, title=given.comment or None, published=read_time(given.timestamp), labels=tuple(labels)
    )


def item_record(given: GorseItem) -> dict[str, Any]:
    """What is kept of an item as it was given."""
    return {
        "Categories": given.categories or [],
        "Timestamp": write_time(read_time(given.timestamp)),
        "Labels": given.labels,
        "Comment": given.comment or "",
    }


def stored_of_item(item: Item) -> Json:
    """What the catalog keeps of it: as long as that stays, the record is true."""
    return [item.title, None if item.published is None else to_milliseconds(item.published), list(item.labels)]


def item_answer(item: Item, hidden: bool, record: Mapping[str, Any] | None) -> dict[str, Any]:
    """The item in Gorse's terms: as it was given, or by what is stored of it."""
    if record is None:
        record = {
            "Categories": list(item.labels),
            "Timestamp": write_time(item.published),
            "Labels": None,
            "Comment": item.title or "",
        }
    return {"ItemId": item.id, "IsHidden": hidden, **record}


def person_labels(labels: Json) -> dict[str, Label]:
    """Gorse's labels of a user as far as a person can have them: texts, numbers, truth values and lists of texts, by name."""
    if not isinstance(labels, dict):
        labels = {} if labels is None else {"labels": labels}
    return {str(name)[:MAX_ID_LENGTH]: value for name, value in labels.items() if name and _is_label(value)}


def _is_label(value: Json) -> bool:
    if isinstance(value, list):
        return all(isinstance(one, str) for one in value)
    return isinstance(value, str | int | float | bool | None)


def user_answer(person: Person, record: Mapping[str, Any] | None) -> dict[str, Any]:
    """A person in Gorse's terms."""
    return {"UserId": person.id, **(record or {"Labels": dict(person.labels) or None, "Comment": ""})}


# --- feedback ---------------------------------------------------------------------------------------------------------------


def to_event(given: GorseFeedback, params: GorseParams) -> Event:
    """The event that says this. Raises InvalidInput."""
    time = read_time(given.timestamp)
    extra = {name: value for name, value in (("comment", given.comment), ("labels", given.labels)) if value}
    return Event(
        user=given.user_id,
        item=given.item_id,
        type=to_type(given.feedback_type, params),
        value=given.value or None,  # Gorse doesn't tell 0 from nothing
        time=None if time is None else to_milliseconds(time),
        features=msgspec.json.encode(extra).decode() if extra else None,
    )


def to_type(theirs: str, params: GorseParams) -> str:
    """Our type of event for a type of feedback. Raises InvalidInput for what would take feedback back."""
    ours = params.types.get(theirs, theirs)
    if ours.startswith("retract") or ours == "shown":
        raise InvalidInput(
            f"{theirs!r} is a word of Palate's own; give it a type of its own by the setting gorse.types"
        )
    return ours


def from_type(ours: str, params: GorseParams) -> str:
    """The type of feedback that a type of event is."""
    return next((theirs for theirs, one in params.types.items() if one == ours), ours)


def feedback_answer(said: Feedback, params: GorseParams) -> dict[str, Any]:
    """Feedback in Gorse's terms."""
    extra = msgspec.json.decode(said.features) if said.features else {}
    extra = extra if isinstance(extra, dict) else {}
    return {
        "FeedbackType": from_type(said.type, params),
        "UserId": said.user,
        "ItemId": said.item,
        "Value": said.value,
        "Timestamp": write_time(from_milliseconds(said.time)),
        "Updated": write_time(from_milliseconds(said.updated)),
        "Labels": extra.get("labels"),
        "Comment": extra.get("comment", ""),
    }


# --- pages ------------------------------------------------------------------------------------------------------------------


def write_cursor(place: Triple | tuple[int] | None) -> str:
    """Where a listing goes on; empty at its end."""
    return "" if place is None else base64.urlsafe_b64encode(msgspec.json.encode(place)).decode()


def read_cursor(text: str, type: Any) -> Any:
    """The place that a cursor names, of this type; None for an empty one. Raises InvalidInput."""
    if not text:
        return None
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(text.encode("ascii", "replace")), type=type)
    except (ValueError, msgspec.DecodeError):
        raise InvalidInput("this cursor is none that was given here; begin without one") from None
