"""What one attack does to units, and through them to the logits: closed forms, and the same by brute force."""

from dataclasses import replace

import jaxtyping
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.helpers.models import resnet20
from tests.helpers.unit_pairs import LAST, a_pair, detecting, dissection_of, pooled
from whyfooled import Classifier, count_passes
from whyfooled.errors import ImageError, ModelError, ParameterError
from whyfooled.tensors.randomness import add_noise
from whyfooled.units._spread import clean_std
from whyfooled.units.changes import find_unit_changes


def maps_of(classifier, images):
    """Compute the four outputs of the body, each as it is before the next works in place."""
    x = (images - 0.5) / 0.25
    found = []
    for part in classifier.module.body:
        x = part(x.clone())
        found.append(x)
    return [one.detach() for one in found]


def test_effects_add_up_exactly_where_the_rest_is_linear():
    classifier, (clean, adversarial) = pooled(), a_pair()
    found = find_unit_changes(classifier, dissection_of(classifier, LAST), clean, adversarial, 2, 0)
    (layer,) = found.layers
    before, after = (maps_of(classifier, one)[3][0].double() for one in (clean, adversarial))
    weight = classifier.module.head.weight.detach().double()[[2, 0]]
    torch.testing.assert_close(layer.effect, weight * (after - before).mean((1, 2)))
    torch.testing.assert_close(layer.held, weight * before.mean((1, 2)))
    change = (classifier.logits(adversarial) - classifier.logits(clean))[0, [2, 0]].double()
    torch.testing.assert_close(found.logit_change, change)
    torch.testing.assert_close(layer.accounted, change, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(found.completeness(layer), torch.ones(2).double(), atol=1e-3, rtol=0)
    assert layer.nonlinearity.tolist() == [0, 0]


def test_distances_means_and_areas_are_those_of_the_maps():
    classifier, (clean, adversarial) = pooled(), a_pair()
    dissection = dissection_of(classifier, "body.2", LAST)
    found = find_unit_changes(classifier, dissection, clean, adversarial, 2, 0, draws=3, seed=5)
    noisy = [add_noise(clean, float((adversarial - clean).norm()), 5 + number) for number in range(3)]
    assert found.l2 == pytest.approx(float((adversarial - clean).norm()))
    for layer, place in zip(found.layers, (2, 3), strict=True):
        before, after, *others = (maps_of(classifier, one)[place][0].double() for one in (clean, adversarial, *noisy))
        std, threshold = clean_std(layer.dissected, before), layer.dissected.threshold
        torch.testing.assert_close(layer.std, std)
        for unit in range(1, 5):
            apart = (after[unit] - before[unit]).square().sum().sqrt()
            assert float(layer.distance[unit]) == pytest.approx(float(apart), rel=1e-4)
            assert float(layer.relative[unit]) == pytest.approx(float(apart / std[unit]), rel=1e-4)
            moved = (after[unit].mean() - before[unit].mean()) / std[unit]
            assert float(layer.mean_change[unit]) == pytest.approx(float(moved), rel=1e-4, abs=1e-6)
            for row, other in zip(layer.relative_chance, others, strict=True):
                assert float(row[unit]) == pytest.approx(
                    float((other[unit] - before[unit]).norm() / std[unit]), rel=1e-4
                )
            areas = [float((one[unit] > threshold[unit]).double().mean()) for one in (before, after)]
            assert layer.active[:, unit].tolist() == areas
            assert bool(layer.beyond[unit]) == all(apart > (other[unit] - before[unit]).norm() for other in others)
        torch.testing.assert_close(layer.maps, torch.stack([before, after]).float())


@pytest.mark.parametrize("inplace", [True, False])
def test_slopes_are_those_before_a_layer_that_works_in_place(inplace):
    classifier, (clean, adversarial) = pooled(inplace), a_pair()
    dissection = dissection_of(classifier, "body.0", "body.1")
    found = find_unit_changes(classifier, dissection, clean, adversarial, 1, 3)
    _, _, second, _ = classifier.module.body

    def after(a):
        return classifier.module.head(F.relu(second(a)).mean((2, 3)))

    for layer, place, rest in zip(found.layers, (0, 1), (lambda a: after(F.relu(a)), after), strict=True):
        maps = [maps_of(classifier, one)[place] for one in (clean, adversarial)]
        lengths = []
        for row, cls in enumerate((1, 3)):
            slopes = [torch.func.grad(lambda a, cls=cls, rest=rest: rest(a)[0, cls])(one) for one in maps]
            effect = ((slopes[0] + slopes[1]) / 2 * (maps[1] - maps[0])).sum((0, 2, 3))
            torch.testing.assert_close(layer.effect[row].float(), effect, atol=1e-6, rtol=1e-4)
            held = (slopes[0] * maps[0]).sum((0, 2, 3))
            torch.testing.assert_close(layer.held[row].float(), held, atol=1e-6, rtol=1e-4)
            lengths.append((slopes[1] - slopes[0]).norm() / (slopes[0].norm() + slopes[1].norm()))
        torch.testing.assert_close(layer.nonlinearity.float(), torch.stack(lengths), atol=1e-5, rtol=1e-4)
        assert (layer.nonlinearity > 0).all()


class Squared(nn.Module):
    """A layer, and logits that are sums of squares of what it gives."""

    def __init__(self):
        super().__init__()
        self.look = nn.Identity()

    def forward(self, x):
        return self.look(x * 1.0).square().mean((2, 3))


def test_the_trapezoid_rule_is_exact_for_squares():
    classifier = Classifier(Squared(), size=(8, 8), name="squared")
    generator = torch.Generator().manual_seed(0)
    clean, adversarial = (torch.rand(1, 3, 8, 8, generator=generator) for _ in range(2))
    found = find_unit_changes(classifier, dissection_of(classifier, "look"), clean, adversarial, 0, 2)
    (layer,) = found.layers
    change = (adversarial.double().square() - clean.double().square()).mean((2, 3))[0]
    torch.testing.assert_close(layer.effect[0], torch.stack([change[0], *change.new_zeros(2)]))
    torch.testing.assert_close(layer.accounted, change[[0, 2]])
    apart, both = (adversarial - clean)[0, 0].norm(), clean[0, 0].norm() + adversarial[0, 0].norm()
    assert float(layer.nonlinearity[0]) == pytest.approx(float(apart / both))
    assert not any("do not add up" in note for note in found.notes)


class Plateau(nn.Module):
    """Gives 0.7 in double precision, which is more than 0.7 in single precision, and more than that in one place."""

    def __init__(self):
        super().__init__()
        self.register_parameter("one", nn.Parameter(torch.ones(1, dtype=torch.float64), requires_grad=False))
        self.look = nn.Identity()

    def forward(self, x):
        maps = 0.7 + x.clamp(max=0)
        maps[:, :, 0, 0] = 1 + x[:, :, 0, 0]
        return self.look(maps * self.one).square().mean((2, 3)) - 1


def test_a_plateau_at_a_threshold_is_not_active_in_double_precision():
    module = Plateau()
    classifier = Classifier(module, size=(8, 8), name="plateau")
    clean = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    dissection = dissection_of(classifier, "look", threshold=torch.full((3,), 0.7))
    (layer,) = find_unit_changes(classifier, dissection, clean, clean / 2, 0, 2).layers
    torch.testing.assert_close(layer.active, torch.full((2, 3), 1 / 64, dtype=torch.float64))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 0.5))
