"""Are the verdicts of experiments right? Simulated ones, looked at every day by the code of the report.

    python benchmarks/bench_experiments.py [--runs 1000] [--powered 300]

A/A: no variant does anything; how often is one called different at any of its daily looks, and how often is the experiment stopped
by a guard? Power: a true lift of 5 %, with the number of people that the report of a pilot asked for; how often is it found?
"""

from __future__ import annotations

import argparse
import math
import time

import msgspec
import numpy as np

from palate import experiment_judging
from palate.evaluation.experiment_simulation import PopulationParams, run
from palate.experiment_judging import Look
from palate.experiments import METRICS, Experiment, ExperimentParams, Variant

PARAMS = ExperimentParams()
VARIANTS = (Variant(name="control"), Variant(name="b", settings={"feed.exploration": 0.2}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--powered", type=int, default=300)
    asked = parser.parse_args()
    aa(asked.runs)
    power(asked.powered)


def aa(runs: int) -> None:
    """Nothing is different; the experiments look for a lift that as many people would show."""
    begin, people = time.perf_counter(), PopulationParams(people=2_000)
    experiment = Experiment(name="aa", variants=VARIANTS, lift=0.2)
    clear = dict.fromkeys(METRICS, 0)
    stopped = uneven = 0
    for seed in range(runs):
        looks = _looks(experiment, people, {}, seed)
        for metric in METRICS:
            clear[metric] += experiment_judging.first_clear(looks, metric, "b") is not None
        stopped += any(experiment_judging.worse(one, experiment, PARAMS) is not None for one in looks)
        uneven += any(one.split < PARAMS.uneven for one in looks)
    print(
        f"A/A: {runs} experiments of {people.people:,} people, {people.days} daily looks, {time.perf_counter() - begin:.0f} s"
    )
    for metric, alarms in clear.items():
        print(
            f"  {metric + (' (decides)' if metric == experiment.metric else ''):<28} false alarms {_share(alarms, runs)}"
        )
    print(f"  stopped by a guard {_share(stopped, runs)}; called uneven {_share(uneven, runs)}")


def power(runs: int) -> None:
    """The number of people comes from the report of one experiment in which nothing was different."""
    begin, lift = time.perf_counter(), 0.05
    experiment = Experiment(name="power", variants=VARIANTS, lift=lift)
    pilot = _looks(experiment, PopulationParams(people=10_000), {}, 10**6)
    needed = next(one.people for one in pilot[-1].needed if one.lift == lift)
    assert needed is not None, "Ten thousand people tell how much they differ."
    people = msgspec.structs.replace(PopulationParams(), people=needed)
    found = last = 0
    for seed in range(runs):
        looks = _looks(experiment, people, {"b": lift}, 2 * 10**6 + seed)
        found += _found(looks)
        last += _found(looks[-1:])
    print(
        f"A true lift of {100 * lift:g} % with the {needed:,} people that a pilot of 10,000 asked for, {people.days} daily looks:"
    )
    print(
        f"  found in {_share(found, runs)} of {runs} runs, at the last look in {_share(last, runs)}; {time.perf_counter() - begin:.0f} s"
    )


def _looks(experiment: Experiment, people: PopulationParams, effects: dict[str, float], seed: int) -> list[Look]:
    rng = np.random.default_rng(seed)
    return [experiment_judging.look(experiment, day, PARAMS) for day in run(experiment, people, effects, rng)]


def _found(looks: list[Look]) -> bool:
    clear = experiment_judging.first_clear(looks, "likes_per_view", "b")
    return clear is not None and (clear.figures["likes_per_view"]["b"].low or 0) > 0


def _share(count: int, of: int) -> str:
    """With its 95 % interval (Wilson)."""
    share, z = count / of, 1.96
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return f"{100 * share:.1f} % [{100 * max(0.0, middle - half):.1f}, {100 * (middle + half):.1f}]"


if __name__ == "__main__":
    main()
