"""The Python client against a real server, over connections that break: nothing twice, nothing lost."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate import client_calls as calls
from palate import events
from palate.client import AsyncClient, Client, ClientParams, Event, Item, RequestRefused, Unreachable
from palate.client_calls import Lost, Pause, Response
from palate.delivery.context import Serving

on_sqlite = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
Fault = Callable[[int], str | int | None]


class Breaking(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Carries requests to a real server; by their number from 0 some are lost, some answers are, and some find it too busy."""

    def __init__(self, fault: Fault) -> None:
        self.fault, self.count = fault, 0
        self.under, self.under_async = httpx.HTTPTransport(), httpx.AsyncHTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        fault = self.next()
        if fault is None:
            return self.under.handle_request(request)
        if fault == "answer":
            self.under.handle_request(request).read()
        return broken(fault)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        fault = self.next()
        if fault is None:
            return await self.under_async.handle_async_request(request)
        if fault == "answer":
            await (await self.under_async.handle_async_request(request)).aread()
        return broken(fault)

    def next(self) -> str | int | None:
        self.count += 1
        return self.fault(self.count - 1)

    def close(self) -> None:
        self.under.close()

    async def aclose(self) -> None:
        await self.under_async.aclose()


def broken(fault: str | int) -> httpx.Response:
    if isinstance(fault, int):
        return httpx.Response(fault, headers={"Retry-After": "3"}, text="busy")
    raise httpx.ReadError("the connection was reset") if fault == "answer" else httpx.ConnectError("refused")


TROUBLE = ("answer", None, "request", 503, "answer", None, 429, None)


def trouble(number: int) -> str | int | None:
    return TROUBLE[number % len(TROUBLE)]


def likes(count: int) -> list[Event]:
    return [Event(user=f"u{n % 3}", item=f"i{n}", type="like", position=n) for n in range(count)]


def logged(serving: Serving) -> list[tuple[str, str, int | None]]:
    batches = events.stream(serving.engine, serving.data / "events")
    return [(event.user, event.item, event.position) for batch in batches for event in batch]


def home(client: httpx.Client) -> str:
    return str(client.base_url)


@on_sqlite
def test_over_connections_that_break_every_event_counts_once(client: httpx.Client, serving: Serving) -> None:
    slept: list[float] = []
    params = ClientParams(batch=7)
    with Client(home(client), params=params, transport=Breaking(trouble), sleep=slept.append) as palate:
        assert palate.send(likes(40)) == 40
    assert logged(serving) == [(event.user, event.item, event.position) for event in likes(40)]
    assert all(0.125 <= pause <= 30 for pause in slept)
    assert max(slept) >= 3  # as the server asked


@on_sqlite
def test_without_threads_as_well(client: httpx.Client, serving: Serving) -> None:
    async def sleep(_: float) -> None:
        await asyncio.sleep(0)

    async def talk() -> list[int]:
        transport = Breaking(trouble)
        async with AsyncClient(
            home(client), params=ClientParams(batch=7, attempts=30), transport=transport, sleep=sleep
        ) as palate:
            return await asyncio.gather(*(palate.send(likes(40)[start::4]) for start in range(4)))

    assert asyncio.run(talk()) == [10, 10, 10, 10]
    assert sorted(logged(serving)) == sorted((event.user, event.item, event.position) for event in likes(40))


@on_sqlite
def test_what_is_given_up_comes_back_and_can_be_sent_later_without_counting_twice(
    client: httpx.Client, serving: Serving
) -> None:
    dead = Breaking(lambda number: None if number == 0 else "answer" if number == 1 else "request")
    palate = Client(home(client), params=ClientParams(batch=4), transport=dead, sleep=lambda _: None)
    with palate, pytest.raises(Unreachable, match="6 times") as failed:
        palate.send(likes(10))
    assert len(failed.value.left) == 6
    with Client(home(client)) as palate:
        assert palate.send(failed.value.left) == 6
    assert [position for _, _, position in logged(serving)] == list(range(10))


@on_sqlite
def test_the_whole_api_typed(client: httpx.Client) -> None:
    with Client(home(client)) as palate:
        assert palate.put_items([Item(id=f"i{n}", title=f"Title {n}", labels=("x",)) for n in range(3)]) == 3
        page = palate.feed("visitor-7", limit=2, log=False, exclude=["i0"])
        assert {place.item for place in page.items} == {"i1", "i2"}
        assert palate.feed("visitor-7", limit=2, cursor=page.cursor, log=False, exclude=["i0"]).items == ()
        assert [score.item for score in palate.rank("ann", ["i2", "none"]).items] == ["i2", "none"]
        assert [score.item for score in palate.rank("bob", ["i2"], log=True).items] == ["i2"]
        assert palate.similar("i2", user="ann").items is not None
        assert all(not place.parts for place in palate.feed("ann", explain=True, log=False).items)
        palate.send([Event(user="visitor-7", item="i1", type="like")])
        ann = palate.put_user("ann", {"age": 30}, aliases=["visitor-7", "never-seen"])
        assert set(ann.ids) == {"ann", "visitor-7", "never-seen"}
        assert {place.item for place in palate.feed("ann", log=False).items} == {
            "i0",
            "i2",
        }  # what the visitor met counts
        assert palate.user("never-seen").id == "ann"
        assert palate.similar("i0").items == ()
        palate.delete_item("i2")
        palate.delete_user("ann")
        with pytest.raises(RequestRefused) as refused:
            palate.user("ann")
    assert (refused.value.status, refused.value.code) == (404, "not_found")


