"""What a search measures margins by: each image's own clean margin, so that no scale of the logits can matter."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from whyfooled.classifier.goals import Goal
from whyfooled.types import Logits, PerImage

_SAFE_SHARE = 1e-3
_TEMPERATURE = 0.1
_ROUNDING = 16
"""Rounding differs between batch sizes, and a search ends as near to the boundary as it can. [ours]"""


def find_safe_margin(margin: PerImage, logits: Logits) -> PerImage:
    """Return (n,) by how many logits a goal must be passed before a search believes it.

    It is a thousandth of a margin that the logits (n,m) have, and no less than a few roundings of the largest logit:
    multiplying the logits by a number multiplies it too, and adding one to them leaves it, but for rounding.
    """
    return torch.maximum(_SAFE_SHARE * margin.abs(), _find_rounding(logits))


def _find_rounding(logits: Logits) -> PerImage:
    precision = torch.finfo(logits.dtype)
    return (_ROUNDING * precision.eps * logits.abs().amax(1)).clamp_min(precision.tiny)


@dataclass(frozen=True)
class Yardstick:
    """What is missing to the goal, in clean margins.

    Parameters
    ----------
    unit
        (n,) The clean margin, in logits.
    safe
        (n,) By how many clean margins the goal must be passed, so that rounding cannot undo it.
    passed
        (n,) By how many it must be passed for what the attack was asked for; at least as many.
    """

    unit: PerImage
    safe: PerImage
    passed: PerImage

    @classmethod
    def of(cls, goal: Goal, clean_logits: Logits, confidence: float, share: float) -> Yardstick:
        """Take the measure of clean images (n,m logits), for a goal to be passed by the larger of two.

        They are `confidence`, in logits, and `share`, in clean margins.
        """
        clean_logits = clean_logits.detach()
        margin = goal.margin(clean_logits)
        # At least a few roundings: two classes may share the largest logit.
        unit = torch.maximum(margin, _find_rounding(clean_logits))
        safe = find_safe_margin(margin, clean_logits)
        return cls(unit, safe / unit, torch.maximum(safe.clamp_min(confidence), share * margin) / unit)

    @property
    def needed(self) -> PerImage:
        """(n,) What is missing at the clean image."""
        return 1 + self.passed

    def missing(self, goal: Goal, logits: Logits) -> PerImage:
        """Return (n,) what is missing: 1 and a little for the clean image, 0 or less once the goal is passed."""
        return self.in_margins(goal.margin(logits))

    def in_margins(self, gap: PerImage) -> PerImage:
        """Return (n,) what is missing where a difference (n,) of logits has to become 0 or less."""
        return gap / self.unit + self.passed

    def softened(self, goal: Goal, logits: Logits) -> PerImage:
        """Return (n,) the same with all other classes in it: ``τ · logsumexp(others / τ)`` for a τ of a tenth."""
        units = self.unit.unsqueeze(1) * _TEMPERATURE
        return _TEMPERATURE * goal.loss(logits / units) + self.passed

    def select(self, keep: Tensor) -> Yardstick:
        """Keep some of the images only."""
        return Yardstick(self.unit[keep], self.safe[keep], self.passed[keep])
