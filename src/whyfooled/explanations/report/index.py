"""The index of many reports: a row for each, sentences on all of them, and the page that shows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, final
from urllib.parse import quote

from whyfooled.drawing.html import load_template, write_data_uri
from whyfooled.drawing.words import by_number, counted
from whyfooled.explanations.explained import Explained
from whyfooled.explanations.report.recovery import Standing, judge_recovery, write_whole
from whyfooled.explanations.report.verdict import write_happened, write_trusted
from whyfooled.images import to_picture
from whyfooled.types import Image

COLUMNS = (
    *("file", "report", "outcome", "true", "true_name"),
    *("clean_prediction", "clean_prediction_name", "clean_probability"),
    *("prediction", "prediction_name", "probability"),
    *("happened", "random_changes", "random_changes_fooling"),
    *("trusted", "shares", "shares_right", "random_orders", "shares_right_random"),
    *("shifted_maps", "shares_right_shifted", "standing"),
    *("l0", "l1", "l2", "linf", "seconds", "error"),
)
"""The columns of the table, in order."""

_SIDE = 144
"""Pixels of a thumbnail's longer side: twice as many as it is shown with, for screens that have them. [ours]"""

_RANKS: dict[Standing, int] = {"worse": 0, "no better": 1, "better": 2}
"""Standings from bad to good; a map of which the image cannot tell has no place among the others."""


@final
@dataclass(frozen=True)
class IndexEntry:
    """What an index shows of one photograph.

    Parameters
    ----------
    row
        Its row of the table; columns that say nothing of it are left out.
    clean, adversarial
        Its thumbnails before and after, as a page holds them; "" if there is none.
    """

    row: Mapping[str, Any]
    clean: str = ""
    adversarial: str = ""


def make_entry(name: str, explained: Explained, numbers: Mapping[str, Any]) -> IndexEntry:
    """Make the entry of a photograph from its explanation and the numbers of its report."""
    changed = numbers["perturbation"]["linf"] > 0
    return IndexEntry(
        {"file": name, **_collect_row(name, numbers)},
        _draw_thumbnail(explained.clean),
        _draw_thumbnail(explained.adversarial) if changed else "",
    )


def make_failed_entry(name: str, reason: str) -> IndexEntry:
    """Make the entry of a photograph that could not be explained."""
    return IndexEntry({"file": name, "error": reason})


def _collect_row(name: str, numbers: Mapping[str, Any]) -> dict[str, Any]:
    trusted, verdict, chance = write_trusted(numbers), judge_recovery(numbers), numbers["fooled_by_chance"]
    row = {
        "report": f"{name}/report.html",
        "outcome": numbers["outcome"],
        "true": numbers["true"]["index"],
        "true_name": numbers["true"]["name"],
        **_describe_prediction("clean_", numbers["predictions"]["clean"][0]),
        **_describe_prediction("", numbers["predictions"]["adversarial"][0]),
        "happened": write_happened(numbers).answer,
        **{norm: numbers["perturbation"][norm] for norm in ("l0", "l1", "l2", "linf")},
        "seconds": numbers["seconds_in_all"],
    }
    if chance is not None:
        row |= {"random_changes": chance["draws"], "random_changes_fooling": chance["fooled"]}
    if trusted is not None:
        row["trusted"] = trusted.answer
    if verdict is not None:
        row |= {
            "shares": verdict.points,
            "shares_right": verdict.right,
            "random_orders": len(verdict.random),
            "shares_right_random": sum(verdict.random) / len(verdict.random),
            "shifted_maps": len(verdict.shifted),
            "shares_right_shifted": sum(verdict.shifted) / len(verdict.shifted),
            "standing": verdict.standing,
        }
    return row


def _describe_prediction(when: str, top: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{when}prediction": top["index"],
        f"{when}prediction_name": top["name"],
        f"{when}probability": top["probability"],
    }


def _draw_thumbnail(image: Image) -> str:
    picture = to_picture(image)
    picture.thumbnail((_SIDE, _SIDE))
    return write_data_uri(picture, lossless=False)


