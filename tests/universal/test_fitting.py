"""Going over the images of a fit: sums equal to a plain loop, in any batches; which images are used."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.helpers.models import linear, small
from tests.helpers.planted_maps import noise
from whyfooled import Classifier
from whyfooled.errors import ImageError, MethodError, ParameterError
from whyfooled.images import content_digest
from whyfooled.running.engines import Local
from whyfooled.saliency import CAM, Gradient, GuidedBackprop
from whyfooled.sources import Source
from whyfooled.tensors.randomness import normal
from whyfooled.types import silent
from whyfooled.universal import UAP, UPIPCA, RandomDirection, UniversalPerturbation, UPIGrad, evaluate
from whyfooled.universal._fitting import start_fitting
from whyfooled.universal._given import as_source


@contextmanager
def started(classifier, source, batch_size=3, class_map=None, places=None, progress=silent, seed=0):
    with start_fitting(
        classifier,
        source,
        Gradient(),
        places=range(len(source)) if places is None else places,
        class_map=class_map,
        batch_size=batch_size,
        engine=Local(classifier, 1),
        seed=seed,
        progress=progress,
    ) as fit:
        yield fit


def scene(count=7):
    classifier, images = small(side=8), noise(count)
    classes = classifier.predict(images)
    return classifier, images, classes, as_source((images, classes))


def noisy_sums(classifier, part):
    """Add up what depends on images, classes and noise."""
    drawn = normal(part.images, part.generators())
    weights = (1 + part.classes).view(-1, 1, 1, 1).to(part.images)
    return {"images": (weights * part.images).sum(0), "noise": drawn.sum(0), "count": torch.tensor(len(part.images))}


def each_noise(classifier, part):
    """Give the noise of every image, by its brightest value."""
    return {
        f"{float(image.max()):.9f}": one
        for image, one in zip(part.images, normal(part.images, part.generators()), strict=True)
    }


@pytest.mark.parametrize("batch_size", [1, 3, 7, 20])
def test_a_total_is_that_of_a_plain_loop(batch_size):
    classifier, images, classes, source = scene()
    with started(classifier, source, batch_size) as fit:
        found = fit.total(noisy_sums)
        some = fit.total(noisy_sums, [4, 1])
    weights = (1 + classes).double().view(-1, 1, 1, 1)
    torch.testing.assert_close(found["images"], (weights * images.double()).sum(0), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(some["images"], (weights * images.double())[[4, 1]].sum(0), rtol=1e-6, atol=1e-6)
    assert (found["count"], some["count"]) == (7, 2)
    assert found["images"].dtype == torch.float64


def test_an_image_has_its_own_noise_in_any_batch_and_another_in_every_call():
    classifier, _, _, source = scene()
    calls = []
    for batch_size, places in ((1, None), (3, None), (7, [6, 2, 3, 0, 1, 5, 4])):
        with started(classifier, source, batch_size) as fit:
            calls.append([fit.total(each_noise, places), fit.total(each_noise, places)])
    first, second = calls[0]
    assert len(first) == 7
    for other in calls[1:]:
        for mine, theirs in zip((first, second), other, strict=True):
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    drawn = torch.stack([one.flatten() for call in (first, second) for one in call.values()])
    assert (torch.corrcoef(drawn) - torch.eye(14)).abs().max() < 0.35
    with started(classifier, source, seed=1) as fit:
        other = fit.total(each_noise)
    assert not any(torch.equal(other[name], first[name]) for name in first)


def test_minibatches_are_all_images_so_often_in_random_orders():
    classifier, _, _, source = scene()
    with started(classifier, source, places=[0, 2, 3, 5, 6]) as fit:
        found = list(fit.minibatches(2, 3))
        again = list(fit.minibatches(2, 3))
    assert [len(one) for one in found] == [2, 2, 1] * 3
    orders = [[place for one in found[start : start + 3] for place in one] for start in (0, 3, 6)]
    assert all(sorted(order) == [0, 2, 3, 5, 6] for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    assert again == found


def test_the_order_of_sums_is_that_of_the_places_whoever_finishes_first():
    classifier, _, _, source = scene()

    class Backwards:
        """Finishes the last shard first."""

        def __init__(self, crew):
            self.crew = crew

        def run(self, tasks, tick=None):
            return iter(list(self.crew.run(tasks))[::-1])

    # Added up in another order, the small one would be lost twice.
    values = {0: 1e16, 1: 1.0, 2: -1e16, 3: 1.0, 4: 0.0, 5: 0.0, 6: 0.0}

    def step(classifier, part):
        return {"value": torch.tensor(values[seen.pop(0)], dtype=torch.float64)}

    expected = 0.0
    for value in values.values():
        expected += value
    with started(classifier, source, batch_size=1) as fit:
        seen = list(range(7))
        forwards = float(fit.total(step)["value"])
        fit.crew = Backwards(fit.crew)
        seen = list(range(7))
        backwards = float(fit.total(step)["value"])
    assert forwards == backwards == expected


def test_images_that_are_classified_wrong_are_left_out():
    classifier, images, classes, _ = scene()
    given = classes.clone()
    given[[1, 4]] = (given[[1, 4]] + 1) % 5
    with started(classifier, as_source((images, given))) as fit:
        assert fit.places == (0, 2, 3, 5, 6)
        assert fit.classes == {place: int(classes[place]) for place in fit.places}
        assert fit.digests == {content_digest(images[place]) for place in fit.places}
    with pytest.raises(ImageError, match="None of the 7 images is classified as what it shows"):
        RandomDirection().fit(classifier, (images, (classes + 1) % 5))


def with_labels(images, labels, names=None):
    whole = as_source((images, torch.zeros(len(images), dtype=torch.int64)))
    return Source("labelled", whole.names, tuple(labels), whole.reader, names)


def test_one_of_several_labels_is_enough_and_none_is_what_the_model_sees():
    classifier, images, classes, _ = scene(3)
    given = classes.tolist()
    labels = [((given[0] + 1) % 5, given[0]), (), ((given[2] + 1) % 5, (given[2] + 2) % 5)]
    with started(classifier, with_labels(images, labels)) as fit:
        assert fit.classes == {0: given[0], 1: given[1]}


def test_labels_of_other_names_are_mapped():
    module = small(side=8).module
    classifier = Classifier(module, size=(8, 8), mean=(0.5,) * 3, std=(0.25,) * 3, class_names=list("abcde"))
    images = noise(6)
    given = classifier.predict(images).tolist()
    source = with_labels(images, [(4 - one,) for one in given], tuple("edcba"))
    assert len(RandomDirection().fit(classifier, source).fitted_to) == 6
    straight = with_labels(images, [(one,) for one in given], tuple("edcba"))
    right = sum(one == 2 for one in given)
    if right:
        assert len(RandomDirection().fit(classifier, straight).fitted_to) == right
    else:
        with pytest.raises(ImageError, match="None of the 6 images"):
            RandomDirection().fit(classifier, straight)


def test_an_image_that_cannot_be_read_stops_the_fit_by_name(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    for number, one in enumerate(pixels):
        Image.fromarray(one).save(tmp_path / f"{number}.png")
    assert len(RandomDirection().fit(small(side=8), tmp_path).fitted_to) == 3
    (tmp_path / "1.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"1\.png"):
        RandomDirection().fit(small(side=8), tmp_path)


def test_progress_is_told_of_every_shard():
    classifier, images, classes, _ = scene()
    told = []
    UPIPCA(epsilon=1, passes=2, samples=1).fit(
        classifier, (images, classes), batch_size=3, progress=lambda *one: told.append(one)
    )
    steps = ["look", "pass 1 of 2", "pass 2 of 2", "choice"]
    assert told == [(done, 7, step) for step in steps for done in (3, 6, 7)]


def test_a_count_is_drawn_by_the_seed():
    classifier, images, classes, _ = scene()
    found = [RandomDirection(seed=seed).fit(classifier, (images, classes), count=3).fitted_to for seed in (0, 0, 1)]
    assert len(found[0]) == 3
    assert found[0] == found[1] != found[2]
    assert len(RandomDirection().fit(classifier, (images, classes), count=100).fitted_to) == 7


def test_grey_images_and_photographs_of_other_sizes_are_fitted_to(tmp_path):
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3), torch.nn.Softplus(), torch.nn.Linear(3, 2))
    grey = Classifier(flat, mean=(0.5,), std=(0.5,), size=(6, 8))
    found = UPIPCA(epsilon=1, passes=1).fit(grey, (noise(2)[:, :1, :6], grey.predict(noise(2)[:, :1, :6])))
    assert tuple(found.delta.shape) == (1, 6, 8)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    found = UPIPCA(epsilon=1, passes=1).fit(grey, tmp_path)
    assert tuple(found.delta.shape) == (1, 6, 8)
    # As it was, and as it went in.
    assert len(found.fitted_to) == 2


def test_the_model_is_left_as_it_was():
    classifier, images, classes, _ = scene()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    UPIPCA(epsilon=1, contrast=0.5, passes=1).fit(classifier, (images, classes))
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
    assert all(parameter.grad is None for parameter in classifier.parameters())


def test_images_of_any_number_of_channels_are_fitted_to_and_known_again():
    module = nn.Sequential(nn.Conv2d(5, 4, 3), nn.GELU(), nn.Flatten(), nn.LazyLinear(3)).eval()
    classifier = Classifier(module, mean=(0.0,) * 5, std=(1.0,) * 5, size=(8, 8))
    images = torch.rand(4, 5, 8, 8, generator=torch.Generator().manual_seed(0))
    found = UPIGrad(epsilon=0.5, passes=1).fit(classifier, (images[:2], classifier.predict(images[:2])))
    assert found.delta.shape == (5, 8, 8)
    assert evaluate(classifier, found, (images[2:], classifier.predict(images[2:]))).count == 2
    with pytest.raises(ParameterError, match="got 1 of 3 that it was, such as 0"):
        evaluate(classifier, found, (images[1:], classifier.predict(images[1:])))


@pytest.mark.parametrize("given", ["gradient", None, Gradient])
def test_what_is_no_saliency_method_is_refused(given):
    classifier, images = small(side=8), noise(2)
    source = (images, classifier.predict(images))
    with pytest.raises(ParameterError, match=r"`saliency` must be a saliency method, such as Gradient\(\)"):
        UPIGrad(epsilon=0.5, passes=1).fit(classifier, source, given)
    found = UniversalPerturbation(torch.full((3, 8, 8), 0.1), 2.0)
    with pytest.raises(ParameterError, match=r"`saliency` must be a saliency method, such as Gradient\(\)"):
        evaluate(classifier, found, source, given)


class Hurried(nn.Module):
    """Pixels that attend to each other, in a form of attention that has no second derivative."""

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2).unsqueeze(1).contiguous()
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return F.scaled_dot_product_attention(tokens, tokens, tokens).mean((1, 2))


def test_a_model_that_can_be_differentiated_once_is_refused_in_a_sentence():
    classifier, images = Classifier(Hurried(), size=(8, 8)), noise(2)
    source = (images, classifier.predict(images))
    with pytest.raises(MethodError, match=r"can be differentiated only once: .*flash_attention"):
        UPIGrad(epsilon=0.5, passes=1).fit(classifier, source)
    assert UAP(epsilon=0.5, passes=1).fit(classifier, source).l2 == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("beta", "said"),
    [(10.0, r"with smooth activations too \(beta=10\). The model is linear"), (None, "Leave `beta` at a number")],
)
@pytest.mark.parametrize("method", [UPIGrad, UPIPCA])
def test_maps_without_slopes_are_refused_with_what_was_tried(method, beta, said):
    classifier, images = linear(torch.eye(3, 192)), noise(2)
    with pytest.raises(MethodError, match=said):
        method(epsilon=0.5, passes=1, beta=beta).fit(classifier, (images, classifier.predict(images)))


def test_maps_of_other_methods_can_be_broken_and_those_that_cannot_are_refused():
    classifier, images, classes, _ = scene(4)
    found = UPIPCA(epsilon=1, passes=1).fit(classifier, (images, classes), GuidedBackprop())
    assert found.saliency == "guided"
    assert RandomDirection().fit(classifier, (images, classes), CAM()).saliency == ""
    with pytest.raises(Exception, match="cannot be differentiated"):
        UPIPCA().fit(classifier, (images, classes), lambda classifier, images, classes: images)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ((noise(2), torch.tensor([0, 1, 2])), {}, "The classes must be whole numbers, one for each of 2 images"),
        ((noise(2), torch.tensor([0.0, 1.0])), {}, "The classes must be whole numbers"),
        ((noise(2), torch.tensor([0, 7])), {}, "`labels` must be the classifier's indices, from 0 to 4; got 7"),
        ((noise(2), torch.tensor([0, 1])), {"batch_size": 0}, "`batch_size` must be at least 1"),
        ((noise(2), torch.tensor([0, 1])), {"workers": 0}, "`workers` must be at least 1"),
        ((noise(2), torch.tensor([0, 1])), {"count": 0}, "`count` must be at least 1"),
        ((noise(2), torch.tensor([0, 1])), {"engine": "steam"}, "`engine` must be one of local, ray"),
    ],
)
def test_a_bad_argument_is_named(source, options, message):
    with pytest.raises(ParameterError, match=message):
        RandomDirection().fit(small(side=8), source, **options)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ((noise(0), torch.zeros(0, dtype=torch.int64)), "There are no images"),
        ((255 * noise(1), torch.zeros(1, dtype=torch.int64)), "Divide them by 255"),
        ((noise(1, side=9), torch.zeros(1, dtype=torch.int64)), r"must have the shape of the classifier's input"),
    ],
)
def test_images_that_cannot_be_used_are_refused(source, message):
    with pytest.raises(ImageError, match=message):
        RandomDirection().fit(small(side=8), source)


def test_a_random_direction_is_of_the_largest_size_and_by_the_seed():
    classifier, images, classes, _ = scene()
    one, same, other = (RandomDirection(epsilon=2, seed=seed).fit(classifier, (images, classes)) for seed in (0, 0, 1))
    assert one.l2 == pytest.approx(2)
    assert torch.equal(one.delta, same.delta)
    assert abs(float((one.delta * other.delta).sum())) < 4 * 0.4
    corner = RandomDirection(epsilon=8, scale=255, ball="linf").fit(classifier, (images, classes))
    assert torch.equal(corner.delta.abs(), torch.full((3, 8, 8), 8 / 255))
    assert (one.passes.forwards, one.passes.backwards) == (7, 0)
