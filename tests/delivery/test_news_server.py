from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from news_texts import MATCH, QUAKE, RATE

from palate import catalog, database, source_links
from palate.database import reading, writing
from palate.delivery import news_keeping, news_server
from palate.live import Live

CATEGORIES = ["any", "society", "economy", "technology", "sports", "entertainment", "science", "other"]
NOON = datetime(2020, 5, 2, 12, tzinfo=UTC)
MONTH = 2_592_000

LINKING = f'{QUAKE} <a href="https://www.two.example/a">Two</a> <a href="https://t.me/some">Some</a>'
GERMAN = "Der Bundestag hat am Samstag über das neue Gesetz abgestimmt, das die Regierung vorgelegt hatte."


def article(title: str, text: str, site: str, time: datetime = NOON) -> bytes:
    return f"""<!DOCTYPE html><html><head><meta charset="utf-8"/><meta property="og:title" content="{title}"/>
<meta property="og:url" content="https://{site}/{len(title)}"/><meta property="og:site_name" content="{site}"/>
<meta property="article:published_time" content="{time.isoformat()}"/></head>
<body><article><h1>{title}</h1><p>{text}</p></article></body></html>""".encode()


NEWS = {
    "1.html": article("Earthquake kills 12 in Chile", QUAKE, "one.example", NOON - timedelta(hours=1)),
    "2.html": article("At least 12 dead after quake hits Chile coast", QUAKE + " More follows.", "two.example"),
    "3.html": article("Salah scores twice as Liverpool beat Arsenal", MATCH, "one.example"),
    "4.html": article("Liverpool 3-1 Arsenal: Salah double", MATCH + " Arsenal stay ninth.", "three.example"),
    "5.html": article("Центробанк снизил ключевую ставку до 5,5%", RATE, "bank.example"),
}


class Client:
    """One connection that is kept."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(method, path, body, named)
        answer = self.connection.getresponse()
        return answer.status, answer.read()

    def put(self, name: str, body: bytes, seconds: int = MONTH) -> int:
        return self.ask("PUT", f"/{name}", body, Cache_Control=f"max-age={seconds}", Content_Type="text/html")[0]

    def delete(self, name: str) -> int:
        return self.ask("DELETE", f"/{name}")[0]

    def threads(self, language: str, category: str = "any", period: int = MONTH) -> list[dict[str, Any]]:
        status, body = self.ask("GET", f"/threads?period={period}&lang_code={language}&category={category}")
        assert status == 200, body
        return list(json.loads(body)["threads"])

    def stories(self, language: str, period: int = MONTH) -> list[list[str]]:
        return sorted(sorted(thread["articles"]) for thread in self.threads(language, period=period))

    def wait_for(self, true: Callable[[], bool]) -> None:
        """Until the pass that follows a change has been made."""
        end = time.monotonic() + 30
        while not true():
            assert time.monotonic() < end, (self.threads("en"), self.threads("ru"))
            time.sleep(0.02)


@contextmanager
def served(data: Path) -> Iterator[tuple[Client, subprocess.Popen[bytes]]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = [sys.executable, "-m", "palate.tgnews", "server", str(port), "--data", str(data)]
    process = subprocess.Popen(program, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
    client, end = Client(port), time.monotonic() + 60
    try:
        while time.monotonic() < end:
            try:
                if client.ask("GET", "/threads?period=300&lang_code=en&category=any")[0] != 503:
                    break
            except OSError:
                client.connection.close()
                assert process.poll() is None, "the server ended"
            time.sleep(0.05)
        yield client, process
    finally:
        client.connection.close()
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server that tests of refusals share; none of them leaves anything in it."""
    with served(tmp_path_factory.mktemp("refusing")) as (client, _):
        yield client


