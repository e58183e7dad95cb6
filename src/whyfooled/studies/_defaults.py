"""What the studies of one paper look at unless told otherwise (Gu & Tresp 2019)."""

from __future__ import annotations

from whyfooled.attacks import BIM, FGSM, CarliniWagner
from whyfooled.saliency import Deconvnet, Enhanced, GradCAM, Gradient, GuidedBackprop, InputXGradient

ATTACKS = (FGSM(), BIM(), CarliniWagner())
METHODS = (Enhanced(), GuidedBackprop(), Deconvnet(), Gradient(), InputXGradient(), GradCAM())
