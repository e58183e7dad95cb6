"""What attacks, saliency methods and studies say of themselves, and how a name on the command line becomes one of them.

Each is a frozen dataclass with a ``card``; its fields are its parameters. `whyfooled.attacks.ATTACKS`,
`whyfooled.saliency.METHODS`, `whyfooled.universal.UNIVERSAL`, `whyfooled.defences.DETECTORS`,
`whyfooled.defences.PENALTIES` and `whyfooled.studies.STUDIES` list ours; other packages add theirs through the entry
points ``whyfooled.attacks``, ``whyfooled.saliency``, ``whyfooled.universal``, ``whyfooled.detectors``,
``whyfooled.penalties`` and ``whyfooled.studies``. Everything that offers a choice (command line, report, tests) takes
it from here.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from importlib import import_module, metadata
from typing import Any, Literal, get_args, get_origin, get_type_hints

from whyfooled.errors import bad_parameter, did_you_mean, warn

Kind = Literal["attacks", "interpretations", "saliency", "universal", "detectors", "penalties", "studies"]
EVERY = "all"
"""In a list of attacks or saliency methods: all there are, with their defaults."""


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
    names_base
        Whether a report's name for the method says what its base is, even if that is the usual one.
    conserves
        Whether a map is meant to sum to the logit; a report then says what is missing.
    """

    name: str
    title: str
    summary: str
    source: str
    cost: str
    names_base: bool = False
    conserves: bool = False


def available(kind: Kind) -> dict[str, type[Any]]:
    """Return every known method of a kind, ours first, by the name on its card."""
    home, listed = _LISTS[kind]
    ours: tuple[type[Any], ...] = getattr(import_module(home), listed)
    methods = {method.card.name: method for method in ours}
    for entry in _find_entry_points(kind):
        try:
            method = entry.load()
            if methods.setdefault(method.card.name, method) is not method:
                raise ValueError(f"another one is called {method.card.name} already")
        except Exception as error:  # another package's mistake must not stop this one
            warn(f"{entry.value} cannot be loaded: {error}", stacklevel=2)
    return methods


@functools.cache
def _find_entry_points(kind: Kind) -> tuple[metadata.EntryPoint, ...]:
    # Once a process: it goes through everything that is installed.
    return tuple(metadata.entry_points(group=f"whyfooled.{kind}"))


_LISTS: dict[Kind, tuple[str, str]] = {
    "attacks": ("whyfooled.attacks", "ATTACKS"),
    "interpretations": ("whyfooled.universal", "INTERPRETATION_ATTACKS"),
    "saliency": ("whyfooled.saliency", "METHODS"),
    "universal": ("whyfooled.universal", "UNIVERSAL"),
    "detectors": ("whyfooled.defences", "DETECTORS"),
    "penalties": ("whyfooled.defences", "PENALTIES"),
    "studies": ("whyfooled.studies", "STUDIES"),
}


def refused(kind: Kind) -> dict[str, str]:
    """Return the methods of a kind that are known but not offered, with the reason."""
    home, _ = _LISTS[kind]
    reasons: dict[str, str] = getattr(import_module(home), "REFUSED", {})
    return reasons


def parameters(method: type[Any]) -> dict[str, object]:
    """Return a method's parameters with their defaults, in order."""
    defaults: dict[str, object] = {}
    for field in dataclasses.fields(method):
        if field.default_factory is not dataclasses.MISSING:
            defaults[field.name] = field.default_factory()
        else:
            defaults[field.name] = field.default
    return defaults


def parameter_texts(method: type[Any]) -> dict[str, str]:
    """Return what the docstrings of a method and of its bases say of each of its parameters, on one line."""
    texts: dict[str, str] = {}
    for cls in reversed(method.__mro__):
        _, _, section = inspect.cleandoc(cls.__doc__ or "").partition("Parameters\n----------\n")
        sections: dict[str, list[str]] = {}
        for line in section.splitlines():
            if line and not line.startswith(" "):
                sections[line] = []
            elif line and sections:
                sections[list(sections)[-1]].append(line.strip())
        texts |= {name: " ".join(lines) for name, lines in sections.items()}
    return {name: texts[name] for name in parameters(method) if name in texts}


