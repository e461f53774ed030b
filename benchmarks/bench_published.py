"""Our models beside the published tables of MovieLens 1M (NCF's leave-one-out), Gowalla (LightGCN's split) and Amazon Electronics.

    PALATE_DATA=… python benchmarks/bench_published.py [SET …] [--models ials,blend] [--seeds 5]

MovieLens: HR@10 and nDCG@10 with the given 99 negatives, copies of the test item among them dropped. The others: all items ranked
but those of the training; F1@20 is that of mean precision and mean recall, as the table's authors count it. Models that no chance
is in are fitted once: their intervals are over people, those of several seeds over seeds. `--models` takes the beginnings of labels.

Settings were chosen on pairs cut from the training by chance (MovieLens: one of each person against 99 random items, Gowalla and
Electronics: a fifth of all), or are published (MovieLens, ials). A blend learns its weights itself, on 15 % of the training.
Published rows: iALS from the README of google-research's ials, irspack and NCF from their repositories, Gowalla from BARS's table
(MF-BPR to GF-CF as reproduced or quoted there), Electronics from SimpleX's README.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from bench_item_knn import given, gowalla, movielens, pairs

from palate.evaluation import evaluating, measuring
from palate.evaluation.evaluating import Conditions, Outcome, Plan
from palate.evaluation.protocols import Split
from palate.models import registry

CHANCE = ("ials", "svd", "blend", "fm")
"""Models of which a seed decides something."""
IALS = {"epochs": 12, "l2": 0.007, "unobserved_weight": 0.3}
MOVIELENS: dict[str, tuple[str, dict[str, Any]]] = {
    "popularity": ("popularity", {}),
    "itemknn": ("itemknn", {"neighbours": 50, "target_exponent": 0.5}),
    "ease": ("ease", {"l2": 2000.0, "neighbours": 4000}),
    "ials, 64 factors, published settings": ("ials", IALS | {"factors": 64}),
    "ials, 192 factors, published settings": ("ials", IALS | {"factors": 192}),
    "blend of four fits of ials (192)": (
        "blend",
        {
            "members": ("ials", "ials#2", "ials#3", "ials#4"),
            "by": "score",
            "settings": {"ials": IALS | {"factors": 192}},
        },
    ),
    "blend of ials (192), ease, itemknn": (
        "blend",
        {
            "members": ("ials", "ease", "itemknn"),
            "by": "score",
            "settings": {
                "ials": IALS | {"factors": 192},
                "ease": {"l2": 2000.0, "neighbours": 4000},
                "itemknn": {"neighbours": 50, "target_exponent": 0.5},
            },
        },
    ),
}
WIDE = {"neighbours": 300, "source_exponent": 0.4, "target_exponent": 0.2}
WIDER = {"neighbours": 300, "user_exponent": 0.25, "source_exponent": 0.5, "target_exponent": 0.2}
SPARSE = {"epochs": 16, "l2": 0.003, "unobserved_weight": 0.01}
GOWALLA: dict[str, tuple[str, dict[str, Any]]] = {
    "popularity": ("popularity", {}),
    "itemknn": ("itemknn", WIDE),
    "itemknn, user_exponent 0.25": ("itemknn", WIDER),
    "ials, 256 factors": ("ials", SPARSE | {"factors": 256}),
    "svd, 512 factors": ("svd", {"factors": 512}),
    "blend of itemknn, svd (512)": (
        "blend",
        {
            "members": ("itemknn", "svd"),
            "by": "score",
            "k": 20,
            "settings": {"itemknn": WIDE, "svd": {"factors": 512}},
        },
    ),
    "blend of itemknn, svd (512), ials (192)": (
        "blend",
        {
            "members": ("itemknn", "svd", "ials"),
            "by": "score",
            "k": 20,
            "settings": {"itemknn": WIDE, "svd": {"factors": 512}, "ials": SPARSE | {"factors": 192}},
        },
    ),
    "blend of itemknn (0.25), ials (128)": (
        "blend",
        {
            "members": ("itemknn", "ials"),
            "by": "score",
            "k": 20,
            "settings": {"itemknn": WIDER, "ials": SPARSE | {"factors": 128}},
        },
    ),
}
CLOSE = {
    "neighbours": 1600,
    "user_exponent": 0.25,
    "source_exponent": 0.45,
    "target_exponent": 0.35,
    "similarity_power": 1.5,
}
SMALL = {"factors": 16, "epochs": 16, "l2": 0.05, "unobserved_weight": 0.07}
ELECTRONICS: dict[str, tuple[str, dict[str, Any]]] = {
    "popularity": ("popularity", {}),
    "itemknn": ("itemknn", CLOSE),
    "ease": ("ease", {}),
    "ials, 16 factors": ("ials", SMALL),
    "blend of itemknn, ials, ease": (
        "blend",
        {
            "members": ("itemknn", "ials", "ease"),
            "by": "score",
            "k": 20,
            "held_out_users": 5000,
            "settings": {"itemknn": CLOSE, "ials": SMALL},
        },
    ),
}
PUBLISHED = {
    "movielens": {
        "iALS, 64 factors": (0.722, 0.445),
        "iALS, 192 factors (irspack)": (0.7310, 0.4521),
    },
    "gowalla": {
        "item-based CF": (0.1570, 0.1214),
        "ENMF (matrix factorisation)": (0.1523, 0.1315),
        "MF-BPR (matrix factorisation)": (0.1627, 0.1378),
        "EASE": (0.1765, 0.1467),
        "LightGCN": (0.1820, 0.1547),
        "MF-CCL (matrix factorisation)": (0.1837, 0.1493),
        "GF-CF": (0.1849, 0.1518),
        "UltraGCN": (0.1862, 0.1580),
        "SimpleX": (0.1872, 0.1557),
    },
    "electronics": {
        "NBPO (matrix factorisation)": (0.0313, 0.0810),
        "ENMF (matrix factorisation)": (0.0314, 0.0823),
        "UltraGCN": (0.0330, 0.0829),
        "SimpleX": (0.0338, 0.0842),
    },
}


@dataclass(frozen=True)
class Protocol:
    """What is asked on one set, and of which models."""

    split: Split
    conditions: Conditions
    models: dict[str, tuple[str, dict[str, Any]]]
    told: Callable[[Outcome], str]


def on_movielens(data: Path) -> Protocol:
    train, test, candidates = movielens(data)
    wanted = measuring.wanted("hr@10,ndcg@10")
    return Protocol(given(train, test), Conditions(wanted, candidates), MOVIELENS, figures)


def on_gowalla(data: Path) -> Protocol:
    return Protocol(given(*gowalla(data)), Conditions(measuring.wanted("recall@20,ndcg@20")), GOWALLA, figures)


def on_electronics(data: Path) -> Protocol:
    folder = data / "feedback/ultragcn-electronics"
    split = given(pairs(folder / "train.txt"), pairs(folder / "test.txt"))
    return Protocol(split, Conditions(measuring.wanted("precision@20,recall@20,ndcg@20")), ELECTRONICS, with_f1)


def figures(outcome: Outcome) -> str:
    return "  ".join(
        f"{name} {each.value:.4f} [{each.low:.4f}, {each.high:.4f}]" for name, each in outcome.figures.items()
    )


def with_f1(outcome: Outcome) -> str:
    precision, recall = (outcome.figures[name].value or 0.0 for name in ("precision@20", "recall@20"))
    return f"f1@20 {2 * precision * recall / max(precision + recall, 1e-12):.4f}  {figures(outcome)}"


def ask(protocol: Protocol, name: str, settings: dict[str, Any], seeds: int) -> Outcome:
    plan = Plan(name, msgspec.convert(settings, registry.entry(name).params))
    return evaluating.evaluate(protocol.split, plan, protocol.conditions, list(range(seeds if name in CHANCE else 1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=list(PUBLISHED))
    parser.add_argument("--models", default="", help="beginnings of labels, with commas between")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    if "PALATE_DATA" not in os.environ:
        raise SystemExit("Set PALATE_DATA to the folder with the data.")
    data = Path(os.environ["PALATE_DATA"])
    for name, read in (("electronics", on_electronics), ("movielens", on_movielens), ("gowalla", on_gowalla)):
        if name in options.sets:
            report(name, read(data), tuple(options.models.split(",")), options.seeds)


def report(name: str, protocol: Protocol, chosen: tuple[str, ...], seeds: int) -> None:
    print(f"{name}: {len(protocol.split.train):,} pairs learned, {len(protocol.split.test):,} to be found", flush=True)
    for label, row in PUBLISHED[name].items():
        print(f"   published: {label}: {row[0]:.4f} / {row[1]:.4f}", flush=True)
    for label, (model, settings) in protocol.models.items():
        if label.startswith(chosen):
            outcome = ask(protocol, model, settings, seeds)
            fit, measure = outcome.seconds["fit"], outcome.seconds["measure"]
            print(f"   {label}: {protocol.told(outcome)}   fit {fit:.0f} s, asked {measure:.0f} s", flush=True)
            if model == "blend":
                mix = outcome.last.model
                print(
                    "      " + ", ".join(f"{m.name} {w:.2f}" for m, w in zip(mix.members, mix.weights[-1], strict=True))
                )


if __name__ == "__main__":
    main()
