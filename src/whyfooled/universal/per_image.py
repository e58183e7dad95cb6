"""An attack on the interpretation of each image by itself: what universal perturbations are compared with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from whyfooled.attacks import AttackResult
from whyfooled.classifier import Classifier, check_classes
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.checks import check_classifier, check_images, check_saliency
from whyfooled.classifier.goals import Kept, check_class_vector
from whyfooled.classifier.passes import count_passes
from whyfooled.classifier.workers import compute_logits
from whyfooled.errors import ParameterError, at_least, bad_parameter, check_seed, one_of, positive
from whyfooled.registry import Card
from whyfooled.saliency import Gradient
from whyfooled.saliency.differentiable import check_differentiable
from whyfooled.saliency.interpretations import check_beta, smoothed
from whyfooled.tensors.balls import Ball, farthest, inside, length
from whyfooled.tensors.randomness import image_generators, normal, uniform
from whyfooled.types import Classes, Flags, Images, PerImage
from whyfooled.universal._aims import AIMED, OBJECTIVES, Objective, make_measure
from whyfooled.universal._fitting import make_flat_error
from whyfooled.universal._losses import log_odds_against, loss_slopes
from whyfooled.universal._method import check_scaled
from whyfooled.universal.dissimilarity import distance
from whyfooled.universal.maps import interpret, slopes

_RANDOM = 19
"""With how many random perturbations each image's is compared: by chance it is beyond all for one of 20. [ours]"""


