"""The object store that several machines share: files by name under one address, each whole or not there.

`s3://bucket/prefix` is read and written through Arrow, with the credentials that the environment holds (AWS_ACCESS_KEY_ID …);
`file:///folder` is a folder that all machines mount.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import parse_qsl, urlsplit

from palate.errors import SettingsError, StoreError

CHUNK = 16_000_000
"""Bytes that are moved at a time."""

CONNECT_SECONDS, ANSWER_SECONDS, ATTEMPTS = 5, 60, 3
"""What an object store gets before it counts as gone."""

_OPTIONS = {"endpoint": "endpoint_override", "region": "region"}


class Store(Protocol):
    """What may be done with the files; names have `/` between their parts. All raise StoreError."""

    @property
    def address(self) -> str:
        """As messages name it."""

    def check(self) -> None:
        """Whether there is such a store."""

    def read(self, name: str) -> bytes | None:
        """What a small file holds; None when there is none."""

    def write(self, name: str, content: bytes) -> None:
        """Put a small file in the place of what was there."""

    def put(self, name: str, source: Path) -> None:
        """Bring a file into the store; it is durable and whole there when this returns."""

    def get(self, name: str, target: Path) -> None:
        """Bring a file out of the store, durably. Raises FileNotFoundError when there is none."""

    def copy(self, name: str, to: str) -> None:
        """Give a file a second name without moving it through this machine, where the store can."""

    def delete(self, name: str) -> None:
        """Remove a file; one that is gone already is no error."""

    def names(self, under: str) -> list[str]:
        """All files whose name begins with `under/`, in order."""

    def stamps(self) -> dict[str, str]:
        """All files, in order, with what changes when one of them does."""


@cache
def opened(address: str) -> Store:
    """The store at an address; one for a process. Raises SettingsError for an address that isn't one, StoreError."""
    parts = urlsplit(address)
    if parts.scheme == "file" and not parts.netloc and parts.path.strip("/") and not parts.query:
        return Folder(Path(parts.path))
    if parts.scheme != "s3" or not parts.netloc or set(dict(parse_qsl(parts.query))) - set(_OPTIONS):
        raise SettingsError(
            "The store's address isn't one: it is like s3://bucket/prefix, with ?endpoint=http://host:port for one that is "
            "not Amazon's, or file:///folder."
        )
    if "@" in parts.netloc:
        raise SettingsError(
            "The store's address must not hold credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )
    root = f"{parts.netloc}/{parts.path.strip('/')}".rstrip("/")
    return Bucket(root, _s3(dict(parse_qsl(parts.query))))


def _s3(options: dict[str, str]) -> Any:
    from pyarrow import fs

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    known = {_OPTIONS[name]: value for name, value in ({"endpoint": endpoint or ""} | options).items() if value}
    return fs.S3FileSystem(
        **known,
        connect_timeout=CONNECT_SECONDS,
        request_timeout=ANSWER_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        allow_delayed_open=True,  # a small file is one request
    )


@dataclass(frozen=True)
class Folder:
    """A folder that all machines mount."""

    root: Path

    @property
    def address(self) -> str:
        return f"file://{self.root}"

    def check(self) -> None:
        if not self.root.is_dir():
            raise StoreError(f"The store {self.address} isn't there: make or mount the folder.")

    def read(self, name: str) -> bytes | None:
        with _explained_folder(self):
            try:
                return (self.root / name).read_bytes()
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        self.check()  # an unmounted place must not fill up beside the store
        with _explained_folder(self), _replacing(self.root / name) as stream:
            stream.write(content)

    def put(self, name: str, source: Path) -> None:
        self.check()
        with _explained_folder(self), source.open("rb") as content, _replacing(self.root / name) as stream:
            shutil.copyfileobj(content, stream, CHUNK)

    def get(self, name: str, target: Path) -> None:
        with _explained_folder(self), (self.root / name).open("rb") as content, _replacing(target) as stream:
            shutil.copyfileobj(content, stream, CHUNK)

    def copy(self, name: str, to: str) -> None:
        self.put(to, self.root / name)

    def delete(self, name: str) -> None:
        with _explained_folder(self):
            (self.root / name).unlink(missing_ok=True)
        with suppress(OSError):  # other files are left in it
            (self.root / name).parent.rmdir()

    def names(self, under: str) -> list[str]:
        self.check()
        with _explained_folder(self):
            files = [path for path in (self.root / under).rglob("*") if path.suffix != ".new" and path.is_file()]
        return sorted(path.relative_to(self.root).as_posix() for path in files)

    def stamps(self) -> dict[str, str]:
        names = self.names(".")
        with _explained_folder(self):
            states = [(self.root / name).stat() for name in names]
        return {name: f"{state.st_size}-{state.st_mtime_ns}" for name, state in zip(names, states, strict=True)}


@dataclass(frozen=True)
class Bucket:
    """A bucket of an object store, or what lies under a prefix in it."""

    root: str
    """Bucket and prefix."""
    system: Any
    """Arrow's file system."""

    @property
    def address(self) -> str:
        return f"s3://{self.root}"

    def check(self) -> None:
        from pyarrow import fs

        with _explained_bucket(self):
            if self.system.get_file_info(self._bucket).type == fs.FileType.NotFound:
                raise OSError("NO_SUCH_BUCKET")

    def read(self, name: str) -> bytes | None:
        with _explained_bucket(self):
            try:
                with self.system.open_input_stream(self._path(name), compression=None) as stream:
                    return bytes(stream.read())
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        with _explained_bucket(self), self.system.open_output_stream(self._path(name), compression=None) as stream:
            stream.write(content)

    def put(self, name: str, source: Path) -> None:
        with _explained_bucket(self):
            with (
                source.open("rb") as content,
                self.system.open_output_stream(self._path(name), compression=None) as stream,
            ):
                shutil.copyfileobj(content, stream, CHUNK)
            # A stream that broke off is closed as if it had been whole.
            if self.system.get_file_info(self._path(name)).size != source.stat().st_size:
                raise OSError(f"{name} did not arrive whole")

    def get(self, name: str, target: Path) -> None:
        with (
            _explained_bucket(self),
            self.system.open_input_file(self._path(name)) as content,
            _replacing(target) as stream,
        ):
            shutil.copyfileobj(content, stream, CHUNK)
            if stream.tell() != content.size():
                raise OSError(f"{name} did not come whole")

    def copy(self, name: str, to: str) -> None:
        with _explained_bucket(self):
            self.system.copy_file(self._path(name), self._path(to))

    def delete(self, name: str) -> None:
        with _explained_bucket(self):
            try:
                self.system.delete_file(self._path(name))
            except FileNotFoundError:
                return

    def names(self, under: str) -> list[str]:
        from pyarrow import fs

        with _explained_bucket(self):
            found = self.system.get_file_info(fs.FileSelector(self._path(under), allow_not_found=True, recursive=True))
        return sorted(info.path[len(self.root) + 1 :] for info in found if info.type == fs.FileType.File)

    def stamps(self) -> dict[str, str]:
        from pyarrow import fs

        self.check()
        with _explained_bucket(self):
            found = self.system.get_file_info(fs.FileSelector(self.root, allow_not_found=True, recursive=True))
        files = sorted((info.path, info) for info in found if info.type == fs.FileType.File)
        return {path[len(self.root) + 1 :]: f"{info.size}-{info.mtime_ns}" for path, info in files}

    @property
    def _bucket(self) -> str:
        return self.root.split("/")[0]

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file that takes its place when the block has ended well, and is on the disk then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    try:
        with fresh.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        fresh.rename(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _explained_folder(store: Store) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"The store {store.address} can't be used: {error.strerror or error}.") from error


@contextmanager
def _explained_bucket(store: Store) -> Iterator[None]:
    """What an object store's client says, in one sentence that says what to do and holds no credentials."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"The store {store.address} {_reason(str(error))}.") from error


def _reason(said: str) -> str:
    if "NO_SUCH_BUCKET" in said:
        return "isn't there: make the bucket first"
    if any(
        word in said for word in ("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "status 403")
    ):
        return (
            "refuses our credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of one who may read and write it"
        )
    if "NETWORK_CONNECTION" in said:
        return "can't be reached: check its endpoint and the network"
    return f"can't be used: {said.split(' (Request ID')[0].splitlines()[0].rstrip('.')}"
