"""Sensitivity, on classifiers whose answer is known."""

import math

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.helpers.models import linear, small
from whyfooled import Classifier, count_passes
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.folding import quicken
from whyfooled.classifier.windows import find_windows
from whyfooled.errors import ImageError, ParameterError
from whyfooled.perturbation import KINDS, Grid, Superpixels, region_labels, sensitivity

INERT, SUPPRESSION, PROMOTION, BALANCED = range(4)


def pair(n=3, side=8, seed=0, scale=0.1):
    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand(n, 3, side, side, generator=generator) * 0.6 + 0.2
    delta = scale * (2 * torch.rand(n, 3, side, side, generator=generator) - 1)
    return clean, (clean + delta).clamp(0, 1)


def weights(classes=4, side=8, seed=1):
    return torch.randn(classes, 3 * side * side, generator=torch.Generator().manual_seed(seed))


TRUE, TARGET = torch.tensor([0, 1, 2]), torch.tensor([3, 0, 1])


def closed_form(weight, clean, adversarial, classes, cell):
    """The change of each class's logit by cell, of a linear classifier, cell by cell in plain loops."""
    n, _, side, _ = clean.shape
    effect = weight[classes].view_as(clean) * (adversarial - clean)
    starts = range(0, side, cell)
    cells = [effect[:, :, i : i + cell, j : j + cell].sum((1, 2, 3)) for i in starts for j in starts]
    return torch.stack(cells, dim=1).view(n, -1)


@pytest.mark.parametrize("method", ["exact", "gradient"])
@pytest.mark.parametrize("cell", [2, 3, 8])
def test_on_a_linear_classifier_everything_is_the_closed_form(method, cell):
    weight, (clean, adversarial) = weights(), pair()
    found = sensitivity(linear(weight), clean, adversarial, TRUE, TARGET, Grid(cell), method=method)
    true = closed_form(weight, clean, adversarial, TRUE, cell)
    target = closed_form(weight, clean, adversarial, TARGET, cell)
    drop, gain = (-true).clamp_min(0), target.clamp_min(0)
    torch.testing.assert_close(found.true_change, true, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.true_drop, drop, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.target_gain, gain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.score, drop + gain, atol=1e-5, rtol=1e-5)
    both = (drop > 0.05) & (gain > 0.05)
    assert cell == 8 or both.any()
    # A difference of logits has lost digits that its logarithm shows; the test below has none to lose.
    tolerance = 1e-5 if method == "gradient" else 2e-4
    torch.testing.assert_close(found.ratio[both], (gain / drop).log2()[both], atol=tolerance, rtol=tolerance)
    assert found.sizes.sum(1).tolist() == [64] * 3


@pytest.mark.parametrize("method", ["exact", "gradient"])
def test_the_ratio_is_exact_to_five_digits_where_logits_are(method):
    # Powers of two, so that no rounding stands between the classifier and the closed form.
    weight = torch.zeros(2, 12)
    weight[0, 0], weight[1, 0] = -4.0, 12.0
    weight[0, 1], weight[1, 1] = -8.0, 0.0
    clean = torch.full((1, 3, 2, 2), 0.5)
    adversarial = clean.clone()
    adversarial[0, 0, 0] += 0.25
    classifier = linear(weight, side=2)
    found = sensitivity(
        classifier, clean, adversarial, torch.tensor([0]), torch.tensor([1]), Grid(1), method=method, floor=2**-9
    )
    assert found.true_drop.tolist() == [[1.0, 2.0, 0.0, 0.0]]
    assert found.target_gain.tolist() == [[3.0, 0.0, 0.0, 0.0]]
    # The floor is 4 · 2⁻⁹ logits.
    torch.testing.assert_close(found.ratio, torch.tensor([[math.log2(3), -8.0, 0.0, 0.0]]), atol=1e-6, rtol=1e-6)
    assert found.kind.tolist() == [[PROMOTION, SUPPRESSION, INERT, INERT]]
    assert found.suppression_share.item() == pytest.approx(0.5)
    torch.testing.assert_close(found.effect_by_kind, torch.tensor([[0, 1 / 3, 2 / 3, 0]]))
    assert [found.carriers(share).item() for share in (0.5, 2 / 3, 0.67, 1.0)] == [1, 1, 2, 2]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e3))
