from __future__ import annotations

import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from palate import cli


def palate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line in this process: a process of its own for each call would take most of the test's time."""
    out, err, status = StringIO(), StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main([*arguments])
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())


COMMANDS = [
    "serve",
    "demo",
    "ingest",
    "train",
    "api",
    "bot",
    "import",
    "export",
    "evaluate",
    "tune",
    "recommend",
    "users",
    "keys",
    "accounts",
    "channels",
    "settings",
]


def test_help_names_every_command() -> None:
    shown = palate("--help").stdout
    assert [command for command in COMMANDS if command not in shown] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    result = palate(command, "--help")
    assert result.returncode == 0
    assert "Usage" in result.stdout


def test_the_demo_says_that_it_can_play_telegram() -> None:
    result = palate("demo", "--telegram", "--help")
    assert (result.returncode, "/telegram" in result.stdout) == (0, True)


def test_the_module_is_the_command() -> None:
    shown = subprocess.run([sys.executable, "-m", "palate", "--help"], capture_output=True, text=True, check=True)
    assert "recommend" in shown.stdout


def test_a_typo_gets_a_suggestion_and_no_traceback() -> None:
    result = palate("recomend")
    assert result.returncode != 0
    assert "recommend" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("import", "events", "none.csv"), "No such file"),
        (("import", "events", "none.csv", "--format", "xml"), "no format xml"),
        (("export", "events", "log.xls"), ".jsonl, .csv or .parquet"),
        (("settings", "--config", "none.toml"), "none.toml"),
        (("users", "delete", "nobody"), "no user nobody"),
        (("keys", "revoke", "none"), "no such API key"),
        (("keys", "create", "--scopes", "root"), "read, write, admin"),
        (("train", "--full"), "No new snapshot"),
    ],
)
def test_what_goes_wrong_is_one_sentence_on_stderr(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    where = () if arguments[0] == "settings" else ("--data", str(tmp_path / "data"))
    result = palate(*arguments, *where)
    assert result.returncode == 1
    assert words in result.stderr
    assert len([line for line in result.stderr.splitlines() if line.startswith("palate: ")]) == 1
    assert "Traceback" not in result.stderr


def test_a_data_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    result = palate("users", "list", "--data", str(tmp_path / "data" / "below"))
    assert result.returncode != 0
    assert "below" in result.stderr
    assert "Traceback" not in result.stderr


def test_from_ratings_to_recommended_titles(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    films = "".join(f"{n},Film {n},{'Comedy' if n % 3 else 'Horror'}\n" for n in range(30))
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n" + films)
    ratings = "".join(
        f"{user},{film},{5.0 if (film % 3 == 0) == (user % 2 == 0) else 1.0},{1_600_000_000 + user * 100 + film}\n"
        for user in range(1, 31)
        for film in range(30)
        if (user + film) % 4
    )
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + ratings)
    assert palate("import", "events", str(tmp_path / "ratings.csv"), "--data", data).returncode == 0
    assert palate("import", "items", str(tmp_path / "movies.csv"), "--data", data).returncode == 0
    trained = palate("train", "--full", "--data", data)
    assert trained.returncode == 0, trained.stderr
    answer = palate("recommend", "--user", "2", "--limit", "5", "--json", "--data", data)
    assert answer.returncode == 0, answer.stderr
    items = json.loads(answer.stdout)["items"]
    assert len(items) == 5
    assert all(int(item["item"]) % 3 == 0 for item in items[:2])  # user 2 likes horror: a multiple of 3 each
    assert items[0]["title"] == f"Film {items[0]['item']}"


def test_a_bad_row_is_left_out_named_and_told_by_the_status(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,type,value,time\nann,p1,like,,\nann,p2,rating,nan,\nann,p3,like,,\n")
    result = palate("import", "events", str(tmp_path / "log.csv"), "--data", str(tmp_path / "data"))
    assert result.returncode == 1
    assert "2 events taken in" in result.stdout
    assert "line 3" in result.stderr


def test_the_bot_asks_for_its_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = palate("bot", "--data", str(tmp_path))
    assert (told.returncode, told.stderr.count("\n")) == (1, 1)
    assert "@BotFather" in told.stderr
    monkeypatch.setenv("PALATE_BOT__TOKEN", "no token")
    assert "bot.token" in palate("bot", "--data", str(tmp_path)).stderr


def test_keys_are_shown_once(tmp_path: Path) -> None:
    data = ("--data", str(tmp_path / "data"))
    token = palate("keys", "create", "--scopes", "read write", "--note", "the shop", *data).stdout.strip()
    listed = json.loads(palate("keys", "list", "--json", *data).stdout)
    assert [(key["scopes"], key["note"], key["revoked"]) for key in listed] == [(["read", "write"], "the shop", False)]
    assert token not in json.dumps(listed)
    assert palate("keys", "revoke", listed[0]["id"], *data).returncode == 0
    assert json.loads(palate("keys", "list", "--json", *data).stdout)[0]["revoked"] is True
