"""Metrics of whole evaluations with models whose answers are known, and what must hold whatever the data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from palate import metrics
from palate.domain import Interactions
from palate.errors import PalateError
from palate.evaluation import evaluating, measuring
from palate.evaluation.evaluating import Conditions, Outcome, Plan
from palate.evaluation.measuring import Metric, wanted
from palate.evaluation.protocols import Split
from palate.models import registry
from palate.models.material import Known, Material
from palate.models.registry import Entry

EVERY = "hr@2,recall@2,precision@2,ndcg@2,map@2,mrr@2,mrr,auc,visible,coverage@2"


class NoParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of a model that learns nothing."""


Scores = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[Any]]


def serve(patch: pytest.MonkeyPatch, score: Scores, name: str = "oracle") -> None:
    """Put a model into the table whose scores are a function of user keys (n, 1) and item keys (1, I)."""

    def score_all(material: Material, known: Known) -> NDArray[np.float32]:
        return np.asarray(score(known.users[:, None], material.items.keys[None, :]), np.float32)

    def fit(material: Material, params: NoParams, seed: int) -> Material:
        return material

    patch.setitem(evaluating.EXPECTS_LABELS, "fm", lambda model: True)
    nothing = Entry(NoParams, fit, score_all, lambda model: {}, lambda model: {}, lambda arrays, header, items: None)
    patch.setitem(registry.MODELS, name, nothing)


@pytest.fixture
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def interactions(rows: list[tuple[int, int]], labels: list[float] | None = None) -> Interactions:
    user, item = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    label = np.array(labels or [1.0] * len(rows), np.float32)
    weight = (label > 0.5).astype(np.float32)
    return Interactions(user, item, label, weight, np.zeros(len(rows), np.int64))


def cut(train: list[tuple[int, int]], test: list[tuple[int, int]], labels: list[float] | None = None) -> Split:
    known, asked = interactions(train), interactions(test, labels)
    return Split(known, known, asked, np.ones(len(asked)), "given", np.empty(0, bool))


def evaluated(split: Split, names: str = EVERY, model: str = "oracle", **conditions: object) -> Outcome:
    plan = Plan(model, registry.entry(model).params())
    return evaluating.evaluate(split, plan, Conditions(wanted(names), **conditions), [1])  # type: ignore[arg-type]


# users 1, 2, 3; items 0 … 4, all known through user 9; user 1 has item 0
TRAIN = [(1, 0), *((9, item) for item in range(5))]
TEST = [(1, 2), (1, 4), (2, 1), (3, 0), (3, 3)]
ORDER = {1: [9, 0, 8, 7, 6], 2: [5, 4, 3, 2, 1], 3: [5, 1, 2, 4, 3]}
"""Scores. Ranks: user 1 has 2 first and 4 third of 4; user 2 has 1 second of 5; user 3 has 0 first and 3 second."""


def known_answers(users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float32]:
    return np.array([ORDER[user] for user in users[:, 0].tolist()])


def test_every_metric_of_known_rankings(patch: pytest.MonkeyPatch) -> None:
    serve(patch, known_answers)
    found = {name: figure.value for name, figure in evaluated(cut(TRAIN, TEST)).figures.items()}
    second = 1 / math.log2(3)
    assert found == pytest.approx(
        {
            "hr@2": 1,
            "recall@2": (0.5 + 1 + 1) / 3,
            "precision@2": (0.5 + 0.5 + 1) / 3,
            "ndcg@2": (1 / (1 + second) + second + 1) / 3,
            "map@2": (0.5 + 0.5 + 1) / 3,
            "mrr@2": (1 + 0.5 + 1) / 3,
            "mrr": (1 + 0.5 + 1) / 3,
            "auc": (3 / 4 + 3 / 4 + 1) / 3,
            "visible": np.mean([(2 + 1 + 2) / k for k in (5, 6, 7)]) / 3,
            "coverage@2": 4 / 5,  # 2, 3 | 0, 1 | 0, 3
        }
    )


def test_metrics_of_labels_by_hand(patch: pytest.MonkeyPatch) -> None:
    serve(patch, lambda users, items: np.where(items == 0, 0.8, 0.4) + 0 * users, "fm")
    split = cut([(9, 0), (9, 1), (9, 2)], [(1, 0), (1, 1), (2, 0), (2, 2)], [1.0, 0.0, 0.0, 1.0])
    found = evaluated(split, "rmse,log-loss,calibration,auc", "fm", unit=4.0).figures
    assert found["rmse"].value == pytest.approx(4 * math.sqrt((0.04 + 0.16 + 0.64 + 0.36) / 4))
    losses = [-math.log(0.8), -math.log(0.6), -math.log(0.2), -math.log(0.4)]
    assert found["log-loss"].value == pytest.approx(np.mean(losses), rel=1e-6)
    assert found["calibration"].value == pytest.approx((abs(1 - 1.6) + abs(1 - 0.8)) / 4, rel=1e-6)
    assert found["auc"].value == pytest.approx((1 + 0) / 2)


