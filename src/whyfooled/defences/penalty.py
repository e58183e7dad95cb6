"""What a penalty is: a frozen dataclass that is called with a network in training; its loss adds what that gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from whyfooled.classifier import Classifier
from whyfooled.classifier.borrowing import copy_at_rest, one_thread
from whyfooled.classifier.checks import check_classifier, check_images
from whyfooled.classifier.dependence import check_recording
from whyfooled.errors import ImageError, ModelError, ParameterError, bad_parameter, first_line
from whyfooled.registry import Card
from whyfooled.saliency.backward.gradients import check_pairs
from whyfooled.types import Classes, Images, PerImage


class Penalty(ABC):
    """What a training loop adds to its loss: a number that can be differentiated with respect to the parameters.

    The network is looked at in evaluation mode, as it will be used: dropout is off, and batch norm takes its running
    statistics and leaves them as they are, so that an image's penalty does not depend on its batch. It may be computed
    before or after the loss: what the training loop does with the same network is not changed by a bit.

    Parameters
    ----------
    weight
        What the penalty is multiplied by, at least 0; at 0 nothing is computed.
    """

    weight: float
    card: ClassVar[Card]

    @final
    @one_thread()
    def __call__(self, classifier: nn.Module, images: Images, labels: Classes) -> Float[Tensor, ""]:
        """Return `weight` times the mean of `measure` over the images, to be added to the training loss.

        Inside ``torch.no_grad()`` it is the number alone, for validation.

        Parameters
        ----------
        classifier
            The network: a `Classifier`, or the module itself if it takes images in [0, 1] without normalisation.
        images
            (n,c,h,w), values in [0, 1], float32 or float64.
        labels
            (n,) The class of each.

        Raises
        ------
        ParameterError
            If no parameter is to be trained, or the labels are no class indices.
        ImageError
            If the images are not a batch of finite values in [0, 1].
        MethodError
            If a map of the network cannot be computed in the way that the penalty needs.
        ModelError
            If the logits are not finite, the network gives several labels at once, or it cannot be copied.
        """
        check_pairs(images, labels)
        if labels.ndim != 1:
            raise ParameterError(f"`labels` must have a class for each image; got the shape {tuple(labels.shape)}.")
        network = _as_classifier(classifier, images)
        if not (self.weight and len(images)):
            return images.new_zeros(())
        check_recording(network.module)
        create_graph = torch.is_grad_enabled()
        if create_graph and not any(parameter.requires_grad for parameter in network.module.parameters()):
            raise ParameterError(
                "The penalty must have a parameter to train, and none of this network's requires a gradient. Call "
                "module.requires_grad_(True), or, for the number alone, the penalty inside torch.no_grad()."
            )
        given, true = images.detach().to(network.device), labels.to(network.device)
        measured = self.measure(_with_own_buffers(network), given, true, create_graph=create_graph)
        return self.weight * measured.mean().to(images.device)

    @abstractmethod
    def measure(
        self, classifier: Classifier, images: Images, labels: Classes, *, create_graph: bool = True
    ) -> PerImage:
        """Compute (n,) the penalty of each image, without the weight; with `create_graph`, one with a gradient."""


def _as_classifier(network: nn.Module, images: Images) -> Classifier:
    """Return the classifier that a network is, or that is made of it: normalisation is then the network's own."""
    if isinstance(network, Classifier):
        check_classifier(network)
        check_images(images.float())
        return network
    if not isinstance(network, nn.Module):
        raise bad_parameter("classifier", "must be a Classifier, or a module", type(network).__name__)
    try:
        check_images(images.float())
    except ImageError as error:
        fix = "Normalisation belongs to the network: give Classifier(module, mean=..., std=...)."
        raise ImageError(f"{error} {fix}") from None
    channels, (height, width) = images.shape[1], images.shape[-2:]
    return Classifier(network, (0.0,) * channels, (1.0,) * channels, (height, width))


def _with_own_buffers(network: Classifier) -> Classifier:
    """Return the network with the same parameters and with copies of its buffers.

    The way back through batch norm reads its running statistics. A forward pass in training changes them in place, and
    PyTorch does not notice: where it lies between the penalty and ``backward()``, gradients would be wrong.
    """
    if not any(True for _ in network.module.buffers()):
        return network
    tensors = [tensor for part in network.module.modules() for tensor in vars(part).values()]
    # What a hook computed from parameters, as that of a weight norm does, cannot be copied, nor need it be.
    computed = [tensor for tensor in tensors if isinstance(tensor, Tensor) and not tensor.is_leaf]
    shared = {id(tensor): tensor for tensor in [*network.module.parameters(), *computed]}
    try:
        return network.with_module(copy_at_rest(network.module, shared))
    except Exception as error:  # whatever a part of someone else's model stumbles over
        raise ModelError(
            "The network cannot be copied, so that training cannot change its batch norms under the penalty: "
            f"{first_line(error)}."
        ) from error


def check_weight(weight: float) -> None:
    """Raise `ParameterError` unless a weight is a finite number, at least 0."""
    if not 0 <= weight < float("inf"):
        raise bad_parameter("weight", "must be a finite number, at least 0", weight)
