"""The pages as a browser without JavaScript meets them, over real connections."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import lxml.html
import numpy as np
import pytest
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import database, events, people, snapshots
from palate.database import reading, writing
from palate.delivery.application import create_app
from palate.delivery.context import ServerParams, Serving, ServingParams, open_serving, utc_now
from palate.delivery.web_cards import card, full_text
from palate.delivery.web_start import starter_feeds
from palate.domain import Event, Item, Media
from palate.feed_params import FeedParams
from palate.sources.addresses import parse_address
from palate.sources.fetching import FetchParams
from palate.text.cleaning import canonical_url

Page = Any
"""A parsed page; lxml gives it no type."""

HTMX = {"hx-request": "true"}


def store(client: httpx.Client, count: int, start: int = 0, **fields: object) -> None:
    now = int(utc_now().timestamp() * 1000)
    items = [
        {"id": f"item {n}", "title": f"Title {n}", "source": f"source {n % 3}", "published": now - n * 60_000} | fields
        for n in range(start, start + count)
    ]
    assert client.post("/v1/items", json=items).json()["accepted"] == count


def logged(serving: Serving) -> list[Event]:
    return [event for batch in events.stream(serving.engine, serving.data / "events") for event in batch]


def page(client: httpx.Client, path: str, **options: Any) -> Page:
    answer = client.get(path, follow_redirects=True, **options)
    assert answer.status_code == 200, answer.text
    return lxml.html.fromstring(answer.text)


@pytest.fixture
def reader(client: httpx.Client) -> httpx.Client:
    """A browser that was here before, of an installation with 50 items."""
    store(client, 50)
    client.get("/me")
    return client


def cards(page: Page) -> list[Page]:
    return list(page.xpath("//article"))


def names(page: Page) -> list[str]:
    return [one.xpath(".//h2|.//h1")[0].text_content().strip() for one in cards(page)]


def fields(form: Page) -> dict[str, str]:
    return {field.get("name"): field.get("value") for field in form.xpath(".//input")}


def press(client: httpx.Client, card: Page, act: str, **options: Any) -> httpx.Response:
    form = card.xpath(".//form")[0] if card.tag != "form" else card
    assert act in form.xpath(".//button/@value"), f"{act} is no button of this card"
    return client.post(form.get("action"), data=fields(form) | {"act": act}, **options)


def pressed(part: Page) -> set[str]:
    return set(part.xpath(".//button[@aria-pressed='true']/@data-act"))


# The first page


def test_an_empty_installation_offers_both_ways_to_start(client: httpx.Client) -> None:
    assert client.get("/").headers["location"] == "/start"
    text = client.get("/start").text
    assert "Start my own" in text
    assert "palate demo" in text, "here the sample is not served: the page says how to see it"


def test_topics_alone_bring_the_feeds_that_fit_them(client: httpx.Client, serving: Serving) -> None:
    answer = client.post("/start", data={"topic": ["space"]})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    with reading(serving.engine) as connection:
        addresses = set(connection.scalars(sa.select(database.sources.c.address)))
        [kept] = [people.choices(connection, key).topics for key in connection.scalars(sa.select(database.users.c.key))]
    assert addresses == {feed.address for feed in starter_feeds() if "space" in feed.topics}
    assert len(addresses) > 1
    assert kept == ("space",)
    assert "Palate is reading your sources" in client.get("/").text


def test_the_starter_shelf_can_be_read_as_it_is() -> None:
    shelf = starter_feeds()
    assert {feed.language for feed in shelf} == {"en", "ru"}
    assert all(canonical_url(feed.address) and parse_address(feed.address).host for feed in shelf)
    assert len({feed.address for feed in shelf}) == len(shelf)


# The feed


def test_a_crawler_leaves_no_trace_and_a_browser_that_comes_back_is_somebody(
    client: httpx.Client, serving: Serving
) -> None:
    store(client, 5)
    for _ in range(2):
        assert len(cards(page(client, "/", headers={"cookie": ""}))) == 5
        client.cookies.clear()
    assert logged(serving) == []
    client.get("/")
    assert len(cards(page(client, "/"))) == 5
    assert [event.type for event in logged(serving)] == ["shown"] * 5
    assert {event.surface for event in logged(serving)} == {"web"}


def test_a_browser_that_fetches_ahead_uses_nothing_up(reader: httpx.Client, serving: Serving) -> None:
    reader.get("/", headers={"sec-purpose": "prefetch"})
    reader.head("/")
    assert logged(serving) == []


def test_more_goes_on_where_the_page_ended(reader: httpx.Client) -> None:
    first = page(reader, "/")
    second = page(reader, first.xpath("//div[@class='more']/a/@href")[0])
    third = lxml.html.fromstring(reader.get(second.xpath("//div[@class='more']/@hx-get")[0]).text)
    shown = names(first) + names(second) + names(third)
    assert len(shown) == len(set(shown)) == 50
    assert not third.xpath("//header"), "what is put into the page is cards alone"


def test_hostile_content_stays_text(client: httpx.Client) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    store(
        client,
        1,
        title="a \"quoted\" 'title' {{ 7 * 7 }} List<b>",
        text=f"<p onclick='alert(1)'>{evil}<a href='javascript:alert(1)'>x</a></p>",
        url="javascript:alert(1)",
        author='"><script>alert(2)</script>',
        license="javascript:alert(3)",
        labels=["</script><script>alert(4)</script>"],
        source='"><script>alert(5)</script>',
        media=[{"url": "javascript:alert(6)"}, {"url": "http://pictures.example/a.jpg"}],
    )
    client.get("/me")
    for path in ("/", "/item/item%200", "/sources", "/me", "/training", "/start"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        tree = lxml.html.fromstring(answer.text)
        assert all(script.get("src") or script.get("type") == "application/json" for script in tree.xpath("//script"))
        assert not [name for name in tree.xpath("//@*/parent::*/@*") if str(name).startswith("javascript:")]
        assert not tree.xpath("//@onclick|//@onerror|//@onload|//@style")
    [one] = cards(page(client, "/?again=1"))
    assert one.xpath(".//img/@src") == ["https://pictures.example/a.jpg"]
    assert "{{ 7 * 7 }}" in names(page(client, "/?again=1"))[0]


def test_even_an_item_that_was_never_cleaned_is_shown_safely() -> None:
    raw = Item(
        id="raw",
        title="t",
        text='<p onclick="x()">hello<script>x()</script><img src="http://pictures.example/i.png"></p>',
        url="javascript:alert(1)",
        media=(Media(url="data:text/html,x"),),
    )
    text = str(full_text(raw))
    assert "script" not in text
    assert "onclick" not in text
    assert 'src="https://pictures.example/i.png"' in text
    shown = card(raw, 1, None, utc_now(), "/own")
    assert (shown.href, shown.link, shown.picture) == ("/own/item/raw", None, None)


def test_a_licence_is_named_with_its_text() -> None:
    def named(name: str) -> tuple[str | None, str | None]:
        shown = card(Item(id="x", license=name), 1, None, utc_now(), "")
        return shown.license, shown.license_url

    assert named("CC BY-SA 4.0") == ("CC BY-SA 4.0", "https://creativecommons.org/licenses/by-sa/4.0/")
    assert named("http://creativecommons.org/licenses/by/3.0/")[0] == "CC BY 3.0"
    assert named("MIT OR Apache-2.0") == ("MIT OR Apache-2.0", None)


def test_an_item_without_a_title_is_named_by_its_text() -> None:
    shown = card(Item(id="x", text="<p>One two three.</p><p>Four.</p>"), 1, None, utc_now(), "")
    assert (shown.title, shown.excerpt) == ("One two three. Four.", None)
    assert card(Item(id="x"), 1, None, utc_now(), "").title == "Untitled"
    assert card(Item(id="x"), 1, "Habr", utc_now(), "").title == "Habr"


# What people do


def test_a_like_without_javascript_comes_back_to_its_item(reader: httpx.Client, serving: Serving) -> None:
    before = page(reader, "/")
    third = cards(before)[2]
    answer = press(reader, third, "like")
    assert answer.status_code == 303
    address, anchor = answer.headers["location"].split("#")
    assert anchor == third.get("id")
    after = page(reader, address)
    assert names(after) == names(before), "the page is the same one, not the next"
    assert [pressed(one) for one in cards(after)[:4]] == [set(), set(), {"like"}, set()]
    [like] = [event for event in logged(serving) if event.type == "like"]
    assert (like.item, like.position, like.surface) == (third.get("data-item"), 2, "web")
    assert like.request == third.get("data-request")


def test_votes_are_switches_and_the_later_one_counts(reader: httpx.Client, serving: Serving) -> None:
    form = cards(page(reader, "/"))[0].xpath(".//form")[0]

    def after(act: str) -> set[str]:
        nonlocal form
        answer = press(reader, form, act, headers=HTMX)
        assert answer.status_code == 200
        form = lxml.html.fromstring(answer.text)
        assert form.tag == "form", "the answer is the buttons alone"
        return pressed(form)

    assert after("like") == {"like"}
    assert after("save") == {"like", "save"}
    assert after("dislike") == {"dislike", "save"}
    assert after("undo-dislike") == {"save"}
    assert after("undo-save") == set()
    types = [event.type for event in logged(serving) if event.type != "shown"]
    assert types == ["like", "save", "dislike", "retract:dislike", "retract:save"]


def test_less_like_this_is_a_dislike_that_says_what_follows(reader: httpx.Client, serving: Serving) -> None:
    store(reader, 1, start=90, labels=["opera"], source="The Stage")
    with reading(serving.engine) as connection:
        key = connection.scalar(sa.select(database.items.c.key).where(database.items.c.id == "item 90"))
    [one] = cards(page(reader, f"/?again={key}"))
    form = lxml.html.fromstring(press(reader, one, "less", headers=HTMX).text)
    assert pressed(form) == {"dislike"}
    said = form.xpath(".//*[@role='status']")[0].text_content()
    assert "The Stage" in said
    assert "opera" in said
    assert pressed(lxml.html.fromstring(press(reader, form, "undo-dislike", headers=HTMX).text)) == set()


def test_a_hidden_source_stays_out_until_it_is_shown_again(reader: httpx.Client) -> None:
    one = cards(page(reader, "/"))[0]
    hidden = one.xpath(".//*[@class='source']")[0].text_content()
    answer = press(reader, one, "hide", headers=HTMX)
    assert "unhide" in lxml.html.fromstring(answer.text).xpath(".//button/@value")

    def sources() -> set[str]:
        return {name.text_content() for name in page(reader, "/").xpath("//*[@class='source']")}

    assert hidden not in sources()
    form = page(reader, "/me").xpath("//form[contains(@action, '/sources/change')]")[0]
    assert reader.post(form.get("action"), data=fields(form) | {"act": "show"}).headers["location"] == "/me"
    assert hidden in sources()


def test_sharing_without_javascript_shows_the_link(reader: httpx.Client) -> None:
    store(reader, 1, start=70, url="https://news.example/seventy")
    [one] = [one for one in cards(page(reader, "/")) if one.get("data-item") == "item 70"] or cards(page(reader, "/"))[
        :1
    ]
    answer = press(reader, one, "share")
    assert one.xpath(".//button[@data-act='share']/@data-url")[0] in answer.text


@pytest.mark.parametrize("act", ["", "shown", "undo-", "like:1"])
def test_a_button_that_is_not_there_is_refused(reader: httpx.Client, serving: Serving, act: str) -> None:
    form = cards(page(reader, "/"))[0].xpath(".//form")[0]
    assert reader.post("/act", data=fields(form) | {"act": act}).status_code == 400
    assert {event.type for event in logged(serving)} == {"shown"}


def test_what_was_saved_is_kept_newest_first(reader: httpx.Client) -> None:
    shown = cards(page(reader, "/"))
    for one in (shown[3], shown[1], shown[2]):
        press(reader, one, "save")
    press(reader, cards(page(reader, "/saved"))[0], "undo-save")
    assert names(page(reader, "/saved")) == [
        names(page(reader, f"/?again={one.get('data-key')}"))[0] for one in (shown[1], shown[3])
    ]


def test_what_a_browser_saw_is_logged_with_its_dwell(reader: httpx.Client, serving: Serving) -> None:
    one = cards(page(reader, "/"))[0]
    seen = {
        "item": one.get("data-item"),
        "type": "viewed",
        "value": 3.5,
        "request": one.get("data-request"),
        "position": 0,
    }
    assert reader.post("/seen", json=[seen, {"item": seen["item"], "type": "opened"}]).status_code == 204
    [viewed, opened] = [event for event in logged(serving) if event.type != "shown"]
    assert (viewed.value, viewed.request, viewed.position) == (3.5, seen["request"], 0)
    assert opened.item == viewed.item


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'[{"item": "item 1", "type": "like"}]',
        b'[{"item": "item 1", "type": "viewed", "value": 1e9}]',
        b"[[[[",
        b"\xff",
    ],
)
def test_a_report_of_anything_else_is_refused(reader: httpx.Client, serving: Serving, body: bytes) -> None:
    assert reader.post("/seen", content=body, headers={"content-type": "application/json"}).status_code == 400
    assert logged(serving) == []


def test_items_that_nobody_knows_are_not_made_by_reports(reader: httpx.Client, serving: Serving) -> None:
    assert reader.post("/seen", json=[{"item": "made up", "type": "viewed"}]).status_code == 204
    assert logged(serving) == []


def test_a_daily_ration_ends_the_feed(reader: httpx.Client) -> None:
    reader.post("/me", data={"length": "ration", "ration": "3"})
    first = page(reader, "/")
    assert len(cards(first)) == 3
    for shown in (first, page(reader, "/")):
        assert "That's all for today" in shown.text_content()
        assert not shown.xpath("//div[@class='more']")
    reader.post("/me", data={"length": "endless", "ration": "3"})
    assert len(cards(page(reader, "/"))) == 20


@pytest.mark.parametrize("again", ["x", "1.x.-3", "9" * 30, ".".join(["1"] * 500), "9223372036854775807", "²"])
def test_a_made_up_page_is_no_error(reader: httpx.Client, again: str) -> None:
    assert reader.get("/", params={"again": again}).status_code == 200
    assert reader.get("/", params={"cursor": again}).status_code == 200


# One item


def test_an_item_says_how_it_does(reader: httpx.Client, serving: Serving) -> None:
    happened = [
        Event(user=f"u{n}", item="item 7", type=type) for type, n in [("shown", 3), ("like", 2)] for n in range(n)
    ]
    with writing(serving.engine) as connection:
        events.append(connection, happened, utc_now())
    shown = page(reader, "/item/item%207")
    figures = {term.text_content(): term.getnext().text_content() for term in shown.xpath("//dt")}
    assert (figures["Shown"], figures["Liked"], figures["Disliked"]) == ("3", "2", "0")


def test_an_item_says_why_it_would_come_to_this_person(reader: httpx.Client) -> None:
    shown = page(reader, "/item/item%207")
    assert "New from source 1" in shown.xpath("string(//details[@class='why'])")
    assert "Chance that you like it" in shown.text_content()


@pytest.mark.parametrize("id", ["a/b c?d#e", "ключ 😀", 'x"><b>', "https://example.org/a?b=1&c=2"])
def test_an_item_of_any_id_has_a_page(client: httpx.Client, id: str) -> None:
    store(client, 1, id=id, title="Found")
    client.get("/me")
    link = page(client, "/").xpath("//a[contains(@href, '/item/')]/@href")[0]
    assert names(page(client, link)) == ["Found"]


def test_an_item_that_is_not_there_is_a_page_too(reader: httpx.Client) -> None:
    for path in ("/item/nothing", "/nothing/at/all"):
        answer = reader.get(path)
        assert (answer.status_code, "<nav" in answer.text) == (404, True)


# Sources


FEED = b"""<?xml version="1.0"?><rss version="2.0"><channel><title>Loopback news</title><link>http://x.example/</link>
<item><title>One</title><guid>1</guid><link>http://x.example/1</link></item></channel></rss>"""
SITE = b"""<html><head><link rel="alternate" type="application/rss+xml" title="News" href="/feed">
<link rel="alternate" type="application/rss+xml" title="Comments" href="/comments"></head><body>hello</body></html>"""


