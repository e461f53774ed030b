"""Logging an account in: by code, by code and password, and what is missing said before Telegram is asked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from palate import accounts, alerts, logging_in
from palate.accounts import Account, TelegramParams
from palate.cli import app
from palate.database import connect, migrate, reading, writing
from palate.errors import InvalidInput, SettingsError, TelegramRefused
from palate.logging_in import Ask
from palate.loopback.telegram_server import CODE, TelegramServer
from palate.loopback.telegram_world import TelegramWorld

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def params() -> TelegramParams:
    return TelegramParams(api_id=1, api_hash="hash", session_key=accounts.new_key())


@pytest.fixture
def engine(data: Path, sqlite_template: Path) -> Iterator[sa.Engine]:
    engine = connect(None, data)
    migrate(engine)
    yield engine
    engine.dispose()


@contextmanager
def telegram(password: str | None = None) -> Iterator[tuple[str, str]]:
    """A loopback Telegram in a thread of its own: the number of an account, and a session that isn't logged in."""
    loop, started, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    told: list[str] = []

    async def serve() -> None:
        world = TelegramWorld(lambda: NOW)
        server = TelegramServer(world)
        await server.start()
        told.extend([world.add_account("one", password=password).phone, server.session(None)])
        started.set()
        await stop.wait()
        await server.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    started.wait(30)
    try:
        yield told[0], told[1]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def added(engine: sa.Engine, phone: str | None) -> None:
    with writing(engine) as connection:
        account = accounts.add(connection, "one", phone, NOW)
        alerts.start(connection, "account_logged_out", account.name, "Log it in.", NOW)


@pytest.mark.parametrize("password", [None, "sesame"])
def test_an_account_logs_in_and_its_session_is_kept(
    engine: sa.Engine, params: TelegramParams, password: str | None
) -> None:
    with telegram(password) as (phone, session):
        added(engine, f"+{phone}")
        account = logging_in.log_in(engine, "one", params, NOW, lambda: CODE, lambda: password or "", session)
    assert (account.state, account.logged_in) == ("active", NOW)
    with reading(engine) as connection:
        assert accounts.session(connection, account.key, params) == session
        assert alerts.list_alerts(connection) == []


def test_with_a_wrong_code_nothing_changes(engine: sa.Engine, params: TelegramParams) -> None:
    with telegram() as (phone, session):
        added(engine, f"+{phone}")
        with pytest.raises(TelegramRefused, match="Telegram refuses"):
            logging_in.log_in(engine, "one", params, NOW, lambda: "1", str, session)
    with reading(engine) as connection:
        assert accounts.get(connection, "one").state == "new"


@pytest.mark.parametrize("missing", ["api_id", "api_hash", "session_key"])
def test_what_is_missing_is_said_at_once(engine: sa.Engine, params: TelegramParams, missing: str) -> None:
    added(engine, "+491701234567")
    with pytest.raises(SettingsError):
        logging_in.log_in(engine, "one", msgspec.structs.replace(params, **{missing: None}), NOW, str, str)


def test_an_account_without_a_number_cannot_log_in(engine: sa.Engine, params: TelegramParams) -> None:
    added(engine, None)
    with pytest.raises(InvalidInput, match="phone number"):
        logging_in.log_in(engine, "one", params, NOW, str, str)


def test_the_command_asks_for_the_code_and_says_what_is_missing(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pretend(engine: sa.Engine, name: str, _params: object, now: datetime, ask: Ask, secret: Ask) -> Account:
        assert (name, ask(), secret()) == ("one", CODE, "sesame")
        with reading(engine) as connection:
            return accounts.get(connection, name)

    add = ["accounts", "add", "one", "--phone", "+491701234567", "--data", str(data)]
    assert CliRunner().invoke(app, add).exit_code == 0
    command = ["accounts", "login", "one", "--data", str(data)]
    assert isinstance(CliRunner().invoke(app, command).exception, SettingsError)
    monkeypatch.setattr(logging_in, "log_in", pretend)
    done = CliRunner().invoke(app, command, input=f" {CODE}\nsesame\n")
    assert "joins channels after 3 days" in done.output
