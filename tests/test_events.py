import json
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palate import database, events, identities, retention, sealing
from palate.columns import MAX_TYPES, NOBODY, Log, from_rows
from palate.database import reading, writing
from palate.domain import Event, EventColumns, to_milliseconds
from palate.errors import DataFolderError, InvalidEvent

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
DAY = timedelta(days=1)
EVERYTHING = 2**62


@pytest.fixture
def folder(data: Path) -> Path:
    """Where the sealed files lie."""
    return data / "events"


def add(engine: sa.Engine, given: Sequence[Event], now: datetime = NOW) -> None:
    with writing(engine) as connection:
        assert events.append(connection, given, now) == len(given)


def read(engine: sa.Engine, folder: Path) -> list[Event]:
    """What the log holds, as it was given."""
    return [as_given(event) for some in events.stream(engine, folder) for event in some]


def as_given(event: Event) -> Event:
    return msgspec.structs.replace(event, seq=None, received=None)


def like(user: str, item: str = "duck", **more: Any) -> Event:
    return Event(**{"user": user, "item": item, "type": "like", "time": 5, **more})


def users_of(columns: EventColumns, engine: sa.Engine) -> list[str]:
    with reading(engine) as connection:
        names = {row.key: row.id for row in connection.execute(sa.select(database.users))}
    return [names[key] for key in columns.user.tolist()]


# what may enter


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"user": ""}, "user id must have 1 to 200"),
        ({"user": "a" * 201}, "user id must have 1 to 200"),
        ({"item": "a\x00b"}, "item id holds a character"),
        ({"item": "\ud800"}, "item id holds a character"),
        ({"id": ""}, "id, where given"),
        ({"id": "x" * 201}, "id, where given"),
        ({"request": "\x00"}, "request"),
        ({"type": ""}, "type"),
        ({"type": "two words"}, "type"),
        ({"type": "Like"}, "type"),
        ({"type": "like\n"}, "type"),
        ({"type": "retract:"}, "type"),
        ({"type": "retract:like:twice"}, "type"),
        ({"type": "a" * 65}, "type"),
        ({"value": float("nan")}, "finite"),
        ({"value": float("inf")}, "finite"),
        ({"value": float("-inf")}, "finite"),
        ({"value": 1e39}, "finite"),
        ({"value": 10**400}, "finite"),
        ({"value": "5"}, "finite"),
        ({"value": True}, "finite"),
        ({"time": -1}, "milliseconds"),
        ({"time": to_milliseconds(NOW + 365 * DAY)}, "milliseconds"),
        ({"time": 10**30}, "milliseconds"),
        ({"time": 1.5}, "milliseconds"),
        ({"position": -1}, "position"),
        ({"position": 2**31}, "position"),
        ({"probability": 0.0}, "probability"),
        ({"probability": 1.1}, "probability"),
        ({"probability": float("nan")}, "probability"),
        ({"features": "{"}, "JSON"),
        ({"features": '"\ud800"'}, "JSON"),
        ({"features": f'"{"x" * 20_000}"'}, "at most 20000"),
    ],
)
def test_a_bad_event_is_refused_with_its_place_and_the_reason(wrong: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidEvent, match=reason) as caught:
        events.check(like("ann", **{**wrong}) if "user" not in wrong else like(**wrong), 3, NOW)
    assert caught.value.index == 3


@pytest.mark.parametrize(
    "fine",
    [
        {"user": "line\nbreak 🦆"},
        {"type": "retract"},
        {"type": "retract:like"},
        {"type": "a" + "_.-9" * 15},
        {"value": 5},
        {"value": -1e30},
        {"time": None},
        {"time": 0},
        {"time": to_milliseconds(NOW + timedelta(hours=23))},
        {"position": 0, "probability": 1.0, "features": '{"a": [1, null]}'},
        {"probability": 1e-9},
    ],
)
def test_a_good_event_passes_as_it_is(fine: dict[str, Any]) -> None:
    event = like(**{"user": "ann", **fine})
    assert events.check(event, None, NOW) is event


