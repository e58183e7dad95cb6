"""Models that a study loads by the name of this file."""

from __future__ import annotations

import torch

from tests.helpers.models import small

HERE = __file__


def other():
    """Make one that sees much as `small` does, with other weights."""
    classifier = small()
    weight = classifier.module.first.weight
    with torch.no_grad():
        weight += 0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    return classifier


def same():
    return small()
