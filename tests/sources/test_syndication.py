from __future__ import annotations

import codecs
import os
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.domain import Fetched
from palate.errors import FetchFailed, NotAFeed
from palate.sources import syndication
from palate.sources.entries import MAX_ITEMS, MAX_LABELS, MAX_TITLE
from palate.sources.fetching import Fetcher

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
ADDRESS = "https://example.org/blog/feed.xml"


def parse(text: str | bytes, content_type: str | None = None, now: datetime = NOW) -> Fetched:
    return syndication.parse(text.encode() if isinstance(text, str) else text, content_type, ADDRESS, now)


def rss(items: str, channel: str = "") -> str:
    return f'<?xml version="1.0"?><rss version="2.0"><channel>{channel}{items}</channel></rss>'


# What a person sees in each recorded feed: how many entries show anything and the first one's title (its beginning), or why
# there is nothing. Counted and read in the files themselves; where a feed reader counts more, entries are wholly empty.
RECORDED: dict[str, tuple[int, str | None] | str] = {
    "dhvcc_rssparser__generic_atom.xml": (3, "Use Developer Portal Internally"),
    "dhvcc_rssparser__github-49.xml": (30, "Чешский футболист пропустит Евро из-за падения с велосипеда"),
    "dhvcc_rssparser__podcast_apology_line.xml": (2, "Wondery Presents - Flipping The Bird: Elon vs Twitter"),
    "feedparser__aaa_illformed.xml": (0, None),
    "feedparser__big5.xml": (0, None),
    "feedparser__bozo_encoding_mismatch_crash.xml": (1, None),
    "feedparser__bozo_invalid-bytes-with-bom.xml": (0, None),
    "feedparser__bozo_linenoise.xml": (1, None),
    "feedparser__double-encoded-html.xml": (1, None),
    "feedparser__euc-kr.xml": (0, None),
    "feedparser__example.json": (2, "post 2"),
    "feedparser__gb2312.xml": (1, "不归移民漫画系列：专业工作"),
    "feedparser__http_high_bit_date.xml": (0, None),
    "feedparser__http_i18n.xml": (0, None),
    "feedparser__koi8r.xml": (1, "Как пережить новогоднюю ночь"),
    "feedparser__rss_empty_document.xml": "no element",
    "feedparser__rss_incomplete_cdata.xml": "none of its 1 entries",
    "feedparser__rss_item_link_corrupted_ampersands.xml": (1, None),
    "feedparser__u16.xml": (0, None),
    "feedparser__undeclared_namespace.xml": (0, None),
    "feedparser__utf-16le-bom.xml": (0, None),
    "feedparser__utf-8-bom.xml": (0, None),
    "feedrs__atom_example_reddit.xml": (1, "Hey Rustaceans! Got an easy question? Ask here (21/2020)!"),
    "feedrs__atom_mediarss_reddit_1.xml": (25, "Any reason to keep 1G connections to my servers?"),
    "feedrs__atom_mediarss_youtube_1.xml": (1, "Navigating with Quantum Entanglement"),
    "feedrs__atom_scattered.xml": (1, "0042: consulting lessons, there are no strings on me, button"),
    "feedrs__atom_xml_base.xml": (1, "my cool entry title"),
    "feedrs__jsonfeed_elastic_1.1.json": (3, "InfluxDB vs. Graphite for Time Series Data & Metrics Benchma"),
    "feedrs__jsonfeed_spec_1.json": (1, "Announcing JSON Feed"),
    "feedrs__rss_0.91_encoding_1.xml": (1, "bash - Expansão de Parâmetros"),
    "feedrs__rss_1.0_biorxiv.xml": (1, "Complete genome of the Medicago anthracnose fungus, Colletot"),
    "feedrs__rss_1.0_debian.xml": (1, "Updated Debian 11: 11.6 released"),
    "feedrs__rss_1.0_iso8859.xml": (1, "Digitalministerium: Neue Glasfaserförderung mit Schnellkasse"),
    "feedrs__rss_2.0_bbc.xml": (1, "Marcus Aurelius"),
    "feedrs__rss_2.0_cloudflare.xml": (1, "Privacy-Preserving Compromised Credential Checking"),
    "feedrs__rss_2.0_element_io.xml": (1, "Simpler plans for Element, on-premise and cloud!"),
    "feedrs__rss_2.0_ghost_2.xml": (1, "Send emails without publishing"),
    "feedrs__rss_2.0_heated.xml": (1, "A conversation about Keystone XL"),
    "feedrs__rss_2.0_ilgiornale.xml": (1, "Arrestato in Pakistan Shabbar Abbas. In Italia è accusato pe"),
    "feedrs__rss_2.0_ilmessaggero.xml": (1, "Missili Polonia, cosa è successo? Tensione Nato-Russia, Mosc"),
    "feedrs__rss_2.0_invalid_1.xml": (0, None),
    "feedrs__rss_2.0_matrix.xml": (1, "This Week in Matrix 2022-09-23"),
    "feedrs__rss_2.0_nightvale.xml": (1, "221 - The Glow Cloud, Explained"),
    "feedrs__rss_2.0_relurl_1.xml": (2, "Pareto-optimal compression"),
    "feedrs__rss_2.0_rps.xml": (1, "The Sunday Papers"),
    "feedrs__rss_2.0_spiegel.xml": (1, "07.02. – die Wochenvorschau: Lockdown-Verlängerung, Kriegsve"),
    "feedrs__rss_2.0_wirecutter.xml": (1, "How to Teach Someone a Board Game (and Even Have Fun Doing I"),
    "feedrs__xml_iso8859.xml": (1, "Digitalministerium: Neue Glasfaserförderung mit Schnellkasse"),
    "lemon24reader__full.atom": (2, "Atom-Powered Robots Run Amok"),
    "lemon24reader__full.json": (2, "Title"),
    "lemon24reader__full.rss": (2, "Example entry"),
    "lemon24reader__invalid.json": (2, "1000"),
    "lemon24reader__relative.atom": (1, None),
    "lemon24reader__relative.rss": (1, None),
    "lifemodel__rss-tech-blog.xml": (8, "Building a Custom IoT Controller with ESP32"),
    "rbren__content-encoded.rss": (7, "THE CREATIVE FORAGER"),
    "rbren__craigslist.rss": (25, "Bright, Spacious Beautiful Victorian (oakland north / temesc"),
    "rbren__encoding.rss": (40, "Mãe de utente é a nova presidente da Raríssimas"),
    "rbren__feedburner.atom": (25, "AdWords and DFP Java client library will soon require Java 7"),
    "rbren__guardian.rss": (55, "Trump State of the Union address promised unity but emphasiz"),
    "rbren__gulp-atom.atom": (10, "v3.9.0"),
    "rbren__heise.atom": (15, "Java-Anwendungsserver: Red Hat gibt WildFly 10 frei"),
    "rbren__heraldsun.rss": (2, "The First Item"),
    "rbren__incomplete-fields.atom": "none of its 1 entries",
    "rbren__instant-article.rss": (1, "My first Instant Article"),
    "rbren__itunes-href.rss": (10, "Manager bewertet Transfers | Eberl lobt BVB für Pulisic-Deal"),
    "rbren__many-links.rss": (25, "Code Health: Providing Context with Commit Messages and Bug "),
    "rbren__missing-fields.atom": "none of its 1 entries",
    "rbren__narro.rss": (1, "FAQ for Narro"),
    "rbren__pagination-links.rss": (1, "The First Episode"),
    "rbren__reddit-atom.rss": (24, "The Difficulties in Space"),
    "rbren__reddit.rss": (24, "The water is too deep, so he improvises"),
    "rbren__rss-1.rss": (69, "Food for fungi"),
    "rbren__unrecognized.rss": "web page",
    "rbren__uolNoticias.rss": (15, "Ibope: Bolsonaro perde de Haddad, Ciro e Alckmin em simulaçõ"),
    "ru__inforadar_habr_rss.xml": (3, "Статья 1: Про Python"),
    "ru__mosru_trimmed.xml": (2, "«Моспром вдохновляет»: открыта регистрация на первые бесплат"),
    "ru__mosru_trimmed_cp1251.xml": (2, "«Моспром вдохновляет»: открыта регистрация на первые бесплат"),
    "ru__onliner_trimmed.xml": (1, "В России сделали вакцину «Спутник», которую надо закапывать "),
}


