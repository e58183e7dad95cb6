"""What holds for every penalty, whichever it is."""

import dataclasses
import threading

import jaxtyping
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import whyfooled.defences
from tests.helpers.quick_methods import EVERY_PENALTY
from tests.helpers.untouched import state
from whyfooled import Classifier
from whyfooled.defences import PENALTIES, Penalty
from whyfooled.errors import ImageError, MethodError, ModelError, ParameterError
from whyfooled.registry import available, describe, parameter_texts, parameters, parse

PENALTY = pytest.mark.parametrize("penalty", EVERY_PENALTY, ids=describe)
CLASSES = 4


class Normed(nn.Module):
    """Two convolutions with batch norm and dropout, in training; its running statistics are those of no batch."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first, self.second = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3)
            self.norm = nn.BatchNorm2d(6)
            nn.init.uniform_(self.norm.running_mean, -0.2, 0.2)
            nn.init.uniform_(self.norm.running_var, 0.2, 0.6)
            nn.init.uniform_(self.norm.weight, 0.5, 1.5)
            self.dropout = nn.Dropout(0.3)
            self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        x = self.dropout(F.relu(self.norm(self.first(x))))
        return self.head(F.relu(self.second(x)).mean((2, 3)))


def draw(count=5, seed=1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, 8, 8, generator=generator, dtype=torch.float64).to(dtype)
    return images, torch.randint(CLASSES, (count,), generator=generator)


def slopes(loss, network):
    found = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
    pairs = zip(found, network.parameters(), strict=True)
    return torch.cat([torch.zeros_like(p).flatten() if slope is None else slope.flatten() for slope, p in pairs])


def test_every_penalty_of_the_package_is_in_the_list():
    public = {v for v in vars(whyfooled.defences).values() if isinstance(v, type) and issubclass(v, Penalty)}
    assert public - {Penalty} == set(PENALTIES) == {type(penalty) for penalty in EVERY_PENALTY}
    assert set(PENALTIES) <= set(available("penalties").values())


@PENALTY
def test_it_is_a_frozen_dataclass_that_describes_itself(penalty):
    assert dataclasses.is_dataclass(penalty)
    assert type(penalty).__dataclass_params__.frozen
    card = type(penalty).card
    assert all([card.name, card.title, card.summary.endswith("."), card.source, card.cost])
    assert list(parameter_texts(type(penalty))) == list(parameters(type(penalty)))
    assert parse("penalties", describe(penalty)) == penalty


@PENALTY
def test_the_gradient_of_the_parameters_is_that_of_finite_differences(penalty):
    network, (images, labels) = Normed().double(), draw(dtype=torch.float64)
    found, step = slopes(penalty(network, images, labels), network), 1e-6
    directions = torch.randn(3, len(found), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for direction in directions:
        ends = []
        for sign in (1, -1):
            moved = Normed().double()
            moved.load_state_dict(network.state_dict())
            values = nn.utils.parameters_to_vector(moved.parameters()) + sign * step * direction
            nn.utils.vector_to_parameters(values, moved.parameters())
            with torch.no_grad():
                ends.append(float(penalty(moved, images, labels)))
        assert float(found @ direction) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-4)


@PENALTY
def test_it_falls_along_its_gradient(penalty):
    network, (images, labels) = Normed(), draw(6)
    optimiser = torch.optim.SGD(network.parameters(), 0.02)
    before = float(penalty(network, images, labels).detach())
    for _ in range(5):
        optimiser.zero_grad()
        penalty(network, images, labels).backward()
        optimiser.step()
    assert float(penalty(network, images, labels).detach()) < before


@PENALTY
def test_it_is_the_weight_times_the_mean_over_images(penalty):
    network, (images, labels) = Normed(), draw()
    (weighted,) = [dataclasses.replace(penalty, weight=2.5)]
    each = penalty.measure(Classifier(network), images, labels)
    assert each.shape == (5,)
    assert (each >= 0).all()
    torch.testing.assert_close(weighted(network, images, labels), 2.5 * each.mean())
    for number in range(5):
        alone = penalty.measure(Classifier(network), images[[number]], labels[[number]])
        torch.testing.assert_close(alone, each[[number]], rtol=1e-4, atol=1e-6)


@PENALTY
def test_the_order_of_a_batch_changes_nothing(penalty):
    network, (images, labels) = Normed(), draw()
    order = torch.tensor([3, 0, 4, 2, 1])
    one, other = penalty(network, images, labels), penalty(network, images[order], labels[order])
    torch.testing.assert_close(other, one)
    torch.testing.assert_close(slopes(other, network), slopes(one, network), rtol=1e-3, atol=1e-6)


def train(penalty, steps=3):
    """Train a network, with a penalty or None, before the loss is computed; return what it is then."""
    network, (images, labels) = Normed().train(), draw(12)
    optimiser = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        for _ in range(steps):
            optimiser.zero_grad()
            added = 0 if penalty is None else penalty(network, images, labels)
            (F.cross_entropy(network(images), labels) + added).backward()
            optimiser.step()
    return network.state_dict()


def equal(one, other):
    return all(torch.equal(one[key], value) for key, value in other.items())


@PENALTY
def test_at_weight_0_training_is_plain_to_the_bit(penalty):
    plain = train(None)
    assert equal(train(dataclasses.replace(penalty, weight=0.0)), plain)
    assert not equal(train(penalty), plain)


@PENALTY
def test_the_loss_beside_it_is_the_same_to_the_bit(penalty):
    alone, beside, (images, labels) = Normed().train(), Normed().train(), draw(12)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        expected = F.cross_entropy(alone(images), labels)
        torch.manual_seed(3)
        penalty(beside, images, labels)
        loss = F.cross_entropy(beside(images), labels)
    assert torch.equal(loss, expected)
    assert equal(beside.state_dict(), alone.state_dict())
    assert state(beside) == state(alone)


@PENALTY
def test_training_between_it_and_its_gradient_changes_nothing(penalty):
    # Batch norm writes its running statistics in place, and reads them on the way back.
    network, (images, labels) = Normed().train(), draw(12)
    expected = slopes(penalty(network, images, labels), network)
    added = penalty(network, images, labels)
    network(5 * images)
    assert torch.equal(slopes(added, network), expected)


@PENALTY
def test_a_classifier_normalises_and_a_module_is_given_images(penalty):
    class Normalising(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = Normed()

        def forward(self, x):
            return self.inside((x - 0.5) / 0.25)

    images, labels = draw()
    found = penalty(Classifier(Normed(), (0.5,) * 3, (0.25,) * 3), images, labels)
    torch.testing.assert_close(found, penalty(Normalising(), images, labels))
    assert not torch.allclose(found, penalty(Normed(), images, labels))


@PENALTY
def test_it_works_on_a_weight_norm_and_one_channel(penalty):
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).train()
    with pytest.warns(FutureWarning):
        network[0] = nn.utils.weight_norm(network[0])
    images, labels = draw(4)
    network(images[:, :1])
    penalty(network, images[:, :1], labels % 3).backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters() if parameter.grad is not None)
    assert network[0].weight_v.grad.any()


@PENALTY
def test_the_number_alone_is_to_be_had_without_a_gradient(penalty):
    network, (images, labels) = Normed(), draw()
    expected = penalty(network, images, labels)
    network.requires_grad_(False)
    with torch.no_grad():
        found = penalty(network, images, labels)
    torch.testing.assert_close(found, expected.detach())
    assert not found.requires_grad


@PENALTY
def test_no_image_has_no_penalty(penalty):
    images, labels = draw()
    assert float(penalty(Normed(), images[:0], labels[:0])) == 0


def refuse(penalty, kind, sentence, network=None, images=None, labels=None):
    given = draw()
    with pytest.raises(kind) as caught:
        penalty(network or Normed(), given[0] if images is None else images, given[1] if labels is None else labels)
    assert str(caught.value) == sentence


@PENALTY
def test_what_cannot_work_is_refused_in_a_sentence(penalty, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    images, labels = draw()
    refuse(
        penalty,
        ParameterError,
        "The penalty must have a parameter to train, and none of this network's requires a gradient. Call "
        "module.requires_grad_(True), or, for the number alone, the penalty inside torch.no_grad().",
        Normed().requires_grad_(False),
    )
    refuse(
        penalty,
        ImageError,
        "Images must have finite values in [0, 1]; got values from -1 to 1. Normalisation belongs to the network: give "
        "Classifier(module, mean=..., std=...).",
        images=torch.tensor([-1.0, 1.0]).repeat(5, 3, 8, 4),
    )
    refuse(penalty, ParameterError, "`classifier` must be a Classifier, or a module; got function.", lambda x: x)
    refuse(
        penalty,
        ParameterError,
        "`labels` must have a class for each image; got the shape (5, 4).",
        labels=F.one_hot(labels, CLASSES),
    )
    refuse(
        penalty,
        ParameterError,
        "`classes` must be class indices from 0 to 3; got values from 4 to 4.",
        labels=0 * labels + 4,
    )
    several = Classifier(Normed(), several_labels=True)
    with pytest.raises(ModelError, match=r"^The model gives several labels at once"):
        penalty(several, images, labels)
    with torch.inference_mode(), pytest.raises(MethodError, match=r"inference_mode\(\)\. Leave it"):
        penalty(Normed(), images, labels)


@PENALTY
@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused(penalty, weight):
    with pytest.raises(ParameterError, match=r"^`weight` must be a finite number, at least 0; got "):
        dataclasses.replace(penalty, weight=weight)


@PENALTY
def test_a_network_that_cannot_be_copied_is_refused(penalty):
    network = Normed()
    network.lock = threading.Lock()
    with pytest.raises(ModelError, match=r"^The network cannot be copied, so that training cannot change its batch"):
        penalty(network, *draw())
