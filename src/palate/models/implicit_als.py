"""Implicit alternating least squares: user and item vectors whose products tell what people took from what they did not.

The loss over U users and I items, with the score s = ⟨user, item⟩ of a pair and the strength r of an interaction, is

    weighted      Σ_seen w (p − s)²  +  unobserved_weight · Σ_all s²  +  ridges,          w = alpha · |r|^power
    confidence    Σ_all c (p − s)²  +  ridges,                             c = 1 + alpha · |r|^power, r = 0 where unseen

where the preference p is 1, or 0 for a refusal (r < 0) and for what was not seen, and the ridges are Σ λ |vector|² with
λ = l2 · (number of its interactions + unobserved weight · number of rows of the other side) ^ l2_exponent. The first form is
that of Rendle, Krichene, Zhang and Koren, "Revisiting the Performance of iALS on Item Recommendation Benchmarks" (2022), whose
settings can be used as they are published; the second that of Hu, Koren and Volinsky, "Collaborative Filtering for Implicit
Feedback Datasets" (2008), in which the unobserved weigh 1. With one side fixed the best rows of the other are known exactly
(`als_steps`), so the sides are solved in turn.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate import matrix
from palate.errors import InvalidInput
from palate.matrix import Sparse
from palate.models import als_steps, content, fold_in
from palate.models.als_steps import Evidence, padded
from palate.models.content import ContentMap
from palate.models.material import Known, Material, faded
from palate.vocabulary import Vocabulary

Form = Literal["weighted", "confidence"]
Solver = Literal["exact", "cg"]
Floats = NDArray[np.float32]
Counts = NDArray[np.int32]

BLOCK = 4_096
CHUNK = 1 << 20
"""Weights that are summed at a time, so that no copy of all is made."""
UNOBSERVED = 8.0
"""What all pairs weigh, over what the interactions weigh: near what was best, or published as best, on seven sets whose densities
differ by a factor of 70. The best single weights there lie between 0.007 and 0.3."""
FEW = 32
"""People up to whose number vectors are solved in NumPy, where a process that serves need not load the kernels."""


class ImplicitALSParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How implicit ALS learns."""

    factors: Annotated[int, msgspec.Meta(ge=1, le=2048)] = 64
    """Length of each vector."""
    epochs: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 12
    """How often users and items are each solved once."""
    solver: Solver = "cg"
    """`exact`: each row as its equations say; `cg`: a few steps of conjugate gradients from its last vector, which cost less and
    end at the same loss. Above 192 factors the solver is exact."""
    cg_steps: Annotated[int, msgspec.Meta(ge=1, le=100)] = 3
    """Steps of the solver `cg` for each row in an epoch."""
    l2: Annotated[float, msgspec.Meta(ge=0)] = 0.007
    """How strongly vectors are held at zero, per interaction and unobserved cell (with `l2_exponent` 1)."""
    l2_exponent: Annotated[float, msgspec.Meta(ge=0, le=2)] = 1.0
    """1 holds each row in proportion to its evidence, 0 all rows alike."""
    unobserved_weight: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """How much a pair without interaction says that the person doesn't want it; none means so much that all pairs together weigh
    eight times what the interactions do. In the form `confidence` it is 1."""
    alpha: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    """What an interaction of strength 1 weighs."""
    power: Annotated[float, msgspec.Meta(gt=0, le=10)] = 1.0
    """How the weight grows with the strength: 2 or 3 let half-watched videos count little."""
    form: Form = "weighted"
    """`weighted`: an interaction weighs alpha · strength^power; `confidence`: 1 more, and the unobserved weigh 1."""
    initial_scale: Annotated[float, msgspec.Meta(gt=0, le=10)] = 0.1
    """Length of the random vectors that items start with: normal numbers of this deviation / √factors."""
    recent_items: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """When a person is asked about, an item of theirs counts half for every so many of their items that are newer; none means
    that all count alike."""
    min_items: Annotated[int, msgspec.Meta(ge=1)] = 1
    """People of fewer items teach a fit nothing; they are asked about like all others."""
    threads: Annotated[int, msgspec.Meta(ge=1, le=1024)] | None = None
    """Threads to use; none means one per core. They don't change the result."""


