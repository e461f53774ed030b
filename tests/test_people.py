from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from palate import database, identities, people
from palate.database import reading, writing
from palate.errors import InvalidInput, NotFound
from palate.people import Choices

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def make(engine: sa.Engine, *ids: str) -> list[int]:
    with writing(engine) as connection:
        return [people.upsert_user(connection, id, {}, NOW).key for id in ids]


def test_labels_are_replaced_and_choices_stay(engine: sa.Engine) -> None:
    with writing(engine) as connection:
        first = people.upsert_user(connection, "ann", {"age": 30, "cities": ["Rīga", "Oslo"], "pro": True}, NOW)
        people.set_choices(connection, first.key, Choices(topics=("birds",)))
        second = people.upsert_user(connection, "ann", {"place": "Oslo"}, NOW + HOUR)
    assert first.labels == {"age": 30, "cities": ["Rīga", "Oslo"], "pro": True}
    assert second == people.Person(
        key=first.key,
        id="ann",
        keys=(first.key,),
        ids=("ann",),
        labels={"place": "Oslo"},
        choices=Choices(topics=("birds",)),
        created=NOW,
    )


@pytest.mark.parametrize(
    "labels",
    [
        {"score": float("nan")},
        {"deep": {"er": 1}},
        {"": "unnamed"},
        {"long": "x" * 10_000},
        {"bad": "\ud800"},
        {"ended": "a\0"},
        {"listed": ["a", "\0"]},
        {"when": NOW},
        {"mixed": [1, "a"]},
    ],
)
def test_labels_that_cannot_be_stored_are_refused_with_a_reason(engine: sa.Engine, labels: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="label"), writing(engine) as connection:
        people.upsert_user(connection, "ann", labels, NOW)
    with reading(engine) as connection:
        assert people.get(connection, "ann") is None


def test_any_of_a_persons_ids_leads_to_the_person(engine: sa.Engine) -> None:
    cookie, ann = make(engine, "cookie", "ann")
    with writing(engine) as connection:
        identities.join(connection, cookie, ann)
        people.upsert_user(connection, "cookie", {"place": "Oslo"}, NOW)
        person = people.get(connection, "cookie")
        assert person == people.get(connection, "ann")
    assert person is not None
    assert (person.id, person.ids, person.labels) == ("ann", ("cookie", "ann"), {"place": "Oslo"})


def test_choices_are_kept_whole(engine: sa.Engine) -> None:
    (ann,) = make(engine, "ann")
    chosen = Choices(topics=("birds", "🚲"), languages=("en",), window_days=3, daily_ration=20, owner=True)
    with writing(engine) as connection:
        assert people.choices(connection, ann) == Choices()
        people.set_choices(connection, ann, chosen)
        assert people.choices(connection, ann) == chosen
        assert people.owners(connection) == [ann]


def test_choices_out_of_range_and_of_nobody_are_refused(engine: sa.Engine) -> None:
    (ann,) = make(engine, "ann")
    with writing(engine) as connection:
        with pytest.raises(InvalidInput, match="window_days"):
            people.set_choices(connection, ann, Choices(window_days=0))
        with pytest.raises(NotFound):
            people.set_choices(connection, ann + 1, Choices())


def test_a_source_is_hidden_followed_and_neither(engine: sa.Engine) -> None:
    ann, bob = make(engine, "ann", "bob")
    with writing(engine) as connection:
        people.choose_source(connection, ann, 7, "hidden", NOW)
        people.choose_source(connection, ann, 8, "followed", NOW)
        people.choose_source(connection, ann, 7, "followed", NOW)
        people.choose_source(connection, bob, 7, "hidden", NOW)
        people.choose_source(connection, ann, 8, None, NOW)
        assert people.source_choices(connection, ann) == {7: "followed"}
        assert people.source_choices(connection, bob) == {7: "hidden"}


def test_what_an_anonymous_visitor_chose_becomes_the_persons_unless_they_chose_otherwise(engine: sa.Engine) -> None:
    cookie, ann = make(engine, "cookie", "ann")
    with writing(engine) as connection:
        people.upsert_user(connection, "cookie", {"place": "Oslo", "age": 3}, NOW)
        people.upsert_user(connection, "ann", {"age": 30}, NOW)
        people.set_choices(connection, cookie, Choices(topics=("birds",), window_days=3))
        people.set_choices(connection, ann, Choices(window_days=9))
        people.choose_source(connection, cookie, 7, "hidden", NOW)
        people.choose_source(connection, cookie, 8, "hidden", NOW)
        people.choose_source(connection, ann, 8, "followed", NOW)
        assert people.merge(connection, "cookie", ann) == ann
        person = people.get(connection, "cookie")
        assert people.source_choices(connection, ann) == {7: "hidden", 8: "followed"}
    assert person is not None
    assert (person.key, person.labels) == (ann, {"place": "Oslo", "age": 30})
    assert person.choices == Choices(topics=("birds",), window_days=9)


def test_merging_twice_or_an_unknown_cookie_changes_nothing(engine: sa.Engine) -> None:
    _, ann = make(engine, "cookie", "ann")
    with writing(engine) as connection:
        assert people.merge(connection, "cookie", ann) == ann
        before = people.get(connection, "ann")
        assert people.merge(connection, "cookie", ann) == ann
        assert people.merge(connection, "nobody", ann) == ann
        assert people.get(connection, "ann") == before


