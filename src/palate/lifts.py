"""How much better one group of people did than another, in figures that are one sum over another, at any number of looks.

The person is the unit: what one person does is one observation, however many events it is. Variances of ratios are those of the
delta method (Deng, Knoblich and Lu, "Applying the Delta Method in Metric Analytics", KDD 2018). Intervals hold at all looks
together: they are confidence sequences by the mixture of Robbins ("Statistical Methods Related to the Law of the Iterated
Logarithm", 1970), as in Johari, Koomen, Pekelis and Walsh, "Always Valid Inference" (Operations Research 2022), whose test is the
mixture sequential probability ratio test; for variances that are estimated: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas,
"Time-uniform central limit theory and asymptotic confidence sequences" (Annals of Statistics 2024).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]

FEWEST = 100
"""People in a group below which nothing is said of it: the normal law holds for means of many alone."""

MOMENTS = 6
"""Numbers that say all of a group: people, Σx, Σy, Σx², Σy², Σxy of the numerators x and denominators y of its people."""

CONCENTRATION = 1000.0
"""How near to the wanted shares the mixture of the sample-ratio test lies, in people: deviations of about 1.5 % at two halves."""


@dataclass(frozen=True, eq=False)
class Lift:
    """A group against the control, elementwise over whatever was compared; NaN where nothing can be told."""

    relative: Values
    """Figure over the control's, less 1."""
    low: Values
    high: Values
    absolute: Values
    """Figure less the control's."""
    absolute_low: Values
    absolute_high: Values
    p: Values
    """Always-valid: the chance, were there no difference, that it is ever so small at any look is at most that."""


def moments(numerators: ArrayLike, denominators: ArrayLike) -> Values:
    """(…, 6) what a group is, of (…, people) numerators and denominators: see MOMENTS."""
    x, y = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    x, y = np.broadcast_arrays(x, y)
    people = np.full(x.shape[:-1], float(x.shape[-1]))
    parts = (x.sum(-1), y.sum(-1), (x * x).sum(-1), (y * y).sum(-1), (x * y).sum(-1))
    return np.stack([people, *parts], axis=-1)


def ratio(group: ArrayLike) -> Values:
    """Σx / Σy of moments (…, 6); NaN where the denominator is 0."""
    m = np.asarray(group, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(m[..., 2] > 0, m[..., 1] / m[..., 2], np.nan)


def spread(group: ArrayLike) -> Values:
    """Variance of one person's part in the logarithm of the ratio: over the number of people it is the variance of that
    logarithm. NaN for fewer than two people, or a sum of 0.
    """
    n, sx, sy, sxx, syy, sxy = np.moveaxis(np.asarray(group, np.float64), -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        x, y = sx / n, sy / n
        squares = sxx / (x * x) - 2 * sxy / (x * y) + syy / (y * y)
        found = np.maximum(squares, 0) / (n - 1)
        return np.where((n > 1) & (sx > 0) & (sy > 0), found, np.nan)


def compare(control: ArrayLike, group: ArrayLike, wanted: float, level: float = 0.95) -> Lift:
    """The lift of moments (…, 6) over the control's, with intervals that hold with probability `level` at all looks together.

    `wanted` is the relative lift (0.05 for 5 %) for which the intervals are made narrow; it has to be chosen before the
    first look. Nothing is said of groups of fewer than FEWEST people.
    """
    c, g = np.asarray(control, np.float64), np.asarray(group, np.float64)
    variance = spread(c) / c[..., 0] + spread(g) / g[..., 0]
    enough = (c[..., 0] >= FEWEST) & (g[..., 0] >= FEWEST)
    variance = np.where(enough & (variance > 0), variance, np.nan)
    base, value = ratio(c), ratio(g)
    with np.errstate(invalid="ignore", divide="ignore"):
        shift, scale = np.log(value / base), prior(wanted, level)
        half = half_width(variance, scale, level)
        deviation = np.sqrt(_variance_of(c, base) + _variance_of(g, value))
        # of the same looks, so that both intervals agree on whether 0 is in them as far as logarithms let them
        wide = half / np.sqrt(variance) * deviation
    return Lift(
        relative=np.where(np.isnan(variance), np.nan, np.exp(shift) - 1),
        low=np.exp(shift - half) - 1,
        high=np.exp(shift + half) - 1,
        absolute=np.where(np.isnan(variance), np.nan, value - base),
        absolute_low=value - base - wide,
        absolute_high=value - base + wide,
        p=_p_value(shift, variance, scale),
    )


def _variance_of(group: Values, value: Values) -> Values:
    """Of the ratio itself."""
    return np.asarray(spread(group) / group[..., 0] * value * value)


def half_width(variance: ArrayLike, scale: float, level: float) -> Values:
    """Of the interval around an estimate of this variance: the mixture over normal effects of standard deviation `scale`."""
    v = np.asarray(variance, np.float64)
    odds = scale * scale / v
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.sqrt(v * (1 + odds) / odds * (2 * math.log(1 / (1 - level)) + np.log1p(odds))))


def _p_value(shift: Values, variance: Values, scale: float) -> Values:
    """One over the likelihood ratio of the mixture against no difference, at most 1."""
    odds = scale * scale / variance
    with np.errstate(over="ignore", invalid="ignore"):
        exponent = 0.5 * (shift * shift / variance) * odds / (1 + odds)
        return np.asarray(np.minimum(1.0, np.sqrt(1 + odds) * np.exp(-exponent)))


def prior(wanted: float, level: float = 0.95, power: float = 0.8) -> float:
    """Standard deviation of the mixture that makes the interval narrowest when a lift of `wanted` is found with this power.

    The narrowest interval at information I has scale² · I = −W₋₁(−α²/e) − 1, here by its expansion (Waudby-Smith et al., B.2).
    """
    alpha = 1 - level
    odds = -2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)
    bound = math.sqrt((1 + odds) / odds * (-2 * math.log(alpha) + math.log1p(odds)))
    information = ((bound + NormalDist().inv_cdf(power)) / math.log1p(wanted)) ** 2
    return math.sqrt(odds / information)


