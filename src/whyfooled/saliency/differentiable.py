"""Which maps can be differentiated with respect to the images: those of methods whose call takes `create_graph`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Protocol, TypeGuard, runtime_checkable

from whyfooled.classifier import Classifier
from whyfooled.errors import MethodError
from whyfooled.registry import available, describe_value
from whyfooled.types import Images, ManyClasses, ManyMaps


@runtime_checkable
class DifferentiableMethod(Protocol):
    """A saliency method whose maps can be differentiated with respect to the images."""

    def __call__(
        self, classifier: Classifier, images: Images, classes: ManyClasses, *, create_graph: bool = False
    ) -> ManyMaps:
        """Compute the maps; with `create_graph`, ones that can be differentiated."""
        ...


def differentiable(method: Callable[..., Any]) -> TypeGuard[DifferentiableMethod]:
    """Tell whether a method's maps can be differentiated with respect to the images.

    They can if its call takes `create_graph`, and its base method's, where it has one, does too.
    """
    return _find_culprit(method) is None


def check_differentiable(method: Callable[..., Any]) -> DifferentiableMethod:
    """Return the method, for a call with ``create_graph=True``.

    Raises
    ------
    MethodError
        If its maps cannot be differentiated with respect to the images. The error lists the methods whose maps can.
    """
    if differentiable(method):
        return method
    culprit = _find_culprit(method)
    because = "" if culprit is method else f" because those of {describe_value(culprit)} cannot"
    can = ", ".join(name for name, known in available("saliency").items() if _takes_graph(known.__call__))
    raise MethodError(
        f"The maps of {describe_value(method)} cannot be differentiated with respect to the image{because}; take {can}."
    )


def _find_culprit(method: Callable[..., Any]) -> Callable[..., Any] | None:
    """Return the method, or the one it is based on, whose call has no `create_graph`; None if each has."""
    if not _takes_graph(method):
        return method
    base = getattr(method, "base", None)
    return None if base is None else _find_culprit(base)


def _takes_graph(call: Callable[..., Any]) -> bool:
    return "create_graph" in inspect.signature(call).parameters