def test_the_way_back_has_the_opposite_effects(seed, size):
    classifier = pooled()
    dissection = dissection_of(classifier, "body.1", LAST)
    clean, adversarial = a_pair(seed, size)
    there, back = (
        find_unit_changes(classifier, dissection, *pair, 2, 0, draws=1)
        for pair in ((clean, adversarial), (adversarial, clean))
    )
    torch.testing.assert_close(there.logit_change, -back.logit_change)
    for one, other in zip(there.layers, back.layers, strict=True):
        torch.testing.assert_close(one.effect, -other.effect, atol=1e-7, rtol=1e-4)
        torch.testing.assert_close(one.mean_change * one.std, -other.mean_change * other.std)
        torch.testing.assert_close(one.distance, other.distance)
        torch.testing.assert_close(one.nonlinearity, other.nonlinearity)
        assert torch.equal(one.active, other.active.flip(0))
        assert (one.nonlinearity >= 0).all()
        assert (one.nonlinearity <= 1).all()


def test_detectors_of_a_concept_are_added_up():
    classifier, (clean, adversarial) = pooled(), a_pair()
    dissection = dissection_of(classifier, LAST, **detecting(0, 2, -1, 0, 0))
    # A best concept under the cutoff is none.
    dissection.layers[0].both[4, 0] = 3
    (layer,) = find_unit_changes(classifier, dissection, clean, adversarial, 2, 0).layers
    sky, red = layer.concepts
    assert [(one.concept, one.category, one.units) for one in (sky, red)] == [
        ("sky", "object", 2),
        ("red", "colour", 1),
    ]
    assert sky.true_effect == pytest.approx(float(layer.effect[0, 0] + layer.effect[0, 3]))
    assert sky.wrong_effect == pytest.approx(float(layer.effect[1, 0] + layer.effect[1, 3]))
    assert sky.held == pytest.approx(float(layer.held[0, 0] + layer.held[0, 3]))
    assert sky.mean_change == pytest.approx(float(layer.mean_change[0] + layer.mean_change[3]) / 2)
    assert red.true_effect == pytest.approx(float(layer.effect[0, 1]))
    assert replace(sky, held=1.0, true_effect=-1.0).falls
    assert not replace(sky, held=-1.0, true_effect=-1.0).falls
    assert not replace(sky, held=1.0, true_effect=1.0).falls
    assert replace(sky, wrong_effect=1.0).rises
    assert not replace(sky, wrong_effect=0.0).rises


