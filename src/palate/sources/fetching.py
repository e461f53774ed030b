"""One GET over HTTP that trusts nothing: private addresses, endless answers, bombs and redirects are all bounded here."""

from __future__ import annotations

import re
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Annotated

import httpcore
import httpx
import msgspec

from palate.errors import AnswerTooLarge, FetchFailed
from palate.sources.addresses import CheckedBackend, parse_address

LONGEST_WAIT = 86_400.0
"""Seconds: a server that asks for more patience than a day is asked again after a day."""

LEAST_PAUSES = {"t.me": 1.0}
"""Seconds between requests to hosts that are asked gently whatever the settings say."""

_PERMANENT = (301, 308)
_REDIRECTS = (301, 302, 303, 307, 308)
_GZIP = 16 + zlib.MAX_WBITS
_PIECE = 65_536
_MAX_VALIDATOR = 1000  # characters of an ETag that we store and send back


class FetchParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How we ask other servers, and how much of them we take."""

    user_agent: str = "Palate/0.1 (self-hosted feed reader)"
    """Sent with each request; its part before the first `/` is the name we look for in robots.txt."""
    connect_timeout: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    """Seconds to reach a server, its TLS handshake included."""
    read_timeout: Annotated[float, msgspec.Meta(gt=0)] = 20.0
    """Seconds without a byte after which an answer is given up."""
    total_timeout: Annotated[float, msgspec.Meta(gt=0)] = 60.0
    """Seconds for one whole answer; after a redirect they begin anew."""
    max_bytes: Annotated[int, msgspec.Meta(ge=1024)] = 5 * 1024 * 1024
    """Bytes of one answer, before and after decompression."""
    max_redirects: Annotated[int, msgspec.Meta(ge=0)] = 5
    """Redirects that are followed for one address."""
    pause: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    """Seconds between the end of one request to a host and the start of the next."""
    allow_private: bool = False
    """Whether loopback, private and link-local addresses may be asked: only where you trust every subscriber."""


@dataclass(frozen=True)
class Answer:
    """What a server answered, decompressed. Texts are None where the server didn't say."""

    status: int
    body: bytes
    address: str
    """Where the answer came from, after all redirects."""
    permanent_address: str | None = None
    """The new address when there were redirects and every one was permanent."""
    content_type: str | None = None
    etag: str | None = None
    last_modified: str | None = None
    max_age: float | None = None
    """Seconds for which the server says the answer stays good."""

    @property
    def not_modified(self) -> bool:
        """Whether nothing has changed since the ETag or time that was sent along."""
        return self.status == HTTPStatus.NOT_MODIFIED


