"""A factorization machine with other rows, and vectors for items that are new to it while everything else stays: NumPy alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from palate.domain import Interactions
from palate.models import factorization_machine as fm
from palate.models import fold_in
from palate.models.factorization_machine import FactorizationMachine, FactorizationMachineParams
from palate.models.material import Material
from palate.vocabulary import Vocabulary, moved

LEAST_L2 = 1e-6
"""So that few labels determine the vector."""


def with_rows(model: FactorizationMachine, users: Vocabulary, items: Vocabulary) -> FactorizationMachine:
    """The model with a row for each of these people and items, zero for those that it doesn't know; a side that has these and no
    others keeps its arrays."""
    if not np.array_equal(users.keys, model.users.keys):
        model = replace(
            model,
            users=users,
            user_bias=moved(model.user_bias, model.users, users),
            user_vectors=moved(model.user_vectors, model.users, users),
            user_examples=moved(model.user_examples, model.users, users),
        )
    if np.array_equal(items.keys, model.items.keys):
        return model
    return replace(
        model,
        items=items,
        item_bias=moved(model.item_bias, model.items, items),
        item_vectors=moved(model.item_vectors, model.items, items),
        item_examples=moved(model.item_examples, model.items, items),
    )


def with_new_items(
    model: FactorizationMachine, material: Material, new: Interactions, params: FactorizationMachineParams
) -> FactorizationMachine:
    """The model with a row for all of the material; items that nobody had judged get the vector and the bias that explain their
    `new` labels best, held where their source is as firmly as a fit holds them at zero.

    New people are at the prior. The number of examples behind such items stays 0: the next fit learns them once more. A model of
    another loss than those of labels learns nothing here.
    """
    grown = _at_their_sources(with_rows(model, material.users, material.items), model.items, material)
    judged = ~np.isnan(new.label) & (model.loss in ("squared", "logistic"))
    rows, people = grown.items.rows(new.item[judged]), grown.users.rows(new.user[judged])
    vectors, bias = grown.item_vectors.copy(), grown.item_bias.copy()
    for row in np.unique(rows[grown.item_examples[rows] == 0]):
        mine = rows == row
        change = _change(grown, row, people[mine], new.label[judged][mine], params)
        vectors[row] += change[:-1]
        bias[row] += change[-1]
    return replace(grown, item_vectors=vectors, item_bias=bias)


def _at_their_sources(model: FactorizationMachine, known: Vocabulary, material: Material) -> FactorizationMachine:
    """Items that aren't among the known start at the mean of their source."""
    new = np.flatnonzero(known.rows(model.items.keys) < 0)
    sources = model.sources.rows(material.item_sources.of(model.items.keys[new]))
    new, sources = new[sources >= 0], sources[sources >= 0]
    vectors, bias = model.item_vectors.copy(), model.item_bias.copy()
    vectors[new], bias[new] = model.source_vectors[sources], model.source_bias[sources]
    return replace(model, item_vectors=vectors, item_bias=bias)


def _change(
    model: FactorizationMachine,
    row: np.int64,
    people: NDArray[np.int64],
    labels: NDArray[np.float32],
    params: FactorizationMachineParams,
) -> NDArray[np.float32]:
    """(factors + 1,): what the labels of one item add to its vector and to its bias."""
    known = model.user_vectors[people]
    features = np.column_stack((known, np.ones(len(people), np.float32)))
    offsets = model.base + model.user_bias[people] + known @ model.item_vectors[row] + model.item_bias[row]
    l2_bias = fm.UNKNOWN_L2 if params.l2_item_bias is None else params.l2_item_bias
    l2 = np.append(np.full(known.shape[1], model.l2_scale * params.l2_items), l2_bias)
    return fold_in.solve(features, labels, offsets, np.maximum(l2, LEAST_L2), _loss(model))


def _loss(model: FactorizationMachine) -> Literal["squared", "logistic"]:
    assert model.loss == "squared" or model.loss == "logistic", "Others have no labels to explain."
    return model.loss
