"""Every saliency method on a small model of every family of timm: what works, and why not where it does not."""

from __future__ import annotations

import gc
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from tests.helpers.family_conformance import EXPLAIN, describe_layer, try_methods
from tests.helpers.timm_families import EVERY, FAMILIES, build
from whyfooled.saliency import METHODS

PAGE = Path(__file__).parent.parent / "docs" / "families.md"
EVERYTHING = (*(method.card.name for method in METHODS), EXPLAIN)


class Row(NamedTuple):
    """What is known of a family.

    Parameters
    ----------
    model
        The model that was taken.
    layer
        The layer that stands for `last-stage`, and its layout.
    refused
        Why a method does not work, by its name.
    """

    model: str
    layer: str
    refused: Mapping[str, str]


def run(only: Iterable[str] = (), methods: Iterable[str] = (), page: Path = PAGE) -> None:
    """Measure families, all of them or some, and write the page; what is not measured stays as it was written."""
    console = Console()
    rows = read(page.read_text()) if page.exists() else {}
    chosen = tuple(methods) or EVERYTHING
    for family in tuple(only) or EVERY:
        started = time.perf_counter()
        row = measure(family, chosen)
        kept = rows[family].refused if family in rows else {}
        refused = {name: why for name, why in kept.items() if name not in chosen} | dict(row.refused)
        rows[family] = row._replace(refused=refused)
        console.print(f"{family}: {describe_refused(refused) or 'all'} ({time.perf_counter() - started:.0f} s)")
        page.write_text(write(rows))
        gc.collect()


def measure(family: str, methods: Iterable[str] = EVERYTHING) -> Row:
    """Try methods on the model of a family."""
    classifier = build(family)
    refused = {name: why for name, why in try_methods(classifier, methods).items() if why}
    return Row(EVERY[family].name, describe_layer(classifier), refused)


def describe_refused(refused: Mapping[str, str]) -> str:
    """Name the methods that do not work, those with the same reason together."""
    names: dict[str, list[str]] = {}
    for name, why in refused.items():
        names.setdefault(why, []).append(name)
    return "; ".join(f"{', '.join(f'`{each}`' for each in each_of)}: {why}" for why, each_of in names.items())


_HEAD = """# Which models does it work on?

All saliency methods, and `explain`, on a small model with random weights of each of timm's {families} families,
and on {more} common kinds beside them. A row says which layer `last-stage` stands for, and so which Grad-CAM
takes, and what does not work, with the reason: everything that is not named there works. Written by

```
python -m benchmarks families
```

which takes about half an hour; the tests repeat ten rows.

| family | model | its last layer with places | what does not work |
| --- | --- | --- | --- |
"""


def write(rows: Mapping[str, Row]) -> str:
    """Write the page."""
    ordered = [name for name in EVERY if name in rows]
    lines = [
        f"| {name} | `{rows[name].model}` | {rows[name].layer} | {describe_refused(rows[name].refused) or '–'} |"
        for name in ordered
    ]
    families = sum(name in FAMILIES for name in ordered)
    head = _HEAD.format(families=families, more=len(ordered) - families)
    return head + "\n".join(lines) + "\n"


def read(page: str) -> dict[str, Row]:
    """Read the table of a page."""
    rows = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if len(cells) == 4 and cells[0] in EVERY:
            family, model, layer, refused = cells
            rows[family] = Row(model.strip("`"), layer, _read_refused(refused))
    return rows


def _read_refused(cell: str) -> dict[str, str]:
    refused: dict[str, str] = {}
    for part in re.split(r"; (?=`)", cell) if cell != "–" else ():
        names, why = re.match(r"((?:`[\w-]+`(?:, )?)+): (.*)", part).groups()  # type: ignore[union-attr]
        refused |= dict.fromkeys(re.findall(r"`([\w-]+)`", names), why)
    return refused
