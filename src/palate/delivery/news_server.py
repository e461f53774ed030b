"""`tgnews server`: articles in and out by name, and their stories, as the second round of the Data Clustering Contest asked.

    PUT /{name}       a page, with `Cache-Control: max-age=SECONDS`
    DELETE /{name}
    GET /threads      ?period=SECONDS&lang_code=en|ru&category=any|society|…

Requests are answered by one thread; a process reads the pages (`news_reading`), one thread makes them durable (`news_keeping`),
another process follows the stories (`news_threads`), out of which requests are answered (`news_answers`).
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qsl

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from palate import database
from palate.delivery.news_answers import ANY, State
from palate.delivery.news_keeping import Change, Keeping, Kept, deleted, load
from palate.delivery.news_reading import ReadingProcess
from palate.delivery.news_threads import FollowingProcess
from palate.delivery.security import from_another_site, host_allowed
from palate.domain import MAX_ID_LENGTH
from palate.errors import DatabaseError, NotDurable, ProcessDied, SettingsError
from palate.news import NewsParams
from palate.sources.article_files import MAX_BYTES
from palate.stories.importance import ImportanceParams
from palate.text.category import CATEGORIES, LANGUAGES

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
"""Nobody is asked for a key, so nobody but this machine is answered."""
MAX_BODY = 16 * 1024 * 1024
"""Bytes of a page; of one with more than MAX_BYTES the beginning is read, as in a folder."""
BODY_SECONDS = 30.0
"""Within which a page has to arrive."""
CONNECTIONS = 1000
KEEP_ALIVE = 60
"""Seconds that a connection may be idle."""
PERIODS = range(300, 2_592_001)
PAUSE = 0.3
"""Seconds between two passes over the stories, at least; and no less than the last one took."""
LOOK = timedelta(seconds=1)
"""Between two looks at what others have deleted from the catalog; so often, at most."""
OVERLAP = timedelta(seconds=60)
"""How far before the last look we look again: a transaction becomes visible later than the times it wrote."""
REST = 1.0
"""Seconds without a change after which all is weighed anew."""
SWITCH = 0.0005
"""Seconds after which a thread that computes gives way to the one that answers."""

_MAX_AGE = re.compile(r"max-age\s*=\s*\"?(\d{1,10})\"?")
_BAD_NAMES = (".", "..")
_PLAIN = [(b"content-type", b"text/plain; charset=utf-8")]
_JSON = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
_CLOSE = [(b"connection", b"close")]  # the rest of a page that we won't read
Headers = list[tuple[bytes, bytes]]


class Refused(Exception):
    """A request that is answered with a status and a sentence."""

    def __init__(self, status: int, sentence: str, headers: Headers | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = headers or []


class Newsroom:
    """All that the server holds. Pages are taken once it has loaded what it held before."""

    def __init__(self, data: Path, process: ReadingProcess, following: FollowingProcess) -> None:
        self._engine = database.connect(None, data)
        database.migrate(self._engine)
        self._process = process
        self._following = following
        self.state = State(ImportanceParams())
        """The stories as of the last pass."""
        self._changes: dict[int, Kept | None] = {}
        self._arrived = threading.Condition()
        self._stopped = False
        self._looked = datetime.now(UTC)
        self.keeping: Keeping | None = None
        """None while it is loading."""
        self._thread = threading.Thread(target=self._run, name="threads", daemon=True)

    def start(self) -> None:
        """Load in the background, then follow."""
        self._thread.start()

    def close(self) -> None:
        """Do what waits, then stop."""
        if self.keeping is not None:
            self.keeping.close()
        with self._arrived:
            self._stopped = True
            self._arrived.notify()
        self._thread.join()
        self._process.close()
        self._following.close()
        self._engine.dispose()

    def _run(self) -> None:
        try:
            known = load(self._engine)
            self.state, gone = self._following.follow({kept.key: kept for kept in known.values()})
            self.keeping = Keeping(self._engine, self._process, known, self._take)
            self._take_away(gone)
            self._follow()
        except Exception:
            log.exception("The stories can't be followed any more: start the server again.")
            self.keeping = None

    def _take(self, changes: Mapping[int, Kept | None]) -> None:
        with self._arrived:
            self._changes |= changes
            self._arrived.notify()

    def _follow(self) -> None:
        settled = False
        while not self._stopped:
            with self._arrived:
                self._arrived.wait_for(lambda: self._changes or self._stopped, REST)
                changes, self._changes = self._changes, {}
            started = time.monotonic()
            deleted = self._deleted()
            if changes or deleted or not settled:
                self.state, gone = self._following.follow(changes, deleted)
                self._take_away(gone)
            settled = not changes
            time.sleep(max(PAUSE, time.monotonic() - started))

    def _deleted(self) -> list[int]:
        """Keys of what somebody else has deleted from the catalog in the meantime."""
        now = datetime.now(UTC)
        if now - self._looked < LOOK:
            return []
        with suppress(DatabaseError):  # busy or full: the next look reaches back as far
            gone = deleted(self._engine, self._looked - OVERLAP)
            self._looked = now
            return gone
        return []

    def _take_away(self, gone: list[Kept]) -> None:
        assert self.keeping is not None, "only what was kept can go"
        for kept in gone:
            with suppress(NotDurable):  # when it stops; it expires again at the next start
                self.keeping.submit(Change(kept.document.name, expired=kept))


def serve(data: Path, port: int, params: NewsParams) -> None:
    """Serve this machine until SIGINT or SIGTERM.

    Raises SettingsError when the address can't be listened on, DatabaseError, DataFolderError.
    """
    process = ReadingProcess()
    newsroom = Newsroom(data, process, FollowingProcess(params))
    sys.setswitchinterval(SWITCH)
    with _listen(port) as listener:
        newsroom.start()
        config = uvicorn.Config(
            create_app(newsroom),
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=4,
        )
        try:
            uvicorn.Server(config).run([listener])
        finally:
            newsroom.close()


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port), backlog=2048)
    except OSError as error:
        raise SettingsError(f"Can't listen on {HOST}:{port}: {error.strerror}.") from error


def create_app(newsroom: Newsroom) -> ASGIApp:
    """The application: routes, refusals, answers."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            _check_origin(headers)
            status, body = await _answer(newsroom, scope, headers, receive)
        except Refused as refused:
            await _send(send, refused.status, str(refused).encode(), _PLAIN + refused.headers)
        except (DatabaseError, ProcessDied) as error:
            status = 503 if isinstance(error, DatabaseError) else 500
            await _send(send, status, str(error).encode(), _PLAIN)
        except Exception:
            log.exception("A request failed by a mistake of ours.")
            await _send(send, 500, b"A mistake of ours; the log says more.", _PLAIN)
        else:
            await _send(send, status, body, _JSON if body else [])

    return app


