"""People: their labels and choices, the ids they are known by, API keys, login links, and this installation's secret.

A person is one row of `users` or several that were joined; labels and choices are those of the person's own row.
"""

from __future__ import annotations

import hmac
import math
import secrets
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Annotated, Any, Literal, cast

import msgspec
import sqlalchemy as sa

from palate import database, gorse_tables, identities
from palate.domain import from_milliseconds, to_milliseconds
from palate.errors import InvalidInput, NotFound

Label = str | int | float | bool | None | list[str]

MAX_LABELS = 10_000
"""Characters of one person's labels as JSON."""

Topics = Annotated[tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=200)], ...], msgspec.Meta(max_length=200)]

Scope = Literal["read", "write", "admin"]
_REACH: dict[Scope, frozenset[Scope]] = {
    "read": frozenset(("read",)),
    "write": frozenset(("read", "write")),
    "admin": frozenset(("read", "write", "admin")),
}


class Choices(msgspec.Struct, frozen=True, kw_only=True):
    """What a person chose. None and empty mean the installation's own."""

    topics: Topics = ()
    """Labels of items that they want to read about."""
    languages: Topics = ()
    """ISO 639-1 codes of the languages that they read."""
    window_days: Annotated[int, msgspec.Meta(ge=1, le=36_500)] | None = None
    """Days after which an item is too old for them."""
    daily_ration: Annotated[int, msgspec.Meta(ge=1, le=10_000)] | None = None
    """Items a day after which their feed ends; None for endless."""
    owner: bool = False
    """May change the sources and see everybody's pages."""
    annotator: bool = False
    """May label texts."""


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is known of one person but their events."""

    key: int
    id: str
    """Of the person's own row."""
    keys: tuple[int, ...]
    """Of all ids they are known by, their own included."""
    ids: tuple[str, ...]
    labels: dict[str, Label]
    choices: Choices
    created: datetime


@dataclass(frozen=True)
class Identity:
    """Who an id stands for, and what they chose."""

    key: int
    """Of the person's own row."""
    keys: tuple[int, ...]
    """Of all ids they are known by, their own included, in order."""
    choices: Choices
    labels: dict[str, Label]
    chose_sources: bool
    """Whether there are sources that they follow or hide."""


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """An API key without its secret."""

    id: str
    """The part that may be shown."""
    scopes: frozenset[Scope]
    note: str | None
    created: datetime
    revoked: datetime | None

    def allows(self, scope: Scope) -> bool:
        """Whether the key may do what needs `scope`: admin includes write, write includes read."""
        return self.revoked is None and any(scope in _REACH[own] for own in self.scopes)


def upsert_user(connection: sa.Connection, id: str, labels: Mapping[str, object], now: datetime) -> Person:
    """Make the user if they are new, and set their labels: the given ones replace all they had.

    Raises InvalidInput for an id or labels that can't be stored.
    """
    checked = _check_labels(labels)
    person = _person_key(connection, id, now)
    users = database.users
    connection.execute(sa.update(users).where(users.c.key == person).values(labels=checked))
    return _person(connection, person)


def get(connection: sa.Connection, id: str) -> Person | None:
    """The person known by this id; None when nobody is."""
    keys = identities.user_keys(connection, [id], None)
    return _person(connection, identities.persons(connection, keys.values())[keys[id]]) if keys else None


_NAMED = database.users.alias("named")
_PERSON = sa.func.coalesce(_NAMED.c.person, _NAMED.c.key)
_CHOSEN = sa.exists().where(database.source_choices.c.person == _PERSON)
_IDENTITY = (
    sa.select(database.users.c.key, database.users.c.choices, database.users.c.labels, _PERSON.label("own"), _CHOSEN)
    .join_from(_NAMED, database.users, (database.users.c.key == _PERSON) | (database.users.c.person == _PERSON))
    .where(_NAMED.c.id == sa.bindparam("one"))
    .order_by(database.users.c.key)
)


