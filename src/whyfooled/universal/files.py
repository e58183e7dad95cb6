"""The files of a test of a universal perturbation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from whyfooled.drawing.style import as_png
from whyfooled.drawing.summary import Summary
from whyfooled.universal import Evaluation
from whyfooled.universal.figure import draw_evaluation

TITLE = "Test of a universal perturbation"


def write_test(evaluation: Evaluation, summary: Summary, folder: Path, remarks: Sequence[str] = ()) -> None:
    """Write ``table.parquet``, ``table.csv``, ``summary.md``, ``summary.tex`` and ``figure.png`` into a folder.

    Parameters
    ----------
    evaluation
        The test.
    summary
        What it came to.
    folder
        A folder that exists.
    remarks
        What LaTeX's comments say besides, such as how to do it again.
    """
    table = evaluation.to_frame()
    table.to_parquet(folder / "table.parquet", index=False)
    table.to_csv(folder / "table.csv", index=False)
    (folder / "summary.md").write_text(summary.markdown(TITLE), encoding="utf-8", errors="backslashreplace")
    latex = summary.latex("universal", remarks)
    (folder / "summary.tex").write_text(latex, encoding="utf-8", errors="backslashreplace")
    (folder / "figure.png").write_bytes(as_png(draw_evaluation(evaluation)))
