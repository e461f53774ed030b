"""A process that understands articles for the news server, so that the one that answers requests is never kept by it."""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

import msgspec

from palate.errors import InvalidItem, ProcessDied
from palate.news import TEXT_LIMIT, Document, is_news, with_classes, with_language
from palate.sources.article_page import Page, read
from palate.text import embedding

_LENGTH = 8  # bytes that say how many follow


class Article(msgspec.Struct, frozen=True, array_like=True):
    """A page in which the news server looked for news."""

    document: Document | None = None
    """None where there is no article."""
    vector: bytes = b""
    """Of its beginning, as `embedding` packs it; empty for what is no news."""
    text: str = ""
    """Plain."""
    url: str | None = None
    reason: str = ""
    """Why there is no article."""

    @property
    def is_news(self) -> bool:
        """Whether it is news in one of our languages."""
        return self.document is not None and is_news(self.document)


class ReadingProcess:
    """A fork that understands pages, one batch after the other; one that dies is replaced.

    Start it before any thread, and use it from one thread at a time.
    """

    def __init__(self) -> None:
        self._start()

    def understand(self, pages: Sequence[tuple[str, bytes]]) -> list[Article]:
        """What the pages are, by their names and bytes. Raises ProcessDied when the process ended over them."""
        try:
            _send(self._socket, msgspec.msgpack.encode(pages))
            return msgspec.msgpack.decode(_receive(self._socket), type=list[Article])
        except (OSError, EOFError) as error:
            self.close()
            self._start()
            raise ProcessDied("The process that reads articles ended over one of these.") from error

    def close(self) -> None:
        """End the process, whatever it does."""
        self._socket.close()
        with suppress(ProcessLookupError):
            os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)

    def _start(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._process = os.fork()
        if self._process == 0:
            _run(theirs)
        theirs.close()


def understood(pages: Sequence[tuple[str, bytes]]) -> list[Article]:
    """What each page is, by its name and bytes; nothing in one can spoil the others."""
    found = [_opened(body) for _, body in pages]
    places = [place for place, page in enumerate(found) if isinstance(page, Page)]
    read_pages = [page for page in found if isinstance(page, Page)]
    documents = [with_language(pages[place][0], page) for place, page in zip(places, read_pages, strict=True)]
    texts = [(page.title or "", page.text[:TEXT_LIMIT]) for page in read_pages]
    documents = with_classes(documents, texts)
    news = [place for place, document in enumerate(documents) if is_news(document)]
    leads = dict(zip(news, embedding.packed(embedding.leads(texts[place] for place in news)), strict=True))
    articles = [Article(reason=page if isinstance(page, str) else "") for page in found]
    for row, (place, page) in enumerate(zip(places, read_pages, strict=True)):
        articles[place] = Article(documents[row], leads.get(row, b""), page.text, page.url)
    return articles


def _opened(body: bytes) -> Page | str:
    """The page, or why there is none."""
    try:
        return read(body)
    except InvalidItem as error:
        return error.reason


def _run(theirs: socket.socket) -> NoReturn:
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends when its parent does
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _close_all_but(theirs.fileno())
        os.nice(5)  # answers come first
        understood([("", b"<article>The government said on Monday</article>")])  # loads the models
        while True:
            pages = msgspec.msgpack.decode(_receive(theirs), type=list[tuple[str, bytes]])
            _send(theirs, msgspec.msgpack.encode(understood(pages)))
    except (EOFError, OSError):
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)  # what the parent would do at its end is the parent's


def _close_all_but(descriptor: int) -> None:
    """The parent's own end would keep this process from seeing the parent's death, and its port from being free then."""
    os.closerange(3, descriptor)
    os.closerange(descriptor + 1, 65_536)


def _send(peer: socket.socket, content: bytes) -> None:
    peer.sendall(len(content).to_bytes(_LENGTH, "little"))
    peer.sendall(content)


def _receive(peer: socket.socket) -> bytearray:
    return _exactly(peer, int.from_bytes(_exactly(peer, _LENGTH), "little"))


def _exactly(peer: socket.socket, length: int) -> bytearray:
    content = bytearray(length)
    view = memoryview(content)
    while view:
        count = peer.recv_into(view)
        if not count:
            raise EOFError
        view = view[count:]
    return content
