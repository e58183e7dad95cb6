"""Models whose head is for other classes: read from a weights file, or made anew for training."""

from __future__ import annotations

import json

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from whyfooled.classifier.zoo import load_classifier
from whyfooled.errors import ModelError, ParameterError, WhyfooledWarning
from whyfooled.images import write_tensors

NAMES = ["aeroplane", "bicycle", "bird"]
MODELS = ["torchvision:squeezenet1_1", "torchvision:shufflenet_v2_x0_5", "timm:mobilenetv3_small_050", "lite0"]

OWN = """
import torch
from torch import nn

def make():
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))
"""


@pytest.fixture
def own(tmp_path) -> str:
    (tmp_path / "own.py").write_text(OWN)
    return f"{tmp_path / 'own.py'}:make"


@pytest.fixture
def saved(tmp_path):
    """Save a model's weights, with class names or without."""

    def save(classifier, names=None, suffix="safetensors"):
        path = tmp_path / f"w.{suffix}"
        if suffix == "pt":
            torch.save(classifier.module.state_dict(), path)
        else:
            about = {} if names is None else {"whyfooled": json.dumps({"class_names": names, "multilabel": True})}
            write_tensors(path, classifier.module.state_dict(), about)
        return path

    return save


def images(classifier) -> torch.Tensor:
    return torch.rand(2, 3, *classifier.size, generator=torch.Generator().manual_seed(0))


def assert_same(first, second) -> None:
    assert torch.equal(first.logits(images(first)), second.logits(images(first)))


@pytest.mark.parametrize("model", MODELS)
class TestEveryLibrary:
    def test_a_new_head_is_for_the_classes_that_are_named(self, model):
        classifier = load_classifier(model, weights="random", class_names=NAMES)
        assert classifier.logits(images(classifier)).shape == (2, 3)
        assert classifier.class_names == tuple(NAMES)

    def test_class_names_are_read_from_the_weights_file(self, model, saved):
        trained = load_classifier(model, weights="random", class_names=NAMES, seed=1)
        loaded = load_classifier(model, weights=saved(trained, NAMES))
        assert loaded.class_names == tuple(NAMES)
        assert_same(loaded, trained)

    @pytest.mark.parametrize("suffix", ["safetensors", "pt"])
    def test_without_names_the_head_tells_the_number_of_classes(self, model, saved, suffix):
        trained = load_classifier(model, weights="random", class_names=NAMES, seed=1)
        loaded = load_classifier(model, weights=saved(trained, suffix=suffix))
        assert loaded.class_names is None
        assert loaded.class_count() == 3
        assert_same(loaded, trained)

    def test_a_body_is_kept_under_a_new_head(self, model, saved):
        before = load_classifier(model, weights="random", seed=1)
        after = load_classifier(model, weights=saved(before), class_names=NAMES, new_head=True, seed=2)
        old, new = before.module.state_dict(), after.module.state_dict()
        other = {key for key in old if old[key].shape != new[key].shape}
        assert {new[key].shape[0] for key in other} == {3}
        assert 1 <= len(other) <= 2
        assert all(torch.equal(old[key], new[key]) for key in old.keys() - other)


def test_the_published_weights_stay_under_a_new_head():
    published, fresh = load_classifier(), load_classifier(class_names=NAMES, new_head=True)
    old, new = published.module.state_dict(), fresh.module.state_dict()
    assert {key for key in old if not torch.equal(old[key], new[key])} == {"classifier.weight", "classifier.bias"}
    assert fresh.class_names == tuple(NAMES)
    assert fresh.logits(images(fresh)).shape == (2, 3)
    assert torch.equal(
        load_classifier(class_names=NAMES, new_head=True).module.classifier.weight, new["classifier.weight"]
    )
    assert not torch.equal(
        load_classifier(class_names=NAMES, new_head=True, seed=1).module.classifier.weight, new["classifier.weight"]
    )


