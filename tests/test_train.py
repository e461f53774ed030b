from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
import sqlalchemy as sa

from palate import database, events, identities, publishing, retention, snapshots
from palate.database import reading, writing
from palate.domain import Event, Item, to_milliseconds
from palate.errors import CycleFailed
from palate.evaluation.simulation import SimulationParams, readers, simulate
from palate.events import EventParams
from palate.examples import Kind, Memory
from palate.interactions import InteractionParams
from palate.live import Live
from palate.models.factorization_machine import FactorizationMachineParams
from palate.models.nearest import IndexParams
from palate.models.registry import Name
from palate.snapshots import Snapshot
from palate.train import Cycle, Learner, Params, TrainParams, find_due, follow, run_cycle

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
UNTESTED = Params(train=TrainParams(held_out_share=0))
QUICK = Params(train=TrainParams(min_pause=0, max_wait=3600, new_events=5, poll=0.05))


def append(engine: sa.Engine, happened: Sequence[Event], now: datetime = NOW) -> None:
    with writing(engine) as connection:
        events.append(connection, happened, now)


def votes(*rows: tuple[str, str, str]) -> list[Event]:
    """Events of (user, item, type), a second apart, the last at NOW."""
    start = to_milliseconds(NOW) - 1000 * len(rows)
    return [Event(user=user, item=item, type=type, time=start + 1000 * n) for n, (user, item, type) in enumerate(rows)]


def camps(people: range, items: range) -> list[Event]:
    """Even people like even items and dislike odd ones, odd people the other way round; everybody leaves out every third."""
    return votes(
        *(
            (f"u{person}", f"i{item}", "like" if (person + item) % 2 == 0 else "dislike")
            for item in items
            for person in people
            if (person + item) % 3
        )
    )


def simulated() -> list[Event]:
    items = [
        Item(id=f"item-{n}", source=f"s{n % 4}", labels=(("sport", "art", "food", "tech")[n % 4],), language="en")
        for n in range(80)
    ]
    rng = np.random.default_rng(7)
    return simulate(items, readers(rng, 120, items), rng, NOW, 5, SimulationParams(sessions=3))


def served(data: Path) -> Snapshot:
    return snapshots.load(data / "snapshots")


def keys(engine: sa.Engine, table: sa.Table) -> dict[str, int]:
    with reading(engine) as connection:
        return {row.id: row.key for row in connection.execute(sa.select(table.c.id, table.c.key))}


def recorded(engine: sa.Engine) -> list[sa.Row[tuple[object, ...]]]:
    with reading(engine) as connection:
        return list(connection.execute(sa.select(database.cycles).order_by(database.cycles.c.key)))


def history(engine: sa.Engine, snapshot: Snapshot, user: str) -> list[tuple[str, float | None]]:
    """Items and labels of a user in a snapshot."""
    names = {key: id for id, key in keys(engine, database.items).items()}
    row = int(np.searchsorted(snapshot.arrays["users"], keys(engine, database.users)[user]))
    start, end = snapshot.arrays["history_offsets"][row : row + 2]
    items = snapshot.arrays["items"][snapshot.arrays["history_items"][start:end]]
    marks = snapshot.arrays["history_labels"][start:end]
    return [
        (names[int(item)], None if np.isnan(mark) else float(mark)) for item, mark in zip(items, marks, strict=True)
    ]


def test_a_full_cycle_publishes_a_model_that_beats_the_prior(engine: sa.Engine, data: Path) -> None:
    happened = simulated()
    append(engine, happened)
    cycle = run_cycle(engine, data, Params(), NOW)
    assert cycle.full
    assert cycle.version == snapshots.current(data / "snapshots")
    assert cycle.loss is not None
    assert cycle.prior_loss is not None
    assert cycle.loss < 0.95 * cycle.prior_loss
    header = served(data).header
    assert header["seq"] == cycle.seq == len(happened)
    assert header["quality"] == {
        "fm": {"loss": cycle.loss, "prior_loss": cycle.prior_loss, "held_out": round(cycle.examples / 10)}
    }
    (row,) = recorded(engine)
    assert (row.kind, row.version, row.warm) == ("full", cycle.version, 0)
    curve = np.frombuffer(row.losses, np.float32)
    assert 0 < len(curve) <= 2000
    assert curve[-5:].mean() < curve[:5].mean()