def test_an_owner_is_not_merged_into_who_lured_them_to_a_link(engine: sa.Engine) -> None:
    cookie, ann = make(engine, "cookie", "ann")
    with writing(engine) as connection:
        people.set_choices(connection, cookie, Choices(owner=True))
        people.merge(connection, "cookie", ann)
        assert people.owners(connection) == [cookie]
        assert identities.aliases(connection, ann) == [ann]


def test_deleting_a_person_removes_every_id_and_choice_of_theirs_alone(engine: sa.Engine) -> None:
    cookie, ann, bob = make(engine, "cookie", "ann", "bob")
    with writing(engine) as connection:
        people.merge(connection, "cookie", ann)
        for person in (ann, bob):
            people.choose_source(connection, person, 7, "hidden", NOW)
        link = people.create_login(connection, ann, NOW, HOUR)
        assert people.delete(connection, "cookie") == [cookie, ann]
        assert people.delete(connection, "ann") == []
        assert people.get(connection, "ann") is None
        assert people.redeem_login(connection, link, NOW) is None
        assert people.source_choices(connection, ann) == {}
        assert people.source_choices(connection, bob) == {7: "hidden"}
        assert people.get(connection, "bob") is not None


def test_an_api_key_opens_what_its_scope_includes(engine: sa.Engine) -> None:
    with writing(engine) as connection:
        token = people.create_key(connection, ["write"], "import job", NOW)
        key = people.check_key(connection, token)
    assert key is not None
    assert [key.allows(scope) for scope in ("read", "write", "admin")] == [True, True, False]
    assert (key.note, key.created, key.revoked) == ("import job", NOW, None)


def test_the_secret_of_a_key_is_nowhere_in_the_database(engine: sa.Engine) -> None:
    with writing(engine) as connection:
        token = people.create_key(connection, ["admin"], None, NOW)
        stored = str(connection.execute(sa.select(database.api_keys)).all())
    assert token.split("_", 2)[2] not in stored


def test_wrong_and_revoked_keys_open_nothing(engine: sa.Engine) -> None:
    with writing(engine) as connection:
        token = people.create_key(connection, ["read"], None, NOW)
        other = people.create_key(connection, ["read"], None, NOW)
        id = token.split("_")[1]
        mixed = f"palate_{id}_{other.split('_', 2)[2]}"
        for wrong in ("", "palate", f"palate_{id}", f"palate_{id}_", f"{token}x", mixed, "palate_\ud800_\x00", "🔑"):
            assert people.check_key(connection, wrong) is None
        people.revoke_key(connection, id, NOW + HOUR)
        assert people.check_key(connection, token) is None
        assert people.check_key(connection, other) is not None
        with pytest.raises(NotFound):
            people.revoke_key(connection, id, NOW)
        revoked = {key.id: key.revoked for key in people.list_keys(connection)}
    assert revoked == {id: NOW + HOUR, other.split("_")[1]: None}


@pytest.mark.parametrize("scopes", [[], ["root"], ["read", "root"]])
def test_a_key_needs_known_scopes(engine: sa.Engine, scopes: Any) -> None:
    with pytest.raises(InvalidInput, match="scopes"), writing(engine) as connection:
        people.create_key(connection, scopes, None, NOW)


def test_a_login_link_is_good_once(engine: sa.Engine) -> None:
    (ann,) = make(engine, "ann")
    with writing(engine) as connection:
        token = people.create_login(connection, ann, NOW, HOUR)
        assert people.redeem_login(connection, token + "x", NOW) is None
        assert people.redeem_login(connection, token, NOW + HOUR / 2) == ann
        assert people.redeem_login(connection, token, NOW + HOUR / 2) is None


def test_a_login_link_expires_and_is_cleared_away(engine: sa.Engine) -> None:
    (ann,) = make(engine, "ann")
    with writing(engine) as connection:
        token = people.create_login(connection, ann, NOW, HOUR)
        assert people.redeem_login(connection, token, NOW + HOUR) is None
        people.create_login(connection, ann, NOW, HOUR)
        people.create_login(connection, ann, NOW + 2 * HOUR, HOUR)
        assert connection.scalar(sa.select(sa.func.count()).select_from(database.logins)) == 1


@pytest.mark.parametrize("lifetime", [timedelta(minutes=14), timedelta(days=8)])
def test_a_login_link_is_neither_too_short_nor_too_long_lived(engine: sa.Engine, lifetime: timedelta) -> None:
    with pytest.raises(InvalidInput, match="15 minutes to 7 days"), writing(engine) as connection:
        people.create_login(connection, 1, NOW, lifetime)


def test_of_two_who_redeem_a_link_at_once_one_wins(engine: sa.Engine) -> None:
    (ann,) = make(engine, "ann")
    with writing(engine) as connection:
        tokens = [people.create_login(connection, ann, NOW, HOUR) for _ in range(5)]

    def redeem(token: str) -> int | None:
        with writing(engine) as connection:
            return people.redeem_login(connection, token, NOW)

    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(redeem, sorted(tokens * 2)))
    assert won.count(ann) == 5
    assert won.count(None) == 5


def test_everybody_gets_the_same_secret_also_when_all_ask_first(engine: sa.Engine) -> None:
    def ask(_: int) -> bytes:
        with writing(engine) as connection:
            return people.secret(connection)

    with ThreadPoolExecutor(4) as pool:
        (secret,) = set(pool.map(ask, range(8)))
    assert len(secret) == 32
    with reading(engine) as connection:
        assert people.secret(connection) == secret