def test_the_published_weights_of_torchvision_stay_under_a_new_head(monkeypatch):
    torch.manual_seed(0)
    state = torchvision.models.get_model("squeezenet1_1").state_dict()
    monkeypatch.setattr(torchvision.models.SqueezeNet1_1_Weights, "get_state_dict", lambda self, *_, **__: state)
    new = load_classifier("torchvision:squeezenet1_1", class_names=NAMES, new_head=True).module.state_dict()
    changed = {key for key in state if not torch.equal(state[key], new[key])}
    assert changed == {"classifier.1.weight", "classifier.1.bias"}
    assert new["classifier.1.bias"].shape == (3,)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("count", [4, 6])
def test_names_never_discard_the_head_of_a_file(model, count, saved):
    trained = load_classifier(model, weights="random", num_classes=5)
    path, names = saved(trained), [f"kind {number}" for number in range(count)]
    with pytest.raises(ModelError) as refused:
        load_classifier(model, weights=path, class_names=names)
    assert str(refused.value) == (
        f"w.safetensors has 5 classes, and `class_names` names {count}, from kind 0 to kind {count - 1}. Give 5 names."
    )
    with pytest.raises(ModelError, match=rf"w.safetensors has 5 classes, and {count} are asked for"):
        load_classifier(model, weights=path, num_classes=count)
    assert_same(load_classifier(model, weights=path, class_names=[*"abcde"]), trained)


def test_names_never_discard_a_published_head():
    with pytest.raises(ModelError) as refused:
        load_classifier(class_names=NAMES)
    assert str(refused.value) == (
        "lite0 has 1000 classes, and `class_names` names 3, from aeroplane to bird. Give 1000 names, or the weights "
        "that were trained for 3 classes (--weights)."
    )


def test_a_head_that_is_made_anew_is_said_in_every_report():
    with pytest.warns(WhyfooledWarning, match="made anew for 3 classes and untrained"):
        asked = load_classifier(num_classes=3)
    to_train = load_classifier(class_names=NAMES, new_head=True)
    for classifier in (asked, to_train, asked.with_module(asked.module)):
        assert [note.partition(",")[0] for note in classifier.notes] == [
            "The last layer of lite0 is made anew for 3 classes and untrained"
        ]
    assert load_classifier().notes == ()


def test_a_file_with_one_logit_tells_two_classes(saved):
    model = "torchvision:squeezenet1_1"
    trained = load_classifier(model, weights="random", num_classes=2)
    state = {key: value[:1] if "classifier" in key else value for key, value in trained.module.state_dict().items()}
    path = saved(trained)
    write_tensors(path, {key: value.contiguous() for key, value in state.items()}, {})
    for names, expected in ((["bird"], ("not bird", "bird")), (["dog", "bird"], ("dog", "bird")), (None, None)):
        loaded = load_classifier(model, weights=path, class_names=names)
        assert loaded.class_names == expected
        logits = loaded.logits(images(loaded))
        assert torch.equal(logits[:, 0], -logits[:, 1])


def test_as_many_classes_as_before_keep_the_head(saved):
    names = [f"kind {number}" for number in range(1000)]
    before = load_classifier("torchvision:squeezenet1_1", weights="random", seed=1)
    after = load_classifier("torchvision:squeezenet1_1", weights=saved(before), class_names=names)
    assert_same(before, after)
    assert after.class_name(3) == "kind 3"


def test_names_in_the_file_take_the_place_of_published_ones(saved):
    names = [f"kind {number}" for number in range(1000)]
    path = saved(load_classifier("torchvision:squeezenet1_1", weights="random"), names)
    assert load_classifier("torchvision:squeezenet1_1", weights=path).class_name(3) == "kind 3"


def test_a_model_with_auxiliary_classifiers_is_as_it_was_published(tmp_path):
    # Published with auxiliary classifiers in the file, and with the input changed inside the model.
    module = torchvision.models.get_model("googlenet", init_weights=False, transform_input=True).eval()
    torch.save(module.state_dict(), tmp_path / "w.pt")
    classifier = load_classifier("torchvision:googlenet", weights=tmp_path / "w.pt")
    x = images(classifier)
    torch.testing.assert_close(classifier(x), module((x - classifier.mean) / classifier.std))
    torch.save(classifier.module.state_dict(), tmp_path / "v.pt")
    assert_same(load_classifier("torchvision:googlenet", weights=tmp_path / "v.pt"), classifier)


