"""The stories of the news server, followed as documents come and go, and told as they are answered with."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import pairwise
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate.delivery.news_answers import Part, State, Told, packed, told_json, unpacked
from palate.delivery.news_keeping import Kept
from palate.delivery.news_process import Answering, Process
from palate.news import NewsParams, common_category, in_order
from palate.stories.clustering import Stories, cluster, joined, picked, removed
from palate.stories.headline import Member, closeness
from palate.stories.importance import StoryStanding, data_clock, rank
from palate.stories.neighbours import Documents
from palate.stories.sources import page_rank, weights
from palate.text import embedding
from palate.text.category import CATEGORIES, LANGUAGES

GROWTH = 0.2
"""Share of the documents that may come or go before sources are weighed anew while there is no rest."""

Keys = tuple[int, ...]


class FollowingProcess:
    """A fork that follows documents with stories, so that whoever answers isn't kept by it. For one thread."""

    def __init__(self, params: NewsParams) -> None:
        self._process = Process(lambda: _following(params), niceness=10)  # answers come first
        self._params = params.importance

    def follow(self, changes: Mapping[int, Kept | None], deleted: Sequence[int] = ()) -> Followed:
        """Take documents in by their keys, and out (None); without changes weigh all anew.

        `deleted`: keys of which it says what they hold. Raises ProcessDied.
        """
        content = self._process.ask(msgspec.msgpack.encode(_Asked(dict(changes), tuple(deleted))))
        answer = msgspec.msgpack.decode(content, type=_Answer)
        return Followed(unpacked(answer.state, self._params), answer.gone)

    def close(self) -> None:
        """End the process, whatever it does."""
        self._process.close()


class Followed(NamedTuple):
    """What came of changes."""

    state: State
    gone: list[Kept]
    """Documents that have expired or were deleted: they are to be taken away."""


class _Asked(msgspec.Struct, array_like=True):
    changes: dict[int, Kept | None]
    deleted: tuple[int, ...]


class _Answer(msgspec.Struct, array_like=True):
    state: memoryview
    gone: list[Kept]


def _following(params: NewsParams) -> Answering:
    following = Following(params)
    decoder = msgspec.msgpack.Decoder(_Asked)

    def answer(content: bytearray) -> bytes:
        asked = decoder.decode(content)
        gone = following.kept(asked.deleted)
        if asked.changes:
            gone += following.change(asked.changes)
        else:
            following.settle()
        return msgspec.msgpack.encode(_Answer(memoryview(following.state()), gone))

    return answer


class Following:
    """Follows documents with stories; for one thread."""

    def __init__(self, params: NewsParams) -> None:
        self._params = params
        self._kept: dict[int, Kept] = {}
        self._stories = {code: cluster(_documents([]), params.clustering) for code in LANGUAGES}
        self._ranks: dict[str, float] = {}
        self._weights: dict[str, float] = {}
        self._told: dict[str, dict[int, tuple[Keys, Told]]] = {code: {} for code in LANGUAGES}
        self._now = 0
        self._unsettled = 0

    def change(self, changes: Mapping[int, Kept | None]) -> list[Kept]:
        """Take documents in by their keys, and out (None), and tell what changed.

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

    def state(self) -> bytes:
        """All stories as they are now, packed for who answers."""
        threads = {code: [one for _, one in own.values()] for code, own in self._told.items()}
        return packed(threads, self._newest(), self._now)

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
            self._told = {code: {} for code in LANGUAGES}
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
        self._told = {code: self._told_of(code, stories, changed, now) for code, stories in self._stories.items()}
        self._now = now

    def _told_of(self, code: str, stories: Stories, changed: Set[int], now: int) -> dict[int, tuple[Keys, Told]]:
        """The stories by their labels; those of which no document changed as they were told before."""
        told: dict[int, tuple[Keys, Told]] = {}
        rows: list[NDArray[np.int64]] = []
        for members in _groups(stories.labels):
            keys = tuple(stories.documents.keys[members].tolist())
            label = int(stories.labels[members[0]])
            before = self._told[code].get(label)
            if before is None or before[0] != keys or not changed.isdisjoint(keys):
                rows.append(members)
            else:
                told[label] = before
        if rows:
            told |= self._tell_anew(picked(stories, np.concatenate(rows)), now)
        return told

    def _tell_anew(self, stories: Stories, now: int) -> dict[int, tuple[Keys, Told]]:
        keys = stories.documents.keys.tolist()
        documents = [self._kept[key].document for key in keys]
        unknown = {one.source for one in documents} - self._weights.keys()
        self._weights |= weights(unknown, self._ranks, self._params.sources)
        weighed = np.array([self._weights[one.source] for one in documents], np.float64)
        members: dict[int, list[Member]] = {}
        columns = (stories.labels, closeness(stories), weighed, stories.documents.times)
        for key, document, label, near, known, time in zip(
            keys, documents, *(column.tolist() for column in columns), strict=True
        ):
            members.setdefault(label, []).append(Member(key, document.title, known, near, time))
        standings = rank(stories, weighed, now, self._params.importance)
        return {one.story: self._told_by(members[one.story], one) for one in standings}

    def _told_by(self, members: Sequence[Member], standing: StoryStanding) -> tuple[Keys, Told]:
        ordered = in_order(members, self._params.headline)
        documents = tuple(self._kept[one.key].document for one in ordered)
        title, category = documents[0].title, common_category(documents)
        names, times = [one.name for one in documents], [one.time for one in ordered]
        parts = [Part(one.name, one.title, time) for one, time in zip(documents, times, strict=True)]
        told = Told(
            story=standing.story,
            coverage=standing.coverage,
            best=standing.best_time,
            size=standing.documents,
            first=min(times),
            last=max(times),
            category=CATEGORIES.index(category),
            whole=told_json(title, category, names),
            bare=told_json(title, None, names),
            parts=msgspec.msgpack.encode(parts),
        )
        return tuple(one.key for one in members), told


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
    """Rows of each story."""
    order = np.argsort(labels, kind="stable")
    edges = np.flatnonzero(np.diff(labels[order], prepend=-1, append=-1))
    for start, end in pairwise(edges.tolist()):
        yield order[start:end]
