"""Packages that are installed with an extra of this one."""

from __future__ import annotations

import importlib
from typing import Any

from whyfooled.errors import ModelError


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
            f"{model} needs the package {package}, which is not installed. Run: pip install 'whyfooled[{extra}]'"
        ) from None