def test_units_that_never_vary_are_not_ranked():
    classifier, (clean, adversarial) = pooled(), a_pair()
    std = torch.tensor([0.0, 1.0, 2.0, 0.5, 0.0]).double()
    dead = torch.tensor([True, False, False, False, True])
    with torch.no_grad():
        # Silent in the clean image, and where it was dissected; unit 0 was silent there only.
        classifier.module.body[2].bias[4] -= float(maps_of(classifier, clean)[2][0, 4].amax())
    mean = torch.zeros(5).double()
    dissection = dissection_of(classifier, LAST, std=std, dead=dead, mean=mean)
    (layer,) = find_unit_changes(classifier, dissection, clean, adversarial, 2, 0).layers
    assert not layer.maps[0, 4].any()
    assert float(layer.distance[4]) > 0
    assert (float(layer.std[4]), float(layer.relative[4]), float(layer.mean_change[4])) == (0, torch.inf, torch.inf)
    assert layer.relative[:4].isfinite().all()
    assert layer.ranked.tolist() == sorted(range(4), key=lambda unit: -float(layer.distance[unit] / layer.std[unit]))


def test_only_units_that_move_count_beside_chance():
    classifier = Classifier(Faint(), size=(8, 8), name="faint")
    clean = torch.full((1, 3, 8, 8), 0.5)
    adversarial = clean.clone()
    adversarial[:, 0] += 0.2
    changes = find_unit_changes(classifier, dissection_of(classifier, "look"), clean, adversarial, 0, 1)
    (layer,) = changes.layers
    assert layer.beyond_share == 1 / 3
    # Of three units one moves further than under noise, one only under noise, and one not at all.
    still = torch.tensor([True, True, False])
    made = replace(layer, distance=layer.distance * still, chance=layer.chance * still)
    assert (made.moving.tolist(), made.beyond_share) == ([True, True, False], 1 / 2)
    made = replace(layer, distance=0 * layer.distance, chance=0 * layer.chance)
    assert not made.moving.any()
    assert torch.tensor(made.beyond_share).isnan()


def test_units_that_do_not_move_are_told_of():
    module = Faint()
    module.aside = nn.Threshold(9.0, 0.0)
    classifier = Classifier(module, size=(8, 8), name="faint")
    clean = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    dissection = dissection_of(classifier, "look", "aside")
    found = find_unit_changes(classifier, dissection, clean, clean / 2, 0, 1)
    (note,) = [note for note in found.notes if "changes" in note and "aside" in note]
    assert note == "No unit of aside changes at all, under the attack or under random perturbations."


