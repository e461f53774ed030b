"""Implicit ALS: the optimum it has to reach, its twin in NumPy, and what it does with strange weights."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from palate import matrix
from palate.domain import Interactions
from palate.errors import InvalidInput
from palate.matrix import Sparse
from palate.models import implicit_als
from palate.models.implicit_als import ImplicitALS, ImplicitALSParams
from palate.models.material import Known, Material, known, material
from palate.vocabulary import vocabulary

NOW = datetime(2026, 11, 1, tzinfo=UTC)
SMALL = ImplicitALSParams(factors=5, epochs=3, l2=0.02, unobserved_weight=0.1)


def interactions(users: Any, items: Any, weights: Any) -> Interactions:
    user, item = np.asarray(users, np.int64), np.asarray(items, np.int64)
    order = np.lexsort((item, user))
    weight = np.asarray(weights, np.float32)[order]
    return Interactions(user[order], item[order], np.ones(len(user), np.float32), weight, np.zeros(len(user), np.int64))


def some(seed: int = 0, users: int = 30, items: int = 17, share: float = 0.3, refusals: float = 0.1) -> Material:
    """A lopsided material; user keys are multiples of 10, item keys start at 2⁴⁰."""
    random = np.random.default_rng(seed)
    row, column = np.nonzero(random.random((users, items)) < share)
    weight = random.uniform(0.5, 3, len(row)) * np.where(random.random(len(row)) < refusals, -1, 1)
    return material(interactions(row * 10, column + 2**40, weight), NOW)


def dense(data: Material) -> NDArray[np.float64]:
    """(U, I): the weight of each pair, 0 where there is none."""
    result = np.zeros((len(data.users), len(data.items)))
    rows, columns = data.users.rows(data.interactions.user), data.items.rows(data.interactions.item)
    result[rows, columns] = data.interactions.weight
    return result


def loss(weights: NDArray[np.float64], users: Any, items: Any, params: ImplicitALSParams) -> float:
    """As the module's head states it, cell by cell."""
    strong = params.alpha * np.abs(weights) ** params.power * (weights != 0)
    wanted, scores = weights > 0, users @ items.T
    if params.form == "confidence":
        unobserved, cells = 1.0, ((1 + strong) * (wanted - scores) ** 2).sum()
    else:
        unobserved = params.unobserved_weight
        cells = (strong * (wanted - scores) ** 2).sum() + unobserved * (scores**2).sum()
    seen = weights != 0
    ridges = 0.0
    for vectors, counts, others in ((users, seen.sum(1), len(items)), (items, seen.sum(0), len(users))):
        ridges += (params.l2 * (counts + unobserved * others) ** params.l2_exponent * (vectors**2).sum(1)).sum()
    return float(cells + ridges)


FORMS = [
    SMALL,
    msgspec.structs.replace(SMALL, form="confidence", alpha=4.0, power=2.0, l2=0.1, l2_exponent=0.0),
    msgspec.structs.replace(SMALL, factors=33, alpha=0.3, l2_exponent=0.5),
    msgspec.structs.replace(SMALL, factors=70, l2=0.05),
    msgspec.structs.replace(SMALL, factors=64, form="confidence", alpha=0.2, power=3.0),
]


@pytest.mark.parametrize("params", FORMS)
def test_the_stated_loss_is_that_of_the_vectors_and_falls(params: ImplicitALSParams) -> None:
    data = some()
    model = implicit_als.fit(data, params, 1)
    expected = loss(dense(data), model.user_vectors.astype(float), model.item_vectors.astype(float), params)
    assert model.losses[-1] == pytest.approx(expected, rel=1e-5)
    assert list(model.losses) == sorted(model.losses, reverse=True)


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_threads() -> None:
    one, three = (implicit_als.fit(some(), msgspec.structs.replace(SMALL, threads=threads), 7) for threads in (1, 3))
    assert {name: array.tobytes() for name, array in implicit_als.to_arrays(one).items()} == {
        name: array.tobytes() for name, array in implicit_als.to_arrays(three).items()
    }
    assert one.losses == three.losses
