"""Factors from and to other programs: files that `implicit` saves, and folders that Spark's ALSModel saves.

Both know rows by numbers. The ids of users and items lie beside, where the other program leaves them alone: as two more arrays
in implicit's file, as two more folders in Spark's. Files without them have the numbers for ids.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate.domain import to_milliseconds
from palate.errors import ArchiveError
from palate.models import implicit_als
from palate.models.implicit_als import ImplicitALS, ImplicitALSParams
from palate.vocabulary import vocabulary

if TYPE_CHECKING:
    import pyarrow as pa

Floats = NDArray[np.float32]

MOST_FACTORS = 2048
SIDES = ("user", "item")


@dataclass(frozen=True, eq=False)
class Factors:
    """The vectors of U users and I items, with F factors; the score of a pair is the product of its vectors."""

    users: Sequence[str]
    """(U,) ids, each once"""
    user_vectors: Floats
    """(U, F)"""
    items: Sequence[str]
    item_vectors: Floats
    params: Mapping[str, float] = field(default_factory=dict)
    """What the other program says of the fit: `l2` and `alpha`, where it does."""


def of_model(model: ImplicitALS, user_ids: Sequence[str], item_ids: Sequence[str]) -> Factors:
    """What a model has to tell; ids in the order of its rows."""
    assert (len(user_ids), len(item_ids)) == (len(model.users), len(model.items)), "Every row has an id."
    params = {"l2": model.params.l2, "alpha": model.params.alpha}
    vectors = (np.asarray(side, np.float32) for side in (model.user_vectors, model.item_vectors))
    return Factors(user_ids, next(vectors), item_ids, next(vectors), params)


def to_model(
    factors: Factors,
    user_keys: NDArray[np.int64],
    item_keys: NDArray[np.int64],
    params: ImplicitALSParams | None = None,
) -> ImplicitALS:
    """A model with these vectors, each row under the key that stands in its place; keys are different.

    People are scored by fold-in with `params`, None meaning the other program's l2 and alpha in the form of Hu, Koren and
    Volinsky, 1 + alpha · strength, which is Spark's; `implicit` takes alpha · strength, which is 1 less.
    """
    users, items = vocabulary(user_keys), vocabulary(item_keys)
    assert (len(users), len(items)) == (len(factors.users), len(factors.items)), "Every id has a key of its own."
    if params is None:
        params = ImplicitALSParams(form="confidence", l2_exponent=0, unobserved_weight=1, **_known(factors.params))
    by_item = factors.item_vectors[np.argsort(item_keys)]
    params = msgspec.structs.replace(params, factors=by_item.shape[1])
    gramian = by_item.T.astype(np.float64) @ by_item
    return ImplicitALS(
        params=params,
        users=users,
        user_vectors=factors.user_vectors[np.argsort(user_keys)],
        user_examples=np.ones(len(users), np.int32),
        items=items,
        item_vectors=by_item,
        item_examples=np.ones(len(items), np.int32),
        item_matrix=(implicit_als.evidence(params).unobserved * gramian).astype(np.float32),
    )


# --- implicit -------------------------------------------------------------------------------------------------------------


def write_implicit(path: Path, factors: Factors) -> None:
    """As `AlternatingLeastSquares.load` reads it. Raises ArchiveError."""
    arrays: dict[str, Any] = {
        "user_factors": factors.user_vectors,
        "item_factors": factors.item_vectors,
        "factors": factors.item_vectors.shape[1],
        "regularization": factors.params.get("l2", 0.01),
        "alpha": factors.params.get("alpha", 1.0),
        "dtype": "float32",
        "user_ids": np.array(factors.users, np.str_),
        "item_ids": np.array(factors.items, np.str_),
    }
    partial = path.with_name(f"{path.name}.partial")
    try:
        with open(partial, "wb") as file:
            np.savez(file, **arrays)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ArchiveError(f"{path} could not be written: {error.strerror or error}.") from error


def read_implicit(path: Path) -> Factors:
    """What `AlternatingLeastSquares.save` wrote, on a CPU or a GPU. Raises ArchiveError."""
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            sides = [_checked(path, file[f"{side}_factors"]) for side in SIDES]
            ids = [
                file[f"{side}_ids"].astype(str).tolist() if f"{side}_ids" in file else _numbers(len(vectors))
                for side, vectors in zip(SIDES, sides, strict=True)
            ]
            params = {
                ours: float(file[theirs])
                for ours, theirs in (("l2", "regularization"), ("alpha", "alpha"))
                if theirs in file
            }
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ArchiveError(f"{path} is no model that implicit saved: {error}.") from error
    return _whole(path, Factors(ids[0], sides[0], ids[1], sides[1], params))


# --- Spark ----------------------------------------------------------------------------------------------------------------


def write_spark(folder: Path, factors: Factors, now: datetime) -> None:
    """As `ALSModel.load` reads it: ids are row numbers, and `userIds` and `itemIds` beside say whose. Raises ArchiveError."""
    import pyarrow as pa

    if folder.exists():
        raise ArchiveError(f"{folder} is there already: name a folder that isn't.")
    partial = folder.with_name(f"{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        for side, ids, vectors in _sides(factors):
            numbers = pa.array(np.arange(len(ids), dtype=np.int32))
            _write_table(partial / f"{side}Factors", pa.table({"id": numbers, "features": _lists(vectors)}))
            _write_table(partial / f"{side}Ids", pa.table({"id": numbers, "name": pa.array(ids, pa.string())}))
        (partial / "metadata").mkdir()
        (partial / "metadata" / "part-00000").write_text(json.dumps(_metadata(factors, now)) + "\n")
        os.replace(partial, folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise ArchiveError(f"{folder} could not be written: {error.strerror or error}.") from error


def read_spark(folder: Path) -> Factors:
    """What `ALSModel.save` wrote, in a folder of this machine. Raises ArchiveError."""
    import pyarrow as pa

    try:
        (users, user_vectors), (items, item_vectors) = (_read_side(folder, side) for side in SIDES)
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise ArchiveError(f"{folder} is no ALSModel that Spark saved: {str(error).splitlines()[0]}.") from error
    return _whole(folder, Factors(users, user_vectors, items, item_vectors))


def _metadata(factors: Factors, now: datetime) -> dict[str, Any]:
    columns = {"userCol": "user", "itemCol": "item"}
    return {
        "class": "org.apache.spark.ml.recommendation.ALSModel",
        "timestamp": to_milliseconds(now),
        "sparkVersion": "3.5.0",
        "uid": "ALS_palate",
        "paramMap": columns,
        "defaultParamMap": {"predictionCol": "prediction", "coldStartStrategy": "nan", "blockSize": 4096} | columns,
        "rank": factors.item_vectors.shape[1],
    }


def _lists(vectors: Floats) -> pa.Array:
    import pyarrow as pa

    offsets = pa.array(np.arange(len(vectors) + 1, dtype=np.int32) * np.int32(vectors.shape[1]))
    return pa.ListArray.from_arrays(offsets, pa.array(vectors.reshape(-1), pa.float32()))


def _write_table(folder: Path, table: pa.Table) -> None:
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    pq.write_table(table, folder / "part-00000.snappy.parquet")


def _read_side(folder: Path, side: str) -> tuple[list[str], Floats]:
    """Ids and vectors, in the order of Spark's numbers."""
    table = _read_table(folder / f"{side}Factors")
    numbers = np.asarray(table["id"].to_numpy(), np.int64)
    features = table["features"].combine_chunks()
    lengths = np.diff(features.offsets.to_numpy())
    if len(lengths) and (lengths != lengths[0]).any():
        raise ValueError(f"the vectors of {side}Factors have different lengths")
    vectors = np.asarray(features.flatten().to_numpy(zero_copy_only=False), np.float32)
    shaped = vectors.reshape(len(numbers), int(lengths[0]) if len(lengths) else 0)
    order = np.argsort(numbers, kind="stable")
    names = _names(folder / f"{side}Ids")
    ids = [names.get(number, str(number)) for number in numbers[order].tolist()]
    return ids, _checked(folder / f"{side}Factors", shaped[order])


