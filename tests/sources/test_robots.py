from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.errors import FetchRefused
from palate.sources import robots
from palate.sources.fetching import Fetcher, FetchParams
from palate.sources.robots import RobotsCache, allowed, permits, read_rules

NOW = datetime(2024, 5, 1, tzinfo=UTC)
RULES = """
User-agent: other
User-agent: PALATE  # us
Disallow: /private
Allow: /private/open$
Disallow: /*.pdf$
Disallow: /*?print=

User-agent: *
Disallow: /
"""


@pytest.mark.parametrize(
    ("path", "permitted"),
    [
        ("/", True), ("/private", False), ("/private/x", False), ("/private/open", True), ("/private/open/x", False),
        ("/a/b.pdf", False), ("/b.pdf?x", True), ("/a?print=1", False), ("/a?x=1", True),
    ],
)  # fmt: skip
def test_the_longest_rule_of_the_own_group_decides(path: str, permitted: bool) -> None:
    assert permits(read_rules(RULES, "Palate"), path) is permitted


def test_other_robots_follow_the_group_for_all() -> None:
    assert not permits(read_rules(RULES, "Somebody"), "/")
    assert permits(read_rules("Disallow: /\nUser-agent: *\nDisallow:\n", "Palate"), "/a")
    assert permits(read_rules("Allow: /a\n<html>\x00nonsense\nUser-agent:\n:\n", "Palate"), "/a")
    assert permits(((False, "/a"), (True, "/a")), "/a")


@given(st.text(alphabet="/a*$b", max_size=12), st.text(alphabet="/ab", max_size=12))
def test_patterns_mean_what_their_regular_expression_means(pattern: str, path: str) -> None:
    body = ".*".join(map(re.escape, pattern.removesuffix("$").split("*"))) + ("$" if pattern.endswith("$") else "")
    assert robots._fits(pattern, path) is (re.match(body, path) is not None)


def test_a_hostile_pattern_is_quick() -> None:
    assert permits(((False, "/" + "*a" * 2000 + "b"),), "/" + "a" * 4000)


def test_a_page_is_allowed_or_not_by_its_site(site: Any, fetcher: Fetcher) -> None:
    site["/robots.txt"] = RULES.encode()
    cache = RobotsCache()
    assert allowed(site.address + "/a", fetcher, cache)
    assert not allowed(site.address + "/private/x?y=1", fetcher, cache)
    assert site.paths == ["/robots.txt"]


@pytest.mark.parametrize(
    ("status", "permitted"), [(404, True), (403, True), (410, True), (429, False), (500, False), (503, False)]
)
def test_no_robots_file_allows_and_a_failing_server_does_not(
    site: Any, fetcher: Fetcher, status: int, permitted: bool
) -> None:
    site["/robots.txt"] = (status, {}, b"")
    assert allowed(site.address + "/a", fetcher, RobotsCache()) is permitted


def test_a_dead_server_and_an_endless_file_do_not_allow(site: Any, fetcher: Fetcher) -> None:
    assert not allowed("http://127.0.0.1:1/a", fetcher, RobotsCache())
    site["/robots.txt"] = b"x" * 300_000
    assert not allowed(site.address + "/a", fetcher, RobotsCache())
    with pytest.raises(FetchRefused):
        allowed("ftp://127.0.0.1/a", fetcher, RobotsCache())


def test_rules_are_asked_for_again_when_they_are_old(site: Any) -> None:
    times = [NOW]
    fetcher = Fetcher(FetchParams(pause=0, allow_private=True), clock=lambda: times[-1])
    cache = RobotsCache()
    site["/robots.txt"] = (503, {}, b"")
    assert not allowed(site.address + "/a", fetcher, cache)
    site["/robots.txt"] = b"User-agent: *\nDisallow: /b\n"
    assert not allowed(site.address + "/a", fetcher, cache)
    times.append(NOW + timedelta(hours=2))
    assert allowed(site.address + "/a", fetcher, cache)
    times.append(NOW + timedelta(hours=25))
    site["/robots.txt"] = b"User-agent: *\nDisallow: /a\n"
    assert allowed(site.address + "/a", fetcher, cache)
    times.append(NOW + timedelta(hours=27))
    assert not allowed(site.address + "/a", fetcher, cache)


def test_the_cache_is_bounded() -> None:
    cache = RobotsCache()
    for number in range(robots.MAX_SITES + 10):
        cache.put(str(number), (), NOW + timedelta(days=1))
    assert len(cache.sites) == robots.MAX_SITES
    assert cache.get("0", NOW) is None
    assert cache.get(str(robots.MAX_SITES), NOW) == ()
