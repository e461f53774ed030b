from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from palate import channels, memberships
from palate.channels import Channel, Mention
from palate.database import reading, writing
from palate.errors import InvalidInput, NotFound

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def add(engine: sa.Engine, **names: str | int) -> Channel:
    with writing(engine) as connection:
        return channels.add(connection, NOW, **names)  # type: ignore[arg-type]


def stored(engine: sa.Engine, key: int) -> Channel:
    with reading(engine) as connection:
        return channels.get(connection, key)


def test_a_channel_is_found_by_each_of_its_names(engine: sa.Engine) -> None:
    news = add(engine, username="News", category="politics")
    invited = add(engine, invite="AbCdEf")
    private = add(engine, telegram_id=1005640892, title="Private")
    assert [one.address for one in (news, invited, private)] == [
        "https://t.me/news",
        "https://t.me/+AbCdEf",
        "tg:1005640892",
    ]
    assert (news.state, news.category, news.name, private.name) == (
        "wanted",
        "politics",
        "https://t.me/news",
        "Private",
    )
    with reading(engine) as connection:
        assert channels.find(connection, username="NEWS") == news
        assert channels.find(connection, invite="AbCdEf") == invited
        assert channels.find(connection, invite="abcdef") is None
        assert channels.find(connection, telegram_id=1005640892) == private


def test_adding_again_changes_nothing_but_what_was_unknown(engine: sa.Engine) -> None:
    first = add(engine, username="news")
    again = add(engine, username="news", category="sport", invite="XyZ")
    third = add(engine, username="news", category="other", title="News")
    assert first.key == again.key == third.key
    assert (third.category, third.invite, third.title) == ("sport", "XyZ", "News")


@pytest.mark.parametrize(
    ("state", "then"),
    [("candidate", "wanted"), ("left", "wanted"), ("failed", "wanted"), ("paused", "paused"), ("joined", "joined")],
)
def test_adding_wants_what_nobody_decided_against(engine: sa.Engine, state: channels.State, then: str) -> None:
    news = add(engine, username="news")
    with writing(engine) as connection:
        channels.set_state(connection, news.key, state, error="Gone.", failures=4)
    again = add(engine, username="news")
    assert (again.state, again.error) == (then, None if then == "wanted" else "Gone.")


def test_a_name_of_another_channel_is_not_taken(engine: sa.Engine) -> None:
    news = add(engine, username="news")
    other = add(engine, invite="XyZ")
    again = add(engine, username="news", invite="XyZ")
    assert (again.key, again.invite) == (news.key, None)
    assert stored(engine, other.key).invite == "XyZ"


def test_two_rows_of_one_channel_become_one_when_it_is_known(engine: sa.Engine) -> None:
    by_link = add(engine, invite="XyZ", category="politics")
    by_name = add(engine, username="news")
    with writing(engine) as connection:
        channels.identify(connection, by_link.key, 77, None, "News")
        memberships.join(connection, by_link.key, 1, 11, NOW)
        channels.set_state(connection, by_link.key, "joined")
        memberships.join(connection, by_name.key, 1, 12, NOW)
        memberships.join(connection, by_name.key, 2, 22, NOW)
        assert channels.identify(connection, by_name.key, 77, "News", "News today") == by_link.key
        members = memberships.list_memberships(connection, channel=by_link.key)
        assert [(one.account, one.access_hash) for one in members] == [(1, 11), (2, 22)]
        with pytest.raises(NotFound):
            channels.get(connection, by_name.key)
    found = stored(engine, by_link.key)
    assert (found.username, found.invite, found.telegram_id) == ("news", "XyZ", 77)
    assert (found.title, found.category, found.state) == ("News today", "politics", "joined")


def test_attempts_and_mentions_follow_a_merged_channel(engine: sa.Engine) -> None:
    first = add(engine, telegram_id=77)
    twin = add(engine, username="news")
    with writing(engine) as connection:
        channels.record_mentions(connection, 5, [Mention(username="news")] * 2, NOW)
        memberships.begin_attempt(connection, 1, twin.key, resolves=True, pause=600, now=NOW)
        channels.identify(connection, twin.key, 77, "news")
        assert [one.channel for one in memberships.list_attempts(connection, NOW)] == [first.key]
        channels.set_state(connection, first.key, "candidate")
        assert [(one.mentions, one.sources) for one in channels.candidates(connection, 5)] == [(2, 1)]


def test_a_name_that_moved_to_another_channel_is_taken_from_the_first(engine: sa.Engine) -> None:
    old = add(engine, username="news")
    with writing(engine) as connection:
        channels.identify(connection, old.key, 77, "news")
    new = add(engine, telegram_id=88)
    with writing(engine) as connection:
        assert channels.identify(connection, new.key, 88, "News") == new.key
    assert (stored(engine, old.key).username, stored(engine, new.key).username) == (None, "news")


def test_a_renamed_channel_keeps_its_row(engine: sa.Engine) -> None:
    news = add(engine, username="news")
    with writing(engine) as connection:
        channels.identify(connection, news.key, 77, "news", "News")
        assert channels.identify(connection, news.key, 77, "novosti") == news.key
    assert (stored(engine, news.key).username, stored(engine, news.key).title) == ("novosti", "News")


