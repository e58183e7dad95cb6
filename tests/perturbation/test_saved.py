"""What is seen in copies of an adversarial image that were saved as pictures: those that a file gives back."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from torch import nn

from tests.helpers.models import linear
from whyfooled import Classifier
from whyfooled.perturbation.saved import JPEG_QUALITIES, classify_saved_copies


class Watched(nn.Module):
    """Keeps what it is given; its two logits say whether the mean is above a level."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        self.seen.append(images.clone())
        mean = images.mean((1, 2, 3))
        return torch.stack([0.5 - mean, mean - 0.5], 1)


def watch(channels, side=16):
    module = Watched()
    return module.seen, Classifier(module, (0.0,) * channels, (1.0,) * channels, size=(side, side))


def compress(image, quality):
    """Save as JPEG and read again, with Pillow and NumPy alone."""
    levels = (255 * image).round().byte().permute(1, 2, 0).numpy()
    file = BytesIO()
    PILImage.fromarray(levels if levels.shape[2] == 3 else levels[:, :, 0]).save(file, "JPEG", quality=quality)
    read = np.asarray(PILImage.open(file))
    return torch.from_numpy(read.copy()).view(*image.shape[1:], -1).permute(2, 0, 1) / 255


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_what_is_classified_is_what_a_file_gives_back(channels):
    image = torch.rand(1, channels, 16, 16, generator=torch.Generator().manual_seed(channels))
    seen, classifier = watch(channels)
    copies = classify_saved_copies(classifier, image)
    expected = [(255 * image[0]).round() / 255]
    if channels in (1, 3):
        expected += [compress(image[0], quality) for quality in JPEG_QUALITIES]
    torch.testing.assert_close(torch.cat(seen), torch.stack(expected))
    assert [copy.quality for copy in copies] == [None, *JPEG_QUALITIES][: len(expected)]
    for copy, own in zip(copies, expected, strict=True):
        logit = float(own.mean()) - 0.5
        assert copy.prediction == int(logit > 0)
        assert copy.probability == pytest.approx(1 / (1 + np.exp(-2 * abs(logit))), abs=1e-6)


def test_a_perturbation_under_half_a_level_is_gone_and_a_larger_one_is_not():
    clean = torch.full((1, 3, 8, 8), 100 / 255)
    weight = torch.stack([-torch.ones(192), torch.ones(192)])
    # Class 1 from a third of a level more on.
    level = 192 * (100 + 1 / 3) / 255
    classifier = linear(weight, torch.tensor([level, -level]), side=8)
    for change, png in ((0.0, 0), (0.4 / 255, 0), (0.6 / 255, 1)):
        adversarial = clean + change
        assert int(classifier.predict(adversarial)) == int(change > 0)
        assert classify_saved_copies(classifier, adversarial)[0].prediction == png
