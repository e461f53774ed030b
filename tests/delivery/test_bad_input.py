"""What no careful client sends: each time the right status and one sentence, and the service is none the worse for it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta

import httpx
import pytest

from palate import events, experiments
from palate.database import reading, writing
from palate.delivery.context import Serving, utc_now
from palate.domain import to_milliseconds
from palate.experiments import Experiment, Step, Variant

pytestmark = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
HOUR = timedelta(hours=1)


@pytest.fixture
def stocked(client: httpx.Client) -> Iterator[httpx.Client]:
    """A service of nine items, which answers after the test as it did before."""
    client.post("/v1/items", json=[{"id": f"i{number}", "title": f"Title {number}"} for number in range(9)])
    yield client
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
    assert len(feed_of(client, "a passer-by")) == 9


def feed_of(client: httpx.Client, user: str) -> list[str]:
    answer = client.get("/v1/feed", params={"user": user, "log": "false"})
    assert answer.status_code == 200, answer.text
    return [place["item"] for place in answer.json()["items"]]


def refused(answer: httpx.Response, status: int, code: str) -> None:
    """In one sentence that says so."""
    fault = answer.json()["error"]
    assert (answer.status_code, fault["code"]) == (status, code), answer.text
    assert fault["message"]
    assert "\n" not in fault["message"]
    assert len(fault["message"]) < 400


def test_a_hundred_thousand_ids_in_one_call_are_refused(stocked: httpx.Client) -> None:
    many = [f"id-{number}" for number in range(100_000)]
    refused(stocked.post("/v1/rank", json={"user": "ann", "items": many}), 400, "too_many")
    refused(stocked.post("/get_rates", json={"user": "ann", "items": many}), 400, "too_many")
    refused(
        stocked.post("/v1/events", json=[{"user": "ann", "item": id, "type": "like"} for id in many]), 400, "too_many"
    )


def test_ids_that_are_named_twice_or_never_heard_of_have_one_place_each(
    stocked: httpx.Client, serving: Serving
) -> None:
    asked = ["i1", "who?", "i2", "i1", "who?", "i2"]
    for _ in range(2):  # items that were ranked before are ranked on a shorter way
        answer = stocked.post("/v1/rank", json={"user": "nobody yet", "items": asked})
        assert sorted(place["item"] for place in answer.json()["items"]) == ["i1", "i2", "who?"]
    like = {"user": "ann", "item": "never heard of", "type": "like", "id": "once"}
    assert [stocked.post("/v1/events", json=[like, like]).json() for _ in range(2)] == [{"accepted": 2}] * 2
    with reading(serving.engine) as connection:
        assert events.count(connection, None) == 1
    assert stocked.get("/v1/items/never%20heard%20of").status_code == 404


def test_a_cursor_of_another_person_or_a_changed_one_is_refused(stocked: httpx.Client) -> None:
    cursor = stocked.get("/v1/feed", params={"user": "ann", "limit": 2}).json()["cursor"]
    middle = len(cursor) // 2
    changed = cursor[:middle] + ("A" if cursor[middle] != "A" else "B") + cursor[middle + 1 :]
    for user, wrong in (("bob", cursor), ("ann", changed), ("ann", cursor[:-3]), ("ann", "x" * 5000)):
        answer = stocked.get("/v1/feed", params={"user": user, "cursor": wrong})
        assert answer.status_code == 400, (user, answer.text)
        refused(answer, 400, answer.json()["error"]["code"])
    again = stocked.get("/v1/feed", params={"user": "ann", "limit": 2, "cursor": cursor})
    assert len(again.json()["items"]) == 2


def test_a_variant_that_vanishes_leaves_cursors_and_events_of_it_good(stocked: httpx.Client, serving: Serving) -> None:
    two = (Variant(name="control", weight=1e-6), Variant(name="short", settings={"feed.limit_max": 1}, weight=1000))
    with writing(serving.engine) as connection:
        experiments.start(connection, Experiment(name="try", variants=two, ramp=(Step(0, 1),)), utc_now())
    serving.varying.refresh()
    first = stocked.get("/v1/feed", params={"user": "ann", "limit": 5}).json()
    assert (first["variant"], len(first["items"])) == ("try:short", 1)
    with writing(serving.engine) as connection:
        experiments.stop(connection, "try", "enough", utc_now())
    serving.varying.refresh()
    second = stocked.get("/v1/feed", params={"user": "ann", "limit": 5, "cursor": first["cursor"]}).json()
    assert (second["variant"], len(second["items"])) == (None, 5)
    late = {"user": "ann", "item": "i1", "type": "like", "variant": "try:short", "request": first["request"]}
    assert stocked.post("/v1/events", json=late).json() == {"accepted": 1}


def test_clocks_that_are_an_hour_apart_lose_no_vote_and_days_apart_are_told(stocked: httpx.Client) -> None:
    now = utc_now()
    for item, clock in (("i1", now + HOUR), ("i2", now - HOUR)):
        vote = {"user": "ann", "item": item, "type": "like", "time": to_milliseconds(clock)}
        assert stocked.post("/v1/events", json=vote).json() == {"accepted": 1}
    assert set(feed_of(stocked, "ann")) == {f"i{number}" for number in (0, *range(3, 9))}
    ahead = {"user": "ann", "item": "i3", "type": "like", "time": to_milliseconds(now + 25 * HOUR)}
    assert stocked.post("/v1/events", json=ahead).status_code == 400
    early = {"id": "early", "title": "Out in an hour", "published": to_milliseconds(now + HOUR)}
    assert stocked.post("/v1/items", json=early).status_code == 200
    assert "early" not in feed_of(stocked, "bob")  # it waits for its hour


def test_a_hundred_clients_that_dawdle_keep_nobody_waiting(stocked: httpx.Client) -> None:
    with ExitStack() as open_ones:
        for number in range(100):
            connection = socket.create_connection((stocked.base_url.host, stocked.base_url.port or 80), 10)
            open_ones.enter_context(connection)
            head = b"POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            connection.sendall(head + (b"Content-Length: 99\r\n\r\n[" if number % 2 else b"X-Slow: "))
        assert len(feed_of(stocked, "ann")) == 9
        assert stocked.post("/v1/events", json={"user": "ann", "item": "i1", "type": "like"}).json() == {"accepted": 1}
        assert len(feed_of(stocked, "ann")) == 8


@pytest.mark.parametrize("path", ["/v1/events", "/v1/rank", "/v1/items", "/v1/users", "/add_event", "/get_rates"])
def test_a_gigabyte_is_refused_unread_and_deep_json_before_it_costs_anything(stocked: httpx.Client, path: str) -> None:
    with socket.create_connection((stocked.base_url.host, stocked.base_url.port or 80), 10) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n".encode())
        connection.sendall(b"Content-Length: 1000000000\r\n\r\n[")
        assert b" 413 " in connection.recv(65_536).splitlines()[0]
    for deep in (b"[" * 1_000_000, b'{"user":' * 100_000, b'[{"user":"a","features":' + b"[" * 100_000):
        answer = stocked.post(path, content=deep, headers={"Content-Type": "application/json"})
        refused(answer, 400, answer.json()["error"]["code"])
