"""The stories of the news server: followed as documents come and go, and told by period, language and category.

One thread makes each state, frozen and whole; whoever asks works on one from beginning to end.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate.delivery.news_keeping import Kept
from palate.news import Document, NewsParams, common_category, in_order
from palate.stories.clustering import Stories, cluster, joined, removed
from palate.stories.headline import Member, closeness
from palate.stories.importance import StoryStanding, data_clock, rank
from palate.stories.neighbours import Documents, Pairs
from palate.stories.sources import page_rank, weight
from palate.text import embedding
from palate.text.category import CATEGORIES, LANGUAGES

MOST = 1000
"""Threads in one answer."""
ANSWERS = 32
"""Answers of one state that are kept."""
ANY = "any"
GROWTH = 0.2
"""Share of the documents that may come or go before sources are weighed anew while there is no rest."""
_HOUR = 3_600_000


class Thread(msgspec.Struct, omit_defaults=True):
    """A story as it is answered with."""

    title: str
    category: str | None = None
    """None where all have the category that was asked for."""
    articles: tuple[str, ...] = ()


class Told(NamedTuple):
    """A story and its documents, the most relevant first."""

    documents: tuple[Document, ...]
    times: tuple[int, ...]
    """Of the documents, milliseconds since 1970."""
    category: str
    standing: StoryStanding
    whole: msgspec.Raw
    """The answer with all its articles."""
    bare: msgspec.Raw
    """That without its category."""


class _Threads(NamedTuple):
    """The stories of one language as columns."""

    told: list[Told]
    coverage: NDArray[np.float64]
    best: NDArray[np.int64]
    """Time at which it was told by the most sources; milliseconds since 1970."""
    sizes: NDArray[np.int64]
    labels: NDArray[np.int64]
    last: NDArray[np.int64]
    """Time of its newest document."""
    categories: NDArray[np.int64]


@dataclass(frozen=True)
class State:
    """All stories at one time."""

    params: NewsParams
    threads: Mapping[str, _Threads] = field(default_factory=dict)
    newest: int = 0
    """Time of the newest document, from which periods count back; milliseconds since 1970."""
    now: int = 0
    """`importance.data_clock`, by which stories grow old."""
    answers: dict[tuple[str, int, str], bytes] = field(default_factory=dict)

    def answer(self, language: str, period: int, category: str) -> bytes:
        """`{"threads": […]}` of so many seconds as JSON, the most important first, each with its articles of that period.

        At most 1,000. `category`: one of the seven, or `any`.
        """
        asked = language, period, category
        found = self.answers.get(asked)
        if found is None:
            if len(self.answers) >= ANSWERS:
                self.answers.clear()
            found = self.answers[asked] = msgspec.json.encode({"threads": self._threads(*asked)})
        return found

    def _threads(self, language: str, period: int, category: str) -> list[msgspec.Raw | Thread]:
        threads, since = self.threads.get(language), self.newest - 1000 * period
        if threads is None:
            return []
        inside = threads.last >= since
        if category != ANY:
            inside &= threads.categories == CATEGORIES.index(category)
        rows = self._first(threads, np.flatnonzero(inside), period)
        return [_thread(threads.told[row], since, category == ANY) for row in rows]

    def _first(self, threads: _Threads, rows: NDArray[np.int64], period: int) -> list[int]:
        """The most important of these rows; within the period no story is the less for being old."""
        params = self.params.importance
        fresh = max(params.window_hours, period / 3600)
        hours = np.maximum((self.now - threads.best[rows]) / _HOUR - fresh, 0.0)
        scores = np.round(threads.coverage[rows] * 0.5 ** (hours / params.half_life_hours), 6)
        if len(rows) > MOST:
            least = np.partition(scores, len(rows) - MOST)[len(rows) - MOST]
            rows, scores = rows[scores >= least], scores[scores >= least]
        order = np.lexsort((threads.labels[rows], -threads.best[rows], -threads.sizes[rows], -scores))
        return [int(row) for row in rows[order[:MOST]]]


def _thread(told: Told, since: int, with_category: bool) -> msgspec.Raw | Thread:
    if min(told.times) >= since:
        return told.whole if with_category else told.bare
    documents = [one for one, time in zip(told.documents, told.times, strict=True) if time >= since]
    category = told.category if with_category else None
    return Thread(documents[0].title, category, tuple(one.name for one in documents))


def _encoded(title: str, category: str | None, documents: Sequence[Document]) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(Thread(title, category, tuple(one.name for one in documents))))


class Following:
    """Follows documents with stories; for one thread. `state` is always whole, and may be read by any."""

    def __init__(self, params: NewsParams) -> None:
        self.state = State(params)
        self._params = params
        self._kept: dict[int, Kept] = {}
        self._stories = {code: cluster(_documents([]), params.clustering) for code in LANGUAGES}
        self._ranks: dict[str, float] = {}
        self._weights: dict[str, float] = {}
        self._told: dict[int, tuple[tuple[int, ...], Told]] = {}
        self._unsettled = 0

    def change(self, changes: Mapping[int, Kept | None]) -> list[Kept]:
        """Take documents in by their keys, and out (None), and make a new state.

        Returns those that have expired, which are taken out too.
        """
        self._kept.update({key: kept for key, kept in changes.items() if kept is not None})
        for key in [key for key, kept in changes.items() if kept is None]:
            self._kept.pop(key, None)
        newest = self._newest()
        expired = [kept for kept in self._kept.values() if kept.expires < newest]
        for kept in expired:
            del self._kept[kept.key]
        changed = changes.keys() | {kept.key for kept in expired}
        for code in LANGUAGES:
            self._follow(code, changed)
        self._unsettled += len(changed)
        if not self._ranks or self._unsettled > GROWTH * len(self._kept):
            self.settle()
        else:
            self._tell(changed)
        return expired

    def kept(self, keys: Iterable[int]) -> list[Kept]:
        """The documents of these keys that are there."""
        return [self._kept[key] for key in keys if key in self._kept]

    def settle(self) -> None:
        """Weigh the sources and tell all stories anew, so that nothing depends on what came in which order."""
        if self._unsettled or not self._ranks:
            documents = [kept.document for kept in self._kept.values()]
            links = Counter((one.source, link) for one in documents for link in one.links)
            self._ranks = page_rank(links, self._params.sources)
            self._weights.clear()
            self._told.clear()
            self._unsettled = 0
            self._tell(set())

    def _follow(self, code: str, changed: Set[int]) -> None:
        """The stories of a language with the documents that changed."""
        came = [self._kept[key] for key in sorted(changed & self._kept.keys())]
        came = [kept for kept in came if kept.document.language == code]
        stories = removed(self._stories[code], np.array(sorted(changed), np.int64))
        self._stories[code] = joined(stories, _documents(came)) if came else stories

    def _newest(self) -> int:
        return max((kept.time for kept in self._kept.values()), default=0)

    def _tell(self, changed: Set[int]) -> None:
        times = np.array([kept.time for kept in self._kept.values()], np.int64)
        now = data_clock(times) if len(times) else 0
        told, threads = dict[int, tuple[tuple[int, ...], Told]](), dict[str, _Threads]()
        for code, stories in self._stories.items():
            own = self._told_of(stories, changed, now)
            threads[code] = _columns([one for _, one in own.values()])
            told |= own
        self._told = told
        self.state = State(self._params, threads, int(times.max(initial=0)), now)

    def _told_of(self, stories: Stories, changed: Set[int], now: int) -> dict[int, tuple[tuple[int, ...], Told]]:
        """The stories by their labels; those of which no document changed as they were told before."""
        told: dict[int, tuple[tuple[int, ...], Told]] = {}
        rows: list[NDArray[np.int64]] = []
        for members in _groups(stories.labels):
            keys = tuple(stories.documents.keys[members].tolist())
            label = int(stories.labels[members[0]])
            before = self._told.get(label)
            if before is None or before[0] != keys or not changed.isdisjoint(keys):
                rows.append(members)
            else:
                told[label] = before
        if rows:
            told |= self._tell_anew(_part(stories, np.sort(np.concatenate(rows))), now)
        return told

    def _tell_anew(self, stories: Stories, now: int) -> dict[int, tuple[tuple[int, ...], Told]]:
        keys = stories.documents.keys.tolist()
        documents = [self._kept[key].document for key in keys]
        weights = np.array([self._weight(one.source) for one in documents], np.float64)
        members: dict[int, list[Member]] = {}
        columns = (stories.labels, closeness(stories), weights, stories.documents.times)
        for key, document, label, near, known, time in zip(
            keys, documents, *(column.tolist() for column in columns), strict=True
        ):
            members.setdefault(label, []).append(Member(key, document.title, known, near, time))
        standings = rank(stories, weights, now, self._params.importance)
        return {one.story: self._told_by(members[one.story], one) for one in standings}

    def _told_by(self, members: Sequence[Member], standing: StoryStanding) -> tuple[tuple[int, ...], Told]:
        ordered = in_order(members, self._params.headline)
        documents = tuple(self._kept[one.key].document for one in ordered)
        title, category = documents[0].title, common_category(documents)
        texts = _encoded(title, category, documents), _encoded(title, None, documents)
        told = Told(documents, tuple(one.time for one in ordered), category, standing, *texts)
        return tuple(one.key for one in members), told

    def _weight(self, source: str) -> float:
        found = self._weights.get(source)
        if found is None:
            found = self._weights[source] = weight(source, self._ranks, self._params.sources)
        return found


def _documents(kept: Sequence[Kept]) -> Documents:
    leads = embedding.unpacked([one.vector for one in kept])
    return Documents(
        np.array([one.key for one in kept], np.int64),
        leads.vectors,
        np.array([_number(one.document.source) for one in kept], np.int64),
        np.array([one.time for one in kept], np.int64),
        leads.keywords,
    )


def _number(source: str) -> int:
    """The same for a source always, without a list of all that ever were."""
    return int.from_bytes(
        hashlib.blake2b(source.encode("utf-8", "replace"), digest_size=8).digest(), "little", signed=True
    )


def _groups(labels: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Rows of each story, in order of time."""
    order = np.argsort(labels, kind="stable")
    edges = np.flatnonzero(np.diff(labels[order], prepend=-1, append=-1))
    for start, end in pairwise(edges.tolist()):
        yield order[start:end]


def _part(stories: Stories, rows: NDArray[np.int64]) -> Stories:
    """Whole stories as such, for what looks at documents and labels alone."""
    none = Pairs(rows[:0], rows[:0], np.zeros(0, np.int32))
    return Stories(stories.params, stories.documents[rows], none, stories.parts[rows], stories.labels[rows])


def _columns(told: list[Told]) -> _Threads:
    standings = [one.standing for one in told]
    return _Threads(
        told,
        np.array([one.coverage for one in standings], np.float64),
        np.array([one.best_time for one in standings], np.int64),
        np.array([one.documents for one in standings], np.int64),
        np.array([one.story for one in standings], np.int64),
        np.array([max(one.times) for one in told], np.int64),
        np.array([CATEGORIES.index(one.category) for one in told], np.int64),
    )
