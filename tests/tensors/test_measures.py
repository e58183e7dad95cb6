"""Comparisons of maps and of numbers, against hand and libraries."""

import jaxtyping
import pytest
import scipy.stats
import skimage.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whyfooled.errors import ParameterError
from whyfooled.tensors.measures import (
    average_difference,
    binary_similarity,
    centre_shift,
    chance_similarity,
    cosine,
    kendall_correlation,
    pearson_correlation,
    rank_correlation,
    structural_similarity,
    top_overlap,
)

MEASURES = [binary_similarity, chance_similarity, average_difference, cosine, rank_correlation, top_overlap]
SYMMETRIC = pytest.mark.parametrize("measure", [*MEASURES, structural_similarity], ids=lambda measure: measure.__name__)


def signed_maps(seed, n=3, side=20):
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


@SYMMETRIC
def test_a_comparison_is_symmetric_and_does_not_depend_on_the_batch_or_the_maps_size(measure):
    first, second = signed_maps(1), signed_maps(2)
    expected = measure(first, second)
    torch.testing.assert_close(measure(second, first), expected)
    torch.testing.assert_close(measure(first[[2]], second[[2]]), expected[[2]])
    torch.testing.assert_close(measure(7 * first, 7 * second), expected)


@SYMMETRIC
def test_maps_of_different_shapes_are_refused(measure, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ParameterError, match="must have the shape"):
        measure(signed_maps(1), signed_maps(1, side=19))


def test_binarised_maps_are_compared_element_by_element():
    first = torch.tensor([1.0, -1, 0, 2]).view(1, 1, 2, 2)
    second = torch.tensor([3.0, 1, -5, -2]).view(1, 1, 2, 2)
    assert binary_similarity(first, second).item() == 0.5
    assert chance_similarity(first, second).item() == 0.5 * 0.5 + 0.5 * 0.5
    assert binary_similarity(first, first).item() == 1


def test_independent_maps_are_as_similar_as_chance_says():
    first, second = (torch.rand(1, 3, 200, 200, generator=torch.Generator().manual_seed(s)) - 0.2 for s in (1, 2))
    expected = chance_similarity(first, second).item()
    assert expected == pytest.approx(0.8**2 + 0.2**2, abs=0.01)
    assert binary_similarity(first, second).item() == pytest.approx(expected, abs=0.01)


def test_the_average_difference_is_that_of_the_positive_parts():
    first = torch.tensor([4.0, -100, 0, 0]).view(1, 1, 2, 2)
    second = torch.tensor([1.0, 0, -7, 0]).view(1, 1, 2, 2)
    assert average_difference(first, second).item() == pytest.approx(0.75)
    assert average_difference(first, first).item() == 0
    assert average_difference(-first.abs(), -first.abs()).isnan().item()


def test_the_cosine_is_the_angle_between_two_maps():
    first = torch.tensor([3.0, 4, 0, 0]).view(1, 1, 2, 2)
    second = torch.tensor([-4.0, 3, 0, 0]).view(1, 1, 2, 2)
    assert cosine(first, second).item() == pytest.approx(0)
    assert cosine(first, -2 * first).item() == pytest.approx(-1)
    assert cosine(first, torch.zeros_like(first)).isnan().item()


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=20, deadline=None)
def test_the_rank_correlation_is_scipys_with_ties(seed, tied):
    first, second = signed_maps(seed, n=2, side=9), signed_maps(seed + 1, n=2, side=9)
    if tied:
        first, second = first.round(), second.round()
    found = rank_correlation(first, second)
    for number in range(2):
        flat = [one[number].double().sum(0).flatten().numpy() for one in (first, second)]
        assert found[number].item() == pytest.approx(scipy.stats.spearmanr(*flat).statistic, abs=1e-9)


def test_a_constant_map_has_no_rank_correlation():
    assert rank_correlation(torch.ones(1, 1, 4, 4), torch.rand(1, 1, 4, 4)).isnan().item()


def test_the_top_overlap_counts_common_pixels():
    first = torch.arange(100.0).view(1, 1, 10, 10)
    second = first.clone()
    second[0, 0, 9, 9] = -1  # the most salient pixel leaves the top ten, and the eleventh joins
    assert top_overlap(first, second, share=0.1).item() == pytest.approx(0.9)
    assert top_overlap(first, -first, share=0.1).item() == 0
    with pytest.raises(ParameterError, match="above 0"):
        top_overlap(first, first, share=0)


def test_structural_similarity_is_scikit_images():
    first, second = signed_maps(3, n=2), signed_maps(4, n=2)
    found = structural_similarity(first, first + second)
    for number in range(2):
        x, y = (one[number].double().sum(0) for one in (first, first + second))
        x, y = x / x.abs().max(), y / y.abs().max()
        expected = skimage.metrics.structural_similarity(
            x.numpy(), y.numpy(), gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=2
        )
        assert found[number].item() == pytest.approx(expected, abs=1e-9)
    assert structural_similarity(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8)).isnan().item()


