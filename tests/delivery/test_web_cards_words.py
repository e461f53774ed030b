"""Pages have words for whatever found an item and whatever its place goes by."""

from __future__ import annotations

from palate.candidates import found
from palate.delivery.web_cards import FOUND_BY, GONE_BY
from palate.feature_log import JOINS


def test_every_way_of_being_found_and_every_kind_of_column_has_words() -> None:
    assert set(found.NAMES) <= set(FOUND_BY)
    assert set(GONE_BY) == set(JOINS)
