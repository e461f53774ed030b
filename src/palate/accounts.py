"""Accounts of Telegram that listen to channels: their names, their state, and their sessions, which are kept encrypted.

A removed account keeps its row without its session, so that what it did still counts against its limits when it comes back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import msgspec
import sqlalchemy as sa

from palate import telegram_tables
from palate.domain import from_milliseconds, to_milliseconds
from palate.errors import InvalidInput, NotFound, SettingsError

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

State = Literal["new", "active", "paused", "frozen", "banned", "logged_out", "removed"]
"""`new` was never logged in; `frozen` and `banned` by Telegram; `logged_out` by its owner, elsewhere."""
LOST: tuple[State, ...] = ("frozen", "banned", "removed")
"""States in which an account listens no more, so that others take its channels."""

LONGEST_FLOOD = timedelta(days=30)
"""Telegram asks for no longer wait: one that lasts longer was noted by a clock that was ahead."""
KEY_COMMAND = "palate accounts key"
_TABLE = telegram_tables.accounts
_NAME = re.compile(r"[\w.-]{1,64}")
_PHONE = re.compile(r"\+[0-9]{7,15}")
_MAX_ERROR = 500


class TelegramParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How Palate reads Telegram."""

    api_id: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """The id of your own application at my.telegram.org, under which accounts log in. None: no accounts."""
    api_hash: Annotated[str, msgspec.Meta(extra={"secret": True})] | None = None
    """The hash that belongs to it."""
    session_key: Annotated[str, msgspec.Meta(extra={"secret": True})] | None = None
    """Key under which the sessions of accounts are encrypted; `palate accounts key` makes one. Best given as the variable
    PALATE_TELEGRAM__SESSION_KEY, so that it doesn't lie beside what it protects."""
    keep_text: bool = False
    """Whether texts and media of posts are stored. Without, a post is understood when it comes, and then only its id, time,
    counters, vectors and category stay; pages and the bot show Telegram's own preview of it."""
    preview: bool = False
    """Whether the public web pages of channels may be read without an account. Off, since Telegram's terms for its content may
    forbid that where you live or for what you do: read them, and decide."""


@dataclass(frozen=True)
class Account:
    """An account as it is stored, but for its session. None means unknown, or never."""

    key: int
    name: str
    phone: str | None
    api_id: int | None
    """The application under which it was logged in."""
    state: State
    created: datetime
    logged_in: datetime | None
    premium: bool
    channel_limit: int | None
    """Channels that Telegram lets it be in, as Telegram says; None before it was asked."""
    other_channels: int
    """Channels and groups that it is in for its owner, not for us."""
    flood_until: datetime | None
    """Until then Telegram refuses its requests."""
    error: str | None
    """Why it is frozen, banned or logged out."""


def add(connection: sa.Connection, name: str, phone: str | None, now: datetime) -> Account:
    """A new account, to be logged in; a removed one comes back with its history. Raises InvalidInput for a name or phone number
    that can't be one, and for a name that is taken."""
    name = name.strip()
    if not _NAME.fullmatch(name):
        raise InvalidInput("an account's name must have 1 to 64 letters, digits, dots, hyphens or underscores")
    if phone is not None and not _PHONE.fullmatch(phone := re.sub(r"[\s()-]", "", phone)):
        raise InvalidInput("a phone number must be written with its country, such as +491701234567")
    found = _select(connection, _TABLE.c.name == name)
    if found and found[0].state != "removed":
        raise InvalidInput(f"there is an account {name} already: choose another name")
    if found:
        _change(connection, found[0].key, state="new", phone=phone, error=None)
    else:
        row = {"state": "new", "created": to_milliseconds(now), "premium": 0, "other_channels": 0}
        connection.execute(sa.insert(_TABLE).values(name=name, phone=phone, **row))
    return get(connection, name)


def list_accounts(connection: sa.Connection, states: Sequence[State] | None = None) -> list[Account]:
    """The accounts in some states (None: all but the removed ones), in the order in which they were added."""
    states = [state for state in get_args(State) if state != "removed"] if states is None else states
    return _select(connection, _TABLE.c.state.in_(states))


def get(connection: sa.Connection, name: str) -> Account:
    """An account by its name. Raises NotFound when it isn't there or was removed."""
    found = _select(connection, _TABLE.c.name == name, _TABLE.c.state != "removed")
    if not found:
        raise NotFound(f"There is no account {name[:64]}: `palate accounts list` names all.")
    return found[0]


def of_key(connection: sa.Connection, key: int) -> Account:
    """An account by its key, also a removed one."""
    found = _select(connection, _TABLE.c.key == key)
    assert found, "accounts are never deleted from the table"
    return found[0]


def log_in(connection: sa.Connection, key: int, session: str, params: TelegramParams, now: datetime) -> None:
    """Keep the session of an account that has just logged in; it is active now. Raises SettingsError without a key."""
    sealed = cipher(params).encrypt(session.encode())
    _change(
        connection,
        key,
        session=sealed,
        api_id=params.api_id,
        state="active",
        logged_in=to_milliseconds(now),
        flood_until=None,
        error=None,
    )


def keep_session(connection: sa.Connection, key: int, session: str, params: TelegramParams) -> None:
    """Replace the session of an account that goes on, such as after its data centre has moved. Raises SettingsError."""
    _change(connection, key, session=cipher(params).encrypt(session.encode()))