def identify(connection: sa.Connection, id: str) -> Identity | None:
    """The person known by this id, in one question; None when nobody is."""
    rows = database.driver_rows(connection, _IDENTITY, {"one": id})
    for key, choices, labels, own, chose in rows:
        if key == own:
            keys, read = tuple(row[0] for row in rows), database.plain_json
            return Identity(key, keys, msgspec.convert(read(choices) or {}, Choices), read(labels) or {}, bool(chose))
    return None


def everybody(connection: sa.Connection) -> Iterator[str]:
    """The id of each person's own row, in the order in which they came."""
    users = database.users
    own = users.c.person.is_(None) | (users.c.person == users.c.key)
    yield from connection.scalars(sa.select(users.c.id).where(own).order_by(users.c.key))


def page(connection: sa.Connection, after: int, limit: int) -> list[Person]:
    """People whose own row has a key beyond `after`, in the order of their keys."""
    users = database.users
    own = users.c.person.is_(None) | (users.c.person == users.c.key)
    query = sa.select(users.c.key).where(own, users.c.key > after).order_by(users.c.key).limit(limit)
    return [_person(connection, key) for key in connection.scalars(query).all()]


def choices(connection: sa.Connection, person: int) -> Choices:
    """The choices of a person by key; the defaults for a key that nobody has."""
    users = database.users
    found = connection.scalar(sa.select(users.c.choices).where(users.c.key == person))
    return msgspec.convert(found or {}, Choices)


def set_choices(connection: sa.Connection, person: int, choices: Choices) -> None:
    """Replace a person's choices. Raises InvalidInput when one is out of its range, NotFound when nobody has the key."""
    users = database.users
    plain = msgspec.to_builtins(choices)
    try:
        msgspec.convert(plain, Choices)  # a Struct made in the program isn't checked by itself
    except msgspec.ValidationError as error:
        raise InvalidInput(f"these choices can't be kept: {error}") from error
    if not connection.execute(sa.update(users).where(users.c.key == person).values(choices=plain)).rowcount:
        raise NotFound("There is no such person: they may have been deleted.")


def owners(connection: sa.Connection) -> list[int]:
    """Keys of the persons who own this installation."""
    users = database.users
    own = users.c.choices["owner"].as_boolean()
    return list(connection.scalars(sa.select(users.c.key).where(own.is_(True)).order_by(users.c.key)))


def choose_source(
    connection: sa.Connection, person: int, source: int, choice: Literal["hidden", "followed"] | None, now: datetime
) -> None:
    """Hide or follow a source (both by key); None takes the choice back."""
    table = database.source_choices
    if choice is None:
        this = (table.c.person == person) & (table.c.source == source)
        connection.execute(sa.delete(table).where(this))
        return
    insert = identities.insert_new(connection, table).values(
        person=person, source=source, choice=choice, time=to_milliseconds(now)
    )
    new = {"choice": insert.excluded.choice, "time": insert.excluded.time}
    connection.execute(insert.on_conflict_do_update(index_elements=["person", "source"], set_=new))


_SOURCE_CHOICES = sa.select(database.source_choices.c.source, database.source_choices.c.choice).where(
    database.source_choices.c.person == sa.bindparam("one")
)


def source_choices(connection: sa.Connection, person: int) -> dict[int, Literal["hidden", "followed"]]:
    """What a person chose by source key."""
    return {row.source: row.choice for row in connection.execute(_SOURCE_CHOICES, {"one": person})}


