"""The factorization machine: user bias + item bias + ⟨user, item⟩, and any further fields, learned by gradient steps.

Rendle, "Factorization Machines" (ICDM 2010); with squared loss and the fields user and item alone that is the biased matrix
factorisation of Koren, Bell and Volinsky, "Matrix Factorization Techniques for Recommender Systems" (2009).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from palate import metrics
from palate.domain import Interactions
from palate.matrix import Sparse
from palate.models import fields as of_fields
from palate.models import fm_fitting, fm_learning, fm_scale, fold_in
from palate.models.content import ContentMap
from palate.models.fields import Field, LearnedField, Tags
from palate.models.fm_fitting import Material, Whole
from palate.models.fm_learning import Examples
from palate.vocabulary import Vocabulary, moved, vocabulary

Loss = Literal["squared", "logistic"]
"""What links the sum to the label. A model that compares items, `bpr`, has the link of `logistic`."""

MARGIN = np.float32(0.02)
"""Sums of the squared loss that are so far from 0 and 1 are expected labels as they are. It costs nothing: RMSE on MovieLens is
as with a cut."""

MOST_PASSES = 100
"""Of a full fit, where its setting doesn't ask for more."""

UNKNOWN_L2 = fm_fitting.UNKNOWN_L2

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Counts = NDArray[np.int32]
ShortRows = NDArray[np.int32]


class FactorizationMachineParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the factorization machine learns."""

    loss: fm_learning.Loss = "squared"
    """`squared` for labels that are grades or votes, `logistic` for labels that are yes or no: the score is a probability. `bpr`
    compares each item with a label above a half with another drawn by chance: it learns an order alone."""
    optimizer: Literal["sgd", "adagrad"] = "sgd"
    """`sgd` takes steps whose length falls in a straight line; `adagrad` shortens those of each row by the gradients that it has
    met, and wants a `learning_rate` of about 0.05."""
    factors: Annotated[int, msgspec.Meta(ge=0, le=512)] = 13
    """Length of each vector; 0 leaves the biases alone."""
    epochs: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 30
    """Passes over all examples in a full fit, or more: see `least_steps`."""
    least_steps: Annotated[int, msgspec.Meta(ge=0)] = 20_000
    """Steps of a full fit at least, one for each example in each pass: of few examples it makes more passes, but no more than
    100, since vectors leave zero slowly."""
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
    fields: tuple[of_fields.Name, ...] = ("source", "label", "author", "language", "category")
    """What is learned of beside users and items, where the catalog knows it; `hour` is the hour of an event, UTC."""
    l2_fields: Annotated[float, msgspec.Meta(ge=0)] = 3.0
    """The same for the biases and the vectors of labels of further fields (source, category, hour …)."""
    l2_by_field: dict[str, float] = {}
    """… of single fields by their names, where they differ."""
    l2_scales: tuple[Annotated[float, msgspec.Meta(gt=0)], ...] = (1.0, 4.0, 16.0)
    """Multiples of `l2_users`, `l2_items` and those of fields that a full fit tries: it learns with the first, unless under
    another what people said last is surely foretold better, and later fits go on with that. A single one is taken untried."""
    l2_tried_below: Annotated[int, msgspec.Meta(ge=0)] = 1_000_000
    """With so many examples, or with fewer than about 500, the first of `l2_scales` is taken untried."""
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

    def __post_init__(self) -> None:
        if any(not l2 >= 0 for l2 in self.l2_by_field.values()):
            raise ValueError("`l2_by_field` holds a number below 0")
        if not self.l2_scales:
            raise ValueError("`l2_scales` is empty: (1.0,) takes each `l2` as it is set")


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
    fields: tuple[LearnedField, ...] = ()
    """What was learned of further fields. The biases and vectors above are those of users and items as wholes, with all that
    follows from their labels: see `fields.collapsed`."""
    l2_user: tuple[float, float] = (UNKNOWN_L2, UNKNOWN_L2)
    """What held the bias and the vector of a user, for people who come later: see `FactorizationMachineParams`."""
    l2_scale: float = 1.0
    """The one of `FactorizationMachineParams.l2_scales` that it was learned with."""
    content: ContentMap | None = None
    """What an item's content says of its vector and its bias (F + 1 numbers); None where that wasn't learned."""


def fit(
    interactions: Interactions,
    item_sources: ItemSources,
    params: FactorizationMachineParams,
    seed: int,
    weights: Floats | None = None,
    fields: Sequence[Field] = (),
) -> tuple[FactorizationMachine, Floats]:
    """Learn from all examples; also return the mean loss of each mini-batch, in order.

    Labels are 0..1; those that are NaN are no examples, but their users and items are in the model all the same: users at
    the prior, items at the mean of their source. `weights` (N,), 0 or more, say how much each counts; None means 1. With
    `fields`, users and items begin at what is known of their labels. The same arguments give the same bytes, with any number
    of threads. Raises InvalidInput for weights or labels that can't be learned.
    """
    users, items = vocabulary(interactions.user), vocabulary(interactions.item)
    material = Material(users, items, fields, of_fields.extended((), fields, params.factors))
    places = np.flatnonzero(~np.isnan(interactions.label))

    whole = fm_fitting.by_user(interactions, places, material, weights)

    def loss(older: Rows, newer: Rows, scale: float) -> Floats:
        examples, asked = fm_fitting.by_user(interactions, places[older], material, weights), places[newer]
        model, _ = _fit(examples, material, item_sources, params, seed, l2_scale=scale)
        return losses(model, interactions.label[asked], interactions.user[asked], interactions.item[asked])

    scale = best_l2_scale(interactions.user[places], interactions.time[places], params, loss)
    epochs = None
    if params.patience:
        older, newer = fm_fitting.time_split(interactions, places, params.validation_share)
        parts = [fm_fitting.by_user(interactions, part, material, weights) for part in (older, newer)]
        epochs = max(_fit(parts[0], material, item_sources, params, seed, parts[1], l2_scale=scale)[0].epochs, 1)
    return _fit(whole, material, item_sources, params, seed, epochs=epochs, l2_scale=scale)


def best_l2_scale(users: Rows, times: Rows, params: FactorizationMachineParams, loss: fm_scale.Loss) -> float:
    """The best of `params.l2_scales` on examples of these users at these times; `loss` is what `fm_scale.best` asks for."""
    if params.loss == "bpr" or len(users) >= params.l2_tried_below:
        return params.l2_scales[0]
    return fm_scale.best(users, times, params.l2_scales, loss)


def losses(model: FactorizationMachine, labels: Floats, users: Rows, items: Rows) -> Floats:
    """(n,) the loss of each of these labels of pairs of keys."""
    measure = metrics.log_losses if model.loss == "logistic" else metrics.squared_errors
    return np.asarray(measure(labels, score(model, users, items)), np.float32)


def fit_rows(
    labels: Sparse,
    users: Vocabulary,
    items: Vocabulary,
    params: FactorizationMachineParams,
    seed: int,
    weights: Floats | None = None,
    *,
    item_sources: ItemSources = NO_SOURCES,
    fields: Sequence[Field] = (),
    validation: Sparse | None = None,
    own: bool = False,
    epochs: int | None = None,
    l2_scale: float = 1.0,
) -> tuple[FactorizationMachine, Floats]:
    """`fit` straight from rows that others keep: a row of `labels` for each user, a column for each item; none are copied.

    `weights` (N,) and the owners of fields of events are by cell. With `patience` and `validation` (the newest examples, of the
    same shape, without fields of events) it stops when their loss falls no more and goes back to the best pass. Items are cut
    into blocks as they lie, unless the cells are the caller's `own`, not to be used again: then they are mixed in place, as `fit`
    does. `epochs` are the passes that are made, None: all. `l2_scale` is a multiple of each l2 of vectors and fields; nothing is
    tried. Raises InvalidInput as `fit` does.
    """
    material = Material(users, items, fields, of_fields.extended((), fields, params.factors))
    tail = None if validation is None else fm_fitting.of_rows(validation, None, replace(material, fields=()), own)
    examples = fm_fitting.of_rows(labels, weights, material, own)
    return _fit(examples, material, item_sources, params, seed, tail, epochs, l2_scale)


def partial_fit(
    model: FactorizationMachine,
    interactions: Interactions,
    item_sources: ItemSources,
    params: FactorizationMachineParams,
    seed: int,
    weights: Floats | None = None,
    fields: Sequence[Field] = (),
) -> tuple[FactorizationMachine, Floats]:
    """A model that has learned these as well, and the mean loss of each mini-batch; `model` stays as it is.

    `interactions` are the new ones with a sample of old ones, so that what was learned is kept; rows of which they are a
    small part take short steps. New users start at the prior, new items at the mean of their source with a little noise, or
    both at what is known of their labels. Link and number of factors are the model's own.
    """
    users, items = model.users.extended(interactions.user), model.items.extended(interactions.item)
    known = of_fields.extended(model.fields, fields, model.item_vectors.shape[1])
    material = Material(users, items, fields, known)
    places = np.flatnonzero(~np.isnan(interactions.label))
    return _partial_fit(
        model, fm_fitting.by_user(interactions, places, material, weights), material, item_sources, params, seed
    )


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
    fields: Sequence[Field] = (),
    own: bool = False,
) -> tuple[FactorizationMachine, Floats]:
    """`partial_fit` straight from rows; `users` and `items` have all that the model has, and those of the rows. `own` is that of
    `fit_rows`."""
    assert not (users.rows(model.users.keys) < 0).any(), "Nobody in the model is left out."
    assert not (items.rows(model.items.keys) < 0).any(), "No item in the model is left out."
    known = of_fields.extended(model.fields, fields, model.item_vectors.shape[1])
    material = Material(users, items, fields, known)
    examples = fm_fitting.of_rows(labels, weights, material, own)
    return _partial_fit(model, examples, material, item_sources, params, seed)


def _fit(
    examples: Examples,
    material: Material,
    item_sources: ItemSources,
    params: FactorizationMachineParams,
    seed: int,
    validation: Examples | None = None,
    epochs: int | None = None,
    l2_scale: float = 1.0,
) -> tuple[FactorizationMachine, Floats]:
    random = np.random.default_rng(seed)
    params = _with_estimates(params, examples.labels)
    model = _with_rows(replace(_blank(_base(examples, params), params), l2_scale=l2_scale), material)
    judged = fm_learning.column_counts(examples.labels) > 0
    for vectors, rows in ((model.user_vectors, np.diff(examples.labels.offsets) > 0), (model.item_vectors, judged)):
        fm_fitting.scatter(vectors, rows, params.initial_scale, random)
    rates = _falling(params.learning_rate, _passes(params, len(examples.labels.columns)))[:epochs]
    model, losses = _learned(model, examples, material, params, rates, random, validation)
    unlearned = np.flatnonzero(model.item_examples == 0)
    model = _with_sources(model, np.flatnonzero(model.item_examples), item_sources)
    _start_items(model, _untagged(unlearned, material.item_tags), item_sources, params, random)
    return model, losses


def _partial_fit(
    model: FactorizationMachine,
    examples: Examples,
    material: Material,
    item_sources: ItemSources,
    params: FactorizationMachineParams,
    seed: int,
) -> tuple[FactorizationMachine, Floats]:
    random, epochs = np.random.default_rng(seed), model.epochs
    if model.loss != link_of(params.loss):
        params = msgspec.structs.replace(params, loss=model.loss)
    grown = _with_rows(model, material)
    fresh = _split(len(grown.items), grown.items.rows(model.items.keys))[1]
    _start_tagged(grown, model.users, fresh, material)
    _start_items(grown, _untagged(fresh, material.item_tags), item_sources, params, random)
    params = _with_estimates(params, examples.labels)
    rates = _falling(params.partial_learning_rate, params.partial_epochs)
    grown, losses = _learned(grown, examples, material, params, rates, random)
    grown = _with_sources(grown, np.flatnonzero(grown.item_examples), item_sources)
    return replace(grown, epochs=epochs), losses


def _learned(
    model: FactorizationMachine,
    examples: Examples,
    material: Material,
    params: FactorizationMachineParams,
    rates: Floats,
    random: np.random.Generator,
    validation: Examples | None = None,
) -> tuple[FactorizationMachine, Floats]:
    """The model after a pass for each rate, or fewer when `validation` says so; and the losses."""
    users = Whole(model.user_bias, model.user_vectors, model.user_examples)
    items = Whole(model.item_bias, model.item_vectors, model.item_examples)
    prior = _prior(params, model.l2_scale)
    fitting = fm_fitting.Fitting(
        examples, validation, material, model.base, prior, _plan(params, examples), params.patience
    )
    losses, epochs, known = fm_fitting.learn(users, items, fitting, rates, random)
    l2_user = prior.users if len(losses) else model.l2_user
    return replace(model, epochs=epochs, fields=known, l2_user=l2_user), losses


def _plan(params: FactorizationMachineParams, examples: Examples) -> fm_learning.Plan:
    return fm_learning.plan(
        len(examples.labels.columns),
        params.loss,
        params.optimizer == "adagrad",
        params.blocks,
        params.threads,
        params.racing,
    )


def _prior(params: FactorizationMachineParams, scale: float) -> fm_fitting.Prior:
    assert params.l2_user_bias is not None, "the data have said"
    assert params.l2_item_bias is not None, "the data have said"
    return fm_fitting.Prior(
        users=(params.l2_user_bias, scale * params.l2_users),
        items=(params.l2_item_bias, scale * params.l2_items),
        fields={name: scale * l2 for name, l2 in params.l2_by_field.items()},
        other_fields=scale * params.l2_fields,
        initial_scale=params.initial_scale,
    )


def link_of(loss: fm_learning.Loss) -> Loss:
    """The link of a model that was learned with this loss."""
    return "squared" if loss == "squared" else "logistic"


def _passes(params: FactorizationMachineParams, examples: int) -> int:
    return max(params.epochs, min(MOST_PASSES, params.least_steps // max(examples, 1)))


def _falling(first: float, epochs: int) -> Floats:
    """A learning rate for each pass."""
    return np.linspace(first, first / 50, epochs, dtype=np.float32)


def _with_estimates(params: FactorizationMachineParams, labels: Sparse) -> FactorizationMachineParams:
    if params.l2_user_bias is not None and params.l2_item_bias is not None:
        return params
    by_user, by_item, squares = fm_learning.moments(labels)
    user = fm_fitting.estimated(by_user[0], by_user[1], squares) if params.l2_user_bias is None else params.l2_user_bias
    item = fm_fitting.estimated(by_item[0], by_item[1], squares) if params.l2_item_bias is None else params.l2_item_bias
    return msgspec.structs.replace(params, l2_user_bias=user, l2_item_bias=item)


def score(
    model: FactorizationMachine, users: ArrayLike, items: ArrayLike, events: Mapping[str, ArrayLike] | None = None
) -> Floats:
    """Expected label (0..1) of each pair of keys: two arrays of one length, or that broadcast. Unknown keys are at the prior.

    `events` are the labels of the pairs by field of the event's side, of the same length; those of fields that it hasn't
    learned say nothing. Nothing in the model changes.
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
    if events and any(field.side == "event" for field in model.fields):
        vectors = of_fields.found(model.user_vectors, rows_of_users), of_fields.found(model.item_vectors, rows_of_items)
        result += of_fields.of_events(model.fields, events, *vectors)
    return link(result, model.loss)


