"""Where and when it is played: the ports of the two servers, and a clock that starts in the past and runs fast to the present.

What takes an account days, such as joining channels with care, can so be watched in minutes, under the rules as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from palate.loopback.bot_api_chats import TOKEN

SPEED = 120.0
"""Seconds played in one of ours."""
BACK = timedelta(days=2)
"""How long before its beginning the play sets in; when it has caught up it goes on at the pace of the clock."""


@dataclass(frozen=True)
class Stage:
    """All that the processes of a play have to agree on."""

    opening: datetime
    """The moment that is played first."""
    began: datetime
    """When that is, by the real clock."""
    bot_port: int
    telegram_port: int
    speed: float = SPEED

    @property
    def address(self) -> str:
        """Where the stand-in for the Bot API is."""
        return f"http://127.0.0.1:{self.bot_port}"

    def at(self, real: datetime) -> datetime:
        """The moment that is played at a moment of the real clock; never one that is still to come."""
        return min(self.opening + self.speed * max(real - self.began, timedelta(0)), max(real, self.opening))

    def clock(self) -> datetime:
        """The moment that is played now."""
        return self.at(datetime.now(UTC))

    def written(self) -> str:
        """The stage as an argument of a command; `read` gives it back."""
        return f"{self.opening.timestamp()}:{self.began.timestamp()}:{self.bot_port}:{self.telegram_port}:{self.speed}"


Clock = Callable[[], datetime]


def read(argument: str) -> Stage:
    """The stage that `Stage.written` wrote down."""
    opening, began, bot, telegram, speed = argument.split(":")
    times = [datetime.fromtimestamp(float(time), UTC) for time in (opening, began)]
    return Stage(times[0], times[1], int(bot), int(telegram), float(speed))


def variables(stage: Stage, page: str, session_key: str) -> dict[str, str]:
    """The settings of a play, as environment variables; `page` is the address of the web pages.

    Joins keep the limits of every day, and only leave out the night, so that nobody has to wait for its end.
    """
    return {
        "PALATE_SERVER__ACCESS_LOG": "false",
        "PALATE_BOT__TOKEN": TOKEN,
        "PALATE_BOT__API": stage.address,
        "PALATE_BOT__WINDOW_DAYS": "7",
        "PALATE_BOT__WEB_ADDRESS": page,
        "PALATE_TELEGRAM__API_ID": "1",
        "PALATE_TELEGRAM__API_HASH": "loopback",
        "PALATE_TELEGRAM__SESSION_KEY": session_key,
        "PALATE_TELEGRAM__KEEP_TEXT": "false",
        "PALATE_JOINING__PAUSE_MINUTES": "30",
        "PALATE_JOINING__QUIET_FROM": "0",
        "PALATE_JOINING__QUIET_UNTIL": "0",
        "PALATE_HUB__POLL_SECONDS": "0.5",
        "PALATE_HUB__SHORTEST_SWEEP": "60",
        "PALATE_HUB__LONGEST_SWEEP": "180",
    }
