"""The factorization machine in its two-field form: user bias + item bias + ⟨user, item⟩, learned by gradient steps.

Rendle, "Factorization Machines" (ICDM 2010) with the fields user and item; with squared loss that is the biased matrix
factorisation of Koren, Bell and Volinsky, "Matrix Factorization Techniques for Recommender Systems" (2009).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any, Literal, cast

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from palate.domain import Interactions
from palate.vocabulary import Vocabulary, moved

Loss = Literal["squared", "logistic"]

BATCH = 512
"""Examples whose mean loss makes one entry of the loss curve."""

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
"""For the kernel, which goes through them in random order: half the memory, so a quarter less time where other processes use the
same cache."""


class FactorizationMachineParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the factorization machine learns."""

    loss: Loss = "squared"
    """`squared` for labels that are grades or votes, `logistic` for labels that are yes or no: the score is a probability."""
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


def fit(
    interactions: Interactions, item_sources: ItemSources, params: FactorizationMachineParams, seed: int
) -> tuple[FactorizationMachine, Floats]:
    """Learn from all examples; also return the mean loss of each mini-batch, in order.

    Labels are 0..1; those that are NaN are no examples, but their users and items are in the model all the same: users at
    the prior, items at the mean of their source. The same interactions, parameters and seed give the same bytes.
    """
    random = np.random.default_rng(seed)
    model = _with_rows(_blank(_base(interactions, params), params), interactions)
    examples = _examples(model, interactions)
    learned, unlearned = _split(len(model.items), examples.items)
    _scatter(model, np.unique(examples.users), learned, params, random)
    params = _with_estimates(params, examples)
    losses = _learn(model, examples, params, _falling(params.learning_rate, params.epochs), random)
    model = _with_sources(model, learned, item_sources)
    _start_items(model, unlearned, item_sources, params, random)
    return model, losses


def partial_fit(
    model: FactorizationMachine,
    interactions: Interactions,
    item_sources: ItemSources,
    params: FactorizationMachineParams,
    seed: int,
) -> tuple[FactorizationMachine, Floats]:
    """A model that has learned these as well, and the mean loss of each mini-batch; `model` stays as it is.

    `interactions` are the new ones with a sample of old ones, so that what was learned is kept; rows of which they are a
    small part take short steps. New users start at the prior, new items at the mean of their source with a little
    noise. Loss and number of factors are the model's own.
    """
    random = np.random.default_rng(seed)
    grown = _with_rows(model, interactions)
    fresh = _split(len(grown.items), grown.items.rows(model.items.keys))[1]
    _start_items(grown, fresh, item_sources, params, random)
    examples = _examples(grown, interactions)
    params = _with_estimates(params, examples)
    losses = _learn(grown, examples, params, _falling(params.partial_learning_rate, params.partial_epochs), random)
    return _with_sources(grown, np.flatnonzero(grown.item_examples), item_sources), losses


def _with_estimates(params: FactorizationMachineParams, examples: _Examples) -> FactorizationMachineParams:
    user, item = params.l2_user_bias, params.l2_item_bias
    return msgspec.structs.replace(
        params,
        l2_user_bias=estimated_l2(examples.users, examples.labels) if user is None else user,
        l2_item_bias=estimated_l2(examples.items, examples.labels) if item is None else item,
    )


def estimated_l2(rows: NDArray[np.integer[Any]], labels: Floats) -> float:
    """How many examples the prior of a row's bias is worth: the variance within rows over the variance between them.

    Both by the method of moments of the one-way random effects model (Searle, Casella, McCulloch, Variance Components, 1992).
    Between 0.5 and 1,000, which holds a bias at zero: so much is said where rows differ no more than by chance. 3 where most
    rows have one example and nothing can be told.
    """
    counts = np.bincount(rows).astype(np.float64)
    counts, sums = counts[counts > 0], np.bincount(rows, labels)[counts > 0]
    examples, groups = counts.sum(), len(counts)
    if groups < 2 or examples - groups < FEWEST_REPEATS:
        return UNKNOWN_L2
    between = (sums**2 / counts).sum() - sums.sum() ** 2 / examples
    within = (np.square(labels, dtype=np.float64).sum() - (sums**2 / counts).sum()) / (examples - groups)
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


@dataclass(frozen=True, eq=False)
class _Examples:
    """Rows and labels of N examples, and how each row takes them."""

    users: ShortRows
    items: ShortRows
    labels: Floats
    user_pace: Floats
    """(U,): the length of a row's steps, 1 when all its examples are here, less when most were learned before"""
    item_pace: Floats
    user_share: Floats
    """(U,): the part of a row's regularisation that one of its examples carries out"""
    item_share: Floats


