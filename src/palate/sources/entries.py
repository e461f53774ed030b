"""What every kind of feed says of an entry, and how that becomes an item: plain title, absolute links, bounded lengths."""

from __future__ import annotations

import hashlib
import html
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin, urlsplit

from palate.domain import Item, Kind, Media

MAX_ITEMS = 500
"""Newest entries that are taken from one answer."""
MAX_TEXT = 400_000
"""Characters of an item's text."""
MAX_TITLE = 500
MAX_AUTHOR = 200
MAX_URL = 4000
MAX_LABELS = 20
MAX_LABEL = 100
MAX_MEDIA = 20

MARKUP_TAGS = (
    "a|abbr|acronym|b|bdi|bdo|big|blockquote|br|center|cite|code|del|dfn|div|em|figure|font|h[1-6]|hr|i|img|ins|kbd|li|mark"
    "|nobr|ol|p|pre|q|s|samp|script|small|span|strike|strong|style|sub|sup|table|td|th|tr|tt|u|ul|var|wbr"
)
_MARKUP = re.compile(rf"</?(?:{MARKUP_TAGS})(?:\s[^<>]*)?/?>", re.IGNORECASE)
_TAG = re.compile(r"<[A-Za-z][^<>]*>")
_LINKS_IN_TAG = re.compile(r"""(\s(?:src|href|poster)\s*=\s*)(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", re.IGNORECASE)
_IMG = re.compile(r"<img\b([^<>]{0,5000})>", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"""(?<![\w-])([\w-]{1,40})\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""")
_LANGUAGE = re.compile(r"\s*([A-Za-z]{2})(?:[-_].*)?\s*", re.DOTALL)
_DAY_MONTH = re.compile(r"(\d{1,2})[ .]+([^\W\d]{3,10})\.?[ ]+(\d{4} \d\d:\d\d.*)")
_ENGLISH_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTHS = {  # how months begin in Russian, Ukrainian, German, French, Spanish, Italian and Portuguese, where not as in English
    **dict(
        zip(
            ["янв", "фев", "мар", "апр", "мая", "июн", "июл", "авг", "сен", "окт", "ноя", "дек"],
            range(1, 13),
            strict=True,
        )
    ),
    **dict(
        zip(
            ["січ", "лют", "бер", "кві", "тра", "чер", "лип", "сер", "вер", "жов", "лис", "гру"],
            range(1, 13),
            strict=True,
        )
    ),
    **{"ene": 1, "gen": 1, "fév": 2, "fev": 2, "mär": 3, "mrz": 3, "avr": 4, "abr": 4, "май": 5, "mai": 5, "mag": 5},
    **{"juin": 6, "giu": 6, "juil": 7, "lug": 7, "aoû": 8, "ago": 8, "set": 9, "okt": 10, "ott": 10, "out": 10},
    **{"déc": 12, "dez": 12, "dic": 12},
    **{month.lower(): number for number, month in enumerate(_ENGLISH_MONTHS, 1)},
}
_FILM_SITES = re.compile(r"(?:www\.|m\.)?(?:youtube\.com|youtu\.be|vimeo\.com|rutube\.ru)")
_ENDINGS: dict[str, tuple[str, ...]] = {
    "image": (".jpg", ".jpeg", ".png", ".gif", ".webp", ".avif"),
    "audio": (".mp3", ".m4a", ".ogg", ".oga", ".opus", ".aac", ".flac", ".wav"),
    "video": (".mp4", ".m4v", ".webm", ".mov", ".mkv", ".ogv"),
}


@dataclass(frozen=True)
class Entry:
    """One entry as a feed gives it, whatever its format. None where the feed is silent.

    `text` is HTML. `link` and the media may be relative to `base`; `title` and `author` may hold markup or entities.
    """

    guid: str | None = None
    link: str | None = None
    title: str | None = None
    text: str | None = None
    base: str = ""
    author: str | None = None
    published: datetime | None = None
    language: str | None = None
    duration: float | None = None
    media: tuple[Media, ...] = ()
    labels: tuple[str, ...] = ()


def to_items(entries: Iterable[Entry], origin: str, language: str | None, now: datetime) -> list[Item]:
    """Items of the newest entries that have anything to show, each id once, in the feed's order.

    `origin` is the address by which the feed was subscribed: ids are derived from it, so it must stay the same when the feed
    moves. `language` is the feed's own, for entries that name none.
    """
    shown = [entry for entry in entries if entry.title or entry.text or entry.media or entry.link]
    newest = _newest(shown)
    shared = {guid for guid, count in Counter(entry.guid for entry in newest).items() if count > 1}
    items: dict[str, Item] = {}
    for entry in newest:
        item = _to_item(entry, origin, language, now, entry.guid in shared)
        if item is not None:
            items.setdefault(item.id, item)
    return list(items.values())


def _newest(entries: list[Entry]) -> list[Entry]:
    if len(entries) <= MAX_ITEMS:
        return entries
    oldest = datetime.min.replace(tzinfo=UTC)
    ranked = sorted(range(len(entries)), key=lambda place: entries[place].published or oldest, reverse=True)
    return [entries[place] for place in sorted(ranked[:MAX_ITEMS])]


def _to_item(entry: Entry, origin: str, language: str | None, now: datetime, shared_guid: bool) -> Item | None:
    title = plain(entry.title, MAX_TITLE)
    text = absolute_links(_cut_text(entry.text or ""), entry.base).strip() or None
    url = web_address(entry.link, entry.base)
    media = _media(entry, text)
    if not (title or text or url or media):
        return None
    return Item(
        id=public_id(origin, _identity(entry, url, title, text, shared_guid)),
        title=title,
        text=text,
        url=url,
        author=plain(entry.author, MAX_AUTHOR),
        published=_believable(entry.published, now),
        language=language_code(entry.language) or language_code(language),
        kind=_kind(title, text, url, media),
        duration=entry.duration,
        media=media,
        labels=_labels(entry.labels),
    )


def _identity(entry: Entry, url: str | None, title: str | None, text: str | None, shared_guid: bool) -> str:
    """What tells this entry from the others of its feed. Some feeds give every entry the same guid: the link helps then."""
    if entry.guid and not shared_guid:
        return entry.guid
    return (
        "\n".join(filter(None, [entry.guid, url]))
        if url
        else "\n".join([entry.guid or "", title or "", text or "" if not title else ""])
    )


def public_id(origin: str, identity: str) -> str:
    """An item's id: 24 hexadecimal digits from where it came and what its source calls it.

    A guid itself can't serve: it is unique within its feed at best, may be huge and may hold anything.

    >>> public_id("https://example.org/feed", "1") == public_id("https://example.com/feed", "1")
    False
    """
    return hashlib.blake2b(f"{origin}\n{identity}".encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def plain(markup: str | None, limit: int) -> str | None:
    """One line of text without tags and entities, cut to `limit` characters; None when nothing is left.

    Titles are often encoded twice, so entities are undone twice; `<` that opens no tag of HTML's stays.

    >>> plain(" AT&amp;amp;T <b>buys</b> C<T> &lt;i&gt;x&lt;/i&gt; ", 99)
    'AT&T buys C<T> x'
    """
    text = (markup or "")[: limit * 40]
    for _ in range(2):
        text = html.unescape(_MARKUP.sub("", text))
    text = " ".join(_MARKUP.sub("", text).replace("\x00", "").split())
    return (text if len(text) <= limit else text[: limit - 1].rstrip() + "…") or None


def text_to_html(text: str) -> str:
    """Plain text as HTML: nothing in it is a tag, and its line breaks show."""
    return html.escape(text.strip(), quote=False).replace("\n", "<br>\n")


def web_address(link: str | None, base: str) -> str | None:
    """The link as an absolute http(s) address, None when it isn't one or is absurdly long."""
    link = re.sub(r"[\t\r\n]", "", link or "").strip()
    if not link or len(link) > MAX_URL:
        return None
    try:
        address = urljoin(base, link)
        parts = urlsplit(address)
        host = parts.hostname
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not host:
        return None
    return address.replace(" ", "%20") if len(address) <= MAX_URL and address.isprintable() else None


def absolute_links(markup: str, base: str) -> str:
    """The HTML with the links and pictures of its tags resolved against `base`."""
    return (
        _TAG.sub(lambda tag: _LINKS_IN_TAG.sub(lambda link: _absolute(link, base), tag[0]), markup) if base else markup
    )


def _absolute(link: re.Match[str], base: str) -> str:
    value = next((group for group in link.groups()[1:] if group is not None), "")
    address = web_address(html.unescape(value), base)
    return f'{link[1]}"{html.escape(address)}"' if address else link[0]


def language_code(tag: str | None) -> str | None:
    """ISO 639-1 code of a language tag such as `en-US`, None when it has none."""
    found = _LANGUAGE.fullmatch((tag or "")[:40])
    return found[1].lower() if found else None


def parse_time(text: str | None) -> datetime | None:
    """Aware UTC of an ISO 8601 or RFC 822 time; without a zone it is UTC. None when it is neither.

    >>> parse_time("Seg, 24 Set 2018 19:42:40 -0300").isoformat()
    '2018-09-24T22:42:40+00:00'
    """
    text = (text or "").strip()[:80]
    for reader in (datetime.fromisoformat, parsedate_to_datetime, _foreign_time):
        try:
            time = reader(text)
            return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, TypeError, OverflowError, IndexError):
            continue
    return None


