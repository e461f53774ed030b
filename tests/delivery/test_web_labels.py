"""The page on which texts are labelled, and an owner's corrections: over HTTP, with effect at once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta

import httpx
import lxml.html
import pytest
from starlette.types import ASGIApp

from palate import ingest, people, story_window, train_text
from palate.database import writing
from palate.delivery.application import create_app
from palate.delivery.context import ServerParams, Serving, utc_now
from palate.story_window import StoryParams
from palate.text.correction import CorrectionParams

Serve = Callable[[ASGIApp], AbstractContextManager[httpx.Client]]

STORM = "A hurricane destroyed hundreds of houses on the coast, thousands fled from the flooded villages"
BANK = "The central bank raised interest rates again because inflation remains far above its target this year"


def fill(serving: Serving, client: httpx.Client) -> None:
    items = [
        {"id": "storm-1", "title": STORM[:60], "text": f"{STORM}, the Gazette reports.", "source": "Gazette"},
        {"id": "storm-2", "title": STORM[:50], "text": f"{STORM}, says the Post.", "source": "Post"},
        {"id": "bank", "title": BANK[:60], "text": BANK + ' <b onclick="x()">soon</b>', "source": "Gazette"},
    ]
    assert client.post("/v1/items", json=items).json()["accepted"] == 3
    ingest.understand_some(serving.engine, utc_now())
    story_window.opened(serving.engine, StoryParams(), utc_now())
    serving.live.refresh(utc_now())


@pytest.fixture
def told(client: httpx.Client, serving: Serving) -> httpx.Client:
    """An installation with a story of two sources and an item alone."""
    fill(serving, client)
    return client


def form(text: str) -> dict[str, str]:
    """The hidden fields of the page's question."""
    [found] = lxml.html.fromstring(text).xpath("//form[@action='/labels']")
    return {field.get("name"): field.get("value", "") for field in found.iterfind(".//input[@type='hidden']")}


def test_a_question_is_answered_by_a_form_and_the_next_one_comes(told: httpx.Client) -> None:
    first = told.get("/labels")
    assert "What is it about?" in first.text
    keys = [button.get("data-press") for button in lxml.html.fromstring(first.text).xpath("//button[@data-press]")]
    assert keys == ["1", "2", "3", "4", "5", "6", "7", "8 n", "s"]
    asked = form(first.text)
    after = told.post("/labels", data=asked | {"value": "science"}, follow_redirects=True)
    assert ": science." in after.text
    assert form(after.text)["item"] != asked["item"]
    again = told.get(lxml.html.fromstring(after.text).xpath("//a[text()='Change it']")[0].get("href"))
    assert form(again.text) == asked
    assert "science" in lxml.html.fromstring(again.text).xpath("//button[@aria-pressed='true']")[0].text_content()
    for _ in range(2):
        after = told.post("/labels", data=form(after.text) | {"value": ""}, follow_redirects=True)
    assert "Nothing to ask" in after.text


def test_every_task_asks_and_the_guess_is_shown_only_when_wanted(told: httpx.Client) -> None:
    for task, question in (("news", "Is it news?"), ("story", "the same event"), ("importance", "How important")):
        text = told.get(f"/labels?task={task}").text
        assert question in text
        assert "Guess:" not in text
    assert "Guess: similarity " in told.get("/labels?task=story&guess=1").text
    guess = told.get("/labels?task=category&guess=1").text
    assert "Guess: " in guess
    asked = form(guess)
    assert asked["guess"] == "1"
    assert "guess=1" in told.post("/labels", data=asked | {"value": "other"}).headers["location"]


def test_texts_are_data_on_the_page(told: httpx.Client) -> None:
    page = told.get("/labels?again=1.0").text
    assert "soon" in page
    assert "onclick" not in page


def test_a_corrected_category_shows_at_once_in_feed_stories_and_item(told: httpx.Client) -> None:
    def bank() -> list[str]:
        return [one["item"] for one in told.get("/v1/stories", params={"category": "sports"}).json()["stories"]]

    assert bank() == []
    asked = {"item": "bank", "task": "category", "value": "sports"}
    assert told.post("/labels/correct", data=asked).headers["location"] == "/item/bank#correct"
    assert bank() == ["bank"]
    feed = told.get("/v1/feed", params={"user": "u", "log": "false", "category": "sports"}).json()["items"]
    assert [one["item"] for one in feed] == ["bank"]
    pressed = lxml.html.fromstring(told.get("/item/bank").text).xpath("//*[@id='correct']//*[@aria-pressed='true']")
    assert [button.get("value") for button in pressed] == ["sports", "1"]
    told.post("/labels/correct", data=asked | {"value": "not_news"})
    assert "bank" not in str(told.get("/v1/stories").json())


