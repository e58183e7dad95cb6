"""Enhancement: the six properties of the definition, and agreement with it computed pixel by pixel."""

from inspect import unwrap

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from tests.helpers.models import SmallNet, small
from tests.helpers.oracles import enhanced_by_loops
from whyfooled import (
    Classifier,
    Enhanced,
    EnhancedGuidedBackprop,
    GradCAM,
    Gradient,
    GuidedBackprop,
    count_passes,
    enhance,
)
from whyfooled.errors import ParameterError

NORMS = ("channel", "energy", "max")
VALUES = st.floats(-100, 100, width=32).map(lambda value: 0.0 if abs(value) < 1e-3 else value)
MAPS = hnp.arrays(np.float32, (1, 3, 3, 4), elements=VALUES)


@pytest.mark.parametrize("norm", NORMS)
@given(a=MAPS, b=MAPS)
def test_enhance_is_the_definition(norm, a, b):
    found = enhance(torch.from_numpy(a), torch.from_numpy(b), norm)[0].numpy()
    np.testing.assert_allclose(found, enhanced_by_loops(a[0], b[0], norm), atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
@given(a=MAPS)
def test_a_class_has_no_evidence_against_itself(norm, a):
    assert not enhance(torch.from_numpy(a), torch.from_numpy(a), norm).any()


@pytest.mark.parametrize("norm", NORMS)
@given(a=MAPS, b=MAPS)
def test_no_pixel_speaks_for_both_classes(norm, a, b):
    a, b = torch.from_numpy(a), torch.from_numpy(b)
    assert not (enhance(a, b, norm) * enhance(b, a, norm)).any()


@pytest.mark.parametrize("norm", NORMS)
@given(a=MAPS, b=MAPS)
def test_the_two_directions_differ_by_the_difference_of_the_normalised_maps(norm, a, b):
    zero = np.zeros_like(a)
    normalised = [enhance(torch.from_numpy(s), torch.from_numpy(zero), norm) for s in (a, b)]
    a, b = torch.from_numpy(a), torch.from_numpy(b)
    torch.testing.assert_close(enhance(a, b, norm) - enhance(b, a, norm), normalised[0] - normalised[1])


class Scaled(nn.Module):
    def __init__(self, module, factors):
        super().__init__()
        self.module = module
        self.register_buffer("factors", torch.tensor(factors))

    def forward(self, x):
        return self.module(x) * self.factors


@pytest.mark.parametrize("norm", NORMS)
@settings(max_examples=15, deadline=None)
@given(factor=st.floats(0.05, 50), other=st.floats(0.05, 50))
def test_scaling_a_logit_changes_nothing(norm, factor, other):
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    y, t = torch.tensor([0, 1]), torch.tensor([2, 3])
    method = EnhancedGuidedBackprop(norm)
    plain = method(small(), x, y, contrast=t)
    scaled = Classifier(Scaled(SmallNet(), [factor, factor, other, other, 1.0]), (0.5,) * 3, (0.25,) * 3, (16, 16))
    found = method(scaled, x, y, contrast=t)
    assert plain.any()
    torch.testing.assert_close(found, plain, rtol=1e-3, atol=1e-5 * float(plain.max()))


@pytest.mark.parametrize("norm", NORMS)
def test_batch_size_and_order_change_nothing(norm):
    x = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    y, t = torch.tensor([0, 1, 2, 3, 4]), torch.tensor([1, 2, 3, 4, 0])
    method, classifier = EnhancedGuidedBackprop(norm), small()
    together = method(classifier, x, y, contrast=t)
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = method(classifier, x[order], y[order], contrast=t[order])
    alone = torch.cat([method(classifier, x[i : i + 1], y[i : i + 1], contrast=t[i : i + 1]) for i in range(5)])
    size = float(together.max())
    torch.testing.assert_close(shuffled, together[order], rtol=1e-4, atol=1e-5 * size)
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5 * size)


def test_a_channel_without_evidence_counts_as_zero():
    a = torch.stack([torch.ones(2, 2), torch.zeros(2, 2), -torch.ones(2, 2)]).unsqueeze(0)
    for norm in NORMS:
        found = enhance(a, torch.zeros_like(a), norm)
        assert torch.isfinite(found).all()
        assert found[0, 0].gt(0).all()
        assert not found[0, 1:].any()


def test_large_maps_do_not_overflow():
    a = torch.full((1, 1, 64, 64), 1e36)
    torch.testing.assert_close(enhance(a, torch.zeros_like(a), "energy").sum(), torch.tensor(1.0))


@pytest.mark.parametrize("norm", NORMS)
def test_it_costs_one_forward_and_two_backwards(norm):
    classifier = small()
    with count_passes(classifier) as passes:
        EnhancedGuidedBackprop(norm)(
            classifier, torch.rand(3, 3, 16, 16), torch.tensor([0, 1, 2]), contrast=torch.tensor([1, 2, 3])
        )
    assert (passes.forwards, passes.backwards) == (3, 6)


@pytest.mark.parametrize("base", [Gradient(), GuidedBackprop(), GradCAM()], ids=repr)
def test_any_base_is_enhanced_by_its_own_maps(base):
    classifier, x = small(), torch.rand(2, 3, 16, 16)
    y, t = torch.tensor([0, 1]), torch.tensor([2, 3])
    found = Enhanced(base=base)(classifier, x, y, contrast=t)
    expected = enhance(base(classifier, x, y), base(classifier, x, t))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def test_the_contrast_is_the_strongest_other_class_unless_given():
    classifier, x = small(), torch.rand(3, 3, 16, 16)
    logits = classifier.logits(x)
    first, second = logits.topk(2).indices.unbind(1)
    method = EnhancedGuidedBackprop()
    assert torch.equal(method(classifier, x, first), method(classifier, x, first, contrast=second))
    assert torch.equal(method(classifier, x, second), method(classifier, x, second, contrast=first))


def test_bad_arguments_are_named():
    # Without the shape checks of the tests, as a user calls it.
    with pytest.raises(ParameterError, match="`norm` must be one of channel, energy, max; got sum"):
        unwrap(enhance)(torch.rand(1, 3, 2, 2), torch.rand(1, 3, 2, 2), "sum")
    with pytest.raises(ParameterError, match="`contrast` must have a class for each image"):
        unwrap(Enhanced.__call__)(
            Enhanced(), small(), torch.rand(2, 3, 16, 16), torch.tensor([0, 1]), contrast=torch.tensor([0])
        )
