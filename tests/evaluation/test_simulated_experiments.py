"""The report of an experiment on what simulated readers did, against what the simulation knows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from palate import database, experiment_judging, experiments
from palate.evaluation import closed_loop
from palate.evaluation import world as worlds
from palate.evaluation.closed_loop import Policy
from palate.evaluation.world import WorldParams
from palate.experiment_judging import Judging
from palate.experiments import Experiment, Stored, Variant

START = datetime(2026, 3, 2, 9, tzinfo=UTC)
HOURS = 3


def test_the_report_counts_what_the_simulation_counted(tmp_path: Path) -> None:
    params = WorldParams(readers=30, visits_per_day=12, items_per_hour=10, backlog_hours=12)
    bold = Variant(name="bold", settings={"feed.exploration": 0.9})
    experiment = Experiment(name="chance", variants=(Variant(name="control"), bold), salt="pepper")
    world = worlds.create(params, 1, START)
    record = closed_loop.run(world, Policy("both", experiment=experiment), tmp_path, HOURS)
    engine = database.connect(None, tmp_path)
    stored = Stored(key=1, experiment=experiment, started=START, stopped=None, reason=None)
    *_, look = experiment_judging.looks(engine, tmp_path, stored, Judging(), START + timedelta(hours=HOURS))
    engine.dispose()
    own = np.array([experiments.variant_of(experiment, id).name for id in world.ids])
    for name in ("control", "bold"):
        pages = own[record.reader] == name
        assert look.people[name] == len(np.unique(record.reader[pages]))
        found = look.figures["likes_per_view"][name].value
        assert found == pytest.approx(record.likes[pages].sum() / record.views[pages].sum())
    assert min(look.people.values()) > 5