def test_labels_of_unknown_items_are_guessed_at_the_mean(patch: pytest.MonkeyPatch) -> None:
    serve(patch, lambda users, items: np.zeros((len(users), items.shape[1])), "fm")
    found = evaluated(cut([(9, 0)], [(1, 77)]), "rmse,hr@1", "fm").figures
    assert (found["rmse"].value, found["hr@1"].value) == (0, 0)


def test_a_model_without_expected_labels_has_no_error(patch: pytest.MonkeyPatch) -> None:
    serve(patch, known_answers)
    outcome = evaluated(cut(TRAIN, TEST), "rmse,hr@2")
    assert outcome.figures["rmse"].to_json() == {"value": None, "low": None, "high": None}
    assert any("rmse have no answer" in sentence for sentence in outcome.stated)


def test_votes_of_one_kind_alone_leave_the_auc_to_the_ranking(patch: pytest.MonkeyPatch) -> None:
    serve(patch, known_answers)
    outcome = evaluated(cut(TRAIN, [(1, 2), (2, 1)], [1.0, 0.6]), "auc")
    assert outcome.figures["auc"].value == pytest.approx((1 + 3 / 4) / 2)


def test_what_people_had_is_not_asked_for_again(patch: pytest.MonkeyPatch) -> None:
    serve(patch, known_answers)
    outcome = evaluated(cut(TRAIN, [(1, 0), *TEST]))
    assert outcome.figures["recall@2"].value == pytest.approx((0.5 + 1 + 1) / 3)
    assert any("and 1 test items with it" in sentence for sentence in outcome.stated)
    kept = evaluated(cut(TRAIN, [(1, 0)]), "hr@1", leave_out_seen=False)
    assert kept.figures["hr@1"].value == 1
    with pytest.raises(PalateError, match="Nobody in the test"):
        evaluated(cut(TRAIN, [(1, 0)]), "hr@1")


def test_unknown_items_and_new_people_are_stated(patch: pytest.MonkeyPatch) -> None:
    serve(patch, lambda users, items: np.zeros((len(users), items.shape[1])))
    outcome = evaluated(cut(TRAIN, [(1, 2), (2, 77)]), "hr@2")
    assert any(sentence.startswith("1 of 2 asked pairs are of items outside") for sentence in outcome.stated)
    assert any(sentence.startswith("1 of 2 users are new") for sentence in outcome.stated)
    assert outcome.users == 2


def test_worth_counts_in_ndcg_and_recall(patch: pytest.MonkeyPatch) -> None:
    serve(patch, lambda users, items: -items + 0.0 * users)
    split = cut([(9, item) for item in range(4)], [(1, 0), (1, 3)])
    split = Split(split.train, split.known, split.test, np.array([1.0, 4.0]), "given", split.learned)
    found = evaluated(split, "recall@2,ndcg@2,hr@2,precision@2").figures
    assert found["recall@2"].value == pytest.approx(1 / 5)
    assert found["ndcg@2"].value == pytest.approx(1 / (4 + 1 / math.log2(3)))
    assert (found["hr@2"].value, found["precision@2"].value) == (1, 0.5)


def test_several_seeds_give_their_mean_and_an_interval_of_it(patch: pytest.MonkeyPatch) -> None:
    serve(patch, known_answers)
    plan = Plan("oracle", NoParams())
    outcome = evaluating.evaluate(cut(TRAIN, TEST), plan, Conditions(wanted("hr@1")), [1, 2, 3])
    assert outcome.figures["hr@1"].to_json() == pytest.approx({"value": 2 / 3, "low": 2 / 3, "high": 2 / 3})
    values = [0.7, 0.72, 0.74]
    users = np.arange(100)
    parts = [np.column_stack((np.full(100, value), np.ones(100))) for value in values]
    runs = [
        measuring.Measured(users, users >= 0, {"x": one}, {"x": metrics.mean_of}, {}, np.empty((0, 1), np.int32))
        for one in parts
    ]
    found = measuring.over_seeds(runs)["x"]
    assert found.low == pytest.approx(0.72 - 4.3027 * 0.02 / math.sqrt(3), abs=1e-6)


