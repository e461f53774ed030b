"""Every check of `ranking_checks.py` on every model of the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from ranking_checks import ALL, Case

from palate.models.registry import MODELS

SETTINGS: dict[str, dict[str, Any]] = {
    "fm": {"factors": 4, "l2_users": 0.1, "l2_items": 0.1, "initial_scale": 0.2, "learning_rate": 0.5},
    "ials": {"factors": 4, "epochs": 6},
    "ease": {"l2": 5},
    "svd": {"factors": 2},
    "blend": {
        "members": ["popularity~1d", "itemknn", "ials"],
        "settings": {"ials": {"factors": 4, "epochs": 4}},
        "slices": 1,
    },
}
"""Where the defaults are meant for more than a few dozen interactions."""


CASES = [pytest.param(name, check, id=f"{name}-{check.__name__}") for name in MODELS for check in ALL]


@pytest.mark.parametrize(("name", "check"), CASES)
def test_every_ranking(name: str, check: Callable[[Case], None]) -> None:
    entry = MODELS[name]
    check(Case(entry, msgspec.convert(SETTINGS.get(name, {}), entry.params), by_user=name != "popularity"))
