"""Learned vectors with their ids, in files that other programs read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from feed_world import World, item
from typer.testing import CliRunner

from palate import cli, people
from palate.database import writing
from palate.errors import ArchiveError, NotFound, PalateError
from palate.vector_transfer import export_vectors


@pytest.fixture
def world(sqlite_engine: sa.Engine, data: Path) -> World:
    world = World(sqlite_engine, data)
    world.add(item("a"), item("b"), item("c"))
    world.publish(
        {"a": [1, 0, 2], "b": [0, 1, 3], "c": [5, 0, 0]},
        users={"ann": ([1, 2, 3], 0.0, {}), "bob": ([4, 5, 6], 0.0, {})},
    )
    return world


def test_npy_has_the_ids_beside_it_in_the_same_order(world: World, tmp_path: Path) -> None:
    found = export_vectors(world.engine, world.data, tmp_path / "v.npy", "items", None)
    assert found.model == "fm"
    vectors = dict(
        zip(json.loads((tmp_path / "v.ids.json").read_text()), np.load(tmp_path / "v.npy").tolist(), strict=True)
    )
    assert vectors == {"a": [1, 0, 2], "b": [0, 1, 3], "c": [5, 0, 0]}
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["v.ids.json", "v.npy"]


def test_parquet_holds_people_without_those_who_were_deleted(world: World, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    with writing(world.engine) as connection:
        people.delete(connection, "ann")
    export_vectors(world.engine, world.data, tmp_path / "v.parquet", "people", "fm")
    table = pq.read_table(tmp_path / "v.parquet")
    assert table.to_pylist() == [{"id": "bob", "vector": [4.0, 5.0, 6.0]}]
    assert table.schema.metadata[b"model"] == b"fm"


def test_what_is_not_there_is_named(world: World, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="ials"):
        export_vectors(world.engine, world.data, tmp_path / "v.npy", "items", "ials")
    with pytest.raises(ArchiveError, match=r"\.parquet or \.npy"):
        export_vectors(world.engine, world.data, tmp_path / "v.csv", "items", None)
    with pytest.raises(ArchiveError, match="can't be written"):
        export_vectors(world.engine, world.data, tmp_path / "none" / "v.npy", "items", None)


def test_the_command_says_what_it_wrote(world: World, tmp_path: Path) -> None:
    arguments = ["export", "vectors", str(tmp_path / "v.npy"), "--data", str(world.data)]
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 0, done.output
    assert done.output.startswith("3 vectors of 3 numbers, by fm of snapshot ")
    assert isinstance(CliRunner().invoke(cli.app, [*arguments, "--of", "all"]).exception, PalateError)
