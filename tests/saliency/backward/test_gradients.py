"""What every gradient needs: a path from the images to the logits, and images of the model's kind."""

from inspect import unwrap

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers.models import SmallNet, small
from whyfooled import LRP, Classifier, Gradient
from whyfooled.errors import MethodError, ModelError, ParameterError
from whyfooled.saliency import METHODS
from whyfooled.saliency.backward.gradients import check_pairs

NO_PATH = {
    "frozen": torch.no_grad(),
    "detached": torch.Tensor.detach,
    "numpy": lambda x: torch.from_numpy(x.detach().numpy()),
    "rounded": lambda x: (255 * x).long() / 255,
}
# Methods that take no gradient, or one from a layer or from attention on, which may be cut off before it.
WITHOUT = {"lime", "prediction-difference", "cam", "gradcam", "gradcampp", "attention-rollout", "attention-relevance"}
TAKING = [method() for method in METHODS if method.card.name not in WITHOUT]


class Cut(nn.Module):
    """A small network, cut off at its input. Its head has gradients all the same."""

    def __init__(self, cut):
        super().__init__()
        self.cut, self.net = cut, SmallNet()

    def forward(self, x):
        if isinstance(self.cut, torch.no_grad):
            with torch.no_grad():
                x = self.net.first(x)
            return self.net.head(self.net.second(x.relu()).relu().mean((2, 3)))
        return self.net(self.cut(x))


@pytest.mark.parametrize("cut", NO_PATH)
@pytest.mark.parametrize("method", TAKING, ids=lambda method: method.card.name)
def test_a_model_that_cuts_the_gradient_off_is_named(method, cut):
    classifier = Classifier(Cut(NO_PATH[cut]).eval(), size=(16, 16))
    with pytest.raises(ModelError, match=r"logits do not depend on the images by operations .* such as torch\.no_grad"):
        method(classifier, torch.rand(1, 3, 16, 16), torch.tensor([1]))


@pytest.mark.parametrize("method", [Gradient(), LRP()])
def test_inference_mode_is_named(method):
    x, y = torch.rand(1, 3, 16, 16), torch.tensor([1])
    with torch.inference_mode(), pytest.raises(MethodError, match=r"inside torch\.inference_mode\(\)\. Leave it"):
        method(small(), x, y)
    with torch.no_grad():
        assert method(small(), x, y).any()


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.zeros((1, 3, 16, 16), dtype=np.float32), "`images` must be a tensor; got ndarray. Make a tensor of them"),
        (
            torch.zeros(1, 3, 16, 16, dtype=torch.uint8),
            r"got torch.uint8. Values are in \[0, 1\]: images.float\(\) / 255",
        ),
    ],
)
def test_images_of_another_kind_are_named(images, said):
    with pytest.raises(ParameterError, match=said):
        unwrap(check_pairs)(images, torch.tensor([1]))


def test_a_model_of_another_precision_is_named():
    x, y = torch.rand(1, 3, 16, 16), torch.tensor([1])
    half, single = small(), small()
    half.half()
    with pytest.raises(ModelError, match=r"double precision for maps; its parameters are torch.float16. Run a copy"):
        Gradient()(half, x, y)
    for act in (lambda: Gradient()(single, x.double(), y), lambda: single.logits(x.double())):
        with pytest.raises(
            ParameterError, match=r"`images` must be torch.float32, as .* got torch.float64. Give images"
        ):
            act()


class Casting(nn.Module):
    """Brings its input to its own precision."""

    def __init__(self):
        super().__init__()
        self.net = SmallNet()

    def forward(self, x):
        return self.net(x.float())


def test_a_model_that_casts_its_input_takes_any():
    classifier = Classifier(Casting().eval(), size=(16, 16))
    images = torch.rand(1, 3, 16, 16)
    assert classifier.logits(images.double()).tolist() == classifier.logits(images).tolist()