def test_an_incremental_cycle_learns_what_is_new(engine: sa.Engine, data: Path) -> None:
    append(engine, camps(range(20), range(40)))
    first = run_cycle(engine, data, Params(), NOW)
    fresh = votes(*(("new", f"i{item}", "like" if item % 2 == 0 else "dislike") for item in range(12)))
    append(engine, fresh)
    second = run_cycle(engine, data, Params(), NOW + DAY, kind="incremental")
    assert (second.full, second.examples, second.loss) == (False, 12, None)
    assert second.version != first.version
    assert second.seq == first.seq + 12
    arrays = served(data).arrays
    row = np.searchsorted(arrays["users"], keys(engine, database.users)["new"])
    item_keys = keys(engine, database.items)
    even, odd = (
        [int(np.searchsorted(arrays["items"], item_keys[f"i{item}"])) for item in range(start, 40, 2)]
        for start in (0, 1)
    )
    raw = arrays["item_bias"] + arrays["item_vectors"].astype(np.float32) @ arrays["user_vectors"][row].astype(
        np.float32
    )
    assert raw[even].mean() > raw[odd].mean() + 0.1
    assert history(engine, served(data), "new") == [(f"i{item}", float(item % 2 == 0)) for item in range(12)]


def test_a_model_that_is_worse_than_the_prior_is_refused(engine: sa.Engine, data: Path) -> None:
    append(engine, camps(range(20), range(40)))
    good = run_cycle(engine, data, Params(), NOW)
    turned = votes(
        *((f"n{person}", f"t{item}", "like" if item < 5 else "dislike") for person in range(40) for item in range(10))
    )
    back = votes(
        *((f"m{person}", f"t{item}", "dislike" if item < 5 else "like") for person in range(40) for item in range(10))
    )
    append(engine, turned)
    append(engine, [msgspec.structs.replace(event, time=(event.time or 0) + 3_600_000) for event in back])
    bad = run_cycle(engine, data, Params(train=TrainParams(held_out_share=0.3)), NOW + DAY)
    assert bad.version is None
    assert bad.loss is not None
    assert bad.prior_loss is not None
    assert bad.loss > bad.prior_loss
    assert "worse than the prior" in bad.reason
    assert snapshots.current(data / "snapshots") == good.version
    assert recorded(engine)[-1].version is None


