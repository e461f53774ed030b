"""Gorse's surface as its own Python client meets it, over real connections; and that it is one more door to one installation."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import gorse
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate import events, gorse_feedback, people, retention, train
from palate.database import reading, writing
from palate.delivery import gorse_bulk
from palate.delivery.application import create_app
from palate.delivery.context import ServerParams, Serving, utc_now
from palate.errors import InvalidInput
from palate.events import EventParams
from palate.train import Params, TrainParams

Open = Callable[[ServerParams], AbstractContextManager[Serving]]
Serve = Callable[[Any], AbstractContextManager[httpx.Client]]


on_sqlite = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
"""For what is the same on every database."""


def moment(**ago: float) -> str:
    return (datetime.now(UTC) - timedelta(**ago)).strftime("%Y-%m-%dT%H:%M:%SZ")


NOW = moment()


@pytest.fixture
def theirs(client: httpx.Client) -> gorse.Gorse:
    """The official client, pointed at us."""
    return gorse.Gorse(str(client.base_url).rstrip("/"), "any key")


def store(theirs: gorse.Gorse, count: int, **fields: object) -> None:
    for n in range(count):
        item = {"ItemId": f"i{n}", "Timestamp": moment(hours=n + 1), "Comment": f"Title {n}"}
        assert theirs.insert_item(item | fields) == {"RowAffected": 1}


def feed_of(client: httpx.Client, user: str, **more: Any) -> list[str]:
    answer = client.get("/v1/feed", params={"user": user, "log": False, **more})
    return [place["item"] for place in answer.json()["items"]]


def logged(serving: Serving) -> list[tuple[str, str, str]]:
    batches = events.stream(serving.engine, serving.data / "events")
    return [(event.user, event.item, event.type) for batch in batches for event in batch]


def recommended(theirs: gorse.Gorse, user: str, **more: Any) -> list[str]:
    return [score.id for score in theirs.get_recommend(user, **more)]


# --- the client, call by call -----------------------------------------------------------------------------------------------


@on_sqlite
def test_a_user_comes_back_as_they_were_given_until_they_are_deleted(theirs: gorse.Gorse) -> None:
    bob = {"UserId": "bob", "Labels": ["a", "b", {"deep": [0.5]}], "Comment": "a comment"}
    assert theirs.insert_user(bob | {"Subscribe": ["d"]}) == {"RowAffected": 1}
    assert theirs.get_user("bob") == bob
    assert theirs.delete_user("bob") == {"RowAffected": 1}
    with pytest.raises(gorse.GorseException) as refused:
        theirs.get_user("bob")
    assert refused.value.status_code == 404
    assert refused.value.message == "user not found"


def test_an_item_comes_back_as_it_was_given_and_as_it_was_changed(theirs: gorse.Gorse) -> None:
    film = {
        "ItemId": "film",
        "IsHidden": True,
        "Labels": {"embedding": [0.1, 0.2], "topics": ["x"]},
        "Categories": ["d", "e"],
        "Timestamp": "2020-02-02T20:20:02Z",
        "Comment": "A film",
    }
    assert theirs.insert_item(film) == {"RowAffected": 1}
    assert theirs.get_item("film") == film
    assert theirs.update_item("film", is_hidden=False, comment="Another") == {"RowAffected": 1}
    assert theirs.get_item("film") == film | {"IsHidden": False, "Comment": "Another"}
    theirs.insert_item({"ItemId": "film"})
    bare: dict[str, Any] = {
        "IsHidden": False,
        "Labels": None,
        "Categories": [],
        "Timestamp": "0001-01-01T00:00:00Z",
        "Comment": "",
    }
    assert theirs.get_item("film") == {"ItemId": "film", **bare}  # what a caller leaves out is gone
    assert theirs.delete_item("film") == {"RowAffected": 1}
    with pytest.raises(gorse.GorseException) as refused:
        theirs.get_item("film")
    assert refused.value.status_code == 404


@on_sqlite
def test_pages_hold_each_user_and_item_once_and_end_with_an_empty_cursor(theirs: gorse.Gorse) -> None:
    store(theirs, 5)
    theirs.insert_users([{"UserId": f"u{n}", "Labels": {"age": n}} for n in range(3)])
    found, cursor = list[str](), ""
    while True:
        page, cursor = theirs.get_items(2, cursor)
        found += [item["ItemId"] for item in page]
        if not cursor:
            break
    assert found == [f"i{n}" for n in range(5)]
    people_, cursor = theirs.get_users(2)
    rest, end = theirs.get_users(2, cursor)
    assert [(user["UserId"], user["Labels"]) for user in [*people_, *rest]] == [(f"u{n}", {"age": n}) for n in range(3)]
    assert end == ""
    assert [item["ItemId"] for item in theirs.search_items("title 3")] == ["i3"]


def test_feedback_is_one_for_each_type_user_and_item(theirs: gorse.Gorse) -> None:
    store(theirs, 2)
    watched = {"FeedbackType": "watch", "UserId": "bob", "ItemId": "i0", "Timestamp": NOW}
    assert theirs.insert_feedback("watch", "bob", "i0", NOW, 0.25) == {"RowAffected": 1}
    assert theirs.insert_feedbacks([watched | {"Value": 0.5}, watched | {"Value": 0.125}]) == {"RowAffected": 2}
    theirs.insert_feedback("read", "bob", "i1", NOW)
    [one] = theirs.list_feedbacks("watch", "bob")
    assert one | {"Updated": ""} == watched | {"Value": 0.875, "Updated": "", "Labels": None, "Comment": ""}
    page, cursor = theirs.get_feedbacks(1)
    rest, end = theirs.get_feedbacks(5, cursor)
    assert [(said["FeedbackType"], said["ItemId"]) for said in [*page, *rest]] == [("watch", "i0"), ("read", "i1")]
    assert end == ""
    assert theirs.delete_feedback("bob", "i0") == {"RowAffected": 1}
    assert theirs.list_feedbacks("watch", "bob") == []
    assert len(theirs.list_feedbacks("read", "bob")) == 1


@on_sqlite
def test_put_overwrites_and_single_feedback_is_read_by_its_type(client: httpx.Client, theirs: gorse.Gorse) -> None:
    store(theirs, 1)
    said = {"feedbackType": "rating", "userId": "bob", "itemId": "i0", "comment": "so so", "Labels": ["x"]}  # any case
    client.post("/api/feedback", json=[said | {"Value": 4}])
    assert client.put("/api/feedback", json=[said | {"Value": 2, "Timestamp": NOW}]).json() == {"RowAffected": 1}
    found = client.get("/api/feedback/rating/bob/i0").json()
    assert (found["Value"], found["Timestamp"], found["Comment"], found["Labels"]) == (2, NOW, "so so", ["x"])
    assert client.get("/api/feedback/like/bob/i0").json() == {}
    assert client.get("/api/feedback/bob/i0").json() == client.get("/api/item/i0/feedback/").json() == [found]
    assert client.delete("/api/feedback/rating/bob/i0").json() == {"RowAffected": 1}
    assert client.get("/api/feedback/bob/i0").json() == []


@on_sqlite
def test_what_is_recommended_is_used_up_only_by_writing_back(theirs: gorse.Gorse, serving: Serving) -> None:
    store(theirs, 6)
    first = recommended(theirs, "bob", n=2)
    assert recommended(theirs, "bob", n=2) == first
    assert recommended(theirs, "bob", n=2, offset=2) == recommended(theirs, "bob", n=4)[2:]
    assert logged(serving) == []
    taken = recommended(theirs, "bob", n=2, write_back_type="read")
    assert taken == first
    assert not set(recommended(theirs, "bob", n=6)) & set(taken)
    assert {said["ItemId"] for said in theirs.list_feedbacks("read", "bob")} == set(taken)
    assert sorted(type for _, _, type in logged(serving)) == ["read", "read", "shown", "shown"]


def test_what_is_written_back_later_stays_in_the_list_until_then(theirs: gorse.Gorse, serving: Serving) -> None:
    store(theirs, 3)
    taken = recommended(theirs, "bob", n=2, write_back_type="read", write_back_delay="1h30m")
    assert recommended(theirs, "bob", n=2) == taken
    assert gorse_feedback.write_back_due(serving.engine, utc_now() + timedelta(minutes=89)) == 0
    assert gorse_feedback.write_back_due(serving.engine, utc_now() + timedelta(minutes=91)) == 4
    assert gorse_feedback.write_back_due(serving.engine, utc_now() + timedelta(minutes=92)) == 0
    assert not set(recommended(theirs, "bob", n=3)) & set(taken)


@on_sqlite
def test_categories_are_labels_and_all_of_them_are_needed(client: httpx.Client, theirs: gorse.Gorse) -> None:
    client.post("/v1/items", json=[{"id": "ours", "title": "Ours", "labels": ["go"]}])
    theirs.insert_item({"ItemId": "both", "Categories": ["go", "web"], "Comment": "Both", "Timestamp": NOW})
    assert set(recommended(theirs, "bob", category="go")) == {"ours", "both"}
    assert client.get("/api/recommend/bob?category=go&category=web").json() == ["both"]
    assert client.get("/api/recommend/bob?category=none").json() == []
    assert client.put("/api/item/ours/category/web").json() == {"RowAffected": 1}
    assert set(client.get("/api/latest/web").json()[0]) == {"Id", "Score"}
    assert {one["Id"] for one in client.get("/api/latest/web").json()} == {"ours", "both"}
    client.delete("/api/item/both/category/web")
    assert [one["Id"] for one in client.get("/api/popular?category=web").json()] == ["ours"]


@on_sqlite
def test_lists_for_everybody_obey_rules(client: httpx.Client, theirs: gorse.Gorse) -> None:
    store(theirs, 3)
    for id, label in (("i1", "age:18"), ("i2", "rights:none")):
        assert client.put(f"/api/item/{id}/category/{label}").json() == {"RowAffected": 1}
    client.post("/v1/users", json={"id": "grown", "labels": {"age": 40}})
    for path in ("latest", "popular", "non-personalized/popular", "item/i0/neighbors"):
        assert {one["Id"] for one in client.get(f"/api/{path}").json()} <= {"i0"}, path
    assert {one["Id"] for one in client.get("/api/latest?user-id=grown").json()} == {"i0", "i1"}
    assert {one["Id"] for one in client.get("/api/popular?user-id=grown").json()} == {"i0", "i1"}


@on_sqlite
def test_latest_gives_times_and_drops_what_a_user_has_met(client: httpx.Client, theirs: gorse.Gorse) -> None:
    store(theirs, 3)
    found = client.get("/api/latest?n=2").json()
    assert [one["Id"] for one in found] == ["i0", "i1"]
    assert found[0]["Score"] == datetime.fromisoformat(theirs.get_item("i0")["Timestamp"]).timestamp()
    theirs.insert_feedback("read", "bob", "i0", NOW)
    assert [one["Id"] for one in client.get("/api/latest?user-id=bob&n=1&offset=1").json()] == ["i2"]
    popular = client.get("/api/non-personalized/popular")
    assert len(popular.json()) == 3
    assert popular.headers["last-modified"].endswith("GMT")


@on_sqlite
def test_a_visitor_is_answered_by_their_session_and_nothing_of_it_is_kept(
    theirs: gorse.Gorse, serving: Serving
) -> None:
    store(theirs, 3)
    session = [{"FeedbackType": "like", "UserId": "0", "ItemId": "i1", "Timestamp": "2010-01-01T01:01:01"}]
    assert {one["Id"] for one in theirs.session_recommend(session, 5)} == {"i0", "i2"}
    assert logged(serving) == []


@on_sqlite
def test_the_async_client_works_as_well(client: httpx.Client) -> None:
    async def talk() -> tuple[Any, Any, Any]:
        theirs = gorse.AsyncGorse(str(client.base_url).rstrip("/"), "any key")
        await theirs.insert_item({"ItemId": "a", "Comment": "A", "Timestamp": NOW})
        await theirs.insert_feedback("like", "bob", "b", NOW)
        return (
            await theirs.get_recommend("ann"),
            await theirs.list_feedbacks("like", "bob"),
            await theirs.get_neighbors("a"),
        )

    found, said, near = asyncio.run(talk())
    assert {score.id for score in found} == {"a", "b"}  # what only feedback names is an item too
    assert [one["ItemId"] for one in said] == ["b"]
    assert near == []


# --- one installation -------------------------------------------------------------------------------------------------------


@on_sqlite
def test_feedback_by_their_door_changes_the_next_feed_and_ours_their_next_list(
    client: httpx.Client, theirs: gorse.Gorse
) -> None:
    store(theirs, 4)
    assert set(feed_of(client, "bob")) == {f"i{n}" for n in range(4)}
    theirs.insert_feedback("like", "bob", "i2", NOW)
    assert set(feed_of(client, "bob")) == {"i0", "i1", "i3"}
    client.post("/v1/events", json={"user": "bob", "item": "i0", "type": "dislike"})
    assert set(recommended(theirs, "bob")) == {"i1", "i3"}
    assert [said["ItemId"] for said in theirs.list_feedbacks("dislike", "bob")] == ["i0"]
    client.post("/v1/events", json={"user": "bob", "item": "i0", "type": "retract:dislike"})
    assert theirs.list_feedbacks("dislike", "bob") == []
    theirs.update_item("i1", is_hidden=True)
    assert feed_of(client, "ann", limit=10) != []
    assert "i1" not in feed_of(client, "ann")


@on_sqlite
def test_what_another_door_changes_is_what_is_read_here(client: httpx.Client, theirs: gorse.Gorse) -> None:
    theirs.insert_item({"ItemId": "a", "Categories": ["x"], "Labels": {"deep": 1}, "Comment": "A", "Timestamp": NOW})
    client.post("/v1/items", json={"id": "a", "title": "B"})
    assert theirs.get_item("a")["Comment"] == "B"
    theirs.insert_user({"UserId": "bob", "Labels": {"age": 24, "deep": {"x": 1}}, "Comment": "c"})
    assert client.get("/v1/users/bob").json()["labels"] == {"age": 24}
    client.post("/v1/users", json={"id": "bob", "labels": {"age": 25}})
    assert theirs.get_user("bob") == {"UserId": "bob", "Labels": {"age": 25}, "Comment": ""}


@on_sqlite
def test_sealed_feedback_is_still_listed_added_to_and_taken_back(theirs: gorse.Gorse, serving: Serving) -> None:
    theirs.insert_feedback("watch", "bob", "i0", NOW, 0.5)
    theirs.insert_feedback("like", "bob", "i1", NOW)
    with reading(serving.engine) as connection:
        end = events.last_seq(connection)
    assert retention.seal(serving.engine, serving.data / "events", utc_now() + timedelta(days=2), end)
    theirs.insert_feedback("watch", "bob", "i0", NOW, 0.25)
    assert {said["ItemId"]: said["Value"] for said in theirs.get_feedbacks(9)[0]} == {"i0": 0.75, "i1": 0.0}
    assert theirs.delete_feedback("bob", "i1") == {"RowAffected": 1}
    assert [said["ItemId"] for said in theirs.get_feedbacks(9)[0]] == ["i0"]


@on_sqlite
def test_feedback_expires_with_the_days_of_the_log_however_old_it_is(theirs: gorse.Gorse, serving: Serving) -> None:
    store(theirs, 2)
    theirs.insert_feedback("like", "bob", "i0", moment(days=100))
    theirs.insert_feedback("like", "bob", "i1", NOW)
    params, left = Params(events=EventParams(keep_days=30), train=TrainParams(models=("popularity",))), []
    assert len(theirs.get_feedbacks(9)[0]) == 2
    for days, sealed in ((32, False), (29, True), (32, True)):
        if sealed:
            retention.seal(serving.engine, serving.data / "events", utc_now() + timedelta(days=2), 10**9)
        train.run_cycle(serving.engine, serving.data, params, utc_now() + timedelta(days=days))
        left.append((len(theirs.get_feedbacks(9)[0]), len(logged(serving))))
    assert left == [(2, 2), (2, 2), (0, 0)]


def test_a_deleted_user_leaves_nothing_here(theirs: gorse.Gorse, serving: Serving) -> None:
    store(theirs, 2)
    recommended(theirs, "bob", write_back_type="read", write_back_delay="1h")
    theirs.insert_feedback("like", "bob", "i0", NOW)
    assert len(theirs.list_feedbacks("like", "bob")) == 1
    theirs.delete_user("bob")
    assert theirs.get_feedbacks(9)[0] == []
    assert gorse_feedback.write_back_due(serving.engine, utc_now() + timedelta(hours=2)) == 0


# --- refusals ---------------------------------------------------------------------------------------------------------------


WRONG: list[tuple[str, str, Any, str]] = [
    ("POST", "/api/user", [], "object"),
    ("POST", "/api/users", {"UserId": "bob"}, "list"),
    ("POST", "/api/items", [{"ItemId": "a"}, {"ItemId": ""}], "index 1"),
    ("POST", "/api/item", {"ItemId": "a", "Timestamp": "yesterday"}, "yesterday"),
    ("POST", "/api/item", {"ItemId": "a", "Categories": "x"}, "Categories"),
    ("POST", "/api/feedback", [{"FeedbackType": "retract", "UserId": "u", "ItemId": "i"}], "retract"),
    ("POST", "/api/feedback", [{"FeedbackType": "No Type", "UserId": "u", "ItemId": "i"}], "type"),
    ("POST", "/api/feedback", [{"FeedbackType": "like", "UserId": "u"}], "item id"),
    ("POST", "/api/session/recommend", {}, "list"),
    ("GET", "/api/recommend/bob?n=-1", None, "n"),
    ("GET", "/api/recommend/bob?write-back-type=read&write-back-delay=soon", None, "soon"),
    ("GET", "/api/items?cursor=!!", None, "cursor"),
]


@on_sqlite
def test_what_is_wrong_is_said_in_plain_text_and_nothing_is_kept(client: httpx.Client, serving: Serving) -> None:
    client.post("/v1/items", json={"id": "a", "title": "A"})
    for method, path, body, named in WRONG:
        answer = client.request(method, path, json=body)
        assert answer.status_code == 400, answer.text
        assert answer.headers["content-type"].startswith("text/plain")
        assert named in answer.text
    assert logged(serving) == []
    assert client.get("/api/users").json() == {"Cursor": "", "Users": []}


@on_sqlite
def test_what_is_not_there_is_404_and_a_wrong_method_405(client: httpx.Client) -> None:
    assert client.get("/api/nothing").status_code == 404
    assert client.get("/api/item/none/neighbors").status_code == 404
    assert client.delete("/api/recommend/bob").status_code == 405
    assert client.get("/api/health/live").json()["Ready"] is True
    assert client.get("/api/health/ready").json()["DataStoreConnected"] is True


@pytest.fixture
def keyed(open_data: Open, serve: Serve) -> Iterator[tuple[Serving, httpx.Client]]:
    with open_data(ServerParams(names=("shop.example",))) as serving, serve(create_app({"": serving})) as client:
        yield serving, client


@on_sqlite
def test_a_key_of_ours_is_their_api_key(keyed: tuple[Serving, httpx.Client]) -> None:
    serving, client = keyed
    home = str(client.base_url).rstrip("/")
    with writing(serving.engine) as connection:
        keys = {scope: people.create_key(connection, {scope}, None, utc_now()) for scope in ("read", "write", "admin")}
    clients = {scope: gorse.Gorse(home, key) for scope, key in keys.items()}
    assert clients["write"].insert_item({"ItemId": "a", "Comment": "A", "Timestamp": NOW}) == {"RowAffected": 1}
    assert recommended(clients["read"], "bob") == ["a"]
    assert clients["admin"].get_users(5) == ([], "")
    statuses = [
        refused_by(lambda: gorse.Gorse(home, "wrong").get_item("a")),
        refused_by(lambda: clients["read"].insert_user({"UserId": "x"})),
        refused_by(lambda: recommended(clients["read"], "bob", write_back_type="read")),
        refused_by(lambda: clients["write"].get_feedbacks(5)),
    ]
    assert statuses == [401, 403, 403, 403]
    assert client.get("/api/health/ready").status_code == 200


def refused_by(ask: Callable[[], object]) -> int:
    with pytest.raises(gorse.GorseException) as refused:
        ask()
    return int(refused.value.status_code)


@on_sqlite
def test_bulk_answers_hold_everything_as_json_lines(client: httpx.Client, theirs: gorse.Gorse) -> None:
    store(theirs, 3)
    theirs.insert_feedback("like", "bob", "i0", NOW)
    answer = client.get("/api/bulk/items")
    assert answer.headers["content-type"] == "application/jsonl"
    assert len(answer.text.splitlines()) == 3
    assert '"UserId":"bob"' in client.get("/api/bulk/users").text
    assert '"FeedbackType":"like"' in client.get("/api/bulk/feedback").text
    assert client.get("/api/bulk/else").status_code == 404


@on_sqlite
def test_bulk_lines_are_taken_as_a_body_or_a_file_of_a_form(client: httpx.Client, theirs: gorse.Gorse) -> None:
    items = b'{"ItemId":"a","Comment":"\xc3\x84"}\r\n\n{"ItemId":"b","IsHidden":true}'
    answer = client.post("/api/bulk/items", files={"other": b"x", "file": ("items.jsonl", items)})
    assert answer.json() == {"RowAffected": 2}
    assert (theirs.get_item("a")["Comment"], theirs.get_item("b")["IsHidden"]) == ("Ä", True)
    said = b'{"FeedbackType":"like","UserId":"bob","ItemId":"a"}'
    assert client.post("/api/bulk/feedback", content=said).json() == {"RowAffected": 1}
    assert client.post("/api/bulk/users", content=client.get("/api/bulk/users").content).json() == {"RowAffected": 1}
    for body, told in (
        ({"content": b'{"UserId":"x"}\n{'}, "at index 1: this line is no JSON"),
        ({"content": b'{"UserId":"x"}\n{"UserId":""}'}, "at index 1: "),
        ({"files": {"wrong": b"{}"}}, "send the lines as the body"),
    ):
        wrong = client.post("/api/bulk/users", **body)
        assert (wrong.status_code, told in wrong.text) == (400, True), wrong.text
    assert client.post("/api/bulk/else", content=b"").status_code == 404


USER = b"\x0a\x03bob\x12\x0d" + b'{"age":"old"}' + b"\x1a\x02hi"
ITEM = b"\x12\x01a\x18\x01\x22\x02go\x22\x03web\x2a\x06\x08\x80\xcf\xd0\x90\x06\x32\x04null"
SAID = b"\x12\x04like\x1a\x03bob\x22\x01a\x2a\x06\x08\x80\xcf\xd0\x90\x06"


def dumped(*parts: int | bytes) -> bytes:
    """Marks, and messages with their lengths."""
    found = b""
    for part in parts:
        number = part if isinstance(part, int) else len(part)
        found += number.to_bytes(8, "little", signed=True) + (b"" if isinstance(part, int) else part)
    return found


@on_sqlite
def test_a_dump_of_theirs_is_restored_and_ours_is_one_of_theirs(client: httpx.Client, theirs: gorse.Gorse) -> None:
    whole = dumped(-1, USER, -2, ITEM, -3, SAID, 0)
    assert client.post("/api/restore", content=whole).json() == {"Users": 1, "Items": 1, "Feedback": 1}
    assert theirs.get_user("bob") == {"UserId": "bob", "Labels": {"age": "old"}, "Comment": "hi"}
    item = theirs.get_item("a")
    assert (item["IsHidden"], item["Categories"], item["Timestamp"]) == (True, ["go", "web"], "2022-02-22T00:00:00Z")
    assert client.get("/api/dump").content == whole
    for wrong in (
        whole[:-20],
        dumped(5),
        dumped(-2, b"\x12\x05a"),
        dumped(-1, b"\xff" * 20),
        dumped(-1, b"\x0a\x01\xff"),
    ):
        assert client.post("/api/restore", content=wrong).status_code == 400
    assert client.post("/api/restore", content=b"").json() == {"Users": 0, "Items": 0, "Feedback": 0}


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60), st.sampled_from(["users", "items", "feedback"]))
def test_no_message_of_a_dump_makes_more_than_a_refusal(message: bytes, what: Any) -> None:
    with suppress(InvalidInput):
        gorse_bulk.read(what, message)


@on_sqlite
def test_ids_may_hold_what_a_path_can_carry(client: httpx.Client) -> None:
    odd = "https://example.org/a b?c#d"
    client.post("/v1/items", json={"id": odd, "title": "Odd"})
    quoted = httpx.URL(client.base_url).copy_with(raw_path=b"/api/item/https%3A%2F%2Fexample.org%2Fa%20b%3Fc%23d")
    assert client.get(quoted).json()["ItemId"] == odd


@on_sqlite
def test_due_write_backs_are_logged_by_the_server_itself(theirs: gorse.Gorse, serving: Serving) -> None:
    store(theirs, 1)
    recommended(theirs, "bob", write_back_type="read", write_back_delay="1ms")
    until = time.monotonic() + 30
    while not logged(serving) and time.monotonic() < until:
        time.sleep(0.02)
    assert len(logged(serving)) == 2
