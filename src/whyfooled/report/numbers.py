"""Every number of a report, as plain Python values: what ``explanation.json`` holds, and all that the page prints."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from whyfooled.evidence import Evidence
from whyfooled.explanation import Explanation, Recovery
from whyfooled.report.common import common_numbers
from whyfooled.report.pictures import scale_of
from whyfooled.report.trust import trust_numbers

TOP_SHARE = 0.05
"""Share of the pixels taken as the evidence's strongest when it is compared with the perturbation. [ours]"""


def numbers(explanation: Explanation) -> dict[str, Any]:
    """Collect everything that the report says in figures."""
    trust = explanation.trust
    return {
        **common_numbers(explanation),
        "headline": _evidence(explanation, explanation.headline),
        "evidence": [_evidence(explanation, one) for one in explanation.evidence],
        "recovery": [_recovery(one) for one in explanation.recovery],
        **({} if trust is None else {"trust": trust_numbers(trust, explanation.names)}),
    }


def _evidence(explanation: Explanation, evidence: Evidence) -> dict[str, Any]:
    wrong, true = evidence.similarity()
    return {
        "method": evidence.method,
        "title": evidence.title,
        "summary": evidence.summary,
        "contrastive": evidence.contrastive,
        "cosine_clean_to_adversarial": {"wrong": wrong, "true": true},
        "scale": asdict(scale_of(evidence.maps)),
        "pixels_with_half": _pixels_with_half(evidence.wrong),
        "perturbation_in_top": {
            "share": _energy_in_top(explanation.delta, evidence.wrong, TOP_SHARE),
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


def _recovery(recovery: Recovery) -> dict[str, Any]:
    fills = {}
    for fill, curve in recovery.curves.items():
        probability = curve.probability.double()
        orders = len(probability)
        fills[fill] = {
            "fraction": list(curve.fractions),
            "probability": probability.mean(0).tolist(),
            "probability_std": (probability.std(0) if orders > 1 else torch.zeros_like(probability[0])).tolist(),
            "recovered": curve.recovered.double().mean(0).tolist(),
            "mean": float(curve.mean.mean()),
            "mean_probability": float(probability.mean()),
        }
    return {"title": recovery.title, "orders": orders, "fills": fills}
