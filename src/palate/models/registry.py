"""The models by their names: what training fits and publishes, serving scores with, and evaluation measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate.domain import Interactions
from palate.errors import NotFound
from palate.models import (
    als_content,
    blend,
    ease,
    fm_content,
    fm_stored,
    fm_update,
    implicit_als,
    item_knn,
    neighbours,
    popularity,
    svd,
)
from palate.models import factorization_machine as fm
from palate.models import fields as of_fields
from palate.models.material import Known, Material
from palate.vocabulary import Vocabulary

Name = Literal["popularity", "fm", "itemknn", "ease", "svd", "ials", "blend"]
"""Of the models; `MODELS` has an entry for each."""

Arrays = Mapping[str, NDArray[Any]]
Some = Callable[[Any, Known, NDArray[np.int64]], NDArray[np.float32]]
Fit = Callable[[Material, Any, int], Any]
"""(material, its params, seed) → the model; the same arguments give the same bytes."""


Update = Callable[[Any, Material, Interactions], Any]
"""(the model, all there is, what of it is new) → the model with what is new."""


@dataclass(frozen=True)
class Solver:
    """What learns a model elsewhere, as on a cluster."""

    fit: Fit
    update: Update


@dataclass(frozen=True)
class Product:
    """How a score is the inner product of an item's vector and a person's; F numbers each."""

    items: Callable[[Any], NDArray[np.float32]]
    """(model) → (I, F)"""
    person: Callable[[Any, Known], NDArray[np.float32]]
    """(model, one person) → (F,)"""


@dataclass(frozen=True)
class Entry:
    """How one kind of model is fitted, asked, and kept in a snapshot."""

    params: type[msgspec.Struct]
    fit: Fit
    score_all: Callable[[Any, Known], NDArray[np.float32]]
    """(model, people) → (n, I): in each row a larger number is a better item; of no unit that compares between people."""
    to_arrays: Callable[[Any], dict[str, NDArray[Any]]]
    """What a snapshot holds of it; the rows of items are those of the material, whose keys it needn't repeat."""
    header: Callable[[Any], dict[str, Any]]
    """The numbers beside the arrays, as JSON."""
    from_arrays: Callable[[Arrays, Mapping[str, Any], Vocabulary], Any]
    """(its arrays, its header, the items of the snapshot) → the model as it was, for `score_all`. The arrays are read-only
    memory maps: what needn't be copied isn't."""
    contributions: Callable[[Any, Known, NDArray[Any]], NDArray[np.float32]] | None = None
    """(model, one person, of whom n weights are known, wanted rows (w,)) → (w, n): what each adds to each score; None for a model
    whose scores don't split."""
    mixed_contributions: Callable[..., NDArray[np.float32]] | None = None
    """(model, one person, C rows, mixes (m, C)) → (m, n): the mixes times the contributions to the C items; None
    where nothing is quicker than to multiply."""
    some: Some | None = None
    """(model, one person, rows (w,)) → (w,): what `score_all` gives for these items, at the price of these alone; None where a
    score takes a look at all items."""
    product: Product | None = None
    """None where scores are no inner products."""
    scored: Callable[[Any, Known], tuple[NDArray[np.float32], NDArray[np.float32]]] | None = None
    """(model, people) → what `score_all` gives, and in the same unit what content is to explain of it where items are placed that
    nobody has met; None where that is the same."""

    def scores(self, model: Any, known: Known) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """`scored`, by any model."""
        if self.scored is not None:
            return self.scored(model, known)
        found = self.score_all(model, known)
        return found, found


def _fit_machine(material: Material, params: fm.FactorizationMachineParams, seed: int) -> fm.FactorizationMachine:
    known = of_fields.known(params.fields, material.items, material.contents, material.interactions.time)
    fields = (*material.fields, *known)
    model, _ = fm.fit(material.interactions, material.item_sources, params, seed, fields=fields)
    if material.contents is None:
        return fm_update.with_rows(model, material.users, material.items)
    return fm_content.learned(model, material.users, material.items, material.contents, material.content, fields)


MODELS: dict[str, Entry] = {
    "popularity": Entry(
        params=popularity.PopularityParams,
        fit=lambda material, params, seed: popularity.fit_items(material, params),
        score_all=popularity.score_all,
        to_arrays=popularity.to_arrays,
        header=popularity.header,
        from_arrays=popularity.from_arrays,
    ),
    "fm": Entry(
        params=fm.FactorizationMachineParams,
        fit=_fit_machine,
        score_all=lambda model, known: fm.score_all(model, known.users, known.labels),
        to_arrays=fm_stored.to_arrays,
        header=fm_stored.header,
        from_arrays=lambda arrays, header, items: fm_stored.from_arrays(arrays, header["loss"], header["base"], header),
    ),
    "itemknn": Entry(
        params=item_knn.ItemKnnParams,
        fit=lambda material, params, seed: item_knn.fit(material, params),
        score_all=neighbours.score_all,
        to_arrays=lambda model: neighbours.to_arrays(model, "itemknn"),
        header=neighbours.header,
        from_arrays=lambda arrays, header, items: neighbours.from_arrays(arrays, header, "itemknn"),
        contributions=neighbours.contributions,
        some=neighbours.score_some,
    ),
    "ease": Entry(
        params=ease.EaseParams,
        fit=lambda material, params, seed: ease.fit(material, params),
        score_all=neighbours.score_all,
        to_arrays=lambda model: neighbours.to_arrays(model, "ease"),
        header=neighbours.header,
        from_arrays=lambda arrays, header, items: neighbours.from_arrays(arrays, header, "ease"),
        contributions=neighbours.contributions,
        some=neighbours.score_some,
    ),
    "svd": Entry(
        params=svd.SvdParams,
        fit=svd.fit,
        score_all=svd.score_all,
        to_arrays=svd.to_arrays,
        header=svd.header,
        from_arrays=lambda arrays, header, items: svd.from_arrays(arrays, header),
        contributions=svd.contributions,
        some=svd.score_some,
        product=Product(svd.item_products, svd.person_product),
    ),
    "ials": Entry(
        params=implicit_als.ImplicitALSParams,
        fit=als_content.fit,
        score_all=implicit_als.score_all,
        to_arrays=implicit_als.to_arrays,
        header=implicit_als.header,
        from_arrays=implicit_als.from_arrays,
        contributions=implicit_als.contributions_of,
        some=implicit_als.score_some,
        product=Product(lambda model: model.item_vectors, implicit_als.person_vector),
        mixed_contributions=als_content.mixed_contributions,
    ),
    "blend": Entry(
        params=blend.BlendParams,
        fit=lambda material, params, seed: blend.fit(material, params, seed, entry),
        score_all=blend.score_all,
        to_arrays=blend.to_arrays,
        header=blend.header,
        from_arrays=lambda arrays, header, items: blend.from_arrays(arrays, header, items, entry),
        contributions=blend.contributions,
        scored=blend.scored,
    ),
}


def entry(name: str) -> Entry:
    """The model of this name. Raises NotFound."""
    if name not in MODELS:
        raise NotFound(f"There is no model {name}: choose among {', '.join(MODELS)}.")
    return MODELS[name]