def test_the_contests_checker_finds_what_it_expects(tmp_path: Path) -> None:
    with served(tmp_path) as (client, process):
        assert [client.put(name, body) for name, body in NEWS.items()] == [201] * 5
        assert client.put("6.html", article("Der Bundestag stimmt ab", GERMAN, "d.example")) == 204
        client.wait_for(lambda: len(client.stories("en")) == 2 and len(client.stories("ru")) == 1)
        for language in ("en", "ru"):
            for category in CATEGORIES:
                for thread in client.threads(language, category):
                    assert list(thread) == (
                        ["title", "category", "articles"] if category == "any" else ["title", "articles"]
                    )
        assert [thread["articles"][0] for thread in client.threads("ru", "economy")] == ["5.html"]
        process.send_signal(signal.SIGKILL)
        process.wait()
    with served(tmp_path) as (client, _):
        assert client.stories("en") == [["1.html", "2.html"], ["3.html", "4.html"]]
        assert client.stories("ru") == [["5.html"]]
        assert [client.delete(name) for name in ("1.html", "5.html", "6.html", "none.html")] == [204, 204, 404, 404]
        client.wait_for(lambda: client.stories("en") == [["2.html"], ["3.html", "4.html"]] and not client.stories("ru"))


def test_a_page_replaces_the_one_of_its_name(tmp_path: Path) -> None:
    with served(tmp_path) as (client, _):
        assert client.put("1.html", NEWS["1.html"]) == 201
        assert client.put("2.html", NEWS["4.html"]) == 201
        client.wait_for(lambda: client.stories("en") == [["1.html"], ["2.html"]])
        assert client.put("1.html", NEWS["3.html"]) == 204
        client.wait_for(lambda: client.stories("en") == [["1.html", "2.html"]])
        assert client.put("1.html", article("Der Bundestag stimmt ab", GERMAN, "d.example")) == 204
        client.wait_for(lambda: client.stories("en") == [["2.html"]])
        assert client.delete("1.html") == 404


def test_documents_expire_on_their_own_clock_and_periods_count_back_on_it(tmp_path: Path) -> None:
    with served(tmp_path) as (client, _):
        client.put("1.html", NEWS["1.html"], 3600)
        client.put("3.html", NEWS["3.html"], MONTH)
        client.wait_for(lambda: client.stories("en") == [["1.html"], ["3.html"]])
        assert client.stories("en", 300) == [["3.html"]]
        later = article("Liverpool and Arsenal meet again", MATCH, "late.example", NOON + timedelta(seconds=1))
        client.put("late.html", later, 300)
        client.wait_for(lambda: all("1.html" not in story for story in client.stories("en")))
        client.wait_for(lambda: client.delete("1.html") == 404)
        assert client.stories("en", 300) == [["3.html", "late.html"]]


def test_a_date_in_the_far_future_makes_nothing_expire(tmp_path: Path) -> None:
    with served(tmp_path) as (client, _):
        client.put("1.html", NEWS["1.html"], 300)
        wrong = article("Salah scores twice as Liverpool beat Arsenal", MATCH, "x.example", NOON.replace(year=9000))
        assert client.put("wrong.html", wrong, 300) == 201
        client.wait_for(lambda: client.stories("en") == [["1.html"], ["wrong.html"]])


def test_one_data_folder_serves_both_the_threads_and_the_feed(tmp_path: Path) -> None:
    with served(tmp_path) as (client, _):
        page = article("Earthquake kills 12 in Chile", LINKING, "one.example", datetime.now(UTC) - timedelta(hours=1))
        for body in (page, page, NEWS["1.html"]):
            assert client.put("1.html", body) in (201, 204)
        client.put("5.html", NEWS["5.html"])
        engine = database.connect(None, tmp_path)
        live = Live(engine, tmp_path)
        live.refresh(datetime.now(UTC))
        with reading(engine) as connection:
            (stored,) = catalog.get_many(connection, live.pool.keys[:1].tolist()).values()
        assert len(live.pool) == 2
        assert (stored.item.id, stored.item.source, stored.item.language) == ("1.html", "one.example", "en")
        assert stored.item.text == QUAKE
        with reading(engine) as connection:
            links = source_links.links(connection, datetime.now(UTC) - timedelta(days=2))
        assert links == {("one.example", "two.example"): 1}
        client.delete("1.html")
        live.refresh(datetime.now(UTC))
        with reading(engine) as connection:
            assert catalog.get(connection, "1.html") is None
        assert len(live.pool) == 1
        assert client.put("1.html", NEWS["1.html"]) == 201
        live.refresh(datetime.now(UTC))
        assert len(live.pool) == 2
        engine.dispose()


