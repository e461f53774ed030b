"""Stories over HTTP: the API's answer, the page, and the feed's filters."""

from __future__ import annotations

import httpx
import lxml.html
import pytest
import sqlalchemy as sa

from palate import database, ingest, story_window
from palate.database import writing
from palate.delivery.context import Serving, utc_now
from palate.story_window import StoryParams

STORM = "A hurricane destroyed hundreds of houses on the coast, thousands fled from the flooded villages"
BANK = "The central bank raised interest rates again because inflation remains far above its target this year"


@pytest.fixture
def told(client: httpx.Client, serving: Serving) -> httpx.Client:
    """An installation with a story of two sources, an item alone and one in Russian, as its loop has left them."""
    now = int(utc_now().timestamp() * 1000)
    items = [
        {
            "id": "storm-1",
            "title": STORM[:60],
            "text": f"{STORM}, the Gazette reports.",
            "source": "Gazette",
            "language": "en",
        },
        {
            "id": "storm-2",
            "title": STORM[:50],
            "text": f"{STORM}, says the Post.",
            "source": "Post",
            "url": "https://post.example/a",
        },
        {"id": "bank", "title": BANK[:60], "text": BANK, "source": "Gazette", "language": "en"},
        {
            "id": "ru",
            "title": "Сборная выиграла матч",
            "text": "Футбольная команда победила в матче чемпионата.",
            "source": "Газета",
        },
    ]
    dated = [{"published": now - (n + 1) * 60_000} | item for n, item in enumerate(items)]
    assert client.post("/v1/items", json=dated).json()["accepted"] == 4
    assert ingest.understand_some(serving.engine, utc_now()) == 4
    story_window.opened(serving.engine, StoryParams(), utc_now())
    serving.live.refresh(utc_now())
    return client


def test_stories_come_by_importance_with_their_items_in_the_order_of_time(told: httpx.Client) -> None:
    stories = told.get("/v1/stories").json()["stories"]
    assert [story["sources"] for story in stories] == [2, 1, 1]
    assert [item["item"] for item in stories[0]["items"]] == ["storm-2", "storm-1"]
    assert stories[0]["item"] in ("storm-1", "storm-2")
    assert stories[0]["factors"] is None
    explained = told.get("/v1/stories", params={"explain": "true"}).json()["stories"][0]
    factors = explained["factors"]
    product = factors["coverage"] * factors["freshness"] * factors["readers"] * factors["mark"]
    assert explained["score"] == pytest.approx(product)


def test_stories_of_one_language_category_and_period(told: httpx.Client) -> None:
    def items(**asked: object) -> list[str]:
        return [story["item"] for story in told.get("/v1/stories", params=asked).json()["stories"]]  # type: ignore[arg-type]

    assert items(lang="ru") == ["ru"]
    assert items(category="economy") == ["bank"]
    assert items(period=90) == ["storm-1"]
    assert len(items(limit=1)) == 1


def test_what_rules_close_to_who_asks_is_in_no_story_and_like_nothing(told: httpx.Client, serving: Serving) -> None:
    def stories(**user: str) -> list[list[str]]:
        found = told.get("/v1/stories", params=user).json()["stories"]
        return sorted(sorted(item["item"] for item in story["items"]) for story in found)

    def similar(**user: str) -> list[str]:
        return [item["item"] for item in told.get("/v1/similar/storm-2", params=user).json()["items"]]

    everything = stories()
    assert (["storm-1", "storm-2"] in everything, "storm-1" in similar()) == (True, True)
    told.post("/v1/users", json={"id": "grown", "labels": {"age": 40}})
    _label(serving, "storm-1", "age:18")
    open_to_all = sorted([["storm-2"], *(story for story in everything if "storm-1" not in story)])
    assert stories() == stories(user="child") == open_to_all
    assert stories(user="grown") == everything
    assert ("storm-1" in similar(), "storm-1" in similar(user="grown")) == (False, True)
    _label(serving, "storm-2", "rights:none")
    page = told.get("/stories").text
    assert (STORM[:30] in page, BANK[:30] in page) == (False, True)


def _label(serving: Serving, item: str, label: str) -> None:
    with writing(serving.engine) as connection:
        table = database.items
        changed = {"labels": [label], "updated": table.c.updated + 9}
        connection.execute(sa.update(table).where(table.c.id == item).values(changed))
    serving.live.refresh(utc_now())


@pytest.mark.parametrize(
    "query", ["period=0", "period=x", "lang=EN!", "category=gossip", "limit=0", "explain=perhaps", "x=1"]
)
def test_a_question_for_stories_that_breaks_a_rule_is_refused(client: httpx.Client, query: str) -> None:
    answer = client.get(f"/v1/stories?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_request"


def test_the_feed_names_the_story_and_who_else_tells_it(told: httpx.Client) -> None:
    places = told.get("/v1/feed", params={"user": "ann"}).json()["items"]
    [storm] = [place for place in places if place["item"].startswith("storm")]
    assert len(places) == 3
    assert storm["story"] == told.get("/v1/stories").json()["stories"][0]["story"]
    other = {"storm-1": "storm-2", "storm-2": "storm-1"}[storm["item"]]
    assert [one["item"] for one in storm["also"]] == [other]


def test_the_feed_of_one_language_or_category(told: httpx.Client) -> None:
    def items(**asked: str) -> list[str]:
        return [
            place["item"]
            for place in told.get("/v1/feed", params={"user": "u", "log": "false"} | asked).json()["items"]
        ]

    assert items(lang="ru") == ["ru"]
    assert items(category="economy") == ["bank"]
    assert items(lang="de") == []


def test_the_page_shows_each_story_with_its_timeline_and_its_filters(told: httpx.Client) -> None:
    page = lxml.html.fromstring(told.get("/stories").text)
    first = page.find_class("story")[0]
    assert "2 sources" in first.text_content()
    assert [line.find(".//b").text for line in first.find_class("timeline")[0].findall("li")] == ["Post", "Gazette"]
    assert len(first.find_class("leads")) == 1
    links = {link.text_content(): link.get("href") for link in page.find_class("filters")[0].iterfind(".//a")}
    narrowed = lxml.html.fromstring(told.get(links["economy"]).text)
    assert [story.find(".//h2").text_content() for story in narrowed.find_class("story")] == [BANK[:60]]
    assert "No stories" in told.get("/stories?lang=de&period=6h").text


def test_a_card_says_where_else_and_filters_go_on_with_the_page(told: httpx.Client) -> None:
    russian = told.get("/?lang=ru&category=nonsense").text
    assert "Сборная" in russian
    assert BANK[:60] not in russian
    assert "lang=ru" in russian.partition("/more?")[2].partition('"')[0]
    [also] = lxml.html.fromstring(told.get("/").text).find_class("also")
    assert also.text_content() in ("Also in Post", "Also in Gazette")


def test_nothing_to_choose_between_shows_no_filter(client: httpx.Client) -> None:
    client.post("/v1/items", json={"id": "a", "title": "Hello"})
    assert "filters" not in client.get("/").text
    assert "No stories" in client.get("/stories").text
