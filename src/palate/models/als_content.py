"""Implicit ALS whose items lie between what their content says and what their readers taught: see `models.content`.

To be told apart from the exact solution, in which a pair that was not seen counts against an item: of one that few people have
met that says little, so its content has the word until there is more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.models import content, implicit_als
from palate.models.implicit_als import ImplicitALS, ImplicitALSParams
from palate.models.material import Known, Material, faded


def fit(
    material: Material,
    params: ImplicitALSParams,
    seed: int,
    solve: Callable[[Material, ImplicitALSParams, int], ImplicitALS] = implicit_als.fit,
) -> ImplicitALS:
    """`implicit_als.fit`; where contents are known it also learns what they say, and moves items of few examples there.

    `solve` finds the vectors: here, or elsewhere.
    """
    model = solve(material, params, seed)
    if material.contents is None or not model.item_examples.any():
        return model
    content_map = content.fit(material.contents, model.item_vectors, model.item_examples, material.content)
    return moved(replace(model, content=content_map), material, np.arange(len(model.items)))


def mixed_contributions(
    model: ImplicitALS,
    known: Known,
    rows: NDArray[np.integer[Any]],
    mixes: NDArray[np.float32],
) -> NDArray[np.float32]:
    """(m, n): `mixes` (m, C) times the contributions of one person's items to those of these rows (C,), which are linear in their
    vectors."""
    items, weights = faded(known, model.params.recent_items).row(0)
    n = len(items)
    vectors = np.vstack([model.item_vectors[items], mixes @ model.item_vectors[rows]]).astype(np.float32)
    few = replace(model, item_vectors=vectors)
    return implicit_als.contributions(few, np.arange(n), weights, np.arange(n, len(vectors)))


def moved(model: ImplicitALS, material: Material, rows: NDArray[np.int64]) -> ImplicitALS:
    """The model whose items of these rows, which were just solved, stand between that and their content.

    Of n examples the solution counts n / (n + trust). A model without a content map stays as it is.
    """
    if model.content is None or material.contents is None:
        return model
    said = content.predicted(model.content, content.taken(material.contents, rows))
    trust = material.content.trust
    share = (trust / (trust + model.item_examples[rows]))[:, np.newaxis].astype(np.float32)
    vectors = model.item_vectors.copy()
    vectors[rows] += share * (said - vectors[rows])
    return replace(model, item_vectors=vectors, item_matrix=implicit_als.item_matrix(vectors, model.params))
