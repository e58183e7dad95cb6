"""The verdicts that a report begins with: what happened, whether the explanation can be trusted, what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, final

from whyfooled.drawing.words import percent
from whyfooled.explanations.report.effect import find_share_alone, regions_add_up
from whyfooled.explanations.report.recovery import RecoveryVerdict, judge_recovery, write_counts, write_shares
from whyfooled.saliency.recovery import VERDICT_FILL

UNSURE = 0.1
"""Probability under which a model is called unsure of what it sees. [ours]"""


@final
@dataclass(frozen=True)
class Verdict:
    """One verdict.

    Parameters
    ----------
    question
        What it answers.
    answer
        The answer in a few words.
    sentence
        The answer in a sentence, with its number and what chance gives.
    """

    question: str
    answer: str
    sentence: str


@final
@dataclass(frozen=True)
class Step:
    """Something to do next.

    Parameters
    ----------
    why
        What it is good for.
    command
        What to run.
    """

    why: str
    command: str


def write_happened(numbers: Mapping[str, Any]) -> Verdict:
    """Say what the model saw and sees now, and what random perturbations of the same length do."""
    outcome = numbers["outcome"]
    answer = {"fooled": "Fooled.", "failed": "Not fooled.", "already wrong": "Wrong without any attack."}[outcome]
    return Verdict("What happened?", answer, f"{_write_predictions(numbers)}{_write_chance(numbers)}.")


def _write_predictions(numbers: Mapping[str, Any]) -> str:
    before, after = numbers["predictions"]["clean"][0], numbers["predictions"]["adversarial"][0]
    was = f"{before['name']} ({percent(before['probability'])})"
    now = f"{after['name']} ({percent(after['probability'])})"
    if numbers["outcome"] == "already wrong":
        return f"The model sees {was}, though the image shows {numbers['true']['name']}"
    unsure = ", but is sure of nothing" if after["probability"] < UNSURE else ""
    if numbers["outcome"] == "failed" and before["index"] == after["index"]:
        return f"The model saw {was} and still sees {now}"
    if numbers["outcome"] == "failed" and after["index"] == numbers["wrong"]["index"]:
        # Of one answer, that would be a success.
        return f"The model saw {was} and now sees {now}, but the attack was to leave the other labels as they were"
    if numbers["outcome"] == "failed":
        return f"The model saw {was} and still does not see what it was to see, but {now}{unsure}"
    return f"The model saw {was} and now sees {now}{unsure}"


def _write_chance(numbers: Mapping[str, Any]) -> str:
    chance = numbers["fooled_by_chance"]
    if chance is None:
        return ""
    draws, count = chance["draws"], chance["fooled"]
    too = "" if numbers["outcome"] == "failed" else " too"
    fool = f"{count} fool{'s' if count == 1 else ''} it{too}" if count else "none fools it"
    return f"; of {draws} random changes of the same length, {fool}"


def write_trusted(numbers: Mapping[str, Any]) -> Verdict | None:
    """Say whether what the report shows can be trusted, and on which number that rests; None where nothing says it."""
    if numbers.get("recovery"):
        return _trust_map(numbers)
    if numbers["effect"] is not None:
        return _trust_regions(numbers["effect"])
    return _trust_units(numbers["units"]) if "units" in numbers else None


_MAP = "Can the explanation be trusted?"


def _trust_map(numbers: Mapping[str, Any]) -> Verdict:
    true, verdict = numbers["true"]["name"], judge_recovery(numbers)
    if verdict is None:
        sentence = f"The model still sees {true}, so there is nothing to bring back and nothing to judge its map by."
        return Verdict(_MAP, "This image cannot tell.", sentence)
    extreme, so = ("better", "well") if verdict.right else ("worse", "badly")
    level = f"{verdict.chance.count(verdict.right)} of the {len(verdict.chance)}"
    answers = {
        "better": "Better than chance.",
        "no better": "No better than chance.",
        "worse": "Worse than chance.",
        "cannot tell": "This image cannot tell.",
    }
    ends = {
        "better": "It points at pixels that matter here.",
        "no better": "Do not read the map pixel by pixel.",
        "worse": "It points away from the pixels that matter.",
        "cannot tell": f"No order can do {extreme}, and {level} that say nothing did as {so}.",
    }
    return Verdict(
        _MAP, answers[verdict.standing], f"{write_recovery_sentence(numbers, verdict)} {ends[verdict.standing]}"
    )


def write_recovery_sentence(numbers: Mapping[str, Any], verdict: RecoveryVerdict) -> str:
    """Say at how many shares of black pixels the true class is seen, and at how many with orders that say nothing."""
    shares = write_shares(numbers["recovery"][0]["fills"][VERDICT_FILL]["fraction"])
    again = "" if numbers["outcome"] == "already wrong" else " again"
    return (
        f"With the pixels that its evidence map ranks highest made black ({verdict.points} shares of the image, "
        f"{shares}), the model sees {numbers['true']['name']}{again} at {verdict.right} of {verdict.points} shares; "
        f"with random pixels at {write_counts(verdict.random)}, with the map shifted elsewhere at "
        f"{write_counts(verdict.shifted)}."
    )


def _trust_regions(effect: Mapping[str, Any]) -> Verdict:
    question, alone = "Can the regions be read one by one?", find_share_alone(effect)
    if alone is None:
        sentence = "The perturbation as a whole does not bring the two classes closer, so there is nothing to divide."
        return Verdict(question, "This image cannot tell.", sentence)
    answer = "Yes, nearly." if regions_add_up(alone) else "No, they act together."
    return Verdict(
        question,
        answer,
        f"Removed from one region at a time, the perturbation accounts for {100 * alone:.0f} % of what it changes as a "
        "whole between the two classes' scores; if regions acted independently, it would be 100 %.",
    )


def _trust_units(units: Mapping[str, Any]) -> Verdict:
    question, layers, rule = "Can the effects of single units be trusted?", units["layers"], units["rule"]
    rough = [layer["layer"] for layer in layers if any(layer["rough"].values())]
    bent = max((value or 0.0) for layer in layers for value in layer["nonlinearity"].values())
    sums = [value for layer in layers for value in layer["completeness"].values() if value is not None]
    together = (
        f"All effects of a layer add up to {_write_range(sums)} of a logit's change" if sums else "No logit changes"
    )
    return Verdict(
        question,
        f"Not in {', '.join(rough)}." if rough else "Yes, to first order.",
        f"{together} (all of it would be 100 %), and the gradient that they come from changes by up to {bent:.2f} from "
        f"one image to the other (0: not at all). Trust ends {100 * rule['amiss']:.0f} % off, and at "
        f"{rule['nonlinearity']:.1f}.",
    )


def _write_range(shares: list[float]) -> str:
    low, high = (f"{100 * share:.0f}" for share in (min(shares), max(shares)))
    return f"{low} %" if low == high else f"{low} to {high} %"


MODEL_OPTIONS = "options of the model"
"""What parameters call how the model was given on the command line."""


def list_next_steps(numbers: Mapping[str, Any]) -> list[Step]:
    """List what to do next, the most useful first, with the same model."""
    parameters = numbers["parameters"]
    model = parameters.get(MODEL_OPTIONS, "" if parameters.get("model", "lite0") == "lite0" else "--model MODEL")
    return [replace(step, command=f"{step.command} {model}".rstrip()) for step in _find_next_steps(numbers)]


def _find_next_steps(numbers: Mapping[str, Any]) -> Iterator[Step]:
    if numbers["outcome"] == "failed" and numbers["parameters"].get("attack") is not None:
        yield Step("Give the attack more room:", "whyfooled explain PHOTOGRAPH --attack bim --epsilon 8/255")
    if numbers.get("recovery"):
        yield Step(
            "Ask many photographs:",
            "whyfooled study recovery --images FOLDER --labels FILE",
        )
    else:
        yield Step(
            "See the evidence maps of both classes:", "whyfooled explain PHOTOGRAPH --adversarial tensors.safetensors"
        )
    if "checks" not in numbers and numbers.get("recovery"):
        yield Step(
            "Check whether the maps are stable, and depend on the model:", "whyfooled explain PHOTOGRAPH --checks"
        )
    if "trust" not in numbers and numbers.get("recovery"):
        yield Step(
            "See how easily the maps are changed (then add --trust delta.safetensors):",
            "whyfooled universal fit --images FOLDER -o delta.safetensors",
        )
    if "units" not in numbers:
        yield Step(
            "See which hidden units carry the change (then add --units dissection/):",
            "whyfooled dissect --concepts MASKS -o dissection/",
        )
    yield Step("Measure robust accuracy:", "whyfooled attack FOLDER --attack auto --labels FILE")
