"""What a module may give in place of a tensor (n, classes), and what is said where the logits are not to be found."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.helpers.models import SmallNet
from whyfooled import (
    CAM,
    FGSM,
    LRP,
    Classifier,
    DeepFool,
    Enhanced,
    GradCAM,
    Gradient,
    Targeted,
    Untargeted,
    mask_units,
    run_attack,
)
from whyfooled.classifier.resizing import resizing
from whyfooled.errors import ModelError, ParameterError

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LOGITS = SmallNet()(IMAGES).detach()


class Giving(nn.Module):
    """A small network, and something that is made of its logits."""

    def __init__(self, make, classes=5):
        super().__init__()
        self.net, self.make = SmallNet(classes), make

    def forward(self, x):
        return self.make(self.net(x))


def classifier_of(make, output=None, classes=5):
    return Classifier(Giving(make, classes), size=(8, 8), output=output)


class TestWhere:
    @pytest.mark.parametrize(
        ("make", "output"),
        [
            (lambda z: SimpleNamespace(logits=z, hidden_states=None), None),
            (lambda z: {"logits": z, "features": 2 * z}, None),
            (lambda z: (2 * z, z), 1),
            (lambda z: [z, 2 * z], -2),
            (lambda z: {"out": z, "aux": 2 * z}, "out"),
            (lambda z: SimpleNamespace(scores=z), "scores"),
            (lambda z: {"heads": [2 * z, {"scores": z}]}, lambda given: given["heads"][1]["scores"]),
            (lambda z: z[:, :, None, None], None),
            (lambda z: z.unsqueeze(2), None),
            (lambda z: (z[:, :, None, None],), 0),
        ],
    )
    def test_logits_are_found(self, make, output):
        classifier = classifier_of(make, output)
        assert torch.equal(classifier.logits(IMAGES), LOGITS)
        # And whatever is made of the classifier finds them too.
        masked = mask_units(classifier, {"net.second": [0]})
        other = classifier_of(make, output).float32()
        half = Classifier(Giving(make).double(), size=(8, 8), output=output).float32()
        assert masked.logits(IMAGES).shape == LOGITS.shape
        assert torch.allclose(half.logits(IMAGES), other.logits(IMAGES), atol=1e-6)
        twice = resizing(classifier, Classifier(SmallNet(), size=(16, 16)).fit)
        assert twice.logits(torch.rand(2, 3, 16, 16)).shape == LOGITS.shape
        assert torch.equal(resizing(classifier, Classifier(SmallNet(), size=8).fit).logits(IMAGES), LOGITS)

    @pytest.mark.parametrize(
        ("make", "output", "said"),
        [
            (
                lambda z: (z, 2 * z),
                None,
                "The model must return one tensor of logits; got tuple with 0: a tensor (2, 5), 1: a tensor (2, 5). "
                "Say where the logits are, such as Classifier(module, output=0).",
            ),
            (
                lambda z: {"aux": None, "out": z},
                None,
                "The model must return one tensor of logits; got dict with 'aux': NoneType, 'out': a tensor (2, 5). "
                "Say where the logits are, such as Classifier(module, output='out').",
            ),
            (
                lambda z: None,
                None,
                "The model must return one tensor of logits; got NoneType. Say where the logits are, such as "
                "Classifier(module, output=lambda answer: answer.scores), or wrap it in a module that returns the "
                "logits alone.",
            ),
            (
                lambda z: {"out": z},
                "logit",
                "`output` must be in what the model returns; got 'logit'. The model returned dict with 'out': a tensor "
                "(2, 5).",
            ),
            (
                lambda z: (z,),
                1,
                "`output` must be in what the model returns; got 1. The model returned tuple with 0: a tensor (2, 5).",
            ),
            (
                lambda z: z,
                0,
                "`output` must be in what the model returns; got 0. The model returned a tensor (2, 5).",
            ),
            (
                lambda z: {"out": [z]},
                "out",
                "`output` must lead to one tensor of logits; 'out' of what the model returned is list with 0: a tensor "
                "(2, 5). The model returned dict with 'out': list.",
            ),
            (
                lambda z: {"out": z},
                lambda given: given["aux"],
                "The function `output` failed on what the model returned: KeyError: 'aux'. The model returned dict "
                "with 'out': a tensor (2, 5).",
            ),
        ],
    )
    def test_what_cannot_be_found_is_named_with_what_there_is(self, make, output, said):
        with pytest.raises(ModelError) as refused:
            classifier_of(make, output).logits(IMAGES)
        assert str(refused.value) == said

    @pytest.mark.parametrize("output", [True, 1.5, ["out"]])
    def test_where_is_a_name_a_place_or_a_function(self, output, monkeypatch):
        monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
        with pytest.raises(ParameterError, match=r"`output` must say where the logits are .*; got "):
            classifier_of(lambda z: z, output)

    @pytest.mark.parametrize("shape", [(3, 4), (2, 4, 2, 1), (1, 4), (), (2, 0), (3,)])
    def test_another_shape_than_rows_of_logits_is_refused(self, shape):
        classifier = classifier_of(lambda z: z.new_zeros(shape))
        with pytest.raises(ModelError) as refused:
            classifier(IMAGES)
        assert str(refused.value) == (
            "The model must return logits of the shape (n, classes) for n=2 images, or (n, 1) for two classes; "
            f"got {shape}."
        )


class Line(nn.Module):
    """One logit z = 3 a − b − 1 of two grey pixels a and b: class 1 if it is above 0."""

    def __init__(self, shape, end=lambda z: z):
        super().__init__()
        self.linear, self.shape, self.end = nn.Linear(2, 1), shape, end
        self.linear.weight.data = torch.tensor([[3.0, -1.0]])
        self.linear.bias.data = torch.tensor([-1.0])

    def forward(self, x):
        return self.end(self.linear(x.flatten(1))).view(-1, *self.shape)


PIXELS = torch.tensor([0.6, 0.4]).view(1, 1, 1, 2)
"""Where z is 0.4."""


@pytest.mark.parametrize("end", [lambda z: z, torch.sigmoid], ids=["logit", "sigmoid"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1)], ids=str)
class TestOneLogit:
    """Two classes by one logit z: −z/2 for class 0, z/2 for class 1."""

    def make(self, shape, end):
        return Classifier(Line(shape, end), [0.0], [1.0], (1, 2), ["no", "yes"])

    def test_the_logits_are_half_of_it_with_both_signs(self, shape, end):
        classifier = self.make(shape, end)
        assert classifier.logits(PIXELS)[0].tolist() == pytest.approx([-0.2, 0.2], abs=1e-6)
        assert classifier.logits(PIXELS).softmax(1)[0, 1].item() == pytest.approx(1 / (1 + math.exp(-0.4)))
        assert (classifier.class_name(int(classifier.predict(PIXELS))), classifier.class_count()) == ("yes", 2)
        assert classifier.predict(torch.tensor([[0.4, 0.6], [0.6, 0.4]]).view(2, 1, 1, 2)).tolist() == [0, 1]

    def test_the_maps_of_the_classes_are_each_others_negative(self, shape, end):
        classifier, both = self.make(shape, end), torch.tensor([[0, 1]])
        maps = Gradient()(classifier, PIXELS, both)[0, :, 0, 0]
        assert maps[0].tolist() == pytest.approx([-1.5, 0.5])
        assert maps[1].tolist() == pytest.approx([1.5, -0.5])

    def test_a_contrast_is_what_speaks_for_one_and_not_for_the_other(self, shape, end):
        # Of class 1 the positive part is (1.5, 0), of class 0 (0, 0.5): each divided by its sum, then subtracted.
        classifier, enhanced = self.make(shape, end), Enhanced(base=Gradient())
        no, yes = torch.tensor([0]), torch.tensor([1])
        assert enhanced(classifier, PIXELS, yes, contrast=no).flatten().tolist() == pytest.approx([1, 0])
        assert enhanced(classifier, PIXELS, no).flatten().tolist() == pytest.approx([0, 1])

    def test_the_margin_is_the_logit(self, shape, end):
        logits, yes = self.make(shape, end).logits(PIXELS), torch.tensor([1])
        assert Untargeted(yes).margin(logits).item() == pytest.approx(0.4, abs=1e-6)
        assert Targeted(1 - yes).margin(logits).item() == pytest.approx(0.4, abs=1e-6)
        assert Untargeted(yes).loss(logits).item() == pytest.approx(0.4, abs=1e-6)

    def test_attacks_cross_the_line_where_it_is_nearest(self, shape, end):
        classifier, goal = self.make(shape, end), Untargeted(torch.tensor([1]))
        stepped = run_attack(FGSM(epsilon=0.2), classifier, PIXELS, goal)
        assert stepped.adversarial.flatten().tolist() == pytest.approx([0.4, 0.6])
        nearest = run_attack(DeepFool(), classifier, PIXELS, goal)
        assert nearest.success.all()
        # |z| / ‖w‖, with the overshoot of 2 % that the last bisection mostly takes back.
        distance = (nearest.adversarial - PIXELS).norm().item()
        assert 0.4 / math.sqrt(10) <= distance <= 1.021 * 0.4 / math.sqrt(10)


def enlarge(maps):
    return nn.functional.interpolate(maps[:, None], (8, 8), mode="bilinear")[:, 0]


def test_every_kind_of_map_is_half_of_the_one_logits():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = nn.Conv2d(3, 6, 3, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        net = nn.Sequential(*parts, nn.Linear(6, 1, bias=False))
    classifier, yes, z = Classifier(net, size=8), torch.ones(2, dtype=torch.int64), net(IMAGES)[:, 0]
    relevance = LRP()(classifier, IMAGES, yes)
    assert torch.allclose(relevance.sum((1, 2, 3)), z / 2, rtol=1e-4)
    features, weight = net[:2](IMAGES), net[-1].weight[0]
    expected = (features * weight.view(-1, 1, 1) / 2).sum(1)
    cam = CAM()(classifier, IMAGES, torch.tensor([[0, 1], [0, 1]])).sum(2)
    assert torch.allclose(cam[:, 1], -cam[:, 0])
    assert torch.corrcoef(torch.stack([enlarge(expected).flatten(), cam[:, 1].flatten()]))[0, 1] > 0.99
    assert GradCAM()(classifier, IMAGES, yes).shape == (2, 1, 8, 8)
