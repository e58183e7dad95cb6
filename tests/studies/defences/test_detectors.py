"""Detectors whose worth is known: one that tosses a coin, one that cannot be attacked, one that does not work."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from tests.helpers.models import small
from tests.helpers.small_studies import write_images
from whyfooled import FGSM, FMN, AutoAttack, ExplanationAware
from whyfooled.attacks import PGD
from whyfooled.defences import Detector, EvadableDetector, LargestSoftmax, MedianFilter
from whyfooled.errors import ImageError, MethodError, ParameterError
from whyfooled.registry import Card
from whyfooled.sources import open_source
from whyfooled.studies import DetectorsUnderAttack, run_study
from whyfooled.studies.defences.detectors_account import EVADING
from whyfooled.studies.parts.held_out import split
from whyfooled.tensors.randomness import add_noise, image_generators
from whyfooled.tensors.statistics import auroc

COUNT = 44


@dataclass(frozen=True)
class Coin(EvadableDetector):
    """A score that says nothing of an image, and cannot be led anywhere."""

    card: ClassVar[Card] = Card("coin", "Coin", "A coin.", "nobody", "nothing")

    def score(self, classifier, images):
        return torch.stack([torch.rand((), generator=generator) for generator in image_generators(images, 0)])

    def loss(self, classifier, images):
        return images.flatten(1).sum(1) * 0 + self.score(classifier, images)


@dataclass(frozen=True)
class Unattacked(Detector):
    """A detector without a loss."""

    card: ClassVar[Card] = Card("unattacked", "Unattacked", "A sum.", "nobody", "nothing")

    def score(self, classifier, images):
        return images.flatten(1).sum(1)


@dataclass(frozen=True)
class Broken(EvadableDetector):
    """A detector that works on no model."""

    card: ClassVar[Card] = Card("broken", "Broken", "Nothing.", "nobody", "nothing")

    def score(self, classifier, images):
        raise MethodError("Not on this model.")

    def loss(self, classifier, images):
        raise MethodError("Not on this model.")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images") / "images.npz", count=COUNT)


@pytest.fixture(scope="module")
def result(tmp_path_factory, images):
    study = DetectorsUnderAttack(
        attacks=(FGSM(epsilon=0.05), FMN(steps=30)),
        detectors=(LargestSoftmax(), MedianFilter(), Coin(), Unattacked(), Broken()),
        epsilon=0.1,
        steps=15,
    )
    return run_study(study, images, tmp_path_factory.mktemp("runs") / "out", model=small(), batch_size=11)


def pixels(images, places):
    source = open_source(images)
    return torch.stack([source[place].fitted(small().fit, 3) for place in places])


def test_scores_and_p_values_are_those_of_images_that_nothing_was_learned_from(images, result):
    known, tested = split(range(COUNT), 0.5, 0)
    clean = MedianFilter()(small(), pixels(images, known))
    scores = MedianFilter()(small(), pixels(images, tested))
    p_values = [(1 + int((clean >= score).sum())) / (1 + len(clean)) for score in scores]
    rows = result.table.read(where=[("attack", "==", "clean"), ("detector", "==", "Median filter")])
    assert rows["index"].tolist() == tested
    assert rows["score"].tolist() == pytest.approx(scores.tolist(), rel=1e-3, abs=1e-6)
    # Equal to a digit or so: of two scores in a row either may be the larger.
    assert rows["p_value"].tolist() == pytest.approx(p_values, abs=1.1 / (1 + len(clean)))


def test_a_noisy_image_has_as_much_noise_as_the_attack_changed_it_by(images, result):
    rows = result.table.read(where=[("attack", "==", "fmn(steps=30)"), ("detector", "==", "Coin")])
    rows = rows[rows["outcome"] == "fooled"]
    assert len(rows) > 5
    for row in rows.head(5).itertuples():
        (image,) = pixels(images, [row.index])[None]
        noisy = add_noise(image, row.l2, 0)
        assert float((noisy - image).norm()) == pytest.approx(row.l2, rel=1e-3)
        assert row.noise_score == pytest.approx(float(Coin()(small(), noisy)[0]), abs=1e-6)


def test_areas_under_the_curve_are_those_of_the_scores_in_the_table(result):
    rows = result.table.read(where=[("detector", "==", "Largest softmax")])
    clean = rows[rows["attack"] == "clean"]["score"]
    for attack in ("fgsm(epsilon=0.05)", "fmn(steps=30)", EVADING):
        fooled = rows[(rows["attack"] == attack) & (rows["outcome"] == "fooled")]["score"]
        wins = [float(attacked > other) + float(attacked == other) / 2 for attacked in fooled for other in clean]
        assert f"{sum(wins) / len(wins):.3f} [" in line_of(result, "Largest softmax", 0)


def line_of(result, detector, table):
    """Return the line of a detector in the summary's table of that number."""
    tables = result.summary.split("\n\n| ")[1:]
    return next(line for line in tables[table].splitlines() if line.startswith(f"| {detector} |"))


