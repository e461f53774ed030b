"""All models that rank, on a time split of Deskdrop and of Globo clicks: the newest fifth of the events is asked for.

    PALATE_DATA=… python benchmarks/bench_blend.py [deskdrop] [globo] [--models popularity,fm,blend]

Deskdrop: views weigh 1, likes, bookmarks and follows 2, comments 3; the strongest of a pair counts. Globo: the dwell of a click in
seconds (the gap to the next click of the session, 1 to 1,800 s; gaps of exactly 30,000 ms are padding) is its weight, clicks
without one are left out. Nobody refuses anything there: whatever was met is a positive, of its weight for models of weights and of
label 1 for the machine, which compares it with what was not met (BPR). All items of training are ranked, without those that a person has; what came after is missed by all.
What is not by default was chosen on the newest fifth of training, for each model by nDCG@10. At most 5,000 people are asked.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from palate.domain import Interactions
from palate.evaluation import evaluating, measuring
from palate.evaluation.evaluating import Conditions, Outcome, Plan
from palate.evaluation.measuring import Figure
from palate.evaluation.protocols import Split
from palate.models import registry
from palate.splits import newest, rows

SHARE, PEOPLE = 0.2, 5_000
CONDITIONS = Conditions(measuring.wanted("ndcg@10,recall@20"))
WEIGHTS = {"VIEW": 1.0, "LIKE": 2.0, "BOOKMARK": 2.0, "FOLLOW": 2.0, "COMMENT CREATED": 3.0}
TRIED: dict[str, list[dict[str, Any]]] = {
    "popularity": [{}, *({"half_life_days": days} for days in (0.04, 0.08, 0.125, 0.2, 0.4, 1, 2, 4, 8))],
    "itemknn": [
        {},
        {"recent_items": 10.0},
        {"power": 0.0},
        {"target_exponent": 0.2},
        {"target_exponent": 0.2, "power": 0.0},
    ],
    "ease": [
        {"max_items": 4000},
        {"max_items": 4000, "recent_items": 10.0},
        {"max_items": 4000, "power": 0.0},
        {"max_items": 4000, "power": 0.0, "l2": 300.0},
    ],
    "svd": [{}, {"recent_items": 10.0}, {"factors": 32}, {"factors": 32, "power": 0.0}],
    "ials": [
        {"factors": 32},
        {"factors": 32, "recent_items": 10.0},
        *(
            {"factors": 32, "unobserved_weight": weight, "power": power, "l2": l2}
            for weight, power, l2 in (
                (0.3, 1.0, 0.007),
                (0.3, 1.0, 0.02),
                (1.0, 0.3, 0.03),
                (0.1, 0.3, 0.03),
                (1.0, 0.1, 0.1),
            )
        ),
    ],
    "fm": [
        {"loss": "bpr", "factors": factors, "epochs": 20, "l2_items": l2, "l2_users": l2}
        for factors, l2 in ((16, 3.0), (16, 30.0), (0, 3.0))
    ],
    "blend": [{}],
}

Events = tuple[Any, Any, Any, Any]
"""User, item, weight, time."""


def deskdrop(data: Path) -> Events:
    import pyarrow.csv as pc

    table = pc.read_csv(data / "feedback/deskdrop/users_interactions.csv")
    user, item = (np.unique(table[name].to_numpy(), return_inverse=True)[1] for name in ("personId", "contentId"))
    weight = np.array([WEIGHTS[name] for name in table["eventType"].to_pylist()])
    return user, item, weight, table["timestamp"].to_numpy() * 1000


def globo(data: Path) -> Events:
    import pyarrow.parquet as pq

    table = pq.read_table(data / "feedback/globo-clicks/clicks.parquet")
    user, session, item, time = (
        table[name].to_numpy().astype(np.int64)
        for name in ("user_id", "session_id", "click_article_id", "click_timestamp")
    )
    order = np.lexsort((time, session))
    user, session, item, time = user[order], session[order], item[order], time[order]
    gap = np.append(np.diff(time), 0)
    same = np.append(session[1:] == session[:-1], False)
    real = same & (gap != 30_000) & (gap >= 1_000) & (gap <= 1_800_000)
    return user[real], item[real], gap[real] / 1000, time[real]


def merged(events: Events) -> Interactions:
    """The strongest event of each pair, at the time of the newest."""
    user, item, weight, time = events
    order = np.lexsort((item, user))
    user, item, weight, time = user[order], item[order], weight[order], time[order]
    first = np.flatnonzero(np.append(True, (user[1:] != user[:-1]) | (item[1:] != item[:-1])))
    strongest = np.maximum.reduceat(weight, first).astype(np.float32)
    labels = np.ones(len(first), np.float32)
    return Interactions(user[first], item[first], labels, strongest, np.maximum.reduceat(time, first))


def cut(events: Events) -> tuple[Events, Split]:
    """The older events, and the split."""
    late = newest(events[3], SHARE)
    older = tuple(part[~late] for part in events)
    train, test = merged(older), merged(tuple(part[late] for part in events))  # type: ignore[arg-type]
    people = np.unique(test.user)
    asked = np.random.default_rng(0).choice(people, min(PEOPLE, len(people)), replace=False)
    test = rows(test, np.isin(test.user, asked))
    return older, Split(train, train, test, np.ones(len(test)), "time", ~late)  # type: ignore[return-value]


def run(split: Split, model: str, settings: dict[str, Any]) -> Outcome:
    plan = Plan(model, msgspec.convert(settings, registry.entry(model).params))
    return evaluating.evaluate(split, plan, CONDITIONS, [0])


def best(split: Split, model: str) -> dict[str, Any]:
    """By nDCG@10."""
    tried = TRIED[model]
    if len(tried) == 1:
        return tried[0]
    return max(tried, key=lambda settings: run(split, model, settings).figures["ndcg@10"].value or 0.0)


def told(figures: dict[str, Figure]) -> str:
    return "  ".join(f"{name} {each.value:+.4f} [{each.low:+.4f}, {each.high:+.4f}]" for name, each in figures.items())


def table(name: str, events: Events, models: list[str]) -> None:
    older, split = cut(events)
    _, validation = cut(older)
    print(f"{name}: {len(split.train):,} pairs learned, {len(np.unique(split.test.user)):,} people asked", flush=True)
    outcomes: dict[str, Outcome] = {}
    for model in models:
        chosen = best(validation, model)
        outcomes[model] = run(split, model, chosen)
        fit = outcomes[model].seconds["fit"]
        print(f"   {model} {chosen}: {told(outcomes[model].figures)}   fit {fit:.1f} s", flush=True)
    if "blend" not in outcomes:
        return
    mix = outcomes["blend"].last.model
    for member, weights in zip(mix.members, mix.weights.T, strict=True):
        print(f"      {member.name}: {weights[0]:.3f} for the new, {weights[1]:.3f} for others, by {mix.way}")
    for model in [model for model in outcomes if model != "blend"]:
        less = measuring.differences(outcomes["blend"].measured, outcomes[model].measured, np.random.default_rng(0))
        print(f"   blend less {model}: {told(less)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=["deskdrop", "globo"])
    parser.add_argument("--models", default=",".join(TRIED), help="with commas between")
    options = parser.parse_args()
    if "PALATE_DATA" not in os.environ:
        raise SystemExit("Set PALATE_DATA to the folder with the data.")
    data = Path(os.environ["PALATE_DATA"])
    for name, read in (("deskdrop", deskdrop), ("globo", globo)):
        if name in options.sets:
            table(name, read(data), options.models.split(","))


if __name__ == "__main__":
    main()
