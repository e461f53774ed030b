"""The file of an installation's own model: whole or not there, and never a reason to stop."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from palate import own_categories
from palate.errors import DataFolderError
from palate.own_categories import Kept, look, reset, write
from palate.text import category
from palate.text.correction import Correction

SOME = Correction(np.array([3, 70_000], np.int64), np.ones((2, 8), np.float32), np.arange(8, dtype=np.float32))


def test_what_is_written_is_found_and_added_to_the_shipped_model(tmp_path: Path) -> None:
    assert look(tmp_path, Kept()) == Kept()
    path = write(tmp_path, {"en": SOME})
    kept = look(tmp_path, Kept())
    assert kept.model is not None
    assert look(tmp_path, kept) is kept
    own, shipped = kept.model.weights["en"], category.shipped("en")
    np.testing.assert_allclose(own.bias, shipped.bias + np.arange(8))
    np.testing.assert_allclose(own.step * own.table[3], shipped.step * shipped.table[3] + 1, rtol=1e-5)
    np.testing.assert_array_equal(own.table[4], shipped.table[4])
    assert list(kept.model.weights) == ["en"]
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_another_model_is_another_version_and_reset_goes_back(tmp_path: Path) -> None:
    write(tmp_path, {"en": SOME})
    first = look(tmp_path, Kept())
    write(tmp_path, {"ru": SOME})
    second = look(tmp_path, first)
    assert first.model is not None
    assert second.model is not None
    assert second.model.version != first.model.version
    assert reset(tmp_path)
    assert look(tmp_path, second) == Kept()
    assert not reset(tmp_path)


def test_a_file_that_cannot_be_used_is_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, {"en": SOME})
    whole = path.read_bytes()
    far = Correction(np.array([2**40], np.int64), SOME.table[:1], SOME.bias)
    write(tmp_path, {"en": far})
    contents = [b"", b"\x93nothing", whole[: len(whole) // 2], path.read_bytes()]
    for number, content in enumerate(contents):
        path.write_bytes(content)
        os.utime(path, ns=(number, number))
        kept = look(tmp_path, Kept())
        assert kept.model is None
        assert look(tmp_path, kept) is kept  # said once
    assert len(caplog.records) == len(contents)
    path.write_bytes(whole)
    monkeypatch.setattr(own_categories, "_shipped", lambda: "another")
    assert look(tmp_path, Kept()).model is None
    assert "another version of Palate" in caplog.text


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a file")
    with pytest.raises(DataFolderError, match="can't be written"):
        write(tmp_path, {"en": SOME})
