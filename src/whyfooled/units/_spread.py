"""How much a unit varies when nothing attacks it: what its changes are measured by."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from whyfooled.units.dissection.results import DissectedLayer
from whyfooled.units.sensitivity import RESOLUTION

FLOOR = 0.5
"""Share of the layer's standard deviation that a unit's is counted as at least. [ours]"""


def clean_std(dissected: DissectedLayer, clean: Float[Tensor, "u h w"], floor: float = FLOOR) -> Float[Tensor, " u"]:
    """Return each unit's standard deviation over the dissection's images and a clean one, float64, on the CPU.

    The image counts as one more of them: the variance is that of all activations, the ``dissected.positions`` and the
    image's places, pooled exactly. Still, a unit that is almost silent in all of them would change by thousands of
    standard deviations as soon as it does anything, so none counts as less than a share of the layer's, the root mean
    square over the units that vary. [ours]

    Parameters
    ----------
    dissected
        What is known of the units' activations on the dissection's images.
    clean
        (u,h,w) The clean image's.
    floor
        That share; 0 for none.

    Returns
    -------
    Tensor
        (u,) Standard deviations; 0, whatever the floor, where all activations are the same up to rounding.
    """
    values = clean.double().flatten(1).cpu()
    before, here = dissected.positions, values.shape[1]
    share = here / (before + here)
    apart = values.mean(1) - dissected.mean.double()
    known = dissected.std.double().square().masked_fill(dissected.dead, 0)
    variance = (1 - share) * known + share * values.var(1, correction=0) + share * (1 - share) * apart.square()
    square = variance + (dissected.mean.double() + share * apart).square()
    varies = variance > RESOLUTION**2 * square
    least = floor**2 * variance[varies].mean() if varies.any() else 0.0
    std: Tensor = variance.clamp(min=least).sqrt().masked_fill(~varies, 0)
    return std
