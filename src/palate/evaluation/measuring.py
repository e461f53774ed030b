"""How well a model answers: every metric of every user, from one ranking, with intervals and paired comparisons.

Each metric is a sum of parts over users and a function of that sum (`metrics.interval_of_sums`), so that one bootstrap serves
them all, models compare on the same drawn users, and several seeds or snapshots add up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palate import metrics
from palate.errors import PalateError
from palate.evaluation import lists
from palate.evaluation.lists import Catalogue
from palate.evaluation.ranking import Questions, Ranked
from palate.metrics import Finish, Values, mean_of
from palate.models.material import Known

VISIBLE = (5, 6, 7)
"""How many items of a row are seen without moving it."""

BINS = 10
"""Of the calibration."""


@dataclass(frozen=True)
class Metric:
    """One number that is wanted."""

    kind: str
    k: int | None = None
    """Length of the list it looks at; None where it looks at all."""

    @property
    def name(self) -> str:
        """As it is written: `ndcg@10`."""
        return self.kind if self.k is None else f"{self.kind}@{self.k}"


OfRelevance = Callable[[Values, int, NDArray[np.int64] | None], Values]

OF_RELEVANCE: dict[str, OfRelevance] = {
    "hr": lambda relevance, k, total: metrics.hit_rate_at(relevance, k),
    "recall": metrics.recall_at,
    "precision": lambda relevance, k, total: metrics.precision_at(relevance, k),
    "ndcg": metrics.ndcg_at,
    "map": metrics.average_precision_at,
    "mrr": lambda relevance, k, total: metrics.reciprocal_rank_at(relevance, k),
}
OF_LISTS: dict[str, Callable[[NDArray[np.int32], Known, Catalogue], Values]] = {
    "novelty": lambda found, known, catalogue: lists.novelty(found, catalogue),
    "diversity": lambda found, known, catalogue: lists.diversity(found, catalogue),
    "abandoned": lists.like_abandoned,
    "popularity-bias": lists.popularity_bias,
}
OF_LABELS = ("rmse", "log-loss", "calibration")
WITHOUT_K = ("auc", "mrr", "visible", *OF_LABELS)
ALIASES = {
    "hit": "hr",
    "hits": "hr",
    "hit-rate": "hr",
    "users-with-hit": "hr",
    "logloss": "log-loss",
    "ece": "calibration",
}
ALL = (*(f"{kind}@K" for kind in (*OF_RELEVANCE, "coverage", *OF_LISTS)), *WITHOUT_K)
"""Every metric, as errors list them."""


def wanted(text: str) -> tuple[Metric, ...]:
    """The metrics of a list such as `hr@10,ndcg@10,auc`, each once. Raises PalateError."""
    found = [_metric(part) for part in text.replace(" ", ",").split(",") if part]
    if not found:
        raise PalateError(f"Name at least one metric: {', '.join(ALL)}.")
    return tuple(dict.fromkeys(found))


def _metric(text: str) -> Metric:
    match = re.fullmatch(r"([a-z-]+)(?:@([1-9]\d{0,3}))?", text.strip().lower().replace("_", "-"))
    kind = ALIASES.get(match[1], match[1]) if match else ""
    if match is None or kind not in (*OF_RELEVANCE, "coverage", *OF_LISTS, *WITHOUT_K):
        raise PalateError(
            f"There is no metric {text}: choose among {', '.join(ALL)}, with a whole number below 10,000 for K."
        )
    k = int(match[2]) if match[2] else None
    if k is None and kind not in WITHOUT_K:
        raise PalateError(f"The metric {kind} needs the length of the list that it looks at: {kind}@10, for one.")
    if k is not None and kind in WITHOUT_K and kind != "mrr":
        raise PalateError(f"The metric {kind} looks at everything: write it without @{k}.")
    return Metric(kind, k)


@dataclass(frozen=True)
class Figure:
    """A metric's value and its interval; None where there is no answer."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def to_json(self) -> dict[str, float | None]:
        """As the command line answers."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True, eq=False)
class Measured:
    """What one model did, for each of n users."""

    users: NDArray[np.int64]
    """(n,) keys; one that was asked several times is there as often."""
    found_for: NDArray[np.bool_]
    """(n,) whether there was anything to find for the user, beside labels to guess."""
    parts: dict[str, Values]
    """(n, P) by the name of the metric."""
    finish: dict[str, Finish]
    coverage: dict[str, float]
    """By the name of the metric: it is of all lists together, so it has no parts."""
    lists: NDArray[np.int32]
    """(n', k) columns of the items of the first users' lists, to be looked at."""

    @property
    def names(self) -> list[str]:
        """Of all metrics."""
        return [*self.parts, *self.coverage]

    @property
    def asked(self) -> int:
        """How many users there was anything to find for, or labels to guess where there was nothing to find for anybody."""
        return len(np.unique(self.users[self.found_for] if self.found_for.any() else self.users))

    def figures(self, random: np.random.Generator) -> dict[str, Figure]:
        """Every metric with its interval over users, all from the same drawn users."""
        parts = self.by_user()
        return _figures([(parts[name], self.finish[name]) for name in parts], list(parts), random) | {
            name: Figure(value) for name, value in self.coverage.items()
        }

    def by_user(self) -> dict[str, Values]:
        """Parts with one row for each user, in the order of their keys."""
        keys, place = np.unique(self.users, return_inverse=True)
        if len(keys) == len(self.users):
            return self.parts
        return {
            name: np.stack([np.bincount(place, column, len(keys)) for column in parts.T], axis=1)
            for name, parts in self.parts.items()
        }


KEPT_LISTS = 50
"""Users whose lists are kept to be looked at."""


def measure(
    ranked: Iterable[Ranked],
    questions: Questions,
    wanted: Sequence[Metric],
    catalogue: Catalogue | None,
    *,
    expected: float | None,
    unit: float = 1.0,
    judged_auc: bool = False,
) -> Measured:
    """All metrics of a ranking. `catalogue` is asked for where `needs_catalogue` says so.

    `expected` is the mean label that stands in for items the model doesn't know, None for a model whose scores are no expected
    labels: then metrics of labels have no answer. `unit` is that of RMSE, in labels. With `judged_auc` the AUC is that of
    the judged pairs, else that of the ranking.
    """
    n, length = len(questions), depth(wanted)
    values = {metric.name: np.full(n, np.nan) for metric in wanted if metric.kind not in (*OF_LABELS, "coverage")}
    seen = {metric: np.zeros(len(questions.items), bool) for metric in wanted if metric.kind == "coverage"}
    scores, kept = np.empty(len(questions.judged.row)), np.full((min(n, KEPT_LISTS), length), -1, np.int32)
    done = 0
    for block in ranked:
        rows = slice(block.first, block.first + len(block.total))
        own = questions.known.of(np.arange(rows.start, rows.stop))
        for metric in wanted:
            if metric.name in values:
                values[metric.name][rows] = _of_block(metric, block, own, catalogue)
        for metric, marks in seen.items():
            top = block.lists[:, : metric.k]
            marks[top[top >= 0]] = True
        scores[done : done + len(block.judged)] = block.judged
        done += len(block.judged)
        kept[rows.start : min(rows.stop, len(kept))] = block.lists[: max(0, len(kept) - rows.start)]
    parts = {name: _mean_parts(found) for name, found in values.items()}
    finish: dict[str, Finish] = dict.fromkeys(parts, mean_of)
    if judged_auc and "auc" in parts:
        parts["auc"] = _mean_parts(_judged_auc(questions, scores))
    for metric in wanted:
        if metric.kind in OF_LABELS:
            parts[metric.name], finish[metric.name] = _of_labels(metric.kind, questions, scores, expected, unit)
    coverage = {metric.name: float(marks.mean()) if len(marks) else 0.0 for metric, marks in seen.items()}
    found_for = np.bincount(questions.relevant.row, minlength=n) > 0
    return Measured(questions.known.users, found_for, parts, finish, coverage, kept)


def depth(wanted: Sequence[Metric]) -> int:
    """How many places of a ranking these metrics look at."""
    visible = [max(VISIBLE)] if any(metric.kind == "visible" for metric in wanted) else []
    return max([10, *visible, *(metric.k for metric in wanted if metric.k is not None)])


def needs_catalogue(wanted: Sequence[Metric]) -> bool:
    """Whether one of them asks how popular or how alike items are."""
    return any(metric.kind in OF_LISTS for metric in wanted)


def needs_whole(wanted: Sequence[Metric]) -> bool:
    """Whether one of them asks for places beyond the first."""
    return any(metric.kind == "auc" or (metric.kind == "mrr" and metric.k is None) for metric in wanted)


def together(parts: Sequence[Measured]) -> Measured:
    """Several measurements as one: each user's answers of all of them. Coverage is the mean of theirs."""
    names = parts[0].parts
    return Measured(
        users=np.concatenate([part.users for part in parts]),
        found_for=np.concatenate([part.found_for for part in parts]),
        parts={name: np.concatenate([part.parts[name] for part in parts]) for name in names},
        finish=parts[-1].finish,
        coverage={name: float(np.mean([part.coverage[name] for part in parts])) for name in parts[0].coverage},
        lists=parts[-1].lists[:0],  # of which users they are isn't told apart
    )


def differences(ours: Measured, theirs: Measured, random: np.random.Generator) -> dict[str, Figure]:
    """By how much each metric of the first is larger than that of the second, on the same users drawn together."""
    first, second = ours.by_user(), theirs.by_user()
    names = list(first)
    assert all(len(first[name]) == len(second[name]) for name in names), "Two models are compared on the same users."
    cases = [
        (
            np.concatenate((first[name], second[name]), axis=1),
            _less(ours.finish[name], theirs.finish[name], first[name].shape[1]),
        )
        for name in names
    ]
    return _figures(cases, names, random) | {
        name: Figure(value - theirs.coverage[name]) for name, value in ours.coverage.items()
    }


def _less(one: Finish, other: Finish, width: int) -> Finish:
    return lambda sums: one(sums[..., :width]) - other(sums[..., width:])


def _figures(
    cases: Sequence[tuple[Values, Finish]], names: Sequence[str], random: np.random.Generator
) -> dict[str, Figure]:
    values = [float(finish(parts.sum(axis=0))) for parts, finish in cases]
    bounds = metrics.intervals_of_sums(cases, random)
    return {
        name: Figure(None) if np.isnan(value) else Figure(value, *bound)
        for name, value, bound in zip(names, values, bounds, strict=True)
    }


def over_seeds(measured: Sequence[Measured]) -> dict[str, Figure]:
    """The mean over models that differ by their seed alone, and the interval of that mean (Student's t)."""
    return {name: mean_over_seeds([_value(one, name) for one in measured]) for name in measured[0].names}


def mean_over_seeds(values: Sequence[float]) -> Figure:
    """The mean of two values or more, and its interval (Student's t); without an answer where one of them has none."""
    found = np.array(values)
    if np.isnan(found).any():
        return Figure(None)
    mean, spread = float(found.mean()), float(found.std(ddof=1) / np.sqrt(len(found)))
    reach = _student(len(found) - 1) * spread
    return Figure(mean, mean - reach, mean + reach)


def _value(measured: Measured, name: str) -> float:
    if name in measured.coverage:
        return measured.coverage[name]
    return float(measured.finish[name](measured.parts[name].sum(axis=0)))


def _student(freedom: int) -> float:
    """The 97.5 % point of Student's t: exact for 1 to 4, Cornish and Fisher's expansion beyond (within 0.002)."""
    if freedom <= 4:
        return (12.7062, 4.3027, 3.1824, 2.7764)[freedom - 1]
    z = 1.959964
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


# --- parts ----------------------------------------------------------------------------------------------------------------


def _of_block(metric: Metric, block: Ranked, known: Known, catalogue: Catalogue | None) -> Values:
    """(b,) NaN for users who are not asked for."""
    if metric.kind in OF_LISTS:
        assert catalogue is not None, "These metrics need to know the items."
        return OF_LISTS[metric.kind](block.lists[:, : metric.k], known, catalogue)
    asked = block.total > 0
    if metric.kind == "auc":
        return block.auc
    if metric.kind == "mrr" and metric.k is None:
        return np.where(asked, 1 / block.first_hit, np.nan)
    if metric.kind == "visible":
        found = np.mean([metrics.precision_at(block.relevance, k) for k in VISIBLE], axis=0)
        return np.where(asked, found, np.nan)
    assert metric.k is not None, "Only these look at everything."
    total = None if block.complete else block.total
    return np.where(asked, OF_RELEVANCE[metric.kind](block.relevance, metric.k, total), np.nan)


def _mean_parts(values: Values) -> Values:
    known = ~np.isnan(values)
    return np.stack((np.where(known, values, 0), known), axis=1)


def _judged_auc(questions: Questions, scores: Values) -> Values:
    known = ~np.isnan(scores)
    judged = questions.judged
    return metrics.auc_of_each(judged.value[known], scores[known], judged.row[known], len(questions))


def _of_labels(
    kind: str, questions: Questions, scores: Values, expected: float | None, unit: float
) -> tuple[Values, Finish]:
    judged, n = questions.judged, len(questions)
    if expected is None:
        return np.zeros((n, 2)), mean_of
    guesses = np.where(np.isnan(scores), expected, scores)
    count = np.bincount(judged.row, minlength=n)
    if kind == "calibration":
        cell = metrics.calibration_bins(guesses, BINS)
        gaps = np.bincount(judged.row * BINS + cell, judged.value - guesses, n * BINS).reshape(n, BINS)
        return np.column_stack((gaps, count)), _calibration
    if kind == "log-loss":
        losses = metrics.log_losses(judged.value, guesses)
        return np.column_stack((np.bincount(judged.row, losses, n), count)), mean_of
    errors = metrics.squared_errors(judged.value, guesses) * unit**2
    return np.column_stack((np.bincount(judged.row, errors, n), count)), _root


def _root(sums: Values) -> Values:
    return np.asarray(np.sqrt(mean_of(sums)))


def _calibration(sums: Values) -> Values:
    return mean_of(np.stack((np.abs(sums[..., :-1]).sum(axis=-1), sums[..., -1]), axis=-1))


def named(figures: Mapping[str, Figure]) -> dict[str, dict[str, float | None]]:
    """Figures as the command line answers."""
    return {name: figure.to_json() for name, figure in figures.items()}
