"""The filtering effect, on classifiers whose maps are known."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.helpers.models import linear, small
from tests.helpers.small_studies import write_images
from whyfooled import Enhanced, Gradient, GuidedBackprop
from whyfooled.errors import ParameterError
from whyfooled.sources import open_source
from whyfooled.studies import FilteringEffect, run_study
from whyfooled.tensors.measures import average_difference, binary_similarity


def test_on_a_linear_classifier_the_maps_are_its_weights(tmp_path):
    weight = torch.randn(4, 3 * 8 * 8, generator=torch.Generator().manual_seed(0))
    images = write_images(tmp_path / "i.npz", count=2, side=8)
    study = FilteringEffect(methods=(Gradient(),), top=4)
    rows = run_study(study, images, tmp_path / "out", model=linear(weight)).table.read()
    assert len(rows) == 2 * 6
    for row in rows.itertuples():
        a, b = (weight[one].view(1, 3, 8, 8) for one in (row.class_a, row.class_b))
        assert row.similarity == pytest.approx(float(((a > 0) == (b > 0)).double().mean()))
        sizes = [float(one.clamp_min(0).mean()) for one in (a, b)]
        assert row.avg_diff == pytest.approx(abs(sizes[0] - sizes[1]) / max(sizes), rel=1e-5)


def test_classes_are_the_labels_where_there_are_several_and_this_is_said(tmp_path):
    (tmp_path / "labels.csv").write_text("file,label\na.png,1;4;2\nb.png,3\n")
    for name in ("a", "b"):
        Image.new("RGB", (16, 16), (len(name), 90, 200)).save(tmp_path / f"{name}.png")
    source = open_source([tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "labels.csv")
    result = run_study(FilteringEffect(methods=(Gradient(),), top=2), source, tmp_path / "out", model=small())
    rows = result.table.read()
    first = rows[rows["image"] == "a.png"]
    assert set(zip(first["class_a"], first["class_b"], strict=True)) == {(1, 4), (1, 2), (4, 2)}
    assert set(first["classes"]) == {"its labels"}
    assert set(rows[rows["image"] == "b.png"]["classes"]) == {"the classifier's top classes"}
    said = json.loads((tmp_path / "out" / "study.json").read_text())["findings"][0]
    assert said == (
        "4 pairs of classes; on 1 images the classes are its labels, on 1 images the classes are the classifier's top "
        "classes."
    )


def test_the_numbers_are_those_of_the_measures_on_the_maps(tmp_path):
    images = write_images(tmp_path / "i.npz", count=3)
    rows = run_study(FilteringEffect(top=3), images, tmp_path / "out", model=small()).table.read()
    source, classifier = open_source(images), small()
    batch = torch.stack([source[number].fitted(classifier.fit, 3) for number in range(3)])
    top = classifier(batch).topk(3).indices
    maps = GuidedBackprop()(classifier, batch, top)
    guided = rows[rows["method"] == "Guided backpropagation"]
    for a, b in [(0, 1), (0, 2), (1, 2)]:
        first, second = (top[guided["index"].to_numpy(copy=True), place].numpy() for place in (a, b))
        pair = guided[(guided["class_a"] == first) & (guided["class_b"] == second)].sort_values("index")
        similarity, difference = (torch.tensor(pair[column].to_numpy()) for column in ("similarity", "avg_diff"))
        torch.testing.assert_close(similarity, binary_similarity(maps[:, a], maps[:, b]))
        torch.testing.assert_close(difference, average_difference(maps[:, a], maps[:, b]), rtol=1e-4, atol=1e-6)


def test_two_classes_are_the_least_that_can_be_compared():
    with pytest.raises(ParameterError, match="`top` must be at least 2; got 1"):
        FilteringEffect(top=1)
    with pytest.raises(ParameterError, match="`methods`"):
        FilteringEffect(methods=())


def test_an_enhanced_method_has_no_map_of_one_class_and_the_others_are_measured(tmp_path):
    images = write_images(tmp_path / "i.npz", count=2)
    study = FilteringEffect(methods=(Enhanced(), Gradient()), top=2)
    result = run_study(study, images, tmp_path / "out", model=small())
    assert set(result.table.read()["method"]) == {"Gradient"}
    assert (
        result.table.errors()["error"].tolist()
        == ["Enhanced guided backpropagation: It holds a class against another, so it has no map of a class alone."] * 2
    )


def test_its_maps_are_kept_by_the_rank_of_the_class(tmp_path):
    images = write_images(tmp_path / "i.npz", count=3)
    run_study(FilteringEffect(methods=(Gradient(),), top=2), images, tmp_path / "out", model=small(), keep_maps=True)
    kept = load_file(next((tmp_path / "out" / "maps").iterdir()))
    source, classifier = open_source(images), small()
    image = source[1].fitted(classifier.fit, 3).unsqueeze(0)
    second = classifier.logits(image).topk(2).indices[:, 1]
    found = kept[f"{source.name(1)}/Gradient, class 2"]
    torch.testing.assert_close(found, Gradient()(classifier, image, second)[0], rtol=1e-4, atol=1e-7)


def test_two_labels_of_one_class_are_no_pair(tmp_path):
    (tmp_path / "labels.csv").write_text("file,label\na.png,1;01\n")
    Image.new("RGB", (16, 16), (1, 90, 200)).save(tmp_path / "a.png")
    source = open_source(tmp_path / "a.png", tmp_path / "labels.csv")
    rows = run_study(FilteringEffect(top=2), source, tmp_path / "out", model=small()).table.read()
    assert (rows["class_a"] != rows["class_b"]).all()
    assert set(rows["classes"]) == {"the classifier's top classes"}