def test_kinds_and_ratios_do_not_change_with_the_scale_of_the_logits(seed, scale):
    weight, (clean, adversarial) = weights(seed=seed), pair(seed=seed)
    one, other = (
        sensitivity(linear(factor * weight), clean, adversarial, TRUE, TARGET, Grid(3), method="gradient")
        for factor in (1.0, scale)
    )
    torch.testing.assert_close(one.ratio, other.ratio, atol=1e-3, rtol=1e-3)
    assert (one.kind == other.kind).float().mean() > 0.97


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_region_with_one_effect_only_is_never_called_balanced(seed):
    weight, (clean, adversarial) = weights(seed=seed), pair(seed=seed)
    found = sensitivity(linear(weight), clean, adversarial, TRUE, TARGET, Grid(1), method="gradient")
    alone = (found.true_drop == 0) != (found.target_gain == 0)
    assert alone.any()
    assert not (found.kind[alone] == BALANCED).any()


def test_kinds_follow_the_thresholds():
    weight = torch.zeros(2, 12)
    # true drop, target gain of the four pixels: (1, 2.1), (2.1, 1), (1, 1.9), (0.01, 0.01)
    weight[0, :4] = -torch.tensor([1, 2.1, 1, 0.01])
    weight[1, :4] = torch.tensor([2.1, 1, 1.9, 0.01])
    clean = torch.zeros(1, 3, 2, 2)
    adversarial = clean.clone()
    adversarial[0, 0] = 1
    found = sensitivity(
        linear(weight, side=2), clean, adversarial, torch.tensor([0]), torch.tensor([1]), Grid(1), inert=0.01
    )
    assert [KINDS[code] for code in found.kind[0].tolist()] == ["promotion", "suppression", "balanced", "inert"]
    frame = found.to_frame()
    assert frame["kind"].tolist() == ["promotion", "suppression", "balanced", "inert"]
    assert frame["pixels"].tolist() == [1] * 4
    assert frame["true_drop"].tolist() == pytest.approx([1, 2.1, 1, 0.01], abs=1e-6)


@pytest.mark.parametrize("method", ["exact", "gradient"])
def test_only_the_region_that_the_perturbation_touches_is_not_inert(method):
    clean, _ = pair(side=16)
    adversarial = clean.clone()
    for image, (row, column) in enumerate([(0, 0), (5, 9), (15, 15)]):
        adversarial[image, :, row, column] += 0.2
    # The classes that the change speaks against and for, so that it has an effect.
    change = small().logits(adversarial) - small().logits(clean)
    found = sensitivity(small(), clean, adversarial, change.argmin(1), change.argmax(1), Grid(5), method=method)
    assert found.touched.sum(1).tolist() == [1, 1, 1]
    assert (found.kind != INERT).equal(found.touched)
    assert found.kind.shape == (3, 16)
    assert torch.equal(found.touched.nonzero()[:, 1], torch.tensor([0, 5, 15]))


def test_regions_that_the_perturbation_does_not_touch_cost_nothing():
    clean, _ = pair(side=16)
    adversarial = clean.clone()
    adversarial[0, 0, 0, 0] += 0.1
    adversarial[1, :, :, :5] += 0.1
    adversarial[2] += 0.1
    classifier = small()
    with count_passes(classifier) as passes:
        sensitivity(classifier, clean, adversarial, TRUE, TARGET, Grid(5), batch_size=7)
    assert (passes.forwards, passes.backwards) == (3 + 1 + 4 + 16, 0)
    with count_passes(classifier) as passes:
        sensitivity(classifier, clean, adversarial, TRUE, TARGET, Grid(5), method="gradient")
    assert (passes.forwards, passes.backwards) == (3, 6)


def test_no_more_images_than_asked_for_are_evaluated_at_once():
    clean, adversarial = pair(side=16)
    classifier, seen = small(), []
    classifier.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    for cell, batch_size in ((1, 5), (16, 5), (4, 2)):
        sensitivity(classifier, clean, adversarial, TRUE, TARGET, Grid(cell), batch_size=batch_size)
        assert max(seen) <= batch_size
        seen.clear()


