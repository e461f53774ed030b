from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from palate.domain import Item, Media
from palate.text.cleaning import (
    MAX_TEXT,
    canonical_url,
    clean,
    excerpt,
    plain_line,
    sanitise,
    tidy_url,
    to_plain,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
BASE = "https://site.example/news/1"
TAGS = (
    "<p> </p> <div> </div> <b> </b> <i> </i> </a> <table><td> </table> <br> </iframe> <x> </video> <li> </ul> <form> <style> "
    "<math><mi> </math> <pre> <h1> <title> <!-- --> <script>alert(1)</script> &amp; &lt;b&gt; & < >"
)
PIECES = st.sampled_from(
    [
        *TAGS.split(),
        "<a href='/x'>",
        "<img src=y.png>",
        "<video src=v.mp4>",
        "<iframe src='https://youtube.com/embed/abcdefghijk'>",
        "<svg onload=x>",
        "text ",
        "текст ",
        "\n",
        "\n\n",
        "\x00",
        "\ud800",
        "\"'",
    ]
)
MARKUP = st.lists(PIECES, max_size=25).map("".join)


def item(**fields: object) -> Item:
    return msgspec.structs.replace(Item(id="1"), **fields)


def test_what_runs_frames_or_submits_is_gone() -> None:
    hostile = (
        '<p onclick="steal()">Hi<script>steal()</script><style>p{}</style><svg onload=x></svg></p>'
        '<form action="/x"><input name="a">inside</form><object data="x.swf"></object>'
        '<iframe src="https://ads.example/"></iframe>'
        '<a href="javascript:steal()">one</a><a href="data:text/html,x">two</a><img src="javascript:x">'
        '<img src="mailto:a@b.example">'
    )
    safe = sanitise(hostile, BASE)
    for word in [
        "steal",
        "onclick",
        "onload",
        "form",
        "input",
        "iframe",
        "object",
        "javascript",
        "data:",
        "mailto",
        "style",
    ]:
        assert word not in safe
    assert to_plain(safe).split() == ["Hi", "insideonetwo"]


def test_links_become_absolute_and_tell_nobody_where_they_were_followed() -> None:
    assert sanitise('<a href="../b?x=1&amp;y=2#c">go</a>', BASE) == (
        '<a href="https://site.example/b?x=1&amp;y=2#c" target="_blank" rel="noopener nofollow">go</a>'
    )
    assert 'src="https://site.example/news/p.png"' in sanitise('<img src="p.png" alt="A">', BASE)
    assert "href" not in sanitise('<a href="/b">go</a>', None)
    assert 'href="mailto:a@b.example"' in sanitise('<a href="mailto:a@b.example">write</a>', None)


@pytest.mark.parametrize(
    "pixel",
    [
        '<img src="https://t.example/p.gif" width="1" height="1">',
        "<IMG height='0' src=https://t.example/p.gif>",
        '<img src="https://t.example/p.gif" style="display: none">',
        '<img src="https://t.example/p.gif" style="border:0;width:1px;height:1px">',
    ],
)
def test_tracking_pixels_are_gone_and_pictures_stay(pixel: str) -> None:
    safe = sanitise(f'<p>x{pixel}</p><img src="https://t.example/real.jpg" width="100" style="width:100px">', BASE)
    assert "p.gif" not in safe
    assert "real.jpg" in safe


@pytest.mark.parametrize(
    ("frame", "link"),
    [
        ('<iframe src="//www.youtube.com/embed/abcdefghijk?rel=0">no frames</iframe>', "https://www.youtube.com/watch?v=abcdefghijk"),
        ("<iframe src='https://player.vimeo.com/video/123'></iframe>", "https://vimeo.com/123"),
        ("<iframe src=https://tube.example/videos/embed/xyz></iframe>", "https://tube.example/videos/embed/xyz"),
    ],
)  # fmt: skip
def test_an_embedded_video_becomes_a_link(frame: str, link: str) -> None:
    safe = sanitise(f"<p>Look:</p>{frame}", BASE)
    assert f'<a href="{link}"' in safe
    assert "no frames" not in safe


def test_the_title_of_an_embedded_video_is_data() -> None:
    safe = sanitise('<iframe src="https://youtu.be.evil.example/" title="x"></iframe>', BASE)
    assert safe == ""
    safe = sanitise(
        '<iframe title="&quot;>&lt;script>x" src="https://www.youtube.com/embed/abcdefghijk"></iframe>', BASE
    )
    assert "<script" not in safe


def test_plain_text_keeps_its_lines_and_signs() -> None:
    assert sanitise("1 < 2 & 3\nnext\n\nnew", None) == "<p>1 &lt; 2 &amp; 3<br>next</p><p>new</p>"
    assert sanitise("one line", None) == "one line"


@given(MARKUP, st.sampled_from([BASE, None]))
@example("<table><td><a href=x><table><a href=y>", BASE)
@settings(max_examples=300, deadline=None)
def test_sanitised_html_stays_as_it_is(html: str, base: str | None) -> None:
    once = sanitise(html, base)
    assert sanitise(once, base) == once
    assert "<script" not in once
    assert "<iframe" not in once


@pytest.mark.parametrize(
    "huge",
    [
        "<div>" * 100_000 + "end",
        "<blockquote>" * 100_000,
        "<b>" * 100_000,
        "&" * 2_000_000,
        "<" * 2_000_000,
        "<iframe " * 250_000,
        "<img " + "a='" * 600_000,
        "\ud800" * 2_000_000,
        "<p>" + "слово " * 300_000,
        "<a href=/x>y</a>" * 100_000,
        "<p><i>word</i></p>" * 100_000,
    ],
    ids=lambda huge: huge[:12].encode("ascii", "replace").decode(),
)
def test_huge_and_deep_html_ends_within_bounds(huge: str) -> None:
    assert len(sanitise(huge, BASE)) <= MAX_TEXT
    assert len(to_plain(huge)) <= 2 * MAX_TEXT
    assert len(clean(item(title=huge, author=huge, labels=(huge,), text=huge), NOW).title or "") <= 500


def test_a_long_text_is_cut_and_keeps_whole_tags() -> None:
    safe = sanitise("<ul>" + "<li><b>ten chars.</b></li>" * 10_000, BASE)
    assert MAX_TEXT - 100 < len(safe) <= MAX_TEXT
    assert safe.endswith("</li></ul>")
    assert sanitise(safe, BASE) == safe


def test_plain_text_of_html_has_a_line_for_each_block() -> None:
    assert to_plain("<h1>Title</h1>\n<p>One&nbsp;two<br>three <b>fo</b>ur</p><script>x</script>5 &lt; 6") == (
        "Title\nOne two\nthree four\n5 < 6"
    )


def test_an_excerpt_ends_after_a_word() -> None:
    assert excerpt("one two, three", 9) == "one two…"
    assert excerpt("one two", 7) == "one two"
    assert excerpt("abcdefghijkl", 5) == "abcd…"


@given(st.text(max_size=300), st.integers(2, 50))
def test_an_excerpt_is_never_longer_than_asked(text: str, length: int) -> None:
    assert len(excerpt(text, length)) <= length


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("HTTP://Example.COM:80", "http://example.com/"),
        ("https://example.com:8443/a#top", "https://example.com:8443/a"),
        (" https://example.com/a?utm_source=x&b=2&fbclid=1&a=1&UTM_Medium=y ", "https://example.com/a?b=2&a=1"),
        ("https://example.com/?gclid=1&yclid=2&mc_cid=3", "https://example.com/"),
        ("https://example.com/a?source=7&ref=main&session=9&id=3", "https://example.com/a?source=7&ref=main&session=9&id=3"),
        ("https://example.com/a?q&b=&q=2", "https://example.com/a?q&b=&q=2"),
        ("https://straße.example/über?q=ö", "https://xn--strae-oqa.example/%C3%BCber?q=%C3%B6"),
        ("https://user:secret@example.com./%7euser/%d0%b9", "https://example.com/~user/%D0%B9"),
        ("https://[2001:DB8::1]:443/x", "https://[2001:db8::1]/x"),
        ("https://example.com/100%/a b", "https://example.com/100%25/a%20b"),
        ("https://my_blog.example.com/a", "https://my_blog.example.com/a"),
        ("//example.com/a", None),
        ("/a", None),
        ("ftp://example.com/", None),
        ("javascript:alert(1)", None),
        ("https://", None),
        ("https://exa mple.com/", None),
        ("https://example.com:99999/", None),
        ("https://[::1/", None),
        ("https://example.com/" + "a" * 2000, None),
        ("https://ex\ud800ample.com/\x00", "https://example.com/"),
        ("https://-☃.\u200bexample/", None),
    ],
)  # fmt: skip
def test_a_canonical_address(url: str, canonical: str | None) -> None:
    assert canonical_url(url) == canonical


