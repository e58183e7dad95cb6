"""The regions of refined attacks, by hand and by brute force."""

from dataclasses import dataclass
from typing import ClassVar

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.models import linear, small
from whyfooled import GradCAM, Gradient, count_passes
from whyfooled.errors import ImageError, MethodError, ParameterError
from whyfooled.perturbation import Grid, Superpixels, attack_region, sensitivity
from whyfooled.registry import Card

TRUE, TARGET = torch.tensor([0, 1, 2]), torch.tensor([3, 0, 1])


@dataclass(frozen=True)
class Maps:
    """Maps known beforehand, one for each class, times the mean of the image."""

    values: tuple
    card: ClassVar[Card] = Card("maps", "Maps", "What it is told.", "nobody", "nothing")

    def __call__(self, classifier, images, classes):
        side = images.shape[-1]
        return torch.tensor(self.values).view(-1, 1, side, side)[classes] * images.mean((1, 2, 3), keepdim=True)


def pair(n=3, side=16, seed=0, scale=0.1):
    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand(n, 3, side, side, generator=generator) * 0.6 + 0.2
    delta = scale * (2 * torch.rand(n, 3, side, side, generator=generator) - 1)
    return clean, (clean + delta).clamp(0, 1)


def two_by_two(first, second, keep):
    """Return the region in images of four pixels, given the maps of the true class and of the target."""
    clean = torch.full((1, 3, 2, 2), 0.5)
    cam = Maps((tuple(first), tuple(second)))
    classifier = linear(torch.zeros(2, 12), side=2)
    one, other = torch.tensor([0]), torch.tensor([1])
    return attack_region(classifier, clean, clean + 0.1, one, other, keep=keep, cam=cam).flatten().int().tolist()


@pytest.mark.parametrize(
    ("first", "second", "keep", "expected"),
    [
        ([4.0, 1, 2, 3], [4.0, 1, 2, 3], 0.25, [1, 0, 0, 0]),
        ([4.0, 1, 2, 3], [1.0, 4, 2, 3], 0.25, [1, 1, 0, 0]),
        ([4.0, 1, 2, 3], [1.0, 4, 2, 3], 0.5, [1, 1, 0, 1]),
        ([4.0, 1, 2, 3], [4.0, 1, 2, 3], 1.0, [1, 1, 1, 1]),
        ([4.0, 1, 2, 3], [4.0, 1, 2, 3], 0.01, [1, 0, 0, 0]),  # never less than a pixel
        ([4.0, 0, 0, 0], [4.0, 0, 0, 0], 0.5, [1, 0, 0, 0]),  # what ties at the threshold is left out
        ([4.0, 4, 4, 0], [4.0, 4, 4, 0], 0.5, [1, 1, 1, 0]),  # unless nothing else is there
        ([-1.0, -2, -3, -4], [-1.0, -2, -3, -4], 0.5, [1, 1, 0, 0]),
        ([0.0, 0, 0, 0], [1.0, 4, 2, 3], 0.25, [0, 1, 0, 0]),  # a map without a shape has no place
        ([0.0, 0, 0, 0], [2.0, 2, 2, 2], 0.25, [0, 0, 0, 0]),
    ],
)
def test_it_is_where_one_of_the_two_maps_is_largest(first, second, keep, expected):
    assert two_by_two(first, second, keep) == expected


def test_the_maps_are_of_the_clean_image_for_the_true_class_and_of_the_adversarial_one_for_the_target():
    clean, adversarial = pair()
    k = round(0.2 * 256)
    maps = GradCAM()(small(), clean, TRUE), GradCAM()(small(), adversarial, TARGET)
    region = attack_region(small(), clean, adversarial, TRUE, TARGET, keep=0.2)
    for image in range(3):
        wanted = torch.zeros(256, dtype=torch.bool)
        for values in maps:
            ordered = values[image].flatten().sort(descending=True).values
            lowest = ordered[k - 1]
            wanted |= (values[image] > lowest if ordered[k] == lowest else values[image] >= lowest).flatten()
        assert torch.equal(region[image].flatten(), wanted)
    assert region.shape == (3, 1, 16, 16)


def test_a_map_of_every_channel_is_summed_over_them():
    clean, adversarial = pair(n=1)
    one, other = TRUE[:1], TARGET[:1]
    sums = [Gradient()(small(), *given).sum(1) for given in ((clean, one), (adversarial, other))]
    wanted = [values >= values.flatten().topk(77).values[-1] for values in sums]
    region = attack_region(small(), clean, adversarial, one, other, cam=Gradient())
    assert torch.equal(region[:, 0], wanted[0] | wanted[1])


def test_the_most_sensitive_regions_are_those_of_the_closed_form():
    # Each pixel of the first row of cells has an effect of its own; the second row's changes do not matter.
    weight = torch.zeros(2, 3, 4, 8)
    weight[1, :, :2] = torch.tensor([1.0, 4.0, 3.0, 2.0]).repeat_interleave(2)
    clean = torch.full((1, 3, 4, 8), 0.5)
    classifier = linear(weight.flatten(1))
    args = (classifier, clean, clean + 0.25, torch.tensor([0]), torch.tensor([1]), "sensitivity")
    for method in ("exact", "gradient"):
        for keep, cells in ((0.01, [1]), (0.25, [1, 2]), (0.4, [1, 2, 3]), (1.0, [0, 1, 2, 3])):
            region = attack_region(*args, keep=keep, regions=Grid(2), method=method)
            wanted = torch.zeros(4, 8, dtype=torch.bool)
            for cell in cells:
                wanted[:2, 2 * cell : 2 * cell + 2] = True
            assert torch.equal(region[0, 0], wanted)