def test_a_coin_is_a_coin_for_every_attack(result):
    rows = result.table.read(where=[("detector", "==", "Coin")])
    clean = rows[rows["attack"] == "clean"]["score"]
    for attack in ("fgsm(epsilon=0.05)", "fmn(steps=30)"):
        fooled = rows[(rows["attack"] == attack) & (rows["outcome"] == "fooled")]["score"]
        scores = torch.tensor([*fooled, *clean])
        area = auroc(scores, torch.arange(len(scores)) < len(fooled))
        assert area.low < 0.5 < area.high


def test_an_attack_that_knows_a_score_turns_it_around_and_the_summary_says_so(result):
    rows = result.table.read(where=[("detector", "==", "Largest softmax")])
    fooled = rows[(rows["attack"] == EVADING) & (rows["outcome"] == "fooled")]
    clean = rows[rows["attack"] == "clean"]
    assert len(fooled) > 5
    assert fooled["score"].max() < clean["score"].median()
    assert (fooled["linf"] <= 0.1 + 1e-6).all()
    assert (
        "for the one that does, which fools the classifier on 100.0% of 22 images: nothing of it is left."
        in result.summary
    )


def test_a_share_that_so_few_clean_images_cannot_tell_is_left_empty(result):
    false = result.table.read(where=[("detector", "==", "Coin"), ("attack", "==", "clean")])
    share = (false["p_value"] <= 0.05).mean()
    assert f"Coin flags clean images that it has not seen at a rate of {share:.3f} [" in result.summary
    assert "] where 5% was asked for, none at 1%, for which it knows too few clean images." in result.summary
    assert line_of(result, "Coin | clean", 1).endswith("] |  |  |  |")


def test_a_detector_that_was_not_attacked_is_not_reported(result):
    assert (
        "Unattacked is left out: it was not attacked by who knows it, so nothing can be said of it." in result.summary
    )
    assert "| Unattacked |" not in result.summary
    assert not (result.table.read(where=[("detector", "==", "Unattacked")])["attack"] == EVADING).any()


def test_a_detector_that_does_not_work_is_said_to_and_the_others_are_measured(result):
    assert "Broken: Not on this model." in result.summary
    assert "| Broken |" not in result.summary
    assert (result.table.errors()["error"] == "Broken: Not on this model.").sum() == COUNT // 2


def test_without_a_detector_that_was_attacked_there_is_nothing_to_report(images, tmp_path):
    study = DetectorsUnderAttack(attacks=(FGSM(epsilon=0.05),), detectors=(Unattacked(),))
    with pytest.raises(ImageError, match=r"^No detector was attacked, with success, by who knows it"):
        run_study(study, images, tmp_path / "out", model=small(), count=8)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"detectors": ()}, "`detectors` must have at least one entry."),
        ({"detectors": (Coin(), Coin())}, "`detectors` must be different; coin is there twice."),
        ({"detectors": ("median",)}, "`detectors` must be a detector, such as MedianFilter(); got 'median'."),
        ({"learn": 1.0}, "`learn` must be above 0 and under 1; got 1.0."),
        ({"steps": 0}, "`steps` must be at least 1; got 0."),
        (
            {"epsilon": 4},
            "`epsilon` must be above 0 and at most 1 (pixel values are scaled to [0, 1]); got 4. Did you mean 4/255?",
        ),
    ],
)
def test_bad_parameters_are_refused(parameters, sentence):
    with pytest.raises(ParameterError) as caught:
        DetectorsUnderAttack(attacks=(PGD(),), **parameters)
    assert str(caught.value) == sentence


def test_an_attack_that_knows_the_map_and_one_of_several_stages_have_their_rows(tmp_path, images):
    attacks = (ExplanationAware(epsilon=0.1, steps=3), AutoAttack(epsilon=0.1, steps=3, targets=1, queries=5))
    study = DetectorsUnderAttack(attacks=attacks, detectors=(LargestSoftmax(),), epsilon=0.1, steps=5)
    summary = run_study(study, images, tmp_path / "out", model=small(), batch_size=11).summary
    names = ["aware(epsilon=0.1, steps=3)", "auto(epsilon=0.1, steps=3, targets=1, queries=5)"]
    assert f"| detector | {' | '.join(names)} | evading |" in summary
    for name in names:
        assert f"| Largest softmax | {name} | 0." in summary
