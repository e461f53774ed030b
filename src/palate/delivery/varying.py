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
from palate.experiments import Stored, Variant, Varied
from palate.identities import check_id
from palate.live import Live

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Tried:
    """An experiment whose settings this process knows how to serve."""

    stored: Stored
    models: Collection[str]
    needs_rankers: bool


class Varying:
    """The running experiments, as one process of serving knows them; shared by its threads."""

    def __init__(self, engine: sa.Engine, live: Live, plain: Varied) -> None:
        self._engine, self._live, self._plain = engine, live, plain
        self._tried: tuple[_Tried, ...] = ()
        self._made: dict[str, Varied] = {}
        """By what the log says of the variants."""
        self._known: Sequence[Stored] = ()

    def refresh(self) -> None:
        """Take up experiments that were started and let go of those that were stopped; cheap when nothing was."""
        with reading(self._engine) as connection:
            found = experiments.running(connection)
        if found == self._known:
            return
        self._tried, self._made = tuple(_tried(one) for one in found if self._possible(one)), {}
        self._live.serve_also({model for one in self._tried for model in one.models})
        self._known = found

    def of(self, user: str, now: datetime, connection: sa.Connection | None = None) -> tuple[Varied, str | None]:
        """The settings for a person, and what the log says of their variants; None while they take part in nothing.

        `connection` is a transaction to read in, None: one of its own. Raises InvalidInput for a user id that can't be one.
        """
        made, tried = self._made, [one for one in self._tried if self._served(one)]
        if not tried:
            return self._plain, None
        check_id(user, "the user id")
        with nullcontext(connection) if connection is not None else reading(self._engine) as connection:
            id = experiments.own_id(connection, user)
        variants, labels = list[Variant](), list[str]()
        for one in tried:
            variant = experiments.assign(one.stored.experiment, one.stored.started, id, now)
            if variant is not None:
                variants.append(variant)
                labels.append(experiments.label(one.stored.experiment.name, variant.name))
        if not variants:
            return self._plain, None
        said = ";".join(labels)
        if said not in made:
            made[said] = self._by(variants)
        return made[said], said

    def _by(self, variants: Sequence[Variant]) -> Varied:
        found = self._plain
        for variant in variants:
            found = experiments.varied(found, variant.settings, variant.name)
        return found

    def _possible(self, stored: Stored) -> bool:
        """Whether all its variants can be served by: another Palate may have started it."""
        try:
            for variant in stored.experiment.variants:
                experiments.varied(self._plain, variant.settings, variant.name)
        except PalateError as error:
            log.warning("Experiment %s rests here: %s", stored.experiment.name, error)
            return False
        return True

    def _served(self, one: _Tried) -> bool:
        """Whether what its variants are served by is there, and nothing stands in for it."""
        state = self._live.state
        if one.needs_rankers and state.rankers is None:
            return False
        return all(state.by(model).pool.model.name == model for model in one.models)


def _tried(stored: Stored) -> _Tried:
    return _Tried(stored, experiments.models(stored.experiment), experiments.needs_rankers(stored.experiment))