# appending


def test_events_come_back_in_their_order_with_all_they_carried(engine: sa.Engine, folder: Path) -> None:
    given = [
        Event(
            user="ann",
            item="duck",
            type="shown",
            value=0.5,
            time=7,
            id="e1",
            request="r",
            surface="web",
            position=3,
            snapshot="s",
            variant="v",
            probability=0.25,
            features='{"a":1}',
        ),
        like("bob", "line\nbreak 🦆"),
        like("ann", "duck", value=2),
    ]
    add(engine, given)
    assert read(engine, folder) == given


def test_the_log_says_where_an_event_stands_and_when_it_came(engine: sa.Engine, folder: Path) -> None:
    add(engine, [like("ann"), like("bob", seq=7000, received=1)])
    add(engine, [like("cid")], NOW + DAY)
    retention.seal(engine, folder, NOW + DAY, EVERYTHING)
    found = [event for some in events.stream(engine, folder) for event in some]
    assert [event.seq for event in found] == events.read_columns(engine, folder).seq.tolist() == [1, 2, 3]
    came = [to_milliseconds(NOW), to_milliseconds(NOW), to_milliseconds(NOW + DAY)]
    assert [event.received for event in found] == came


def test_an_event_without_a_time_happened_when_it_came(engine: sa.Engine, folder: Path) -> None:
    add(engine, [like("ann", time=None)])
    (event,) = read(engine, folder)
    assert event.time == to_milliseconds(NOW)


def test_an_item_that_is_named_first_by_an_event_gets_a_row(engine: sa.Engine) -> None:
    add(engine, [like("ann", "later")])
    with reading(engine) as connection:
        assert connection.scalar(sa.select(database.items.c.state).where(database.items.c.id == "later")) == "stub"


def test_the_same_client_id_counts_once_within_seven_days(engine: sa.Engine, folder: Path) -> None:
    add(engine, [like("ann", id="a"), like("bob", id="a"), like("bob", id="b")])
    add(engine, [like("cid", id="b"), like("cid", id="c")], NOW + 6 * DAY)
    add(engine, [like("dan", id="a"), like("dan", id="c")], NOW + 8 * DAY)
    assert [(event.user, event.id) for event in read(engine, folder)] == [
        ("ann", "a"),
        ("bob", "b"),
        ("cid", "c"),
        ("dan", "a"),
    ]


def test_client_ids_are_forgotten_after_their_time(engine: sa.Engine) -> None:
    add(engine, [like("ann", id=f"old{n}") for n in range(20)])
    for n in range(10):
        add(engine, [like("ann", id=f"new{n}")], NOW + 8 * DAY)
    with reading(engine) as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(database.event_ids)) == 10


def test_a_thousandfold_event_counts_once_with_an_id_and_each_time_without(engine: sa.Engine, folder: Path) -> None:
    add(engine, [like("ann", id="same")] * 1000)
    assert len(read(engine, folder)) == 1
    add(engine, [like("ann")] * 1000)
    assert len(read(engine, folder)) == 1001


def test_what_a_failed_transaction_added_never_was(engine: sa.Engine, folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), writing(engine) as connection:
        events.append(connection, [like("ann", id="a")], NOW)
        _ = 1 / 0
    assert read(engine, folder) == []
    add(engine, [like("ann", id="a")])
    assert len(read(engine, folder)) == 1


def test_followers_skip_no_event_of_concurrent_writers(engine: sa.Engine, folder: Path) -> None:
    """On PostgreSQL a bare sequence shows 2 before 1 when the writer of 1 commits later."""
    seen: list[int] = []
    written = threading.Event()

    def follow() -> None:
        last = False
        while not last:
            last = written.is_set()
            new = events.read_columns(engine, folder, after_seq=seen[-1] if seen else 0)
            seen.extend(new.seq.tolist())

    follower = threading.Thread(target=follow)
    follower.start()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: add(engine, [like(f"u{n}")] * 3), range(40)))
    written.set()
    follower.join()
    assert len(seen) == 120
    assert seen == sorted(set(seen))


