"""`run_attack` believes nothing: success, norms and counts are found by itself."""

from inspect import unwrap
from types import SimpleNamespace

import foolbox
import jaxtyping
import pytest
import torch

from tests.helpers.models import small
from whyfooled import BIM, EAD, FGSM, AttackResult, Refined, SigmaZero, Targeted, Untargeted, run_attack
from whyfooled.errors import ImageError, ModelError, ParameterError


@pytest.fixture
def case():
    classifier = small()
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return classifier, images, classifier.predict(images)


def test_an_attack_that_does_nothing_fails_whatever_it_claims(case):
    classifier, images, labels = case
    result = run_attack(lambda model, x, goal: x.clone(), classifier, images, Untargeted(labels))
    assert not result.success.any()
    assert torch.equal(result.adversarial, images)


def test_a_failed_image_comes_back_unchanged_and_its_attempt_is_kept(case):
    classifier, images, labels = case
    noise = (images + 1e-5).clamp(0, 1)
    result = run_attack(lambda model, x, goal: noise, classifier, images, Untargeted(labels))
    assert not result.success.any()
    assert torch.equal(result.adversarial, images)
    assert torch.equal(result.attempted, noise)
    assert result.l2.tolist() == [0, 0, 0]


def test_an_image_that_is_there_already_costs_nothing(case):
    classifier, images, labels = case
    goal = Untargeted(torch.stack([(labels[0] + 1) % 5, labels[1], (labels[2] + 2) % 5]))
    result = run_attack(FGSM(epsilon=0.5), classifier, images, goal)
    assert result.success[[0, 2]].all()
    assert result.forwards.tolist() == [0, 1, 0]
    assert result.l2[[0, 2]].tolist() == [0, 0]


def test_norms_are_those_of_the_change(case):
    classifier, images, _ = case
    changed = images.clamp(0.1, 0.9)
    start = changed.clone()
    changed[0, :, 2, 3] += torch.tensor([0.03, -0.04, 0.0])
    result = AttackResult.from_images(classifier, start, changed, Targeted(classifier.predict(changed)))
    assert result.success.all()
    assert result.l0.tolist() == [1, 0, 0]
    torch.testing.assert_close(result.l1[0], torch.tensor(0.07))
    torch.testing.assert_close(result.l2[0], torch.tensor(0.05))
    torch.testing.assert_close(result.linf[0], torch.tensor(0.04))
    frame = result.to_frame()
    assert frame.shape == (3, 12)
    assert frame["goal"].tolist() == ["targeted"] * 3
    assert frame["l0"].tolist() == [1, 0, 0]
    assert frame["outcome"].tolist() == ["already wrong"] * 3


def test_foreign_images_are_judged_against_the_clean_prediction(case):
    classifier, images, labels = case
    fooled = FGSM(epsilon=0.5)(classifier, images, Untargeted(labels))
    result = AttackResult.from_images(classifier, images, fooled)
    assert torch.equal(result.success, classifier.predict(fooled) != labels)


def test_a_foolbox_attack_runs_on_the_classifier_as_it_is(case):
    classifier, images, labels = case

    def foreign(model, x, goal):
        attack = foolbox.attacks.LinfFastGradientAttack(random_start=False)
        return attack(foolbox.PyTorchModel(model, bounds=(0, 1)), x, goal.labels, epsilons=0.3)[1]

    theirs = run_attack(foreign, classifier, images, Untargeted(labels))
    ours = run_attack(FGSM(epsilon=0.3), classifier, images, Untargeted(labels))
    torch.testing.assert_close(theirs.attempted, ours.attempted)
    assert theirs.backwards.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("attack", "error", "message"),
    [
        (lambda model, x, goal: x + 2, ImageError, "in \\[0, 1\\]"),
        (lambda model, x, goal: x * float("nan"), ImageError, "finite"),
        (lambda model, x, goal: x[:, :, :8], ImageError, "shape of the clean ones"),
        (lambda model, x, goal: None, ModelError, "must return a tensor"),
        (lambda model, x, goal: 255 * x, ImageError, "Divide them by 255"),
    ],
)
def test_what_an_attack_returns_is_checked(case, attack, error, message):
    classifier, images, labels = case
    with pytest.raises(error, match=message):
        run_attack(attack, classifier, images, Untargeted(labels))


