"""Real posts of Telegram's channels through import, understanding and stories; and recorded public pages through ingest.

    PALATE_DATA=… python benchmarks/bench_telegram_posts.py

Nothing was tuned on these posts. Their own categories were made by a machine for another set of classes, so they are not compared.
Near-duplicates are posts of which another channel has one, within three days, whose vector is at an angle of cosine 0.95 or more.
Times are processor seconds.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import sqlalchemy as sa

from palate import database, ingest, story_window, subscriptions, transfer
from palate.accounts import TelegramParams
from palate.database import opened, reading, writing
from palate.ingest import IngestParams
from palate.sources import telegram_preview
from palate.sources.fetching import FetchParams
from palate.story_window import StoryParams

POSTS = Path(os.environ["PALATE_DATA"]) / "telegram"
THREE_DAYS = 3 * 86_400_000
ALIKE = 0.95


def main() -> None:
    """Print what became of them."""
    with TemporaryDirectory() as folder, opened(None, Path(folder)) as engine:
        file = Path(folder) / "posts.jsonl"
        newest = write_items(file)
        timed("imported and understood", lambda: transfer.import_items(engine, file, "auto", newest).taken)
        timed("understood later", lambda: understand_all(engine, newest))
        print_items(engine)
        print_near_duplicates(engine)
        for days in (7, 30):
            timed(f"stories of {days} days", partial(join, engine, days, newest))
            print_stories(engine)
    with TemporaryDirectory() as folder, opened(None, Path(folder)) as engine:
        timed("recorded pages", lambda: read_pages(engine, newest))


def timed(what: str, work: Callable[[], Any]) -> None:
    """Do it, and print what came of it with the seconds that it took."""
    begin = time.process_time()
    result = work()
    print(f"{what}: {result}, {time.process_time() - begin:.1f} s", flush=True)


def write_items(file: Path) -> datetime:
    """The posts as a file for `palate import items`; gives the time of the newest."""
    posts = [post for path in sorted(POSTS.glob("posts-ru/*.json")) for post in json.loads(path.read_text("utf-8"))]
    with file.open("w", encoding="utf-8") as out:
        for post in posts:
            channel = -post["sender_id"] - 1_000_000_000_000
            row = {
                "item": f"tg:{channel}:{post['message_id']}",
                "text": post["text"],
                "source": f"tg:{channel}",
                "published": post["date"],
                "labels": [post["category"]] if post["category"] else [],
            }
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(f"{len(posts)} posts of {len({post['sender_id'] for post in posts})} channels")
    return max(datetime.fromisoformat(post["date"]) for post in posts)


def understand_all(engine: sa.Engine, now: datetime) -> int:
    """Whatever the import has left."""
    total = 0
    while found := ingest.understand_some(engine, now):
        total += found
    return total


def join(engine: sa.Engine, days: int, now: datetime) -> str:
    """The stories of the last days."""
    story_window.opened(engine, StoryParams(window_days=days), now)
    return "joined"


def print_items(engine: sa.Engine) -> None:
    """How many items, in which languages and categories."""
    items = database.items
    with reading(engine) as connection:
        rows = connection.execute(sa.select(items.c.language, items.c.category)).all()
    print(f"{len(rows)} items; languages {dict(Counter(row.language for row in rows).most_common(5))}")
    print(f"categories {dict(Counter(row.category for row in rows).most_common())}")


def print_near_duplicates(engine: sa.Engine) -> None:
    """Posts that another channel tells too."""
    items, vectors = database.items, database.item_vectors
    query = sa.select(items.c.source, items.c.published, vectors.c.vector).join(vectors, vectors.c.item == items.c.key)
    with reading(engine) as connection:
        rows = [row for row in connection.execute(query.order_by(items.c.published)) if row.vector]
    texts = np.stack([np.frombuffer(row.vector, np.float16) for row in rows]).astype(np.float32)
    texts /= np.maximum(np.linalg.norm(texts, axis=1, keepdims=True), 1e-9)
    sources, times = np.array([row.source for row in rows]), np.array([row.published for row in rows])
    alike = sum(_has_twin(place, texts, sources, times) for place in range(len(rows)))
    print(f"{alike} of {len(rows)} posts have a near-duplicate in another channel within three days")


def _has_twin(place: int, texts: Any, sources: Any, times: Any) -> bool:
    near = slice(*np.searchsorted(times, [times[place] - THREE_DAYS, times[place] + THREE_DAYS + 1]))
    return bool(((texts[near] @ texts[place] >= ALIKE) & (sources[near] != sources[place])).any())


def print_stories(engine: sa.Engine) -> None:
    """Stories of several channels, and the largest."""
    items = database.items
    with reading(engine) as connection:
        rows = connection.execute(
            sa.select(items.c.story, items.c.source, items.c.text, items.c.leads).where(items.c.story.is_not(None))
        ).all()
    stories = defaultdict(list)
    for row in rows:
        stories[row.story].append(row)
    spread = Counter(min(len({row.source for row in story}), 8) for story in stories.values())
    across = sum(number for channels, number in spread.items() if channels > 1)
    print(
        f"  {len(rows)} items in {len(stories)} stories, {across} of them across channels; by channels {dict(sorted(spread.items()))}"
    )
    for story in sorted(stories.values(), key=len, reverse=True)[:3]:
        told = next((row.text for row in story if row.leads), story[0].text)
        print(f"  {len(story)} posts: {' '.join((told or '').split())[:100]}")


def read_pages(engine: sa.Engine, now: datetime) -> str:
    """Each recorded page as a channel of its own, read once."""
    bodies = {}
    with writing(engine) as connection:
        for number, path in enumerate(sorted(POSTS.glob("preview*/*.html"))):
            source = subscriptions.add(connection, "telegram_preview", f"https://t.me/recorded{number}", now)
            bodies[source.address] = path.read_bytes()
    readers = {"telegram_preview": lambda source, _: telegram_preview.fetched(bodies[source.address], "recorded")}
    later = now + timedelta(days=900)
    report = ingest.run_once(
        engine, IngestParams(), FetchParams(), later, readers, telegram=TelegramParams(preview=True)
    )
    with reading(engine) as connection:
        languages = Counter(connection.scalars(sa.select(database.items.c.language)))
    return f"{len(bodies)} files, {report}; languages {dict(languages.most_common())}"


if __name__ == "__main__":
    main()
