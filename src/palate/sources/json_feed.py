"""JSON Feed, versions 1 and 1.1, as forgivingly as it is written: a field of the wrong type counts as absent."""

from __future__ import annotations

from typing import Any

import msgspec

from palate.domain import Media
from palate.errors import NotAFeed
from palate.sources.entries import Entry, media_type, parse_duration, parse_time, text_to_html, web_address


def read_json_feed(text: str, address: str) -> tuple[dict[str, str | None], list[Entry]]:
    """The feed's own `title`, `site` and `language`, and its entries. Raises NotAFeed when the JSON is no JSON Feed."""
    try:
        feed = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise NotAFeed("The address gives broken JSON, not a feed.") from error
    if not isinstance(feed, dict) or not isinstance(feed.get("items"), list):
        raise NotAFeed("The address gives JSON, but no JSON Feed: it has no list of items.")
    about = {name: _text(feed.get(key)) for name, key in _ABOUT.items()}
    base = web_address(about["site"], address) or address
    author = _author(feed)
    return about, [_entry(item, base, author) for item in feed["items"] if isinstance(item, dict)]


_ABOUT = {"title": "title", "site": "home_page_url", "language": "language"}


def _entry(item: dict[str, Any], base: str, feed_author: str | None) -> Entry:
    return Entry(
        guid=_text(item.get("id")),
        link=_link(item.get("url")) or _link(item.get("external_url")),
        title=_text(item.get("title")),
        text=_html(item),
        base=web_address(_link(item.get("url")), base) or base,
        author=_author(item) or feed_author,
        published=parse_time(_text(item.get("date_published"))) or parse_time(_text(item.get("date_modified"))),
        language=_text(item.get("language")),
        duration=next(filter(None, (parse_duration(one.get("duration_in_seconds")) for one in _attached(item))), None),
        media=_media(item),
        labels=tuple(filter(None, map(_text, _list(item.get("tags"))))),
    )


def _text(value: object) -> str | None:
    """A text, or a number in its place (ids often are); None for everything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return str(value) or None


def _link(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _html(item: dict[str, Any]) -> str | None:
    markup = _text(item.get("content_html"))
    words = _text(item.get("content_text")) or _text(item.get("summary"))
    return markup or (text_to_html(words) if words else None)


def _author(holder: dict[str, Any]) -> str | None:
    named = [*_list(holder.get("authors")), holder.get("author")]  # 1.1 has a list, 1 a single one
    names = (_text(one.get("name")) for one in named if isinstance(one, dict))
    return ", ".join(dict.fromkeys(filter(None, names))) or None


def _attached(item: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in _list(item.get("attachments")) if isinstance(one, dict)]


def _media(item: dict[str, Any]) -> tuple[Media, ...]:
    picture = _link(item.get("image")) or _link(item.get("banner_image"))
    found = [Media(url=picture)] if picture else []
    for one in _attached(item):
        url = _link(one.get("url"))
        type = media_type(_text(one.get("mime_type")), url or "")
        if url and type:
            found.append(msgspec.convert({"url": url, "type": type}, Media))
    return tuple(found)
