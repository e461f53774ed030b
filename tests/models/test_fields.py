"""Fields of the factorization machine beyond user and item: the kernel's twin, collapsing, and what they teach."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import msgspec
import numpy as np
import pytest
from checks import interactions

from palate import metrics
from palate.domain import Interactions
from palate.matrix import sparse
from palate.models import factorization_machine as fm
from palate.models import fields as of_fields
from palate.models import fm_kernels, fm_learning, fm_stored
from palate.models.factorization_machine import NO_SOURCES, FactorizationMachineParams, ItemSources
from palate.models.fields import Field, Tags
from palate.vocabulary import Vocabulary

PARAMS = FactorizationMachineParams(
    factors=7, l2_users=0.5, l2_items=0.5, l2_fields=0.5, initial_scale=0.1, learning_rate=0.4
)
"""7 factors fill one register, which compiles fastest."""


def table(random: np.random.Generator, owners: int, labels: int) -> Tags:
    """Up to three labels for each owner."""
    counts = random.integers(0, 4, owners)
    rows = np.concatenate([random.choice(labels, count, replace=False) for count in counts])
    shares = np.repeat(1 / np.sqrt(np.maximum(counts, 1)), counts)
    return Tags(np.concatenate(([0], np.cumsum(counts))), rows.astype(np.int32), shares.astype(np.float32))


@pytest.mark.parametrize("adagrad", [False, True])
@pytest.mark.parametrize("loss", [fm_kernels.SQUARED, fm_kernels.LOGISTIC, fm_kernels.PAIRWISE])
def test_the_compiled_kernel_and_its_readable_twin_agree(loss: int, adagrad: bool) -> None:
    random, (users, items, labels) = np.random.default_rng(0), (20, 30, 12)
    pairs = np.sort(random.choice(users * items, 250, replace=False))
    cells = sparse(pairs // items, pairs % items, random.integers(0, 2, 250).astype(np.float32), (users, items))
    tags = [table(random, owners, labels) for owners in (users, items, 250)]
    weights = random.uniform(0, 2, 250).astype(np.float32)
    start = random.normal(0, 0.3, (users + items + labels, 8)).astype(np.float32)
    steps = random.uniform((0.05, 0.9, 0.9, 0), (0.2, 1, 1, 0.1), (len(start), 4)).astype(np.float32)
    results = []
    for learn in (fm_kernels.fields(8, adagrad), partial(fm_kernels.readable_fields, adagrad=adagrad)):
        rows, own_steps, touched, losses = (
            start.copy(),
            steps.copy(),
            np.zeros(len(start), np.float32),
            np.zeros(4, np.float32),
        )
        plain = [(one.offsets, one.rows, one.shares) for one in tags]
        count = learn(
            np.arange(3, users, dtype=np.int32), cells.offsets, cells.columns, cells.values, weights, (2, items),
            (1_000_000_007, 12_345), np.float32(0.3), rows, own_steps, (users, users + items), *plain, 12, touched,
            loss, losses,
        )  # fmt: skip
        results.append([rows, own_steps, touched, losses, np.array(count)])
    for compiled, readable in zip(*results, strict=True):
        np.testing.assert_allclose(compiled, readable, rtol=1e-4, atol=1e-5)
    assert np.abs(results[0][0] - start).max() > 0.1


def test_without_labels_it_is_the_machine_of_two_fields() -> None:
    random = np.random.default_rng(1)
    n = 900
    pairs = random.choice(40 * 60, n, replace=False)
    data = interactions(pairs // 60, pairs % 60, random.integers(0, 2, n))
    empty = Field("nothing", "item", np.zeros(0, np.int64), np.zeros(0, np.int64))
    plain, stacked = (fm.fit(data, NO_SOURCES, PARAMS, 0, fields=fields)[0] for fields in ((), (empty,)))
    np.testing.assert_allclose(stacked.item_vectors, plain.item_vectors, atol=1e-3)
    np.testing.assert_allclose(stacked.user_bias, plain.user_bias, atol=1e-3)


def labelled(seed: int) -> tuple[Interactions, tuple[Field, ...]]:
    """60 people and 80 items with fields of all three sides; liked are those of one's own kind, and at each hour another."""
    random = np.random.default_rng(seed)
    pairs = np.sort(np.random.default_rng(9).choice(60 * 80, 3000, replace=False))
    user, item, hour = pairs // 80, pairs % 80 + 1000, random.integers(0, 4, 3000)
    liked = (user % 3 == item % 3) | (item % 3 == hour)
    items = np.arange(80) + 1000
    fields = (
        Field("country", "user", np.arange(60), np.arange(60) % 3 + 500),
        Field("kind", "item", np.concatenate((items, items[::2])), np.concatenate((items % 3, items[::2] % 7 + 10))),
        Field("hour", "event", np.arange(3000), hour),
    )
    return interactions(user, item, liked), fields


