"""The options by which a command runs on Apache Spark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from palate.errors import PalateError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from palate.examples import Params
    from palate.models.registry import Solver

ENGINES = ("embedded", "spark")
Runs = Annotated[
    str, typer.Option("--engine", help="What does the work: embedded (this machine) or spark (a cluster).")
]
Master = Annotated[
    str | None,
    typer.Option(
        help="The cluster: spark://HOST:7077, yarn, k8s://… [default: local[*], all processors of this machine]"
    ),
]
Store = Annotated[
    str | None,
    typer.Option(
        help="Folder or address (s3a://…) that all of Spark's machines reach, for what is done. [default: DATA/spark]"
    ),
]


def on_spark(engine: str, master: str | None) -> bool:
    """Whether Spark was asked for. Raises PalateError for what isn't an engine, or a master of none."""
    if engine not in ENGINES:
        raise PalateError(f"There is no engine {engine}: choose {' or '.join(ENGINES)}.")
    if engine != "spark" and master is not None:
        raise PalateError("--master names a cluster of Spark's: add --engine spark.")
    return engine == "spark"


@contextmanager
def session(engine: str, master: str | None, command: str) -> Iterator[SparkSession | None]:
    """Spark for as long as the block runs; None for the embedded engine. Raises SettingsError."""
    if not on_spark(engine, master):
        yield None
        return
    from palate.spark import sessions

    with sessions.connected(master or "local[*]", f"palate {command}") as spark:
        yield spark


def check_training(engine: str, master: str | None, once: bool, params: Params) -> None:
    """Raises PalateError where Spark has nothing to learn with these options and settings."""
    if not on_spark(engine, master):
        return
    if not once:
        raise PalateError("Spark learns in one cycle: add --full for all anew, or --increment for what is new.")
    if "ials" not in params.train.models:
        raise PalateError('Spark learns implicit ALS: set [train] models = ["ials"], or [feed] model = "ials".')


@contextmanager
def solvers(engine: str, master: str | None, store: str | None, data: Path) -> Iterator[Mapping[str, Solver]]:
    """The models that Spark learns in a cycle, none for the embedded engine."""
    with session(engine, master, "train") as spark:
        if spark is None:
            yield {}
            return
        from palate.spark import learning

        yield learning.solvers(spark, store or f"file://{(data / 'spark').resolve()}")
