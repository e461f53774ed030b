"""The stories of the items of the last days, kept in step with the catalog: each item joins its story as it comes.

    changed rows → documents by language → joined, removed, expired → headline → rows that say something else now

What the window holds is always divided as if all of it had come at one time (`stories.clustering`), so a restart finds the same
stories. Only items that are known to be news are looked at, and of languages for which there is no model all items.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import database, identities, labels, source_links
from palate.database import reading, writing
from palate.domain import to_milliseconds
from palate.stories import clustering, headline, neighbours
from palate.stories.clustering import Stories
from palate.stories.headline import HeadlineParams, Member
from palate.stories.importance import ImportanceParams
from palate.stories.neighbours import ClusteringParams, Documents
from palate.stories.sources import SourceParams
from palate.stories.ties import NO_TIES, Ties, tied
from palate.text import category, embedding, understanding
from palate.vocabulary import Vocabulary

OVERLAP = timedelta(seconds=60)
"""How far before the last look we look again: a transaction becomes visible later than the times it wrote."""

BATCH = 500
"""Items written in one transaction."""

WEIGHED = timedelta(hours=1)
"""How long sources keep their weights; a story's headline is chosen by those at the time of its last change."""

Keys = NDArray[np.int64]


class StoryParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What makes stories of items, and their order."""

    window_days: Annotated[float, msgspec.Meta(gt=0, le=366)] = 14.0
    """Items of so many days are joined to stories; older ones stay as they are. Longer than the feed's window and a story's span
    together, so that a story in the feed keeps its first item."""
    clustering: ClusteringParams = ClusteringParams()
    """Which items make one story."""
    sources: SourceParams = SourceParams()
    """How much a source weighs."""
    headline: HeadlineParams = HeadlineParams()
    """Which item speaks for a story."""
    importance: ImportanceParams = ImportanceParams()
    """Which stories come first."""

    @property
    def window(self) -> int:
        """Milliseconds."""
        return int(self.window_days * 86_400_000)


class Written(NamedTuple):
    """What the catalog says of an item's story."""

    story: int | None
    """Key of the story's first item; None for an item that is alone."""
    leads: int | None
    """1 for the headline, None for all others."""


ALONE = Written(None, None)


@dataclass(frozen=True, eq=False)
class StoryWindow:
    """The stories of the items in the window, and what the catalog says of them."""

    params: StoryParams
    stories: Mapping[str, Stories]
    """By language, as they were found."""
    ties: Ties = NO_TIES
    """What people said of pairs, which holds in the catalog."""
    written: Mapping[int, Written] = field(default_factory=dict)
    """By the item's key."""
    marks: Mapping[int, float] = field(default_factory=dict)
    """The owners', by the item's key; of those not in it 1."""
    ranks: Mapping[str, float] = field(default_factory=dict)
    """Of sites, by the links of the window."""
    weighed: int = 0
    """When they were found, in milliseconds since 1970."""
    looked: int = 0
    """Time of the last look, in milliseconds since 1970."""
    seen: Mapping[int, int] = field(default_factory=dict)
    """Items met in the last minute before that, with the time of their change."""

    def __len__(self) -> int:
        return sum(map(len, self.stories.values()))


class _Row(NamedTuple):
    """An item as it concerns its story."""

    key: int
    updated: int
    state: str
    source: int | None
    time: int
    """Of publication, else of arrival."""
    language: str | None
    category: str | None
    story: int | None
    leads: int | None
    mark: float | None
    lead: bytes | None
    """Of its beginning, as `embedding` packs it; None where none of this version was made, and for a text without words."""

    @property
    def is_told(self) -> bool:
        """Whether it may be part of a story."""
        known = self.language is not None and (self.language not in category.LANGUAGES or self.category is not None)
        return known and self.state == "live" and self.lead is not None


def opened(engine: sa.Engine, params: StoryParams, now: datetime) -> StoryWindow:
    """The stories of all that the window holds; the catalog says the same afterwards. Raises DatabaseError, NotDurable."""
    empty = StoryWindow(params, {})
    start = to_milliseconds(now) - params.window
    with reading(engine) as connection:
        empty = _weighed(connection, empty, now)
        rows, ties = _read(connection, start), labels.ties(connection)
    return _with_rows(engine, empty, rows, ties, now)