def test_a_model_collapses_to_one_vector_and_one_bias_a_side() -> None:
    data, fields = labelled(0)
    model, _ = fm.fit(data, NO_SOURCES, msgspec.structs.replace(PARAMS, epochs=5), 0, fields=fields)
    tags = [
        of_fields.tags(model.fields, fields, "user", model.users, len(model.users)),
        of_fields.tags(model.fields, fields, "item", model.items, len(model.items)),
        of_fields.tags(model.fields, fields, "event", None, len(data)),
    ]
    users = of_fields.own(tags[0], model.fields, model.user_bias, model.user_vectors)
    items = of_fields.own(tags[1], model.fields, model.item_bias, model.item_vectors)
    labels = of_fields.stacked(model.fields, 7)
    rows = np.column_stack([np.concatenate(parts) for parts in zip(users, items, labels[:2], strict=True)][::-1])
    found = fm.score(model, data.user, data.item, {"hour": fields[2].labels})
    plain = [(one.offsets, one.rows, one.shares) for one in tags]
    for n in range(0, 3000, 250):
        u, i = int(model.users.rows(data.user[n])), int(model.items.rows(data.item[n]))
        take = fm_kernels._taken(rows, u, i, n, (60, 140), *plain)
        raw = model.base + fm_kernels._machine(rows, *take)[0]
        assert found[n] == pytest.approx(float(fm.link(np.array(raw, np.float32), "squared")), abs=1e-5)


def test_labels_teach_of_people_and_items_that_nobody_has_met() -> None:
    data, fields = labelled(0)
    old = (data.user < 50) & (data.item < 1070)
    part = Interactions(*(getattr(data, name)[old] for name in ("user", "item", "label", "weight", "time")))
    hours = dataclasses.replace(fields[2], owners=np.arange(int(old.sum())), labels=fields[2].labels[old])
    model, _ = fm.fit(part, NO_SOURCES, PARAMS, 0, fields=(*fields[:2], hours))
    new = Vocabulary(np.arange(1070, 1080))
    bias, vectors = fm.start_of_items(model, fields, new)
    likers = model.users.rows(np.arange(50))
    raw = model.base + model.user_bias[likers][:, None] + bias + model.user_vectors[likers] @ vectors.T
    assert metrics.auc((np.arange(50)[:, None] % 3 == new.keys % 3).ravel(), raw.ravel()) > 0.95
    unknown = Field("kind", "item", np.array([1070]), np.array([777]))
    assert np.abs(fm.start_of_items(model, (unknown,), new)[1]).max() == 0


def test_pairs_of_labels_of_one_item_count() -> None:
    """Good is who has exactly one of two labels: no sum of single effects says so."""
    random = np.random.default_rng(3)
    user, item = (part.ravel() for part in np.meshgrid(np.arange(30), np.arange(40), indexing="ij"))
    one, two = random.integers(0, 2, 40), random.integers(0, 2, 40)
    fields = (Field("one", "item", np.arange(40), one), Field("two", "item", np.arange(40), two))
    seen = item < 30
    data = interactions(user[seen], item[seen], (one ^ two)[item[seen]])
    params = msgspec.structs.replace(PARAMS, l2_items=1e4, l2_item_bias=1e4, initial_scale=0.3)
    model, _ = fm.fit(data, NO_SOURCES, params, 0, fields=fields)
    bias, _ = fm.start_of_items(model, fields, Vocabulary(np.arange(30, 40)))
    good = (one ^ two)[30:] == 1
    assert bias[good].min() > 0.5 + bias[~good].max()


