"""When a person wants posts unasked: pure rules over a chat's choices. All times of day are the person's own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from palate.chats import Chat

LATE = timedelta(hours=2)
"""What was due longer ago, while nothing ran, isn't sent any more: morning posts are no evening posts."""

TIME = re.compile(r"([01]?[0-9]|2[0-3])(?::([0-5][0-9]))?")


def zone(name: str | None) -> tzinfo:
    """The time zone of this IANA name; UTC for none, and for one that this system doesn't know."""
    found = named_zone(name) if name is not None else None
    return UTC if found is None else found


def named_zone(name: str) -> tzinfo | None:
    """The time zone of this IANA name; None when there is none."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def latest(chat: Chat, times: Iterable[time], now: datetime) -> datetime | None:
    """The newest moment at which one of the times of day was due and that has not been dealt with; None when there is none.

    A clock that was ahead may have noted that all is dealt with up to a time to come: that doesn't count.
    """
    here = zone(chat.time_zone)
    today = now.astimezone(here).date()
    moments = [_moment(day, at, here) for day in (today - timedelta(days=1), today) for at in times]
    after = max(chat.delivered, now - LATE) if chat.delivered <= now else now - LATE
    due = [moment for moment in moments if after < moment <= now]
    return max(due, default=None)


def _moment(day: date, at: time, here: tzinfo) -> datetime:
    return datetime.combine(day, at, here).astimezone(UTC)


def quiet_until(chat: Chat, now: datetime) -> datetime | None:
    """When the quiet hours that it is in end; None when it isn't in any."""
    if chat.quiet is None or chat.quiet[0] == chat.quiet[1]:
        return None
    here = zone(chat.time_zone)
    local = now.astimezone(here)
    start, end = chat.quiet
    over_midnight = start > end
    is_quiet = (start <= local.time() or local.time() < end) if over_midnight else start <= local.time() < end
    if not is_quiet:
        return None
    day = local.date() + timedelta(days=int(over_midnight and start <= local.time()))
    return _moment(day, end, here)


def read_times(words: Iterable[str]) -> list[time] | None:
    """Times of day such as 8, 8:30 or 20:15, in order; None when one of the words is none."""
    found = [TIME.fullmatch(word) for word in words]
    if not all(found):
        return None
    return sorted({time(int(match[1]), int(match[2] or 0)) for match in found if match})


def minute(at: time) -> int:
    """The minute of the day."""
    return at.hour * 60 + at.minute
