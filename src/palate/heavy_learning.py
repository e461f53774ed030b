"""Learning the heavy ranker from impressions, and whether it is good enough to be served.

It is tried on impressions later than all that it learns from, against the order by the plain score; then it learns those too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate import feature_log, metrics
from palate.feature_log import JOINS, NAMES, POSITION, SCORE
from palate.impressions import Impressions
from palate.models import calibration, trees
from palate.models.calibration import Calibration
from palate.models.trees import TreeParams, Trees

Values = NDArray[np.float64]

Join = Literal["model", "item", "text", "counters", "history", "found"]
"""Columns that can be switched off together: keys of `feature_log.JOINS`."""

K = 10
"""Length of the lists that are measured."""

PLACES = 50
"""Places that are told apart; what stands further down is looked at as seldom as the last of them."""

RAREST = 0.1
"""The least chance of being looked at that is reckoned with: rarer ones would let few impressions decide."""

LEAST_DEPTH = 2
"""Questions of a tree of very few positives."""

LOOKED_AT = 2_000
"""Impressions by which it is told how the place counts."""

SUREST = 6.0
"""Log-odds beyond which the plain score counts as no surer."""

GAINS = {
    "opened": 1.0,
    "watch": 1.0,
    "rating": 1.0,
    "like": 2.0,
    "save": 2.0,
    "share": 3.0,
    "comment": 3.0,
    "dislike": -2.0,
    "hide": -2.0,
}


class HeavyParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The heavy ranker: trees over what is known of a person, an item and both, learned from what was shown and what came of it.
    It needs the extra `palate[ranker]`."""

    enabled: bool = True
    """Whether features are logged with what is shown, and a ranker is learned from them and served."""
    gains: dict[str, float] = msgspec.field(default_factory=lambda: dict(GAINS))
    """What each type of event is worth that follows an impression; below 0 for what speaks against it. An impression is a
    positive when their sum is above 0, and counts by how far it is from 0. `watch` counts by its value."""
    answer_minutes: Annotated[float, msgspec.Meta(gt=0)] = 60.0
    """What a person does so long after an impression still counts for it; younger impressions are not learned from yet."""
    min_impressions: Annotated[int, msgspec.Meta(ge=100)] = 2_000
    """With fewer nothing is learned."""
    min_positives: Annotated[int, msgspec.Meta(ge=10)] = 200
    """With fewer of them positive nothing is learned."""
    plenty: Annotated[int, msgspec.Meta(ge=1)] = 5_000
    """With fewer positives than this the trees are plainer than `heavy.trees` says: with half as many each asks one question
    less and is held twice as strongly, and so on. Else a few thousand impressions would be learned by heart. The fewer they
    are the more the order leans on the plain score besides: on half of what that alone tells when they are as many as this."""
    max_impressions: Annotated[int, msgspec.Meta(ge=1_000)] = 300_000
    """The newest are learned from."""
    test_share: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.2
    """Part of them, the newest, on which it is tried before it learns them."""
    doubt: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    """By how many of its standard errors its gain in nDCG over the plain score must be above 0."""
    every_minutes: Annotated[float, msgspec.Meta(ge=0)] = 60.0
    """After so long a cycle learns it anew; in between snapshots keep the last one."""
    without: tuple[Join, ...] = ()
    """Columns that it isn't told, to see what they are worth."""
    trees: TreeParams = TreeParams()
    """How the trees are fitted."""


@dataclass(frozen=True)
class Lean:
    """By how much an order leans on the plain score besides all that trees say.

    A page is made of the few items of thousands of which most is said, hence of those about which the trees err most in their
    favour, and they have learned only from what the plain score let be shown: a second opinion keeps away what they overrate.
    """

    slope: float
    """Log-odds for each of the plain score's."""
    middle: float
    """The plain score at which nothing is added."""

    def __call__(self, features: NDArray[np.float32]) -> Values:
        """(n,) what is added for the rows of (n, F); nothing where the plain score isn't known."""
        return self.slope * np.nan_to_num(_told_score(features) - self.middle)


UPRIGHT = Lean(0.0, 0.0)
"""Nothing is added."""


def _told_score(features: NDArray[np.float32]) -> Values:
    """(n,) the plain score; NaN where it isn't known."""
    found: Values = np.clip(features[:, SCORE].astype(np.float64), -SUREST, SUREST)
    return found


@dataclass(frozen=True, eq=False)
class Ranker:
    """What orders."""

    trees: Trees
    lean: Lean


@dataclass(frozen=True, eq=False)
class Heavy:
    """A ranker, and how it did."""

    ranker: Ranker
    calibration: Calibration
    quality: Mapping[str, Any]
    """What the header of a snapshot says."""


@dataclass(frozen=True, eq=False)
class Tried:
    """A ranker that knows the older part, and what it says of the newer one."""

    ranker: Ranker
    calibration: Calibration
    late: Impressions
    raw: Values
    """(late,) of the ranker, all at the first place."""
    raw_in_place: Values
    """(late,) of the ranker, each where it stood."""
    plain: Values
    """(late,) the plain score, in log-odds."""
    plain_calibration: Calibration


