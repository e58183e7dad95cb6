"""The verdicts that a report begins with: what happened, whether the explanation can be trusted, what to do next."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, final

from whyfooled.attacks import ExplanationAware
from whyfooled.drawing.words import by_number, counted, percent
from whyfooled.explanations.report.effect import find_share_alone, regions_add_up
from whyfooled.explanations.report.recovery import RecoveryVerdict, Standing, judge_recovery, write_counts, write_shares
from whyfooled.explanations.report.saved import write_kept
from whyfooled.registry import available
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
    if is_off_target(numbers):
        answer = f"Fooled, but not into {numbers['wrong']['name']}."
    sentence = f"{_write_predictions(numbers)}{_write_chance(numbers)}.{_write_attack(numbers)}{write_kept(numbers)}"
    return Verdict("What happened?", answer, sentence)


def is_off_target(numbers: Mapping[str, Any]) -> bool:
    """Tell whether the model now sees another class than before, but not the one that it was to see."""
    before, after = (numbers["predictions"][image][0]["index"] for image in ("clean", "adversarial"))
    return numbers["outcome"] == "failed" and after not in (before, numbers["wrong"]["index"])


def _write_attack(numbers: Mapping[str, Any]) -> str:
    """Say which attack it was, and how large its perturbation is; nothing where there is none."""
    delta, attack = numbers["perturbation"], numbers["parameters"].get("attack")
    if not delta["linf"]:
        return ""
    name = "Made elsewhere" if attack is None else f"Attack: {_name_attack(attack)}"
    return f" {name}, ℓ2 {delta['l2']:.3g}, ℓ∞ {delta['linf']:.2g} ({255 * delta['linf']:.2f}/255)."


def _knows_maps(numbers: Mapping[str, Any]) -> bool:
    """Tell whether the attack was made with the map in view."""
    return _find_name(numbers["parameters"].get("attack") or "") == ExplanationAware.card.name


def _name_attack(described: str) -> str:
    """Name an attack as reports do; one of the user's own by what it is called."""
    name = _find_name(described)
    method = available("attacks").get(name)
    return name if method is None else str(method.card.title)


def _find_name(described: str) -> str:
    """Find the name in a description of a method with its parameters."""
    return described.split("(")[0]


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
    if is_off_target(numbers):
        return f"The model saw {was} and was to see {numbers['wrong']['name']}, but now sees {now}{unsure}"
    return f"The model saw {was} and now sees {now}{_write_left(numbers)}{unsure}"


def _write_left(numbers: Mapping[str, Any]) -> str:
    """Say how probable the class that the image had still is, where that is listed."""
    true = numbers["true"]
    left = [one["probability"] for one in numbers["predictions"]["adversarial"][1:] if one["index"] == true["index"]]
    return f", ahead of {true['name']} ({percent(left[0])})" if left else ""


def _write_chance(numbers: Mapping[str, Any]) -> str:
    chance = numbers["fooled_by_chance"]
    if chance is None:
        return ""
    draws, count = chance["draws"], chance["fooled"]
    too = "" if numbers["outcome"] == "failed" else " too"
    fool = f"{count} {by_number(count, 'fools', 'fool')} it{too}" if count else "none fools it"
    return f"; of {counted(draws, 'random change')} of the same length, {fool}"


def name_first_class(numbers: Mapping[str, Any]) -> str:
    """Say what the class is that the image had: true only where somebody gave it."""
    return "class predicted for the clean image" if numbers["parameters"].get("label") is None else "true class"


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
    draws = counted(len(verdict.chance), "draw")
    level = f"{verdict.chance.count(verdict.right)} of the {draws}"
    beating = sum(right >= verdict.right for right in verdict.chance)
    answers = {
        "better": "Better than chance.",
        "no better": "Not clearly better than chance.",
        "worse": "Worse than chance.",
        "cannot tell": "This image cannot tell.",
    }
    ends = {
        "better": "It points at pixels that matter here.",
        "no better": f"{beating} of the {draws} did as well or better: do not read it pixel by pixel.",
        "worse": "It points away from the pixels that matter.",
        "cannot tell": f"No order can do {extreme}, and {level} did as {so}.",
    }
    return Verdict(
        _MAP, answers[verdict.standing], f"{write_recovery_sentence(numbers, verdict)} {ends[verdict.standing]}"
    )