@pytest.fixture(scope="module")
def recorded() -> Path:
    if "PALATE_DATA" not in os.environ:
        pytest.skip("PALATE_DATA is unset: the recorded feeds are not here")
    return Path(os.environ["PALATE_DATA"]) / "feeds" / "recorded"


def test_the_table_names_every_recorded_feed(recorded: Path) -> None:
    assert {path.name for path in recorded.iterdir()} - {"README.md"} == RECORDED.keys()


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_feed_gives_what_a_person_sees_in_it(recorded: Path, name: str) -> None:
    body, expected = (recorded / name).read_bytes(), RECORDED[name]
    if isinstance(expected, str):
        with pytest.raises(NotAFeed, match=expected):
            parse(body, now=datetime(2026, 5, 1, tzinfo=UTC))
        return
    count, title = expected
    items = parse(body, now=datetime(2026, 5, 1, tzinfo=UTC)).items
    assert len(items) == count
    assert len({item.id for item in items}) == count
    found = items[0].title if items else None
    assert found == title if title is None else (found or "").startswith(title)


RSS = """<?xml version="1.0" encoding="utf-8"?>
<rss version="2.0" xmlns:content="http://purl.org/rss/1.0/modules/content/" xmlns:dc="http://purl.org/dc/elements/1.1/">
<channel><title>The &amp;amp; Blog</title><link>https://example.org/</link><language>en-GB</language><ttl>30</ttl>
<item><title>Tom &amp;amp; Jerry &lt;b&gt;bold&lt;/b&gt;</title><link>/posts/1</link><guid isPermaLink="false">a-1</guid>
<pubDate>Mon, 01 Jan 2024 10:00:00 +0300</pubDate><dc:creator>Ann</dc:creator><category>News</category><category>News</category>
<description>short</description>
<content:encoded><![CDATA[<p>Long <a href="more">text</a>
<img src="dot.gif" width="1" height="1"><img src='/p.jpg'></p>]]></content:encoded>
</item></channel></rss>"""


