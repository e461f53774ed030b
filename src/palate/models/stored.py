"""Models by their names in the arrays and the header of a snapshot.

The names of a model's arrays begin with its own; those of `fm` and `popularity`, which were there first, are plain, so that
snapshots from before there were others still load. Keys of users and items are kept once, for all.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate.errors import SnapshotBroken
from palate.models import registry
from palate.snapshots import Snapshot
from palate.vocabulary import Vocabulary

PLAIN = ("popularity", "fm")
KEYS = ("users", "items")


def arrays(name: str, model: Any) -> dict[str, NDArray[Any]]:
    """The arrays of one model by the names that they have in a snapshot, which keeps the keys of all."""
    own = registry.entry(name).to_arrays(model)
    return {key: array for key, array in own.items() if key not in (*KEYS, f"{name}_users")}


def load(snapshot: Snapshot, name: str) -> Any:
    """The model of this name, for `score_all`.

    Raises SnapshotBroken when the snapshot doesn't hold what this Palate needs of it.
    """
    found = _own(snapshot, name) | {f"{name}_users": snapshot.arrays["users"]}
    try:
        items = Vocabulary(np.asarray(snapshot.arrays["items"]))
        return registry.entry(name).from_arrays(found, snapshot.header["models"][name], items)
    except (KeyError, ValueError, TypeError, IndexError, msgspec.ValidationError) as error:
        raise SnapshotBroken(f"the model {name} of snapshot {snapshot.version} can't be used: {error!r}") from error


def names(snapshot: Snapshot) -> list[str]:
    """The models of a snapshot that this Palate knows."""
    return [name for name in snapshot.header.get("models", {}) if name in registry.MODELS]


def _own(snapshot: Snapshot, name: str) -> dict[str, NDArray[Any]]:
    """The model's arrays, with the keys that all share."""
    others = tuple(f"{other}_" for other in registry.MODELS if other not in (*PLAIN, name))
    return {key: array for key, array in snapshot.arrays.items() if not key.startswith(others or "?")}
