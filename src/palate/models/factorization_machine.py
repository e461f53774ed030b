"""The factorization machine in its two-field form: user bias + item bias + ⟨user, item⟩, learned by gradient steps.

Rendle, "Factorization Machines" (ICDM 2010) with the fields user and item; with squared loss that is the biased matrix
factorisation of Koren, Bell and Volinsky, "Matrix Factorization Techniques for Recommender Systems" (2009).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from palate import splits
from palate.domain import Interactions
from palate.errors import InvalidInput
from palate.matrix import Sparse
from palate.models import fm_learning
from palate.vocabulary import Vocabulary, moved, vocabulary

Loss = Literal["squared", "logistic"]

MARGIN = np.float32(0.02)
"""Sums of the squared loss that are so far from 0 and 1 are expected labels as they are. It costs nothing: RMSE on MovieLens is
as with a cut."""

UNKNOWN_L2, STRONGEST_L2 = 3.0, 1_000.0
FEWEST_REPEATS = 30
"""Examples beyond the first of their row from which the variance within rows can be told."""

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Counts = NDArray[np.int32]
ShortRows = NDArray[np.int32]

NO_WEIGHTS: Floats = np.empty(0, np.float32)
"""Stands for a weight of 1 everywhere."""


class FactorizationMachineParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the factorization machine learns."""

    loss: Loss = "squared"
    """`squared` for labels that are grades or votes, `logistic` for labels that are yes or no: the score is a probability."""
    optimizer: Literal["sgd", "adagrad"] = "sgd"
    """`sgd` takes steps whose length falls in a straight line; `adagrad` shortens those of each row by the gradients that it has
    met, and wants a `learning_rate` of about 0.05."""
    factors: Annotated[int, msgspec.Meta(ge=0, le=512)] = 13
    """Length of each vector; 0 leaves the biases alone."""
    epochs: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 30
    """Passes over all examples in a full fit."""
    partial_epochs: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 10
    """Passes over the new examples and the sample of old ones in `partial_fit`."""
    learning_rate: Annotated[float, msgspec.Meta(gt=0, le=10)] = 0.2
    """Length of the first steps of a full fit; it falls in a straight line to a fiftieth in the last epoch."""
    partial_learning_rate: Annotated[float, msgspec.Meta(gt=0, le=10)] = 0.05
    """The same for `partial_fit`, shorter because old rows are where they should be."""
    l2_user_bias: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """How strongly a user's bias is held at zero, in examples: as if that many of theirs said "like everybody". None: as the
    data show, by how much users differ beyond chance."""
    l2_item_bias: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """The same for the bias of an item."""
    l2_users: Annotated[float, msgspec.Meta(ge=0)] = 3.0
    """The same for the vector of a user."""
    l2_items: Annotated[float, msgspec.Meta(ge=0)] = 3.0
    """The same for the vector of an item."""
    initial_scale: Annotated[float, msgspec.Meta(ge=0, le=10)] = 0.03
    """Standard deviation of the numbers that vectors start with."""
    noise: Annotated[float, msgspec.Meta(ge=0, le=10)] = 0.05
    """Around the mean of its source where a new item starts, in standard deviations of the items' vectors."""
    patience: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Passes without a better loss on the newest examples after which a full fit stops; all are then learned anew with as many
    passes as were best. 0: it makes all `epochs`."""
    validation_share: Annotated[float, msgspec.Meta(gt=0, le=0.5)] = 0.1
    """Share of the examples, the newest, that `patience` looks at."""
    blocks: Annotated[int, msgspec.Meta(ge=1, le=256)] | None = None
    """Blocks of users and of items that are learned side by side, so the most threads of use; another number gives another
    model. None: 1 below 65,536 examples, else 4."""
    threads: Annotated[int, msgspec.Meta(ge=1, le=256)] | None = None
    """Threads that learn; the model is the same with any number. None: as many as there are processors."""
    racing: bool = False
    """Whether threads may change the same item at the same time: then `blocks` doesn't bound them, and no two fits are alike."""


