"""The transfer of universal perturbations between models, all of which see the same pixels."""

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tests.helpers.models import blind, small
from tests.helpers.patch_world import There
from tests.helpers.small_studies import write_images
from whyfooled.errors import OutputError, ParameterError
from whyfooled.sources import open_source
from whyfooled.studies import UniversalTransfer, run_study
from whyfooled.studies.parts import models as _models
from whyfooled.studies.parts.models import Models
from whyfooled.studies.universal.comparison import CHANCE
from whyfooled.universal import UPIPCA, RandomDirection, UniversalPerturbation, dissimilarity
from whyfooled.universal.evaluation import DIRECTIONS

NETS = """
from tests.helpers.models import small
from whyfooled import Classifier


def first():
    return small(side=16)


def wide():
    return small(side=24, seed=3)


def few():
    import torch
    return Classifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 3)), size=(16, 16))


def named():
    return Classifier(small().module, size=(16, 16), class_names=["a", "b", "c", "d", "e"])


def turned():
    return Classifier(small().module, size=(16, 16), class_names=["e", "b", "c", "d", "a"])
"""


@pytest.fixture
def world(tmp_path):
    (tmp_path / "nets.py").write_text(NETS)
    images = write_images(tmp_path / "images.npz", count=6, side=16)
    others = write_images(tmp_path / "others.npz", count=4, side=16, seed=5)
    models = tuple(f"{tmp_path / 'nets.py'}:{name}" for name in ("first", "wide"))
    made = UniversalTransfer(method=UPIPCA(passes=1, samples=1), models=models, epsilon=2.0, fit=others)
    return tmp_path, images, made


def run(images, folder, made, **options):
    options = {"model": small(), "shard_size": 2, "batch_size": 3, "workers": 1, **options}
    return run_study(made, images, folder, **options)


def names_of(made):
    """Return what its models are called in tables."""
    return [Path(name).name for name in made.models]


def test_every_pair_is_what_the_saved_perturbation_does_to_the_resized_images(world):
    folder, images, made = world
    table = run(images, folder / "out", made).table.read()
    kept = [UniversalPerturbation.load(path) for path in (folder / "out" / "perturbations").iterdir()]
    by_model = {one.model: one for one in kept}
    names = names_of(made)
    assert set(by_model) == set(names)
    assert {tuple(one.delta.shape) for one in kept} == {(3, 16, 16)}
    # The same weights and size, by two names: those of the run's own, and of a file.
    models = {names[0]: (small(), 16), names[1]: (small(side=24, seed=3), 24)}
    assert len(table) == 6 * 2 * (2 + DIRECTIONS)
    for row in table[table["fitted_on"] != CHANCE].to_dict("records"):
        model, side = models[row["tested_on"]]
        clean = open_source(images)[row["index"]].fitted(small().fit, 3).unsqueeze(0).requires_grad_()
        moved = by_model[row["fitted_on"]].apply(clean.detach(), clip=False).requires_grad_()
        both = []
        for x in (clean, moved):
            logits = model(F.interpolate(x, (side, side), mode="bilinear", antialias=True) if side != 16 else x)
            if x is clean:
                true = int(logits.argmax())
            both.append(torch.autograd.grad(logits[0, true], x)[0])
        assert row["dissimilarity"] == pytest.approx(float(dissimilarity(*both)), rel=1e-3)
        assert row["fooled"] == float(int(logits.argmax()) != true)


def test_the_matrix_and_the_verdicts_are_over_all_pairs(world):
    folder, images, made = world
    result = run(images, folder / "out", made)
    rows = result.about["results"][0]["rows"]
    pairs = {(row["tested on"], row["fitted on"]) for row in rows}
    assert pairs == {(one, other) for one in names_of(made) for other in (*names_of(made), CHANCE)}
    table = result.table.read()
    for row in rows:
        own = table[(table["tested_on"] == row["tested on"]) & (table["fitted_on"] == row["fitted on"])]
        assert row["D"]["mean"] == pytest.approx(own["dissimilarity"].mean())
        chance = table[(table["tested_on"] == row["tested on"]) & (table["fitted_on"] == CHANCE)]
        if row["over chance"] is not None:
            ratio = own["dissimilarity"].mean() / chance["dissimilarity"].mean()
            assert row["over chance"]["mean"] == pytest.approx(ratio)
    assert "On other models: of fewer than 10 images nothing can be said." in result.summary