def _foreign_time(text: str) -> datetime:
    """An RFC 822 time with the month in the feed's own language. Raises ValueError when it is none."""
    found = _DAY_MONTH.search(text)
    month = next((number for start, number in _MONTHS.items() if found and found[2].lower().startswith(start)), None)
    if found is None or month is None:
        raise ValueError(text)
    return parsedate_to_datetime(f"{found[1]} {_ENGLISH_MONTHS[month - 1]} {found[3]}")


def parse_duration(text: object) -> float | None:
    """Seconds of `3156`, `52:36` or `0:52:36`; None when it is anything else, nothing, or more than 100 days."""
    try:
        parts = [float(part) for part in str(text).strip()[:40].split(":")]
    except ValueError:
        return None
    seconds = sum(part * 60**place for place, part in enumerate(reversed(parts[-3:])))
    return seconds if len(parts) <= 3 and math.isfinite(seconds) and 0 < seconds < 8_640_000 else None


def media_type(mime: str | None, address: str) -> str | None:
    """`image`, `audio` or `video`, by the MIME type or else the address's ending; None for anything else."""
    main = (mime or "").partition("/")[0].strip().lower()
    if main in _ENDINGS:
        return main
    if mime and mime.strip().lower() not in ("application/octet-stream", "binary/octet-stream"):
        return None
    path = address.partition("?")[0].partition("#")[0].lower()
    return next((type for type, endings in _ENDINGS.items() if path.endswith(endings)), None)


