"""Deconvnet and guided backpropagation: the gradient with another rule at the activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from whyfooled.classifier import Classifier
from whyfooled.classifier.borrowing import one_thread
from whyfooled.registry import Card
from whyfooled.saliency.backward import rules
from whyfooled.saliency.backward.gradients import class_gradients
from whyfooled.types import Images, ManyClasses, ManyMaps


@final
@dataclass(frozen=True)
class Deconvnet:
    """The backward pass of a deconvnet: at every ReLU the positive part of the gradient goes on, ``max(G, 0)``.

    Of an image, the map keeps nothing but which places the max poolings chose (and what gates let pass, if there are
    any), so it takes no `create_graph`: there is no derivative to follow.

    It is for ReLUs alone: of other activations it would keep nothing, so they raise `MethodError`. As in
    `GuidedBackprop`, a ReLU is one however it is spelled.
    """

    card: ClassVar[Card] = Card(
        name="deconvnet",
        title="Deconvnet",
        summary="The gradient, with its negative part stopped at every ReLU, open or closed.",
        source="Zeiler & Fergus 2014, arXiv 1311.2901, sec. 2.1",
        cost="1 forward, 1 backward for each class",
    )

    @one_thread()
    def __call__(self, classifier: Classifier, images: Images, classes: ManyClasses) -> ManyMaps:
        """Compute the maps: (n,c,h,w) for classes (n,), (n,k,c,h,w) for classes (n,k)."""
        return class_gradients(classifier, images, classes, rule=rules.deconvnet)


@final
@dataclass(frozen=True)
class GuidedBackprop:
    """Guided backpropagation: where an activation is open, the positive part of the gradient goes on.

    At a ReLU that is ``max(G, 0) · 1[a > 0]``, as in the paper, which knows no other activation. [ours] At one that is
    0 at 0 and keeps the sign of what it takes (GELU, SiLU, Hardswish, Mish, ELU, LeakyReLU, …) it is the gated rule,
    ``max(G, 0) · f(a)/a``: at a ReLU, the same. The gate ``f(a)/a`` is never below 0, as the derivatives of GELU and
    SiLU are; AttnLRP has the same (Achtibat et al. 2024, arXiv 2402.05602).

    An activation is one however it is spelled: ``a.clamp(min=0)``, ``a * (a > 0)``, ``a * torch.sigmoid(a)``.
    Everything else keeps its gradient, by the method's definition, if it is known to be no activation:
    `whyfooled.saliency.backward.steps` lists it. Whatever may be one without such a gate, such as Softplus or a model's
    own `torch.autograd.Function`, raises `MethodError`, which names it.
    """

    card: ClassVar[Card] = Card(
        name="guided",
        title="Guided backpropagation",
        summary="The gradient, with its negative part stopped at every activation; the rest passes where it is open.",
        source="Springenberg, Dosovitskiy, Brox, Riedmiller 2015, arXiv 1412.6806, sec. 3.4",
        cost="1 forward, 1 backward for each class",
    )

    @one_thread()
    def __call__(
        self, classifier: Classifier, images: Images, classes: ManyClasses, *, create_graph: bool = False
    ) -> ManyMaps:
        """Compute the maps: (n,c,h,w) for classes (n,), (n,k,c,h,w) for classes (n,k).

        With `create_graph` they can be differentiated with respect to the images.
        """
        return class_gradients(classifier, images, classes, rule=rules.guided, create_graph=create_graph)