def test_an_rss_item_gives_its_fields() -> None:
    feed = parse(RSS)
    (item,) = feed.items
    assert (feed.title, feed.site, feed.language, feed.state) == (
        "The & Blog", "https://example.org/", "en", {"every": 1800.0},
    )  # fmt: skip
    assert (item.title, item.url, item.author) == ("Tom & Jerry bold", "https://example.org/posts/1", "Ann")
    assert item.published == datetime(2024, 1, 1, 7, tzinfo=UTC)
    assert (item.language, item.kind, item.labels, item.source) == ("en", "article", ("News",), None)
    assert [one.url for one in item.media] == ["https://example.org/p.jpg"]
    assert item.text is not None
    assert 'href="https://example.org/posts/more"' in item.text
    assert "Long" in item.text


def test_an_atom_entry_gives_its_fields() -> None:
    feed = parse(
        """<feed xmlns="http://www.w3.org/2005/Atom" xml:lang="de">
        <title type="html">A &amp;lt;i&amp;gt;b&amp;lt;/i&amp;gt;</title>
        <link rel="self" href="feed.xml"/><link href="/"/><author><name>Feed Author</name></author>
        <entry xml:base="https://other.example/x/"><id>urn:1</id><title>Zwei</title><link href="y"/>
        <updated>2024-02-02T00:00:00Z</updated><published>2024-02-01T00:00:00-01:00</published>
        <content type="xhtml"><div xmlns="http://www.w3.org/1999/xhtml"><p>Hallo <img src="z.png"/></p></div></content></entry>
        <entry><id>urn:2</id><summary>a &lt; b</summary></entry></feed>"""
    )
    first, second = feed.items
    assert (feed.title, feed.site, feed.language) == ("A b", "https://example.org/", "de")
    assert (first.url, first.author) == ("https://other.example/x/y", "Feed Author")
    assert first.published == datetime(2024, 2, 1, 1, tzinfo=UTC)
    assert [one.url for one in first.media] == ["https://other.example/x/z.png"]
    assert (second.kind, second.text, second.language) == ("post", "a &lt; b", "de")


def test_an_rdf_feed_gives_its_items() -> None:
    feed = parse(
        """<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns="http://purl.org/rss/1.0/"
        xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:sy="http://purl.org/rss/1.0/modules/syndication/">
        <channel rdf:about="x"><title>Science</title><link>https://sci.example/</link>
        <sy:updatePeriod>hourly</sy:updatePeriod><sy:updateFrequency>2</sy:updateFrequency></channel>
        <item rdf:about="https://sci.example/1"><title>Fungi</title><link>https://sci.example/1</link><dc:date>2023-03-03</dc:date>
        </item></rdf:RDF>"""
    )
    assert (feed.title, feed.state, feed.items[0].title) == ("Science", {"every": 1800.0}, "Fungi")
    assert feed.items[0].published == datetime(2023, 3, 3, tzinfo=UTC)


