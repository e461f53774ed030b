"""Who may ask: host names, foreign pages, API keys, signed cookies, and the headers that browsers obey."""

from __future__ import annotations

import hashlib
import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from itsdangerous import BadSignature, URLSafeTimedSerializer

from palate.people import ApiKey

COOKIE_DAYS = 400  # browsers keep none for longer
KEY_SECONDS = 5.0
"""For how long a checked API key is believed without asking the database: a revoked one works no longer than this."""
KEYS_KEPT = 1000

HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' https: data:; media-src 'self' https:; style-src 'self'; script-src 'self'; "
        b"object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""Sent with every answer."""


def is_loopback(host: str) -> bool:
    """Whether a host name or address, without port, can only mean this machine."""
    host = host.strip("[]").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def asks_for_keys(host: str, names: Iterable[str]) -> bool:
    """Whether the API needs keys: as soon as anybody but this machine may reach it."""
    return not is_loopback(host) or any(not is_loopback(name) for name in names)


@lru_cache(maxsize=100)  # a server is asked by one or two names, many times a second
def host_allowed(header: str | None, listens_on: str, names: tuple[str, ...]) -> bool:
    """Whether a request's Host header names this server.

    A page elsewhere can point its own name at a loopback address; the browser then takes this server for that page's own.
    """
    host = host_name(header or "")
    if host is None:
        return False
    named = [name.lower() for name in names]
    if named:
        return host in named or is_loopback(host)
    return is_loopback(host) or not is_loopback(listens_on)


def host_name(header: str) -> str | None:
    """The name in a Host header, lower case and without its port. None when there is none."""
    try:
        return urlsplit(f"//{header}").hostname
    except ValueError:
        return None


def from_another_site(host: str | None, fetch_site: str | None, origin: str | None) -> bool:
    """Whether a browser sent this request on behalf of another site's page.

    `Sec-Fetch-Site` decides where it is sent; `Origin` against `Host` where not. Programs send neither.
    """
    if fetch_site is not None:
        return fetch_site not in ("same-origin", "none")
    if origin is None:
        return False
    try:
        return urlsplit(origin).netloc.lower() != (host or "").lower()
    except ValueError:
        return True


def api_key(authorization: str | None, x_api_key: str | None) -> str | None:
    """The API key that a request carries: `Authorization: Bearer KEY` or `X-API-Key: KEY`."""
    scheme, _, key = (authorization or "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    return x_api_key or None


class KeyCache:
    """API keys that were found good a moment ago, by their hash. Bounded, and safe to use from threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._found: OrderedDict[bytes, tuple[float, ApiKey]] = OrderedDict()

    def get(self, token: str) -> ApiKey | None:
        """The key; None when it was not checked within the last seconds."""
        with self._lock:
            until, key = self._found.get(_digest(token), (0.0, None))
        return key if self._clock() < until else None

    def put(self, token: str, key: ApiKey) -> None:
        """Remember a key that was just found good."""
        with self._lock:
            self._found[_digest(token)] = self._clock() + KEY_SECONDS, key
            self._found.move_to_end(_digest(token))
            while len(self._found) > KEYS_KEPT:
                self._found.popitem(last=False)


def sign_person(user: str, secret: bytes) -> str:
    """The value of the cookie that says who somebody is."""
    return _signer(secret).dumps(user)


def signed_person(cookie: str | None, secret: bytes) -> str | None:
    """The user id in a cookie. None when there is none, or when it was not signed here, or too long ago."""
    if not cookie:
        return None
    try:
        user = _signer(secret).loads(cookie, max_age=COOKIE_DAYS * 86_400)
    except BadSignature:
        return None
    return user if isinstance(user, str) else None


def _signer(secret: bytes) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(secret, salt="palate.person")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
