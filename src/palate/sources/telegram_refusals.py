"""What an answer of Telegram that is an error means: for an attempt to join, for the channel, and for the account."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from palate.errors import SourceError, TelegramRefused
from palate.sources.joining import (
    Banned,
    Failed,
    Frozen,
    Full,
    Gone,
    InviteExpired,
    LoggedOut,
    NotAChannel,
    Outcome,
    Private,
    Requested,
    Wait,
)

_MEANINGS: Mapping[Callable[[], Outcome], tuple[str, ...]] = {
    Full: ("CHANNELS_TOO_MUCH", "USER_CHANNELS_TOO_MUCH"),
    Frozen: ("FROZEN_METHOD_INVALID", "FROZEN_PARTICIPANT_MISSING"),
    Banned: ("USER_DEACTIVATED_BAN", "USER_DEACTIVATED", "PHONE_NUMBER_BANNED"),
    LoggedOut: (
        "AUTH_KEY_UNREGISTERED",
        "AUTH_KEY_INVALID",
        "AUTH_KEY_DUPLICATED",
        "SESSION_REVOKED",
        "SESSION_EXPIRED",
    ),
    Private: (
        "CHANNEL_PRIVATE",
        "CHANNEL_INVALID",
        "USER_BANNED_IN_CHANNEL",
        "CHANNEL_PUBLIC_GROUP_NA",
        "JOIN_WEB_VIEW",
    ),
    Gone: ("USERNAME_NOT_OCCUPIED", "USERNAME_INVALID"),
    InviteExpired: ("INVITE_HASH_EXPIRED", "INVITE_HASH_INVALID", "INVITE_HASH_EMPTY"),
    Requested: ("INVITE_REQUEST_SENT",),
    NotAChannel: ("NOT_A_CHANNEL",),
}
_BY_CODE = {code: meaning for meaning, codes in _MEANINGS.items() for code in codes}


def outcome(error: SourceError) -> Outcome:
    """The outcome that an error is.

    >>> outcome(TelegramRefused("No.", "CHANNELS_TOO_MUCH"))
    Full(error='The account is in as many channels as Telegram allows.')
    >>> outcome(TelegramRefused("Wait.", "FLOOD_WAIT", 30.0))
    Wait(seconds=30.0, error='Wait.')
    """
    if not isinstance(error, TelegramRefused):
        return Failed(str(error))
    if error.retry_after is not None:
        return Wait(error.retry_after, str(error))
    meaning = _BY_CODE.get(error.code)
    return Failed(str(error)) if meaning is None else meaning()
