"""The hub: listens to Telegram's channels with the accounts that are logged in, for as long as `palate ingest` runs.

Everything of Telegram is loaded by the first account only; without one this module is all there is.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa

from palate import accounts
from palate.accounts import TelegramParams
from palate.database import reading
from palate.errors import DatabaseError, PalateError
from palate.hub_params import HubParams
from palate.sources.joining import JoiningParams

log = logging.getLogger(__name__)

_LONGEST_TROUBLE = 60.0  # seconds between two attempts while something is wrong
_EARLY = 10  # looks for a first account are so much rarer than those of a hub that runs


def follow(
    engine: sa.Engine,
    data: Path,
    params: HubParams,
    telegram: TelegramParams,
    joining: JoiningParams,
    stop: threading.Event,
    clock: Callable[[], datetime],
    staging: int | None = None,
) -> None:
    """Listen until `stop`; what can't be done is said in the log, and the rest of Palate goes on without.
    `staging`: Telegram's own number of the channel into which posts are forwarded for the bot."""
    while not stop.is_set():
        if not _anybody(engine):
            stop.wait(_EARLY * params.poll_seconds)
            continue
        try:
            asyncio.run(_follow(engine, data, params, telegram, joining, stop, clock, staging))
        except PalateError as error:
            log.error("Telegram isn't listened to: %s", error)
        except ImportError:
            log.error("Telegram isn't listened to: accounts need more packages: pip install 'palate[telegram]'.")
        except Exception:
            log.exception("Telegram isn't listened to for now")
        stop.wait(_LONGEST_TROUBLE)


def _anybody(engine: sa.Engine) -> bool:
    try:
        with reading(engine) as connection:
            return bool(accounts.list_accounts(connection, ["active"]))
    except DatabaseError:
        return False


async def _follow(
    engine: sa.Engine,
    data: Path,
    params: HubParams,
    telegram: TelegramParams,
    joining: JoiningParams,
    stop: threading.Event,
    clock: Callable[[], datetime],
    staging: int | None,
) -> None:
    import numpy as np

    from palate import listening

    hub = listening.Hub(engine, params, telegram, joining, np.random.default_rng(), data, staging)
    trouble = 0.0
    try:
        while not stop.is_set():
            try:
                await listening.step(hub, clock())
                trouble = 0.0
            except DatabaseError as error:
                trouble = min(max(2 * trouble, 1.0), _LONGEST_TROUBLE)
                log.warning("%s Trying again in %.0f s.", error, trouble)
            await asyncio.sleep(max(trouble, params.poll_seconds))
    finally:
        await listening.close(hub, clock())
