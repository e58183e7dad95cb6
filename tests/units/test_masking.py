"""A classifier without some units: what it computes, what it shares, and what it leaves alone."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.helpers.forked import CommandProcess
from tests.helpers.models import SmallNet, resnet20, small
from whyfooled import BIM, Classifier, GradCAM, Gradient, GuidedBackprop, Targeted, count_passes, run_attack
from whyfooled.classifier.layers import activations, choose_layers, list_layers
from whyfooled.errors import ModelError, ParameterError
from whyfooled.saliency import LRP, DeepLIFT
from whyfooled.units.masking import mask_units


def noise(count=3, side=16, seed=0):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def by_hand(net, images, first=(), second=()):
    """Run a `SmallNet` with some units' maps replaced by 0."""
    before = net.first((images - 0.5) / 0.25).clone()
    before[:, list(first)] = 0
    after = net.second(F.relu(before)).clone()
    after[:, list(second)] = 0
    return net.head(F.relu(after).mean((2, 3)))


class Parts(nn.Module):
    """Makes a module of a list of them, with a linear head on the mean over places."""

    def __init__(self, *parts, units=6):
        super().__init__()
        self.body = nn.Sequential(*parts)
        self.head = nn.Linear(units, 4)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


def made(*parts, units=6, side=8):
    torch.manual_seed(0)
    return Classifier(Parts(*parts, units=units).eval(), size=(side, side), name="made")


def test_masked_units_give_zero_and_the_rest_is_as_computed_by_hand():
    classifier, images = small(), noise()
    masked = mask_units(classifier, {"first": [0, 5], "second": torch.tensor([3])})
    expected = by_hand(classifier.module, images, first=(0, 5), second=(3,))
    torch.testing.assert_close(masked(images), expected)
    found = activations(masked, choose_layers(masked, ["first", "second"]), images)
    assert not found["first"][:, [0, 5]].any()
    assert found["first"][:, 1].any()
    assert not found["second"][:, 3].any()


@settings(max_examples=20, deadline=None)
@given(st.sets(st.integers(0, 15), min_size=1, max_size=15))
def test_truth_values_and_numbers_are_the_same_mask(units):
    classifier, images = small(), noise(2)
    flags = torch.zeros(16, dtype=torch.bool)
    flags[list(units)] = True
    one = mask_units(classifier, {"second": sorted(units)})
    for other in (flags, flags.tolist(), torch.tensor(sorted(units) * 2, dtype=torch.int32)):
        assert mask_units(classifier, {"second": other}).digest() == one.digest()
    torch.testing.assert_close(one(images), by_hand(classifier.module, images, second=units))


def test_the_original_is_as_it_was_and_both_work_side_by_side():
    classifier, images = small(), noise()
    classifier.module.train()
    classifier.module.first.weight.grad = torch.ones_like(classifier.module.first.weight)
    logits, digest, state = classifier(images), classifier.digest(), dict(classifier.state_dict())
    masked = mask_units(classifier, {"first": [1]})
    masked(images).sum().backward()
    with pytest.raises(ModelError):
        masked.logits(torch.full_like(images, float("nan")))
    assert torch.equal(classifier(images), logits)
    assert not torch.allclose(masked(images), logits)
    assert classifier.digest() == digest != masked.digest()
    assert classifier.state_dict().keys() == state.keys()
    for part in classifier.modules():
        assert not part._forward_hooks
        assert not part._forward_pre_hooks
    assert all(part.training for part in classifier.module.modules())
    assert torch.equal(classifier.module.first.weight.grad, torch.ones_like(classifier.module.first.weight))
    assert all(p.grad is None for name, p in classifier.module.named_parameters() if name != "first.weight")
    assert masked.module.head.weight.grad is not None


