"""What somebody should look at: an account that was banned, a site that changed its pages. Shown on a page and counted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from palate import database
from palate.domain import from_milliseconds, to_milliseconds

_TABLE = database.alerts
_MAX_TEXT = 500


@dataclass(frozen=True)
class Alert:
    """Something that is so since `time` and still is. Of one kind and subject there is one at a time."""

    key: int
    kind: str
    """A short name that programs may compare, such as `account_banned`."""
    subject: str
    """What it is about: an account's name, a source's id."""
    text: str
    """A sentence for people, that says what to do."""
    time: datetime


def start(connection: sa.Connection, kind: str, subject: str, text: str, now: datetime) -> bool:
    """Begin an alert; False when it is there already, which then has this text."""
    again = sa.update(_TABLE).where(_same(kind, subject)).values(text=text[:_MAX_TEXT])
    if connection.execute(again).rowcount:
        return False
    row = {"kind": kind, "subject": subject, "text": text[:_MAX_TEXT], "time": to_milliseconds(now)}
    connection.execute(sa.insert(_TABLE).values(row))
    return True


def end(connection: sa.Connection, kind: str, subject: str, now: datetime) -> None:
    """It is so no more; nothing happens when there was no such alert."""
    connection.execute(sa.update(_TABLE).where(_same(kind, subject)).values(ended=to_milliseconds(now)))


def end_all_of(connection: sa.Connection, subject: str, now: datetime) -> None:
    """End every alert about one subject, whatever its kind."""
    about = sa.update(_TABLE).where(_TABLE.c.subject == subject, _TABLE.c.ended.is_(None))
    connection.execute(about.values(ended=to_milliseconds(now)))


def list_alerts(connection: sa.Connection) -> list[Alert]:
    """Those that are still so, the newest first."""
    query = sa.select(_TABLE).where(_TABLE.c.ended.is_(None)).order_by(_TABLE.c.key.desc())
    return [
        Alert(row.key, row.kind, row.subject, row.text, from_milliseconds(row.time))
        for row in connection.execute(query)
    ]


def _same(kind: str, subject: str) -> sa.ColumnElement[bool]:
    return sa.and_(_TABLE.c.kind == kind, _TABLE.c.subject == subject, _TABLE.c.ended.is_(None))
