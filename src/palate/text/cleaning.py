"""What came from outside, made safe to store and to show: HTML, plain text, addresses, and every field of an item.

`clean` may be applied twice and changes nothing the second time, so an export can be imported again.
"""

from __future__ import annotations

import html as html_entities
import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import get_args
from urllib.parse import quote, urlsplit

import httpx
import msgspec
import nh3

from palate.domain import Item, Kind, Media

MAX_TITLE = 500
MAX_TEXT = 200_000
MAX_AUTHOR = 200
MAX_LABELS = 30
MAX_LABEL = 100
MAX_MEDIA = 50
MAX_ADDRESS = 2000
"""Characters; an index of PostgreSQL can't hold much longer ones."""
OLDEST = datetime(1990, 1, 1, tzinfo=UTC)
NEWEST = timedelta(days=1)
"""How far ahead of us another's clock may run."""

_RAW_TEXT = 2 * MAX_TEXT  # markup that goes away may take as much as what stays
_MANY_TAGS = 5000  # from here on the nesting could be deep enough to take seconds: its time grows with the square
_MANY_REFERENCES = 50_000  # likewise for `&`
_PASSES = 5
_DAY = 86_400.0

_SHOWN = (
    "a abbr audio b bdi bdo blockquote br caption cite code col colgroup dd del details dfn div dl dt em figcaption figure "
    "h1 h2 h3 h4 h5 h6 hr i img ins kbd li mark ol p pre q rp rt ruby s samp small source span strong sub summary sup "
    "table tbody td tfoot th thead time tr u ul var video wbr"
)
_GONE_WITH_CONTENT = (
    "script style iframe noscript object embed applet button select textarea template svg math title head"
)
_ATTRIBUTES = {
    "*": {"lang", "dir", "title"},
    "a": {"href"},
    "img": {"src", "alt", "width", "height"},
    "video": {"src", "poster", "width", "height"},
    "audio": {"src"},
    "source": {"src", "type"},
    "ol": {"start"},
    "td": {"colspan", "rowspan"},
    "th": {"colspan", "rowspan"},
    "time": {"datetime"},
}
_ADDED = {  # one each: nh3 puts several in an order that differs from run to run, and an unchanged text would look edited
    "a": {"target": "_blank"},
    "img": {"loading": "lazy"},
    "video": {"controls": ""},
    "audio": {"controls": ""},
}
_BLOCKS = (
    "address article aside blockquote br caption dd div dl dt figcaption figure footer h1 h2 h3 h4 h5 h6 header hr li main "
    "nav ol p pre section summary table td th tr ul"
)
_INLINE = "a|abbr|b|bdi|big|cite|code|del|em|font|i|ins|kbd|mark|q|s|small|span|strike|strong|sub|sup|tt|u|wbr"
_BREAKING = "br|div|h[1-6]|img|li|p|ul"

_EMBED = re.compile(r"<(img|iframe)\b([^<>]*)>", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"""([a-zA-Z:-]+)\s*=\s*("[^"]*"|'[^']*'|[^\s"'>]+)""")
_TINY = re.compile(r"(?:^|;)\s*(?:display\s*:\s*none|(?:width|height)\s*:\s*[01](?:px)?\s*(?:;|!|$))", re.IGNORECASE)
_INLINE_TAG = re.compile(rf"</?(?:{_INLINE})(?:\s[^<>]*)?/?>|<!--.*?-->", re.IGNORECASE)
_BREAKING_TAG = re.compile(rf"</?(?:{_BREAKING})(?:\s[^<>]*)?/?>", re.IGNORECASE)
_SCRIPT_TAGS = re.compile(r"<(script|style)\b[^<>]*>.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
_REFERENCE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNREADABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_REORDERING = re.compile("[\u202a-\u202e\u2066-\u2069]")  # could make the rest of a page read backwards
_HOST = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]")