@dataclass(frozen=True, eq=False)
class ItemSources:
    """The source of each item, as two arrays of keys with equal length."""

    items: NDArray[np.int64]
    sources: NDArray[np.int64]

    def of(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """Key of the source of each item; −1 where it is not known."""
        order = np.argsort(self.items, kind="stable")
        rows = Vocabulary(self.items[order]).rows(items)
        if not len(self.items):
            return rows
        return np.where(rows < 0, -1, self.sources[order][rows])


NO_SOURCES = ItemSources(np.empty(0, np.int64), np.empty(0, np.int64))


@dataclass(frozen=True, eq=False)
class FactorizationMachine:
    """A learned model; no function changes its arrays. U users, I items, S sources, F factors."""

    loss: Loss
    base: float
    """The score of nobody for nothing, before the link: the mean label, or its logit."""
    users: Vocabulary
    user_bias: Floats
    """(U,)"""
    user_vectors: Floats
    """(U, F)"""
    user_examples: Counts
    """(U,): how many examples shaped the row; 0 for a user at the prior"""
    items: Vocabulary
    item_bias: Floats
    """(I,)"""
    item_vectors: Floats
    """(I, F)"""
    item_examples: Counts
    """(I,)"""
    sources: Vocabulary
    source_bias: Floats
    """(S,): mean of the source's learned items, where its new items start."""
    source_vectors: Floats
    """(S, F)"""
    epochs: int = 0
    """Passes of the full fit: fewer than its setting when it stopped early."""
    l2_user: tuple[float, float] = (UNKNOWN_L2, UNKNOWN_L2)
    """What held the bias and the vector of a user, for people who come later: see `FactorizationMachineParams`."""


def fit(
    interactions: Interactions,
    item_sources: ItemSources,
    params: FactorizationMachineParams,
    seed: int,
    weights: Floats | None = None,
) -> tuple[FactorizationMachine, Floats]:
    """Learn from all examples; also return the mean loss of each mini-batch, in order.

    Labels are 0..1; those that are NaN are no examples, but their users and items are in the model all the same: users at
    the prior, items at the mean of their source. `weights` (N,), 0 or more, say how much each counts; None means 1. The same
    interactions, parameters and seed give the same bytes, with any number of threads. Raises InvalidInput for weights or
    labels that can't be learned.
    """
    users, items = vocabulary(interactions.user), vocabulary(interactions.item)
    kept = params.epochs
    if params.patience:
        older, newer = _time_split(interactions, weights, params.validation_share)
        examples, tail = (_by_user(part, users, items, own) for part, own in (older, newer))
        kept = _fit(examples, users, items, item_sources, params, seed, tail)[0].epochs
    examples = _by_user(interactions, users, items, weights)
    return _fit(examples, users, items, item_sources, params, seed, epochs=max(kept, 1))


def fit_rows(
    labels: Sparse,
    users: Vocabulary,
    items: Vocabulary,
    params: FactorizationMachineParams,
    seed: int,
    weights: Floats | None = None,
    *,
    item_sources: ItemSources = NO_SOURCES,
    validation: Sparse | None = None,
) -> tuple[FactorizationMachine, Floats]:
    """`fit` straight from rows that others keep: a row of `labels` for each user, a column for each item; none are copied.

    `weights` (N,) are in the order of the cells. With `patience` and `validation` (the newest examples, of the same shape) it
    stops when their loss falls no more and goes back to the best pass. Raises InvalidInput as `fit` does.
    """
    assert (len(labels), labels.width) == (len(users), len(items)), "Each user has a row, each item a column."
    tail = None if validation is None else _checked(validation, None)
    return _fit(_checked(labels, weights), users, items, item_sources, params, seed, tail)


def partial_fit(
    model: FactorizationMachine,
    interactions: Interactions,
    item_sources: ItemSources,
    params: FactorizationMachineParams,
    seed: int,
    weights: Floats | None = None,
) -> tuple[FactorizationMachine, Floats]:
    """A model that has learned these as well, and the mean loss of each mini-batch; `model` stays as it is.

    `interactions` are the new ones with a sample of old ones, so that what was learned is kept; rows of which they are a
    small part take short steps. New users start at the prior, new items at the mean of their source with a little
    noise. Loss and number of factors are the model's own.
    """
    users, items = model.users.extended(interactions.user), model.items.extended(interactions.item)
    examples = _by_user(interactions, users, items, weights)
    return _partial_fit(model, examples, users, items, item_sources, params, seed)


def partial_fit_rows(
    model: FactorizationMachine,
    labels: Sparse,
    users: Vocabulary,
    items: Vocabulary,
    params: FactorizationMachineParams,
    seed: int,
    weights: Floats | None = None,
    *,
    item_sources: ItemSources = NO_SOURCES,
) -> tuple[FactorizationMachine, Floats]:
    """`partial_fit` straight from rows; `users` and `items` have all that the model has, and those of the rows."""
    assert (len(labels), labels.width) == (len(users), len(items)), "Each user has a row, each item a column."
    assert not (users.rows(model.users.keys) < 0).any(), "Nobody in the model is left out."
    assert not (items.rows(model.items.keys) < 0).any(), "No item in the model is left out."
    return _partial_fit(model, _checked(labels, weights), users, items, item_sources, params, seed)


@dataclass(frozen=True, eq=False)
class _Examples:
    """What is learned from: a row for each user, a column for each item, a weight for each cell (or none for 1)."""

    labels: Sparse
    weights: Floats
    own: bool = False
    """Whether they may be changed: nobody else has them."""


def _fit(
    examples: _Examples,
    users: Vocabulary,
    items: Vocabulary,
    item_sources: ItemSources,
    params: FactorizationMachineParams,
    seed: int,
    validation: _Examples | None = None,
    epochs: int | None = None,
) -> tuple[FactorizationMachine, Floats]:
    random = np.random.default_rng(seed)
    params = _with_estimates(params, examples.labels)
    model = _with_rows(_blank(_base(examples, params), params), users, items)
    _scatter(model, np.diff(examples.labels.offsets) > 0, _judged(examples), params, random)
    rates = _falling(params.learning_rate, params.epochs)[:epochs]
    model, losses = _learned(model, examples, params, rates, random, validation)
    unlearned = np.flatnonzero(model.item_examples == 0)
    model = _with_sources(model, np.flatnonzero(model.item_examples), item_sources)
    _start_items(model, unlearned, item_sources, params, random)
    return model, losses


def _partial_fit(
    model: FactorizationMachine,
    examples: _Examples,
    users: Vocabulary,
    items: Vocabulary,
    item_sources: ItemSources,
    params: FactorizationMachineParams,
    seed: int,
) -> tuple[FactorizationMachine, Floats]:
    random = np.random.default_rng(seed)
    epochs, params = model.epochs, msgspec.structs.replace(params, loss=model.loss)
    grown = _with_rows(model, users, items)
    fresh = _split(len(items), items.rows(model.items.keys))[1]
    _start_items(grown, fresh, item_sources, params, random)
    params = _with_estimates(params, examples.labels)
    rates = _falling(params.partial_learning_rate, params.partial_epochs)
    grown, losses = _learned(grown, examples, params, rates, random)
    return replace(_with_sources(grown, np.flatnonzero(grown.item_examples), item_sources), epochs=epochs), losses


def _learned(
    model: FactorizationMachine,
    examples: _Examples,
    params: FactorizationMachineParams,
    rates: Floats,
    random: np.random.Generator,
    validation: _Examples | None = None,
) -> tuple[FactorizationMachine, Floats]:
    """The model after a pass for each rate, or fewer when `validation` says so; and the losses."""
    assert params.l2_user_bias is not None, "the data have said"
    assert params.l2_item_bias is not None, "the data have said"
    logistic, l2 = model.loss == "logistic", (params.l2_user_bias, params.l2_users)
    plan = fm_learning.plan(
        len(examples.labels.columns),
        logistic,
        params.optimizer == "adagrad",
        params.blocks,
        params.threads,
        params.racing,
    )
    order = np.arange(len(model.items))
    if plan.blocks > 1 and examples.own:
        # as their keys go, items of one block would be of one time: people would be drawn to one after the other
        order = random.permutation(order)
        for part in (examples, validation):
            if part is not None:
                fm_learning.relabel(part.labels, part.weights, order.astype(np.int32))
    labels, by_user = examples.labels, np.diff(examples.labels.offsets).astype(np.int32)
    by_item = fm_learning.column_counts(labels)
    shaped = np.maximum(model.user_examples, by_user), np.maximum(model.item_examples, by_item[order])
    model = replace(model, user_examples=shaped[0], item_examples=shaped[1], l2_user=l2)
    users = fm_learning.side(model.user_bias, model.user_vectors, by_user, shaped[0], *l2)
    items = fm_learning.side(
        model.item_bias, model.item_vectors, by_item, shaped[1], params.l2_item_bias, params.l2_items, order
    )
    done = fm_learning.passes(labels, examples.weights, model.base, users, items, plan, rates, random)
    if validation is None:
        losses, epochs = list(done), len(rates)
    else:
        tail = validation

        def loss() -> float:
            return fm_learning.mean_loss(tail.labels, tail.weights, model.base, users, items, logistic)

        losses, epochs = fm_learning.until_worse(done, loss, params.patience or len(rates), (users.rows, items.rows))
    factors = model.user_vectors.shape[1]
    model.user_bias[:], model.user_vectors[:] = users.rows[:, -1], users.rows[:, :factors]
    model.item_bias[:], model.item_vectors[:] = items.rows[order, -1], items.rows[order, :factors]
    return replace(model, epochs=epochs), np.concatenate(losses)


def _time_split(
    interactions: Interactions, weights: Floats | None, share: float
) -> tuple[tuple[Interactions, Floats | None], tuple[Interactions, Floats | None]]:
    """What is learned from and what is looked at: the newest share of the examples."""
    known = np.flatnonzero(~np.isnan(interactions.label))
    order = known[np.argsort(interactions.time[known], kind="stable")]
    cut = len(order) - round(len(order) * share)
    parts = [np.sort(part) for part in (order[:cut], order[cut:])]
    older, newer = ((splits.rows(interactions, part), None if weights is None else weights[part]) for part in parts)
    return older, newer


def _by_user(interactions: Interactions, users: Vocabulary, items: Vocabulary, weights: Floats | None) -> _Examples:
    """The examples among the interactions."""
    known = np.flatnonzero(~np.isnan(interactions.label))
    rows, columns = users.rows(interactions.user[known]), items.rows(interactions.item[known]).astype(np.int32)
    order = _order(rows, columns)
    offsets = np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=len(users))))).astype(np.int64)
    values = interactions.label[known].astype(np.float32)
    if weights is not None:
        assert len(weights) == len(interactions), "Each interaction has a weight."
        weights = np.asarray(weights, np.float32)[known][order]
    return replace(_checked(Sparse(offsets, columns[order], values[order], len(items)), weights), own=True)


