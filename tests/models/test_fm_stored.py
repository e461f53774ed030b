"""What a snapshot holds of a factorization machine gives it back, and is small."""

from __future__ import annotations

import numpy as np

from palate.domain import Interactions
from palate.models import factorization_machine as fm
from palate.models import fm_stored
from palate.models.factorization_machine import FactorizationMachine, FactorizationMachineParams, ItemSources
from palate.vocabulary import Vocabulary


def test_the_arrays_of_a_snapshot_give_the_model_back() -> None:
    random = np.random.default_rng(1)
    users, items = random.integers(0, 60, 2_000), random.integers(0, 150, 2_000)
    ones = np.ones(2_000, np.float32)
    data = Interactions(users, items, random.random(2_000, np.float32), ones, np.arange(2_000))
    sources = ItemSources(np.arange(150), np.arange(150) % 4)
    model, _ = fm.fit(data, sources, FactorizationMachineParams(l2_scales=(2.0,)), 0)
    arrays = fm_stored.to_arrays(model)
    assert arrays["item_vectors"].dtype == np.float16
    again = fm_stored.from_arrays(arrays, model.loss, model.base, fm_stored.header(model))
    np.testing.assert_allclose(fm.score(again, users, items), fm.score(model, users, items), atol=2e-3)
    assert again.user_bias.tobytes() == model.user_bias.tobytes()
    assert (again.l2_user, again.l2_scale, again.epochs) == (model.l2_user, 2.0, model.epochs)
    assert again.item_vectors.dtype == np.float32
    assert again.item_vectors.flags.writeable
    assert fm_stored.from_arrays(arrays, model.loss, model.base).l2_scale == 1.0  # of a header from before it was there


def test_a_model_of_a_million_items_fits_into_56_megabytes() -> None:
    n = 1_000_000
    row = np.lib.stride_tricks.as_strided  # a model of that size without its memory
    model = FactorizationMachine(
        "squared", 0.5, Vocabulary(np.empty(0, np.int64)), np.empty(0, np.float32), np.empty((0, 13), np.float32),
        np.empty(0, np.int32), Vocabulary(row(np.zeros(1, np.int64), (n,), (0,))), row(np.zeros(1, np.float32), (n,), (0,)),
        np.zeros((n, 13), np.float32), row(np.zeros(1, np.int32), (n,), (0,)), Vocabulary(np.empty(0, np.int64)),
        np.empty(0, np.float32), np.empty((0, 13), np.float32),
    )  # fmt: skip
    popularity_and_evidence = 8 * n
    assert sum(array.nbytes for array in fm_stored.to_arrays(model).values()) + popularity_and_evidence <= 56_000_000
