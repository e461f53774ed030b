"""Which sites link to which: counted once an item, bounded, gone with time; and what that makes of their weights."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from palate import ingest, source_links
from palate.database import reading, writing
from palate.domain import Item
from palate.source_links import SourceRanks
from palate.stories.sources import SourceParams

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
PARAMS = SourceParams()


def item(id: str, url: str | None, *links: str, days: float = 0, text: str = "") -> Item:
    body = "".join(f'<p>See <a title="x" href="{link}">there</a></p>' for link in links)
    return Item(id=id, url=url, title=f"News {id}", text=text or body or None, published=NOW - days * DAY)


def stored(
    engine: sa.Engine, *items: Item, now: datetime = NOW, keep_text: bool = True
) -> dict[tuple[str, str], float]:
    ingest.store_items(engine, items, now, understand=False, keep_text=keep_text)
    return links(engine, now)


def links(engine: sa.Engine, now: datetime = NOW, days: float = 14) -> dict[tuple[str, str], float]:
    with reading(engine) as connection:
        return source_links.links(connection, now - days * DAY)


@pytest.mark.parametrize(
    ("address", "site"),
    [
        ("https://www.Example.org:80/a?b", "example.org"),
        ("https://t.me/s/Durov/5", "t.me/durov"),
        ("https://telegram.me/durov", "t.me/durov"),
        ("https://t.me/+AbCdEfGhIjK", "t.me"),
        ("https://xn--80aaxitdbjk.xn--p1ai/", "xn--80aaxitdbjk.xn--p1ai"),
        ("https://президент.рф/1", "президент.рф"),
        ("https://localhost/", None),
        ("https://a\x00b.example/", None),
        ("mailto:a@b.example", None),
        ("/relative", None),
        (None, None),
    ],
)
def test_the_site_of_an_address(address: str | None, site: str | None) -> None:
    assert source_links.site(address) == site


def test_hosts_that_somebody_else_found_are_sites_but_for_those_of_channels() -> None:
    found = source_links.of_hosts(["b.example", "a.example", "t.me", "www.b.example", "nowhere"], "a.example")
    assert found == ["b.example"]


def test_what_a_text_links_to() -> None:
    html = (
        '<p><a href="https://x.example/?a=1&amp;b">x</a> <img src="https://picture.example/1.png"> https://bare.example '
        '<a href="https://x.example/2">x</a> <a href="https://own.example/">us</a> <a href="#top">up</a></p>'
    )
    assert source_links.linked(html, "own.example") == ["x.example"]
    assert source_links.linked("See https://bare.example/1 and http://b.example.", None) == [
        "bare.example",
        "b.example",
    ]
    many = " ".join(f"https://h{n}.example" for n in range(99))
    assert source_links.linked(many, None) == [f"h{n}.example" for n in range(20)]


@given(st.text(st.sampled_from('<a href="https://x.ex/.:@&;t.me\x00\ud800é'), max_size=60))
def test_any_text_can_be_looked_at(text: str) -> None:
    assert all("/" not in site or site.startswith("t.me/") for site in source_links.linked(text, None))


def test_an_item_counts_once_however_often_it_comes(engine: sa.Engine) -> None:
    first = item("1", "https://a.example/1", "https://b.example/", "https://c.example/x", "https://b.example/2")
    expected = {("a.example", "b.example"): 1, ("a.example", "c.example"): 1}
    assert stored(engine, first) == expected
    assert stored(engine, first, now=NOW + DAY) == expected
    again = item("2", "https://www.a.example/2", "https://b.example/", days=1)
    assert stored(engine, again)[("a.example", "b.example")] == 2


def test_without_an_address_of_its_own_an_item_links_from_nowhere(engine: sa.Engine) -> None:
    assert stored(engine, item("1", None, "https://b.example/")) == {}


def test_links_of_texts_that_are_not_kept_count(engine: sa.Engine) -> None:
    channel = item("1", "https://t.me/alpha_news/1", "https://t.me/betanews/7")
    assert stored(engine, channel, keep_text=False) == {("t.me/alpha_news", "t.me/betanews"): 1}


def test_links_expire_by_the_day_of_their_item(engine: sa.Engine) -> None:
    stored(engine, item("1", "https://a.example/1", "https://b.example/", days=10))
    stored(engine, item("2", "https://a.example/2", "https://c.example/", days=400))
    assert links(engine, days=14) == {("a.example", "b.example"): 1}
    assert links(engine, days=7) == {}
    stored(engine, item("3", "https://a.example/3", "https://d.example/", days=-30), now=NOW + 30 * DAY)
    assert links(engine, days=400) == {("a.example", "d.example"): 1}


def test_the_fewest_links_give_way_when_there_are_too_many(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_links, "MOST", 20)
    for n in (1, 2):
        stored(engine, item(f"real {n}", f"https://a.example/{n}", "https://b.example/"))
    for n in range(9):
        flood = [f"https://h{n}-{m}.example/" for m in range(9)]
        kept = stored(engine, item(f"flood {n}", f"https://flood.example/{n}", *flood))
        assert len(kept) <= 20
    assert kept[("a.example", "b.example")] == 2


def test_ranks_follow_the_links_after_a_while(engine: sa.Engine) -> None:
    ranks = SourceRanks(engine)

    def rises(minutes: float) -> bool:
        found = ranks.of(PARAMS, 14 * DAY, NOW + timedelta(minutes=minutes))
        told = source_links.weights(("https://b.example/1", "https://a.example/1", None), found, PARAMS)
        assert told["https://a.example/1"] == told[None] == 0
        return told["https://b.example/1"] > 0.2

    assert not rises(0)
    stored(engine, *(item(f"{n}", f"https://s{n}.example/", "https://b.example/") for n in range(20)))
    assert not rises(1)
    assert rises(11)


def test_news_hosts_are_known_without_any_link(engine: sa.Engine) -> None:
    with writing(engine) as connection:
        ranks = source_links.ranks(connection, PARAMS, NOW)
    found = source_links.weights(("https://www.nytimes.com/a", "https://nobody.example/b", None), ranks, PARAMS)
    assert list(found.values()) == [pytest.approx(found["https://www.nytimes.com/a"]), 0, 0]
    assert found["https://www.nytimes.com/a"] > 0.3
