"""How Telegram's channels are listened to."""

from __future__ import annotations

from typing import Annotated

import msgspec


class HubParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How Telegram's channels are listened to."""

    poll_seconds: Annotated[float, msgspec.Meta(ge=0.1, le=60)] = 1.0
    """Seconds between two looks at what is due."""
    album_seconds: Annotated[float, msgspec.Meta(ge=0.5, le=60)] = 2.0
    """Seconds without news after which an album counts as complete."""
    shortest_sweep: Annotated[float, msgspec.Meta(ge=1, le=10_080)] = 15.0
    """Minutes between two sweeps of a channel, which find what Telegram didn't tell, at least."""
    longest_sweep: Annotated[float, msgspec.Meta(ge=1, le=10_080)] = 60.0
    """The same at most; each time another length between the two."""
    sweep_pause: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 3.0
    """Seconds between two sweeps of one account."""
    counter_hours: Annotated[float, msgspec.Meta(ge=1, le=720)] = 6.0
    """Hours after which views and forwards of a channel's recent posts are asked for again; that counts nobody as a reader."""
    history_days: Annotated[float, msgspec.Meta(ge=0, le=30)] = 3.0
    """Days of a channel's past that are read when it was joined, and for which its counters are kept up."""
    forward_pause: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 10.0
    """Seconds between two times that an account forwards posts into the bot's staging channel, at most 100 messages at once."""
    retry_minutes: Annotated[float, msgspec.Meta(ge=0.1, le=1440)] = 2.0
    """Minutes after which a line that was lost is made again."""
