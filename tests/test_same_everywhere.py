"""The same to the bit with any number of workers, of the caller's threads, and whatever images share a batch."""

import pandas as pd
import pytest
import torch
from torch import nn

from tests.helpers.made_dissections import made_concepts
from tests.helpers.pictures import photograph
from tests.helpers.quick_methods import FITS, make_universal
from whyfooled import (
    APGD,
    DDN,
    PGD,
    CarliniWagner,
    Classifier,
    Enhanced,
    GradCAM,
    Gradient,
    SmoothGrad,
    Square,
    Untargeted,
    UPIGrad,
    attack_files,
    count_passes,
    dissect,
    evaluate,
    explain,
    recovery_curve,
    run_attack,
    run_study,
    sensitivity,
    unit_sensitivity,
)
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.workers import LARGE
from whyfooled.saliency.pairs import pair_maps

SIDE = int(LARGE**0.5)


class Photographic(nn.Module):
    """Takes images that are large enough to be taken apart; its digits depend on the size of a batch."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Conv2d(3, 16, 7, stride=4, bias=False),
                nn.BatchNorm2d(16),
                nn.ReLU(),
                nn.Conv2d(16, 32, 3, stride=2),
                nn.ReLU(),
            )
            self.head = nn.Linear(32, 7)

    def forward(self, x):
        return self.head(self.layers(x).mean((2, 3)))


@pytest.fixture
def classifier():
    return Classifier(Photographic(), size=SIDE)


@pytest.fixture
def images():
    return torch.rand(9, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    torch.set_num_threads(request.param)
    yield request.param
    assert torch.get_num_threads() == request.param
    torch.set_num_threads(1)


ATTACKS = [CarliniWagner(rounds=2, steps=4), DDN(steps=4), APGD(epsilon=0.02, steps=4), Square(queries=9)]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.card.name)
def test_an_attacked_image_is_the_same_whoever_works_and_whatever_its_company(classifier, images, attack):
    labels = classifier.predict(images)
    alone = [run_attack(attack, classifier, images[i : i + 1], Untargeted(labels[i : i + 1])) for i in range(9)]
    for company in range(1, 10):
        with one_thread(1 + company % 3):
            together = run_attack(attack, classifier, images[:company], Untargeted(labels[:company]))
        for number, other in enumerate(alone[:company]):
            for name in ("attempted", "clean_logits", "logits", "success", "forwards", "backwards"):
                assert torch.equal(getattr(together, name)[number], getattr(other, name)[0]), (company, number, name)


def test_the_regions_and_the_recovery_of_an_image_are_the_same_too(classifier, images):
    true = classifier.predict(images)
    wrong = (true + 1) % 7
    attacked = (images + 0.05 * images.flip(0)).clamp(0, 1)
    labels = torch.arange(SIDE).div(16, rounding_mode="floor").expand(9, SIDE, SIDE)

    def measure(numbers):
        pair = images[numbers], attacked[numbers], true[numbers], wrong[numbers]
        regions = sensitivity(classifier, *pair, labels[numbers])
        curve = recovery_curve(classifier, attacked[numbers], true[numbers], images[numbers], fill="noise")
        return regions.true_change, regions.target_change, curve.probability

    alone = [measure(slice(number, number + 1)) for number in range(9)]
    for company in range(1, 10):
        with one_thread(1 + company % 3):
            together = measure(slice(company))
        for parts, whole in zip(zip(*alone[:company], strict=True), together, strict=True):
            assert torch.equal(torch.cat(parts), whole)


def test_the_maps_of_an_image_are_the_same_too(classifier, images):
    methods = [Enhanced(), Gradient(), GradCAM(), SmoothGrad(samples=2)]
    first = classifier.predict(images)

    def compute(numbers):
        classes = first[numbers], (first[numbers] + 1) % 7
        return [maps for _, maps in pair_maps(methods, classifier, images[numbers], *classes, both=True)]

    with count_passes(classifier) as passes:
        alone = [compute(slice(number, number + 1)) for number in range(9)]
    for company in (2, 5, 9):
        with one_thread(1 + company % 3), count_passes(classifier) as together:
            computed = compute(slice(company))
        for parts, whole in zip(zip(*alone[:company], strict=True), computed, strict=True):
            assert torch.equal(torch.cat(parts), whole)
    assert together == passes


def describe(explanation):
    maps = [each.maps for each in (explanation.headline, *explanation.evidence)]
    curves = [curve.probability for each in explanation.recovery for curve in each.curves.values()]
    regions = [explanation.effect.sensitivity.true_change, explanation.effect.first_order.target_change]
    return [explanation.adversarial, explanation.logits, *maps, *curves, *regions]


def test_an_explanation_is_the_same_and_takes_the_same_passes(classifier, images, threads):
    def work():
        return explain(classifier, images[:1], attack=DDN(steps=4))

    found = work()
    torch.set_num_threads(1)
    alone = work()
    torch.set_num_threads(threads)
    assert all(map(torch.equal, describe(found), describe(alone)))
    assert (found.passes, found.notes, found.by_chance) == (alone.passes, alone.notes, alone.by_chance)
    assert found.parameters == alone.parameters


@pytest.mark.parametrize("name", list(FITS))
def test_a_fit_is_the_same_however_its_images_are_batched(classifier, images, name):
    given = images, classifier.predict(images)
    alone, *together = (make_universal(name).fit(classifier, given, batch_size=size) for size in (1, 4, 9))
    for other in together:
        assert torch.equal(other.delta, alone.delta)
        assert (other.fitted_to, other.history, other.passes) == (alone.fitted_to, alone.history, alone.passes)


def test_what_is_measured_is_the_same_however_images_are_batched(classifier, images, tmp_path):
    for number in range(5):
        photograph(tmp_path / "photographs" / f"{number}.png", seed=number)
    given = images, classifier.predict(images)
    perturbation = make_universal("random").fit(classifier, (images.flip(3), classifier.predict(images.flip(3))))

    def measure(size):
        options = {"model": classifier, "batch_size": size, "shard_size": 5}
        study = run_study("filtering-effect(top=2)", tmp_path / "photographs", tmp_path / str(size), **options)
        return (
            pd.read_parquet(study.table.path),
            unit_sensitivity(classifier, "layers.4", images, images.flip(0), batch_size=size).to_frame(),
            evaluate(classifier, perturbation, given, batch_size=size).to_frame().sort_values("image", kind="stable"),
        )

    alone, *together = map(measure, (1, 2, 5))
    for other in together:
        for mine, theirs in zip(alone, other, strict=True):
            pd.testing.assert_frame_equal(theirs.reset_index(drop=True), mine.reset_index(drop=True), check_exact=True)


def test_a_study_a_fit_and_a_dissection_are_the_same(classifier, images, threads, tmp_path):
    for number in range(5):
        photograph(tmp_path / "photographs" / f"{number}.png", seed=number)

    study = "recovery(attack=ddn(steps=9), methods=gradient, random_orders=1)"

    def work(folder):
        run_study(study, tmp_path / "photographs", folder, model=classifier, shard_size=2)
        attack_files(classifier, [tmp_path / "photographs"], PGD(steps=3), folder / "attacked")
        delta = UPIGrad(passes=1).fit(classifier, (images[:5], classifier.predict(images[:5]))).delta
        dissection = dissect(classifier, "layers.4", made_concepts(), permutations=2)
        files = [path for path in sorted(folder.rglob("*")) if path.suffix in {".parquet", ".safetensors", ".csv"}]
        assert len(files) > 8
        return [path.read_bytes() for path in files], delta, dissection.to_frame()

    here = work(tmp_path / "here")
    torch.set_num_threads(1)
    alone = work(tmp_path / "alone")
    torch.set_num_threads(threads)
    assert here[0] == alone[0]
    assert torch.equal(here[1], alone[1])
    assert here[2].equals(alone[2])
