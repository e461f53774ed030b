"""One Spark for all of its tests: starting it takes longer than most of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from palate.errors import SettingsError
from palate.spark import sessions

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MASTER = "local[2]"
CHEAP = {
    "spark.sql.shuffle.partitions": "1",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.wholeStage": "false",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
}
"""Nothing here runs for long enough to be compiled well."""


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """A local Spark, or a skipped test where there is no Java for it."""
    pytest.importorskip("pyspark", reason="Spark isn't installed: `palate[spark]`")
    folder = {"spark.sql.warehouse.dir": f"file://{tmp_path_factory.mktemp('warehouse')}"}
    try:
        with sessions.connected(MASTER, "tests", CHEAP | folder) as session:
            yield session
    except SettingsError as error:
        if "Java" in str(error):
            pytest.skip(str(error))
        raise


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """An address for checkpoints."""
    return f"file://{tmp_path / 'work'}"