def start_of_items(model: FactorizationMachine, fields: Sequence[Field], items: Vocabulary) -> tuple[Floats, Floats]:
    """Bias (n,) and vector (n, F) of items of which only the labels are known: the sums of what was learned of these."""
    tags = of_fields.tags(model.fields, fields, "item", items, len(items))
    zero = np.zeros(len(items), np.float32), np.zeros((len(items), model.item_vectors.shape[1]), np.float32)
    return of_fields.collapsed(tags, model.fields, *zero)


def score_all(model: FactorizationMachine, users: NDArray[np.int64], labels: Sparse) -> Floats:
    """(n, I) expected labels of all items for each of these n people (keys), of whom `labels` (n, I) are known.

    Those who aren't in the model get the bias and the vector that explain their labels, held as those of the others were.
    """
    rows = model.users.rows(users)
    bias, vectors = (
        np.append(model.user_bias, np.float32(0))[rows],
        np.zeros((len(rows), model.item_vectors.shape[1]), np.float32),
    )
    vectors[rows >= 0] = model.user_vectors[rows[rows >= 0]]
    for person in np.flatnonzero(rows < 0):
        columns, own = labels.row(int(person))
        if len(columns):
            bias[person], vectors[person] = _folded(model, columns, own)
    raw = vectors @ np.asarray(model.item_vectors, np.float32).T
    raw += model.item_bias
    raw += (bias + np.float32(model.base))[:, np.newaxis]
    return link(raw, model.loss)


