"""The weight of sources: links raise it, what is known stays, hosts of which nothing is known are at the bottom."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.stories import sources
from palate.stories.sources import SourceParams, page_rank

PARAMS = SourceParams()
HOSTS = st.sampled_from(["a.com", "b.com", "c.com", "d.org", "e.ru"])


def test_a_link_gives_rank_to_whom_it_leads() -> None:
    ranks = page_rank({("a.com", "b.com"): 2, ("c.com", "b.com"): 1, ("b.com", "a.com"): 1}, PARAMS, known={})
    assert ranks["b.com"] > ranks["a.com"] > ranks["c.com"]
    assert sum(ranks.values()) == pytest.approx(1)


def test_two_hosts_have_the_ranks_of_the_formula() -> None:
    """a → b, b → nobody: b's rank jumps, half to each; r_a = 0.15 + 0.35 r_b, r_a + r_b = 1."""
    ranks = page_rank({("a.com", "b.com"): 5}, SourceParams(rounds=100), known={})
    assert ranks["a.com"] == pytest.approx(0.5 / 1.35)


def test_links_to_oneself_do_not_count() -> None:
    alone = page_rank({("a.com", "a.com"): 100, ("a.com", "b.com"): 1, ("b.com", "a.com"): 1}, PARAMS, known={})
    assert alone["a.com"] == pytest.approx(alone["b.com"])


def test_without_links_all_is_as_it_was_known() -> None:
    assert page_rank({}, PARAMS, known={"a.com": 3, "b.com": 1}) == pytest.approx({"a.com": 0.75, "b.com": 0.25})
    assert page_rank({}, PARAMS, known={}) == {}


def test_palate_comes_with_ranks_of_news_hosts() -> None:
    known = sources.known_ranks()
    assert len(known) == 1156
    ranks = page_rank({}, PARAMS)
    heavy, light, none = sources.weights(("reuters.com", "glasnarod.ru", "nobody.example"), ranks, PARAMS).values()
    assert 1 >= heavy > 0.8 > 0.5 > light > 0 == none


def test_a_part_of_a_site_weighs_what_the_site_does() -> None:
    ranks = {"example.com": 0.5, "shop.example.com": 0.00002, "com": 0.9}
    hosts = ("example.com", "news.example.com", "shop.example.com", "other.com")
    whole, part, shop, other = sources.weights(hosts, ranks, PARAMS).values()
    assert part == whole
    assert shop < 0.1
    assert other == 0  # nothing is known of it by its ending


def test_odd_hosts_weigh_nothing() -> None:
    assert set(sources.weights(("", ".", "localhost", "…"), {"a.com": 1.0}, PARAMS).values()) == {0}
    assert sources.weights(("a.com",), {}, PARAMS) == {"a.com": 0}


@given(st.lists(st.tuples(HOSTS, HOSTS, st.integers(1, 9)), max_size=12))
def test_order_of_links_changes_nothing(links: list[tuple[str, str, int]]) -> None:
    counted = {(one, other): float(count) for one, other, count in links}
    shuffled = dict(sorted(counted.items(), reverse=True))
    assert page_rank(counted, PARAMS, known={}) == page_rank(shuffled, PARAMS, known={})