def session(connection: sa.Connection, key: int, params: TelegramParams) -> str | None:
    """An account's session; None when it isn't logged in. Raises SettingsError without the key that it was encrypted under."""
    from cryptography.fernet import InvalidToken

    sealed = connection.execute(sa.select(_TABLE.c.session).where(_TABLE.c.key == key)).scalar()
    if sealed is None:
        return None
    try:
        return cipher(params).decrypt(bytes(sealed)).decode()
    except InvalidToken as error:
        raise SettingsError(
            "[telegram] session_key is not the one under which the sessions were encrypted: set the old one, "
            "or log the accounts in again."
        ) from error


def cipher(params: TelegramParams) -> Fernet:
    """What encrypts sessions. Raises SettingsError, with how to make a key, when there is none or it is none."""
    try:
        from cryptography.fernet import Fernet
    except ImportError as error:
        raise SettingsError("Accounts need more packages: pip install 'palate[telegram]'.") from error

    if params.session_key is None:
        raise SettingsError(
            "Sessions of accounts are kept encrypted, and there is no key for it: "
            f"set PALATE_TELEGRAM__SESSION_KEY to what `{KEY_COMMAND}` prints, and keep it safe."
        )
    try:
        return Fernet(params.session_key)
    except ValueError as error:
        raise SettingsError(f"[telegram] session_key is no key: `{KEY_COMMAND}` makes one.") from error


def new_key() -> str:
    """A fresh key for `session_key`. Raises SettingsError when the packages for it are missing."""
    try:
        from cryptography.fernet import Fernet
    except ImportError as error:
        raise SettingsError("Accounts need more packages: pip install 'palate[telegram]'.") from error
    return Fernet.generate_key().decode()


def pause(connection: sa.Connection, name: str) -> None:
    """Let an account rest, and keep its channels. Raises NotFound, InvalidInput when it isn't active."""
    account = get(connection, name)
    if account.state not in ("active", "paused"):
        raise InvalidInput(f"the account {name} is {account.state.replace('_', ' ')}: only an active one can be paused")
    _change(connection, account.key, state="paused")


def resume(connection: sa.Connection, name: str) -> None:
    """Use an account again: one that was paused, or that Telegram has set free. Raises NotFound, and InvalidInput for one that
    must be logged in first."""
    account = get(connection, name)
    if account.state in ("new", "logged_out"):
        raise InvalidInput(f"the account {name} is not logged in: `palate accounts login {name}`")
    _change(connection, account.key, state="active", error=None)


def remove(connection: sa.Connection, name: str) -> Account:
    """Forget an account's session and phone number; what it did stays in the log. Gives it as it was. Raises NotFound."""
    account = get(connection, name)
    _change(connection, account.key, state="removed", session=None, phone=None, error=None, flood_until=None)
    return account


def set_state(connection: sa.Connection, key: int, state: State, error: str | None = None) -> None:
    """What has become of an account; one that was logged out has no session any more."""
    without = {"session": None} if state == "logged_out" else {}
    _change(connection, key, state=state, error=error[:_MAX_ERROR] if error else None, **without)


def describe(
    connection: sa.Connection, key: int, *, premium: bool, channel_limit: int | None, other_channels: int
) -> None:
    """Remember what Telegram says of an account."""
    _change(connection, key, premium=int(premium), channel_limit=channel_limit, other_channels=max(other_channels, 0))


def is_ahead(connection: sa.Connection, now: datetime) -> bool:
    """Whether an account was logged in at a time that is still to come, or waits for longer than Telegram asks for."""
    logged_in, waits = _TABLE.c.logged_in > to_milliseconds(now), _TABLE.c.flood_until > _latest(now)
    query = sa.select(_TABLE.c.key).where(logged_in | waits)
    return connection.execute(query).first() is not None


def set_back(connection: sa.Connection, now: datetime) -> None:
    """Bring times that a clock which was ahead has noted back to now: of logins, and of waits that are too long to be true."""
    time = to_milliseconds(now)
    connection.execute(sa.update(_TABLE).where(_TABLE.c.logged_in > time).values(logged_in=time))
    connection.execute(sa.update(_TABLE).where(_TABLE.c.flood_until > _latest(now)).values(flood_until=_latest(now)))


def _latest(now: datetime) -> int:
    return to_milliseconds(now + LONGEST_FLOOD)


def record_flood(connection: sa.Connection, key: int, until: datetime) -> None:
    """Telegram refuses the account's requests until then; an earlier, longer wait stays."""
    time = to_milliseconds(until)
    longer = sa.update(_TABLE).where(
        _TABLE.c.key == key, sa.or_(_TABLE.c.flood_until.is_(None), _TABLE.c.flood_until < time)
    )
    connection.execute(longer.values(flood_until=time))


def _change(connection: sa.Connection, key: int, **values: Any) -> None:
    connection.execute(sa.update(_TABLE).where(_TABLE.c.key == key).values(**values))


def _select(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> list[Account]:
    columns = [column for column in _TABLE.c if column.name != "session"]
    query = sa.select(*columns).where(*conditions).order_by(_TABLE.c.key)
    return [_account(row) for row in connection.execute(query)]


def _account(row: sa.Row[Any]) -> Account:
    times = {name: _time(getattr(row, name)) for name in ("created", "logged_in", "flood_until")}
    return Account(**(dict(row._mapping) | times | {"premium": bool(row.premium)}))


def _time(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else from_milliseconds(milliseconds)
