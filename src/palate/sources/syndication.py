"""Feeds: RSS, RDF, Atom and JSON Feed, whatever their encoding and their faults."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from palate.domain import Fetched
from palate.errors import NotAFeed
from palate.sources.decoding import decode, root_of
from palate.sources.entries import Entry, language_code, plain, to_items, web_address
from palate.sources.fetching import Answer, Fetcher
from palate.sources.json_feed import read_json_feed
from palate.sources.xml_feed import read_xml_feed

ACCEPT = (
    "application/rss+xml, application/atom+xml, application/feed+json, application/rdf+xml, "
    "application/xml;q=0.9, text/xml;q=0.9, application/json;q=0.8, */*;q=0.5"
)

LONGEST_PAUSE = 86_400.0
"""Seconds: a feed that asks to be read less than daily is read daily."""

_PAGE_ROOTS = ("html", "head", "body", "title", "meta", "div", "p", "h1", "center", "script")
_MAX_NAME = 200


def read(address: str, state: dict[str, Any], fetcher: Fetcher) -> Fetched:
    """Read the feed at `address` once more, asking only for what is new since `state` (of the last reading, {} at first).

    The new state holds `etag` and `last_modified`, the `address` that the feed has moved to for good, and the pause that it
    asks for, `every` (seconds). When nothing has changed there are no items, and title, site and language are None. Item ids
    come from the `address` given here, so they outlive a move. Raises every SourceError.
    """
    answer = fetcher.get(state.get("address") or address, state.get("etag"), state.get("last_modified"), accept=ACCEPT)
    if answer.not_modified:
        return Fetched(state=state | _moved(answer))
    fetched = parse(answer.body, answer.content_type, answer.address, fetcher.clock(), origin=address)
    return replace(fetched, state=_next_state(state, answer, fetched.state))


def parse(body: bytes, content_type: str | None, address: str, now: datetime, origin: str | None = None) -> Fetched:
    """What a feed's bytes say. `address` is where they came from, `origin` where the feed was subscribed (None: there).

    The state holds nothing but `every`, when the feed names it. Raises NotAFeed with what the bytes are instead.
    """
    about, pause, entries = _read_document(decode(body, content_type), address)
    items = to_items(entries, origin or address, about["language"], now)
    if entries and not items:
        raise NotAFeed(
            f"It is a feed, but none of its {len(entries)} entries has a title, a text, a link or a picture."
        )
    return Fetched(
        items=tuple(items),
        state={"every": min(pause, LONGEST_PAUSE)} if pause else {},
        title=plain(about["title"], _MAX_NAME),
        site=web_address(about["site"], address),
        language=language_code(about["language"]),
    )


def _read_document(text: str, address: str) -> tuple[dict[str, str | None], float | None, list[Entry]]:
    start = text.lstrip("\ufeff \t\r\n\x00")[:1]
    if not start:
        raise NotAFeed("The address gives an empty answer.")
    if start in "{[":
        about, entries = read_json_feed(text.lstrip("\ufeff \t\r\n\x00"), address)
        return about, None, entries
    root, _ = root_of(text)
    if root in _PAGE_ROOTS or "<!doctype html" in text[:1000].lower():
        raise NotAFeed(
            "The address gives a web page, not a feed: find the address of its feed, or add the site by its own."
        )
    if not root:
        raise NotAFeed(
            "The address gives no feed: it holds no element."
            if start == "<"
            else "The address gives plain text, not a feed."
        )
    return read_xml_feed(text, address)


def _moved(answer: Answer) -> dict[str, Any]:
    return {"address": answer.permanent_address} if answer.permanent_address else {}


def _next_state(state: dict[str, Any], answer: Answer, found: dict[str, Any]) -> dict[str, Any]:
    kept = {"address": state["address"]} if state.get("address") else {}
    pauses = [pause for pause in (answer.max_age, found.get("every")) if pause]
    every = {"every": min(max(pauses), LONGEST_PAUSE)} if pauses else {}
    validators = {"etag": answer.etag, "last_modified": answer.last_modified}
    return kept | _moved(answer) | every | {name: value for name, value in validators.items() if value}