def test_a_json_feed_gives_its_items_and_wrong_types_count_as_absent() -> None:
    feed = parse(
        """{"version": "https://jsonfeed.org/version/1.1", "title": "J", "home_page_url": "/home", "language": 5, "items": [
        {"id": 7, "url": "/a", "title": "One", "content_text": "1 < 2\\nnext", "date_published": "2024-01-01T00:00:00Z",
         "tags": ["x", 3, null], "authors": [{"name": "Ann"}, "no"], "image": "i.png",
         "attachments": [{"url": "s.mp3", "mime_type": "audio/mpeg", "duration_in_seconds": 90}, 5]},
        "no item", {"id": "8", "title": ["no"], "content_html": "<b>two</b>", "url": 5}, {"id": "empty"}]}"""
    )
    one, two = feed.items
    assert (feed.title, feed.site, feed.language) == ("J", "https://example.org/home", None)
    assert (one.url, one.text, one.author) == ("https://example.org/a", "1 &lt; 2<br>\nnext", "Ann")
    assert (one.kind, one.duration, one.labels) == ("audio", 90, ("x", "3"))
    assert {media.url for media in one.media} == {"https://example.org/s.mp3", "https://example.org/i.png"}
    assert (two.title, two.url, two.text) == (None, None, "<b>two</b>")


def test_a_podcast_and_a_film_are_known_by_what_they_carry() -> None:
    feed = parse(
        rss(
            """<item><title>Talk</title><enclosure url="https://cdn.example/1.mp3" type="audio/mpeg"/>
            <itunes:duration>1:02:03</itunes:duration><itunes:image href="https://cdn.example/1.jpg"/></item>
            <item><title>Film</title><media:content url="https://cdn.example/2" medium="video" width="640" height="360"/>
            <media:thumbnail url="https://cdn.example/2.jpg"/></item>
            <item><title>Tube</title><link>https://www.youtube.com/watch?v=1</link></item>
            <item><guid>p</guid><description>&lt;img src="https://cdn.example/p.png" width="800"&gt;</description></item>"""
        )
    )
    talk, film, tube, picture = feed.items
    assert (talk.kind, talk.duration) == ("audio", 3723)
    assert (talk.media[0].type, talk.media[0].poster) == ("audio", "https://cdn.example/1.jpg")
    assert (film.kind, film.media[0].poster, film.media[0].width) == ("video", "https://cdn.example/2.jpg", 640)
    assert tube.kind == "video"
    assert (picture.kind, picture.media[0].width) == ("picture", 800)


@pytest.mark.parametrize(
    ("encoding", "title"),
    [
        ("windows-1251", "Привет, мир"), ("koi8-r", "Привет, мир"), ("gb2312", "不归移民漫画"), ("big5", "繁體中文標題"),
        ("euc-kr", "한국어 제목"), ("shift_jis", "日本語の題名"), ("iso-8859-1", "Mãe já"), ("utf-8", "Ñandú 🙆"),
        ("iso-2022-jp", "日本語の題名"),
    ],
)  # fmt: skip
def test_a_declared_encoding_is_read_by_declaration_or_header(encoding: str, title: str) -> None:
    item = f"<rss><channel><item><title>{title}</title></item></channel></rss>"
    declared = f'<?xml version="1.0" encoding="{encoding}"?>{item}'.encode(encoding)
    assert parse(declared).items[0].title == title
    assert parse(declared, "text/xml; charset=utf-8").items[0].title == title
    assert parse(item.encode(encoding), f'text/xml; charset="{encoding}"').items[0].title == title


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-8"])
def test_wide_encodings_are_known_by_their_mark_or_their_zeros(encoding: str) -> None:
    body = '<?xml version="1.0" encoding="utf-16"?><rss><channel><item><title>Ёж</title></item></channel></rss>'
    marks = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE, "utf-32-le": codecs.BOM_UTF32_LE}
    for mark in (marks.get(encoding, codecs.BOM_UTF8), b""):
        assert parse(mark + body.encode(encoding)).items[0].title == "Ёж"


def test_a_russian_feed_without_any_declaration_is_guessed_right() -> None:
    title = "Как пережить новогоднюю ночь и не пожалеть об этом утром"
    for encoding in ("koi8-r", "windows-1251"):
        assert parse(rss(f"<item><title>{title}</title></item>").encode(encoding)).items[0].title == title


def test_a_few_broken_bytes_do_not_spoil_the_rest() -> None:
    body = rss("<item><title>Ёлка и España</title></item>").encode().replace("ñ".encode(), b"\xf1")
    assert parse(body).items[0].title == "Ёлка и España"


