"""Means with their intervals, over images, and tests over units: plain functions on tensors.

Images are what varies from one repetition of a study to the next, so they are what the bootstrap draws; whatever else
was measured on an image (methods, fills, classes) comes along. Comparisons are therefore paired: take the differences
image by image, and give those to `bootstrap_means`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from whyfooled.errors import ParameterError, at_least

RESAMPLES = 5000
"""How many samples a bootstrap draws. [ours]"""

FEWEST = 10
"""Images under which nothing is said about a mean: of 5, 15 % of percentile intervals miss the true one. [ours]"""

NARROW = 20
"""Images under which percentile intervals of means are a little too narrow, which is said beside them. [ours]"""

FLIPS = 10_000
"""How many signs a test of paired differences draws: enough for p below 0.05 among 400 comparisons. [ours]"""

_Z = 1.959963984540054
"""The standard normal quantile of 97.5 %."""

Side = Literal["above", "below", "open"]

_AT_ONCE = 400_000
"""How many drawn images are held in memory together."""


@final
@dataclass(frozen=True)
class Interval:
    """A mean, and the interval that holds the middle 95 % of its bootstrap distribution.

    Parameters
    ----------
    mean
        The mean; NaN if there was nothing to take it of.
    low, high
        The ends of the interval (percentiles 2.5 and 97.5); NaN where there are fewer than two values.
    count
        Of how many images.
    """

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return self.format()

    def side(self, of: float = 0.0) -> Side:
        """Say on which side of a number the whole interval lies: ``"above"``, ``"below"``, or ``"open"`` for neither.

        It is open where there is no interval, as of a single value.
        """
        return "above" if self.low > of else "below" if self.high < of else "open"

    def exp(self) -> Interval:
        """Turn a mean of logarithms into a geometric mean, with its interval."""
        return Interval(math.exp(self.mean), math.exp(self.low), math.exp(self.high), self.count)

    def widen(self, reach: float) -> Interval:
        """Add an independent uncertainty, of which `reach` is half the interval."""
        low, high = math.hypot(self.mean - self.low, reach), math.hypot(self.high - self.mean, reach)
        return Interval(self.mean, self.mean - low, self.mean + high, self.count)

    def format(self, digits: int = 3, sign: bool = False) -> str:
        """Write it as ``0.726 [0.652, 0.800]``; as ``–`` if there is nothing."""
        if self.count == 0:
            return "–"
        mean, low, high = (_written(value, digits, sign) for value in (self.mean, self.low, self.high))
        return mean if self.count == 1 else f"{mean} [{low}, {high}]"


def _written(value: float, digits: int, sign: bool) -> str:
    # Adding 0 turns the −0 that rounding leaves into 0.
    return f"{round(value, digits) + 0.0:{'+' if sign else ''}.{digits}f}"


def bootstrap_means(
    values: Float[Tensor, "n m"], *, seed: int = 0, resamples: int = RESAMPLES, differences: bool = False
) -> list[Interval]:
    """Take the mean of each column over the images, with a 95 % interval: the percentile bootstrap's (Efron 1979).

    A column of zeros and ones is a proportion, and has Wilson's score interval (1927): the bootstrap's has no width at
    all for 10 of 10, and misses a true .9 in a quarter of samples of 12. For the same reason differences of such
    columns, of −1, 0 and 1, have the interval of Agresti & Min (2005), which adds half an image to each outcome.

    Parameters
    ----------
    values
        (n,m): m measurements of each of n images; NaN where there is none.
    seed
        Seed of the resampling. The same images are drawn for every column.
    resamples
        How many samples of n images are drawn.
    differences
        Whether the columns are differences, image by image.

    Returns
    -------
    list of Interval
        One for each column.
    """
    at_least("resamples", resamples, 1)
    values = values.double().cpu()
    counts = (~values.isnan()).sum(0).tolist()
    means = values.nanmean(0).tolist()
    drawn = _resampled_means(values, resamples, seed)
    outcomes = _signs_interval if differences else _share_interval
    return [
        outcomes(column[~column.isnan()]) or _interval(mean, draws, count)
        for column, mean, draws, count in zip(values.T, means, drawn.T, counts, strict=True)
    ]


def bootstrap_difference(values: Float[Tensor, "n 2"], *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Take the mean of the first column minus that of the second, with its interval; either may miss on an image.

    Images that are in both columns are drawn for both, so what they have in common cancels. Where no image misses, this
    is the mean of the paired differences.
    """
    (first, second), drawn, count = _resample_pair(values, resamples, seed)
    return _interval(first - second, drawn[:, 0] - drawn[:, 1], count)


