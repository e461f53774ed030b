from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa

from palate import events, happenings
from palate.database import reading, writing
from palate.domain import Event, EventColumns
from palate.group_commit import GroupCommit
from palate.log_tail import LogTail

NOW = datetime(2026, 3, 10, tzinfo=UTC)


def happened(user: str, count: int, id: str | None = None) -> list[Event]:
    return [Event(user=user, item=f"i{n % 3}", type="like" if n % 2 else "viewed", time=n, id=id) for n in range(count)]


def told(found: EventColumns) -> list[tuple[int, int, int, str, int]]:
    columns = [column.tolist() for column in (found.seq, found.user, found.item, found.type, found.time)]
    return [(seq, user, item, found.types[type], time) for seq, user, item, type, time in zip(*columns, strict=True)]


def followed(engine: sa.Engine, seq: int, tail: LogTail) -> list[tuple[int, int, int, str, int]]:
    with reading(engine) as connection:
        return told(happenings._since(connection, seq, tail))


def write_in_turns(engine: sa.Engine, tail: LogTail) -> None:
    """This process, another one, and this one again."""
    commits = GroupCommit(engine, tail=tail)
    for part in (happened("ann", 3), happened("bob", 2), happened("ann", 4, id="once")):
        commits.submit(part, NOW).result(20)
    with writing(engine) as connection:
        events.append(connection, happened("cyd", 5), NOW)
    commits.submit(happened("ann", 2, id="once") + happened("dan", 3), NOW).result(20)
    commits.close()


def test_what_was_written_here_and_what_others_wrote_is_followed_as_the_log_has_it(engine: sa.Engine) -> None:
    tail = LogTail()
    write_in_turns(engine, tail)
    for seq in (0, 2, 3, 6, 8, 11, 12, 14):
        plain = followed(engine, seq, LogTail())
        assert [row[0] for row in plain] == list(range(seq + 1, 15))
        assert followed(engine, seq, tail) == plain


def test_what_a_commit_wrote_on_sqlite_is_not_read_again(sqlite_engine: sa.Engine) -> None:
    tail = LogTail()
    write_in_turns(sqlite_engine, tail)
    assert [page.seq.tolist() for page in tail.after(0)] == [[1, 2, 3, 4, 5, 6], [12, 13, 14]]
    assert [page.seq.tolist() for page in tail.after(3)] == [[4, 5, 6], [12, 13, 14]]
    assert not tail.after(14)


def test_of_too_much_the_newest_is_kept_and_the_rest_read(sqlite_engine: sa.Engine) -> None:
    tail = LogTail(4)
    write_in_turns(sqlite_engine, tail)
    assert [page.seq.tolist() for page in tail.after(0)] == [[6], [12, 13, 14]]
    assert followed(sqlite_engine, 0, tail) == followed(sqlite_engine, 0, LogTail())
