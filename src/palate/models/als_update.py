"""Implicit ALS going on from a model: exact half-steps of the people and items that something new is known of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from palate import matrix
from palate.domain import Interactions
from palate.matrix import Sparse
from palate.models import als_content, implicit_als
from palate.models.implicit_als import ImplicitALS
from palate.models.material import Material
from palate.vocabulary import Vocabulary, moved

Fold = Callable[[ImplicitALS, Sparse, Literal["user", "item"]], NDArray[np.float32]]
"""(model, weights of some users or items, which) → their vectors, with the other side as it is."""


def folded(model: ImplicitALS, weights: Sparse, kind: Literal["user", "item"]) -> NDArray[np.float32]:
    """A `Fold` on this machine."""
    return (implicit_als.fold_in_users if kind == "user" else implicit_als.fold_in_items)(model, weights)


def updated(
    model: ImplicitALS, material: Material, new: Interactions, *, people_too: bool = True, fold: Fold = folded
) -> ImplicitALS:
    """The model with a row for all of the material, those of the `new` interactions solved: people first, then items.

    The vectors of everybody else stay as they are, so that the time goes by what is new, not by what there is. Without
    `people_too` those of all people stay: what items are is learned in the space that people's vectors span. `fold` finds the
    vectors: here, or elsewhere.
    """
    known = model.items
    model = with_rows(model, material.users, material.items)
    weights = np.where(material.interactions.weight == 0, np.float32(np.nan), material.interactions.weight)
    by_user = matrix.of_interactions(material.interactions, weights, material.users, material.items)
    if people_too:
        model = _with_people(model, by_user, np.unique(material.users.rows(new.user)), fold)
    fresh = np.flatnonzero(known.rows(material.items.keys) < 0)
    rows = np.union1d(np.unique(material.items.rows(new.item)), fresh)
    return als_content.moved(_with_items(model, matrix.transposed(by_user), rows, fold), material, rows)


def with_rows(model: ImplicitALS, users: Vocabulary, items: Vocabulary) -> ImplicitALS:
    """The model with a row for each of these people and items, zero where they are new, and none for others."""
    return replace(
        model,
        users=users,
        user_vectors=moved(np.asarray(model.user_vectors, np.float32), model.users, users),
        user_examples=moved(model.user_examples, model.users, users),
        items=items,
        item_vectors=moved(model.item_vectors, model.items, items),
        item_examples=moved(model.item_examples, model.items, items),
    )


def _with_people(model: ImplicitALS, by_user: Sparse, rows: NDArray[np.int64], fold: Fold) -> ImplicitALS:
    cells = matrix.taken(by_user, rows)
    vectors, examples = model.user_vectors.copy(), model.user_examples.copy()
    vectors[rows] = fold(model, cells, "user")
    examples[rows] = cells.counts
    return replace(model, user_vectors=vectors, user_examples=examples)


def _with_items(model: ImplicitALS, by_item: Sparse, rows: NDArray[np.int64], fold: Fold) -> ImplicitALS:
    cells = matrix.taken(by_item, rows)
    vectors, examples = model.item_vectors.copy(), model.item_examples.copy()
    vectors[rows] = fold(model, cells, "item")
    examples[rows] = cells.counts
    gramian = implicit_als.item_matrix(vectors, model.params)
    return replace(model, item_vectors=vectors, item_examples=examples, item_matrix=gramian)
