"""The pages in a real Chromium: what scripts add, what keys do, and how it looks at every width."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import uvicorn

from palate import catalog, cycle, events, identities, ingest, labels
from palate.database import reading, writing
from palate.delivery.application import configuration, create_app
from palate.delivery.context import ServerParams, Serving, ServingParams, open_serving, utc_now
from palate.domain import Event, Item, Media
from palate.evaluation import simulation

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the PATH")

ARGUMENTS = [
    "--no-sandbox",
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

KINDS = ("opera", "rowing", "compilers", "bread")
PICTURES = "https://pictures.example"
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="640" height="360"><rect width="640" height="360" fill="#777"/></svg>'
PAGES = ("/", "/start", "/sources", "/training", "/me", "/stories", "/saved", "/item/opera-0", "/labels")


def items(now: datetime) -> list[Item]:
    """80 of each kind from two sources each, in no order of time; some with a picture, some are films."""
    made = []
    for at, kind in enumerate(KINDS):
        for n in range(80):
            media = (Media(url=f"{PICTURES}/{kind}-{n}.svg"),) if n % 4 == 0 else ()
            made.append(
                Item(
                    id=f"{kind}-{n}",
                    title=f"What is new about {kind}, part {n}",
                    text=f"<p>Somebody thought about {kind} for a while and found {n} things to say.</p>",
                    url=f"https://news.example/{kind}/{n}",
                    source=f"{kind} {n % 2}",
                    published=now - timedelta(minutes=4 * n + at),
                    kind="video" if n % 8 == 0 else "article",
                    media=media,
                    labels=(kind,),
                    language="en",
                    license="CC BY 4.0" if n % 3 == 0 else None,
                )
            )
    return made


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Serving]]:
    """A real server of an installation where simulated readers read and a model has learned from them."""
    data, now = tmp_path_factory.mktemp("browser"), utc_now()
    with open_serving(data, None, ServingParams()) as serving:
        fill(serving, data, now)
        server = uvicorn.Server(configuration(create_app({"": serving}), ServerParams(port=0)))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the server has to start"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", serving
        server.should_exit = True
        thread.join()


def fill(serving: Serving, data: Path, now: datetime) -> None:
    made, rng = items(now), np.random.default_rng(3)
    with writing(serving.engine) as connection:
        catalog.upsert(connection, made, now)
        happened = simulation.simulate(made, simulation.readers(rng, 40, made), rng, now, 3)
        events.append(connection, happened, now)
    assert cycle.run_cycle(serving.engine, data, cycle.Params(), now).version is not None
    serving.live.refresh(now)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@dataclass
class Tab:
    """A page of a person's browser, with what went wrong in it and whom it asked."""

    page: Page
    faults: list[str] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)


@pytest.fixture
def open_tab(browser: Browser, served: tuple[str, Serving]) -> Iterator[Any]:
    """Opens a browser of somebody new, who was here once; in the end nothing may have gone wrong in it."""
    contexts: list[BrowserContext] = []
    tabs: list[Tab] = []

    def open_tab(**options: Any) -> Tab:
        context = browser.new_context(base_url=served[0], **options)
        context.set_default_timeout(10_000)
        contexts.append(context)
        context.route(f"{PICTURES}/**", lambda route: route.fulfill(body=SVG, content_type="image/svg+xml"))
        context.route(
            "https://news.example/**", lambda route: route.fulfill(body="<h1>elsewhere</h1>", content_type="text/html")
        )
        tab = Tab(context.new_page())
        tab.page.on("console", lambda said: tab.faults.append(said.text) if said.type in ("error", "warning") else None)
        tab.page.on("pageerror", lambda error: tab.faults.append(str(error)))
        tab.page.on("request", lambda request: tab.asked.add("/".join(request.url.split("/")[:3])))
        tab.page.goto("/me")
        tabs.append(tab)
        return tab

    yield open_tab
    for tab in tabs:
        assert tab.faults == []
        assert tab.asked <= {served[0], PICTURES, "https://news.example"}
    for context in contexts:
        context.close()


def happened(served: tuple[str, Serving], *types: str) -> list[Event]:
    """The events of these types that a browser caused."""
    serving = served[1]
    log = (event for batch in events.stream(serving.engine, serving.data / "events") for event in batch)
    return [event for event in log if event.type in types and event.user.startswith("anonymous-")]


