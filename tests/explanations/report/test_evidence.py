"""What a report says of maps that stay: nothing good, if they are the same for every class."""

import pytest
import torch

from whyfooled.explanations.report.evidence import find_blindness, write_blindness, write_evidence_sentences
from whyfooled.explanations.report.evidence_view import draw_maps, prepare_maps
from whyfooled.saliency.evidence import Evidence


def facts(clean, adversarial, stays=0.99):
    return {
        "title": "Enhanced guided backpropagation",
        "pixels_with_half": 0.03,
        "cosine_clean_to_adversarial": {"wrong": stays, "true": 0.4},
        "cosine_between_classes": {"clean": clean, "adversarial": adversarial},
        "scale": {"end": 1.0, "signed": False},
    }


def numbers(headline, linf=0.1):
    return {
        "headline": headline,
        "perturbation": {"linf": linf},
        "true": {"name": "oak"},
        "wrong": {"name": "elm"},
    }


@pytest.mark.parametrize(("clean", "adversarial", "blind"), [(0.95, 0.99, 0.95), (0.99, 0.5, None), (-1.0, 1.0, None)])
def test_a_method_is_blind_whose_maps_of_two_classes_are_the_same_in_both_images(clean, adversarial, blind):
    assert find_blindness(facts(clean, adversarial)) == blind
    said = write_evidence_sentences(numbers(facts(clean, adversarial)))
    assert ("means nothing" in said[-1]) == (blind is not None)
    beware = (
        "Its maps of the two classes are nearly the same (cosine similarity 0.95), so it means nothing that the attack "
        "hardly changes them."
    )
    assert write_blindness(facts(clean, adversarial)) == ("" if blind is None else beware)


def test_sentences_compare_each_class_with_itself():
    assert write_evidence_sentences(numbers(facts(0.0, 0.0))) == [
        "Half of the evidence for elm against oak lies on 3.0 % of the pixels (by enhanced guided backpropagation).",
        "Compared with the clean image's, this evidence is nearly the same (cosine similarity 0.99), and that for oak "
        "against elm is in other places (0.40).",
    ]
    assert len(write_evidence_sentences(numbers(facts(0.0, 0.0), linf=0.0))) == 1


def test_classes_are_compared_within_each_image():
    maps = torch.zeros(2, 2, 1, 1, 2)
    maps[0, 0], maps[0, 1] = torch.tensor([1.0, 0.0]), torch.tensor([2.0, 0.0])
    maps[1, 0], maps[1, 1] = torch.tensor([1.0, 0.0]), torch.tensor([3.0, 4.0])
    assert Evidence("m", "M", "", False, maps).class_similarity() == pytest.approx((1.0, 0.6))


def test_rows_are_of_one_class_each_clean_then_adversarial_then_their_difference():
    maps = torch.zeros(2, 2, 1, 4, 4)
    maps[0, 1, 0, 0, 0] = 1.0
    maps[1, 1, 0, 3, 3] = 1.0
    evidence = Evidence("m", "M", "", False, maps)
    view = prepare_maps(evidence, facts(0.0, 0.0))
    assert [row["of"] for row in view["rows"]] == ["true", "wrong"]
    assert [tile["what"] for tile in view["rows"][0]["tiles"]] == ["clean", "adversarial", "difference"]
    difference = draw_maps(evidence, facts(0.0, 0.0))["m-difference-true"]
    (red, _, blue), (other_red, _, other_blue) = difference.getpixel((3, 3)), difference.getpixel((0, 0))
    assert red > blue
    assert other_blue > other_red
    assert len(set(difference.getpixel((1, 1)))) <= 2
    # Of one image alone nothing is compared.
    same = Evidence("m", "M", "", False, maps[:1].expand(2, -1, -1, -1, -1))
    assert [len(row["tiles"]) for row in prepare_maps(same, facts(0.0, 0.0))["rows"]] == [1, 1]
