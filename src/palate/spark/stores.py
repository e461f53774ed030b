"""Small files beside Spark's own, wherever Spark can write: a folder that all machines share, or an object store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def read(spark: SparkSession, address: str) -> bytes | None:
    """What is in a file; None when there is none."""
    system, path = _open(spark, address)
    if not system.exists(path):
        return None
    stream = system.open(path)
    try:
        return bytes(stream.readAllBytes())
    finally:
        stream.close()


def write(spark: SparkSession, address: str, content: bytes) -> None:
    """Whole or not at all: written beside its place, then renamed."""
    system, part = _open(spark, f"{address}.part")
    stream = system.create(part, True)
    try:
        stream.write(bytearray(content))
    finally:
        stream.close()
    place = _open(spark, address)[1]
    system.delete(place, False)
    system.rename(part, place)


def delete(spark: SparkSession, address: str) -> None:
    """A file or folder with all in it, if it is there."""
    system, path = _open(spark, address)
    system.delete(path, True)


def _open(spark: SparkSession, address: str) -> tuple[Any, Any]:
    """Hadoop's file system of an address, and its path there."""
    virtual: Any = spark._jvm
    path = virtual.org.apache.hadoop.fs.Path(address)
    return path.getFileSystem(spark._jsc.hadoopConfiguration()), path
