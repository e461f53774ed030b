"""Who is served by which variant."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from palate import database, experiments, identities
from palate.cycle import Params
from palate.database import reading, writing
from palate.errors import InvalidInput, NotFound, SettingsError
from palate.experiments import Experiment, Step, Variant, Varied, assign, parse_ramp, parse_variant, variant_in, varied
from palate.surface_params import SurfaceParams

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
CONTROL = Variant(name="control")
BOLD = Variant(name="bold", settings={"feed.exploration": 0.3})
PLAIN = Experiment(name="plain", variants=(CONTROL, BOLD), salt="salt")
PEOPLE = [f"person-{number}" for number in range(4000)]


def names(experiment: Experiment, age: timedelta = HOUR) -> list[str | None]:
    found = [assign(experiment, NOW, id, NOW + age) for id in PEOPLE]
    return [one.name if one is not None else None for one in found]


def test_people_are_split_by_the_weights() -> None:
    three = msgspec.structs.replace(
        PLAIN, variants=(CONTROL, BOLD, Variant(name="c", settings={"feed.questions": 0}, weight=2))
    )
    found = names(three)
    assert [found.count(name) / 4000 for name in ("control", "bold", "c")] == pytest.approx([0.25, 0.25, 0.5], abs=0.03)


def test_a_ramp_lets_more_people_in_and_moves_nobody() -> None:
    ramp = msgspec.structs.replace(PLAIN, ramp=(Step(0, 0.1), Step(24, 0.5), Step(48, 1.0)))
    before: list[str | None] = [None] * len(PEOPLE)
    for hours, share in ((1, 0.1), (25, 0.5), (49, 1.0)):
        found = names(ramp, hours * HOUR)
        assert sum(name is not None for name in found) / 4000 == pytest.approx(share, abs=0.03)
        assert all(now == then for now, then in zip(found, before, strict=True) if then is not None)
        before = found
    assert before.count("bold") / 4000 == pytest.approx(0.5, abs=0.03)
    assert names(ramp, -HOUR) == [None] * 4000


def test_experiments_split_people_independently() -> None:
    other = msgspec.structs.replace(PLAIN, salt="another")
    pairs = list(zip(names(PLAIN), names(other), strict=True))
    assert pairs.count(("bold", "bold")) / 4000 == pytest.approx(0.25, abs=0.03)


@settings(max_examples=20)
@given(st.text(max_size=40))
def test_any_id_has_a_place_that_stays(id: str) -> None:
    assert assign(PLAIN, NOW, id, NOW) == assign(PLAIN, NOW, id, NOW + 1000 * HOUR)


def test_an_id_that_joins_somebody_gets_their_variant(engine: sa.Engine) -> None:
    with writing(engine) as connection:
        keys = identities.user_keys(connection, ["phone", "ann"], NOW)
        assert experiments.own_id(connection, "phone") == "phone"
        identities.join(connection, keys["phone"], keys["ann"])
        assert [experiments.own_id(connection, id) for id in ("phone", "ann", "nobody yet")] == [
            "ann",
            "ann",
            "nobody yet",
        ]


def test_what_the_log_says_names_each_experiment() -> None:
    text = ";".join([experiments.label("one", "bold"), experiments.label("two", "control")])
    assert [variant_in(text, name) for name in ("one", "two", "on", "three")] == ["bold", "control", None, None]
    assert variant_in(None, "one") is variant_in("B", "one") is variant_in("", "one") is None


def test_variants_change_settings_of_any_depth_and_wrong_ones_are_told() -> None:
    plain = Varied(surfaces={"shop": SurfaceParams(limit=5), "front": SurfaceParams()})
    changes = {
        "feed.exploration": 0.3,
        "feed.taste.l2_source": 9.0,
        "feed.ranker": "score",
        "surfaces.shop.order": "rate",
    }
    found = varied(plain, changes, "b")
    assert (found.feed.exploration, found.feed.taste.l2_source, found.feed.ranker) == (0.3, 9.0, "score")
    assert found.surfaces == {"shop": SurfaceParams(limit=5, order="rate"), "front": SurfaceParams()}
    wrong: list[tuple[dict[str, object], str]] = [
        (
            {"feed.exploratoin": 0.3},
            "There is no setting feed.exploratoin (in variant b); did you mean feed.exploration",
        ),
        ({"feed.exploration": 2}, "Setting feed.exploration in variant b: expected"),
        ({"feed.model": "nonsense"}, "Setting feed.model in variant b: invalid enum value"),
        ({"feed.exploration.more": 1}, "inside a plain value"),
        ({"surfaces.shop.order": "best"}, "in variant b: invalid enum value"),
        ({"surfaces.shop": 3}, "in variant b: expected"),
        ({"surfaces.garden.order": "rate"}, "surfaces.garden.order (in variant b) is of no surface"),
        ({"train.models": ["fm"]}, "train.models (in variant b) is read when models are learned"),
        ({"heavy.gains": {}}, "heavy.gains (in variant b) is read when rankers are learned"),
        ({"server.port": 1}, "server.port (in variant b) can't be varied"),
        ({"exploration": 1}, "exploration (in variant b) can't be varied"),
    ]
    for other, told in wrong:
        with pytest.raises(SettingsError, match=re.escape(told)):
            varied(plain, other, "variant b")


def test_what_learning_reads_is_told_apart_from_what_no_variant_has() -> None:
    learning = set(Params.__struct_fields__) - {"served", "quality", "events"}
    assert set(experiments.LEARNED) == learning


def test_an_experiment_knows_what_it_is_served_by() -> None:
    settings = {"feed.model": "ials", "surfaces.shop.model": "blend", "surfaces.front.model": None, "feed.limit_max": 3}
    by_models = msgspec.structs.replace(PLAIN, variants=(CONTROL, Variant(name="b", settings=settings)))
    assert (experiments.models(by_models), experiments.needs_rankers(by_models)) == ({"ials", "blend"}, False)
    by_rankers = msgspec.structs.replace(PLAIN, variants=(CONTROL, Variant(name="b", settings={"feed.keep": 100})))
    assert (experiments.models(by_rankers), experiments.needs_rankers(by_rankers)) == (set(), True)


def test_definitions_are_read_from_the_command_line() -> None:
    assert parse_variant("bold feed.exploration=0.3 feed.model=ials weight=2") == Variant(
        name="bold", settings={"feed.exploration": 0.3, "feed.model": "ials"}, weight=2
    )
    assert parse_ramp("0:5,24:20,72:100") == (Step(0, 0.05), Step(24, 0.2), Step(72, 1))
    for text in ("", "Bold!", "bold feed.exploration", "bold weight=-1"):
        with pytest.raises(InvalidInput):
            parse_variant(text)
    for text in ("", "0-5", "0:101", "0:5,"):
        with pytest.raises(InvalidInput):
            parse_ramp(text)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"variants": (BOLD, CONTROL)}, "has the control"),
        ({"variants": (CONTROL,)}, "at least one variant"),
        ({"variants": (CONTROL, BOLD, BOLD)}, "same name"),
        ({"variants": (CONTROL, Variant(name="b"))}, "changes nothing"),
        ({"metric": "love"}, "there is no metric love"),
        ({"guards": ("love",)}, "there is no metric love"),
        ({"ramp": (Step(0, 0.5), Step(24, 0.4))}, "nobody leaves"),
        ({"ramp": ()}, "nobody leaves"),
    ],
)
def test_what_can_be_no_experiment_is_refused(change: dict[str, object], told: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(told)):
        experiments.check(msgspec.structs.replace(PLAIN, **change))


def test_experiments_are_started_found_and_stopped(engine: sa.Engine) -> None:
    second = Experiment(name="second", variants=(CONTROL, Variant(name="b", settings={"feed.questions": 0})))
    with writing(engine) as connection:
        first = experiments.start(connection, PLAIN, NOW)
        assert first.experiment.salt not in ("", "salt")
        with pytest.raises(InvalidInput, match="before"):
            experiments.start(connection, PLAIN, NOW)
        with pytest.raises(InvalidInput, match="varies feed"):
            experiments.start(connection, msgspec.structs.replace(PLAIN, name="other"), NOW)
        experiments.start(connection, second, NOW)
    with writing(engine) as connection:
        assert [one.experiment.name for one in experiments.running(connection)] == ["plain", "second"]
        stopped = experiments.stop(connection, "plain", "by hand", NOW + HOUR)
        assert (stopped.stopped, stopped.reason) == (NOW + HOUR, "by hand")
        assert experiments.stop(connection, "plain", "again", NOW + 2 * HOUR) == stopped
        assert [one.experiment.name for one in experiments.running(connection)] == ["second"]
        assert [one.experiment.name for one in experiments.everything(connection)] == ["second", "plain"]
        with pytest.raises(NotFound):
            experiments.stop(connection, "third", "", NOW)


def test_what_another_palate_wrote_is_passed_over(sqlite_engine: sa.Engine) -> None:
    with writing(sqlite_engine) as connection:
        experiments.start(connection, PLAIN, NOW)
        for number, text in enumerate(("{", '{"name":"x","variants":[],"soul":1}', '{"name":"x","variants":[]}')):
            row = {"name": f"broken-{number}", "definition": text, "started": 0}
            connection.execute(sa.insert(database.experiments).values(row))
    with reading(sqlite_engine) as connection:
        assert [one.experiment.name for one in experiments.running(connection)] == ["plain"]


def test_no_more_run_at_once_than_an_event_can_name(sqlite_engine: sa.Engine) -> None:
    paths = ["feed.exploration", "feed.questions", "feed.freshness", "feed.candidates", "feed.first_items"]
    with writing(sqlite_engine) as connection:
        for number, path in enumerate(paths):
            name = f"{number}" * 31
            one = Experiment(name=name, variants=(CONTROL, Variant(name="v" * 15, settings={path: 0})))
            if number < experiments.MOST:
                experiments.start(connection, one, NOW)
            else:
                with pytest.raises(InvalidInput, match="run already"):
                    experiments.start(connection, one, NOW)
        found = experiments.running(connection)
    assert len(";".join(experiments.label(one.experiment.name, "v" * 15) for one in found)) <= 200