def opinions(people: range, minority: int) -> list[tuple[str, str, str]]:
    """Each person judges 20 of 60 items, the good and the bad by turns; every `minority`th has the opposite taste."""
    return [
        (f"u{person}", f"i{item}", "like" if (item % 2 == 0) ^ (person % minority == 0) else "dislike")
        for item in range(60)
        for person in people
        if (item // 2 + person) % 3 == 0
    ]


def test_newcomers_with_a_rare_taste_dont_make_a_sound_model_worse_than_the_prior(
    engine: sa.Engine, data: Path
) -> None:
    known, newcomers = opinions(range(30), minority=5), opinions(range(100, 106), minority=1)
    append(engine, votes(*known, *newcomers))
    cycle = run_cycle(engine, data, Params(train=TrainParams(doubt=0)), NOW)
    assert cycle.version is not None
    assert cycle.loss is not None
    assert cycle.prior_loss is not None
    assert cycle.loss < cycle.prior_loss


def test_a_model_of_shuffled_labels_is_refused(engine: sa.Engine, data: Path) -> None:
    happened = [event for event in simulated() if event.type in ("like", "dislike")]
    types = np.random.default_rng(3).permutation([event.type for event in happened]).tolist()
    append(engine, [msgspec.structs.replace(event, type=type) for event, type in zip(happened, types, strict=True)])
    gullible = FactorizationMachineParams(l2_user_bias=0.01, l2_item_bias=0.01, l2_users=0.01, l2_items=0.01)
    cycle = run_cycle(engine, data, Params(factorization_machine=gullible), NOW)
    assert cycle.version is None
    assert "worse than the prior" in cycle.reason


def test_by_itself_a_model_of_shuffled_labels_is_no_worse_than_the_prior(engine: sa.Engine, data: Path) -> None:
    happened = [event for event in simulated() if event.type in ("like", "dislike")]
    types = np.random.default_rng(3).permutation([event.type for event in happened]).tolist()
    append(engine, [msgspec.structs.replace(event, type=type) for event, type in zip(happened, types, strict=True)])
    cycle = run_cycle(engine, data, Params(), NOW)
    assert cycle.version is not None


def test_a_difference_that_chance_explains_refuses_nothing(engine: sa.Engine, data: Path) -> None:
    rng = np.random.default_rng(2)
    append(engine, votes(*((f"u{n % 9}", f"i{n // 9}", rng.choice(("like", "dislike"))) for n in range(90))))
    firm = FactorizationMachineParams(l2_user_bias=3, l2_item_bias=3)
    strict, lenient = (
        run_cycle(engine, data, Params(train=TrainParams(doubt=doubt), factorization_machine=firm), NOW)
        for doubt in (0, 1.5)
    )
    assert strict.loss == lenient.loss
    assert strict.version is None
    assert lenient.version is not None


def test_with_too_few_examples_for_a_test_it_is_published_and_said(engine: sa.Engine, data: Path) -> None:
    append(engine, votes(("a", "x", "like"), ("b", "x", "dislike"), ("a", "y", "like")))
    cycle = run_cycle(engine, data, Params(), NOW)
    assert cycle.version is not None
    assert (cycle.loss, cycle.prior_loss, cycle.examples) == (None, None, 3)
    assert "too few examples for a test" in cycle.summary()


def test_without_an_example_nothing_is_published(engine: sa.Engine, data: Path) -> None:
    for happened in ([], votes(("a", "x", "shown"), ("a", "x", "viewed"), ("b", "x", "unheard_of"))):
        append(engine, happened)
        cycle = run_cycle(engine, data, Params(), NOW, kind="incremental")
        assert (cycle.version, cycle.examples) == (None, 0)
        assert "nothing to learn from yet" in cycle.summary()
    assert len(recorded(engine)) == 2


def test_a_snapshot_remembers_what_people_have_seen_newest_up_to_the_limit(engine: sa.Engine, data: Path) -> None:
    append(
        engine,
        votes(("a", "x", "like"), ("a", "y", "shown"), ("a", "z", "viewed"), ("a", "w", "dislike"), ("b", "x", "hide")),
    )
    run_cycle(engine, data, Params(train=TrainParams(history_limit=3)), NOW)
    snapshot = served(data)
    assert history(engine, snapshot, "a") == [("y", None), ("z", None), ("w", 0.0)]
    assert history(engine, snapshot, "b") == [("x", None)]
    items = keys(engine, database.items)
    assert snapshot.arrays["items"].tolist() == sorted(items[name] for name in "wxyz")
    evidence = dict(
        zip(snapshot.arrays["items"].tolist(), snapshot.arrays["popularity_evidence"].tolist(), strict=True)
    )
    assert evidence[items["x"]] == pytest.approx(1, abs=0.01)
    assert evidence[items["y"]] == 0


def test_items_nobody_judged_start_where_their_source_says(engine: sa.Engine, data: Path) -> None:
    judged = [
        (f"u{person}", f"i{item}", "like" if item < 15 else "dislike") for item in range(20) for person in range(10)
    ]
    append(engine, votes(*judged, ("u0", "new good", "shown"), ("u0", "new bad", "shown")))
    item_keys = keys(engine, database.items)
    good = [item_keys[name] for name in ("new good", *(f"i{item}" for item in range(15)))]
    with writing(engine) as connection:
        connection.execute(sa.update(database.items).values(source=71))
        connection.execute(sa.update(database.items).where(database.items.c.key.in_(good)).values(source=70))
    run_cycle(engine, data, UNTESTED, NOW)
    arrays = served(data).arrays
    assert arrays["sources"].tolist() == [70, 71]
    assert arrays["source_bias"][0] > 0.1 > -0.3 > arrays["source_bias"][1]
    places = np.searchsorted(arrays["items"], [item_keys["new good"], item_keys["new bad"]])
    assert arrays["item_bias"][places[0]] > 0.02 > -0.1 > arrays["item_bias"][places[1]]


def test_somebody_who_was_deleted_is_in_no_snapshot(engine: sa.Engine, data: Path) -> None:
    append(engine, camps(range(20), range(40)))
    gone = keys(engine, database.users)["u3"]
    with writing(engine) as connection:
        connection.execute(sa.delete(database.users).where(database.users.c.key == gone))
    run_cycle(engine, data, Params(), NOW)
    arrays = served(data).arrays
    assert gone not in arrays["users"]
    assert len(arrays["users"]) == len(arrays["user_bias"]) == len(arrays["history_offsets"]) - 1 == 19
    assert arrays["history_offsets"][-1] == len(arrays["history_items"])
    assert history(engine, served(data), "u4")[0] == ("i0", 1.0)


def test_robots_and_people_outside_the_share_teach_nothing(engine: sa.Engine, data: Path) -> None:
    append(engine, camps(range(40), range(30)))
    everybody = run_cycle(engine, data, UNTESTED, NOW).examples
    robots = msgspec.structs.replace(UNTESTED.train, robots=("u1", "nobody"))
    assert run_cycle(engine, data, Params(train=robots), NOW).examples == everybody - 20
    share = msgspec.structs.replace(UNTESTED.train, share_of_users=0.5)
    assert everybody * 0.3 < run_cycle(engine, data, Params(train=share), NOW).examples < everybody * 0.7
    assert len(served(data).arrays["users"]) == 40
    assert len(history(engine, served(data), "u1")) == 20


def test_the_window_leaves_out_what_happened_before(engine: sa.Engine, data: Path) -> None:
    append(
        engine,
        [
            msgspec.structs.replace(event, time=event.time and event.time - 3 * 86_400_000)
            for event in camps(range(3), range(9))
        ],
    )
    append(engine, votes(("a", "x", "like"), ("b", "x", "dislike")))
    assert run_cycle(engine, data, Params(train=TrainParams(window_days=2)), NOW).examples == 2


def test_the_same_log_and_seed_give_the_same_model(engine: sa.Engine, data: Path) -> None:
    append(engine, camps(range(20), range(40)))
    made = []
    for seed in (1, 1, 2):
        run_cycle(engine, data, Params(train=TrainParams(seed=seed)), NOW)
        made.append({name: np.array(array) for name, array in served(data).arrays.items()})
    assert all(np.array_equal(made[0][name], made[1][name], equal_nan=True) for name in made[0])
    assert not np.array_equal(made[0]["item_vectors"], made[2]["item_vectors"])


def test_a_loss_that_stood_still_and_jumps_brings_a_full_fit(engine: sa.Engine, data: Path) -> None:
    append(engine, camps(range(20), range(40)))
    run_cycle(engine, data, Params(), NOW)
    append(engine, votes(("u0", "i0", "dislike")))
    assert not run_cycle(engine, data, Params(), NOW, kind="incremental").full
    still = np.array([0.001, 0.0011], np.float32).tobytes()
    for number in range(3):
        add_cycle(engine, kind="incremental", losses=still, version=f"v{number}")
    append(engine, votes(("u0", "i0", "like")))
    cycle = run_cycle(engine, data, Params(train=TrainParams(standstill=4)), NOW, kind="incremental")
    assert cycle.full
    assert "the incremental loss jumped from 0.00" in cycle.reason
    assert recorded(engine)[-1].kind == "full"


@pytest.mark.parametrize(
    "params",
    [
        Params(factorization_machine=FactorizationMachineParams(factors=5)),
        Params(factorization_machine=FactorizationMachineParams(loss="logistic")),
        Params(interactions=InteractionParams(rule="views")),
    ],
)
def test_a_model_of_other_settings_is_not_gone_on_from(engine: sa.Engine, data: Path, params: Params) -> None:
    append(engine, camps(range(20), range(40)))
    run_cycle(engine, data, UNTESTED, NOW)
    params = msgspec.structs.replace(params, train=UNTESTED.train)
    assert run_cycle(engine, data, params, NOW, kind="incremental").full
    assert not run_cycle(engine, data, params, NOW, kind="incremental").full


def test_learned_days_are_sealed_and_are_learned_from_again(engine: sa.Engine, data: Path) -> None:
    append(engine, camps(range(20), range(40)), NOW - 3 * DAY)
    first = run_cycle(engine, data, Params(events=EventParams(hot_days=1)), NOW)
    assert list((data / "events").rglob("*.parquet"))
    with reading(engine) as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(database.events)) == 0
    append(engine, votes(("new", "i0", "like")))
    second = run_cycle(engine, data, Params(), NOW)
    assert second.examples == first.examples + 1
    assert second.seq == first.seq + 1