class Site(BaseHTTPRequestHandler):
    """A site with two feeds on its front page."""

    def do_GET(self) -> None:
        found = {"/": (b"text/html", SITE), "/feed": (b"application/rss+xml", FEED)}.get(self.path)
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", found[0].decode() if found else "text/plain")
        self.end_headers()
        self.wfile.write(found[1] if found else b"")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """Address of a real site on loopback."""
    server = HTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=partial(server.serve_forever, 0.01), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def trusting(data: Path, migrated_url: str | None, serve: Any) -> Iterator[httpx.Client]:
    """A client of an installation that may ask addresses on loopback."""
    params = ServingParams(fetch=FetchParams(allow_private=True, pause=0))
    with open_serving(data, migrated_url, params) as serving, serve(create_app({"": serving})) as client:
        yield client


def listed(client: httpx.Client) -> list[str]:
    return [row.text_content() for row in page(client, "/sources").xpath("//ul[@class='rows']/li")]


def test_a_feed_is_added_by_its_own_address(trusting: httpx.Client, site: str) -> None:
    assert trusting.post("/sources/add", data={"address": f"{site}/feed"}).status_code == 303
    [row] = listed(trusting)
    assert "Loopback news" in row
    assert f"{site}/feed" in row


def test_of_several_feeds_of_a_site_the_owner_chooses(trusting: httpx.Client, site: str) -> None:
    asked = lxml.html.fromstring(trusting.post("/sources/add", data={"address": site}).text)
    offered = asked.xpath("//input[@name='feed']/@value")
    assert offered == [f"{site}/feed", f"{site}/comments"]
    assert listed(trusting) == []
    trusting.post("/sources/add", data={"feed": offered[0]})
    assert len(listed(trusting)) == 1


