"""The rules of what people watched, on Spark: the same SQL on the same archives gives the same rows as on one machine.

All machines must see the folder of the archives and the data folder by the same path.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from palate.errors import ArchiveError
from palate.spark.sessions import cause
from palate.watching import engines, rules
from palate.watching.archives import Archive
from palate.watching.engines import Engine
from palate.watching.rules import WatchParams

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

MILLIS = """CREATE OR REPLACE TEMPORARY FUNCTION millis(given STRING) RETURNS BIGINT RETURN CASE
    WHEN given RLIKE '^[0-9]{9,11}$' THEN 1000 * CAST(given AS BIGINT)
    WHEN given RLIKE '^[0-9]{12,14}$' THEN CAST(given AS BIGINT)
    WHEN given RLIKE '^[0-9]{4}-' THEN unix_millis(TRY_CAST(given AS TIMESTAMP)) END"""
"""As `embedded.MILLIS`; of Spark's other forms of a time DuckDB knows none."""

SEPARATORS = ",\t;|"


def engine(spark: SparkSession) -> Engine:
    """The cluster of this session."""
    spark.sql(MILLIS)
    return Engine(partial(stage, spark), partial(build, spark), partial(find_heavy, spark))


def stage(
    spark: SparkSession, archive: Archive, names: Mapping[str, str], target: Path, params: WatchParams
) -> dict[int, int]:
    """See `Engine.stage`."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    part = target.parent / f".{target.name}-{archive.label}"
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        rows = _read(spark, archive)
        rows.createOrReplaceTempView("rows")
        own = engines.columns_of(archive.path, archive.kind, rows.columns, names)
        spark.sql(rules.staged(archive.kind, own, archive.date, params)).write.partitionBy("day").parquet(
            _address(part)
        )
        found = _rows_by_day(part)
        engines.put_in_place(part, target, archive.label)
    except (Py4JError, PySparkException) as error:
        raise ArchiveError(f"{archive.path.name} can't be read to its end: {cause(str(error))}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return found


def build(spark: SparkSession, staged: Path, day: int, params: WatchParams, target: Path) -> dict[str, int]:
    """See `Engine.build`."""
    _view(spark, "sessions", staged / "sessions", (day - 1, day), engines.SESSIONS)
    _view(spark, "ticks", staged / "ticks", (day, day + 1), engines.TICKS)
    kept = []
    for name, query in rules.day_tables(params, day):
        table = spark.sql(query)
        if name in rules.USED_AGAIN:
            kept.append(table.cache())
        table.createOrReplaceTempView(name)
    _write(spark.table("day_views").repartition(1).sortWithinPartitions("user", "item", "time"), target)
    counts = spark.sql(rules.day_counts(params, day)).first()
    for table in kept:
        table.unpersist()
    assert counts is not None, "a query of counts has one row"
    return {name: int(value) for name, value in counts.asDict().items()}


def find_heavy(spark: SparkSession, views: Sequence[Path], params: WatchParams, target: Path) -> int:
    """See `Engine.find_heavy`."""
    spark.read.parquet(*map(_address, views)).createOrReplaceTempView("views")
    _write(spark.sql(rules.heavy(params)).coalesce(1), target)
    return spark.read.parquet(_address(target)).count()


def _read(spark: SparkSession, archive: Archive) -> DataFrame:
    """All columns as text; what separates them is told by the first line, as DuckDB does it."""
    address = _address(archive.path)
    head = spark.read.text(address).first()
    line = "" if head is None else str(head[0])
    separator = max(SEPARATORS, key=line.count)
    return spark.read.csv(address, header=True, sep=separator, quote='"', escape='"', mode="PERMISSIVE")


def _view(spark: SparkSession, name: str, folder: Path, days: Sequence[int], columns: Mapping[str, str]) -> None:
    files = [_address(Path(file)) for file in engines.staged_files(folder, days)]
    schema = ", ".join(f"{column} {kind}" for column, kind in columns.items())
    table = spark.read.schema(schema).parquet(*files) if files else spark.createDataFrame([], schema)
    table.select(*columns).createOrReplaceTempView(name)


def _write(rows: DataFrame, target: Path) -> None:
    """The one partition of these rows as the file `target`, whole or not at all."""
    part = target.with_name(f".{target.name}-spark")
    shutil.rmtree(part, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    rows.write.parquet(_address(part))
    (file,) = part.glob("*.parquet")
    os.replace(file, target)
    shutil.rmtree(part)


def _rows_by_day(part: Path) -> dict[int, int]:
    from pyarrow import parquet

    found: dict[int, int] = {}
    for file in part.glob("day=*/*.parquet"):
        day = int(file.parent.name.removeprefix("day="))
        found[day] = found.get(day, 0) + int(parquet.read_metadata(file).num_rows)
    return found


def _address(path: Path) -> str:
    """For Spark, which would look for a bare path in the cluster's own file system."""
    return f"file://{path.resolve()}"
