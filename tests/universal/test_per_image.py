"""Attacks on the interpretation of one image: by brute force where that can be done, and what they keep."""

from copy import deepcopy
from inspect import unwrap

import pytest
import torch
from PIL import Image
from torch import nn

from tests.helpers.models import linear, small
from tests.helpers.planted_maps import noise
from whyfooled import Classifier, Enhanced, Gradient, GuidedBackprop
from whyfooled.attacks.adversaries import load_adversaries
from whyfooled.attacks.many import attack_files
from whyfooled.errors import ImageError, MethodError, ParameterError
from whyfooled.registry import describe, parse
from whyfooled.sources import open_source
from whyfooled.universal import InterpretationAttack, dissimilarity

GIVEN = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(5))
# A little less than what the quadratic model gives its first image, so that its label is soon lost.
THRESHOLD = 0.1475
BRIEF = {"steps": 20, "step_size": 0.25}
OBJECTIVES = ["dissimilarity", "top-k", "mass-centre", "target", "region"]


class Quadratic(nn.Module):
    """Two pixels, two classes: the map of class 1 is |A x|, and its logit ½ xᵀ A x − threshold."""

    def __init__(self, threshold: float = 0.0) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor([[1.0, 0.4], [0.4, -0.8]]))
        self.threshold = threshold

    def forward(self, x):
        flat = x.flatten(1)
        value = 0.5 * (flat @ self.matrix * flat).sum(1) - self.threshold
        return torch.stack([0 * value, value], 1)


def quadratic(threshold=0.0):
    return Classifier(Quadratic(threshold), mean=(0.0,), std=(1.0,), size=(1, 2))


def best_of_all(classifier, image, epsilon, ball, kept, clip):
    """Try a fine grid over the ball."""
    side = torch.linspace(-1, 1, 151)
    steps = epsilon * torch.cartesian_prod(side, side)
    steps = steps[steps.norm(dim=1) <= epsilon] if ball == "l2" else steps
    moved = image + steps.view(-1, 1, 1, 2)
    label = classifier.predict(image[None])
    moved = moved[((moved >= 0) & (moved <= 1)).flatten(1).all(1)] if clip else moved
    moved = moved[classifier.predict(moved) == label] if kept else moved
    return float(reached(classifier, image.expand_as(moved), moved, 1).max())


def reached(classifier, images, moved, target):
    classes = torch.full((len(images),), target)
    return dissimilarity(Gradient()(classifier, images, classes), Gradient()(classifier, moved, classes))


@pytest.mark.parametrize("ball", ["l2", "linf"])
@pytest.mark.parametrize(("kept", "clip"), [(False, False), (True, False), (True, True)])
def test_it_finds_what_brute_force_finds(ball, kept, clip):
    classifier = quadratic(THRESHOLD)
    images = torch.tensor([[0.5, 0.3], [0.9, 0.6], [0.35, 0.1]]).view(3, 1, 1, 2)
    classes = torch.ones(3).long()
    found = torch.stack(
        [
            reached(
                classifier,
                images,
                InterpretationAttack(epsilon=0.2, ball=ball, seed=seed, keep_label=kept, clip=clip, **BRIEF)(
                    classifier, images, classes
                ),
                1,
            )
            for seed in range(4)
        ]
    )
    expected = torch.tensor([best_of_all(classifier, image, 0.2, ball, kept, clip) for image in images])
    assert (found <= 1.03 * expected).all()
    assert (found.amax(0) >= 0.97 * expected).all()


def test_keeping_the_label_costs_something_where_it_must():
    classifier, image = quadratic(THRESHOLD), torch.tensor([0.5, 0.3]).view(1, 1, 2)
    assert best_of_all(classifier, image, 0.2, "l2", True, False) < 0.7 * best_of_all(
        classifier, image, 0.2, "l2", False, False
    )


def interpretations(images, classes):
    maps = Gradient()(small(), images, classes).abs().sum(1)
    return maps / maps.sum((1, 2), keepdim=True)


def scores(objective, images, moved, classes, targets):
    """Measure what an objective means, once more and slowly."""
    values = []
    for before, now, target in zip(
        interpretations(images, classes), interpretations(moved, classes), targets, strict=True
    ):
        if objective == "dissimilarity":
            values.append(float((before - now).norm() / before.norm()))
        elif objective == "top-k":
            top = before.flatten().sort(descending=True).indices[: round(0.05 * 256)]
            values.append(-float(now.flatten()[top].sum()))
        elif objective == "mass-centre":
            places = torch.cartesian_prod(torch.arange(16.0), torch.arange(16.0))
            shift = ((now - before).flatten().unsqueeze(1) * places).sum(0)
            values.append(float(shift.norm()))
        elif objective == "region":
            values.append(float((now * target).sum()))
        else:
            wanted = target / target.sum()
            values.append(-float((wanted - now).norm() / wanted.norm()))
    return torch.tensor(values)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("ball", ["l2", "linf"])
