"""What a report says of copies of an adversarial image that were saved as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from whyfooled.drawing.words import listed, percent
from whyfooled.perturbation.saved import SavedCopy


def collect_saved_numbers(copies: Sequence[SavedCopy], names: Sequence[str]) -> list[dict[str, Any]]:
    """Collect the numbers of a report's copies, each with the name of the class that is seen."""
    return [{**asdict(copy), "name": names[copy.prediction]} for copy in copies]


def write_saved_sentence(numbers: Mapping[str, Any]) -> str:
    """Say what is seen in every copy; "" where there is none."""
    seen = [f"{_name_copy(copy)} as {copy['name']} ({percent(copy['probability'])})" for copy in numbers["saved"]]
    return f"At the model's input size, saved and read again, it is seen: {listed(seen)}." if seen else ""


def write_kept(numbers: Mapping[str, Any]) -> str:
    """Say what a copy is taken for that lost nothing but digits; "" where there is none."""
    after = numbers["predictions"]["adversarial"][0]
    for copy in numbers["saved"]:
        if copy["quality"] is None:
            kept = {numbers["true"]["index"]: "fools no longer", after["index"]: "still fools"}
            return f" Saved as PNG, it {kept.get(copy['prediction'], 'is ' + copy['name'])}."
    return ""


def _name_copy(copy: Mapping[str, Any]) -> str:
    return "PNG" if copy["quality"] is None else f"JPEG of quality {copy['quality']}"
