from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate import scanning
from palate.domain import to_milliseconds
from palate.models import nearest
from palate.models.nearest import Index, IndexParams
from palate.orders import packed
from palate.pool import NO_DATE
from palate.scanning import Listed, Weights

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ITEMS, WIDE, SOURCES, LABELS = 320, 5, 6, 9


@pytest.fixture(scope="module")
def index() -> Index:
    vectors = np.random.default_rng(5).normal(size=(ITEMS, WIDE)).astype(np.float32)
    made = nearest.build(vectors, vectors[:50], IndexParams(least=1, flat_below=1, lists=8))
    assert made is not None
    return nearest.read(*made)


def shelf(index: Index, random: np.random.Generator) -> Listed:
    """Items of which a tenth isn't in the pool."""
    counts = random.integers(0, 7, ITEMS)
    columns = {
        "published": np.where(
            random.random(ITEMS) < 0.2,
            NO_DATE,
            to_milliseconds(NOW) - random.integers(-1000, 90, ITEMS) * 3_600_000,
        ),
        "source": random.integers(-1, SOURCES, ITEMS).astype(np.int32),
        "label_offsets": np.append(0, np.cumsum(counts)),
        "labels": np.concatenate([random.permutation(LABELS)[:count] for count in counts]).astype(np.int32),
    }
    rows = random.permutation(ITEMS)
    rows[random.random(ITEMS) < 0.1] = -1

    class Pool(SimpleNamespace):
        def __len__(self) -> int:
            return ITEMS

    return scanning.listed(cast(Any, Pool(**columns)), index, rows)


def weights(random: np.random.Generator, squared: bool, curved: bool, slope: float) -> Weights:
    def some(count: int) -> np.ndarray:
        return np.append(0, random.normal(0, 0.2, count) * (random.random(count) < 0.5)).astype(np.float32)

    return Weights(squared, float(random.normal(0, 0.3)), some(SOURCES), some(LABELS), curved, slope, -0.3)


@given(
    seed=st.integers(0, 2**32 - 1),
    squared=st.booleans(),
    curved=st.booleans(),
    slope=st.sampled_from([-0.5, 0.0, 0.8]),
    probes=st.integers(1, 9),
    limits=st.tuples(st.integers(0, 60), st.integers(0, 60)),
    freshness=st.sampled_from([0.0, 0.3, 0.9]),
)
@settings(max_examples=60, deadline=None)
def test_a_scan_finds_what_reading_everything_finds(
    index: Index,
    seed: int,
    squared: bool,
    curved: bool,
    slope: float,
    probes: int,
    limits: tuple[int, int],
    freshness: float,
) -> None:
    random = np.random.default_rng(seed)
    items, own = shelf(index, random), weights(random, squared, curved, slope)
    asked = index.asked(random.normal(size=WIDE).astype(np.float32), probes)
    bits = packed(random.random(ITEMS) < 0.7)
    beside = np.sort(random.integers(-1, ITEMS, 40)).astype(np.int32)
    given = items, asked, own, scanning.age(NOW, freshness, 2.0), bits, beside, limits
    for fast, plain in zip(scanning.best(*given), scanning.readable(*given), strict=True):
        assert len(np.unique(fast)) == len(fast) == len(plain)
        told, wanted = (scanning.values_of(items, asked, own, given[3], places)[0] for places in (fast, plain))
        np.testing.assert_allclose(told, wanted, rtol=1e-4, atol=1e-5)


def test_an_item_is_known_where_the_index_has_it(index: Index) -> None:
    items = shelf(index, np.random.default_rng(1))
    inside = np.flatnonzero(items.places >= 0)
    np.testing.assert_array_equal(items.items[items.places[inside], scanning.ROW], inside)
    assert np.count_nonzero(items.items[:, scanning.ROW] >= 0) == len(inside)


def test_what_age_takes_is_told_to_the_minute() -> None:
    kept = scanning.age(NOW, 0.4, 2.0)
    old = int(timedelta(days=2) / timedelta(minutes=1))
    assert kept.kept[0] == 1
    assert kept.kept[int(old * kept.a_minute)] == pytest.approx(0.8)
    assert kept.kept[-1] == pytest.approx(0.6, abs=1e-4)


def test_products_are_as_precise_as_a_byte(index: Index) -> None:
    vectors = np.random.default_rng(5).normal(size=(ITEMS, WIDE)).astype(np.float32)
    query = np.random.default_rng(6).normal(size=WIDE).astype(np.float32)
    places = np.arange(ITEMS)
    told = scanning._products(shelf(index, np.random.default_rng(1)), index.asked(query, 3), places)
    np.testing.assert_allclose(told, vectors[index.members[1]] @ query, atol=0.15)
