"""A real web server on the loopback address, and a fetcher that may ask it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from palate.sources.fetching import Fetcher, FetchParams

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)

Page = bytes | tuple[int, dict[str, str], bytes] | Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Site:
    """What the server answers by path: a body, (status, headers, body), or a function that writes to the handler."""

    address: str
    port: int
    pages: dict[str, Page] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Path and headers (lower-case names) of each request, in order."""

    def __setitem__(self, path: str, page: Page) -> None:
        self.pages[path] = page

    @property
    def paths(self) -> list[str]:
        return [path for path, _headers in self.requests]


@pytest.fixture
def site() -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            page = served.pages.get(self.path, (404, {}, b"not here"))
            if callable(page):
                page(self)
                return
            status, headers, body = (200, {}, page) if isinstance(page, bytes) else page
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *_args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_args: object) -> None:
            pass  # clients hang up on purpose here

    with Server(("127.0.0.1", 0), Handler) as server:
        served = Site(f"http://127.0.0.1:{server.server_port}", server.server_port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served
        server.shutdown()
        thread.join()


@pytest.fixture
def fetcher() -> Fetcher:
    """Quick, and allowed to ask the loopback address."""
    params = FetchParams(
        pause=0, allow_private=True, max_bytes=200_000, connect_timeout=2, read_timeout=0.5, total_timeout=1
    )
    return Fetcher(params, clock=lambda: NOW)
