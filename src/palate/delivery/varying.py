"""By which settings a person is served while experiments run: what each process keeps of them, read anew twice a second.

Whatever is wrong with an experiment, people are served: by the plain settings, and nothing is logged of the experiment, for none
of its variants, so that those who are served stay split as they should be.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from palate import experiments
from palate.database import reading
from palate.errors import PalateError
from palate.experiments import Stored
from palate.feed_params import FeedParams
from palate.identities import check_id
from palate.live import Live

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Tried:
    """An experiment whose settings this process knows how to serve."""

    stored: Stored
    models: Collection[str]


class Varying:
    """The running experiments, as one process of serving knows them; shared by its threads."""

    def __init__(self, engine: sa.Engine, live: Live, params: FeedParams) -> None:
        self._engine, self._live, self._params = engine, live, params
        self._tried: tuple[_Tried, ...] = ()
        self._known: Sequence[Stored] = ()

    def refresh(self) -> None:
        """Take up experiments that were started and let go of those that were stopped; cheap when nothing was."""
        with reading(self._engine) as connection:
            found = experiments.running(connection)
        if found == self._known:
            return
        self._tried = tuple(_Tried(one, experiments.models(one.experiment)) for one in found if self._possible(one))
        self._live.serve_also({model for one in self._tried for model in one.models})
        self._known = found

    def of(self, user: str, now: datetime, connection: sa.Connection | None = None) -> tuple[FeedParams, str | None]:
        """The settings for a person, and what the log says of their variants; None while they take part in nothing.

        `connection` is a transaction to read in, None: one of its own. Raises InvalidInput for a user id that can't be one.
        """
        tried = [one for one in self._tried if self._served(one)]
        if not tried:
            return self._params, None
        check_id(user, "the user id")
        with nullcontext(connection) if connection is not None else reading(self._engine) as connection:
            id = experiments.own_id(connection, user)
        params, labels = self._params, list[str]()
        for one in tried:
            variant = experiments.assign(one.stored.experiment, one.stored.started, id, now)
            if variant is not None:
                params = experiments.varied(params, variant.settings, variant.name)
                labels.append(experiments.label(one.stored.experiment.name, variant.name))
        return params, ";".join(labels) or None

    def _possible(self, stored: Stored) -> bool:
        """Whether all its variants can be served by: another Palate may have started it."""
        try:
            for variant in stored.experiment.variants:
                experiments.varied(self._params, variant.settings, variant.name)
        except PalateError as error:
            log.warning("Experiment %s rests here: %s", stored.experiment.name, error)
            return False
        return True

    def _served(self, one: _Tried) -> bool:
        """Whether the models of its variants are served by themselves, and nothing stands in for them."""
        state = self._live.state
        return all(state.by(model).pool.model.name == model for model in one.models)
