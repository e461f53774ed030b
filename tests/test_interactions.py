from __future__ import annotations

import math
from collections import defaultdict
from typing import Any, Literal

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.domain import EventColumns, Interactions
from palate.interactions import DAY, EventType, InteractionParams, deciding_types, merge, rating_range

Row = tuple[int, int, str] | tuple[int, int, str, float | None] | tuple[int, int, str, float | None, int]
Merged = dict[tuple[int, int], tuple[float | None, float, int]]

VOTES = InteractionParams(rule="votes")
VIEWS = InteractionParams(rule="views")


def log(*rows: Row) -> EventColumns:
    """Events of (user, item, type[, value[, time]]), their seq and, by default, their time counted from 1."""
    types = tuple(dict.fromkeys(row[2] for row in rows))
    values = [row[3] if len(row) > 3 and row[3] is not None else math.nan for row in rows]
    times = [row[4] if len(row) > 4 else place + 1 for place, row in enumerate(rows)]
    return EventColumns(
        seq=np.arange(1, len(rows) + 1, dtype=np.int64),
        user=np.array([row[0] for row in rows], np.int64),
        item=np.array([row[1] for row in rows], np.int64),
        type=np.array([types.index(row[2]) for row in rows], np.uint16),
        value=np.array(values, np.float32),
        time=np.array(times, np.int64),
        types=types,
    )


def plain(merged: Interactions) -> Merged:
    rows = zip(
        *(column.tolist() for column in (merged.user, merged.item, merged.label, merged.weight, merged.time)),
        strict=True,
    )
    return {
        (user, item): (None if math.isnan(label) else label, weight, time) for user, item, label, weight, time in rows
    }


def labels(merged: Interactions) -> dict[tuple[int, int], float | None]:
    return {pair: label for pair, (label, _, _) in plain(merged).items()}


def twin(events: EventColumns, params: InteractionParams, leave_out: frozenset[int] = frozenset()) -> Merged:
    """The rules of `merge` once more, event by event."""
    rows = _kept(events, params, leave_out)
    bounds = params.rating_range or _range(rows, params)
    pairs: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        pairs[row["user"], row["item"]].append(row)
    return {pair: _merge_pair(pairs[pair], params, bounds) for pair in sorted(pairs)}


