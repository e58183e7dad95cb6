"""What a perturbation does where: measures of the difference between an image and its adversarial one."""

from whyfooled.perturbation.interpretability import (
    InterpretabilityScore,
    discriminative_region,
    interpretability_curve,
    interpretability_score,
)

__all__ = [
    "InterpretabilityScore",
    "discriminative_region",
    "interpretability_curve",
    "interpretability_score",
]
