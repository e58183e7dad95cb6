"""How far an attack moves units: by hand, against NumPy, and what must not change it."""

import math

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.helpers.models import blind, resnet20, small
from whyfooled import Classifier
from whyfooled.classifier.layers import activations, choose_layers
from whyfooled.classifier.passes import count_passes
from whyfooled.errors import ImageError, ModelError, ParameterError
from whyfooled.units.sensitivity import PairMoves, pair_moves, unit_sensitivity


class Affine(nn.Module):
    """Each channel times a number plus a number; the logits do not matter, and never look like probabilities."""

    def __init__(self, scale=(1.0, 1.0, 1.0), shift=(0.0, 0.0, 0.0)):
        super().__init__()
        self.units = nn.Conv2d(3, 3, 1)
        self.units.weight.data = torch.diag(torch.tensor(scale)).view(3, 3, 1, 1)
        self.units.bias.data = torch.tensor(shift)

    def forward(self, x):
        return nn.functional.pad(self.units(x).mean((2, 3)), (0, 1), value=-1.0)


def affine(*args, side=4):
    return Classifier(Affine(*args).eval(), size=(side, side))


def pairs(count=5, side=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand(count, 3, side, side, generator=generator)
    return clean, (clean + 0.1 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)


def test_distance_deviation_and_sensitivity_by_hand():
    clean = torch.zeros(2, 3, 2, 2)
    # Unit 0: eight values 0 0 0 0 1 1 1 1, of deviation 1/2. Unit 1: one 1 among eight. Unit 2: nothing.
    clean[1, 0] = 1
    clean[0, 1, 0, 0] = 1
    changed = clean.clone()
    changed[0, 0] = 0.5
    changed[1, 1, 0] = 0.25
    found = unit_sensitivity(affine(side=2), "units", clean, changed)
    deviation = math.sqrt(1 / 8 - 1 / 64)
    moves = found.moves["units"]
    assert moves.distance.tolist() == [[1.0, 0.0, 0.0], [0.0, pytest.approx(math.sqrt(2) / 4), 0.0]]
    assert moves.mean.tolist() == [[0.0, 0.25, 0.0], [1.0, 0.0, 0.0]]
    assert moves.std().tolist() == pytest.approx([0.5, deviation, 0.0])
    assert found["units"].tolist() == pytest.approx([1.0, math.sqrt(2) / 8 / deviation, 0.0])


def test_a_unit_that_nothing_but_the_attack_moves_is_infinitely_sensitive():
    clean = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    clean[:, 1] = 0.3
    changed = clean.clone()
    changed[0, 1, 2, 2] = 0.4
    found = unit_sensitivity(affine(), "units", clean, changed)
    assert found["units"].tolist() == [0, math.inf, 0]


@pytest.mark.parametrize("value", [0.1, 0.7, 1 / 3, 1000.1])
def test_what_rounding_leaves_of_a_constant_is_no_deviation(value):
    clean, changed = pairs(7, side=5)
    found = unit_sensitivity(affine((1.0, 0.0, 1.0), (0.0, value, value), side=5), "units", clean, changed)
    std = found.moves["units"].std()
    assert std[1] == 0
    assert found["units"][1] == 0
    assert float(std[2]) == pytest.approx(float(clean[:, 2].double().std(correction=0)), rel=1e-3)


def test_it_is_numpys_answer_on_a_network_layer_by_layer():
    classifier = resnet20()
    clean, changed = pairs(7, side=32)
    found = unit_sensitivity(classifier, ["stem", "blocks.*"], clean, changed, batch_size=3)
    assert [layer.name for layer in found.layers] == ["stem", *(f"blocks.{number}" for number in range(9))]
    before, after = activations(classifier, found.layers, clean), activations(classifier, found.layers, changed)
    for layer in found.layers:
        a, b = (one[layer.name].numpy().astype("float64") for one in (before, after))
        expected = [
            np.mean([np.linalg.norm(b[image, unit] - a[image, unit]) for image in range(7)]) / a[:, unit].std()
            for unit in range(layer.units)
        ]
        np.testing.assert_allclose(found[layer.name], expected, rtol=1e-3)


def test_a_table_has_a_row_for_each_unit():
    clean, changed = pairs()
    found = unit_sensitivity(small(side=4), ["first", "second"], clean, changed)
    frame = found.to_frame()
    assert frame["layer"].tolist() == ["first"] * 12 + ["second"] * 16
    assert frame["unit"].tolist() == [*range(12), *range(16)]
    np.testing.assert_array_equal(frame["sensitivity"][12:], found["second"])
    np.testing.assert_allclose(frame["distance"] / frame["std"], frame["sensitivity"])


BATCH = st.integers(1, 6)


@given(size=BATCH, order=st.permutations(range(5)))
@settings(max_examples=25, deadline=None)
def test_neither_batches_nor_the_order_of_the_pairs_matter(size, order):
    clean, changed = pairs()
    classifier = small(side=4)
    whole = unit_sensitivity(classifier, "second", clean, changed, batch_size=5)
    found = unit_sensitivity(classifier, "second", clean[order], changed[order], batch_size=size)
    torch.testing.assert_close(found["second"], whole["second"], rtol=1e-5, atol=1e-7)
    distance = whole.moves["second"].distance[order]
    torch.testing.assert_close(found.moves["second"].distance, distance, rtol=1e-4, atol=1e-6)


@given(
    scale=st.lists(st.floats(0.01, 100) | st.floats(-100, -0.01), min_size=3, max_size=3),
    shift=st.lists(st.floats(-10, 10), min_size=3, max_size=3),
)
@settings(max_examples=40, deadline=None)
def test_a_unit_that_is_scaled_or_lifted_is_as_sensitive_as_before(scale, shift):
    clean, changed = pairs()
    expected = unit_sensitivity(affine(), "units", clean, changed)["units"]
    found = unit_sensitivity(affine(scale, [a * b for a, b in zip(scale, shift, strict=True)]), "units", clean, changed)
    # A shift of ten leaves single precision six digits of values near one.
    torch.testing.assert_close(found["units"], expected, rtol=1e-4, atol=1e-4)


@given(factor=st.floats(0.01, 1))
@settings(max_examples=20, deadline=None)
def test_a_linear_units_sensitivity_grows_with_the_perturbation(factor):
    clean, changed = pairs()
    whole = unit_sensitivity(affine(), "units", clean, changed)["units"]
    part = unit_sensitivity(affine(), "units", clean, clean + factor * (changed - clean))["units"]
    torch.testing.assert_close(part, factor * whole, rtol=1e-3, atol=1e-5)


def test_images_that_are_not_changed_move_nothing():
    clean, _ = pairs()
    assert not unit_sensitivity(small(side=4), "*", clean, clean.clone())["second"].any()


def test_pairs_can_be_measured_apart_and_put_together():
    clean, changed = pairs()
    classifier = small(side=4)
    layers = choose_layers(classifier, "*")
    whole = pair_moves(classifier, layers, clean, changed)["first"]
    parts = [pair_moves(classifier, layers, clean[part], changed[part])["first"] for part in (slice(2), slice(2, 5))]
    joined = PairMoves.join(parts)
    for name in ("distance", "mean", "square"):
        torch.testing.assert_close(getattr(joined, name), getattr(whole, name), rtol=1e-5, atol=1e-7)
    assert whole.distance.dtype == torch.float64
    # The distance is that of the pair, the deviation that of all: a mean over pairs, but not of the parts' results.
    torch.testing.assert_close(joined.relative(), joined.distance / joined.std())


def test_progress_is_told():
    clean, changed = pairs()
    seen = []
    unit_sensitivity(small(side=4), "*", clean, changed, batch_size=2, progress=lambda *told: seen.append(told))
    assert seen == [(2, 5, "units"), (4, 5, "units"), (5, 5, "units")]


def test_two_forward_passes_a_pair():
    clean, changed = pairs()
    classifier = small(side=4)
    layers = choose_layers(classifier, "*")
    with count_passes(classifier) as passes:
        pair_moves(classifier, layers, clean, changed)
    assert (passes.forwards, passes.backwards) == (10, 0)


def test_no_hook_stays_and_no_gradient_is_left():
    clean, changed = pairs()
    classifier = small(side=4)
    with pytest.raises(ModelError):
        unit_sensitivity(classifier, "*", clean[:, :, :0], changed[:, :, :0], batch_size=2)
    unit_sensitivity(classifier, "*", clean.requires_grad_(), changed)
    assert not any(part._forward_hooks for part in classifier.modules())
    assert clean.grad is None
    assert all(parameter.grad is None for parameter in classifier.parameters())


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (
            {"layers": "secnd"},
            ParameterError,
            r"or match some; got 'secnd'. Did you mean",
        ),
        ({"layers": "head"}, ParameterError, "whose output is"),
        ({"layers": []}, ParameterError, "`layers` must have at least one entry"),
        ({"adversarial": torch.zeros(4, 3, 4, 4)}, ImageError, "must have the shape of the clean ones"),
        ({"adversarial": torch.full((5, 3, 4, 4), 2.0)}, ImageError, "finite values in"),
        ({"clean": torch.zeros(0, 3, 4, 4), "adversarial": torch.zeros(0, 3, 4, 4)}, ImageError, "no pair of images"),
        ({"batch_size": 0}, ParameterError, "`batch_size` must be at least 1"),
        ({"classifier": blind(4)}, ModelError, "No layer of this model"),
        ({"classifier": nn.Identity()}, ParameterError, "`classifier` must be a Classifier"),
    ],
)
def test_bad_input_is_refused(change, error, said, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    clean, changed = pairs()
    whole = {"classifier": small(side=4), "layers": "*", "clean": clean, "adversarial": changed} | change
    with pytest.raises(error, match=said):
        unit_sensitivity(**whole)


def test_what_rounding_leaves_of_a_constant_unit_is_no_deviation():
    value = torch.tensor([0.1, 1e4 / 3, 1.0], dtype=torch.float64)
    square = value.square() * (1 + torch.tensor([4e-16, 1e-13, 1e-8], dtype=torch.float64))
    moves = PairMoves(torch.tensor([[0.0, 0.0, 1.0]] * 2, dtype=torch.float64), value.expand(2, 3), square.expand(2, 3))
    assert moves.std()[:2].tolist() == [0, 0]
    assert float(moves.std()[2]) == pytest.approx(1e-4, rel=1e-4)
    assert moves.relative()[:, :2].tolist() == [[0, 0]] * 2
