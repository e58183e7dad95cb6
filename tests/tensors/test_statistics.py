"""Intervals and their coverage, against closed forms and scikit-learn's and SciPy's values."""

import math
import statistics

import jaxtyping
import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whyfooled.errors import ParameterError
from whyfooled.tensors.statistics import (
    Interval,
    RandomDraws,
    auroc,
    bootstrap,
    bootstrap_difference,
    bootstrap_means,
    bootstrap_ratio,
    draw_bounds,
    flip_test,
    holm,
    permutation_test,
    variance_explained,
)


def draws(n, m=1, seed=0):
    return torch.randn(n, m, generator=torch.Generator().manual_seed(seed))


def test_the_interval_of_a_mean_is_that_of_the_normal_law_for_many_values():
    values = draws(400, 2) * torch.tensor([1.0, 5.0]) + 3
    for column, found in enumerate(bootstrap_means(values)):
        spread = 1.96 * float(values[:, column].std()) / math.sqrt(400)
        assert found.mean == pytest.approx(float(values[:, column].double().mean()))
        assert found.low == pytest.approx(found.mean - spread, abs=0.12 * spread)
        assert found.high == pytest.approx(found.mean + spread, abs=0.12 * spread)
        assert found.count == 400


def test_one_more_draw_lies_under_the_bound_as_often_as_it_says():
    # By hand: 1, 2, 3 have the mean 2 and the standard deviation 1; Student's quantile of 95 % is 2.919986.
    assert draw_bounds(torch.tensor([[1.0, 2.0, 3.0]])).tolist() == pytest.approx([2 + 2.919986 * math.sqrt(4 / 3)])
    for count in (2, 3, 8):
        drawn = draws(20_000, count + 1, seed=count)
        under = (drawn[:, -1] <= draw_bounds(drawn[:, :-1])).double().mean()
        assert float(under) == pytest.approx(0.95, abs=0.006)


def test_it_holds_the_true_mean_about_as_often_as_it_says():
    held = [
        one.low <= 0 <= one.high
        for seed in range(4)
        for one in bootstrap_means(draws(40, 100, seed=seed), resamples=500, seed=seed)
    ]
    # Percentile intervals of 40 values are a little narrow: 93.5 % is what they reach.
    assert 0.90 < sum(held) / len(held) < 0.975


# Exactly, by adding up; of so few outcomes no interval can be at 95 % everywhere (Brown, Cai & DasGupta 2001).
@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("count", [12, 20, 91])
def test_the_interval_of_a_share_holds_it_about_as_often_as_it_says(share, count):
    held = 0.0
    for successes, weight in enumerate(scipy.stats.binom.pmf(range(count + 1), count, share)):
        values = torch.zeros(count, 1)
        values[:successes] = 1
        (found,) = bootstrap_means(values, resamples=1)
        held += weight * (found.low <= share <= found.high)
    assert 0.93 < held < 0.978


