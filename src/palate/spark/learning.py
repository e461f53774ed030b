"""A training cycle whose vectors are learned on a cluster; all else of it is that of one machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from palate.models import als_content, als_update
from palate.models.implicit_als import ImplicitALS, ImplicitALSParams
from palate.models.material import Material
from palate.models.registry import Solver
from palate.spark import als, stores

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def solvers(
    spark: SparkSession, folder: str, on_epoch: Callable[[int, float], object] | None = None
) -> Mapping[str, Solver]:
    """The models that the cluster of this session learns, for `cycle.run_cycle`; `folder` is that of `als.fit`."""

    def solve(material: Material, params: ImplicitALSParams, seed: int) -> ImplicitALS:
        address = f"{folder}/interactions"
        # written, or each job would send all of it to the executors again
        table_of(spark, material).write.mode("overwrite").parquet(address)
        known = spark.read.parquet(address)
        users, items = material.users, material.items
        model = als.fit(spark, known, params, seed, folder=folder, users=users, items=items, on_epoch=on_epoch)
        stores.delete(spark, address)
        return model

    update = partial(als_update.updated, fold=partial(als.fold_rows, spark))
    return {"ials": Solver(partial(als_content.fit, solve=solve), update)}


def table_of(spark: SparkSession, material: Material) -> DataFrame:
    """The columns that `als.fit` takes."""
    import pyarrow as pa

    of = material.interactions
    return spark.createDataFrame(pa.table({"user": of.user, "item": of.item, "weight": of.weight}))
