"""The model of categories that this installation learned from its own labels: one file in the data folder, or none.

What it holds is added to the shipped model, and is ignored beside another shipped model than the one that it was learned on.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import NamedTuple

import msgspec
import numpy as np

from palate.errors import DataFolderError
from palate.text import category, tokens
from palate.text.category import CLASSES, LANGUAGES, Weights
from palate.text.correction import Correction, corrected

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class OwnModel:
    """A model of this installation's own, ready for use."""

    version: str
    """Differs between models, and is never empty."""
    weights: Mapping[str, Weights]
    """By language; of others the shipped model holds."""


class Kept(NamedTuple):
    """What a look at the file found."""

    stamp: tuple[int, int] | None = None
    """Tells whether the file is still the same."""
    model: OwnModel | None = None


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    shipped: str
    corrections: dict[str, tuple[bytes, bytes, bytes]]


def path_of(data: Path) -> Path:
    """Where the file is in a data folder."""
    return data / "text" / "categories.msgpack"


def look(data: Path, before: Kept) -> Kept:
    """What the file holds now; `before` itself as long as it is the same file. One that can't be used is as none, and logged."""
    path = path_of(data)
    try:
        found = path.stat()
        stamp = (found.st_mtime_ns, found.st_ino)
        if stamp == before.stamp:
            return before
        return Kept(stamp, _model(path.read_bytes()))
    except FileNotFoundError:
        return Kept() if before.stamp else before
    except (OSError, ValueError, msgspec.DecodeError) as error:
        log.warning("%s can't be used (%s): the shipped model is. Run `palate train-text` again.", path, error)
        return Kept(stamp)


def write(data: Path, corrections: Mapping[str, Correction]) -> Path:
    """Put a model in the place of the last one, at once or not at all. Raises DataFolderError."""
    plain = {
        language: (
            one.numbers.astype("<i8").tobytes(),
            one.table.astype("<f4").tobytes(),
            one.bias.astype("<f4").tobytes(),
        )
        for language, one in sorted(corrections.items())
    }
    content, path = msgspec.msgpack.encode(_File(shipped=_shipped(), corrections=plain)), path_of(data)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, prefix=".categories-", delete=False) as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(stream.name).replace(path)
    except OSError as error:
        raise DataFolderError(f"{path} can't be written: {error.strerror}.") from error
    return path


def reset(data: Path) -> bool:
    """Go back to the shipped model; False when there is no other."""
    try:
        path_of(data).unlink()
    except FileNotFoundError:
        return False
    return True


def _model(content: bytes) -> OwnModel:
    """Raises ValueError, DecodeError for what isn't such a file, or was learned on another shipped model."""
    file = msgspec.msgpack.decode(content, type=_File)
    if file.shipped != _shipped():
        raise ValueError("it was learned on another version of Palate")
    weights = {
        language: corrected(category.shipped(language), _correction(*parts))
        for language, parts in file.corrections.items()
        if language in LANGUAGES
    }
    return OwnModel(sha256(content).hexdigest()[:16], weights)


def _correction(numbers: bytes, table: bytes, bias: bytes) -> Correction:
    found = Correction(
        np.frombuffer(numbers, "<i8"),
        np.frombuffer(table, "<f4").reshape(-1, len(CLASSES)),
        np.frombuffer(bias, "<f4"),
    )
    outside = len(found.numbers) and not 0 <= found.numbers.min() <= found.numbers.max() < tokens.SIZE
    if outside or len(found.numbers) != len(found.table) or len(found.bias) != len(CLASSES):
        raise ValueError("its parts don't fit together")
    return found


def _shipped() -> str:
    """A digest of the shipped models."""
    digest = sha256()
    for language in LANGUAGES:
        digest.update(category.to_bytes(category.shipped(language)))
    return digest.hexdigest()
