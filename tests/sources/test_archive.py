import gzip
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import msgspec
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.domain import Event, Item, Media
from palate.errors import ArchiveError
from palate.sources import archive
from palate.sources.archive import BadRow, Format

DATA = os.environ.get("PALATE_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="PALATE_DATA names no folder of real data")

text = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=20)
events = st.builds(
    Event,
    user=text,
    item=text,
    type=st.sampled_from(["like", "retract:like", "watch"]),
    value=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    time=st.integers(0, 4_000_000_000_000),
    id=st.none() | text,
    position=st.none() | st.integers(0, 1000),
    probability=st.none() | st.floats(0.001, 1),
)
items = st.builds(
    Item,
    id=text,
    title=st.none() | text,
    text=st.none() | text,
    published=st.none()
    | st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001
        lambda time: time.replace(microsecond=0)
    ),
    kind=st.sampled_from(["post", "video", "picture"]),
    duration=st.none() | st.floats(0, 10_000),
    labels=st.lists(text, max_size=3).map(tuple),
    media=st.lists(st.builds(Media, url=text, width=st.none() | st.integers(1, 9)), max_size=2).map(tuple),
)


def all_events(path: Path, format: Format = "auto") -> list[Event | BadRow]:
    return [event for batch in archive.read_events(path, format) for event in batch]


def all_items(path: Path, format: Format = "auto") -> list[Item | BadRow]:
    return [item for batch in archive.read_items(path, format) for item in batch]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
