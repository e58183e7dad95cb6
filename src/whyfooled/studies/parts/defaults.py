"""What the studies of a paper look at unless told otherwise (Gu & Tresp 2019; Xu et al. 2019)."""

from __future__ import annotations

from whyfooled.attacks import BIM, EAD, FGSM, CarliniWagner, StrAttack
from whyfooled.saliency import (
    CAM,
    Deconvnet,
    Enhanced,
    GradCAM,
    GradCAMPlusPlus,
    Gradient,
    GuidedBackprop,
    InputXGradient,
)

ATTACKS = (FGSM(), BIM(), CarliniWagner())
METHODS = (Enhanced(), GuidedBackprop(), Deconvnet(), Gradient(), InputXGradient(), GradCAM())

NORM_ATTACKS = (BIM(), CarliniWagner(), EAD(), StrAttack())
"""One for each kind of norm: ℓ∞, ℓ2, elastic net, groups (Xu et al. 2019)."""
CAMS = (CAM(), GradCAM(), GradCAMPlusPlus())
