"""RSS 0.9x to 2.0, RSS 1.0 (RDF) and Atom, read by feedparser after the document has been mended."""

from __future__ import annotations

import calendar
import io
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import msgspec

from palate.domain import EPOCH, Media
from palate.errors import NotAFeed
from palate.sources.decoding import well_formed
from palate.sources.entries import Entry, media_type, parse_duration, parse_time, pixels, text_to_html, web_address

# RSS takes any guid for a link unless told otherwise; resolved like one, it would change when the feed moves.
_OPAQUE_GUID = re.compile(rb"<guid(?:\s[^<>]*)?>(?!\s*(?:<!\[CDATA\[)?\s*https?:)")
_YEAR_ZERO = re.compile(r"\b0000-|\s0000\s+\d\d?:")
_PERIODS = {"hourly": 3600, "daily": 86_400, "weekly": 604_800, "monthly": 2_592_000, "yearly": 31_536_000}


def read_xml_feed(document: str, address: str) -> tuple[dict[str, str | None], float | None, list[Entry]]:
    """The feed's own `title`, `site` and `language`; seconds it asks to be left alone; its entries.

    Raises NotAFeed when the document is neither a feed nor has entries.
    """
    data = well_formed(document)
    parsed = _parse(_OPAQUE_GUID.sub(b'<guid isPermaLink="false">', data), address) if data else {}
    if not dict.get(parsed, "version") and not dict.get(parsed, "entries"):
        raise NotAFeed("The address gives XML, but no feed.")
    feed = parsed["feed"]
    site = web_address(_site(feed), address)
    about = {"title": dict.get(feed, "title"), "site": site, "language": dict.get(feed, "language")}
    atom = str(parsed["version"]).startswith("atom")
    author = dict.get(feed, "author") if atom else None  # RSS names an editor of the whole feed there
    entries = [_entry(entry, address, (address if atom else site) or address, author) for entry in parsed["entries"]]
    return about, _pause(feed), entries


def _parse(data: bytes, address: str) -> Any:
    import feedparser

    headers = {"content-type": "application/xml; charset=utf-8", "content-location": address}
    try:
        # Sanitising is `text.cleaning`'s work, and resolving links ours: feedparser's own take much longer.
        return feedparser.parse(
            io.BytesIO(data), response_headers=headers, sanitize_html=False, resolve_relative_uris=False
        )
    except Exception as error:  # its handlers see hostile values unchecked, and may fail in any way
        raise NotAFeed(f"The address gives a feed that can't be read ({type(error).__name__}).") from error


def _site(feed: Any) -> str | None:
    links = (link for link in dict.get(feed, "links", []) if dict.get(link, "rel") == "alternate")
    return next((dict.get(link, "href") for link in links), None)


def _pause(feed: Any) -> float | None:
    """Seconds between two readings that the feed asks for by `ttl` (minutes) or `sy:updatePeriod`; None if it doesn't."""
    minutes = _number(dict.get(feed, "ttl"))
    if minutes:
        return minutes * 60
    period = _PERIODS.get(str(dict.get(feed, "sy_updateperiod", "")).strip().lower())
    return period / (_number(dict.get(feed, "sy_updatefrequency")) or 1.0) if period else None


def _number(text: object) -> float | None:
    digits = str(text).strip()
    return float(digits) if digits.isascii() and digits.isdigit() and len(digits) < 9 else None


def _entry(entry: Any, address: str, base: str, feed_author: str | None) -> Entry:
    # `dict.get` throughout: feedparser's own guesses for a missing key, and warns of it.
    link = web_address(dict.get(entry, "feedburner_origlink") or dict.get(entry, "link"), address)
    declared, text = _text(entry)
    return Entry(
        guid=dict.get(entry, "id"),
        link=link,
        title=dict.get(entry, "title"),
        text=text,
        # Without xml:base, links in RSS are meant as on the entry's own page; Atom means the feed's address.
        base=declared if declared not in ("", address) else base if base == address else link or base,
        author=_author(entry) or feed_author,
        published=_published(entry),
        language=_language(entry),
        duration=_duration(entry),
        media=tuple(_media(entry)),
        labels=tuple(str(dict.get(tag, "label") or dict.get(tag, "term") or "") for tag in dict.get(entry, "tags", [])),
    )