def share(page: Page, kind: str, count: int = 20) -> float:
    """Share of a kind among the first cards."""
    ids = page.eval_on_selector_all(".card", "cards => cards.map(card => card.dataset.item)")[:count]
    assert len(ids) == count
    return len([id for id in ids if str(id).startswith(kind)]) / count


def wait_for_vote(page: Page, card: str, act: str, pressed: str = "true") -> None:
    page.wait_for_selector(f"{card} button[data-act={act}][aria-pressed={pressed}]")


def test_five_likes_of_one_kind_bend_the_next_page(open_tab: Any) -> None:
    page = open_tab().page
    page.goto("/")
    before = share(page, "bread")
    liked = 0
    while liked < 5:
        for id in page.eval_on_selector_all(".card", "cards => cards.map(card => card.id + ' ' + card.dataset.item)"):
            anchor, item = id.split()
            if item.startswith("bread") and liked < 5:
                page.click(f"#{anchor} button[data-act=like]")
                wait_for_vote(page, f"#{anchor}", "like")
                liked += 1
        if liked < 5:
            page.reload()
    page.goto("/")
    assert share(page, "bread") > before


def test_a_whole_visit_by_keyboard(open_tab: Any, served: tuple[str, Serving]) -> None:
    page = open_tab().page
    page.goto("/")
    focused = "document.activeElement.id"
    ids = page.eval_on_selector_all(".card", "cards => cards.map(card => card.id)")
    page.keyboard.press("j")
    assert page.evaluate(focused) == ids[0]
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    assert page.evaluate(focused) == ids[1]
    for key, act in (("l", "like"), ("s", "save"), ("d", "dislike")):
        page.keyboard.press(key)
        wait_for_vote(page, f"#{ids[1]}", act)
    wait_for_vote(page, f"#{ids[1]}", "like", "false")
    page.keyboard.press("u")
    wait_for_vote(page, f"#{ids[1]}", "dislike", "false")
    page.wait_for_function(f"document.activeElement.closest('.card').id == '{ids[1]}'")
    page.keyboard.press("?")
    assert page.is_visible("#help")
    page.keyboard.press("Escape")
    assert not page.is_visible("#help")
    page.keyboard.press("o")
    page.wait_for_url("https://news.example/**")
    page.go_back()
    page.wait_for_selector(f"#{ids[1]}")
    assert page.eval_on_selector_all(".card", "cards => cards.map(card => card.id)")[:20] == ids, "the place is kept"
    assert "opened" in {event.type for event in happened(served, "opened")}


def test_buttons_keep_the_focus_when_they_are_pressed(open_tab: Any) -> None:
    page = open_tab().page
    page.goto("/")
    page.focus(".card button[data-act=save]")
    page.keyboard.press("Enter")
    wait_for_vote(page, ".card", "save")
    page.wait_for_function("document.activeElement.dataset.act == 'save'")


def test_scrolling_goes_on_without_an_end_and_reports_what_was_seen(open_tab: Any, served: tuple[str, Serving]) -> None:
    page = open_tab().page
    page.goto("/")
    first = page.get_attribute(".card", "data-item")
    page.wait_for_timeout(1100)
    for count in (20, 40):
        page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
        page.wait_for_function("count => document.querySelectorAll('.card').length > count", arg=count)
    ids = page.eval_on_selector_all(".card", "cards => cards.map(card => card.dataset.item)")
    assert len(ids) == len(set(ids)) >= 60
    page.goto("/me")
    viewed: list[Event] = []
    for _ in range(100):  # what a page says when it goes comes by itself, a moment later
        viewed = [event for event in happened(served, "viewed") if event.item == first]
        if viewed:
            break
        page.wait_for_timeout(50)
    assert viewed
    assert viewed[-1].value is not None
    assert 1 <= viewed[-1].value < 60
    assert viewed[-1].request is not None


