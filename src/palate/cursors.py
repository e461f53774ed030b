"""Where a reading session of the feed goes on: signed, so that it can't be made up, and bound to the person it was given to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta

import itsdangerous
import msgspec

from palate.domain import from_milliseconds, to_milliseconds
from palate.errors import InvalidCursor

LIFETIME = timedelta(days=1)
"""After which a cursor is too old to go on from."""

UNLOGGED_ITEMS = 1_000
"""Items of a session that the log doesn't know, so that the cursor has to; there the session ends."""

MAX_LENGTH = 16_000
"""Characters; longer ones aren't ours."""


class Session(msgspec.Struct, frozen=True, array_like=True):
    """What one reading session has brought so far; times in milliseconds since 1970."""

    owner: bytes
    """Digest of the user id that it was given to."""
    person: int
    """Key of the person behind that id, 0 if there was none yet."""
    id: str
    began: int
    places: int = 0
    """Filled so far."""
    keys: tuple[int, ...] = ()
    """Items given without being logged, sorted."""
    issued: int = 0

    @property
    def started(self) -> datetime:
        """When its first items were given."""
        return from_milliseconds(self.began)

    def room(self, log: bool) -> int:
        """How many items may follow; without logging the cursor has to hold them all."""
        return 1_000_000_000 if log else max(UNLOGGED_ITEMS - len(self.keys), 0)

    def after(self, keys: Sequence[int], log: bool, person: int | None, now: datetime) -> Session:
        """The session once these items were given."""
        return msgspec.structs.replace(
            self,
            person=person or 0,
            places=self.places + len(keys),
            keys=self.keys if log else tuple(sorted({*self.keys, *keys})),
            issued=to_milliseconds(now),
        )


def start(user: str, id: str, now: datetime) -> Session:
    """A new session of a user."""
    return Session(owner=_digest(user), person=0, id=id, began=to_milliseconds(now))


def write(session: Session, secret: bytes) -> str:
    """The session as a short text for a URL."""
    steps = [
        key - before for key, before in zip(session.keys, (0, *session.keys), strict=False)
    ]  # small numbers are short
    packed = msgspec.msgpack.encode(msgspec.structs.replace(session, keys=tuple(steps)))
    return _signer(secret).sign(itsdangerous.encoding.base64_encode(packed)).decode()


def read(cursor: str, secret: bytes, user: str, person_keys: Sequence[int], now: datetime) -> Session:
    """The session of a cursor that this user, or another id of the same person (`person_keys`), was given.

    Raises InvalidCursor for one that was changed, is somebody else's, or is more than a day old.
    """
    session = _unpack(cursor, secret)
    if session.owner != _digest(user) and session.person not in person_keys:
        raise InvalidCursor("this cursor was given to somebody else; ask without one to begin anew")
    if now - from_milliseconds(session.issued) > LIFETIME:
        raise InvalidCursor("this cursor is more than a day old; ask without one to begin anew")
    return session


def _unpack(cursor: str, secret: bytes) -> Session:
    try:
        if len(cursor) > MAX_LENGTH:
            raise itsdangerous.BadData("longer than any that we give")
        packed = itsdangerous.encoding.base64_decode(_signer(secret).unsign(cursor.encode("utf-8", "replace")))
        session = msgspec.msgpack.decode(packed, type=Session)
    except (itsdangerous.BadData, msgspec.DecodeError):
        raise InvalidCursor("this cursor is not one that was given here; ask without one to begin anew") from None
    keys, total = [], 0
    for step in session.keys:
        total += step
        keys.append(total)
    return msgspec.structs.replace(session, keys=tuple(keys))


def _signer(secret: bytes) -> itsdangerous.Signer:
    return itsdangerous.Signer(secret, salt="feed cursor", key_derivation="hmac", digest_method=hashlib.sha256)


def _digest(user: str) -> bytes:
    return hashlib.blake2b(user.encode(), digest_size=16).digest()
