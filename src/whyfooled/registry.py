"""What attacks and saliency methods say of themselves, and how a name on the command line becomes one of them.

A method is a frozen dataclass with a ``card``; its fields are its parameters. `whyfooled.attacks.ATTACKS` and
`whyfooled.saliency.METHODS` list ours; other packages add theirs through the entry points ``whyfooled.attacks`` and
``whyfooled.saliency``. Everything that offers a choice of methods (command line, report, tests) takes it from here.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from importlib import metadata
from typing import Any, Literal, get_args, get_type_hints

from whyfooled.errors import WhyfooledWarning, bad_parameter, did_you_mean

Kind = Literal["attacks", "saliency"]


@dataclass(frozen=True)
class Card:
    """What a method says of itself.

    Parameters
    ----------
    name
        What it is called on the command line.
    title
        What it is called in a report.
    summary
        One sentence: what it computes.
    source
        The paper it comes from.
    cost
        What it costs, in forward and backward passes.
    """

    name: str
    title: str
    summary: str
    source: str
    cost: str


def available(kind: Kind) -> dict[str, type[Any]]:
    """Return every known method of a kind, ours first, by the name on its card."""
    from whyfooled.attacks import ATTACKS
    from whyfooled.saliency import METHODS

    ours: tuple[type[Any], ...] = ATTACKS if kind == "attacks" else METHODS
    found = {method.card.name: method for method in ours}
    for entry in metadata.entry_points(group=f"whyfooled.{kind}"):
        try:
            method = entry.load()
            found[method.card.name] = method
        except Exception as error:  # another package's mistake must not stop this one
            warnings.warn(f"{entry.value} cannot be loaded: {error}", WhyfooledWarning, stacklevel=2)
    return found


def refused(kind: Kind) -> dict[str, str]:
    """Return the methods of a kind that are known but not offered, with the reason."""
    from whyfooled.saliency import REFUSED

    return REFUSED if kind == "saliency" else {}


def parameters(method: type[Any]) -> dict[str, object]:
    """Return a method's parameters with their defaults, in order."""
    found: dict[str, object] = {}
    for field in dataclasses.fields(method):
        if field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory()
        else:
            found[field.name] = field.default
    return found


def parameter_texts(method: type[Any]) -> dict[str, str]:
    """Return what a method's docstring says of each of its parameters, on one line."""
    _, _, section = inspect.cleandoc(method.__doc__ or "").partition("Parameters\n----------\n")
    texts: dict[str, list[str]] = {}
    for line in section.splitlines():
        if line and not line.startswith(" "):
            texts[line] = []
        elif line and texts:
            texts[list(texts)[-1]].append(line.strip())
    return {name: " ".join(lines) for name, lines in texts.items() if name in parameters(method)}


def with_seed(method: Any, seed: int) -> Any:
    """Give a method the seed, if it has a parameter for one and it was left at its default."""
    seeded = dataclasses.is_dataclass(method) and not isinstance(method, type)
    if seeded and parameters(type(method)).get("seed", seed) == getattr(method, "seed", None):
        return dataclasses.replace(method, seed=seed)
    return method


def describe(method: object) -> str:
    """Write a method as `parse` reads it: ``name``, or ``name(parameter=value)`` with what differs from the default."""
    cls: Any = type(method)
    given = [
        f"{name}={describe(value) if hasattr(value, 'card') else value}"
        for name, default in parameters(cls).items()
        if (value := getattr(method, name)) != default
    ]
    name: str = cls.card.name
    return f"{name}({', '.join(given)})" if given else name


def parse(kind: Kind, text: str, overrides: Mapping[str, object] | None = None) -> Any:
    """Make a method from its name, with parameters in parentheses where they differ from the defaults.

    Parameters
    ----------
    kind
        ``"attacks"`` or ``"saliency"``.
    text
        For example ``"cw"``, ``"bim(steps=20, epsilon=4/255)"`` or ``"enhanced(base=gradient, norm=max)"``.
    overrides
        Parameters given elsewhere (the command line's own options); refused if the method has no such parameter.

    Raises
    ------
    ParameterError
        If the name or a parameter is unknown, or a value does not fit.
    """
    match = re.fullmatch(r"\s*([\w:-]+)\s*(?:\((.*)\))?\s*", text, flags=re.DOTALL)
    if match is None:
        raise bad_parameter(_ARGUMENT[kind], "must look like name or name(parameter=value, ...)", repr(text))
    name, inside = match[1], match[2] or ""
    methods = available(kind)
    if name not in methods:
        fix = refused(kind).get(name) or did_you_mean(name, methods)
        raise bad_parameter(_ARGUMENT[kind], "must be the name of a known method", repr(name), fix)
    return build(kind, methods[name], dict(_pairs(name, inside)) | dict(overrides or {}))


def build(kind: Kind, method: type[Any], values: Mapping[str, object]) -> Any:
    """Make a method of a class from parameter values, text or not."""
    known = parameters(method)
    name = method.card.name
    for key in values:
        if key not in known:
            fix = did_you_mean(key, known) if known else f"{name} has no parameters."
            raise bad_parameter(key, f"must be a parameter of {name}", repr(key), fix)
    hints = get_type_hints(method)
    return method(**{key: _convert(kind, key, value, known[key], hints[key]) for key, value in values.items()})


_ARGUMENT = {"attacks": "attack", "saliency": "methods"}


def split_list(text: str) -> list[str]:
    """Split at the commas that stand outside parentheses."""
    parts, depth = [""], 0
    for sign in text:
        depth += (sign == "(") - (sign == ")")
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts if part.strip()]


def _pairs(name: str, inside: str) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for part in split_list(inside):
        key, equals, value = part.partition("=")
        if not equals:
            raise bad_parameter(name, "takes its parameters as parameter=value", repr(part))
        if key.strip() in dict(pairs):
            raise bad_parameter(name, "takes each parameter once", repr(part))
        pairs.append((key.strip(), value.strip()))
    return pairs


def _convert(kind: Kind, key: str, value: object, default: object, hint: object) -> object:
    """Turn text into a value of the parameter's type; None where the type allows it."""
    if not isinstance(value, str):
        return value
    types = get_args(hint) or (hint,)
    if type(None) in types and value.lower() == "none":
        return None
    if hasattr(default, "card"):
        return parse(kind, value)
    if bool in types:
        if value.lower() not in ("true", "false"):
            raise bad_parameter(key, "must be true or false", repr(value))
        return value.lower() == "true"
    if float in types:
        return number(key, value)
    if int in types:
        if not re.fullmatch(r"\s*[+-]?[0-9]+\s*", value):
            raise bad_parameter(key, "must be a whole number", repr(value))
        return int(value)
    return None if value.lower() == "none" else value


def number(argument: str, text: str) -> float:
    """Read a number that may be written as a fraction, such as ``4/255``."""
    try:
        return float(Fraction(text.replace(" ", "")))
    except (ValueError, ArithmeticError):
        raise bad_parameter(argument, "must be a number or a fraction such as 4/255", repr(text)) from None