def merge(connection: sa.Connection, anonymous: str, person: int) -> int:
    """Make an anonymous visitor's id one of a person's, after they logged in. Returns the person's key.

    What the person chose themselves wins. An owner or annotator is never merged into somebody else: who lures one to follow a
    login link must not become one by it.
    """
    found = get(connection, anonymous)
    person = identities.persons(connection, [person]).get(person, person)
    if found is None or found.key == person or found.choices.owner or found.choices.annotator:
        return person
    own = _person(connection, person)
    defaults = Choices()
    given = {name: getattr(own.choices, name) for name in Choices.__struct_fields__}
    taken = {name: getattr(found.choices, name) for name, value in given.items() if value == getattr(defaults, name)}
    set_choices(connection, person, msgspec.structs.replace(own.choices, **taken))
    users = database.users
    labels = {**found.labels, **own.labels}
    connection.execute(sa.update(users).where(users.c.key == person).values(labels=labels))
    _move_source_choices(connection, found.key, person)
    identities.join(connection, found.key, person)
    return person


def delete(connection: sa.Connection, id: str) -> list[int]:
    """Delete a person with all their ids, choices and login links. Returns the keys of all their ids, none if unknown.

    Their events and vectors are the caller's: remove those first (by `get(…).keys`), so that it can all be repeated after a
    crash.
    """
    person = get(connection, id)
    if person is None:
        return []
    for table, column in (
        (database.source_choices, database.source_choices.c.person),
        (database.logins, database.logins.c.person),
        (database.label_answers, database.label_answers.c.annotator),
        (gorse_tables.users, gorse_tables.users.c.user),
        (gorse_tables.feedback, gorse_tables.feedback.c.user),
        (gorse_tables.write_backs, gorse_tables.write_backs.c.user),
        (database.lists, database.lists.c.person),
        (database.users, database.users.c.key),
    ):
        for keys in identities.chunks(person.keys):
            connection.execute(sa.delete(table).where(column.in_(keys)))
    identities.note_deletion(connection)
    return list(person.keys)


def create_key(connection: sa.Connection, scopes: Collection[Scope], note: str | None, now: datetime) -> str:
    """Make an API key and return it; only its hash is kept, so this is the one time it can be read.

    Raises InvalidInput for no scope or one that isn't read, write or admin.
    """
    if not scopes or not set(scopes) <= _REACH.keys():
        raise InvalidInput("a key needs one or more of the scopes read, write, admin")
    id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    row = {"id": id, "hash": _hash(secret), "scopes": " ".join(sorted(scopes)), "note": note}
    connection.execute(sa.insert(database.api_keys).values(**row, created=to_milliseconds(now)))
    return f"palate_{id}_{secret}"


def list_keys(connection: sa.Connection) -> list[ApiKey]:
    """All API keys, revoked ones too, oldest first."""
    table = database.api_keys
    return [_api_key(row) for row in connection.execute(sa.select(table).order_by(table.c.created, table.c.id))]


def revoke_key(connection: sa.Connection, id: str, now: datetime) -> None:
    """Make a key useless from now on. Raises NotFound when there is none of this id that still works."""
    table = database.api_keys
    works = (table.c.id == id) & table.c.revoked.is_(None)
    if not connection.execute(sa.update(table).where(works).values(revoked=to_milliseconds(now))).rowcount:
        raise NotFound("There is no such API key, or it is revoked already: see the list of keys.")


def check_key(connection: sa.Connection, token: str) -> ApiKey | None:
    """The key that a caller shows, or None when it is none of ours or revoked. How wrong it is doesn't show in the time."""
    head, _, rest = token.partition("_")
    id, _, secret = rest.partition("_")
    table = database.api_keys
    row = None
    if head == "palate" and id.isascii() and id.isalnum():
        row = connection.execute(sa.select(table).where(table.c.id == id)).one_or_none()
    right = hmac.compare_digest(_hash(secret), row.hash if row else _hash(""))
    return _api_key(row) if row and right and row.revoked is None else None