def test_weights_are_in_memory_once_and_tied_ones_stay_tied():
    classifier = resnet20()
    classifier.module.blocks[1].second.weight = classifier.module.blocks[0].second.weight
    masked = mask_units(classifier, {"blocks.2": [1]})
    theirs = {name: tensor.data_ptr() for name, tensor in masked.state_dict().items()}
    ours = {name: tensor.data_ptr() for name, tensor in classifier.state_dict().items()}
    assert {name: theirs[name] for name in ours} == ours
    assert set(theirs) - set(ours) == {"module.blocks.2.whyfooled_mask"}
    assert masked.module.blocks[1].second.weight is masked.module.blocks[0].second.weight
    assert masked.module.blocks[1].second.weight is not classifier.module.blocks[1].second.weight


def test_moving_one_leaves_the_other():
    classifier = small()
    masked = mask_units(classifier, {"first": [2]}).to("meta")
    assert {tensor.device.type for tensor in (*masked.parameters(), *masked.buffers())} == {"meta"}
    assert {tensor.device.type for tensor in (*classifier.parameters(), *classifier.buffers())} == {"cpu"}


def test_its_name_says_what_is_masked_and_its_digest_tells_masks_apart():
    classifier = small()
    one = mask_units(classifier, {"second": [1, 2]})
    assert one.name == "small without 2 of 16 units of second"
    assert one.digest() == mask_units(classifier, {"second": [2, 1, 2]}).digest()
    assert one.digest() != mask_units(classifier, {"second": [1, 3]}).digest()
    both = mask_units(classifier, {"second": [1, 2], "first": [0]})
    assert both.name == "small without 3 of 28 units of 2 layers"
    assert mask_units(classifier, {"last-stage": [1, 2]}).name == one.name
    assert mask_units(classifier, {"last-stage": [1], "second": [2]}).digest() == one.digest()
    assert mask_units(classifier, {"last-stage": [1, 2], "first": [0]}).digest() == both.digest()


def test_masking_twice_is_masking_both():
    classifier, images = small(), noise()
    first = mask_units(classifier, {"second": [1]})
    twice = mask_units(first, {"second": [4], "first": [0]})
    once = mask_units(classifier, {"first": [0], "second": [1, 4]})
    assert twice.digest() == once.digest()
    assert twice.name == once.name
    assert torch.equal(twice(images), once(images))
    torch.testing.assert_close(first(images), by_hand(classifier.module, images, second=(1,)))
    assert len(twice.module.second._forward_hooks) == 1


def test_layers_have_their_names_and_sizes():
    classifier = resnet20()
    masked = mask_units(classifier, {"blocks.4": [0]})
    assert list_layers(masked) == list_layers(classifier)


def test_not_a_number_becomes_zero():
    classifier = made(nn.Conv2d(3, 6, 3), nn.ReLU())
    # Huge for what is not black: infinite, and its difference to itself NaN.
    classifier.module.body[0].weight.data[2] = 3e38
    images = torch.ones(1, 3, 8, 8)
    with pytest.raises(ModelError, match="must return finite logits"):
        classifier.logits(images)
    assert torch.isfinite(mask_units(classifier, {"body.0": [2]}).logits(images)).all()


def test_gradients_flow_around_masked_units():
    classifier, images = small(), noise()
    masked = mask_units(classifier, {"first": [0, 1], "second": [7]})
    ours = Gradient()(masked, images, torch.tensor([0, 1, 2]))
    inputs = images.clone().requires_grad_()
    logits = by_hand(classifier.module, inputs, first=(0, 1), second=(7,))
    (theirs,) = torch.autograd.grad(logits[range(3), [0, 1, 2]].sum(), inputs)
    torch.testing.assert_close(ours, theirs)
    unmasked = Gradient()(classifier, images, torch.tensor([0, 1, 2]))
    assert not torch.allclose(ours, unmasked)


@pytest.mark.parametrize("method", [GuidedBackprop(), GradCAM(), LRP(), DeepLIFT()], ids=lambda one: one.card.name)
def test_maps_are_those_of_a_network_whose_weights_are_zero_there(method):
    classifier, images = small(), noise()
    masked = mask_units(classifier, {"first": [0, 1], "second": [7]})
    zeroed = small()
    for layer, units in ((zeroed.module.first, [0, 1]), (zeroed.module.second, [7])):
        layer.weight.data[units], layer.bias.data[units] = 0, 0
    classes = torch.tensor([0, 1, 2])
    torch.testing.assert_close(method(masked, images, classes), method(zeroed, images, classes), rtol=1e-4, atol=1e-6)


