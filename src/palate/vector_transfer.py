"""The learned vectors of items or people, with their ids, for other uses: nearest neighbours elsewhere, clusters, plots."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import identities, snapshots
from palate.database import reading
from palate.errors import ArchiveError, NotFound
from palate.snapshots import Snapshot

Of = Literal["items", "people"]
Name = Literal["fm", "ials"]

ARRAYS: dict[tuple[str, Of], tuple[str, str]] = {
    ("fm", "items"): ("items", "item_vectors"),
    ("fm", "people"): ("users", "user_vectors"),
    ("ials", "items"): ("items", "ials_item_vectors"),
    ("ials", "people"): ("ials_users", "ials_user_vectors"),
}
"""The arrays of a snapshot that hold the keys and the vectors."""


@dataclass(frozen=True, eq=False)
class Vectors:
    """Vectors (n, factors) of the model named, and whose they are; `version` is the snapshot's."""

    model: str
    version: str
    ids: list[str]
    values: NDArray[np.float32]


def export_vectors(engine: sa.Engine, data: Path, path: Path, of: Of, model: Name | None) -> Vectors:
    """Write the published vectors to a file: `.parquet` with the columns id and vector, or `.npy` with the ids in JSON beside it.

    `model` None takes `ials` where it is published, else `fm`. Raises NotFound when there is no such model, ArchiveError when the
    file can't be written or has another ending.
    """
    if path.suffix not in (".parquet", ".npy"):
        raise ArchiveError(f"{path.name} must end in .parquet or .npy: the ending chooses the format.")
    found = _published(engine, data, of, model)
    try:
        if path.suffix == ".parquet":
            _whole(path, lambda unfinished: _write_parquet(unfinished, found))
        else:
            _whole(
                path.with_suffix(".ids.json"), lambda unfinished: unfinished.write_bytes(msgspec.json.encode(found.ids))
            )
            _whole(path, lambda unfinished: _write_npy(unfinished, found))
    except OSError as error:
        raise ArchiveError(f"{path} can't be written: {error.strerror}.") from error
    return found


def _published(engine: sa.Engine, data: Path, of: Of, model: Name | None) -> Vectors:
    snapshot = snapshots.load_newest_good(data / "snapshots")
    names = [name for name in ("ials", "fm") if model in (None, name) and _has(snapshot, name, of)]
    if snapshot is None or not names:
        raise NotFound(f"No vectors of {of} by {model or 'fm or ials'} are published: run `palate train --full` first.")
    keys, values = (np.asarray(snapshot.arrays[array]) for array in ARRAYS[names[0], of])
    with reading(engine) as connection:
        ids = (identities.item_ids if of == "items" else identities.user_ids)(connection, keys.tolist())
    kept = np.array([key in ids for key in keys.tolist()], bool)  # somebody may have been deleted since
    named = [ids[key] for key in keys[kept].tolist()]
    return Vectors(names[0], snapshot.version, named, values[kept].astype(np.float32))


def _has(snapshot: Snapshot | None, name: str, of: Of) -> bool:
    return snapshot is not None and set(ARRAYS[name, of]) <= set(snapshot.arrays)


def _whole(path: Path, write: Any) -> None:
    """Let a file appear whole or not at all."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        write(unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _write_npy(path: Path, found: Vectors) -> None:
    with path.open("wb") as file:
        np.save(file, found.values)


def _write_parquet(path: Path, found: Vectors) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    flat = pa.array(found.values.ravel(), pa.float32())
    vectors = pa.FixedSizeListArray.from_arrays(flat, max(found.values.shape[1], 1))
    about = {"model": found.model, "snapshot": found.version}
    pq.write_table(pa.table({"id": pa.array(found.ids, pa.string()), "vector": vectors}, metadata=about), path)