def test_last_seq_is_that_of_the_newest_event_sealed_or_not(engine: sa.Engine, folder: Path) -> None:
    def last() -> int:
        with reading(engine) as connection:
            return events.last_seq(connection)

    assert last() == 0
    add(engine, [like("ann")] * 3)
    newest = last()
    assert newest == events.read_columns(engine, folder).seq[-1]
    retention.seal(engine, folder, NOW + DAY, EVERYTHING)
    assert last() == newest
    add(engine, [like("ann")])
    assert last() > newest


# reading


def test_aliases_are_read_as_their_person(engine: sa.Engine, folder: Path) -> None:
    add(engine, [like("cookie"), like("bob"), like("ann"), like("chat")])
    retention.seal(engine, folder, NOW + DAY, 2)
    with writing(engine) as connection:
        keys = identities.user_keys(connection, ["cookie", "chat", "ann"], None)
        identities.join(connection, keys["cookie"], keys["ann"])
        identities.join(connection, keys["chat"], keys["ann"])
    assert users_of(events.read_columns(engine, folder), engine) == ["ann", "bob", "ann", "ann"]
    assert [event.user for event in read(engine, folder)] == ["cookie", "bob", "ann", "chat"]


def test_columns_leave_out_what_was_not_asked_for(engine: sa.Engine, folder: Path) -> None:
    given = [
        like("ann", type="shown", time=100),
        like("bob", value=0.5, time=200),
        like("cid", type="shown", time=300),
        like("dan", time=400),
        like("eve", time=50),
    ]
    add(engine, given[:3])
    retention.seal(engine, folder, NOW + DAY, EVERYTHING)
    add(engine, given[3:])
    whole = events.read_columns(engine, folder)
    assert whole.types == ("like", "shown")
    assert whole.type.tolist() == [1, 0, 1, 0, 0]
    np.testing.assert_array_equal(whole.value, np.array([np.nan, 0.5, np.nan, np.nan, np.nan], np.float32))
    liked = events.read_columns(engine, folder, types=["like"], since=datetime(1970, 1, 1, 0, 0, 0, 150_000, UTC))
    assert users_of(liked, engine) == ["bob", "dan"]
    later = events.read_columns(engine, folder, after_seq=int(whole.seq[1]))
    assert later.time.tolist() == [300, 400, 50]
    assert len(events.read_columns(engine, folder, types=["save"])) == 0


@pytest.mark.parametrize("since", [None, NOW + DAY])
def test_batches_hold_what_the_columns_hold(engine: sa.Engine, folder: Path, since: datetime | None) -> None:
    for day in range(6):
        add(engine, [like("ann", time=None), like("cookie", type="shown", time=None)], NOW + day * DAY)
    retention.seal(engine, folder, NOW + 3 * DAY, EVERYTHING)
    with writing(engine) as connection:
        keys = identities.user_keys(connection, ["ann", "cookie"], None)
        identities.join(connection, keys["cookie"], keys["ann"])
    log = Log(20, NOBODY)
    for batch in events.batches(engine, folder, since=since):
        log.add(batch)
    whole = events.read_columns(engine, folder, since=since)
    same_columns(log.columns(), whole)
    assert len(whole) == (12 if since is None else 10)
    spans: list[dict[str, Any]] = [{"up_to_seq": 5}, {"after_seq": 5, "up_to_seq": 9}, {"after_seq": 9}]
    parts = [batch.seq for span in spans for batch in events.batches(engine, folder, **span)]
    assert np.concatenate(parts).tolist() == list(range(1, 13))


