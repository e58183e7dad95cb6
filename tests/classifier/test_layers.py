"""Layers: which there are, how they are chosen, and what they give, whatever a model does with them."""

import jaxtyping
import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from tests.helpers.models import Decoding, attentive, blind, channels_last, resnet20, small
from tests.helpers.torchvision_families import REFUSED, RULED, build
from whyfooled import Classifier, load_classifier
from whyfooled.classifier.axes import Axes
from whyfooled.classifier.layers import (
    LAST_STAGE,
    Layer,
    activations,
    choose_layers,
    find_layers,
    list_layers,
    watch_layers,
)
from whyfooled.errors import ModelError, ParameterError


def images(count=3, side=16, seed=0):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def hooks(classifier):
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in classifier.modules())


def network(*parts, side=8):
    return Classifier(nn.Sequential(*parts).eval(), size=(side, side))


class Head(nn.Module):
    """Two classes: the mean over units and places, and its opposite."""

    def forward(self, x):
        mean = x.flatten(1).mean(1)
        return torch.stack([mean, -mean], dim=1)


class Repeated(nn.Module):
    """Runs one layer three times; the last time on fewer places."""

    def __init__(self):
        super().__init__()
        self.again = nn.Conv2d(3, 3, 1, bias=False)
        self.head = Head()
        nn.init.constant_(self.again.weight, 1.0)

    def forward(self, x):
        return self.head(self.again(self.again(self.again(x))[:, :, ::2, ::2]))


def test_layers_are_listed_as_they_finish_with_what_they_give():
    assert list_layers(small()) == [
        Layer("first", "Conv2d", (12, 16, 16)),
        Layer("second", "Conv2d", (16, 8, 8)),
        Layer("head", "Linear", (5,)),
    ]


def test_a_part_of_a_module_is_listed_before_it():
    names = [layer.name for layer in list_layers(resnet20())]
    assert (
        names.index("blocks.0.second_norm") < names.index("blocks.0") < names.index("blocks.8") < names.index("blocks")
    )
    assert names[-1] == "head"


@pytest.mark.parametrize(
    ("shape", "spatial", "units", "places"),
    [((12, 4, 6), True, 12, 24), ((12, 1, 6), False, 12, 0), ((7, 16), False, 7, 0), ((), False, 0, 0)],
)
def test_units_and_places_are_those_of_the_shape(shape, spatial, units, places):
    layer = Layer("one", "Conv2d", shape)
    assert (layer.spatial, layer.units, layer.places) == (spatial, units, places)


def test_a_layer_that_runs_several_times_counts_as_its_last_run():
    classifier = Classifier(Repeated().eval(), size=(8, 8))
    assert list_layers(classifier)[0] == Layer("again", "Conv2d", (3, 4, 4))
    given = images(side=8)
    found = activations(classifier, choose_layers(classifier, "again"), given)["again"]
    expected = 9 * given.sum(1, keepdim=True)[:, :, ::2, ::2].expand(-1, 3, -1, -1)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("late", [nn.ReLU(inplace=True), nn.Hardtanh(0.0, 1.0, inplace=True)], ids=["relu", "hardtanh"])
def test_what_a_layer_gave_is_kept_from_layers_that_work_in_place(late):
    scale = nn.Conv2d(3, 2, 1, bias=False)
    nn.init.constant_(scale.weight, -1.0)
    classifier = network(scale, late, Head())
    given = images(side=8)
    found = activations(classifier, choose_layers(classifier, ["0", "1"]), given)
    torch.testing.assert_close(found["0"], -given.sum(1, keepdim=True).expand(-1, 2, -1, -1))
    assert not found["1"].any()


def test_activations_are_those_of_the_model_by_hand():
    classifier, given = small(), images()
    found = activations(classifier, choose_layers(classifier, ["first", "second"]), given)
    net = classifier.module
    first = net.first((given - 0.5) / 0.25)
    torch.testing.assert_close(found["first"], first)
    torch.testing.assert_close(found["second"], net.second(F.relu(first)))
    assert not found["first"].requires_grad


