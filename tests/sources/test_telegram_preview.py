from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.domain import Media, to_milliseconds
from palate.errors import NoPreview
from palate.sources import telegram_preview
from palate.sources.fetching import Answer, Fetcher, FetchParams
from palate.sources.telegram_preview import PreviewPost, fetched, read_posts

DATA = os.environ.get("PALATE_DATA")
RECORDED = Path(DATA or ".") / "telegram"
recorded = pytest.mark.skipif(DATA is None, reason="PALATE_DATA names no folder of recorded pages")

VIEW = "eyJjIjotMTIzNCwicCI6NX0"  # {"c":-1234,"p":5}


def page(*posts: str) -> bytes:
    head = '<div class="tgme_channel_info_header_title"><span>The  News</span></div>'
    return f'<html><body>{head}<section class="tgme_channel_history">{"".join(posts)}</section></body></html>'.encode()


def one(inside: str, *, post: str = "News/5", view: str = VIEW, more: str = "") -> str:
    return f'<div class="tgme_widget_message {more}" data-post="{post}" data-view="{view}">{inside}</div>'


def text(inner: str) -> str:
    return f'<div class="tgme_widget_message_text js-message_text" dir="auto">{inner}</div>'


def only(inside: str) -> PreviewPost:
    (post,) = read_posts(page(one(inside)))
    return post


def test_a_post_has_the_id_that_an_account_would_give_it() -> None:
    found = fetched(page(one(text("Hello")), one(text("By name"), post="News/6", view="?")), "News")
    assert [(item.id, item.url, item.text) for item in found.items] == [
        ("tg:1234:5", "https://t.me/news/5", "Hello"),
        ("tg:news:6", "https://t.me/news/6", "By name"),
    ]
    assert (found.title, found.site) == ("The News", "https://t.me/news")
    assert found.state == {"posts": 2, "empty": 0, "every": 600}


def test_text_is_what_was_written() -> None:
    emoji = """<i class="emoji" style="background-image:url('//x.png')"><b>🔥</b></i>"""
    own = '<tg-emoji emoji-id="5">' + emoji + "</tg-emoji>"
    spacer = '<span style="display: inline-block; visibility: hidden; width: 86px"></span>'
    tag = '<a href="?q=%23news">#news</a>'
    link = """<a href="https://e.org/?a=1&amp;amp;b=2" onclick="return confirm('')">here</a>"""
    found = only(text(f"1 &lt; 2 {emoji} {own} <b>bold</b> {tag} {link}<tg-spoiler>secret</tg-spoiler>{spacer}")).text
    assert found == (
        '1 &lt; 2 🔥 🔥 <b>bold</b> #news <a href="https://e.org/?a=1&amp;b=2" onclick="return confirm(\'\')">here</a>secret'
    )


def test_text_of_an_answered_post_or_of_a_linked_page_is_not_its_own() -> None:
    reply = f'<a class="tgme_widget_message_reply" href="#">{text("Before")}</a>'
    linked = f'<a class="tgme_widget_message_link_preview">{text("Page")}</a>'
    assert only(reply + text(text("Own")) + linked).text == "Own"
    assert only(reply + linked).text is None


def test_numbers_are_read() -> None:
    reactions = (
        '<div class="tgme_widget_message_reactions"><span class="tgme_reaction"><i class="emoji"><b>👍</b></i>1.2K</span>'
        '<span class="tgme_reaction"><tg-emoji emoji-id="77"><i class="emoji"><b>🅰</b></i></tg-emoji>3</span>'
        '<span class="tgme_reaction">?</span></div>'
    )
    views = '<span class="tgme_widget_message_views">4.85K</span>'
    post = only(text("x") + reactions + views)
    assert (post.views, post.reactions) == (4850, {"👍": 1200, "77": 3})
    assert fetched(page(one(text("x") + reactions + views)), "news").counters == {
        "tg:1234:5": {"views": 4850.0, "reactions": 1203.0}
    }


def test_the_time_is_that_of_the_footer() -> None:
    film = '<time class="message_video_duration">0:42</time>'
    date = '<a class="tgme_widget_message_date"><time datetime="{}"></time></a>'
    footer = f'<span class="tgme_widget_message_meta">edited {date}</span>'
    post = only(text("x") + film + footer.format("2026-03-01T13:00:00+01:00"))
    assert (post.published, post.edited) == (datetime(2026, 3, 1, 12, tzinfo=UTC), True)
    assert only(text("x") + footer.format("yesterday")).published is None