_VIDEO_HOSTS = re.compile(
    r"(?:^|\.)(?:youtube\.com|youtube-nocookie\.com|vimeo\.com|dailymotion\.com|rutube\.ru|vk\.com|vkvideo\.ru|ok\.ru|twitch\.tv|"
    r"tiktok\.com|streamable\.com|ted\.com|archive\.org|odysee\.com|loom\.com|wistia\.com|wistia\.net)$"
)
_WATCH_PAGES = (  # a player's address -> the page that a person would open
    (
        re.compile(r"https?://(?:www\.)?youtube(?:-nocookie)?\.com/embed/([\w-]{11})"),
        r"https://www.youtube.com/watch?v=\1",
    ),
    (re.compile(r"https?://player\.vimeo\.com/video/(\d+)"), r"https://vimeo.com/\1"),
    (re.compile(r"https?://rutube\.ru/play/embed/(\w+)"), r"https://rutube.ru/video/\1/"),
)
_TRACKING = re.compile(
    r"(?:utm|mtm|itm|pk|piwik|matomo|hsa|vero|oly|ns|at)_\w+|_hs(?:enc|mi)|__hs\w+|hsctatracking|(?:fb|g|dc|y|yscl|tw|tt|msclk|ms|wick)clid|"
    r"ysclid|msclkid|wickedid|gclsrc|[gw]braid|igshid|igsh|mc_[ce]id|mkt_tok|li_fat_id|_openstat|xtor|s_kwcid|ref_src|wt[._]mc(?:_\w+)?|"
    r"guccounter|guce_referrer(?:_sig)?|sr_share|_ga|_gl",
    re.IGNORECASE,
)


def sanitise(html: str, base_url: str | None) -> str:
    """HTML that may be shown as it is: text, links and pictures, but nothing that runs, frames, submits or tracks.

    Relative addresses are resolved by `base_url`, or dropped when it is None. Embedded videos become links. HTML without any
    tag is taken for plain text: its blank lines part paragraphs. At most 200,000 characters come out.
    """
    raw = _EMBED.sub(_embed, _bounded(html))
    base = tidy_url(base_url) if base_url else None
    safe, limit = _settled(raw, base), MAX_TEXT
    while len(safe) > MAX_TEXT:
        safe = _settled(_cut(safe, limit), base)
        limit -= max(0, len(safe) - MAX_TEXT)  # closing the tags that the cut left open makes it longer again
    return safe if "<" in safe or "\n" not in safe else _paragraphs(safe)


def to_plain(html: str) -> str:
    """The text of HTML without markup; a line ends where a block or `<br>` does, and no line is blank."""
    blocks = nh3.clean(
        _bounded(html),
        tags=set(_BLOCKS.split()),
        clean_content_tags=set(_GONE_WITH_CONTENT.split()),
        attributes={},
        link_rel=None,
    )
    lines = re.split(r"<[^<>]*>", blocks)  # in what nh3 gives, `<` is nothing but the start of a tag
    plain = (" ".join(_UNREADABLE.sub("", html_entities.unescape(line)).split()) for line in lines)
    return "\n".join(line for line in plain if line)


def excerpt(text: str, length: int) -> str:
    """The beginning of plain text in at most `length` characters, cut after a word, with `…` where something is missing.

    >>> excerpt("The quick brown fox", 12)
    'The quick…'
    """
    text = " ".join(text[: 20 * length + 100].split())
    if len(text) <= length:
        return text
    cut = text[:length]
    word_end = cut.rfind(" ")
    shortened = cut[:word_end] if word_end > length // 2 else cut[: length - 1]
    return shortened.rstrip(" ,;:.–—-") + "…"


def canonical_url(url: str) -> str | None:
    """The one form of an address by which we know the page, None when it is no web address.

    http(s) only; host in lower case and punycode; no user, default port, fragment or tracking parameter. All other
    parameters stay, in their order: which of them matter only the site knows.

    >>> canonical_url("HTTPS://Пример.рф:443/a b?utm_source=rss&id=2&b=1#top")
    'https://xn--e1afmkfd.xn--p1ai/a%20b?id=2&b=1'
    """
    tidy = tidy_url(url)
    return tidy.partition("#")[0] if tidy else None


def tidy_url(url: str) -> str | None:
    """Like `canonical_url`, but the fragment stays: the form that is shown and opened."""
    try:
        parts = urlsplit(_UNREADABLE.sub("", url[: MAX_ADDRESS + 1]).strip())
        host, port = _host(parts.hostname or ""), parts.port
    except (ValueError, httpx.InvalidURL):
        return None
    if parts.scheme not in ("http", "https") or host is None:
        return None
    if port is not None and port != {"http": 80, "https": 443}[parts.scheme]:
        host = f"{host}:{port}"
    query, fragment = _without_tracking(parts.query), _without_tracking(parts.fragment)
    path = _quoted(parts.path) or "/"
    tidy = f"{parts.scheme}://{host}{path}{query and '?' + query}{fragment and '#' + fragment}"
    return tidy if len(tidy) <= MAX_ADDRESS and len(url) <= MAX_ADDRESS else None


