"""What a perturbation does on regions that have names: how much of it lies there, and what cleaning one alone does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import pandas as pd
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.classifier.workers import share_out
from whyfooled.perturbation.sensitivity import choose_batch_size
from whyfooled.types import Image, Images

PerName = Float[Tensor, " k"]


@final
@dataclass(frozen=True, eq=False)
class NamedEffect:
    """What the perturbation of one image does on each of k regions with names.

    Parameters
    ----------
    names
        The k names.
    labels
        (h,w) The region of every pixel, from 0 to k − 1.
    area
        (k,) Which share of the pixels each has: the share of the energy of perturbations of every direction, by chance.
    energy
        (k,) Which share of the perturbation's squared ℓ2 norm lies there.
    true_change, wrong_change
        (k,) By how much the perturbation there changes the logits of the true and of the wrong class: the adversarial
        image's logit less that of the image which is cleaned there alone.
    predictions
        (k,) The class that is predicted where the perturbation is removed there alone.
    """

    names: tuple[str, ...]
    labels: Int64[Tensor, "h w"]
    area: PerName
    energy: PerName
    true_change: PerName
    wrong_change: PerName
    predictions: Int[Tensor, " k"]

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each region."""
        columns = ("area", "energy", "true_change", "wrong_change", "predictions")
        return pd.DataFrame({"region": list(self.names), **{name: getattr(self, name).numpy() for name in columns}})


@torch.no_grad()
def find_named_effect(
    classifier: Classifier,
    clean: Images,
    adversarial: Images,
    true: int,
    wrong: int,
    labels: Int64[Tensor, "h w"],
    names: Sequence[str],
) -> NamedEffect:
    """Measure how much of a perturbation lies on each region, and clean one at a time.

    Parameters
    ----------
    classifier
        The classifier that was attacked.
    clean, adversarial
        (1,c,h,w) The image before and after, values in [0, 1].
    true, wrong
        The true class, and the class that the perturbation promotes.
    labels
        (h,w) The region of every pixel, from 0.
    names
        The names of the regions.
    """
    inside = torch.stack([labels == number for number in range(len(names))]).unsqueeze(1).to(clean.device)
    cleaned = torch.where(inside, clean, adversarial)
    batches = torch.split(torch.cat([adversarial, cleaned]), choose_batch_size(clean.device))
    logits = torch.cat(list(share_out(classifier, classifier.logits, batches))).double()
    changes = (logits[:1] - logits[1:]).float().cpu()
    return NamedEffect(
        names=tuple(names),
        labels=labels.cpu(),
        area=inside.float().mean((1, 2, 3)).cpu(),
        energy=_share_energy((adversarial - clean)[0], inside),
        true_change=changes[:, true],
        wrong_change=changes[:, wrong],
        predictions=logits[1:].argmax(1).cpu(),
    )


def _share_energy(delta: Image, inside: Tensor) -> PerName:
    squares = delta.double().square().sum(0)
    return ((inside[:, 0] * squares).sum((1, 2)) / squares.sum()).float().cpu()