def followed(engine: sa.Engine, window: StoryWindow, now: datetime) -> StoryWindow:
    """The window as it is after what has changed since the last look, and without what has grown too old.

    The catalog says the same afterwards. Raises DatabaseError, NotDurable; the old window is then as good as before.
    """
    with reading(engine) as connection:
        changed = _changed(connection, window.looked - OVERLAP // timedelta(milliseconds=1))
        keys = [key for key, updated in changed.items() if window.seen.get(key) != updated]
        rows, ties = _read_some(connection, keys), labels.ties(connection)
        window = _weighed(connection, window, now)
    return replace(_with_rows(engine, window, rows, ties, now), seen=changed)


def _weighed(connection: sa.Connection, window: StoryWindow, now: datetime) -> StoryWindow:
    time = to_milliseconds(now)
    if time - window.weighed < WEIGHED // timedelta(milliseconds=1):
        return window
    since = now - timedelta(days=window.params.window_days)
    return replace(window, ranks=source_links.ranks(connection, window.params.sources, since), weighed=time)


def _with_rows(engine: sa.Engine, window: StoryWindow, rows: Sequence[_Row], ties: Ties, now: datetime) -> StoryWindow:
    start = to_milliseconds(now) - window.params.window
    inside = [row for row in rows if row.state == "live" and row.time >= start]
    told = [row for row in inside if row.is_told]
    before = {language: _no_stories(window.params) for language in sorted({row.language or "" for row in told})}
    before |= window.stories
    changed = {row.key for row in rows}
    marked = replace(window, marks=_marks(window, rows))
    remarked = {key for key in changed if marked.marks.get(key) != window.marks.get(key)}
    stories = {
        language: _moved(own, [row for row in told if row.language == language], changed, start)
        for language, own in before.items()
    }
    wanted = dict.fromkeys((row.key for row in inside if not row.is_told), ALONE)
    for language, own in before.items():
        was, told_now = tied(own, window.ties), tied(stories[language], ties)
        wanted |= _wanted(engine, marked, was, told_now, remarked if told_now is was else changed)
    written = dict(window.written) | {row.key: Written(row.story, row.leads) for row in inside}
    _write(engine, {key: one for key, one in wanted.items() if written.get(key, ALONE) != one}, now)
    kept = (key for own in stories.values() for key in own.documents.keys.tolist())
    said = {key: wanted.get(key) or written.get(key, ALONE) for key in kept}
    marks = {key: mark for key, mark in marked.marks.items() if key in said}
    return replace(window, stories=stories, ties=ties, written=said, marks=marks, looked=to_milliseconds(now))


def _marks(window: StoryWindow, rows: Sequence[_Row]) -> dict[int, float]:
    """What the owners have marked, with these rows as they are now."""
    marks = dict(window.marks) | {row.key: 1.0 if row.mark is None else row.mark for row in rows}
    return {key: mark for key, mark in marks.items() if mark != 1.0}


def _no_stories(params: StoryParams) -> Stories:
    return clustering.cluster(_documents([]), params.clustering)


def _moved(before: Stories, told: Sequence[_Row], changed: Collection[int], start: int) -> Stories:
    """The stories of one language with these documents as they are now; `changed` that aren't among them have left it."""
    documents = _documents(told)
    gone = np.setdiff1d(np.array(sorted(changed), np.int64), documents.keys)
    unmoved = _unmoved(before, documents)
    stories = clustering.removed(before, gone)
    if len(unmoved) < len(documents):
        stories = clustering.joined(stories, _documents([row for row in told if row.key not in unmoved]))
    return clustering.expired(stories, start)


def _documents(rows: Sequence[_Row]) -> Documents:
    leads = embedding.unpacked([row.lead or b"" for row in rows])
    return Documents(
        keys=np.array([row.key for row in rows], np.int64),
        vectors=leads.vectors,
        sources=np.array([-row.key if row.source is None else row.source for row in rows], np.int64),
        times=np.array([row.time for row in rows], np.int64),
        keywords=leads.keywords,
    )


def _unmoved(before: Stories, documents: Documents) -> frozenset[int]:
    """Keys of those of the documents that are there already just so."""
    placed = neighbours.place(documents)
    rows = _rows_of(before, placed.keys)
    there, known = placed[rows >= 0], before.documents[rows[rows >= 0]]
    same = (there.sources == known.sources) & (there.times == known.times) & (there.codes == known.codes).all(axis=1)
    same &= (there.keywords == known.keywords).all(axis=1)
    return frozenset(there.keys[same].tolist())


def _rows_of(stories: Stories, keys: Keys) -> NDArray[np.int64]:
    """The row of each key, −1 for those that aren't there."""
    order = np.argsort(stories.documents.keys)
    return np.append(order, -1)[Vocabulary(stories.documents.keys[order]).rows(keys)]


# What the catalog ought to say


def _wanted(
    engine: sa.Engine, window: StoryWindow, before: Stories, after: Stories, changed: Collection[int]
) -> dict[int, Written]:
    """Of every item whose story has gained, lost or changed an item."""
    if not changed and after is before:
        return {}
    told = _told_anew(before, after, np.array(sorted(changed), np.int64))
    sizes = np.unique(told.labels, return_inverse=True, return_counts=True)
    alone = sizes[2][sizes[1]] == 1
    wanted = dict.fromkeys(told.documents.keys[alone].tolist(), ALONE)
    return wanted | _with_headlines(engine, window, clustering.picked(told, np.flatnonzero(~alone)))


def _told_anew(before: Stories, after: Stories, changed: Keys) -> Stories:
    """Those of the stories that are not as they were."""
    was = np.append(before.labels, -1)[_rows_of(before, after.documents.keys)]
    moved = (was != after.labels) | np.isin(after.documents.keys, changed)
    left = before.labels[_rows_of(after, before.documents.keys) < 0]
    touched = np.concatenate((after.labels[moved], was[moved], left))
    return clustering.picked(after, np.flatnonzero(np.isin(after.labels, touched)))


def _with_headlines(engine: sa.Engine, window: StoryWindow, stories: Stories) -> dict[int, Written]:
    keys, labels = stories.documents.keys.tolist(), stories.labels.tolist()
    with reading(engine) as connection:
        texts = _titles(connection, keys)
    addresses = (None, *(address for _, address in texts.values()))
    weights = source_links.weights(addresses, window.ranks, window.params.sources)
    members: dict[int, list[Member]] = {}
    near, times = headline.closeness(stories).tolist(), stories.documents.times.tolist()
    for key, label, closeness, time in zip(keys, labels, near, times, strict=True):
        title, address = texts.get(key, ("", None))
        one = Member(key, title, weights[address], closeness, time, window.marks.get(key, 1.0))
        members.setdefault(label, []).append(one)
    leads = {headline.order(own, window.params.headline)[0].key for own in members.values()}
    return {key: Written(label, 1 if key in leads else None) for key, label in zip(keys, labels, strict=True)}


# The catalog

_ITEMS, _FOUND = database.items, database.understandings
_told_at = sa.func.coalesce(_ITEMS.c.published, _ITEMS.c.received)
_SELECT = sa.select(
    *(_ITEMS.c[name] for name in ("key", "updated", "state", "source")),
    _told_at.label("time"),
    *(_ITEMS.c[name] for name in ("language", "category", "story", "leads", "mark")),
    _FOUND.c.lead,
).select_from(
    _ITEMS.outerjoin(_FOUND, sa.and_(_FOUND.c.item == _ITEMS.c.key, _FOUND.c.version == understanding.VERSION))
)


def _read(connection: sa.Connection, start: int) -> list[_Row]:
    """The live items of this time or later."""
    query = _SELECT.where(_ITEMS.c.state == "live", _told_at >= start)
    return [_Row._make(row) for row in connection.execute(query)]


def _changed(connection: sa.Connection, since: int) -> dict[int, int]:
    """Items that changed at this time or later, with the time of their change."""
    query = sa.select(_ITEMS.c.key, _ITEMS.c.updated).where(_ITEMS.c.updated >= since, _ITEMS.c.state != "stub")
    return {row.key: row.updated for row in connection.execute(query)}


def _read_some(connection: sa.Connection, keys: Iterable[int]) -> list[_Row]:
    chunks = identities.chunks(sorted(keys))
    return [_Row._make(row) for chunk in chunks for row in connection.execute(_SELECT.where(_ITEMS.c.key.in_(chunk)))]


def _titles(connection: sa.Connection, keys: Iterable[int]) -> dict[int, tuple[str, str | None]]:
    """Title and address of each item."""
    query, found = sa.select(_ITEMS.c.key, _ITEMS.c.title, _ITEMS.c.url), dict[int, tuple[str, str | None]]()
    for chunk in identities.chunks(sorted(keys)):
        found |= {
            row.key: (row.title or "", row.url) for row in connection.execute(query.where(_ITEMS.c.key.in_(chunk)))
        }
    return found


def _write(engine: sa.Engine, wanted: Mapping[int, Written], now: datetime) -> None:
    """Followers of the catalog see these items changed."""
    update = sa.update(_ITEMS).where(_ITEMS.c.key == sa.bindparam("of"), _ITEMS.c.state == "live")
    update = update.values({name: sa.bindparam(name) for name in ("story", "leads", "updated")})
    for keys in identities.chunks(sorted(wanted), BATCH):
        with writing(engine) as connection:
            rows = [{"of": key, **wanted[key]._asdict(), "updated": to_milliseconds(now)} for key in keys]
            connection.execute(update, rows)
