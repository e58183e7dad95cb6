"""What holds for every attack, whichever it is."""

import dataclasses
from functools import cache
from inspect import unwrap

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import whyfooled.attacks
from tests.helpers.models import linear, small
from tests.helpers.quick_methods import LARGE_SQUARES, QUICK_ATTACKS
from whyfooled import Classifier, Square, Targeted, Untargeted, count_passes, run_attack
from whyfooled.attacks import ATTACKS, Problem, str_attack
from whyfooled.attacks._attack import Attack
from whyfooled.errors import ImageError, ModelError, ParameterError
from whyfooled.registry import available, describe, parse

ATTACK = pytest.mark.parametrize("attack", QUICK_ATTACKS, ids=describe)
FEW_CLASSES = pytest.mark.filterwarnings("ignore:The model has . classes, and DLR")
GRADIENT_ATTACK = pytest.mark.parametrize(
    "attack", [a for a in QUICK_ATTACKS if not isinstance(a, Square)], ids=describe
)


def case(n=4, seed=7, height=16, width=16):
    classifier = small()
    images = torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(seed))
    return classifier, images, classifier.predict(images)


def goals(labels):
    return [Untargeted(labels), Targeted((labels + 1) % 5)]


@cache
def results(attack):
    """Attack the images of `case` once for each of their goals; what an attack does again is held against it."""
    classifier, images, labels = case()
    return [run_attack(attack, classifier, images, goal) for goal in goals(labels)]


