from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from palate import accounts, telegram_tables
from palate.accounts import TelegramParams
from palate.database import reading, writing
from palate.errors import InvalidInput, NotFound, SettingsError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PARAMS = TelegramParams(api_id=1234, api_hash="ab", session_key=accounts.new_key())


def stored(engine: sa.Engine, name: str = "anna") -> accounts.Account:
    with reading(engine) as connection:
        return accounts.get(connection, name)


def logged_in(engine: sa.Engine, name: str = "anna") -> accounts.Account:
    with writing(engine) as connection:
        added = accounts.add(connection, name, "+49 170 1234567", NOW)
        accounts.log_in(connection, added.key, "1ApWapzMBu-secret", PARAMS, NOW + timedelta(hours=1))
    return stored(engine, name)


def test_a_new_account_is_active_once_it_is_logged_in(engine: sa.Engine) -> None:
    with writing(engine) as connection:
        new = accounts.add(connection, "anna", "+49 (170) 123-4567", NOW)
    assert (new.state, new.phone, new.logged_in, new.premium) == ("new", "+491701234567", None, False)
    with writing(engine) as connection:
        accounts.log_in(connection, new.key, "secret", PARAMS, NOW)
    assert (stored(engine).state, stored(engine).logged_in, stored(engine).api_id) == ("active", NOW, 1234)


def test_a_session_is_read_with_its_key_and_lies_encrypted(engine: sa.Engine) -> None:
    anna = logged_in(engine)
    with reading(engine) as connection:
        raw = bytes(connection.execute(sa.select(telegram_tables.accounts.c.session)).scalar_one())
        assert accounts.session(connection, anna.key, PARAMS) == "1ApWapzMBu-secret"
        with pytest.raises(SettingsError, match="log the accounts in again"):
            accounts.session(connection, anna.key, TelegramParams(session_key=accounts.new_key()))
    assert b"secret" not in raw


def test_a_moved_session_replaces_the_old_one(engine: sa.Engine) -> None:
    anna = logged_in(engine)
    with writing(engine) as connection:
        accounts.keep_session(connection, anna.key, "other", PARAMS)
        assert accounts.session(connection, anna.key, PARAMS) == "other"
    assert stored(engine) == anna


@pytest.mark.parametrize(("key", "said"), [(None, "palate accounts key"), ("short", "is no key"), ("я", "is no key")])
def test_without_a_good_key_it_says_how_to_make_one(key: str | None, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        accounts.cipher(TelegramParams(session_key=key))


@pytest.mark.parametrize(
    ("name", "phone"), [("", None), ("a b", None), ("x" * 65, None), ("a", "0170 123"), ("a", "+1")]
)
def test_names_and_phone_numbers_are_checked(engine: sa.Engine, name: str, phone: str | None) -> None:
    with writing(engine) as connection, pytest.raises(InvalidInput):
        accounts.add(connection, name, phone, NOW)


def test_a_name_belongs_to_one_account(engine: sa.Engine) -> None:
    logged_in(engine)
    with writing(engine) as connection, pytest.raises(InvalidInput, match="choose another name"):
        accounts.add(connection, "anna", None, NOW)


def test_a_paused_account_goes_on_when_resumed(engine: sa.Engine) -> None:
    logged_in(engine)
    with writing(engine) as connection:
        accounts.pause(connection, "anna")
        assert [one.state for one in accounts.list_accounts(connection)] == ["paused"]
        assert accounts.list_accounts(connection, ["active"]) == []
        accounts.resume(connection, "anna")
    assert stored(engine).state == "active"


def test_an_account_that_is_logged_out_has_to_log_in(engine: sa.Engine) -> None:
    anna = logged_in(engine)
    with writing(engine) as connection:
        accounts.set_state(connection, anna.key, "logged_out", "The session was ended elsewhere.")
        assert accounts.session(connection, anna.key, PARAMS) is None
        with pytest.raises(InvalidInput, match="palate accounts login anna"):
            accounts.resume(connection, "anna")
        with pytest.raises(InvalidInput, match="logged out"):
            accounts.pause(connection, "anna")
    assert stored(engine).error == "The session was ended elsewhere."


def test_a_removed_account_is_forgotten_but_keeps_its_key_when_it_comes_back(engine: sa.Engine) -> None:
    anna = logged_in(engine)
    with writing(engine) as connection:
        accounts.remove(connection, "anna")
        assert accounts.session(connection, anna.key, PARAMS) is None
        assert accounts.of_key(connection, anna.key).phone is None
        assert accounts.list_accounts(connection) == []
        with pytest.raises(NotFound, match="palate accounts list"):
            accounts.get(connection, "anna")
        again = accounts.add(connection, "anna", None, NOW)
    assert (again.key, again.state) == (anna.key, "new")


def test_what_telegram_says_of_an_account_is_remembered(engine: sa.Engine) -> None:
    anna = logged_in(engine)
    with writing(engine) as connection:
        accounts.describe(connection, anna.key, premium=True, channel_limit=1000, other_channels=17)
    found = stored(engine)
    assert (found.premium, found.channel_limit, found.other_channels) == (True, 1000, 17)


def test_the_longest_flood_wait_counts(engine: sa.Engine) -> None:
    anna = logged_in(engine)
    with writing(engine) as connection:
        for hours in (1, 5, 2):
            accounts.record_flood(connection, anna.key, NOW + timedelta(hours=hours))
    assert stored(engine).flood_until == NOW + timedelta(hours=5)


def test_a_wait_that_is_too_long_to_be_true_ends_after_a_month(engine: sa.Engine) -> None:
    with writing(engine) as connection:
        one = accounts.add(connection, "one", None, NOW)
        accounts.record_flood(connection, one.key, NOW + timedelta(days=400))
        assert accounts.is_ahead(connection, NOW)
        accounts.set_back(connection, NOW)
        assert accounts.get(connection, "one").flood_until == NOW + accounts.LONGEST_FLOOD
        assert not accounts.is_ahead(connection, NOW)
