"""A report by parts, as the page's tabs show it: the same file, of which all but one part is hidden."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Part:
    """A part of a report.

    Parameters
    ----------
    name
        What the report calls it, in ``data-part``.
    title
        What its tab is called.
    missing
        What to do where the report does not have it.
    """

    name: str
    title: str
    missing: str


VERDICT = "verdict"
PARTS = (
    Part(VERDICT, "Verdict", ""),
    Part("evidence", "Evidence", "This report has no maps: it is about a perturbation, or about hidden units."),
    Part("regions", "Regions", "This report says nothing of regions: nothing was changed in the image."),
    Part(
        "units",
        "Units",
        "This report says nothing of hidden units. They are looked at when the page is started with a dissection of "
        "its model: whyfooled app --units FOLDER.",
    ),
    Part(
        "trust",
        "Trust",
        "Whether the maps are stable was not looked at here. Under “More settings” choose to see it, try to forge the "
        "explanation, or drop a universal perturbation.",
    ),
)


def find_parts(report: str) -> frozenset[str]:
    """Tell which parts a report has; none for one that was written before reports had any."""
    return frozenset(re.findall(r'<\w+ (?:class="\w+" )?data-part="(\w+)"', report))


def show_part(report: str, name: str) -> str:
    """Hide all of a report but one part; the verdict has what belongs to no other."""
    hidden = f'main > [data-part]:not([data-part="{name}"])' if name == VERDICT else _BUT.format(name=name)
    style = f"<style>{hidden} {{ display:none }} {_ROOM}</style>"
    return report.replace("</head>", f"{style}</head>", 1)


_BUT = 'main > :not([data-part="{name}"])'
_ROOM = (
    "main { max-width:none; padding:.8rem 0 1rem } "
    "main > section > h2 { border-top:0; padding-top:0; margin-top:1.4rem } "
    "main > section:first-of-type > h2 { margin-top:.4rem } main > h1 { display:none }"
)
"""The page has margins and a heading of its own."""