class TestOwn:
    def test_class_names_are_read_from_the_weights_file(self, own, saved):
        classifier = load_classifier(own)
        assert load_classifier(own, weights=saved(classifier, NAMES)).class_names == tuple(NAMES)

    def test_another_number_of_names_is_refused(self, own, saved):
        path = saved(load_classifier(own), ["a", "b"])
        for more, said in (
            ({"weights": path}, "w.safetensors names 2 in its metadata, from a to b."),
            ({"class_names": ["a", "b"]}, "`class_names` names 2, from a to b. Give 3 names."),
        ):
            with pytest.raises(ModelError) as refused:
                load_classifier(own, **more)
            assert str(refused.value) == f"{own} has 3 classes, and {said}"

    def test_a_head_of_another_size_is_refused(self, own, tmp_path):
        state = load_classifier(own).module.state_dict() | {"3.weight": torch.rand(5, 2), "3.bias": torch.rand(5)}
        torch.save(state, tmp_path / "w.pt")
        with pytest.raises(ModelError, match=r"2 tensors of another shape \(3.bias, 3.weight\)"):
            load_classifier(own, weights=tmp_path / "w.pt")


class TestMisfits:
    def test_names_that_contradict_the_head_are_refused(self, saved):
        classifier = load_classifier("torchvision:squeezenet1_1", weights="random", class_names=NAMES)
        with pytest.raises(ModelError, match=r"safetensors has 3 classes, and it names 2 in its metadata, from a to b"):
            load_classifier("torchvision:squeezenet1_1", weights=saved(classifier, ["a", "b"]))

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            # More rows in another layer than the head; other columns in the head; two numbers of rows.
            (
                lambda key, value: value.repeat(2, *[1] * (value.ndim - 1)) if key == "features.0.bias" else value,
                "0.bias",
            ),
            (lambda key, value: value[:, :4] if key == "classifier.1.weight" else value, "classifier.1.weight"),
            (lambda key, value: value[: 3 + (key[-1] == "s")] if "classifier" in key else value, "classifier.1.bias"),
        ],
    )
    def test_other_differences_than_the_heads_are_refused(self, tmp_path, change, reason):
        state = load_classifier("torchvision:squeezenet1_1", weights="random").module.state_dict()
        save_file({key: change(key, value).contiguous() for key, value in state.items()}, tmp_path / "w.safetensors")
        with pytest.raises(ModelError, match=f"of another shape .*{reason}"):
            load_classifier("torchvision:squeezenet1_1", weights=tmp_path / "w.safetensors")

    @pytest.mark.parametrize(
        "text", ["{", "[]", "3", '{"class_names": "a"}', '{"class_names": ["a"]}', '{"class_names": ["a", 2]}']
    )
    def test_metadata_of_another_form_is_refused(self, own, tmp_path, text):
        write_tensors(tmp_path / "w.safetensors", load_classifier(own).module.state_dict(), {"whyfooled": text})
        with pytest.raises(ModelError, match=r"w.safetensors must name its classes in its metadata"):
            load_classifier(own, weights=tmp_path / "w.safetensors")

    @pytest.mark.parametrize("about", [{"format": "pt"}, {"whyfooled": "{}"}, {"whyfooled": '{"success": true}'}])
    def test_other_metadata_is_nothing_to_us(self, own, tmp_path, about):
        write_tensors(tmp_path / "w.safetensors", load_classifier(own).module.state_dict(), about)
        assert load_classifier(own, weights=tmp_path / "w.safetensors").class_names is None

    def test_a_single_class_is_refused(self):
        with pytest.raises(ModelError, match=r"lite0 has 1000 classes, and `class_names` names 1: cat\. Give 1000"):
            load_classifier(class_names=["cat"])
        with pytest.raises(ParameterError, match="`class_names` must be at least 1; got 0"):
            load_classifier(class_names=[])
