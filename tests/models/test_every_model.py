"""Every check of `checks.py` on every model."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pytest
from checks import ALL, Model

from palate.models import factorization_machine as fm
from palate.models import fm_stored, popularity
from palate.models.factorization_machine import NO_SOURCES, FactorizationMachineParams, Loss
from palate.models.popularity import PopularityParams

NOW = datetime(1970, 1, 2, tzinfo=UTC)


def factorization_machine(loss: Loss) -> Model:
    # weak l2 for known answers: 7 users and 31 items have few examples each
    params = FactorizationMachineParams(
        loss=loss,
        l2_users=0.1,
        l2_items=0.1,
        l2_user_bias=0.5,
        l2_item_bias=0.5,
        initial_scale=0.2,
        epochs=20,
        learning_rate=0.5,
    )
    return Model(
        fit=lambda data, seed: fm.fit(data, NO_SOURCES, params, seed)[0],
        score=fm.score,
        arrays=fm_stored.to_arrays,
        error=0.1,
        by_user=True,
    )


MODELS = {
    "squared": factorization_machine("squared"),
    "logistic": factorization_machine("logistic"),
    "popularity": Model(
        fit=lambda data, seed: popularity.fit(data, NOW, PopularityParams(strength=1)),
        score=lambda fitted, users, items: popularity.score(fitted, items),
        arrays=lambda fitted: {
            "items": fitted.items.keys,
            "mean": fitted.mean,
            "evidence": fitted.evidence,
            "prior": np.array([fitted.prior_mean, fitted.strength]),
        },
        error=0.1,
        by_user=False,
    ),
}


@pytest.mark.parametrize("check", ALL, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", MODELS)
def test_every_model(name: str, check: Callable[[Model], None]) -> None:
    check(MODELS[name])