def test_an_album_is_one_post_with_all_its_pictures() -> None:
    photo = """<a class="tgme_widget_message_photo_wrap" style="width:9px;background-image:url('{}')" href="/5?single"></a>"""
    film = (
        '<a class="tgme_widget_message_video_player"><i class="tgme_widget_message_video_thumb" '
        """style="background-image:url('https://c.org/t.jpg')"></i><video src="https://c.org/v.mp4"></video>"""
        '<time class="message_video_duration">1:02:03</time></a>'
    )
    post = only(photo.format("https://c.org/a.jpg") + photo.format("//c.org/b.jpg") + photo.format("data:x") + film)
    assert post.media == (
        Media(url="https://c.org/a.jpg"),
        Media(url="https://c.org/b.jpg"),
        Media(url="https://c.org/v.mp4", type="video", poster="https://c.org/t.jpg"),
    )
    assert (post.kind, post.duration) == ("video", 3723)
    assert only(photo.format("https://c.org/a.jpg")).kind == "picture"


def test_a_forwarded_post_has_the_address_of_the_original() -> None:
    origin = '<a class="tgme_widget_message_forwarded_from_name" href="https://t.me/Origin/77">Origin</a>'
    found = fetched(page(one(origin + text("x"))), "news").items[0]
    assert (found.id, found.url) == ("tg:1234:5", "https://t.me/origin/77")


def test_service_messages_and_broken_posts_are_left_out() -> None:
    posts = [
        one(text("Channel created"), more="service_message"),
        *(one(text("x"), post=bad) for bad in ("", "news", "news/x", "a b/1", "news/" + "9" * 30)),
    ]
    assert fetched(page(*posts), "news").items == ()


def test_what_pages_do_not_show_is_marked_and_empty_posts_are_counted() -> None:
    twin = '<div class="message_media_not_supported">Please open Telegram</div>'
    poll = '<div class="tgme_widget_message_poll_question">Which &lt;one?</div>'
    posts = read_posts(page(one(twin), one(text("x") + twin), one(poll), one('<div class="tgme_new_text">x</div>')))
    assert [(post.kind, post.unsupported, post.is_empty, post.text) for post in posts] == [
        ("other", True, False, None),
        ("post", False, False, "x"),
        ("post", False, False, "Which &lt;one?"),
        ("post", False, True, None),
    ]
    assert fetched(page(one("?"), one(text("x"))), "news").state["empty"] == 1


@pytest.mark.parametrize(
    "body", [b"", b"\0\0", b"<html><body>Telegram</body></html>", b"{}", "\ufeff<p>".encode(), b"<!--"]
)
def test_a_page_without_a_channel_says_so(body: bytes) -> None:
    with pytest.raises(NoPreview, match="palate channels add news"):
        fetched(body, "news")


@pytest.mark.parametrize(
    "token",
    [
        "",
        "?",
        "bm9uZQ",
        "W10",
        "eyJjIjoiYSJ9",
        "eyJjIjp0cnVlfQ",
        "eyJjIjo1fQ",
        "eyJjIjotOTk5OTk5OTk5OTk5OTk5OTk5OTk5fQ",
        "ф",
    ],
)
def test_a_token_that_is_none_gives_the_name_instead(token: str) -> None:
    (post,) = read_posts(page(one(text("x"), view=token)))
    assert post.channel is None


@given(st.binary(max_size=400), st.integers(0, 2000))
def test_whatever_the_bytes_nothing_breaks(noise: bytes, cut: int) -> None:
    whole = page(one(text("Hello <b>there</b>") + '<span class="tgme_widget_message_views">5K</span>'))
    read_posts(noise)
    read_posts(whole[:cut] + noise + whole[cut:])
    read_posts(whole[:cut])


def test_huge_and_deep_pages_are_read_in_part() -> None:
    many = page(*(one(text("x" * 50), post=f"news/{n}") for n in range(5000)))
    assert [item.id for item in fetched(many, "news").items][::99] == ["tg:1234:4900", "tg:1234:4999"]
    read_posts(page(one(text("<b>" * 20_000 + "deep"))))


class Pages(Fetcher):
    """Answers with one page, and notes what was asked."""

    def __init__(self, body: bytes) -> None:
        super().__init__(FetchParams())
        self.body, self.asked = body, list[str]()

    def get(self, address: str, *_: Any, **__: Any) -> Answer:
        self.asked.append(address)
        return Answer(status=200, body=self.body, address=address)


def test_a_channel_is_asked_for_at_its_public_page() -> None:
    pages = Pages(page(one(text("Hello"))))
    assert len(telegram_preview.read("https://t.me/news", {}, pages).items) == 1
    assert pages.asked == ["https://t.me/s/news"]


# Recorded pages: message, milliseconds of its time, views, reactions, kind, media, original, beginning of the text

