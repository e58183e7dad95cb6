"""Models compared image by image, on networks of which it is known in what they differ."""

import json

import pytest
import torch

from tests.helpers.models import SmallNet, small
from tests.helpers.nets import HERE, other
from tests.helpers.small_studies import write_images
from whyfooled import FGSM, FMN, Untargeted, run_attack
from whyfooled.classifier.layers import LAST_STAGE, choose_layers
from whyfooled.errors import ParameterError
from whyfooled.saliency import Gradient
from whyfooled.saliency.recovery import random_maps, recovery_curve
from whyfooled.sources import open_source
from whyfooled.studies import CompareModels, run_study
from whyfooled.studies.parts.held_out import split
from whyfooled.tensors.measures import cosine
from whyfooled.tensors.randomness import choose
from whyfooled.units.masking import mask_units
from whyfooled.units.sensitivity import unit_sensitivity

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


MASKED = {"models": (OTHER,), "attacks": (FGSM(epsilon=0.05),), "methods": (Gradient(),), "random_orders": 2}


def test_masked_units_are_ranked_on_other_images_and_compared_with_random_ones(images, tmp_path):
    result = run_study(CompareModels(**MASKED, masked=0.3, fit=0.4), images, tmp_path / "out", model=small(), seed=3)
    rows = result.table.read()
    learned, measured = split(range(12), 0.4, seed=3)
    assert sorted(rows["index"].unique()) == measured
    attack = "fgsm(epsilon=0.05)"
    facts = rows[rows["method"].isna() & (rows["attack"] == attack) & (rows["outcome"] == "fooled")]
    assert set(facts["model"]) == {"small", NAME}
    for row in facts.to_dict("records"):
        model = small() if row["model"] == "small" else other()
        (layer,) = choose_layers(model, [LAST_STAGE])
        count = max(1, round(0.3 * layer.units))
        pairs = [(clean, attacked) for clean, attacked, fooled in attack_all(model, images, learned) if fooled]
        sensitivity = unit_sensitivity(model, layer.name, *map(torch.cat, zip(*pairs, strict=True)))
        moved = sensitivity[layer.name]
        most = moved.argsort(descending=True, stable=True)[:count].tolist()
        clean, attacked, _ = next(attack_all(model, images, [row["index"]]))
        true = small().predict(clean)

        def tell(units, image, model=model, layer=layer, true=true):
            return float(mask_units(model, {layer.name: units}).predict(image) == true)

        assert (row["masked_clean"], row["masked_right"]) == (tell(most, clean), tell(most, attacked))
        random = [tell(choose(layer.units, count, 3 + draw), attacked) for draw in range(2)]
        assert row["masked_random"] == pytest.approx(sum(random) / 2)
        assert row["masked_more"] == pytest.approx(row["masked_right"] - row["masked_random"])
    assert "Masked units:" in result.summary
    assert {path.name for path in (tmp_path / "out").glob("units-*")} == {"units-0.json", "units-1.json"}


def attack_all(model, images, numbers):
    for number in numbers:
        clean = read_image(images, number)
        found = run_attack(FGSM(epsilon=0.05), model, clean, Untargeted(small().predict(clean)))
        right = bool(model.predict(clean) == small().predict(clean))
        yield clean, found.attempted, right and bool(found.success)


def test_without_masks_no_image_is_kept_back_and_a_share_must_be_one(images, result):
    assert result.table.read()["index"].nunique() == 12
    assert result.table.read()["masked_right"].isna().all()
    with pytest.raises(ParameterError, match="`masked` must be above 0 and under 1; got 1"):
        CompareModels(masked=1.0)


def test_every_pass_counts_through_whichever_model(images, tmp_path, monkeypatch):
    seen, forward = [], SmallNet.forward

    def watch(net, inputs):
        seen.append(len(inputs))
        return forward(net, inputs)

    def run(masked):
        seen.clear()
        study = CompareModels(**MASKED, masked=masked, fit=0.4)
        counted = run_study(study, images, tmp_path / str(masked), model=small(), seed=3).about["forwards"]
        return counted, sum(seen)

    monkeypatch.setattr(SmallNet, "forward", watch)
    (plain, plain_seen), (masked, masked_seen) = run(0.0), run(0.3)
    # What finds the layers of the two models is one image through each, and not the study's.
    assert (masked_seen - masked) - (plain_seen - plain) == 2
