from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from palate import catalog, subscriptions
from palate.database import reading, writing
from palate.domain import Fetched, Item, to_milliseconds
from palate.errors import InvalidInput, NotFound

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
FEED = "https://www.example.org/blog/feed.xml"


def add(engine: sa.Engine, address: str = FEED, kind: str = "feed") -> subscriptions.Source:
    with writing(engine) as connection:
        return subscriptions.add(connection, kind, address, NOW)


def now_stored(engine: sa.Engine, id: str) -> subscriptions.Source:
    with reading(engine) as connection:
        return subscriptions.get(connection, id)


def due(engine: sa.Engine, now: datetime = NOW, limit: int = 10) -> list[str]:
    with reading(engine) as connection:
        return [source.id for source in subscriptions.due(connection, now, limit)]


def test_a_source_has_a_readable_id_and_is_due_at_once(engine: sa.Engine) -> None:
    source = add(engine)
    assert (source.id, source.status, source.next_fetch, source.failures) == (
        "example.org-blog-feed.xml",
        "active",
        NOW,
        0,
    )
    assert due(engine) == [source.id]
    assert due(engine, NOW - timedelta(seconds=1)) == []


def test_a_source_that_was_read_by_a_clock_that_was_ahead_is_due(engine: sa.Engine) -> None:
    source, ahead = add(engine), NOW + timedelta(days=400)
    with writing(engine) as connection:
        subscriptions.record_success(connection, source.key, Fetched(()), ahead, ahead + timedelta(hours=1))
    assert due(engine, ahead) == []
    assert due(engine, NOW) == [source.id]
    with writing(engine) as connection:
        subscriptions.record_success(connection, source.key, Fetched(()), NOW, NOW + timedelta(hours=1))
    assert due(engine, NOW) == []


def test_the_same_address_is_the_same_source(engine: sa.Engine) -> None:
    assert add(engine).key == add(engine, f" {FEED}#top ").key
    assert add(engine, "http://example.org/blog/feed.xml").id.startswith("example.org-blog-feed.xml-")
    with reading(engine) as connection:
        assert len(subscriptions.list_sources(connection)) == 2


def test_what_is_no_source_is_refused(engine: sa.Engine) -> None:
    for kind, address in [
        ("feed", "ftp://example.org/"),
        ("feed", "example.org"),
        ("feed", "https://"),
        ("feed", "https://example.org/" + "a" * 2000),
        ("feed", "https://example.org/\n\x00"),
        ("folder", "relative/path"),
        ("folder", ""),
        ("gopher", "https://example.org/"),
        ("api", ""),
        ("api", "a" * 201),
    ]:
        with pytest.raises(InvalidInput):
            add(engine, address, kind)


def test_pushed_sources_are_called_by_their_address_and_never_due(engine: sa.Engine) -> None:
    assert add(engine, "Мой магазин", "api").id == "Мой магазин"
    assert due(engine, NOW + timedelta(days=9)) == []
    with pytest.raises(InvalidInput, match="another source"):
        add(engine, "Мой магазин", "sample")


def test_those_that_wait_longest_come_first(engine: sa.Engine) -> None:
    ids = [add(engine, f"https://{name}.example/").id for name in "abc"]
    with writing(engine) as connection:
        source = subscriptions.get(connection, ids[0])
        subscriptions.record_success(connection, source.key, Fetched(), NOW, NOW + timedelta(hours=1))
    assert due(engine, NOW + timedelta(hours=2), 2) == ids[1:]
    assert due(engine, NOW + timedelta(hours=2), 9) == [ids[1], ids[2], ids[0]]


def test_a_paused_source_is_not_read_until_it_is_resumed(engine: sa.Engine) -> None:
    source = add(engine)
    with writing(engine) as connection:
        subscriptions.pause(connection, source.id)
    assert due(engine) == []
    with writing(engine) as connection:
        subscriptions.record_failure(connection, source.key, "was being read meanwhile", NOW)
    assert due(engine, NOW + timedelta(days=2)) == []
    with writing(engine) as connection:
        subscriptions.resume(connection, source.id, NOW)
    assert due(engine) == [source.id]