def test_days_before_the_window_are_not_opened(engine: sa.Engine, folder: Path) -> None:
    for day in range(5):
        ahead = to_milliseconds(NOW + day * DAY) + 80_000_000  # a client whose clock is nearly a day ahead
        add(engine, [like("ann", time=ahead)], NOW + day * DAY)
    files = retention.seal(engine, folder, NOW + 4 * DAY, EVERYTHING)
    files[0].unlink()
    since = datetime(2026, 3, 12, tzinfo=UTC)
    assert events.read_columns(engine, folder, since=since).seq.tolist() == [2, 3, 4, 5]
    assert len(list(events.batches(engine, folder, since=since))) == 1
    with pytest.raises(DataFolderError, match="missing"):
        list(events.batches(engine, folder))


def test_batches_go_on_when_files_are_replaced_or_expire_meanwhile(engine: sa.Engine, folder: Path) -> None:
    for day in range(4):
        days = [like("ann", f"i{n}") for n in range(10_001 if day == 0 else 1)]
        add(engine, [*days, like("bob")], NOW + day * DAY)
    retention.seal(engine, folder, NOW + 4 * DAY, EVERYTHING)
    reader = events.batches(engine, folder)
    first = next(reader)
    with reading(engine) as connection:
        keys = identities.user_keys(connection, ["bob"], None)
    retention.forget(engine, folder, keys.values())
    retention.expire(engine, folder, NOW + 3 * DAY)
    later = [users_of(batch, engine) for batch in reader]
    assert len(first) == 10_002
    assert later == [["ann", "bob", "ann"]]  # the second day was read ahead, the third is gone


def test_columns_have_their_types_also_when_empty(engine: sa.Engine, folder: Path) -> None:
    columns = events.read_columns(engine, folder)
    assert {name: getattr(columns, name).dtype.name for name in ("seq", "user", "item", "type", "value", "time")} == {
        "seq": "int64",
        "user": "int64",
        "item": "int64",
        "type": "uint16",
        "value": "float32",
        "time": "int64",
    }


def test_a_persons_unsealed_events_are_found_by_all_their_ids(engine: sa.Engine, folder: Path) -> None:
    add(engine, [like("ann", time=1), like("bob"), like("cookie", time=2), like("ann", time=3)])
    with writing(engine) as connection:
        keys = identities.user_keys(connection, ["ann", "cookie"], None)
        identities.join(connection, keys["cookie"], keys["ann"])
        own = events.of_user(connection, list(keys.values()), 0)
        assert own.time.tolist() == [1, 2, 3]
        assert set(own.user.tolist()) == {keys["ann"]}
        assert events.of_user(connection, list(keys.values()), int(own.seq[0])).time.tolist() == [2, 3]
        assert len(events.of_user(connection, [], 0)) == 0


def counts(engine: sa.Engine) -> dict[str, dict[str, int]]:
    """What `counts_of_item` says of each item, by its id."""
    with reading(engine) as connection:
        items = connection.execute(sa.select(database.items.c.id, database.items.c.key)).all()
        return {item.id: events.counts_of_item(connection, item.key) for item in items}


def counted(log: Sequence[Event]) -> dict[str, dict[str, int]]:
    """What the log says."""
    return {
        item: dict(Counter(event.type for event in log if event.item == item)) for item in {event.item for event in log}
    }


def test_the_events_of_an_item_are_counted_by_type(engine: sa.Engine) -> None:
    add(engine, [like("ann"), like("bob"), like("bob", type="shown"), like("bob", "goose")])
    assert counts(engine) == {"duck": {"like": 2, "shown": 1}, "goose": {"like": 1}}
    with reading(engine) as connection:
        assert events.counts_of_item(connection, 999) == {}


def test_an_items_counts_do_not_change_by_sealing_and_expiry(engine: sa.Engine, folder: Path) -> None:
    for day in range(3):
        add(engine, [like("ann"), like("bob", type="shown"), like("bob", "goose")], NOW + day * DAY)
    expected = {"duck": {"like": 3, "shown": 3}, "goose": {"like": 3}}
    for day in range(4):
        retention.seal(engine, folder, NOW + day * DAY, EVERYTHING)
        assert counts(engine) == expected
    assert retention.expire(engine, folder, NOW + DAY) == 3
    assert counts(engine) == expected