MESSAGES: dict[str, list[tuple[Any, ...]]] = {
    "preview/tme_s_clashreport_2026_trimmed.html": [
        ("tg:1186921499:93429", None, None, {"🖕": 31}, "post", "i", None, "U.S. Treasury Secretary Scott Bessent")
    ],
    "preview/tme_s_lifemodel_2026_anonymised.html": [
        (
            "tg:test_channel:1001",
            "2026-01-31T08:35:56",
            2500,
            {"👍": 10, "❤": 3},
            "post",
            "ii",
            None,
            "This is a test message",
        ),
        ("tg:test_channel:1003", "2026-01-31T09:35:00", 1300, {}, "other", "", None, None),
        (
            "tg:test_channel:1010",
            "2026-01-31T09:41:27",
            1000,
            {"🙏": 25, "❤": 7, "👍": 3},
            "post",
            "iii",
            "https://t.me/another_channel/500",
            "This is a forwarded message",
        ),
    ],
    "preview/tme_s_mchs_bryansk_2024_ru_trimmed.html": [
        ("tg:1769674427:4656", "2024-12-05T13:10:40", 4200, {}, "post", "iii", None, "🧑🚒<b>Сегодня отмечается День")
    ],
    "preview/tme_s_nflbite_2026_trimmed.html": [
        ("tg:3944009401:37", "2026-09-13T16:25:15", 492, {}, "post", "", None, "🏆 NFL<br>PITTSBURGH STEELERS"),
        ("tg:3944009401:38", "2026-09-13T16:25:16", 340, {}, "post", "", None, "Who will win? Pittsburgh Steelers"),
    ],
    "preview/tme_s_tchantest_2023_trimmed.html": [],
    "preview/tme_s_telegram_2026_trimmed.html": [
        ("tg:telegram:437", "2026-04-09T07:02:22", 768_000, {}, "video", "v", None, "<b>Live and Motion Photos.</b>"),
        ("tg:telegram:438", "2026-04-09T07:02:39", 1_120_000, {}, "video", "v", None, "<b>Managed Bots.</b>"),
    ],
    "preview/tme_s_xcareers_2020_ru_trimmed.html": [
        ("tg:1179933704:1491", None, None, {}, "post", "", None, "<b>РАЗРАБОТЧИК IOS 🔥</b>")
    ],
    "preview/teleglance_authored_card_page.html": [],
    "preview/teleglance_authored_not_found.html": [],
    "preview/teleglance_authored_embed_message.html": [
        ("tg:testchan:42", "2026-07-10T09:00:00", 77, {}, "post", "", None, "Single embedded message")
    ],
    "preview/teleglance_authored_feed_page.html": [
        ("tg:testchan:101", "2026-07-15T10:00:00", 1200, {}, "post", "", None, "Hello <b>bold</b>"),
        ("tg:testchan:102", "2026-07-15T11:30:00", 980, {}, "post", "ii", None, "Album caption"),
        ("tg:testchan:103", "2026-07-15T12:00:00", 2100, {}, "video", "v", None, None),
        ("tg:testchan:104", "2026-07-15T13:00:00", 450, {}, "audio", "a", None, None),
        ("tg:testchan:105", "2026-07-15T14:00:00", 311, {}, "other", "", None, None),
        ("tg:testchan:106", "2026-07-15T15:00:00", None, {}, "post", "", None, "Best async HTTP client?<br>httpx"),
        ("tg:testchan:107", "2026-07-15T16:00:00", 1500, {}, "post", "", None, "Check this out:"),
        ("tg:testchan:108", "2026-07-15T17:00:00", 220, {}, "other", "", None, None),
        ("tg:testchan:110", "2026-07-15T18:00:00", 640, {}, "post", "", None, "We are here"),
    ],
    "preview-mit/message_link_preview.html": [
        ("tg:oper_goblin:22360", "2023-02-27T07:33:14", 226_200, {}, "post", "", None, '<a href="https://vnnews.ru/')
    ],
    "preview-mit/message_link_preview_text_only.html": [
        ("tg:oper_goblin:22368", "2023-02-27T15:08:05", 246_800, {}, "post", "", None, '<a href="http://publication')
    ],
    "preview-mit/message_link_preview_video.html": [
        (
            "tg:fighter_bomber:11226",
            "2023-03-01T07:37:02",
            69_400,
            {},
            "post",
            "",
            None,
            "Жениться вам, барин, пора! 😁",
        )
    ],
    "preview-mit/message_media_file.html": [
        (
            "tg:oper_goblin:16936",
            "2022-08-03T19:31:10",
            171_900,
            {},
            "post",
            "",
            "https://t.me/kremlinprachka/20294",
            "Центр изучения новых",
        )
    ],
    "preview-mit/message_media_forwarded_from.html": [
        (
            "tg:oper_goblin:22358",
            "2023-02-27T07:20:50",
            214_400,
            {},
            "post",
            "i",
            "https://t.me/dimsmirnov175/44604",
            "Британская разведка выяснила",
        )
    ],
    "preview-mit/message_media_photo_and_video.html": [
        ("tg:anna_news:46908", "2023-02-28T06:48:36", 59_500, {}, "video", "iiv", None, "<b>Ночью над Белгородом")
    ],
    "preview-mit/message_media_round_video.html": [
        ("tg:bolshiepushki:3495", "2023-03-01T09:35:31", 54_200, {}, "video", "v", None, None)
    ],
    "preview-mit/message_poll.html": [
        ("tg:it_begin:488", "2023-02-27T16:21:02", 1100, {}, "post", "", None, "Как лучше?<br>Несколько постов в день")
    ],
    "preview-mit/message_sticker.html": [("tg:channel:5", "2023-03-01T08:01:50", 1, {}, "other", "", None, None)],
    "preview-mit/message_text.html": [
        ("tg:1084368520:70991", "2023-02-28T08:48:01", 33_400, {}, "post", "", None, "<b>Неопознанный летающий объект")
    ],
    "preview-mit/message_voice.html": [
        ("tg:oper_goblin:939", "2018-04-24T15:28:46", 746, {}, "audio", "a", None, "Обсудили:<br><br>- Сталина")
    ],
    "preview-mit/message_with_from_author.html": [
        ("tg:channel:4", "2023-02-28T16:38:34", 1, {}, "post", "", None, "test")
    ],
}
PIECES = (  # of posts: no post of its own
    *("link_preview", "link_preview_video", "media_cicrle_video", "media_photo", "media_video", "media_video_gif"),
    *("media_video_too_big", "poll"),
)


