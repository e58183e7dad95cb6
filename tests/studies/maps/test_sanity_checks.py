"""Sanity checks, on methods whose maps depend on the weights alone, on the image alone, or on nothing."""

import json
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from tests.helpers.models import small
from tests.helpers.small_studies import write_images
from whyfooled.errors import ParameterError
from whyfooled.registry import Card
from whyfooled.sources import open_source
from whyfooled.studies import SanityChecks, run_study
from whyfooled.studies.parts.models import Models
from whyfooled.tensors.measures import cosine, rank_correlation, structural_similarity


@dataclass(frozen=True)
class OfImage:
    """The image itself, whatever the model: it cannot pass."""

    card: ClassVar[Card] = Card("of-image", "Of the image", "The image.", "nobody", "nothing")

    def __call__(self, classifier, images, classes):
        return (images - 0.5).unsqueeze(1).expand(-1, classes.shape[1], -1, -1, -1)


@dataclass(frozen=True)
class OfWeights:
    """A map that each model's first layer, and each image, decide about: nothing of it stays."""

    card: ClassVar[Card] = Card("of-weights", "Of the weights", "Noise.", "nobody", "nothing")

    def __call__(self, classifier, images, classes):
        first = float(classifier.module.first.weight.detach().double().sum())
        maps = [
            torch.randn(
                3, 16, 16, generator=torch.Generator().manual_seed(int(1e6 * (abs(first) + float(image.sum()))))
            )
            for image in images
        ]
        return torch.stack(maps).unsqueeze(1).expand(-1, classes.shape[1], -1, -1, -1)


@dataclass(frozen=True)
class Empty:
    """A map of zeros."""

    card: ClassVar[Card] = Card("empty", "Empty", "Nothing.", "nobody", "nothing")

    def __call__(self, classifier, images, classes):
        return torch.zeros(*classes.shape, 3, 16, 16)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images") / "i.npz", count=12)


@pytest.fixture(scope="module")
def result(tmp_path_factory, images):
    study = SanityChecks(methods=(OfImage(), OfWeights()), parts=2, others=11)
    return run_study(study, images, tmp_path_factory.mktemp("out") / "out", model=small(), batch_size=5)


def select(table, method, order, step=None):
    where = [("method", "==", method), ("randomised", "==", order)]
    return table.read(where=where if step is None else [*where, ("step", "==", step)])


def test_a_map_of_the_image_alone_stays_and_fails_and_one_of_the_weights_alone_passes(result):
    for order, step in (("cascading", 1), ("cascading", 3), ("independent", 2)):
        rows = select(result.table, "Of the image", order, step)
        assert len(rows) == 12
        assert (rows[["rank_correlation", "size_correlation", "ssim", "cosine"]] > 0.999999).all().all()
    # Its first layer is changed in the last steps alone.
    assert (select(result.table, "Of the weights", "cascading", 2)["cosine"] > 0.999).all()
    assert select(result.table, "Of the weights", "independent", 3)["cosine"].abs().max() < 0.3
    verdicts = {
        row["method"]: row for row in json.loads((result.folder / "study.json").read_text())["results"][0]["rows"]
    }
    assert [verdicts[name]["verdict"] for name in ("Of the image", "Of the weights")] == ["fails", "passes"]
    assert verdicts["Of the image"]["cosine similarity, less chance"]["mean"] == pytest.approx(1, abs=0.1)
    assert "Failing: Of the image (" in result.summary
    assert "Passing: Of the weights (" in result.summary


def test_chance_is_the_mean_likeness_to_the_maps_of_all_other_images(result, images):
    source, classifier = open_source(images), small()
    pixels = torch.stack([source[number].fitted(classifier.fit, 3) for number in range(12)]) - 0.5
    for number in (0, 7):
        others = torch.cat([pixels[:number], pixels[number + 1 :]])
        same = pixels[number].expand_as(others)
        row = select(result.table, "Of the image", "other images").set_index("index").loc[number]
        expected = [
            float(measure(same, others).mean()) for measure in (rank_correlation, structural_similarity, cosine)
        ]
        assert row[["rank_correlation", "ssim", "cosine"]].tolist() == pytest.approx(expected, abs=1e-6)
    assert len(select(result.table, "Of the image", "other images")) == 12


def test_of_few_images_nothing_is_said_and_empty_maps_are_named(tmp_path):
    images = write_images(tmp_path / "i.npz", count=4)
    study = SanityChecks(methods=(OfImage(), Empty()), parts=1, others=2)
    summary = run_study(study, images, tmp_path / "out", model=small()).summary
    assert "Of 4 images nothing can be said about whether the maps of Of the image, Empty change" in summary
    assert "Failing" not in summary
    assert "Empty: 12 of 12 maps are 0 everywhere, before or after, and so are compared with nothing." in summary
    assert "Labels were not randomised: that takes a model that was trained on shuffled labels" in summary


def test_a_model_trained_on_shuffled_labels_is_compared_too(tmp_path, images, monkeypatch):
    other = small(seed=5)
    other.name = "shuffled"
    monkeypatch.setattr(Models, "get", lambda self, name, like: {"shuffled": other}.get(name, like))
    study = SanityChecks(methods=(OfImage(), OfWeights()), parts=1, others=2, randomised_labels="shuffled")
    result = run_study(study, images, tmp_path / "out", model=small())
    rows = select(result.table, "Of the weights", "labels")
    assert (len(rows), set(rows["layers"])) == (12, {"shuffled"})
    assert rows["cosine"].abs().max() < 0.3
    assert "shuffled labels, by rank correlation: Of the image 1.00 (by chance" in result.summary
    # 12 images through the classifier, 3 for chance, 1 for the layers; its own logits and each randomised model's maps
    # take none, as these methods send no image through any.
    assert result.about["forwards"] == 12 + 3 + 1
    monkeypatch.setattr(Models, "get", lambda self, name, like: like)
    with pytest.raises(ParameterError, match="`randomised_labels` must be another model, trained on shuffled labels"):
        run_study(study, images, tmp_path / "same", model=small())


def test_one_image_has_no_others_and_parameters_have_ranges(tmp_path):
    images = write_images(tmp_path / "i.npz", count=1)
    with pytest.raises(ParameterError, match="`images` must be at least 2, because a map is compared with those of"):
        run_study(SanityChecks(methods=(OfImage(),)), images, tmp_path / "out", model=small())
    with pytest.raises(ParameterError, match="`parts` must be at least 1"):
        SanityChecks(parts=0)
    with pytest.raises(ParameterError, match="`others` must be at least 1"):
        SanityChecks(others=0)
