"""What holds for every way to find a universal perturbation, whichever it is."""

import dataclasses

import pytest
import torch

import whyfooled.universal
from tests.helpers.models import attentive, small
from tests.helpers.quick_methods import FITS, make_universal
from whyfooled.errors import ImageError, ModelError, ParameterError
from whyfooled.registry import available, describe, parse
from whyfooled.sources import Source
from whyfooled.universal import UNIVERSAL, InterpretationAttack, UniversalPerturbation

SIDE = 8
METHOD = pytest.mark.parametrize("name", list(FITS))
BALL = pytest.mark.parametrize("ball", ["l2", "linf"])


def images(n=6):
    return torch.rand(n, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5))


def case(n=6):
    """Make a classifier, and images that it is right on."""
    classifier, given = small(side=SIDE), images(n)
    return classifier, (given, classifier.predict(given))


def unequal(found, other):
    return (found.delta - other.delta).abs().max() > 1e-3 * other.linf


class Listed:
    """Reads images from a list; some cannot be read."""

    def __init__(self, given, unreadable=()):
        self.given, self.unreadable = given, unreadable

    def read(self, index):
        if index in self.unreadable:
            raise ImageError(f"image {index} cannot be read.")
        return self.given[index]

    def files(self):
        return ()


def source(given, labels, unreadable=()):
    names = tuple(f"image {index}" for index in range(len(given)))
    return Source("listed", names, tuple((int(label),) for label in labels), Listed(given, unreadable))


def state(classifier):
    """Write down everything that a fit must leave as it is."""
    parts = [
        (part.training, *(len(hooks) for key, hooks in vars(part).items() if key.endswith("hooks")))
        for part in classifier.modules()
    ]
    kept = [(p.requires_grad, p.grad is None) for p in classifier.parameters()]
    return parts, kept, classifier.digest()


def test_every_method_of_the_package_is_in_the_list():
    public = {one for one in vars(whyfooled.universal).values() if isinstance(one, type) and hasattr(one, "card")}
    assert public == {*UNIVERSAL, InterpretationAttack}
    assert set(FITS) <= set(available("universal"))
    assert len(FITS) == len(UNIVERSAL)


@METHOD
def test_it_is_a_frozen_dataclass_that_describes_itself(name):
    method = make_universal(name, ball="linf", seed=3)
    assert dataclasses.is_dataclass(method)
    assert type(method).__dataclass_params__.frozen
    card = type(method).card
    assert all([card.name, card.title, card.summary.endswith("."), card.source, card.cost])
    assert parse("universal", describe(method)) == method
    assert parse("universal", name, {"epsilon": "1/2"}) == FITS[name](epsilon=0.5)


@METHOD
@BALL
def test_it_lies_in_the_ball_on_both_scales(name, ball):
    classifier, given = case()
    found = make_universal(name, 0.01, ball=ball).fit(classifier, given)
    assert found.delta.shape == (3, SIDE, SIDE)
    assert found.delta.dtype == torch.float32
    size = found.l2 if ball == "l2" else found.linf
    assert 0.0 < size <= 0.01 * (1 + 1e-5)
    assert (found.epsilon, found.ball) == (0.01, ball)
    scaled = make_universal(name, 2.55, ball=ball, scale=255).fit(classifier, given)
    assert scaled.epsilon == pytest.approx(0.01)
    torch.testing.assert_close(scaled.delta, found.delta, rtol=1e-3, atol=1e-5)


@METHOD
@BALL
def test_it_does_not_depend_on_how_the_images_are_batched_or_given(name, ball):
    classifier, (given, labels) = case()
    method = make_universal(name, ball=ball)
    by_two = method.fit(classifier, (given, labels), batch_size=2)
    by_five = method.fit(classifier, source(given, labels), batch_size=5)
    torch.testing.assert_close(by_five.delta, by_two.delta, rtol=0, atol=1e-5)
    assert by_five.fitted_to == by_two.fitted_to
    assert by_five.passes == by_two.passes


@METHOD
def test_the_classifier_is_left_as_it_was(name):
    classifier, given = case()
    classifier.module.train()
    classifier.module.second.eval()
    classifier.module.first.weight.requires_grad_(False)
    before = state(classifier)
    kept = given[0].clone()
    make_universal(name).fit(classifier, given)
    assert state(classifier) == before
    assert torch.equal(given[0], kept)
    assert not given[0].requires_grad


@METHOD
def test_it_goes_on_where_gradients_are_switched_off(name):
    classifier, given = case()
    found = make_universal(name).fit(classifier, given)
    with torch.no_grad():
        assert torch.equal(make_universal(name).fit(classifier, given).delta, found.delta)