def write_recovery_sentence(numbers: Mapping[str, Any], verdict: RecoveryVerdict) -> str:
    """Say at how many shares of black pixels the true class is seen, and at how many with orders that say nothing."""
    shares = write_shares(numbers["recovery"][0]["fills"][VERDICT_FILL]["fraction"])
    again = "" if numbers["outcome"] == "already wrong" else " again"
    return (
        f"With the pixels that its evidence map ranks highest made black ({shares} of all), the model sees "
        f"{numbers['true']['name']}{again} at {verdict.right} of {counted(verdict.points, 'share')}; "
        f"with random pixels at {write_counts(verdict.random)}, with the map shifted elsewhere at "
        f"{write_counts(verdict.shifted)}. A trustworthy map beats every draw."
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
    """List what to do next with the same model: first what the findings make most useful, with the reason."""
    parameters = numbers["parameters"]
    model = parameters.get(MODEL_OPTIONS, "" if parameters.get("model", "lite0") == "lite0" else "--model MODEL")
    steps = dict(_find_next_steps(numbers))
    first, reason = _choose_first(numbers, steps)
    chosen = [replace(steps.pop(first), why=reason), *steps.values()]
    return [replace(step, command=f"{step.command} {model}".rstrip()) for step in chosen]


def _choose_first(numbers: Mapping[str, Any], steps: Collection[str]) -> tuple[str, str]:
    """Choose the step that the findings make most useful, and say why in a line."""
    if is_off_target(numbers):
        return (
            "accuracy",
            "The model sees another class, if not the one asked for; measure on many how often any will do:",
        )
    if "attack" in steps:
        return "attack", "The attack failed; before calling the model robust, give it more room:"
    if numbers["outcome"] == "already wrong":
        return "accuracy", "The model is wrong here without any attack; measure how often, attacked or not:"
    if "maps" in steps:
        return "maps", "This report has no maps of what speaks for each class; see them:"
    if numbers["outcome"] == "failed":
        return "accuracy", "One image that does not fool the model says little; measure robust accuracy on many:"
    chance, verdict = numbers["fooled_by_chance"], judge_recovery(numbers)
    if chance is not None and chance["fooled"]:
        return "accuracy", "Random changes of this size fool the model too; measure how weak it is on many photographs:"
    if "forge" in steps and _knows_maps(numbers):
        return "forge", "The attack was to keep its map; see how well it did, beside a plain one and chance:"
    standing = "cannot tell" if verdict is None else verdict.standing
    if standing == "better" and "checks" in steps:
        return "checks", "The map beats chance here; check that it is stable, and depends on the model:"
    return "study", _WHY_STUDY[standing]


_WHY_STUDY: Mapping[Standing, str] = {
    "better": "The map beats chance here, on one image; see whether it does on many:",
    "no better": "The map does not clearly beat chance here; test other maps on many photographs:",
    "worse": "The map does worse than chance here; test other maps on many photographs:",
    "cannot tell": "This image cannot tell whether to trust the map; many photographs can:",
}


def _find_next_steps(numbers: Mapping[str, Any]) -> Iterator[tuple[str, Step]]:
    """Find what was not done yet, by short names."""
    if numbers["outcome"] == "failed" and numbers["parameters"].get("attack") is not None:
        yield (
            "attack",
            Step("Give the attack more room:", "whyfooled explain PHOTOGRAPH --attack bim --epsilon 8/255"),
        )
    if numbers.get("recovery"):
        yield "study", Step("Ask many photographs:", "whyfooled study recovery --images FOLDER --labels FILE")
    else:
        command = "whyfooled explain PHOTOGRAPH --adversarial tensors.safetensors"
        yield "maps", Step("See the evidence maps of both classes:", command)
    if "checks" not in numbers and numbers.get("recovery"):
        why = "Check whether the maps are stable, and depend on the model:"
        yield "checks", Step(why, "whyfooled explain PHOTOGRAPH --checks")
    if "forgery" not in numbers and numbers["outcome"] == "fooled" and numbers.get("recovery"):
        yield "forge", Step("See whether this explanation could be forged:", "whyfooled explain PHOTOGRAPH --forge")
    if "trust" not in numbers and numbers.get("recovery"):
        why = "See how easily the maps are changed (then add --trust delta.safetensors):"
        yield "universal", Step(why, "whyfooled universal fit --images FOLDER -o delta.safetensors")
    if "units" not in numbers:
        why = "See which hidden units carry the change (then add --units dissection/):"
        yield "units", Step(why, "whyfooled dissect --concepts MASKS -o dissection/")
    yield "accuracy", Step("Measure robust accuracy:", "whyfooled attack FOLDER --attack auto --labels FILE")