def test_the_address_that_is_shown_keeps_its_anchor() -> None:
    assert tidy_url("https://example.com/changes?utm_term=x#v1.2") == "https://example.com/changes#v1.2"
    assert tidy_url("https://example.com/a#xtor=RSS-1") == "https://example.com/a"


@given(
    st.sampled_from(["http://", "HTTPS://", "http://a@", ""]),
    st.text(alphabet="aB.éж-_:0123[]", max_size=12),
    st.text(max_size=40) | st.text(alphabet="/?&=#%2f5E;utm_srcid ", max_size=40),
)
def test_a_canonical_address_stays_as_it_is(scheme: str, host: str, rest: str) -> None:
    once = canonical_url(f"{scheme}{host}/{rest}")
    if once is not None:
        assert canonical_url(once) == once
        assert once.isascii()
        assert "#" not in once


def test_a_title_is_one_plain_line() -> None:
    assert plain_line("  <b>Ben &amp;amp; Jerry</b>\n H<sub>2</sub>O<br/>x\x07\u202e ", 500) == "Ben & Jerry H2O x"
    assert plain_line("List<T> is 1 < 2 > 0", 500) == "List<T> is 1 < 2 > 0"
    assert plain_line("<script>alert(1)</script>News", 500) == "News"
    assert plain_line("<img src=x onerror=y> \x00", 500) is None
    assert plain_line(None, 500) is None


