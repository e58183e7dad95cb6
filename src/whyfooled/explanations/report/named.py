"""What a report says of regions with names: their numbers, and a sentence or two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from whyfooled.drawing.words import listed
from whyfooled.perturbation.named_effect import NamedEffect


def collect_named_numbers(named: NamedEffect, names: Sequence[str]) -> dict[str, Any]:
    """Collect what a report says of regions with names in figures.

    Parameters
    ----------
    named
        What the perturbation does on them.
    names
        The names of all classes.
    """
    columns = zip(
        named.names,
        named.area.tolist(),
        named.energy.tolist(),
        named.true_change.tolist(),
        named.wrong_change.tolist(),
        named.predictions.tolist(),
        strict=True,
    )
    return {
        "regions": [
            {
                "name": region,
                "area": area,
                "energy": energy,
                "true_change": true_change,
                "wrong_change": wrong_change,
                "prediction": {"index": index, "name": names[index]},
            }
            for region, area, energy, true_change, wrong_change, index in columns
        ]
    }


def write_named_sentences(numbers: Mapping[str, Any], true: Mapping[str, Any]) -> list[str]:
    """Say where the perturbation is denser than chance would have it, and cleaning which region alone brings back."""
    regions = numbers["regions"]
    densest = max(regions, key=lambda region: region["energy"] / max(region["area"], 1e-12))
    sentence = (
        f"{100 * densest['energy']:.0f} % of the perturbation's squared length lies on {densest['name']}; by chance it "
        f"would be {100 * densest['area']:.0f} %, its share of the pixels."
    )
    enough = [region["name"] for region in regions if region["prediction"]["index"] == true["index"]]
    if not enough:
        return [sentence, f"Cleaned in no region alone is it seen as {true['name']}."]
    where = listed(enough) if len(enough) == 1 else f"any one of {listed(enough)}"
    if len(enough) == len(regions) > 1:
        where = "any one of the regions"
    return [sentence, f"Cleaned on {where} alone, the image is seen as {true['name']}."]
