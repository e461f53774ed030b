"""Models by their names in the arrays and the header of a snapshot.

The arrays of a model begin with its name; those of `fm` and `popularity`, which were there first, have plain names, so that
snapshots from before there were others still load. Keys of users and items are kept once, for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.models import registry
from palate.snapshots import Snapshot
from palate.vocabulary import Vocabulary

PLAIN = ("popularity", "fm")
KEYS = ("users", "items")


def arrays(name: str, model: Any) -> dict[str, NDArray[Any]]:
    """The arrays of one model by the names that they have in a snapshot."""
    own = registry.entry(name).to_arrays(model).items()
    return {_prefix(name) + key: array for key, array in own if key not in KEYS}


def load(snapshot: Snapshot, name: str) -> Any:
    """The model of this name, for `score_all`. Raises KeyError when the snapshot has none; see `names`."""
    return registry.entry(name).from_arrays(
        _own(snapshot, name), snapshot.header["models"][name], Vocabulary(np.asarray(snapshot.arrays["items"]))
    )


def names(snapshot: Snapshot) -> list[str]:
    """The models of a snapshot that this Palate knows."""
    return [name for name in snapshot.header.get("models", {}) if name in registry.MODELS]


def _prefix(name: str) -> str:
    return "" if name in PLAIN else f"{name}_"


def _own(snapshot: Snapshot, name: str) -> Mapping[str, NDArray[Any]]:
    """The model's arrays by its own names, with the keys that all share."""
    prefix, others = _prefix(name), tuple(f"{other}_" for other in registry.MODELS if other not in PLAIN)
    found = {key: array for key, array in snapshot.arrays.items() if key in KEYS}
    for key, array in snapshot.arrays.items():
        if key.startswith(prefix) if prefix else not key.startswith(others):
            found[key.removeprefix(prefix)] = array
    return found
