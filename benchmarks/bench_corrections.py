"""What labels of an installation's own make of a model of categories: `palate train-text` on half of what is labelled.

    PALATE_DATA=… python benchmarks/bench_corrections.py [en|ru]

The contest's articles of November 2019 that have a class in `training/labels.tsv`, parted by a digest of their text: a base model
learns from one half, corrections come from a quarter, and the last quarter is scored. `wrong`: articles that the base model gets
wrong, as an owner would correct them. `at random`: any. `one class`: articles of society that are all called technology, which no
owner should; it shows how far a mistake spreads. Means over five draws.

`CorrectionParams` were chosen on the English articles by this script; the Russian ones had no part in it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

import text_models
from text_models import Example

from palate.text import category, tokens
from palate.text.category import CLASSES, Weights
from palate.text.correction import CorrectionParams, Labelled, corrected, learn
from palate.text.learning import fit, stored

DRAWS = 5
OTHERS = 300
"""Texts without a label."""


def main(folder: Path, language: str) -> None:
    articles = text_models._contest(folder / "news/contest-articles.tar.xz", text_models.labels_of_articles())
    labelled = [one for one in articles if one.origin == "labelled" and one.language == language]
    classes = np.array([CLASSES.index(one.allowed[0]) for one in labelled])
    quarter = np.array([hash_of(one) % 4 for one in labelled])
    shown, given, scored = (np.flatnonzero(np.isin(quarter, parts)) for parts in ((0, 1), (2,), (3,)))
    base = stored(
        *fit(
            features(labelled, shown),
            np.eye(8, dtype=np.float32)[classes[shown]],
            np.ones(len(shown), np.float32),
            l2=0.01,
            rounds=60,
        )
    )
    wrong = given[predicted(labelled, given, base) != classes[given]]
    before = predicted(labelled, scored, base)
    right = (before == classes[scored]).mean()
    print(f"{language}: {len(shown)} articles learned, {len(scored)} scored, accuracy {right:.3f}")
    for name, pool, count in (
        ("wrong", wrong, 20),
        ("wrong", wrong, 60),
        ("at random", given, 20),
        ("at random", given, 200),
        ("one class", given[classes[given] == CLASSES.index("society")], 20),
    ):
        found = []
        for seed in range(DRAWS):
            rows = np.random.default_rng(seed).permutation(pool)[:count]
            names = ["technology" if name == "one class" else CLASSES[classes[row]] for row in rows]
            own = [
                Labelled(labelled[row].title, labelled[row].text, (to,)) for row, to in zip(rows, names, strict=True)
            ]
            rest = np.setdiff1d(given, rows)
            others = [(labelled[row].title, labelled[row].text) for row in rest[:OTHERS]]
            after = corrected(base, learn(base, own, others, CorrectionParams()))
            now = predicted(labelled, scored, after)
            took = [CLASSES[one] for one in predicted(labelled, rows, after)]
            found.append(
                ((now == classes[scored]).mean() - right, (now != before).mean(), np.mean(np.array(took) == names))
            )
        gain, moved, taken = np.mean(found, axis=0)
        spread = np.std(found, axis=0)[0]
        print(
            f"  {count:4} {name:10} accuracy {gain:+.3f} ± {spread:.3f}, {moved:.1%} have another class, {taken:.0%} taken in"
        )


def features(labelled: Sequence[Example], rows: NDArray[np.int64]) -> tokens.Features:
    return tokens.features([(labelled[row].title, labelled[row].text) for row in rows])


def predicted(labelled: Sequence[Example], rows: NDArray[np.int64], weights: Weights) -> NDArray[np.int64]:
    return np.asarray(category.probabilities(features(labelled, rows), weights).argmax(axis=1))


def hash_of(one: Example) -> int:
    from zlib import crc32

    return crc32((one.title + one.text).encode("utf-8", "replace"))


if __name__ == "__main__":
    main(Path(os.environ["PALATE_DATA"]), sys.argv[1] if len(sys.argv) > 1 else "en")
