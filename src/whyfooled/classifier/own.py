"""Models from a user's own Python file: a function or class in it, with arguments that are read and never evaluated."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from whyfooled.classifier.classifier import Classifier
from whyfooled.classifier.inputs import NOTHING_SAID, InputFormat, wrap_module
from whyfooled.errors import ModelError, bad_parameter, did_you_mean
from whyfooled.images import is_file

_CLASSES = "num_classes"
"""The parameter that a factory is given how many classes are wanted by, if it has one."""


def make_from_file(path: Path, call: str, classes: int | None, inputs: InputFormat) -> Classifier:
    """Make a classifier by a call of what a Python file defines.

    Parameters
    ----------
    path
        The file.
    call
        The name of a function or class, or a call of it: ``Net(depth=3, names=["a", "b"])``.
    classes
        How many classes are wanted; given as ``num_classes`` to what has such a parameter and was given none.
    inputs
        What a bare module takes.

    Raises
    ------
    ParameterError
        If there is no such function, or its arguments are no plain values.
    ModelError
        If the file, or the function, fails, or gives something else.
    """
    if not is_file(path):
        raise ModelError(f"There is no file {path} with a model.")
    # As for a script: the file finds its neighbours, now and when the factory runs.
    sys.path.insert(0, str(path.absolute().parent))
    try:
        return _make_with(path, call, classes, inputs)
    finally:
        sys.path.remove(str(path.absolute().parent))


def _make_with(path: Path, call: str, classes: int | None, inputs: InputFormat) -> Classifier:
    factory, values, named = read_call(call)
    functions = _import_file(path)
    make = getattr(functions, factory, None)
    if not callable(make):
        factories = [
            name
            for name, value in vars(functions).items()
            if callable(value) and value.__module__ == functions.__name__
        ]
        raise bad_parameter("model", f"must name a function in {path}", repr(factory), did_you_mean(factory, factories))
    if classes is not None and _CLASSES in _read_parameters(make) and _CLASSES not in named and not values:
        named = {**named, _CLASSES: classes}
    _check_arguments(f"{path}:{factory}", make, values, named)
    try:
        made = make(*values, **named)
    except Exception as error:
        raise ModelError(f"{path}:{factory} failed: {type(error).__name__}: {error}") from error
    if isinstance(made, Classifier):
        if inputs != NOTHING_SAID:
            raise ModelError(
                f"{path}:{factory} returns a Classifier, which says by itself what it takes: leave out "
                f"{inputs.list_said()}, or return the bare module."
            )
        return made
    if isinstance(made, nn.Module):
        classifier = wrap_module(made, inputs)
        if (inputs.mean, inputs.std, inputs.scale) == (None, None, NOTHING_SAID.scale):
            classifier.notes += (_say_unsaid(f"{path.name}:{factory}", inputs, classifier.size),)
        return classifier
    raise ModelError(f"{path}:{factory} must return a Classifier or a torch.nn.Module; got {type(made).__name__}.")


def _say_unsaid(name: str, inputs: InputFormat, size: tuple[int, int]) -> str:
    pixels, option, parameter = "", "", ""
    if inputs.size is None:
        pixels, option, parameter = f"{size[0]}×{size[1]} pixels, ", "--size, ", "size=..., "
    return (
        f"{name} does not say how it wants photographs: it is given {pixels}values from 0 to 1. If it was trained "
        f"otherwise, say so: {option}--mean and --std, in Python inputs=InputFormat({parameter}mean=..., std=...)."
    )


def read_call(text: str) -> tuple[str, list[Any], dict[str, Any]]:
    """Read ``name`` or ``name(1, width=2)``: the name, the arguments, the named ones.

    Values are numbers, strings, True, False, None, and lists, tuples and dicts of them; nothing is evaluated. A bare
    word is a string.

    Raises
    ------
    ParameterError
        If it is something else.
    """
    rule = "must end in a name, or in name(argument=value, ...) with plain values"
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise bad_parameter("model", rule, repr(text[:200])) from None
    if isinstance(tree, ast.Name):
        return tree.id, [], {}
    if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name):
        raise bad_parameter("model", rule, repr(text[:200]))
    named: dict[str, Any] = {}
    for keyword in tree.keywords:
        if keyword.arg is None:
            raise bad_parameter("model", rule, repr(text[:200]))
        named[keyword.arg] = _read_value(keyword.value)
    return tree.func.id, [_read_value(value) for value in tree.args], named


def _read_value(tree: ast.expr) -> Any:
    if isinstance(tree, ast.Name):
        return tree.id
    try:
        return ast.literal_eval(tree)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        fix = "Numbers, strings, True, False, None, and lists, tuples and dicts of them can be given."
        raise bad_parameter(
            "model", "must have plain values as arguments", repr(ast.unparse(tree)[:200]), fix
        ) from None


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


def _read_parameters(function: Callable[..., object]) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # some that are not written in Python do not tell
        return {}


def _check_arguments(name: str, function: Callable[..., object], values: list[Any], named: dict[str, Any]) -> None:
    """Raise `ModelError` if a function needs arguments that it was not given, or has none of the name."""
    parameters = _read_parameters(function)
    try:
        bound = inspect.Signature(list(parameters.values())).bind_partial(*values, **named) if parameters else None
    except TypeError as error:
        raise ModelError(f"{name} has other arguments than it was given: {error}.") from None
    given = {} if bound is None else bound.arguments
    missing = [parameter for parameter in _list_required(parameters.values()) if parameter not in given]
    if missing:
        raise ModelError(
            f"{name} must be given all arguments that it needs; it needs {', '.join(missing)}. Give them: "
            f"{name}({', '.join(f'{parameter}=...' for parameter in missing)})."
        )


def _list_required(parameters: Iterable[inspect.Parameter]) -> list[str]:
    kinds = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    )
    return [p.name for p in parameters if p.default is inspect.Parameter.empty and p.kind in kinds]
