"""In which order, and how fast, messages go out: on simulated time."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from palate.delivery.bot_line import Lane, Line


def run_out(line: Line, takes: float = 0.05, now: float = 0.0) -> list[tuple[float, int]]:
    """Send all that waits, each taking so many seconds: when each was sent."""
    sent: list[tuple[float, int]] = []
    flying: list[tuple[float, int]] = []
    while len(line):
        while flying and flying[0][0] <= now:
            line.done(flying.pop(0)[1], now)
        if not len(line):
            break
        key = line.take(now)
        if key is not None:
            sent.append((now, key))
            flying.append((now + takes, key))
            continue
        wait = line.wait(now)
        times = [now + wait] if wait is not None else []
        now = max(now + 1e-6, min([*times, *(end for end, _ in flying[:1])]))
    return sent


def test_a_chat_gets_a_message_a_second_in_order() -> None:
    line = Line(25, 1.0)
    for key in (3, 1, 2):
        line.put(key, Lane(7, True), 0)
    sent = run_out(line)
    assert [key for _, key in sent] == [1, 2, 3]
    assert [after[0] - before[0] > 1.0 for before, after in pairwise(sent)] == [True, True]


def test_answers_overtake_mailings_and_changes_do_not_wait_for_messages() -> None:
    line = Line(2, 1.0)
    for chat in range(1, 6):
        line.put(chat, Lane(chat, True), 3)
    line.put(10, Lane(5, True), 0)
    line.put(11, Lane(5, False), 1)
    assert [key for _, key in run_out(line)] == [10, 11, 1, 2, 3, 4, 5]


def test_a_later_answer_overtakes_what_its_own_chat_already_waits_for() -> None:
    line = Line(1, 1.0)
    line.put(1, Lane(1, True), 3)
    line.put(2, Lane(2, True), 3)
    assert line.take(0.0) == 1
    line.put(3, Lane(2, True), 0)
    line.done(1, 0.1)
    assert line.take(1.2) == 3


def test_silence_holds_one_chat_or_all() -> None:
    line = Line(25, 1.0)
    for chat in (1, 2):
        line.put(chat, Lane(chat, True), 0)
    line.hold(1, 5.0)
    assert [(round(time, 3), key) for time, key in run_out(line)] == [(0.0, 2), (5.0, 1)]
    line.put(3, Lane(3, True), 0)
    line.hold(None, 100.0)
    assert line.take(99.9) is None
    assert line.wait(99.0) == 1.0
    assert line.take(100.0) == 3


def test_what_failed_is_tried_before_what_comes_after_it() -> None:
    line = Line(25, 1.0)
    line.put(1, Lane(1, True), 0)
    line.put(2, Lane(1, True), 0)
    assert line.take(0.0) == 1
    line.again(1, 0.1, 4.0)
    assert line.take(4.0) is None
    assert line.take(4.2) == 1


def test_a_blocked_chat_is_forgotten() -> None:
    line = Line(25, 1.0)
    for key in (1, 2, 3):
        line.put(key, Lane(1, True), 0)
    line.put(4, Lane(2, True), 0)
    assert line.take(0.0) == 1
    line.drop(1)
    line.done(1, 0.1)
    assert [key for _, key in run_out(line, now=0.1)] == [4]
    assert len(line) == 0
    assert line.wait(9.0) is None


def test_a_mailing_to_ten_thousand_takes_the_pace_that_is_allowed() -> None:
    line = Line(25, 1.0)
    for key in range(10_000):
        line.put(key, Lane(key, True), 3)
    sent = run_out(line)
    assert 10_000 / 21 - 1 < sent[-1][0] < 1.01 * 10_000 / 21  # a sixth is kept for answers


@given(
    st.lists(st.tuples(st.integers(1, 4), st.booleans(), st.integers(0, 3)), max_size=60),
    st.integers(1, 5),
    st.integers(0, 3),
    st.floats(0.001, 2.5),
)
def test_no_limit_is_broken_and_nothing_is_lost(
    messages: list[tuple[int, bool, int]], per_second: int, more: int, takes: float
) -> None:
    line = Line(per_second, 1.0, ceiling=per_second + more)
    lanes = {key: Lane(chat, spaced) for key, (chat, spaced, _) in enumerate(messages)}
    for key, (_, _, urgency) in enumerate(messages):
        line.put(key, lanes[key], urgency)
    sent = run_out(line, takes)
    assert sorted(key for _, key in sent) == list(range(len(messages)))
    times = [time for time, _ in sent]
    for start in times:
        assert sum(start - 1.0 + 1e-9 < time <= start for time in times) <= per_second
        # However late a call arrives while it is under way, no second sees more than the ceiling.
        assert sum(start - takes - 1.0 + 1e-9 < time <= start for time in times) <= per_second + more
    by_lane: dict[Lane, list[tuple[float, int]]] = defaultdict(list)
    for time, key in sent:
        by_lane[lanes[key]].append((time, key))
    for lane, own in by_lane.items():
        assert [(messages[key][2], key) for _, key in own] == sorted((messages[key][2], key) for _, key in own)
        gap = takes + 1.0 if lane.spaced else takes
        assert all(after[0] - before[0] >= gap - 1e-9 for before, after in pairwise(own))


def busy(urgencies: list[tuple[int, int]], answers: int) -> list[tuple[float, int]]:
    """When what (by its key) goes out of a line that begins with so many of each urgency, while answers come for 10 seconds."""
    line = Line(25, 1.0)
    key = 0
    for urgency, number in urgencies:
        for _ in range(number):
            key += 1
            line.put(key, Lane(key, urgency != 1), urgency)
    sent: list[tuple[float, int]] = []
    for tick in range(1000):
        now = tick / 100
        if tick % (100 // answers) == 0:
            line.put(-1 - tick, Lane(-1 - tick, True), 0)
        while (taken := line.take(now)) is not None:
            line.done(taken, now)
            sent.append((now, taken))
    return sent


def test_changes_take_half_of_what_is_allowed_at_most() -> None:
    sent = busy([(1, 1000)], 5)
    changes = [time for time, key in sent if key > 0]
    assert 110 <= len(changes) <= 120
    assert all(sum(start <= time < start + 1 for time in changes) <= 12 for start in changes)


def test_answers_go_out_at_once_beside_changes_and_mailings() -> None:
    sent = busy([(1, 1000), (3, 1000)], 2)
    assert [time for time, key in sent if key < 0] == [(-1 - key) / 100 for _, key in sent if key < 0]
    assert len(sent) >= 200


def test_twenty_answers_a_second_hardly_wait_though_changes_fill_the_rest() -> None:
    sent = busy([(1, 1000)], 20)
    waits = sorted(time - (-1 - key) / 100 for time, key in sent if key < 0)
    assert len(waits) >= 195
    assert waits[len(waits) // 2] <= 0.05
    assert len(sent) >= 208


def test_answers_at_the_limit_go_out_as_they_come_however_long_telegram_takes() -> None:
    line, sent, flying = Line(25, 1.0), list[float](), list[tuple[float, int]]()
    for tick in range(2000):
        now = tick / 100
        while flying and flying[0][0] <= now:
            line.done(flying.pop(0)[1], now)
        if tick % 4 == 0:
            line.put(tick, Lane(tick, True), 0)
        while (taken := line.take(now)) is not None:
            sent.append(now - taken / 100)
            flying.append((now + 0.15, taken))
    assert len(sent) == 500
    assert max(sent) <= 0.05
