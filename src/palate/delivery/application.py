"""The whole server: web pages and API of one or several installations under path prefixes, and how to run it."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

import uvicorn
from msgspec.structs import replace
from starlette.types import ASGIApp, Receive, Scope, Send

from palate.delivery import security
from palate.delivery.api import create_api
from palate.delivery.connections import connections
from palate.delivery.context import Play, ServerParams, Serving, ServingParams, open_serving
from palate.delivery.gorse import create_gorse
from palate.delivery.observing import fields, observed, refuse
from palate.delivery.refusals import Refusal
from palate.delivery.shared_figures import Worker
from palate.delivery.web import create_pages
from palate.delivery.workers import run_workers
from palate.errors import SettingsError

BACKLOG = 2048
GORSE_PATH = "/api/"
API_PATHS = ("/v1/", "/add_event", "/get_rates", "/healthz", "/readyz", "/metrics", "/openapi.json")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class Installation:
    """A data folder to serve under a prefix; `sample` marks the demo's own content, `play` what it is played on."""

    prefix: str
    data: Path
    sample: bool = False
    play: Play | None = None


def create_app(servings: Mapping[str, Serving]) -> ASGIApp:
    """The application that serves each installation under its prefix: "" is the root, "/own" everything below /own."""
    assert "" in servings, "one installation has to be at the root"
    assert all(not prefix or (prefix[0] == "/" and prefix[-1] != "/") for prefix in servings), "a prefix is like /own"
    apps = {
        prefix: installation(dataclasses.replace(serving, other=_beside(servings, prefix)), prefix)
        for prefix, serving in servings.items()
    }
    longest_first = sorted(apps, key=len, reverse=True)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http", "uvicorn is told to send nothing else"
        prefix = next(p for p in longest_first if not p or scope["path"] == p or scope["path"].startswith(p + "/"))
        await apps[prefix](dict(scope, root_path=prefix), receive, send)

    return app


def _beside(prefixes: Iterable[str], prefix: str) -> str | None:
    """The first prefix that isn't this one; None when it is alone."""
    return next((each for each in prefixes if each != prefix), None)


def installation(serving: Serving, prefix: str) -> ASGIApp:
    """API and web pages of one installation; a request's scope says by `root_path` where it is mounted."""
    api, gorse, pages = create_api(serving, prefix), create_gorse(serving), create_pages(serving)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix(prefix)
        asked = gorse if path.startswith(GORSE_PATH) else api if path.startswith(API_PATHS) else pages
        await asked(scope, receive, send)

    return observed(guarded(app, serving.params.server), serving)


def guarded(app: ASGIApp, server: ServerParams) -> ASGIApp:
    """The application, closed to foreign host names and to what other sites' pages ask for."""

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        refused = _refused(scope, fields(scope), server)
        if refused is not None:
            await refuse(refused, send)
        else:
            await app(scope, receive, send)

    return guard


def _refused(scope: Scope, headers: Mapping[str, str], server: ServerParams) -> Refusal | None:
    host = headers.get("host")
    if not security.host_allowed(host, server.host, server.names):
        return Refusal(403, "foreign_host", "This server is not known by this name; the setting server.names adds it.")
    # Reading a feed uses it up, so the whole API is closed to other sites, the pages only where they change something.
    changes = scope["method"] not in SAFE_METHODS or any(path in scope["path"] for path in ("/v1/", GORSE_PATH))
    if changes and security.from_another_site(host, headers.get("sec-fetch-site"), headers.get("origin")):
        return Refusal(403, "foreign_site", "A page of another site may not do this.")
    return None


def run(
    installations: Sequence[Installation],
    database_url: str | None,
    params: ServingParams,
    *,
    host: str,
    port: int,
    workers: int = 1,
    set_up: Callable[[], object] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, in this process or in several that share one address.

    `set_up` is called first in each further process, where logging is not yet what it is here. Raises SettingsError when
    the address can't be listened on.
    """
    if len(installations) > 1 and database_url is not None:
        raise SettingsError(
            "Two installations can't share one database: leave database_url out, each then has its own."
        )
    params = replace(params, server=replace(params.server, host=host, port=port, workers=workers))
    with listen(host, port) as listener:
        if workers == 1:
            _work(installations, database_url, params, None, None, [listener], 0)
        else:
            with TemporaryDirectory(prefix="palate-workers-") as folder:
                work = partial(_work, installations, database_url, params, set_up, Path(folder))
                run_workers(work, listener, workers)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises SettingsError with the reason when there can't be one."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(f"Can't listen on {host}:{port}: {reason}; --port takes another.") from error


def _work(
    installations: Sequence[Installation],
    database_url: str | None,
    params: ServingParams,
    set_up: Callable[[], object] | None,
    figures: Path | None,
    sockets: list[socket.socket],
    place: int,
) -> None:
    if set_up is not None:
        set_up()
    with ExitStack() as stack:
        servings = {
            one.prefix: stack.enter_context(
                open_serving(
                    one.data,
                    database_url,
                    params,
                    sample=one.sample,
                    play=one.play,
                    worker=_worker(figures, number, place),
                )
            )
            for number, one in enumerate(installations)
        }
        speaking = connections(servings[""])
        settle()
        Server(configuration(create_app(servings), params.server, speaking), servings.values()).run(sockets)


def settle() -> None:
    """Let the garbage collector look no more at what stays as long as this process: a look at all of it takes 0.1 s."""
    gc.collect()
    gc.freeze()


class Server(uvicorn.Server):
    """uvicorn's, which says that it is about to stop before it does."""

    def __init__(self, config: uvicorn.Config, servings: Iterable[Serving]) -> None:
        super().__init__(config)
        self._servings = list(servings)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop after the time to drain; at once when told a second time."""
        seconds = self._servings[0].params.server.drain_seconds
        told = self._servings[0].readiness.stopping
        for serving in self._servings:
            serving.readiness.stopping = True
        if told or not seconds:
            super().handle_exit(sig, frame)
        else:
            threading.Timer(seconds, super().handle_exit, (sig, frame)).start()


def _worker(figures: Path | None, installation: int, place: int) -> Worker | None:
    if figures is None:
        return None
    folder = figures / str(installation)
    folder.mkdir(exist_ok=True)
    return Worker(place, folder)


def configuration(app: ASGIApp, server: ServerParams, speaking: type[asyncio.Protocol] | None = None) -> uvicorn.Config:
    """How uvicorn runs the application: its own logs, lifespan and web sockets off, forwarded headers not believed.

    `speaking` is how it speaks with clients, None its own way.
    """
    return uvicorn.Config(
        app,
        http=speaking or "auto",
        host=server.host,
        port=server.port,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=server.connections,
        timeout_graceful_shutdown=10,
    )
