"""Everything of a Gorse installation taken in, from a server that fails in between and from files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from palate import catalog, cli, events, gorse_import, people
from palate.database import connect, migrate, reading
from palate.delivery.application import create_app
from palate.delivery.context import ServingParams, open_serving
from palate.delivery.gorse_messages import GorseParams
from palate.errors import ArchiveError
from palate.gorse_import import Source, from_files, from_server

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
STEP = 7

USERS = [{"UserId": f"u{n}", "Labels": {"age": n, "deep": {"x": [n]}}, "Comment": ""} for n in range(20)]
ITEMS = [
    {
        "ItemId": f"i{n}",
        "IsHidden": n == 3,
        "Categories": ["even"] if n % 2 == 0 else [],
        "Timestamp": f"2026-01-{n + 1:02d}T00:00:00Z",
        "Labels": {"topics": [f"t{n}"]},
        "Comment": f"Title {n}",
    }
    for n in range(16)
]
FEEDBACK: list[dict[str, Any]] = [
    {
        "FeedbackType": ("like", "read", "watch")[n % 3],
        "UserId": f"u{n % 20}",
        "ItemId": f"i{n % 17}",
        "Value": 0.25 * (n % 3 == 2),
        "Timestamp": "2026-01-30T00:00:00Z",
    }
    for n in range(50)
]
ALL: dict[str, list[dict[str, Any]]] = {"users": USERS, "items": ITEMS, "feedback": FEEDBACK}


class Gorse(httpx.BaseTransport):
    """Answers as Gorse does, in pages; `faults` says which requests fail, by their number from 0."""

    def __init__(self, faults: Callable[[int], Exception | int | None] = lambda _: None) -> None:
        self.asked: list[str] = []
        self.faults = faults

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        fault = self.faults(len(self.asked))
        self.asked.append(str(request.url.copy_with(scheme="http", host="gorse")))
        if isinstance(fault, Exception):
            raise fault
        if fault is not None:
            return httpx.Response(fault, text="not now")
        what = request.url.path.rpartition("/")[2]
        start = int(request.url.params["cursor"] or 0)
        page, after = ALL[what][start : start + STEP], start + STEP
        return httpx.Response(200, json={"Cursor": str(after) if after < len(ALL[what]) else "", what.title(): page})


def run(engine: sa.Engine, server: Gorse, **more: Any) -> dict[Any, Any]:
    return from_server(
        engine, Source("http://gorse:8088", transport=server), GorseParams(), lambda: NOW, pause=lambda _: None, **more
    )


def logged(engine: sa.Engine, data: Path) -> list[tuple[str, str, str, float | None]]:
    found = [event for batch in events.stream(engine, data / "events") for event in batch]
    return sorted((event.type, event.user, event.item, event.value) for event in found)


EXPECTED = sorted(
    (
        {"read": "viewed"}.get(one["FeedbackType"], one["FeedbackType"]),
        one["UserId"],
        one["ItemId"],
        one["Value"] or None,
    )
    for one in FEEDBACK
)


def check_all(engine: sa.Engine, data: Path) -> None:
    assert logged(engine, data) == EXPECTED
    with reading(engine) as connection:
        person, hidden = people.get(connection, "u7"), catalog.get(connection, "i3")
        item, named = catalog.get(connection, "i4"), catalog.get(connection, "i16")
    assert person is not None
    assert person.labels == {"age": 7}
    assert hidden is not None
    assert hidden.state == "hidden"
    assert item is not None
    assert (item.item.title, item.item.labels) == ("Title 4", ("even", "t4"))
    assert item.item.published == datetime(2026, 1, 5, tzinfo=UTC)
    assert named is not None  # only feedback names it, and it can be recommended all the same
    assert named.state == "live"


def test_everything_of_a_server_is_taken_in(sqlite_engine: sa.Engine, data: Path) -> None:
    told: list[tuple[str, int]] = []
    reports = run(sqlite_engine, Gorse(), progress=lambda what: lambda rows: told.append((what, rows)))
    assert {what: report.taken for what, report in reports.items()} == {"users": 20, "items": 16, "feedback": 50}
    check_all(sqlite_engine, data)
    assert told[-1] == ("feedback", 50)
    assert told[:3] == [("users", 7), ("users", 14), ("users", 20)]


@pytest.mark.parametrize("cut", [1, 3, 5, 13])
def test_an_import_that_is_cut_off_anywhere_goes_on_and_counts_nothing_twice(
    sqlite_engine: sa.Engine, data: Path, cut: int
) -> None:
    broken = Gorse(lambda number: httpx.ReadTimeout("slow") if number >= cut else None)
    with pytest.raises(ArchiveError, match="the same command goes on"):
        run(sqlite_engine, broken)
    again = Gorse(lambda number: (503, httpx.ConnectError("refused"), 429, None)[number % 4])
    run(sqlite_engine, again)
    check_all(sqlite_engine, data)
    assert not set(broken.asked[:cut]) & set(again.asked)  # what was durable isn't asked for again
    run(sqlite_engine, Gorse())
    assert logged(sqlite_engine, data) == EXPECTED


def test_a_server_that_refuses_or_is_none_is_named(sqlite_engine: sa.Engine) -> None:
    with pytest.raises(ArchiveError, match="--key"):
        run(sqlite_engine, Gorse(lambda _: 401))
    with pytest.raises(ArchiveError, match="not as Gorse does"):
        run(sqlite_engine, Gorse(lambda _: 404))


def test_files_are_told_apart_by_what_they_hold(sqlite_engine: sa.Engine, data: Path, tmp_path: Path) -> None:
    for what, rows in ALL.items():
        (tmp_path / f"{what[0]}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    broken = tmp_path / "more.jsonl"
    broken.write_text('{"UserId": "x", "ItemId": "y", "FeedbackType": "No Type"}\n{"UserId":\n')
    reports = from_files(sqlite_engine, sorted(tmp_path.glob("*.jsonl")), GorseParams(), lambda: NOW)
    assert [(fault.line, report.taken) for report in [reports["feedback"]] for fault in report.faults] == [
        (1, 50),
        (2, 50),
    ]
    check_all(sqlite_engine, data)
    (tmp_path / "other.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(ArchiveError, match="no UserId"):
        from_files(sqlite_engine, [tmp_path / "other.jsonl"], GorseParams(), lambda: NOW)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Our own surface on loopback, with a Gorse user's things in it."""
    import threading
    import time

    import uvicorn

    from palate.delivery.application import configuration
    from palate.delivery.context import ServerParams

    with open_serving(folder, None, ServingParams()) as serving:
        server = uvicorn.Server(configuration(create_app({"": serving}), ServerParams(port=0)))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        server.should_exit = True
        thread.join()


def test_the_command_copies_one_palate_into_another_by_gorses_surface(tmp_path: Path) -> None:
    with served(tmp_path / "old") as address:
        for what, rows in ALL.items():
            assert httpx.post(f"{address}/api/{what}", json=rows).status_code == 200
        done = CliRunner().invoke(cli.app, ["import", "gorse", address, "--data", str(tmp_path / "new")])
    assert done.exit_code == 0, done.output
    assert "20 users, 17 items, 50 feedback taken in." in done.output
    engine = connect(None, tmp_path / "new")
    migrate(engine)
    check_all(engine, tmp_path / "new")
    engine.dispose()


def test_the_command_refuses_a_server_together_with_files(tmp_path: Path) -> None:
    arguments = ["import", "gorse", "http://a", "b.jsonl", "--data", str(tmp_path / "data")]
    refused = CliRunner().invoke(cli.app, arguments)
    assert isinstance(refused.exception, ArchiveError)
    assert gorse_import.PAGE > STEP
