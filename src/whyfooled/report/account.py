"""The account of an explanation in a few plain sentences, from its numbers alone."""

from __future__ import annotations

from typing import Any


def account(found: dict[str, Any]) -> str:
    """Write a short account, one sentence a line."""
    return "\n".join([*sentences(found), *(f"Note: {note}" for note in found["notes"])])


def sentences(found: dict[str, Any]) -> list[str]:
    """Write the account: what was seen, what was added, which evidence changed, and what removing it does."""
    return [*_seen(found), *_added(found), _changed(found), _removed(found)]


def percent(share: float) -> str:
    """Write a share in per cent, with the digits that matter near 0 and 100."""
    if 0 < share < 0.001:
        return "<0.1 %"
    if 0.999 < share < 1:
        return ">99.9 %"
    return f"{100 * share:.1f} %"


def _seen(found: dict[str, Any]) -> list[str]:
    before, after = found["predictions"]["clean"][0], found["predictions"]["adversarial"][0]
    was = f"{before['name']} ({percent(before['probability'])})"
    now = f"{after['name']} ({percent(after['probability'])})"
    if found["outcome"] == "already wrong":
        return [f"The model sees {was}, though the image shows {found['true']['name']}."]
    if found["outcome"] == "failed":
        return [f"The model saw {was} and, after an attack that failed, sees {now}."]
    return [f"The model saw {was} and now sees {now}."]


def _added(found: dict[str, Any]) -> list[str]:
    delta = found["perturbation"]
    if delta["linf"] == 0:
        return []
    changed = percent(delta["l0"] / delta["pixels"])
    return [
        f"No pixel value changed by more than {255 * delta['linf']:.2f}/255, in {changed} of the pixels: "
        f"l2 {delta['l2']:.4g}, linf {delta['linf']:.4g}, l1 {delta['l1']:.4g}, l0 {delta['l0']}."
    ]


def _changed(found: dict[str, Any]) -> str:
    headline, wrong, true = found["headline"], found["wrong"]["name"], found["true"]["name"]
    carried = (
        f"half of the evidence for {wrong} against {true} lies on {percent(headline['pixels_with_half'])} of the pixels"
    )
    if found["outcome"] == "already wrong":
        return f"By {_lower(headline['title'])}, {carried}."
    cosine = headline["cosine_clean_to_adversarial"]
    plain = next((one for one in found["evidence"] if one["method"] == "guided"), None)
    beside = (
        "" if plain is None else f" (guided backpropagation alone, {plain['cosine_clean_to_adversarial']['wrong']:.2f})"
    )
    return (
        f"Which evidence changed: by {_lower(headline['title'])}, {carried}, and its map has cosine "
        f"{cosine['wrong']:.2f} with the clean image's{beside}; the other way round, {true} against {wrong}, "
        f"{cosine['true']:.2f}."
    )


def _removed(found: dict[str, Any]) -> str:
    """Say what blackening the evidence does, over the whole curve: the best point of one is a lucky one."""
    evidence, chance = found["recovery"][0]["fills"]["zero"], found["recovery"][-1]["fills"]["zero"]
    before, shares = percent(found["true"]["probability"]["adversarial"]), evidence["fraction"]
    after, by_chance = percent(evidence["mean_probability"]), percent(chance["mean_probability"])
    return (
        f"Blackening the pixels with the strongest such evidence takes {found['true']['name']} from "
        f"{before} to {after}, as many pixels at random to {by_chance} "
        f"(means over {100 * shares[0]:g} to {100 * shares[-1]:g} % of the pixels)."
    )


def _lower(title: str) -> str:
    return f"{title[0].lower()}{title[1:]}"
