"""Layer-wise relevance propagation, and its contrastive form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from whyfooled.classifier import Classifier, check_classes
from whyfooled.classifier.borrowing import one_thread
from whyfooled.errors import MethodError, bad_parameter, one_of, warn
from whyfooled.registry import Card
from whyfooled.saliency.backward.gradients import check_pairs
from whyfooled.saliency.backward.relevance import Trace, trace
from whyfooled.saliency.backward.relevance_calls import Attending, Rules
from whyfooled.saliency.backward.shares import FirstRule, alpha_beta_rule, box_rule, epsilon_rule, flat_rule
from whyfooled.types import Images, Logits, ManyClasses, ManyMaps, ManyNumbers, Maps

LayerRule = Literal["composite", "alpha-beta", "epsilon"]
FirstLayer = Literal["box", "flat", "same"]
_FIRST: dict[FirstLayer, FirstRule | None] = {"box": box_rule, "flat": flat_rule, "same": None}


@final
@dataclass(frozen=True)
class LRP:
    """Layer-wise relevance propagation: a logit is shared out, layer by layer, until the pixels have it (Bach 2015).

    Each neuron divides its relevance among its inputs by what they add to its output. Where nothing takes a share but
    the inputs, the map sums to the logit; `leak` measures what is lost.

    * Convolutions and linear layers follow `rule`. A batch norm belongs to the layer before it, and to none where it
      follows a sum or a concatenation: there its shift takes the share that it has in the result.
    * Sums (shortcuts) and means (average pooling) share by their terms. Max pooling gives all to the winner.
    * ReLU, ReLU6 and other activations that keep 0 and the sign (leaky ReLU, ELU, tanh) pass on what they receive. In
      a product with a gate (squeeze and excitation) the signal receives all, the gate nothing.
    * The normalisation of the images passes relevance on: maps are of the normalised image, against its mean.
    * Of other activations with a gate (GELU, SiLU, …) the gate ``f(a)/a`` is held, so they pass on what they receive;
      of a layer norm the statistics are held (AttnLRP, Achtibat et al. 2024, arXiv 2402.05602). A product of two
      signals (a gated linear unit) gives half to each. Attention follows `attention`.

    It holds for layers, functions and methods alike, in place too, and for an activation however it is spelled.
    Whatever has no rule (Softplus, a linear attention) raises `MethodError`. Of a transformer, class token and
    positions take shares too: `shares` states them.

    Parameters
    ----------
    rule
        ``"composite"``: αβ in convolutions, ε in linear layers (Montavon et al. 2019, sec. 10.3, who have γ where this
        has αβ; Kohlbrenner et al. 2020). ``"alpha-beta"``: the αβ-rule in both. ``"epsilon"``: the ε-rule in both; on
        ReLU networks without gates, nearly the gradient times the normalised image.
    epsilon
        ε, at least 0, which keeps the ε-rule's denominators from 0 and takes a share itself. [ours] As a multiple of
        the root mean square of the layer's outputs for the image, so that scaling a layer changes nothing; Bach et
        al. give it in units of the outputs.
    alpha
        α of the αβ-rule, at least 1; β is α − 1. 1 is the z⁺-rule: only what adds to a neuron receives relevance.
    first
        The rule of the layers that see the image itself: ``"box"`` (z^B: its values are known to lie between black and
        white), ``"flat"`` (equal shares for all the pixels that a neuron sees) or ``"same"`` (no other than the rest).
        None is ``"same"`` for ``rule="epsilon"``, else ``"box"``.
    bias
        Whether the biases take a share in the αβ-rule, as in Bach et al. and Montavon et al. 2019. [ours] Not by
        default, as in Gu et al. and in deep Taylor decomposition, because far less is lost then. In the ε-rule they
        always do.
    attention
        Where the relevance of attention goes. [ours] ``"value"``: the weights are held, and the values receive all, by
        what they add. ``"attnlrp"``: half to the values and half through the softmax to queries and keys, as in
        AttnLRP; what the softmax receives is not kept, so the map does not sum to the logit.
    """

    rule: LayerRule = "composite"
    epsilon: float = 1e-6
    alpha: float = 1.0
    first: FirstLayer | None = None
    bias: bool = False
    attention: Attending = "value"

    card: ClassVar[Card] = Card(
        name="lrp",
        title="Layer-wise relevance propagation",
        summary="How much of the class's logit goes to each pixel when every layer shares out what it received.",
        source="Bach et al. 2015, doi 10.1371/journal.pone.0130140; "
        "Montavon et al. 2019, doi 10.1007/978-3-030-28954-6_10",
        cost="1 forward, 1 backward of relevance for each class (as long as 2 or 3 of gradients)",
        conserves=True,
    )

    def __post_init__(self) -> None:
        one_of("rule", self.rule, ("composite", "alpha-beta", "epsilon"))
        one_of("attention", self.attention, ("value", "attnlrp"))
        if self.first is not None:
            one_of("first", self.first, _FIRST)
        if not 0 <= self.epsilon < float("inf"):
            raise bad_parameter("epsilon", "must be a finite number, 0 or more", self.epsilon)
        if not 1 <= self.alpha < float("inf"):
            raise bad_parameter("alpha", "must be a finite number, 1 or more (β is alpha − 1)", self.alpha)

    @one_thread()
    def __call__(
        self, classifier: Classifier, images: Images, classes: ManyClasses, *, create_graph: bool = False
    ) -> ManyMaps:
        """Compute the maps: (n,c,h,w) for classes (n,), (n,k,c,h,w) for classes (n,k).

        With `create_graph` they can be differentiated with respect to the images: all that the rules compute, from the
        logit that they start with to the weights and statistics that they hold.

        Raises
        ------
        MethodError
            If an operation of the model has no relevance rule, or relevance is too large for the images' precision.
        """
        return self._explain(classifier, images, classes, create_graph=create_graph)[0]

    @one_thread()
    def leak(self, classifier: Classifier, images: Images, classes: ManyClasses) -> ManyNumbers:
        """Return (n,) or (n,k) the share of each logit that the map has not: ``1 − Σ map / logit``; 0 for a logit of 0.

        What takes relevance and is no pixel: biases and shifts (a negative leak where they lower the logit), ε, neurons
        that are active by their bias alone (many in depthwise convolutions), and for α > 1 neurons without negative
        terms. A map has what is left, in right proportions. Costs as much as the maps.
        """
        maps, logits = self._explain(classifier, images, classes)
        kept = maps.double().sum((-3, -2, -1))
        return torch.where(logits == 0, 0, 1 - kept / logits).to(maps.dtype)

    @one_thread()
    def shares(self, classifier: Classifier, images: Images, classes: ManyClasses) -> dict[str, ManyNumbers]:
        """Return (n,) or (n,k) the shares of each logit, which sum to 1; 0 for a logit of 0.

        ``"image"``: what the map has; ``"joined"``: what class tokens and other constants that are joined to signals
        receive; ``"added"``: what positions and other constants that are added to them receive; ``"lost"``: the rest,
        in biases, ε, and where `leak` says.
        """
        passed, columns = _traced(classifier, images, classes, self.rules())
        chosen = passed.logits.detach().gather(1, columns)
        received: dict[str, list[Tensor]] = {"image": [], "joined": [], "added": []}
        for picked, start in zip(columns.T, chosen.T, strict=True):
            one_hot = torch.zeros_like(passed.logits).scatter(1, picked[:, None], start[:, None])
            received["image"].append(_finite(passed.relevance(one_hot)).sum((1, 2, 3)))
            received["joined"].append(passed.relevance_of(passed.joined, one_hot))
            received["added"].append(passed.relevance_of(passed.added, one_hot))
        parts = {name: torch.stack(sums, 1) / torch.where(chosen == 0, 1, chosen) for name, sums in received.items()}
        parts["lost"] = torch.where(chosen == 0, 0, 1 - parts["image"] - parts["joined"] - parts["added"])
        return parts if classes.ndim == 2 else {name: part[:, 0] for name, part in parts.items()}

    def rules(self) -> Rules:
        """Return the rule of each kind of layer."""
        epsilon = partial(epsilon_rule, epsilon=self.epsilon)
        alpha_beta = partial(alpha_beta_rule, alpha=self.alpha, bias=self.bias)
        first = self.first or ("same" if self.rule == "epsilon" else "box")
        return Rules(
            convolution=epsilon if self.rule == "epsilon" else alpha_beta,
            linear=alpha_beta if self.rule == "alpha-beta" else epsilon,
            first=_FIRST[first],
            epsilon=self.epsilon,
            attention=self.attention,
        )

    def _explain(
        self, classifier: Classifier, images: Images, classes: ManyClasses, *, create_graph: bool = False
    ) -> tuple[ManyMaps, ManyNumbers]:
        passed, columns = _traced(classifier, images, classes, self.rules(), create_graph=create_graph)
        chosen = _start(passed).gather(1, columns)
        maps = torch.stack([_relevance(passed, *pair) for pair in zip(columns.T, chosen.T, strict=True)], dim=1)
        passed.twice.over = True
        if not maps.flatten(2).any(2).all():
            warn(
                "No relevance reaches the image: the logit is 0, or comes from biases alone. Its map is empty.",
                stacklevel=4,
            )
        return (maps, chosen) if classes.ndim == 2 else (maps[:, 0], chosen[:, 0])


def _traced(
    classifier: Classifier, images: Images, classes: ManyClasses, rules: Rules, *, create_graph: bool = False
) -> tuple[Trace, Tensor]:
    """Run the forward pass; return it with the classes as (n,k)."""
    check_pairs(images, classes)
    passed = trace(classifier, images, rules, create_graph=create_graph)
    check_classes(classes, passed.logits)
    return passed, classes.long().to(passed.logits.device).reshape(len(classes), -1)


def _start(passed: Trace) -> Logits:
    """Return the logits, which relevance starts with; with their graph, if it is differentiated again."""
    return passed.logits if passed.twice.again else passed.logits.detach()


def _relevance(passed: Trace, classes: Tensor, start: Tensor) -> Maps:
    """Send relevance (n,) back from one logit of each image."""
    return _finite(passed.relevance(torch.zeros_like(passed.logits).scatter(1, classes[:, None], start[:, None])))


def _finite(maps: Maps) -> Maps:
    if not torch.isfinite(maps).all():
        raise MethodError(
            f"The relevance is too large for {maps.dtype} on this model. Give float64 images and a float64 model, a "
            "larger epsilon, or another rule."
        )
    return maps


Dual = Literal["clrp1", "clrp2"]
Others = Literal["uniform", "logits"]


@final
@dataclass(frozen=True)
class ContrastiveLRP:
    """Contrastive LRP: the relevance of a class minus that of its dual, the virtual concept opposed to it.

    ``max(0, R / ΣR − R_dual / ΣR_dual)`` (Gu, Yang, Tresp 2018, sec. 4). Maps of LRP are nearly the same for all
    classes; what tells a class apart is in this difference.

    Parameters
    ----------
    variant
        The dual: ``"clrp1"``: all other classes; ``"clrp2"``: a class whose weights in the last layer are the negated
        ones, which needs a network that ends in a linear layer. [ours] The first by default, as in the authors' code.
    others
        For ``"clrp1"``, the relevance at the start of each other class: ``"uniform"``, the same for all (the paper),
        or ``"logits"``, the absolute value of its logit (the authors' code).
    base
        The rules, with the αβ-rule in every layer. The default is the paper's: z⁺ without biases, z^B at the image.
    """

    variant: Dual = "clrp1"
    others: Others = "uniform"
    base: LRP = field(default_factory=partial(LRP, rule="alpha-beta"))

    card: ClassVar[Card] = Card(
        name="contrastive-lrp",
        title="Contrastive LRP",
        summary="What speaks for the class and not for its opposite: the difference of two maps of relevance.",
        source="Gu, Yang, Tresp 2018, arXiv 1812.02100, sec. 4",
        cost="1 forward, k + 1 backwards of relevance for k classes (clrp2: 2 k)",
    )

    def __post_init__(self) -> None:
        one_of("variant", self.variant, ("clrp1", "clrp2"))
        one_of("others", self.others, ("uniform", "logits"))
        if not isinstance(self.base, LRP) or self.base.rule != "alpha-beta":
            fix = "With ε in the last layer, a class and its negation have the same map."
            raise bad_parameter("base", "must be lrp(rule=alpha-beta), with other parameters or not", self.base, fix)

    @one_thread()
    def __call__(
        self, classifier: Classifier, images: Images, classes: ManyClasses, *, create_graph: bool = False
    ) -> ManyMaps:
        """Compute the maps, at least 0: (n,c,h,w) for classes (n,), (n,k,c,h,w) for classes (n,k).

        With `create_graph` they can be differentiated with respect to the images.

        Raises
        ------
        MethodError
            If an operation of the model has no relevance rule, or ``"clrp2"`` finds no linear layer at the end.
        """
        passed, columns = _traced(classifier, images, classes, self.base.rules(), create_graph=create_graph)
        pairs = self._against_others(passed, columns) if self.variant == "clrp1" else _against_negated(passed, columns)
        maps = [(_normalised(own) - _normalised(dual)).clamp_min(0).to(images.dtype) for own, dual in pairs]
        passed.twice.over = True
        return torch.stack(maps, dim=1) if classes.ndim == 2 else maps[0]

    def _against_others(self, passed: Trace, columns: Tensor) -> Iterator[tuple[Maps, Maps]]:
        logits = _start(passed)
        start = torch.ones_like(logits) if self.others == "uniform" else logits.abs()
        # Relevance is linear in what it starts from, so one pass of all classes serves every dual.
        everything = _finite(passed.relevance(start)).double()
        for classes in columns.T:
            relevance = _relevance(passed, classes, torch.ones_like(logits[:, 0])).double()
            yield relevance, everything - start.gather(1, classes[:, None])[:, :, None, None] * relevance


def _against_negated(passed: Trace, columns: Tensor) -> Iterator[tuple[Maps, Maps]]:
    negated = passed.negated_head()
    for classes in columns.T:
        start = torch.ones_like(passed.logits[:, 0])
        yield _relevance(passed, classes, start), _relevance(replace(passed, logits=negated), classes, start)


def _normalised(maps: Maps) -> Maps:
    maps = maps.double()
    size = maps.sum((1, 2, 3), keepdim=True)
    return torch.where(size > 0, maps / torch.where(size > 0, size, 1), 0)
