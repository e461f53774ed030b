"""The indexes of a snapshot: of the vectors of its items, as far as its models score by inner products, and of their texts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate.models import content_scores, nearest, registry, text_values
from palate.models.factorization_machine import Floats
from palate.models.nearest import IndexParams

log = logging.getLogger(__name__)

TEXT = "text"
"""Beside the names of models, the index of where items stand by their texts."""
TEXTS = 5_000
"""Items from which on there is one; as long as there are fewer whoever looks for items like one compares all."""
PEOPLE = 100_000
"""Whose vectors are looked at."""

Arrays = Mapping[str, NDArray[Any]]


def arrays(
    models: Mapping[str, Any], arrays: Arrays, params: IndexParams, texts: NDArray[np.float16] | None = None
) -> dict[str, NDArray[Any]]:
    """An index for each of the models whose scores are products, from the other arrays of the snapshot that is to hold it; and
    one of its items' texts (items, length).

    One that can't be made is left out: candidates are then found in other ways.
    """
    made: dict[str, NDArray[Any]] = {}
    for name, model in {**models, TEXT: texts}.items():
        wanted = _for_texts(params) if name == TEXT else params
        try:
            vectors = _vectors(name, model, arrays) if len(arrays["items"]) >= wanted.least else None
            index = None if vectors is None else nearest.build(vectors, _people(name, arrays), wanted)
        except (ImportError, MemoryError, RuntimeError) as error:
            log.warning("There is no index by %s: %r", name, error)
            continue
        if index is not None:
            made[f"{nearest.PREFIX}{name}"], made[f"{nearest.TURN}{name}"] = index
    return made


def _for_texts(params: IndexParams) -> IndexParams:
    """Fewer texts are worth an index, whose vectors are longer."""
    least = min(params.least, TEXTS)
    return msgspec.structs.replace(params, least=least, flat_below=min(params.flat_below, max(params.least, 1)))


def _vectors(name: str, model: Any, arrays: Arrays) -> NDArray[np.floating] | None:
    """(I, d) whose products with a person's order the snapshot's items as the model does; None for one of another kind."""
    if name == TEXT:
        directions = text_values.directions_of(arrays)
        return None if model is None or directions is None else text_values.values(directions, model)
    if name == "fm":
        return np.column_stack((arrays["item_vectors"], arrays["item_bias"])).astype(np.float32)
    product = registry.entry(name).product
    return None if product is None else _placed(name, product.items(model), arrays)


def _people(name: str, arrays: Arrays) -> Floats:
    """(u, d) vectors that will ask; none where the snapshot holds none."""
    vectors = arrays.get({"fm": "user_vectors", "ials": "ials_user_vectors"}.get(name, ""))
    if vectors is None:
        return np.zeros((0, 0), np.float32)
    some = np.asarray(vectors[:: max(len(vectors) // PEOPLE, 1)], np.float32)
    return np.column_stack((some, np.ones(len(some), np.float32))) if name == "fm" else some


def _placed(name: str, vectors: Floats, arrays: Arrays) -> Floats:
    """With the items that nobody has met where their content puts them."""
    cold = np.flatnonzero(arrays["item_positives"] <= 0)
    by_content = content_scores.from_arrays(arrays)
    if not len(cold) or by_content is None or f"{name}_content_mean" in arrays:
        return vectors
    vectors = vectors.copy()
    vectors[cold] = content_scores.scored(content_scores.told(by_content, vectors), arrays["scores_values"][cold])
    return vectors
