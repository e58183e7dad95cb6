"""Maps of several methods: each as by itself, with the passes of those that are made of the same."""

import pytest
import torch

from tests.helpers.models import small
from whyfooled import Enhanced, Gradient, GuidedBackprop, InputXGradient, count_passes
from whyfooled.saliency.pairs import pair_maps

METHODS = [
    InputXGradient(),
    Gradient(),
    Enhanced(base=InputXGradient()),
    Enhanced(base=Gradient()),
    Gradient(output="probability"),
    GuidedBackprop(),
]


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("create_graph", [True, False])
def test_every_map_is_what_the_method_gives_by_itself(both, create_graph):
    classifier = small()
    images = torch.rand(2, classifier.channels, *classifier.size, generator=torch.Generator().manual_seed(0))
    images.requires_grad_(create_graph)
    classes, contrast = torch.tensor([0, 1]), torch.tensor([1, 2])
    for method, maps in pair_maps(METHODS, classifier, images, classes, contrast, both=both, create_graph=create_graph):
        if isinstance(method, Enhanced):
            alone = [
                method(classifier, images, first, contrast=second)
                for first, second in ((classes, contrast), (contrast, classes))
            ]
        else:
            alone = [method(classifier, images, which) for which in (classes, contrast)]
        torch.testing.assert_close(maps.detach(), torch.stack(alone[: 1 + both], dim=1))
        assert maps.requires_grad == create_graph


def test_what_is_made_of_the_gradient_takes_its_passes_alone():
    classifier = small()
    images = torch.rand(2, classifier.channels, *classifier.size, generator=torch.Generator().manual_seed(0))
    with count_passes(classifier) as passes:
        list(pair_maps(METHODS[:4], classifier, images, torch.tensor([0, 1]), torch.tensor([1, 2])))
    assert (passes.forwards, passes.backwards) == (2, 4)
