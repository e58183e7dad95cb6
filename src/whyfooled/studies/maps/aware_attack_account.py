"""Which maps an attack forges, and which still warn: the account of `aware_attack`."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from whyfooled.drawing.figures.matrices import Matrix, matrices_figure
from whyfooled.drawing.summary import Cell, Summary, SummaryTable
from whyfooled.errors import ImageError
from whyfooled.studies.parts.attacked import ALREADY_WRONG, FOOLED
from whyfooled.studies.parts.over_images import Spread, check_some_method, group_rows, judge, say_family
from whyfooled.studies.table import Table
from whyfooled.tensors.statistics import FEWEST, Interval, Side, bootstrap_means

PLAIN, _MATCHED = "plain attack", "plain attack, with the margin of: "
ALL, ANOTHER = "all at once", "another clean image of the class"
_NOTHING = Interval(math.nan, math.nan, math.nan, 0)
_MEASURES = {"cosine": "cosine similarity", "top_overlap": "overlap of the top 5 %"}


def match_name(aware: str) -> str:
    """Name the plain attack that has the margin of an aware one."""
    return f"{_MATCHED}{aware}"


def is_aware(made_by: str) -> bool:
    """Tell whether an image was made by an attack that knows maps."""
    return made_by not in (PLAIN, ANOTHER) and not made_by.startswith(_MATCHED)


def summarise(table: Table, seed: int) -> Summary:
    """Similarity to the clean map for every attack and method, success and norms, and what is forged."""
    outcomes = table.read(["index", "outcome"]).drop_duplicates("index")
    wrong = int((outcomes["outcome"] == ALREADY_WRONG).sum())
    if wrong == len(outcomes):
        raise ImageError(f"None of the {len(outcomes)} images is given its true class: there is nothing to attack.")
    check_some_method(table)
    rows = _read(table)
    sentences = [
        f"{len(outcomes) - wrong} images are attacked; {wrong} were misclassified before and are left out.",
        *_say_what_is_forged(rows, seed),
    ]
    tables = [_tabulate(rows, measure, seed) for measure in _MEASURES]
    return Summary(tuple(sentences), (*tables, _tabulate_attacks(rows, seed)))


def draw(table: Table, seed: int) -> Figure:
    """Draw the matrix: what the attack was aware of, and which method is shown."""
    rows = _read(table)
    panels = [
        (f"{name} with the clean map", _make_matrix(rows, measure, seed), ".2f") for measure, name in _MEASURES.items()
    ]
    return matrices_figure(panels, rows="the attack knows", columns="method shown")


def _read(table: Table) -> pd.DataFrame:
    rows = table.read()
    return rows[rows["method"].notna()]


def _make_matrix(rows: pd.DataFrame, measure: str, seed: int) -> Matrix:
    matrix = {}
    for made_by in rows["made_by"].unique():
        means = Spread.of(rows[rows["made_by"] == made_by], "method", measure, seed).means
        matrix[str(made_by)] = {str(method): means.get(str(method), _NOTHING) for method in rows["method"].unique()}
    return matrix


def _tabulate(rows: pd.DataFrame, measure: str, seed: int) -> SummaryTable:
    matrix = _make_matrix(rows, measure, seed)
    methods = list(next(iter(matrix.values())))
    lines: list[tuple[Cell, ...]] = [
        (made_by, *(means[method] for method in methods)) for made_by, means in matrix.items()
    ]
    caption = (
        f"Similarity to the clean image's own map, by {_MEASURES[measure]}. Rows: what the attack knows; columns: the "
        "method shown. Read each column against its plain attacks and another image of the class: a method whose maps "
        "are always alike has high numbers for nothing."
    )
    return SummaryTable(caption, ("the attack knows", *methods), lines)


def _tabulate_attacks(rows: pd.DataFrame, seed: int) -> SummaryTable:
    lines: list[tuple[Cell, ...]] = []
    attacked = rows[rows["made_by"] != ANOTHER]
    for (made_by,), group in group_rows(attacked, "made_by"):
        each = group.drop_duplicates("index")
        numbers = each.assign(success=(each["outcome"] == FOOLED).astype(float))
        columns = ["success", "margin", "l2", "passes"]
        means = bootstrap_means(Spread.of_columns(numbers, columns, seed).values, seed=seed)
        lines.append((made_by, *means))
    caption = (
        "What it takes. Success: the share of the images that fool the classifier; margin: by how many logits; ℓ2: the "
        "length of the perturbation; passes: forward and backward ones of an image."
    )
    return SummaryTable(caption, ("the attack knows", "success", "margin", "l2", "passes"), lines)


def _say_what_is_forged(rows: pd.DataFrame, seed: int) -> Iterator[str]:
    """Say for each aware attack which methods' maps it brings nearer to the clean ones than the plain attack does."""
    by_method = {method: Spread.of(group, "made_by", "cosine", seed) for (method,), group in group_rows(rows, "method")}
    gains = {
        method: spread.gaps({name: (name, match_name(name)) for name in spread.entries if is_aware(name)})
        for method, spread in by_method.items()
    }
    if max(mean.count for spread in gains.values() for mean in spread.means.values()) < FEWEST:
        yield f"Of fewer than {FEWEST} images nothing can be said about which maps are forged."
        return
    sides = judge(gains)
    for attack in next(iter(gains.values())).entries:
        forged = [method for method in by_method if _side(sides, method, attack) == "above"]
        rest = [method for method in by_method if method not in forged]
        text = f"An attack that knows {attack[0].lower()}{attack[1:]}"
        names = "; ".join(f"{method} {_write(by_method[method], attack)}" for method in forged)
        kept = "; ".join(f"{method} {_write(by_method[method], attack)}" for method in rest)
        text += f" brings nearer to the clean map than the plain attack at the same margin: {names or 'none'}"
        yield f"{text}. Not shown to be nearer: {kept}." if kept else f"{text}."
    judged = say_family(sides)
    yield f"In each pair: mean cosine similarity under that attack, and under the plain one. Judged by {judged}."


def _side(sides: dict[str, dict[str, Side]], method: str, attack: str) -> Side:
    return sides[method].get(attack, "open")


def _write(spread: Spread, attack: str) -> str:
    return f"{spread.means[attack].mean:.2f} ({spread.means[match_name(attack)].mean:.2f})"
