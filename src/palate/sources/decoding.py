"""Bytes of unknown encoding into text, and XML that is nearly right into XML that a strict parser takes."""

from __future__ import annotations

import codecs
import html.entities
import re
from xml.parsers.expat import ExpatError, ParserCreate

_BOMS = [  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF8, "utf-8"),
]
_WIDE = [
    (b"<\0\0\0", "utf-32-le"),
    (b"\0\0\0<", "utf-32-be"),
    (b"<\0", "utf-16-le"),
    (b"\0<", "utf-16-be"),
]
_SUPERSETS = {  # what browsers read these names as: the larger encoding that pages really use
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc_kr": "cp949",
    "shift_jis": "cp932",
    "big5": "cp950",
}
_ALLOWED = re.compile(
    r"utf-8|cp125\d|cp874|cp866|cp932|cp949|cp950|gb18030|hz|iso8859-\d+|koi8-[rut]|euc_jp|euc_jis_2004|iso2022_\w+"
    r"|big5hkscs|johab|mac-\w+|ptcp154|shift_jisx0213"
)
_STATEFUL = re.compile(r"iso2022|hz")  # ASCII bytes throughout: they would pass for UTF-8
_DECLARED = re.compile(rb"""<\?xml\b[^>]{0,200}?\bencoding\s*=\s*["']\s*([A-Za-z][\w.:-]{0,40})""", re.IGNORECASE)
_META = re.compile(rb"""<meta\b[^>]{0,200}?\bcharset\s*=\s*["']?\s*([A-Za-z][\w.:-]{0,40})""", re.IGNORECASE)
_CHARSET = re.compile(r"""\bcharset\s*=\s*["']?\s*([A-Za-z][\w.:-]{0,40})""", re.IGNORECASE)
_HEAD = 2048
_SAMPLE = 20_000  # bytes that the guess looks at

_BROKEN_BYTES = {  # of a text decoded with `surrogateescape`: each stray byte as Windows-1252 would read it
    0xDC00 + byte: bytes([byte]).decode("cp1252", "ignore") or "\ufffd" for byte in range(0x80, 0x100)
}


def decode(body: bytes, content_type: str | None = None) -> str:
    """The text of a document; never fails. The byte order mark, then what fits, then what was declared, then a guess.

    Valid UTF-8 is believed before any declaration: text in another encoding is hardly ever valid UTF-8 by chance, while
    wrong declarations are common. `content_type` is the HTTP header.
    """
    for mark, encoding in _BOMS:
        if body.startswith(mark):
            return _tolerant(body[len(mark) :], encoding)
    for start, encoding in _WIDE:
        if body.startswith(start):
            return _tolerant(body, encoding)
    declared = _declarations(body, content_type)
    for encoding in [*filter(_STATEFUL.match, declared), "utf-8", *declared]:
        try:
            return body.decode(encoding)
        except UnicodeDecodeError:
            continue
    return _nearly(body, declared) or _guess(body)


def _declarations(body: bytes, content_type: str | None) -> list[str]:
    """Encodings that the document and then the server claim, as Python's names. Unknown and unfit ones are left out."""
    head = body[:_HEAD]
    claims = [found[1].decode("ascii") for found in (_DECLARED.search(head), _META.search(head)) if found]
    if found := _CHARSET.search(content_type or ""):
        claims.append(found[1])
    return [encoding for encoding in map(_python_name, claims) if encoding]


def _python_name(claim: str) -> str | None:
    try:
        name = codecs.lookup(claim).name
    except (LookupError, ValueError):
        return None
    name = _SUPERSETS.get(name, name)
    return name if _ALLOWED.fullmatch(name) else None


def _tolerant(body: bytes, encoding: str) -> str:
    if encoding == "utf-8":
        return body.decode("utf-8", "surrogateescape").translate(_BROKEN_BYTES)
    return body.decode(encoding, "replace")


def _nearly(body: bytes, declared: list[str]) -> str | None:
    """The text when a few bytes are broken, but the encoding is plain all the same."""
    utf8 = body.decode("utf-8", "surrogateescape")
    broken = sum("\udc80" <= character <= "\udcff" for character in utf8)
    right = sum(character > "\x7f" for character in utf8) - broken
    if right > broken:
        return utf8.translate(_BROKEN_BYTES)
    for encoding in declared:
        text = body.decode(encoding, "replace")
        if encoding != "utf-8" and text.count("\ufffd") <= len(body) // 1000:
            return text
    return None


def _guess(body: bytes) -> str:
    from charset_normalizer import from_bytes

    found = [match.encoding for match in from_bytes(body[:_SAMPLE])]
    # Windows-1252 is what undeclared Western text mostly is; a close cousin ranked above it differs in rare letters only.
    best = "cp1252" if "cp1252" in found or not found else found[0]
    return body.decode(_SUPERSETS.get(codecs.lookup(best).name, best), "replace")


