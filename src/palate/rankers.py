"""The rankers of a snapshot: how they lie in it, and loaded so that serving can ask them."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate import feature_log, heavy_learning, light_learning
from palate.domain import Part
from palate.errors import SnapshotBroken
from palate.heavy_learning import Heavy, Lean, Ranker
from palate.models import additive, forest, trees
from palate.models.additive import Additive
from palate.models.calibration import Calibration
from palate.models.forest import Forest
from palate.models.trees import Trees
from palate.snapshots import Snapshot

log = logging.getLogger(__name__)

GIVEN_COLUMNS = (
    "score",
    "likely",
    "popularity",
    "evidence",
    "age",
    "age_here",
    "item_bias",
    "leads",
    "source_weight",
    "same_source_met",
    "same_source_liked",
    "same_category_met",
    "same_category_liked",
    "label_weight",
    "same_label_met",
    "same_label_liked",
    "labels",
    "text_near_liked",
    *feature_log.JOINS["found"],
)
"""What is found of each candidate, the plain score first."""

HOT_COLUMNS = tuple(name for name in feature_log.JOINS["counters"] if name.startswith("item_"))
"""What happened to items: counted of the few of which most was heard lately."""

LIGHT_COLUMNS = GIVEN_COLUMNS + HOT_COLUMNS
"""What the light ranker is told."""

FEWEST = 400
"""Candidates of which the heavy ranker's columns cost no more than to leave some out."""

OWN = ("heavy_", "light_")
"""How the names of their arrays begin."""
FOREST = "heavy_forest_"
"""How those of the trees as arrays begin."""


@dataclass(frozen=True, eq=False)
class Rankers:
    """What ranks after the plain score."""

    trees: NDArray[np.uint8]
    """As CatBoost keeps them: it tells what each column adds."""
    forest: Forest
    """The same trees, asked without rounding the columns as the log does."""
    lean: Lean
    """What is added for the plain score."""
    calibration: Calibration
    without: tuple[str, ...]
    """Joins of columns that it was learned without."""
    light: Additive | None
    """None: the plain score stands for it."""
    keep: int
    """Candidates that come before the heavy ranker …"""
    share: float = 1.0
    """… but of all at most this part, or FEWEST where that is more, if there is a light ranker."""

    def let_through(self, count: int) -> int:
        """How many of so many candidates come before the heavy ranker."""
        return self.keep if self.light is None else min(self.keep, max(FEWEST, int(self.share * count)))

    def raw(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n,) in whose order the heavy ranker puts the rows of (n, F), as if each stood at the first place."""
        return forest.raw(self.forest, features) + self.lean(features)

    def parts(self, features: NDArray[np.float32]) -> list[tuple[Part, ...]]:
        """For each row of (n, F) what its columns add to its log-odds, the weightiest first; those that add nothing left out.

        Nothing is told where CatBoost isn't installed.
        """
        if not trees.installed():
            return [()] * len(features)
        rows = feature_log.rounded(features)
        ranker = Ranker(trees.of_bytes(self.trees, len(feature_log.NAMES)), self.lean)
        added = heavy_learning.contributions(ranker, rows, self.without)
        return [_parts(row, weights) for row, weights in zip(rows.tolist(), added.tolist(), strict=True)]


def _parts(values: Sequence[float], added: Sequence[float]) -> tuple[Part, ...]:
    found = [
        Part(name, None if math.isnan(value) else value, weight)
        for name, value, weight in zip(feature_log.NAMES, values, added, strict=True)
        if weight
    ]
    return tuple(sorted(found, key=lambda part: -abs(part.adds)))


def as_asked(learned: Trees) -> Forest:
    """The trees as serving asks them."""
    found = learned.forest()
    return replace(found, borders=feature_log.unrounded(found.borders))


def to_arrays(heavy: Heavy, light: Additive | None) -> dict[str, NDArray[Any]]:
    """What a snapshot holds of them."""
    found: dict[str, NDArray[Any]] = {
        "heavy_trees": heavy.ranker.trees.to_bytes(),
        **{f"{FOREST}{name}": array for name, array in forest.to_arrays(as_asked(heavy.ranker.trees)).items()},
        "heavy_lean": np.array([heavy.ranker.lean.slope, heavy.ranker.lean.middle]),
        "heavy_scores": heavy.calibration.scores,
        "heavy_probabilities": heavy.calibration.probabilities,
    }
    return found if light is None else found | light_learning.to_arrays(light)


def carried(snapshot: Snapshot) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The part of a snapshot's header and of its arrays that are the rankers', for the next one."""
    if "rankers" not in snapshot.header:
        return {}, {}
    arrays = {name: np.asarray(array) for name, array in snapshot.arrays.items() if name.startswith(OWN)}
    return {"rankers": snapshot.header["rankers"]}, arrays


def load(snapshot: Snapshot | None) -> Rankers | None:
    """Those of a snapshot; None where it holds none, or none that this Palate can ask: then the plain score orders."""
    found: Mapping[str, Any] = {} if snapshot is None else snapshot.header.get("rankers", {})
    if snapshot is None or not found.get("served") or found.get("scheme") != feature_log.SCHEME:
        return None
    try:
        return _loaded(snapshot, found)
    except (SnapshotBroken, KeyError, ValueError, TypeError) as error:
        log.warning(
            "The plain score orders, since the rankers of snapshot %s can't be used: %s", snapshot.version, error
        )
        return None


def _loaded(snapshot: Snapshot, found: Mapping[str, Any]) -> Rankers:
    arrays, wide = snapshot.arrays, len(feature_log.NAMES)
    asked = forest.from_arrays(arrays, FOREST, wide)
    forest.raw(asked, np.zeros((1, wide), np.float32))  # so that no request waits until it is machine code
    light = light_learning.from_arrays(arrays, len(LIGHT_COLUMNS))
    if light is not None:
        additive.prepare(light, len(GIVEN_COLUMNS))
    return Rankers(
        trees=np.asarray(arrays["heavy_trees"]),
        forest=asked,
        lean=Lean(*np.asarray(arrays.get("heavy_lean", (0.0, 0.0))).tolist()),  # older ones have none
        calibration=Calibration(np.asarray(arrays["heavy_scores"]), np.asarray(arrays["heavy_probabilities"])),
        without=tuple(found["without"]),
        light=light,
        keep=int(found["keep"]),
        share=float(found.get("share", 1.0)),
    )
