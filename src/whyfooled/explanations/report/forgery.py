"""What a report says of whether the explanation could have been forged: its numbers, and the sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from whyfooled.attacks.forgery import Forgery
from whyfooled.drawing.pictures import scale_of

QUESTION = "Could this explanation have been forged?"


def collect_forgery_numbers(forgery: Forgery, names: Sequence[str]) -> dict[str, Any]:
    """Collect everything that a report says of a forged explanation in figures."""
    now = int(forgery.logits.argmax())
    return {
        "method": forgery.method,
        "title": forgery.title,
        "contrastive": forgery.contrastive,
        "ball": forgery.ball,
        "epsilon": forgery.epsilon,
        "factor": forgery.factor,
        "failed": forgery.failed,
        "prediction": {
            "index": now,
            "name": names[now],
            "probability": float(forgery.logits.softmax(0)[now]),
        },
        "cosine": {
            "honest": forgery.honest,
            "matched": forgery.matched,
            "forged": forgery.forged,
            "chance": forgery.chance,
        },
        "scale": asdict(scale_of(forgery.maps.unsqueeze(1))),
    }


def write_forgery_sentence(numbers: Mapping[str, Any]) -> str:
    """Say whether the explanation was forged, with its number, what a plain attack has of itself, and chance."""
    cosine, name = numbers["cosine"], numbers["prediction"]["name"]
    beside = (
        f"under this attack {cosine['honest']:.2f}, under a plain one of the same margin {cosine['matched']:.2f}, "
        f"by chance {cosine['chance']:.2f}"
    )
    if numbers["failed"] == "class":
        return (
            f"No: {write_size(numbers)}, that keeps the map does not make the model see another class (it sees {name})."
        )
    if numbers["failed"] == "map":
        return (
            f"No: {write_size(numbers)}, made to keep the map has the model see {name}, but its map has a cosine "
            f"similarity of {cosine['forged']:.2f} only with that of the clean image, each of the class seen there "
            f"({beside})."
        )
    return (
        f"Yes: under {write_size(numbers)}, made with the map in view, the model sees {name} and the "
        f"map has a cosine similarity of {cosine['forged']:.2f} with that of the clean image, each of the class seen "
        f"there ({beside})."
    )


def write_size(numbers: Mapping[str, Any]) -> str:
    """Write how large the perturbation is, beside the attack's."""
    size = f"ℓ2 {numbers['epsilon']:.3g}" if numbers["ball"] == "l2" else f"ℓ∞ {255 * numbers['epsilon']:.3g}/255"
    if numbers["factor"] == 1:
        return f"a perturbation of at most {size}, like this attack's"
    return f"a perturbation of at most {size}, {numbers['factor']} times this attack's"
