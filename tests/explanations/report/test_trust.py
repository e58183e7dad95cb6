"""What a report says of a universal perturbation follows from its numbers."""

from dataclasses import replace

import pytest
import torch

from whyfooled.explanations.report.trust import collect_trust_numbers, write_trust_sentences, write_verdict
from whyfooled.explanations.report.trust_view import draw_trust_pictures, prepare_trust
from whyfooled.universal import Altered, UniversalPerturbation
from whyfooled.universal.trust import MapTrust, Trust


def known(kept, random, logits=(0.0, 3.0, 1.0)):
    """Make a result whose map keeps a share of its top pixels, and others under random directions."""
    maps = torch.zeros(3, 4, 4)
    maps[:, 0, 0] = 1
    measures = {"dissimilarity": 0.5, "rank_correlation": 0.25, "structural_similarity": float("nan")}
    one = MapTrust(
        "gradient",
        "Gradient",
        False,
        maps,
        {**measures, "top_overlap": kept},
        {
            **{name: torch.full((len(random),), value) for name, value in measures.items()},
            "top_overlap": torch.tensor(random, dtype=torch.float64),
        },
    )
    made = UniversalPerturbation(torch.full((3, 4, 4), 0.1), 1.0, method="pca", saliency="gradient", model="net")
    return Trust(
        perturbation=made,
        delta=made.delta / 2,
        seen=1,
        contrast=2,
        clean_logits=torch.tensor([0.0, 4.0, 2.0]),
        logits=torch.tensor(logits),
        stays=torch.tensor([True, True, False]),
        methods=(one,),
        notes=(),
    )


NAMES = ("ash", "oak", "elm")


def said(*arguments, **more):
    found = collect_trust_numbers(known(*arguments, **more), NAMES)
    return write_verdict(found["methods"][0], found)


@pytest.mark.parametrize(
    ("kept", "random", "end"),
    [
        (
            0.31,
            [0.58, 0.6, 0.56],
            "58 %, 56 to 60 % from draw to draw), fewer than under any noise, though the prediction stays: do not read "
            "it pixel by pixel.",
        ),
        (
            0.31,
            [0.4, 0.38, 0.33],
            "37 %, 33 to 40 % from draw to draw), fewer than under any noise, though the prediction stays: do not read "
            "it pixel by pixel; random noise alone breaks it too.",
        ),
        # One random direction does as much: this is chance.
        (
            0.31,
            [0.58, 0.3],
            "44 %, 30 to 58 % from draw to draw), within what noise of this size does: any such noise changes it, so "
            "do not read it pixel by pixel.",
        ),
        (
            0.31,
            [0.31],
            "31 % from draw to draw), within what noise of this size does: any such noise changes it, so do ",
        ),
        (
            0.8,
            [0.9, 0.95],
            "92 %, 90 to 95 % from draw to draw), fewer than under any noise, but most of what it shows remains.",
        ),
        (
            0.8,
            [0.9, 0.7],
            "80 %, 70 to 90 % from draw to draw): most of what it shows remains, and the universal perturbation does "
            "no more than chance.",
        ),
    ],
)
def test_the_verdict_follows_what_stays_and_what_chance_leaves(kept, random, end):
    sentence = said(kept, random)
    assert sentence.startswith(f"the map keeps {100 * kept:.0f} % of its top pixels (under random noise of equal size ")
    assert end in sentence


def test_a_method_that_is_blind_to_classes_is_not_praised_for_staying():
    end = "This method's maps hardly depend on the class, so that they hardly change says nothing."
    for kept, praised in ((0.9, True), (0.2, False)):
        found = collect_trust_numbers(known(kept, [0.95]), NAMES, blind=["gradient"])
        assert write_verdict(found["methods"][0], found).endswith(end) == praised
        found = collect_trust_numbers(known(kept, [0.95]), NAMES, blind=["guided"])
        assert end not in write_verdict(found["methods"][0], found)


def test_a_map_is_not_blamed_where_the_prediction_changes():
    changed = (5.0, 3.0, 1.0)
    assert said(0.1, [0.9], logits=changed).endswith(
        "but the prediction changes, so this alone says nothing against the map."
    )
    assert said(0.9, [0.9], logits=changed).endswith("though the prediction changes: most of what it shows remains.")


def test_an_empty_map_has_no_verdict():
    for arguments in ((float("nan"), [0.5]), (0.5, [float("nan")])):
        assert said(*arguments) == "the map is empty before or after, so nothing can be said."


def test_sentences_name_the_class_its_probabilities_and_the_random_directions():
    first, second = write_trust_sentences(collect_trust_numbers(known(0.3, [0.6]), NAMES))
    assert first == (
        "Under the universal perturbation (ℓ2 0.6928) the prediction stays oak (86.7 %, then 84.4 %); "
        "it stays under 2 of 3 random directions of the same norm."
    )
    assert second.startswith("Gradient: the map keeps 30 %")
    first, _ = write_trust_sentences(collect_trust_numbers(known(0.3, [0.6], logits=(5.0, 3.0, 1.0)), NAMES))
    assert "the prediction changes, from oak (86.7 %) to ash (86.7 %), so the maps may well change too" in first


def test_it_says_what_share_of_other_images_the_perturbation_alters():
    trust = known(0.3, [0.6])
    altered = Altered(0.43, 0.361, 0.5, 0.052, 200, "gradient", "net", "1")
    found = collect_trust_numbers(replace(trust, perturbation=replace(trust.perturbation, altered=altered)), NAMES)
    assert write_trust_sentences(found)[0].endswith(
        " Of 200 other images it alters 43 % (36 to 50 % with 95 % confidence): their maps of gradient, on net, move "
        "further than 95 % of random directions would move them; one random direction does on 5 %."
    )
    single = replace(altered, low=float("nan"), high=float("nan"), chance=float("nan"), images=1)
    found = collect_trust_numbers(replace(trust, perturbation=replace(trust.perturbation, altered=single)), NAMES)
    assert "Of 1 other image it alters 43 %: their maps" in write_trust_sentences(found)[0]
    assert "random directions would move them." in write_trust_sentences(found)[0]


def test_numbers_are_plain():
    found = collect_trust_numbers(known(0.3, [0.6, float("nan"), 0.7]), NAMES)
    (one,) = found["methods"]
    assert one["random"]["top_overlap"] == {"mean": pytest.approx(0.65), "low": 0.6, "high": 0.7}
    assert one["universal"]["structural_similarity"] is None
    assert one["random"]["structural_similarity"] == {"mean": None, "low": None, "high": None}
    assert found["perturbation"]["l2"] == pytest.approx(2 * found["clipped"]["l2"])
    assert found["contrast"] == {"index": 2, "name": "elm"}
    assert found["random"] == {"draws": 3, "stay": 2}


def test_maps_are_drawn_on_one_scale():
    trust = known(0.3, [0.6])
    trust.methods[0].maps[1, 0, 0] = 0.5
    trust.methods[0].maps[1, 3, 3] = 0.5
    found = collect_trust_numbers(trust, NAMES)
    pictures = draw_trust_pictures(trust, found)
    corners = [pictures[f"trust-gradient-{under}"].getpixel((0, 0)) for under in ("clean", "universal", "random")]
    assert corners[0] == corners[2]
    assert sum(corners[0]) > sum(corners[1])
    view = prepare_trust(trust, torch.full((3, 4, 4), 0.5), found)
    assert view["rows"][0]["high"] == "16"
    assert view["rows"][0]["cells"][0] == (0.5, 0.5)
