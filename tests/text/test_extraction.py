from __future__ import annotations

import msgspec
import pytest

from palate.domain import Item
from palate.text.extraction import article, is_stub

LONG = "A sentence that says something. " * 30
PAGE = f"""<html><head><title>Site</title></head><body><nav><a href="/">Home</a><a href="/all">All news</a></nav>
<article><h1>Heading</h1><p>{LONG}<a href="/more">a link</a></p><p><img src="/p.jpg" alt="A picture"></p><p>{LONG}</p></article>
<aside>Subscribe to our newsletter</aside><footer>All rights reserved</footer></body></html>"""


def announcement(**fields: object) -> Item:
    return msgspec.structs.replace(Item(id="1", url="https://site.example/1", kind="article"), **fields)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "<p>Too short to be all.</p>",
        f"<p>{LONG} and so on…</p>",
        f"<p>{LONG} [...]</p>",
        f'<p>{LONG}</p><p><a href="/1">Read more »</a></p>',
        f"<p>{LONG} Continue reading →</p>",
        f"<p>{LONG} Читать далее</p>",
        f"<p>{LONG} …</p><p>The post Heading appeared first on Site.</p>",
    ],
)
def test_announcements_are_stubs(text: str | None) -> None:
    assert is_stub(announcement(text=text))


def test_whole_articles_are_no_stubs() -> None:
    assert not is_stub(announcement(text=f"<p>{LONG}</p>"))
    assert not is_stub(announcement(text=f"<p>{LONG}</p><p>The post Heading appeared first on Site.</p>"))


def test_items_that_have_no_article_behind_them_are_no_stubs() -> None:
    assert not is_stub(announcement(url=None))
    assert not is_stub(announcement(kind="video"))
    assert not is_stub(announcement(kind="picture"))


def test_an_article_comes_without_what_surrounds_it() -> None:
    found = article(PAGE, "https://site.example/news/1")
    assert found is not None
    assert found.count("A sentence that says something.") == 60
    assert 'href="https://site.example/more"' in found
    assert 'src="https://site.example/p.jpg"' in found
    for surrounding in ("All news", "newsletter", "rights reserved"):
        assert surrounding not in found


@pytest.mark.parametrize("page", ["", "<html></html>", "\x00\ud800", "<div>" * 20_000])
def test_a_page_without_an_article_gives_nothing(page: str) -> None:
    assert article(page, "https://site.example/") is None
