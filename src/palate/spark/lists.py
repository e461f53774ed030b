"""The search for everybody's lists on a cluster: the items on every executor, people in blocks, the best items of each back."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from palate import matrix
from palate.matrix import Sparse
from palate.models.top_lists import Tops
from palate.recommending import Best
from palate.spark import blocks

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Floats = NDArray[np.float32]

BLOCK = 4_096
"""People in a block."""
PEOPLE = 1 << 18
"""Whose lists are asked for at a time: as many as the driver holds well."""


def best(spark: SparkSession) -> Best:
    """`top_lists.best` on the cluster of this session: the same lists, each made where its block of people lies."""

    def search(people: Floats, items: Floats, limit: int, seen: Sparse, threads: int | None = None) -> Tops:
        import pyarrow as pa

        tops = Tops(np.full((len(people), limit), -1, np.int32), np.full((len(people), limit), -np.inf, np.float32))
        rows = [_block(people, seen, first) for first in range(0, len(people), BLOCK)]
        if not rows:
            return tops
        shared = spark.sparkContext.broadcast(np.ascontiguousarray(items, np.float32))
        asked = spark.createDataFrame(pa.Table.from_pylist(rows)).repartition(len(rows))
        found = asked.mapInArrow(partial(blocks.listed, items=shared, limit=limit), blocks.LISTS).toArrow()
        for block in found.to_pylist():
            part = slice(block["place"], block["place"] + BLOCK)
            tops.rows[part] = np.frombuffer(block["rows"], np.int32).reshape(-1, limit)
            tops.scores[part] = np.frombuffer(block["scores"], np.float32).reshape(-1, limit)
        shared.destroy()
        return tops

    return search


def _block(people: Floats, seen: Sparse, first: int) -> dict[str, Any]:
    rows = np.arange(first, min(first + BLOCK, len(people)))
    own = matrix.taken(seen, rows)
    vectors = np.ascontiguousarray(people[rows], np.float32).tobytes()
    return {
        "place": first,
        "vectors": vectors,
        "offsets": own.offsets.tobytes(),
        "columns": own.columns.tobytes(),
    }
