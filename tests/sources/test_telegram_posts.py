"""Messages of channels become items: ids, addresses, albums, forwards, counters, and text of any kind."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from telethon.tl import types

from palate.sources import telegram_posts
from palate.sources.telegram_posts import ChannelName
from palate.text.cleaning import clean, to_plain

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CHANNELS = {
    77: ChannelName(77, "Хабр", "habr"),
    88: ChannelName(88, "Other", "other_one"),
    99: ChannelName(99, "Closed", None),
}


def message(id: int, text: str = "", channel: int = 77, **fields: Any) -> Any:
    return types.Message(id=id, peer_id=types.PeerChannel(channel), date=NOW, message=text, post=True, **fields)


def photo() -> Any:
    return types.MessageMediaPhoto(photo=types.PhotoEmpty(1))


def video(seconds: float) -> Any:
    marks = [types.DocumentAttributeVideo(duration=seconds, w=4, h=3)]
    document = types.Document(1, 2, b"", NOW, "video/mp4", 9, 2, marks)
    return types.MessageMediaDocument(document=document)


def forwarded(channel: int, number: int | None) -> Any:
    return types.MessageFwdHeader(date=NOW, from_id=types.PeerChannel(channel), channel_post=number)


def test_a_message_is_an_item_with_an_id_that_renaming_does_not_change() -> None:
    bold = types.MessageEntityBold(3, 5)
    link = types.MessageEntityTextUrl(9, 4, "https://example.org/?a=1&b=2")
    post = telegram_posts.post(
        [message(5, "😀 Hello this\n\nis <it>", entities=[bold, link], post_author="Ann")], CHANNELS
    )
    assert (post.item.id, post.item.url) == ("tg:77:5", "https://t.me/habr/5")
    assert post.item.text == (
        '😀 <strong>Hello</strong> <a href="https://example.org/?a=1&amp;b=2">this</a><br><br>is &lt;it&gt;'
    )
    assert (post.item.author, post.item.published, post.item.kind) == ("Ann", NOW, "post")
    assert (post.channel, post.messages, post.origin, post.is_protected) == (77, (5,), None, False)


def test_an_album_is_one_item_under_its_first_message() -> None:
    parts = [
        message(12, "", grouped_id=4, media=photo(), views=90, forwards=1),
        message(14, "alone", views=3),
        message(11, "Two pictures", grouped_id=4, media=photo(), views=100),
        message(13, "and a word", grouped_id=4, media=video(7.5)),
    ]
    album, alone = telegram_posts.albums(parts)
    post = telegram_posts.post(album, CHANNELS)
    assert (post.item.id, post.messages, post.item.text) == ("tg:77:11", (11, 12, 13), "Two pictures<br>and a word")
    assert (post.item.kind, post.item.duration) == ("video", 7.5)
    assert post.counters == {"views": 100.0, "forwards": 1.0}
    assert telegram_posts.post(alone, CHANNELS).item.id == "tg:77:14"


def test_pictures_without_a_word_are_a_picture() -> None:
    assert telegram_posts.post([message(1, media=photo())], CHANNELS).item.kind == "picture"
    assert telegram_posts.post([message(1, "word", media=photo())], CHANNELS).item.kind == "post"


@pytest.mark.parametrize(
    ("header", "url", "origin"),
    [
        (forwarded(88, 31), "https://t.me/other_one/31", CHANNELS[88]),
        (forwarded(99, 31), "https://t.me/c/99/31", CHANNELS[99]),
        (forwarded(66, 31), "https://t.me/c/66/31", ChannelName(66, "", None)),
        (forwarded(88, None), "https://t.me/habr/5", CHANNELS[88]),
        (types.MessageFwdHeader(date=NOW, from_id=types.PeerUser(3)), "https://t.me/habr/5", None),
        (types.MessageFwdHeader(date=NOW, from_name="Somebody"), "https://t.me/habr/5", None),
    ],
)
def test_a_forward_has_the_address_of_its_original(header: Any, url: str, origin: ChannelName | None) -> None:
    post = telegram_posts.post([message(5, "news", fwd_from=header)], CHANNELS)
    assert (post.item.id, post.item.url, post.origin) == ("tg:77:5", url, origin)


def test_a_channel_without_a_username_has_addresses_for_its_members() -> None:
    assert telegram_posts.post([message(5, channel=99)], CHANNELS).item.url == "https://t.me/c/99/5"
    assert telegram_posts.post([message(5, channel=55)], CHANNELS).item.url == "https://t.me/c/55/5"


def test_counters_add_up_reactions_and_leave_out_what_is_not_said() -> None:
    reactions = types.MessageReactions(
        [types.ReactionCount(types.ReactionEmoji("👍"), 9), types.ReactionCount(types.ReactionPaid(), 2)]
    )
    replies = types.MessageReplies(replies=4, replies_pts=1)
    post = telegram_posts.post([message(5, views=100, replies=replies, reactions=reactions)], CHANNELS)
    assert post.counters == {"views": 100.0, "replies": 4.0, "reactions": 11.0}
    assert telegram_posts.counters(None, -1) == {}


def test_names_are_of_channels_alone_and_take_the_first_username_that_works() -> None:
    several = [types.Username("old", active=False), types.Username("fresh", active=True)]
    channel = types.Channel(1, "One", types.ChatPhotoEmpty(), NOW, usernames=several)
    chats = [channel, types.Chat(2, "Group", types.ChatPhotoEmpty(), 3, NOW, 1), types.ChannelForbidden(3, 4, "Closed")]
    assert telegram_posts.names(chats) == {1: ChannelName(1, "One", "fresh")}


def test_what_a_channel_says_of_itself_is_no_post() -> None:
    service = types.MessageService(1, types.PeerChannel(77), NOW, types.MessageActionPinMessage())
    assert not telegram_posts.is_post(service)
    assert not telegram_posts.is_post(types.MessageEmpty(1, types.PeerChannel(77)))
    assert telegram_posts.is_post(message(1))


def test_a_post_full_of_markup_comes_out_whole() -> None:
    text = "яж" * 2048
    kinds = [types.MessageEntityBold, types.MessageEntityItalic, types.MessageEntityStrike, types.MessageEntityCode]
    marks = [kinds[place % 4](place, 1) for place in range(4096)]
    item = clean(telegram_posts.post([message(1, text, entities=marks)], CHANNELS).item, NOW)
    assert to_plain(item.text or "") == text


def test_hostile_text_does_not_get_out_of_its_place() -> None:
    text = 'x" onclick="alert(1)<script>alert(2)</script>'
    marks = [types.MessageEntityUrl(0, len(text)), types.MessageEntityPre(2, 9, '"><img src=x onerror=alert(3)>')]
    safe = clean(telegram_posts.post([message(1, text, entities=marks)], CHANNELS).item, NOW).text or ""
    assert "<script" not in safe
    assert "<img" not in safe
    assert 'onclick="' not in safe


@given(
    st.text(max_size=60),
    st.lists(
        st.tuples(
            st.integers(-5, 80),
            st.integers(-5, 80),
            st.sampled_from([types.MessageEntityBold, types.MessageEntityUrl, types.MessageEntityCode]),
        )
    ),
)
def test_marks_of_any_place_break_nothing(text: str, places: list[tuple[int, int, Any]]) -> None:
    marks = [kind(offset, length) for offset, length, kind in places]
    post = telegram_posts.post([message(1, text, entities=marks)], CHANNELS)
    clean(post.item, NOW)
