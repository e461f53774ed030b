"""What buttons and links carry can't be forged, and fits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.delivery import bot_callbacks
from palate.delivery.bot_callbacks import Pressed, Shared

SECRET = b"s" * 32
REQUEST = "0123456789abcdef" * 2
KEYS = st.integers(0, 2**64 - 1)


@given(st.sampled_from("ldhu"), KEYS, st.sampled_from([None, REQUEST]), st.integers(-(2**52), 2**52))
def test_a_button_says_what_it_was_made_for_and_fits(verb: str, key: int, request: str | None, chat: int) -> None:
    data = bot_callbacks.button(SECRET, chat, Pressed(verb, key, request))
    assert len(data.encode()) <= 64
    assert bot_callbacks.read_button(SECRET, chat, data) == Pressed(verb, key, request)
    assert bot_callbacks.read_button(SECRET, chat + 1, data) is None
    assert bot_callbacks.read_button(b"other", chat, data) is None


@given(KEYS, KEYS)
def test_a_shared_link_says_what_it_was_made_for_and_fits(item: int, sharer: int) -> None:
    payload = bot_callbacks.share(SECRET, Shared(item, sharer))
    assert len(payload) <= 64
    assert set(payload) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
    assert bot_callbacks.read_share(SECRET, payload) == Shared(item, sharer)
    assert bot_callbacks.read_button(SECRET, 1, payload) is None


@given(st.integers(0, 49), st.characters())
def test_a_changed_character_makes_a_button_worthless(place: int, other: str) -> None:
    data = bot_callbacks.button(SECRET, 1, Pressed("l", 5, REQUEST))
    changed = data[:place] + other + data[place + 1 :]
    same = changed == data or (place == 49 and bot_callbacks.read_button(SECRET, 1, changed) is not None)
    assert same or bot_callbacks.read_button(SECRET, 1, changed) is None


@pytest.mark.parametrize("data", ["", "x", "like:1", "\ud800", "ж" * 20, "A" * 64, "=" * 28])
def test_what_is_no_button_is_none(data: str) -> None:
    assert bot_callbacks.read_button(SECRET, 1, data) is None
    assert bot_callbacks.read_share(SECRET, data) is None