@pytest.mark.parametrize("regions", [Grid(3), Superpixels(20)])
def test_the_most_sensitive_regions_by_brute_force(regions):
    clean, adversarial = pair()
    found = sensitivity(small(), clean, adversarial, TRUE, TARGET, regions)
    region = attack_region(small(), clean, adversarial, TRUE, TARGET, "sensitivity", keep=0.3, regions=regions)
    for image in range(3):
        labels, scores = found.labels[image], found.score[image]
        there = labels.unique().tolist()
        count = max(1, round(0.3 * len(there)))
        best = [r for r in sorted(there, key=lambda r: -scores[r].item())[:count] if scores[r] > 0]
        assert torch.equal(region[image, 0], torch.isin(labels, torch.tensor(best)))


def test_random_regions_are_as_many_and_anywhere():
    clean, adversarial = pair(n=40, seed=3)
    adversarial[:, :, 8:] = clean[:, :, 8:]  # the lower half is not touched
    true = small().predict(clean)
    target = (true + 1) % 5
    args = (small(), clean, adversarial, true, target)
    most, drawn, again, other = (
        attack_region(*args, where, keep=0.25, regions=Grid(4), seed=seed)
        for where, seed in (("sensitivity", 0), ("random", 0), ("random", 0), ("random", 1))
    )
    assert torch.equal(drawn.sum((1, 2, 3)), most.sum((1, 2, 3)))
    assert most.sum((1, 2, 3)).unique().numel() >= 1
    assert not most[:, :, 8:].any()
    assert torch.equal(drawn, again)
    assert not torch.equal(drawn, other)
    shares = drawn.float().mean((0, 1))
    # 40 draws of about 4 of 16 cells: each cell is there in about a quarter of them.
    assert shares.min() > 0.02
    assert shares.max() < 0.6
    assert abs(shares[8:].mean() - shares[:8].mean()) < 0.1


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), where=st.sampled_from(["cam", "sensitivity", "random"]))
def test_the_batch_does_not_matter(seed, where):
    clean, adversarial = pair(seed=seed)
    given = {"keep": 0.4, "regions": Grid(4), "seed": seed}
    together = attack_region(small(), clean, adversarial, TRUE, TARGET, where, **given)
    for i in range(3):
        part = slice(i, i + 1)
        alone = attack_region(small(), clean[part], adversarial[part], TRUE[part], TARGET[part], where, **given)
        # Rounding may exchange values that are next to equal.
        assert (together[part] ^ alone).float().mean() < 0.01


def test_where_nothing_has_an_effect_there_is_no_region():
    clean, adversarial = pair(side=8)
    indifferent = linear(torch.zeros(4, 192))
    for where in ("sensitivity", "random"):
        region = attack_region(indifferent, clean, adversarial, TRUE, TARGET, where, regions=Grid(2))
        assert not region.any()


def test_what_it_costs():
    clean, adversarial = pair()
    adversarial[0, :, 4:] = clean[0, :, 4:]
    for where, forwards in (("cam", 6), ("sensitivity", 3 + 4 + 16 + 16), ("random", 3 + 4 + 16 + 16)):
        classifier = small()
        with count_passes(classifier) as passes:
            attack_region(classifier, clean, adversarial, TRUE, TARGET, where, regions=Grid(4))
        assert passes.forwards == forwards


def test_bad_parameters_are_named(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    clean, adversarial = pair()
    args = (small(), clean, adversarial, TRUE, TARGET)
    for where in ("cam", "sensitivity", "random"):
        for keep in (0.0, 1.01, float("nan")):
            with pytest.raises(ParameterError, match="`keep` must be above 0 and at most 1"):
                attack_region(*args, where, keep=keep)
        with pytest.raises(ImageError, match="no perturbation to explain"):
            attack_region(small(), clean, clean, TRUE, TARGET, where, regions=Grid(4))
        with pytest.raises(ParameterError, match="`target` must be another class than the true one"):
            attack_region(small(), clean, adversarial, TRUE, TRUE, where, regions=Grid(4))
    with pytest.raises(ParameterError, match="`where` must be one of cam, sensitivity, random; got nowhere"):
        attack_region(*args, "nowhere")
    with pytest.raises(ParameterError, match="`cell` must fit into the image of 16 × 16 pixels; got 17"):
        attack_region(*args, "random", regions=Grid(17))
    with pytest.raises(ParameterError, match=r"`cam` must be a saliency method, such as GradCAM\(\); got 'gradcam'"):
        attack_region(*args, cam="gradcam")
    with pytest.raises(MethodError, match="Grad-CAM needs a layer"):
        attack_region(linear(torch.zeros(4, 768)), *args[1:])