def test_a_forgotten_persons_events_are_counted_no_more(engine: sa.Engine, folder: Path) -> None:
    add(engine, [like("ann"), like("ann", "goose"), like("bob"), like("ann")])
    add(engine, [like("ann", type="shown"), like("bob", type="shown")], NOW + DAY)
    retention.seal(engine, folder, NOW + DAY, EVERYTHING)
    with reading(engine) as connection:
        keys = list(identities.user_keys(connection, ["ann"], None).values())
    retention.forget(engine, folder, keys)
    assert counts(engine) == {"duck": {"like": 1, "shown": 1}, "goose": {}}
    retention.seal(engine, folder, NOW + 2 * DAY, EVERYTHING)
    add(engine, [like("cid", "goose")])
    assert counts(engine) == {"duck": {"like": 1, "shown": 1}, "goose": {"like": 1}}


def test_types_beyond_those_that_columns_can_tell_apart_become_one() -> None:
    rows = [(n, 1, 1, f"t{n:05}", None, 0) for n in range(MAX_TYPES + 3)]
    log = Log(len(rows), NOBODY)
    log.add(from_rows(rows[:MAX_TYPES]))
    log.add(from_rows(rows[MAX_TYPES:]))
    columns = log.columns()
    assert columns.types[columns.type[5]] == "t00005"
    assert [columns.types[code] for code in columns.type[-3:]] == ["…"] * 3


# sealing


def test_complete_days_are_sealed_and_the_log_stays_the_same(engine: sa.Engine, folder: Path) -> None:
    for day in range(3):
        add(engine, [like("ann", f"i{day}", id=f"{day}"), like("bob", f"i{day}", type="shown")], NOW + day * DAY)
    before, columns = read(engine, folder), events.read_columns(engine, folder)
    files = retention.seal(engine, folder, NOW + 2 * DAY, EVERYTHING)
    assert [file.parent.name for file in files] == ["day=2026-03-10", "day=2026-03-11"]
    assert read(engine, folder) == before
    same_columns(events.read_columns(engine, folder), columns)
    with reading(engine) as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(database.events)) == 2
    assert retention.seal(engine, folder, NOW + 2 * DAY, EVERYTHING) == []


