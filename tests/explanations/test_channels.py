"""Images of any number of channels, through an explanation and every page of it."""

import pytest
import torch
from PIL import Image
from torch import nn

from whyfooled import BIM, Classifier, UniversalPerturbation, explain, explain_perturbation
from whyfooled.errors import ImageError


def classifier_of(channels):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(channels, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
        module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(6, 3))
    return Classifier(module, mean=[0.5] * channels, std=[0.25] * channels, size=(12, 12))


@pytest.mark.parametrize("channels", [1, 2, 16])
def test_every_page_is_written_whatever_the_channels(channels, tmp_path):
    classifier = classifier_of(channels)
    image = torch.rand(1, channels, 12, 12, generator=torch.Generator().manual_seed(1))
    trust = UniversalPerturbation(0.01 * (image[0] - 0.5), epsilon=1.0)
    explanation = explain(classifier, image, attack=BIM(epsilon=0.3), methods=["gradcam"], trust=trust)
    explanation.save(tmp_path / "whole")
    pair = explain_perturbation(classifier, image, explanation.adversarial.unsqueeze(0))
    pair.save(tmp_path / "pair")
    assert "<iframe" in explanation._repr_html_()
    notes = [note for note in (*explanation.notes, *pair.notes) if f"have {channels} channels" in note]
    assert len(notes) == (0 if channels == 1 else 2)
    with Image.open(tmp_path / "whole" / "pictures" / "clean.png") as picture:
        assert (picture.mode, picture.size) == ("RGB", (12, 12))
        assert picture.getpixel((5, 7))[0] == round(255 * float(image[0, :, 7, 5].mean()))


@pytest.mark.parametrize("channels", [2, 5])
def test_a_photograph_for_other_channels_is_refused_before_any_work(channels):
    stages = []
    with pytest.raises(ImageError, match=f"3 channels, or 1 in grey; {channels} cannot be made of it"):
        explain(
            classifier_of(channels), Image.new("RGB", (12, 12)), progress=lambda done, total, what: stages.append(what)
        )
    assert not stages
