from __future__ import annotations

import pytest

from palate.errors import InvalidInput
from palate.sources.handles import Handle, named, parse


@pytest.mark.parametrize(
    "text",
    [
        *(
            "durov",
            "@Durov",
            " t.me/durov ",
            "https://t.me/durov/123",
            "http://www.t.me/s/durov?before=5",
            "tg://resolve?domain=durov",
        ),
        *("https://telegram.me/durov", "https://t.me/durov/5?single#x"),
    ],
)
def test_a_channel_is_known_by_each_way_to_write_its_name(text: str) -> None:
    assert parse(text) == Handle(username="durov")


@pytest.mark.parametrize(
    "text", ["https://t.me/+AbCd-EfGh_12", "t.me/joinchat/AbCd-EfGh_12", "tg://join?invite=AbCd-EfGh_12"]
)
def test_a_private_channel_is_known_by_its_invite(text: str) -> None:
    assert parse(text) == Handle(invite="AbCd-EfGh_12")


@pytest.mark.parametrize(
    "text",
    [
        *("", "@", "abc", "1durov", "du__rov", "durov_", "x" * 33, "дуров", "https://example.org/durov"),
        *("https://t.me/", "https://t.me/c/123/5", "https://t.me/share/url?url=x", "https://t.me/+491701234567"),
        *("https://t.me/addstickers/Cats", "http://[", "javascript:alert(1)", "tg://resolve?domain="),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="names no channel"):
        parse(text)


def test_a_post_names_channels_by_links_mentions_and_what_it_forwards() -> None:
    text = (
        'By <a href="https://t.me/first/12">one</a> and <a href="https://t.me/joinchat/AbCdEfGhIj">two</a>, @Third! '
        "Write to me@fourth.org, buy at @shop_bot, see example.org/@fifth and t.me/FIRST."
    )
    found = [one.username or one.invite for one in named(text, "https://t.me/origin/7")]
    assert found == ["origin", "first", "AbCdEfGhIj", "third"]


def test_a_list_of_channels_counts_only_so_far() -> None:
    assert len(named(" ".join(f"@channel{n}" for n in range(100)))) == 30


def test_text_of_any_kind_is_read_in_no_time() -> None:
    for piece in ("@", "t.me/", "https://t.me/+", "@a_", "tg://resolve?domain="):
        assert named(piece * 20_000) == []