def test_every_objective_grows_further_than_by_chance(objective, ball):
    classifier = small()
    classes = classifier.predict(GIVEN)
    targets = torch.zeros(4, 16, 16)
    targets[:, 2:7, 3:9] = 1
    epsilon = 1.0 if ball == "l2" else 0.05
    attack = InterpretationAttack(epsilon=epsilon, ball=ball, objective=objective, steps=12, clip=False)
    given = {"target_maps": targets} if objective in ("target", "region") else {}
    moved = attack(classifier, GIVEN, classes, **given)
    noise = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    noise = noise.sign() if ball == "linf" else noise / noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    before = scores(objective, GIVEN, GIVEN, classes, targets)
    chance = scores(objective, GIVEN, GIVEN + epsilon * noise, classes, targets)
    after = scores(objective, GIVEN, moved, classes, targets)
    assert (after > before).all()
    assert (after > chance).all()
    assert (classifier.predict(moved) == classes).all()


@pytest.mark.parametrize("ball", ["l2", "linf"])
@pytest.mark.parametrize("clip", [True, False])
def test_it_stays_in_the_ball_and_clipped_in_the_range_of_images(ball, clip):
    images = GIVEN.round()
    attack = InterpretationAttack(epsilon=0.4, ball=ball, steps=4, clip=clip, keep_label=False)
    moved = attack(small(), images, torch.tensor([0, 1, 2, 3]))
    assert moved.dtype == torch.float32
    change = (moved - images).flatten(1)
    sizes = change.norm(dim=1) if ball == "l2" else change.abs().amax(1)
    assert (sizes <= 0.4 + 1e-5).all()
    assert (sizes > 0.1).all()
    assert bool(((moved >= 0) & (moved <= 1)).all()) == clip


def test_an_images_result_does_not_depend_on_its_batch():
    attack, classifier, classes = InterpretationAttack(epsilon=0.5, steps=5), small(), torch.tensor([0, 1, 2, 3])
    together = attack(classifier, GIVEN, classes)
    for place in (3, 1):
        alone = attack(classifier, GIVEN[[place]], classes[[place]])
        torch.testing.assert_close(alone[0], together[place], rtol=0, atol=1e-4)
    assert torch.equal(attack(classifier, GIVEN, classes), together)
    other = InterpretationAttack(epsilon=0.5, steps=5, seed=1)(classifier, GIVEN, classes)
    assert (other - together).abs().max() > 1e-2


def test_scale_255_is_the_same_ball():
    classes = torch.tensor([0, 1, 2, 3])
    small_scale = InterpretationAttack(epsilon=0.01, steps=3)(small(), GIVEN, classes)
    large_scale = InterpretationAttack(epsilon=2.55, scale=255, steps=3)(small(), GIVEN, classes)
    torch.testing.assert_close(small_scale, large_scale, rtol=0, atol=1e-6)


class Brittle(nn.Module):
    """The image itself is of class 1, and anything else of class 0."""

    def __init__(self, image: torch.Tensor) -> None:
        super().__init__()
        self.image, self.inside = nn.Parameter(image), Quadratic()

    def forward(self, x):
        logits = self.inside(x)
        elsewhere = ((x - self.image).flatten(1).norm(dim=1) > 1e-6).float()
        return logits + torch.stack([1e3 * elsewhere, 1e-3 + 0 * elsewhere], 1)


def test_the_clean_image_comes_back_if_none_keeps_the_label():
    image = torch.tensor([0.5, 0.3]).view(1, 1, 1, 2)
    classifier = Classifier(Brittle(image), mean=(0.0,), std=(1.0,), size=(1, 2))
    assert classifier.predict(image).tolist() == [1]
    ones = torch.ones(1).long()
    assert torch.equal(InterpretationAttack(epsilon=0.2)(classifier, image, ones), image)
    assert not torch.equal(InterpretationAttack(epsilon=0.2, keep_label=False)(classifier, image, ones), image)


