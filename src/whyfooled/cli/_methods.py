"""``whyfooled methods``, and the lists of other commands."""

from __future__ import annotations

from typing import Any

from whyfooled.cli._app import app


@app.command()
def methods() -> None:
    """List attacks, saliency methods, universal perturbations and detectors: parameters, costs and sources."""
    describe_all("attacks")
    describe_all("saliency")
    describe_all("universal")
    describe_all("detectors")


_HEADINGS = {
    "attacks": "Attacks",
    "saliency": "Saliency methods",
    "universal": "Universal perturbations",
    "detectors": "Detectors",
    "studies": "Studies",
}


def describe_all(kind: Any, texts: bool = False) -> None:
    """Print every method of a kind; with a line about each parameter, if asked for."""
    from rich.console import Console
    from rich.markup import escape
    from rich.padding import Padding
    from rich.table import Table

    from whyfooled.registry import available, parameter_texts, parameters, refused

    console = Console(highlight=False)
    console.print(f"[bold]{_HEADINGS[kind]}[/bold]")
    for name, method in available(kind).items():
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
    for name, reason in refused(kind).items():
        console.print(f"\n  [bold]{name}[/bold]  {escape(reason)}")
    console.print()


def _shorten(value: object) -> str:
    from whyfooled.registry import describe_value

    if not isinstance(value, float):
        return describe_value(value)
    levels = value * 255
    rounded = f"{value:.4g}"
    return f"{levels:.0f}/255" if float(rounded) != value and abs(levels - round(levels)) < 1e-9 else rounded