@dataclass(frozen=True, eq=False)
class ImplicitALS:
    """A learned model; no function changes its arrays. U users, I items, F factors."""

    params: ImplicitALSParams
    users: Vocabulary
    user_vectors: NDArray[np.float32] | NDArray[np.float16]
    """(U, F): half precision in a model that was read from a snapshot."""
    user_examples: Counts
    """(U,): number of interactions behind the row"""
    items: Vocabulary
    item_vectors: Floats
    """(I, F)"""
    item_examples: Counts
    """(I,)"""
    item_matrix: Floats
    """(F, F): the item vectors' Gramian times the unobserved weight, which every fold-in needs."""
    losses: tuple[float, ...] = ()
    """After each epoch."""
    content: ContentMap | None = None
    """What an item's content says of its vector; None where that wasn't learned."""


def evidence(params: ImplicitALSParams) -> Evidence:
    """As the parameters say."""
    confidence = params.form == "confidence"
    unobserved = 1.0 if confidence else params.unobserved_weight
    assert unobserved is not None, "A fit settles what the unobserved weigh."
    return Evidence(unobserved, float(confidence), params.l2, params.l2_exponent)


def strengths(values: Floats, params: ImplicitALSParams) -> Floats:
    """alpha · |r|^power with the sign of r: what the kernels take. Cells of 0 are no evidence.

    Raises InvalidInput if a weight is infinite or too large for 32 bits.
    """
    weights = np.abs(values)
    if params.power != 1 or params.alpha != 1:
        with np.errstate(over="ignore"):
            weights **= np.float32(params.power)
            weights *= np.float32(params.alpha)
    if np.fmax.reduce(weights, initial=0) == np.inf:
        raise InvalidInput("A weight is too large for implicit ALS: choose a smaller alpha or power.")
    if params.form == "confidence":  # where alpha is 0 a positive is one all the same
        np.maximum(weights, np.float32(1e-12), where=values != 0, out=weights)
    return cast(Floats, np.copysign(weights, values, out=weights))


def fit(
    material: Material,
    params: ImplicitALSParams,
    seed: int,
    *,
    warm: ImplicitALS | None = None,
    item_prior: Floats | None = None,
    on_epoch: Callable[[ImplicitALS], object] | None = None,
) -> ImplicitALS:
    """Learn from all weights; every user and item of the material has a row, those without evidence a row of zeros.

    Users and items that `warm` knows start from its vectors. `item_prior` (I, F) is where the items' vectors are held instead
    of at zero: items without evidence are then solved as well, and all exactly. `on_epoch` is given the model after each
    epoch. The same material, parameters and seed give the same bytes with any number of threads. Raises InvalidInput where
    weights overflow or the other model has another number of factors.
    """
    cells = sides(material, params)
    params = _settled(params, cells)
    state = _state(cells, params, *_start(material, params, np.random.default_rng(seed), warm), item_prior)
    with ThreadPoolExecutor(threads(params)) as pool:
        for _ in range(params.epochs):
            state.losses.append(_epoch(cells, state, params, pool))
            if on_epoch is not None:
                on_epoch(_model(material, params, state, pool))
        del cells  # before the vectors are copied
        return _model(material, params, state, pool)


def _settled(params: ImplicitALSParams, cells: Sides) -> ImplicitALSParams:
    """With a number for what the unobserved weigh; rows without evidence are nobody's opinion."""
    if params.unobserved_weight is not None:
        return params
    values = cells.by_user.values
    total = sum(float(np.abs(values[n : n + CHUNK]).sum(dtype=np.float64)) for n in range(0, len(values), CHUNK))
    pairs = int(np.count_nonzero(cells.by_user.counts)) * int(np.count_nonzero(cells.by_item.counts))
    return msgspec.structs.replace(params, unobserved_weight=UNOBSERVED * total / max(pairs, 1))


@dataclass(frozen=True, eq=False)
class Sides:
    """The weights by users and by items. Both are in order of falling counts: rows asked for most lie together in the cache."""

    by_user: Sparse
    by_item: Sparse
    user_order: NDArray[np.int64]
    """(U,): the material's row of each row here."""
    item_order: NDArray[np.int64]
    """(I,)"""


