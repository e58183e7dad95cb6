"""Layers with random weights: which there are, what they are drawn from, and that the user's model stays as it was."""

import math

import pytest
import torch
from torch import nn

from tests.helpers.models import Decoding, LateStart, SmallNet, attentive, linear, resnet20, small
from tests.helpers.untouched import state
from whyfooled import Classifier
from whyfooled.classifier.randomised import list_parts, randomise, randomise_in_turn
from whyfooled.errors import MethodError, ModelError, ParameterError


def weights_of(classifier):
    return {name: weight.detach().clone() for name, weight in classifier.module.named_parameters()}


def changed(classifier, other):
    before, after = weights_of(classifier), weights_of(other)
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_parts_are_the_head_and_then_what_is_below_from_the_head_down():
    parts = list_parts(resnet20(), 3)
    assert parts[0].name == "head"
    assert parts[-1].layers[:2] == ("stem", "norm")
    layers = [layer for part in reversed(parts) for layer in part.layers]
    assert layers == [name for name, part in resnet20().module.named_modules() if list(part.parameters(recurse=False))]
    assert [len(part.layers) for part in parts] == [1, 13, 12, 13]
    assert parts[-1].name == "stem to blocks.2.second"


def test_there_are_no_more_parts_than_layers():
    assert [part.layers for part in list_parts(small(), 7)] == [("head",), ("second",), ("first",)]


def test_what_the_logits_do_not_depend_on_is_in_no_part():
    parts = list_parts(Classifier(Decoding(), size=(8, 8)), 9)
    assert [part.layers for part in parts] == [("head",), ("encoder.2",), ("encoder.0",)]


def test_weights_of_parts_that_no_image_goes_through_are_in_a_part_too():
    classifier = attentive()
    layers = {layer for part in list_parts(classifier) for layer in part.layers}
    assert "mix.self_attn.out_proj" in layers
    assert layers == {name for name, part in classifier.module.named_modules() if list(part.parameters(recurse=False))}
    assert list_parts(linear(torch.ones(2, 192)))[0].name == "the model's own"


def test_all_weights_differ_in_the_last_step_and_those_of_one_part_alone_in_the_others():
    classifier = small()
    parts = list_parts(classifier, 2)
    made = list(randomise_in_turn(classifier, parts, seed=3))
    layers = [("cascading", 1), ("cascading", 2), ("cascading", 3), ("independent", 2), ("independent", 3)]
    assert [(model.order, model.step) for model in made] == layers
    assert [{name.partition(".")[0] for name in changed(classifier, model.classifier)} for model in made] == [
        {"head"},
        {"head", "second"},
        {"head", "second", "first"},
        {"second"},
        {"first"},
    ]
    cascading, alone = weights_of(made[2].classifier), weights_of(made[4].classifier)
    assert torch.equal(cascading["first.weight"], alone["first.weight"])
    assert changed(made[2].classifier, randomise(classifier, ("head", "second", "first"), 3)) == set()
    assert "head.weight" in changed(made[0].classifier, randomise(classifier, ("head",), 4))


def test_the_users_model_stays_as_it_was_and_so_does_everybodys_random_generator():
    classifier = resnet20()
    classifier.module.train()
    before, digest, random = state(classifier.module), classifier.digest(), torch.get_rng_state()
    for made in randomise_in_turn(classifier, list_parts(classifier, 2), 0):
        made.classifier.logits(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert (state(classifier.module), classifier.digest()) == (before, digest)
    assert torch.equal(torch.get_rng_state(), random)


def test_layers_are_initialised_as_they_initialise_themselves():
    module = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.Flatten(), nn.Linear(64 * 36, 4))
    with torch.no_grad():
        for value in [*module.parameters(), *module[1].buffers()]:
            value.fill_(7)
    made = randomise(Classifier(module.eval(), size=(8, 8)), ("0", "1", "3"), 0).module
    # Kaiming's uniform distribution with a = √5, up to 1 / √fan_in; standard deviation 1 / √(3 fan_in).
    for layer, fan in ((made[0], 27), (made[3], 64 * 36)):
        assert float(layer.weight.detach().abs().max()) <= 1 / math.sqrt(fan)
        assert float(layer.weight.detach().std()) == pytest.approx(1 / math.sqrt(3 * fan), rel=0.1)
    norm = made[1]
    values = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    assert [value.detach().unique().tolist() for value in values] == [[1], [0], [0], [1]]
    assert int(norm.num_batches_tracked) == 0


def test_weights_without_an_initialisation_are_drawn_with_their_own_mean_and_spread():
    weight = 3 + 0.5 * torch.randn(10, 192, generator=torch.Generator().manual_seed(1))
    made = weights_of(randomise(linear(weight), ("",), 0))
    assert not torch.equal(made["weight"], weight)
    assert float(made["weight"].mean()) == pytest.approx(3, abs=0.05)
    assert float(made["weight"].std()) == pytest.approx(0.5, rel=0.06)
    # Nothing is known of a value of which there is no other.
    assert torch.equal(made["bias"], torch.zeros(10))


def test_parametrised_weights_are_randomised_too():
    module = nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(192, 5, bias=False)))
    classifier = Classifier(module.eval(), size=(8, 8))
    layers = [layer for part in list_parts(classifier) for layer in part.layers]
    made = randomise(classifier, layers, 0)
    assert not torch.allclose(made.module[1].weight, module[1].weight)


def test_shared_weights_stay_shared():
    class Tied(SmallNet):
        def __init__(self):
            super().__init__()
            self.again = nn.Conv2d(12, 12, 3, padding=1)
            self.more = nn.Conv2d(12, 12, 3, padding=1)
            self.more.weight = self.again.weight

        def forward(self, x):
            x = self.more(self.again(self.first(x)).relu()).relu()
            return self.head(self.second(x).relu().mean((2, 3)))

    made = randomise(Classifier(Tied().eval(), size=(8, 8)), ("again", "more"), 0).module
    alone = randomise(Classifier(Tied().eval(), size=(8, 8)), ("again",), 0).module
    assert made.more.weight is made.again.weight
    assert torch.equal(made.again.weight, alone.again.weight)


def test_an_initialisation_that_fails_or_reaches_further_does_no_harm():
    class Greedy(SmallNet):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.linspace(1, 2, 5))

        def reset_parameters(self):
            self.head.weight.data.zero_()
            raise RuntimeError("not now")

        def forward(self, x):
            return super().forward(x) * self.scale

    classifier = Classifier(Greedy().eval(), size=(8, 8))
    assert changed(classifier, randomise(classifier, ("",), 0)) == {"scale"}


def test_models_that_have_no_weights_or_cannot_be_copied_are_refused_in_a_sentence():
    with pytest.raises(MethodError, match="The model has no weights that are floating-point numbers"):
        list_parts(Classifier(LateStart(), size=(8, 8)))

    class Unique(SmallNet):
        def __deepcopy__(self, memo):
            raise RuntimeError("There is one of me")

    with pytest.raises(ModelError, match="The model cannot be copied, to randomise its weights: There is one of me"):
        randomise(Classifier(Unique().eval(), size=(8, 8)), ("head",), 0)
    with pytest.raises(ParameterError, match="`parts` must be at least 1"):
        list_parts(small(), 0)
