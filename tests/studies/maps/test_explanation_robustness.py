"""How hard explanations are to forge: on attacks whose outcome is known, radius by radius."""

import math

import pytest
import torch

from tests.helpers.models import small
from tests.helpers.small_studies import write_images
from whyfooled import AttackResult, ExplanationAware, GradCAM, Gradient
from whyfooled.attacks import AwareResult
from whyfooled.errors import ParameterError
from whyfooled.studies import ExplanationRobustness, run_study
from whyfooled.studies.maps import explanation_robustness

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


@pytest.fixture
def run(tmp_path, monkeypatch):
    thresholds = []

    def attack_known(attack, classifier, images, goal):
        thresholds.extend(map(threshold_of, images))
        return known_result(attack.epsilon, images, goal)

    monkeypatch.setattr(explanation_robustness, "run_aware", attack_known)
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
    written = float(result.summary.split("by the median of the smallest radius: Gradient ")[1].split("/255")[0])
    assert middle * 255 <= written <= middle * 255 * 4 ** (1 / 16) * 1.01
    assert "12 images, 0 of them misclassified before any attack" in result.summary


def test_bad_parameters_are_refused():
    with pytest.raises(ParameterError, match="`attack` must be an explanation-aware attack, such as aware"):
        ExplanationRobustness(attack=GradCAM())
    with pytest.raises(ParameterError, match=r"`attack` must have the decoy clean; got aware\(decoy=square\)"):
        ExplanationRobustness(attack=ExplanationAware(decoy="square"))
    with pytest.raises(ParameterError, match="`epsilons` must be ascending"):
        ExplanationRobustness(epsilons=(0.2, 0.1))
    with pytest.raises(ParameterError, match="`epsilons` must be above 0 and at most 1"):
        ExplanationRobustness(epsilons=(4.0,))
    with pytest.raises(ParameterError, match="`bisections` must be at least 0"):
        ExplanationRobustness(bisections=-1)
