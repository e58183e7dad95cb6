"""Packages that may not be there, or not work: those of an extra of this one, and those that have to fit PyTorch."""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from whyfooled.errors import ModelError, first_line


def import_extra(package: str, extra: str, model: str) -> Any:
    """Import a package, or raise `ModelError` with the command that installs it.

    Parameters
    ----------
    package
        Its name.
    extra
        The extra that installs it.
    model
        What needs it.
    """
    try:
        return importlib.import_module(package)
    except ImportError:
        raise ModelError(
            f"{model} needs the package {package}, which is not installed. {advise_extra(extra)}"
        ) from None


def advise_extra(extra: str) -> str:
    """Say how to install an extra, in a way that is right for a clone and for a package."""
    return (
        f"Install whyfooled with its extra {extra}: pip install '.[{extra}]' in the clone that it was installed from."
    )


def import_library(name: str) -> Any:
    """Import torchvision, or a library that uses it, or raise `ModelError` where it does not fit PyTorch.

    Parameters
    ----------
    name
        Of the module.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        # Compiled for another PyTorch, its operators are not there, or its library is not loaded.
        raise ModelError(
            f"torch {_find_version('torch')} and torchvision {_find_version('torchvision')} do not fit each other "
            f"({first_line(error)}). Install both in one command, from one index: "
            "pip install --upgrade torch torchvision"
        ) from None


def _find_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"
