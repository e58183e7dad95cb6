"""A model with everything needed to use it: the one place that knows normalisation, input size and value range."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, final

import torch
from PIL import Image as PILImage
from torch import Tensor, nn

from whyfooled.classifier.borrowing import copy_at_rest, end_if_nobody_waits, one_thread
from whyfooled.classifier.fit import Fit, Size
from whyfooled.classifier.goals import Goal, Switched, Targeted, Untargeted, check_whole
from whyfooled.classifier.heads import ends_in_sigmoids, run_to_logits
from whyfooled.classifier.huggingface import gives_several_labels, read_class_names, read_processor
from whyfooled.classifier.outputs import Output, check_output_choice, pick_logits
from whyfooled.classifier.rearranging import Rearranging
from whyfooled.errors import (
    ImageError,
    ModelError,
    ParameterError,
    bad_parameter,
    did_you_mean,
    first_line,
    hearing,
    warn,
)
from whyfooled.images import to_tensor
from whyfooled.types import Classes, Images, Logits

if TYPE_CHECKING:
    from whyfooled.classifier.inputs import InputFormat

__all__ = ["Classifier", "Fit", "Goal", "Switched", "Targeted", "Untargeted"]


@final
class Classifier(nn.Module):
    """A classifier: images in [0, 1] in, logits out; usable by every library that takes an ``nn.Module``.

    The module is used as it is and never changed: it runs in evaluation mode inside `forward` and has its own modes
    back afterwards. The input keeps its memory format: a module in ``torch.channels_last`` runs in it.

    Where the module ends in a softmax, a log-softmax or a sigmoid, the logits are what this takes. Of a module that
    gives one logit z for each image, with ``sigmoid(z)`` the probability of class 1, they are −z/2 for class 0 and z/2
    for class 1: the same probabilities, and z is their difference.

    Parameters
    ----------
    module
        The model, from normalised images (n,c,h,w) to logits: (n,m), (n,m,1,1), or (n,1) or (n,) for two classes; or to
        an object that has them as ``logits``, as Hugging Face's models do.
    mean, std
        Normalisation of each channel, for values in [0, 1]: the module is given ``(images − mean) / std``.
    size
        Height and width of the input, in pixels; one number for both.
    class_names
        One name for each class; several names of one class are separated by ``", "``. Numbered if None. One name alone
        is that of the second of two classes, and the first is called ``"not"`` that.
    name
        What the classifier is called in reports.
    fit
        How a photograph is brought to `size`; the shorter side resized to it and the centre cut out if None.
    output
        Where the logits are in what the module gives, if it gives a tuple, a dictionary or an object: a key or an
        attribute, a place, or a function of it that returns them.
    several_labels
        Whether an image may have several labels at once: each logit is of a label that is on, above 0, or off.

    Attributes
    ----------
    notes
        What every report of this classifier says first, in sentences, such as that its head is untrained.

    Raises
    ------
    ModelError
        From `forward`, if the module fails, or gives anything but one row of logits for each image.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        module: nn.Module,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        size: Size = (224, 224),
        class_names: Sequence[str] | None = None,
        *,
        name: str = "",
        fit: Fit | None = None,
        output: Output | None = None,
        several_labels: bool = False,
    ) -> None:
        super().__init__()
        check_output_choice(output)
        if len(mean) != len(std) or min(std) <= 0:
            raise bad_parameter("std", "must have one positive number for each number of `mean`", list(std))
        # A classifier is for evaluation; libraries that look at the flag (Foolbox) should find it so. Set before the
        # module is attached, because its own flags are not ours to change.
        self.training = False
        self.module = module
        self.output = output
        self.several_labels = several_labels
        self.label: int | None = None  # the one that `ask` asked about
        self.label_names: tuple[str, ...] | None = None  # those of all labels, where one of them is asked about
        self.notes: tuple[str, ...] = ()  # what every report of it says first
        self.input_format: InputFormat | None = None  # what was said of the module's input, by who loaded it
        self.fit = fit or Fit(size)
        self.name = name or type(module).__name__
        self.class_names = None if class_names is None else name_both(tuple(class_names))
        for statistic, values in (("mean", mean), ("std", std)):
            self.register_buffer(statistic, _like_parameters(module, values).view(1, -1, 1, 1), persistent=False)

    @classmethod
    def from_huggingface(cls, model: nn.Module, processor: Any, *, name: str = "") -> Classifier:
        """Make a classifier of a model of ``transformers`` and its image processor.

        Size, crop, filter, mean and standard deviation are the processor's: they are measured on a few small pictures,
        so that photographs are prepared as it prepares them. Class names are those of ``model.config.id2label``; where
        ``problem_type`` is ``multi_label_classification``, there are several labels.

        Parameters
        ----------
        model
            Such as ``AutoModelForImageClassification.from_pretrained(...)``.
        processor
            Such as ``AutoImageProcessor.from_pretrained(...)``.
        name
            What the classifier is called in reports.

        Raises
        ------
        ParameterError
            If the processor is none of images.
        ModelError
            If it prepares photographs in a way that cannot be followed.
        """
        mean, std, fit, flip = read_processor(processor)
        names, several = read_class_names(model), gives_several_labels(model)
        module = Rearranging(model, flip=True) if flip else model
        called = name or type(model).__name__
        return cls(module, mean, std, class_names=names, name=called, fit=fit, several_labels=several)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input, in pixels."""
        return self.fit.size

    @property
    def channels(self) -> int:
        """How many channels the images have: 3, or 1 in grey."""
        return self.mean.shape[1]

    @property
    def is_half(self) -> bool:
        """Whether the module's first floating parameter has 16 bits: float16 or bfloat16."""
        return find_precision(self.module) in _HALF

    @property
    def device(self) -> torch.device:
        """Where the model's first floating parameter lives; its first one, if none is floating."""
        return self.mean.device

    def forward(self, images: Tensor, through: nn.Module | None = None) -> Tensor:
        """Compute the logits.

        Parameters
        ----------
        images
            (n,c,h,w), values in [0, 1].
        through
            A module that computes the same as `module` and stands in for it, such as a quicker copy.

        Returns
        -------
        Tensor
            (n,m) logits, in the precision of the images.
        """
        end_if_nobody_waits()
        self._check_given(images)
        inputs, precision = self.normalise(images), find_precision(self.module)
        if self.is_half:
            inputs = inputs.to(precision)
        try:
            pick = partial(pick_logits, choice=self.output)
            logits = run_to_logits(through or self.module, inputs, pick, self.name, self.label)
        except ModelError as error:
            # Not before: a model may well bring its input to its own precision.
            if isinstance(error.__cause__, RuntimeError):
                _check_precision(precision, images)
            if self.input_format is not None and error.__cause__ is not None:
                raise ModelError(self.input_format.blame(self.name, images, error.__cause__)) from error.__cause__
            raise
        self._warn_of_autocast(logits)
        self._warn_of_sigmoids(through or self.module)
        # In the precision of the images, whatever the model computes in; where these are half, in its own.
        return logits if images.dtype in _HALF else logits.to(images.dtype)

    def normalise(self, images: Tensor) -> Tensor:
        """Subtract the mean and divide by the standard deviation of each channel, as the module expects."""
        return (images - self.mean) / self.std

    def _check_given(self, images: Tensor) -> None:
        """Raise `ParameterError` or `ImageError` for anything but a batch of floating-point images."""
        check_pixels("images", images)
        if images.ndim != 4 or images.shape[1] != self.channels:
            raise ImageError(f"`images` must have the shape (n, {self.channels}, h, w); got {tuple(images.shape)}.")

    def _warn_of_autocast(self, logits: Tensor) -> None:
        """Warn if logits are rougher than the weights."""
        if logits.dtype in _HALF and not self.is_half and not _is_autocast(logits):
            warn(
                f"The model computes in {logits.dtype}, though its parameters are {self.mean.dtype}: it has a "
                "torch.autocast inside. The maps of two classes are nearly equal, and lose by that: switch it off.",
                stacklevel=4,
            )

    def _warn_of_sigmoids(self, module: nn.Module) -> None:
        """Warn of a module that ends as those of several labels do, and is taken for one with a single answer."""
        if not self.several_labels and self.label is None and ends_in_sigmoids(module):
            warn(
                f"{self.name} ends in a sigmoid of each of its outputs, and is taken for a model with one answer. Are "
                "they several labels, each on or off by itself? Then say so: several_labels=True, on the command line "
                "--several-labels.",
                stacklevel=4,
            )

    @torch.no_grad()
    def logits(self, images: Images, through: nn.Module | None = None) -> Logits:
        """Compute the logits without a graph, and check that they are finite.

        Parameters
        ----------
        images
            (n,c,h,w), values in [0, 1].
        through
            A module that computes the same as `module` and stands in for it, such as a quicker copy.

        Raises
        ------
        ModelError
            If the module fails on the images, or a logit is NaN or infinite.

        Warns
        -----
        WhyfooledWarning
            If the logits are recovered from probabilities, because the module's last step cannot be taken off.
        """
        with one_thread():
            logits: Tensor = self(images) if through is None else self(images, through)
        check_finite(logits)
        return logits

    def predict(self, images: Images) -> Classes:
        """Return (n,) the class with the largest logit.

        Raises
        ------
        ModelError
            If the model gives several labels at once.
        """
        check_one_answer(self)
        return self.logits(images).argmax(1)

    def ask(self, label: str | int) -> Classifier:
        """Make a classifier of two classes that tells whether an image has one of several labels.

        Its second class is the label, its first one the absence of it: z/2 and −z/2, for the label's logit z.

        Parameters
        ----------
        label
            Name or index of the label.

        Raises
        ------
        ParameterError
            If there is no such label, or the model does not give several.
        """
        if not self.several_labels:
            raise bad_parameter("label", "is for a model that gives several labels at once", repr(label))
        index = self.class_index(label, self.class_count(), "label")
        name = self.class_name(index)
        asked = self.with_module(self.module, name=f"{self.name}, label {name}")
        asked.class_names = name_both((name if self.class_names is None else self.class_names[index],))
        asked.several_labels, asked.label, asked.label_names = False, index, self.class_names
        return asked

    @property
    def whole(self) -> Classifier:
        """The classifier of several labels that `ask` made this one of; itself, if it is none of these."""
        if self.label is None:
            return self
        whole = self.with_module(self.module, name=self.name)
        whole.several_labels, whole.label, whole.class_names = True, None, self.label_names
        return whole

    def prepare(self, photograph: PILImage.Image) -> Images:
        """Bring a photograph to the model's input size: (1,c,h,w), float32 in [0, 1], on the model's device.

        Where the model takes one channel, that is the photograph's grey.
        """
        return to_tensor(self.fit(photograph), self.channels).unsqueeze(0).to(self.device)

    def float32(self) -> Classifier:
        """Make this classifier in single precision, of a copy of its module; itself, if it is in single precision.

        A module in half precision gives the predictions that it always gives, and no maps: those of two classes are
        nearly equal, so their difference needs the digits.

        Raises
        ------
        ModelError
            If the module cannot be copied.
        """
        if not any(value.dtype in _FLOATING and value.dtype != torch.float32 for value in self.state_dict().values()):
            return self
        copied = self.copy("to run in single precision")
        return copied.with_module(copied.module.float())

    def copy(self, purpose: str) -> Classifier:
        """Make this classifier of a copy of its module, as its user has it, which shares nothing with the module.

        Parameters
        ----------
        purpose
            What for, as an error says it: ``"to run in single precision"``.

        Raises
        ------
        ModelError
            If the module cannot be copied.
        """
        try:
            module = copy_at_rest(self.module)
        except Exception as error:  # whatever a part of someone else's model stumbles over
            raise ModelError(f"The model cannot be copied, {purpose}: {first_line(error)}.") from error
        return self.with_module(module)

    def with_module(self, module: nn.Module, name: str | None = None, fit: Fit | None = None) -> Classifier:
        """Make a classifier of another module that takes and gives what this one's does, such as a changed copy.

        Parameters
        ----------
        module
            The module.
        name
            What it is called; as this one if None.
        fit
            How a photograph is brought to its input size; as for this one if None.
        """
        mean, std = (tensor.flatten().tolist() for tensor in (self.mean, self.std))
        made = Classifier(
            module,
            mean,
            std,
            class_names=self.class_names,
            name=self.name if name is None else name,
            fit=fit or self.fit,
            output=self.output,
            several_labels=self.several_labels,
        )
        made.label, made.label_names = self.label, self.label_names
        made.notes, made.input_format = self.notes, self.input_format
        return made

    def class_count(self) -> int:
        """Return how many classes there are: as many as names or, without names, as logits of a black image."""
        if self.class_names is not None:
            return len(self.class_names)
        # What is doubtful about its answers is said where they are used.
        with hearing():
            return self.logits(self.mean.new_zeros(1, self.channels, *self.size)).shape[1]

    def digest(self) -> str:
        """Return a digest of the parameters, buffers and normalisation: another one for other weights."""
        digest = hashlib.blake2b(digest_size=16)
        tensors = {**self.state_dict(), "mean": self.mean, "std": self.std}
        for name, tensor in sorted(tensors.items()):
            content = tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy()
            digest.update(name.encode() + content.tobytes())
        return digest.hexdigest()

    def class_name(self, index: int) -> str:
        """Return the first name of a class, or ``class 7`` where the classes have no names."""
        if self.class_names is None or not 0 <= index < len(self.class_names):
            return f"class {index}"
        return self.class_names[index].split(", ")[0]

    def class_index(self, name: str | int, classes: int | None = None, argument: str = "class") -> int:
        """Find a class by its index or by one of its names.

        Parameters
        ----------
        name
            An index, or a name, whole and in any case. An index may be written as ``7.0``, unless a class is called so.
        classes
            How many classes there are; the number of names if None (any index will do if there are no names either).
        argument
            What the value is called in an error message.

        Raises
        ------
        ParameterError
            If no class, or more than one, has that name, or the index is out of range.
        """
        count = len(self.class_names or ()) if classes is None else classes
        text = str(name).strip()
        number = re.fullmatch(r"([+-]?[0-9]+)(\.0*)?", text)
        # A whole number may be written as 7.0, as programs do beside a missing one, unless a class is called so.
        if number is None or (number[2] and self._find_called(text)):
            return self._find_named_class(text, argument)
        rule = f"must be a class index from 0 to {count - 1}, or a class name" if count else "must be a class index"
        if len(number[1]) > _MOST_DIGITS:
            raise bad_parameter(argument, rule, f"a number of {len(number[1])} digits")
        index = int(number[1])
        if not 0 <= index < (count or index + 1):
            raise bad_parameter(argument, rule, index)
        return index

    def _find_called(self, text: str) -> list[int]:
        """List the classes of a name, whole and in any case."""
        wanted = text.lower()
        names = [[part.lower() for part in [full, *full.split(", ")]] for full in self.class_names or ()]
        return [index for index, parts in enumerate(names) if wanted in parts]

    def _find_named_class(self, text: str, argument: str) -> int:
        if self.class_names is None:
            raise bad_parameter(argument, "must be a class index, because this model has no class names", repr(text))
        matches = self._find_called(text)
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise bad_parameter(
                argument,
                f"must name one class; {len(matches)} are called so",
                repr(text),
                f"Give one of the indices {matches}.",
            )
        fix = did_you_mean(text, dict.fromkeys(part for full in self.class_names for part in full.split(", ")))
        raise bad_parameter(argument, "must be the name or the index of a class", repr(text), fix)