@final
@dataclass(frozen=True)
class InterpretationAttack:
    """Changes the saliency map of each image by a perturbation of its own (Ghorbani, Abid, Zou 2019, algorithm 1).

    Steps of fixed length along the slope of an objective, from a random point of the ball and back into it after each.
    The slopes are taken with smooth activations, because those of a network of ReLUs are 0; every iterate is judged on
    the true network, and the best one is the result: with `keep_label`, the best of those that the classifier gives
    the clean image's class; the clean image itself if none is better.

    It differs from the paper in these points [ours]: it works in the l2 ball too; with `keep_label`, an iterate that
    lost the class steps towards it in place of along the objective, on the true network, where the paper only leaves
    such iterates out; steps go along the mean of past slopes (momentum), and shrink linearly to 0.

    Parameters
    ----------
    epsilon
        Radius of the ball, on the scale of `scale`: a Euclidean length (``"l2"``) or the largest change of a value
        (``"linf"``).
    ball
        ``"l2"`` or ``"linf"``.
    scale
        The value of white: 1 for pixel values from 0 to 1, or 255.
    seed
        Seed of the starts; each image has its own, made from this and its content.
    objective
        What is made large. ``"dissimilarity"``: that of the clean map and the map now. ``"top-k"``: minus the saliency
        that is left on the clean map's most salient pixels. ``"mass-centre"``: how far the centre of mass moves, in
        pixels. ``"region"``: the saliency on given pixels, the paper's targeted attack. ``"target"``: minus the
        dissimilarity of a given map and the map now (Dombrowski et al. 2019, arXiv 1906.07983).
    share
        Which share of the pixels ``"top-k"`` means; at least one pixel. [ours]
    steps
        How many steps.
    step_size
        Length of the first step, as a share of `epsilon`. [ours]
    momentum
        How much of the past slopes, each at length 1, is kept, from 0 to below 1. [ours]
    beta
        Sharpness of the smooth activations, see `whyfooled.saliency.smooth_activations`; None for the true ones.
    keep_label
        Whether the predicted class has to stay.
    clip
        Whether values are kept in [0, 1]. If not, the images can be compared with ones that a universal perturbation
        was added to without clipping.
    saliency
        The method whose maps are to change, unless a call names another; one that can be differentiated.
    """

    epsilon: float = 10.0
    ball: Ball = "l2"
    scale: int = 1
    seed: int = 0
    objective: Objective = "dissimilarity"
    share: float = 0.05
    steps: int = 40
    step_size: float = 0.15
    momentum: float = 0.8
    beta: float | None = 10.0
    keep_label: bool = True
    clip: bool = True
    saliency: Any = field(default_factory=Gradient)

    card: ClassVar[Card] = Card(
        name="per-image",
        title="Attack on each image's interpretation",
        summary="The map of each image changed by a perturbation of its own.",
        source="Ghorbani, Abid, Zou 2019, arXiv 1710.10547, algorithm 1",
        cost="2 maps and 1 forward, then for each of `steps`: 2 maps, one of them differentiated, and 1 forward; "
        "with `keep_label` a gradient more",
    )

    def __post_init__(self) -> None:
        check_scaled(self.epsilon, self.ball, self.scale)
        check_seed(self.seed)
        one_of("objective", self.objective, OBJECTIVES)
        if not 0 < self.share <= 1:
            raise bad_parameter("share", "must be above 0 and at most 1", self.share)
        at_least("steps", self.steps, 1)
        positive("step_size", self.step_size)
        if not 0 <= self.momentum < 1:
            raise bad_parameter("momentum", "must be at least 0 and below 1", self.momentum)
        check_beta(self.beta)
        check_saliency(self.saliency)
        check_differentiable(self.saliency)

    @property
    def measured_by(self) -> Ball:
        """The norm that its perturbations are measured by: its ball's."""
        return self.ball

    @property
    def radius(self) -> float:
        """The ball's radius for pixel values from 0 to 1."""
        return self.epsilon / self.scale

    @one_thread()
    @torch.enable_grad()
    def __call__(
        self,
        classifier: Classifier,
        images: Images,
        classes: Classes,
        saliency: Any = None,
        *,
        target_maps: Tensor | None = None,
    ) -> Images:
        """Perturb the images.

        Parameters
        ----------
        classifier
            The classifier whose maps are to change.
        images
            (n,c,h,w), values in [0, 1]. All are worked on together; one's result does not depend on the others.
        classes
            (n,) The classes whose maps are to change.
        saliency
            The method whose maps are to change; its call must take ``create_graph``. The attack's own if None.
        target_maps
            (n,h,w), none negative: for the objective ``"target"`` the map to reach, on any scale; for ``"region"`` 1 at
            the pixels to draw the saliency to and 0 elsewhere, or weights. Not taken by other objectives.

        Returns
        -------
        Tensor
            (n,c,h,w) The perturbed images, float32; their values may lie outside [0, 1] if `clip` is False.

        Raises
        ------
        ParameterError
            If the classes do not fit, or there are target maps where none are needed, none where they are, or ones of
            another shape.
        ImageError
            If the images are not a batch in float32 with values in [0, 1].
        MethodError
            If the method's maps cannot be differentiated, or do not change with an image, to first order.
        """
        chosen = self.saliency if saliency is None else saliency
        check_saliency(chosen)
        method = check_differentiable(chosen)
        self._check(classifier, images, classes, target_maps)
        images, classes = images.detach().to(classifier.mean), classes.to(classifier.device)
        clean = interpret(method, classifier, images, classes)
        with smoothed(self.beta):
            smooth = interpret(method, classifier, images, classes)
        measure = make_measure(self.objective, clean, self.share, target_maps)
        label = classifier.predict(images)
        ended, best = images.clone(), measure(clean, clean)
        point, speed = self._draw_start(images), torch.zeros_like(images)
        for step in range(self.steps + 1):
            reached = measure(clean, interpret(method, classifier, point, classes))
            kept = classifier.predict(point) == label
            better = (reached > best) & (kept | (not self.keep_label))
            ended[better], best[better] = point[better], reached[better]
            if step == self.steps:
                break
            slope = slopes(method, classifier, point, classes, smooth, self.beta, measure)[0]
            if step == 0 and not (slope.flatten(1).any(1) | best.isnan()).all():
                raise make_flat_error(self.beta)
            speed = self.momentum * speed + farthest(slope, 1, "l2")
            way = speed
            if self.keep_label and not kept.all():
                back = -loss_slopes(classifier, point, label, log_odds_against)[0]
                way = torch.where(kept.view(-1, 1, 1, 1), speed, back)
            rate = self.step_size * (1 - step / self.steps)
            point = self._bring_back(images, point + rate * farthest(way, self.radius, self.ball))
        return ended

    @one_thread()
    def run_keeping_class(self, classifier: Classifier, images: Images, labels: Classes) -> AttackResult:
        """Perturb the images that are given their true class, and verify what became of the class and of its map.

        An image's map is changed if it lies further from the clean one than under each of 19 random perturbations of
        the same length, which chance does for one image of 20. [ours]

        Parameters
        ----------
        classifier
            The classifier whose maps are to change.
        images
            (n,c,h,w), values in [0, 1].
        labels
            (n,) What each image shows.

        Returns
        -------
        AttackResult
            Its goal is `whyfooled.classifier.goals.Kept`. Success: the class is kept and its map is changed. Its passes
            are the mean over the images, rounded up; those of the verification are not counted.

        Raises
        ------
        ParameterError
            If values need not stay in [0, 1] (`clip`), or the objective needs a map to be given.
        """
        self._check_keeping()
        check_classifier(classifier)
        check_images(images)
        images, goal = images.detach().to(classifier.mean), Kept(labels.to(classifier.device))
        clean_logits = compute_logits(classifier, images)
        check_classes(goal.classes, clean_logits)
        right = (~goal.settled(clean_logits)).nonzero()[:, 0]
        attempted, changed = images.clone(), torch.zeros_like(goal.classes, dtype=torch.bool)
        forwards = torch.zeros_like(goal.classes, dtype=torch.int64)
        backwards = torch.zeros_like(forwards)
        if len(right):
            given = images[right], goal.classes[right]
            with count_passes(classifier) as passes:
                attempted[right] = self(classifier, *given)
            forwards[right], backwards[right] = -(-passes.forwards // len(right)), -(-passes.backwards // len(right))
            changed[right] = self._tell_changed(classifier, *given, attempted[right])
        verified = AttackResult.from_images(classifier, images, attempted, goal)
        return replace(verified, forwards=forwards, backwards=backwards, norm=self.ball).only_where(changed)

    def _tell_changed(self, classifier: Classifier, clean: Images, classes: Classes, moved: Images) -> Flags:
        """Tell (n,) whose map lies further from the clean one than under every random perturbation as large."""
        before = interpret(self.saliency, classifier, clean, classes)

        def measure_from(images: Images) -> PerImage:
            return distance(before, interpret(self.saliency, classifier, images, classes))

        reached = measure_from(moved)
        changed = torch.ones_like(reached, dtype=torch.bool)
        delta = moved - clean
        sizes = length(delta) if self.ball == "l2" else delta.abs().amax((1, 2, 3), keepdim=True)
        for number in range(_RANDOM):
            drawn = normal(clean, image_generators(clean, self.seed + 1 + number))
            changed &= reached > measure_from((clean + sizes * farthest(drawn, 1, self.ball)).clamp(0, 1))
        return changed

    def _draw_start(self, images: Images) -> Images:
        """Draw a point of the ball for each image: uniformly in l-infinity, on the surface of the l2 ball."""
        generators = image_generators(images, self.seed)
        if self.ball == "linf":
            return self._bring_back(images, images + self.radius * (2 * uniform(images, generators) - 1))
        return self._bring_back(images, images + farthest(normal(images, generators), self.radius, "l2"))

    def _bring_back(self, images: Images, perturbed: Images) -> Images:
        """Bring perturbed images back into the ball and, with `clip`, into [0, 1], which holds the ball's centre."""
        kept = images + inside(perturbed - images, self.radius, self.ball)
        return kept.clamp(0, 1) if self.clip else kept

    def _check_keeping(self) -> None:
        if not self.clip:
            raise bad_parameter("clip", "must be true where images are kept: values lie in [0, 1]", self.clip)
        if self.objective in AIMED:
            given = f"the objective {self.objective}"
            raise bad_parameter("objective", "must be one that needs no map to be given", given)

    def _check(self, classifier: Classifier, images: Tensor, classes: Tensor, targets: Tensor | None) -> None:
        check_classifier(classifier)
        check_images(images)
        check_class_vector("classes", classes)
        if len(classes) != len(images):
            raise ParameterError(f"`classes` must have one for each of the {len(images)} images; got {len(classes)}.")
        needed = self.objective in AIMED
        if targets is None:
            if needed:
                raise bad_parameter("target_maps", f"must be given for the objective {self.objective}", None)
            return
        if not needed:
            rule = f"must be None unless the objective is {' or '.join(AIMED)}"
            raise bad_parameter("target_maps", rule, f"maps for {self.objective}")
        shape = (len(images), *images.shape[2:])
        if tuple(targets.shape) != shape:
            raise bad_parameter("target_maps", f"must have the shape {shape}", tuple(targets.shape))
        if not (targets.isfinite().all() and (targets >= 0).all() and targets.flatten(1).any(1).all()):
            raise bad_parameter("target_maps", "must be finite, none negative, none 0 everywhere", "other values")
