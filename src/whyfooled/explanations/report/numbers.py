"""Every number of a report, as plain Python values: what its JSON file holds, and all that the page prints."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from whyfooled.drawing.pictures import magnification, scale_of
from whyfooled.explanations.explained import Explained, list_evidence
from whyfooled.explanations.report.account import write_sentences
from whyfooled.explanations.report.checks import collect_check_numbers
from whyfooled.explanations.report.detection import collect_detection_numbers
from whyfooled.explanations.report.effect import collect_effect_numbers
from whyfooled.explanations.report.evidence import find_blindness, measure_similarities
from whyfooled.explanations.report.forgery import collect_forgery_numbers
from whyfooled.explanations.report.named import collect_named_numbers
from whyfooled.explanations.report.saved import collect_saved_numbers
from whyfooled.explanations.report.trust import collect_trust_numbers
from whyfooled.explanations.report.units import collect_unit_numbers
from whyfooled.saliency.evidence import Evidence
from whyfooled.saliency.recovery import RecoveryCurves
from whyfooled.tensors.balls import l0

TOP = 5
"""How many classes are listed for each image."""

TOP_SHARE = 0.05
"""Share of the pixels taken as the evidence's strongest when it is compared with the perturbation. [ours]"""


def collect_numbers(explained: Explained) -> dict[str, Any]:
    """Collect everything that the report says in figures, and the account in sentences, which begins it."""
    numbers = _collect_sections(explained)
    return {"account": write_sentences(numbers), **numbers}


def _collect_sections(explained: Explained) -> dict[str, Any]:
    """Collect what each section says in figures; the keys of a section are there if the section is."""
    effect, units, trust, forgery = explained.effect, explained.units, explained.trust, explained.forgery
    logits = torch.stack([explained.clean_logits, explained.logits])
    return {
        "outcome": explained.outcome,
        "true": _describe_class(explained, explained.true),
        "wrong": _describe_class(explained, explained.wrong),
        "predictions": {
            "clean": _list_top_classes(explained, explained.clean_logits),
            "adversarial": _list_top_classes(explained, explained.logits),
        },
        "perturbation": _measure_perturbation(explained.delta),
        "fooled_by_chance": None if explained.by_chance is None else asdict(explained.by_chance),
        "saved": collect_saved_numbers(explained.saved, explained.names),
        "effect": None
        if effect is None
        else collect_effect_numbers(effect, explained.delta, logits, explained.true, explained.wrong),
        **({} if explained.named is None else {"named": collect_named_numbers(explained.named, explained.names)}),
        **({} if units is None else {"units": collect_unit_numbers(units)}),
        "notes": list(explained.notes),
        "parameters": dict(explained.parameters),
        "seconds": {stage: round(seconds, 3) for stage, seconds in explained.seconds.items()},
        "seconds_in_all": round(sum(explained.seconds.values()), 3),
        "passes": {stage: asdict(passes) for stage, passes in explained.passes.items()},
        **({} if explained.headline is None else _collect_maps(explained, explained.headline)),
        **({} if forgery is None else {"forgery": collect_forgery_numbers(forgery, explained.names)}),
        **({} if explained.detection is None else {"detection": collect_detection_numbers(explained.detection)}),
        **({} if trust is None else {"trust": collect_trust_numbers(trust, explained.names, _list_blind(explained))}),
        **({} if explained.checks is None else {"checks": collect_check_numbers(explained.checks)}),
    }


def _list_blind(explained: Explained) -> list[str]:
    """List the methods that give both classes nearly the same map."""
    return [one.method for one in list_evidence(explained) if find_blindness(measure_similarities(one)) is not None]


def _collect_maps(explained: Explained, headline: Evidence) -> dict[str, Any]:
    return {
        "headline": _describe_evidence(explained.delta, headline),
        "evidence": [_describe_evidence(explained.delta, evidence) for evidence in explained.evidence],
        "recovery": [_describe_recovery(recovery) for recovery in explained.recovery],
    }


def _describe_class(explained: Explained, index: int) -> dict[str, Any]:
    clean, adversarial = explained.clean_logits, explained.logits
    return {
        "index": index,
        "name": explained.names[index],
        "logit": {"clean": float(clean[index]), "adversarial": float(adversarial[index])},
        "probability": {"clean": float(clean.softmax(0)[index]), "adversarial": float(adversarial.softmax(0)[index])},
    }


def _list_top_classes(explained: Explained, logits: Tensor) -> list[dict[str, Any]]:
    """List the classes with the largest logits, and the two that the explanation is about wherever they are."""
    probabilities = logits.softmax(0)
    strongest = logits.topk(min(TOP, len(logits))).indices.tolist()
    about = sorted({explained.true, explained.wrong} - set(strongest), key=lambda index: -float(logits[index]))
    return [
        {
            "index": index,
            "name": explained.names[index],
            "probability": float(probabilities[index]),
            "logit": float(logits[index]),
        }
        for index in [*strongest, *about]
    ]


def _measure_perturbation(delta: Tensor) -> dict[str, Any]:
    return {
        "l0": int(l0(delta.unsqueeze(0))),
        "l1": float(delta.abs().sum()),
        "l2": float(delta.norm()),
        "linf": float(delta.abs().max()),
        "pixels": delta[0].numel(),
        "magnification": magnification(delta),
    }


def _describe_evidence(delta: Tensor, evidence: Evidence) -> dict[str, Any]:
    return {
        "method": evidence.method,
        "title": evidence.title,
        "summary": evidence.summary,
        "contrastive": evidence.contrastive,
        **measure_similarities(evidence),
        "scale": asdict(scale_of(evidence.maps)),
        "pixels_with_half": _pixels_with_half(evidence.wrong),
        "perturbation_in_top": {
            "share": _energy_in_top(delta, evidence.wrong, TOP_SHARE),
            "chance": TOP_SHARE,
        },
    }


def _pixels_with_half(maps: Tensor) -> float:
    """Return the smallest share of the pixels that carries half of a map's positive part; 0 if it has none."""
    saliency = maps.sum(1).clamp_min(0).flatten().double().sort(descending=True).values
    total = saliency.sum()
    if total == 0:
        return 0.0
    return (int((saliency.cumsum(0) < total / 2).sum()) + 1) / saliency.numel()


def _energy_in_top(delta: Tensor, maps: Tensor, share: float) -> float:
    """Return the share of the perturbation's squared length that lies on the most salient pixels; 0 without any."""
    energy = delta.double().square().sum(0).flatten()
    total = energy.sum()
    if total == 0:
        return 0.0
    top = maps.sum(1).flatten().topk(round(share * energy.numel())).indices
    return float(energy[top].sum() / total)


def _describe_recovery(recovery: RecoveryCurves) -> dict[str, Any]:
    fills = {}
    for fill, curve in recovery.curves.items():
        probability = curve.probability.double()
        orders = len(probability)
        fills[fill] = {
            "orders": orders,
            "fraction": list(curve.fractions),
            "probability": probability.mean(0).tolist(),
            "probability_std": (probability.std(0) if orders > 1 else torch.zeros_like(probability[0])).tolist(),
            "recovered": curve.recovered.double().mean(0).tolist(),
            "shares_right": curve.recovered.sum(1).tolist(),
            "mean": float(curve.mean.mean()),
            "mean_probability": float(probability.mean()),
        }
    return {"title": recovery.title, "control": recovery.control, "fills": fills}
