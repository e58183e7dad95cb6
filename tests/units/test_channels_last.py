"""Units of networks whose channels come last, or of tokens: the same as where a layer turns them, whatever is asked."""

import copy
import json
import pickle
from dataclasses import asdict, replace

import pytest
import timm
import torch

from tests.helpers.made_dissections import made_concepts
from tests.helpers.models import channels_last, resnet20
from tests.helpers.unit_pairs import a_pair, dissection_of
from whyfooled import Classifier
from whyfooled.classifier.axes import Axes
from whyfooled.classifier.layers import LAST_STAGE, Layer
from whyfooled.errors import ModelError
from whyfooled.units import dissect, load_dissection
from whyfooled.units.changes import find_unit_changes
from whyfooled.units.dissection.saved import DISSECTION_FILE
from whyfooled.units.masking import mask_units
from whyfooled.units.sensitivity import unit_sensitivity

KINDS = pytest.mark.parametrize("tokens", [False, True], ids=["channels last", "tokens"])
LAYERS = {
    False: Layer("norm", "LayerNorm", (8, 8, 6), Axes(3, 1, 2)),
    True: Layer(
        "norm", "LayerNorm", (64, 6), Axes(2, 1, 1, tokens=tuple(tuple(range(row, row + 8)) for row in range(0, 64, 8)))
    ),
}


def both(tokens):
    """Make the network with channels last, or tokens, and the same with a layer that turns them; the layer's names."""
    return (channels_last(tokens=tokens), "norm"), (channels_last(turned=True), "turn")


def dissections(tokens):
    return [dissect(classifier, layer, made_concepts(), top=0.1) for classifier, layer in both(tokens)]


@KINDS
def test_a_dissection_finds_the_same_units(tokens):
    found, expected = (dissection.layers[0] for dissection in dissections(tokens))
    assert found.layer == LAYERS[tokens]
    for name in ("threshold", "above", "mean", "std", "both", "union", "null_iou", "top_images", "top_maps"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    assert found.positions == expected.positions == 6 * 64


@KINDS
def test_a_dissection_is_saved_with_its_axes_and_only_where_channels_do_not_come_first(tokens, tmp_path):
    last, turned = dissections(tokens)
    last.save(tmp_path / "last")
    turned.save(tmp_path / "turned")
    written = {
        kind: json.loads((tmp_path / kind / DISSECTION_FILE).read_text())["layers"][0] for kind in ("last", "turned")
    }
    assert written["last"]["shape"] == list(LAYERS[tokens].shape)
    assert written["last"]["axes"] == json.loads(json.dumps(asdict(LAYERS[tokens].axes)))
    assert "axes" not in written["turned"]
    again = load_dissection(tmp_path / "last").layers[0]
    assert again.layer == last.layers[0].layer
    assert again.layer.units == 6
    assert (tmp_path / "last" / "units.csv").read_text().count("norm") == 6


@KINDS
def test_an_attack_moves_the_same_units_as_far(tokens):
    clean, adversarial = (torch.cat([image, image.flip(3)]) for image in a_pair())
    found, expected = (
        unit_sensitivity(classifier, layer, clean, adversarial)[layer] for classifier, layer in both(tokens)
    )
    assert torch.equal(found, expected)


@KINDS
def test_changes_and_effects_are_the_same(tokens):
    clean, adversarial = a_pair()
    found, expected = (
        find_unit_changes(classifier, dissection_of(classifier, layer), clean, adversarial, 2, 0).layers[0]
        for classifier, layer in both(tokens)
    )
    assert found.maps.shape == (2, 6, 8, 8)
    for name in ("maps", "distance", "chance", "std", "mean_change", "active"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    for name in ("held", "effect", "nonlinearity"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))
    # After the norm the network is linear, so the effects are all of the change.
    assert found.effect.abs().sum() > 0.01
    torch.testing.assert_close(found.accounted, expected.accounted)


def test_a_dissection_of_other_axes_is_not_taken_for_this_layers():
    classifier, (clean, adversarial) = channels_last(), a_pair()
    dissection = dissection_of(classifier, "norm")
    layer = dissection.layers[0]
    # As it was saved before axes were.
    old = replace(dissection, layers=(replace(layer, layer=Layer("norm", "LayerNorm", (8, 8, 6))),))
    with pytest.raises(ModelError, match=r"'norm' must give .* as it did when it was dissected; it does not. Dissect"):
        find_unit_changes(classifier, old, clean, adversarial, 2, 0)


@KINDS
@pytest.mark.parametrize("given", ["name", "last stage"])
def test_masked_units_give_zero_and_the_others_do_not(given, tokens):
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    (last, layer), (turned, other) = both(tokens)
    masked = mask_units(last, {layer if given == "name" else LAST_STAGE: [1, 4]})
    expected = mask_units(turned, {other: [1, 4]})
    torch.testing.assert_close(masked(images), expected(images))
    assert (masked(images) - last(images)).abs().max() > 1e-3
    seen = []
    part = masked.module.get_submodule("norm" if given == "name" else "turn")
    handle = part.register_forward_hook(lambda *given: seen.append(given[-1]))
    masked(images)
    handle.remove()
    assert not seen[0][..., [1, 4]].any()
    assert seen[0][..., [0, 2, 3, 5]].all()
    for again in (copy.deepcopy(masked), pickle.loads(pickle.dumps(masked))):  # noqa: S301
        assert torch.equal(again(images), masked(images))
    more = mask_units(masked, {layer: [0]})
    torch.testing.assert_close(more(images), mask_units(turned, {other: [0, 1, 4]})(images))


def test_where_channels_come_first_nothing_is_written_that_was_not_before(tmp_path):
    found = dissect(resnet20(), LAST_STAGE, made_concepts(), top=0.1)
    found.save(tmp_path / "out")
    layer = json.loads((tmp_path / "out" / DISSECTION_FILE).read_text())["layers"][0]
    assert list(layer) == ["name", "kind", "shape", "positions", "units", "dead", "detectors"]


def test_a_masked_unit_is_zero_for_the_class_token_too():
    torch.manual_seed(0)
    module = timm.models.VisionTransformer(img_size=16, patch_size=4, embed_dim=8, depth=2, num_heads=2, num_classes=5)
    classifier, images = Classifier(module.eval(), size=(16, 16)), torch.rand(2, 3, 16, 16)
    masked = mask_units(classifier, {"norm": [1, 4]})
    handle = module.norm.register_forward_hook(lambda part, given, output: output * (torch.arange(8) % 3 != 1))
    expected = classifier(images)
    handle.remove()
    assert (expected - classifier(images)).abs().max() > 1e-3
    # Masked too: unit 7.
    torch.testing.assert_close(mask_units(masked, {"norm": [7]})(images), expected)
    assert unit_sensitivity(classifier, "blocks.0", images, images.flip(3))["blocks.0"].shape == (8,)
