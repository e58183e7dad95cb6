"""Write the tables of the documentation from what they describe: the command line and the cards of the methods.

    python docs/tables.py

A table stands in a page between two comments, ``<!-- table: NAME -->`` and ``<!-- end -->``; what is between them is
written anew, and nothing else. `TABLES` lists the names. ``tests/docs/test_docs.py`` fails where a page has an old one.
It lies beside the pages because it serves nothing but them.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import typer

import whyfooled
import whyfooled.cli  # adds every command to the application
from whyfooled.cli._app import app
from whyfooled.registry import Kind, available, describe_value, parameter_texts, parameters, refused
from whyfooled.sources import SOURCES
from whyfooled.units import CONCEPTS

PAGES = Path(__file__).parent
BLOCK = re.compile(r"(?P<start><!-- table: (?P<name>[\w ]+) -->\n).*?(?P<end><!-- end -->)", flags=re.DOTALL)
NO_DEFAULT = "–"


def command_line() -> Any:
    """Return the command ``whyfooled``, whose subcommands and options can be looked up."""
    return typer.main.get_command(app)


def find_command(words: Sequence[str]) -> Any:
    """Return a subcommand, such as that of ``("universal", "fit")``."""
    command = command_line()
    for word in words:
        command = command.commands[word]
    return command


def option_table(*words: str) -> str:
    """Write a command's arguments and options, in the order of its help."""
    shown = [parameter for parameter in find_command(words).params if not parameter.hidden]
    rows = [(_spelling(parameter), _option_default(parameter), parameter.help or "") for parameter in shown]
    return _table(("argument or option", "default", "what it is"), rows)


def _spelling(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        name = parameter.metavar or parameter.name
        return f"`{name.strip('[]').removesuffix('...').upper()}`"
    return ", ".join(f"`{option}`" for option in parameter.opts)


def _option_default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    if isinstance(parameter.show_default, str):
        # A sentence is no value.
        return parameter.show_default if " " in parameter.show_default else f"`{parameter.show_default}`"
    if parameter.default is None or isinstance(parameter.default, bool):
        return NO_DEFAULT
    return f"`{parameter.default}`"


def method_table(kind: Kind) -> str:
    """Write what every method of a kind says of itself."""
    rows = [
        (f"`{name}`", f"**{method.card.title}.** {method.card.summary}", method.card.cost, method.card.source)
        for name, method in _ours(kind)
    ]
    return _table(("name", "what it does", "cost", "source"), rows)


def parameter_table(kind: Kind) -> str:
    """Write the parameters of every method of a kind; first those that all of them have."""
    rows_of = {name: _parameter_rows(method) for name, method in _ours(kind)}
    first = next(iter(rows_of.values()))
    shared = [row for row in first if all(row in rows for rows in rows_of.values())]
    own = {name: [row for row in rows if row not in shared] for name, rows in rows_of.items()}
    groups = {"all": shared, **{f"`{name}`": rows for name, rows in own.items()}}
    # A name stands beside the first of its parameters.
    named = [(name if row is rows[0] else "", *row) for name, rows in groups.items() for row in rows]
    return _table(("of", "parameter", "default", "what it is"), named)


def _parameter_rows(method: type[Any]) -> list[tuple[str, str, str]]:
    texts = _all_texts(method)
    return [
        (f"`{name}`", _parameter_default(default), texts.get(name, "").replace("``", "`"))
        for name, default in parameters(method).items()
    ]


def _ours(kind: Kind) -> list[tuple[str, type[Any]]]:
    """List this package's own methods of a kind: the pages do not depend on what else is installed."""
    return [(name, method) for name, method in available(kind).items() if method.__module__.startswith("whyfooled.")]


def _all_texts(method: type[Any]) -> dict[str, str]:
    """Return what a method, and the classes that it is derived from, say of its parameters."""
    texts: dict[str, str] = {}
    for cls in reversed(method.__mro__):
        if dataclasses.is_dataclass(cls):
            texts |= parameter_texts(cls)
    return texts


def _parameter_default(value: object) -> str:
    if value is dataclasses.MISSING:
        return "required"
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"`{_number(value)}`"
    return f"`{describe_value(value)}`" if value != "" else '`""`'


def _number(value: float) -> str:
    """Write a number with four digits; as so many levels of 255, if that is what it is."""
    levels, rounded = value * 255, f"{value:.4g}"
    return f"{levels:.0f}/255" if float(rounded) != value and abs(levels - round(levels)) < 1e-9 else rounded


def refused_table() -> str:
    """Write which saliency methods are known but not offered, and why."""
    return _table(("name", "why not"), [(f"`{name}`", reason) for name, reason in refused("saliency").items()])


def place_table(cards: Iterable[Any]) -> str:
    """Write the kinds of places that images come from, with or without annotations."""
    return _table(("place", "what it is"), [(f"`{card.form}`", card.summary) for card in cards])


def name_table() -> str:
    """Write what ``from whyfooled import`` offers: the first sentence that each says of itself."""
    return _table(("name", "what it is"), [(f"`{name}`", _first_sentence(name)) for name in sorted(whyfooled.__all__)])


def _first_sentence(name: str) -> str:
    """Return the first line of what a public name says of itself; of a constant, its value."""
    public = getattr(whyfooled, name)
    if not (inspect.isclass(public) or inspect.isroutine(public)):
        return f"`{describe_value(public)}`"
    sentence = (inspect.getdoc(public) or "").partition("\n")[0].replace("``", "`")
    return sentence.replace("` s,", "`s,")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


_COMMANDS = (
    "explain",
    "app",
    "perturbation",
    "classes",
    "dissect",
    "layers",
    "units explain",
    "attack",
    "detect",
    "universal fit",
    "universal test",
    "study",
    "figure",
)
TABLES: dict[str, Callable[[], str]] = {
    **{f"{command} options": partial(option_table, *command.split()) for command in _COMMANDS},
    "attacks": lambda: method_table("attacks"),
    "attack parameters": lambda: parameter_table("attacks"),
    "attacks on interpretations": lambda: method_table("interpretations"),
    "attack parameters on interpretations": lambda: parameter_table("interpretations"),
    "saliency methods": lambda: method_table("saliency"),
    "saliency parameters": lambda: parameter_table("saliency"),
    "refused saliency methods": refused_table,
    "universal perturbations": lambda: method_table("universal"),
    "universal parameters": lambda: parameter_table("universal"),
    "detectors": lambda: method_table("detectors"),
    "detector parameters": lambda: parameter_table("detectors"),
    "penalties": lambda: method_table("penalties"),
    "penalty parameters": lambda: parameter_table("penalties"),
    "studies": lambda: method_table("studies"),
    "study parameters": lambda: parameter_table("studies"),
    "sources": lambda: place_table(SOURCES.values()),
    "concepts": lambda: place_table(CONCEPTS.values()),
    "public names": name_table,
}


def with_tables(page: str) -> str:
    """Return a page with its tables written anew; `KeyError` for a table that there is not."""
    return BLOCK.sub(lambda block: f"{block['start']}{TABLES[block['name']]()}{block['end']}", page)


def main() -> None:
    """Write every table of every page anew."""
    for path in sorted(PAGES.glob("*.md")):
        page = path.read_text(encoding="utf-8")
        written = with_tables(page)
        if written != page:
            path.write_text(written, encoding="utf-8")
            print(f"Written: {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
