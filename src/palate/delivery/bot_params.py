"""How the bot is set up."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class BotParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The bot on Telegram."""

    token: Annotated[str, Meta(pattern=r"^[0-9]+:[A-Za-z0-9_-]+$", extra={"secret": True})] | None = None
    """What @BotFather gave for the bot; None: there is no bot. Better set as PALATE_BOT__TOKEN than in a file."""
    api: str = "https://api.telegram.org"
    """Address of the Bot API: Telegram's own, or that of a server that stands for it."""
    window_days: Annotated[int, Meta(ge=1, le=36_500)] = 3
    """Posts published longer ago than so many days aren't sent, unless the person chose another window."""
    web_address: str | None = None
    """Where people reach the web pages, such as https://feed.example.org; None: the bot gives no login links."""
    owners: tuple[int, ...] = ()
    """Chats of those who may send mailings and see the figures, besides the persons who own the installation."""
    staging_channel: int | None = None
    """Number of a private channel in which the bot is an administrator and into which a listening account forwards posts: what
    lies there is copied to people whole. None: every post is shown by the preview of its link."""
    per_second: Annotated[int, Meta(ge=1, le=30)] = 25
    """Messages that are sent or changed in any second; Telegram allows about 30."""
    chat_gap: Annotated[float, Meta(ge=1, le=60)] = 1.0
    """Seconds between two messages to one chat; Telegram allows about one a second."""
    tries: Annotated[int, Meta(ge=1, le=1000)] = 12
    """Times that a message is tried while Telegram can't be reached or fails, before it is given up."""
    poll_seconds: Annotated[int, Meta(ge=1, le=50)] = 30
    """For how long one question for news stays open."""