def test_single_effects_are_rough_where_gradients_turn_or_sums_are_off():
    classifier = pooled()
    changes = find_unit_changes(classifier, dissection_of(classifier, LAST), *a_pair(), 2, 0)
    (layer,) = changes.layers
    assert changes.rough(layer).tolist() == [False, False]
    turned = replace(layer, nonlinearity=torch.tensor([0.51, 0.49]).double())
    assert changes.rough(turned).tolist() == [True, False]
    off = torch.zeros_like(layer.effect)
    off[1, 0] = 0.34 * changes.logit_change.abs().max()
    assert changes.rough(replace(layer, effect=layer.effect + off)).tolist() == [False, True]
    assert changes.rough(replace(layer, effect=layer.effect + 0.97 * off)).tolist() == [False, False]


def test_the_table_has_a_row_for_each_unit():
    classifier = pooled()
    found = find_unit_changes(classifier, dissection_of(classifier, "body.0", LAST), *a_pair(), 2, 0)
    table = found.to_frame()
    assert table["layer"].tolist() == ["body.0"] * 6 + [LAST] * 5
    last = table[table["layer"] == LAST]
    assert last["true_effect"].tolist() == found.layers[1].effect[0].tolist()
    assert last["chance"].tolist() == found.layers[1].relative_chance.mean(0).tolist()
    assert {"concept", "iou", "detector", "relative", "mean_change", "active_adversarial"} <= set(table.columns)
    assert repr(found) == "UnitChanges(body.0: 6 units, body.3: 5 units)"


def test_nothing_is_left_on_the_model_and_passes_are_counted():
    classifier = pooled()
    classifier.module.train()
    classifier.module.body[0].weight.requires_grad_(False)
    before = classifier.digest()
    dissection = dissection_of(classifier, "body.0", LAST)
    clean, adversarial = a_pair()
    with count_passes(classifier) as passes:
        find_unit_changes(classifier, dissection, clean, adversarial, 2, 0, draws=3)
    assert passes.forwards == 5
    with pytest.raises(ParameterError, match="must be class indices from 0 to 3"):
        find_unit_changes(classifier, dissection, clean, adversarial, 2, 4)
    assert classifier.digest() == before
    assert all(one.grad is None for one in classifier.parameters())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in classifier.modules())
    assert [one.requires_grad for one in classifier.parameters()] == [False, True, True, True, True, True]
    assert all(part.training for part in classifier.module.modules())
    assert not clean.requires_grad


def test_the_same_call_gives_the_same_and_another_seed_other_noise():
    classifier, pair = pooled(), a_pair()
    dissection = dissection_of(classifier, LAST)
    first, again, other = (
        find_unit_changes(classifier, dissection, *pair, 2, 0, seed=seed).layers[0] for seed in (0, 0, 9)
    )
    assert torch.equal(first.chance, again.chance)
    assert not torch.equal(first.chance, other.chance)
    assert torch.equal(first.effect, other.effect)


def test_progress_ends_when_all_is_done():
    classifier, told = pooled(), []
    find_unit_changes(
        classifier,
        dissection_of(classifier, LAST),
        *a_pair(),
        2,
        0,
        draws=2,
        progress=lambda *step: told.append(step),
    )
    assert told == [(2, 4, "units"), (3, 4, "units"), (4, 4, "units")]


def test_a_note_says_where_effects_do_not_add_up():
    classifier = resnet20()
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(1, 3, 32, 32, generator=generator)
    adversarial = (clean + 0.1 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)
    # Inside a block, most goes around the layer; after the last block, the rest is linear.
    dissection = dissection_of(classifier, "blocks.8.first", "blocks.8")
    found = find_unit_changes(classifier, dissection, clean, adversarial, 2, 0)
    inside, last = found.layers
    torch.testing.assert_close(last.accounted, found.logit_change, atol=1e-5, rtol=1e-3)
    (note,) = [note for note in found.notes if "do not add up" in note]
    assert "class 2 and class 0" in note
    assert f"blocks.8.first: {inside.accounted[0]:+.2f} and {inside.accounted[1]:+.2f})" in note


class Faint(nn.Module):
    """A layer of units of which only the first, in the direction of ones, has to do with the logits."""

    def __init__(self):
        super().__init__()
        self.look = nn.Identity()
        self.aside = nn.Identity()

    def forward(self, x):
        self.aside(x * 2.0)
        return self.look(x * 1.0).mean((2, 3))


