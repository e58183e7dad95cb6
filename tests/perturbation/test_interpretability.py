"""The interpretability score: by hand, what it is invariant to, and what chance is."""

import inspect
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whyfooled.errors import ParameterError
from whyfooled.perturbation import discriminative_region, interpretability_curve, interpretability_score

QUANTILES = (0.05, 0.25, 0.5, 0.9, 1.0)


def maps(seed, levels=None, shape=(3, 1, 5, 7)):
    cam = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    return cam if levels is None else (cam * levels).floor()


def test_it_is_what_it_is_by_hand():
    cam = torch.tensor([[[[4.0, 1.0], [-3.0, 2.0]]]])
    delta = torch.tensor([[[[1.0, 2.0], [0.0, 0.0]], [[0.0, 0.0], [-1.0, 2.0]]]])
    # Energies 1, 4, 1, 4; the map's order is pixel 0, 3, 1, 2.
    expected = {0.25: 0.1, 0.5: 0.5, 0.75: 0.9, 1.0: 1.0}
    for quantile, value in expected.items():
        found = interpretability_score(delta, cam, quantile)
        assert found.score.tolist() == pytest.approx([value])
        assert found.chance.tolist() == [quantile]
    curve = interpretability_curve(delta, cam, tuple(expected))
    assert curve.score.tolist() == [pytest.approx(list(expected.values()))]
    frame = curve.to_frame()
    assert frame["score"].tolist() == pytest.approx(list(expected.values()))
    assert frame["quantile"].tolist() == list(expected)
    assert list(frame.columns) == ["image", "quantile", "score", "chance"]
    assert len(interpretability_score(delta, cam).to_frame()) == 1


def test_channels_of_a_map_are_summed():
    cam = torch.rand(2, 3, 4, 4)
    assert torch.equal(discriminative_region(cam, 0.3), discriminative_region(cam.sum(1, keepdim=True), 0.3))


def test_a_region_that_covers_the_perturbation_scores_1_and_one_that_misses_it_0():
    cam = torch.zeros(1, 1, 10, 10)
    cam[..., :5, :6] = 1
    region = discriminative_region(cam, 0.3)
    assert torch.equal(region, cam[:, 0] > 0)
    delta = torch.randn(1, 3, 10, 10)
    assert interpretability_score(delta * region, cam).score.tolist() == [1]
    assert interpretability_score(delta * ~region, cam).score.tolist() == [0]


class TestTies:
    def test_pixels_at_the_threshold_are_left_out_where_there_are_too_many(self):
        cam = torch.zeros(1, 1, 10, 10)
        cam[..., 2:5, 3:7] = torch.rand(3, 4) + 0.1
        region = discriminative_region(cam, 0.3)
        assert torch.equal(region, cam[:, 0] > 0)
        found = interpretability_score(torch.randn(1, 3, 10, 10), cam)
        assert found.chance.tolist() == pytest.approx([0.12])

    def test_a_constant_map_has_everything(self):
        for value in (0.0, -2.5):
            assert discriminative_region(torch.full((2, 1, 4, 4), value)).all()

    def test_a_plateau_that_is_the_top_is_kept_whole(self):
        cam = torch.zeros(1, 1, 10, 10)
        cam[..., :5] = 1
        assert torch.equal(discriminative_region(cam, 0.3), cam[:, 0] > 0)

    def test_without_ties_it_has_the_share_that_was_asked_for(self):
        cam = torch.randperm(100).view(1, 1, 10, 10).float()
        for quantile, count in ((0.001, 1), (0.014, 1), (0.3, 30), (0.305, 30), (0.999, 100), (1.0, 100)):
            region = discriminative_region(cam, quantile)
            assert torch.equal(region, cam[:, 0] >= 100 - count)

    def test_each_map_of_a_batch_has_its_own(self):
        cam = torch.cat([maps(0), torch.zeros(1, 1, 5, 7), maps(1, levels=2)])
        alone = torch.cat([discriminative_region(one[None]) for one in cam])
        assert torch.equal(discriminative_region(cam), alone)


def test_perturbations_of_every_direction_score_the_chance_level_in_the_mean():
    delta = torch.randn(4000, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    cam = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(1)).expand(4000, -1, -1, -1)
    found = interpretability_score(delta, cam)
    chance = float(found.chance[0])
    assert chance == 19 / 64
    assert abs(float(found.score.mean()) - chance) < 0.02 * chance


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([None, 2, 5]), st.floats(1e-6, 1e6))
def test_neither_the_size_of_the_perturbation_nor_the_scale_of_the_map_matters(seed, levels, factor):
    delta, cam = torch.randn(3, 3, 5, 7, generator=torch.Generator().manual_seed(seed)), maps(seed, levels)
    expected = interpretability_curve(delta, cam, QUANTILES)
    torch.testing.assert_close(interpretability_curve(-factor * delta, cam, QUANTILES).score, expected.score)
    for monotone in (lambda f: f.double() * 3 - 7, lambda f: f.double().exp(), lambda f: f.double() ** 3):
        found = interpretability_curve(delta, monotone(cam), QUANTILES)
        assert torch.equal(found.score, expected.score)
        assert torch.equal(found.chance, expected.chance)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([None, 1, 2, 3, 10]),
    st.lists(st.floats(1e-4, 1), min_size=2, max_size=6).map(sorted),
)
def test_the_curve_never_falls_and_ends_at_1(seed, levels, quantiles):
    delta, cam = torch.randn(3, 3, 5, 7, generator=torch.Generator().manual_seed(seed)), maps(seed, levels)
    curve = interpretability_curve(delta, cam, (*quantiles, 1.0))
    assert (curve.score.diff(dim=1) >= -1e-12).all()
    assert (curve.chance.diff(dim=1) >= 0).all()
    torch.testing.assert_close(curve.score[:, -1], torch.ones(3).double())


def test_nothing_changed_has_no_score():
    delta = torch.zeros(2, 3, 4, 4)
    delta[1] = 0.1
    found = interpretability_score(delta, maps(0, shape=(2, 1, 4, 4)), 0.25)
    assert math.isnan(float(found.score[0]))
    assert float(found.score[1]) == pytest.approx(0.25)


def test_bad_parameters_are_refused():
    delta, cam = torch.rand(2, 3, 4, 4), torch.rand(2, 1, 4, 4)
    for quantile in (0.0, 1.1, -0.3, float("nan")):
        with pytest.raises(ParameterError, match="`quantile` must be a share of the pixels"):
            interpretability_score(delta, cam, quantile)
    with pytest.raises(ParameterError, match="at least one entry"):
        interpretability_curve(delta, cam, ())


def test_a_map_that_is_no_number_is_refused():
    delta, cam = torch.rand(2, 3, 4, 4), torch.rand(2, 1, 4, 4)
    cam[1, 0, 2, 2] = math.nan
    with pytest.raises(ParameterError, match="`cam` must not have NaN"):
        interpretability_score(delta, cam)


def test_maps_of_another_size_or_number_are_refused():
    delta, cam = torch.rand(2, 3, 4, 4), torch.rand(2, 1, 4, 4)
    # The tests' own check of shapes would come first.
    unchecked = inspect.unwrap(interpretability_curve)
    with pytest.raises(ParameterError, match=r"a map of \(4, 4\) pixels for each of 2 perturbations; got the shape"):
        unchecked(delta, cam[..., :3])
    with pytest.raises(ParameterError, match="`cam` must have a map"):
        unchecked(delta, cam[:1])
