"""Factors to and from implicit and Spark; implicit itself reads and writes where it is installed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.domain import Interactions
from palate.errors import ArchiveError
from palate.models import exchange, implicit_als
from palate.models.exchange import Factors
from palate.models.material import known

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def factors(users: int = 3, items: int = 5, size: int = 4, seed: int = 0) -> Factors:
    random = np.random.default_rng(seed)
    return Factors(
        [f"user {n}" for n in range(users)],
        random.normal(size=(users, size)).astype(np.float32),
        [f"é{n}" for n in range(items)],
        random.normal(size=(items, size)).astype(np.float32),
        {"l2": 0.25, "alpha": 3.0},
    )


def assert_same(found: Factors, expected: Factors) -> None:
    assert list(found.users) == list(expected.users)
    assert list(found.items) == list(expected.items)
    assert np.array_equal(found.user_vectors, expected.user_vectors)
    assert np.array_equal(found.item_vectors, expected.item_vectors)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 4), st.integers(0, 4), st.integers(1, 5), st.integers(0, 99))
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, users: int, items: int, size: int, seed: int
) -> None:
    folder, told = tmp_path_factory.mktemp("exchange"), factors(max(users, 1), max(items, 1), size, seed)
    exchange.write_implicit(folder / "als.npz", told)
    found = exchange.read_implicit(folder / "als.npz")
    assert_same(found, told)
    assert found.params == told.params
    exchange.write_spark(folder / "als", told, NOW)
    assert_same(exchange.read_spark(folder / "als"), told)


def test_implicit_reads_what_we_write_and_we_what_it_writes(tmp_path: Path) -> None:
    als = pytest.importorskip("implicit.cpu.als", reason="implicit is not installed (uv sync --group bench)")
    told = factors()
    exchange.write_implicit(tmp_path / "ours.npz", told)
    theirs = als.AlternatingLeastSquares.load(str(tmp_path / "ours.npz"))
    assert np.array_equal(theirs.item_factors, told.item_vectors)
    assert (theirs.factors, theirs.regularization, theirs.alpha) == (4, 0.25, 3.0)
    theirs.save(str(tmp_path / "theirs.npz"))
    found = exchange.read_implicit(tmp_path / "theirs.npz")
    assert np.array_equal(found.user_vectors, told.user_vectors)
    assert found.users == ["0", "1", "2"]


def implicit_file(path: Path, **changes: Any) -> Path:
    """The arrays and names that implicit 0.7 saves."""
    arrays: dict[str, Any] = {
        "user_factors": np.ones((2, 3), np.float32),
        "item_factors": np.full((4, 3), 2, np.float32),
        "regularization": 0.05,
        "factors": 3,
        "num_threads": 2,
        "iterations": 15,
        "use_native": True,
        "use_cg": True,
        "cg_steps": 3,
        "calculate_training_loss": False,
        "dtype": "float32",
        "alpha": 2.0,
    }
    np.savez(path, **{name: value for name, value in (arrays | changes).items() if value is not None})
    return path


def test_rows_without_ids_are_known_by_their_numbers(tmp_path: Path) -> None:
    found = exchange.read_implicit(implicit_file(tmp_path / "a.npz"))
    assert (found.users, found.items) == (["0", "1"], ["0", "1", "2", "3"])
    assert found.params == {"l2": 0.05, "alpha": 2.0}


@pytest.mark.parametrize(
    "changes",
    [
        {"item_factors": None},
        {"item_factors": np.ones((4, 2), np.float32)},
        {"item_factors": np.ones(4, np.float32)},
        {"item_factors": np.full((4, 3), np.nan, np.float32)},
        {"item_factors": np.array([[{}]], object)},
        {"item_factors": np.array([["a", "b", "c"]])},
        {"user_ids": np.array(["a", "a"])},
        {"user_ids": np.array(["a"])},
        {"alpha": np.ones(3)},
    ],
)
def test_broken_files_of_implicit_are_told_of_in_one_sentence(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ArchiveError, match=r"a\.npz"):
        exchange.read_implicit(implicit_file(tmp_path / "a.npz", **changes))


def test_files_that_are_no_archive_are_told_of(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 and so on")
    whole = implicit_file(tmp_path / "b.npz").read_bytes()
    (tmp_path / "b.npz").write_bytes(whole[: len(whole) // 2])
    for name in ("a.npz", "b.npz", "none.npz"):
        with pytest.raises(ArchiveError, match=name):
            exchange.read_implicit(tmp_path / name)


def spark_folder(folder: Path, *, lengths: tuple[int, ...] = (2, 2)) -> Path:
    """As Spark 3.5 leaves it: parts by hash of the id, ids with gaps, marks beside them."""
    for side, parts in (("user", ((7, 3), (5,))), ("item", ((0,), (2**31 - 1,)))):
        (folder / f"{side}Factors").mkdir(parents=True)
        (folder / f"{side}Factors" / "_SUCCESS").touch()
        (folder / f"{side}Factors" / ".part-00000.snappy.parquet.crc").write_bytes(b"crc")
        for number, (ids, length) in enumerate(zip(parts, lengths, strict=True)):
            table = pa.table(
                {
                    "id": pa.array(ids, pa.int32()),
                    "features": pa.array([[id / 2] * length for id in ids], pa.list_(pa.float32())),
                }
            )
            pq.write_table(table, folder / f"{side}Factors" / f"part-0000{number}-x.snappy.parquet")
    return folder


def test_a_folder_of_spark_has_its_numbers_for_ids_in_their_order(tmp_path: Path) -> None:
    found = exchange.read_spark(spark_folder(tmp_path / "model"))
    assert found.users == ["3", "5", "7"]
    assert found.items == ["0", "2147483647"]
    assert found.user_vectors.tolist() == [[1.5, 1.5], [2.5, 2.5], [3.5, 3.5]]


def test_broken_folders_of_spark_are_told_of_in_one_sentence(tmp_path: Path) -> None:
    (spark_folder(tmp_path / "cut") / "itemFactors" / "part-00001-x.snappy.parquet").write_bytes(b"PAR1")
    spark_folder(tmp_path / "uneven", lengths=(2, 3))
    (tmp_path / "empty").mkdir()
    for name in ("cut", "uneven", "empty", "none"):
        with pytest.raises(ArchiveError, match=f"{name} is no ALSModel"):
            exchange.read_spark(tmp_path / name)


def test_what_spark_looks_for_is_written_and_nothing_is_overwritten(tmp_path: Path) -> None:
    exchange.write_spark(tmp_path / "model", factors(), NOW)
    metadata = json.loads((tmp_path / "model" / "metadata" / "part-00000").read_text())
    assert (metadata["class"].rsplit(".", 1)[1], metadata["rank"]) == ("ALSModel", 4)
    schema = pq.read_schema(tmp_path / "model" / "userFactors" / "part-00000.snappy.parquet")
    assert (schema.field("id").type, schema.field("features").type.value_type) == (pa.int32(), pa.float32())
    with pytest.raises(ArchiveError, match="is there already"):
        exchange.write_spark(tmp_path / "model", factors(), NOW)


def test_a_model_goes_out_and_comes_back_under_other_keys() -> None:
    random = np.random.default_rng(4)
    user, item = np.nonzero(random.random((4, 5)) < 0.5)
    model = exchange.to_model(factors(4, 5), np.arange(4), np.arange(5))
    told = exchange.of_model(model, ["a", "b", "c", "d"], ["v", "w", "x", "y", "z"])
    back = exchange.to_model(told, np.arange(4)[::-1] * 10, 500 - np.arange(5))
    assert back.items.keys.tolist() == list(range(496, 501))
    assert np.array_equal(back.item_vectors, model.item_vectors[::-1])
    assert np.array_equal(back.user_vectors, model.user_vectors[::-1])
    ones, none = np.ones(len(user), np.float32), np.zeros(len(user), np.int64)
    before = known(Interactions(user, item, ones, ones, none), np.arange(4), model.items)
    order = np.lexsort((-item, user))
    after = known(Interactions(user[order], 500 - item[order], ones, ones, none), np.arange(4), back.items)
    scores = implicit_als.score_all(model, before), implicit_als.score_all(back, after)
    assert scores[0].std() > 0.1
    np.testing.assert_allclose(scores[1][:, ::-1], scores[0], atol=1e-4)


def test_imported_factors_are_folded_in_with_what_their_program_was_told() -> None:
    back = exchange.to_model(factors(), np.arange(3), np.arange(5))
    assert (back.params.l2, back.params.alpha, back.params.factors, back.params.form) == (0.25, 3.0, 4, "confidence")
    expected = factors().item_vectors.T @ factors().item_vectors
    np.testing.assert_allclose(back.item_matrix, expected, rtol=1e-5)