def test_a_comparison_is_paired_by_users(patch: pytest.MonkeyPatch) -> None:
    users = 200
    random = np.random.default_rng(0)
    train = [(9999, item) for item in range(10)]
    test = [(user, int(item)) for user, item in enumerate(random.integers(0, 10, users))]
    noise = {user: random.normal(size=10) for user in range(users)}
    wanted_item = dict(test)

    def base(users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[Any]:
        return np.array([noise[user] for user in users[:, 0].tolist()])

    def better(users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[Any]:
        found: NDArray[Any] = base(users, items) + 0.05 * (
            items == np.array([[wanted_item[user]] for user in users[:, 0].tolist()])
        )
        return found

    serve(patch, better)
    serve(patch, base, "other")
    one, two = (evaluated(cut(train, test), "mrr,coverage@3", model) for model in ("oracle", "other"))
    found = measuring.differences(one.measured, two.measured, np.random.default_rng(0))["mrr"]
    assert found.value == pytest.approx(one.figures["mrr"].value - two.figures["mrr"].value)  # type: ignore[operator]
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low < found.value < found.high  # type: ignore[operator]
    own = one.figures["mrr"]
    assert found.high - found.low < (own.high - own.low) / 3  # type: ignore[operator]
    assert measuring.differences(one.measured, two.measured, random)["coverage@3"].low is None


# --- whatever the data ----------------------------------------------------------------------------------------------------


@st.composite
def splits(draw: st.DrawFn) -> Split:
    """Some people of 12 items, each with some of them asked for; all items are known through user 99."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    people = draw(st.integers(1, 8))
    rows = [(user, random.permutation(12)[: random.integers(1, 8)].tolist()) for user in range(people)]
    test = [(user, item) for user, items in rows for item in items[: random.integers(1, len(items) + 1)]]
    train = [(user, item) for user, items in rows for item in items if (user, item) not in test]
    return cut(sorted([*train, *((99, item) for item in range(12))]), sorted(test))


@given(splits())
def test_a_perfect_ranking_is_1_everywhere(split: Split) -> None:
    wants = set(zip(split.test.user.tolist(), split.test.item.tolist(), strict=True))
    with pytest.MonkeyPatch.context() as patch:
        serve(patch, lambda users, items: np.array([[(u, i) in wants for i in items[0]] for u in users[:, 0].tolist()]))
        found = evaluated(split, "hr@3,ndcg@3,map@3,mrr,auc,recall@12").figures
    assert all(figure.value in (None, pytest.approx(1)) for figure in found.values())
    assert found["ndcg@3"].value == pytest.approx(1)


@given(splits(), st.integers(0, 1000))
def test_the_order_and_the_names_of_users_change_nothing(split: Split, seed: int) -> None:
    name = np.random.default_rng(seed).permutation(100)
    table = np.random.default_rng(seed).integers(0, 4, (100, 12))
    old = np.argsort(name)

    def renamed(part: Interactions) -> Interactions:
        order = np.lexsort((part.item, name[part.user]))
        return Interactions(
            name[part.user][order], part.item[order], part.label[order], part.weight[order], part.time[order]
        )

    other = Split(renamed(split.train), renamed(split.known), renamed(split.test), split.gains, "given", split.learned)
    with pytest.MonkeyPatch.context() as patch:
        serve(patch, lambda users, items: table[users, items])
        first = evaluated(split).figures
        serve(patch, lambda users, items: table[old[users], items])
        second = evaluated(other).figures
    assert {key: figure.value for key, figure in first.items()} == pytest.approx(
        {key: figure.value for key, figure in second.items()}
    )


def test_a_ranking_by_chance_has_an_auc_of_a_half(patch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    test = [(user, int(item)) for user in range(400) for item in sorted(random.choice(60, 3, replace=False))]
    table = random.normal(size=(400, 60))
    serve(patch, lambda users, items: table[users, items])
    found = evaluated(cut([(999, item) for item in range(60)], test), "auc").figures["auc"]
    assert found.value == pytest.approx(0.5, abs=0.02)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.5 < found.high


# --- names ----------------------------------------------------------------------------------------------------------------


def test_names_of_metrics() -> None:
    assert wanted("hr@10, ndcg@5 auc,hr@10,LogLoss") == (
        Metric("hr", 10),
        Metric("ndcg", 5),
        Metric("auc"),
        Metric("log-loss"),
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hr@0", "no metric hr@0"),
        ("hits@x", "choose among hr@K"),
        ("hr", "hr@10"),
        ("auc@5", "without @5"),
        ("", "at least one"),
    ],
)
def test_a_metric_that_is_none_is_told_in_one_sentence(text: str, words: str) -> None:
    with pytest.raises(PalateError, match=words):
        wanted(text)