def _order(rows: Rows, columns: ShortRows) -> Rows | slice:
    """The order by user and item: as it is, mostly."""
    ascending = (rows[1:] > rows[:-1]) | ((rows[1:] == rows[:-1]) & (columns[1:] > columns[:-1]))
    return slice(None) if ascending.all() else np.lexsort((columns, rows))


def _checked(labels: Sparse, weights: Floats | None) -> _Examples:
    """The same, if it can be learned. Raises InvalidInput."""
    if not np.isfinite(labels.values.sum(dtype=np.float64)):
        raise InvalidInput("a label is no finite number: leave out the pairs that say nothing")
    if weights is None:
        return _Examples(labels, NO_WEIGHTS)
    assert len(weights) == len(labels.values), "Each example has a weight."
    if not np.isfinite(weights.sum(dtype=np.float64)) or (len(weights) and weights.min() < 0):
        raise InvalidInput("a weight is below 0 or no finite number")
    return _Examples(labels, np.ascontiguousarray(weights, np.float32))


def _judged(examples: _Examples) -> NDArray[np.bool_]:
    return fm_learning.column_counts(examples.labels) > 0


def _falling(first: float, epochs: int) -> Floats:
    """A learning rate for each pass."""
    return np.linspace(first, first / 50, epochs, dtype=np.float32)


