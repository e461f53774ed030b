from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.errors import NotAFeed
from palate.sources import opml
from palate.sources.entries import plain
from palate.sources.opml import Subscription

TYPICAL = """<?xml version="1.0" encoding="{encoding}"?>
<opml version="1.0"><head><title>x</title></head><body>
<outline text="Новости" title="Новости"><outline text="Мир"><outline type="rss" text="Лента" xmlUrl="https://a.example/f?x=1&amp;y=2"/></outline>
<outline text="No feed"/></outline>
<outline TEXT="Second" XMLURL="http://b.example/feed" category="/tech/,science"/>
<outline text="Лента again" xmlUrl="https://a.example/f?x=1&amp;y=2" category="kept"/>
<outline text="bad" xmlUrl="file:///etc/passwd"/></body></opml>"""


@pytest.mark.parametrize("encoding", ["utf-8", "windows-1251"])
def test_folders_become_labels_and_each_address_comes_once(encoding: str) -> None:
    assert opml.read(TYPICAL.format(encoding=encoding).encode(encoding)) == [
        Subscription("https://a.example/f?x=1&y=2", "Лента", ("Новости", "Мир", "kept")),
        Subscription("http://b.example/feed", "Second", ("tech", "science")),
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"junk <?xml version='1.0'?><opml><body><outline text='A & B' xmlUrl='https://a.example/f?x=1&y=2'/></body></opml>",
        b"<opml><body><outline text='A & B' xmlUrl='https://a.example/f?x=1&y=2'><outline text='cut",
        b"<OPML><BODY><OUTLINE text='A &amp;amp; B' xmlUrl='https://a.example/f?x=1&amp;y=2'></BODY>",
    ],
)
def test_broken_files_are_read_all_the_same(body: bytes) -> None:
    assert opml.read(body) == [Subscription("https://a.example/f?x=1&y=2", "A & B")]


def test_hostile_xml_neither_grows_nor_reaches_out() -> None:
    lines = "".join(f'<!ENTITY l{n + 1} "{f"&l{n};" * 10}">' for n in range(9))
    body = f"""<!DOCTYPE opml [<!ENTITY l0 "lol">{lines}<!ENTITY f SYSTEM "file:///etc/passwd">]>
    <opml><body><outline text="&l9;&f;" xmlUrl="https://a.example/f"/></body></opml>"""
    assert opml.read(body.encode()) == [Subscription("https://a.example/f", "&l9;&f;")]


def test_deep_folders_do_not_end_the_reading() -> None:
    body = "<opml><body>" + "<outline text='f'>" * 200 + "<outline xmlUrl='https://a.example/f'/>"
    assert opml.read(body.encode()) == [Subscription("https://a.example/f", None, ("f",))]


@pytest.mark.parametrize(
    ("body", "reason"), [(b"", "no OPML"), (b"<html></html>", "no OPML"), (b"<opml><body/></opml>", "names no feed")]
)
def test_what_is_no_list_of_feeds_is_named(body: bytes, reason: str) -> None:
    with pytest.raises(NotAFeed, match=reason):
        opml.read(body)


@given(st.binary(max_size=200))
def test_any_bytes_give_feeds_or_a_reason(body: bytes) -> None:
    for document in (body, b"<opml><body><outline text='" + body + b"' xmlUrl='https://a.example/'/>"):
        with suppress(NotAFeed):
            assert opml.read(document)


def _plain(text: str) -> bool:
    return plain(text, 100) == text


words: st.SearchStrategy[str] = st.text(alphabet="aЖ&<>\"'é🙆;#1", min_size=1, max_size=12).filter(_plain)
subscriptions = st.builds(
    Subscription,
    address=st.integers(0, 10**6).map(lambda number: f"https://e{number}.example/feed?a=1&b={number}"),
    title=st.none() | words,
    labels=st.lists(words, max_size=3, unique=True).map(tuple),
)


@given(st.lists(subscriptions, min_size=1, max_size=6, unique_by=lambda one: one.address))
def test_a_written_list_is_read_back_as_it_was(given_list: list[Subscription]) -> None:
    expected = [Subscription(one.address, one.title or one.address, one.labels) for one in given_list]
    assert opml.read(opml.write(given_list)) == expected


def test_writing_takes_any_text() -> None:
    odd = Subscription("https://a.example/", "x\x00\ud800\ny", ("a,b/", "\x07"))
    assert opml.read(opml.write([odd])) == [Subscription("https://a.example/", "xy", ("a b",))]
