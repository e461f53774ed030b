"""What is tried on a part of the people, and what came of it, for owners."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from markupsafe import Markup
from starlette.responses import Response

from palate import experiment_judging, experiment_page, experiments
from palate.database import reading, writing
from palate.delivery.web_page import Visit, draw, needs_owner, see_other
from palate.experiments import Stored

SHOWN = 20
"""Experiments on the page, the newest first."""


@dataclass(frozen=True)
class Section:
    """One experiment."""

    name: str
    state: str
    runs: bool
    body: Markup


def experiments_page(visit: Visit) -> Response:
    """The page."""
    needs_owner(visit)
    with reading(visit.serving.engine) as connection:
        found = experiments.everything(connection)[:SHOWN]
        looks = [experiment_judging.kept_looks(connection, one) for one in found]
    params = visit.serving.params.experiments
    sections = [
        Section(
            name=one.experiment.name,
            state=_state(one, visit),
            runs=one.stopped is None,
            body=Markup(experiment_page.body(one, own, params)),
        )
        for one, own in zip(found, looks, strict=True)
    ]
    return draw(visit, "experiments.html", here="/training", sections=sections)


def _state(stored: Stored, visit: Visit) -> str:
    if stored.stopped is not None:
        return "stopped"
    age = visit.now - stored.started
    share = experiments.share(stored.experiment, max(age, timedelta(0)))
    return f"runs, on {100 * share:g} % of all people"


def stop(visit: Visit) -> Response:
    """Stop the experiment of a name."""
    needs_owner(visit)
    with writing(visit.serving.engine) as connection:
        experiments.stop(connection, visit.given("name"), "on its page", visit.now)
    visit.serving.varying.refresh()
    return see_other(visit, "/experiments")