def test_goals_are_checked(case):
    classifier, images, labels = case
    with pytest.raises(ParameterError, match="a class for each of the 3 images"):
        run_attack(FGSM(), classifier, images, Untargeted(labels[:2]))
    with pytest.raises(ParameterError, match="from 0 to 4"):
        run_attack(FGSM(), classifier, images, Targeted(torch.tensor([0, 1, 9])))


def test_a_single_image_is_asked_for_its_batch_dimension(case):
    classifier, images, labels = case
    with pytest.raises(ImageError, match="must be a batch"):
        unwrap(run_attack)(FGSM(), classifier, images[0], Untargeted(labels[:1]))


def test_a_result_has_a_short_name(case):
    classifier, images, labels = case
    result = run_attack(lambda model, x, goal: x.clone(), classifier, images, Untargeted(labels))
    assert repr(result) == "AttackResult(0 of 3 reached their goal)"


@pytest.mark.parametrize(
    ("attack", "norm"),
    [
        (BIM(epsilon=0.3), "linf"),
        (BIM(epsilon=3.0, ball="l2"), "l2"),
        (EAD(steps=30, rounds=1), "l1"),
        (SigmaZero(steps=30), "l0"),
        (Refined(EAD(steps=30, rounds=1), keep=1.0), "l1"),
        (lambda classifier, images, goal: FGSM(epsilon=0.3)(classifier, images, goal), "l2"),
    ],
)
def test_a_result_is_measured_by_its_attacks_own_norm(case, attack, norm):
    classifier, images, labels = case
    result = run_attack(attack, classifier, images, Untargeted(labels))
    assert result.success.any()
    middle = float(getattr(result, norm)[result.success].median())
    assert repr(result).endswith(f"reached their goal, median {norm} {middle:.4g})")
    assert result.select(torch.tensor([0])).norm == result.to(images.device).norm == norm
    assert AttackResult.join([result, result]).norm == norm


@pytest.mark.parametrize("goal", [Untargeted, Targeted])
def test_goals_take_tensors_and_say_so(goal):
    with pytest.raises(ParameterError, match="must be a tensor of class indices; got list"):
        goal.__post_init__(SimpleNamespace(labels=[1, 2], classes=[1, 2]))


def test_failures_have_no_norm_in_the_table(case):
    classifier, images, labels = case
    goal = Untargeted(torch.stack([labels[0], (labels[1] + 1) % 5, labels[2]]))
    frame = run_attack(lambda model, x, y: x + 0, classifier, images, goal).to_frame()
    assert frame["outcome"].tolist() == ["failed", "already wrong", "failed"]
    assert frame["l2"].isna().tolist() == frame["l0"].isna().tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classifier": torch.nn.Linear(2, 2)}, "`classifier` must be a Classifier; got Linear. Wrap the model"),
        ({"classifier": None}, "`classifier` must be a Classifier; got NoneType"),
        ({"goal": torch.tensor([0, 1, 2])}, "`goal` must be Untargeted\\(labels\\), Targeted\\(classes\\) or Switched"),
        ({"images": torch.rand(3, 3, 16, 16, dtype=torch.float64)}, "torch.float32; got a tensor of torch.float64"),
        ({"images": torch.rand(3, 3, 16, 16).numpy()}, "torch.float32; got ndarray"),
        ({"mask": torch.ones(16, 16).numpy()}, "`mask` must be a tensor; got ndarray"),
        ({"box": torch.rand(2)}, "`box` must be two values"),
        ({"box": (torch.rand(2), 1)}, "`box` must be two values"),
    ],
)
def test_what_is_of_another_kind_is_named(case, change, message, monkeypatch):
    classifier, images, labels = case
    given = {"classifier": classifier, "images": images, "goal": Untargeted(labels), "mask": None, "box": (0.0, 1.0)}
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises((ParameterError, ImageError), match=message):
        run_attack(FGSM(), **(given | change))
