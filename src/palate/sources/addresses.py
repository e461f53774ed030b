"""Which addresses we may ask, and a connection that goes to the very address that was checked."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Iterable
from typing import Any

import httpcore
import httpx

from palate.errors import FetchFailed, FetchRefused

MAX_ADDRESS_LENGTH = 4000

_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the open internet. IPv6 forms that carry an IPv4 address are judged by it.

    >>> is_public("93.184.215.14"), is_public("10.0.0.1"), is_public("64:ff9b::a00:1"), is_public("::ffff:93.184.215.14")
    (True, False, False, False)
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv4Address):
        return ip.is_global and not ip.is_multicast and not ip.is_reserved
    if ip.scope_id is not None:
        return False
    if ip in _NAT64:
        return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
    if ip.sixtofour is not None:
        return is_public(str(ip.sixtofour))
    return ip in _GLOBAL_UNICAST and ip.is_global


def parse_address(address: str) -> httpx.URL:
    """The address as a URL that may be asked, without its fragment. Raises FetchRefused with the rule it breaks."""
    if len(address) > MAX_ADDRESS_LENGTH:
        raise FetchRefused(f"The address is longer than {MAX_ADDRESS_LENGTH} characters.")
    try:
        url = httpx.URL(address.strip())
    except (httpx.InvalidURL, ValueError, UnicodeError) as error:
        raise FetchRefused(f"{address[:200]!r} isn't a web address.") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise FetchRefused(f"{address[:200]!r} isn't a web address: it must begin with http:// or https://.")
    if url.port is not None and not 0 < url.port < 65536:
        raise FetchRefused(f"{address[:200]!r} names a port that doesn't exist.")
    if url.userinfo:
        raise FetchRefused(f"The address of {url.host} holds a user name or password: take them out.")
    return url.copy_with(fragment=None)


class CheckedBackend(httpcore.NetworkBackend):
    """Connects for one request only: resolves the name once, refuses private addresses, and ends by the deadline.

    Between check and connection the name is not resolved again, so a DNS answer that changes in between can't win.
    `deadline` is in seconds of `time.monotonic`.
    """

    def __init__(self, deadline: float, allow_private: bool) -> None:
        self._sockets = httpcore.SyncBackend()
        self._deadline = deadline
        self._allow_private = allow_private

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        failure: httpcore.NetworkError | httpcore.TimeoutException | None = None
        for ip in resolve(host, port, self._allow_private):
            try:
                stream = self._sockets.connect_tcp(
                    ip, port, _remaining(timeout, self._deadline), local_address, socket_options
                )
                return _DeadlineStream(stream, self._deadline)
            except (httpcore.NetworkError, httpcore.ConnectTimeout) as error:
                failure = error
        assert failure is not None, "resolve() gives at least one address"
        raise failure


def resolve(host: str, port: int, allow_private: bool) -> list[str]:
    """Every IP address of a name, in the resolver's order; at least one.

    Raises FetchFailed when the name has none, FetchRefused when any of them isn't public (unless `allow_private`): a name
    that mixes both is an attack, or a mistake that would reach another machine each time.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise FetchFailed(f"The name {host[:200]} can't be found: check the address, or try again later.") from error
    ips = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not allow_private and not all(map(is_public, ips)):
        raise FetchRefused(f"{host[:200]} lies in a private network, which the settings don't allow to ask.")
    return ips


class _DeadlineStream(httpcore.NetworkStream):
    """A stream on which nothing lasts beyond the deadline: a server that dribbles can't keep us."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _remaining(timeout, self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _remaining(timeout, self._deadline))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = _remaining(timeout, self._deadline)
        return _DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, left), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _remaining(timeout: float | None, deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout
    return left if timeout is None else min(timeout, left)