def test_the_maps_of_other_methods_move_too():
    classifier, classes = small(), torch.tensor([0, 1, 2, 3])
    attack = InterpretationAttack(epsilon=0.5, steps=10, step_size=0.3)
    moved = attack(classifier, GIVEN, classes, GuidedBackprop())
    apart = dissimilarity(GuidedBackprop()(classifier, GIVEN, classes), GuidedBackprop()(classifier, moved, classes))
    noise = torch.randn(GIVEN.shape, generator=torch.Generator().manual_seed(1))
    chance = GIVEN + 0.5 * torch.nn.functional.normalize(noise.flatten(1)).view_as(GIVEN)
    maps = (GuidedBackprop()(classifier, images, classes) for images in (GIVEN, chance))
    assert apart.mean() > 1.5 * dissimilarity(*maps).mean()


def test_images_and_model_are_left_as_they_were():
    classifier, images = small(), GIVEN.clone()
    classifier.module.train()
    before = deepcopy(classifier.state_dict())
    InterpretationAttack(epsilon=0.5, steps=3)(classifier, images, torch.tensor([0, 1, 2, 3]))
    assert torch.equal(images, GIVEN)
    assert classifier.module.training
    assert all(torch.equal(before[name], value) for name, value in classifier.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in classifier.parameters())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in classifier.modules())


def test_piecewise_linear_maps_are_refused_with_the_reason():
    classes = torch.tensor([0, 1, 2, 3])
    with pytest.raises(MethodError, match="piecewise linear"):
        InterpretationAttack(epsilon=0.5, beta=None)(small(), GIVEN, classes)
    with pytest.raises(MethodError, match="The maps do not change with any image"):
        InterpretationAttack(epsilon=0.5)(linear(torch.ones(4, 768), side=16), GIVEN, classes)


def test_it_describes_itself():
    assert describe(InterpretationAttack(epsilon=1.0, keep_label=False)) == "per-image(epsilon=1.0, keep_label=False)"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epsilon": 0.0}, "`epsilon` must be a finite number above 0"),
        ({"scale": 100}, "`scale` must be the value of white, 1 or 255"),
        ({"share": 0.0}, "`share` must be above 0 and at most 1"),
        ({"steps": 0}, "`steps` must be at least 1"),
        ({"step_size": 0.0}, "`step_size` must be a finite number above 0"),
        ({"momentum": 1.0}, "`momentum` must be at least 0 and below 1"),
        ({"beta": 0.0}, "`beta` must be a finite number above 0"),
    ],
)
def test_refused_parameters(given, message):
    with pytest.raises(ParameterError, match=message):
        InterpretationAttack(**given)


def test_refused_arguments():
    classifier, classes, attack = small(), torch.tensor([0, 1, 2, 3]), InterpretationAttack(epsilon=0.5)
    with pytest.raises(ParameterError, match="`classes` must have one for each of the 4 images; got 3"):
        unwrap(InterpretationAttack.__call__)(attack, classifier, GIVEN, classes[:3])
    with pytest.raises(ParameterError, match="from 0 to 4"):
        attack(classifier, GIVEN, classes + 2)
    with pytest.raises(ImageError, match="finite values in"):
        attack(classifier, GIVEN + 1, classes)
    maps = torch.ones(4, 16, 16)
    with pytest.raises(ParameterError, match="`target_maps` must be None unless the objective is target or region"):
        attack(classifier, GIVEN, classes, target_maps=maps)
    aimed = InterpretationAttack(epsilon=0.5, objective="target")
    with pytest.raises(ParameterError, match="`target_maps` must be given for the objective target"):
        aimed(classifier, GIVEN, classes)
    with pytest.raises(ParameterError, match=r"`target_maps` must have the shape \(4, 16, 16\); got \(4, 8, 8\)"):
        aimed(classifier, GIVEN, classes, target_maps=maps[:, :8, :8])
    for wrong in (-maps, 0 * maps, maps / 0):
        with pytest.raises(ParameterError, match="`target_maps` must be finite, none negative, none 0 everywhere"):
            aimed(classifier, GIVEN, classes, target_maps=wrong)


def test_it_goes_on_where_gradients_are_switched_off_and_without_images():
    classifier, images = small(side=8), noise(2)
    attack, classes = InterpretationAttack(epsilon=0.5, steps=2), classifier.predict(images)
    found = attack(classifier, images, classes)
    with torch.no_grad():
        assert torch.equal(attack(classifier, images, classes), found)
    assert attack(classifier, images[:0], classes[:0]).shape == (0, 3, 8, 8)