def test_activations_of_channels_last_are_the_same_and_laid_out_plainly():
    plain, turned = small(), small().to(memory_format=torch.channels_last)
    layers = choose_layers(plain, "*")
    given = images()
    for one, other in zip(
        activations(plain, layers, given).values(),
        activations(turned, layers, given.contiguous(memory_format=torch.channels_last)).values(),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
        assert other.is_contiguous()


@pytest.mark.parametrize("training", [False, True])
def test_nothing_about_the_model_is_changed(training):
    classifier = resnet20()
    classifier.module.train(training)
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    activations(classifier, choose_layers(classifier, LAST_STAGE), images(side=32))
    assert hooks(classifier) == 0
    assert all(part.training == training for part in classifier.module.modules())
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())


def test_layers_are_the_same_inside_inference_mode():
    expected = list_layers(small())
    with torch.inference_mode():
        assert list_layers(small()) == expected


def test_no_hook_stays_after_an_error():
    classifier = small()

    def stumble(name, part, given, output):
        raise RuntimeError("stumbled")

    with pytest.raises(ModelError, match="stumbled"), watch_layers(find_layers(classifier.module, None), stumble):
        classifier.logits(images())
    assert hooks(classifier) == 0
    with pytest.raises(ModelError):
        activations(classifier, choose_layers(classifier, "first"), images()[:, :, :0])
    assert hooks(classifier) == 0


def test_hooks_that_were_there_stay():
    classifier = small()
    mine = classifier.module.first.register_forward_hook(lambda *given: None)
    activations(classifier, choose_layers(classifier, "first"), images())
    assert hooks(classifier) == 1
    mine.remove()


def chosen(classifier, wanted):
    return [layer.name for layer in choose_layers(classifier, wanted)]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("stem", ["stem"]),
        (["blocks.1", "stem", "stem"], ["stem", "blocks.1"]),
        ("blocks.*", [f"blocks.{number}" for number in range(9)]),
        ("blocks.?", [f"blocks.{number}" for number in range(9)]),
        ("blocks.[78].second", ["blocks.7.second", "blocks.8.second"]),
        ("*.8", ["blocks.8"]),
        ("*", ["stem", "norm", "blocks"]),
        ([LAST_STAGE, "blocks.8"], ["blocks.8", "blocks"]),
    ],
)
def test_layers_are_chosen_by_names_and_patterns_each_once_as_they_finish(wanted, found):
    assert chosen(resnet20(), wanted) == found


ARCHITECTURES = {
    "resnet18": (lambda: torchvision.models.resnet18(), 64, "layer4", (512, 2, 2)),
    # The pool after the features gives places too: as many as there were.
    "vgg11": (lambda: torchvision.models.vgg11(num_classes=2), 64, "avgpool", (512, 7, 7)),
    "densenet121": (lambda: torchvision.models.densenet121(), 64, "features", (1024, 2, 2)),
    "mobilenet_v2": (lambda: torchvision.models.mobilenet_v2(), 64, "features", (1280, 2, 2)),
    "timm resnet10t": (lambda: timm.create_model("resnet10t"), 64, "layer4", (512, 2, 2)),
    "timm mobilenetv3": (lambda: timm.create_model("mobilenetv3_small_050"), 64, "blocks", (288, 2, 2)),
    "timm lcnet": (lambda: timm.create_model("lcnet_050"), 64, "blocks", (256, 2, 2)),
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_last_stage_is_the_outermost_that_ends_in_places(architecture):
    make, side, name, shape = ARCHITECTURES[architecture]
    classifier = Classifier(make().eval(), size=(side, side))
    (layer,) = choose_layers(classifier, LAST_STAGE)
    assert (layer.name, layer.shape) == (name, shape)
    assert activations(classifier, [layer], images(2, side))[name].shape == (2, *shape)


def test_the_last_stage_of_the_bundled_classifier():
    classifier = load_classifier("lite0")
    assert choose_layers(classifier, LAST_STAGE) == (Layer("bn2", "BatchNormAct2d", (1280, 7, 7)),)
    assert chosen(classifier, "blocks.*") == [f"blocks.{number}" for number in range(7)]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ([], "`layers` must have at least one entry"),
        ("frist", r"must name a layer of the model, or match some; got 'frist'. Did you mean first\?"),
        ("first.*", r"got 'first.\*'. Did you mean first\?"),
        ("", "got ''. Choose from last-stage, first, second"),
        (["first", "zebra"], "got 'zebra'. Choose from last-stage, first, second"),
        ("head", r"got 'head', whose output is \(n, 5\). The last one that has it is 'second'"),
    ],
)
def test_a_layer_that_there_is_not_is_refused_and_near_ones_are_named(wanted, said):
    with pytest.raises(ParameterError, match=said):
        choose_layers(small(), wanted)