@given(rows=st.lists(events, max_size=8))
def test_events_come_back_as_they_went(
    ending: Format, rows: list[Event], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("archive") / f"events.{ending}"
    assert archive.write_events(path, [rows]) == len(rows)
    assert all_events(path, ending) == rows


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_what_a_log_gave_an_event_is_written_and_not_read(ending: Format, tmp_path: Path) -> None:
    path = tmp_path / f"events.{ending}"
    event = Event(user="ann", item="p1", type="like", time=1)
    archive.write_events(path, [[msgspec.structs.replace(event, seq=2**40, received=1_700_000_000_000)]])
    read = {"jsonl": "read_json_auto", "csv": "read_csv_auto", "parquet": "read_parquet"}[ending]
    with duckdb.connect() as engine:
        found = engine.execute(f"SELECT seq, received FROM {read}(?)", [str(path)]).fetchall()
    assert found == [(2**40, 1_700_000_000_000)]
    assert all_events(path) == [event]


def test_an_import_does_not_mind_what_another_log_says(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("user,item,type,seq,received\nann,p1,like,first,yesterday\n")
    assert all_events(path) == [Event(user="ann", item="p1", type="like")]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
@given(rows=st.lists(items, max_size=8))
def test_items_come_back_as_they_went(
    ending: Format, rows: list[Item], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("archive") / f"items.{ending}"
    archive.write_items(path, [rows])
    assert all_items(path, ending) == rows


def test_parquet_is_read_by_duckdb_and_polars(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    archive.write_events(path, [[Event(user="ann", item="p1", type="like", time=1_700_000_000_000)]])
    with duckdb.connect() as engine:
        found = engine.execute("SELECT user, item, type, value, time FROM read_parquet(?)", [str(path)]).fetchall()
    assert found == [
        ("ann", "p1", "like", None, 1_700_000_000_000),
    ]
    assert polars.read_parquet(path).select("user", "time").row(0) == ("ann", 1_700_000_000_000)


def test_the_five_columns_are_enough_and_others_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(
        "user,item,type,value,time,agent\n"
        "ann,p1,like,,2026-01-02T03:04:05Z,x\n"
        "ann,p2,rating,4.5,1767323045000,\n"
        "bob,p2,like,,,\n"
    )
    assert all_events(path) == [
        Event(user="ann", item="p1", type="like", time=1767323045000),
        Event(user="ann", item="p2", type="rating", value=4.5, time=1767323045000),
        Event(user="bob", item="p2", type="like"),
    ]


def test_a_bad_row_is_named_and_the_others_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(
        '{"user": "ann", "item": "p1", "type": "like"}\n'
        "not json\n"
        '{"user": "ann", "item": "p1", "type": "rating", "value": NaN}\n'
        '{"user": "ann", "item": "p1", "type": "rating", "value": "much"}\n'
        '{"user": "ann", "type": "like"}\n'
        '{"user": 7, "item": 8, "type": "like", "time": 253402300800000000}\n'
        '{"user": 7, "item": 8, "type": "like"}\n'
    )
    rows = all_events(path)
    assert [row.line for row in rows if isinstance(row, BadRow)] == [2, 3, 4, 5, 6]
    assert [row.user for row in rows if isinstance(row, Event)] == ["ann", "7"]
    reasons = [row.reason for row in rows if isinstance(row, BadRow)]
    assert "no JSON object" in reasons[0]
    assert "finite" in reasons[1]
    assert "value" in reasons[2]
    assert "item" in reasons[3]


def test_a_csv_row_with_too_many_values_is_bad(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,type\nann,p1,like,4\nann,p2,like\n")
    assert [type(row) for row in all_events(path)] == [BadRow, Event]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("page.html", b"<html><body>hello</body></html>"),
        ("empty.csv", b""),
        ("cut.parquet", b"PAR1 and no more"),
        ("cut.jsonl.gz", gzip.compress(b'{"user": "a", "item": "b", "type": "like"}\n' * 9, mtime=0)[:-9]),
        ("endless.jsonl", b'{"a":"' + b"x" * (archive.LONGEST_LINE + 10)),
    ],
)
def test_a_file_that_is_none_of_ours_gets_one_sentence(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ArchiveError, match=name):
        all_events(tmp_path / name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="No such file"):
        all_events(tmp_path / "none.csv")


def test_an_unknown_ending_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"\.jsonl, \.csv or \.parquet"):
        archive.write_events(tmp_path / "events.xls", iter([]))


def test_a_failed_export_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    archive.write_events(path, [[Event(user="ann", item="p1", type="like", time=1)]])

    def torn() -> object:
        yield [Event(user="bob", item="p1", type="like", time=2)]
        raise OSError(28, "No space left on device")

    with pytest.raises(ArchiveError, match="No space"):
        archive.write_events(path, torn())  # type: ignore[arg-type]
    assert [event.user for event in all_events(path) if isinstance(event, Event)] == ["ann"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("ratings.csv", "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n"),
        ("ratings.dat", "1::31::2.5::1260759144\n"),
        ("u.data", "1\t31\t2.5\t1260759144\n"),
    ],
)
def test_every_movielens_edition_is_known_by_itself(name: str, line: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(line)
    assert all_events(tmp_path / name) == [Event(user="1", item="31", type="rating", value=2.5, time=1_260_759_144_000)]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("movies.csv", 'movieId,title,genres\n31,"Nói, the Albino (2003)",Comedy|Drama\n'),
        ("movies.dat", "31::Nói, the Albino (2003)::Comedy|Drama\n"),
        ("u.item", "31|Nói, the Albino (2003)|x||url|" + "|".join("01"[n in (5, 8)] for n in range(19)) + "\n"),
    ],
)
def test_every_movielens_list_of_films_is_known_by_itself(name: str, line: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(line, encoding="utf-8" if name.endswith("csv") else "latin-1")
    (film,) = all_items(tmp_path / name)
    assert isinstance(film, Item)
    assert (film.id, film.title, film.labels, film.published) == (
        "31",
        "Nói, the Albino (2003)",
        ("Comedy", "Drama"),
        None,
    )


def test_gorse_bulk_files(tmp_path: Path) -> None:
    (tmp_path / "feedback.jsonl").write_text(
        '{"FeedbackType":"read","UserId":"bob","ItemId":"x","Timestamp":"2022-02-22T00:00:00Z","Comment":""}\n'
        '{"FeedbackType":"star","UserId":"bob","ItemId":"x","Value":1.0,"Timestamp":"2022-02-22T00:00:00Z"}\n'
    )
    assert all_events(tmp_path / "feedback.jsonl") == [
        Event(user="bob", item="x", type="viewed", time=1_645_488_000_000),
        Event(user="bob", item="x", type="star", value=1.0, time=1_645_488_000_000),
    ]
    record = {"ItemId": "x", "IsHidden": False, "Categories": ["go"], "Timestamp": "2022-02-22T00:00:00Z"}
    record |= {"Labels": {"embedding": [0.1], "topics": ["a"]}, "Comment": "A title"}
    (tmp_path / "items.jsonl").write_text(json.dumps(record) + "\n")
    (item,) = all_items(tmp_path / "items.jsonl")
    assert isinstance(item, Item)
    assert (item.id, item.title, item.labels) == ("x", "A title", ("go", "a"))


@needs_data
def test_deskdrop_is_read_whole() -> None:
    assert DATA is not None
    rows = all_events(Path(DATA) / "feedback/deskdrop/users_interactions.csv")
    assert len(rows) == 66_508
    assert {row.type for row in rows if isinstance(row, Event)} == {"viewed", "like", "save", "comment", "follow"}


@needs_data
def test_movielens_is_read_whole() -> None:
    assert DATA is not None
    folder = Path(DATA) / "feedback/movielens-latest-small"
    ratings = all_events(folder / "ratings.csv")
    films = {film.id: film for film in all_items(folder / "movies.csv") if isinstance(film, Item)}
    assert len(ratings) == 100_004
    assert not [row for row in ratings if isinstance(row, BadRow)]
    assert films["318"].title == "Shawshank Redemption, The (1994)"
