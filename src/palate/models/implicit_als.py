"""Implicit alternating least squares: user and item vectors whose products tell what people took from what they did not.

The loss over U users and I items, with the score s = ⟨user, item⟩ of a pair and the strength r of an interaction, is

    weighted      Σ_seen w (p − s)²  +  unobserved_weight · Σ_all s²  +  ridges,          w = alpha · |r|^power
    confidence    Σ_all c (p − s)²  +  ridges,                             c = 1 + alpha · |r|^power, r = 0 where unseen

where the preference p is 1, or 0 for a refusal (r < 0) and for what was not seen, and the ridges are Σ λ |vector|² with
λ = l2 · (number of its interactions + unobserved weight · number of rows of the other side) ^ l2_exponent. The first form is
that of Rendle, Krichene, Zhang and Koren, "Revisiting the Performance of iALS on Item Recommendation Benchmarks" (2022), whose
settings can be used as they are published; the second that of Hu, Koren and Volinsky, "Collaborative Filtering for Implicit
Feedback Datasets" (2008), in which the unobserved weigh 1. With one side fixed the best rows of the other are known exactly
(`half_step`), so the sides are solved in turn.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Any, Literal, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate import matrix
from palate.errors import InvalidInput
from palate.machine_code import compiled
from palate.matrix import Sparse
from palate.models import content, fold_in
from palate.models.content import ContentMap
from palate.models.material import Known, Material
from palate.vocabulary import Vocabulary

Form = Literal["weighted", "confidence"]
Floats = NDArray[np.float32]
Counts = NDArray[np.int32]

WIDTH = 16
"""Factors are padded to a multiple of this for the kernels; the padding stays zero."""
TASKS = 64
"""Parts of about equal work into which a half-step is cut. Not by threads: sums must not depend on their number."""
WIDEST_TURN = 192
"""Above it LAPACK finds a Gramian's axes in several threads, and other bits with another number of them."""
BLOCK = 4_096
FEW = 32
"""People up to whose number vectors are solved in NumPy, where a process that serves need not load the kernels."""


class ImplicitALSParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How implicit ALS learns."""

    factors: Annotated[int, msgspec.Meta(ge=1, le=2048)] = 64
    """Length of each vector."""
    epochs: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 12
    """How often users and items are each solved once."""
    l2: Annotated[float, msgspec.Meta(ge=0)] = 0.007
    """How strongly vectors are held at zero, per interaction and unobserved cell (with `l2_exponent` 1)."""
    l2_exponent: Annotated[float, msgspec.Meta(ge=0, le=2)] = 1.0
    """1 holds each row in proportion to its evidence, 0 all rows alike."""
    unobserved_weight: Annotated[float, msgspec.Meta(ge=0)] = 0.3
    """How much a pair without interaction says that the person doesn't want it. In the form `confidence` that is 1."""
    alpha: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    """What an interaction of strength 1 weighs."""
    power: Annotated[float, msgspec.Meta(gt=0, le=10)] = 1.0
    """How the weight grows with the strength: 2 or 3 let half-watched videos count little."""
    form: Form = "weighted"
    """`weighted`: an interaction weighs alpha · strength^power; `confidence`: 1 more, and the unobserved weigh 1."""
    initial_scale: Annotated[float, msgspec.Meta(gt=0, le=10)] = 0.1
    """Length of the random vectors that items start with: normal numbers of this deviation / √factors."""
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


@dataclass(frozen=True)
class Evidence:
    """How strengths and counts enter the loss: all that a half-step has to know of the parameters."""

    unobserved: float
    """What each cell weighs that was not seen."""
    shift: float
    """What a positive pulls beyond its weight: 1 in the form `confidence`."""
    l2: float
    exponent: float

    def ridge(self, cells: int, others: int) -> float:
        """λ of a row with so many interactions, where the other side has `others` rows."""
        return float(self.l2 * (cells + self.unobserved * others) ** self.exponent)


def evidence(params: ImplicitALSParams) -> Evidence:
    """As the parameters say."""
    confidence = params.form == "confidence"
    return Evidence(1.0 if confidence else params.unobserved_weight, float(confidence), params.l2, params.l2_exponent)