def _examples(model: FactorizationMachine, interactions: Interactions) -> _Examples:
    """The examples among the interactions; what they add to the number that shaped each row is noted in the model."""
    known = ~np.isnan(interactions.label)
    users = model.users.rows(interactions.user[known]).astype(np.int32)
    items = model.items.rows(interactions.item[known]).astype(np.int32)
    user_pace, user_share = _paces(users, model.user_examples)
    item_pace, item_share = _paces(items, model.item_examples)
    labels = interactions.label[known].astype(np.float32)
    return _Examples(users, items, labels, user_pace, item_pace, user_share, item_share)


def _paces(rows: ShortRows, shaped: Counts) -> tuple[Floats, Floats]:
    """Pace and share of each row; the square was measured: it keeps rows still that a small sample would carry away."""
    here = np.bincount(rows, minlength=len(shaped)).astype(np.int32)
    np.maximum(shaped, here, out=shaped)
    share = (1 / np.maximum(shaped, 1)).astype(np.float32)
    return np.square(here * share, dtype=np.float32), share


def _base(interactions: Interactions, params: FactorizationMachineParams) -> float:
    labels = interactions.label[~np.isnan(interactions.label)]
    # half an example of each kind: all labels alike must not give an infinite logit, nor none at all a NaN
    mean = (labels.sum(dtype=np.float64) + 0.5) / (len(labels) + 1)
    return float(np.log(mean / (1 - mean))) if params.loss == "logistic" else float(mean)


def _blank(base: float, params: FactorizationMachineParams) -> FactorizationMachine:
    nobody, bias = Vocabulary(np.empty(0, np.int64)), np.empty(0, np.float32)
    vectors, counts = np.empty((0, params.factors), np.float32), np.empty(0, np.int32)
    rows = (nobody, bias, vectors)
    return FactorizationMachine(params.loss, base, *rows, counts, *rows, counts, *rows)


def _with_rows(model: FactorizationMachine, interactions: Interactions) -> FactorizationMachine:
    """A copy with a row, zero if it is new, for every user and item."""
    users, items = model.users.extended(interactions.user), model.items.extended(interactions.item)
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
    users: ShortRows,
    items: Rows,
    params: FactorizationMachineParams,
    random: np.random.Generator,
) -> None:
    """Give these rows a small random vector: from zero no factor could learn to differ from another."""
    scale = np.float32(params.initial_scale)
    for vectors, rows in ((model.user_vectors, users), (model.item_vectors, items)):
        vectors[rows] = scale * random.standard_normal((len(rows), params.factors), np.float32)


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


def _falling(first: float, epochs: int) -> Floats:
    """A learning rate for each epoch."""
    return np.linspace(first, first / 50, epochs, dtype=np.float32)


