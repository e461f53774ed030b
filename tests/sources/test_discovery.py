from __future__ import annotations

from typing import Any

import pytest

from palate.errors import FetchFailed, FetchRefused, NotAFeed
from palate.sources.discovery import FoundFeed, find_feeds
from palate.sources.fetching import Fetcher, FetchParams

FEED = b"<rss version='2.0'><channel><title>The feed</title><item><title>x</title></item></channel></rss>"
PAGE = b"""<!DOCTYPE html><html><head><base href="/blog/"><title>A page</title>
<link rel=alternate type="application/rss+xml" href="a.xml" title="All &amp;amp; more">
<link rel="ALTERNATE nofollow" type="application/atom+xml; charset=utf-8" href="/b.xml">
<link rel="alternate" type="application/rss+xml" href="a.xml" title="again">
<link rel="alternate" type="text/html" hreflang="de" href="/de">
<link rel="alternate" type="application/rss+xml" href="javascript:alert(1)">
<link rel="stylesheet" type="text/xml" href="/s.xml"></head><body><p>unclosed"""


def test_the_address_of_a_feed_is_that_feed(site: Any, fetcher: Fetcher) -> None:
    site["/f"] = FEED
    assert find_feeds(site.address + "/f", fetcher) == [FoundFeed(site.address + "/f", "The feed")]


def test_a_feed_that_moved_for_good_is_found_at_its_new_address(site: Any, fetcher: Fetcher) -> None:
    site["/f"] = (308, {"Location": "/g"}, b"")
    site["/g"] = FEED
    assert find_feeds(site.address + "/f", fetcher) == [FoundFeed(site.address + "/g", "The feed")]


def test_a_page_names_its_feeds(site: Any, fetcher: Fetcher) -> None:
    site["/"] = PAGE
    assert find_feeds(site.address, fetcher) == [
        FoundFeed(site.address + "/blog/a.xml", "All & more"),
        FoundFeed(site.address + "/b.xml", None),
    ]


def test_usual_paths_are_tried_when_a_page_names_none(site: Any, fetcher: Fetcher) -> None:
    site["/page/"] = b"<html><body>hello</body></html>"
    site["/rss.xml"] = b"<html>not it</html>"
    site["/atom.xml"] = FEED
    assert find_feeds(site.address + "/page/", fetcher) == [FoundFeed(site.address + "/atom.xml", "The feed")]


@pytest.mark.parametrize("typed", ["{}/", "{}", " {}/ ", "feed:{}", "//{}"])
def test_an_address_without_a_scheme_is_understood(site: Any, fetcher: Fetcher, typed: str) -> None:
    site["/"] = FEED  # https is tried first, which this server doesn't speak
    assert find_feeds(typed.format(f"127.0.0.1:{site.port}"), fetcher)[0].title == "The feed"


@pytest.mark.parametrize(
    "page", [PAGE.replace(b"alternate", b"x").replace(b"ALTERNATE", b"x"), b"", b"\xff\xd8\xff", b"{}"]
)
def test_a_site_without_feeds_is_told_so(site: Any, fetcher: Fetcher, page: bytes) -> None:
    site["/"] = page
    with pytest.raises(NotAFeed, match=r"127\.0\.0\.1 names no feed"):
        find_feeds(site.address, fetcher)


def test_what_keeps_us_from_looking_is_told(site: Any, fetcher: Fetcher) -> None:
    with pytest.raises(FetchFailed, match="404"):
        find_feeds(site.address + "/nothing", fetcher)
    for typed in ("", "user:word@example.org", "file:///etc/passwd"):
        with pytest.raises(FetchRefused):
            find_feeds(typed, fetcher)
    with pytest.raises(FetchRefused, match="private network"):
        find_feeds(f"localhost:{site.port}", Fetcher(FetchParams(pause=0)))