def test_exchanging_the_images_and_the_classes_mirrors_the_roles():
    weight, (clean, adversarial) = weights(), pair()
    one = sensitivity(linear(weight), clean, adversarial, TRUE, TARGET, Grid(3))
    other = sensitivity(linear(weight), adversarial, clean, TARGET, TRUE, Grid(3))
    torch.testing.assert_close(one.true_drop, other.target_gain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(one.target_gain, other.true_drop, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(one.ratio, -other.ratio, atol=1e-2, rtol=1e-3)
    mirrored = torch.tensor([INERT, PROMOTION, SUPPRESSION, BALANCED])[other.kind]
    assert (mirrored == one.kind).float().mean() > 0.95


def test_the_first_order_effects_add_up_to_the_gradient_along_the_perturbation():
    clean, adversarial = pair(side=16)
    classifier = small()
    found = sensitivity(classifier, clean, adversarial, TRUE, TARGET, Grid(5), method="gradient")
    for change, classes in ((found.true_change, TRUE), (found.target_change, TARGET)):
        leaf = adversarial.clone().requires_grad_()
        logits = classifier(leaf).gather(1, classes.unsqueeze(1)).sum()
        slope = torch.autograd.grad(logits, leaf)[0]
        torch.testing.assert_close(change.sum(1), (slope * (adversarial - clean)).sum((1, 2, 3)), atol=1e-5, rtol=1e-4)


def test_on_a_linear_classifier_they_add_up_to_the_whole_change_of_the_logits():
    weight, (clean, adversarial) = weights(), pair()
    classifier = linear(weight)
    found = sensitivity(classifier, clean, adversarial, TRUE, TARGET, Grid(3), method="gradient")
    change = classifier(adversarial) - classifier(clean)
    torch.testing.assert_close(found.true_change.sum(1), change.gather(1, TRUE[:, None])[:, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        found.target_change.sum(1), change.gather(1, TARGET[:, None])[:, 0], atol=1e-5, rtol=1e-5
    )


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), batch_size=st.integers(1, 40))
def test_the_batch_does_not_matter(seed, batch_size):
    clean, adversarial = pair(side=16, seed=seed)
    classifier = small()
    together = sensitivity(classifier, clean, adversarial, TRUE, TARGET, Grid(6), batch_size=batch_size)
    for i in range(3):
        part = slice(i, i + 1)
        alone = sensitivity(classifier, clean[part], adversarial[part], TRUE[part], TARGET[part], Grid(6))
        torch.testing.assert_close(together.true_change[part], alone.true_change, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(together.target_change[part], alone.target_change, atol=1e-5, rtol=1e-4)


def test_by_brute_force_on_a_network():
    clean, adversarial = pair(side=16)
    classifier = small()
    found = sensitivity(classifier, clean, adversarial, TRUE, TARGET, Grid(6), batch_size=4)
    reference = classifier(adversarial)
    for image in range(3):
        for region in range(9):
            row, column = 6 * (region // 3), 6 * (region % 3)
            without = adversarial[image].clone()
            where = (slice(None), slice(row, row + 6), slice(column, column + 6))
            without[where] = clean[image][where]
            change = (reference[image] - classifier(without.unsqueeze(0))[0]).detach()
            assert found.true_change[image, region].item() == pytest.approx(change[TRUE[image]].item(), abs=1e-5)
            assert found.target_change[image, region].item() == pytest.approx(change[TARGET[image]].item(), abs=1e-5)


def test_first_order_ranks_regions_as_the_exact_way_does_for_small_perturbations():
    clean, adversarial = pair(side=16, scale=0.002)
    exact, first = (
        sensitivity(small(), clean, adversarial, TRUE, TARGET, Grid(4), method=method)
        for method in ("exact", "gradient")
    )
    assert (exact.rank_correlation(first) > 0.95).all()
    assert torch.allclose(exact.rank_correlation(exact), torch.ones(3, dtype=torch.float64))
    with pytest.raises(ParameterError, match="must have scores of the shape"):
        exact.rank_correlation(sensitivity(small(), clean, adversarial, TRUE, TARGET, Grid(6), method="gradient"))


def test_superpixels_and_label_maps_are_regions():
    clean, adversarial = pair(side=16)
    maps = Superpixels(12)(clean)
    by_rule = sensitivity(small(), clean, adversarial, TRUE, TARGET, Superpixels(12))
    by_maps = sensitivity(small(), clean, adversarial, TRUE, TARGET, maps)
    torch.testing.assert_close(by_rule.true_change, by_maps.true_change)
    halves = torch.zeros(16, 16, dtype=torch.int64)
    halves[:, 8:] = 3  # a number may be left out
    found = sensitivity(small(), clean, adversarial, TRUE, TARGET, halves)
    assert found.sizes.tolist() == [[128, 0, 0, 128]] * 3
    assert (found.kind[:, 1:3] == INERT).all()
    frame = found.to_frame()
    assert frame[["image", "region", "row", "column"]].to_numpy().tolist() == [
        [image, region, 7.5, column] for image in range(3) for region, column in ((0, 3.5), (3, 11.5))
    ]
    assert repr(found) == "Sensitivity(3 images of 4 regions)"
    assert torch.equal(found.on_image(found.l2)[:, 0, 8], found.l2[:, 3])


@pytest.mark.parametrize(("side", "cell", "cells"), [(224, 13, 18), (32, 2, 16), (299, 17, 18), (4, 1, 4)])
def test_a_grid_takes_the_papers_part_of_the_image(side, cell, cells):
    images = torch.zeros(2, 3, side, side)
    assert torch.equal(Grid()(images), Grid(cell)(images))
    assert Grid()(images).max() == cells**2 - 1


def test_the_norms_of_the_parts_are_those_of_the_whole():
    clean, adversarial = pair(side=16)
    found = sensitivity(small(), clean, adversarial, TRUE, TARGET, Grid(5), method="gradient")
    delta = adversarial - clean
    torch.testing.assert_close(found.l2.square().sum(1).sqrt(), delta.flatten(1).norm(dim=1))
    torch.testing.assert_close(found.linf.amax(1), delta.flatten(1).abs().amax(1))
    torch.testing.assert_close(found.l2[1, 0], delta[1, :, :5, :5].norm())


def test_progress_counts_the_evaluations():
    clean, adversarial = pair(side=16)
    seen = []
    sensitivity(
        small(), clean, adversarial, TRUE, TARGET, Grid(8), batch_size=5, progress=lambda *step: seen.append(step)
    )
    assert seen == [(5, 15, "regions"), (10, 15, "regions"), (15, 15, "regions")]


def test_what_cannot_be_explained_is_said(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    clean, adversarial = pair(side=16)
    same = adversarial.clone()
    same[1] = clean[1]
    with pytest.raises(ImageError, match=r"the same for image 1 of the batch.*no perturbation to explain"):
        sensitivity(small(), clean, same, TRUE, TARGET, Grid(4))
    with pytest.raises(ImageError, match=r"must have the shape of the clean ones, \(3, 3, 16, 16\)"):
        sensitivity(small(), clean, adversarial[..., :15], TRUE, TARGET, Grid(4))
    with pytest.raises(ParameterError, match="`target` must be another class than the true one; got the same for"):
        sensitivity(small(), clean, adversarial, TRUE, torch.tensor([3, 1, 1]), Grid(4))
    with pytest.raises(ParameterError, match="`cell` must fit into the image of 16 × 16 pixels; got 17"):
        sensitivity(small(), clean, adversarial, TRUE, TARGET, Grid(17))
    with pytest.raises(ParameterError, match="`cell` must be at least 1"):
        Grid(0)
    with pytest.raises(ParameterError, match="`count` must be at least 2"):
        Superpixels(1)
    with pytest.raises(ParameterError, match="`count` must be at most 64 superpixels for these images; got 65"):
        sensitivity(small(), clean, adversarial, TRUE, TARGET, Superpixels(65))
    with pytest.raises(ParameterError, match=r"`regions` must have the shape \(16, 16\), or \(3, 16, 16\)"):
        sensitivity(small(), clean, adversarial, TRUE, TARGET, torch.zeros(8, 8, dtype=torch.int64))
    for bad in (torch.full((16, 16), -1), torch.full((16, 16), 256), torch.zeros(16, 16)):
        with pytest.raises(ParameterError, match="`regions` must be whole numbers from 0 to 255"):
            sensitivity(small(), clean, adversarial, TRUE, TARGET, bad)
    with pytest.raises(ParameterError, match="`true` must have a class for each of the 3 images; got 2"):
        sensitivity(small(), clean, adversarial, TRUE[:2], TARGET, Grid(4))
    with pytest.raises(ParameterError, match="`classes` must be class indices from 0 to 4"):
        sensitivity(small(), clean, adversarial, TRUE, torch.tensor([3, 5, 1]), Grid(4))
    for name, value in (("inert", 1.5), ("floor", 0.0), ("floor", 0.003), ("method", "guess"), ("batch_size", 0)):
        with pytest.raises(ParameterError, match=f"`{name}`"):
            sensitivity(small(), clean, adversarial, TRUE, TARGET, Grid(4), **{name: value})
    found = sensitivity(small(), clean, adversarial, TRUE, TARGET, Grid(4))
    with pytest.raises(ParameterError, match="`share`"):
        found.carriers(0)


def test_classes_and_regions_of_another_kind_are_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    clean, adversarial = pair(side=16)
    with pytest.raises(ParameterError, match="`true` must be a tensor of class indices; got list"):
        sensitivity(small(), clean, adversarial, [0, 1, 2], TARGET, Grid(4))
    for bad in (TARGET.float(), TARGET.unsqueeze(1)):
        with pytest.raises(ParameterError, match="`target` must be a vector of class indices"):
            sensitivity(small(), clean, adversarial, TRUE, bad, Grid(4))
    for regions in (torch.zeros(16, 16).numpy(), None):
        with pytest.raises(ParameterError, match="`regions` must be a Grid, Superpixels, or a tensor"):
            sensitivity(small(), clean, adversarial, TRUE, TARGET, regions)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.uint16])
def test_label_maps_may_be_of_any_whole_numbers(dtype):
    # 200 is more than fits into int8, and 256 (the pixels) more than fits into uint8.
    numbers = torch.zeros(16, 16, dtype=torch.int64)
    numbers[8:] = 200
    labels = region_labels(numbers.to(dtype), torch.zeros(2, 3, 16, 16))
    assert torch.equal(labels, numbers.expand(2, -1, -1))


@pytest.mark.parametrize("regions", [Grid(4), Superpixels(8), torch.zeros(16, 16, dtype=torch.int64)])
@pytest.mark.parametrize("method", ["exact", "gradient"])
def test_of_no_images_there_are_no_regions(method, regions):
    nothing = torch.zeros(0, 3, 16, 16)
    found = sensitivity(small(), nothing, nothing, TRUE[:0], TARGET[:0], regions, method=method)
    assert found.score.shape == (0, 0)
    assert found.kind.shape == (0, 0)
    assert found.effect_by_kind.shape == (0, 4)
    assert found.rank_correlation(found).shape == (0,)
    assert len(found.to_frame()) == 0


@pytest.mark.parametrize("method", ["exact", "gradient"])
def test_images_that_require_a_gradient_get_numbers_without_one(method):
    clean, adversarial = pair(side=16)
    adversarial.requires_grad_()
    found = sensitivity(small(), clean, adversarial, TRUE, TARGET, Grid(4), method=method)
    assert not found.score.requires_grad
    assert not found.l2.requires_grad


@pytest.mark.parametrize("method", ["exact", "gradient"])
def test_a_model_in_double_precision_works(method):
    clean, adversarial = pair(side=16)
    wanted = sensitivity(small(), clean, adversarial, TRUE, TARGET, Grid(4), method=method)
    found = sensitivity(small().double(), clean, adversarial, TRUE, TARGET, Grid(4), method=method)
    torch.testing.assert_close(found.true_change, wanted.true_change, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(found.target_change, wanted.target_change, atol=1e-5, rtol=1e-3)


def test_nothing_about_the_classifier_changes():
    clean, adversarial = pair(side=16)
    classifier = small()
    classifier.module.train()
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    for method in ("exact", "gradient"):
        sensitivity(classifier, clean, adversarial, TRUE, TARGET, Grid(4), method=method)
    assert classifier.module.training
    assert all(torch.equal(before[name], tensor) for name, tensor in classifier.state_dict().items())
    assert all(parameter.grad is None for parameter in classifier.parameters())


def test_windows_around_regions_change_no_effect():
    torch.manual_seed(0)
    body = (nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 5, padding=2), nn.ReLU())
    module = nn.Sequential(*body, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4)).eval()
    classifier = Classifier(module, (0.5, 0.4, 0.3), (0.2, 0.3, 0.2), size=(100, 96))
    clean = torch.rand(2, 3, 100, 96)
    adversarial = (clean + 0.05 * torch.randn(clean.shape)).clamp(0, 1)
    true, target = torch.tensor([0, 1]), torch.tensor([2, 3])
    with one_thread():
        assert find_windows(classifier, quicken(classifier, clean), clean).layers
        for regions in (Grid(11), Superpixels(80), torch.arange(100 * 96).view(100, 96) % 70):
            found = sensitivity(classifier, clean, adversarial, true, target, regions)
            whole = classifier.logits(adversarial)
            for region in range(found.score.shape[1]):
                without = torch.where((found.labels == region).unsqueeze(1), clean, adversarial)
                changes = whole - classifier.logits(without)
                for classes, change in ((true, found.true_change), (target, found.target_change)):
                    expected = changes.gather(1, classes.unsqueeze(1))[:, 0]
                    torch.testing.assert_close(change[:, region], expected, atol=1e-5, rtol=1e-3)