@pytest.fixture(scope="module", autouse=True)
def _short_refinement():
    """Refine StrAttack's perturbations in a tenth of the steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(str_attack, "_REFINING_STEPS", 20)
        yield


def hopeless(bias=(0.0, 1.0, 0.5)):
    """Make a classifier whose answer no image changes."""
    return linear(torch.zeros(3, 192), torch.tensor(bias))


def same(found, expected, order=slice(None), spread=0.02):
    assert torch.equal(found.success, expected.success[order])
    torch.testing.assert_close(found.l2, expected.l2[order], rtol=spread, atol=1e-6)


def test_every_attack_of_the_package_is_in_the_list():
    public = {v for v in vars(whyfooled.attacks).values() if isinstance(v, type) and issubclass(v, Attack)} - {Attack}
    assert public == set(ATTACKS)
    assert {attack.card.name for attack in ATTACKS} <= set(available("attacks"))


@ATTACK
def test_it_is_a_frozen_dataclass_that_describes_itself(attack):
    assert type(attack).__dataclass_params__.frozen
    card = type(attack).card
    assert all([card.name, card.title, card.summary.endswith("."), card.source, card.cost])
    assert parse("attacks", describe(attack)) == attack
    assert all(field.init for field in dataclasses.fields(attack))


@ATTACK
def test_it_reaches_its_goal_inside_the_box(attack):
    classifier, images, labels = case()
    for goal, result in zip(goals(labels), results(attack), strict=True):
        assert result.success.any()
        assert goal.select(result.success).reached(classifier(result.adversarial[result.success])).all()
        assert result.adversarial.min() >= 0
        assert result.adversarial.max() <= 1
        assert result.adversarial.dtype == images.dtype


# Half of what a random search in l2 tries there is cut off.
@pytest.mark.parametrize("attack", [attack for attack in QUICK_ATTACKS if attack is not LARGE_SQUARES], ids=describe)
def test_it_succeeds_on_images_of_black_and_white(attack):
    classifier = small()
    images = (torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(7)) > 0.5).float()
    result = run_attack(attack, classifier, images, Untargeted(classifier.predict(images)))
    assert result.success.all()
    assert result.linf.gt(0).all()


@ATTACK
def test_an_image_does_not_depend_on_the_size_and_order_of_its_batch(attack):
    classifier, images, labels = case()
    for goal, together in zip(goals(labels), results(attack), strict=True):
        for order in ([2], [3, 0]):
            same(run_attack(attack, classifier, images[order], goal.select(torch.tensor(order))), together, order)


@ATTACK
@settings(max_examples=3, deadline=None)
@given(scale=st.floats(0.01, 1), order=st.permutations(range(4)))
def test_an_image_does_not_depend_on_its_batch_mates(attack, scale, order):
    classifier, images, labels = case()
    mates = images[order].clone()
    where = order.index(0)
    keep = torch.arange(4) == where
    mates[~keep] *= scale
    goal = Untargeted(torch.where(keep, labels[order], classifier.predict(mates)))
    usual = results(attack)[0]
    found = run_attack(attack, classifier, mates, goal)
    assert bool(found.success[where]) == bool(usual.success[0])
    torch.testing.assert_close(found.l2[where], usual.l2[0], rtol=0.02, atol=1e-6)


@ATTACK
@settings(max_examples=3, deadline=None)
@given(shift=st.floats(-100, 100), aimed=st.booleans())
def test_a_shift_of_all_logits_changes_nothing(attack, shift, aimed):
    _, images, labels = case()
    shifted = small()
    with torch.no_grad():
        shifted.module.head.bias.add_(shift)
    two = [0, 1]
    goal = goals(labels)[aimed].select(torch.tensor(two))
    # A large shift rounds digits of the logits away, which is noise; what noise may do to a norm is 3 %.
    same(run_attack(attack, shifted, images[two], goal), results(attack)[aimed], two, spread=0.03)


@ATTACK
def test_its_counts_are_what_the_classifier_saw(attack):
    classifier, images, labels = case()
    with count_passes(classifier) as passes, torch.enable_grad():
        attempt = attack.attempt(Problem.of(classifier, images, Untargeted(labels)))
    assert int(attempt.forwards.sum()) == passes.forwards
    # A batch is differentiated whole, also where some of its images need it no more.
    assert int(attempt.backwards.sum()) <= passes.backwards


@ATTACK
def test_what_is_adversarial_already_comes_back_as_it_is(attack):
    classifier, images, labels = case()
    wrong = Untargeted((labels + 1) % 5)
    with count_passes(classifier) as passes:
        assert torch.equal(attack(classifier, images, wrong), images)
    # The images once, and the first twice more: has the model one answer?
    assert (passes.forwards, passes.backwards) == (6, 0)
    result = run_attack(attack, classifier, images, wrong)
    assert result.success.all()
    assert torch.equal(result.adversarial, images)
    assert result.forwards.tolist() == result.backwards.tolist() == [0, 0, 0, 0]


@ATTACK
@FEW_CLASSES
def test_where_nothing_succeeds_the_images_come_back(attack):
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    for goal in (Untargeted(torch.tensor([1, 1, 1])), Targeted(torch.tensor([2, 0, 2]))):
        result = run_attack(attack, hopeless(), images, goal)
        assert not result.success.any()
        assert torch.equal(result.adversarial, images)


@ATTACK
def test_pixels_outside_the_mask_are_bit_for_bit_what_they_were(attack):
    classifier, images, labels = case()
    masks = torch.zeros(4, 1, 16, 16)
    for number in range(4):
        masks[number, :, 3 : 12 + number, 2 * number : 10 + 2 * number] = 1
    for mask in (masks, masks[0, 0].bool()):
        result = run_attack(attack, classifier, images, Untargeted(labels), mask=mask)
        outside = (mask == 0).expand_as(images)
        assert torch.equal(result.attempted[outside], images[outside])
        assert result.success.any()
        assert result.l2[result.success].gt(0).all()
        assert torch.equal(attack(classifier, images, Untargeted(labels), mask=mask), result.attempted)


@ATTACK
def test_the_box_is_kept(attack):
    classifier, images, labels = case()
    images = 0.25 + images / 2
    labels = classifier.predict(images)
    result = run_attack(attack, classifier, images, Untargeted(labels), box=(0.2, 0.8))
    assert result.attempted.min() >= 0.2
    assert result.attempted.max() <= 0.8
    assert result.success.any()


@ATTACK
@pytest.mark.parametrize(("height", "width"), [(9, 21), (17, 11)])
def test_images_need_not_be_square(attack, height, width):
    classifier, images, labels = case(n=1, height=height, width=width)
    result = run_attack(attack, classifier, images, Untargeted(labels))
    assert result.success.all()
    assert result.adversarial.shape == images.shape


@ATTACK
def test_images_and_model_are_left_as_they_were(attack):
    classifier, images, labels = case()
    given, weights = images.clone(), {key: value.clone() for key, value in classifier.state_dict().items()}
    attack(classifier, images, Untargeted(labels))
    assert torch.equal(images, given)
    assert not images.requires_grad
    assert all(torch.equal(weights[key], value) for key, value in classifier.state_dict().items())
    assert all(p.grad is None for p in classifier.module.parameters())


@ATTACK
def test_the_same_call_gives_the_same_images(attack):
    classifier, images, labels = case()
    assert torch.equal(attack(classifier, images, Untargeted(labels)), results(attack)[0].attempted)


@ATTACK
def test_it_works_where_gradients_are_switched_off(attack):
    classifier, images, labels = case()
    expected = results(attack)[0].attempted
    with torch.no_grad():
        assert torch.equal(attack(classifier, images, Untargeted(labels)), expected)
        assert torch.equal(run_attack(attack, classifier, images, Untargeted(labels)).attempted, expected)


@ATTACK
def test_nan_logits_are_named(attack):
    classifier, images, labels = case()
    with torch.no_grad():
        classifier.module.head.bias[0] = float("nan")
    with pytest.raises(ModelError, match="NaN"):
        attack(classifier, images, Untargeted(labels))


CUTS = {
    "frozen": torch.no_grad(),
    "detached": lambda images: images.detach(),
    "numpy": lambda images: torch.from_numpy(images.detach().numpy()),
}


class Cut(nn.Module):
    """A small network that no gradient leads through, though its head has gradients all the same."""

    def __init__(self, cut):
        super().__init__()
        self.net, self.cut = small().module, cut

    def forward(self, x):
        if isinstance(self.cut, torch.no_grad):
            with torch.no_grad():
                features = self.net.second(self.net.first(x).relu()).relu().mean((2, 3))
            return self.net.head(features)
        return self.net(self.cut(x))


@GRADIENT_ATTACK
@pytest.mark.parametrize("cut", CUTS)
def test_a_model_that_cuts_the_gradient_off_is_named(attack, cut):
    classifier = Classifier(Cut(CUTS[cut]).eval(), size=(16, 16))
    _, images, _ = case()
    with pytest.raises(ModelError, match=r"logits do not depend on the images by operations .* such as torch\.no_grad"):
        attack(classifier, images, Untargeted(classifier.predict(images)))


class RootOfZero(nn.Module):
    """Finite logits everywhere; no derivative where the first pixel is 0."""

    def forward(self, x):
        root = x[:, 0, 0, 0].sqrt()
        return torch.stack([1 + root - root.detach(), x.flatten(1).mean(1) - 1], 1)


@GRADIENT_ATTACK
@FEW_CLASSES
def test_an_image_without_a_finite_gradient_is_named(attack):
    images = torch.full((3, 3, 8, 8), 0.5)
    images[1, 0, 0, 0] = 0
    mask = torch.ones(8, 8)
    mask[0, 0] = 0  # a start at random must not move it
    classifier = Classifier(RootOfZero(), size=(8, 8))
    with pytest.raises(ModelError, match="gradients; they are NaN or infinite for image 1 of the batch"):
        attack(classifier, images, Untargeted(torch.zeros(3, dtype=torch.int64)), mask=mask)


@ATTACK
@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"mask": torch.ones(8, 16)}, ParameterError, "`mask` must have the shape \\(16, 16\\), or \\(4, 1, 16, 16\\)"),
        ({"mask": torch.zeros(16, 16)}, ParameterError, "none for images 0, 1, 2, 3 of the batch"),
        ({"mask": torch.full((16, 16), 0.5)}, ParameterError, "`mask` must be true or 1 where"),
        ({"box": (0.2, 1.0)}, ImageError, "finite values in \\[0.2, 1\\]"),
        ({"box": (1.0, 0.0)}, ParameterError, "`box` must be two values"),
        ({"goal": Untargeted(torch.tensor([0]))}, ParameterError, "a class for each of the 4 images; got 1"),
        ({"images": torch.rand(4, 3, 16, 16) * 255}, ImageError, "Divide them by 255"),
        ({"images": torch.rand(3, 16, 16)}, ImageError, "must be a batch"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(attack, more, error, message):
    classifier, images, labels = case()
    given = {"images": images, "goal": Untargeted(labels)} | more
    images, goal = given.pop("images"), given.pop("goal")
    for call in (unwrap(run_attack), unwrap(type(attack).__call__)):
        with pytest.raises(error, match=message):
            call(attack, classifier, images, goal, **given)


@ATTACK
def test_a_target_that_is_there_already_is_refused(attack):
    classifier, images, labels = case()
    target = torch.stack([labels[0], (labels[1] + 1) % 5, (labels[2] + 1) % 5, labels[3]])
    with pytest.raises(ParameterError, match=r"another class than .* for images 0, 3 of the batch"):
        run_attack(attack, classifier, images, Targeted(target))