@pytest.mark.parametrize(("successes", "count"), [(0, 12), (10, 10), (3, 17), (50, 91)])
def test_the_interval_of_a_share_is_wilsons(successes, count):
    values = torch.zeros(count, 2)
    values[:successes, 0] = 1
    values[:, 1] = torch.nan
    values[:count, 1][: max(2, count // 2)] = 1
    found, _ = bootstrap_means(values, resamples=10)
    expected = scipy.stats.binomtest(successes, count).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert (found.mean, found.count) == (successes / count, count)


def test_the_interval_of_equal_differences_has_a_width():
    same, gained, lost = bootstrap_means(torch.tensor([[0.0, 1.0, -1.0]]).repeat(20, 1), differences=True)
    assert same.low == pytest.approx(-same.high)
    assert 0.05 < same.high < 0.2
    assert (gained.high, lost.low) == (1.0, -1.0)
    assert 0.7 < gained.low < 0.95
    assert lost.high == pytest.approx(-gained.low)
    # By hand: (7 + .5 - 2 - .5) / 22, and the Wald interval of four outcomes with half an image more each.
    (some,) = bootstrap_means(torch.tensor([1.0] * 7 + [-1.0] * 2 + [0.0] * 11)[:, None], differences=True)
    reach = 1.96 * math.sqrt((10 / 22 - (5 / 22) ** 2) / 22)
    assert (some.low, some.high) == pytest.approx((5 / 22 - reach, 5 / 22 + reach), abs=1e-4)


def test_a_missing_value_is_left_out():
    values = draws(30, 2)
    values[5:, 1] = torch.nan
    whole, part = bootstrap_means(values)
    assert (whole.count, part.count) == (30, 5)
    assert part.mean == pytest.approx(float(values[:5, 1].double().mean()))
    assert part.low < part.mean < part.high


def test_nothing_has_no_mean_and_one_value_no_interval():
    empty, single = bootstrap_means(torch.tensor([[torch.nan, 2.0]]))
    assert empty.count == 0
    assert math.isnan(empty.mean)
    assert str(empty) == "–"
    assert str(single) == "2.000"
    assert math.isnan(single.low)
    assert math.isnan(single.high)


def test_the_same_seed_gives_the_same_interval_whatever_stands_beside():
    values = draws(50, 3)
    assert bootstrap_means(values)[1] == bootstrap_means(values[:, 1:2])[0]
    assert bootstrap_means(values, seed=1) != bootstrap_means(values, seed=2)


def test_many_images_are_drawn_in_parts_that_do_not_repeat():
    values = draws(5000)
    found = bootstrap_means(values, resamples=2000)[0]
    spread = 1.96 * float(values.std()) / math.sqrt(5000)
    assert found.high - found.low == pytest.approx(2 * spread, rel=0.1)


def test_an_interval_is_written_for_reading():
    (found,) = bootstrap_means(torch.tensor([[0.5], [0.7]]))
    assert found.format(2, sign=True) == "+0.60 [+0.50, +0.70]"


def test_the_difference_of_two_groups_of_different_images_is_welchs_for_many_values():
    first, second = draws(300)[:, 0] + 1, 3 * draws(500, seed=1)[:, 0]
    values = torch.full((800, 2), torch.nan)
    values[:300, 0], values[300:, 1] = first, second
    found = bootstrap_difference(values)
    spread = 1.96 * math.sqrt(float(first.var()) / 300 + float(second.var()) / 500)
    assert found.mean == pytest.approx(float(first.mean() - second.mean()), abs=1e-6)
    assert found.high - found.low == pytest.approx(2 * spread, rel=0.1)
    assert found.count == 300


def test_the_difference_on_the_same_images_is_paired():
    common = 10 * draws(50)
    found = bootstrap_difference(torch.cat([common + 0.02, common], dim=1))
    assert (found.low, found.mean, found.high) == pytest.approx((0.02, 0.02, 0.02), abs=1e-5)
    assert bootstrap_difference(torch.tensor([[1.0, torch.nan]])).count == 0


@given(st.floats(0.01, 1), st.integers(2, 60))
@settings(max_examples=50, deadline=None)
def test_the_mean_of_equal_values_lies_in_its_interval(value, count):
    (found,) = bootstrap_means(torch.full((count, 1), value), resamples=50)
    assert found.low <= found.mean <= found.high


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_auroc_is_mann_whitneys(seed):
    scores = draws(40, seed=seed)[:, 0].mul(2).round()
    positive = torch.rand(40, generator=torch.Generator().manual_seed(seed)) < 0.4
    statistic = scipy.stats.mannwhitneyu(scores[positive].numpy(), scores[~positive].numpy()).statistic
    assert auroc(scores, positive).mean == pytest.approx(statistic / (int(positive.sum()) * int((~positive).sum())))


def test_the_interval_of_auroc_is_delongs_by_all_pairs():
    scores, positive = draws(30)[:, 0].mul(3).round(), torch.arange(30) % 3 == 0
    ours, theirs = scores[positive], scores[~positive]
    wins = torch.tensor([[float(a > b) + 0.5 * float(a == b) for b in theirs] for a in ours]).double()
    first, second = float(wins.mean(1).var()) / len(ours), float(wins.mean(0).var()) / len(theirs)
    freedom = (first + second) ** 2 / (first**2 / (len(ours) - 1) + second**2 / (len(theirs) - 1))
    found = auroc(scores, positive)
    reach = scipy.stats.t.ppf(0.975, freedom) * math.sqrt(first + second) / (found.mean * (1 - found.mean))
    logit = math.log(found.mean / (1 - found.mean))
    ends = [1 / (1 + math.exp(-end)) for end in (logit - reach, logit + reach)]
    assert (found.low, found.high) == pytest.approx(ends, rel=1e-4)


@pytest.mark.parametrize("area", [0.5, 0.76, 0.92, 0.98])
@pytest.mark.parametrize(("positive", "negative"), [(20, 20), (15, 91)])
def test_the_interval_of_auroc_holds_the_truth_about_as_often_as_it_says(area, positive, negative):
    shift = math.sqrt(2) * scipy.stats.norm.ppf(area)
    kinds = torch.arange(positive + negative) < positive
    held = [
        found.low <= area <= found.high
        for seed in range(500)
        for found in [auroc(draws(len(kinds), seed=seed)[:, 0] + shift * kinds, kinds)]
    ]
    assert 0.91 < sum(held) / len(held) < 0.99


def test_kinds_that_are_perfectly_apart_have_an_interval_with_a_width():
    apart = auroc(torch.arange(106.0), torch.arange(106) >= 91)
    assert (apart.mean, apart.high) == (1.0, 1.0)
    assert 0.85 < apart.low < 0.98
    # It is the area that 1 is just not too far from: Hanley & McNeil's variance with the mean of both numbers.
    low = apart.low
    more = ((15 + 91) / 2 - 1) * ((1 - low) / (2 - low) + low / (1 + low))
    assert (1 - low) ** 2 == pytest.approx(1.959964**2 * low * (1 - low) * (1 + more) / (15 * 91), rel=1e-5)
    turned = auroc(-torch.arange(106.0), torch.arange(106) >= 91)
    assert (turned.low, turned.mean) == (0.0, 0.0)
    assert turned.high == pytest.approx(1 - low)


def test_auroc_of_one_kind_is_not_a_number(monkeypatch):
    alone = auroc(torch.rand(3), torch.ones(3, dtype=torch.bool))
    assert math.isnan(alone.mean)
    assert alone.count == 0
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ParameterError, match="positive"):
        auroc(torch.rand(3), torch.ones(4, dtype=torch.bool))


def test_conditions_that_differ_by_the_same_on_every_image_explain_all_variance_within_images():
    assert variance_explained(torch.tensor([[1.0, 2.0, 5.0], [3.0, 4.0, 7.0], [0.5, 1.5, 4.5]])) == pytest.approx(1)
    assert variance_explained(torch.tensor([[1.0, 2.0], [2.0, 1.0]])) == pytest.approx(0)


def test_the_variance_explained_is_that_of_an_analysis_of_variance_with_repeated_measures():
    values = torch.randn(9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + torch.arange(3)
    image, condition, whole = values.mean(1, keepdim=True), values.mean(0, keepdim=True), values.mean()
    between = 9 * float((condition - whole).square().sum())
    residual = float((values - image - condition + whole).square().sum())
    assert variance_explained(values) == pytest.approx(between / (between + residual))
    missing = torch.cat([values, torch.tensor([[1.0, torch.nan, 3.0]])])
    assert variance_explained(missing) == pytest.approx(variance_explained(values))


def test_by_chance_the_share_is_one_over_the_number_of_images():
    generator = torch.Generator().manual_seed(0)
    found = [variance_explained(torch.randn(5, 4, generator=generator)) for _ in range(400)]
    assert sum(found) / len(found) == pytest.approx(1 / 5, abs=0.015)


def test_where_nothing_varies_within_images_nothing_is_explained():
    assert math.isnan(variance_explained(torch.tensor([[0.1, 0.1], [0.3, 0.3]])))
    assert math.isnan(variance_explained(torch.tensor([[0.1, 0.1 + 1e-7], [0.3, 0.3 + 1e-7]])))
    assert math.isnan(variance_explained(torch.tensor([[0.1, 0.2]])))


def test_a_ratio_is_that_of_the_means_with_the_interval_of_the_delta_method():
    values = torch.cat([draws(600, 1) + 6, draws(600, 1, seed=1) + 3], dim=1).double()
    found = bootstrap_ratio(values)
    first, second = values.mean(0).tolist()
    assert found.mean == pytest.approx(first / second)
    residual = values[:, 0] - found.mean * values[:, 1]
    spread = 1.96 * float(residual.std()) / second / math.sqrt(600)
    assert found.low == pytest.approx(found.mean - spread, abs=0.15 * spread)
    assert found.high == pytest.approx(found.mean + spread, abs=0.15 * spread)


def test_a_ratio_of_columns_that_vary_together_is_sure():
    values = draws(50).abs() + 1
    found = bootstrap_ratio(torch.cat([3 * values, values], dim=1))
    assert (found.mean, found.low, found.high) == pytest.approx((3, 3, 3))
    assert found.count == 50


def test_a_ratio_to_nothing_is_nan():
    assert math.isnan(bootstrap_ratio(torch.tensor([[1.0, 0.0], [2.0, 0.0]])).mean)


def test_the_bootstrap_of_any_statistic_is_that_of_the_mean_for_means():
    values = draws(40, 3).double()
    found = bootstrap(lambda weights: weights @ values / weights.sum(1, keepdim=True), 40, resamples=2000, width=900)
    for one, expected in zip(found, bootstrap_means(values, resamples=2000), strict=True):
        assert (one.mean, one.count) == (pytest.approx(expected.mean), 40)
        assert (one.low, one.high) == pytest.approx((expected.low, expected.high), abs=0.03)


def test_the_interval_of_a_biased_statistic_leans_against_the_bias():
    # A square is too large by the variance of the mean, and that of a draw by twice as much.
    values = draws(50).double() + 0.5
    (found,) = bootstrap(lambda weights: (weights @ values / 50).square(), 50, resamples=2000)
    (linear,) = bootstrap(lambda weights: weights @ values / 50, 50, resamples=2000)
    assert found.mean == pytest.approx(linear.mean**2)
    assert found.low == pytest.approx(2 * linear.mean**2 - (2 * linear.mean - linear.low) ** 2)
    assert found.high == pytest.approx(2 * linear.mean**2 - (2 * linear.mean - linear.high) ** 2)


def test_a_statistic_that_is_no_number_has_no_interval():
    (nothing,) = bootstrap(lambda weights: torch.full((len(weights), 1), torch.nan, dtype=torch.float64), 5)
    assert (nothing.count, str(nothing)) == (0, "–")
    (single,) = bootstrap(lambda weights: weights.sum(1, keepdim=True), 1)
    assert (single.mean, single.count) == (1, 1)
    assert math.isnan(single.low)


def two_groups(first, n):
    chosen = torch.arange(n) < first
    return (chosen / first - (~chosen) / (n - first)).double()


def test_the_permutation_test_of_a_difference_of_means_is_scipys():
    values = draws(14)[:, 0].double()
    values[:5] += 1
    found = permutation_test(values, two_groups(5, 14).unsqueeze(0), permutations=20000)
    exact = scipy.stats.permutation_test(
        (values[:5].numpy(), values[5:].numpy()), lambda a, b: abs(a.mean() - b.mean()), alternative="greater"
    )
    assert float(found.value) == pytest.approx(float(values[:5].mean() - values[5:].mean()))
    assert float(found.p_value) == pytest.approx(exact.pvalue, abs=0.01)
    band = [
        float(one)
        for one in torch.tensor(
            scipy.stats.permutation_test(
                (values[:5].numpy(), values[5:].numpy()), lambda a, b: a.mean() - b.mean()
            ).null_distribution
        ).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    ]
    assert [float(found.low), float(found.high)] == pytest.approx(band, abs=0.03)


def test_the_permutation_test_of_flags_is_hypergeometric():
    flags = torch.tensor([1, 1, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).double()
    found = permutation_test(flags, two_groups(6, 16).unsqueeze(0), permutations=20000)
    # Five of the five flags among the first six; as far to the other side none of five, which is nearer to the mean.
    law = scipy.stats.hypergeom(16, 5, 6)
    difference = [abs(k / 6 - (5 - k) / 10) for k in range(6)]
    exact = sum(float(law.pmf(k)) for k in range(6) if difference[k] >= difference[5] - 1e-12)
    assert float(found.p_value) == pytest.approx(exact, abs=3e-3)


def test_p_values_of_chance_are_uniform_and_never_0():
    contrast = two_groups(10, 30).unsqueeze(0)
    found = [
        float(permutation_test(draws(30, seed=seed)[:, 0], contrast, permutations=99).p_value) for seed in range(300)
    ]
    assert scipy.stats.kstest(found, "uniform").pvalue > 0.01
    assert min(found) >= 0.01
    sure = permutation_test(torch.arange(30).flip(0).double(), contrast, permutations=99)
    assert float(sure.p_value) == 0.01


@given(st.integers(0, 1000), st.integers(1, 19))
@settings(max_examples=20, deadline=None)
def test_each_contrast_is_tested_as_if_it_were_alone(seed, first):
    values = draws(20, seed=seed)[:, 0]
    contrasts = torch.stack([two_groups(7, 20), two_groups(first, 20)])
    together, alone = (permutation_test(values, some, permutations=50) for some in (contrasts, contrasts[1:]))
    assert float(together.p_value[1]) == float(alone.p_value)
    assert float(together.value[1]) == pytest.approx(float(alone.value), abs=1e-12)


def test_equal_values_are_no_evidence():
    found = permutation_test(torch.full((9,), 0.1), two_groups(4, 9).unsqueeze(0))
    assert float(found.p_value) == 1
    assert permutation_test(torch.zeros(4), torch.zeros(0, 4)).p_value.shape == (0,)


def test_contrasts_must_fit_the_values(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ParameterError, match=r"`contrasts` must have the shape \(m, 4\)"):
        permutation_test(torch.zeros(4), torch.zeros(2, 5))
    with pytest.raises(ParameterError, match="`permutations` must be at least 1"):
        permutation_test(torch.zeros(4), torch.zeros(2, 4), permutations=0)


def test_holms_correction_by_hand():
    found = holm(torch.tensor([0.01, 0.04, 0.03, 0.005, 0.9], dtype=torch.float64))
    assert found.tolist() == pytest.approx([0.04, 0.09, 0.09, 0.025, 0.9])
    assert holm(torch.tensor([0.5, 0.6])).tolist() == pytest.approx([1, 1])
    missing = holm(torch.tensor([0.02, torch.nan, 0.03], dtype=torch.float64))
    assert missing[::2].tolist() == pytest.approx([0.04, 0.04])
    assert math.isnan(missing[1])
    assert holm(torch.zeros(0)).shape == (0,)


def test_signs_are_turned_in_all_ways_by_hand():
    # Of three images, 8 ways to turn the signs: only all as they are, or all turned, take the mean as far.
    p_values = flip_test(torch.tensor([[1.0, 1.0], [2.0, -1.0], [3.0, torch.nan]]), flips=40_000)
    assert p_values[0] == pytest.approx(2 / 8, abs=0.01)
    assert p_values[1] == pytest.approx(1)


@pytest.mark.parametrize("seed", range(3))
def test_signs_agree_with_scipy(seed):
    values = draws(14, seed=seed) + 0.4
    exact = scipy.stats.permutation_test(
        (values[:, 0].numpy(),), np.mean, permutation_type="samples", n_resamples=2**14
    )
    assert float(flip_test(values)) == pytest.approx(exact.pvalue, abs=0.012)


def test_signs_of_nothing_tell_nothing():
    p_values = flip_test(torch.tensor([[torch.nan, 0.0, 2.0], [torch.nan, 0.0, -2.0]]))
    assert math.isnan(p_values[0])
    assert p_values[1:].tolist() == [1, 1]
    assert flip_test(torch.zeros(0, 2)).isnan().all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 1e6))
def test_neither_order_nor_scale_nor_sign_changes_what_signs_tell(seed, scale):
    values = draws(12, seed=seed)
    found = float(flip_test(values))
    assert float(flip_test(-scale * values)) == found
    assert float(flip_test(values.flip(0))) == pytest.approx(found, abs=0.03)


def test_of_many_true_nulls_few_families_hold_any_claim():
    families = [holm(flip_test(draws(15, 20, seed=seed), flips=4000, seed=seed)) for seed in range(200)]
    share = sum(bool((p_values < 0.05).any()) for p_values in families) / len(families)
    # The middle 99.9 % of what 200 families at 5 % give reaches to 11 %.
    assert share <= 0.11
    clear = [holm(flip_test(draws(15, 20, seed=seed) + 3, flips=4000, seed=seed)) for seed in range(20)]
    assert all(bool((p_values < 0.05).all()) for p_values in clear)


def test_another_draw_is_as_uncertain_as_students_interval_of_prediction():
    drawn = RandomDraws((0.30, 0.34, 0.29, 0.33))
    error = statistics.stdev(drawn.means) * math.sqrt(1 + 1 / 4)
    assert drawn.reach == pytest.approx(scipy.stats.t.ppf(0.975, 3) * error)
    assert drawn.p_value(0.1) == pytest.approx(2 * scipy.stats.t.sf(0.1 / error, 3))
    assert drawn.p_value(-0.1) == drawn.p_value(0.1)
    assert drawn.p_value(0) == drawn.p_value(math.nan) == 1
    assert RandomDraws((0.5, 0.5)).p_value(0.1) == 0
    widened = Interval(1.0, 0.7, 1.4, 20).widen(0.4)
    assert [widened.mean, widened.low, widened.high] == pytest.approx([1.0, 0.5, 1 + math.hypot(0.4, 0.4)])


def test_one_more_random_draw_is_seldom_told_from_the_others():
    draw = draws(2000, 9)
    p_values = [RandomDraws(tuple(row[:8].tolist())).p_value(float(row[8] - row[:8].mean())) for row in draw]
    share = sum(p_value < 0.05 for p_value in p_values) / len(p_values)
    assert share == pytest.approx(0.05, abs=0.016)