@METHOD
def test_networks_with_attention_are_no_different(name):
    classifier, given = attentive(SIDE), images()
    found = make_universal(name).fit(classifier, (given, classifier.predict(given)))
    assert found.linf > 0


@METHOD
def test_the_seed_decides(name):
    classifier, given = case()
    # More than a few passes of a power method would forget where it began.
    found = make_universal(name).fit(classifier, given)
    assert torch.equal(make_universal(name).fit(classifier, given).delta, found.delta)
    assert unequal(make_universal(name, seed=1).fit(classifier, given), found)


@METHOD
def test_it_says_how_it_was_found_and_is_the_same_after_it_was_saved(name, tmp_path):
    classifier, given = case()
    method = make_universal(name)
    found = method.fit(classifier, given)
    assert parse("universal", found.method) == method
    assert found.saliency == ("gradient" if method.breaks_maps else "")
    assert (found.model, found.model_digest) == ("small", classifier.digest())
    assert found.passes.forwards >= len(given[0])
    found.save(tmp_path / "delta.safetensors")
    again = UniversalPerturbation.load(tmp_path / "delta.safetensors")
    assert torch.equal(again.delta, found.delta)
    for field in dataclasses.fields(found):
        if field.name != "delta":
            assert getattr(again, field.name) == getattr(found, field.name), field.name


@METHOD
def test_images_that_are_wrong_already_do_not_count(name):
    classifier, (given, labels) = case()
    wrong = labels.clone()
    wrong[1] = (wrong[1] + 1) % 5
    kept = torch.tensor([0, 2, 3, 4, 5])
    found = make_universal(name).fit(classifier, (given, wrong))
    assert len(found.fitted_to) == len(make_universal(name).fit(classifier, (given[kept], labels[kept])).fitted_to)
    with pytest.raises(ImageError, match="None of the 6 images is classified as what it shows"):
        make_universal(name).fit(classifier, (given, (labels + 1) % 5))


@pytest.mark.parametrize("name", [name for name in FITS if name != "random"])
@pytest.mark.parametrize("cut", [torch.Tensor.detach, lambda x: torch.from_numpy(x.detach().numpy())])
def test_a_model_that_cuts_the_gradient_off_is_named(name, cut):
    classifier, (given, labels) = case()
    whole = classifier.module.forward
    classifier.module.forward = lambda x: whole(cut(x))
    with pytest.raises(ModelError, match="logits do not depend on the images by operations that have a gradient"):
        make_universal(name).fit(classifier, (given, labels))


@METHOD
def test_refusals(name):
    for epsilon in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ParameterError, match="`epsilon` must be a finite number above 0"):
            make_universal(name, epsilon)
    with pytest.raises(ParameterError, match=r"`epsilon` must be above 0 and at most 1 .*Did you mean 8/255"):
        make_universal(name, 8.0, ball="linf")
    with pytest.raises(ParameterError, match="`scale` must be the value of white, 1 or 255; got 100"):
        make_universal(name, scale=100)
    classifier, (given, labels) = case()
    with pytest.raises(ImageError, match="image 2 cannot be read"):
        make_universal(name).fit(classifier, source(given, labels, unreadable=(2,)))
    with pytest.raises(ParameterError, match="`batch_size` must be at least 1"):
        make_universal(name).fit(classifier, (given, labels), batch_size=0)
    for cores in (0, -1):
        with pytest.raises(ParameterError, match=f"`workers` must be at least 1; got {cores}"):
            make_universal(name).fit(classifier, (given, labels), workers=cores)
    for seed in (-1, 2**63):
        with pytest.raises(
            ParameterError, match="`seed` must be a whole number from 0 to 2^63 − 1".replace("^", r"\^")
        ):
            make_universal(name, seed=seed)
    with pytest.raises(ParameterError, match=r"`epsilon` must be at most 255, .* in the l-infinity ball; got 300"):
        make_universal(name, 300.0, ball="linf", scale=255)
    with pytest.raises(ParameterError, match=r"`labels` must be the classifier's indices, from 0 to 4; got -1"):
        make_universal(name).fit(classifier, (given, labels.clone().fill_(-1)))


@pytest.mark.parametrize(
    ("name", "parameter"),
    [("grad", "penalty"), ("grad", "noise"), ("grad", "step_size"), ("pca", "contrast"), ("uap-singular", "q")],
)
def test_no_parameter_is_infinite(name, parameter):
    with pytest.raises(ParameterError, match=f"`{parameter}` must be finite; got inf"):
        make_universal(name, **{parameter: float("inf")})
