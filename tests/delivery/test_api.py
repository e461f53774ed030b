"""The API as its callers meet it, over real connections."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import product
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import sqlalchemy as sa

from palate import events, people
from palate.database import writing
from palate.delivery.application import create_app
from palate.delivery.context import ServerParams, Serving, utc_now
from palate.domain import Event
from palate.errors import Overloaded

DAY = 86_400_000

Open = Callable[[ServerParams], AbstractContextManager[Serving]]
Serve = Callable[[Any], AbstractContextManager[httpx.Client]]


def now_ms() -> int:
    return int(time.time() * 1000)


def logged(serving: Serving) -> list[Event]:
    return [event for batch in events.stream(serving.engine, serving.data / "events") for event in batch]


def store(client: httpx.Client, count: int, **fields: object) -> None:
    items = [{"id": f"item {n}", "title": f"Title {n}", "source": f"source {n % 3}", **fields} for n in range(count)]
    assert client.post("/v1/items", json=items).json()["accepted"] == count


def ids(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [place["item"] for place in answer.json()["items"]]


def test_one_event_or_a_list_is_durable_when_the_answer_comes(client: httpx.Client, serving: Serving) -> None:
    like = {"user": "ann", "item": "a", "type": "like"}
    assert client.post("/v1/events", json=like).json() == {"accepted": 1}
    assert client.post("/v1/events", json=[like | {"item": "b", "value": 2}, like | {"item": "c"}]).json() == {
        "accepted": 2
    }
    assert [(event.user, event.item, event.value) for event in logged(serving)] == [
        ("ann", "a", None),
        ("ann", "b", 2.0),
        ("ann", "c", None),
    ]


def test_an_event_that_is_sent_again_counts_once(client: httpx.Client, serving: Serving) -> None:
    like = {"user": "ann", "item": "a", "type": "like", "id": "once"}
    for _ in range(3):
        assert client.post("/v1/events", json=like).json() == {"accepted": 1}
    assert len(logged(serving)) == 1


def test_an_empty_list_of_events_is_accepted(client: httpx.Client) -> None:
    assert client.post("/v1/events", json=[]).json() == {"accepted": 0}


BAD_EVENTS: list[tuple[dict[str, object], str]] = [
    ({"type": "Like!"}, "type"),
    ({"user": ""}, "user"),
    ({"user": "x" * 201}, "user"),
    ({"user": 7}, "user"),
    ({"item": None}, "item"),
    ({"item": "nul \0"}, "item"),
    ({"time": -1}, "time"),
    ({"time": now_ms() + 365 * DAY}, "time"),
    ({"time": 10**30}, "time"),
    ({"time": "yesterday"}, "time"),
    ({"value": "much"}, "value"),
    ({"value": 1e300}, "value"),
    ({"probability": 0}, "probability"),
    ({"position": -1}, "position"),
    ({"features": "{"}, "features"),
    ({"usr": "ann"}, "usr"),
    ({"seq": 5}, "seq"),
    ({"received": 5}, "received"),
]


def test_a_bad_event_rejects_the_whole_request_with_index_and_reason(client: httpx.Client, serving: Serving) -> None:
    good = {"user": "ann", "item": "a", "type": "like"}
    for wrong, named in BAD_EVENTS:
        answer = client.post("/v1/events", json=[good, good, good | wrong, good])
        assert answer.status_code == 400, wrong
        fault = answer.json()["error"]
        assert (fault["index"], named in fault["message"]) == (2, True), fault
        assert answer.json()["request"] == answer.headers["x-request-id"]
    assert logged(serving) == []


MALFORMED = [
    b"",
    b"null",
    b"7",
    b'"x"',
    b"{",
    b"[" * 100_000,
    b'{"user":' * 50_000,
    b'{"user":"a","item":"b","type":"like","value":NaN}',
    b'{"user":"a","item":"b","type":"like","value":Infinity}',
    b'{"user":"a","item":"b","type":"like","value":1e999}',
    b'{"user":"\xff","item":"b","type":"like"}',
    b'{"user":"\\ud800","item":"b","type":"like"}',
    b'{"user":"a","item":"b","type":"like"} {}',
    b'{"user":"a","item":"b","type":"like","time":' + b"9" * 5000 + b"}",
]


def test_malformed_bodies_get_one_sentence(client: httpx.Client) -> None:
    for path, body in product(("/v1/events", "/v1/items", "/v1/rank", "/v1/users"), MALFORMED):
        answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400, (path, body[:100], answer.text)
        assert answer.json()["error"]["message"]
        assert "Traceback" not in answer.text


def test_deep_labels_of_a_user_are_refused(client: httpx.Client) -> None:
    body = b'{"id":"a","labels":{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}}"
    answer = client.post("/v1/users", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400


def test_too_many_events_are_refused(client: httpx.Client) -> None:
    like = {"user": "a", "item": "b", "type": "like"}
    assert client.post("/v1/events", json=[like] * 10_001).json()["error"]["code"] == "too_many"
    assert client.post("/v1/rank", json={"user": "a", "items": ["b"] * 10_001}).json()["error"]["code"] == "too_many"


def test_a_body_that_is_not_json_is_refused(client: httpx.Client) -> None:
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/xml", ""]:
        assert client.post("/v1/events", content=b"[]", headers={"Content-Type": kind}).status_code == 415


def test_a_compressed_body_is_refused(client: httpx.Client) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert client.post("/v1/events", content=b"x", headers=headers).status_code == 415


def raw(client: httpx.Client, request: bytes) -> bytes:
    with socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=10) as connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(65_536):
            answer += part
        return answer


HEAD = b"POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


def test_a_declared_gigabyte_is_refused_before_it_comes(client: httpx.Client) -> None:
    assert b" 413 " in raw(client, HEAD + b"Content-Length: 1000000000\r\n\r\n[").splitlines()[0]


def test_a_streamed_body_is_cut_off_at_the_limit(open_data: Open, serve: Serve) -> None:
    with open_data(ServerParams(max_body=1000)) as serving, serve(create_app({"": serving})) as client:
        endless = (b"[" + b" " * 99 for _ in range(11))
        answer = client.post("/v1/events", content=endless, headers={"Content-Type": "application/json"})
        assert answer.status_code == 413
        assert client.post("/v1/events", json=[]).status_code == 200


def test_a_body_that_never_ends_is_given_up(open_data: Open, serve: Serve) -> None:
    with open_data(ServerParams(body_seconds=0.05)) as serving, serve(create_app({"": serving})) as client:
        assert b" 408 " in raw(client, HEAD + b"Content-Length: 100\r\n\r\n[").splitlines()[0]


ANY_IDS = ["a/b/../c", "line\nend", "🦊 & ?x=1#y", "%2F", " ", "..", "/", "é" * 200, "a\\b", "x/"]


def test_ids_may_hold_anything(client: httpx.Client) -> None:
    for id in ANY_IDS:
        address = quote(id, safe="").replace(".", "%2E")
        assert client.post("/v1/items", json={"id": id, "title": "T"}).json()["items"] == [{"id": id, "outcome": "new"}]
        assert client.get(f"/v1/items/{address}").json()["id"] == id
        assert client.post("/v1/events", json={"user": id, "item": id, "type": "like"}).status_code == 200
        assert client.get(f"/v1/users/{address}").json()["id"] == id
        assert client.post("/v1/rank", json={"user": id, "items": [id]}).json()["items"][0]["item"] == id
        assert client.get(f"/v1/items/{address}").json()["events"] == {"like": 1}
        assert client.delete(f"/v1/items/{address}").json() == {"deleted": id}
        assert client.get(f"/v1/items/{address}").status_code == 404
        assert client.delete(f"/v1/users/{address}").json() == {"deleted": id}
        assert client.get(f"/v1/users/{address}").status_code == 404


IMPOSSIBLE = ["/v1/items/%00", "/v1/items/" + "x" * 201, "/v1/items/", "/v1/users/%00"]


def test_impossible_ids_are_refused(client: httpx.Client) -> None:
    for path in IMPOSSIBLE:
        assert client.get(path).status_code == 400
        assert client.delete(path).status_code == 400


def test_items_are_stored_with_all_they_carry(client: httpx.Client) -> None:
    item = {
        "id": "a",
        "title": "A title",
        "text": "<p>Text<script>alert(1)</script></p>",
        "url": "https://example.com/a?utm_source=x",
        "author": "Ann",
        "published": "2026-01-31T12:00:00+01:00",
        "language": "en",
        "kind": "video",
        "duration": 61.5,
        "media": [{"url": "https://example.com/a.jpg", "type": "image", "width": 640}],
        "labels": ["cats"],
        "license": "CC BY 4.0",
    }
    assert client.post("/v1/items", json=item).json() == {"accepted": 1, "items": [{"id": "a", "outcome": "new"}]}
    found = client.get("/v1/items/a").json()
    assert found["published"] == 1_769_857_200_000
    assert (found["title"], found["kind"], found["labels"], found["duration"]) == ("A title", "video", ["cats"], 61.5)
    assert found["media"][0]["url"] == "https://example.com/a.jpg"
    assert "alert" not in found["text"]
    assert client.post("/v1/items", json=item).json()["items"] == [{"id": "a", "outcome": "unchanged"}]
    assert client.post("/v1/items", json=item | {"title": "B"}).json()["items"] == [{"id": "a", "outcome": "updated"}]


BAD_ITEMS: list[dict[str, object]] = [
    {"published": "yesterday"},
    {"published": "0000-01-01T00:00:00Z"},
    {"published": "9999-12-31T23:59:59-12:00"},
    {"published": "2026-01-31T12:00:00"},
    {"published": 10**18},
    {"kind": "smell"},
    {"media": [{"url": "x", "size": 5}]},
    {"titel": "typo"},
    {"duration": -1},
]


def test_a_bad_item_rejects_the_whole_request(client: httpx.Client) -> None:
    for wrong in BAD_ITEMS:
        answer = client.post("/v1/items", json=[{"id": "a"}, {"id": "b", **wrong}])
        assert answer.status_code == 400
        assert answer.json()["error"]["index"] == 1
        assert client.get("/v1/items/a").status_code == 404


def test_a_title_of_two_megabytes_does_no_harm(client: httpx.Client) -> None:
    answer = client.post("/v1/items", json={"id": "a", "title": "x" * 2_000_000})
    assert answer.status_code in (200, 400)
    assert client.post("/v1/items", json={"id": "b", "title": "T"}).status_code == 200


def test_a_feed_gives_each_item_once_and_says_why(client: httpx.Client, serving: Serving) -> None:
    store(client, 12)
    first = client.get("/v1/feed", params={"user": "ann", "limit": 5})
    second = client.get("/v1/feed", params={"user": "ann", "limit": 5, "cursor": first.json()["cursor"]})
    assert len(ids(first)) == len(ids(second)) == 5
    assert not set(ids(first)) & set(ids(second))
    assert all(place["reasons"] for place in first.json()["items"])
    shown = [event for event in logged(serving) if event.request == first.json()["request"]]
    assert [(event.type, event.item, event.surface) for event in shown] == [("shown", id, "api") for id in ids(first)]


def test_a_prefetched_feed_leaves_no_trace(client: httpx.Client, serving: Serving) -> None:
    store(client, 6)
    assert len(ids(client.get("/v1/feed?user=ann&log=false"))) == 6
    assert logged(serving) == []
    assert len(ids(client.get("/v1/feed?user=ann&limit=6"))) == 6


def test_what_is_excluded_or_too_old_stays_out(client: httpx.Client) -> None:
    store(client, 4, published=now_ms() - 3 * DAY)
    client.post("/v1/items", json={"id": "new", "title": "N", "published": now_ms()})
    assert ids(client.get("/v1/feed?user=ann&log=false&window_days=1")) == ["new"]
    query = {"user": "ann", "log": "false", "exclude": ["item 0", "item 1"]}
    assert sorted(ids(client.get("/v1/feed", params=query))) == ["item 2", "item 3", "new"]


BAD_QUERIES = [
    "",
    "user=",
    "user=ann&limit=0",
    "user=ann&limit=201",
    "user=ann&limit=x",
    "user=ann&limit=1&limit=2",
    "user=ann&cursor=forged",
    "user=ann&window_days=nan",
    "user=ann&window_days=-1",
    "user=ann&log=perhaps",
    "user=ann&lim=5",
    "user=%00",
    "user=ann&" + "&".join("exclude=x" for _ in range(1001)),
    "&".join("exclude=x" for _ in range(3000)),
]


def test_a_bad_query_is_refused(client: httpx.Client) -> None:
    for query in BAD_QUERIES:
        answer = client.get(f"/v1/feed?{query}")
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["message"]


def test_likes_change_the_very_next_feed(client: httpx.Client) -> None:
    kinds = [("cats", 30), ("dogs", 30)]
    items = [{"id": f"{kind} {n}", "source": kind, "labels": [kind]} for kind, count in kinds for n in range(count)]
    client.post("/v1/items", json=items)
    before = ids(client.get("/v1/feed?user=ann&limit=20&log=false"))
    liked = [{"user": "ann", "item": f"cats {n}", "type": "like"} for n in range(5)]
    disliked = [{"user": "ann", "item": f"dogs {n}", "type": "dislike"} for n in range(5)]
    client.post("/v1/events", json=liked + disliked)
    after = ids(client.get("/v1/feed?user=ann&limit=20&log=false"))
    assert not {event["item"] for event in liked + disliked} & set(after)
    assert sum(id.startswith("cats") for id in after) > sum(id.startswith("cats") for id in before)


def test_rank_keeps_unknown_ids_and_orders_by_score(client: httpx.Client) -> None:
    store(client, 3)
    answer = client.post("/v1/rank", json={"user": "nobody", "items": ["item 2", "who?", "item 0"]}).json()
    assert sorted(place["item"] for place in answer["items"]) == ["item 0", "item 2", "who?"]
    scores = [place["score"] for place in answer["items"]]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert answer["model"] is None


def test_users_keep_their_labels_and_choices(client: httpx.Client) -> None:
    labels = {"language": "en", "age": 41, "places": ["Oslo"], "mail": None}
    made = client.post("/v1/users", json={"id": "ann", "labels": labels, "choices": {"topics": ["cats"]}})
    assert made.json() == client.get("/v1/users/ann").json()
    assert made.json()["labels"] == labels
    assert made.json()["choices"] == {"topics": ["cats"], "languages": [], "window_days": None, "daily_ration": None}
    client.post("/v1/users", json={"id": "ann", "choices": {"window_days": 3}})
    changed = client.get("/v1/users/ann").json()
    assert (changed["labels"], changed["choices"]["window_days"], changed["choices"]["topics"]) == (labels, 3, [])
    assert client.get("/v1/users/bob").status_code == 404


def test_a_label_with_nul_is_refused(client: httpx.Client) -> None:
    for label in ("a\0", ["a", "\0"]):
        assert client.post("/v1/users", json={"id": "ann", "labels": {"name": label}}).status_code == 400


def test_nobody_becomes_owner_by_the_api(client: httpx.Client) -> None:
    assert client.post("/v1/users", json={"id": "ann", "choices": {"owner": True}}).status_code == 400


def test_a_deleted_user_is_gone_everywhere_and_others_are_not(client: httpx.Client, serving: Serving) -> None:
    for user in ("ann", "bob"):
        client.post("/v1/events", json={"user": user, "item": "a", "type": "like"})
    assert client.delete("/v1/users/ann").status_code == 200
    assert client.delete("/v1/users/ann").status_code == 404
    assert [event.user for event in logged(serving)] == ["bob"]


def test_health_and_readiness_on_an_empty_installation(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ok"}


def refuse_writes(engine: sa.Engine) -> Callable[[], None]:
    """Make the database read-only, as a full disk or a read-only folder would; returns what ends that."""
    refused = [True]

    def checkout(connection: Any, *_: object) -> None:
        connection.execute(f"PRAGMA query_only = {int(refused[0])}")

    def begin(connection: sa.Connection) -> None:
        if refused[0]:
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")

    sqlite = engine.dialect.name == "sqlite"
    sa.event.listen(engine, *(("checkout", checkout) if sqlite else ("begin", begin)))
    return lambda: refused.__setitem__(0, False)


def test_readiness_and_events_say_503_while_nothing_can_be_written(client: httpx.Client, serving: Serving) -> None:
    like = {"user": "a", "item": "b", "type": "like"}
    allow_writes = refuse_writes(serving.engine)
    for answer in (
        client.get("/readyz"),
        client.post("/v1/events", json=like),
        client.post("/v1/items", json={"id": "a"}),
        client.post("/v1/users", json={"id": "a"}),
    ):
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1"), answer.text
        assert answer.json()["error"]["message"].startswith("The database can't be written")
    assert client.get("/healthz").status_code == 200
    allow_writes()
    assert client.post("/v1/events", json=like).status_code == 200
    assert len(logged(serving)) == 1


def test_a_full_queue_is_answered_with_429(
    client: httpx.Client, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    def submit(*_: object) -> None:
        raise Overloaded("Too many events wait to be written: try again in a second.")

    monkeypatch.setattr(serving.commits, "submit", submit)
    answer = client.post("/v1/events", json={"user": "a", "item": "b", "type": "like"})
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["error"]["code"] == "overloaded"


def test_unknown_paths_and_methods_are_named(client: httpx.Client) -> None:
    assert client.get("/v1/nothing").json()["error"]["code"] == "not_found"
    answer = client.put("/v1/events", json=[])
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert client.post("/v1/items/a").headers["allow"] == "DELETE, GET"


def test_metrics_count_requests_events_and_the_pool(client: httpx.Client) -> None:
    store(client, 3)
    client.post("/v1/events", json=[{"user": "a", "item": "b", "type": "like"}] * 7)
    text = client.get("/metrics").text
    assert re.search(r"^palate_events_accepted_total 7\.0$", text, re.M)
    assert re.search(r"^palate_commit_events_sum 7\.0$", text, re.M)
    assert re.search(r"^palate_items_accepted_total 3\.0$", text, re.M)
    assert re.search(r"^palate_pool_items 3\.0$", text, re.M)
    assert 'palate_requests_total{method="POST",route="/v1/events",status="200"} 1.0' in text
    assert "palate_snapshot_age_seconds NaN" in text


def test_a_pushed_event_outlives_the_server(open_data: Open, serve: Serve) -> None:
    with open_data(ServerParams()) as serving, serve(create_app({"": serving})) as client:
        client.post("/v1/events", json={"user": "ann", "item": "a", "type": "like"})
    with open_data(ServerParams()) as serving:
        assert [event.item for event in logged(serving)] == ["a"]


def test_away_from_loopback_every_operation_needs_a_key_of_its_scope(open_data: Open, serve: Serve) -> None:
    with open_data(ServerParams(names=("feed.example.com",))) as serving, serve(create_app({"": serving})) as client:
        with writing(serving.engine) as connection:
            keys = {
                scope: people.create_key(connection, [scope], None, utc_now()) for scope in ("read", "write", "admin")
            }
        like = {"user": "a", "item": "b", "type": "like"}
        assert client.post("/v1/events", json=like).headers["www-authenticate"] == "Bearer"
        assert client.post("/v1/events", json=like, headers={"X-API-Key": "palate_wrong"}).status_code == 401
        for scope, statuses in {"read": (403, 200, 403), "write": (200, 200, 403), "admin": (200, 200, 200)}.items():
            headers = {"Authorization": f"Bearer {keys[scope]}"}
            assert client.post("/v1/events", json=like, headers=headers).status_code == statuses[0]
            assert client.get("/v1/feed?user=a", headers=headers).status_code == statuses[1]
            assert client.delete("/v1/users/a", headers=headers).status_code == statuses[2]
        assert client.get("/healthz").status_code == 200


def test_json_numbers_of_ids_are_not_ids(client: httpx.Client) -> None:
    answer = client.post(
        "/v1/rank", content=json.dumps({"user": "a", "items": ["x", 5]}), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400
    assert "items[1]" in answer.json()["error"]["message"]