def _names(folder: Path) -> dict[int, str]:
    if not folder.is_dir():
        return {}
    table = _read_table(folder)
    return dict(zip(table["id"].to_pylist(), table["name"].to_pylist(), strict=True))


def _read_table(folder: Path) -> pa.Table:
    """All parts; Spark's own marks beside them are no parts."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = sorted(path for path in folder.glob("*.parquet") if path.name[0] not in "._")
    if not parts:
        raise ValueError(f"{folder.name} holds no Parquet files")
    return pa.concat_tables([pq.ParquetFile(part).read() for part in parts])


# --- both -----------------------------------------------------------------------------------------------------------------


def _sides(factors: Factors) -> list[tuple[str, Sequence[str], Floats]]:
    return [("user", factors.users, factors.user_vectors), ("item", factors.items, factors.item_vectors)]


def _numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def _checked(path: Path, vectors: NDArray[Any]) -> Floats:
    """As numbers that a model can have. Raises ArchiveError."""
    if vectors.ndim != 2 or vectors.dtype.kind != "f" or not 1 <= vectors.shape[1] <= MOST_FACTORS:
        raise ArchiveError(
            f"{path} must hold vectors of 1 to {MOST_FACTORS:,} factors, not {vectors.dtype} {vectors.shape}."
        )
    if not np.isfinite(vectors).all():
        raise ArchiveError(f"{path} holds vectors with infinite numbers, or with none.")
    return np.ascontiguousarray(vectors, np.float32)


def _whole(path: Path, factors: Factors) -> Factors:
    """Itself, if its parts fit one another. Raises ArchiveError."""
    if factors.user_vectors.shape[1] != factors.item_vectors.shape[1]:
        raise ArchiveError(
            f"{path} has {factors.user_vectors.shape[1]} factors for users and {factors.item_vectors.shape[1]} for items."
        )
    for side, ids, vectors in _sides(factors):
        if len(ids) != len(vectors) or len(set(ids)) != len(ids):
            raise ArchiveError(f"{path} has {len(vectors):,} {side}s, but {len(set(ids)):,} different ids of them.")
    return factors


def _known(params: Mapping[str, float]) -> dict[str, Any]:
    return {name: max(float(value), 0.0) for name, value in params.items() if np.isfinite(value)}
