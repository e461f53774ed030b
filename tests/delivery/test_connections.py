import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import msgspec
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from palate import people
from palate.database import writing
from palate.delivery import api, connections
from palate.delivery.application import configuration, create_app
from palate.delivery.connections import plain_headers
from palate.delivery.context import ServerParams, Serving, utc_now
from palate.domain import FeedRequest, Item
from palate.errors import InvalidInput, NotDurable, Overloaded
from palate.ingest import store_items

LIKE = b'{"user": "ann", "item": "duck", "type": "like"}'


class Counted:
    """The application of a server, with the paths that came to it: what is answered before it is missing."""

    def __init__(self, serving: Serving) -> None:
        self.app, self.paths = create_app({"": serving}), list[str]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.paths.append(scope["path"])
        await self.app(scope, receive, send)


@contextmanager
def listening(serving: Serving) -> Iterator[tuple[Counted, uvicorn.Server, int]]:
    counted = Counted(serving)
    server = uvicorn.Server(configuration(counted, ServerParams(port=0), connections.connections(serving)))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    yield counted, server, server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


def posted(body: bytes, *headers: bytes, host: bytes = b"127.0.0.1", path: bytes = b"/v1/events") -> bytes:
    named = [b"Host: " + host, b"Content-Type: application/json", b"Content-Length: %d" % len(body), *headers]
    return b"POST %s HTTP/1.1\r\n" % path + b"".join(line + b"\r\n" for line in named) + b"\r\n" + body