def test_notes_tell_of_chance_of_concepts_and_of_layers_without_effect():
    classifier = Classifier(Faint(), size=(8, 8), name="faint")
    clean = torch.full((1, 3, 8, 8), 0.5)
    adversarial = clean.clone()
    # All in the first unit: noise of equal length moves the other two further.
    adversarial[:, 0] += 0.2
    dissection = dissection_of(classifier, "look", "aside", **detecting(-1, -1, -1))
    found = find_unit_changes(classifier, dissection, clean, adversarial, 0, 1)
    assert [int(one.beyond.sum()) for one in found.layers] == [1, 1]
    unused, amiss, look, aside, bare = found.notes
    assert unused.startswith("The logits do not depend on aside")
    assert "(+0.20 and +0.00; aside: +0.00 and +0.00)" in amiss
    assert look.startswith(
        "Of the 3 units of look that change at all, only 33% changed more than under every one of 4 random"
    )
    assert "(by chance 20%)" in look
    assert aside.startswith("Of the 3 units of aside that change at all, only 33%")
    assert bare.startswith("No unit of look or aside detects a concept")
    assert found.completeness(found.layers[0])[1].isnan()


def test_what_cannot_be_measured_is_refused():
    classifier, (clean, adversarial) = pooled(), a_pair()
    dissection = dissection_of(classifier, LAST)

    def find(*arguments, dissection=dissection, **more):
        return find_unit_changes(classifier, dissection, *arguments, **more)

    with pytest.raises(
        ParameterError, match="of the model that was attacked, pooled; got one of a pooled with other w"
    ):
        find(clean, adversarial, 2, 0, dissection=replace(dissection, model_digest="0"))
    other = replace(dissection, model_digest="0", parameters={"model": "vgg"})
    with pytest.raises(ParameterError, match=r"got one of vgg\. Dissect this one: whyfooled dissect"):
        find(clean, adversarial, 2, 0, dissection=other)
    with pytest.raises(ParameterError, match=r"`clean` must be one image .*got \(2, 3, 16, 16\)"):
        find(clean.repeat(2, 1, 1, 1), adversarial.repeat(2, 1, 1, 1), 2, 0)
    with pytest.raises(ImageError, match="there is no perturbation to explain"):
        find(clean, clean, 2, 0)
    with pytest.raises(ImageError, match="finite values"):
        find(clean, 255 * adversarial, 2, 0)
    with pytest.raises(ParameterError, match="must be another class than the true one"):
        find(clean, adversarial, 2, 2)
    with pytest.raises(ParameterError, match="`draws` must be at least 1; got 0"):
        find(clean, adversarial, 2, 0, draws=0)
    wider = dissection_of(classifier, "body.0")
    wider = replace(wider, layers=(replace(wider.layers[0], layer=dissection.layers[0].layer),))
    with pytest.raises(ParameterError, match=r"must have the units of the layer 'body\.3', 5; got 6"):
        find(clean, adversarial, 2, 0, dissection=wider)
    gone = replace(dissection, layers=(replace(dissection.layers[0], layer=replace(wider.layers[0].layer, name="no")),))
    with pytest.raises(ParameterError, match="`layer` must be a layer of the model; got 'no'"):
        find(clean, adversarial, 2, 0, dissection=gone)


def test_pairs_of_two_sizes_are_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    classifier, (clean, adversarial) = pooled(), a_pair()
    with pytest.raises(ImageError, match="must have the shape of the clean ones"):
        find_unit_changes(classifier, dissection_of(classifier, LAST), clean, adversarial[..., :8], 2, 0)


def test_layers_that_give_nothing_to_look_at_are_refused():
    classifier, pair = pooled(), a_pair()
    dissection = dissection_of(classifier, LAST)
    (layer,) = dissection.layers
    flat = replace(dissection, layers=(replace(layer, layer=replace(layer.layer, name="head")),))
    with pytest.raises(ModelError, match="The layer 'head' must give"):
        find_unit_changes(classifier, flat, *pair, 2, 0)
    with torch.no_grad():
        # Infinite inside, finite outside: the ReLU after it takes −∞ away.
        classifier.module.body[2].bias[0] = -torch.inf
    dissection = dissection_of(classifier, "body.2")
    with pytest.raises(ModelError, match=r"The layer 'body\.2' must give finite activations"):
        find_unit_changes(classifier, dissection, *pair, 2, 0)