def too_few(found: Impressions, params: HeavyParams) -> str | None:
    """Why nothing can be learned yet; None when something can."""
    positives = int((found.gain > 0).sum())
    if len(found) < params.min_impressions or positives < params.min_positives:
        return f"{len(found)} impressions with {positives} positives are too few"
    old = _in_time(found, params.test_share)[0].gain > 0
    return "the older impressions are all of one kind" if old.all() or not old.any() else None


def learn(found: Impressions, params: HeavyParams, seed: int) -> Heavy:
    """The ranker of all impressions, with what came out when it knew the older ones alone; `quality["served"]` says whether it
    may be served. The same arguments give the same bytes."""
    tried = trial(found, params, seed)
    quality = judged(tried, params)
    whole = fitted(found, params, seed)
    return Heavy(whole, tried.calibration, quality | {"importances": _importances(whole.trees)})


def trial(found: Impressions, params: HeavyParams, seed: int) -> Tried:
    """Learn the older impressions, calibrate on later ones, and judge what is later still."""
    old, middle, late = _in_time(found, params.test_share)
    model = fitted(old, params, seed)
    of_middle, of_late = (_raw(model, _in_place(part, params.without)) for part in (middle, late))
    return Tried(
        ranker=model,
        calibration=calibration.fit(of_middle, middle.gain > 0),
        late=late,
        raw=raw(model, late.features, params.without),
        raw_in_place=of_late,
        plain=_plain(late),
        plain_calibration=calibration.fit(_plain(middle), middle.gain > 0),
    )


def _in_time(found: Impressions, share: float) -> tuple[Impressions, Impressions, Impressions]:
    """Those to learn from, those to calibrate on and those to judge by, one after the other."""
    order = np.lexsort((found.position, found.request, found.time))
    old, middle, late = (found.rows(part) for part in np.split(order, _cuts(found.time[order], share)))
    return old, middle, late


def _cuts(times: NDArray[np.int64], share: float) -> tuple[int, int]:
    """Where the calibration begins and where the test does; never within one moment, so that no answer is cut."""
    wanted = (round(len(times) * (1 - share) * 0.875), round(len(times) * (1 - share)))
    first, second = (int(np.searchsorted(times, times[min(place, len(times) - 1)])) for place in wanted)
    return first, second


def raw(model: Ranker, features: NDArray[np.float32], without: Collection[str] = ()) -> Values:
    """(n,) what the ranker says of these rows as if each stood at the first place."""
    return _raw(model, at_place(told(features, without), 0))


def _raw(model: Ranker, features: NDArray[np.float32]) -> Values:
    return model.trees.raw(features) + model.lean(features)


def contributions(model: Ranker, features: NDArray[np.float32], without: Collection[str] = ()) -> Values:
    """(n, F) what each column adds to what `raw` says."""
    asked = at_place(told(features, without), 0)
    found = model.trees.contributions(asked)
    found[:, SCORE] += model.lean(asked)
    return found


def at_place(features: NDArray[np.float32], place: int) -> NDArray[np.float32]:
    """The same rows, all at this place."""
    moved = features.copy()
    moved[:, POSITION] = place
    return moved


def told(features: NDArray[np.float32], without: Collection[str]) -> NDArray[np.float32]:
    """The features without these joins' columns."""
    if not without:
        return features
    kept = features.copy()
    for join in without:
        kept[:, feature_log.columns(JOINS[join])] = np.nan
    return kept


def fitted(part: Impressions, params: HeavyParams, seed: int) -> Ranker:
    """The ranker of these impressions.

    The place is a column, so that what it alone explains isn't put down to the items that stood there; whoever serves asks
    about one and the same place (Ling et al., "Model Ensemble for Click Prediction in Bing Search Ads", 2017).
    """
    labels = (part.gain > 0).astype(np.float32)
    weights = np.where(part.gain != 0, np.abs(part.gain), 1).astype(np.float32)
    plain = _plainer(params.trees, int(labels.sum()), params.plenty)
    features = _in_place(part, params.without)
    return Ranker(trees.fit(features, labels, weights, plain, seed), _lean(features, labels, params.plenty))


def _lean(features: NDArray[np.float32], labels: NDArray[np.float32], plenty: int) -> Lean:
    """As far as the plain score alone tells of the labels; half of it where the positives are plenty, less and less beyond."""
    score = _told_score(features)
    known = ~np.isnan(score)
    if not known.any():
        return UPRIGHT
    trust = plenty / (plenty + float(labels.sum()))
    return Lean(trust * calibration.slope(score[known], labels[known]), float(score[known].mean()))


def _plainer(asked: TreeParams, positives: int, plenty: int) -> TreeParams:
    """Trees for so few positives: each time these halve, one question less, and each answer held twice as strongly."""
    scarcity = max(1.0, plenty / max(positives, 1))
    depth = max(asked.depth - int(np.ceil(np.log2(scarcity))), min(asked.depth, LEAST_DEPTH))
    return msgspec.structs.replace(asked, depth=depth, l2=asked.l2 * scarcity)


