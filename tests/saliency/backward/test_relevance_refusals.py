"""What relevance has no rule for is refused by name; a plain gradient never stands in for it."""

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.helpers.middles import Middle, maps_of
from whyfooled import LRP, Classifier
from whyfooled.errors import MethodError


def elsewhere(a):
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.sum(a, 1, keepdim=True)))
    thread.start()
    thread.join()
    return a + found[0]


UNRULED = {
    "softplus": (F.softplus, "Softplus"),
    "sigmoid": (torch.sigmoid, "Sigmoid"),
    "softmax": (lambda a: a.softmax(1), "Softmax"),
    "swish for each channel": (
        lambda a: a * torch.sigmoid(a * torch.arange(1, 17).to(a).view(16, 1, 1)),
        "product of signals",
    ),
    "square": (lambda a: (a - 0.1) * (a - 0.1), "product of signals"),
    "power": (lambda a: (a - 0.1) ** 2, "Pow"),
    "norm": (lambda a: a / a.sum(1, keepdim=True), "division by a signal"),
    "linear attention": (lambda a: a @ a.mT, "product of two signals"),
    "attention with dropout": (lambda a: F.scaled_dot_product_attention(a, a, a, dropout_p=0.5), "dropout"),
    "own statistics": (lambda a: F.batch_norm(a, None, None, training=True), "batch's own statistics"),
    "local response": (lambda a: F.local_response_norm(a, 3), "division by a signal"),
    "dropout that is on": (lambda a: F.dropout(a, 0.5), "dropout that is on"),
    "transposed convolution": lambda a: F.conv_transpose2d(a, torch.ones(16, 16, 2, 2).to(a), stride=2),
    "bicubic": (lambda a: F.interpolate(a, scale_factor=2, mode="bicubic"), "Bicubic"),
    "clamp above 0": (lambda a: a.clamp(0.1, 1), "Clamp"),
    "hidden in a slice": (lambda a: in_slice(a + 0), "sigmoid_"),
    "another thread": (elsewhere, "Sum"),
}


def in_slice(a):
    a[:, :4].sigmoid_()
    return a


@pytest.mark.parametrize("name", UNRULED)
def test_what_has_no_rule_is_refused_by_name(name):
    case = UNRULED[name]
    function, match = case if isinstance(case, tuple) else (case, name)
    with pytest.raises(MethodError, match=match):
        maps_of(lambda a: function(a.relu()), LRP())


def test_a_scripted_model_is_refused():
    traced = torch.jit.trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten()), torch.rand(1, 3, 4, 4))
    with pytest.raises(MethodError, match="scripted"):
        LRP()(Classifier(traced), torch.rand(1, 3, 4, 4), torch.tensor([0]))


def test_relevance_that_overflows_is_an_error_and_no_map():
    torch.manual_seed(0)
    with pytest.raises(MethodError, match=r"too large for torch\.float32"):
        LRP("alpha-beta", alpha=1e30, first="same")(
            Classifier(Middle(F.relu)), torch.rand(1, 3, 8, 8), torch.tensor([0])
        )


def test_a_model_that_overwrites_the_input_of_a_layer_is_refused():
    convolution = nn.Conv2d(16, 16, 3, padding=1).double().requires_grad_(False)

    def overwrite(a):
        a = a.relu()
        a += convolution(a)
        return a

    with pytest.raises(MethodError, match="in place"):
        maps_of(overwrite, LRP())