# Each of these ends at the end of the document too: looking for a missing end anew from every start takes squared time.
_COMMENT = r"<!--.*?(?:-->|\Z)"
_CDATA = r"<!\[CDATA\[.*?(?:\]\]>|\Z)"
_PROLOG = re.compile(
    _COMMENT
    + r"|<\?.*?(?:\?>|\Z)|<!DOCTYPE\b[^\[>]*(?:>|\[.*?(?:\]\s*>|\Z)|\Z)|(?P<root><(?P<name>[A-Za-z_][\w.:-]*))",
    re.IGNORECASE | re.DOTALL,
)
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # in XML 1.0
_CDATA_OR_REFERENCE = re.compile(
    _CDATA + "|" + _COMMENT + r"|&(?:#(?:(\d{1,8})|[xX]([0-9a-fA-F]{1,6}));|(\w{1,40});)?", re.DOTALL
)
_CDATA_OR_TAG = re.compile(
    _CDATA + "|" + _COMMENT + r"|<(?:(?P<entry>item|entry)\b|[A-Za-z_])", re.IGNORECASE | re.DOTALL
)
_XML_NAMES = ("amp", "lt", "gt", "quot", "apos")
_PREFIX = re.compile(r"</?([A-Za-z_][\w.-]{0,40}):[A-Za-z_]|\s([A-Za-z_][\w.-]{0,40}):[A-Za-z_][\w.-]*\s*=")
_DECLARED_PREFIX = re.compile(r"\bxmlns:([A-Za-z_][\w.-]{0,40})\s*=")
_MAX_PREFIXES = 50
MAX_ENTRIES = 2000
"""Entries of one document that are read at all; feeds have their newest first."""
MAX_TAGS = 40_000
"""Outside of CDATA."""
_MAX_TAG = 20_000  # characters of one tag
MAX_CHARACTERS = 6_000_000
_NAMESPACES = {
    "atom": "http://www.w3.org/2005/Atom",
    "content": "http://purl.org/rss/1.0/modules/content/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "dcterms": "http://purl.org/dc/terms/",
    "feedburner": "http://rssnamespace.org/feedburner/ext/1.0",
    "itunes": "http://www.itunes.com/dtds/podcast-1.0.dtd",
    "media": "http://search.yahoo.com/mrss/",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "sy": "http://purl.org/rss/1.0/modules/syndication/",
}


def root_of(text: str) -> tuple[str, int]:
    """Name of a document's first element, in lower case, and where it begins; `("", length)` when it has none.

    >>> root_of("<!-- <a> --><?xml version='1.0'?><RSS>")
    ('rss', 33)
    """
    start = max(text.find("<?xml", 0, _HEAD * 10), 0)  # servers' own warnings, often HTML, may stand before it
    for found in _PROLOG.finditer(text, start):
        if found["root"]:
            return found["name"].lower(), found.start()
    return "", len(text)


def repair_xml(text: str) -> str:
    """The document from its first element on, without what makes strict parsers give up or what could grow.

    Out go the prolog with every DOCTYPE and its entities, what follows the end, and characters that XML forbids. HTML's named
    entities become characters, an `&` that begins no known one becomes `&amp;`, undeclared prefixes get declared. CDATA and
    comments stay as they are.
    """
    name, start = root_of(text)
    end = text.lower().rfind(f"</{name}")
    stop = text.find(">", end) + 1 if name and end > start else 0
    text = _finished(_bounded(_FORBIDDEN.sub("", text[start : stop or len(text)])))
    return _with_prefixes(_CDATA_OR_REFERENCE.sub(_reference, text)[:MAX_CHARACTERS])


def _bounded(text: str) -> str:
    """The document up to its bounds of entries and tags: a strict parser's time goes into these."""
    entries = tags = 0
    for found in _CDATA_OR_TAG.finditer(text):
        tags += found[0][1] != "!"
        entries += found["entry"] is not None
        endless = found[0][1] != "!" and text.find(">", found.end(), found.end() + _MAX_TAG) < 0
        if entries > MAX_ENTRIES or tags > MAX_TAGS or (endless and len(text) - found.end() > _MAX_TAG):
            return text[: found.start()]
    return text


def _finished(text: str) -> str:
    """The text without a tag that was cut off at its end; an open CDATA is closed."""
    if text.rfind("<![CDATA[") > text.rfind("]]>"):
        return text + "]]>"
    return text if text.rfind("<") < text.rfind(">") else text[: max(text.rfind("<"), 0)]


def _reference(found: re.Match[str]) -> str:
    decimal, hexadecimal, name = found.groups()
    if found[0][0] == "<" or name in _XML_NAMES:
        return found[0]
    if name:
        character = html.entities.html5.get(name + ";")
        return character if character and character not in "<>&" else f"&amp;{name};"
    if decimal or hexadecimal:
        number = int(decimal) if decimal else int(hexadecimal, 16)
        return "" if number > 0x10FFFF or _FORBIDDEN.match(chr(number)) else found[0]
    return "&amp;"


def _with_prefixes(text: str) -> str:
    used = {first or second for first, second in _PREFIX.findall(text)}
    missing = sorted(used - set(_DECLARED_PREFIX.findall(text)) - {"xml", "xmlns"})[:_MAX_PREFIXES]
    declarations = "".join(f' xmlns:{prefix}="{_NAMESPACES.get(prefix, "urn:" + prefix)}"' for prefix in missing)
    return re.sub(r"^<[\w.:-]+", lambda root: root[0] + declarations, text, count=1)


def well_formed(document: str) -> bytes:
    """The repaired document, as UTF-8 that a strict parser takes to its end: what is still broken is mended by guess.

    Empty when the document has no element at all.
    """
    from lxml import etree

    data = repair_xml(document).encode()
    try:
        ParserCreate("utf-8", " ").Parse(data, True)
        return data
    except ExpatError:
        parser = etree.XMLParser(recover=True, resolve_entities=False, no_network=True, encoding="utf-8")
        root = etree.fromstring(data, parser) if data else None
        return b"" if root is None else bytes(etree.tostring(root, encoding="utf-8"))
