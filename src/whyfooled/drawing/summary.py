"""What a study came to: sentences and tables, as Markdown for reading, LaTeX for a paper, plain values for programs."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from whyfooled.tensors.statistics import Interval

Cell = str | int | float | Interval | None


@final
@dataclass(frozen=True)
class SummaryTable:
    """One table of a summary.

    Parameters
    ----------
    caption
        What it shows, in a sentence or two.
    columns
        Headings.
    rows
        A cell for each heading; None is left empty.
    signed
        Headings of columns whose numbers carry their sign: differences.
    """

    caption: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]
    signed: frozenset[str] = frozenset()

    def whole_caption(self) -> str:
        """Return the caption, with what stands in brackets and of how many images, where there are intervals."""
        return f"{self.counted_caption()} {BRACKETS}" if self.has_intervals else self.caption

    def counted_caption(self) -> str:
        """Return the caption, with of how many images the means are, where there are any."""
        if not self.has_intervals:
            return self.caption
        counts = sorted({cell.count for row in self.rows for cell in row if isinstance(cell, Interval) and cell.count})
        if len(counts) < 2:
            return f"{self.caption} Of {counts[0] if counts else 0} images."
        return f"{self.caption} Of {counts[0]} to {counts[-1]} images: n, where a column's rows differ in it."

    @property
    def has_intervals(self) -> bool:
        """Whether there is a mean with its interval."""
        return any(isinstance(cell, Interval) for row in self.rows for cell in row)

    def texts(self) -> list[list[str]]:
        """Return the cells as text; means of a column that are of different numbers of images, with the number."""
        columns = [[row[place] for row in self.rows] for place in range(len(self.columns))]
        written = [
            _write_column(cells, heading in self.signed) for heading, cells in zip(self.columns, columns, strict=True)
        ]
        return [[column[place] for column in written] for place in range(len(self.rows))]


BRACKETS = "In brackets: 95 % intervals over images (bootstrap; of shares of images, Wilson's)."


def _write_column(cells: Sequence[Cell], signed: bool) -> list[str]:
    counts = [cell.count if isinstance(cell, Interval) else 0 for cell in cells]
    differ = len({count for count in counts if count}) > 1
    return [
        f"{_text(cell, signed)} (n = {count})" if differ and count else _text(cell, signed)
        for cell, count in zip(cells, counts, strict=True)
    ]


@final
@dataclass(frozen=True)
class Summary:
    """What a study came to.

    Parameters
    ----------
    sentences
        What was found, and what must be known to believe it.
    tables
        The numbers.
    """

    sentences: tuple[str, ...]
    tables: tuple[SummaryTable, ...]

    def markdown(self, title: str) -> str:
        """Write it as Markdown."""
        parts = [f"# {title}", *(f"- {sentence}" for sentence in self.sentences)]
        text = f"{parts[0]}\n\n" + "\n".join(parts[1:])
        for table in self.tables:
            lines = [table.columns, ["---"] * len(table.columns), *table.texts()]
            body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
            text += f"\n\n{table.counted_caption()}\n\n{body}"
        brackets = f"\n\n{BRACKETS}" if any(table.has_intervals for table in self.tables) else ""
        return f"{text}{brackets}\n"

    def latex(self, label: str, remarks: Sequence[str] = ()) -> str:
        """Write its tables in LaTeX, for the packages booktabs and graphicx; the sentences are comments."""
        comments = ["Needs \\usepackage{booktabs,graphicx}.", *remarks, *self.sentences]
        parts = [f"% {' '.join(comment.split())}" for comment in comments]
        for number, table in enumerate(self.tables, start=1):
            lines = [table.columns, *table.texts()]
            head, *body = (" & ".join(map(_escaped, line)) + r" \\" for line in lines)
            parts += [
                "",
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{_escaped(table.whole_caption())}}}",
                rf"\label{{tab:{label}-{number}}}",
                r"\resizebox{\linewidth}{!}{%",
                rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
                r"\toprule",
                head,
                r"\midrule",
                *body,
                r"\bottomrule",
                r"\end{tabular}}",
                r"\end{table}",
            ]
        return "\n".join(parts) + "\n"

    def plain(self) -> list[dict[str, Any]]:
        """Return its tables as plain values: an interval is a mean, its ends and the number of images."""
        return [
            {
                "caption": table.caption,
                "rows": [
                    {heading: _plain(cell) for heading, cell in zip(table.columns, row, strict=True)}
                    for row in table.rows
                ],
            }
            for table in self.tables
        ]


def _text(cell: Cell, signed: bool) -> str:
    if cell is None:
        return ""
    if isinstance(cell, Interval):
        return cell.format(sign=signed)
    if isinstance(cell, float):
        return "–" if math.isnan(cell) else f"{cell:{'+' if signed else ''}.3f}"
    return str(cell)


def _plain(cell: Cell) -> Any:
    if isinstance(cell, Interval):
        return {"mean": _number(cell.mean), "low": _number(cell.low), "high": _number(cell.high), "images": cell.count}
    return _number(cell) if isinstance(cell, float) else cell


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


_SIGNS = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "−": "$-$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "δ": r"$\delta$",
    "ℓ": r"$\ell$",
    "∞": r"$\infty$",
    "ε": r"$\varepsilon$",
    "→": r"$\rightarrow$",
    "⁺": r"$^{+}$",
    "₁": "$_1$",
    "₂": "$_2$",
    "₀": "$_0$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
}


def _escaped(text: str) -> str:
    # A hyphen before a number is a minus.
    return re.sub(r"(?<![\w)])-(?=[\d.])", "$-$", "".join(_SIGNS.get(sign, sign) for sign in text))