def test_of_many_layers_of_other_names_not_all_are_listed():
    with pytest.raises(ParameterError, match=r"got 'zzz'\. All that there are: whyfooled layers"):
        choose_layers(resnet20(), "zzz")


def test_the_argument_is_called_what_the_caller_calls_it():
    with pytest.raises(ParameterError, match="`layer` must name"):
        choose_layers(small(), "frist", "layer")


@pytest.mark.parametrize("make", [blind, lambda: network(nn.AdaptiveAvgPool2d(1), Head())], ids=["flat", "one place"])
def test_a_model_without_places_has_no_units(make):
    with pytest.raises(ModelError, match="No layer of this model gives an output"):
        choose_layers(make(), "*")


def test_tokens_have_the_places_of_their_patches():
    classifier, given = attentive(), images(2, 8)
    layers = {layer.name: layer for layer in list_layers(classifier)}
    assert layers["mix"].shape == (4, 16)
    assert (layers["mix"].spatial, layers["mix"].units, layers["mix"].map_size) == (True, 16, (2, 2))
    assert chosen(classifier, LAST_STAGE) == ["mix"]
    maps = activations(classifier, choose_layers(classifier, "mix"), given)["mix"]
    assert torch.equal(maps, hooked(classifier, "mix", given).transpose(1, 2).reshape(2, 16, 2, 2))


def hooked(classifier, name, given):
    """Return what a layer gives, by a hook."""
    outputs = []
    handle = classifier.module.get_submodule(name).register_forward_hook(lambda *seen: outputs.append(seen[-1].clone()))
    classifier.logits(given)
    handle.remove()
    return outputs[-1]


def test_channels_that_come_last_are_units():
    classifier, given = channels_last(), images()
    layers = {layer.name: layer for layer in list_layers(classifier)}
    assert layers["patches"].axes == Axes()
    norm = layers["norm"]
    assert norm == Layer("norm", "LayerNorm", (8, 8, 6), Axes(3, 1, 2))
    assert (norm.spatial, norm.units, norm.places, norm.map_size) == (True, 6, 64, (8, 8))
    (last,) = choose_layers(classifier, LAST_STAGE)
    assert last.units == 6
    maps = activations(classifier, [norm], given)["norm"]
    assert torch.equal(maps, hooked(classifier, "norm", given).permute(0, 3, 1, 2))
    assert maps.is_contiguous()


def small_swin():
    two = (2, 2)
    return timm.models.SwinTransformer(32, 2, embed_dim=8, depths=two, num_heads=two, window_size=4, num_classes=5)


OTHER_AXES = {
    "swin": (small_swin, 32, "norm", 16, (8, 8)),
    "mambaout": (lambda: timm.create_model("mambaout_femto"), 64, "stages", 288, (2, 2)),
    "sequencer": (lambda: timm.create_model("sequencer2d_s"), 56, "norm", 384, (4, 4)),
    "nest": (lambda: timm.create_model("nest_tiny", img_size=64), 64, "norm", 384, (4, 4)),
}


