from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from test_cli import palate

from palate import accounts, channels, memberships
from palate.accounts import TelegramParams
from palate.database import opened, reading, writing
from palate.sources.archive import BadRow
from palate.sources.channel_list import Listed, read
from palate.sources.handles import Handle


@pytest.fixture
def at(data: Path, sqlite_template: Path) -> list[str]:
    """Arguments that name a folder with an empty, migrated database."""
    data.mkdir()
    (data / "palate.sqlite").write_bytes(sqlite_template.read_bytes())
    return ["--data", str(data)]


def answer(*arguments: str) -> Any:
    result = palate(*arguments, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def log_in(data: Path, name: str) -> None:
    params = TelegramParams(session_key=accounts.new_key())
    with opened(None, data) as engine, writing(engine) as connection:
        account = accounts.get(connection, name)
        accounts.log_in(connection, account.key, "session", params, datetime.now(UTC) - timedelta(days=30))


def test_an_account_is_added_listed_paused_and_removed(at: list[str], data: Path) -> None:
    assert "palate accounts login anna" in palate("accounts", "add", "anna", "--phone", "+491701234567", *at).stdout
    assert answer("accounts", "list", *at)[0]["state"] == "new"
    log_in(data, "anna")
    assert "anna  active  0 channels" in palate("accounts", "list", *at).stdout
    assert palate("accounts", "pause", "anna", *at).returncode == 0
    assert answer("accounts", "list", *at) == [
        {
            "name": "anna",
            "state": "paused",
            "channels": 0,
            "premium": False,
            "joins": "anna is not active",
            "error": None,
        }
    ]
    assert palate("accounts", "resume", "anna", *at).stdout == "anna is active.\n"
    assert "0 channels" in palate("accounts", "remove", "anna", *at).stdout
    assert answer("accounts", "list", *at) == []
    gone = palate("accounts", "pause", "anna", *at)
    assert (gone.returncode, gone.stderr) == (
        1,
        "palate: There is no account anna: `palate accounts list` names all.\n",
    )


def test_a_key_is_good_for_sessions() -> None:
    key = palate("accounts", "key").stdout.strip()
    assert (
        accounts.cipher(TelegramParams(session_key=key)).decrypt(
            accounts.cipher(TelegramParams(session_key=key)).encrypt(b"x")
        )
        == b"x"
    )


def test_channels_come_from_the_line_and_from_lists(at: list[str], tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    table.write_text(
        "Username,Category,Title\n@Durov,tech,Pavel\nhttps://t.me/+AbCdEfGhIjK,,\nnot a name,x,\n", "utf-8"
    )
    result = palate("channels", "add", "t.me/telegram", "--file", str(table), "--category", "news", *at)
    assert result.returncode == 1
    assert "line 4: 'not a name' names no channel" in result.stderr
    assert "1 of 4 channels were left out" in result.stderr
    found = [(row["channel"], row["state"], row["category"], row["title"]) for row in answer("channels", "list", *at)]
    assert found == [
        ("https://t.me/telegram", "wanted", "news", None),
        ("https://t.me/durov", "wanted", "tech", "Pavel"),
        ("https://t.me/+AbCdEfGhIjK", "wanted", "news", None),
    ]


def test_a_list_may_be_plain_lines(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text("\ufeff# mine\n@durov\tpeople and tech\n\nt.me/telegram;news\nnaïve\n", "utf-8")
    found = list(read(file))
    assert found[:2] == [
        Listed(Handle(username="durov"), "people and tech"),
        Listed(Handle(username="telegram"), "news"),
    ]
    assert isinstance(found[2], BadRow)
    assert found[2].line == 5
    assert list(read(Path("/dev/null"))) == []


def test_a_public_page_becomes_a_source(at: list[str]) -> None:
    added = answer("channels", "add", "@Durov", "--preview", "--category", "tech", *at)
    assert added == [{"channel": "https://t.me/durov", "state": "active"}]
    assert answer("channels", "list", *at) == []
    private = palate("channels", "add", "t.me/+AbCdEfGhIjK", "--preview", *at)
    assert (private.returncode, "no public page" in private.stderr) == (1, True)


def test_the_plan_shows_what_is_joined_when_and_why_not_sooner(
    at: list[str], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PALATE_JOINING__QUIET_FROM", "8")  # no night: the same holds accounts back at any hour
    palate("channels", "add", *(f"channel{n}" for n in range(12)), *at)
    assert "There is no account" in palate("channels", "plan", *at).stdout
    palate("accounts", "add", "anna", *at)
    log_in(data, "anna")
    planned = answer("channels", "plan", *at)
    assert [row["channel"] for row in planned] == [f"https://t.me/channel{n}" for n in range(12)]
    assert {row["account"] for row in planned} == {"anna"}
    assert "anna has used up its day's joins" in {row["reason"] for row in planned}
    assert sorted(row["time"] for row in planned) == [row["time"] for row in planned]
    shown = palate("channels", "plan", "--limit", "2", *at).stdout.splitlines()
    assert len(shown) == 2
    assert "UTC  anna  https://t.me/channel0" in shown[0]


def test_a_channel_is_paused_and_resumed(at: list[str], data: Path) -> None:
    palate("channels", "add", "durov", *at)
    assert palate("channels", "pause", "@durov", *at).stdout == "https://t.me/durov is paused.\n"
    assert answer("channels", "plan", *at) == []
    assert palate("channels", "resume", "t.me/durov", *at).stdout == "https://t.me/durov is wanted.\n"
    unknown = palate("channels", "pause", "@nobody", *at)
    assert (unknown.returncode, "The pool has no channel @nobody" in unknown.stderr) == (1, True)


def test_candidates_are_listed_with_who_names_them(at: list[str], data: Path) -> None:
    with opened(None, data) as engine, writing(engine) as connection:
        for source in (1, 2):
            channels.record_mentions(connection, source, [channels.Mention(username="wide")], datetime.now(UTC))
    (row,) = answer("channels", "list", "--state", "candidate", *at)
    assert (row["channel"], row["mentions"], row["sources"]) == ("https://t.me/wide", 2, 2)
    assert "named 2 times by 2 sources" in palate("channels", "list", "--state", "candidate", *at).stdout
    assert palate("channels", "list", "--state", "odd", *at).returncode == 1
    palate("channels", "add", "wide", *at)
    with opened(None, data) as engine, reading(engine) as connection:
        assert channels.count(connection) == {"wanted": 1}
        assert memberships.count_outcomes(connection) == {}
