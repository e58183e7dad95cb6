"""A model with everything needed to use it: the one place that knows normalisation, input size and value range."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any, final

import torch
from PIL import Image as PILImage
from torch import Tensor, nn

from whyfooled.classifier.borrowing import copy_at_rest, one_thread
from whyfooled.classifier.calling import call_module, check_output
from whyfooled.classifier.goals import Goal, Targeted, Untargeted, check_whole
from whyfooled.classifier.heads import describe_head
from whyfooled.errors import ImageError, ModelError, ParameterError, bad_parameter, did_you_mean, first_line, warn
from whyfooled.images import MOST_PIXELS, to_tensor
from whyfooled.types import Classes, Images, Logits

__all__ = ["Classifier", "Fit", "Goal", "Targeted", "Untargeted"]


Size = int | Sequence[int]
"""Height and width in pixels, or one number for both."""


@final
@dataclass(frozen=True, init=False)
class Fit:
    """How a photograph is brought to a model's input size: its shorter side resized, then the centre cut out.

    Parameters
    ----------
    size
        Height and width of the model's input, in pixels; one number for both.
    shorter_side
        Length of the photograph's shorter side after resizing, in pixels; the input's own size if None.
    interpolation
        ``"nearest"``, ``"bilinear"``, ``"bicubic"`` or ``"lanczos"``.
    squash
        Whether the whole photograph is resized to `size` instead, its proportions lost.
    """

    size: tuple[int, int]
    shorter_side: int | None = None
    interpolation: str = "bicubic"
    squash: bool = False

    def __init__(
        self,
        size: Size,
        shorter_side: int | None = None,
        interpolation: str = "bicubic",
        squash: bool = False,
    ) -> None:
        if interpolation not in _INTERPOLATION:
            fix = did_you_mean(interpolation, _INTERPOLATION)
            raise bad_parameter("interpolation", "must be a known one", repr(interpolation), fix)
        fields = {"size": _read_size(size), "shorter_side": shorter_side, "interpolation": interpolation}
        for name, value in {**fields, "squash": squash}.items():
            object.__setattr__(self, name, value)

    def __call__(self, photograph: PILImage.Image) -> PILImage.Image:
        """Resize and crop a photograph to the model's input size."""
        height, width = self.size
        if self.squash:
            return photograph.resize((width, height), _INTERPOLATION[self.interpolation])
        resized, (left, top) = self._find_geometry(photograph.size)
        if resized[0] * resized[1] > MOST_PIXELS:
            raise ImageError(
                f"The photograph, {photograph.width} × {photograph.height} pixels, would need "
                f"{resized[0]} × {resized[1]} to fill the classifier's input of {width} × {height}. Crop it first."
            )
        if resized != photograph.size:
            photograph = photograph.resize(resized, _INTERPOLATION[self.interpolation])
        return photograph.crop((left, top, left + width, top + height))

    def seen(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Return which part of a photograph of this width and height is left: left, top, right, bottom, from 0 to 1."""
        if self.squash:
            return 0.0, 0.0, 1.0, 1.0
        height, width = self.size
        resized, (left, top) = self._find_geometry(size)
        return left / resized[0], top / resized[1], (left + width) / resized[0], (top + height) / resized[1]

    def _find_geometry(self, size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the width and height that a photograph is resized to, and the left and top of what is cut out."""
        height, width = self.size
        # In whole numbers, and rounded as torchvision's Resize and CenterCrop do: half a pixel moves every pixel.
        ratios = [(height, size[1]), (width, size[0])]
        if self.shorter_side is not None:
            ratios.append((self.shorter_side, min(size)))
        wanted, given = max(ratios, key=lambda ratio: ratio[0] / ratio[1])
        resized = (max(width, size[0] * wanted // given), max(height, size[1] * wanted // given))
        return resized, (round((resized[0] - width) / 2), round((resized[1] - height) / 2))


def _read_size(size: Any) -> tuple[int, int]:
    """Return height and width; raise `ParameterError` for anything but one or two positive whole numbers."""
    try:
        sides = list(size) if isinstance(size, Iterable) and not isinstance(size, str | bytes) else [size]
        whole = [index(side) for side in sides if not isinstance(side, bool)]
    except TypeError:
        sides, whole = [], []
    if len(sides) not in (1, 2) or len(whole) < len(sides) or min(whole) < 1:
        rule = "must be two positive numbers of pixels, height and width, or one for both; whole numbers"
        raise bad_parameter("size", rule, repr(size))
    return whole[0], whole[-1]


_INTERPOLATION = {
    "nearest": PILImage.Resampling.NEAREST,
    "bilinear": PILImage.Resampling.BILINEAR,
    "bicubic": PILImage.Resampling.BICUBIC,
    "lanczos": PILImage.Resampling.LANCZOS,
}


@final
class Classifier(nn.Module):
    """A classifier: images in [0, 1] in, logits out; usable by every library that takes an ``nn.Module``.

    The module is used as it is and never changed: it runs in evaluation mode inside `forward` and has its own modes
    back afterwards. The input keeps its memory format: a module in ``torch.channels_last`` runs in it.

    Parameters
    ----------
    module
        The model, from normalised images (n,c,h,w) to logits (n,m).
    mean, std
        Normalisation of each channel, for values in [0, 1]: the module is given ``(images − mean) / std``.
    size
        Height and width of the input, in pixels; one number for both.
    class_names
        One name for each class; several names of one class are separated by ``", "``. Numbered if None.
    name
        What the classifier is called in reports.
    fit
        How a photograph is brought to `size`; the shorter side resized to it and the centre cut out if None.

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
    ) -> None:
        super().__init__()
        if len(mean) != len(std) or min(std) <= 0:
            raise bad_parameter("std", "must have one positive number for each number of `mean`", list(std))
        # A classifier is for evaluation; libraries that look at the flag (Foolbox) should find it so. Set before the
        # module is attached, because its own flags are not ours to change.
        self.training = False
        self.module = module
        self.fit = fit or Fit(size)
        self.name = name or type(module).__name__
        self.class_names = None if class_names is None else tuple(class_names)
        for statistic, values in (("mean", mean), ("std", std)):
            self.register_buffer(statistic, _like_parameters(module, values).view(1, -1, 1, 1), persistent=False)

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

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits.

        Parameters
        ----------
        images
            (n,c,h,w), values in [0, 1].

        Returns
        -------
        Tensor
            (n,m) logits, in the precision of the images.
        """
        self._check_given(images)
        inputs, precision = (images - self.mean) / self.std, find_precision(self.module)
        if self.is_half:
            inputs = inputs.to(precision)
        try:
            with one_thread():
                output = call_module(self.module, inputs)
        except ModelError as error:
            # Not before: a model may well bring its input to its own precision.
            if isinstance(error.__cause__, RuntimeError):
                _check_precision(precision, images)
            raise
        logits = check_output(output, len(images))
        self._warn_of_head(logits)
        # In the precision of the images, whatever the model computes in; where these are half, in its own.
        return logits if images.dtype in _HALF else logits.to(images.dtype)

    def _check_given(self, images: Tensor) -> None:
        """Raise `ParameterError` or `ImageError` for anything but a batch of floating-point images."""
        check_pixels("images", images)
        if images.ndim != 4 or images.shape[1] != self.channels:
            raise ImageError(f"`images` must have the shape (n, {self.channels}, h, w); got {tuple(images.shape)}.")

    def _warn_of_head(self, logits: Tensor) -> None:
        """Warn if a pass with a graph shows that the outputs are no logits, or are rougher than the weights."""
        if logits.grad_fn is not None:
            said = describe_head(self.module, logits)
            if said:
                warn(said, stacklevel=4)
        if logits.dtype in _HALF and not self.is_half and not _is_autocast(logits):
            warn(
                f"The model computes in {logits.dtype}, though its parameters are {self.mean.dtype}: it has a "
                "torch.autocast inside. The maps of two classes are nearly equal, and lose by that: switch it off.",
                stacklevel=4,
            )

    @torch.no_grad()
    def logits(self, images: Images) -> Logits:
        """Compute the logits without a graph, and check that they are finite and not probabilities.

        Raises
        ------
        ModelError
            If the module fails on the images, or a logit is NaN or infinite.

        Warns
        -----
        WhyfooledWarning
            If the outputs look like probabilities, or their logarithms.
        """
        logits: Tensor = self(images)
        check_finite(logits)
        said = describe_head(self.module, logits)
        if said:
            warn(said, stacklevel=2)
        return logits

    def predict(self, images: Images) -> Classes:
        """Return (n,) the class with the largest logit."""
        return self.logits(images).argmax(1)

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
        mean, std = (tensor.float().flatten().tolist() for tensor in (self.mean, self.std))
        return Classifier(copied.module.float(), mean, std, class_names=self.class_names, name=self.name, fit=self.fit)

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
        mean, std = (tensor.flatten().tolist() for tensor in (self.mean, self.std))
        return Classifier(module, mean, std, class_names=self.class_names, name=self.name, fit=self.fit)

    def class_count(self) -> int:
        """Return how many classes there are: as many as names or, without names, as logits of a black image."""
        if self.class_names is not None:
            return len(self.class_names)
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