def test_the_moment_of_an_event_counts() -> None:
    data, fields = labelled(0)
    model, _ = fm.fit(data, NO_SOURCES, PARAMS, 0, fields=fields)
    with_hour = fm.score(model, data.user, data.item, {"hour": fields[2].labels})
    assert np.mean((with_hour - data.label) ** 2) < 0.5 * np.mean(
        (fm.score(model, data.user, data.item) - data.label) ** 2
    )
    nobody = fm.score(model, np.array([-1]), np.array([-1]), {"hour": np.array([99])})
    assert nobody[0] == pytest.approx(model.base)


def test_l2_holds_each_field_by_itself() -> None:
    data, fields = labelled(0)
    free, held = (
        fm.fit(data, NO_SOURCES, msgspec.structs.replace(PARAMS, epochs=5, l2_by_field=l2), 0, fields=fields)[0]
        for l2 in ({}, {"kind": 1e9})
    )
    sizes = {field.name: float(np.abs(field.vectors).max()) for field in held.fields}
    assert sizes["kind"] < 1e-4 < 0.02 < min(sizes["country"], sizes["hour"])
    assert float(np.abs(free.fields[1].vectors).max()) > 0.02


def test_several_labels_of_one_field_have_the_size_of_one() -> None:
    field = Field("kind", "item", np.array([5, 5, 5, 5, 9, 7, 7]), np.array([1, 2, 3, 4, 2, 8, 8]))
    known = of_fields.extended((), (field,), 2)
    tags = of_fields.tags(known, (field,), "item", Vocabulary(np.array([3, 5, 9])), 3)
    assert np.diff(tags.offsets).tolist() == [0, 4, 1]
    assert tags.shares.tolist() == [0.5, 0.5, 0.5, 0.5, 1]
    assert known[0].labels.keys[tags.rows].tolist() == [1, 2, 3, 4, 2]
    turned = of_fields.placed(tags, np.array([2, 0, 1]))
    assert np.diff(turned.offsets).tolist() == [4, 1, 0]


@pytest.mark.parametrize("loss", ["logistic", "bpr"])
def test_the_number_of_threads_changes_nothing(loss: Any) -> None:
    data, fields = labelled(0)
    contents = []
    for threads in (1, 3):
        params = msgspec.structs.replace(PARAMS, loss=loss, epochs=2, blocks=3, threads=threads)
        model, losses = fm.fit(data, NO_SOURCES, params, 0, fields=fields)
        contents.append((model.item_vectors.tobytes(), model.fields[1].vectors.tobytes(), losses.tobytes()))
    assert contents[0] == contents[1]


@pytest.mark.parametrize("blocks", [3, 8])
def test_blocks_learn_labels_as_well(blocks: int) -> None:
    data, fields = labelled(0)
    model, _ = fm.fit(data, NO_SOURCES, msgspec.structs.replace(PARAMS, blocks=blocks), 0, fields=fields)
    found = fm.score(model, data.user, data.item, {"hour": fields[2].labels})
    assert metrics.auc(data.label, found) > 0.95


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad"])
def test_comparing_items_orders_them(optimizer: Any) -> None:
    """Of 40 items most people like those of their camp; the few of item 0 are liked by all, and nothing else is known."""
    random = np.random.default_rng(4)
    user, item = (part.ravel() for part in np.meshgrid(np.arange(50), np.arange(40), indexing="ij"))
    likes = ((user % 2 == item % 2) & (random.random(2000) < 0.6)) | (item == 0)
    learned = likes & (random.random(2000) < 0.7)
    data = interactions(user[learned], item[learned], np.ones(int(learned.sum())))
    params = msgspec.structs.replace(PARAMS, loss="bpr", optimizer=optimizer, epochs=60)
    model, losses = fm.fit(data, NO_SOURCES, params, 0)
    assert model.loss == "logistic"
    assert losses[-1] < 0.8 * losses[0]
    asked = ~learned
    assert metrics.auc(likes[asked], fm.score(model, user, item)[asked]) > 0.8
    assert np.argmax(model.item_bias) == 0