def test_what_is_deleted_from_the_catalog_leaves_its_thread(tmp_path: Path) -> None:
    with served(tmp_path) as (client, _):
        for name in ("1.html", "2.html"):
            client.put(name, NEWS[name])
        client.wait_for(lambda: client.stories("en") == [["1.html", "2.html"]])
        engine = database.connect(None, tmp_path)
        with writing(engine) as connection:
            catalog.delete(connection, "2.html", datetime.now(UTC))
        client.wait_for(lambda: client.stories("en") == [["1.html"]])
        assert client.delete("2.html") == 404
        assert client.put("2.html", NEWS["2.html"]) == 201
        client.wait_for(lambda: client.stories("en") == [["1.html", "2.html"]])
        engine.dispose()


def test_what_an_older_version_kept_is_read_anew(tmp_path: Path) -> None:
    with served(tmp_path) as (client, _):
        client.put("1.html", NEWS["1.html"])
    engine = database.connect(None, tmp_path)
    before = news_keeping.load(engine)
    with writing(engine) as connection:
        connection.execute(sa.update(database.news_documents).values(vector=b"of another version"))
    assert news_keeping.load(engine) == before
    engine.dispose()


def test_a_second_server_on_one_folder_is_refused(tmp_path: Path) -> None:
    with served(tmp_path):
        program = [sys.executable, "-m", "palate.tgnews", "server", "1", "--data", str(tmp_path)]
        second = subprocess.run(program, capture_output=True, timeout=60, check=False)
        assert second.returncode == 1
        assert b"`tgnews server` is already running" in second.stderr


@pytest.mark.parametrize(
    "control", ["", "no-cache", "max-age=", "max-age=x", "max-age=0", "max-age=-300", "max-age=300, no-cache"]
)
def test_a_page_without_a_span_of_life_is_refused(client: Client, control: str) -> None:
    assert client.ask("PUT", "/1.html", NEWS["1.html"], Cache_Control=control)[0] == 400


@pytest.mark.parametrize("name", ["", "a/b.html", "../1.html", "%2e%2e%2f1.html", "..", "a%00b", "x" * 201, "a%5Cb"])
def test_a_bad_name_is_refused(client: Client, name: str) -> None:
    assert client.put(name, NEWS["1.html"]) == 400


@pytest.mark.parametrize(
    "body",
    [b"", b"\x00\xff\xfe", b"<html><body>no article</body></html>", b"<article></article>", b"<a>" * 100_000],
    ids=["empty", "binary", "no article", "empty article", "deep"],
)
def test_what_is_no_article_is_refused(client: Client, body: bytes) -> None:
    assert client.put("1.html", body) == 400


def test_a_page_that_is_too_large_is_refused_before_it_is_sent(client: Client) -> None:
    other = Client(client.connection.port)
    other.connection.putrequest("PUT", "/1.html")
    other.connection.putheader("Cache-Control", "max-age=300")
    other.connection.putheader("Content-Length", str(news_server.MAX_BODY + 1))
    other.connection.endheaders()
    answer = other.connection.getresponse()
    assert answer.status == 413
    answer.close()
    other.connection.close()


@pytest.mark.parametrize(
    "query",
    [
        "",
        "period=299&lang_code=en&category=any",
        "period=2592001&lang_code=en&category=any",
        "period=x&lang_code=en&category=any",
        "period=300&lang_code=de&category=any",
        "period=300&lang_code=en&category=weather",
        "period=300&lang_code=en",
    ],
)
def test_parameters_out_of_range_are_refused(client: Client, query: str) -> None:
    assert client.ask("GET", f"/threads?{query}")[0] == 400


def test_other_paths_and_methods_are_named_as_such(client: Client) -> None:
    assert client.ask("GET", "/1.html")[0] == 404
    assert client.ask("POST", "/1.html", b"")[0] == 405
    assert client.ask("GET", "/threads?period=300&lang_code=en&category=any", Host="evil.example")[0] == 403
    assert client.ask("DELETE", "/1.html", Origin="http://evil.example")[0] == 403


def test_a_connection_is_kept(client: Client) -> None:
    client.threads("en")
    before = client.connection.sock
    client.threads("ru")
    assert client.connection.sock is before is not None
