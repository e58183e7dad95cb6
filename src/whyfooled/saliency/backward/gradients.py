"""Gradients of logits: what every gradient-based saliency method shares."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from whyfooled.classifier import Classifier, check_classes, check_finite
from whyfooled.classifier.checks import check_digits
from whyfooled.classifier.constancy import warn_of_neighbours
from whyfooled.classifier.dependence import check_dependence, check_recording, differentiate
from whyfooled.classifier.goals import check_whole
from whyfooled.classifier.outputs import log_probabilities
from whyfooled.errors import ParameterError, bad_parameter, warn
from whyfooled.saliency.backward.graph import plain_attention, report_images, report_logits, uncompiled
from whyfooled.saliency.backward.rules import Rule, activation_rule, check_rule_held, first_order
from whyfooled.types import Images, Logits, ManyClasses, ManyMaps

Output = Literal["logit", "probability"]
OUTPUTS: tuple[Output, ...] = ("logit", "probability")


def class_gradients(
    classifier: Classifier,
    images: Images,
    classes: ManyClasses,
    *,
    rule: Rule | None = None,
    output: Output = "logit",
    create_graph: bool = False,
) -> ManyMaps:
    """Compute the gradient of one logit, or several, with respect to each image, under a rule at the activations.

    All classes are served by one forward pass; each costs one vector-Jacobian product. (A vmapped backward pass in
    place of them computes the same and is slower: inside it PyTorch runs convolutions class by class and copies the
    results together.)

    Parameters
    ----------
    classifier
        The classifier. Nothing about it changes, and no parameter's gradient is computed.
    images
        (n,c,h,w), values in [0, 1].
    classes
        (n,) or (n,k): the classes whose logits are differentiated, for each image.
    rule
        What happens at an activation; the plain gradient if None.
    output
        What is differentiated: the logits, or the probabilities that a softmax makes of them, or a sigmoid of labels.
    create_graph
        Whether the gradients can be differentiated with respect to the images, by a second backward pass. Take
        ``torch.autograd.grad(..., images)`` for it: ``backward()`` would leave gradients on the model's parameters. A
        rule is a part of the map and no derivative, so the second pass differentiates what the rule does with the
        gradient and with the activations, and these as they are.

    Returns
    -------
    Tensor
        (n,c,h,w) or (n,k,c,h,w), like `classes`.

    Raises
    ------
    ParameterError
        If the images or the classes have another shape, or a class is out of range, or `create_graph` is True and the
        images have no gradient.
    MethodError
        If the rule cannot hold on this model.
    ModelError
        If the logits are not finite, or do not depend on the images.
    """
    gradients = quiet_gradients(classifier, images, classes, rule=rule, output=output, create_graph=create_graph)
    warn_of_empty(gradients, stacklevel=4)
    return gradients


def quiet_gradients(
    classifier: Classifier,
    images: Images,
    classes: ManyClasses,
    *,
    rule: Rule | None = None,
    output: Output = "logit",
    create_graph: bool = False,
) -> ManyMaps:
    """Do as `class_gradients`, without its warning: for methods to which one gradient is a part of a sum."""
    check_pairs(images, classes)
    leaf = own_copy(images, create_graph)
    attention = plain_attention() if create_graph else nullcontext()
    with torch.enable_grad(), attention, first_order(rule) as held:
        logits = ruled_logits(classifier, leaf, held)
        several = classifier.several_labels
        values = logits if output == "logit" else log_probabilities(logits, several_labels=several).exp()
        return logit_gradients(values, classes, leaf, create_graph=create_graph)


def own_copy(images: Images, create_graph: bool) -> Images:
    """Copy what is differentiated: a module that works in place on its input must not write into the caller's."""
    if not create_graph:
        return images.detach().clone().requires_grad_()
    if not (images.requires_grad and torch.is_grad_enabled()):
        rule = "must require a gradient, or be computed from what does, where `create_graph` is True"
        given = "images that do not" if torch.is_grad_enabled() else "a call where gradients are switched off"
        raise bad_parameter("images", rule, given, "Call images.requires_grad_() first, outside torch.no_grad().")
    return images.clone()


