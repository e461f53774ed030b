"""Implicit ALS on Spark learns what it learns on one machine, goes on after its driver died, and finds what is new."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from palate import matrix, snapshots
from palate.domain import Interactions
from palate.models import implicit_als, top_lists
from palate.models.implicit_als import ImplicitALS, ImplicitALSParams
from palate.models.material import Material, material
from palate.spark import als, blocks, learning, lists
from palate.vocabulary import Vocabulary, vocabulary

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

pytestmark = pytest.mark.spark
PARAMS = ImplicitALSParams(factors=12, epochs=3, solver="exact", threads=1)
NOW = datetime(2026, 5, 1, tzinfo=UTC)


def interactions(seed: int = 1, users: int = 90, items: int = 40, cells: int = 1500) -> Interactions:
    """Some people and items have far more than others; some cells are refusals, some nothing."""
    random = np.random.default_rng(seed)
    user = (random.random(cells) ** 2 * users).astype(np.int64) * 7 + 5
    item = (random.random(cells) ** 3 * items).astype(np.int64) * 3 + 1000
    code = np.unique(user * 1_000_000 + item)
    weight = random.integers(1, 4, len(code)).astype(np.float32)
    weight[::40], weight[5::30] = 0, -1
    none, zeros = np.full(len(code), np.nan, np.float32), np.zeros(len(code), np.int64)
    return Interactions(user=code // 1_000_000, item=code % 1_000_000, label=none, weight=weight, time=zeros)


def only(of: Interactions, kept: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Interactions:
    return Interactions(of.user[kept], of.item[kept], of.label[kept], of.weight[kept], of.time[kept])


def table(spark: SparkSession, of: Interactions) -> DataFrame:
    return learning.table_of(spark, material(of, NOW))


def scores(model: ImplicitALS, of: Material) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    users, items = model.users.rows(of.users.keys), model.items.rows(of.items.keys)
    return np.asarray(model.user_vectors[users] @ model.item_vectors[items].T, np.float32)


def test_the_same_is_learned_as_on_one_machine_also_when_the_driver_died(spark: SparkSession, folder: str) -> None:
    given = material(interactions(), NOW)
    local = implicit_als.fit(given, PARAMS, 7)
    told: list[int] = []

    def die_in_the_second(epoch: int, _loss: float) -> None:
        told.append(epoch)
        if len(told) == 2:
            raise KeyboardInterrupt

    def fit() -> ImplicitALS:
        known = {"users": given.users, "items": given.items}
        return als.fit(
            spark,
            table(spark, given.interactions),
            PARAMS,
            7,
            folder=folder,
            parts=3,
            checkpoint_seconds=0,
            on_epoch=die_in_the_second,
            **known,
        )

    with pytest.raises(KeyboardInterrupt):
        fit()
    model = fit()
    assert told == [1, 2, 3]
    np.testing.assert_allclose(model.losses, local.losses, rtol=1e-6)
    np.testing.assert_allclose(scores(model, given), scores(local, given), atol=1e-5)
    assert (model.user_examples.tolist(), model.item_examples.tolist()) == (
        local.user_examples.tolist(),
        local.item_examples.tolist(),
    )
    assert model.params == local.params
    assert list(Path(folder.removeprefix("file://")).iterdir()) == []


def test_new_items_find_their_place_by_people_who_stay_and_new_people_by_items(spark: SparkSession) -> None:
    every = interactions()
    fresh_item, fresh_user = every.item >= 1075, every.user >= 500
    model = implicit_als.fit(material(only(every, ~fresh_item & ~fresh_user), NOW), PARAMS, 7)
    for kind, fresh in (("item", fresh_item & ~fresh_user), ("user", fresh_user & ~fresh_item)):
        told = only(every, fresh)
        grown = als.update(spark, model, table(spark, told), "item" if kind == "item" else "user", parts=2)
        keys = vocabulary(told.item if kind == "item" else told.user)
        np.testing.assert_allclose(_vectors(grown, kind, keys), _folded(model, told, kind, keys), atol=1e-5)
        known = model.users if kind == "user" else model.items
        assert (_vectors(grown, kind, known) == _vectors(model, kind, known)).all()
    assert len(grown.users) == len(model.users) + len(keys)


def _vectors(model: ImplicitALS, kind: str, of: Vocabulary) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    users = kind == "user"
    rows = (model.users if users else model.items).rows(of.keys)
    return np.asarray((model.user_vectors if users else model.item_vectors)[rows], np.float32)


def _folded(
    model: ImplicitALS, of: Interactions, kind: str, keys: Vocabulary
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    weights = np.where(of.weight == 0, np.float32(np.nan), of.weight)
    if kind == "user":
        return implicit_als.fold_in_users(model, matrix.of_interactions(of, weights, keys, model.items))
    cells = matrix.of_interactions(of, weights, model.users, keys)
    return implicit_als.fold_in_items(model, matrix.transposed(cells))


def test_rows_that_the_driver_holds_are_solved_as_on_one_machine(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "MOST_CELLS", 100)
    given = material(interactions(), NOW)
    model = implicit_als.fit(given, PARAMS, 7)
    cells = matrix.of_interactions(given.interactions, given.interactions.weight, given.users, given.items)
    np.testing.assert_array_equal(als.fold_rows(spark, model, cells, "user"), implicit_als.fold_in_users(model, cells))
    turned = matrix.transposed(cells)
    np.testing.assert_array_equal(
        als.fold_rows(spark, model, turned, "item"), implicit_als.fold_in_items(model, turned)
    )


def test_a_weight_too_large_is_a_sentence(spark: SparkSession, folder: str) -> None:
    from palate.errors import SettingsError
    from palate.spark.sessions import one_sentence

    steep = ImplicitALSParams(factors=4, epochs=1, power=10, alpha=1e38, unobserved_weight=0.1)
    with pytest.raises(SettingsError, match=r"^A weight is too large"), one_sentence("local"):
        als.fit(spark, table(spark, interactions()), steep, 1, folder=folder)


def test_the_command_publishes_a_snapshot_that_is_served(spark: SparkSession, data: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from palate.cli import app
    from palate.models import stored

    rows = [f"u{n % 23},i{n * 7 % 31},like,1,{1_700_000_000_000 + n * 60_000}" for n in range(400)]
    (tmp_path / "events.csv").write_text("\n".join(["user,item,type,value,time", *rows]))
    (tmp_path / "palate.toml").write_text(
        '[feed]\nmodel = "ials"\n[train]\nmodels = ["ials"]\n[implicit_als]\nepochs = 2\n'
    )
    common = ["--data", str(data), "--config", str(tmp_path / "palate.toml")]
    run = CliRunner().invoke
    assert run(app, ["import", "events", str(tmp_path / "events.csv"), *common]).exit_code == 0
    told = run(app, ["train", "--full", "--engine", "spark", "--master", "local[2]", *common])
    assert (told.exit_code, "ials: nDCG@10" in told.stdout) == (0, True), told.output
    snapshot = snapshots.load(data / "snapshots")
    model = stored.load(snapshot, "ials")
    assert (len(model.losses), len(model.users), np.isfinite(model.item_vectors).all()) == (2, 23, True)
    shown = run(app, ["recommend", "--user", "u3", "--json", *common])
    assert (shown.exit_code, '"item": "i' in shown.stdout) == (0, True), shown.output
    with (tmp_path / "events.csv").open("a") as file:
        file.write("\n" + "\n".join(f"u{n % 23},fresh{n % 3},like,1,{1_700_100_000_000 + n}" for n in range(30)))
        file.write("\nnewcomer,i7,like,1,1700100000099")
    assert run(app, ["import", "events", str(tmp_path / "events.csv"), *common]).exit_code == 0
    told = run(app, ["train", "--increment", "--engine", "spark", "--master", "local[2]", *common])
    assert (told.exit_code, "Incremental" in told.stdout) == (0, True), told.output
    grown = stored.load(snapshots.load(data / "snapshots"), "ials")
    assert len(grown.users) == len(model.users) + 1
    assert (grown.item_vectors[grown.items.rows(model.items.keys)] == model.item_vectors).all(axis=1).sum() < len(
        model.items
    )
    here, there = tmp_path / "here", tmp_path / "there"
    assert run(app, ["recommend", "--all", "--limit", "5", "--output", str(here), *common]).exit_code == 0
    told = run(app, ["recommend", "--all", "--limit", "5", "--output", str(there), "--engine", "spark", *common])
    assert (told.exit_code, "24 lists" in told.stdout) == (0, True), told.output
    assert listed(there) == listed(here)


def listed(folder: Path) -> dict[str, list[str]]:
    from pyarrow import parquet

    tables = [parquet.read_table(file) for file in sorted(folder.glob("part-*.parquet"))]
    return {row["user"]: row["items"] for table in tables for row in table.to_pylist()}


def test_the_best_items_of_blocks_of_people_are_those_of_all(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "BLOCK", 7)
    random = np.random.default_rng(1)
    people, items = (random.standard_normal((n, 8)).astype(np.float32) for n in (25, 60))
    met = matrix.sparse(np.repeat(np.arange(25), 2), random.integers(0, 60, 50), np.ones(50, np.float32), (25, 60))
    found, expected = lists.best(spark)(people, items, 6, met, 1), top_lists.best_readable(people, items, 6, met)
    assert (found.rows == expected.rows).all()
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)