@dataclass(frozen=True, eq=False)
class _State:
    """What a fit changes in place, and what it has to know to tell it; all in the order and padding of its sides."""

    user_vectors: Floats
    item_vectors: Floats
    item_prior: Floats
    user_order: NDArray[np.int64]
    item_order: NDArray[np.int64]
    user_examples: Counts
    item_examples: Counts
    losses: list[float]


def _state(cells: Sides, params: ImplicitALSParams, users: Floats, items: Floats, item_prior: Floats | None) -> _State:
    return _State(
        user_vectors=padded(users, params.factors, cells.user_order),
        item_vectors=padded(items, params.factors, cells.item_order),
        item_prior=_prior(item_prior, params, cells.item_order),
        user_order=cells.user_order,
        item_order=cells.item_order,
        user_examples=cells.by_user.counts.astype(np.int32),
        item_examples=cells.by_item.counts.astype(np.int32),
        losses=[],
    )


def _start(
    material: Material, params: ImplicitALSParams, random: np.random.Generator, warm: ImplicitALS | None
) -> tuple[Floats, Floats]:
    """(U, F) and (I, F): the vectors of users and items before the first half-step, which takes the items as they are."""
    users = np.zeros((len(material.users), params.factors), np.float32)
    items = drawn(len(material.items), params, random)
    if warm is None:
        return users, items
    if warm.item_vectors.shape[1] != params.factors:
        raise InvalidInput(
            f"The model to start from has {warm.item_vectors.shape[1]} factors, not {params.factors}: fit without it."
        )
    for vectors, here, there, known in (
        (users, material.users, warm.users, warm.user_vectors),
        (items, material.items, warm.items, warm.item_vectors),
    ):
        rows = there.rows(here.keys)
        vectors[rows >= 0] = known[rows[rows >= 0]]
    return users, items


def drawn(items: int, params: ImplicitALSParams, random: np.random.Generator) -> Floats:
    """(items, F): the random vectors that a fit starts with."""
    scale = np.float32(params.initial_scale / params.factors**0.5)
    return random.standard_normal((items, params.factors), np.float32) * scale


def _prior(item_prior: Floats | None, params: ImplicitALSParams, order: NDArray[np.int64]) -> Floats:
    if item_prior is None:
        return padded(np.empty((0, 0), np.float32), params.factors)
    shape = (len(order), params.factors)
    assert item_prior.shape == shape, f"A prior for items is of shape {shape}, not {item_prior.shape}."
    return padded(item_prior, params.factors, order)


def sides(material: Material, params: ImplicitALSParams) -> Sides:
    """The material's weights as the kernels take them. Raises InvalidInput where they overflow."""
    weights = strengths(material.interactions.weight, params)
    weights[weights == 0] = np.nan
    plain = matrix.of_interactions(material.interactions, weights, material.users, material.items)
    del weights
    if params.min_items > 1:
        plain = _of_several(plain, params.min_items)
    user_order = np.argsort(-plain.counts, kind="stable")
    item_counts = np.bincount(plain.columns, minlength=plain.width)
    item_order = np.argsort(-item_counts, kind="stable")
    by_item = matrix.transposed(plain, user_order, item_order)
    del plain  # before the next is made: two of them are what a fit may hold
    return Sides(matrix.transposed(by_item), by_item, user_order, item_order)


def _of_several(cells: Sparse, least: int) -> Sparse:
    """Without the cells of rows that have fewer."""
    kept = np.repeat(cells.counts >= least, cells.counts)
    ends = np.concatenate(([0], np.cumsum(kept)))
    return Sparse(ends[cells.offsets], cells.columns[kept], cells.values[kept], cells.width)


def _epoch(cells: Sides, state: _State, params: ImplicitALSParams, pool: ThreadPoolExecutor) -> float:
    """Solve all users, then all items; return the loss of both as they are then."""
    users, items, nothing = state.user_vectors, state.item_vectors, state.item_prior[:0]
    free = not len(state.item_prior)  # a prior holds items in its own axes
    conjugate = free and params.solver == "cg" and users.shape[1] <= als_steps.WIDEST_TURN
    told = evidence(params)
    if conjugate:
        _, ridges = als_steps.conjugate_step(cells.by_user, items, told, users, params.cg_steps, pool)
        loss, _ = als_steps.conjugate_step(cells.by_item, users, told, items, params.cg_steps, pool)
    else:
        _, ridges = als_steps.half_step(cells.by_user, items, told, nothing, users, pool, turn=free)
        loss, _ = als_steps.half_step(cells.by_item, users, told, state.item_prior, items, pool, turn=free)
    return loss + ridges


