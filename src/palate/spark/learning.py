"""A training cycle whose vectors are learned on a cluster; all else of it is that of one machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from palate.models import als_content
from palate.models.implicit_als import ImplicitALS, ImplicitALSParams
from palate.models.material import Material
from palate.models.registry import Fit
from palate.spark import als

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def fits(spark: SparkSession, folder: str, on_epoch: Callable[[int, float], object] | None = None) -> Mapping[str, Fit]:
    """The models that the cluster of this session fits, for `cycle.run_cycle`; `folder` is that of `als.fit`."""

    def solve(material: Material, params: ImplicitALSParams, seed: int) -> ImplicitALS:
        return als.fit(
            spark,
            _table(spark, material),
            params,
            seed,
            folder=folder,
            users=material.users,
            items=material.items,
            on_epoch=on_epoch,
        )

    return {"ials": partial(als_content.fit, solve=solve)}


def _table(spark: SparkSession, material: Material) -> DataFrame:
    import pyarrow as pa

    of = material.interactions
    return spark.createDataFrame(pa.table({"user": of.user, "item": of.item, "weight": of.weight}))
