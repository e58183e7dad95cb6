"""Relevance in place of gradients: a backward pass that carries shares of a logit, for any convolutional network.

The forward pass is made of operations that share relevance (`relevance_calls`). Automatic differentiation then does the
bookkeeping: reused modules, branches, slices and operations in place are right by construction, and nothing is left on
the model.

Whatever else is found in the graph afterwards has no relevance rule and raises `MethodError`: a plain gradient never
stands in for relevance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from whyfooled.classifier import Classifier, check_finite
from whyfooled.classifier.calling import quote
from whyfooled.classifier.checks import check_digits
from whyfooled.classifier.dependence import check_dependence, check_recording, operation
from whyfooled.errors import MethodError
from whyfooled.saliency.backward.flow import (
    MOVING,
    SHARING,
    WeightedRelevance,
    share_by,
)
from whyfooled.saliency.backward.gradients import own_copy
from whyfooled.saliency.backward.graph import (
    graph_nodes,
    is_scripted,
    true_activations,
    uncompiled,
)
from whyfooled.saliency.backward.relevance_calls import RelevanceCalls, Rules, layer_behind
from whyfooled.saliency.backward.twice import Twice
from whyfooled.types import Images, Logits, Maps


@dataclass(frozen=True, eq=False)
class Trace:
    """A forward pass from which relevance can be sent back, as often as wanted.

    Parameters
    ----------
    images
        (n,c,h,w) The tensor that the classifier was given.
    logits
        (n,m) What it returned.
    joined, added
        Constants of the model that were joined to signals, such as class tokens, or added, such as positions; with a
        row for each image.
    twice
        Whether its relevance is differentiated again. When all of it has been sent back, it is over.
    """

    images: Images
    logits: Logits
    joined: Sequence[Tensor] = ()
    added: Sequence[Tensor] = ()
    twice: Twice = field(default_factory=Twice)

    def relevance_of(self, constants: Sequence[Tensor], start: Logits) -> Tensor:
        """Return (n,) how much of the relevance that starts at the logits the constants receive."""
        received = torch.zeros_like(self.logits[:, 0])
        if constants:
            shares = torch.autograd.grad(self.logits, constants, start, retain_graph=True, allow_unused=True)
            # Windows of an image are rows beside each other.
            for share in (share for share in shares if share is not None and len(share) % len(received) == 0):
                received = received + share.reshape(len(received), -1).sum(1)
        return received.detach()

    def relevance(self, start: Logits) -> Maps:
        """Send relevance back: (n,m) at the logits to (n,c,h,w) at the images.

        Raises
        ------
        MethodError
            If the model has overwritten, in place, what relevance is shared by.
        """
        try:
            with torch.autocast(self.images.device.type, enabled=False):
                (maps,) = torch.autograd.grad(
                    self.logits, self.images, start, retain_graph=True, create_graph=self.twice.again
                )
        except RuntimeError as error:
            if "inplace operation" not in str(error):
                said = f"Relevance cannot be sent back through this model: {quote(error)}. Use gradient or gradcam."
                raise MethodError(said) from error
            raise MethodError(
                "This model overwrites the input of a layer in place, so relevance cannot be shared by it. Make that "
                "operation work on a copy."
            ) from error
        # Of relevance that is the same for all images, too, there is a derivative: 0, not an error of PyTorch.
        return maps + 0 * self.images if self.twice.again else maps

    def negated_head(self) -> Tensor:
        """Make logits whose relevance goes through the last layer with its weights and bias negated.

        Raises
        ------
        MethodError
            If the logits are not the outputs of a linear layer.
        """
        head, layer = layer_behind(self.logits)
        if layer is None:
            raise MethodError("This method needs a network whose logits are the outputs of a linear layer.")
        ones = -layer.weight.new_ones(len(layer.weight))
        negated = layer.followed_by(ones, 0 * ones)
        with torch.enable_grad():
            inputs = head.saved_tensors[0]
            return share_by(WeightedRelevance, self.twice, self.logits.neg, inputs, head.rule, negated)


def trace(classifier: Classifier, images: Images, rules: Rules, *, create_graph: bool = False) -> Trace:
    """Run the forward pass with relevance rules, and check that they reach everything.

    With `create_graph`, for relevance that is differentiated again.

    Raises
    ------
    MethodError
        If an operation between images and logits has no relevance rule, or was not seen.
    ModelError
        If the logits are not finite, or do not depend on the images.
    """
    check_digits(classifier)
    check_recording(classifier.module)
    leaf, twice = own_copy(images, create_graph), Twice(again=create_graph)
    autocast, calls = torch.autocast(images.device.type, enabled=False), RelevanceCalls(rules, leaf, twice)
    with true_activations(leaf), torch.enable_grad(), autocast, uncompiled(), calls:
        logits: Tensor = classifier(leaf)
    check_finite(logits)
    check_dependence(logits, leaf)
    _check_rules_held(classifier.module, logits, calls)
    return Trace(leaf, logits, calls.joined, calls.added, twice)


_TITLES = {
    "TransposedConvolution": "a transposed convolution",
    "Silu": "SiLU",
    "Gelu": "GELU",
    "NativeLayerNorm": "layer norm",
    "NativeGroupNorm": "group norm",
    "NativeBatchNorm": "batch norm with the batch's own statistics",
    "Mul": "a product of signals, or dropout that is on",
    "Bmm": "a product of two signals",
    "Div": "division by a signal",
    "NativeDropout": "dropout",
}


def _check_rules_held(module: nn.Module, logits: Tensor, calls: RelevanceCalls) -> None:
    if is_scripted(module):
        raise MethodError(
            "A part of this model is scripted or traced, where its operations cannot be given a relevance rule. Give "
            "the plain Python module."
        )
    met = {operation(node) for node in graph_nodes(logits, calls.images)}
    unruled = sorted({_TITLES.get(name, name) for name in met.difference(SHARING, MOVING)} | calls.refused)
    if unruled:
        raise MethodError(
            f"Relevance has no rule for {', '.join(unruled)}, which this model uses (or which runs where it is not "
            "seen, as in another thread). Use a method without rules, such as gradient or gradcam."
        )