def plain_line(text: str | None, length: int) -> str | None:
    """One line of plain text in at most `length` characters; None when nothing readable is left.

    Formatting tags and entities are resolved until none is left, so `AT&amp;amp;T` and `<b>AT&T</b>` are both `AT&T`; a tag
    that formats nothing (`List<T>`) is text.
    """
    line = _cut(text or "", 10 * length)
    while (plain := _unmarked(line)) != line:
        line = plain
    return (line if len(line) <= length else excerpt(line, length)) or None


def clean(item: Item, now: datetime) -> Item:
    """The item with every field safe and within bounds; what breaks a rule becomes None or is left out, never an error.

    Titles have at most 500 characters, texts 200,000, authors and licences 200; at most 30 labels of at most 100 and 50 media
    stay. `published` before 1990 or more than a day after `now` is a mistake of the source and becomes None.
    """
    url = tidy_url(item.url) if item.url else None
    return msgspec.structs.replace(
        item,
        title=plain_line(item.title, MAX_TITLE),
        text=(sanitise(item.text, url) or None) if item.text else None,
        url=url,
        author=plain_line(item.author, MAX_AUTHOR),
        license=plain_line(item.license, MAX_AUTHOR),
        published=_sane_time(item.published, now),
        language=_language(item.language),
        kind=item.kind if item.kind in get_args(Kind) else "other",
        duration=_positive(item.duration, 30 * _DAY),
        media=_media(item.media),
        labels=_labels(item.labels),
    )


def _settled(html: str, base: str | None) -> str:
    """Sanitised until another pass changes nothing: where tags overlap, browsers read the first result in yet another way."""
    for _ in range(_PASSES):
        if (safe := _sanitise(html, base)) == html:
            break
        html = safe
    return html


def _sanitise(html: str, base: str | None) -> str:
    return nh3.clean(
        html,
        tags=set(_SHOWN.split()),
        clean_content_tags=set(_GONE_WITH_CONTENT.split()),
        attributes=_ATTRIBUTES,
        attribute_filter=_attribute,
        link_rel="noopener nofollow",
        set_tag_attribute_values=_ADDED,
        url_schemes={"http", "https", "mailto"},
        url_relative=("rewrite_with_base", base) if base else "deny",
    ).strip()


def _attribute(tag: str, name: str, value: str) -> str | None:
    """What is loaded, not just linked, may not be a mail address; sizes must be sizes."""
    if name in ("src", "poster") and value.lower().lstrip().startswith("mailto:"):
        return None
    if name in ("width", "height", "start", "colspan", "rowspan"):
        return value if re.fullmatch(r"[0-9]{1,5}", value) else None
    return value


def _bounded(html: str) -> str:
    """The HTML without what no parser takes, and small and flat enough that parsing it stays fast."""
    html = _UNREADABLE.sub("", _cut(html, _RAW_TEXT))
    if html.count("&") > _MANY_REFERENCES:
        html = html.replace("&", " ")
    return _flattened(html) if html.count("<") > _MANY_TAGS else html


def _flattened(html: str) -> str:
    """The same HTML with well-formed nesting, at most 256 deep: lxml stops there, in linear time."""
    from lxml import etree

    try:
        tree = etree.fromstring(html, etree.HTMLParser(remove_comments=True, remove_pis=True))
    except (etree.XMLSyntaxError, ValueError):
        return ""
    return "" if tree is None else str(etree.tostring(tree, encoding="unicode", method="html"))


def _embed(match: re.Match[str]) -> str:
    attributes = {
        name.lower(): html_entities.unescape(value.strip("\"'")) for name, value in _ATTRIBUTE.findall(match[2])
    }
    if match[1].lower() == "img":
        return "" if _is_pixel(attributes) else match[0]
    return _video_link(attributes.get("src", ""), attributes.get("title", "")) + match[0]


def _is_pixel(attributes: dict[str, str]) -> bool:
    sizes = [attributes[name].strip().lower().removesuffix("px") for name in ("width", "height") if name in attributes]
    return any(size in ("0", "1") for size in sizes) or bool(_TINY.search(attributes.get("style", "")))


