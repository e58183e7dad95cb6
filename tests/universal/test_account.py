"""What a fit and a test of a universal perturbation are said to have come to."""

import pandas as pd
import pytest
import torch

from tests.helpers.models import small
from whyfooled.classifier.passes import Passes
from whyfooled.registry import available
from whyfooled.sources import Source
from whyfooled.universal import Evaluation, UniversalPerturbation
from whyfooled.universal._given import as_source
from whyfooled.universal.account import write_evaluation_remarks, write_evaluation_summary, write_fit_account
from whyfooled.universal.figure import draw_evaluation

DELTA = torch.full((3, 16, 16), 0.01)


def made(**more):
    return UniversalPerturbation(DELTA, float(DELTA.norm()), **{"fitted_to": frozenset(), **more})


def test_a_fit_is_told_with_both_scales_and_the_ends_of_its_history():
    history = ({"eigenvalue": 0.5, "loss": 0.0}, {"eigenvalue": 0.75, "loss": 0.0}, {"dissimilarity": 0.8})
    found = made(
        method="pca", saliency="gradient", model="net", images=9, wrong=2, history=history, passes=Passes(7, 5)
    )
    assert write_fit_account(found).splitlines() == [
        "pca: one perturbation of 3 x 16 x 16 values for all images.",
        "Its size: l2 0.2771 (of values from 0 to 255: 70.67), l-infinity 0.01 (2.55/255). It was kept in the l2 ball "
        "of radius 0.2771 for values from 0 to 1, which is 70.67 for values from 0 to 255.",
        "Fitted to change the maps of gradient of net, on 9 images; 2 left out, because the classifier "
        "misclassifies them.",
        "From the first to the last of 2 steps: eigenvalue 0.5 -> 0.75.",
        "At the end: dissimilarity 0.8.",
        "7 forward and 5 backward passes, of one image each.",
    ]
    assert "Fitted on net, on 9 images; none left out." in write_fit_account(made(model="net", images=9, ball="linf"))


@pytest.mark.parametrize("method", available("universal").values(), ids=lambda method: method.card.name)
def test_every_way_to_find_one_can_be_told(method):
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    classifier = small()
    found = method(epsilon=1.0).fit(classifier, (images, classifier.predict(images)))
    lines = write_fit_account(found).splitlines()
    assert lines[0].startswith(f"{method.card.name}(epsilon=1.0): one perturbation")
    assert "small, on 3 images; none left out." in lines[2]
    assert len([line for line in lines if line.startswith(("From the first", "At the end"))]) <= len(found.history)
    assert "_" not in "".join(lines)


def result(ours, chance, fooled=0.0, **more):
    """Make a test of so many images, each with its own D."""
    rows = [
        {
            "image": str(number),
            "class": 0,
            "perturbation": name,
            "direction": direction,
            "clipped": clipped,
            "dissimilarity": value,
            "fooled": fooled if name == "universal" else 0.0,
            "top_overlap": 0.5,
            "rank_correlation": 0.5,
            "structural_similarity": float("nan"),
            "centre_shift": 1.0,
        }
        for name, direction, values in (("universal", None, ours), ("random", 0, chance), ("random", 1, chance))
        for clipped in (False, True)
        for number, value in enumerate(values)
    ]
    given = {"perturbation": made(), "saliency": "gradient", "model": "net", "wrong": 0, "unreadable": {}, **more}
    return Evaluation(pd.DataFrame(rows), **given)


@pytest.mark.parametrize(
    ("ours", "chance", "verdict"),
    [
        (
            [0.8, 0.9, 1.0] * 4,
            [0.6, 0.75, 0.8] * 4,
            "the maps change more than by chance (paired by image, difference +0.183",
        ),
        ([0.5, 0.6] * 5, [0.6, 0.75] * 5, "the maps change less than by chance (paired by image, difference -0.125"),
        ([0.5, 0.9] * 5, [0.6, 0.75] * 5, "no difference that is more than luck (paired by image, difference +0.025"),
        ([0.9], [0.6], "one image cannot say whether by more than luck (paired by image, difference +0.300)"),
        ([0.9] * 9, [0.6] * 9, "9 images cannot say whether by more than luck (paired by image, difference +0.300 ["),
    ],
)
def test_more_than_chance_is_said_only_where_the_interval_is_above_0(ours, chance, verdict):
    sentences = write_evaluation_summary(result(ours, chance)).sentences
    assert f"D is {sum(ours) / len(ours):.3f}, and " in sentences[0]
    assert verdict in sentences[0]
    assert verdict in sentences[2]
    assert sentences[2].startswith("Clipped, ")


