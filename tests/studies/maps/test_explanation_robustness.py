"""How hard explanations are to forge: on attacks whose outcome is known, radius by radius."""

import math
import re
from dataclasses import replace

import pandas as pd
import pytest
import torch

from tests.helpers.models import small
from tests.helpers.small_studies import write_images
from whyfooled import AttackResult, ExplanationAware, GradCAM, Gradient
from whyfooled.attacks import AwareResult
from whyfooled.errors import ParameterError
from whyfooled.sources import open_source
from whyfooled.studies import ExplanationRobustness, run_study
from whyfooled.studies.maps import explanation_robustness
from whyfooled.studies.maps.explanation_robustness_account import _say_where_too_few_are_fooled, _say_which_differ

THRESHOLDS = [0.006, 0.03, 0.055, 0.2]
"""Radii from which on an image's map is forged: below the first of the study, between others, and beyond the last."""


def threshold_of(image):
    return THRESHOLDS[round(255 * float(image[0, 0, 0])) % 4]


def known_result(epsilon, images, goal):
    """Make a result in which an image's map is forged where the radius is at least the image's own threshold."""
    n = len(images)
    logits, nothing = torch.zeros(n, 5), torch.zeros(n, dtype=torch.int64)
    verified = {
        **dict.fromkeys(("clean", "adversarial", "attempted"), images),
        **dict.fromkeys(("clean_logits", "logits"), logits),
        **dict.fromkeys(("forwards", "backwards"), nothing),
        "success": torch.ones(n, dtype=torch.bool),
        "goal": goal,
    }
    # Of the plain attack 0.9 where its margin is full: what counts is the one of the same margin.
    cosines = [[0.8 if epsilon >= threshold_of(image) else 0.5, 0.9, 0.2, 1.0, 0.1] for image in images]
    numbers = torch.tensor(cosines).view(n, 5, 1, 1)
    plain = AttackResult(**verified)
    return AwareResult(
        **verified,
        plain=plain,
        matched=plain,
        methods=("gradient",),
        views=("identity",),
        cosines=numbers,
        top_shares=numbers,
        masses=numbers,
        enough=0.5,
    )


def known_outcome(attack, classifier, images, goal):
    """Give the class alone up at a third of the radius at which the map is forged."""
    success = torch.tensor([attack.epsilon >= threshold_of(image) / 3 for image in images])
    assert attack.weight == 0
    return replace(known_result(attack.epsilon, images, goal).plain, success=success)


@pytest.fixture
def run(tmp_path, monkeypatch):
    thresholds = []

    def attack_known(attack, classifier, images, goal):
        thresholds.extend(map(threshold_of, images))
        return known_result(attack.epsilon, images, goal)

    monkeypatch.setattr(explanation_robustness, "run_aware", attack_known)
    monkeypatch.setattr(explanation_robustness, "run_attack", known_outcome)
    images = write_images(tmp_path / "i.npz", count=12)
    study = ExplanationRobustness(attacked=(Gradient(),), epsilons=(0.02, 0.04, 0.08), bisections=4)
    # One shard, so that the first attack is on all images in order.
    return thresholds, run_study(study, images, tmp_path / "out", model=small(), batch_size=12, shard_size=12)


def test_the_smallest_radius_is_found_to_the_last_bisection(run):
    thresholds, result = run
    rows = result.table.read()
    assert set(thresholds[:12]) == set(THRESHOLDS)
    for index, threshold in enumerate(thresholds[:12]):
        (smallest,) = set(rows[rows["index"] == index]["smallest"].fillna(-1))
        # The class alone, from a sixteenth of the first radius on and in one halving more.
        (fooled,) = set(rows[rows["index"] == index]["smallest_fooled"])
        assert threshold / 3 <= fooled <= threshold / 3 * 16 ** (1 / 32) * (1 + 1e-9)
        if threshold == 0.2:
            assert smallest == -1
            continue
        # Each of the brackets, one of a factor of 4 and others of 2, is cut into 16.
        ratio = 4 if threshold == 0.006 else 2
        assert threshold <= smallest <= threshold * ratio ** (1 / 16) * (1 + 1e-9)
    # (0.5 - 0.2) / (1 - 0.2) is less than half of what was open, (0.8 - 0.2) / (1 - 0.2) is more.
    assert set(rows["gain"].round(3)) == {0.375, 0.75}
    forged = rows[rows["epsilon"] == 0.04].sort_values("index")["forged"].tolist()
    assert forged == [float(threshold <= 0.04) for threshold in thresholds[:12]]