def _in_place(part: Impressions, without: Collection[str]) -> NDArray[np.float32]:
    """The features, each impression's at the place where it stood."""
    features = told(part.features, without).copy()
    features[:, POSITION] = np.minimum(part.position, PLACES)
    return features


def _plain(part: Impressions) -> Values:
    """The plain score; where it isn't known, below all others."""
    return np.nan_to_num(part.features[:, SCORE].astype(np.float64), nan=-30.0)


def _importances(model: Trees) -> dict[str, float]:
    """By name, the largest first; columns that say nothing are left out."""
    found = model.importances()
    return {NAMES[row]: round(float(found[row]), 3) for row in np.argsort(-found, kind="stable") if found[row] > 0}


# --- the test -------------------------------------------------------------------------------------------------------------


def judged(tried: Tried, params: HeavyParams) -> dict[str, Any]:
    """What the header says of the test, and whether the ranker may be served: it orders later answers better than the plain
    score by more than chance, and its probabilities are nearer to the truth."""
    late, positive = tried.late, (tried.late.gain > 0).astype(np.float64)
    looked = propensities(tried.ranker.trees, late, params.without)
    own, plain = (ndcg(late, scores, looked) for scores in (tried.raw, tried.plain))
    gain, error = _mean_and_error(own - plain, people(late))
    said, plainly = tried.calibration(tried.raw_in_place), tried.plain_calibration(tried.plain)
    losses = [metrics.log_loss(positive, probabilities) for probabilities in (said, plainly)]
    return {
        "served": bool(gain > params.doubt * error and losses[0] < losses[1]),
        "impressions": len(late),
        "positives": int(positive.sum()),
        "lists": len(own),
        "ndcg": float(own.mean()) if len(own) else None,
        "plain_ndcg": float(plain.mean()) if len(plain) else None,
        "gain_error": error,
        "loss": losses[0],
        "plain_loss": losses[1],
        "calibration_error": metrics.calibration_error(positive, said),
    }


def propensities(model: Trees, part: Impressions, without: Collection[str]) -> Values:
    """(n,) how much likelier a positive is at the first place than at that of each impression: the mean of what the trees say of
    some of them, put at every place in turn."""
    some = part.features[np.linspace(0, len(part) - 1, min(len(part), LOOKED_AT)).astype(np.int64)]
    some = told(some, without)
    means = np.array([_probability(model.raw(at_place(some, place))).mean() for place in range(PLACES + 1)])
    falling = np.minimum.accumulate(means / max(means[0], 1e-9))
    return np.maximum(falling, RAREST)[np.minimum(part.position, PLACES)]


def _probability(log_odds: Values) -> Values:
    return 1 / (1 + np.exp(-log_odds))


def ndcg(part: Impressions, scores: Values, looked: Values, k: int = K) -> Values:
    """(lists,) DCG@k of the answers in which something was a positive and something wasn't, their items put in the order of the
    scores, over the mean of the best there is; of equal scores chance decides: the log keeps few digits.

    A gain counts by one over the chance `looked` (n,) that its place was looked at (Joachims, Swaminathan and Schnabel, "Unbiased
    Learning-to-Rank with Biased Feedback", WSDM 2017): divided by each list's own best, those chances would cancel where one item
    is positive.
    """
    gains = np.maximum(part.gain, 0) / looked
    own, best = (dcg(part.request, order, gains, k)[_mixed(part)] for order in (scores, gains))
    return own / (best.mean() if len(best) else 1.0)


def _mixed(part: Impressions) -> NDArray[np.bool_]:
    """(requests,) whose items were neither all positive nor none."""
    count, positive = np.bincount(part.request), np.bincount(part.request, part.gain > 0)
    mask: NDArray[np.bool_] = (positive > 0) & (positive < count)
    return mask


def people(part: Impressions) -> NDArray[np.int64]:
    """(lists,) whose each list of `ndcg` is."""
    users = np.zeros(int(part.request.max(initial=-1)) + 1, np.int64)
    users[part.request] = part.user
    return users[_mixed(part)]


def dcg(request: NDArray[np.int64], scores: Values, gains: Values, k: int) -> Values:
    """(requests,) the discounted gains of the first k of each answer, its items in the order of the scores."""
    chance = np.random.default_rng(0).random(len(scores))
    order = np.lexsort((chance, -scores, request))
    starts = np.searchsorted(request[order], request[order])
    place = np.arange(len(order)) - starts
    discounted = np.where(place < k, gains[order] / np.log2(place + 2), 0)
    return np.bincount(request[order], discounted).astype(np.float64)


def _mean_and_error(differences: Values, people: NDArray[np.int64]) -> tuple[float, float]:
    """Their mean and its standard error; the lists of one person err together."""
    if not len(differences):
        return 0.0, 0.0
    mean = float(differences.mean())
    by_person = np.bincount(np.unique(people, return_inverse=True)[1], differences - mean)
    return mean, float(np.sqrt(np.square(by_person).sum())) / len(differences)