def test_what_was_left_out_and_what_is_not_known_is_said():
    found = result([0.8] * 3, [0.6] * 3, fooled=1.0, wrong=4, unreadable={"a.png": "It is cut.", "b.png": "So is it."})
    _, fooled, _, altered, images, unreadable, few = write_evaluation_summary(found).sentences
    assert fooled.startswith("The prediction changes on 100.0 % of the images (random directions: 0.0 %)")
    assert altered == (
        "It alters the maps of 100.0 % of the images: they move further than 95 % of random directions would move them."
    )
    assert images == "Images evaluated: 3; 4 left out, because the classifier misclassifies them."
    assert unreadable == "Images that could not be used: 2, such as a.png: It is cut.; b.png: So is it."
    assert few == "Intervals of means over fewer than 20 images are too narrow."
    unknown = result([0.8] * 10, [0.6] * 10, perturbation=made(fitted_to=None))
    sentences = write_evaluation_summary(unknown, ("Known besides.",)).sentences
    assert any(said.startswith("It is not known which images the perturbation was fitted to") for said in sentences)
    assert sentences[-1] == "Known besides."


def test_remarks_tell_transfer_resizing_and_missing_labels():
    classifier = small()
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    source = as_source((images, torch.tensor([0, 1])))
    found = result([0.8], [0.6])
    assert write_evaluation_remarks(made(saliency="gradient"), found, classifier, source) == ()
    own = made(saliency="gradcam", model="net", model_digest="0").resized((8, 8))
    bare = Source("bare", source.names, ((), ()), source.reader)
    transfer, resized, method, labels = write_evaluation_remarks(own, found, classifier, bare)
    assert "made on another model, net: what it does here is transfer" in transfer
    assert resized == "The perturbation was resized from 8 x 8 to 16 x 16 pixels; its norm is as it was."
    assert method == "It was fitted to the maps of gradcam, and evaluated on those of gradient."
    assert labels == "The images have no labels: each counts as what the classifier sees in it."


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_figure_shows_the_perturbation_and_a_bar_for_each_mean(channels):
    found = result([0.8, 0.9], [0.6, 0.7], perturbation=UniversalPerturbation(torch.rand(channels, 16, 16), 1.0))
    picture, distance, fooled = draw_evaluation(found).axes
    assert len(picture.images) == 1
    assert [bar.get_height() for bar in distance.patches] == pytest.approx([0.85, 0.85, 0.65, 0.65])
    assert [text.get_text() for text in distance.texts] == ["0.85", "0.85", "0.65", "0.65"]
    assert len(fooled.patches) == 4


def test_empty_maps_are_counted():
    nothing = float("nan")
    some = write_evaluation_summary(result([0.8, nothing, 0.9] * 5, [0.6, nothing, 0.7] * 5)).sentences
    assert some[0].startswith("D is 0.850, and 0.650 under random directions of the same norm: the maps change more")
    assert some[5] == "Images whose map is empty, so that only their predictions count: 5."
    none = write_evaluation_summary(result([nothing] * 2, [nothing] * 2)).sentences
    assert none[0] == "There is no D: the maps of all images are empty."
    assert none[4] == "Images whose map is empty, so that only their predictions count: 2."


def test_a_perturbation_of_nothing_is_said_to_be_none():
    assert "It is 0 everywhere: no perturbation was found." in write_fit_account(UniversalPerturbation(0 * DELTA, 1.0))
    assert "no perturbation was found" not in write_fit_account(made())