def test_an_activation_in_place_after_the_layer_or_masked_itself():
    for layer in ("body.0", "body.1", "body"):
        classifier = made(nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True))
        masked, images = mask_units(classifier, {layer: [0, 3]}), noise(2, 8)
        maps = F.relu(classifier.module.body[0](images)).clone()
        maps[:, [0, 3]] = 0
        torch.testing.assert_close(masked(images), classifier.module.head(maps.mean((2, 3))))
        assert Gradient()(masked, images, torch.tensor([0, 1])).any()


def test_every_time_that_a_layer_runs():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x):
            return torch.cat([self.layer(self.layer(x)), x], 1).mean((2, 3))

    classifier = Classifier(Twice(), size=(8, 8))
    masked, images = mask_units(classifier, {"layer": [1]}), noise(2, 8)
    once = classifier.module.layer(images) * torch.tensor([1.0, 0, 1]).view(1, 3, 1, 1)
    twice = classifier.module.layer(once) * torch.tensor([1.0, 0, 1]).view(1, 3, 1, 1)
    torch.testing.assert_close(masked(images), torch.cat([twice, images], 1).mean((2, 3)))


def test_a_layer_of_several_sizes_is_refused_in_a_sentence():
    class Sizes(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, x):
            return self.layer(torch.cat([self.layer(x), x], 1)).mean((2, 3))

    said = r"must give \(n, 6, height, width\) each time that it runs; got \(1, 3, 8, 8\)"
    with pytest.raises(ModelError, match=said):
        mask_units(Classifier(Sizes(), size=(8, 8)), {"layer": [1]})


def test_the_memory_format_is_kept():
    classifier = resnet20()
    classifier.module.to(memory_format=torch.channels_last)
    masked = mask_units(classifier, {"blocks.0": [3]})
    formats = []
    masked.module.blocks[0].register_forward_hook(
        lambda part, given, output: formats.append(output.is_contiguous(memory_format=torch.channels_last))
    )
    masked(noise(2, 32).to(memory_format=torch.channels_last))
    assert formats == [True]
    assert masked.module.stem.weight.is_contiguous(memory_format=torch.channels_last)


def test_an_attack_acts_on_what_is_left():
    classifier, images = small(), noise()
    masked = mask_units(classifier, {"second": list(range(8))})
    goal = Targeted(torch.full((3,), 2))
    result = run_attack(BIM(epsilon=0.2, steps=20), masked, images, goal)
    zeroed = small()
    zeroed.module.second.weight.data[:8], zeroed.module.second.bias.data[:8] = 0, 0
    expected = run_attack(BIM(epsilon=0.2, steps=20), zeroed, images, goal)
    assert torch.equal(result.success, expected.success)
    torch.testing.assert_close(result.attempted, expected.attempted)
    before = run_attack(BIM(epsilon=0.2, steps=20), classifier, images, goal)
    assert not torch.allclose(result.attempted, before.attempted)


def test_passes_are_counted_on_each():
    classifier, images = small(), noise()
    with count_passes(classifier) as ours:
        masked = mask_units(classifier, {"first": [0]})
        before = ours.forwards
        with count_passes(masked) as theirs:
            Gradient()(masked, images, torch.tensor([0, 1, 2]))
    assert (theirs.forwards, theirs.backwards) == (3, 3)
    assert ours.forwards == before == 1


def test_a_copy_masks_too():
    masked, images = mask_units(small(), {"first": [0]}), noise()
    assert torch.equal(copy.deepcopy(masked)(images), masked(images))


