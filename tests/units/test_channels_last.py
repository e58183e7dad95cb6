"""Units of networks whose channels come last: the same as where a layer turns them, whatever is asked."""

import copy
import json
import pickle
from dataclasses import replace

import pytest
import torch

from tests.helpers.made_dissections import made_concepts
from tests.helpers.models import channels_last, resnet20
from tests.helpers.unit_pairs import a_pair, dissection_of
from whyfooled.classifier.axes import Axes
from whyfooled.classifier.layers import LAST_STAGE, Layer
from whyfooled.errors import ModelError
from whyfooled.units import dissect, load_dissection
from whyfooled.units.changes import find_unit_changes
from whyfooled.units.dissection.saved import DISSECTION_FILE
from whyfooled.units.masking import mask_units
from whyfooled.units.sensitivity import unit_sensitivity


def both():
    """Make the network with channels last, and the same with a layer that turns them; the layer's names."""
    return (channels_last(), "norm"), (channels_last(turned=True), "turn")


def dissections():
    return [dissect(classifier, layer, made_concepts(), top=0.1) for classifier, layer in both()]


def test_a_dissection_finds_the_same_units():
    found, expected = (dissection.layers[0] for dissection in dissections())
    assert found.layer == Layer("norm", "LayerNorm", (8, 8, 6), Axes(3, 1, 2))
    for name in ("threshold", "above", "mean", "std", "both", "union", "null_iou", "top_images", "top_maps"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    assert found.positions == expected.positions == 6 * 64


def test_a_dissection_is_saved_with_its_axes_and_only_where_channels_do_not_come_first(tmp_path):
    last, turned = dissections()
    last.save(tmp_path / "last")
    turned.save(tmp_path / "turned")
    written = {
        kind: json.loads((tmp_path / kind / DISSECTION_FILE).read_text())["layers"][0] for kind in ("last", "turned")
    }
    assert written["last"]["shape"] == [8, 8, 6]
    assert written["last"]["axes"] == {"channels": 3, "rows": 1, "columns": 2, "reversed": [], "tokens": []}
    assert "axes" not in written["turned"]
    again = load_dissection(tmp_path / "last").layers[0]
    assert again.layer == last.layers[0].layer
    assert again.layer.units == 6
    assert (tmp_path / "last" / "units.csv").read_text().count("norm") == 6


def test_an_attack_moves_the_same_units_as_far():
    clean, adversarial = (torch.cat([image, image.flip(3)]) for image in a_pair())
    found, expected = (unit_sensitivity(classifier, layer, clean, adversarial)[layer] for classifier, layer in both())
    assert torch.equal(found, expected)


def test_changes_and_effects_are_the_same():
    clean, adversarial = a_pair()
    found, expected = (
        find_unit_changes(classifier, dissection_of(classifier, layer), clean, adversarial, 2, 0).layers[0]
        for classifier, layer in both()
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


@pytest.mark.parametrize("given", ["name", "last stage"])
def test_masked_units_give_zero_and_the_others_do_not(given):
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    (last, layer), (turned, other) = both()
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
