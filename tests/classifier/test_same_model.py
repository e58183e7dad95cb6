"""One network by name, from a checkpoint, through Hugging Face and through ONNX: a photograph has the same logits."""

import pytest
import torch

from tests.helpers.onnx_export import export
from whyfooled.classifier.zoo import load_classifier
from whyfooled.cli._model import ModelOptions
from whyfooled.images import example_photograph

NAME = "test_resnet"


@pytest.fixture(scope="module")
def named():
    return load_classifier(f"timm:{NAME}", weights="random")


def from_checkpoint(named, folder):
    state = {f"module.{name}": tensor for name, tensor in named.module.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, folder / "last.pt")
    return load_classifier(f"timm:{NAME}", weights=folder / "last.pt", seed=5)


def through_hugging_face(named, folder):
    transformers = pytest.importorskip("transformers")
    about = dict(named.module.pretrained_cfg)
    config = transformers.TimmWrapperConfig(architecture=NAME, num_labels=1000, pretrained_cfg=about)
    model = transformers.TimmWrapperForImageClassification(config)
    model.timm_model.load_state_dict(named.module.state_dict())
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.contiguous()
    model.save_pretrained(folder)
    return load_classifier(f"hf:{folder}")


def through_onnx(named, folder):
    pytest.importorskip("onnx2torch")
    export(named.module, folder / "model.onnx", (1, 3, *named.size))
    mean, std = (",".join(f"{value:.9g}" for value in values.flatten().tolist()) for values in (named.mean, named.std))
    side, interpolation = named.fit.shorter_side, named.fit.interpolation
    options = {"mean": mean, "std": std, "shorter_side": side, "interpolation": interpolation}
    return ModelOptions(f"onnx:{folder / 'model.onnx'}", **options).load("cpu", 0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("make", [from_checkpoint, through_hugging_face, through_onnx])
def test_the_logits_of_a_photograph_are_the_same(named, tmp_path, make):
    other = make(named, tmp_path)
    expected, found = (one.logits(one.prepare(example_photograph())) for one in (named, other))
    assert (found - expected).abs().max() < 1e-4
    assert expected.std() > 1e-2
