"""Is how firmly the factorization machine is held well chosen? On small logs, and on cuts of MovieLens and Deskdrop.

    PALATE_DATA=… python benchmarks/bench_l2_scale.py [--small [--seeds FIRST LAST]]

Printed for each cut: the loss of each multiple of the l2 on what people said last in the training, the one that is chosen, and
what each would have given on the test: its loss, and the mean AUC within people (of labels above a person's median).

`--small`: for draws of logs of few votes (see small_logs.py) what the defaults give, and by how much that differs from what each
multiple alone gives, and from the first with `epochs` passes whatever the size: draw by draw, with 95 % intervals over draws.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import small_logs
from bench_factorization_machine import DESKDROP, MOVIELENS, read_deskdrop, read_movielens

from palate import metrics, splits
from palate.domain import Interactions
from palate.models import factorization_machine as fm
from palate.models import fm_scale
from palate.models.factorization_machine import NO_SOURCES, FactorizationMachine, FactorizationMachineParams
from palate.splits import rows

PARAMS, SEED = FactorizationMachineParams(), 1
VOTES = (30, 60, 120, 250, 500, 1000, 2000)
OTHERS: dict[str, FactorizationMachineParams] = {
    f"× {scale:g}": msgspec.structs.replace(PARAMS, l2_scales=(scale,)) for scale in PARAMS.l2_scales
} | {f"× 1, {PARAMS.epochs} passes": msgspec.structs.replace(PARAMS, l2_scales=(1.0,), least_steps=0)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--seeds", nargs=2, type=int, default=(1000, 1010))
    asked = parser.parse_args()
    data = Path(os.environ["PALATE_DATA"])
    if asked.small:
        small(data, range(*asked.seeds))
    else:
        large(data)


def small(data: Path, seeds: range) -> None:
    print(f"{len(seeds)} draws each; loss × 1000, AUC and top ten of the defaults, then the defaults less each other")
    for name, draw in small_logs.draws(data).items():
        for votes in VOTES:
            found, chosen = [], []
            for seed in seeds:
                one = draw(votes, np.random.default_rng([seed, votes]))
                own = small_fit(one, PARAMS)
                chosen.append(own.l2_scale)
                found.append([one.judge(own), *(one.judge(small_fit(one, params)) for params in OTHERS.values())])
            print_small(f"{name}, {votes} votes", np.array(found) * (1000, 1, 1), chosen)


def small_fit(one: small_logs.Draw, params: FactorizationMachineParams) -> FactorizationMachine:
    return fm.fit(one.log, one.sources, params, SEED, fields=one.fields)[0]


def print_small(name: str, found: np.ndarray, chosen: list[float]) -> None:
    """`found` (draws, 1 + others, 3)."""
    loss, auc, top = np.nanmean(found[:, 0], axis=0)
    share = np.mean(np.array(chosen) > 1)
    print(f"{name}: {loss:.1f}, {auc:.3f}, {top:.3f}; another than × 1 in {share:.0%}")
    for place, other in enumerate(OTHERS, 1):
        less = found[:, 0] - found[:, place]
        mean, error = np.nanmean(less, axis=0), 1.96 * np.nanstd(less, axis=0, ddof=1) / np.sqrt(len(less))
        cells = ", ".join(
            f"{a:+.{digits}f} ± {b:.{digits}f}" for a, b, digits in zip(mean, error, (1, 3, 3), strict=True)
        )
        print(f"    {other}: {cells}", flush=True)


def large(data: Path) -> None:
    for name, train, test in cuts(data):
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
