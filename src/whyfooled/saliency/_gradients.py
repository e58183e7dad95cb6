"""Gradients of logits: what every gradient-based saliency method shares."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from whyfooled.classifier import Classifier, check_classes, check_finite
from whyfooled.errors import ModelError, ParameterError, WhyfooledWarning, bad_parameter
from whyfooled.saliency._graph import uncompiled
from whyfooled.saliency.rules import Rule, check_rule_held, relu_rule
from whyfooled.types import Images, Logits, ManyClasses, ManyMaps


def class_gradients(
    classifier: Classifier, images: Images, classes: ManyClasses, *, rule: Rule | None = None
) -> ManyMaps:
    """Compute the gradient of one logit, or several, with respect to each image, under a rule at the ReLUs.

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
        What happens at a ReLU; the plain gradient if None.

    Returns
    -------
    Tensor
        (n,c,h,w) or (n,k,c,h,w), like `classes`.

    Raises
    ------
    ParameterError
        If the images or the classes have another shape, or a class is out of range.
    MethodError
        If the rule cannot hold on this model.
    ModelError
        If the logits are not finite, or do not depend on the images.
    """
    gradients = quiet_gradients(classifier, images, classes, rule=rule)
    warn_of_empty(gradients, stacklevel=4)
    return gradients


def quiet_gradients(
    classifier: Classifier, images: Images, classes: ManyClasses, *, rule: Rule | None = None
) -> ManyMaps:
    """Do as `class_gradients`, without its warning: for methods to which one gradient is a part of a sum."""
    check_pairs(images, classes)
    # A fresh leaf with its own storage: a module that works in place on its input must not write into the caller's.
    leaf = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        logits = ruled_logits(classifier, leaf, rule)
        return logit_gradients(logits, classes, leaf)


EMPTY = "A gradient is zero at every pixel"


def warn_of_empty(gradients: ManyMaps, stacklevel: int = 3) -> None:
    """Warn the caller of the calling method if the gradient of an image is zero."""
    if not gradients.flatten(1).any(1).all():
        warnings.warn(
            f"{EMPTY}: the logit does not change with the image there (a saturated or dead network). Its map is empty.",
            WhyfooledWarning,
            stacklevel=stacklevel,
        )


def check_pairs(images: Images, classes: ManyClasses) -> None:
    """Raise `ParameterError` unless the images are in single or double precision and there are classes for each."""
    if images.dtype not in (torch.float32, torch.float64):
        fix = "The maps of two classes are nearly equal, so their difference needs the precision."
        raise bad_parameter("images", "must be float32 or float64", images.dtype, fix)
    if not isinstance(classes, Tensor):
        fix = "Make a tensor of them: torch.tensor([...])."
        raise bad_parameter("classes", "must be a tensor of class indices", type(classes).__name__, fix)
    if classes.ndim not in (1, 2) or len(classes) != len(images):
        rule = f"must have the shape ({len(images)},) or ({len(images)}, k), a class or k classes for each image"
        raise ParameterError(f"`classes` {rule}; got {tuple(classes.shape)}.")


def ruled_logits(classifier: Classifier, images: Images, rule: Rule | None) -> Logits:
    """Run the forward pass whose backward pass follows a rule, and check the logits and that the rule held."""
    with relu_rule(rule) if rule is not None else uncompiled() as calls:
        logits = plain_logits(classifier, images)
    if calls is not None:
        check_rule_held(classifier.module, logits, calls)
    return logits


def plain_logits(classifier: Classifier, images: Images) -> Logits:
    """Run a forward pass in full precision, and check that the logits are finite and depend on the images."""
    with torch.autocast(images.device.type, enabled=False):
        logits: Tensor = classifier(images)
    check_finite(logits)
    if images.requires_grad and logits.grad_fn is None:
        raise ModelError("The model's logits do not depend on the images by operations that have a gradient.")
    return logits


def logit_gradients(logits: Logits, classes: ManyClasses, inputs: Tensor) -> Tensor:
    """Differentiate the classes' logits with respect to anything they were computed from, (n,…) -> (n,…) or (n,k,…)."""
    check_classes(classes, logits)
    columns = classes.long().to(logits.device)
    columns = columns.unsqueeze(1) if classes.ndim == 1 else columns
    chosen = logits.gather(1, columns)
    last = chosen.shape[1] - 1
    gradients = [
        torch.autograd.grad(chosen[:, k].sum(), inputs, retain_graph=k < last)[0] for k in range(chosen.shape[1])
    ]
    return gradients[0] if classes.ndim == 1 else torch.stack(gradients, dim=1)