EMPTY = "A gradient is zero at every pixel"


def warn_of_empty(gradients: ManyMaps, stacklevel: int = 3) -> None:
    """Warn the caller of the calling method if the gradient of an image is zero."""
    if not gradients.flatten(1).any(1).all():
        warn(
            f"{EMPTY}: the logit does not change with the image there (a saturated or dead network). Its map is empty.",
            stacklevel=stacklevel,
        )


def check_pairs(images: Images, classes: ManyClasses) -> None:
    """Raise `ParameterError` unless images are in single or double precision, with classes, whole numbers, for each."""
    if not isinstance(images, Tensor):
        fix = "Make a tensor of them: torch.as_tensor(images)."
        raise bad_parameter("images", "must be a tensor", type(images).__name__, fix)
    if images.dtype not in (torch.float32, torch.float64):
        fix = "The maps of two classes are nearly equal, so their difference needs the precision."
        if not images.is_floating_point():
            fix = "Values are in [0, 1]: images.float() / 255."
        raise bad_parameter("images", "must be float32 or float64", images.dtype, fix)
    if not isinstance(classes, Tensor):
        fix = "Make a tensor of them: torch.tensor([...])."
        raise bad_parameter("classes", "must be a tensor of class indices", type(classes).__name__, fix)
    check_whole("classes", classes)
    if classes.ndim not in (1, 2) or len(classes) != len(images):
        rule = f"must have the shape ({len(images)},) or ({len(images)}, k), a class or k classes for each image"
        raise ParameterError(f"`classes` {rule}; got {tuple(classes.shape)}.")


def ruled_logits(classifier: Classifier, images: Images, rule: Rule | None, *, whole_way: bool = True) -> Logits:
    """Run the forward pass whose backward pass follows a rule, and check the logits and that the rule held."""
    if images.requires_grad:
        check_recording(classifier.module)
    with activation_rule(rule) if rule is not None else uncompiled() as calls:
        logits = plain_logits(classifier, images, whole_way=whole_way)
    if calls is not None:
        check_rule_held(classifier.module, logits, images, calls)
    return logits


def plain_logits(classifier: Classifier, images: Images, *, whole_way: bool = True) -> Logits:
    """Run a forward pass in full precision, and check that the logits are finite and depend on the images.

    Where gradients are taken from a layer on, not the `whole_way`, it may be cut off between the images and the layer.
    """
    check_digits(classifier)
    report_images(images)
    with torch.autocast(images.device.type, enabled=False):
        logits: Tensor = classifier(images)
    check_finite(logits)
    if images.requires_grad and (whole_way or logits.grad_fn is None):
        check_dependence(logits, images)
    report_logits(classifier.module, logits, images)
    warn_of_neighbours(logits)
    return logits


def logit_gradients(
    logits: Logits, classes: ManyClasses, inputs: Tensor | GradientEdge, *, create_graph: bool = False
) -> Tensor:
    """Differentiate the classes' logits with respect to anything they were computed from, (n,…) -> (n,…) or (n,k,…).

    That is a tensor, or the place in the graph where it was made.
    """
    check_classes(classes, logits)
    columns = classes.long().to(logits.device)
    columns = columns.unsqueeze(1) if classes.ndim == 1 else columns
    chosen = logits.gather(1, columns)
    last = chosen.shape[1] - 1
    gradients = [
        differentiate(chosen[:, k].sum(), inputs, retain_graph=create_graph or k < last, create_graph=create_graph)
        for k in range(chosen.shape[1])
    ]
    if create_graph and isinstance(inputs, Tensor):
        # The gradient of a linear model is a constant, and has a derivative all the same: 0, not an error of PyTorch.
        gradients = [gradient + 0 * inputs for gradient in gradients]
    return gradients[0] if classes.ndim == 1 else torch.stack(gradients, dim=1)