def test_only_the_last_snapshots_are_kept(engine: sa.Engine, data: Path) -> None:
    append(engine, votes(("a", "x", "like"), ("b", "x", "dislike")))
    made = [run_cycle(engine, data, Params(train=TrainParams(keep_snapshots=2)), NOW).version for _ in range(4)]
    assert snapshots.versions(data / "snapshots") == made[-2:]


def test_what_has_left_the_window_leaves_the_model(engine: sa.Engine, data: Path) -> None:
    day = 86_400_000
    append(
        engine, [msgspec.structs.replace(event, time=(event.time or 0) - day) for event in camps(range(9), range(9))]
    )
    append(engine, camps(range(5, 15), range(5, 15)))
    params = Params(train=TrainParams(window_days=2, held_out_share=0))
    run_cycle(engine, data, params, NOW)
    append(engine, votes(("u7", "i7", "like")))
    cycle = run_cycle(engine, data, params, NOW + 1.5 * DAY, kind="incremental")
    assert not cycle.full
    arrays, named = served(data).arrays, keys(engine, database.users)
    assert arrays["users"].tolist() == sorted(named[f"u{person}"] for person in range(5, 15))
    assert len(arrays["user_vectors"]) == len(arrays["user_examples"]) == 10
    assert arrays["items"].tolist() == sorted(keys(engine, database.items)[f"i{item}"] for item in range(5, 15))
    assert len(arrays["item_vectors"]) == len(arrays["popularity"]) == 10


