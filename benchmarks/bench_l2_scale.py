"""Is how firmly the factorization machine is held well chosen? On cuts of MovieLens and Deskdrop, beside what each choice gives.

    PALATE_DATA=… python benchmarks/bench_l2_scale.py

Printed for each cut: the loss of each multiple of the l2 on what people said last in the training, the one that is chosen, and
what each would have given on the test: its loss, and the mean AUC within people (of labels above a person's median).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
from bench_factorization_machine import DESKDROP, MOVIELENS, read_deskdrop, read_movielens

from palate import metrics, splits
from palate.domain import Interactions
from palate.models import factorization_machine as fm
from palate.models import fm_scale
from palate.models.factorization_machine import NO_SOURCES, FactorizationMachine, FactorizationMachineParams
from palate.splits import rows

PARAMS, SEED = FactorizationMachineParams(), 1


def main() -> None:
    for name, train, test in cuts(Path(os.environ["PALATE_DATA"])):
        tried: dict[float, list[float]] = {}

        def loss(
            older: fm_scale.Rows,
            newer: fm_scale.Rows,
            scale: float,
            train: Interactions = train,
            tried: dict[float, list[float]] = tried,
        ) -> fm_scale.Floats:
            held = rows(train, newer)
            found = fm.losses(fitted(rows(train, older), scale), held.label, held.user, held.item)
            tried.setdefault(scale, []).append(float(found.mean()))
            return found

        chosen = fm_scale.best(train.user, train.time, PARAMS.l2_scales, loss)
        print(f"{name}: {len(train):,} examples, chosen {chosen:g}")
        for scale in PARAMS.l2_scales:
            model = fitted(train, scale)
            own = float(fm.losses(model, test.label, test.user, test.item).mean())
            print(f"  {scale:g}: {np.mean(tried[scale]):.5f}; test {own:.4f}, AUC {auc_within(model, test):.3f}")


def cuts(data: Path) -> Iterator[tuple[str, Interactions, Interactions]]:
    """Names, trainings and tests."""
    films = read_movielens(data / MOVIELENS)
    by_chance = splits.k_fold(len(films), 5, 0) == 0
    yield "MovieLens, a fifth by chance", rows(films, ~by_chance), rows(films, by_chance)
    for name, found in (("MovieLens", films), ("Deskdrop", read_deskdrop(data / DESKDROP))):
        for kind, late in (
            ("newest fifth", splits.newest(found.time, 0.2)),
            ("each person's newest fifth", splits.newest_of_each(found.user, found.time, 0.2)),
        ):
            yield f"{name}, {kind}", rows(found, ~late), rows(found, late)


def fitted(part: Interactions, scale: float) -> FactorizationMachine:
    """A machine that is held so firmly."""
    return fm.fit(part, NO_SOURCES, msgspec.structs.replace(PARAMS, l2_scales=(scale,)), SEED)[0]


def auc_within(model: FactorizationMachine, test: Interactions) -> float:
    """Mean over the people whose labels differ."""
    scores, found = fm.score(model, test.user, test.item), []
    for user in np.unique(test.user):
        own = test.user == user
        labels = test.label[own]
        above = labels > np.median(labels) if (labels > np.median(labels)).any() else labels >= labels.max()
        if 0 < above.sum() < len(above):
            found.append(metrics.auc(above.astype(np.float64), scores[own]))
    return float(np.mean(found))


if __name__ == "__main__":
    main()