def answer(client: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one answer."""
    came = b""
    while b"\r\n\r\n" not in came:
        came += client.recv(1)
    lines = came.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
    body = b""
    while len(body) < int(headers["content-length"]):
        body += client.recv(int(headers["content-length"]) - len(body))
    return int(lines[0].split()[1]), headers, body


@pytest.fixture
def here(serving: Serving) -> Iterator[tuple[Counted, socket.socket]]:
    with listening(serving) as (counted, _, port), socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        yield counted, client


def test_a_plain_event_is_answered_before_the_framework_and_told_alike(
    here: tuple[Counted, socket.socket], serving: Serving
) -> None:
    counted, client = here
    client.sendall(posted(LIKE, b"X-Request-ID: mine"))
    status, headers, body = answer(client)
    assert (status, body, headers["x-request-id"], counted.paths) == (200, b'{"accepted":1}', "mine", [])
    client.sendall(posted(LIKE, b"X-Request-ID: mine", b"X-Other: 1"))
    other = answer(client)
    assert counted.paths == ["/v1/events"]
    assert (other[0], other[2]) == (status, body)
    assert {**other[1], "date": ""} == {**headers, "date": ""}
    assert b'palate_requests_total{method="POST",route="/v1/events",status="200"} 2.0' in serving.metrics.render()


def test_items_that_were_ranked_before_are_ranked_before_the_framework_and_alike(
    here: tuple[Counted, socket.socket], serving: Serving
) -> None:
    counted, client = here
    store_items(serving.engine, [Item(id="duck", source="pond"), Item(id="cat")], utc_now())
    serving.live.refresh(utc_now())
    answers = []
    for path in (b"/v1/rank", b"/v1/rank", b"/get_rates"):
        client.sendall(posted(b'{"user": "ann", "items": ["cat", "duck"]}', path=path))
        answers.append(answer(client))
    assert [status for status, _, _ in answers] == [200, 200, 200]
    assert answers[0][2] == answers[1][2] == answers[2][2]
    assert {**answers[0][1], "x-request-id": "", "date": ""} == {**answers[1][1], "x-request-id": "", "date": ""}
    short = serving.engine.dialect.name == "sqlite"
    assert counted.paths == (
        ["/v1/rank"] if short else ["/v1/rank", "/v1/rank", "/get_rates"]
    )  # the items were new once
    client.sendall(posted(LIKE))
    assert answer(client)[0] == 200
    client.sendall(posted(b'{"user": "ann", "items": ["cat", "duck"]}', path=b"/v1/rank"))
    assert answer(client)[2] != answers[0][2]
    assert len(counted.paths) == (1 if short else 4)
    assert b'palate_requests_total{method="POST",route="/get_rates",status="200"} 1.0' in serving.metrics.render()


def test_a_body_in_pieces_is_taken_when_it_is_whole_and_left_to_the_framework_when_it_dawdles(
    here: tuple[Counted, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, client = here
    request = posted(b"[" + b",".join([LIKE] * 3000) + b"]")
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(2):
        client.sendall(request[:400])
        time.sleep(0.01)  # so that it most likely comes by itself; right either way
        client.sendall(request[400:])
        assert answer(client)[2] == b'{"accepted":3000}'
    assert counted.paths == []
    monkeypatch.setattr(connections, "END_SECONDS", 0.01)
    client.sendall(request[:400])
    while not counted.paths:
        time.sleep(0.005)
    client.sendall(request[400:])
    assert answer(client)[2] == b'{"accepted":3000}'
    assert counted.paths == ["/v1/events"]


def test_whatever_is_out_of_the_ordinary_goes_the_way_of_all_others(here: tuple[Counted, socket.socket]) -> None:
    counted, client = here
    wrong = [
        (posted(b'[{"user": "a", "item": "b", "type": "like"}, {"user": "", "item": "b", "type": "x"}]'), 400),
        (posted(b'{"user": "ann", "item": "duck", "type": "like", "time": 99999999999999}'), 400),
        (posted(b'{"user": "a\\u0000", "item": "duck", "type": "like"}'), 400),
        (posted(LIKE, host=b"evil.example"), 403),
        (posted(LIKE, b"Sec-Fetch-Site: cross-site"), 403),
        (posted(b"[" * 100_000), 400),
        (posted(b"[]"), 200),
    ]
    for request, status in wrong:
        client.sendall(request)
        assert answer(client)[0] == status
    assert len(counted.paths) == len(wrong)


def test_requests_in_pieces_and_several_at_once_are_all_answered_in_their_order(
    here: tuple[Counted, socket.socket],
) -> None:
    _, client = here
    several = [posted(LIKE, b"X-Request-ID: %d" % number) for number in range(6)]
    client.sendall(several[0][:30])
    client.sendall(several[0][30:] + several[1])
    client.sendall(several[2])
    client.sendall(several[3] + several[4])
    client.sendall(several[5])
    assert [answer(client)[1]["x-request-id"] for _ in several] == ["0", "1", "2", "3", "4", "5"]


def test_a_full_log_is_429_and_one_that_cannot_be_written_503(
    here: tuple[Counted, socket.socket], serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, client = here

    def full(*_: object) -> None:
        raise Overloaded("5 events wait to be written already: try again in a second.")

    def broken(*_: object) -> None:
        raise NotDurable("The database can't be written: disk is full.")

    with monkeypatch.context() as patched:
        patched.setattr(serving.commits, "submit_columns", full)
        client.sendall(posted(LIKE))
        assert answer(client)[:2][0] == 429
    monkeypatch.setattr(serving.commits, "_write", broken)
    client.sendall(posted(LIKE, b"X-Request-ID: mine"))
    status, headers, body = answer(client)
    assert (status, headers["retry-after"], headers["x-request-id"]) == (503, "1", "mine")
    assert msgspec.json.decode(body)["error"]["code"] == "not_durable"


def test_a_key_is_asked_for_and_believed_for_a_while(
    open_data: Callable[[ServerParams], AbstractContextManager[Serving]],
) -> None:
    with open_data(ServerParams(names=("feed.example",))) as serving:
        with writing(serving.engine) as connection:
            reader, writer = (people.create_key(connection, [scope], None, utc_now()) for scope in ("read", "write"))
        with listening(serving) as (counted, _, port), socket.create_connection(("127.0.0.1", port), 20) as client:
            for key, status, ways in (
                ("", 401, 1),
                (reader, 403, 2),
                (reader, 403, 3),
                (writer, 200, 4),
                (writer, 200, 4),
            ):
                client.sendall(posted(LIKE, b"X-API-Key: " + key.encode(), host=b"feed.example"))
                assert (answer(client)[0], len(counted.paths)) == (status, ways)


def test_who_dawdles_with_the_head_of_a_request_is_let_go(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.05)
    with listening(serving) as (_, _, port):
        for sent in (b"", b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "):
            with socket.create_connection(("127.0.0.1", port), 20) as client:
                client.sendall(sent)
                assert client.recv(1) == b""


def test_what_is_being_made_durable_at_the_end_is_answered_first(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go, write = threading.Event(), threading.Event(), serving.commits._write

    def slowly(batch: list[Any]) -> None:
        begun.set()
        assert go.wait(20)
        write(batch)

    monkeypatch.setattr(serving.commits, "_write", slowly)
    with listening(serving) as (_, server, port), socket.create_connection(("127.0.0.1", port), 20) as client:
        client.sendall(posted(LIKE))
        assert begun.wait(20)
        server.should_exit = True
        while server.servers[0].is_serving():
            time.sleep(0.005)
        go.set()
        status, headers, _ = answer(client)
        assert (status, headers["connection"]) == (200, "close")
        assert client.recv(1) == b""


def test_nothing_is_computed_for_a_client_that_has_gone_while_it_waited(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, busy, go = list[str | None](), threading.Semaphore(0), threading.Event()

    def serve(_: Serving, asked: FeedRequest) -> None:
        served.append(asked.user)
        busy.release()
        go.wait()
        raise InvalidInput("enough")

    monkeypatch.setattr(api, "_serve", serve)
    with listening(serving) as (_, _, port), ExitStack() as clients:

        def ask(path: str) -> socket.socket:
            client = clients.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            return client

        running = [ask(f"/v1/feed?user={name}") for name in ("ann", "bob")]
        for _ in running:
            busy.acquire()
        ask("/v1/feed?user=cyd").close()
        assert answer(ask("/readyz"))[0] == 200  # also while all threads are taken
        waiting = ask("/v1/feed?user=dan")
        assert answer(ask("/healthz"))[0] == 200
        go.set()
        assert [answer(client)[0] for client in (*running, waiting)] == [400] * 3
    assert sorted(map(str, served)) == ["ann", "bob", "dan"]


def test_plain_headers_are_read_and_all_others_left_to_the_framework() -> None:
    plain = b"Host: a\r\nContent-Length:  5 \r\nConnection: Keep-Alive"
    assert plain_headers(plain) == {b"host": b"a", b"content-length": b"5", b"connection": b"Keep-Alive"}
    for odd in (
        b"Host: a\r\nHost: b",
        b"Transfer-Encoding: chunked",
        b"Connection: close",
        b"Host: a\r\n b",
        b"Host: \xff",
        b"Host: a\nX: b",
        b"Host : a",
        b"",
    ):
        assert plain_headers(odd) is None