def same_columns(one: EventColumns, other: EventColumns) -> None:
    assert one.types == other.types
    for name in ("seq", "user", "item", "type", "value", "time"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_what_a_follower_has_not_read_is_not_sealed(engine: sa.Engine, folder: Path) -> None:
    add(engine, [like(f"u{n}") for n in range(5)])
    seqs = events.read_columns(engine, folder).seq
    (first,) = retention.seal(engine, folder, NOW + DAY, int(seqs[2]))
    (second,) = retention.seal(engine, folder, NOW + DAY, EVERYTHING)
    assert first.parent == second.parent
    assert [event.user for event in read(engine, folder)] == [f"u{n}" for n in range(5)]


def test_the_log_keeps_its_order_when_writers_straddle_midnight(engine: sa.Engine, folder: Path) -> None:
    midnight = datetime(2026, 3, 11, tzinfo=UTC)
    for n in range(12):
        add(engine, [like(f"u{n}", time=n)], midnight + timedelta(seconds=1 if n % 3 else -1, days=n // 8))
    before = read(engine, folder)
    columns = events.read_columns(engine, folder)
    assert len(retention.seal(engine, folder, midnight + DAY, EVERYTHING)) == 2
    assert read(engine, folder) == before
    same_columns(events.read_columns(engine, folder), columns)
    same_columns(events.read_columns(engine, folder, after_seq=5), pick(columns, columns.seq > 5))


def pick(columns: EventColumns, wanted: Any) -> EventColumns:
    return EventColumns(
        **{name: getattr(columns, name)[wanted] for name in ("seq", "user", "item", "type", "value", "time")},
        types=columns.types,
    )


def test_all_events_with_some_items_are_read_beside_the_newest(engine: sa.Engine) -> None:
    with writing(engine) as connection:
        for number in range(30):
            events.append(connection, [Event(user="ann", item=f"i{number % 7}", type="viewed")], NOW)
            events.append(connection, [Event(user="bob", item=f"i{number % 7}", type="viewed")], NOW)
    with reading(engine) as connection:
        ann, items = (
            identities.user_keys(connection, ["ann"], None)["ann"],
            identities.item_keys(connection, ["i2"], None),
        )
        every = events.of_user(connection, [ann], 0, ann)
        found = events.of_user(connection, [ann], 40, ann, also=items.values())
    wanted = (every.seq > 40) | (every.item == items["i2"])
    assert found.seq.tolist() == every.seq[wanted].tolist()
    assert 0 < np.count_nonzero(wanted & (every.seq <= 40)) < np.count_nonzero(wanted)


def test_a_large_day_becomes_several_files_read_in_several_pieces(
    engine: sa.Engine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "PART", 70)
    monkeypatch.setattr(events, "PAGE", 20)
    monkeypatch.setattr(sealing, "BATCH", 30)
    given = [like(f"u{n % 7}", f"i{n % 11}", time=n) for n in range(200)]
    add(engine, given)
    columns = events.read_columns(engine, folder)
    assert len(retention.seal(engine, folder, NOW + DAY, 190)) == 3
    pieces = list(events.stream(engine, folder))
    assert [as_given(event) for piece in pieces for event in piece] == given
    assert max(map(len, pieces)) <= 30
    same_columns(events.read_columns(engine, folder), columns)
    same_columns(events.read_columns(engine, folder, after_seq=95), pick(columns, columns.seq > 95))


def test_other_programs_read_sealed_files_as_they_are(engine: sa.Engine, folder: Path) -> None:
    import duckdb
    import polars as pl
    import pyarrow.parquet as pq

    add(engine, [like("ann", "🦆", value=0.5, id="x"), like("bob", position=2)])
    add(engine, [like("ann", type="retract:like")], NOW + DAY)
    files = retention.seal(engine, folder, NOW + 2 * DAY, EVERYTHING)
    query = f"SELECT user, item, type, value, time, CAST(day AS VARCHAR) FROM '{folder}/*/*.parquet' ORDER BY seq"
    rows = duckdb.sql(query)
    assert rows is not None
    assert rows.fetchall() == [
        ("ann", "🦆", "like", 0.5, 5, "2026-03-10"),
        ("bob", "duck", "like", None, 5, "2026-03-10"),
        ("ann", "duck", "retract:like", None, 5, "2026-03-11"),
    ]
    frame = pl.scan_parquet(f"{folder}/**/*.parquet").sort("seq").collect()
    assert frame["user"].to_list() == ["ann", "bob", "ann"]
    assert frame["position"].to_list() == [None, 2, None]
    schema = pq.read_schema(files[0])
    assert {field.name: str(field.type).replace("double", "float64") for field in schema} == sealing.COLUMNS


def test_files_that_a_crash_left_are_removed_and_never_read(engine: sa.Engine, folder: Path) -> None:
    add(engine, [like("ann")])
    (file,) = retention.seal(engine, folder, NOW + DAY, EVERYTHING)
    stray = file.with_name("999-stray.parquet")
    stray.write_bytes(file.read_bytes())
    torn = file.with_name("torn.tmp")
    torn.write_bytes(b"PAR1")
    assert len(read(engine, folder)) == 1
    assert retention.seal(engine, folder, NOW + DAY, EVERYTHING) == []
    assert [path for path in folder.glob("day=*/*") if path != file] == []
    assert len(read(engine, folder)) == 1


class Crash(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("moment", ["write_tables", "remove_strangers", "_sync_folder", "new_path"])
def test_a_crash_while_sealing_loses_and_repeats_nothing(
    engine: sa.Engine, folder: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    given = [like(f"u{n}") for n in range(5)]
    add(engine, given)

    def crash(*_: object) -> None:
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(sealing, moment, crash)
        with pytest.raises(Crash):
            retention.seal(engine, folder, NOW + DAY, EVERYTHING)
    assert read(engine, folder) == given
    assert len(retention.seal(engine, folder, NOW + DAY, EVERYTHING)) == 1
    assert read(engine, folder) == given
    assert counts(engine) == {"duck": {"like": 5}}
    assert len(list(folder.glob("day=*/*"))) == 1


def test_a_sealed_file_that_is_gone_or_broken_is_named(engine: sa.Engine, folder: Path) -> None:
    add(engine, [like("ann")])
    (file,) = retention.seal(engine, folder, NOW + DAY, EVERYTHING)
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(DataFolderError, match=file.name):
        events.read_columns(engine, folder)
    file.unlink()
    with pytest.raises(DataFolderError, match=file.name):
        read(engine, folder)
    with pytest.raises(DataFolderError, match=file.name):
        events.read_columns(engine, folder)


def test_readers_see_every_event_once_while_others_write_seal_and_forget(engine: sa.Engine, folder: Path) -> None:
    add(engine, [like("gone")])
    with reading(engine) as connection:
        gone = identities.user_keys(connection, ["gone"], None)["gone"]
    done = threading.Event()

    def change() -> None:
        for n in range(12):
            add(engine, [like("ann", time=n), like("gone"), like("ann", time=n)], NOW + n * timedelta(hours=8))
            retention.seal(engine, folder, NOW + n * timedelta(hours=8), EVERYTHING)
            retention.forget(engine, folder, [gone])
        done.set()

    writer = threading.Thread(target=change)
    writer.start()
    finished = False
    while not finished:
        finished = done.is_set()
        times = events.read_columns(engine, folder).time[1:].tolist()
        seqs = events.read_columns(engine, folder).seq
        assert (np.diff(seqs) > 0).all()
        counted = Counter(event.time for event in read(engine, folder) if event.user == "ann")
        assert set(counted.values()) <= {2}
        assert len(times) <= 36
    writer.join()
    assert [event.time for event in read(engine, folder)] == [n for n in range(12) for _ in range(2)]


# retention, forgetting


def test_old_days_are_dropped_whole(engine: sa.Engine, folder: Path) -> None:
    for day in range(4):
        add(engine, [like(f"u{day}")] * (day + 1), NOW + day * DAY)
    retention.seal(engine, folder, NOW + 3 * DAY, EVERYTHING)
    assert retention.expire(engine, folder, NOW + 2 * DAY) == 3
    assert Counter(event.user for event in read(engine, folder)) == {"u2": 3, "u3": 4}
    assert [path.name for path in folder.glob("day=*")] == ["day=2026-03-12"]
    assert retention.expire(engine, folder, NOW + 2 * DAY) == 0


def test_a_person_is_forgotten_everywhere_and_nobody_else(engine: sa.Engine, folder: Path) -> None:
    add(engine, [like("ann", id="a1"), like("bob", id="b1")])
    add(engine, [like("ann", id="a2")], NOW + DAY)
    add(engine, [like("bob", id="b2")], NOW + 2 * DAY)
    old = retention.seal(engine, folder, NOW + 3 * DAY, EVERYTHING)
    add(engine, [like("ann", id="a3"), like("bob", id="b3")], NOW + 3 * DAY)
    with reading(engine) as connection:
        keys = identities.user_keys(connection, ["ann"], None).values()
    assert retention.forget(engine, folder, list(keys)) == 3
    assert [event.id for event in read(engine, folder)] == ["b1", "b2", "b3"]
    assert users_of(events.read_columns(engine, folder), engine) == ["bob"] * 3
    with reading(engine) as connection:
        assert set(connection.scalars(sa.select(database.event_ids.c.id))) == {"b1", "b2", "b3"}
    assert [path.exists() for path in old] == [False, False, True]
    assert b"ann" not in b"".join(path.read_bytes() for path in folder.glob("*/*"))
    assert retention.forget(engine, folder, list(keys)) == 0


@pytest.mark.parametrize("moment", ["rewrite", "remove", "_sync_folder"])
def test_a_crash_while_forgetting_harms_nobody_else_and_can_be_repeated(
    engine: sa.Engine, folder: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    add(engine, [like("ann"), like("bob"), like("ann")])
    retention.seal(engine, folder, NOW + DAY, EVERYTHING)
    with reading(engine) as connection:
        keys = list(identities.user_keys(connection, ["ann"], None).values())

    def crash(*_: object) -> None:
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(sealing, moment, crash)
        with pytest.raises(Crash):
            retention.forget(engine, folder, keys)
    assert [event.user for event in read(engine, folder) if event.user == "bob"] == ["bob"]
    retention.forget(engine, folder, keys)
    assert [event.user for event in read(engine, folder)] == ["bob"]
    assert counts(engine) == {"duck": {"like": 1}}
    assert len(list(folder.glob("day=*/*"))) == 1


def test_events_of_deleted_people_do_not_reach_sealed_files(engine: sa.Engine, folder: Path) -> None:
    add(engine, [like("ann"), like("bob")])
    add(engine, [like("ann")], NOW + DAY)
    with writing(engine) as connection:
        connection.execute(sa.delete(database.users).where(database.users.c.id == "ann"))
    assert [event.user for event in read(engine, folder)] == ["bob"]
    assert len(retention.seal(engine, folder, NOW + 2 * DAY, EVERYTHING)) == 1
    assert len(events.read_columns(engine, folder)) == 1
    assert counts(engine) == {"duck": {"like": 1}}
    assert len(list(folder.glob("day=*/*"))) == 1


# whatever comes

TEXT = st.text(st.characters(exclude_characters="\x00", codec="utf-8"), min_size=1, max_size=12)
EVENTS = st.builds(
    Event,
    user=st.sampled_from(["ann", "bob", "line\nbreak", "🦆"]),
    item=TEXT,
    type=st.sampled_from(["like", "shown", "retract", "retract:like", "x.y-z_9"]),
    value=st.none() | st.floats(-1e30, 1e30),
    time=st.integers(0, to_milliseconds(NOW)),
    request=st.none() | TEXT,
    surface=st.none() | TEXT,
    position=st.none() | st.integers(0, 2**31 - 1),
    snapshot=st.none() | TEXT,
    variant=st.none() | TEXT,
    probability=st.none() | st.floats(0, 1, exclude_min=True),
    features=st.none() | st.dictionaries(TEXT, st.floats(-1, 1)).map(json.dumps),
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_=st.lists(EVENTS, min_size=1, max_size=12), sealed_share=st.floats(0, 1))
def test_any_events_come_back_equal_sealed_or_not_and_one_person_is_forgotten_alone(
    engine: sa.Engine, folder: Path, given_: list[Event], sealed_share: float
) -> None:
    with writing(engine) as connection:
        connection.execute(sa.delete(database.events))
        connection.execute(sa.delete(database.sealed))
        connection.execute(sa.delete(database.item_counts))
    for event in given_:
        assert events.check(event, 0, NOW) is event
    add(engine, given_)
    assert read(engine, folder) == given_
    first = int(events.read_columns(engine, folder).seq[0])
    retention.seal(engine, folder, NOW + DAY, first + int(sealed_share * len(given_)) - 1)
    assert read(engine, folder) == given_
    with reading(engine) as connection:
        keys = identities.user_keys(connection, ["ann"], None)
    forgotten = retention.forget(engine, folder, list(keys.values()))
    assert forgotten == sum(event.user == "ann" for event in given_)
    left = read(engine, folder)
    assert left == [event for event in given_ if event.user != "ann"]
    assert {item: found for item, found in counts(engine).items() if found} == counted(left)


def test_parameters_are_checked() -> None:
    with pytest.raises(msgspec.ValidationError, match="max_commit"):
        msgspec.convert({"max_commit": 0}, events.EventParams)
    with pytest.raises(msgspec.ValidationError, match="keep_forever"):
        msgspec.convert({"keep_forever": True}, events.EventParams)
