"""A process that understands articles for the news server, so that the one that answers requests is never kept by it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from palate.delivery.news_process import Answering, Process
from palate.errors import InvalidItem, ProcessDied
from palate.news import TEXT_LIMIT, Document, is_news, with_classes, with_language
from palate.sources.article_page import Page, read
from palate.text import embedding


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
        self._process = Process(_reading, niceness=10)  # answers come first

    def understand(self, pages: Sequence[tuple[str, bytes]]) -> list[Article]:
        """What the pages are, by their names and bytes. Raises ProcessDied when the process ended over them."""
        try:
            return msgspec.msgpack.decode(self._process.ask(msgspec.msgpack.encode(pages)), type=list[Article])
        except ProcessDied:
            self._process.replace()
            raise

    def close(self) -> None:
        """End the process, whatever it does."""
        self._process.close()


def _reading() -> Answering:
    understood([("", b"<article>The government said on Monday</article>")])  # loads the models
    return lambda content: msgspec.msgpack.encode(
        understood(msgspec.msgpack.decode(content, type=list[tuple[str, bytes]]))
    )


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
