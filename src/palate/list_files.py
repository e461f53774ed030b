"""Precomputed lists as a folder of Parquet, written whole or not at all.

DIR/part-00000.parquet …   one row a person: user (string), items (list of strings, best first), scores (list of floats)
DIR/header.json            what they are
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.errors import DataFolderError

FORMAT = 1
AT_FDCWD, RENAME_EXCHANGE = -100, 2
"""Of linux/fcntl.h and linux/fs.h."""


class Writer:
    """Takes lists part by part; nothing is to be seen of them in `folder` before `finish`."""

    def __init__(self, folder: Path) -> None:
        self.people = self.parts = 0
        self._folder, self._partial = folder, folder.with_name(f".{folder.name}.partial")

    def __enter__(self) -> Writer:
        with _said(self._folder):
            shutil.rmtree(self._partial, ignore_errors=True)
            self._partial.mkdir(parents=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)

    def add(
        self, users: list[str], items: NDArray[np.object_], counts: NDArray[np.int64], scores: NDArray[Any]
    ) -> None:
        """Lists of these users, one after the other: `items` and `scores` have sum(counts) places."""
        import pyarrow as pa
        from pyarrow import parquet

        offsets = pa.array(np.concatenate(([0], np.cumsum(counts))).astype(np.int32))
        lists = [
            pa.ListArray.from_arrays(offsets, values)
            for values in (pa.array(items, pa.string()), pa.array(scores, pa.float32()))
        ]
        table = pa.Table.from_arrays([pa.array(users, pa.string()), *lists], ["user", "items", "scores"])
        with _said(self._folder):
            parquet.write_table(table, self._partial / f"part-{self.parts:05}.parquet", compression="zstd")
        self.people, self.parts = self.people + len(users), self.parts + 1

    def finish(self, header: Mapping[str, Any]) -> None:
        """Write the header and put the folder in its place. Raises DataFolderError; the old lists stay then."""
        whole = {"format": FORMAT, **header, "people": self.people, "parts": self.parts}
        with _said(self._folder):
            (self._partial / "header.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
            _sync([*self._partial.iterdir(), self._partial])
            _put(self._partial, self._folder)
            _sync([self._folder.parent])


def is_ours(folder: Path) -> bool:
    """Whether the folder may be written over: it isn't there, is empty, or holds lists."""
    return not folder.exists() or (folder / "header.json").is_file() or not any(folder.iterdir())


def _put(fresh: Path, folder: Path) -> None:
    """In one step, where the system can exchange two folders; else there is a moment without."""
    if not folder.exists():
        os.rename(fresh, folder)
        return
    exchange = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if exchange is None or exchange(AT_FDCWD, os.fsencode(fresh), AT_FDCWD, os.fsencode(folder), RENAME_EXCHANGE):
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        os.rename(folder, old)
        os.rename(fresh, folder)
        shutil.rmtree(old, ignore_errors=True)


def _sync(paths: Iterable[Path]) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _said(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataFolderError(f"The lists can't be written to {folder}: {error.strerror or error}.") from error