def _video_link(address: str, title: str) -> str:
    """A link in place of an embedded player; nothing for any other frame."""
    address = "https:" + address if address.startswith("//") else address
    url = tidy_url(address)
    if url is None or not (_VIDEO_HOSTS.search(urlsplit(url).hostname or "") or "/videos/embed/" in url):
        return ""
    for player, page in _WATCH_PAGES:
        if found := player.match(url):
            url = found.expand(page)
    name = plain_line(title, MAX_LABEL) or f"Video: {urlsplit(url).hostname}"
    return f'<p><a href="{html_entities.escape(url)}">{html_entities.escape(name)}</a></p>'


def _cut(html: str, length: int) -> str:
    """The first `length` characters, and when that is not all of it, without a half tag or reference at the end."""
    if len(html) <= length:
        return html
    cut = html[:length]
    open_tag = cut.rfind("<")
    cut = cut[:open_tag] if open_tag > cut.rfind(">") else cut
    return re.sub(r"&[#\w]{0,32}$", "", cut)


def _paragraphs(text: str) -> str:
    blocks = (block.strip() for block in re.split(r"\n\s*\n", text.replace("\r", "")))
    return "".join("<p>" + re.sub(r"\s*\n\s*", "<br>", block) + "</p>" for block in blocks if block)


def _unmarked(line: str) -> str:
    line = _INLINE_TAG.sub("", _BREAKING_TAG.sub(" ", _SCRIPT_TAGS.sub(" ", line)))
    return " ".join(_REORDERING.sub("", _UNREADABLE.sub(" ", html_entities.unescape(line))).split())


def _host(host: str) -> str | None:
    """The host in lower case and punycode, None when it can't be one."""
    if not host.isascii():
        host = httpx.URL(scheme="http", host=host).raw_host.decode("ascii")
    host = f"[{host}]" if ":" in host else host.lower().rstrip(".")
    return host if len(host) <= 253 and _HOST.fullmatch(host) else None


def _without_tracking(query: str) -> str:
    parts = (part for part in query.split("&") if part and not _TRACKING.fullmatch(part.partition("=")[0]))
    return "&".join(_quoted(part) for part in parts)


def _quoted(part: str) -> str:
    """Percent-encoded where an address needs it, and in one way: what is encoded already stays so."""
    part = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", part)
    return _REFERENCE.sub(_normal_reference, quote(part, safe="/%:@!$&'()*+,;=~?-._"))


def _normal_reference(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    return character if character.isascii() and (character.isalnum() or character in "-._~") else match[0].upper()


def _sane_time(time: datetime | None, now: datetime) -> datetime | None:
    if time is None:
        return None
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    try:
        time = time.astimezone(UTC)
    except OverflowError:  # the year 1 or 9999 moved over the edge of the calendar by its time zone
        return None
    return time.replace(microsecond=time.microsecond // 1000 * 1000) if OLDEST <= time <= now + NEWEST else None


def _language(code: str | None) -> str | None:
    """The language of a code such as `en-GB`: its first part, when that can be one."""
    first = re.match(r"\s*([a-z]{2,3})(?:[-_].{0,30})?\s*$", (code or "")[:50].lower())
    return first[1] if first else None


def _positive(number: float | None, limit: float) -> float | None:
    return float(number) if number is not None and math.isfinite(number) and 0 < number <= limit else None


def _media(media: Iterable[Media]) -> tuple[Media, ...]:
    cleaned = (
        Media(
            url=url,
            type=medium.type if medium.type in ("image", "video", "audio") else "image",
            poster=tidy_url(medium.poster) if medium.poster else None,
            width=_pixels(medium.width),
            height=_pixels(medium.height),
        )
        for medium in media
        if (url := tidy_url(medium.url)) and not (medium.type == "image" and _tiny(medium))
    )
    return tuple({medium.url: medium for medium in list(cleaned)[::-1]}.values())[::-1][:MAX_MEDIA]


def _tiny(medium: Media) -> bool:
    return medium.width in (0, 1) or medium.height in (0, 1)


def _pixels(size: int | None) -> int | None:
    return size if size is not None and 0 < size <= 100_000 else None


def _labels(labels: Iterable[str]) -> tuple[str, ...]:
    lines = (plain_line(label, MAX_LABEL) for label, _ in zip(labels, range(10 * MAX_LABELS), strict=False))
    return tuple(dict.fromkeys(line for line in lines if line))[:MAX_LABELS]