def _model(material: Material, params: ImplicitALSParams, state: _State, pool: ThreadPoolExecutor) -> ImplicitALS:
    gramian = als_steps.gramian(state.item_vectors, pool)[: params.factors, : params.factors]
    return ImplicitALS(
        params=params,
        users=material.users,
        user_vectors=_in_order(state.user_vectors, state.user_order, params.factors),
        user_examples=_in_order(state.user_examples, state.user_order),
        items=material.items,
        item_vectors=_in_order(state.item_vectors, state.item_order, params.factors),
        item_examples=_in_order(state.item_examples, state.item_order),
        item_matrix=(evidence(params).unobserved * gramian).astype(np.float32),
        losses=tuple(state.losses),
    )


def _in_order(values: NDArray[Any], order: NDArray[np.int64], factors: int | None = None) -> NDArray[Any]:
    """Row n of the values as row `order[n]`, without the padding."""
    values = values if factors is None else values[:, :factors]
    result = np.empty_like(values, order="C")
    result[order] = values
    return result


def fold_in_users(model: ImplicitALS, by_user: Sparse) -> Floats:
    """(n, F): the vector of each row of people, from the weights of the model's items; the items' vectors stay.

    Exactly the half-step of a fit; rows without evidence are zero. For thousands at a time, on all cores.
    """
    return _folded(model.params, by_user, model.item_vectors, np.empty((0, model.params.factors), np.float32))


def fold_in_items(model: ImplicitALS, by_item: Sparse, prior: Floats | None = None) -> Floats:
    """(n, F): the vector of each row of items, from the weights of the model's users; the users' vectors stay.

    The items need not be the model's: those that are new since the fit, or of another domain that the same people use.
    `prior` (n, F) is where the vectors are held instead of at zero.
    """
    return _folded(model.params, by_item, model.user_vectors, np.empty((0, 0), np.float32) if prior is None else prior)


def _folded(params: ImplicitALSParams, weights: Sparse, other: NDArray[Any], prior: Floats) -> Floats:
    assert weights.width == len(other), f"There are {len(other)} rows on the other side, not {weights.width}."
    result = padded(np.empty((len(weights), 0), np.float32), params.factors)
    with ThreadPoolExecutor(threads(params)) as pool:
        cells = evident(weights, params)
        fixed, held = padded(other, params.factors), padded(prior, params.factors)
        als_steps.half_step(cells, fixed, evidence(params), held, result, pool)
    return np.ascontiguousarray(result[:, : params.factors])


def evident(weights: Sparse, params: ImplicitALSParams) -> Sparse:
    """The strengths of these weights, without the cells of 0, which are no evidence."""
    cells = replace(weights, values=strengths(weights.values, params))
    kept = cells.values != 0
    if kept.all():
        return cells
    ends = np.concatenate(([0], np.cumsum(kept)))
    return Sparse(ends[cells.offsets], cells.columns[kept], cells.values[kept], cells.width)


def fold_in_user(model: ImplicitALS, items: NDArray[np.integer[Any]], weights: Floats) -> Floats:
    """(F,): the vector of one person from the rows of items and the weights of their interactions, in NumPy alone."""
    seen, strong, pulls = _seen(model, items, weights)
    if not len(pulls):
        return np.zeros(model.params.factors, np.float32)
    return fold_in.implicit(seen, strong, pulls, model.item_matrix, _ridge(model, len(pulls)))


def contributions_of(model: ImplicitALS, known: Known, wanted: NDArray[np.integer[Any]]) -> Floats:
    """`contributions` of what is known of one person."""
    return contributions(model, *faded(known, model.params.recent_items).row(0), wanted)


def contributions(
    model: ImplicitALS, items: NDArray[np.integer[Any]], weights: Floats, wanted: NDArray[np.integer[Any]]
) -> Floats:
    """(w, n): how much each of a person's n interactions adds to the score of each of the w wanted items; see `fold_in`."""
    kept = weights != 0
    vectors, strong, pulls = _seen(model, items[kept], weights[kept])
    result = np.zeros((len(wanted), len(items)), np.float32)
    ridge = _ridge(model, len(pulls))
    result[:, kept] = fold_in.contributions(
        vectors, strong, pulls, model.item_matrix, ridge, model.item_vectors[wanted]
    )
    return result