def strengths(values: Floats, params: ImplicitALSParams) -> Floats:
    """alpha · |r|^power with the sign of r: what the kernels take. Cells of 0 are no evidence.

    Raises InvalidInput if a weight is infinite or too large for 32 bits.
    """
    weights = np.abs(values)
    with np.errstate(over="ignore"):
        if params.power != 1:
            weights **= np.float32(params.power)
        weights *= np.float32(params.alpha)
    if np.isinf(weights).any():
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

    Items that `warm` knows start from its vectors. `item_prior` (I, F) is where the items' vectors are held instead of at zero:
    items without evidence are then solved as well. `on_epoch` is given the model after each epoch. The same material,
    parameters and seed give the same bytes with any number of threads. Raises InvalidInput where weights overflow or the
    other model has another number of factors.
    """
    start = _start(material, params, np.random.default_rng(seed), warm)
    cells = sides(material, params)
    state = _State(
        user_vectors=padded(np.empty((len(material.users), 0), np.float32), params.factors),
        item_vectors=padded(start, params.factors, cells.item_order),
        item_prior=_prior(item_prior, params, cells.item_order),
        user_order=cells.user_order,
        item_order=cells.item_order,
        user_examples=cells.by_user.counts.astype(np.int32),
        item_examples=cells.by_item.counts.astype(np.int32),
        losses=[],
    )
    with ThreadPoolExecutor(_threads(params)) as pool:
        for _ in range(params.epochs):
            state.losses.append(_epoch(cells, state, evidence(params), pool))
            if on_epoch is not None:
                on_epoch(_model(material, params, state, pool))
        del cells  # before the vectors are copied
        return _model(material, params, state, pool)


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


def _start(
    material: Material, params: ImplicitALSParams, random: np.random.Generator, warm: ImplicitALS | None
) -> Floats:
    """(I, F): the item vectors that the first half-step takes as they are."""
    shape = (len(material.items), params.factors)
    vectors = random.standard_normal(shape, np.float32) * np.float32(params.initial_scale / params.factors**0.5)
    if warm is None:
        return vectors
    if warm.item_vectors.shape[1] != params.factors:
        raise InvalidInput(
            f"The model to start from has {warm.item_vectors.shape[1]} factors, not {params.factors}: fit without it."
        )
    rows = warm.items.rows(material.items.keys)
    vectors[rows >= 0] = warm.item_vectors[rows[rows >= 0]]
    return vectors


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
    user_order = np.argsort(-plain.counts, kind="stable")
    item_counts = np.bincount(plain.columns, minlength=plain.width)
    item_order = np.argsort(-item_counts, kind="stable")
    by_item = matrix.transposed(plain, user_order, item_order)
    del plain  # before the next is made: two of them are what a fit may hold
    return Sides(matrix.transposed(by_item), by_item, user_order, item_order)


def _epoch(cells: Sides, state: _State, evidence: Evidence, pool: ThreadPoolExecutor) -> float:
    """Solve all users, then all items; return the loss of both as they are then."""
    by_user, by_item = cells.by_user, cells.by_item
    nothing, turn = state.item_prior[:0], not len(state.item_prior)  # a prior holds items in its own axes
    _, ridges = half_step(by_user, state.item_vectors, evidence, nothing, state.user_vectors, pool, turn=turn)
    loss, _ = half_step(by_item, state.user_vectors, evidence, state.item_prior, state.item_vectors, pool, turn=turn)
    return loss + ridges


def _model(material: Material, params: ImplicitALSParams, state: _State, pool: ThreadPoolExecutor) -> ImplicitALS:
    gramian = _gramian(state.item_vectors, pool)[: params.factors, : params.factors]
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


def aligned(*shape: int) -> Floats:
    """An array of zeros that begins on a line of the cache, so that no row of 16 factors lies across two."""
    whole = np.zeros(int(np.prod(shape)) + WIDTH, np.float32)
    start = -whole.ctypes.data % 64 // 4
    return whole[start : start + int(np.prod(shape))].reshape(shape)


def padded(vectors: NDArray[Any], factors: int, order: NDArray[np.int64] | None = None) -> Floats:
    """The vectors (of these rows, in this order) for the kernels: `factors` rounded up, what is missing zero."""
    rows = len(vectors) if order is None else len(order)
    result = aligned(rows, -(-factors // WIDTH) * WIDTH)
    result[:, : vectors.shape[1]] = vectors if order is None else vectors[order]
    return result


def half_step(
    cells: Sparse,
    other: Floats,
    evidence: Evidence,
    prior: Floats,
    result: Floats,
    pool: ThreadPoolExecutor,
    *,
    turn: bool = False,
) -> tuple[float, float]:
    """Solve each row of `cells` against the fixed `other` side into `result`; return the loss of the rows and their ridges.

    The loss is Σ over all cells of the row plus its ridge; what it has beyond that is the other side's ridge alone. It comes
    without a pass over the data: at the solution x of Ax = b the quadratic is its constant − ⟨b, x⟩. `other`, `prior` (or none of
    its rows) and `result` are `padded`. With `turn` the other side may be rotated in place, so that its Gramian is a diagonal and
    short rows cost less; no score changes. That needs a prior without rows.
    """
    from palate.models import als_kernels, als_tiles  # numba: see machine_code

    factors = other.shape[1]
    gramian, short = _gramian(other, pool), factors // 2 // WIDTH * WIDTH if turn and factors <= WIDEST_TURN else 0
    if np.count_nonzero(cells.counts <= short) > len(cells) // WIDTH:
        gramian = _turned(other, gramian, pool)
    else:
        short = 0
    weighted = (evidence.unobserved * gramian).astype(np.float32)
    size, wide = als_kernels.buffer_size(factors), als_tiles.has_wide_registers()

    def solve(part: tuple[int, int]) -> tuple[float, float]:
        found: tuple[float, float] = compiled(
            als_kernels.half_step,
            *part,
            cells.offsets,
            cells.columns,
            cells.values,
            other,
            weighted,
            np.float32(evidence.shift),
            evidence.l2,
            evidence.unobserved * len(other),
            evidence.exponent,
            prior,
            short,
            result,
            aligned(size),
            wide,
            fastmath=als_kernels.FREEDOMS,
        )
        return found

    found = list(pool.map(solve, _parts(cells.counts * factors + factors**2 // 2)))
    return sum(loss for loss, _ in found), sum(ridge for _, ridge in found)


def readable_half_step(
    cells: Sparse, other: NDArray[np.float64], evidence: Evidence, prior: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """What `half_step` solves, as it is meant: (n, F) from the other side's (m, F). `prior` (n, F), None means zero."""
    result = np.zeros((len(cells), other.shape[1]))
    unobserved = evidence.unobserved * other.T @ other
    for row in range(len(cells)):
        columns, weights = cells.row(row)
        if not len(columns) and prior is None:
            continue
        seen, ridge = other[columns], evidence.ridge(len(columns), len(other))
        pulls = np.where(weights > 0, weights + evidence.shift, 0)
        left = unobserved + (seen.T * np.abs(weights)) @ seen + ridge * np.eye(other.shape[1])
        right = seen.T @ pulls + (0 if prior is None else ridge * prior[row])
        result[row] = np.linalg.solve(left, right)
    return result