def test_it_can_be_pickled_and_no_later_hook_takes_the_masks_place(tmp_path):
    # Hooks are numbered within a process: in a new one, the next hook would get the number of the one that was read.
    masked, images = mask_units(small(), {"first": [0], "second": [3]}), noise()
    torch.save((images, masked(images)), tmp_path / "expected.pt")
    (tmp_path / "masked.pickle").write_bytes(pickle.dumps(masked))
    (tmp_path / "check.py").write_text("""
import pickle, sys, torch
masked = pickle.load(open(sys.argv[1] + "/masked.pickle", "rb"))
images, expected = torch.load(sys.argv[1] + "/expected.pt")
for _ in range(10_000):
    masked.module.first.register_forward_hook(lambda part, given, output: None).remove()
torch.testing.assert_close(masked(images), expected)
assert len(masked.module.first._forward_hooks) == 1
""")
    assert CommandProcess(tmp_path, str(tmp_path), script="check.py").end() == (0, "", "")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_tensors_that_are_no_parameters_are_shared():
    classifier = made(nn.utils.weight_norm(nn.Conv2d(3, 6, 3)), nn.ReLU())
    masked, images = mask_units(classifier, {"body.0": [0]}), noise(2, 8)
    maps = classifier.module.body[0](images).clone()
    maps[:, 0] = 0
    torch.testing.assert_close(masked(images), classifier.module.head(F.relu(maps).mean((2, 3))))


@pytest.mark.parametrize(
    ("units", "said"),
    [
        ({}, "`units` must name at least one layer, with some of its units"),
        ({"first": []}, r"`units` must list at least one unit of 'first'; got \[\]"),
        ({"first": torch.tensor(3)}, "`units` must list at least one unit of 'first'; got 3"),
        ({"frist": [0]}, "`units` must name a layer of the model, or match some; got 'frist'. Did you mean first"),
        ({"*": [0]}, r"`units` must name its layers one by one; got '\*'"),
        ({"head": [0]}, r"`units` must name layers whose output is .* got 'head', whose output is \(n, 5\)"),
        ({"first": [3, 12]}, "`units` must be from 0 to 11 for 'first'; got 12"),
        ({"first": [-1]}, "`units` must be from 0 to 11 for 'first'; got -1"),
        ({"first": torch.tensor([0.5])}, r"`units` must be whole numbers, for 'first' too; got \[0.5\]"),
        ({"first": [10**20]}, "`units` must be whole numbers, for 'first' too; got"),
        ({"first": torch.ones(3).bool()}, "`units` of truth values must have one for each of the 12 units of 'first'"),
        ({"first": torch.zeros(12).bool()}, "and not all false; got "),
        ({"first": list(range(12))}, "`units` must leave at least one of the 12 units of 'first'; got all of them"),
    ],
)
def test_units_that_make_no_sense_are_refused(units, said):
    with pytest.raises(ParameterError, match=said):
        mask_units(small(), units)


def test_the_last_unit_cannot_be_masked_later_either():
    masked = mask_units(small(), {"first": list(range(11))})
    with pytest.raises(ParameterError, match="got all of them, those masked before included"):
        mask_units(masked, {"first": [11]})


class Holding(nn.Module):
    """Keeps something in an attribute that stands in the way of a copy."""

    def __init__(self, kept):
        super().__init__()
        self.net = SmallNet()
        self.kept = kept(self.net)

    def forward(self, x):
        return self.kept(x) if callable(self.kept) else self.net(x)


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (torch.jit.trace(SmallNet(), torch.rand(1, 3, 16, 16)), "scripted or traced, where units cannot be masked"),
        (Holding(lambda net: torch.jit.script(nn.ReLU())), "scripted or traced"),
        (torch.compile(SmallNet(), backend="eager"), "compiled, where units cannot be masked. Mask them first"),
        (Holding(lambda net: (one for one in [1])), "The model cannot be copied"),
        (Holding(lambda net: lambda x: net(x)), "must run its own layer 'net.first', and does not"),
    ],
    ids=["traced", "scripted", "compiled", "generator", "closure"],
)
def test_models_whose_units_cannot_be_masked(module, said):
    with pytest.raises(ModelError, match=said):
        mask_units(Classifier(module, size=(16, 16)), {"net.first": [0]})