@pytest.mark.parametrize("address", ["", "http://127.0.0.1:1/", "no such host.example", "x" * 3000])
def test_what_is_no_feed_is_said_in_a_sentence(client: httpx.Client, address: str) -> None:
    answer = client.post("/sources/add", data={"address": address})
    assert answer.status_code in (200, 400)
    text = lxml.html.fromstring(answer.text).xpath("string(//main)").strip()
    assert "." in text
    assert "Traceback" not in text
    assert listed(client) == []


def test_a_source_is_paused_resumed_and_removed(trusting: httpx.Client, site: str) -> None:
    trusting.post("/sources/add", data={"address": f"{site}/feed"})
    for act, then in (("pause", "resume"), ("resume", "pause"), ("remove", None)):
        form = page(trusting, "/sources").xpath("//form[contains(@action, '/sources/change')]")[0]
        assert act in form.xpath(".//button/@value")
        assert trusting.post(form.get("action"), data=fields(form) | {"act": act}).status_code == 303
        buttons = page(trusting, "/sources").xpath("//form[contains(@action, '/sources/change')]//button/@value")
        assert (then in buttons) if then else buttons == []


def test_subscriptions_move_by_opml(client: httpx.Client) -> None:
    opml = b"""<opml version="2.0"><body><outline text="Science"><outline type="rss" text="A" xmlUrl="https://a.example/feed"/>
    <outline type="rss" text="B" xmlUrl="https://b.example/feed"/></outline></body></opml>"""
    answer = client.post("/sources/import", files={"file": ("feeds.opml", opml)})
    assert (answer.status_code, len(listed(client))) == (200, 2)
    out = client.get("/sources.opml")
    assert "attachment" in out.headers["content-disposition"]
    assert b"https://a.example/feed" in out.content
    broken = client.post("/sources/import", files={"file": ("feeds.opml", b"\x00\x01 no opml")})
    assert "no OPML" in broken.text
    assert client.post("/sources/import", data={"file": "text"}).status_code == 400


