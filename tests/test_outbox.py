"""The bot's outbox: of one cause nothing twice, what waits stays, what is settled leaves only its cause."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from palate import chats, outbox, staging
from palate.database import reading, writing
from palate.outbox import Call, Draft, Urgency

NOW = datetime(2026, 11, 2, 12, tzinfo=UTC)
HELLO = Call("sendMessage", {"text": "hello"})
OTHER = Call("sendMessage", {"text": "other"})


def draft(cause: str, chat: int = 1, *calls: Call, urgency: Urgency = Urgency.ANSWER) -> Draft:
    return Draft(chat, cause, urgency, calls or (HELLO,))


def test_of_one_cause_nothing_is_put_in_twice_even_after_it_was_sent(engine: sa.Engine) -> None:
    with writing(engine) as connection:
        [first, second] = outbox.put(connection, [draft("a"), draft("a"), draft("b", 2)], NOW)
        outbox.settle(connection, [first.key], "sent", NOW)
        assert outbox.put(connection, [draft("a"), draft("b", 2)], NOW) == []
        assert outbox.is_known(connection, ["z", "a"])
        assert not outbox.is_known(connection, ["z"])
    with reading(engine) as connection:
        assert [one.key for one in outbox.waiting(connection)] == [second.key]
        assert outbox.read(connection, first.key) is None
        assert outbox.depth(connection) == 1
        assert outbox.counts(connection) == {"sent": 1}


def test_what_waits_is_as_it_was_put_in(engine: sa.Engine) -> None:
    with writing(engine) as connection:
        [place] = outbox.put(connection, [draft("a", 7, HELLO, OTHER, urgency=Urgency.MAILING)], NOW)
    with reading(engine) as connection:
        message = outbox.read(connection, place.key)
        assert message is not None
        assert (message.chat, message.urgency, message.calls) == (7, Urgency.MAILING, (HELLO, OTHER))
        assert outbox.waiting(connection) == [place]


def test_a_retry_is_due_later_and_may_leave_out_what_was_refused(engine: sa.Engine) -> None:
    with writing(engine) as connection:
        [place] = outbox.put(connection, [draft("a", 1, HELLO, OTHER)], NOW)
        message = outbox.read(connection, place.key)
        assert message is not None
        outbox.retry(connection, message, 1, NOW + timedelta(seconds=5))
        again = outbox.read(connection, place.key)
        assert again is not None
        assert (again.calls, again.tries) == ((OTHER,), 1)
        assert outbox.waiting(connection)[0].due == NOW + timedelta(seconds=5)


def test_a_chat_that_blocks_loses_only_its_own(engine: sa.Engine) -> None:
    with writing(engine) as connection:
        outbox.put(connection, [draft("a", 1), draft("b", 2), draft("c", 1)], NOW)
        assert outbox.drop_chat(connection, 1, NOW) == 2
        assert [one.chat for one in outbox.waiting(connection)] == [2]
        assert outbox.counts(connection) == {"dropped": 2}


def test_only_what_is_settled_and_old_is_pruned(engine: sa.Engine) -> None:
    with writing(engine) as connection:
        places = outbox.put(connection, [draft("a"), draft("b"), draft("c")], NOW)
        outbox.settle(connection, [places[0].key], "sent", NOW)
        outbox.settle(connection, [places[1].key], "failed", NOW + timedelta(days=2))
        assert outbox.prune(connection, NOW + timedelta(days=1)) == 1
        assert not outbox.is_known(connection, ["a"])
        assert outbox.is_known(connection, ["b"])
        assert outbox.depth(connection) == 1


def test_a_chat_is_met_once_and_comes_back_after_blocking(engine: sa.Engine) -> None:
    with writing(engine) as connection:
        met, is_new = chats.meet(connection, 5, "ru", NOW)
        assert (met.language, met.is_active, is_new) == ("ru", True, True)
        assert chats.meet(connection, 5, "en", NOW) == (met, False)
        chats.block(connection, 5)
        assert chats.active(connection, 0, 10) == []
        assert chats.counted(connection) == {"blocked": 1}
        back, is_new = chats.meet(connection, 5, "en", NOW)
        assert (back.language, back.is_active, is_new) == ("ru", True, False)
        assert chats.active(connection, 0, 10) == [5]


def test_chats_are_found_among_the_ids_of_a_person() -> None:
    assert chats.of_users(["ann", "telegram:7", "telegram:-8", "telegram:x"]) == [7, -8]
    assert chats.user_id(7) == "telegram:7"


def test_an_album_is_staged_under_its_first_message_whichever_comes_first(engine: sa.Engine) -> None:
    with writing(engine) as connection:
        staging.want(connection, "tg:9:100", NOW)
        staging.want(connection, "tg:9:200", NOW + timedelta(seconds=1))
        assert staging.wanted(connection, 10) == ["tg:9:100", "tg:9:200"]
        for post, message in ((101, 51), (100, 50), (102, 52)):
            staging.arrived(connection, 9, post, message, NOW, is_part=True)
        assert staging.messages(connection, "tg:9:100") == [50, 51, 52]
        staging.arrived(connection, 9, 201, 60, NOW)
        assert staging.messages(connection, "tg:9:201") == [60]
        staging.refuse(connection, "tg:9:200", NOW)
        staging.want(connection, "tg:9:200", NOW)
        assert staging.wanted(connection, 10) == []
        assert staging.prune(connection, NOW + timedelta(seconds=1)) == 3