def _text(entry: Any) -> tuple[str, str | None]:
    """The base address and the HTML of the longest text of an entry; feeds put the whole now here, now there."""
    details = [*dict.get(entry, "content", []), dict.get(entry, "summary_detail")]
    found = [(dict.get(detail, "base") or "", _html(detail)) for detail in details if detail]
    return max(found, key=lambda pair: len(pair[1]), default=("", None))


def _html(detail: Any) -> str:
    value, type = str(dict.get(detail, "value") or ""), str(dict.get(detail, "type") or "text/html")
    if type in ("text/html", "application/xhtml+xml"):
        # A text without a single tag is often plain, whatever it says, and its line breaks are meant.
        return value if "<" in value else value.strip().replace("\n", "<br>\n")
    return text_to_html(value) if type.startswith("text/") else ""


def _author(entry: Any) -> str | None:
    """The name alone, of `Name`, `Name <mail>`, `Name (mail)` and RSS's own `mail (Name)`."""
    author = str(dict.get(entry, "author") or "")[:500]
    if found := re.fullmatch(r"\s*\S+@\S+\s*\(([^()]+)\)\s*", author):
        return found[1]
    return re.sub(r"\s*[<(]\S+@\S+[>)]\s*$", "", author) or None


def _published(entry: Any) -> datetime | None:
    for name in ("published", "updated", "created"):
        told = dict.get(entry, name)
        time = _utc(dict.get(entry, f"{name}_parsed")) or parse_time(told)
        if time and not _YEAR_ZERO.search(str(told)[:80]):  # two digits of it pass for the year 2000
            return time
    return None


def _utc(fields: Any) -> datetime | None:
    """The time of feedparser's nine fields; None when it understood nothing, or a time beyond the calendar."""
    try:
        return EPOCH + timedelta(seconds=calendar.timegm(fields)) if fields else None
    except (TypeError, ValueError, OverflowError):
        return None


def _language(entry: Any) -> str | None:
    details = [*dict.get(entry, "content", []), dict.get(entry, "summary_detail"), dict.get(entry, "title_detail")]
    return dict.get(entry, "language") or next(
        (dict.get(detail, "language") for detail in details if detail and dict.get(detail, "language")), None
    )


def _duration(entry: Any) -> float | None:
    told = [dict.get(entry, "itunes_duration"), *(dict.get(one, "duration") for one in _media_dicts(entry, "content"))]
    return next(filter(None, map(parse_duration, told)), None)


def _media_dicts(entry: Any, name: str) -> list[Any]:
    found = dict.get(entry, f"media_{name}")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _media(entry: Any) -> Iterator[Media]:
    """Films and sounds first, each with the entry's picture as its poster, then the pictures."""
    pictures = [_one_media(one, "image") for one in _media_dicts(entry, "thumbnail")]
    cover = dict.get(entry, "image")
    if isinstance(cover, dict) and dict.get(cover, "href"):
        pictures.append(Media(url=str(dict.get(cover, "href"))))
    poster = next((picture.url for picture in pictures if picture), None)
    enclosures = [link for link in dict.get(entry, "links", []) if dict.get(link, "rel") == "enclosure"]
    for one in [*enclosures, *_media_dicts(entry, "content")]:
        address = str(dict.get(one, "href") or dict.get(one, "url") or "")
        medium = str(dict.get(one, "medium", "")).lower()
        media = _one_media(one, medium if medium in _MEDIUMS else media_type(dict.get(one, "type"), address))
        if media and media.type == "image":
            pictures.append(media)
        elif media:
            yield msgspec.structs.replace(media, poster=poster)
    yield from filter(None, pictures)


_MEDIUMS = ("image", "audio", "video")


def _one_media(one: Any, type: str | None) -> Media | None:
    address = dict.get(one, "href") or dict.get(one, "url")
    if not isinstance(address, str) or not address or type is None:
        return None
    width, height = pixels(dict.get(one, "width")), pixels(dict.get(one, "height"))
    return msgspec.convert({"url": address, "type": type, "width": width, "height": height}, Media)