def bootstrap_ratio(values: Float[Tensor, "n 2"], *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Take the mean of the first column over that of the second, with its interval; as `bootstrap_difference`.

    It is the ratio of the means, not the mean of the ratios, which a few small denominators would decide.
    """
    (first, second), drawn, count = _resample_pair(values, resamples, seed)
    return _interval(first / second if second else float("nan"), drawn[:, 0] / drawn[:, 1], count)


def _resample_pair(values: Tensor, resamples: int, seed: int) -> tuple[list[float], Tensor, int]:
    """Return the means of two columns, (r,2) those of samples of the images, and of how many images the rarer has."""
    at_least("resamples", resamples, 1)
    values = values.double().cpu()
    count = int((~values.isnan()).sum(0).min()) if len(values) else 0
    return values.nanmean(0).tolist(), _resampled_means(values, resamples, seed), count


def bootstrap(
    statistic: Callable[[Tensor], Tensor], images: int, *, seed: int = 0, resamples: int = RESAMPLES, width: int = 1
) -> list[Interval]:
    """Take numbers that are any function of the images, such as a rank correlation over units, with their intervals.

    Such a number may be biased: drawing images adds noise, which pulls a correlation of rankings towards 0, and the
    draws lie on one side of it. So the interval is the basic one, the draws' percentiles mirrored at the number
    (Davison & Hinkley 1997, sec. 5.2.1), which leans to the other side; it is not cut off at bounds of the number.

    Parameters
    ----------
    statistic
        Given (r,n) how often each image counts in each of r samples, returns (r,m) the numbers of each; NaN where
        there is none.
    images
        How many images there are, n.
    seed
        Seed of the resampling.
    resamples
        How many samples of n images are drawn.
    width
        How many values the statistic holds in memory for each sample.

    Returns
    -------
    list of Interval
        For each of the m numbers, what it is where every image counts once, with its 95 % interval.
    """
    at_least("resamples", resamples, 1)
    numbers = statistic(torch.ones(1, images, dtype=torch.float64))[0].tolist()
    drawn = torch.cat([statistic(weights) for weights in _draws(images, resamples, seed, width)])
    return [
        _interval(value, 2 * value - column, images if value == value else 0)
        for value, column in zip(numbers, drawn.T, strict=True)
    ]


def _resampled_means(values: Tensor, resamples: int, seed: int) -> Tensor:
    """Return (r,m) the means of samples of the images; NaN where a sample has no value of a column."""
    there, zeros = (~values.isnan()).double(), values.nan_to_num(0)
    return torch.cat([(weights @ zeros) / (weights @ there) for weights in _draws(len(values), resamples, seed)])


def _share_interval(values: Tensor) -> Interval | None:
    """Return Wilson's interval of a share; None unless there are several values, all 0 or 1."""
    count = len(values)
    if count < 2 or not bool(((values == 0) | (values == 1)).all()):
        return None
    share = float(values.mean())
    centre, reach = share + _Z**2 / (2 * count), _Z * math.sqrt(share * (1 - share) / count + (_Z / (2 * count)) ** 2)
    scale = 1 + _Z**2 / count
    # At 0 and 1 rounding may put the share a digit outside.
    return Interval(share, min(share, max(0.0, (centre - reach) / scale)), max(share, (centre + reach) / scale), count)


def _signs_interval(values: Tensor) -> Interval | None:
    """Return the interval of the mean of several values that are all −1, 0 or 1 (Agresti & Min 2005); else None."""
    count = len(values)
    if count < 2 or not bool(((values == 0) | (values.abs() == 1)).all()):
        return None
    gained, lost = (float((values == sign).sum()) + 0.5 for sign in (1, -1))
    centre = (gained - lost) / (count + 2)
    reach = _Z * math.sqrt((gained + lost) / (count + 2) - centre**2) / math.sqrt(count + 2)
    mean = float(values.mean())
    return Interval(mean, max(-1.0, min(mean, centre - reach)), min(1.0, max(mean, centre + reach)), count)


def _interval(mean: float, drawn: Tensor, count: int) -> Interval:
    if count < 2:
        return Interval(mean, float("nan"), float("nan"), count)
    low, high = drawn.nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    # Of equal values rounding may put the mean a digit outside.
    return Interval(mean, min(low, mean), max(high, mean), count)


def auroc(scores: Float[Tensor, " n"], positive: Bool[Tensor, " n"]) -> Interval:
    """Return how often a positive image scores higher than a negative one, ties counting half; 0.5 is chance.

    The area under the receiver operating characteristic (Mann-Whitney), with the 95 % interval of its logit by DeLong
    et al. (1988), with Welch's degrees of freedom, or, where all images of a kind fare the same, as where both kinds
    are perfectly apart, that of Newcombe (2006, method 5). Its `count` is that of the rarer kind; NaN without both.
    """
    if scores.shape != positive.shape:
        raise ParameterError(f"`positive` must have the shape {tuple(scores.shape)}; got {tuple(positive.shape)}.")
    ours, theirs = scores[positive].double(), scores[~positive].double()
    count = min(len(ours), len(theirs))
    # How each image fares against all of the other kind: placements.
    above, below = _shares_below(ours, theirs), 1 - _shares_below(theirs, ours)
    mean = float(above.mean())
    if count < 2:
        return Interval(mean if count else float("nan"), float("nan"), float("nan"), count)
    parts = [float(placements.var()) / len(placements) for placements in (above, below)]
    if not 0 < mean < 1 or sum(parts) == 0:
        return Interval(mean, *_newcombe(mean, len(ours), len(theirs)), count)
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (len(ours) - 1) + parts[1] ** 2 / (len(theirs) - 1))
    logit, reach = math.log(mean / (1 - mean)), student_quantile(freedom) * math.sqrt(sum(parts)) / (mean * (1 - mean))
    low, high = (1 / (1 + math.exp(-end)) for end in (logit - reach, logit + reach))
    return Interval(mean, low, high, count)


