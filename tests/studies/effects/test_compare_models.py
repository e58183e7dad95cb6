"""Models compared image by image, on networks of which it is known in what they differ."""

import json

import pytest

from tests.helpers.models import small
from tests.helpers.nets import HERE, other
from tests.helpers.small_studies import write_images
from whyfooled import FGSM, FMN, Untargeted, run_attack
from whyfooled.errors import ParameterError
from whyfooled.saliency import Gradient
from whyfooled.saliency.recovery import random_maps, recovery_curve
from whyfooled.sources import open_source
from whyfooled.studies import CompareModels, run_study
from whyfooled.tensors.measures import cosine

OTHER = f"{HERE}:other"
NAME = "nets.py:other"
ATTACK = "fmn(steps=30)"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images") / "i.npz", count=12)


@pytest.fixture(scope="module")
def result(images, tmp_path_factory):
    study = CompareModels(
        models=(OTHER,), attacks=(FMN(steps=30), FGSM(epsilon=0.02)), methods=(Gradient(),), random_orders=2
    )
    return run_study(study, images, tmp_path_factory.mktemp("out") / "out", model=small(), batch_size=5)


def read_image(images, number):
    return open_source(images)[number].fitted(small().fit, 3).unsqueeze(0)


def test_each_model_is_attacked_and_measured_by_itself(result, images):
    rows = result.table.read(where=[("attack", "==", ATTACK)])
    for name, model in (("small", small()), (NAME, other())):
        of_model = rows[rows["model"] == name]
        row = of_model[of_model["method"] == "Gradient"].iloc[0]
        clean = read_image(images, int(row["index"]))
        # What the run's own model sees is what an image without a label shows, for both.
        true = small().predict(clean)
        attacked = run_attack(FMN(steps=30), model, clean, Untargeted(true))
        facts = of_model[(of_model["index"] == row["index"]) & of_model["method"].isna()].iloc[0]
        assert facts["l2"] == pytest.approx(float((attacked.attempted - clean).norm()), rel=1e-4)
        maps = [Gradient()(model, image, true) for image in (clean, attacked.attempted)]
        assert row["true_cosine"] == pytest.approx(float(cosine(*maps)), abs=1e-4)
        wrong = Gradient()(model, attacked.attempted, attacked.predictions)
        orders = [wrong, *(random_maps(clean, seed) for seed in (0, 1))]
        recovered = [float(recovery_curve(model, attacked.attempted, true, o, origin=clean).mean) for o in orders]
        assert row["recovered"] == pytest.approx(recovered[0])
        assert row["recovered_random"] == pytest.approx(sum(recovered[1:]) / 2)
        assert row["recovered_more"] == pytest.approx(recovered[0] - sum(recovered[1:]) / 2)


def test_what_is_right_is_counted_of_all_images_and_compared_image_by_image(result):
    rows = result.table.read()
    clean = rows[rows["attack"] == "clean"].pivot(index="index", columns="model", values="right")
    assert (clean["small"] == 1).all()
    seen = json.loads((result.folder / "study.json").read_text())["results"]
    right = {row[""]: row for row in seen[0]["rows"]}
    assert right["clean"][NAME]["mean"] == pytest.approx(clean[NAME].mean())
    assert right["clean"][f"{NAME} minus small"]["mean"] == pytest.approx(clean[NAME].mean() - 1)
    assert right[f"under {ATTACK}"]["small"]["mean"] == 0
    norms = {row[""]: row for row in seen[1]["rows"]}[f"{ATTACK}: ℓ2 norm"]
    wide = rows[rows["method"].isna() & (rows["attack"] == ATTACK)].pivot(index="index", columns="model", values="l2")
    both = wide.dropna()
    assert norms[f"{NAME} minus small"]["images"] == len(both)
    assert norms[f"{NAME} minus small"]["mean"] == pytest.approx((both[NAME] - both["small"]).mean())


def test_noise_is_the_same_for_all_and_is_of_images_that_a_model_gets_right(result):
    rows = result.table.read()
    right = rows[(rows["attack"] == "clean") & (rows["right"] == 1)].groupby("model", observed=True).size()
    noise = rows[rows["attack"] == "noise"].groupby("model", observed=True).size()
    assert noise.to_dict() == right[right > 0].to_dict()


def test_what_is_clear_is_said_and_few_images_say_nothing(result, images, tmp_path):
    assert "Differences are from small, image by image" in result.summary
    assert "What the models get right:" in result.summary
    study = CompareModels(models=(OTHER,), attacks=(FMN(steps=30),), methods=(Gradient(),), random_orders=1)
    few = run_study(study, images, tmp_path / "out", model=small(), count=4).summary
    assert "What the models get right: of fewer than 10 images with both models nothing can be said." in few


def test_models_must_be_others_that_tell_the_same_classes_apart(images, tmp_path):
    study = CompareModels(models=(f"{HERE}:same",), attacks=(FGSM(),), methods=(Gradient(),))
    with pytest.raises(ParameterError, match="`models` must be other models than the run's own, each once"):
        run_study(study, images, tmp_path / "out", model=small())
    with pytest.raises(ParameterError, match="`models` must have at least one entry"):
        CompareModels(models=())
    with pytest.raises(ParameterError, match="`random_orders` must be at least 1"):
        CompareModels(random_orders=0)