# People


def login(client: httpx.Client, serving: Serving, name: str, owner: bool = False) -> str:
    """The path of a login link."""
    with writing(serving.engine) as connection:
        person = people.upsert_user(connection, name, {}, utc_now()).key
        people.set_choices(connection, person, people.Choices(owner=owner))
        return f"/login/{people.create_login(connection, person, utc_now(), timedelta(hours=1))}"


def test_a_login_link_brings_along_who_was_here_before_and_works_once(reader: httpx.Client, serving: Serving) -> None:
    liked = cards(page(reader, "/"))[0]
    press(reader, liked, "like")
    link = login(reader, serving, "ann")
    for _ in range(2):
        assert "Log in" in reader.get(link).text, "looking at the link doesn't use it up"
    assert reader.post(link).status_code == 303
    assert "ann" in page(reader, "/me").text_content()
    assert pressed(cards(page(reader, f"/?again={liked.get('data-key')}"))[0]) == {"like"}
    assert reader.post(link).status_code == 410
    reader.post("/logout")
    assert "ann" not in page(reader, "/me").text_content()


def test_a_cookie_that_was_not_signed_here_is_nobody(reader: httpx.Client, serving: Serving) -> None:
    [name] = [name for name in reader.cookies if name.startswith("palate-")]
    reader.cookies.clear()
    reader.cookies.set(name, '"ann".made.up')
    reader.get("/")
    assert logged(serving) == []