def test_the_account_ranks_by_the_median_and_says_what_it_is_worth(run):
    thresholds, result = run
    assert "these are upper bounds" in result.summary
    ordered = sorted(math.inf if threshold == 0.2 else threshold for threshold in thresholds[:12])
    middle = (ordered[5] + ordered[6]) / 2
    ranking = result.summary.split("by the median of the smallest radius: Gradient ")[1]
    written = float(ranking.split("/255")[0])
    assert middle * 255 <= written <= middle * 255 * 4 ** (1 / 16) * 1.01
    # Three times what fools the class alone, but for what the last bisections leave.
    times = float(re.search(r"\| Gradient \| [^|]* \| ([0-9.]+) \|", result.summary)[1])
    assert 3 / 16 ** (1 / 32) - 0.1 <= times <= 3 * 4 ** (1 / 16) + 0.1
    # Of 12 values the third and the tenth hold the median in 96 % of samples.
    low, high = ranking.split("[")[1].split("]")[0].split(", ")
    assert ordered[2] * 255 <= float(low.split("/")[0]) <= ordered[2] * 255 * 4 ** (1 / 16) * 1.01
    assert high == "beyond the largest" if ordered[9] == math.inf else float(high.split("/")[0]) >= ordered[9] * 255
    assert "12 images, 0 of them misclassified before any attack" in result.summary


def test_chance_is_the_mean_cosine_with_the_clean_maps_of_other_images(run):
    result = run[1]
    rows = result.table.read()
    classifier = small()
    images = torch.stack([sample.fitted(classifier.fit) for sample in open_source(result.folder.parent / "i.npz")])
    seen = classifier.predict(images)
    maps = Gradient()(classifier, images, seen).abs().sum(1).flatten(1).double()
    cosines = torch.nn.functional.cosine_similarity(maps[:, None], maps[None, :9], dim=2)
    for index in (0, 3, 11):
        others = [other for other in range(9) if other != index][:8]
        expected = float(cosines[index, others].mean())
        (chance,) = set(rows[rows["index"] == index]["chance"])
        assert chance == pytest.approx(expected, abs=2e-5)


def test_radii_at_which_too_few_are_fooled_are_said_once():
    rows = pd.DataFrame(
        [
            {"index": index, "method": method, "epsilon": epsilon, "reached": float(index < reached)}
            for method, at_low in (("First", 12), ("Second", 12), ("Third", 20))
            for epsilon, reached in ((0.5 / 255, at_low), (4 / 255, 20))
            for index in range(20)
        ]
    )
    assert list(_say_where_too_few_are_fooled(rows)) == [
        "Fewer than 95 % of the images are fooled at 0.5/255, where there is no point of: First, Second."
    ]


def test_it_says_which_order_is_more_than_luck():
    smallest = pd.DataFrame({"Easy": [0.01] * 12, "Hard": [0.1] * 11 + [math.inf], "Same": [0.01] * 12})
    (said,) = _say_which_differ(smallest, 0)
    assert said == (
        "Harder on more images than easier, by more than luck: Hard than Easy; Hard than Same (tests of the paired "
        "differences, corrected (Holm) for 3 comparisons)."
    )
    (few,) = _say_which_differ(smallest[:9], 0)
    assert few == "Of fewer than 10 images nothing can be said about this order."


def test_bad_parameters_are_refused():
    for attack in (GradCAM(), ExplanationAware(decoy="square"), ExplanationAware(weight=0)):
        with pytest.raises(ParameterError, match="`attack` must be aware, with the decoy clean and a weight above 0"):
            ExplanationRobustness(attack=attack)
    with pytest.raises(ParameterError, match="`epsilons` must be ascending"):
        ExplanationRobustness(epsilons=(0.2, 0.1))
    with pytest.raises(ParameterError, match="`epsilons` must be above 0 and at most 1"):
        ExplanationRobustness(epsilons=(4.0,))
    with pytest.raises(ParameterError, match="`bisections` must be at least 0"):
        ExplanationRobustness(bisections=-1)