@pytest.mark.parametrize(
    "broken",
    [
        "\n\n  <!-- hi --><?xml version='1.0'?><rss><channel><item><title>Right &amp; good</title></item></channel></rss>",
        "Warning: mysql<br/><?xml version='1.0'?><rss><channel><item><title>Right &amp; good</title></item></channel></rss>",
        "<rss><channel><item><title>Right & good</title><itunes:x>1</itunes:x></item></channel></rss>",
        "<rss><channel><item><title>Right &amp;\x07&#0; good</title></item></channel></rss><script>junk</script>",
        "<rss><channel><item><title>Right&nbsp;&amp; good</title></item><item><title>cut",
        "<rss><channel><item><title>Right &amp; good</title></item><item><ti",
        "<rss><channel><item><title>Right &amp; good</title><description>a <br> b</description></item></channel></rss>",
        "<!DOCTYPE rss [<!ENTITY a 'x'>]><rss><channel><item><title>Right &amp; good</title></item></channel></rss>",
    ],
)
def test_broken_xml_still_gives_what_it_says(broken: str) -> None:
    assert parse(broken).items[0].title == "Right & good"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty"),
        (b" \n\0 ", "empty"),
        (b"<!DOCTYPE html><html><head><title>x</title></head></html>", "web page"),
        (b"<head><title>moved</title></head>", "web page"),
        (b"just words", "plain text"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "plain text"),
        (b"<!-- nothing -->", "no element"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "XML, but no feed"),
        (b'{"a": 1}', "no JSON Feed"),
        (b"[1, 2]", "no JSON Feed"),
        (b'{"items": [', "broken JSON"),
        (b"[" * 100_000, "broken JSON"),
        (b"<rss><channel><item><author/></item></channel></rss>", "none of its 1 entries"),
    ],
)
def test_what_is_no_feed_is_named(body: bytes, reason: str) -> None:
    with pytest.raises(NotAFeed, match=reason):
        parse(body)


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("Sat, 01 Jan 0000 00:00:00 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", None),
        ("0000-00-00T00:00:00Z", None),
        ("9999-12-31T23:59:59-23:59", None),
        ("not a date", None),
        ("Δευ, 29 Ιουν 2004 12:53:00 GMT", None),
        ("1 " * 10_000, None),
        (str(NOW + timedelta(days=2)), None),
        ((NOW + timedelta(hours=20)).isoformat(), NOW + timedelta(hours=20)),
        ("Seg, 24 Set 2018 19:32:00 -0300", datetime(2018, 9, 24, 22, 32, tzinfo=UTC)),
        ("24 мая 2018 19:32:00 +0300", datetime(2018, 5, 24, 16, 32, tzinfo=UTC)),
    ],
)
def test_dates_that_cannot_be_are_unknown(date: str, expected: datetime | None) -> None:
    assert parse(rss(f"<item><title>x</title><pubDate>{date}</pubDate></item>")).items[0].published == expected


def test_a_huge_title_is_cut_and_a_huge_feed_is_bounded() -> None:
    title = parse(rss(f"<item><title>{'word ' * 400_000}</title></item>")).items[0].title
    assert title is not None
    assert len(title) <= MAX_TITLE
    assert title.endswith("…")
    many = "".join(
        f"<item><title>{number}</title><pubDate>{NOW - timedelta(hours=number):%a, %d %b %Y %H:%M:%S} GMT</pubDate></item>"
        for number in reversed(range(700))
    )
    titles = [item.title for item in parse(rss(many)).items]
    assert titles == [str(number) for number in reversed(range(MAX_ITEMS))]
    labels = "".join(f"<category>{number}</category>" for number in range(99)) + f"<category>{'x' * 500}</category>"
    assert len(parse(rss(f"<item><title>x</title>{labels}</item>")).items[0].labels) == MAX_LABELS


@pytest.mark.parametrize(
    "hostile",
    [
        "<rss>" + "<a>" * 300_000,
        "<!--" * 300_000,
        "<rss><channel><item><title>x</title>" + "<![CDATA[" * 20_000,
        "<rss " + " ".join(f'a{number}="1"' for number in range(50_000)) + "/>",
        rss("<item><description>&lt;img " + "a" * 300_000 + "&gt;</description></item>"),
        rss("<item><title>x</title><author>" + "a@" * 50_000 + "</author></item>"),
    ],
)
def test_documents_made_to_take_for_ever_do_not(hostile: str) -> None:
    with suppress(NotAFeed):
        assert len(parse(hostile).items) <= 1