class Fetcher:
    """Asks servers, politely: one request at a time to a host, with a pause between two. May be shared by threads."""

    def __init__(self, params: FetchParams, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.params = params
        self.clock = clock
        self._tls = httpx.create_ssl_context(trust_env=False)
        self._turns = _Turns(params.pause)

    def get(
        self, address: str, etag: str | None = None, last_modified: str | None = None, accept: str = "*/*"
    ) -> Answer:
        """The answer of a GET, redirects followed, each target checked like the first address.

        With `etag` or `last_modified` of an earlier answer it may be `not_modified`, with an empty body. Raises
        FetchRefused (an address that we won't ask), AnswerTooLarge, and FetchFailed for everything else.
        """
        headers = _request_headers(self.params.user_agent, accept, etag, last_modified)
        url, permanent, asked = parse_address(address), True, None
        for hop in range(self.params.max_redirects + 1):
            with self._turns.of(url.host, same_visit=url.host == asked):
                answer, target = self._ask(url, headers)
            if target is None:
                return replace(answer, permanent_address=answer.address if hop and permanent else None)
            permanent = permanent and answer.status in _PERMANENT
            asked, url = url.host, target
        raise FetchFailed(f"{url.host} redirects more than {self.params.max_redirects} times: check the address.")

    def _ask(self, url: httpx.URL, headers: Mapping[str, str]) -> tuple[Answer, httpx.URL | None]:
        """One request: its answer, and where it redirects to (None: nowhere)."""
        params = self.params
        backend = CheckedBackend(time.monotonic() + params.total_timeout, params.allow_private)
        timeouts = {"connect": params.connect_timeout, "read": params.read_timeout, "write": params.read_timeout}
        try:
            with (
                httpcore.ConnectionPool(ssl_context=self._tls, network_backend=backend) as pool,
                pool.stream(
                    "GET", str(url), headers=list(headers.items()), extensions={"timeout": timeouts}
                ) as response,
            ):
                return self._read(url, response)
        except httpcore.TimeoutException as error:
            raise FetchFailed(f"{url.host} did not answer in time.") from error
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            raise FetchFailed(f"{url.host} could not be reached or broke off: {_cause(error)}.") from error

    def _read(self, url: httpx.URL, response: httpcore.Response) -> tuple[Answer, httpx.URL | None]:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        if response.status in _REDIRECTS and headers.get("location"):
            return Answer(status=response.status, body=b"", address=str(url)), _target(url, headers["location"])
        if response.status == HTTPStatus.NOT_MODIFIED:
            return _answer(url, response.status, headers, b""), None
        if not 200 <= response.status < 300:
            raise _error_status(url, response.status, _retry_after(headers.get("retry-after"), self.clock()))
        encoding = headers.get("content-encoding", "").strip().lower()
        try:
            body = b"".join(_decompressed(response.iter_stream(), encoding, self.params.max_bytes))
        except zlib.error as error:
            raise FetchFailed(f"{url.host} sent an answer whose compression is broken.") from error
        except AnswerTooLarge as error:
            raise AnswerTooLarge(f"The answer of {url.host} {error}") from None
        return _answer(url, response.status, headers, body), None


@dataclass
class _Host:
    """One host's queue. `free_at` is in seconds of `time.monotonic`."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0
    free_at: float = 0.0


class _Turns:
    """Who may ask which host when. It remembers only hosts that are in use, or were so within the last pause."""

    def __init__(self, pause: float) -> None:
        self._pause = pause
        self._lock = threading.Lock()
        self._hosts: dict[str, _Host] = {}

    @contextmanager
    def of(self, name: str, same_visit: bool) -> Iterator[None]:
        """Wait for the host's turn and hold it. A redirect within one host is the `same_visit`: no pause before it."""
        host = self._enter(name)
        try:
            with host.lock:
                if not same_visit:
                    time.sleep(max(0.0, host.free_at - time.monotonic()))
                try:
                    yield
                finally:
                    host.free_at = time.monotonic() + max(self._pause, LEAST_PAUSES.get(name, 0.0))
        finally:
            with self._lock:
                host.users -= 1

    def _enter(self, name: str) -> _Host:
        with self._lock:
            now = time.monotonic()
            for old in [other for other, host in self._hosts.items() if not host.users and host.free_at <= now]:
                del self._hosts[old]
            host = self._hosts.setdefault(name, _Host())
            host.users += 1
            return host


def _request_headers(user_agent: str, accept: str, etag: str | None, last_modified: str | None) -> dict[str, str]:
    headers = {"User-Agent": user_agent, "Accept": accept, "Accept-Encoding": "gzip, deflate", "Connection": "close"}
    if _validator(etag):
        headers["If-None-Match"] = str(etag)
    if _validator(last_modified):
        headers["If-Modified-Since"] = str(last_modified)
    return headers


def _validator(value: str | None) -> str | None:
    """The value when it can be sent back in a header; it may come from a stored state, so it is checked both ways."""
    return value if value and len(value) <= _MAX_VALIDATOR and value.isascii() and value.isprintable() else None


def _target(url: httpx.URL, location: str) -> httpx.URL:
    with suppress(UnicodeError):  # servers that send raw bytes here nearly always mean UTF-8
        location = location.encode("latin-1").decode("utf-8")
    try:
        return parse_address(str(url.join(location)))
    except (httpx.InvalidURL, ValueError) as error:
        raise FetchFailed(f"{url.host} redirects to something that isn't an address.") from error


def _answer(url: httpx.URL, status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    return Answer(
        status=status,
        body=body,
        address=str(url),
        content_type=headers.get("content-type"),
        etag=_validator(headers.get("etag")),
        last_modified=_validator(headers.get("last-modified")),
        max_age=_max_age(headers.get("cache-control", "")),
    )


def _max_age(cache_control: str) -> float | None:
    found = re.search(r"\bmax-age\s*=\s*\"?(\d{1,9})\b", cache_control, re.IGNORECASE)
    return float(found[1]) if found else None


def _retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds to wait, from seconds or an HTTP date, at most a day. None when it says nothing sensible."""
    value = (value or "").strip()
    if re.fullmatch(r"[0-9]+", value):
        return min(float(value[:300]), LONGEST_WAIT)
    try:
        time = parsedate_to_datetime(value)
        wait = (time if time.tzinfo else time.replace(tzinfo=UTC)) - now
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(max(wait.total_seconds(), 0.0), LONGEST_WAIT)


def _error_status(url: httpx.URL, status: int, retry_after: float | None) -> FetchFailed:
    try:
        phrase = f" ({HTTPStatus(status).phrase})"
    except ValueError:
        phrase = ""
    return FetchFailed(f"{url.host} answered {status}{phrase}.", status, retry_after)


def _cause(error: Exception) -> str:
    return str(error).strip().rstrip(".")[:200] or type(error).__name__


def _decompressed(pieces: Iterable[bytes], encoding: str, limit: int) -> Iterator[bytes]:
    """The pieces of a body, at most `limit` bytes before and after. Raises AnswerTooLarge, FetchFailed, zlib.error."""
    raw = _counted(pieces, limit, "before")
    if encoding in ("", "identity"):
        return raw
    if encoding in ("gzip", "x-gzip"):
        return _counted(_gunzipped(raw), limit, "after")
    if encoding == "deflate":
        return _counted(_inflated(raw), limit, "after")
    raise FetchFailed(f"The answer is compressed as {encoding[:40]!r}, which was not asked for.")


def _counted(pieces: Iterable[bytes], limit: int, when: str) -> Iterator[bytes]:
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > limit:
            raise AnswerTooLarge(f"has more than {limit:,} bytes {when} decompression.")
        yield piece


def _gunzipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Gzip may be several members one after another; whatever else follows one is padding."""
    member, begun = zlib.decompressobj(_GZIP), False
    for piece in pieces:
        while piece:
            if member.eof:
                if piece[0] != 0x1F:
                    return
                member = zlib.decompressobj(_GZIP)
            begun = True
            yield from _expanded(member, piece)
            piece = member.unused_data
    if begun:
        yield _rest(member)


def _inflated(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """`deflate` should have a zlib header, but some servers leave it out: the first byte tells."""
    stream = None
    for piece in filter(None, pieces):
        stream = stream or zlib.decompressobj(zlib.MAX_WBITS if piece[0] & 0x0F == 8 else -zlib.MAX_WBITS)
        yield from _expanded(stream, piece)
    if stream:
        yield _rest(stream)


def _expanded(stream: zlib._Decompress, piece: bytes) -> Iterator[bytes]:
    # One network read may inflate a thousandfold, so it comes out in small pieces that the caller counts.
    while piece and not stream.eof:
        yield stream.decompress(piece, _PIECE)
        piece = stream.unconsumed_tail


def _rest(stream: zlib._Decompress) -> bytes:
    rest = stream.flush()
    if not stream.eof:
        raise zlib.error("cut short")
    return rest
