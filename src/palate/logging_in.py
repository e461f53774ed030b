"""Log an account in to Telegram: a code that Telegram sends to its other devices, and a password where it has one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

import sqlalchemy as sa

from palate import accounts, alerts
from palate.accounts import Account, TelegramParams
from palate.database import reading, writing
from palate.errors import InvalidInput, SettingsError

Ask = Callable[[], str]


def log_in(
    engine: sa.Engine,
    name: str,
    params: TelegramParams,
    now: datetime,
    ask_code: Ask,
    ask_password: Ask,
    session: str = "",
) -> Account:
    """Log in, and keep the session, encrypted. `session`: with a key but no account yet; empty, Telegram is asked for one.

    Raises NotFound, SettingsError when something is missing in the settings, InvalidInput without a phone number,
    TelegramRefused for a wrong code or password, TelegramUnreachable.
    """
    with reading(engine) as connection:
        account = accounts.get(connection, name)
    api_id, api_hash, phone = _needed(account, params)
    accounts.cipher(params)  # before Telegram is asked for anything
    session = asyncio.run(_session(session, api_id, api_hash, phone, ask_code, ask_password))
    with writing(engine) as connection:
        accounts.log_in(connection, account.key, session, params, now)
        alerts.end_all_of(connection, name, now)
        return accounts.get(connection, name)


def _needed(account: Account, params: TelegramParams) -> tuple[int, str, str]:
    if params.api_id is None or params.api_hash is None:
        raise SettingsError(
            "Accounts log in under an application of your own: make one at https://my.telegram.org, "
            "and set [telegram] api_id and api_hash."
        )
    if account.phone is None:
        raise InvalidInput(f"the account {account.name} has no phone number: remove it, and add it with --phone")
    return params.api_id, params.api_hash, account.phone


async def _session(session: str, api_id: int, api_hash: str, phone: str, ask_code: Ask, ask_password: Ask) -> str:
    from palate.sources import telegram

    client = await telegram.connect(session, api_id, api_hash)
    try:
        await telegram.log_in(client, phone, ask_code, ask_password)
        return client.session()
    finally:
        await client.close()
