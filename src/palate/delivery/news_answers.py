"""Answers about stories out of columns and ready-made JSON, which are cheap to hand from one process to another.

{"threads": [{"title", "category", "articles"}, …]}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate.stories.importance import ImportanceParams
from palate.text.category import CATEGORIES

MOST = 1000
"""Threads in one answer."""
ANSWERS = 32
"""Answers of one state that are kept."""
ANY = "any"
_HOUR = 3_600_000


class Thread(msgspec.Struct, omit_defaults=True):
    """A story as it is answered with."""

    title: str
    category: str | None = None
    """None where all have the category that was asked for."""
    articles: tuple[str, ...] = ()


class Told(NamedTuple):
    """A story, ready to be answered with."""

    story: int
    coverage: float
    best: int
    """Time at which it was told by the most sources; milliseconds since 1970, like all times."""
    size: int
    first: int
    last: int
    """Times of its oldest and newest document."""
    category: int
    whole: bytes
    """The answer with all its articles, JSON."""
    bare: bytes
    """That without its category."""
    parts: bytes
    """Its documents as `Part`s, MessagePack, for who asks for less than all."""


class Part(NamedTuple):
    """A document of a story."""

    name: str
    title: str
    time: int


@dataclass(frozen=True)
class Texts:
    """Many texts in one."""

    ends: NDArray[np.int64]
    content: memoryview

    def __getitem__(self, row: int) -> memoryview:
        return self.content[int(self.ends[row - 1]) if row else 0 : int(self.ends[row])]


class Threads(NamedTuple):
    """The stories of one language as columns, by the names of `Told`."""

    story: NDArray[np.int64]
    coverage: NDArray[np.float64]
    best: NDArray[np.int64]
    size: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    category: NDArray[np.int64]
    whole: Texts
    bare: Texts
    parts: Texts


@dataclass(frozen=True)
class State:
    """All stories at one time; whoever asks works on one from beginning to end."""

    params: ImportanceParams
    threads: Mapping[str, Threads] = field(default_factory=dict)
    newest: int = 0
    """Time of the newest document, from which periods count back."""
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
            found = self.answers[asked] = b'{"threads":[' + b",".join(self._threads(*asked)) + b"]}"
        return found

    def _threads(self, language: str, period: int, category: str) -> Iterable[memoryview | bytes]:
        threads, since = self.threads.get(language), self.newest - 1000 * period
        if threads is None:
            return []
        inside = threads.last >= since
        if category != ANY:
            inside &= threads.category == CATEGORIES.index(category)
        rows = self._first(threads, np.flatnonzero(inside), period)
        texts = threads.whole if category == ANY else threads.bare
        is_whole = (threads.first[rows] >= since).tolist()
        return [
            texts[row] if whole else _part(threads, row, since, category == ANY)
            for row, whole in zip(rows.tolist(), is_whole, strict=True)
        ]

    def _first(self, threads: Threads, rows: NDArray[np.int64], period: int) -> NDArray[np.int64]:
        """The most important of these rows; within the period no story is the less for being old."""
        params = self.params
        fresh = max(params.window_hours, period / 3600)
        hours = np.maximum((self.now - threads.best[rows]) / _HOUR - fresh, 0.0)
        scores = np.round(threads.coverage[rows] * 0.5 ** (hours / params.half_life_hours), 6)
        if len(rows) > MOST:
            least = np.partition(scores, len(rows) - MOST)[len(rows) - MOST]
            rows, scores = rows[scores >= least], scores[scores >= least]
        order = np.lexsort((threads.story[rows], -threads.best[rows], -threads.size[rows], -scores))
        return rows[order[:MOST]]


def told_json(title: str, category: str | None, names: Iterable[str]) -> bytes:
    """A story as it is answered with."""
    return msgspec.json.encode(Thread(title, category, tuple(names)))


def _part(threads: Threads, row: int, since: int, with_category: bool) -> bytes:
    """The story with its documents of since then alone."""
    parts = [part for part in _PARTS.decode(threads.parts[row]) if part.time >= since]
    category = CATEGORIES[threads.category[row]] if with_category else None
    return told_json(parts[0].title, category, (part.name for part in parts))


_PARTS = msgspec.msgpack.Decoder(list[Part])


# From one process to another


class _Packed(msgspec.Struct, array_like=True):
    newest: int
    now: int
    threads: dict[str, list[memoryview]]
    """The columns in their order; of texts their ends, then their content."""


def packed(threads: Mapping[str, Sequence[Told]], newest: int, now: int) -> bytes:
    """A state to be unpacked elsewhere."""
    columns = {code: _columns(told) for code, told in threads.items()}
    return msgspec.msgpack.encode(_Packed(newest, now, columns))


def _columns(told: Sequence[Told]) -> list[memoryview]:
    columns = list(zip(*told, strict=True)) or [()] * len(Told._fields)
    found = [np.array(column, dtype).data for column, dtype in zip(columns, _DTYPES, strict=False)]
    for texts in columns[len(_DTYPES) :]:
        ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
        found += [ends.data, memoryview(b"".join(texts))]
    return found


_DTYPES = [np.dtype(name) for name in ("i8", "f8", "i8", "i8", "i8", "i8", "i8")]


def unpacked(content: memoryview, params: ImportanceParams) -> State:
    """The state that was packed, without a copy."""
    read = _STATE.decode(content)
    return State(params, {code: _threads(columns) for code, columns in read.threads.items()}, read.newest, read.now)


_STATE = msgspec.msgpack.Decoder(_Packed)


def _threads(columns: Sequence[memoryview]) -> Threads:
    numbers: list[Any] = [np.frombuffer(column, dtype) for column, dtype in zip(columns, _DTYPES, strict=False)]
    texts = columns[len(_DTYPES) :]
    pairs = zip(texts[::2], texts[1::2], strict=True)
    return Threads(*numbers, *(Texts(np.frombuffer(ends, np.int64), content) for ends, content in pairs))
