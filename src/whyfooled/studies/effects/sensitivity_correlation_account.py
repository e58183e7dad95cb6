"""Whether perturbations are large where they have an effect: the account of `sensitivity_correlation`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import pandas as pd
from matplotlib.figure import Figure

from whyfooled.drawing.figures.intervals import intervals_figure
from whyfooled.drawing.summary import Cell, Summary, SummaryTable
from whyfooled.studies.parts.fooled import describe_fooled, read_fooled
from whyfooled.studies.parts.over_images import Spread, group_rows, judge, say_family, swap_keys, tabulate_means
from whyfooled.studies.table import Table
from whyfooled.tensors.statistics import FEWEST, Interval

ATTACK, NOISE = "attack", "noise"
OVER = {"touched": "touched regions", "all": "all regions"}
MEASURES = {
    f"{statistic}_{norm}": f"{statistic.title()}, {sign}"
    for norm, sign in {"l2": "ℓ2", "linf": "ℓ∞"}.items()
    for statistic in ("pearson", "kendall")
}
"""What is measured over the regions of `OVER`, by the beginning of its column."""
_MAIN = "pearson_l2_touched"

ByKind = Mapping[str, pd.DataFrame]
"""The rows of attacks and, if there is the control, those of noise."""


def summarise(table: Table, seed: int) -> Summary:
    """Mean correlations of each attack, paired differences to noise and to the highest, and the gradient's."""
    who, rows = describe_fooled(table), _read(table)
    main = Spread.of(rows[ATTACK], "attack", _MAIN, seed)
    best, over_noise = main.best(), _compare_with_noise(main, rows)
    differences = {
        f"Pearson, ℓ2: minus {best}": main.minus(best),
        "Pearson, ℓ2: minus noise": over_noise.means if over_noise else {},
    }
    over_touched = (
        "Correlation of the sensitivity score with the norm of the perturbation, over the regions of an image that the "
        "perturbation touches; and paired differences."
    )
    over_all = "The same over all regions, of which untouched ones have neither."
    sizes = {"regions": "regions", "touched": "touched regions", "l2": "ℓ2 norm"}
    tables = [
        _tabulate(over_touched, rows, "touched", seed, differences),
        _tabulate(over_all, rows, "all", seed, {}),
        tabulate_means("The perturbations.", rows[ATTACK], sizes, seed),
    ]
    if rows[ATTACK]["gradient_rank"].notna().any():
        caption = (
            "How the sensitivity to first order (gradient times perturbation) agrees with the exact one, over touched "
            "regions: Spearman's correlation of the scores, and Pearson's of the changes of both logits with their "
            "signs."
        )
        agreement = {"gradient_rank": "scores (Spearman)", "gradient_signed": "signed changes (Pearson)"}
        tables.append(tabulate_means(caption, rows[ATTACK], agreement, seed))
    sentences = (
        who,
        "Where the effect has nothing to do with the size of the perturbation, the expected correlation is 0. It is "
        "above 0 for plain noise too, because a larger change moves the logits further whatever it is.",
        *_say_what_correlates(main, rows[ATTACK]),
        *_say_what_is_over_noise(over_noise),
    )
    return Summary(sentences, tuple(tables))


def draw(table: Table, seed: int) -> Figure:
    """Draw each attack's mean correlations, over the touched and over all regions; a panel for each measure."""
    rows = _read(table)
    panels = {
        name: swap_keys(
            {
                f"{kind}, {regions}": Spread.of(of_kind, "attack", f"{measure}_{over}", seed).means
                for kind, of_kind in rows.items()
                for over, regions in OVER.items()
            }
        )
        for measure, name in MEASURES.items()
    }
    return intervals_figure(
        panels, x="correlation of a region's effect with the size of the perturbation in it", shared=True
    )


def _read(table: Table) -> ByKind:
    return {kind: of_kind for (kind,), of_kind in group_rows(read_fooled(table), "perturbation")}


def _compare_with_noise(main: Spread, rows: ByKind) -> Spread | None:
    """Return how much higher the main correlation is than that of noise, image by image; None without the control."""
    if NOISE not in rows:
        return None
    return replace(main, values=main.values - Spread.of(rows[NOISE], "attack", _MAIN, main.seed).values)


def _tabulate(
    caption: str, rows: ByKind, over: str, seed: int, differences: Mapping[str, Mapping[str, Interval]]
) -> SummaryTable:
    """List every perturbation's correlations over some of the regions, and differences of attacks' main one."""
    lines: list[tuple[Cell, ...]] = []
    for kind, of_kind in rows.items():
        means = {measure: Spread.of(of_kind, "attack", f"{measure}_{over}", seed).means for measure in MEASURES}
        for attack, correlations in swap_keys(means).items():
            name = attack if kind == ATTACK else f"noise as large as {attack}"
            compared = (by_attack.get(attack) if kind == ATTACK else None for by_attack in differences.values())
            lines.append((name, *correlations.values(), *compared))
    return SummaryTable(caption, ("perturbation", *MEASURES.values(), *differences), lines, frozenset(differences))


def _say_what_correlates(main: Spread, rows: pd.DataFrame) -> Iterator[str]:
    ranked = sorted(main.means.items(), key=lambda pair: -pair[1].mean if pair[1].count else 1.0)
    listed = ", ".join(f"{attack} {correlation}" for attack, correlation in ranked)
    yield f"Pearson's correlation with the ℓ2 norm, over touched regions: {listed}."
    for attack in main.entries:
        flat = rows.loc[rows["attack"] == attack, "pearson_linf_touched"].isna()
        if flat.any():
            yield (
                f"{attack}: on {flat.sum()} of {len(flat)} images the ℓ∞ norm is the same in every region, and nothing "
                "can correlate with it."
            )


def _say_what_is_over_noise(over_noise: Spread | None) -> Iterator[str]:
    if over_noise is None:
        return
    sides = judge({ATTACK: over_noise})
    said: dict[str, list[str]] = {}
    for attack, side in sides[ATTACK].items():
        said.setdefault(SAID[side], []).append(attack)
    if not said:
        yield f"Of fewer than {FEWEST} images nothing can be said about which attacks differ from noise of their size."
    for what, attacks in said.items():
        yield f"Under {', '.join(attacks)} {what} noise of the same size in every region (by {say_family(sides)})."


SAID = {
    "above": "the effect correlates more strongly with size than under",
    "below": "the effect correlates less strongly with size than under",
    "open": "no difference is seen between how the effect correlates with size and how it does under",
}
"""How the difference to noise is said, by the side of 0 on which it surely lies."""