def _with_estimates(params: FactorizationMachineParams, labels: Sparse) -> FactorizationMachineParams:
    if params.l2_user_bias is not None and params.l2_item_bias is not None:
        return params
    by_user, by_item, squares = fm_learning.moments(labels)
    user = _estimated(by_user[0], by_user[1], squares) if params.l2_user_bias is None else params.l2_user_bias
    item = _estimated(by_item[0], by_item[1], squares) if params.l2_item_bias is None else params.l2_item_bias
    return msgspec.structs.replace(params, l2_user_bias=user, l2_item_bias=item)


def estimated_l2(rows: NDArray[np.integer[Any]], labels: Floats) -> float:
    """How many examples the prior of a row's bias is worth: the variance within rows over the variance between them.

    Both by the method of moments of the one-way random effects model (Searle, Casella, McCulloch, Variance Components, 1992).
    Between 0.5 and 1,000, which holds a bias at zero: so much is said where rows differ no more than by chance. 3 where most
    rows have one example and nothing can be told.
    """
    squares = float(np.square(labels, dtype=np.float64).sum())
    return _estimated(np.bincount(rows).astype(np.float64), np.bincount(rows, labels).astype(np.float64), squares)


def _estimated(counts: NDArray[np.float64], sums: NDArray[np.float64], squares: float) -> float:
    """The same from the counts and the sums of labels by row, and the sum of their squares."""
    counts, sums = counts[counts > 0], sums[counts > 0]
    examples, groups = counts.sum(), len(counts)
    if groups < 2 or examples - groups < FEWEST_REPEATS:
        return UNKNOWN_L2
    between = (sums**2 / counts).sum() - sums.sum() ** 2 / examples
    within = (squares - (sums**2 / counts).sum()) / (examples - groups)
    spread = (between - (groups - 1) * within) / (examples - (counts**2).sum() / examples)
    return float(np.clip(within / spread, 0.5, STRONGEST_L2)) if spread > 0 else STRONGEST_L2


