"""A small installation for tests of serving: items with sources and labels, votes, and a hand-made snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from palate import catalog, database, events, feed, identities, snapshots
from palate.database import reading, writing
from palate.domain import Event, Feed, FeedRequest, Item, to_milliseconds
from palate.feed_params import FeedParams
from palate.live import Live

NOW = datetime(2024, 11, 22, 12, tzinfo=UTC)
PLAIN = FeedParams(exploration=0)
"""Nothing is left to chance."""


class World:
    def __init__(self, engine: sa.Engine, data: Path, live: Live | None = None) -> None:
        self.engine, self.data = engine, data
        self.live = live or Live(engine, data)
        self.rng = np.random.default_rng(1)
        self.logged: list[Event] = []
        self.told = NOW

    def add(self, *items: Item, now: datetime = NOW) -> None:
        with writing(self.engine) as connection:
            catalog.upsert(connection, items, now)
        self.live.refresh(now)

    def tell(self, *stories: str, category: str | None = None) -> None:
        """Stories of items, as ingest joins them: their ids with blanks between, the headline first."""
        table = database.items
        self.told += timedelta(seconds=1)
        with writing(self.engine) as connection:
            for ids in stories:
                members = ids.split()
                known = identities.item_keys(connection, members, None)
                values = {"story": min(known.values()), "updated": to_milliseconds(self.told), "category": category}
                own = sa.update(table).where(table.c.id.in_(members))
                connection.execute(own.values(leads=None, **values))
                connection.execute(sa.update(table).where(table.c.id == members[0]).values(leads=1))
        self.live.refresh(self.told)

    def append(self, happened: Sequence[Event], now: datetime = NOW) -> None:
        self.logged += happened
        with writing(self.engine) as connection:
            events.append(connection, happened, now)

    def act(self, user: str, type: str, *ids: str, now: datetime = NOW, value: float | None = None) -> None:
        time = to_milliseconds(now)
        self.append([Event(user=user, item=id, type=type, time=time, value=value) for id in ids], now)

    def serve(self, user: str, limit: int = 20, params: FeedParams = PLAIN, now: datetime = NOW, **asked: Any) -> Feed:
        request = FeedRequest(user=user, limit=limit, now=now, **asked)
        return feed.serve(self.live, request, params, self.rng, lambda happened: self.append(happened, now))

    def ids(self, user: str, limit: int = 20, **asked: Any) -> list[str]:
        return [place.item.id for place in self.serve(user, limit, **asked).items]

    def keys(self, *ids: str) -> list[int]:
        with reading(self.engine) as connection:
            known = identities.item_keys(connection, ids, None)
        return [known[id] for id in ids]

    def publish(
        self,
        vectors: dict[str, list[float]],
        *,
        bias: dict[str, float] | None = None,
        popularity: dict[str, tuple[float, float]] | None = None,
        users: dict[str, tuple[list[float], float, dict[str, float]]] | None = None,
        seq: int = 0,
        **header: Any,
    ) -> None:
        """A snapshot of these item vectors; `popularity` is mean and evidence, a user has vector, bias and history."""
        bias, popularity, users = bias or {}, popularity or {}, users or {}
        with writing(self.engine) as connection:
            item_keys = identities.item_keys(connection, vectors, NOW)
            user_keys = identities.user_keys(connection, users, NOW)
        by_key = sorted(vectors, key=item_keys.__getitem__)
        row_of = {id: row for row, id in enumerate(by_key)}
        factors = len(next(iter(vectors.values())))
        people = sorted(users, key=user_keys.__getitem__)
        histories = [users[user][2] for user in people]
        arrays: dict[str, Any] = {
            "items": np.array([item_keys[id] for id in by_key], np.int64),
            "item_vectors": np.array([vectors[id] for id in by_key], np.float16),
            "item_bias": np.array([bias.get(id, 0) for id in by_key], np.float32),
            "popularity": np.array([popularity.get(id, (0.5, 0))[0] for id in by_key], np.float32),
            "popularity_evidence": np.array([popularity.get(id, (0.5, 0))[1] for id in by_key], np.float32),
            "users": np.array([user_keys[user] for user in people], np.int64),
            "user_vectors": np.array([users[user][0] for user in people], np.float16).reshape(len(people), factors),
            "user_bias": np.array([users[user][1] for user in people], np.float32),
            "history_offsets": np.cumsum([0, *map(len, histories)], dtype=np.int64),
            "history_items": np.array([row_of[id] for own in histories for id in own], np.int32),
            "history_labels": np.array([label for own in histories for label in own.values()], np.float16),
            **self._sources(by_key, vectors, bias),
        }
        models = {
            "fm": {"loss": "squared", "base": 0.5, "factors": factors},
            "popularity": {"mean": 0.5, "strength": 4.0},
        }
        full = {
            "created": to_milliseconds(NOW),
            "seq": seq,
            "rule": "votes",
            "rating_range": None,
            "models": models,
            **header,
        }
        snapshots.publish(self.data / "snapshots", full, arrays)
        self.live.refresh(NOW)

    def _sources(self, ids: list[str], vectors: dict[str, list[float]], bias: dict[str, float]) -> dict[str, Any]:
        with reading(self.engine) as connection:
            found = catalog.get_many(connection, identities.item_keys(connection, ids, None).values())
            known = {one.item.id: one for one in found.values()}
        by_source: dict[int, list[str]] = {}
        for id, stored in known.items():
            if stored.source_key is not None:
                by_source.setdefault(stored.source_key, []).append(id)
        keys = sorted(by_source)
        factors = len(vectors[ids[0]])
        return {
            "sources": np.array(keys, np.int64),
            "source_vectors": np.array(
                [np.mean([vectors[id] for id in by_source[key]], axis=0) for key in keys], np.float16
            ).reshape(-1, factors),
            "source_bias": np.array([np.mean([bias.get(id, 0) for id in by_source[key]]) for key in keys], np.float32),
        }


def item(id: str, source: str | None = None, *labels: str, hours: float | None = 1.0, **more: Any) -> Item:
    """An item published so many hours before NOW; None: without a date."""
    published = None if hours is None else NOW - timedelta(hours=hours)
    return Item(id=id, title=f"Title of {id}", source=source, labels=labels, published=published, **more)


def of_kinds(count: int, *kinds: str, sources: int = 3) -> list[Item]:
    """`count` items of each kind (their one label), from several sources that carry every kind."""
    return [
        item(f"{kind}-{number}", f"source-{number % sources}", kind, hours=1 + number / 10)
        for number in range(count)
        for kind in kinds
    ]
