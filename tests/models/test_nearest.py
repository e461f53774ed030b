from __future__ import annotations

import numpy as np
import pytest

from palate.errors import SnapshotBroken
from palate.models import nearest
from palate.models.nearest import Index, IndexParams, Located
from palate.orders import packed

N = 3_000
RNG = np.random.default_rng(1)
CENTRES = RNG.normal(0, 1, (30, 8))
VECTORS = (CENTRES[RNG.integers(30, size=N)] + RNG.normal(0, 0.3, (N, 8))).astype(np.float32)
PEOPLE = (RNG.normal(0, 1, (200, 8)) * np.array([5, 1, 1, 1, 1, 1, 1, 0.01])).astype(np.float32)
QUERIES = RNG.normal(0, 1, (20, 8)).astype(np.float32)


def params(kind: str) -> IndexParams:
    return IndexParams(kind=kind, least=1, flat_below=1, lists=40)  # type: ignore[arg-type]


def located(kind: str, rows: np.ndarray | None = None) -> Located:
    made = nearest.build(VECTORS, PEOPLE, params(kind))
    assert made is not None
    return Located(nearest.read(*made), np.arange(N) if rows is None else rows)


@pytest.mark.parametrize(
    ("kind", "least"), [("ivf", 0.9), ("flat", 0.95), ("hnsw", 0.5)]
)  # a graph is weak on products
def test_a_search_comes_near_the_exact_answer_among_what_is_open(kind: str, least: float) -> None:
    mask = RNG.random(N) < 0.3
    index = located(kind)
    found = [index.search(query, 20, packed(mask), 16) for query in QUERIES]
    assert all(mask[rows].all() and len(rows) == 20 for rows in found)
    exact = [nearest.exact(VECTORS, query, 20, mask) for query in QUERIES]
    shared = [len(np.intersect1d(*both)) / 20 for both in zip(found, exact, strict=True)]
    assert np.mean(shared) > least


def test_rows_of_the_pool_are_asked_for_and_given_where_vectors_lie_otherwise() -> None:
    rows = np.where(np.arange(N) % 3 == 0, -1, N - np.arange(N))  # each third vector isn't in the pool
    mask = np.zeros(N + 1, bool)
    mask[rows[(rows >= 0) & (np.arange(N) < 500)]] = True
    found = located("ivf", rows).search(QUERIES[0], 1_000, packed(mask), 40)
    assert sorted(found) == sorted(np.flatnonzero(mask))


def test_who_wants_nothing_gets_nothing() -> None:
    assert not len(located("ivf").search(QUERIES[0], 0, packed(np.ones(N, bool)), 16))


def test_vectors_of_one_list_are_of_one_cluster_and_the_nearest_is_asked_first() -> None:
    index = located("ivf").index
    clusters = index.clusters()
    assert index.cluster_count == 40
    assert clusters.min() >= 0
    centres = np.array([VECTORS[clusters == n].mean(axis=0) for n in range(40) if (clusters == n).any()])
    first = index.nearest_clusters(QUERIES[0], 3)[0]
    best = VECTORS[clusters == first] @ QUERIES[0]
    assert best.mean() > np.quantile(centres @ QUERIES[0], 0.8)


def test_turned_vectors_have_the_products_that_they_had() -> None:
    forth, back = nearest.turns(PEOPLE)
    assert np.allclose((VECTORS @ forth) @ (QUERIES @ back).T, VECTORS @ QUERIES.T, atol=1e-2)


def test_the_same_vectors_make_the_same_bytes() -> None:
    one, two = (nearest.build(VECTORS, PEOPLE, params("ivf")) for _ in range(2))
    assert one is not None
    assert two is not None
    assert np.array_equal(one[0], two[0])
    assert np.array_equal(one[1], two[1])


def test_few_items_need_no_index() -> None:
    assert nearest.build(VECTORS, PEOPLE, IndexParams()) is None
    assert nearest.build(VECTORS, PEOPLE, IndexParams(kind="none", least=1)) is None


def test_what_is_no_index_is_refused() -> None:
    with pytest.raises(SnapshotBroken, match="an index can't be read"):
        nearest.read(np.frombuffer(b"no index at all, but some words" * 9, np.uint8), np.eye(8))


def products_of(index: Index, query: np.ndarray, probes: int) -> tuple[np.ndarray, np.ndarray]:
    """The vectors of the nearest lists, and the product of each as what was asked tells it from its bytes."""
    asked, (memory, starts), (offsets, numbers) = index.asked(query, probes), index.codes, index.members
    found, products = [], []
    for number in asked.lists.tolist():
        size = offsets[number + 1] - offsets[number]
        codes = memory[starts[number] : starts[number] + size * index.width].reshape(size, index.width)
        products.append(codes @ asked.step + asked.near[number] + asked.start)
        found.append(numbers[offsets[number] : offsets[number + 1]])
    return np.concatenate(found), np.concatenate(products)


def test_products_of_the_nearest_lists_are_those_of_their_vectors() -> None:
    index = located("ivf").index
    found, products = products_of(index, QUERIES[0], 10)
    assert 0 < len(found) < N
    assert len(np.unique(found)) == len(found)
    exact = VECTORS @ QUERIES[0]
    assert np.abs(products - exact[found]).max() < 0.02 * np.abs(exact).max()
    assert np.isin(np.argsort(-exact)[:20], found).mean() > 0.8
    every, _ = products_of(index, QUERIES[0], 40)
    assert sorted(every) == list(range(N))


def test_without_lists_the_greatest_products_are_those_of_what_is_open() -> None:
    mask = RNG.random(N) < 0.3
    [(found, products)] = located("flat").searches(QUERIES[:1], 20, packed(mask), 16)
    assert mask[found].all()
    assert np.allclose(products, VECTORS[found] @ QUERIES[0], atol=0.05)
    assert (np.diff(products) <= 0).all()


@pytest.mark.parametrize("kind", ["ivf", "flat"])
def test_vectors_come_back_as_precise_as_they_are_kept(kind: str) -> None:
    numbers = np.array([5, 2_999, 0, 5])
    index = located(kind).index
    assert np.abs(index.vectors(numbers) - VECTORS[numbers]).max() < 0.05
    assert index.vectors(numbers[:0]).shape == (0, 8)


def test_lists_that_point_the_same_way_hold_what_is_alike_whatever_its_length() -> None:
    index, one = located("ivf").index, VECTORS[7, :6] * 9  # by its first numbers alone
    others = VECTORS[:, :6] @ one / np.linalg.norm(VECTORS[:, :6], axis=1)
    found = index.alike(one, 16)
    assert len(found) < N
    assert np.isin(np.argsort(-others)[:20], found).mean() >= 0.9
    assert len(index.alike(one, 99)) == N
