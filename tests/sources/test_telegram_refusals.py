"""What each of Telegram's refusals means."""

from __future__ import annotations

import pytest

from palate.errors import TelegramRefused, TelegramUnreachable
from palate.sources import telegram_refusals
from palate.sources.joining import (
    Banned,
    Failed,
    Frozen,
    Full,
    Gone,
    InviteExpired,
    LoggedOut,
    NotAChannel,
    Private,
    Requested,
    Wait,
)


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        ("CHANNELS_TOO_MUCH", Full),
        ("FROZEN_METHOD_INVALID", Frozen),
        ("USER_DEACTIVATED_BAN", Banned),
        ("AUTH_KEY_UNREGISTERED", LoggedOut),
        ("SESSION_REVOKED", LoggedOut),
        ("CHANNEL_PRIVATE", Private),
        ("USERNAME_NOT_OCCUPIED", Gone),
        ("INVITE_HASH_EXPIRED", InviteExpired),
        ("INVITE_REQUEST_SENT", Requested),
        ("NOT_A_CHANNEL", NotAChannel),
        ("NEVER_HEARD_OF", Failed),
    ],
)
def test_a_refusal_is_known_by_telegrams_own_word(code: str, meaning: type) -> None:
    assert type(telegram_refusals.outcome(TelegramRefused("No.", code))) is meaning


def test_a_wait_keeps_its_length_and_silence_is_a_failure_of_the_moment() -> None:
    assert telegram_refusals.outcome(TelegramRefused("Wait.", "FLOOD_WAIT", 70.0)) == Wait(70.0, "Wait.")
    assert telegram_refusals.outcome(TelegramUnreachable("Nobody answers.")) == Failed("Nobody answers.")
