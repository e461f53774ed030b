"""A post as a message: always within Telegram's limits and well formed, whatever its source wrote."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from bot_world import BEGINNING, post
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palate import chats
from palate.database import writing
from palate.delivery.bot_cards import Post, link_call, post_buttons, post_text
from palate.delivery.bot_params import BotParams
from palate.delivery.bot_talk import Desk, Talk
from palate.delivery.context import ServingParams, open_serving
from palate.delivery.metrics import Metrics
from palate.domain import Item
from palate.loopback.bot_api_rules import MAX_TEXT, read_html, units

MARKUP = "<b>" * 900 + "&amp;" * 200 + "🐈" * 4096 + "</b>" * 300


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Talk]:
    """Somebody who talks with the bot."""
    data = tmp_path_factory.mktemp("cards")
    shutil.copy(sqlite_template, data / "palate.sqlite")
    with open_serving(data, None, ServingParams()) as serving:
        with writing(serving.engine) as connection:
            chat, _ = chats.meet(connection, 1, "en", BEGINNING)
        yield Talk(Desk(serving, BotParams(), "palate_bot"), chat, BEGINNING, "test")


def test_what_a_source_wrote_is_text_and_not_markup(talk: Talk) -> None:
    item = Item(id="tg:1:2", title="1 < 2 & <b>3", url='https://t.me/a/1?"><b>', source="<i>Cats</i>")
    plain = read_html(post_text(talk, Post(7, item, "<i>Cats</i> & dogs", why="why_liked")))
    assert plain.text.split("\n") == ["1 < 2 & 3", "Cats & dogs", "near what you liked"]
    assert plain.links == ('https://t.me/a/1?"><b>',)


def test_a_post_without_a_link_is_shown_by_its_text_and_no_other_is(talk: Talk) -> None:
    without = Item(id="a", title="Title", text="<p>All <b>of</b> it</p>", source="mine")
    assert read_html(post_text(talk, Post(7, without, None))).text == "Title\nAll of it\nmine"
    linked = Item(id="a", title="Title", text="<p>All of it</p>", url="https://example.org/1", source="mine")
    assert "All of it" not in post_text(talk, Post(7, linked, None))
    preview = link_call(talk, Post(7, linked, None), 3).fields["link_preview_options"]
    assert preview["url"] == "https://example.org/1"


@pytest.mark.parametrize("url", [None, "javascript:alert(1)", "https://t.me/a/1"])
@pytest.mark.parametrize("text", [MARKUP, "x" * 200_000, "", None])
def test_a_huge_post_fits(talk: Talk, url: str | None, text: str | None) -> None:
    item = Item(id="i" * 200, title=(text or "")[:500] or None, text=text, url=url, source="s" * 200)
    plain = read_html(post_text(talk, Post(7, item, MARKUP, why="why_ask", also=(MARKUP,) * 9)))
    assert 0 < units(plain.text) <= MAX_TEXT


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=100))
def test_any_text_is_well_formed(talk: Talk, title: str, text: str, name: str) -> None:
    plain = read_html(post_text(talk, Post(7, Item(id="a", title=title, text=text), name)))
    assert units(plain.text) <= MAX_TEXT


def test_the_buttons_of_the_largest_keys_fit(talk: Talk) -> None:
    rows = post_buttons(talk, Post(2**63 - 1, post(1), "Cats", request="f" * 32), 2**63 - 1, {"like", "dislike"}, True)
    assert all(len(button.get("callback_data", "").encode()) <= 64 for row in rows for button in row)
    assert [button["text"] for button in rows[0]] == ["👍 ✓", "👎 ✓"]
    assert rows[1][1]["text"].startswith("👁")


def test_the_bots_own_sums_become_counters() -> None:
    metrics = Metrics()
    metrics.count_bot_sends({"sent": 3})
    metrics.count_bot_sends({"sent": 5, "failed": 1})
    told = metrics.render().decode()
    assert 'palate_bot_sends_total{result="sent"} 5.0' in told
    assert 'palate_bot_sends_total{result="failed"} 1.0' in told
