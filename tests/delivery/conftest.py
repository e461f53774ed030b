"""A served installation, and a real server on loopback in front of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from palate.delivery.application import configuration, create_app
from palate.delivery.context import ServerParams, Serving, ServingParams, open_serving

Serve = Callable[[ASGIApp], AbstractContextManager[httpx.Client]]


@pytest.fixture
def open_data(migrated_url: str | None, data: Path) -> Callable[[ServerParams], AbstractContextManager[Serving]]:
    """Opens an installation, empty at first, with these ServerParams."""
    return lambda server: open_serving(data, migrated_url, ServingParams(server=server))


@pytest.fixture
def serving(open_data: Callable[[ServerParams], AbstractContextManager[Serving]]) -> Iterator[Serving]:
    """An empty installation that listens on loopback, so without keys."""
    with open_data(ServerParams()) as serving:
        yield serving


class Switch:
    """Stands for the application of the moment, so that one server does for all tests."""

    def __init__(self) -> None:
        self.app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.app is not None, "a test has to say what is served"
        await self.app(scope, receive, send)


@pytest.fixture(scope="session")
def server() -> Iterator[tuple[Switch, str]]:
    """A real server on loopback: what it serves can be switched; with its address."""
    switch = Switch()
    server = uvicorn.Server(configuration(switch, ServerParams(port=0)))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server has to start"
        time.sleep(0.005)
    yield switch, f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def serve(server: tuple[Switch, str]) -> Serve:
    """Serves an application for as long as the block runs, and gives a client of it."""
    switch, address = server

    @contextmanager
    def serving(app: ASGIApp) -> Iterator[httpx.Client]:
        switch.app = app
        with httpx.Client(base_url=address, timeout=30) as client:
            yield client
        switch.app = None

    return serving


@pytest.fixture
def client(serving: Serving, serve: Serve) -> Iterator[httpx.Client]:
    """A client of a real server in front of the empty installation."""
    with serve(create_app({"": serving})) as client:
        yield client