def _folded(model: FactorizationMachine, columns: ShortRows, labels: Floats) -> tuple[np.float32, Floats]:
    """Bias and vector of somebody new with these labels."""
    vectors = np.asarray(model.item_vectors[columns], np.float32)
    features = np.column_stack((np.ones(len(columns), np.float32), vectors))
    offsets = model.item_bias[columns] + np.float32(model.base)
    bias, vector = (max(l2, 1e-6) for l2 in model.l2_user)
    found = fold_in.solve(features, labels, offsets, np.array([bias, *[vector] * vectors.shape[1]]), model.loss)
    return found[0], found[1:]


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


def _base(examples: Examples, params: FactorizationMachineParams) -> float:
    if params.loss == "bpr":
        return 0.0
    labels = examples.labels.values
    # half an example of each kind: all labels alike must not give an infinite logit, nor none at all a NaN
    mean = (labels.sum(dtype=np.float64) + 0.5) / (len(labels) + 1)
    return float(np.log(mean / (1 - mean))) if params.loss == "logistic" else float(mean)


def _blank(base: float, params: FactorizationMachineParams) -> FactorizationMachine:
    nobody, bias = Vocabulary(np.empty(0, np.int64)), np.empty(0, np.float32)
    vectors, counts = np.empty((0, params.factors), np.float32), np.empty(0, np.int32)
    rows = (nobody, bias, vectors)
    return FactorizationMachine(link_of(params.loss), base, *rows, counts, *rows, counts, *rows)


def _with_rows(model: FactorizationMachine, material: Material) -> FactorizationMachine:
    """A copy with a row, zero if it is new, for each of these users and items."""
    users, items = material.users, material.items
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


def _untagged(rows: Rows, tags: Tags) -> Rows:
    """Those of the rows that have no label of any field."""
    untagged: Rows = rows[np.diff(tags.offsets)[rows] == 0]
    return untagged


def _start_tagged(model: FactorizationMachine, old: Vocabulary, items: Rows, material: Material) -> None:
    """Put new users and items where what is known of their labels puts them."""
    if not material.known:
        return
    users = _split(len(model.users), model.users.rows(old.keys))[1]
    for bias, vectors, tags, rows in (
        (model.user_bias, model.user_vectors, material.user_tags, users),
        (model.item_bias, model.item_vectors, material.item_tags, items),
    ):
        start = of_fields.collapsed(tags, material.known, np.zeros_like(bias), np.zeros_like(vectors))
        bias[rows], vectors[rows] = start[0][rows], start[1][rows]


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