def test_early_stopping_looks_at_events_too() -> None:
    data, fields = labelled(0)
    shuffled = dataclasses.replace(data, time=np.random.default_rng(7).permutation(3000))
    params = msgspec.structs.replace(PARAMS, epochs=12, patience=2)
    model, losses = fm.fit(shuffled, NO_SOURCES, params, 0, fields=fields)
    assert 3 <= model.epochs <= 12
    assert len(losses) == model.epochs * 6


def test_a_partial_fit_learns_new_labels_and_starts_new_items_at_theirs() -> None:
    data, fields = labelled(0)
    model, _ = fm.fit(data, NO_SOURCES, PARAMS, 0, fields=fields)
    kind = Field("kind", "item", np.array([2000, 2001, 1000]), np.array([1, 55, 1000 % 3]))
    new = interactions([1, 4, 1], [2000, 2001, 1000], [np.nan, 1, 1])
    grown, _ = fm.partial_fit(model, new, NO_SOURCES, PARAMS, 1, fields=(kind,))
    before = {field.name: field for field in model.fields}
    after = {field.name: field for field in grown.fields}
    assert after["kind"].labels.keys.tolist() == [*before["kind"].labels.keys.tolist(), 55]
    assert after["country"].vectors.tobytes() == before["country"].vectors.tobytes()
    start, _ = fm.partial_fit(model, interactions([1], [2000], [np.nan]), NO_SOURCES, PARAMS, 1, fields=(kind,))
    row = before["kind"].labels.rows(1)
    np.testing.assert_allclose(start.item_vectors[start.items.rows(2000)], before["kind"].vectors[row], atol=1e-6)
    still = model.items.rows(1003), grown.items.rows(1003)
    assert grown.item_vectors[still[1]].tobytes() == model.item_vectors[still[0]].tobytes()


def test_the_arrays_of_a_snapshot_give_the_fields_back() -> None:
    data, fields = labelled(0)
    model, _ = fm.fit(data, NO_SOURCES, msgspec.structs.replace(PARAMS, epochs=3, least_steps=0), 0, fields=fields)
    again = fm_stored.from_arrays(fm_stored.to_arrays(model), model.loss, model.base, fm_stored.header(model))
    hours = {"hour": fields[2].labels}
    expected = fm.score(model, data.user, data.item, hours)
    np.testing.assert_allclose(fm.score(again, data.user, data.item, hours), expected, atol=5e-3)
    assert [(field.name, field.side) for field in again.fields] == [
        ("country", "user"),
        ("kind", "item"),
        ("hour", "event"),
    ]
    assert (again.epochs, again.l2_user) == (3, model.l2_user)


def test_people_who_came_later_are_scored_by_their_labels() -> None:
    random = np.random.default_rng(5)
    pairs = random.choice(60 * 40, 1800, replace=False)
    user, item = pairs // 40, pairs % 40
    data = interactions(user, item, user % 2 == item % 2)
    model, _ = fm.fit(data, ItemSources(np.arange(40), np.arange(40)), PARAMS, 0)
    known = sparse(np.array([1, 1, 1, 1]), np.array([1, 2, 3, 4]), np.array([1, 0, 1, 0], np.float32), (3, 40))
    found = fm.score_all(model, np.array([7, 999, 998]), known)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], fm.score(model, np.full(40, 7), model.items.keys), atol=1e-6)
    assert metrics.auc(np.arange(40) % 2 == 1, found[1]) > 0.95
    np.testing.assert_allclose(found[2], fm.score(model, np.full(40, 998), model.items.keys), atol=1e-6)
    assert fm_learning.cuts(np.zeros(0), 3).tolist() == [0, 0, 0, 0]