def add_cycle(engine: sa.Engine, **values: object) -> None:
    row = {"kind": "full", "reason": "", "started": to_milliseconds(NOW), "seconds": 1.0, "seq": 0, "examples": 1}
    row |= {"version": "v", "losses": b"", "warm": 0, **values}
    with writing(engine) as connection:
        connection.execute(sa.insert(database.cycles).values(**row))


def due(engine: sa.Engine, data: Path, after: float, **train: float) -> str | None:
    """Whether and why a cycle is due so many seconds after NOW."""
    params = Params(
        train=msgspec.structs.replace(TrainParams(min_pause=10, max_wait=100, new_events=3, full_every=2), **train)
    )
    found = find_due(engine, data, params, NOW + timedelta(seconds=after))
    return None if found is None else found.kind


def test_when_a_cycle_is_due(engine: sa.Engine, data: Path) -> None:
    assert due(engine, data, 0) is None  # an empty log
    append(engine, votes(("a", "x", "shown"), ("a", "x", "viewed")))
    assert due(engine, data, 0) is None  # nothing that decides
    append(engine, votes(("a", "x", "like")))
    assert due(engine, data, 0) == "full"  # the first
    snapshots.publish(data / "snapshots", {"created": to_milliseconds(NOW)}, {})
    add_cycle(engine, seq=3)
    assert due(engine, data, 1000) is None  # nothing new
    append(engine, votes(("a", "y", "shown")))
    assert due(engine, data, 50) is None
    assert due(engine, data, 102) == "incremental"  # something new, long ago
    append(engine, votes(("a", "y", "dislike"), ("a", "y", "retract"), ("a", "y", "like")))
    assert due(engine, data, 9) is None  # enough, but within the pause
    assert due(engine, data, 12) == "incremental"
    assert due(engine, data, -500) == "incremental"  # the clock was set back
    add_cycle(engine, kind="incremental", seq=4)
    add_cycle(engine, kind="incremental", seq=4)
    assert due(engine, data, 12) == "full"  # after two incremental ones


@contextmanager
def no_recording(engine: sa.Engine) -> Iterator[None]:
    """As long as the block runs, no other process can record its cycle: each waits there, after its snapshot."""
    with writing(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("LOCK TABLE cycles IN ACCESS EXCLUSIVE MODE"))
        yield


def apart(engine: sa.Engine, data: Path, stop: threading.Event, params: Params | None = None) -> Cycle | None:
    with Learner(engine, data, params or Params()) as learner:
        return learner.run_cycle(NOW, stop, "full", "a test")


@contextmanager
def failing(engine: sa.Engine, data: Path, params: Params | None = None) -> Iterator[None]:
    """A cycle apart, which fails by what the block does to it."""
    failed: list[CycleFailed] = []

    def run() -> None:
        try:
            apart(engine, data, threading.Event(), params)
        except CycleFailed as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join()
    assert failed


def cycle_processes(of: int) -> list[psutil.Process]:
    return [child for child in psutil.Process(of).children() if "palate.train" in child.cmdline()]


def wait_for(seconds: float, condition: object) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "It took too long."
        time.sleep(0.01)