def in_short(post: PreviewPost) -> tuple[Any, ...]:
    time = post.published and post.published.astimezone(UTC).replace(tzinfo=None).isoformat()
    media = "".join(one.type[0] for one in post.media)
    return (post.id, time, post.views, dict(post.reactions), post.kind, media, post.forwarded)


@recorded
@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_recorded_posts_are_read_as_they_are(name: str) -> None:
    posts = read_posts((RECORDED / name).read_bytes())
    assert [in_short(post) for post in posts] == [told[:-1] for told in MESSAGES[name]]
    for post, told in zip(posts, MESSAGES[name], strict=True):
        assert post.text == told[-1] if told[-1] is None else (post.text or "").startswith(told[-1])


@recorded
def test_a_whole_recorded_page_is_read() -> None:
    found = fetched((RECORDED / "preview-mit/full.html").read_bytes(), "rt_russian")
    assert [int(item.id.rsplit(":", 1)[1]) for item in found.items] == [
        *(70989, 70990, 70992, 70995, 70996, 70997, 70998, 70999, 71000, 71006, 71007, 71008)
    ]
    assert [len(item.media) for item in found.items] == [1, 0, 3, 0, 0, 0, 1, 0, 6, 1, 1, 1]
    assert found.state["empty"] == 0
    assert found.counters["tg:1084368520:70989"] == {"views": 37_200.0}
    first = found.items[0].published
    assert first is not None
    assert to_milliseconds(first) == 1_677_570_473_000
    assert {item.url for item in found.items if "rt" not in (item.url or "")} >= {"https://t.me/yaremshooter/1066"}


@recorded
def test_every_recorded_page_has_its_known_answer() -> None:
    files = {path.relative_to(RECORDED).as_posix() for path in RECORDED.glob("preview*/*.html")}
    pieces = {f"preview-mit/{name}.html" for name in PIECES}
    assert files == set(MESSAGES) | pieces | {"preview-mit/full.html"}
    assert all(read_posts((RECORDED / piece).read_bytes()) == [] for piece in pieces)


@recorded
def test_details_of_recorded_posts() -> None:
    def post(name: str, place: int = 0) -> PreviewPost:
        return read_posts((RECORDED / name).read_bytes())[place]

    assert post("preview-mit/message_with_from_author.html").author == "🅰️rkadiy Ivanov"
    assert post("preview-mit/message_voice.html").duration == 1660
    assert post("preview-mit/message_link_preview_video.html").edited
    assert not post("preview-mit/message_link_preview.html").edited
    bryansk = post("preview/tme_s_mchs_bryansk_2024_ru_trimmed.html").text or ""
    assert "st.cmd=altGroupMain&amp;st.groupId" in bryansk
    assert "#МЧСпоБрянскойОбласти" in bryansk
    assert "visibility" not in (post("preview/tme_s_nflbite_2026_trimmed.html").text or "")