def test_entities_are_never_expanded() -> None:
    lines = "".join(f'<!ENTITY l{n + 1} "{f"&l{n};" * 10}">' for n in range(9))
    bomb = f'<!DOCTYPE x [<!ENTITY l0 "lol">{lines}<!ENTITY f SYSTEM "file:///etc/passwd">]>' + rss(
        "<item><title>&l9; &f;</title></item>"
    )
    assert parse(bomb.replace('<?xml version="1.0"?>', "")).items[0].title == "&l9; &f;"


def test_ids_are_short_and_safe_and_differ_between_feeds() -> None:
    guids = ["a\nb", "🙆" * 1000, "a b", "&lt;script&gt;"]
    feed = rss("".join(f"<item><guid>{guid}</guid><title>x</title></item>" for guid in guids))
    ids = [item.id for item in parse(feed).items]
    assert len(set(ids)) == len(guids)
    assert all(len(id) == 24 and id.isalnum() for id in ids)
    other = syndication.parse(feed.encode(), None, "https://other.example/feed", NOW)
    assert not set(ids) & {item.id for item in other.items}
    moved = syndication.parse(feed.encode(), None, "https://other.example/feed", NOW, origin=ADDRESS)
    assert [item.id for item in moved.items] == ids


def test_one_guid_for_all_entries_does_not_make_them_one() -> None:
    feed = rss(
        "".join(
            f"<item><guid>same</guid><title>{n}</title><link>https://e.example/{n % 2}</link></item>" for n in range(3)
        )
    )
    assert [item.title for item in parse(feed).items] == ["0", "1"]


def test_addresses_that_are_not_of_the_web_are_left_out() -> None:
    item = parse(
        rss(
            """<item><title>x</title><link>javascript:alert(1)</link><enclosure url="file:///etc/passwd" type="image/png"/>
            <enclosure url="http://[bad" type="image/png"/></item>"""
        )
    ).items[0]
    assert (item.url, item.media) == (None, ())


@given(st.binary(max_size=300))
def test_any_bytes_give_items_or_a_reason(body: bytes) -> None:
    for document in (
        body,
        b"<rss><channel><item><title>" + body + b"</title><link>" + body,
        b'{"items":[{"title":"' + body,
    ):
        try:
            for item in parse(document).items:
                assert item.title or item.text or item.url or item.media
        except NotAFeed:
            pass


def test_a_feed_is_read_again_only_when_it_has_changed(site: Any, fetcher: Fetcher) -> None:
    site["/feed"] = (200, {"ETag": '"1"', "Last-Modified": "then", "Cache-Control": "max-age=7200"}, RSS.encode())
    first = syndication.read(site.address + "/feed", {}, fetcher)
    assert len(first.items) == 1
    assert first.state == {"etag": '"1"', "last_modified": "then", "every": 7200.0}
    site["/feed"] = (304, {"Content-Length": "0"}, b"")
    second = syndication.read(site.address + "/feed", first.state, fetcher)
    assert (second.items, second.state) == ((), first.state)
    assert site.requests[1][1]["if-none-match"] == '"1"'


def test_a_feed_that_moved_for_good_is_asked_at_its_new_address_and_keeps_its_ids(site: Any, fetcher: Fetcher) -> None:
    site["/old"] = RSS.encode()
    before = syndication.read(site.address + "/old", {}, fetcher)
    site["/old"] = (301, {"Location": "/new"}, b"")
    site["/new"] = RSS.encode()
    moved = syndication.read(site.address + "/old", before.state, fetcher)
    assert moved.state["address"] == site.address + "/new"
    again = syndication.read(site.address + "/old", moved.state, fetcher)
    assert again.state["address"] == site.address + "/new"
    assert site.paths == ["/old", "/old", "/new", "/new"]
    assert before.items[0].id == moved.items[0].id == again.items[0].id


def test_a_move_to_something_else_than_a_feed_is_not_kept(site: Any, fetcher: Fetcher) -> None:
    site["/old"] = (301, {"Location": "/login"}, b"")
    site["/login"] = b"<html><body>please log in</body></html>"
    with pytest.raises(NotAFeed, match="web page"):
        syndication.read(site.address + "/old", {}, fetcher)
    with pytest.raises(FetchFailed):
        syndication.read(site.address + "/missing", {}, fetcher)