def name_both(names: tuple[str, ...]) -> tuple[str, ...]:
    """Name both of two classes where one name is given, of what is there or not."""
    return (f"not {names[0].split(', ')[0]}", *names) if len(names) == 1 else names


def check_one_answer(classifier: Classifier) -> None:
    """Raise `ModelError` for a model that gives several labels at once, where one class is to be its answer."""
    if classifier.several_labels:
        name = classifier.class_name(0) if classifier.class_names else 0
        raise ModelError(
            "The model gives several labels at once, and this is about a model with one answer. Ask about one of its "
            f"labels: classifier.ask({name!r}), on the command line --ask {name!r}."
        )


_HALF = (torch.float16, torch.bfloat16)


def _check_precision(precision: torch.dtype | None, images: Tensor) -> None:
    """Raise the error that says so if images are of another precision than the module's parameters."""
    if precision is not None and precision != images.dtype:
        name = str(precision).removeprefix("torch.")
        fix = f"Give images.to(torch.{name})."
        raise bad_parameter("images", f"must be {precision}, as the model's parameters are", images.dtype, fix)


def _is_autocast(logits: Tensor) -> bool:
    return torch.is_autocast_enabled(logits.device.type)


_MOST_DIGITS = 100
"""Of a class index, zeros before it included: thousands of them take long to read. [ours]"""


_FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Types to compute in. Parameters of others, whole numbers or floats of 8 bits, are unpacked inside the model."""


def _like_parameters(module: nn.Module, values: Sequence[float]) -> Tensor:
    """Make a tensor of the type and on the device of the first parameter that is floating."""
    parameters = list(module.parameters())
    first = next((parameter for parameter in parameters if parameter.dtype in _FLOATING), next(iter(parameters), None))
    device = None if first is None else first.device
    return torch.tensor(values, dtype=find_precision(module) or torch.get_default_dtype(), device=device)


def find_precision(module: nn.Module) -> torch.dtype | None:
    """Return the type of a module's first parameter that is floating; None if none is."""
    return next((parameter.dtype for parameter in module.parameters() if parameter.dtype in _FLOATING), None)


def check_pixels(argument: str, images: object) -> None:
    """Raise `ParameterError` for anything but a tensor of floating-point numbers."""
    if not isinstance(images, Tensor):
        fix = f"Make a tensor of them: torch.as_tensor({argument})."
        raise bad_parameter(argument, "must be a tensor", type(images).__name__, fix)
    if not images.is_floating_point():
        fix = f"Values are in [0, 1]: {argument}.float() / 255."
        raise bad_parameter(argument, "must be floating-point numbers", images.dtype, fix)


def check_finite(logits: Tensor) -> None:
    """Raise `ModelError` if a logit is NaN or infinite."""
    if not torch.isfinite(logits).all():
        bad = int((~torch.isfinite(logits)).any(1).sum())
        raise ModelError(
            f"The model must return finite logits; got NaN or infinite ones for {bad} of {len(logits)} images. "
            "Check its weights and its normalisation."
        )


def check_classes(classes: Tensor, logits: Tensor) -> None:
    """Raise `ParameterError` if classes are no whole numbers, or an index is out of the model's range."""
    check_whole("classes", classes)
    count = logits.shape[1]
    if classes.numel() and (int(classes.min()) < 0 or int(classes.max()) >= count):
        given = f"values from {int(classes.min())} to {int(classes.max())}"
        raise ParameterError(f"`classes` must be class indices from 0 to {count - 1}; got {given}.")


def strongest_other(logits: Logits, classes: Classes) -> Classes:
    """Return (n,) the class with the largest logit apart from the given one."""
    check_classes(classes, logits)
    return logits.scatter(1, classes.long().unsqueeze(1), float("-inf")).argmax(1)