def test_the_cookie_is_out_of_reach_for_scripts_and_other_sites(client: httpx.Client) -> None:
    cookie = client.get("/me").headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "path=/" in cookie


def test_another_site_can_press_no_button(reader: httpx.Client, serving: Serving) -> None:
    one = cards(page(reader, "/"))[0]
    for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
        assert press(reader, one, "like", headers=headers).status_code == 403
    assert "like" not in {event.type for event in logged(serving)}


def test_a_person_can_take_their_data_along_and_be_forgotten(reader: httpx.Client, serving: Serving) -> None:
    press(reader, cards(page(reader, "/"))[0], "like")
    reader.post("/me", data={"topic": ["opera"], "language": ["en"], "window": "3", "length": "endless"})
    own = reader.get("/me/export").json()
    assert (own["choices"]["topics"], own["choices"]["window_days"]) == (["opera"], 3)
    assert [event["type"] for event in own["events"]][-1] == "like"
    asked = page(reader, "/me/forget").xpath("//main//form")[0]
    assert logged(serving), "asking forgets nothing"
    assert reader.post(asked.get("action")).status_code == 200
    assert logged(serving) == []
    assert reader.get("/me/export").json()["events"] == []


@pytest.mark.parametrize(
    "choices", [{"window": "many"}, {"window": "0"}, {"length": "ration", "ration": "-1"}, {"topic": "x" * 300}]
)
def test_choices_that_can_not_be_are_refused(reader: httpx.Client, choices: dict[str, str]) -> None:
    answer = reader.post("/me", data=choices)
    assert (answer.status_code, "<nav" in answer.text) == (400, True)