def test_an_image_counts_for_the_models_that_get_it_right(world):
    folder, _, made = world
    source = open_source(write_images(folder / "i.npz", count=6))
    x = torch.stack([sample.fitted(small().fit, 3) for sample in source])
    first, wide = small(), small(side=24, seed=3)
    seen = first.predict(x).tolist()
    also = wide.predict(F.interpolate(x, (24, 24), mode="bilinear", antialias=True)).tolist()
    images = write_images(folder / "i.npz", count=6, labels=seen)
    if not any(one == other for one, other in zip(seen, also, strict=True)):
        seen[0] = also[0]
        images = write_images(folder / "i.npz", count=6, labels=seen)
    table = run(images, folder / "out", made).table.read()
    for model, given in zip(names_of(made), (first.predict(x).tolist(), also), strict=True):
        own = table[table["tested_on"] == model]
        wrong = {place for place, (one, label) in enumerate(zip(given, seen, strict=True)) if one != label}
        assert set(own.loc[own["outcome"] == "already wrong", "index"]) == wrong


def test_models_are_loaded_once_and_not_sent(world, monkeypatch):
    folder, images, made = world
    loads = []
    load = _models.load_classifier
    monkeypatch.setattr(
        _models, "load_classifier", lambda name, **options: (loads.append(name), load(name, **options))[1]
    )
    models = Models(made.models)
    assert models.get(made.models[1], small()) is models.get(made.models[1], small())
    assert loads == [made.models[1]]
    # Copied as it is sent.
    sent = deepcopy(models)
    assert (sent.names, sent.loaded) == (models.names, {})
    own = small()
    assert Models(("small",)).get("small", own) is own
    loads.clear()
    run(images, folder / "out", made)
    # Once to tell their weights, once for the fits, whose models the measurements use too.
    assert len(loads) <= 2 * len(made.models)


def test_passes_through_the_other_models_are_counted(world):
    folder, images, made = world
    about = run(images, folder / "out", made).about
    kept = [UniversalPerturbation.load(path) for path in (folder / "out" / "perturbations").iterdir()]
    # On each model: one prediction of each image, a map of each, and a map and a prediction for each perturbation and
    # random direction.
    assert about["forwards"] == sum(one.passes.forwards for one in kept) + 6 * 2 * (1 + 1 + (2 + DIRECTIONS) * 2)
    assert about["backwards"] == sum(one.passes.backwards for one in kept) + 6 * 2 * (1 + 2 + DIRECTIONS)


def test_other_weights_of_a_model_are_another_run(world):
    folder, images, made = world
    run(images, folder / "out", made)
    digests = json.loads((folder / "out" / "study.json").read_text())["models_digests"]
    assert [name for name, _ in digests] == names_of(made)
    (folder / "nets.py").write_text(NETS.replace("seed=3", "seed=4"))
    with pytest.raises(OutputError, match="its other models had other weights"):
        run(images, folder / "out", made)


def test_models_of_other_classes_are_refused(world):
    folder, images, made = world
    few = replace(made, models=(f"{folder / 'nets.py'}:few",))
    with pytest.raises(ParameterError, match=r"`models` must tell the same classes apart; .*few has 3 and small 5"):
        run(images, folder / "few", few)
    (folder / "tree" / "a").mkdir(parents=True)
    for shade in (10, 200):
        Image.new("RGB", (16, 16), (shade, 90, 200)).save(folder / "tree" / "a" / f"{shade}.png")
    turned = replace(made, models=(f"{folder / 'nets.py'}:turned",), fit="")
    with pytest.raises(ParameterError, match="`models` must have their classes in one order"):
        run(f"folder:{folder / 'tree'}", folder / "out", turned, model=f"{folder / 'nets.py'}:named")


def test_models_are_there_and_each_once():
    with pytest.raises(ParameterError, match="`models` must have at least one entry, and each once"):
        UniversalTransfer(models=("lite0", "lite0"))


def test_a_method_that_cannot_be_fitted_is_an_error_for_every_image(world):
    folder, images, made = world

    class Wide(There):
        def __call__(self, classifier, images, classes):
            return images.mean(1, keepdim=True)

    result = run(images, folder / "out", replace(made, saliency=Wide()))
    assert set(result.table.errors()["fitted_on"]) == set(names_of(made))
    assert set(result.table.read()["fitted_on"]) == {CHANCE}


def test_empty_maps_have_no_d(tmp_path):
    images, others = write_images(tmp_path / "a.npz", count=3), write_images(tmp_path / "b.npz", count=2, seed=4)
    made = UniversalTransfer(method=RandomDirection(), models=("blind",), fit=others)
    result = run_study(made, images, tmp_path / "out", model=blind())
    assert "On every model 3 of 3 images were tested." in result.summary
    assert "nan" not in result.summary
