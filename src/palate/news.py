"""News out of articles: the tasks of Telegram's Data Clustering Contest as one pipeline over files, without a database.

    files → articles → language → eight classes → vectors → stories → order

All up to the vectors is done in batches that don't depend on how many processes share them, so that every number is the same
to its last bit whoever computed it. No text outlives its batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate.errors import InvalidItem
from palate.forking import forked
from palate.sources.article_files import Source, open_page, source_name, sources
from palate.sources.article_page import Page, host
from palate.stories.clustering import Stories, cluster
from palate.stories.headline import HeadlineParams, Member, closeness, order
from palate.stories.importance import ImportanceParams, StoryStanding, data_clock, rank
from palate.stories.neighbours import ClusteringParams, Documents
from palate.stories.sources import SourceParams, page_rank, weights
from palate.text import category, embedding, language

BATCH = 64
"""Articles that are understood together."""

FIRST = 8
"""Articles of the first batch."""

TEXT_LIMIT = 20_000
"""Characters of an article that are looked at."""

Depth = Literal["language", "category", "vector"]
"""How much is found out about an article; at `vector` only about news."""


class Document(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is known of one article."""

    name: str
    title: str
    """Of an article without one the beginning of its text."""
    source: str
    """Host of its address, else the name of its site; empty when it tells neither."""
    published: float | None
    """Seconds since 1970."""
    links: tuple[str, ...]
    """Hosts that its text links to."""
    language: str | None
    """None when there is nothing to tell it from."""
    confidence: float
    probabilities: tuple[float, ...] | None = None
    """Of the seven categories and of not being news; None when they weren't asked for or the language isn't one of ours."""

    @property
    def category(self) -> str | None:
        """The likeliest of the eight classes, None when they aren't known."""
        return (
            None if self.probabilities is None else category.CLASSES[self.probabilities.index(max(self.probabilities))]
        )


class Understood(NamedTuple):
    """Articles of the input, in its order, and what became of the others."""

    documents: list[Document]
    leads: embedding.Leads
    """(n) at the depth `vector`, (0) before."""
    skipped: list[tuple[str, str]]
    """Names of those that hold no article, with the reason."""


class NewsParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What makes stories, and their order."""

    clustering: ClusteringParams = msgspec.field(default_factory=ClusteringParams)
    """Which documents make one story."""
    sources: SourceParams = msgspec.field(default_factory=SourceParams)
    """How much a source weighs."""
    headline: HeadlineParams = msgspec.field(default_factory=HeadlineParams)
    """Which document speaks for a story."""
    importance: ImportanceParams = msgspec.field(default_factory=ImportanceParams)
    """Which stories come first."""


class Story(NamedTuple):
    """News of one event."""

    title: str
    """Of its first document."""
    category: str
    """The likeliest for all its documents together."""
    documents: tuple[Document, ...]
    """The most relevant first."""
    standing: StoryStanding
    """Why it stands where it stands."""
    members: tuple[Member, ...]
    """The documents as `headline.order` takes them; their keys are rows of the input."""


class _Batch(msgspec.Struct, array_like=True):
    number: int
    documents: list[Document]
    leads: bytes
    skipped: list[tuple[str, str]]


def understand(place: str, depth: Depth, processes: int) -> Understood:
    """All articles of a folder or file, understood by so many processes. Raises ArchiveError when the place can't be read."""
    found = sources(place)
    parts = [found[:FIRST], *(found[start : start + BATCH] for start in range(FIRST, len(found), BATCH))]
    first = _batch(0, parts[0], depth)  # before the fork, so that the models it loads are there for all
    processes = max(1, min(processes, len(parts) // 2))
    encoded = forked(lambda number: _share(parts, depth, number, processes), processes)
    batches = [batch for part in encoded for batch in msgspec.msgpack.decode(part, type=list[_Batch])]
    return _joined([first, *sorted(batches, key=lambda batch: batch.number)])


def _share(parts: Sequence[Sequence[Source]], depth: Depth, number: int, processes: int) -> bytes:
    """One process's batches: every so manyth, so that large files in one place burden all alike."""
    shares = range(1 + number, len(parts), processes)
    return msgspec.msgpack.encode([_batch(share, parts[share], depth) for share in shares])


def _joined(batches: Sequence[_Batch]) -> Understood:
    return Understood(
        [document for batch in batches for document in batch.documents],
        embedding.unpacked([batch.leads for batch in batches]),
        [skipped for batch in batches for skipped in batch.skipped],
    )


def _batch(number: int, found: Sequence[Source], depth: Depth) -> _Batch:
    """articles → language → eight classes → vectors"""
    pages, skipped = read_all(found)
    documents = [with_language(name, page) for name, page in pages]
    if depth == "language":
        return _Batch(number, documents, b"", skipped)
    texts = [(page.title or "", page.text[:TEXT_LIMIT]) for _, page in pages]
    documents = with_classes(documents, texts)
    if depth == "category":
        return _Batch(number, documents, b"", skipped)
    news = [place for place, document in enumerate(documents) if is_news(document)]
    leads = embedding.leads(texts[place] for place in news)
    return _Batch(number, [documents[place] for place in news], b"".join(embedding.packed(leads)), skipped)


def read_all(found: Iterable[Source]) -> tuple[list[tuple[str, Page]], list[tuple[str, str]]]:
    """Names and pages of articles, and the names of those that hold none, with the reason."""
    pages, skipped = [], []
    for source in found:
        try:
            pages.append(open_page(source))
        except InvalidItem as error:
            skipped.append((source_name(source), error.reason))
    return pages, skipped


def with_language(name: str, page: Page) -> Document:
    """A document of the page with its language."""
    told = language.detect(page.title or "", page.text)
    published = page.published.timestamp() if page.published else None
    source = host(page.url) or page.site or ""
    return Document(name, page.title or _beginning(page.text), source, published, page.links, *told)


def with_classes(documents: Sequence[Document], texts: Sequence[tuple[str, str]]) -> list[Document]:
    """The documents, those in our languages with the probabilities of their classes."""
    classified = list(documents)
    for code in category.LANGUAGES:
        places = [place for place, document in enumerate(documents) if document.language == code]
        rows = category.classify([texts[place] for place in places], code).tolist() if places else []
        for place, row in zip(places, rows, strict=True):
            classified[place] = msgspec.structs.replace(documents[place], probabilities=tuple(row))
    return classified


def is_news(document: Document) -> bool:
    """Whether it is news in one of our languages."""
    return document.category not in (None, category.NOT_NEWS)


def stories_of(understood: Understood, params: NewsParams) -> list[Story]:
    """vectors → stories → order: the stories of news that have vectors, the most important first. Keys are rows of the input."""
    columns = _columns(understood, params.sources)
    found: list[Story] = []
    for code in category.LANGUAGES:
        rows = np.flatnonzero([document.language == code for document in understood.documents])
        leads, sources, times = understood.leads, columns.sources[rows], columns.times[rows]
        told = Documents(rows, leads.vectors[rows], sources, times, leads.keywords[rows])
        stories = cluster(told, params.clustering)
        found += _ordered(stories, understood.documents, columns, params)
    return sorted(found, key=lambda story: order_of(story.standing))


class _Columns(NamedTuple):
    """Of all documents, in the order of the input."""

    sources: NDArray[np.int64]
    weights: NDArray[np.float64]
    """Of their sources, 0 to 1."""
    times: NDArray[np.int64]
    """Milliseconds since 1970; now for a document whose time isn't known."""
    now: int


def _columns(understood: Understood, params: SourceParams) -> _Columns:
    documents = understood.documents
    known = np.array([_milliseconds(one.published) for one in documents if one.published is not None], np.int64)
    now = data_clock(known) if len(known) else 0
    times = [now if one.published is None else _milliseconds(one.published) for one in documents]
    ranks = page_rank(Counter((one.source, link) for one in documents for link in one.links), params)
    names = dict.fromkeys(one.source for one in documents)
    weighed = weights(names, ranks, params)
    numbers = {name: number for number, name in enumerate(names)}
    return _Columns(
        np.array([numbers[one.source] for one in documents], np.int64),
        np.array([weighed[one.source] for one in documents], np.float64),
        np.array(times, np.int64),
        now,
    )


def _ordered(stories: Stories, documents: Sequence[Document], columns: _Columns, params: NewsParams) -> Iterator[Story]:
    """The stories of one language with their documents in order, the most important first."""
    keys = stories.documents.keys.tolist()
    near = dict(zip(keys, closeness(stories).tolist(), strict=True))
    members: dict[int, list[Member]] = {}
    for key, label in zip(keys, stories.labels.tolist(), strict=True):
        one = Member(key, documents[key].title, float(columns.weights[key]), near[key], int(columns.times[key]))
        members.setdefault(label, []).append(one)
    for standing in rank(stories, columns.weights[stories.documents.keys], columns.now, params.importance):
        told = in_order(members[standing.story], params.headline)
        ordered = tuple(documents[one.key] for one in told)
        yield Story(ordered[0].title, common_category(ordered), ordered, standing, told)


def in_order(members: Sequence[Member], params: HeadlineParams) -> tuple[Member, ...]:
    """The members of a story, the most relevant first."""
    if len(members) == 1:
        return tuple(members)  # most stories; to look for faults of their titles would be a twentieth of the whole time
    by_key = {member.key: member for member in members}
    return tuple(by_key[one.key] for one in order(members, params))


def order_of(standing: StoryStanding) -> tuple[float, int, int, int]:
    """The key by which stories of several languages are sorted together, as `rank` sorts those of one."""
    return -round(standing.score, 6), -standing.documents, -standing.best_time, standing.story


def common_category(documents: Sequence[Document]) -> str:
    """The category that is likeliest for all together; of equals the first."""
    rows = [document.probabilities for document in documents if document.probabilities is not None]
    sums = [sum(column) for column in zip(*rows, strict=True)][: len(category.CATEGORIES)]
    return category.CATEGORIES[sums.index(max(sums))]


def _milliseconds(seconds: float) -> int:
    return round(1000 * seconds)


def _beginning(text: str) -> str:
    from textwrap import shorten

    return shorten(text[:400], 100, placeholder="…")
