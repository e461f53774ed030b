"""Cuts whose parts are known, and nothing of the future in what is learned."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.domain import Event, Interactions
from palate.errors import PalateError
from palate.evaluation import protocols, recordings
from palate.evaluation.protocols import Meaning, Split, SplitParams
from palate.evaluation.recordings import Recording
from palate.interactions import InteractionParams

Row = tuple[str, str, str, float | None, int]


def recording(rows: list[Row], probability: list[float | None] | None = None) -> Recording:
    chances = probability or [None] * len(rows)
    return recordings.of_log(
        iter(
            [
                [
                    Event(user=user, item=item, type=type_, value=value, time=time, probability=chance)
                    for (user, item, type_, value, time), chance in zip(rows, chances, strict=True)
                ]
            ]
        )
    )


def meaning(rows: list[Row], positive: str | None = None) -> Meaning:
    return protocols.meaning(recording(rows), InteractionParams(), positive)


def split(rows: list[Row], **how: object) -> Split:
    return protocols.split(meaning(rows), SplitParams(**how), np.random.default_rng(1))  # type: ignore[arg-type]


def pairs(part: Interactions) -> list[tuple[int, int]]:
    return list(zip(part.user.tolist(), part.item.tolist(), strict=True))


def likes(*rows: tuple[str, str, int]) -> list[Row]:
    return [(user, item, "like", None, time) for user, item, time in rows]


LOG = likes(("a", "x", 1), ("b", "x", 2), ("a", "y", 3), ("b", "z", 4), ("a", "z", 5), ("c", "x", 5))


def test_by_time_nothing_learned_is_as_late_as_what_is_asked() -> None:
    found = split(LOG, kind="time", test_share=1 / 6)
    assert pairs(found.train) == [(0, 0), (0, 1), (1, 0), (1, 2)]
    assert pairs(found.test) == [(0, 2), (2, 0)]  # both of one millisecond
    assert "33.3%" in found.stated[-1]


def test_what_was_added_to_a_pair_after_the_cut_is_not_learned() -> None:
    found = split([("a", "x", "like", None, 1), *likes(("b", "x", 2)), ("a", "x", "share", None, 9)], test_share=0.3)
    assert dict(zip(pairs(found.train), found.train.weight.tolist(), strict=True))[0, 0] == 2
    assert pairs(found.test) == [(0, 0)]


def test_by_each_users_time() -> None:
    found = split(LOG, kind="user-time", test_share=0.4)
    assert pairs(found.test) == [(0, 2), (1, 2)]


def test_the_last_positive_of_each_user_with_all_its_events() -> None:
    rows = [*likes(("a", "x", 1), ("a", "y", 2)), ("a", "y", "viewed", None, 1), ("a", "z", "dislike", None, 3)]
    found = split([*rows, *likes(("b", "x", 1))], kind="leave-last-out")
    assert pairs(found.test) == [(0, 1)]
    assert pairs(found.train) == [(0, 0), (0, 2), (1, 0)]


def test_of_last_positives_of_one_moment_the_last_row_is_asked_for_and_ties_are_stated() -> None:
    found = split(likes(("a", "x", 1), ("a", "z", 7), ("a", "y", 7), ("b", "z", 1)), kind="leave-last-out")
    assert pairs(found.test) == [(0, 2)]
    assert any(sentence.startswith("1 users have several") for sentence in found.stated)


def test_at_random_pairs_stay_whole() -> None:
    rows = [row for user in "abcdef" for item in "xyz" for row in likes((user, item, 1), (user, item, 2))]
    found = split(rows, kind="random", test_share=0.5)
    assert (len(found.train), len(found.test)) == (9, 9)
    assert not set(pairs(found.train)) & set(pairs(found.test))


def test_held_out_users_are_not_learned_and_a_part_of_each_is_told() -> None:
    rows = likes(*((user, item, 1) for user in "abcdefghij" for item in "vwxyz"))
    found = split(rows, kind="strong", test_share=0.3, told_share=0.8)
    held = set(found.test.user.tolist())
    assert len(held) == 3
    assert not held & set(found.train.user.tolist())
    known = pairs(found.known)
    assert all(sum(user == one for user, _ in known) == (4 if one in held else 5) for one in range(10))
    assert not set(known) & set(pairs(found.test))


def test_files_as_they_are_given() -> None:
    log = recording(LOG)
    read = protocols.meaning(log, InteractionParams(), None)
    found = protocols.given(read, np.array([0, 0, 0, 0, 1, 1], np.uint8))
    assert pairs(found.test) == [(0, 2), (2, 0)]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(0, 9)), min_size=6, max_size=30),
    st.sampled_from([0.1, 0.3, 0.5]),
)
def test_what_happens_after_the_cut_changes_nothing_that_is_learned(
    rows: list[tuple[str, str, int]], share: float
) -> None:
    read = meaning(likes(*rows))
    cut = max(time for *_, time in rows)
    changed = meaning([(user, item, "like" if time < cut else "hide", None, time) for user, item, time in rows])
    one, other = protocols.before(read, cut), protocols.before(changed, cut)
    assert [getattr(one, name).tolist() for name in ("user", "item", "weight", "time")] == [
        getattr(other, name).tolist() for name in ("user", "item", "weight", "time")
    ]
    assert (one.time < cut).all()


def test_positives_can_be_named_and_then_weigh_1() -> None:
    rows: list[Row] = [("a", "x", "share", None, 1), ("a", "y", "viewed", None, 2), ("a", "z", "rating", 5.0, 3)]
    read = meaning(rows, "share")
    found = protocols.before(read, 9)
    assert found.weight.tolist() == [1, 0, 0]
    assert read.stated == ("Positives are share alone, each of weight 1.",)


def test_ratings_can_have_a_least_value_and_keep_their_labels() -> None:
    rows: list[Row] = [("a", "x", "rating", 2.0, 1), ("a", "y", "rating", 4.0, 2), ("b", "x", "rating", 5.0, 3)]
    read = meaning(rows, "rating>=4")
    found = protocols.before(read, 9)
    assert found.weight.tolist() == [0, 1, 1]
    assert found.label.tolist() == pytest.approx([0, 2 / 3, 1])
    assert read.unit == 3


def test_types_that_no_setting_knows_are_positives_when_there_is_nothing_else() -> None:
    read = meaning([("a", "x", "purchase", None, 1)])
    assert protocols.before(read, 9).weight.tolist() == [1]
    assert "purchase" in read.stated[0]
    mixed = meaning([("a", "x", "purchase", None, 1), ("a", "y", "like", None, 1)])
    assert protocols.before(mixed, 9).weight.tolist() == [0, 2]
    assert "purchase teach nothing" in mixed.stated[0]


@pytest.mark.parametrize(
    ("positive", "words"),
    [("lik", "no event of the type lik"), ("rating>=x", "names no positive"), (">=3", "names no")],
)
def test_positives_that_are_none(positive: str, words: str) -> None:
    with pytest.raises(PalateError, match=words):
        meaning([("a", "x", "like", None, 1), ("a", "x", "rating", 1.0, 1)], positive)


def test_events_without_times_cannot_be_split_by_them() -> None:
    with pytest.raises(PalateError, match="no different times"):
        split(likes(("a", "x", 0), ("b", "y", 0)))


def test_an_empty_part_is_named() -> None:
    with pytest.raises(PalateError, match="test part is empty"):
        split(likes(("a", "x", 1), ("b", "y", 2)), kind="leave-last-out")
    with pytest.raises(PalateError, match="neither a positive nor a vote"):
        split([("a", "x", "shown", None, 1), *likes(("b", "y", 2))], test_share=0.5)


def test_exploration_alone_is_weighed_by_its_probability() -> None:
    rows: list[Row] = [
        ("b", "z", "like", None, 1),
        ("a", "x", "shown", None, 2),
        ("a", "x", "like", None, 3),
        ("a", "y", "shown", None, 2),
        ("a", "y", "like", None, 3),
        ("b", "x", "shown", None, 3),
        ("b", "x", "shown", None, 3),
        ("b", "x", "like", None, 4),
    ]
    log = recording(rows, [None, 0.25, None, 1.0, None, 0.1, 0.5, None])
    read = protocols.meaning(log, InteractionParams(), None)
    found = protocols.explored(protocols.split(read, SplitParams(test_share=0.8), np.random.default_rng(0)), log)
    assert pairs(found.test) == [(0, 1), (1, 1)]  # b and x, a and x: in the order of first appearance
    assert found.gains.tolist() == [2, 4]  # of several shows of a pair the likeliest counts
    assert "exploration" in found.stated[-1]


def test_a_log_without_exploration_is_told() -> None:
    log = recording(LOG)
    read = protocols.meaning(log, InteractionParams(), None)
    cut = protocols.split(read, SplitParams(), np.random.default_rng(0))
    with pytest.raises(PalateError, match="probability below 1"):
        protocols.explored(cut, log)
