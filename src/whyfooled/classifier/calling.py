"""Calling a user's module: the one place where it is done, and where whatever goes wrong inside becomes a sentence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from whyfooled.classifier.borrowing import evaluating
from whyfooled.errors import ModelError, WhyfooledError, first_line


def call_module(module: nn.Module, inputs: Tensor) -> Any:
    """Run a module in evaluation mode, and set back what it changes for all of PyTorch: the default type, gradients.

    Raises
    ------
    ModelError
        If it raises anything but Ctrl-C or an error of this package, ``sys.exit`` included: with its own words.
    """
    default, recording = torch.get_default_dtype(), torch.is_grad_enabled()
    try:
        with evaluating(module):
            return module(inputs)
    except (Exception, SystemExit) as error:
        if isinstance(error, WhyfooledError) or _is_signal(error):
            raise
        raise ModelError(
            f"The model failed on images of the shape {tuple(inputs.shape)}: {quote(error)}. "
            "If it needs another size, say so: Classifier(module, size=(height, width))."
            f"{' If it takes one image at a time, ' + ONE_BY_ONE if len(inputs) > 1 else ''}"
        ) from error
    finally:
        if torch.get_default_dtype() != default:
            torch.set_default_dtype(default)
        if torch.is_grad_enabled() != recording:
            torch.set_grad_enabled(recording)


ONE_BY_ONE = (
    "give it a batch's images one by one, in two lines: `class OneByOne(torch.nn.Sequential):` and `    def forward("
    "self, x): return torch.cat(list(map(super().forward, x.split(1))))`. Then: Classifier(OneByOne(model))."
)


def quote(error: BaseException) -> str:
    """Say in a line what an error of the model says."""
    if isinstance(error, SystemExit):
        return f"it called sys.exit({'' if error.code is None else error.code!r})"
    said, kind = first_line(error), type(error).__name__
    return said if said == kind or type(error) is RuntimeError else f"{kind}: {said}"


def _is_signal(error: BaseException) -> bool:
    """Tell whether PyTorch raises this to stop a model that runs again for its values, and catches it further out."""
    return type(error).__module__ == "torch.utils.checkpoint" and type(error).__name__.startswith("_")