def test_a_story_is_parted_and_joined_from_an_items_page(told: httpx.Client) -> None:
    def sizes() -> list[int]:
        return sorted(len(story["items"]) for story in told.get("/v1/stories").json()["stories"])

    assert sizes() == [1, 2]
    assert "Not the same story" in told.get("/item/storm-1").text
    pair = {"item": "storm-1", "task": "story", "other": "storm-2"}
    told.post("/labels/correct", data=pair | {"value": "different"})
    assert sizes() == [1, 1, 1]
    assert "The same story" in told.get("/item/bank").text
    told.post("/labels/correct", data={"item": "bank", "task": "story", "other": "storm-2", "value": "same"})
    assert sizes() == [1, 2]
    assert "Not the same story" in told.get("/item/bank").text


def test_importance_is_marked(told: httpx.Client) -> None:
    told.post("/labels/correct", data={"item": "bank", "task": "importance", "value": "2"})
    pressed = lxml.html.fromstring(told.get("/item/bank").text).xpath("//*[@id='correct']//*[@aria-pressed='true']")
    assert pressed[1].get("value") == "2"


@pytest.mark.parametrize(
    ("path", "given", "status"),
    [
        ("/labels", {"task": "category", "item": "1", "other": "0", "value": "gossip"}, 400),
        ("/labels", {"task": "category", "item": "99999", "value": "sports"}, 404),
        ("/labels", {"task": "story", "item": "1", "other": "1", "value": "same"}, 400),
        ("/labels/correct", {"task": "category", "item": "nothing", "value": "sports"}, 404),
        ("/labels/correct", {"task": "story", "item": "bank", "other": "nothing", "value": "same"}, 404),
    ],
)
def test_answers_that_cannot_be_are_refused(told: httpx.Client, path: str, given: dict[str, str], status: int) -> None:
    assert told.post(path, data=given).status_code == status


def test_only_owners_and_annotators_label_and_only_owners_correct(
    open_data: Callable[[ServerParams], AbstractContextManager[Serving]], serve: Serve
) -> None:
    with open_data(ServerParams(names=("news.example",))) as serving, serve(create_app({"": serving})) as client:
        with writing(serving.engine) as connection:
            admin = people.create_key(connection, ["admin"], None, utc_now())
        client.headers["authorization"] = f"Bearer {admin}"
        fill(serving, client)
        del client.headers["authorization"]
        assert client.get("/labels").status_code == 403
        correction = {"item": "bank", "task": "category", "value": "sports"}
        assert client.post("/labels/correct", data=correction).status_code == 403
        assert "Correct this" not in client.get("/item/bank").text
        with writing(serving.engine) as connection:
            ann = people.upsert_user(connection, "ann", {}, utc_now())
            people.set_choices(connection, ann.key, people.Choices(annotator=True))
            token = people.create_login(connection, ann.key, utc_now(), timedelta(hours=1))
        client.post(f"/login/{token}")
        page = client.get("/labels").text
        assert "What is it about?" in page
        assert "I am certain" not in page
        answered = client.post("/labels", data=form(page) | {"value": "sports", "gold": "1"})
        assert answered.status_code == 303
        assert "sports" in client.get(answered.headers["location"]).text
        assert client.post("/labels/correct", data=correction).status_code == 403
        assert "correct</a>" not in client.get("/stories").text


def test_from_a_correction_on_the_page_to_the_class_of_a_new_item(told: httpx.Client, serving: Serving) -> None:
    def item(town: str) -> dict[str, str]:
        text = f"In {town} the zorblax frimbled the vorpal zindle, and the quvintar was glad."
        title = f"The zorblax of {town} met the quvintar"
        return {"id": town, "title": title, "text": text, "source": f"s {town}", "language": "en"}

    def read() -> None:
        data, later = serving.data, utc_now() + timedelta(seconds=1)
        ingest.run_once(serving.engine, serving.params.ingest, serving.params.fetch, later, {}, data=data)
        serving.live.refresh(later)

    def shown(category: str) -> set[str]:
        stories = told.get("/v1/stories", params={"category": category}).json()["stories"]
        return {one["item"] for story in stories for one in story["items"]}

    towns = ["Asu", "Bem", "Cil", "Dor"]
    told.post("/v1/items", json=[item(town) for town in towns])
    read()
    guess = "sports" if not shown("sports") & set(towns) else "science"
    for town in towns:
        told.post("/labels/correct", data={"item": town, "task": "category", "value": guess})
    assert set(towns) <= shown(guess)
    feed = told.get("/v1/feed", params={"user": "u", "log": "false", "category": guess}).json()["items"]
    assert feed
    assert {one["item"] for one in feed} <= set(towns)
    [learned] = train_text.run(serving.engine, serving.data, CorrectionParams())
    assert learned.labels == 4
    told.post("/v1/items", json=item("Eft"))
    read()
    assert "Eft" in shown(guess)
    assert "bank" not in shown(guess)