def test_on_an_open_server_only_owners_change_the_sources(open_data: Callable[..., Any], serve: Any) -> None:
    with open_data(ServerParams(names=("palate.example",))) as serving, serve(create_app({"": serving})) as client:
        client.get("/me")
        adding = partial(client.post, "/sources/add", data={"feed": "https://a.example/feed"})
        assert adding().status_code == 403
        assert client.get("/training?person=ann").status_code == 403
        assert "Add one" not in client.get("/sources").text
        client.post(login(client, serving, "ann"))
        assert adding().status_code == 403
        client.post("/logout")
        client.post(login(client, serving, "eve", owner=True))
        assert adding().status_code == 303
        assert client.get("/training?person=ann").status_code == 200


# Training


def add_cycle(
    serving: Serving, kind: str, version: str | None, losses: list[float], reason: str = "it was time"
) -> None:
    row = {"kind": kind, "reason": reason, "started": 1_700_000_000_000, "seconds": 1.5, "seq": 9, "examples": 1234}
    row |= {"version": version, "loss": 0.21, "prior_loss": 0.25, "warm": int(kind != "full")}
    with writing(serving.engine) as connection:
        connection.execute(sa.insert(database.cycles).values(**row, losses=np.array(losses, np.float32).tobytes()))


def test_the_loss_shows_each_restart(reader: httpx.Client, serving: Serving) -> None:
    add_cycle(serving, "full", "1", [0.5, 0.4, 0.25])
    add_cycle(serving, "incremental", "2", [0.125])
    add_cycle(serving, "full", None, [0.5, float("nan")], reason="refused: <worse> than the prior")
    shown = page(reader, "/training")
    drawn = json.loads(shown.xpath("//*[@id='loss-data']")[0].text)
    assert drawn["full"] == [0.5, 0.4, 0.25, None, 0.5, None]
    assert drawn["incremental"] == [None, None, None, 0.125, None, None]
    assert drawn["restarts"] == [0, 4]
    assert len(shown.xpath("//*[@id='loss-chart']//*[@class='restart']")) == 2, "it is drawn without JavaScript too"
    rows = [row.text_content() for row in shown.xpath("//tbody/tr")]
    assert ["refused" in row for row in rows] == [True, False, False]
    assert "<worse>" in rows[0]


