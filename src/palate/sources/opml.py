"""Lists of feeds as OPML: what feed readers give and take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from palate.errors import NotAFeed
from palate.sources.decoding import decode, root_of, well_formed
from palate.sources.entries import plain, web_address

MAX_FEEDS = 5000
MAX_DEPTH = 20
_ADDRESS_NAMES = ("xmlurl", "rssurl", "feedurl")


@dataclass(frozen=True)
class Subscription:
    """One feed of a list. `labels` are the folders it lies in, outermost first, and the categories it names."""

    address: str
    title: str | None = None
    labels: tuple[str, ...] = ()


def read(body: bytes) -> list[Subscription]:
    """The feeds of an OPML file, each address once (labels joined), in order. Raises NotAFeed when it is no OPML or has none.

    Broken XML is mended; entities are never expanded and nothing outside is ever asked.
    """
    from lxml import etree

    text = decode(body)
    if root_of(text)[0] not in ("opml", "outline", "body"):
        raise NotAFeed("This is no OPML file: choose the file that your feed reader exported.")
    parser = etree.XMLParser(resolve_entities=False, no_network=True, recover=True)
    root = etree.fromstring(well_formed(text), parser)
    found: dict[str, Subscription] = {}
    for one in _outlines(root):
        known = found.get(one.address)
        labels = tuple(dict.fromkeys([*known.labels, *one.labels])) if known else one.labels
        found[one.address] = Subscription(one.address, (known and known.title) or one.title, labels)
    if not found:
        raise NotAFeed("This OPML file names no feed.")
    return list(found.values())[:MAX_FEEDS]


def _outlines(root: Any) -> Iterator[Subscription]:
    """Depth first without recursion, since files may nest as deep as they like."""
    waiting: list[tuple[Any, tuple[str, ...]]] = [(root, ())]
    while waiting:
        element, folders = waiting.pop()
        inner = folders
        if _name(element) == "outline":
            attributes = {name.lower(): value for name, value in element.attrib.items()}
            title = plain(attributes.get("title") or attributes.get("text"), 200)
            address = next(
                (web_address(attributes.get(name), "") for name in _ADDRESS_NAMES if name in attributes), None
            )
            if address:
                yield Subscription(address, title, tuple(dict.fromkeys([*folders, *_categories(attributes)])))
            elif title and len(folders) < MAX_DEPTH:
                inner = (*folders, title)
        waiting += [(child, inner) for child in reversed(element) if isinstance(child.tag, str)]


def _name(element: Any) -> str:
    return str(element.tag).rpartition("}")[2].lower()


def _categories(attributes: dict[str, str]) -> Iterator[str]:
    for category in attributes.get("category", "").split(","):
        if label := plain(category.strip().strip("/"), 100):
            yield label


def write(subscriptions: Iterable[Subscription], title: str = "Palate") -> bytes:
    """An OPML 2.0 file. Labels become categories, so that `read` gives back what went in; `/` and `,` in them become spaces."""
    from lxml import etree

    root = etree.Element("opml", version="2.0")
    etree.SubElement(etree.SubElement(root, "head"), "title").text = _clean(title)
    body = etree.SubElement(root, "body")
    for one in subscriptions:
        name = _clean(one.title or one.address)
        attributes = {"type": "rss", "text": name, "xmlUrl": one.address}
        if one.title:
            attributes["title"] = name
        if one.labels:
            attributes["category"] = ",".join(_clean(label.replace(",", " ").strip("/ ")) for label in one.labels)
        etree.SubElement(body, "outline", attributes)
    return bytes(etree.tostring(root, xml_declaration=True, encoding="utf-8", pretty_print=True))


def _clean(text: str) -> str:
    return "".join(character for character in text if character.isprintable())