@pytest.mark.parametrize("architecture", OTHER_AXES)
def test_networks_with_channels_last_have_the_units_that_they_have(architecture):
    make, side, name, units, size = OTHER_AXES[architecture]
    torch.manual_seed(0)
    classifier = Classifier(make().eval(), size=(side, side))
    (layer,) = choose_layers(classifier, name)
    assert (layer.units, layer.map_size) == (units, size)
    assert choose_layers(classifier, LAST_STAGE) == (layer,)
    given = images(1, side)
    output = hooked(classifier, name, given)
    last = output if output.shape[1] == units else output.permute(0, 3, 1, 2)
    assert torch.equal(activations(classifier, [layer], given)[name], last)


@pytest.mark.parametrize("architecture", OTHER_AXES)
def test_places_are_where_the_image_was_changed(architecture):
    make, side, name, _, _ = OTHER_AXES[architecture]
    torch.manual_seed(0)
    classifier = Classifier(make().eval(), size=(side, side))
    layers = choose_layers(classifier, name)
    plain = images(1, side)
    middles = {}
    for down in (0, 1):
        for right in (0, 1):
            changed, half = plain.clone(), side // 2
            changed[:, :, down * half : down * half + half, right * half : right * half + half] = 0
            maps = [activations(classifier, layers, image)[name].double() for image in (plain, changed)]
            moved = (maps[1] - maps[0]).square().sum((0, 1))
            rows, columns = (torch.arange(count).double() for count in moved.shape)
            middles[down, right] = (moved.sum(1) @ rows / moved.sum(), moved.sum(0) @ columns / moved.sum())
    for other in (0, 1):
        assert middles[0, other][0] < middles[1, other][0]
        assert middles[other, 0][1] < middles[other, 1][1]


CONVOLUTIONAL = sorted({*RULED, *REFUSED} - {"maxvit_t", "swin_t", "vit_b_16", "wide_resnet50_2", "resnext50_32x4d"})


@pytest.mark.nightly
@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_of_torchvisions_convolutional_networks_all_places_are_those_of_the_shape(name):
    side = 96 if name == "inception_v3" else 64
    classifier = Classifier(build(name), size=(side, side))
    layers = [layer for layer in list_layers(classifier) if len(layer.shape) == 3 and min(layer.shape[1:]) > 1]
    own = [layer for layer in layers if layer.spatial]
    if name != "convnext_tiny":
        assert own == layers
        assert all(layer.axes == Axes() for layer in own)
    assert choose_layers(classifier, LAST_STAGE) == (layers[-1],)