@pytest.mark.parametrize("moment", ["learning", "published"])
def test_a_cycle_that_is_killed_leaves_a_good_snapshot_and_the_next_one_works(
    engine: sa.Engine, data: Path, moment: str
) -> None:
    append(engine, camps(range(20), range(40)))
    first = run_cycle(engine, data, Params(), NOW)
    append(engine, camps(range(20, 40), range(40)))
    with no_recording(engine), failing(engine, data):
        wait_for(60, lambda: cycle_processes(os.getpid()))
        (process,) = cycle_processes(os.getpid())
        if moment == "learning":
            wait_for(60, lambda: process.cpu_times().user > 0.2)
        else:
            wait_for(60, lambda: snapshots.current(data / "snapshots") != first.version)
        process.kill()
    assert served(data).header["seq"] == (first.seq if moment == "learning" else 2 * first.seq)
    assert [row.version for row in recorded(engine)] == [first.version]
    last = run_cycle(engine, data, Params(), NOW)
    assert last.version == snapshots.current(data / "snapshots")
    assert last.examples == 2 * first.examples
    assert not list((data / "snapshots").glob("*.partial"))


def test_a_cycle_that_is_killed_while_it_makes_an_index_does_no_harm(
    sqlite: sa.Engine, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, begun = Params(index=IndexParams(least=1)), tmp_path / "begun"
    append(sqlite, camps(range(20), range(40)))
    first = run_cycle(sqlite, data, params, NOW)
    append(sqlite, camps(range(20, 40), range(40)))
    (tmp_path / "faiss.py").write_text(f"import pathlib, time\npathlib.Path({str(begun)!r}).touch()\ntime.sleep(600)\n")
    with monkeypatch.context() as endless:
        endless.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), *sys.path)))
        with failing(sqlite, data, params):
            wait_for(60, begun.exists)
            (process,) = cycle_processes(os.getpid())
            process.kill()
    assert served(data).version == first.version
    last = run_cycle(sqlite, data, params, NOW)
    assert served(data).version == last.version != first.version
    assert "index_fm" in served(data).arrays
    assert not list((data / "snapshots").glob("*.partial"))


FOLLOWER = """
import sys, threading
from datetime import UTC, datetime
from pathlib import Path
from palate.database import connect
from palate.train import Params, TrainParams, follow
print(sorted({"numba", "pyarrow"} & set(sys.modules)), flush=True)
data = Path(sys.argv[1])
params = Params(train=TrainParams(min_pause=0, poll=0.05))
follow(connect(None, data), data, params, threading.Event(), lambda: datetime.now(UTC))
"""


@pytest.fixture
def sqlite(data: Path) -> Iterator[sa.Engine]:
    """For what doesn't depend on the kind of database."""
    engine = database.connect(None, data)
    database.migrate(engine)
    yield engine
    engine.dispose()


def test_a_cycle_dies_with_the_follower_and_the_follower_stays_light(sqlite: sa.Engine, data: Path) -> None:
    append(sqlite, camps(range(20), range(40)))
    command = [sys.executable, "-c", FOLLOWER, str(data)]
    with no_recording(sqlite), subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
        wait_for(60, lambda: cycle_processes(follower.pid))
        (cycle,) = cycle_processes(follower.pid)
        follower.send_signal(signal.SIGKILL)
        wait_for(60, lambda: not cycle.is_running() or cycle.status() == psutil.STATUS_ZOMBIE)
        assert snapshots.current(data / "snapshots") is None  # else it went on to the end by itself
        assert follower.stdout is not None
        assert follower.stdout.readline() == "[]\n"