def test_every_field_is_brought_within_bounds() -> None:
    cleaned = clean(
        item(
            title="word " * 1000,
            author="a" * 300,
            url="javascript:x",
            language="en-GB",
            kind="podcast",
            duration=math.nan,
            labels=(" <b>Art</b>", "Art", "", "x" * 200, *map(str, range(50))),
            media=(
                Media(url="https://site.example/a.jpg?utm_source=x", width=-3, poster="data:x"),
                Media(url="data:image/png;base64,x"),
                Media(url="https://site.example/pixel.gif", width=1, height=1),
                Media(url="https://site.example/a.jpg"),
            ),
        ),
        NOW,
    )
    assert cleaned.title is not None
    assert len(cleaned.title) <= 500
    assert cleaned.title.endswith("word…")
    assert cleaned.author is not None
    assert len(cleaned.author) == 200
    assert (cleaned.url, cleaned.language, cleaned.kind, cleaned.duration) == (None, "en", "other", None)
    assert cleaned.labels[:2] == ("Art", "x" * 99 + "…")
    assert len(cleaned.labels) == 30
    assert cleaned.media == (Media(url="https://site.example/a.jpg"),)


@pytest.mark.parametrize(
    ("published", "kept"),
    [
        (datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=3))), datetime(2026, 1, 1, 9, tzinfo=UTC)),
        (datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=UTC)),  # noqa: DTZ001
        (datetime(2026, 1, 1, microsecond=123456, tzinfo=UTC), datetime(2026, 1, 1, microsecond=123000, tzinfo=UTC)),
        (NOW + timedelta(hours=23), NOW + timedelta(hours=23)),
        (NOW + timedelta(hours=25), None),
        (datetime(1989, 12, 31, tzinfo=UTC), None),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))), None),
        (datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-14))), None),
        (None, None),
    ],
)
def test_a_time_that_can_not_be_is_unknown(published: datetime | None, kept: datetime | None) -> None:
    assert clean(item(published=published), NOW).published == kept


@pytest.mark.parametrize(
    ("duration", "kept"), [(12.5, 12.5), (0.0, None), (-1.0, None), (math.inf, None), (1e12, None), (None, None)]
)
def test_a_duration_that_can_not_be_is_unknown(duration: float | None, kept: float | None) -> None:
    assert clean(item(duration=duration), NOW).duration == kept


@given(MARKUP, MARKUP, st.sampled_from([BASE, None, "x"]))
@settings(max_examples=100, deadline=None)
def test_a_clean_item_stays_as_it_is(title: str, text: str, url: str | None) -> None:
    once = clean(item(title=title, text=text, url=url, labels=(title,)), NOW)
    assert clean(once, NOW) == once