def test_a_paused_channel_comes_back_to_where_it_was(engine: sa.Engine) -> None:
    wanted, inside = add(engine, username="wanted"), add(engine, username="inside")
    with writing(engine) as connection:
        memberships.join(connection, inside.key, 1, 5, NOW)
        for one in (wanted, inside):
            channels.pause(connection, one.key)
            channels.resume(connection, one.key)
        with pytest.raises(InvalidInput, match="is not paused but wanted"):
            channels.resume(connection, wanted.key)
    assert (stored(engine, wanted.key).state, stored(engine, inside.key).state) == ("wanted", "joined")


def test_candidates_are_ranked_by_how_many_sources_name_them(engine: sa.Engine) -> None:
    def name(source: int, *names: str) -> None:
        with writing(engine) as connection:
            channels.record_mentions(connection, source, [Mention(username=one) for one in names], NOW)

    add(engine, username="known")
    name(1, "often", "often", "often", "often", "known", "rare")
    name(2, "wide")
    name(3, "wide", "often2", "often2", "often2")
    name(3, "often2")
    with reading(engine) as connection:
        found = channels.candidates(connection, 3)
    assert [(one.channel.username, one.mentions, one.sources) for one in found] == [
        ("wide", 2, 2),
        ("often", 4, 1),
        ("often2", 4, 1),
    ]


def test_a_channel_does_not_recommend_itself(engine: sa.Engine) -> None:
    news = add(engine, username="news")
    with writing(engine) as connection:
        channels.set_source(connection, news.key, 9)
        channels.set_state(connection, news.key, "candidate")
        channels.record_mentions(connection, 9, [Mention(username="news")], NOW)
        assert channels.candidates(connection, 5) == []


def test_the_least_named_candidates_give_way(engine: sa.Engine) -> None:
    add(engine, username="kept")
    with writing(engine) as connection:
        for times, name in ((1, "one"), (3, "three"), (2, "two")):
            channels.record_mentions(connection, 1, [Mention(username=name)] * times, NOW)
        assert channels.prune_candidates(connection, keep=2) == 1
        assert [one.channel.username for one in channels.candidates(connection, 5)] == ["three", "two"]
        assert channels.count(connection) == {"candidate": 2, "wanted": 1}
        assert [one.username for one in channels.list_channels(connection)] == ["kept"]


def outcomes(engine: sa.Engine) -> Sequence[tuple[int, str | None, float | None]]:
    with reading(engine) as connection:
        return [
            (one.account, one.outcome, one.wait)
            for one in memberships.list_attempts(connection, NOW - timedelta(days=1))
        ]


def test_an_attempt_is_logged_before_its_outcome(engine: sa.Engine) -> None:
    with writing(engine) as connection:
        first = memberships.begin_attempt(connection, 1, 10, resolves=True, pause=700, now=NOW)
        memberships.begin_attempt(connection, 2, 11, resolves=False, pause=700, now=NOW + timedelta(minutes=1))
    assert outcomes(engine) == [(1, None, None), (2, None, None)]
    with writing(engine) as connection:
        memberships.end_attempt(connection, first, "wait", NOW, wait=30.5, error="x" * 900)
        assert memberships.count_outcomes(connection) == {"wait": 1, "unknown": 1}
        assert memberships.count_attempts(connection) == {1: 1, 2: 1}
        assert memberships.waited(connection) == 30.5
        assert memberships.get_attempt(connection, first).error == "x" * 500
        late = memberships.list_attempts(connection, NOW + timedelta(seconds=1))
        assert [(one.account, one.pause) for one in late] == [(2, 700)]
        assert [one.key for one in memberships.list_attempts(connection, NOW, account=1)] == [first]
        assert memberships.list_attempts(connection, NOW, channel=12) == []


def test_what_an_account_knows_of_a_channel_outlives_its_leaving(engine: sa.Engine) -> None:
    with writing(engine) as connection:
        memberships.learn(connection, 10, 1, -(2**63))
        assert memberships.list_memberships(connection) == []
        memberships.join(connection, 10, 1, None, NOW)
        memberships.set_muted(connection, 10, 1)
        memberships.set_pts(connection, 10, 1, 5)
        memberships.record_sweep(connection, 10, 1, NOW)
        memberships.join(connection, 10, 1, None, NOW + timedelta(days=1))
        (inside,) = memberships.list_memberships(connection, account=1)
        assert inside == memberships.Membership(10, 1, -(2**63), NOW, True, 5, NOW)
        memberships.leave(connection, 10, 1)
        (outside,) = memberships.list_memberships(connection, joined=False)
        assert outside == memberships.Membership(10, 1, -(2**63), None, False, None, None)


def test_a_lost_account_gives_back_the_channels_that_only_it_was_in(engine: sa.Engine) -> None:
    with writing(engine) as connection:
        for channel, account in ((10, 1), (11, 1), (11, 2), (12, 2)):
            memberships.join(connection, channel, account, None, NOW)
        assert memberships.count_joined(connection) == {1: 2, 2: 2}
        assert memberships.release(connection, 1) == [10]
        assert memberships.count_joined(connection) == {2: 2}