def score(model: FactorizationMachine, users: ArrayLike, items: ArrayLike) -> Floats:
    """Expected label (0..1) of each pair of keys: two arrays of one length, or that broadcast. Unknown keys are at the prior.

    Nothing in the model changes.
    """
    wanted = np.broadcast_arrays(np.asarray(users, np.int64), np.asarray(items, np.int64))
    rows_of_users, rows_of_items = model.users.rows(wanted[0]), model.items.rows(wanted[1])
    result = np.full(wanted[0].shape, model.base, np.float32)
    known = rows_of_users >= 0
    result[known] += model.user_bias[rows_of_users[known]]
    known = rows_of_items >= 0
    result[known] += model.item_bias[rows_of_items[known]]
    known &= rows_of_users >= 0
    vectors = model.user_vectors[rows_of_users[known]], model.item_vectors[rows_of_items[known]]
    result[known] += np.einsum("nf,nf->n", *vectors)
    return link(result, model.loss)


def link(raw: Floats, loss: Loss) -> Floats:
    """From the sum that the model makes to the expected label, between 0 and 1; a larger sum gives a larger label.

    The squared loss knows no bounds: sums within `MARGIN` of 0 or 1 and beyond approach them ever more slowly (Michaelis and
    Menten's curve), since a plain cut would put all that a person likes most at exactly 1, in no order.
    """
    if loss == "logistic":
        return np.asarray(1 / (1 + np.exp(-np.clip(raw, -80, 80))), np.float32)
    over, under = np.maximum(raw - (1 - MARGIN), 0), np.maximum(MARGIN - raw, 0)
    bent = MARGIN * (MARGIN / (MARGIN + under) - MARGIN / (MARGIN + over))
    return np.asarray(np.clip(raw, MARGIN, 1 - MARGIN) + bent, np.float32)


def to_arrays(model: FactorizationMachine) -> dict[str, NDArray[Any]]:
    """The arrays of a snapshot: vectors in half precision, since 13 factors of 1,000,000 items have to fit a small server."""
    return {
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


def from_arrays(arrays: Mapping[str, NDArray[Any]], loss: Loss, base: float) -> FactorizationMachine:
    """The model that a snapshot holds, in arrays of its own, to be learned further."""
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
    )