def test_it_has_the_command_lines_form():
    with pytest.raises(ParameterError, match=r"got 'per-image'\. It is an attack on interpretations that keeps"):
        parse("attacks", "per-image(epsilon=2)")
    attack = parse("interpretations", "per-image(saliency=enhanced, epsilon=8/255, ball=linf)")
    assert attack == InterpretationAttack(8 / 255, "linf", saliency=Enhanced())
    assert parse("interpretations", describe(attack)) == attack
    classifier, classes = small(), torch.tensor([0, 1, 2, 3])
    brief = InterpretationAttack(epsilon=0.5, steps=2, saliency=GuidedBackprop())
    assert torch.equal(brief(classifier, GIVEN, classes), brief(classifier, GIVEN, classes, GuidedBackprop()))
    with pytest.raises(MethodError, match="The maps of lime cannot be differentiated"):
        parse("interpretations", "per-image(saliency=lime)")


def test_a_run_that_keeps_the_class_says_whose_map_it_changed():
    classifier = small()
    labels = classifier.predict(GIVEN)
    labels[3] = (labels[3] + 1) % 5
    attack = InterpretationAttack(epsilon=1.0, steps=8)
    result = attack.run_keeping_class(classifier, GIVEN, labels)
    assert result.success.tolist() == [True, True, True, False]
    assert torch.equal(result.predictions[:3], labels[:3])
    assert torch.equal(result.attempted[:3], attack(classifier, GIVEN[:3], labels[:3]))
    assert torch.equal(result.adversarial[3], GIVEN[3])
    # Here by hand: further than under random directions as long.
    found = reached_by(classifier, result.attempted[:3], labels[:3])
    for seed in range(3):
        noise = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
        noise *= (result.l2[:3] / noise.flatten(1).norm(dim=1)).view(-1, 1, 1, 1)
        assert (found > reached_by(classifier, (GIVEN[:3] + noise).clamp(0, 1), labels[:3])).all()
    frame = result.to_frame()
    assert frame["goal"].tolist() == ["kept"] * 4
    assert frame["outcome"].tolist() == ["fooled"] * 3 + ["already wrong"]
    assert result.forwards.tolist() == [int(result.forwards[0])] * 3 + [0]
    # 1 clean map, 1 smooth one, and for each step a map, a slope and a prediction, of which the last has no slope.
    assert int(result.forwards[0]) >= 2 + 8 * 3 + 2


def reached_by(classifier, moved, classes):
    clean = GIVEN[: len(moved)]
    return dissimilarity(Gradient()(classifier, clean, classes), Gradient()(classifier, moved, classes))


def test_success_is_judged_on_the_map_and_on_the_class(monkeypatch):
    classifier, attack = small(), InterpretationAttack(epsilon=1.0)
    labels = classifier.predict(GIVEN)
    noise = torch.randn(GIVEN.shape, generator=torch.Generator().manual_seed(0))
    lost = GIVEN.clone()
    lost[0] = GIVEN[next(number for number in range(4) if labels[number] != labels[0])]
    # Nothing was found; what was found is noise; the map changed, but so did the class of the first image.
    for made in (GIVEN, (GIVEN + noise / 100).clamp(0, 1), lost):
        monkeypatch.setattr(InterpretationAttack, "__call__", lambda *given, made=made: made)
        result = attack.run_keeping_class(classifier, GIVEN, labels)
        assert not result.success.any()
        assert result.to_frame()["outcome"].tolist() == ["failed"] * 4
    assert result.predictions[0] != labels[0]
    for given, sentence in (
        ({"clip": False}, "`clip` must be true where images are kept: values lie in \\[0, 1\\]; got False"),
        ({"objective": "region"}, "`objective` must be one that needs no map to be given; got the objective region"),
    ):
        with pytest.raises(ParameterError, match=sentence):
            InterpretationAttack(**given).run_keeping_class(classifier, GIVEN, labels)


def test_photographs_are_attacked_and_kept_and_taken_for_nothing_else(tmp_path):
    for number, image in enumerate(GIVEN):
        Image.fromarray((255 * image.permute(1, 2, 0)).round().byte().numpy()).save(tmp_path / f"{number}.png")
    classifier, attack = small(), InterpretationAttack(epsilon=1.0, steps=6)
    made, errors = attack_files(classifier, [tmp_path], attack, tmp_path / "out")
    assert not errors
    result = load_adversaries(tmp_path / "out")[:]
    assert result.goal.kind == "kept"
    assert result.success.all()
    assert torch.equal(classifier.predict(result.adversarial), classifier.predict(result.clean))
    assert made.parameters["attack"] == "per-image(epsilon=1.0, steps=6)"
    assert (tmp_path / "out" / "table.csv").read_text().count(",kept,") == 4
    with pytest.raises(ParameterError, match="`target` is for an attack that changes the class; got 2"):
        attack_files(classifier, [tmp_path], attack, tmp_path / "other", target=2)
    with pytest.raises(ImageError, match="holds images whose class was kept while their maps were changed: nothing"):
        open_source(str(tmp_path / "out"))
