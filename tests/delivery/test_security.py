"""Who may ask: names, sites, keys, cookies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.delivery import security
from palate.delivery.security import KeyCache
from palate.domain import EPOCH
from palate.people import ApiKey


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "LOCALHOST.", "a.localhost", "::1", "[::1]"])
def test_names_of_this_machine_are_loopback(host: str) -> None:
    assert security.is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.0.0.1", "example.com", "127.0.0.1.example.com", "localhost.com", ""]
)
def test_other_names_are_not_loopback(host: str) -> None:
    assert not security.is_loopback(host)


def test_keys_are_asked_for_as_soon_as_others_can_reach_the_server() -> None:
    assert not security.asks_for_keys("127.0.0.1", ())
    assert security.asks_for_keys("0.0.0.0", ())
    assert security.asks_for_keys("127.0.0.1", ["feed.example.com"])  # a proxy brings others in


def test_on_loopback_a_page_can_not_point_its_own_name_at_the_server() -> None:
    assert security.host_allowed("127.0.0.1:8080", "127.0.0.1", ())
    assert security.host_allowed("[::1]:8080", "127.0.0.1", ())
    assert not security.host_allowed("evil.example:8080", "127.0.0.1", ())
    assert not security.host_allowed(None, "127.0.0.1", ())


def test_named_servers_answer_to_their_names_only() -> None:
    assert security.host_allowed("Feed.example.com", "0.0.0.0", ("feed.example.com",))
    assert not security.host_allowed("other.example.com", "0.0.0.0", ("feed.example.com",))
    assert security.host_allowed("any.example.com", "0.0.0.0", ())


@given(st.text())
def test_no_host_header_breaks_the_check(header: str) -> None:
    security.host_allowed(header, "127.0.0.1", ())


@pytest.mark.parametrize(
    ("fetch_site", "origin", "foreign"),
    [
        (None, None, False),  # a program
        ("same-origin", "http://127.0.0.1:8080", False),
        ("none", None, False),  # typed into the address bar
        ("cross-site", None, True),
        ("same-site", "http://127.0.0.1:3000", True),  # another server on this machine
        (None, "http://127.0.0.1:8080", False),
        (None, "http://evil.example", True),
        (None, "null", True),
        (None, "http://[", True),
    ],
)
def test_what_another_site_sends_is_known(fetch_site: str | None, origin: str | None, foreign: bool) -> None:
    assert security.from_another_site("127.0.0.1:8080", fetch_site, origin) is foreign


def test_a_key_comes_in_either_header() -> None:
    assert security.api_key("Bearer palate_a", None) == "palate_a"
    assert security.api_key(None, "palate_a") == "palate_a"
    assert security.api_key("Basic palate_a", None) is None
    assert security.api_key(None, None) is None


KEY = ApiKey(id="a", scopes=frozenset({"read"}), note=None, created=EPOCH, revoked=None)


def test_a_checked_key_is_believed_for_a_few_seconds_only() -> None:
    time = [100.0]
    cache = KeyCache(lambda: time[0])
    cache.put("palate_a", KEY)
    assert cache.get("palate_a") == KEY
    assert cache.get("palate_b") is None
    time[0] += security.KEY_SECONDS
    assert cache.get("palate_a") is None


def test_the_cache_of_keys_is_bounded() -> None:
    cache = KeyCache()
    for number in range(security.KEYS_KEPT + 1):
        cache.put(f"palate_{number}", KEY)
    assert cache.get("palate_0") is None
    assert cache.get(f"palate_{security.KEYS_KEPT}") == KEY


@given(st.text(min_size=1, max_size=200))
def test_a_signed_person_comes_back_and_a_forged_one_does_not(user: str) -> None:
    cookie = security.sign_person(user, b"secret")
    assert security.signed_person(cookie, b"secret") == user
    assert security.signed_person(cookie, b"other secret") is None
    assert security.signed_person(("A" if cookie[0] != "A" else "B") + cookie[1:], b"secret") is None


@pytest.mark.parametrize("cookie", [None, "", "x", "a.b.c", "\x00", "é" * 5000])
def test_a_broken_cookie_is_nobody(cookie: str | None) -> None:
    assert security.signed_person(cookie, b"secret") is None