def _base(examples: _Examples, params: FactorizationMachineParams) -> float:
    labels = examples.labels.values
    # half an example of each kind: all labels alike must not give an infinite logit, nor none at all a NaN
    mean = (labels.sum(dtype=np.float64) + 0.5) / (len(labels) + 1)
    return float(np.log(mean / (1 - mean))) if params.loss == "logistic" else float(mean)


def _blank(base: float, params: FactorizationMachineParams) -> FactorizationMachine:
    nobody, bias = Vocabulary(np.empty(0, np.int64)), np.empty(0, np.float32)
    vectors, counts = np.empty((0, params.factors), np.float32), np.empty(0, np.int32)
    rows = (nobody, bias, vectors)
    return FactorizationMachine(params.loss, base, *rows, counts, *rows, counts, *rows)


def _with_rows(model: FactorizationMachine, users: Vocabulary, items: Vocabulary) -> FactorizationMachine:
    """A copy with a row, zero if it is new, for each of these users and items."""
    return replace(
        model,
        users=users,
        user_bias=moved(model.user_bias, model.users, users),
        user_vectors=moved(model.user_vectors, model.users, users),
        user_examples=moved(model.user_examples, model.users, users),
        items=items,
        item_bias=moved(model.item_bias, model.items, items),
        item_vectors=moved(model.item_vectors, model.items, items),
        item_examples=moved(model.item_examples, model.items, items),
    )


def _split(rows: int, chosen: Rows | ShortRows) -> tuple[Rows, Rows]:
    """The chosen of 0 … rows − 1, each once, and the others."""
    is_chosen = np.zeros(rows, bool)
    is_chosen[chosen] = True
    return np.flatnonzero(is_chosen), np.flatnonzero(~is_chosen)


def _scatter(
    model: FactorizationMachine,
    users: NDArray[np.bool_],
    items: NDArray[np.bool_],
    params: FactorizationMachineParams,
    random: np.random.Generator,
) -> None:
    """Give these rows a small random vector: from zero no factor could learn to differ from another."""
    scale = np.float32(params.initial_scale)
    for vectors, rows in ((model.user_vectors, users), (model.item_vectors, items)):
        vectors[rows] = scale * random.standard_normal((int(rows.sum()), params.factors), np.float32)


def _start_items(
    model: FactorizationMachine,
    rows: Rows,
    item_sources: ItemSources,
    params: FactorizationMachineParams,
    random: np.random.Generator,
) -> None:
    """Put items that nobody has judged where their source is, or at the prior, with a little noise."""
    others = _split(len(model.items), rows)[1]
    learned = model.item_vectors[others]
    spread = np.std(learned) if learned.size else params.initial_scale
    noise = random.standard_normal((len(rows), model.item_vectors.shape[1]), np.float32)
    model.item_vectors[rows] = np.float32(params.noise * spread) * noise
    sources = model.sources.rows(item_sources.of(model.items.keys[rows]))
    rows, sources = rows[sources >= 0], sources[sources >= 0]
    model.item_bias[rows] = model.source_bias[sources]
    model.item_vectors[rows] += model.source_vectors[sources]


def _with_sources(model: FactorizationMachine, rows: Rows, item_sources: ItemSources) -> FactorizationMachine:
    """The model with the means of these rows of items by source; sources that have none of them stay as they were."""
    keys = item_sources.of(model.items.keys[rows])
    rows, keys = rows[keys >= 0], keys[keys >= 0]
    sources = model.sources.extended(keys)
    places = sources.rows(keys)
    counts = np.bincount(places, minlength=len(sources))
    bias, vectors = (moved(old, model.sources, sources) for old in (model.source_bias, model.source_vectors))
    for means, values in ((bias, model.item_bias), *zip(vectors.T, model.item_vectors.T, strict=True)):
        sums = np.bincount(places, values[rows], minlength=len(sources))
        means[counts > 0] = (sums / np.maximum(counts, 1))[counts > 0]
    return replace(model, sources=sources, source_bias=bias, source_vectors=vectors)