def with_seed(method: Any, seed: int) -> Any:
    """Give a method the seed, and the methods among its parameters, where they left theirs at the default."""
    if isinstance(method, tuple | list):
        return tuple(with_seed(one, seed) for one in method)
    if not dataclasses.is_dataclass(method) or isinstance(method, type):
        return method
    given = {name: getattr(method, name) for name in parameters(type(method))}
    changed = {name: with_seed(value, seed) for name, value in given.items()}
    if "seed" in given and given["seed"] == parameters(type(method))["seed"]:
        changed["seed"] = seed
    return method if changed == given else dataclasses.replace(method, **changed)


def with_next_seed(method: Any) -> Any:
    """Give a method the seed after its own, and so the methods among its parameters; itself where none has a seed."""
    if not dataclasses.is_dataclass(method) or isinstance(method, type):
        return method
    changed = {name: with_next_seed(getattr(method, name)) for name in parameters(type(method))}
    if isinstance(changed.get("seed"), int):
        changed["seed"] += 1
    return dataclasses.replace(method, **changed)


def describe(method: object) -> str:
    """Write a method as `parse` reads it: ``name``, or ``name(parameter=value)`` with what differs from the default."""
    cls: Any = type(method)
    given = [
        f"{name}={describe_value(value)}"
        for name, default in parameters(cls).items()
        if (value := getattr(method, name)) != default
    ]
    name: str = cls.card.name
    return f"{name}({', '.join(given)})" if given else name


def describe_value(value: object) -> str:
    """Write a parameter's value as `parse` reads it: lists in brackets, another's function by where it comes from."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(describe_value, value))}]"
    if hasattr(value, "card"):
        return describe(value)
    if isinstance(value, float) and 0 < value < 1 and value == round(value * 255) / 255:
        # As people write it, unless it is a short number, such as 0.2.
        return min(f"{round(value * 255)}/255", str(value), key=len)
    if hasattr(value, "detach"):
        # A tensor, by its content: what is run again with another one is another run.
        content = value.detach().cpu().contiguous().numpy()
        digest = hashlib.blake2b(content.tobytes(), digest_size=8).hexdigest()
        return f"<{content.dtype} {' x '.join(map(str, content.shape))}, {digest}>"
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    # Without the address that it happens to have in memory: a run is to be the same in another process.
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


def title(method: Any) -> str:
    """Write a method's name as a report does, such as "Enhanced guided backpropagation (max)"."""
    defaults = parameters(type(method))
    given = {name: value for name, default in defaults.items() if (value := getattr(method, name)) != default}
    words = method.card.title
    base = given.pop("base", None) or (method.base if method.card.names_base else None)
    if base is not None:
        of = title(base)
        # A word like "Guided" loses its capital in the middle of a title; a name like "LIME" or "Grad-CAM" keeps it.
        words += f" {of[0].lower()}{of[1:]}" if of.split()[0][1:].islower() else f" {of}"
    texts = [value if isinstance(value, str) else f"{name}={describe_value(value)}" for name, value in given.items()]
    return f"{words} ({', '.join(texts)})" if texts else words