def draw_bounds(draws: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """Return under which number one more random draw lies in 95 % of cases, for each row of k draws, at least 2.

    Of draws that are normally distributed around any mean, with any spread: their mean, and Student's quantile of 95 %
    (of k − 1 degrees of freedom) times their standard deviation times ``√(1 + 1/k)``.
    """
    from scipy.stats import t as student

    count = draws.shape[1]
    reach = float(student.ppf(0.95, count - 1)) * math.sqrt(1 + 1 / count)
    return draws.mean(1) + reach * draws.std(1)


def student_quantile(freedom: float) -> float:
    """Return Student's quantile of 97.5 %, for any number of degrees of freedom."""
    from scipy.special import stdtrit  # takes long to import

    return float(stdtrit(freedom, 0.975))


@final
@dataclass(frozen=True)
class RandomDraws:
    """What a mean is under several random draws, such as directions: another draw would give another one.

    Parameters
    ----------
    means
        The k means, at least two.
    """

    means: tuple[float, ...]

    @property
    def error(self) -> float:
        """How far another draw's mean lies from the mean of these, in the standard deviation."""
        count = len(self.means)
        return float(torch.tensor(self.means, dtype=torch.float64).std()) * math.sqrt(1 + 1 / count)

    @property
    def reach(self) -> float:
        """Half of the interval that another draw's mean lies in, less the mean of these, in 95 % of cases."""
        return student_quantile(len(self.means) - 1) * self.error

    def p_value(self, difference: float) -> float:
        """Return how often another draw lies as far from the mean of these (Student's t)."""
        from scipy.special import stdtr  # takes long to import

        if difference == 0 or math.isnan(difference):
            return 1.0
        return 2 * float(stdtr(len(self.means) - 1, -abs(difference) / self.error)) if self.error else 0.0


def _newcombe(area: float, positive: int, negative: int) -> tuple[float, float]:
    """Return the ends of the areas that an area of so many images does not contradict (Newcombe 2006, method 5)."""

    def contradicts(true: float) -> bool:
        more = ((positive + negative) / 2 - 1) * ((1 - true) / (2 - true) + true / (1 + true))
        return (area - true) ** 2 > _Z**2 * true * (1 - true) * (1 + more) / (positive * negative)

    ends = []
    for outer in (0.0, 1.0):
        inner = area
        for _ in range(60):
            middle = (outer + inner) / 2
            outer, inner = (middle, inner) if contradicts(middle) else (outer, middle)
        ends.append(inner)
    return ends[0], ends[1]


def variance_explained(values: Float[Tensor, "n k"]) -> float:
    """Return which share of the variance within images their k conditions explain, from 0 to 1.

    Partial eta squared of an analysis of variance with repeated measures: the sum of squares between the conditions,
    over that and the residual one, once each image's own mean is taken off. Of n images it is 1/n by chance. Images
    that miss a value (NaN) do not count; NaN where nothing varies within images, or there are fewer than two of them.
    """
    whole = values.double().cpu()
    whole = whole[~whole.isnan().any(1)]
    if len(whole) < 2:
        return float("nan")
    within = whole - whole.mean(1, keepdim=True)
    total = float(within.square().sum())
    # What rounding to single precision leaves of equal values is no variance.
    if total <= 1e-10 * float(whole.square().sum()):
        return float("nan")
    return len(whole) * float(within.mean(0).square().sum()) / total


@final
@dataclass(frozen=True, eq=False)
class Permuted:
    """Contrasts of values, compared with those of the same values permuted at random.

    Parameters
    ----------
    value
        (m,) The contrasts.
    p_value
        (m,) How often chance takes a contrast at least as far from 0, to either side.
    low, high
        (m,) The middle 95 % of what chance gives.
    """

    value: Float[Tensor, " m"]
    p_value: Float[Tensor, " m"]
    low: Float[Tensor, " m"]
    high: Float[Tensor, " m"]


def permutation_test(
    values: Float[Tensor, " n"], contrasts: Float[Tensor, "m n"], *, permutations: int = 1000, seed: int = 0
) -> Permuted:
    """Test weighted sums of values, such as a difference of two groups' means, by permuting the values.

    The p-value counts the values as they are as one more permutation, so that it is never 0 and the test keeps its
    level (Phipson & Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9:39).

    Parameters
    ----------
    values
        (n,) One value of each unit.
    contrasts
        (m,n) Weights; each row sums to 0, so that chance gives 0 in the mean.
    permutations
        How often the values are permuted; the same ways for every contrast.
    seed
        Seed of the permutations.

    Returns
    -------
    Permuted
    """
    at_least("permutations", permutations, 1)
    if contrasts.shape[1:] != values.shape:
        raise ParameterError(f"`contrasts` must have the shape (m, {len(values)}); got {tuple(contrasts.shape)}.")
    values, contrasts = values.double().cpu(), contrasts.double().cpu()
    observed = contrasts @ values
    permuted = torch.cat([values[orders] @ contrasts.T for orders in _orders(len(values), permutations, seed)])
    # Sums in another order differ by rounding, and are as far from 0.
    slack = 1e-12 * contrasts.abs().sum(1) * (values.abs().amax() if len(values) else 0.0)
    extreme = (permuted.abs() >= observed.abs() - slack).sum(0)
    ordered = permuted.sort(dim=0).values
    low, high = (ordered[round(share * (permutations - 1))] for share in (0.025, 0.975))
    return Permuted(observed, (1 + extreme).double() / (1 + permutations), low, high)


def _orders(n: int, permutations: int, seed: int) -> Iterator[Tensor]:
    """Yield (r,n) random orders of n units."""
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, permutations, most := max(1, _AT_ONCE // max(n, 1))):
        yield torch.rand(min(most, permutations - start), n, generator=generator, dtype=torch.float64).argsort(dim=1)


def flip_test(differences: Float[Tensor, "n m"], *, flips: int = FLIPS, seed: int = 0) -> Float[Tensor, " m"]:
    """Test whether the means of paired differences are 0, by turning the signs of images at random (Fisher 1935).

    If chance alone decides, the two of a pair might as well be exchanged. Few images have few signs to turn, so none of
    their p-values is small; the signs as they are count as one more draw, so that no p-value is 0.

    Parameters
    ----------
    differences
        (n,m) Differences on n images; NaN where there is none.
    flips
        How often signs are drawn; the same ones for every column.
    seed
        Seed of the signs.

    Returns
    -------
    torch.Tensor
        (m,) How often chance takes a mean at least as far from 0, to either side; NaN where there is no difference.
    """
    at_least("flips", flips, 1)
    known, values = (~differences.isnan()).any(0).cpu(), differences.double().cpu().nan_to_num(0)
    # Sums in another order differ by rounding, and are as far from 0.
    least = values.sum(0).abs() - 1e-12 * values.abs().sum(0)
    extreme = torch.stack([((signs @ values).abs() >= least).sum(0) for signs in _signs(len(values), flips, seed)])
    return ((1 + extreme.sum(0)).double() / (1 + flips)).masked_fill(~known, torch.nan)


def _signs(n: int, flips: int, seed: int) -> Iterator[Tensor]:
    """Yield (r,n) random signs."""
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, flips, most := max(1, _AT_ONCE // max(n, 1))):
        yield 2.0 * torch.randint(2, (min(most, flips - start), n), generator=generator).double() - 1


def holm(p_values: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
    """Correct p-values for being m, after Holm (1979): below 0.05 there is any false one in 5 % of families at most.

    NaN are no tests: they stay, and do not count.
    """
    tests = ~p_values.isnan()
    given = p_values[tests].double()
    order = given.argsort(stable=True)
    steps = torch.arange(len(given), 0, -1, device=given.device) * given[order]
    corrected = torch.full_like(p_values, torch.nan, dtype=torch.float64)
    if len(given):
        corrected[tests] = torch.empty_like(given).scatter_(0, order, steps.cummax(0).values.clamp(max=1))
    return corrected


def _shares_below(values: Tensor, others: Tensor) -> Tensor:
    """Return which share of the others is smaller than each value, equal ones counting half."""
    ordered = others.sort().values
    smaller, not_larger = (torch.searchsorted(ordered, values, right=right) for right in (False, True))
    return (smaller + not_larger).double() / (2 * max(1, len(others)))


def _draws(n: int, resamples: int, seed: int, width: int = 1) -> Iterator[Tensor]:
    """Draw n of n images with replacement, many times; yield (r,n) how often each was drawn."""
    generator = torch.Generator().manual_seed(seed)
    most = max(1, _AT_ONCE // max(n, width, 1))
    for start in range(0, resamples, most):
        rows = min(most, resamples - start)
        chosen = torch.randint(max(n, 1), (rows, n), generator=generator)
        yield torch.zeros(rows, n, dtype=torch.float64).scatter_add_(1, chosen, torch.ones(rows, n).double())