def test_how_good_each_model_was_on_what_it_had_not_learned_is_told(reader: httpx.Client, serving: Serving) -> None:
    ranked = {"held_out": 40, "people": 9, "ndcg": 0.125, "popularity_ndcg": 0.25, "worse": True}
    quality = {"fm": {"loss": 0.21, "prior_loss": 0.25, "held_out": 30}, "ials": ranked, "ease": {"held_out": 0}}
    models = {"popularity": {"mean": 0.5, "strength": 4.0}}
    header = {"created": 1_700_000_000_000, "seq": 0, "rule": "votes", "models": models, "quality": quality}
    whole, half = np.zeros(0, np.int64), np.zeros(0, np.float16)
    arrays: dict[str, NDArray[Any]] = {"users": whole, "items": whole, "history_items": whole, "history_labels": half}
    arrays |= {"popularity": half, "popularity_evidence": half, "history_offsets": np.zeros(1, np.int64)}
    snapshots.publish(serving.data / "snapshots", header, arrays)
    serving.live.refresh(utc_now())
    shown = page(reader, "/training").xpath("//section[@aria-labelledby='models']//tbody/tr")
    assert [[cell.text_content() for cell in row] for row in shown] == [
        ["fm", "loss", "0.2100", "0.2500", "30", ""],
        ["ials", "nDCG@10", "0.1250", "0.2500", "40", "worse than popularity: not served"],
    ]


def test_the_count_above_the_threshold_is_that_of_the_scores(reader: httpx.Client) -> None:
    shown = page(reader, "/training?threshold=0.3")
    drawn = json.loads(shown.xpath("//*[@id='score-data']")[0].text)
    scores = [score for column in ("score", "served") for score in drawn[column] if score is not None]
    assert len(scores) == len(drawn["age"]) == 50
    assert len([mark for mark in drawn["served"] if mark is not None]) == 20
    for at in range(101):
        assert drawn["above"][at] == sum(int(100 * score) >= at for score in scores)
    assert shown.xpath("//*[@id='above']")[0].text == str(drawn["above"][30])
    assert len(shown.xpath("//*[@id='score-chart']//circle")) == 50


@pytest.mark.parametrize("query", ["threshold=x", "threshold=nan", "threshold=-5", "threshold=7", "person=nobody"])
def test_training_takes_any_question(reader: httpx.Client, query: str) -> None:
    assert reader.get(f"/training?{query}").status_code == 200


def test_an_installation_that_never_learned_says_so(client: httpx.Client) -> None:
    assert "No training yet" in client.get("/training").text


# Under a prefix


def test_every_link_keeps_to_its_installation(data: Path, tmp_path: Path, serve: Any) -> None:
    params = ServingParams(feed=FeedParams())
    with (
        open_serving(data, None, params, sample=True) as sample,
        open_serving(tmp_path / "own", None, params) as own,
        serve(create_app({"": sample, "/own": own})) as client,
    ):
        assert '"/own/start"' in client.get("/start").text, "the sample leads to one's own"
        item = {"id": "i", "title": "T", "text": "x", "source": "s", "labels": ["a"]}
        client.post("/own/v1/items", json=[item])
        client.get("/own/me")
        for path in ("/", "/start", "/sources", "/training", "/me", "/saved", "/item/i", "/me/forget", "/nothing"):
            tree = lxml.html.fromstring(client.get(f"/own{path}").text)
            links = [str(link) for link in tree.xpath("//@href|//@src|//@action|//@hx-get|//@hx-post")]
            strays = [link for link in links if link.startswith("/") and not link.startswith("/own/")]
            assert set(strays) <= {"/"}, f"{path} leads out by {strays}"
        press(client, cards(page(client, "/own/?again=1"))[0], "like")
        assert [event.type for event in logged(own)] == ["shown", "like"]
        assert logged(sample) == []


def test_what_pages_load_is_kept_by_browsers_until_it_changes(client: httpx.Client) -> None:
    links = [str(link) for link in page(client, "/start").xpath("//link/@href|//script/@src")]
    assert len(links) == 4
    for link in links:
        answer = client.get(link)
        assert (answer.status_code, "immutable" in answer.headers["cache-control"]) == (200, True), link
    assert "immutable" not in client.get("/static/palate.css?v=old").headers["cache-control"]
    for path in ("/static/base.html", "/static/../web.py", "/static/starter.toml"):
        assert client.get(path).status_code == 404