def parse(kind: Kind, text: str, overrides: Mapping[str, object] | None = None, *, argument: str | None = None) -> Any:
    """Make a method from its name, with parameters in parentheses where they differ from the defaults.

    Parameters
    ----------
    kind
        ``"attacks"``, ``"interpretations"`` (attacks on these), ``"saliency"``, ``"universal"``, ``"detectors"``,
        ``"penalties"`` or ``"studies"``.
    text
        For example ``"cw"``, ``"bim(steps=20, epsilon=4/255)"``, ``"enhanced(base=gradient, norm=max)"`` or
        ``"recovery(methods=[guided, enhanced], fills=[zero])"``.
    overrides
        Parameters given elsewhere (the command line's own options); refused if the method has no such parameter.
    argument
        What the user calls the argument, for errors; by its kind if None.

    Raises
    ------
    ParameterError
        If the name or a parameter is unknown, a value does not fit, or the text is longer or nested deeper than any
        that makes sense.
    """
    _check_text(argument or _ARGUMENT[kind], text)
    match = re.fullmatch(r"([\w:-]+)\s*(?:\((.*)\))?", text.strip(), flags=re.DOTALL)
    if match is None:
        raise bad_parameter(
            argument or _ARGUMENT[kind], "must look like name or name(parameter=value, ...)", _quote(text)
        )
    name, inside = match[1], match[2] or ""
    methods = available(kind)
    if name not in methods:
        fix = refused(kind).get(name) or _say_other_kind(kind, name) or did_you_mean(name, methods)
        raise bad_parameter(
            argument or _ARGUMENT[kind], f"must be the name of a known {_NOUN[kind]}", _quote(name), fix
        )
    return build(kind, methods[name], _pairs(name, inside) | dict(overrides or {}))


def _say_other_kind(kind: Kind, name: str) -> str:
    """Say that a name is one of another kind that users call the same; "" if it is none."""
    others: list[Kind] = [one for one in _LISTS if one != kind and _ARGUMENT[one] == _ARGUMENT[kind]]
    its_kind = next((one for one in others if name in available(one)), None)
    if its_kind == "interpretations":
        return (
            f"It is an {_NOUN[its_kind]}: make it first (whyfooled attack), then explain what it made "
            "(whyfooled explain --adversarial)."
        )
    return "" if its_kind is None else f"It is an {_NOUN[its_kind]}, which has no place here."


_LONGEST, _DEEPEST = 20_000, 20
"""How many characters a method's text may have, and how deep its parentheses and brackets may be nested. [ours]"""
_MOST_DIGITS, _LARGEST_EXPONENT = 100, 1000
"""Of a number: what has more takes long to compute, and is no parameter of anything. [ours]"""


def _check_text(argument: str, text: str) -> None:
    """Raise `ParameterError` for a text that would take long, or too many calls inside one another, to read."""
    if len(text) > _LONGEST:
        raise bad_parameter(argument, f"must have at most {_LONGEST} characters", len(text))
    depth = 0
    for sign in text:
        depth += (sign in "([") - (sign in ")]")
        if depth > _DEEPEST:
            raise bad_parameter(argument, f"must be nested at most {_DEEPEST} deep", _quote(text))


def _quote(text: str, most: int = 200) -> str:
    """Write a text as it was given, and of a long one how it begins."""
    return repr(text) if len(text) <= most else f"{text[:40]!r}… ({len(text)} characters)"


def build(kind: Kind, method: type[Any], values: Mapping[str, object]) -> Any:
    """Make a method of a class from parameter values, text or not."""
    known = parameters(method)
    name = method.card.name
    for key in values:
        if key in known:
            continue
        owners = _list_owners(kind, key) if known else []
        if owners:
            rule = f"must be left out with {name}, which has no such parameter"
            raise bad_parameter(key, rule, values[key], f"It is one of {', '.join(owners)}.")
        fix = did_you_mean(key, known) if known else f"{name} has no parameters."
        raise bad_parameter(key[:100], f"must be a parameter of {name}", _quote(key), fix)
    hints = get_type_hints(method)
    return method(**{key: _convert(key, value, known[key], hints[key]) for key, value in values.items()})


def _list_owners(kind: Kind, parameter: str) -> list[str]:
    """List the methods of a kind that have a parameter."""
    return [name for name, method in available(kind).items() if parameter in parameters(method)]


