"""Attacks that know the explanation: their slopes, their limits, what they cost, and what is said of them."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.models import linear, small
from whyfooled import Enhanced, GradCAM, Gradient, GuidedBackprop, Targeted, Untargeted, count_passes
from whyfooled.attacks import AttackResult, AwareResult, ExplanationAware, Problem, run_attack, run_aware
from whyfooled.attacks._decoys import draw_decoy
from whyfooled.attacks._shown import likeness, mass_within, show, top_pixels_shared
from whyfooled.attacks.aware import Pursuit
from whyfooled.errors import MethodError, ParameterError
from whyfooled.registry import describe, parse
from whyfooled.saliency import LIME
from whyfooled.saliency.interpretations import smoothed
from whyfooled.tensors.medians import filter_median

ATTACK = ExplanationAware(epsilon=0.3, steps=5)
FOUR = (Enhanced(), GuidedBackprop(), Gradient(), GradCAM())


def case(n=3, side=10):
    classifier = small()
    images = torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(7))
    return classifier, images, classifier.predict(images)


@pytest.fixture(scope="module")
def made():
    """Attack the images of `case` once, for whoever only looks at the result."""
    classifier, images, labels = case()
    return run_aware(ATTACK, classifier, images, Untargeted(labels), enough=0.25)


def pursue(attack, classifier, images, goal):
    n = len(images)
    problem = Problem(classifier, images, goal, torch.zeros(n, 1, 1, 1), torch.ones(n, 1, 1, 1), torch.arange(n))
    return Pursuit.of(attack, problem, torch.full((n,), attack.margin).to(images))


@pytest.mark.parametrize("methods", [(method,) for method in FOUR] + [FOUR], ids=str)
@pytest.mark.parametrize("decoy", ["clean", "square"])
def test_the_slope_of_the_maps_agrees_with_finite_differences(methods, decoy):
    attack = ExplanationAware(methods=methods, decoy=decoy, views=("identity", "median"), weight=0.7, beta=5.0)
    classifier, images = small().double(), case(n=2, side=8)[1].double()
    pursuit, logits = pursue(attack, classifier, images, Untargeted(classifier.predict(images)))
    generator = torch.Generator().manual_seed(1)
    point, way = (torch.rand(images.shape, generator=generator, dtype=torch.float64) for _ in range(2))
    found = float((pursuit.find_slope(point, logits) * (way - 0.5)).sum())

    def loss(images):
        with smoothed(attack.beta):
            return attack.weight * float(pursuit.find_apart(images, logits).sum())

    step = 1e-6
    expected = (loss(point + step * (way - 0.5)) - loss(point - step * (way - 0.5))) / (2 * step)
    assert expected != 0
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("ball", ["linf", "l2"])
@pytest.mark.parametrize("aimed", [False, True])
def test_at_weight_zero_it_is_the_plain_attack_to_the_bit(ball, aimed):
    classifier, images, labels = case()
    goal = Targeted((labels + 1) % 5) if aimed else Untargeted(labels)
    attack = ExplanationAware(epsilon={"linf": 0.5, "l2": 14.0}[ball], ball=ball, weight=0, steps=9, margin=math.inf)
    found = run_attack(attack, classifier, images, goal)
    point, speed = images.clone(), torch.zeros_like(images)
    ended, largest = images.clone(), torch.full((len(images),), -math.inf)
    for step in range(10):
        inputs = point.requires_grad_()
        margin = -goal.margin(classifier(inputs))
        better = margin.detach() > largest
        ended[better], largest[better] = point.detach()[better], margin.detach()[better]
        (slope,) = torch.autograd.grad(-margin.sum(), inputs)
        speed = 0.8 * speed + slope / slope.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        length = speed.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        way = speed.sign() if ball == "linf" else speed / length
        delta = point.detach() - 0.3 * (1 - step / 9) * attack.epsilon * way - images
        if ball == "linf":
            delta = delta.clamp(-attack.epsilon, attack.epsilon)
        else:
            delta = delta * (attack.epsilon / delta.flatten(1).norm(dim=1).clamp_min(attack.epsilon).view(-1, 1, 1, 1))
        point = (images + delta).clamp(0, 1)
    assert found.success.any()
    if ball == "linf":
        assert torch.equal(found.attempted, ended)
    else:
        torch.testing.assert_close(found.attempted, ended)


def test_it_forges_the_map_where_a_plain_attack_and_one_without_smoothing_do_not():
    classifier, images, labels = case(n=4)
    attack = ExplanationAware(epsilon=0.3, steps=15)
    result = run_aware(attack, classifier, images, Untargeted(labels))
    aware, plain, matched, clean, chance = result.cosines.mean(0)[:, 0, 0].tolist()
    assert result.success.all()
    assert result.failed == [""] * 4
    assert aware > 0.75
    assert max(plain, matched, chance) < 0.45
    assert clean == pytest.approx(1)
    blunt = run_aware(ExplanationAware(epsilon=0.3, steps=15, beta=None), classifier, images, Untargeted(labels))
    assert float(blunt.cosines[:, 0].mean()) < (aware + plain) / 2


@pytest.mark.parametrize("ball", ["linf", "l2"])
def test_box_mask_and_ball_are_kept(ball):
    classifier, images, _ = case()
    images = 0.2 + images / 2
    mask = torch.zeros(10, 10)
    mask[2:9, 1:9] = 1
    attack = ExplanationAware(epsilon={"linf": 0.1, "l2": 1.5}[ball], ball=ball, steps=5, decoy="square")
    goal = Untargeted(classifier.predict(images))
    made = run_attack(attack, classifier, images, goal, mask=mask, box=(0.15, 0.75)).attempted
    delta = made - images
    size = delta.abs().amax((1, 2, 3)) if ball == "linf" else delta.flatten(1).norm(dim=1)
    assert (size <= attack.epsilon + 1e-6).all()
    assert (size > attack.epsilon / 2).all()
    assert made.min() >= 0.15
    assert made.max() <= 0.75
    assert torch.equal(made * (1 - mask), images * (1 - mask))


def test_a_failure_is_that_of_the_part_that_failed():
    classifier, images, labels = case()
    # The class: there is no room. The map: its weight is next to nothing.
    tight = run_aware(ExplanationAware(epsilon=1e-6, steps=2), classifier, images, Untargeted(labels))
    assert tight.failed == ["class"] * 3
    assert tight.to_frame()["failed"].tolist() == ["class"] * 3
    light = run_aware(ExplanationAware(epsilon=0.3, steps=6, weight=1e-6), classifier, images, Untargeted(labels))
    assert light.failed == ["map"] * 3


def test_its_gain_is_the_part_of_the_way_to_the_decoy_from_the_plain_attack_of_the_same_margin(made):
    aware, matched = made.cosines[:, 0, 0, 0], made.cosines[:, 2, 0, 0]
    torch.testing.assert_close(made.gains[:, 0, 0], (aware - matched) / (1 - matched))
    assert made.map_success.tolist() == ((aware - matched) / (1 - matched) >= 0.25).tolist()


def test_what_a_plain_attack_of_the_same_margin_has_already_is_no_forgery(made):
    # Beyond the plain attack that goes as far as it can, but no better than one that goes as far as the aware one.
    cosines = made.cosines.clone()
    for shown, value in enumerate((0.9, 0.2, 0.89, 1.0, 0.1)):
        cosines[:, shown] = value
    same = replace(made, cosines=cosines, success=torch.ones_like(made.success))
    assert not same.map_success.any()
    assert same.failed == ["map"] * 3


def test_the_matched_attack_has_the_margin_of_the_aware_one_and_the_plain_one_more(made):
    aware, plain, matched = (-each.goal.margin(each.logits) for each in (made, made.plain, made.matched))
    torch.testing.assert_close(matched, aware, rtol=0.05, atol=0)
    assert (matched.sum() >= 0.999 * aware.sum()).all()
    assert (plain >= matched).all()
    assert (plain > matched).any()


def test_every_number_is_that_of_the_maps_themselves():
    classifier, images, labels = case()
    attack = ExplanationAware(epsilon=0.3, steps=3, methods=(Enhanced(), Gradient()), views=("identity", "median"))
    result = run_aware(attack, classifier, images, Untargeted(labels))
    runner_up = classifier(images).scatter(1, labels.unsqueeze(1), -math.inf).argmax(1)
    now = classifier(result.attempted).scatter(1, labels.unsqueeze(1), -math.inf).argmax(1)

    def cosine(first, second):
        first, second = (maps.abs().sum(1).flatten(1).double() for maps in (first, second))
        return (first * second).sum(1) / first.norm(dim=1) / second.norm(dim=1)

    for number, view in enumerate((lambda seen: seen, partial(filter_median, size=2))):
        clean, seen = view(images), view(result.attempted)
        decoy = Enhanced()(classifier, clean, labels, contrast=runner_up)
        expected = cosine(Enhanced()(classifier, seen, now, contrast=labels), decoy)
        torch.testing.assert_close(result.cosines[:, 0, number, 0].double(), expected, rtol=1e-4, atol=1e-5)
        by_chance = torch.stack([cosine(decoy.roll(by, 0), decoy) for by in (1, 2)]).mean(0)
        torch.testing.assert_close(result.cosines[:, 4, number, 0].double(), by_chance, rtol=1e-4, atol=1e-5)
        gradients = cosine(Gradient()(classifier, seen, now), Gradient()(classifier, clean, labels))
        torch.testing.assert_close(result.cosines[:, 0, number, 1].double(), gradients, rtol=1e-4, atol=1e-5)
    frame = result.maps_frame()
    assert len(frame) == 3 * 2 * 2 * 5
    row = frame[(frame["image"] == 1) & (frame["view"] == "median") & (frame["method"] == "gradient")].iloc[2]
    assert row["shown"] == "matched margin"
    assert row["cosine"] == float(result.cosines[1, 2, 1, 1])
    assert row["top_share"] == float(result.top_shares[1, 2, 1, 1])
    assert row["mass"] == float(result.masses[1, 2, 1, 1])


def test_measures_of_maps_by_hand():
    decoy = torch.tensor([[4.0, 2.0], [1.0, 0.0]]).view(1, 1, 1, 2, 2)
    shown = torch.tensor([[0.5, 0.1], [0.0, 0.4]]).view(1, 1, 1, 2, 2)
    assert float(likeness(shown, decoy)) == pytest.approx(2.2 / math.sqrt(0.42 * 21))
    assert float(mass_within(shown, decoy)) == pytest.approx(0.6)
    # The first half of the decoy are its upper pixels; of the map, the first and the last.
    assert float(top_pixels_shared(shown, decoy, 0.5)) == 0.5
    assert float(likeness(torch.zeros_like(shown), decoy)) == 0


def test_an_image_does_not_depend_on_its_batch_but_for_chance(made):
    classifier, images, labels = case()
    alone = run_aware(ATTACK, classifier, images[1:2], Untargeted(labels[1:2]))
    assert alone.cosines[:, 4].isnan().all()
    torch.testing.assert_close(alone.cosines[:, :4], made.cosines[1:2, :4], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(alone.attempted, made.attempted[1:2], rtol=0, atol=1e-3)


def test_results_are_chosen_and_joined(made):
    parts = [made.select(torch.tensor([0])), made.select(torch.tensor([1, 2]))]
    joined = AwareResult.join(parts).to(torch.device("cpu"))
    assert isinstance(joined, AttackResult)
    assert torch.equal(joined.cosines, made.cosines)
    assert torch.equal(joined.plain.attempted, made.plain.attempted)
    assert torch.equal(joined.goal.classes, made.goal.classes)
    assert joined.methods == ("enhanced",)
    assert repr(joined).startswith("AwareResult(3 of 3 reached their goal")


def test_what_is_misclassified_already_is_not_counted():
    classifier, images, labels = case()
    wrong = Untargeted(torch.where(torch.tensor([True, False, False]), (labels + 1) % 5, labels))
    result = run_aware(ATTACK, classifier, images, wrong)
    assert result.cosines[0].isnan().all()
    assert not result.cosines[1:].isnan().any()
    assert result.forwards[0] == 0


def test_its_passes_are_those_that_the_card_says():
    classifier, images, labels = case(n=2)
    attack = ExplanationAware(epsilon=0.1, steps=5)
    result = run_attack(attack, classifier, images, Untargeted(labels))
    # Once for the class and once for the clean map; then an iterate's class and map, and but for the last its slopes.
    assert result.forwards.tolist() == [2 + 6 * 2 + 5] * 2
    # Two classes are one map. The slope of the margin takes 1, that of the map 2 and 1 for the second derivative.
    assert result.backwards.tolist() == [2 + 6 * 2 + 5 * (1 + 2 + 1)] * 2
    plain = ExplanationAware(epsilon=0.1, steps=5, weight=0, margin=math.inf)
    with count_passes(classifier) as passes:
        plain.attempt(Problem.of(classifier, images, Untargeted(labels)))
    assert (passes.forwards, passes.backwards) == (2 * 7, 2 * 5)


def test_without_maps_an_image_that_has_its_margin_is_done():
    classifier, images, labels = case()
    attack = ExplanationAware(epsilon=0.3, weight=0, margin=1e-3)
    result = run_attack(attack, classifier, images, Untargeted(labels))
    assert (result.forwards < 41).all()
    alone = run_attack(attack, classifier, images[2:], Untargeted(labels[2:]))
    assert int(alone.forwards) == int(result.forwards[2])


def test_the_command_line_names_its_parameters(tmp_path):
    assert parse("attacks", "aware(methods=enhanced, decoy=clean)") == ExplanationAware()
    several = parse("attacks", "aware(methods=[enhanced, guided, gradcam], views=[identity, median], decoy=square)")
    assert several.methods == (Enhanced(), GuidedBackprop(), GradCAM())
    assert (several.views, several.decoy) == (("identity", "median"), "square")
    assert parse("attacks", describe(several)) == several
    picture = tmp_path / "decoy.png"
    Image.fromarray(np.full((9, 9), 200, np.uint8)).save(picture)
    assert parse("attacks", f"aware(decoy={picture})").decoy == str(picture)


def test_decoys_are_normalised_maps_of_the_images_size(tmp_path):
    classifier, images, labels = case(n=2, side=16)
    problem = Problem.of(classifier, images, Untargeted(labels))
    square = draw_decoy("square", problem)
    assert square.shape == (2, 1, 1, 16, 16)
    assert square[1, 0, 0, :4, :4].unique().tolist() == [1 / 16]
    assert float(square[1].sum()) == pytest.approx(1)
    pixels = np.zeros((32, 64), np.uint8)
    pixels[:, 32:] = 255
    Image.fromarray(pixels).save(tmp_path / "half.png")
    half = draw_decoy(str(tmp_path / "half.png"), problem)[0, 0, 0]
    assert float(half[:, 9:].sum()) == pytest.approx(7 / 8, abs=0.01)
    maps = torch.rand(2, 16, 16)
    own = draw_decoy(maps, problem.select(torch.tensor([1])))
    torch.testing.assert_close(own[0, 0, 0], maps[1] / maps[1].sum())
    one = draw_decoy(maps[0], problem)
    torch.testing.assert_close(one[1, 0, 0], maps[0] / maps[0].sum())


def test_a_square_draws_the_saliency_to_it():
    classifier, images, labels = case(n=2)
    result = run_aware(ExplanationAware(epsilon=0.3, steps=12, decoy="square"), classifier, images, Untargeted(labels))
    aware, plain = result.masses[:, 0, 0, 0], result.masses[:, 1, 0, 0]
    assert (aware > 2 * plain).all()
    assert float((aware - plain).mean()) > 0.2


def test_what_is_no_tuple_of_methods_is_refused_without_being_gone_through():
    # Types are checked in these tests, and only here; who is without that check has the sentence.
    attack = ExplanationAware()
    object.__setattr__(attack, "methods", GradCAM())
    with pytest.raises(ParameterError, match=r"must be a tuple of saliency methods, such as \(GradCAM\(\),\)"):
        attack.__post_init__()


METHODS = "`methods` must be a tuple of saliency methods, such as (GradCAM(),), not of their names"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"epsilon": 8}, "`epsilon` must be above 0 and at most 1 (pixel values are scaled to [0, 1]); got 8. Did you"),
        ({"methods": ()}, f"{METHODS}; got ()."),
        ({"methods": ("gradcam",)}, f"{METHODS}; got ('gradcam',)."),
        ({"decoy": "cleen"}, "`decoy` must be clean, square, a map, or a picture that is there; got 'cleen'."),
        ({"decoy": torch.zeros(4, 4)}, "`decoy` must be finite, none negative, none 0 everywhere; got other values."),
        ({"decoy": torch.ones(1, 1, 4, 4)}, "`decoy` must be a map of the shape (h, w) or (n, h, w); got (1, 1, 4, 4)"),
        ({"views": ()}, "`views` must be a list of views, one at least; got ()."),
        ({"views": ("medium",)}, "`views` must be functions of images, or any of identity, median; got 'medium'. Did"),
        ({"weight": -1}, "`weight` must be at least 0; got -1."),
        ({"margin": 0}, "`margin` must be above 0; got 0."),
        ({"momentum": 1}, "`momentum` must be at least 0 and below 1; got 1."),
        ({"steps": 0}, "`steps` must be at least 1; got 0."),
    ],
    ids=str,
)
def test_bad_parameters_are_named(given, sentence):
    with pytest.raises(ParameterError) as raised:
        ExplanationAware(**given)
    assert str(raised.value).startswith(sentence)


def test_a_method_without_slopes_is_refused_before_any_work():
    with pytest.raises(MethodError, match="The maps of lime cannot be differentiated with respect to the image; take"):
        ExplanationAware(methods=(LIME(),))


def test_what_does_not_fit_the_images_is_named():
    classifier, images, labels = case()
    for decoy, sentence in (
        (torch.ones(8, 8), r"`decoy` must have the size of the images, \(10, 10\); got \(8, 8\)"),
        (torch.ones(2, 10, 10), "`decoy` must have a map for each image, or be one for all; there are 3 images; got 2"),
    ):
        with pytest.raises(ParameterError, match=sentence):
            run_attack(ExplanationAware(decoy=decoy), classifier, images, Untargeted(labels))
    with pytest.raises(ParameterError, match=r"`views` must give images of the shape that they take.*got \(3, 3, 5"):
        show((Gradient(),), (lambda seen: seen[..., ::2, ::2],), classifier, images, labels, labels)


def test_a_method_that_the_model_has_no_room_for_says_so():
    classifier = linear(torch.rand(3, 192, generator=torch.Generator().manual_seed(0)))
    images = torch.rand(1, 3, 8, 8)
    with pytest.raises(MethodError, match="needs a network with activations"):
        run_attack(ExplanationAware(), classifier, images, Untargeted(classifier.predict(images)))
