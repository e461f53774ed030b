"""The object store: a folder and a bucket do the same, and what is wrong is said in one sentence."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from palate import database, ownership, store
from palate.errors import SettingsError, StoreError
from palate.store import Bucket, Store


@pytest.fixture(params=["folder", "bucket"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "bucket":
        return store.opened(request.getfixturevalue("bucket"))
    (tmp_path / "shared").mkdir()
    return store.opened(f"file://{tmp_path}/shared")


def test_what_is_put_comes_back_until_it_is_deleted(files: Store, tmp_path: Path) -> None:
    (tmp_path / "here").write_bytes(bytes(range(256)) * 40_000)  # more than one part of an upload
    files.put("a/b/large", tmp_path / "here")
    files.write("a/small", b"first")
    files.write("a/small", b"second")
    files.copy("a/b/large", "a/c/twin")
    files.get("a/c/twin", tmp_path / "new" / "there")
    assert (tmp_path / "new" / "there").read_bytes() == (tmp_path / "here").read_bytes()
    assert files.read("a/small") == b"second"
    assert files.names("a") == ["a/b/large", "a/c/twin", "a/small"]
    assert files.names("a/b") == ["a/b/large"]
    files.delete("a/b/large")
    files.delete("a/b/large")
    assert files.names("a") == ["a/c/twin", "a/small"]


def test_what_is_not_there_is_no_file(files: Store, tmp_path: Path) -> None:
    assert files.read("nothing") is None
    assert files.names("nothing") == []
    files.check()
    with pytest.raises(FileNotFoundError):
        files.get("nothing", tmp_path / "target")
    assert not (tmp_path / "target").exists()


@dataclass(frozen=True)
class Torn:
    """A file system whose uploads break off, and are closed as if they had been whole."""

    system: Any

    def open_output_stream(self, path: str, compression: None) -> io.BytesIO:
        return io.BytesIO()

    def get_file_info(self, path: str) -> Any:
        return self.system.get_file_info(path)


def test_an_upload_that_broke_off_is_no_success(bucket: str, tmp_path: Path) -> None:
    whole = store.opened(bucket)
    assert isinstance(whole, Bucket)
    (tmp_path / "here").write_bytes(b"content")
    with pytest.raises(StoreError, match="did not arrive whole"):
        Bucket(whole.root, Torn(whole.system)).put("name", tmp_path / "here")


@pytest.mark.parametrize(
    "address",
    [
        "",
        "s3://",
        "s3:///prefix",
        "file://host/folder",
        "file:///",
        "https://host/bucket",
        "/folder",
        "s3://b?color=red",
    ],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(SettingsError, match="isn't one: it is like s3://"):
        store.opened(address)


def test_credentials_in_the_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(SettingsError, match="must not hold credentials") as refused:
        store.opened("s3://key:topsecret@bucket/prefix")
    assert "topsecret" not in str(refused.value)


def test_a_folder_that_is_not_mounted_is_not_made(tmp_path: Path) -> None:
    files = store.opened(f"file://{tmp_path}/away")
    for act in (files.check, lambda: files.write("a", b""), lambda: files.names("a")):
        with pytest.raises(StoreError, match="make or mount the folder"):
            act()
    assert not (tmp_path / "away").exists()


def test_a_store_is_one_installations_alone(data: Path, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    address = f"file://{tmp_path}/shared"
    with database.opened(None, data, address) as engine:
        assert ownership.owned(engine) == ownership.owned(engine) == store.opened(address)
    with database.opened(f"sqlite:///{data}/palate.sqlite", tmp_path / "another machine", address) as engine:
        assert ownership.owned(engine) is not None
    with (
        database.opened(None, tmp_path / "another installation", address) as engine,
        pytest.raises(StoreError, match="belongs to another installation: give this one a bucket or prefix"),
    ):
        ownership.owned(engine)
    with database.opened(None, data) as engine:
        assert ownership.owned(engine) is None


def test_a_bucket_that_is_not_there_is_said_in_a_sentence(s3: str, tmp_path: Path) -> None:
    files = store.opened(f"s3://never-made/prefix?endpoint={s3}")
    (tmp_path / "here").write_bytes(b"content")
    for act in (files.check, lambda: files.put("a", tmp_path / "here")):
        with pytest.raises(StoreError, match="s3://never-made/prefix isn't there: make the bucket first") as failed:
            act()
        assert "\n" not in str(failed.value)


@pytest.fixture
def strict(s3: str) -> Iterator[None]:
    """The server knows nobody."""
    httpx.post(f"{s3}/moto-api/reset-auth", content="0").raise_for_status()
    yield
    httpx.post(f"{s3}/moto-api/reset-auth", content="inf").raise_for_status()


def test_wrong_credentials_are_said_in_a_sentence_that_does_not_hold_them(
    bucket: str, tmp_path: Path, strict: None
) -> None:
    files = store.opened(bucket)
    (tmp_path / "here").write_bytes(b"content")
    acts = (lambda: files.read("a"), lambda: files.names("a"), lambda: files.put("a", tmp_path / "here"))
    for act in acts:
        with pytest.raises(StoreError, match="refuses our credentials: set AWS_ACCESS_KEY_ID") as failed:
            act()
        assert "secret-of-the-tester" not in str(failed.value)


def test_a_server_that_is_away_is_said_in_a_sentence(s3: str) -> None:
    with pytest.raises(StoreError, match=r"s3://bucket/prefix can't be reached: check"):
        store.opened("s3://bucket/prefix?endpoint=http://127.0.0.1:1").read("a")