class Heads(nn.Module):
    """Tokens of 4 x 4 patches with a class token, whose queries have heads; the logits are the class token's."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.norm, self.queries, self.head = nn.LayerNorm(8), nn.Identity(), nn.Linear(8, 5)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = self.norm(torch.cat([torch.ones(len(x), 1, 8), tokens], 1))
        queries = self.queries(tokens.view(len(x), -1, 2, 4).transpose(1, 2))
        tokens = tokens + F.scaled_dot_product_attention(queries, queries, queries).transpose(1, 2).flatten(2)
        return self.head(tokens[:, 0])


def test_tokens_and_heads_of_attention_are_said_to_be_what_they_are():
    classifier = Classifier(Heads().eval(), size=(16, 16))
    layers = {layer.name: layer for layer in list_layers(classifier)}
    assert layers["norm"].axes == Axes(2, 1, 1, tokens=tuple(tuple(range(row, row + 4)) for row in range(1, 17, 4)))
    assert layers["norm"].spatial
    assert layers["norm"].output == "(n, 17, 8): tokens at 4 × 4 places"
    assert layers["queries"].output == "(n, 2, 17, 4): tokens, not channels and places"
    assert not layers["queries"].spatial
    with pytest.raises(
        ParameterError, match=r"with more than one place; got 'queries', whose output is .* tokens, not channels"
    ):
        choose_layers(classifier, "queries")
    assert chosen(classifier, LAST_STAGE) == ["norm"]
    assert chosen(classifier, "*") == ["patches", "norm"]


def test_what_the_logits_do_not_depend_on_is_no_last_stage():
    classifier = Classifier(Decoding().eval(), size=(32, 32))
    assert chosen(classifier, LAST_STAGE) == ["encoder"]
    assert chosen(classifier, "*") == ["encoder", "decoder"]


class OutOfSight(nn.Module):
    """Computes its logits from its features in NumPy, where nobody sees how."""

    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(3, 5, 3)

    def forward(self, x):
        return torch.from_numpy(self.features(x).detach().numpy().mean((2, 3)))


def test_where_it_cannot_be_told_what_the_logits_depend_on_the_last_stage_is_the_last():
    assert chosen(Classifier(OutOfSight().eval(), size=(8, 8)), LAST_STAGE) == ["features"]


class Folding(nn.Module):
    """Looks at four quarters of the image, as more images, and takes the mean of what is seen."""

    def __init__(self):
        super().__init__()
        self.eye = nn.Conv2d(3, 4, 1)
        self.whole = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        quarters = torch.cat([x[:, :, a::2, b::2] for a in (0, 1) for b in (0, 1)])
        seen = self.eye(quarters).mean((2, 3)).view(4, len(x), 4).mean(0)
        return seen + self.whole(x).mean((2, 3))


def test_a_layer_without_a_row_for_each_image_is_not_listed():
    classifier = Classifier(Folding().eval(), size=(8, 8))
    assert [layer.name for layer in list_layers(classifier)] == ["whole"]
    with pytest.raises(ModelError, match=r"'eye' must give \(n, units, height, width\) for n=3 images; got the shape"):
        activations(classifier, [Layer("eye", "Conv2d", (4, 4, 4))], images(side=8))


class Moody(nn.Module):
    """Leaves a layer out where the images are dark."""

    def __init__(self):
        super().__init__()
        self.sometimes, self.head = nn.Conv2d(3, 3, 1), Head()

    def forward(self, x):
        return self.head(self.sometimes(x) if x.mean() < 0.5 else x)


def test_a_layer_that_does_not_run_is_named():
    classifier = Classifier(Moody().eval(), size=(8, 8))
    layers = choose_layers(classifier, "sometimes")
    with pytest.raises(ModelError, match=r"'sometimes' must give .* got nothing"):
        activations(classifier, layers, torch.ones(2, 3, 8, 8))


def test_a_layer_of_another_model_is_refused():
    with pytest.raises(ParameterError, match="`layer` must be a layer of the model; got 'third'"):
        activations(small(), [Layer("third", "Conv2d", (4, 4, 4))], images())


class Broken(nn.Module):
    """Divides by nothing in the middle, and hides it."""

    def __init__(self):
        super().__init__()
        self.middle, self.head = nn.Identity(), Head()

    def forward(self, x):
        return self.head(self.middle(x / 0).nan_to_num(0, 1, 1))


def test_activations_that_are_not_finite_are_refused():
    classifier = Classifier(Broken().eval(), size=(8, 8))
    with pytest.raises(ModelError, match="The layer 'middle' must give finite activations"):
        activations(classifier, [Layer("middle", "Identity", (3, 8, 8))], images(side=8))


def test_activations_do_not_depend_on_the_batch():
    classifier = resnet20()
    layers, given = choose_layers(classifier, ["stem", LAST_STAGE]), images(5, 32)
    together = activations(classifier, layers, given)
    for name in together:
        alone = torch.cat([activations(classifier, layers, one.unsqueeze(0))[name] for one in given])
        np.testing.assert_allclose(together[name], alone, rtol=1e-4, atol=1e-4)


def test_what_is_seen_is_told_in_the_order_in_which_layers_finish():
    classifier, seen = resnet20(), []
    with watch_layers(find_layers(classifier.module, None), lambda name, part, given, output: seen.append(name)):
        classifier.logits(images(1, 32))
    assert seen == [layer.name for layer in list_layers(classifier)]


def test_one_layer_by_name(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    module = small().module
    assert list(find_layers(module, "first")) == ["first"]
    assert list(find_layers(module, None)) == ["first", "second", "head"]
    with pytest.raises(ParameterError, match=r"`layer` must be a layer of the model; got 'firt'. Did you mean first\?"):
        find_layers(module, "firt")
