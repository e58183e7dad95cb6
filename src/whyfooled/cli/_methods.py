"""``whyfooled methods``, and the lists of other commands."""

from __future__ import annotations

from typing import Annotated, Any, get_args

import typer

from whyfooled.cli._app import app
from whyfooled.errors import bad_parameter, did_you_mean


@app.command()
def methods(
    name: Annotated[
        str | None,
        typer.Argument(
            help="The attack, saliency method, universal perturbation, detector, penalty or study to describe; all if "
            "left out."
        ),
    ] = None,
) -> None:
    """List attacks, saliency methods, universal perturbations, detectors, penalties: parameters, costs, sources."""
    if name is not None:
        _describe_named(name)
        return
    describe_all("attacks")
    describe_all("interpretations")
    describe_all("saliency")
    describe_all("universal")
    describe_all("detectors")
    describe_all("penalties")


def _describe_named(name: str) -> None:
    """Print all that is known of the methods of a name, whatever their kind."""
    from rich.console import Console
    from rich.markup import escape

    from whyfooled.registry import Kind, available, refused

    kinds: tuple[Kind, ...] = get_args(Kind)
    known = {kind: available(kind) for kind in kinds}
    reasons = [reason for kind in known for other, reason in refused(kind).items() if other == name]
    if not reasons and not any(name in methods for methods in known.values()):
        every = [other for methods in known.values() for other in methods]
        raise bad_parameter("NAME", "must be the name of a known method", repr(name), did_you_mean(name, every))
    console = Console(highlight=False)
    for kind, methods in known.items():
        if name in methods:
            console.print(f"[bold]{_HEADINGS[kind]}[/bold]")
            _describe(console, name, methods[name], texts=True)
    for reason in reasons:
        console.print(f"[bold]{name}[/bold]  {escape(reason)}")


_HEADINGS = {
    "attacks": "Attacks",
    "interpretations": "Attacks that keep the class and change its map",
    "saliency": "Saliency methods",
    "universal": "Universal perturbations",
    "detectors": "Detectors",
    "penalties": "Penalties for training",
    "studies": "Studies",
}


def describe_all(kind: Any, texts: bool = False) -> None:
    """Print every method of a kind; with a line about each parameter, if asked for."""
    from rich.console import Console
    from rich.markup import escape

    from whyfooled.registry import available, refused

    console = Console(highlight=False)
    console.print(f"[bold]{_HEADINGS[kind]}[/bold]")
    for name, method in available(kind).items():
        _describe(console, name, method, texts=texts)
    for name, reason in refused(kind).items():
        console.print(f"\n  [bold]{name}[/bold]  {escape(reason)}")
    console.print()


def _describe(console: Any, name: str, method: Any, *, texts: bool) -> None:
    """Print a method's card and parameters; with a line about each, if asked for."""
    from rich.markup import escape
    from rich.padding import Padding
    from rich.table import Table

    from whyfooled.registry import parameter_texts, parameters

    card = method.card
    console.print(f"\n  [bold cyan]{name}[/bold cyan]  {escape(card.title)}: {escape(card.summary)}")
    given = {key: _shorten(value) for key, value in parameters(method).items()}
    if texts:
        about = parameter_texts(method)
        table = Table.grid(padding=(0, 2))
        for key, value in given.items():
            text = about.get(key, "").replace("`", "")
            table.add_row(f"[green]{key}={escape(value)}[/green]", escape(text))
        console.print(Padding(table, (0, 0, 0, 4)))
    elif given:
        settings = ", ".join(f"{key}={value}" for key, value in given.items())
        console.print(f"    parameters: {escape(settings)}")
    console.print(f"    cost: {escape(card.cost)}")
    console.print(f"    source: {escape(card.source)}")


def _shorten(value: object) -> str:
    from whyfooled.registry import describe_value

    if not isinstance(value, float):
        return describe_value(value)
    levels = value * 255
    rounded = f"{value:.4g}"
    return f"{levels:.0f}/255" if float(rounded) != value and abs(levels - round(levels)) < 1e-9 else rounded