def write_index_sentences(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say what the reports come to, in sentences, each number with what chance gives."""
    return list(_write_sentences(rows))


def _write_sentences(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    explained = [row for row in rows if not row.get("error")]
    attacked = [row for row in explained if row["outcome"] != "already wrong"]
    fooled = [row for row in attacked if row["outcome"] == "fooled"]
    if attacked:
        draws, chance = (sum(row.get(key, 0) for row in attacked) for key in _CHANCE)
        among = (
            f"; of {counted(draws, 'random change')} of the same lengths, {chance or 'none'} would be enough"
            if draws
            else ""
        )
        yield f"The model is fooled on {len(fooled)} of {_count(len(attacked))}{among}."
    if fooled:
        l2, linf = (median(row[norm] for row in fooled) for norm in ("l2", "linf"))
        yield f"The changes that fool it have an ℓ2 of {l2:.4g} and an ℓ∞ of {255 * linf:.2f}/255 (medians)."
    compared = [row for row in explained if "standing" in row]
    if compared:
        better, no_better, worse = (sum(row["standing"] == one for row in compared) for one in reversed(_RANKS))
        judged = better + no_better + worse
        untold = f" ({len(compared) - judged} more cannot)" if judged < len(compared) else ""
        by_chance = sum(1 / (1 + row["random_orders"] + row["shifted_maps"]) for row in compared)
        yield (
            f"Of {counted(judged, 'evidence map')} that can be judged{untold}, {better} "
            f"{by_number(better, 'is', 'are')} better than chance, {no_better} no better and {worse} worse; maps that "
            f"say nothing would be better {by_chance:.1f} times, and worse as often, at most."
        )
    wrong, failed = len(explained) - len(attacked), len(rows) - len(explained)
    if wrong:
        yield f"Taken for a wrong class already, and not attacked: {wrong}."
    if failed:
        yield f"Could not be explained: {failed}; the table says why."


_CHANCE = ("random_changes", "random_changes_fooling")


def _count(photographs: int) -> str:
    return counted(photographs, "photograph")


def write_index(entries: Sequence[IndexEntry], total: int, parameters: Mapping[str, Any]) -> str:
    """Write the page, without any reference to another file but the links to the reports.

    Parameters
    ----------
    entries
        What is to be shown, in order.
    total
        How many photographs the run has, with those that are not finished.
    parameters
        What it takes to do it again, and the versions.
    """
    rows = [entry.row for entry in entries]
    numbers = {
        "parameters": parameters,
        "seconds": {},
        "passes": {},
        "seconds_in_all": sum(row.get("seconds", 0.0) for row in rows),
    }
    return load_template("whyfooled.explanations.report", "index.html.j2", scripts=("index.js",)).render(
        numbers=numbers,
        total=total,
        title=_write_title(rows, total),
        sentences=write_index_sentences(rows),
        entries=[_prepare(entry) for entry in entries],
    )


def _write_title(rows: Sequence[Mapping[str, Any]], total: int) -> str:
    explained = sum(not row.get("error") for row in rows)
    return f"{explained} of {_count(total)} explained" if explained < total else f"{_count(total)} explained"


def _prepare(entry: IndexEntry) -> dict[str, Any]:
    """Prepare what the page shows of an entry."""
    row = {"error": "", "trusted": "", **entry.row}
    if row["error"]:
        return {"row": row, "entry": entry}
    return {
        "row": row,
        "entry": entry,
        "link": quote(row["report"]),
        "chance": _write_chance(row) if _CHANCE[0] in row else "",
        "recovery": _write_recovery(row),
        "trust_rank": _rank(row),
    }


def _write_chance(row: Mapping[str, Any]) -> str:
    draws, fooling = (row[key] for key in _CHANCE)
    return f"{fooling} of {counted(draws, 'random change')} {by_number(fooling, 'fools', 'fool')} it"


def _rank(row: Mapping[str, Any]) -> float | str:
    """Return the place of a photograph's map among all; "" if there is none to tell."""
    if row.get("standing") not in _RANKS:
        return ""
    return _RANKS[row["standing"]] + float(row["shares_right"] / (row["shares"] + 1))


def _write_recovery(row: Mapping[str, Any]) -> str:
    if "standing" not in row:
        return ""
    chance = [write_whole(row[f"shares_right_{control}"]) for control in ("random", "shifted")]
    right = f"{row['shares_right']} of {counted(row['shares'], 'share')}"
    return f"{right}; random pixels {chance[0]}, shifted map {chance[1]}"
