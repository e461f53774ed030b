"""What a snapshot holds of a factorization machine: arrays, and the numbers beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.models import content
from palate.models import fields as of_fields
from palate.models.factorization_machine import UNKNOWN_L2, FactorizationMachine, Loss
from palate.vocabulary import Vocabulary


def to_arrays(model: FactorizationMachine) -> dict[str, NDArray[Any]]:
    """The arrays of a snapshot: vectors in half precision, since 13 factors of 1,000,000 items have to fit a small server."""
    of_content = {} if model.content is None else content.to_arrays(model.content, "fm")
    return (
        of_content
        | of_fields.arrays(model.fields)
        | {
            "users": model.users.keys,
            "user_bias": model.user_bias,
            "user_vectors": model.user_vectors.astype(np.float16),
            "user_examples": model.user_examples,
            "items": model.items.keys,
            "item_bias": model.item_bias,
            "item_vectors": model.item_vectors.astype(np.float16),
            "item_examples": model.item_examples,
            "sources": model.sources.keys,
            "source_bias": model.source_bias,
            "source_vectors": model.source_vectors.astype(np.float16),
        }
    )


def header(model: FactorizationMachine) -> dict[str, Any]:
    """The numbers beside the arrays, as JSON."""
    return {
        "loss": model.loss,
        "base": model.base,
        "factors": model.item_vectors.shape[1],
        "epochs": model.epochs,
        "l2_user": list(model.l2_user),
        "l2_scale": model.l2_scale,
        "fields": of_fields.described(model.fields),
    }


def from_arrays(
    arrays: Mapping[str, NDArray[Any]], loss: Loss, base: float, header: Mapping[str, Any] | None = None
) -> FactorizationMachine:
    """The model that a snapshot holds, in arrays of its own, to be learned further. `header` is what `header` gave, None for
    snapshots that have none."""
    header = header or {}
    own = {name: np.array(array, np.float32) for name, array in arrays.items() if name.endswith(("_bias", "_vectors"))}
    return FactorizationMachine(
        loss=loss,
        base=base,
        users=Vocabulary(np.array(arrays["users"])),
        user_bias=own["user_bias"],
        user_vectors=own["user_vectors"],
        user_examples=np.array(arrays["user_examples"]),
        items=Vocabulary(np.array(arrays["items"])),
        item_bias=own["item_bias"],
        item_vectors=own["item_vectors"],
        item_examples=np.array(arrays["item_examples"]),
        sources=Vocabulary(np.array(arrays["sources"])),
        source_bias=own["source_bias"],
        source_vectors=own["source_vectors"],
        epochs=header.get("epochs", 0),
        fields=of_fields.of_arrays(arrays, header.get("fields", [])),
        l2_user=tuple(header.get("l2_user", (UNKNOWN_L2, UNKNOWN_L2))),
        l2_scale=header.get("l2_scale", 1.0),
        content=content.from_arrays(arrays, "fm"),
    )