def _believable(time: datetime | None, now: datetime) -> datetime | None:
    """None for times before the web or more than a day ahead: unknown is better than wrong by centuries."""
    return time if time is not None and datetime(1990, 1, 1, tzinfo=UTC) <= time <= now + timedelta(days=1) else None


def _cut_text(text: str) -> str:
    if len(text) <= MAX_TEXT:
        return text
    cut = text[:MAX_TEXT]
    return cut[: cut.rfind("<")] if cut.rfind("<") > cut.rfind(">") else cut  # not within a tag


def _media(entry: Entry, text: str | None) -> tuple[Media, ...]:
    """The entry's media with absolute addresses, each once; the first picture of the text when no other is named."""
    found = {media.url: media for media in _absolute_media(entry)}
    if not any(media.type == "image" or media.poster for media in found.values()):
        found |= {media.url: media for media in first_picture(text or "", entry.base)}
    return tuple(found.values())[:MAX_MEDIA]


def _absolute_media(entry: Entry) -> Iterator[Media]:
    for media in entry.media:
        url = web_address(media.url, entry.base)
        if url:
            poster = web_address(media.poster, entry.base)
            yield Media(url=url, type=media.type, poster=poster, width=media.width, height=media.height)


def first_picture(text: str, base: str) -> Iterator[Media]:
    """The first picture of an HTML text that is more than a counter's dot: one or none."""
    for tag in _IMG.finditer(text):
        attributes = {name.lower(): "".join(values) for name, *values in _ATTRIBUTE.findall(tag[1])}
        url = web_address(html.unescape(attributes.get("src", "")), base)
        width, height = pixels(attributes.get("width")), pixels(attributes.get("height"))
        if url and not (width is not None and width < 4) and not (height is not None and height < 4):
            yield Media(url=url, width=width, height=height)
            return


def pixels(value: object) -> int | None:
    """A width or height in pixels, None when it is given in anything else."""
    found = re.fullmatch(r"\s*(\d{1,5})(?:\.0+)?\s*(?:px)?\s*", str(value))
    return int(found[1]) if found else None


def _kind(title: str | None, text: str | None, url: str | None, media: tuple[Media, ...]) -> Kind:
    types = {one.type for one in media}
    if "video" in types or (url and _FILM_SITES.fullmatch(urlsplit(url).hostname or "")):
        return "video"
    if "audio" in types:
        return "audio"
    if "image" in types and plain(_TAG.sub("", text or ""), 200) is None:
        return "picture"
    return "article" if title else "post"


def _labels(labels: Iterable[str]) -> tuple[str, ...]:
    cleaned = (plain(label, MAX_LABEL + 1) for label in labels)
    return tuple(dict.fromkeys(label for label in cleaned if label and len(label) <= MAX_LABEL))[:MAX_LABELS]