def test_a_good_reading_is_remembered(engine: sa.Engine) -> None:
    source = add(engine)
    fetched = Fetched(state={"etag": '"1"'}, title="Blog", site="https://example.org/", language="en")
    with writing(engine) as connection:
        subscriptions.record_failure(connection, source.key, "broken", NOW)
        subscriptions.record_success(connection, source.key, fetched, NOW, NOW + timedelta(hours=1))
        subscriptions.record_success(connection, source.key, Fetched(title="Renamed"), NOW, NOW + timedelta(hours=1))
    stored = now_stored(engine, source.id)
    assert (stored.title, stored.site, stored.language, stored.state) == ("Blog", "https://example.org/", "en", {})
    assert (stored.last_error, stored.failures, stored.last_success) == (None, 0, NOW)


def test_failures_double_the_wait_up_to_a_day(engine: sa.Engine) -> None:
    source, waits = add(engine), []
    for _ in range(12):
        with writing(engine) as connection:
            subscriptions.record_failure(connection, source.key, "No answer." + "x" * 1000, NOW)
        stored = now_stored(engine, source.id)
        assert stored.next_fetch is not None
        waits.append((stored.next_fetch - NOW) / timedelta(minutes=1))
    assert waits[:8] == [15, 30, 60, 120, 240, 480, 960, 1440]
    assert set(waits[8:]) == {1440}
    assert stored.last_error is not None
    assert (stored.last_error[:10], len(stored.last_error), stored.failures) == ("No answer.", 500, 12)


def test_a_server_may_ask_for_more_patience_but_not_for_less(engine: sa.Engine) -> None:
    source = add(engine)
    for asked, waited in ((3600.0, 60), (1.0, 30), (1e9, 1440)):
        with writing(engine) as connection:
            subscriptions.record_failure(connection, source.key, "Too many requests.", NOW, retry_after=asked)
        assert now_stored(engine, source.id).next_fetch == NOW + timedelta(minutes=waited)


def test_a_feed_that_is_gone_is_paused_with_the_reason(engine: sa.Engine) -> None:
    source = add(engine)
    with writing(engine) as connection:
        subscriptions.record_failure(connection, source.key, "410 Gone", NOW, gone=True)
    stored = now_stored(engine, source.id)
    assert (stored.status, stored.last_error) == ("paused", "410 Gone")


def test_items_of_a_removed_source_leave_unless_another_has_them(engine: sa.Engine) -> None:
    first, second = add(engine), add(engine, "https://second.example/")
    later = NOW + timedelta(hours=1)
    with writing(engine) as connection:
        catalog.upsert(
            connection, [Item(id="a", url="https://x.example/", source=first.id), Item(id="b", source=first.id)], NOW
        )
        catalog.upsert(connection, [Item(id="c", url="https://x.example/", source=second.id)], NOW)
        subscriptions.remove(connection, first.id, later)
        changes = catalog.changed_since(connection, to_milliseconds(later))
        assert [(change.state, change.source) for change in changes] == [("live", second.key), ("hidden", first.key)]
        assert [source.id for source in subscriptions.list_sources(connection)] == [second.id]
        with pytest.raises(NotFound):
            subscriptions.get(connection, first.id)
    assert due(engine) == [second.id]


def test_a_source_that_is_added_again_brings_its_items_back(engine: sa.Engine) -> None:
    source = add(engine)
    with writing(engine) as connection:
        catalog.upsert(connection, [Item(id="a", source=source.id)], NOW)
        subscriptions.remove(connection, source.id, NOW)
    again = add(engine)
    assert (again.key, again.id, again.status) == (source.key, source.id, "active")
    with reading(engine) as connection:
        assert [change.state for change in catalog.changed_since(connection, 0)] == ["live"]


def test_what_comes_from_a_source_while_it_is_removed_is_hidden_too(engine: sa.Engine) -> None:
    source = add(engine)
    with writing(engine) as connection:
        subscriptions.remove(connection, source.id, NOW)
        catalog.upsert(connection, [Item(id="a", source=source.id)], NOW)
        subscriptions.record_success(connection, source.key, Fetched(), NOW, NOW + timedelta(hours=1))
        assert [change.state for change in catalog.changed_since(connection, 0)] == ["hidden"]
    assert due(engine, NOW + timedelta(days=1)) == []


def test_a_source_that_is_not_there_is_not_found(engine: sa.Engine) -> None:
    with writing(engine) as connection:
        with pytest.raises(NotFound, match="no source 'x'"):
            subscriptions.pause(connection, "x")
        with pytest.raises(NotFound, match="no source 'x'"):
            subscriptions.resume(connection, "x", NOW)
        with pytest.raises(NotFound, match="no source 'x'"):
            subscriptions.remove(connection, "x", NOW)
