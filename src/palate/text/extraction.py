"""The full text of an article out of its page, and whether an item needs that."""

from __future__ import annotations

import re

from palate.domain import Item
from palate.text.cleaning import to_plain

SHORT = 500
"""Characters of plain text below which an article with a page of its own is taken for an announcement of it."""

_APPEARED_FIRST = re.compile(r"\s*The post .{1,400} (?:appeared first|first appeared) on .{1,300}\Z", re.DOTALL)
_MORE = re.compile(
    r"(?:…|\.\.\.|\[(?:…|\.\.\.)\]|\b(?:(?:read|see|learn|find out)(?: the)?(?: full)? (?:more|article|story|post)|"
    r"(?:continue|keep) reading|читать (?:далее|дальше|полностью|ещё|еще)|подробнее|weiterlesen|mehr lesen|lire la suite|"
    r"leer más|continua a leggere))\W{0,10}\Z",
    re.IGNORECASE,
)


def is_stub(item: Item) -> bool:
    """Whether the text only announces what the item's page says in full: it is short, or it ends in `read more` or `…`.

    Films, sounds and pictures are no stubs: they are what the page is about. Nor is an item without an address.
    """
    if item.url is None or item.kind not in ("post", "article"):
        return False
    text = _APPEARED_FIRST.sub("", to_plain(item.text or "")).rstrip()
    return len(text) < SHORT or _MORE.search(text[-100:]) is not None


def article(html: str, address: str) -> str | None:
    """The article on a page as HTML, not yet sanitised; None when the page has none. Links are made whole by `address`."""
    import trafilatura

    found = trafilatura.extract(
        html,
        url=address,
        output_format="html",
        include_comments=False,
        include_formatting=True,
        include_images=True,
        include_links=True,
    )
    return found if found and to_plain(found) else None