_ARGUMENT: dict[Kind, str] = {
    "attacks": "attack",
    "interpretations": "attack",
    "saliency": "methods",
    "universal": "method",
    "detectors": "detector",
    "penalties": "penalty",
    "studies": "study",
}
_NOUN: dict[Kind, str] = {
    "attacks": "attack",
    "interpretations": "attack on interpretations that keeps the class",
    "saliency": "saliency method",
    "universal": "universal perturbation",
    "detectors": "detector",
    "penalties": "penalty",
    "studies": "study",
}


def split_list(text: str) -> list[str]:
    """Split at the commas that stand outside parentheses and brackets."""
    parts, depth = [""], 0
    for sign in text:
        depth += (sign in "([") - (sign in ")]")
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts if part.strip()]


def _pairs(name: str, inside: str) -> dict[str, object]:
    pairs: dict[str, object] = {}
    for part in split_list(inside):
        key, equals, value = part.partition("=")
        if not equals:
            raise bad_parameter(name, "takes its parameters as parameter=value", _quote(part))
        if key.strip() in pairs:
            raise bad_parameter(name, "takes each parameter once", _quote(part))
        pairs[key.strip()] = value.strip()
    return pairs


def _convert(key: str, value: object, default: object, hint: object) -> object:
    """Turn text into a value of the parameter's type; None where the type allows it."""
    if not isinstance(value, str):
        return value
    _check_text(key, value)
    if get_origin(hint) is tuple:
        return _convert_list(key, value, default, get_args(hint)[0])
    types = get_args(hint) or (hint,)
    if type(None) in types and value.lower() == "none":
        return None
    if hasattr(default, "card"):
        return parse(_kind(default), value)
    if bool in types:
        if value.lower() not in ("true", "false"):
            raise bad_parameter(key, "must be true or false", _quote(value))
        return value.lower() == "true"
    if float in types:
        return number(key, value)
    if int in types:
        if not re.fullmatch(rf"[+-]?[0-9]{{1,{_MOST_DIGITS}}}", value.strip()):
            raise bad_parameter(key, "must be a whole number", _quote(value))
        return int(value)
    return None if value.lower() == "none" else value


def _convert_list(key: str, value: str, default: object, hint: object) -> tuple[object, ...]:
    """Turn ``[a, b]``, or ``a, b`` from an option of its own, into values of one type."""
    first = default[0] if isinstance(default, tuple) and default else None
    inside = re.fullmatch(r"\s*\[(.*)\]\s*", value, flags=re.DOTALL)
    values: dict[object, None] = {}
    for part in split_list(inside[1] if inside else value):
        if hasattr(first, "card") and part == EVERY:
            values |= dict.fromkeys(make_every(_kind(first)))
        else:
            values[_convert(key, part, first, hint)] = None
    return tuple(values)


def make_every(kind: Kind) -> list[Any]:
    """Make every method of a kind that needs no parameter, with its defaults."""
    return [method() for method in available(kind).values() if dataclasses.MISSING not in parameters(method).values()]


def _kind(method: object) -> Kind:
    """Tell what a parameter's default is: an attack, a saliency method."""
    return next(kind for kind in _LISTS if type(method) in available(kind).values())


def number(argument: str, text: str) -> float:
    """Read a number that may be written as a fraction, such as ``4/255``, of decimals too, such as ``0.5/255``."""
    numerator, slash, denominator = text.replace(" ", "").partition("/")
    try:
        return float(_exact(numerator) / (_exact(denominator) if slash else 1))
    except (ValueError, ArithmeticError):
        raise bad_parameter(argument, "must be a number or a fraction such as 4/255", _quote(text)) from None


def _exact(text: str) -> Fraction:
    """Read a decimal number; raise `ValueError` if it is none, or so long that it would fill the memory."""
    exponent = re.search(r"[eE][+-]?0*([0-9]*)$", text)
    bounded = len(text) <= _MOST_DIGITS and (exponent is None or int(exponent[1] or 0) <= _LARGEST_EXPONENT)
    if "/" in text or not bounded:
        raise ValueError
    return Fraction(text)