def test_following_learns_by_itself_survives_a_failure_and_stops(
    sqlite: sa.Engine, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    append(sqlite, camps(range(20), range(40)))
    stop, looks = threading.Event(), 0

    def clock() -> datetime:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise RuntimeError("no time")
        return datetime.now(UTC)

    thread = threading.Thread(target=follow, args=(sqlite, data, QUICK, stop, clock))
    with caplog.at_level("INFO"):
        thread.start()
        try:
            wait_for(60, lambda: recorded(sqlite))
        finally:
            stop.set()
            thread.join(10)
    assert not thread.is_alive()
    assert served(data).header["seq"] == recorded(sqlite)[0].seq
    assert "the training loop stumbled" in caplog.text


def test_stopping_ends_a_running_cycle(sqlite: sa.Engine, data: Path) -> None:
    append(sqlite, camps(range(20), range(40)))
    stop = threading.Event()
    stop.set()
    assert apart(sqlite, data, stop) is None
    assert not cycle_processes(os.getpid())


def as_of(step: int, happened: Sequence[Event]) -> list[Event]:
    """The same, so many days later."""
    return [msgspec.structs.replace(event, time=(event.time or 0) + 86_400_000 * step) for event in happened]


def tell(engine: sa.Engine, data: Path, step: int) -> None:
    """What happens before each of a few cycles, a day apart: some come anew, think again, are joined, leave, or are robots."""
    happened = camps(range(5 * step, 25 + 5 * step), range(5 * step, 40 + 5 * step))
    if step == 0:
        happened += votes(*(("robot", f"i{item}", "like") for item in range(30)))
    if step == 1:
        happened += votes(*((f"u{person}", "i9", "retract") for person in range(9, 12)))
    append(engine, as_of(step, happened), NOW + step * DAY)
    named = keys(engine, database.users)
    if step == 1:
        with writing(engine) as connection:
            identities.join(connection, named["u7"], named["u8"])
    if step == 2:
        with writing(engine) as connection:
            connection.execute(sa.delete(database.users).where(database.users.c.key == named["u12"]))
        retention.forget(engine, data / "events", [named["u12"]])


KINDS: list[Kind] = ["full", "incremental", "items", "incremental", "full", "incremental"]


def lived(data: Path, train: TrainParams, kept: bool) -> list[tuple[Cycle, Snapshot]]:
    """A few cycles of one story, each after the next step, in one process that remembers or in one of its own."""
    engine, memory, found = database.connect(None, data), Memory(), []
    database.migrate(engine)
    for step, kind in enumerate(KINDS):
        tell(engine, data, step)
        params = Params(train=train, events=EventParams(hot_days=2))
        memory = memory if kept else Memory()
        cycle = run_cycle(engine, data, params, NOW + step * DAY + DAY / 2, kind=kind, memory=memory)
        assert (memory.window is None) == (train.resident_events is None)
        found.append((cycle, served(data)))
    engine.dispose()
    return found


@pytest.mark.parametrize(("models", "shared"), [(("fm",), True), (("ials", "itemknn"), False)])
def test_what_is_kept_in_memory_makes_the_models_that_reading_all_again_makes(
    tmp_path: Path, models: tuple[Name, ...], shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "FEWEST", 1 if shared else 10**9)
    monkeypatch.setattr(publishing, "SHARE", 1.5)
    train = TrainParams(models=models, window_days=3, robots=("robot",), resident_events=1, max_old=400)
    ways = [
        lived(tmp_path / "kept", train, kept=True),
        lived(tmp_path / "fresh", train, kept=False),
        lived(tmp_path / "merged", msgspec.structs.replace(train, resident_events=None), kept=False),
    ]
    for one, *others in zip(*ways, strict=True):
        for cycle, snapshot in others:
            assert msgspec.structs.replace(cycle, seconds=0) == msgspec.structs.replace(one[0], seconds=0)
            assert snapshot.arrays.keys() == one[1].arrays.keys()
            for name, array in snapshot.arrays.items():  # sums by item are added up in another order
                tolerance = 1e-6 if name.startswith("popularity") else 0
                np.testing.assert_allclose(array, one[1].arrays[name], rtol=tolerance, err_msg=name)
    assert [cycle.kind for cycle, _ in ways[0]] == KINDS
    # somebody was deleted before the third, and the last is too far from the fifth
    assert any("history_users" in snapshot.arrays for _, snapshot in ways[0]) == shared
    assert all(cycle.version is not None for cycle, _ in ways[0])


def histories(engine: sa.Engine, data: Path) -> dict[str, list[tuple[int, float | None, float]]]:
    """What serving knows of everybody."""
    live, found = Live(engine, data), {}
    live.refresh(NOW)
    with reading(engine) as connection:
        for user in keys(engine, database.users):
            known = live.person(connection, user, live.snapshot).history
            labels = [label if voted else None for label, voted in zip(known.labels, known.voted, strict=True)]
            found[user] = list(zip(known.items.tolist(), labels, known.weights.tolist(), strict=True))
    return found


def test_shared_histories_tell_serving_what_own_ones_tell_and_forget_who_is_deleted(
    sqlite: sa.Engine, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(sqlite, camps(range(20), range(40)))
    run_cycle(sqlite, data, UNTESTED, NOW)
    append(
        sqlite, votes(("u1", "new", "like"), ("u1", "i1", "retract"), ("u2", "i1", "dislike"), ("new", "i3", "like"))
    )
    run_cycle(sqlite, data, UNTESTED, NOW + DAY, kind="incremental")
    own = histories(sqlite, data)
    monkeypatch.setattr(publishing, "FEWEST", 1)
    first = run_cycle(sqlite, data, UNTESTED, NOW + 2 * DAY)
    assert first.version is not None
    for days in (3, 4):
        append(sqlite, votes((f"newer {days}", "i3", "like")))
        run_cycle(sqlite, data, UNTESTED, NOW + days * DAY, kind="incremental")
    shared = served(data)
    assert shared.header["history_seq"] == first.seq < shared.header["seq"]
    files = [data / "snapshots" / version / "history_items.npy" for version in (first.version, shared.version)]
    assert files[0].samefile(files[1])
    assert {user: told for user, told in histories(sqlite, data).items() if not user.startswith("newer")} == own
    gone = keys(sqlite, database.users)["u2"]
    with writing(sqlite) as connection:
        connection.execute(sa.delete(database.users).where(database.users.c.key == gone))
    snapshots.forget_user(data / "snapshots", [gone])
    del own["u2"]
    assert gone not in served(data).arrays["history_users"]
    assert {user: told for user, told in histories(sqlite, data).items() if not user.startswith("newer")} == own
    run_cycle(sqlite, data, UNTESTED, NOW + 5 * DAY, kind="incremental")
    assert gone not in snapshots.people_of_histories(served(data).arrays)


def test_histories_of_other_settings_are_not_shared(
    sqlite: sa.Engine, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "FEWEST", 1)
    append(sqlite, camps(range(20), range(40)))
    run_cycle(sqlite, data, UNTESTED, NOW)
    append(sqlite, votes(("u1", "new", "like")))
    fewer = msgspec.structs.replace(UNTESTED, train=msgspec.structs.replace(UNTESTED.train, history_limit=3))
    run_cycle(sqlite, data, fewer, NOW + DAY, kind="incremental")
    assert "history_users" not in served(data).arrays
    assert np.diff(served(data).arrays["history_offsets"]).max() == 3


def test_a_window_of_other_settings_or_of_another_snapshot_is_read_again(sqlite: sa.Engine, data: Path) -> None:
    append(sqlite, camps(range(20), range(40)))
    train, memory = TrainParams(resident_events=1), Memory()
    first = run_cycle(sqlite, data, Params(train=train), NOW, memory=memory)
    append(sqlite, votes(*(("new", f"i{item}", "like") for item in range(12))))
    run_cycle(sqlite, data, Params(train=train), NOW, kind="incremental", memory=memory)
    assert first.version is not None
    snapshots.make_current(data / "snapshots", first.version)
    again = run_cycle(sqlite, data, Params(train=train), NOW, kind="incremental", memory=memory)
    assert again.examples == 12  # the older model hasn't learned them
    views = Params(train=train, interactions=InteractionParams(rule="views"))
    assert run_cycle(sqlite, data, views, NOW, memory=memory).version is not None
    assert memory.window is not None
    assert memory.window.params == views.interactions


def test_news_that_no_snapshot_has_learned_stays_news(sqlite: sa.Engine, data: Path) -> None:
    append(sqlite, camps(range(20), range(40)))
    params, memory = Params(train=TrainParams(resident_events=1)), Memory()
    run_cycle(sqlite, data, params, NOW, memory=memory)
    append(sqlite, votes(*(("new", f"i{item}", "like") for item in range(5))))
    assert run_cycle(sqlite, data, params, NOW, kind="items", memory=memory).examples == 5
    assert run_cycle(sqlite, data, params, NOW, kind="incremental", memory=memory).examples == 5
    assert run_cycle(sqlite, data, params, NOW, kind="incremental", memory=memory).examples == 0


def test_a_process_that_keeps_many_events_lives_on_and_when_it_is_killed_the_next_one_reads_them(
    sqlite: sa.Engine, data: Path
) -> None:
    append(sqlite, camps(range(20), range(40)))
    params, stop, seen = Params(train=TrainParams(resident_events=1)), threading.Event(), []
    with Learner(sqlite, data, params) as learner:
        for step in range(4):
            cycle = learner.run_cycle(NOW, stop, "incremental", "a test")
            assert cycle is not None
            (process,) = cycle_processes(os.getpid())
            seen.append(process.pid)
            append(sqlite, votes((f"new {step}", "i1", "like"), (f"new {step}", "i2", "dislike")))
            if step == 1:
                process.kill()
                process.wait()
        assert cycle is not None
        assert cycle.examples == 2
        assert served(data).header["seq"] == cycle.seq
    assert seen[0] == seen[1] != seen[2] == seen[3]
    assert not cycle_processes(os.getpid())
    with Learner(sqlite, data, Params()) as learner:
        learner.run_cycle(NOW, stop, "incremental", "few events")
        assert not cycle_processes(os.getpid())