def test_without_javascript_a_like_and_the_next_page_work(open_tab: Any) -> None:
    page = open_tab(java_script_enabled=False).page
    page.goto("/")
    ids = [card.get_attribute("id") for card in page.query_selector_all(".card")]
    page.click(f"#{ids[4]} button[data-act=like]")
    assert page.url.endswith(f"#{ids[4]}")
    assert page.get_attribute(f"#{ids[4]} button[data-act=like]", "aria-pressed") == "true"
    assert [card.get_attribute("id") for card in page.query_selector_all(".card")] == ids
    page.goto("/")
    before = {card.get_attribute("id") for card in page.query_selector_all(".card")}
    page.click(".more a")
    after = {card.get_attribute("id") for card in page.query_selector_all(".card")}
    assert len(after) == 20
    assert not before & after
    page.goto("/training")
    assert page.is_visible("#loss-chart svg polyline")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_every_page_fits_its_screen_and_can_be_read(open_tab: Any, scheme: str, width: int) -> None:
    page = open_tab(color_scheme=scheme, viewport={"width": width, "height": 800}).page
    for path in PAGES:
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} scrolls sideways"
        assert page.evaluate(CONTRAST) == [], path


CONTRAST = """() => {
  const parse = (color) => (color.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const bad = [];
  for (const element of document.querySelectorAll("main *, .banner *, .foot *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    const style = getComputedStyle(element);
    if (!own || style.color.startsWith("color") || element.closest(".play, .length, svg, script, .chart, .unseen")) continue;
    const [a, b] = [light(parse(style.color)), light(ground(element))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) bad.push(`${element.tagName} ${element.textContent.trim().slice(0, 40)} ${style.color}`);
  }
  return bad;
}"""


def test_pictures_move_nothing_when_they_come(open_tab: Any) -> None:
    page = open_tab().page
    page.add_init_script(
        "window.shift = 0; new PerformanceObserver((list) => { for (const e of list.getEntries()) if (!e.hadRecentInput)"
        " window.shift += e.value; }).observe({ type: 'layout-shift', buffered: true });"
    )
    page.goto("/?again=" + ".".join(str(key) for key in range(1, 30, 4)))
    page.wait_for_function("[...document.images].some((image) => image.naturalWidth > 0)")
    assert page.evaluate("window.shift") < 0.02


def test_the_threshold_moves_the_count(open_tab: Any) -> None:
    page = open_tab().page
    page.goto("/training")
    page.wait_for_selector("#score-chart canvas")
    page.wait_for_selector("#loss-chart canvas")
    above = json.loads(page.text_content("#score-data") or "")["above"]
    middle = next(at for at, count in enumerate(above) if count < above[0])
    counts = []
    for threshold in (0, middle, 100):
        page.eval_on_selector(
            "#threshold", f"e => {{ e.value = {threshold / 100}; e.dispatchEvent(new Event('input')); }}"
        )
        counts.append(int(page.inner_text("#above").replace(",", "")))
    assert counts == [len(KINDS) * 80, above[middle], above[100]]
    assert counts[0] > counts[1] >= counts[2]


def test_hiding_and_sharing_from_the_card(open_tab: Any) -> None:
    tab = open_tab(permissions=["clipboard-read", "clipboard-write"])
    page = tab.page
    page.goto("/")
    page.click(".card button[data-act=share]")
    page.wait_for_selector(".toast:not(:empty)")
    assert page.evaluate("navigator.clipboard.readText()").startswith("https://news.example/")
    page.click(".card .acts summary")
    page.click(".card .acts details button[value=hide]")
    page.wait_for_selector(".card .said")
    assert "is hidden" in page.inner_text(".card .said")


def test_texts_are_labelled_by_keys_alone(open_tab: Any, served: tuple[str, Serving]) -> None:
    _, serving = served
    with reading(serving.engine) as connection:
        keys = identities.item_keys(connection, ["opera-1", "rowing-1"], None).values()
    assert ingest.understand_some(serving.engine, utc_now(), keys) == 2
    tab = open_tab().page
    tab.goto("/labels")
    for key, said in (("4", "sports"), ("n", "not news")):
        with tab.expect_navigation():
            tab.keyboard.press(key)
        assert f": {said}." in tab.locator("[role=status]").first.inner_text()
    assert "Nothing to ask" in tab.locator("main").inner_text()
    with reading(serving.engine) as connection:
        assert [one.value for one in labels.answers(connection, "category")] == ["sports", "not_news"]
