"""What is left of each detector under the attack that knows it, as it was measured."""

from __future__ import annotations

from collections.abc import Sequence

MEASURED: dict[str, float] = {
    "softmax": 0.00,
    "margin": 0.028,
    "bit-depth": 0.078,
    "median": 0.377,
    "noise": 0.161,
    "mahalanobis": 0.00,
    "gradcam-shift": 0.00,
}
"""The area under the curve of a detector's own score, clean images against images that evade it; .5 is chance.

ResNet-20 on CIFAR-10, 78 attacked images, an ℓ∞ ball of 4/255: the study ``detectors`` in docs/results.md.
"""


def say_evaded(detectors: Sequence[str]) -> str:
    """Say what detectors, as on the command line, are worth against an attacker who knows them."""
    names = [detector.partition("(")[0] for detector in detectors]
    known = [f"{name} {MEASURED[name]:.3f}" for name in dict.fromkeys(names) if name in MEASURED]
    said = "No detector withstands an attacker who knows it"
    if known:
        said += (
            f": under an attack with the score in its loss the area under its curve is {', '.join(known)}, where 0.5 "
            "is chance (measured on a ResNet-20 for CIFAR-10, at 4/255 in l-infinity)"
        )
    unknown = [name for name in dict.fromkeys(names) if name not in MEASURED]
    more = f" What is left of {', '.join(unknown)} was never measured." if unknown else ""
    return f"{said}.{more}"