def _turned(vectors: Floats, gramian: NDArray[np.float64], pool: ThreadPoolExecutor) -> NDArray[np.float64]:
    """Rotate the vectors in place into the axes of their Gramian; return it as it is then."""
    from palate.models import als_kernels

    used = len(np.trim_zeros(np.diag(gramian), "b"))  # what pads the vectors stays zero
    lengths, rotation = np.zeros(len(gramian)), np.eye(len(gramian), dtype=np.float32)
    lengths[:used], rotation[:used, :used] = np.linalg.eigh(gramian[:used, :used])

    def part(rows: tuple[int, int]) -> None:
        compiled(als_kernels.turn, vectors, *rows, rotation, fastmath=als_kernels.FREEDOMS)

    list(pool.map(part, _parts(np.ones(len(vectors), np.int64))))
    return np.diag(np.maximum(lengths, 0))


def _parts(costs: NDArray[np.int64]) -> list[tuple[int, int]]:
    """(first, last) of consecutive rows that cost about as much as those of each other part."""
    total = np.concatenate(([0], np.cumsum(costs)))
    cuts = np.searchsorted(total, np.linspace(0, total[-1], TASKS + 1))
    cuts[0], cuts[-1] = 0, len(costs)
    return [(first, last) for first, last in pairwise(cuts.tolist()) if first < last]


def _gramian(vectors: Floats, pool: ThreadPoolExecutor) -> NDArray[np.float64]:
    """vectorsᵀ vectors, summed in float64."""
    from palate.models import als_kernels, als_tiles  # numba: see machine_code

    factors = vectors.shape[1]
    size, wide = als_kernels.buffer_size(factors), als_tiles.has_wide_registers()
    cuts = np.linspace(0, len(vectors), 1 + min(WIDTH, 1 + len(vectors) // 512)).astype(int)

    def part(first: int, last: int) -> NDArray[np.float64]:
        total = np.empty((factors, factors))
        rows = (vectors, first, last)
        compiled(als_kernels.gramian, *rows, aligned(size), total, wide, fastmath=als_kernels.FREEDOMS)
        return total

    parts = pool.map(part, cuts[:-1].tolist(), cuts[1:].tolist())
    upper = np.triu(sum(parts, np.zeros((factors, factors))))
    return np.asarray(upper + np.triu(upper, 1).T)


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
    with ThreadPoolExecutor(_threads(params)) as pool:
        cells = _evident(replace(weights, values=strengths(weights.values, params)))
        fixed, held = padded(other, params.factors), padded(prior, params.factors)
        half_step(cells, fixed, evidence(params), held, result, pool)
    return np.ascontiguousarray(result[:, : params.factors])


def _evident(cells: Sparse) -> Sparse:
    """Without the cells of 0, which are no evidence."""
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
    if not values.all():
        items, values = items[values != 0], values[values != 0]
    pulls = np.where(values > 0, values + np.float32(evidence(model.params).shift), np.float32(0))
    return model.item_vectors.take(items, 0), np.abs(values), pulls


def _ridge(model: ImplicitALS, cells: int) -> float:
    return evidence(model.params).ridge(cells, len(model.items))


def score_all(model: ImplicitALS, known: Known) -> Floats:
    """(n, I): the score of every item for each of these people, from what is known of them.

    Nobody's vector of the fit is used: a half-step with the final item vectors is at least as fresh, and the same for the old
    as for the new. Who has no evidence scores 0 everywhere.
    """
    if len(known.users) > FEW:
        vectors = fold_in_users(model, known.weights)
    else:
        rows = [known.weights.row(n) for n in range(len(known.users))]
        vectors = np.stack([fold_in_user(model, *row) for row in rows]) if rows else model.item_vectors[:0]
    return np.asarray(vectors @ model.item_vectors.T, np.float32)


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


def _threads(params: ImplicitALSParams) -> int:
    if params.threads is not None:
        return params.threads
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