def _learn(
    model: FactorizationMachine,
    examples: _Examples,
    params: FactorizationMachineParams,
    rates: Floats,
    random: np.random.Generator,
) -> Floats:
    """Change the model's arrays by one pass per rate over all examples in random order; return the losses."""
    places = np.arange(len(examples.labels), dtype=np.int32)
    losses = np.empty((len(rates), -(-len(places) // BATCH)), np.float32)
    for rate, row in zip(rates, losses, strict=True):
        _sweep(model, examples, params, rate, random.permutation(places), row, _compiled)
    return losses.reshape(-1)


Kernel = Callable[..., None]


def _sweep(
    model: FactorizationMachine,
    examples: _Examples,
    params: FactorizationMachineParams,
    rate: np.float32,
    order: ShortRows,
    losses: Floats,
    kernel: Kernel,
) -> None:
    """Hand one pass to a kernel: `_compiled`, or its twin `_readable`, which does the same in NumPy, a step at a time."""
    assert params.l2_user_bias is not None, "the data have said"
    assert params.l2_item_bias is not None, "the data have said"
    kernel(
        order,
        examples.users,
        examples.items,
        examples.labels,
        np.float32(model.base),
        model.user_bias,
        model.item_bias,
        model.user_vectors,
        model.item_vectors,
        _steps(examples.user_pace, examples.user_share, rate, params.l2_user_bias, params.l2_users),
        _steps(examples.item_pace, examples.item_share, rate, params.l2_item_bias, params.l2_items),
        model.loss == "logistic",
        losses,
    )


def _steps(pace: Floats, share: Floats, rate: np.float32, l2_bias: float, l2_vector: float) -> Floats:
    """(n, 3) for each row: the length of its steps, and what regularisation leaves of its bias and of its vector."""
    lengths = rate * pace
    keeps = [1 / (1 + np.float32(l2) * lengths * share) for l2 in (l2_bias, l2_vector)]
    return np.stack((lengths, *keeps), axis=1)


def _readable(
    order: ShortRows,
    users: ShortRows,
    items: ShortRows,
    labels: Floats,
    base: np.float32,
    user_bias: Floats,
    item_bias: Floats,
    user_vectors: Floats,
    item_vectors: Floats,
    user_steps: Floats,
    item_steps: Floats,
    logistic: bool,
    losses: Floats,
) -> None:
    """One pass of stochastic gradient descent, as it is meant.

    Steps are implicit (Toulis and Airoldi, "Asymptotic and Finite-Sample Properties of Estimators Based on Stochastic
    Gradients", 2017): the error counts as it will be after the step, to first order, and regularisation divides instead of
    subtracting, so that no rate and no l2 overshoots.
    """
    curvature = 0.25 if logistic else 1.0  # the largest second derivative of the loss
    entries = np.empty(len(order), np.float32)
    for place, n in enumerate(order):
        u, i, y = users[n], items[n], labels[n]
        raw = base + user_bias[u] + item_bias[i] + user_vectors[u] @ item_vectors[i]
        expected = 1 / (1 + np.exp(-raw)) if logistic else raw
        error = y - expected
        entries[place] = np.logaddexp(0, raw) - y * raw if logistic else error * error
        user, item = user_vectors[u].copy(), item_vectors[i].copy()
        (user_rate, user_bias_kept, user_kept), (item_rate, item_bias_kept, item_kept) = user_steps[u], item_steps[i]
        error /= 1 + curvature * (user_rate * (1 + item @ item) + item_rate * (1 + user @ user))
        user_bias[u] = (user_bias[u] + user_rate * error) * user_bias_kept
        item_bias[i] = (item_bias[i] + item_rate * error) * item_bias_kept
        user_vectors[u] = (user + user_rate * error * item) * user_kept
        item_vectors[i] = (item + item_rate * error * user) * item_kept
    for batch in range(len(losses)):
        losses[batch] = entries[batch * BATCH : (batch + 1) * BATCH].mean()


def _loops(
    order: ShortRows,
    users: ShortRows,
    items: ShortRows,
    labels: Floats,
    base: np.float32,
    user_bias: Floats,
    item_bias: Floats,
    user_vectors: Floats,
    item_vectors: Floats,
    user_steps: Floats,
    item_steps: Floats,
    logistic: bool,
    losses: Floats,
) -> None:
    """What `_compiled` compiles: `_readable` without temporaries."""
    one = np.float32(1)
    curvature = np.float32(0.25) if logistic else one
    factors = user_vectors.shape[1]
    for batch in range(len(losses)):
        total = 0.0
        first, last = batch * BATCH, min((batch + 1) * BATCH, len(order))
        for n in order[first:last]:
            u, i, y = users[n], items[n], labels[n]
            raw = base + user_bias[u] + item_bias[i]
            user_square = item_square = one
            for f in range(factors):
                user, item = user_vectors[u, f], item_vectors[i, f]
                raw += user * item
                user_square += user * user
                item_square += item * item
            if logistic:
                tail = np.exp(-abs(raw))
                error = y - (one if raw >= 0 else tail) / (one + tail)
                total += max(raw, np.float32(0)) + np.log(one + tail) - y * raw
            else:
                error = y - raw
                total += error * error
            user_rate, item_rate = user_steps[u, 0], item_steps[i, 0]
            error /= one + curvature * (user_rate * item_square + item_rate * user_square)
            user_step, item_step = user_rate * error, item_rate * error
            user_bias[u] = (user_bias[u] + user_step) * user_steps[u, 1]
            item_bias[i] = (item_bias[i] + item_step) * item_steps[i, 1]
            user_kept, item_kept = user_steps[u, 2], item_steps[i, 2]
            for f in range(factors):
                user, item = user_vectors[u, f], item_vectors[i, f]
                user_vectors[u, f] = (user + user_step * item) * user_kept
                item_vectors[i, f] = (item + item_step * user) * item_kept
        losses[batch] = total / (last - first)


def _compiled(*arguments: Any) -> None:
    """`_loops` in machine code, kept on disk between processes where there is a folder for it."""
    try:
        _machine_code(True)(*arguments)
    except OSError:  # the folder of the compiled code can't be written; nothing has run yet
        _machine_code(False)(*arguments)


@cache
def _machine_code(keep: bool) -> Kernel:
    from numba import njit  # here: most processes only score, and numba takes half a second and 60 MB

    try:
        return cast(Kernel, njit(_loops, cache=keep, nogil=True, fastmath={"reassoc", "contract", "nsz"}))
    except RuntimeError:  # numba found no folder at all that it may write
        return _machine_code(False)