def _check_origin(headers: Mapping[str, str]) -> None:
    """Whatever page somebody has open in a browser may neither read nor change anything here."""
    named = headers.get("host")
    if not host_allowed(named, HOST, ()):
        raise Refused(403, "This server is not known by this name.", _CLOSE)
    if from_another_site(named, headers.get("sec-fetch-site"), headers.get("origin")):
        raise Refused(403, "A page of another site may not do this.", _CLOSE)


async def _send(send: Send, status: int, body: bytes, headers: Headers) -> None:
    length = [] if status == 204 else [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers + length})
    await send({"type": "http.response.body", "body": body})


async def _answer(newsroom: Newsroom, scope: Scope, headers: Mapping[str, str], receive: Receive) -> tuple[int, bytes]:
    method = scope["method"]
    if method == "GET":
        if scope["path"] != "/threads":
            raise Refused(404, "There is nothing to get here but /threads.")
        asked = _asked(scope["query_string"])
        _keeping(newsroom)
        return 200, newsroom.state.answer(*asked)
    if method not in ("PUT", "DELETE"):
        raise Refused(405, "There are PUT, DELETE and GET.", [(b"allow", b"GET, PUT, DELETE"), *_CLOSE])
    change = Change(_name(scope["path"]))
    if method == "PUT":
        seconds = _max_age(headers.get("cache-control", ""))
        change = Change(change.name, await _body(headers, receive), seconds)
    return await asyncio.wrap_future(_keeping(newsroom).submit(change)), b""


def _keeping(newsroom: Newsroom) -> Keeping:
    if newsroom.keeping is None:
        raise Refused(503, "What was held before is being loaded: try again in a second.", [(b"retry-after", b"1")])
    return newsroom.keeping


def _name(path: str) -> str:
    name = path.removeprefix("/")
    if not name.isprintable() or "/" in name or "\\" in name or name in _BAD_NAMES:
        raise Refused(400, "A name is a file's name: printable, without slashes.", _CLOSE)
    if not 0 < len(name) <= MAX_ID_LENGTH:
        raise Refused(400, f"A name has 1 to {MAX_ID_LENGTH} characters.", _CLOSE)
    return name


def _max_age(text: str) -> int:
    directives = [one.strip() for one in text.lower().split(",")]
    found = [match for match in map(_MAX_AGE.fullmatch, directives) if match]
    if len(found) != 1 or int(found[0][1]) < 1 or {"no-cache", "no-store"} & set(directives):
        raise Refused(400, "Say by `Cache-Control: max-age=SECONDS` how long the article is to be held.", _CLOSE)
    return int(found[0][1])


async def _body(headers: Mapping[str, str], receive: Receive) -> bytes:
    """The page, of a large one the beginning."""
    if int(headers.get("content-length", 0)) > MAX_BODY:
        raise _too_large()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _received(receive)
    except TimeoutError:
        raise Refused(408, f"An article must arrive within {BODY_SECONDS:g} s.", _CLOSE) from None


async def _received(receive: Receive) -> bytes:
    body, size, more = bytearray(), 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(400, "The article is cut short.", _CLOSE)
        part = message.get("body", b"")
        size += len(part)
        body += part[: max(0, MAX_BYTES - len(body))]
        more = message.get("more_body", False)
        if size > MAX_BODY:
            raise _too_large()
    return bytes(body)


def _too_large() -> Refused:
    return Refused(413, f"An article has at most {MAX_BODY:,} bytes.", _CLOSE)


def _asked(query: bytes) -> tuple[str, int, str]:
    """Language, period in seconds, category."""
    try:
        asked = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=100))
    except ValueError:
        asked = {}
    language, period, category = (asked.get(name, "") for name in ("lang_code", "period", "category"))
    if not (period.isascii() and period.isdecimal() and len(period) <= 10 and int(period) in PERIODS):
        raise Refused(400, f"`period` is a number of seconds from {PERIODS[0]} to {PERIODS[-1]}.")
    if language not in LANGUAGES:
        raise Refused(400, f"`lang_code` is one of {', '.join(LANGUAGES)}.")
    if category not in (ANY, *CATEGORIES):
        raise Refused(400, f"`category` is one of {', '.join((ANY, *CATEGORIES))}.")
    return language, int(period), category