def _seen(model: ImplicitALS, items: NDArray[np.integer[Any]], weights: Floats) -> tuple[Floats, Floats, Floats]:
    """Vectors, weights and pulls of the interactions that are evidence."""
    values = strengths(weights, model.params)
    strong = np.abs(values)
    kept = strong > 0  # nor is NaN evidence
    if np.count_nonzero(kept) < len(kept):
        items, values, strong = items[kept], values[kept], strong[kept]
    pulls = np.maximum(values, np.float32(0))
    if model.params.form == "confidence":
        pulls += values > 0
    return model.item_vectors.take(items, 0), strong, pulls


def _ridge(model: ImplicitALS, cells: int) -> float:
    return evidence(model.params).ridge(cells, len(model.items))


def score_all(model: ImplicitALS, known: Known) -> Floats:
    """(n, I): the score of every item for each of these people, from what is known of them.

    Nobody's vector of the fit is used: a half-step with the final item vectors is at least as fresh, and the same for the old
    as for the new. Who has no evidence scores 0 everywhere.
    """
    told = faded(known, model.params.recent_items)
    if len(told) > FEW:
        vectors = fold_in_users(model, told)
    else:
        rows = [told.row(n) for n in range(len(told))]
        vectors = np.stack([fold_in_user(model, *row) for row in rows]) if rows else model.item_vectors[:0]
    return np.asarray(vectors @ model.item_vectors.T, np.float32)


def person_vector(model: ImplicitALS, known: Known) -> Floats:
    """(F,): of one person, by what is known of them."""
    return fold_in_user(model, *faded(known, model.params.recent_items).row(0))


def score_some(model: ImplicitALS, known: Known, rows: NDArray[np.int64]) -> Floats:
    """(w,): the scores of these items for one person."""
    return np.asarray(model.item_vectors[rows] @ person_vector(model, known), np.float32)


def to_arrays(model: ImplicitALS) -> dict[str, NDArray[Any]]:
    """The arrays of a snapshot, whose `items` are the model's: vectors in half precision changes no metric beyond noise."""
    of_content = {} if model.content is None else content.to_arrays(model.content, "ials")
    return of_content | {
        "ials_users": model.users.keys,
        "ials_user_vectors": model.user_vectors.astype(np.float16),
        "ials_user_examples": model.user_examples,
        "ials_item_vectors": model.item_vectors.astype(np.float16),
        "ials_item_examples": model.item_examples,
        "ials_item_matrix": model.item_matrix,
    }


def header(model: ImplicitALS) -> dict[str, Any]:
    """What fold-in has to know beside the arrays, as JSON."""
    return {"params": msgspec.to_builtins(model.params), "losses": list(model.losses)}


def from_arrays(arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any], items: Vocabulary) -> ImplicitALS:
    """The model that a snapshot holds. Users' vectors stay as they lie there: people are scored by fold-in."""
    return ImplicitALS(
        params=msgspec.convert(header["params"], ImplicitALSParams),
        users=Vocabulary(arrays["ials_users"]),
        user_vectors=arrays["ials_user_vectors"],
        user_examples=arrays["ials_user_examples"],
        items=items,
        item_vectors=arrays["ials_item_vectors"].astype(np.float32),
        item_examples=arrays["ials_item_examples"],
        item_matrix=arrays["ials_item_matrix"],
        losses=tuple(header["losses"]),
        content=content.from_arrays(arrays, "ials"),
    )


def item_matrix(item_vectors: Floats, params: ImplicitALSParams) -> Floats:
    """(F, F): the Gramian of the item vectors times the unobserved weight, in NumPy alone."""
    blocks = (item_vectors[start : start + BLOCK].astype(np.float64) for start in range(0, len(item_vectors), BLOCK))
    gramian = sum((block.T @ block for block in blocks), np.zeros((item_vectors.shape[1],) * 2))
    return np.asarray(evidence(params).unobserved * gramian, np.float32)


def threads(params: ImplicitALSParams) -> int:
    """As many as the parameters say, or one per core."""
    if params.threads is not None:
        return params.threads
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
