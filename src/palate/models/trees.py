"""Gradient-boosted trees over columns of numbers, by CatBoost, which loads only where trees are fitted or asked.

Prokhorenkova et al., "CatBoost: Unbiased Boosting with Categorical Features" (NeurIPS 2018). Fitted on one thread: on several the
sums come out in another order, and with them the model.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate.errors import SnapshotBroken
from palate.models.forest import Forest

Floats = NDArray[np.float32]

BORDERS = 64
"""Values at which a column may be split: with four times as many a fit takes twice as long, and is no better."""


OF_CHANCE = ("model_guid", "train_finish_time")
"""What CatBoost notes beside a model: without it the same fit gives the same bytes."""


class TreeParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How trees are fitted."""

    trees: Annotated[int, msgspec.Meta(ge=1, le=2_000)] = 200
    """How many trees are fitted, one after the other."""
    depth: Annotated[int, msgspec.Meta(ge=1, le=10)] = 6
    """Questions that one tree asks of an item."""
    learning_rate: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.08
    """Part of its answer that a tree adds."""
    l2: Annotated[float, msgspec.Meta(ge=0)] = 5.0
    """How strongly the answers are held at zero."""
    column_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.3
    """Part of the columns, by chance, among which each question of a tree is chosen: so no few columns explain by accident what
    little there is to learn from."""


@dataclass(frozen=True, eq=False)
class Trees:
    """A fitted model."""

    model: Any
    """CatBoost's own."""

    def raw(self, features: Floats) -> NDArray[np.float64]:
        """(n,) log-odds of the label for the rows of (n, F)."""
        found: NDArray[np.float64] = self.model.predict(
            np.ascontiguousarray(features), prediction_type="RawFormulaVal", thread_count=1
        )
        return found

    def contributions(self, features: Floats) -> NDArray[np.float64]:
        """(n, F) what each column adds to the log-odds of each row of (n, F): Shapley values (Lundberg et al., "Consistent
        Individualized Feature Attribution for Tree Ensembles", 2018)."""
        import catboost

        rows = catboost.Pool(np.ascontiguousarray(features))
        found = self.model.get_feature_importance(type="ShapValues", data=rows, thread_count=1)
        return np.asarray(found[:, :-1], np.float64)  # the last is what all rows have

    def importances(self) -> NDArray[np.float64]:
        """(F,) how much of what the trees say each column changes; they sum to 100."""
        return np.asarray(self.model.get_feature_importance(type="PredictionValuesChange"), np.float64)

    def forest(self) -> Forest:
        """The same trees as arrays."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trees.json"
            self.model.save_model(str(path), format="json")
            told = json.loads(path.read_bytes())
        return _forest(told)

    def to_bytes(self) -> NDArray[np.uint8]:
        """The model in CatBoost's own format."""
        return np.frombuffer(self.model._serialize_model(), np.uint8).copy()


def _forest(told: Any) -> Forest:
    """From CatBoost's description; a tree of fewer questions gets some that nothing is above."""
    grown = told["oblivious_trees"]
    depth = max((len(tree["splits"] or ()) for tree in grown), default=0)
    columns = np.zeros((len(grown), depth), np.int32)
    borders = np.full((len(grown), depth), np.inf, np.float32)
    leaves = np.zeros((len(grown), 2**depth))
    scale, start = told["scale_and_bias"]
    for number, tree in enumerate(grown):
        for question, split in enumerate(tree["splits"] or ()):
            columns[number, question], borders[number, question] = split["float_feature_index"], split["border"]
        leaves[number, : len(tree["leaf_values"])] = scale * np.array(tree["leaf_values"])
    return Forest(columns, borders, leaves, float(np.sum(start)))


@lru_cache(maxsize=1)
def installed() -> bool:
    """Whether CatBoost is there; it isn't loaded for that."""
    return importlib.util.find_spec("catboost") is not None


def fit(features: Floats, labels: Floats, weights: Floats, params: TreeParams, seed: int) -> Trees:
    """Trees that tell the probability of the labels (n,), 0 or 1, from the features (n, F); NaN is a value of its own.

    The same arguments give the same model, however many cores there are.
    """
    return _fitted("Logloss", features, labels, weights, params, seed)


def regression(features: Floats, values: Floats, weights: Floats, params: TreeParams, seed: int) -> Trees:
    """Trees that tell the values (n,) themselves, by least squares."""
    return _fitted("RMSE", features, values, weights, params, seed)


def _fitted(loss: str, features: Floats, values: Floats, weights: Floats, params: TreeParams, seed: int) -> Trees:
    import catboost

    model = catboost.CatBoost(
        {
            "loss_function": loss,
            "iterations": params.trees,
            "depth": params.depth,
            "learning_rate": params.learning_rate,
            "l2_leaf_reg": params.l2,
            "rsm": params.column_share,
            "border_count": BORDERS,
            "random_seed": seed,
            "thread_count": 1,
            "allow_writing_files": False,
            "logging_level": "Silent",
        }
    )
    model.fit(catboost.Pool(np.ascontiguousarray(features), values, weight=weights))
    noted = model.get_metadata()
    for name in OF_CHANCE:
        noted[name] = ""
    return Trees(model)


def of_bytes(content: NDArray[np.uint8], columns: int) -> Trees:
    """The model of these bytes, for so many columns. Raises SnapshotBroken when they are none."""
    import catboost

    model = catboost.CatBoost()
    try:
        model.load_model(blob=bytes(np.asarray(content)))
        told = len(model.feature_names_)
    except Exception as error:  # catboost has no class of its own for it
        raise SnapshotBroken(f"The trees of the snapshot can't be read: {error}") from error
    if told != columns:
        raise SnapshotBroken(f"The trees of the snapshot ask for {told} columns, this Palate has {columns}")
    return Trees(model)