@on_sqlite
def test_a_deletion_whose_answer_was_lost_has_worked(client: httpx.Client) -> None:
    lossy = Breaking(lambda number: "answer" if number == 1 else None)
    with Client(home(client), transport=lossy, sleep=lambda _: None) as palate:
        palate.put_items([Item(id="a", title="A")])
        palate.delete_item("a")
        with pytest.raises(RequestRefused):
            palate.delete_item("a")


@on_sqlite
def test_what_is_refused_is_said_with_its_place_and_not_sent_again(client: httpx.Client, serving: Serving) -> None:
    transport = Breaking(lambda _: None)
    with Client(home(client), transport=transport) as palate, pytest.raises(RequestRefused) as refused:
        palate.send([*likes(2), Event(user="a", item="b", type="No!")])
    assert (refused.value.status, refused.value.index, transport.count) == (400, 2, 1)
    assert "type" in str(refused.value)
    assert logged(serving) == []


def test_the_short_names_of_the_peer_are_the_same_calls(client: httpx.Client, serving: Serving) -> None:
    event = {"user": "device-1", "item": "a", "type": "viewed", "value": 12.5, "position": 3, "surface": "edition"}
    assert client.post("/add_event", json=event).json() == {"accepted": 1}
    assert client.post("/add_event", json=[event, event]).json() == {"accepted": 2}
    question = {"user": "device-1", "items": ["a", "b"]}
    assert client.post("/get_rates", json=question).json() == client.post("/v1/rank", json=question).json()
    assert client.post("/add_event", json={"user": "x"}).status_code == 400
    found = [event for batch in events.stream(serving.engine, serving.data / "events") for event in batch]
    assert [(one.value, one.position, one.surface) for one in found] == [(12.5, 3, "edition")] * 3


# --- the core, without any network --------------------------------------------------------------------------------------------


def steps(came: list[Any], params: ClientParams) -> tuple[list[float], Any]:
    """The pauses of an exchange to which the server answers so, and its end."""
    running = calls.exchange(calls.get_user("a b/c"), params, lambda: 1.0, lambda: NOW)
    pauses, answers = list[float](), iter(came)
    step = next(running)
    try:
        while True:
            if isinstance(step, Pause):
                pauses.append(step.seconds)
                step = running.send(None)
            else:
                assert step.path == "/v1/users/a%20b%2Fc"
                step = running.send(next(answers))
    except StopIteration as done:
        return pauses, done.value
    except (RequestRefused, Unreachable) as error:
        return pauses, error


BUSY = Response(503, {}, b"")
ANN = Response(200, {}, b'{"id":"ann","ids":["ann"],"labels":{},"choices":{},"created":1,"new_field":[]}')


def test_pauses_double_and_end() -> None:
    pauses, end = steps([BUSY, Lost("reset"), BUSY, ANN], ClientParams())
    assert pauses == [0.25, 0.5, 1.0]
    assert end.id == "ann"
    pauses, end = steps([BUSY] * 9, ClientParams(attempts=3, longest_pause=0.3))
    assert pauses == [0.25, 0.3]
    assert isinstance(end, Unreachable)
    assert "503" in str(end)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("Sat, 31 Jan 2026 12:01:30 GMT", 90.0),
        ("Sat, 31 Jan 2026 11:00:00 GMT", 0.0),
        ("soon", None),
        ("-1", None),
        (None, None),
        ("", None),
    ],
)
def test_retry_after_is_read_in_both_forms(header: str | None, seconds: float | None) -> None:
    assert calls.retry_after(header, NOW) == seconds


def test_something_else_than_palate_is_said() -> None:
    assert "isn't Palate" in str(steps([Response(200, {}, b"<html>")], ClientParams())[1])
    refused = steps([Response(404, {}, b"<html>")], ClientParams())[1]
    assert (refused.status, str(refused)) == (404, "GET /v1/users/a%20b%2Fc is answered with 404.")


@given(st.lists(st.sampled_from([BUSY, Lost("reset")]), max_size=10), st.integers(1, 8), st.floats(0, 40))
def test_no_exchange_asks_more_often_or_waits_longer_than_it_may(
    came: list[Any], attempts: int, longest: float
) -> None:
    pauses, end = steps([*came, *[BUSY] * attempts], ClientParams(attempts=attempts, longest_pause=longest))
    assert len(pauses) == attempts - 1
    assert all(0 <= pause <= longest for pause in pauses)
    assert isinstance(end, Unreachable)


def test_events_get_an_id_and_their_moment_once() -> None:
    first = calls.stamped(
        [Event(user="u", item="i", type="like"), Event(user="u", item="i", type="like", id="x", time=5)],
        lambda: "new",
        NOW,
    )
    assert [(event.id, event.time) for event in first] == [("new", int(NOW.timestamp() * 1000)), ("x", 5)]
    assert calls.stamped(first, lambda: "other", NOW + timedelta(hours=1)) == first


def test_importing_the_client_loads_nothing_heavy() -> None:
    code = "import sys, palate.client; print(sorted({'numpy', 'sqlalchemy', 'starlette', 'pyarrow', 'numba'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