@lru_cache
def needed_information(lift: float, wanted: float, level: float = 0.95, power: float = 0.8) -> float:
    """One over the variance of the log ratio at which a true relative `lift` is found with this power.

    Counted is the look at that moment alone: what an earlier one finds comes on top, so that it is a little more than needed.
    """
    scale, effect, quantile = prior(wanted, level, power), abs(math.log1p(lift)), NormalDist().inv_cdf(power)
    assert effect > 0, "No difference is never found."

    def found(information: float) -> bool:
        half = float(half_width(1 / information, scale, level))
        return (effect - half) * math.sqrt(information) >= quantile

    low, high = 1.0, 2.0
    while not found(high):
        low, high = high, 2 * high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if found(middle) else (middle, high)
    return high


def needed_people(
    control: ArrayLike,
    lift: float,
    wanted: float,
    shares: tuple[float, float],
    level: float = 0.95,
    power: float = 0.8,
) -> float:
    """People in the whole experiment after which a true relative `lift` is found with this power.

    `control` is what was seen so far of the control: its people are taken to have been observed for as long as those to come
    will be. `shares` are the control's and the variant's parts of all people. NaN while the control says nothing.
    """
    one = float(spread(control))
    if math.isnan(one) or one <= 0:
        return float("nan")
    return needed_information(lift, wanted, level, power) * one * (1 / shares[0] + 1 / shares[1])


def sample_ratio(counts: ArrayLike, shares: ArrayLike) -> float:
    """Always-valid p-value of people (variants) being split by these shares, whatever number of looks.

    One over the likelihood of a Dirichlet mixture around the shares against the shares themselves: Lindon and Malek,
    "Anytime-Valid Inference for Multinomial Count Data" (NeurIPS 2022). 1 for nobody.
    """
    n, rho = np.asarray(counts, np.float64), np.asarray(shares, np.float64)
    rho = rho / rho.sum()
    alpha = CONCENTRATION * rho
    logs = math.lgamma(CONCENTRATION) - math.lgamma(CONCENTRATION + float(n.sum()))
    logs += sum(math.lgamma(a + k) - math.lgamma(a) for a, k in zip(alpha.tolist(), n.tolist(), strict=True))
    logs -= float(n @ np.log(rho))
    return math.exp(min(0.0, -logs))
