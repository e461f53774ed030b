"""From what a person types to the feeds that are meant: an address of a feed, of a page, or a bare name of a site."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urljoin

from palate.errors import FetchFailed, FetchRefused, NotAFeed, SourceError
from palate.sources import syndication
from palate.sources.addresses import parse_address
from palate.sources.decoding import decode
from palate.sources.entries import plain, web_address
from palate.sources.fetching import Answer, Fetcher

USUAL_PATHS = ("/feed", "/rss.xml", "/atom.xml", "/feed.xml", "/index.xml", "/rss", "/feed.json")
MAX_FEEDS = 20
_FEED_TYPES = (
    "application/rss+xml",
    "application/atom+xml",
    "application/rdf+xml",
    "application/feed+json",
    "application/json",
    "application/xml",
    "text/xml",
)
_HEAD = 300_000  # characters of a page in which its <link>s are looked for


@dataclass(frozen=True)
class FoundFeed:
    """A feed, and its own or its link's title; None when it has none."""

    address: str
    title: str | None


def find_feeds(address: str, fetcher: Fetcher) -> list[FoundFeed]:
    """The feeds behind an address, the site's first choice first; never empty.

    That is the address itself when it is a feed, else what the page links to as its feeds, else what answers under the usual
    paths. A name without a scheme is tried by https and then by http. Raises NotAFeed when there is none, and the SourceError
    that kept us from looking.
    """
    answer = _first_answer(address.strip(), fetcher)
    try:
        return [_as_feed(answer, fetcher)]
    except NotAFeed:
        linked = list(_linked(answer))
    found = linked or list(_guessed(answer.address, fetcher))
    if not found:
        raise NotAFeed(
            f"{parse_address(answer.address).host} names no feed: look for the address of its RSS or Atom feed."
        )
    return found[:MAX_FEEDS]


def _first_answer(typed: str, fetcher: Fetcher) -> Answer:
    if "://" in typed:
        scheme, _, rest = typed.partition("://")
        return fetcher.get(f"https://{rest}" if scheme.lower() == "feed" else typed, accept=syndication.ACCEPT)
    typed = typed.removeprefix("feed:").lstrip("/")
    try:
        return fetcher.get(f"https://{typed}", accept=syndication.ACCEPT)
    except FetchRefused:
        raise
    except FetchFailed as error:
        if error.status is not None:
            raise
        return fetcher.get(f"http://{typed}", accept=syndication.ACCEPT)


def _as_feed(answer: Answer, fetcher: Fetcher) -> FoundFeed:
    feed = syndication.parse(answer.body, answer.content_type, answer.address, fetcher.clock())
    return FoundFeed(answer.permanent_address or answer.address, feed.title)


def _linked(answer: Answer) -> Iterator[FoundFeed]:
    """Feeds that a page names by <link rel="alternate">, each once."""
    from lxml import etree

    text = decode(answer.body, answer.content_type)[:_HEAD]
    if not text.strip():
        return
    parser = etree.HTMLParser(no_network=True, encoding="utf-8", huge_tree=False)
    root = etree.fromstring(text.encode("utf-8", "replace"), parser)
    if root is None:
        return
    base = urljoin(answer.address, next(iter(root.xpath("//base/@href")), ""))
    seen = set()
    for link in root.iter("link"):
        rel, type = (link.get("rel") or "").lower().split(), (link.get("type") or "").partition(";")[0].strip().lower()
        address = web_address(link.get("href"), base)
        if address and address not in seen and "alternate" in rel and type in _FEED_TYPES:
            seen.add(address)
            yield FoundFeed(address, plain(link.get("title"), 200))


def _guessed(address: str, fetcher: Fetcher) -> Iterator[FoundFeed]:
    for path in USUAL_PATHS:
        try:
            answer = fetcher.get(urljoin(address, path), accept=syndication.ACCEPT)
            yield _as_feed(answer, fetcher)
            return  # the others are nearly always the same feed in another dress
        except SourceError:
            continue