def _kept(events: EventColumns, params: InteractionParams, leave_out: frozenset[int]) -> list[dict[str, Any]]:
    names = ("seq", "user", "item", "type", "value", "time")
    rows = [
        dict(zip(names, row, strict=True))
        for row in zip(*(getattr(events, name).tolist() for name in names), strict=True)
    ]
    days: dict[tuple[int, int], int] = defaultdict(int)
    for row in rows:
        row["type"] = events.types[row["type"]]
        days[row["user"], row["time"] // DAY] += row["type"] != "shown"
    limit = params.max_events_per_day or math.inf
    out = leave_out | {user for (user, _), count in days.items() if count > limit}
    return [row for row in rows if row["user"] not in out]


def _range(rows: list[dict[str, Any]], params: InteractionParams) -> tuple[float, float] | None:
    rated = [name for name, type in params.types.items() if "value" in (type.label, type.positive)]
    values = [row["value"] for row in rows if row["type"] in rated and math.isfinite(row["value"])]
    return (min(values), max(values)) if values else None


def _merge_pair(
    rows: list[dict[str, Any]], params: InteractionParams, bounds: tuple[float, float] | None
) -> tuple[float | None, float, int]:
    rows = sorted(rows, key=lambda row: (row["time"], row["seq"]))
    alive = [row for row in rows if not row["type"].startswith("retract") and not _is_undone(row, rows)]
    meanings = [(row, params.types.get(row["type"], EventType())) for row in alive]
    label, decided = (_vote if params.rule == "votes" else _view)(meanings, bounds)
    return label, _weight(meanings, bounds), (decided or rows[-1])["time"]


def _is_undone(row: dict[str, Any], rows: list[dict[str, Any]]) -> bool:
    later = [other["type"] for other in rows if other["seq"] > row["seq"]]
    return f"retract:{row['type']}" in later or ("retract" in later and row["type"] not in ("shown", "viewed"))


def _scaled(value: float, bounds: tuple[float, float] | None) -> float | None:
    if bounds is None or math.isnan(value):
        return None
    low, high = bounds
    return float(np.clip((np.float32(value) - low) / (high - low), 0, 1)) if high > low else 1.0


Meanings = list[tuple[dict[str, Any], EventType]]


def _vote(meanings: Meanings, bounds: tuple[float, float] | None) -> tuple[float | None, dict[str, Any] | None]:
    for row, type in reversed(meanings):
        label = _scaled(row["value"], bounds) if type.label == "value" else type.label
        if label is not None:
            assert isinstance(label, float)
            return label, row
    return None, None


def _sign(row: dict[str, Any], type: EventType, bounds: tuple[float, float] | None) -> bool | None:
    if type.positive == "value":
        rating = _scaled(row["value"], bounds)
        return None if rating is None else rating >= 0.5
    return type.positive


def _view(meanings: Meanings, bounds: tuple[float, float] | None) -> tuple[float | None, dict[str, Any] | None]:
    for row, type in reversed(meanings):
        sign = _sign(row, type, bounds)
        if sign is not None:
            return float(sign), row
    for row, type in reversed(meanings):
        if type.viewed:
            return 0.0, row
    return None, None


def _weight(meanings: Meanings, bounds: tuple[float, float] | None) -> float:
    best: dict[str, float] = defaultdict(float)
    for row, type in meanings:
        weight = row["value"] if type.weight == "value" else type.weight or 0.0
        best[row["type"]] = max(best[row["type"]], 0.0 if math.isnan(weight) else weight)
    acted = [type for row, type in meanings if _sign(row, type, bounds) is not None]
    if acted and acted[-1].positive is False:
        assert not isinstance(acted[-1].weight, str)
        return min(acted[-1].weight or 0.0, 0.0)
    return sum(best.values())


OWN_TYPES = {
    "nod": EventType(label=0.75, weight=0.5, positive=True),
    "yawn": EventType(positive=False),
    "leave": EventType(weight=-0.5, positive=False),
}
TYPES = ["shown", "viewed", "opened", "like", "dislike", "save", "hide", "rating", "watch", *OWN_TYPES, "unheard_of"]
event_rows = st.tuples(
    st.integers(1, 3),
    st.integers(1, 2),
    st.sampled_from([*TYPES, "retract", "retract:like", "retract:viewed", "retract:rating", "retract:never"]),
    st.sampled_from([None, 1.0, 2.0, 5.0]),
    st.integers(0, 4).map(lambda step: step * DAY // 2),
)


@given(
    rows=st.lists(event_rows, max_size=40),
    rule=st.sampled_from(["votes", "views"]),
    bounds=st.sampled_from([None, (0.0, 4.0)]),
    limit=st.sampled_from([None, 4]),
    positive=st.sampled_from([None, ("save", "watch"), ("unheard_of", "like")]),
    leave_out=st.frozensets(st.integers(1, 3), max_size=1),
)
def test_the_fast_merge_agrees_with_its_readable_twin(
    rows: list[Row],
    rule: Literal["votes", "views"],
    bounds: tuple[float, float] | None,
    limit: int | None,
    positive: tuple[str, ...] | None,
    leave_out: frozenset[int],
) -> None:
    params = InteractionParams(
        rule=rule, types=OWN_TYPES, rating_range=bounds, max_events_per_day=limit, positive=positive
    )
    merged = merge(log(*rows), params, leave_out)
    expected = twin(log(*rows), params, leave_out)
    assert plain(merged) == expected
    assert list(plain(merged)) == sorted(expected)


def test_a_later_vote_replaces_an_earlier_one() -> None:
    merged = merge(log((1, 7, "like"), (1, 7, "dislike"), (2, 7, "dislike"), (2, 7, "like")), VOTES)
    assert labels(merged) == {(1, 7): 0.0, (2, 7): 1.0}
    assert merged.time.tolist() == [2, 4]


def test_a_vote_that_arrives_late_does_not_replace_a_newer_one() -> None:
    merged = merge(log((1, 7, "like", None, 900), (1, 7, "dislike", None, 100)), VOTES)
    assert labels(merged) == {(1, 7): 1.0}


def test_only_votes_are_examples_under_votes() -> None:
    merged = merge(log((1, 7, "shown"), (1, 8, "viewed"), (1, 8, "save"), (1, 9, "hide"), (1, 6, "unheard_of")), VOTES)
    assert labels(merged) == {(1, 6): None, (1, 7): None, (1, 8): None, (1, 9): None}


def test_a_view_without_an_action_is_a_negative_and_with_one_a_positive() -> None:
    merged = merge(
        log((1, 5, "shown"), (1, 6, "viewed"), (1, 7, "viewed"), (1, 7, "share"), (1, 8, "comment"), (1, 9, "opened")),
        VIEWS,
    )
    assert labels(merged) == {(1, 5): None, (1, 6): 0.0, (1, 7): 1.0, (1, 8): 1.0, (1, 9): 0.0}


def test_a_dislike_or_a_hide_counts_until_something_positive_follows() -> None:
    merged = merge(log((1, 5, "like"), (1, 5, "hide"), (2, 5, "dislike"), (2, 5, "save"), (2, 5, "viewed")), VIEWS)
    assert labels(merged) == {(1, 5): 0.0, (2, 5): 1.0}
    assert merged.weight.tolist() == [-1.0, 3.0]


def test_a_retraction_undoes_what_was_before_it_and_not_what_comes_after() -> None:
    merged = merge(log((1, 5, "like"), (1, 5, "retract:like"), (2, 5, "retract:like"), (2, 5, "like")), VOTES)
    assert labels(merged) == {(1, 5): None, (2, 5): 1.0}


def test_a_retraction_of_a_vote_brings_the_earlier_vote_back() -> None:
    merged = merge(log((1, 5, "dislike"), (1, 5, "like"), (1, 5, "retract:like")), VOTES)
    assert labels(merged) == {(1, 5): 0.0}


def test_a_plain_retraction_leaves_the_view() -> None:
    merged = merge(log((1, 5, "viewed"), (1, 5, "like"), (1, 5, "save"), (1, 5, "retract")), VIEWS)
    assert labels(merged) == {(1, 5): 0.0}
    assert merged.weight.tolist() == [1.0]


def test_ratings_become_labels_between_the_lowest_and_the_highest() -> None:
    rated = log((1, 5, "rating", 5.0), (1, 6, "rating", 1.0), (2, 5, "rating", 2.0))
    assert labels(merge(rated, VOTES)) == {(1, 5): 1.0, (1, 6): 0.0, (2, 5): 0.25}
    assert rating_range(rated, VOTES) == (1.0, 5.0)
    half = InteractionParams(rating_range=(0.0, 4.0))
    assert labels(merge(rated, half)) == {(1, 5): 1.0, (1, 6): 0.25, (2, 5): 0.5}


def test_repeats_of_one_type_weigh_once_and_types_add_up() -> None:
    merged = merge(
        log((1, 5, "watch", 0.25), (1, 5, "watch", 0.5), (1, 5, "save"), (2, 5, "opened"), (2, 5, "opened")), VOTES
    )
    assert merged.weight.tolist() == [2.5, 1.0]


def test_a_refusal_is_evidence_against_and_its_retraction_takes_that_back() -> None:
    merged = merge(
        log((1, 5, "like"), (1, 5, "hide"), (2, 5, "dislike"), (2, 5, "retract:dislike"), (3, 5, "yawn")),
        InteractionParams(types={"yawn": EventType(positive=False)}),
    )
    assert merged.weight.tolist() == [-1.0, 0.0, 0.0]


def test_a_low_rating_is_a_positive_of_its_value() -> None:
    merged = merge(log((1, 5, "rating", 1.0), (1, 6, "rating", 5.0), (1, 7, "rating", -2.0)), VOTES)
    assert merged.weight.tolist() == [1.0, 5.0, 0.0]


def test_the_types_named_as_positives_weigh_alone() -> None:
    params = InteractionParams(positive=("like", "watch", "bought"))
    merged = merge(
        log(
            (1, 5, "like"), (1, 5, "save"), (1, 6, "watch", 0.5), (1, 7, "bought"), (1, 8, "dislike"), (1, 9, "viewed")
        ),
        params,
    )
    assert merged.weight.tolist() == [1.0, 0.5, 1.0, 0.0, 0.0]
    assert labels(merged)[1, 8] == 0.0
    assert msgspec.json.decode(msgspec.json.encode(params), type=InteractionParams) == params


def test_robots_and_hyperactive_accounts_are_left_out() -> None:
    params = InteractionParams(max_events_per_day=2)
    events = log(*[(1, item, "like") for item in (5, 6, 7)], (2, 5, "like"), (3, 5, "like"), *[(3, 5, "shown")] * 4)
    assert set(labels(merge(events, params, leave_out={2}))) == {(3, 5)}


@pytest.mark.parametrize("params", [VOTES, VIEWS])
def test_the_deciding_types_are_those_that_give_a_label_alone(params: InteractionParams) -> None:
    giving = [name for name in params.types if labels(merge(log((1, 5, name, 3.0)), params))[1, 5] is not None]
    assert deciding_types(params) == giving


def test_an_empty_log_has_no_interactions() -> None:
    assert len(merge(log(), VOTES)) == 0
    assert len(merge(log((1, 5, "like")), VIEWS, leave_out={1})) == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"types": {"retract:like": {}}}, "retract:like"),
        ({"types": {"retract": {}}}, "retract"),
        ({"types": {"nod": {"label": 1.5}}}, "label"),
        ({"types": {"nod": {"labels": 1.0}}}, "labels"),
        ({"rating_range": [5, 1]}, "rating_range"),
        ({"rule": "vote"}, "rule"),
        ({"positive": ["like", "hide"]}, "refusal"),
        ({"types": {"nod": {"weight": -1.0, "positive": True}}}, "below 0"),
        ({"types": {"nod": {"weight": float("nan"), "positive": False}}}, "finite"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=said):
        msgspec.convert(settings, InteractionParams)


def test_a_built_in_type_can_be_given_another_meaning() -> None:
    params = InteractionParams(rule="views", types={"opened": EventType(weight=1.0, positive=True)})
    assert labels(merge(log((1, 5, "opened"), (2, 5, "like")), params)) == {(1, 5): 1.0, (2, 5): 1.0}


@pytest.mark.parametrize("column", ["seq", "user", "item", "type", "value", "time"])
def test_merging_leaves_the_events_as_they_were(column: str) -> None:
    events = log((2, 5, "like"), (1, 7, "retract"), (1, 7, "rating", 3.0))
    before = getattr(events, column).copy()
    merge(events, VIEWS)
    np.testing.assert_array_equal(getattr(events, column), before)