def create_login(connection: sa.Connection, person: int, now: datetime, lifetime: timedelta) -> str:
    """A token that logs a browser in as `person`, once, within `lifetime` (15 minutes to 7 days, else InvalidInput)."""
    if not timedelta(minutes=15) <= lifetime <= timedelta(days=7):
        raise InvalidInput("a login link must be good for 15 minutes to 7 days")
    table = database.logins
    connection.execute(sa.delete(table).where(table.c.expires <= to_milliseconds(now)))
    token = secrets.token_urlsafe(32)
    expires = to_milliseconds(now + lifetime)
    connection.execute(sa.insert(table).values(hash=_hash(token), person=person, expires=expires))
    return token


def redeem_login(connection: sa.Connection, token: str, now: datetime) -> int | None:
    """Use a login token up: the key of its person, or None when it is unknown, used or expired."""
    table = database.logins
    taken = sa.delete(table).where(table.c.hash == _hash(token)).returning(table.c.person, table.c.expires)
    row = connection.execute(taken).one_or_none()
    if row is None or row.expires <= to_milliseconds(now):
        return None
    return identities.persons(connection, [row.person]).get(row.person)


def secret(connection: sa.Connection) -> bytes:
    """The secret that this installation signs cookies and cursors with, made on the first call (needs to write then)."""
    table = database.meta
    query = sa.select(table.c.value).where(table.c.name == "secret")
    found = connection.scalar(query)
    if found is None:
        insert = identities.insert_new(connection, table).values(name="secret", value=secrets.token_hex(32))
        connection.execute(insert.on_conflict_do_nothing(index_elements=["name"]))
        found = connection.scalar(query)  # of whoever came first
    return bytes.fromhex(cast(str, found))


def _hash(secret: str) -> str:
    """Enough for secrets of 256 random bits; slow hashes are for passwords that people think up."""
    return sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _api_key(row: sa.Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        scopes=frozenset(row.scopes.split()),
        note=row.note,
        created=from_milliseconds(row.created),
        revoked=None if row.revoked is None else from_milliseconds(row.revoked),
    )


def _person_key(connection: sa.Connection, id: str, now: datetime) -> int:
    identities.check_id(id, "the user id")
    key = identities.user_keys(connection, [id], now)[id]
    return identities.persons(connection, [key])[key]


def _person(connection: sa.Connection, key: int) -> Person:
    users = database.users
    query = sa.select(users).where((users.c.key == key) | (users.c.person == key)).order_by(users.c.key)
    rows = connection.execute(query).all()
    own = next((row for row in rows if row.key == key), None)
    if own is None:
        raise NotFound("There is no such person: they may have been deleted.")
    return Person(
        key=key,
        id=own.id,
        keys=tuple(row.key for row in rows),
        ids=tuple(row.id for row in rows),
        labels=own.labels,
        choices=msgspec.convert(own.choices, Choices),
        created=from_milliseconds(own.created),
    )


def _check_labels(labels: Mapping[str, object]) -> dict[str, Label]:
    for name in labels:
        identities.check_id(name, "the name of a label")
    try:
        checked = msgspec.convert(dict(labels), dict[str, Label])
        size = len(msgspec.json.encode(checked))
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise InvalidInput("a label must be text, a number, true, false, null or a list of texts") from error
    if any(isinstance(value, float) and not math.isfinite(value) for value in checked.values()):
        raise InvalidInput("a label that is a number must be finite")
    if any("\0" in text for value in checked.values() for text in _texts(value)):
        raise InvalidInput("a label may not hold the character NUL")
    if size > MAX_LABELS:
        raise InvalidInput(f"the labels must have at most {MAX_LABELS} characters, these have {size}")
    return checked


def _texts(label: Label) -> list[str]:
    if isinstance(label, str):
        return [label]
    return label if isinstance(label, list) else []


def _move_source_choices(connection: sa.Connection, anonymous: int, person: int) -> None:
    table = database.source_choices
    own = source_choices(connection, person)
    theirs = table.c.person == anonymous
    for keys in identities.chunks(own):
        connection.execute(sa.delete(table).where(theirs, table.c.source.in_(keys)))
    connection.execute(sa.update(table).where(theirs).values(person=person))