def numbers(n, r, levels=None, seed=0):
    """Make two related rows of numbers for each image; of few levels, so that there are ties."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, r, generator=generator)
    y = x + torch.rand(n, r, generator=generator)
    return (x, y) if levels is None else ((x * levels).round(), (y * levels).round())


CORRELATIONS = pytest.mark.parametrize(
    ("ours", "theirs"),
    [(pearson_correlation, scipy.stats.pearsonr), (kendall_correlation, scipy.stats.kendalltau)],
    ids=["pearson", "kendall"],
)


@CORRELATIONS
@pytest.mark.parametrize("levels", [None, 3])
def test_correlations_of_regions_are_scipys(ours, theirs, levels, monkeypatch):
    x, y = numbers(4, 60, levels)
    expected = [theirs(a, b).statistic for a, b in zip(x.double().numpy(), y.double().numpy(), strict=True)]
    torch.testing.assert_close(ours(x, y), torch.tensor(expected, dtype=torch.float64))
    monkeypatch.setattr("whyfooled.tensors.measures._COMPARISONS", 130)
    torch.testing.assert_close(ours(x, y), torch.tensor(expected, dtype=torch.float64))


@CORRELATIONS
def test_only_chosen_regions_count(ours, theirs):
    x, y = numbers(3, 40)
    where = numbers(3, 40, seed=1)[0] < torch.tensor([[0.2], [0.5], [0.9]])
    rows = zip(x.double(), y.double(), where, strict=True)
    expected = [theirs(a[chosen].numpy(), b[chosen].numpy()).statistic for a, b, chosen in rows]
    found = ours(torch.where(where, x, 1e9), torch.where(where, y, torch.nan), where)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@CORRELATIONS
def test_there_is_no_correlation_with_what_does_not_vary(ours, theirs):
    x = torch.tensor([[0.1, 0.1, 0.1], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    y = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [3.0, 2.0, 3.0]])
    where = torch.tensor([[True] * 3, [False] * 3, [True, False, False]])
    assert ours(x, y).isnan().tolist() == [True, False, False]
    assert ours(x, y, where).isnan().tolist() == [True, True, True]


@given(st.integers(0, 10_000), st.integers(2, 30))
@settings(max_examples=30, deadline=None)
def test_correlations_do_not_change_with_order_scale_or_image(seed, r):
    x, y = numbers(2, r, levels=20, seed=seed)
    order = torch.randperm(r, generator=torch.Generator().manual_seed(seed))
    for ours in (pearson_correlation, kendall_correlation):
        found = ours(x, y)
        kept = {"equal_nan": True, "rtol": 1e-9, "atol": 1e-9}
        torch.testing.assert_close(ours(y, x), found, **kept)
        torch.testing.assert_close(ours(x[:, order], y[:, order]), found, **kept)
        torch.testing.assert_close(ours(3 * x.double() + 1, -y.double()), -found, **kept)
        torch.testing.assert_close(ours(x[1:], y[1:]), found[1:], **kept)
    torch.testing.assert_close(kendall_correlation(x.exp(), y), kendall_correlation(x, y), **kept)


@CORRELATIONS
def test_correlations_of_other_shapes_are_refused(ours, theirs, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ParameterError, match=r"`others` must have the shape of `values`, \(2, 3\); got \(2, 4\)"):
        ours(torch.rand(2, 3), torch.rand(2, 4))
    with pytest.raises(ParameterError, match="`where` must have the shape of `values`"):
        ours(torch.rand(2, 3), torch.rand(2, 3), torch.ones(1, 3, dtype=torch.bool))


def test_the_centre_of_mass_moves_by_hand():
    maps, others = torch.zeros(4, 2, 5, 9), torch.zeros(4, 2, 5, 9)
    # From (1, 2) to (4, 6): three down, four to the right. Signs and channels do not matter, nor sizes.
    maps[0, 0, 1, 2], others[0, 1, 4, 6] = -3, 0.5
    # Of two pixels, one three times as heavy: the centre is at column 3 · 4 / 4, and moves to that of all pixels.
    maps[1, 0, 2, 0], maps[1, 0, 2, 4], others[1] = 1, -3, 1
    maps[2], others[2] = 1, -7
    others[3, 0, 0, 0] = 1
    found = centre_shift(maps, others)
    assert found[:3].tolist() == pytest.approx([5, 1, 0])
    assert found[3].isnan()


def test_the_centre_of_a_shifted_map_shifts_with_it():
    inside = torch.rand(3, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    maps = torch.zeros(3, 3, 12, 12)
    maps[:, :, 1:7, 2:8] = inside
    torch.testing.assert_close(centre_shift(maps, maps.roll((3, -2), (2, 3))), torch.full((3,), 13.0).double().sqrt())
