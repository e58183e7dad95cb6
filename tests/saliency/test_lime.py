"""LIME, where its answer is known: logits linear in what is present; and its regression against scikit-learn's form."""

import pytest
import torch

from tests.helpers.models import linear, small
from whyfooled import LIME, count_passes
from whyfooled.errors import ParameterError
from whyfooled.saliency.lime import fit, make_superpixels, mean_colours
from whyfooled.tensors.fills import filled
from whyfooled.tensors.randomness import image_generators


def picture(seed=0, side=24):
    """Make a coarse pattern, so that superpixels have something to follow."""
    coarse = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=(side, side))


@pytest.mark.parametrize("fill", ["superpixel", "zero", "mean", "noise", "blur"])
def test_coefficients_of_logits_linear_in_presence_are_exact(fill):
    x, y = picture(), torch.tensor([[1, 3], [0, 2]])
    weight = torch.randn(4, 3 * 24 * 24, generator=torch.Generator().manual_seed(1))
    method = LIME(samples=80, superpixels=20, fill=fill, ridge=0.0)
    found = method(linear(weight, torch.arange(4.0), side=24), x, y)
    assert found.shape == (2, 2, 1, 24, 24)
    for i in range(2):
        parts = make_superpixels(x[i], 20)
        assert 10 < parts.max() < 40
        # What is hidden: noise comes before what is drawn next from the same generator.
        hidden = mean_colours(x[i], parts) if fill == "superpixel" else filled(x, fill, image_generators(x, 0))[i]
        for k in range(2):
            terms = (weight[y[i, k]].view(3, 24, 24) * (x[i] - hidden)).sum(0)
            expected = torch.zeros(24, 24)
            for part in parts.unique():
                expected[parts == part] = terms[parts == part].sum()
            torch.testing.assert_close(found[i, k, 0], expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_the_fit_is_weighted_ridge_regression_with_a_free_constant():
    generator = torch.Generator().manual_seed(0)
    z = torch.rand(40, 6, generator=generator) < 0.5
    z[0], z[1] = True, False
    y = torch.randn(40, 2, generator=generator, dtype=torch.float64)
    whole = torch.ones(6, dtype=torch.float64)
    weights = []
    for row in z.double():
        cosine = row @ whole / (row.norm() * whole.norm()) if row.any() else torch.tensor(0.0)
        weights.append(torch.exp(-((1 - cosine) ** 2) / 0.4**2).sqrt())
    w = torch.stack(weights).double().diag()
    design = torch.cat([z.double(), torch.ones(40, 1, dtype=torch.float64)], 1)
    penalty = torch.diag(torch.tensor([2.0] * 6 + [0.0], dtype=torch.float64))
    expected = torch.linalg.solve(design.T @ w @ design + penalty, design.T @ w @ y)[:6].T
    torch.testing.assert_close(fit(z, y, 0.4, 2.0), expected)


def test_a_map_has_one_value_in_each_superpixel_and_finds_the_part_that_matters():
    x = picture()
    weight = torch.zeros(2, 3, 24, 24)
    weight[0, :, 4:8, 12:16] = 1
    found = LIME(samples=100, superpixels=36, fill="zero")(linear(weight.flatten(1), side=24), x, torch.tensor([0, 0]))
    for i in range(2):
        parts = make_superpixels(x[i], 36)
        assert all(len(found[i, 0][parts == part].unique()) == 1 for part in parts.unique())
        touched = parts[4:8, 12:16].unique()
        best = found[i, 0].flatten().argmax()
        assert parts.flatten()[best] in touched


def test_superpixels_do_not_depend_on_values_outside_the_range():
    x = picture()[0]
    x[:, :4, :4] = 1
    assert torch.equal(make_superpixels(x + 0.5 * (x == 1), 20), make_superpixels(x, 20))


def test_all_classes_share_the_passes():
    classifier = small()
    with count_passes(classifier) as passes:
        LIME(samples=9)(classifier, torch.rand(3, 3, 16, 16), torch.tensor([[0, 1], [2, 3], [0, 4]]))
    assert (passes.forwards, passes.backwards) == (27, 0)


@pytest.mark.parametrize(
    ("text", "make"),
    [
        ("`samples` must be at least 2; got 1", lambda: LIME(samples=1)),
        ("`superpixels` must be at least 2; got 1", lambda: LIME(superpixels=1)),
        ("`kernel_width` must be a finite number above 0; got 0", lambda: LIME(kernel_width=0)),
        ("`ridge` must be a finite number, at least 0; got -1", lambda: LIME(ridge=-1.0)),
    ],
)
def test_bad_parameters_are_named(text, make):
    with pytest.raises(ParameterError, match=text):
        make()
