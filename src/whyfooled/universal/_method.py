"""What every way to fit a universal perturbation shares: its ball, its images, its result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.classifier.borrowing import one_thread
from whyfooled.classifier.checks import check_classifier, check_saliency
from whyfooled.classifier.memory import batch_size_for
from whyfooled.errors import at_least, bad_parameter, check_seed, positive
from whyfooled.registry import Card, describe, describe_value
from whyfooled.running.engines import choose_engine
from whyfooled.running.provenance import versions
from whyfooled.running.publishing import hide_folders
from whyfooled.saliency import Gradient
from whyfooled.saliency.differentiable import check_differentiable
from whyfooled.sources import class_map
from whyfooled.tensors.balls import Ball, check_epsilon, farthest, inside
from whyfooled.tensors.randomness import choose
from whyfooled.types import Image, Progress, silent
from whyfooled.universal._fitting import Fitting, start_fitting
from whyfooled.universal._given import Given, as_source
from whyfooled.universal._perturbation import UniversalPerturbation

GRADIENT = Gradient()
SCALES = (1, 255)


@dataclass(frozen=True)
class UniversalMethod(ABC):
    """A way to find one perturbation for all images. Its subclasses are frozen dataclasses that add their parameters.

    Parameters
    ----------
    epsilon
        Radius of the ball, on the scale of `scale`: a Euclidean length (``"l2"``) or the largest change of a value
        (``"linf"``). What is small depends on the number of pixels: 10 in l2 changes the values of a photograph of
        224 x 224 pixels by .026 (6.6/255) on average, those of a CIFAR image by .18.
    ball
        ``"l2"`` or ``"linf"``.
    scale
        The value of white: 1 for pixel values from 0 to 1, or 255.
    seed
        Seed of everything random.
    """

    epsilon: float = 10.0
    ball: Ball = "l2"
    scale: int = 1
    seed: int = 0

    card: ClassVar[Card]
    breaks_maps: ClassVar[bool] = True
    """Whether it is fitted to saliency maps; if not, it is to predictions, or to nothing."""

    def __post_init__(self) -> None:
        check_scaled(self.epsilon, self.ball, self.scale)
        check_seed(self.seed)

    @property
    def radius(self) -> float:
        """The ball's radius for pixel values from 0 to 1."""
        return self.epsilon / self.scale

    @final
    @one_thread()
    def fit(
        self,
        classifier: Classifier,
        source: Given,
        saliency: Any = GRADIENT,
        *,
        count: int | None = None,
        batch_size: int | None = None,
        engine: str = "local",
        address: str | None = None,
        workers: int | None = None,
        progress: Progress = silent,
    ) -> UniversalPerturbation:
        """Find the perturbation on images that the classifier classifies as what they show; others are left out.

        The result does not depend on the engine; on `batch_size`, where images are small or on a GPU, in last digits.

        Parameters
        ----------
        classifier
            The classifier whose maps are to change.
        source
            The images to fit to: any source that a study takes, or a pair of tensors, images (n,c,h,w) with values in
            [0, 1] and classes (n,). An image without a label counts as what the classifier sees in it.
        saliency
            The method whose maps are to change; its call must take ``create_graph``. Not used by methods that have
            `breaks_maps` False.
        count
            How many of the images to draw at random, by the seed; all if None.
        batch_size
            Images worked on together; as many as fit into memory if None, on a CPU 8 at most.
            Large images go one at a time there, whatever is given.
        engine
            ``"local"``: in this process. ``"ray"``: on the machines of a Ray cluster, which need the images under the
            same paths; every step is a sum over their shares.
        address
            The Ray cluster's address; one of this machine alone if None.
        workers
            Over how many cores the images are shared out, on a GPU none; if None, as many as the threads that PyTorch
            is set to, and with Ray all of the cluster's. The result does not depend on it.
        progress
            Called with the images done in this step, the images in all, and what is being done.

        Returns
        -------
        UniversalPerturbation

        Raises
        ------
        ParameterError
            If an argument has a value that it must not have, or a class does not fit the classifier.
        ImageError
            If an image cannot be read, or none can be used.
        MethodError
            If the method's maps cannot be differentiated, or have no slope on any image.
        """
        check_classifier(classifier)
        check_saliency(saliency)
        method = check_differentiable(saliency) if self.breaks_maps else saliency
        images = as_source(source)
        places = choose(len(images), count, self.seed)
        size = batch_size_for(classifier) if batch_size is None else batch_size
        at_least("batch_size", size, 1)
        chosen_engine = choose_engine(engine, address, classifier, workers)
        with start_fitting(
            classifier,
            images,
            method,
            places=places,
            class_map=class_map(images, classifier),
            batch_size=size,
            engine=chosen_engine,
            seed=self.seed,
            progress=progress,
        ) as fit:
            delta = self.find(fit).float().cpu()
        return UniversalPerturbation(
            delta=delta,
            epsilon=self.radius,
            ball=self.ball,
            method=describe(self),
            saliency=describe_value(saliency) if self.breaks_maps else "",
            model=hide_folders(classifier.name),
            model_digest=classifier.digest(),
            fitted_to=fit.digests,
            looks=fit.looks,
            images=len(fit.classes),
            wrong=len(places) - len(fit.classes),
            history=tuple(fit.history),
            passes=fit.passes,
            versions=versions(),
        )

    @abstractmethod
    def find(self, fit: Fitting) -> Image:
        """Find the (c,h,w) perturbation, inside the ball."""

    def largest(self, direction: Tensor) -> Image:
        """Return the largest perturbation in the ball along a (c,h,w) direction: for ``"linf"``, its signs."""
        return farthest(direction[None], self.radius, self.ball)[0]

    def kept_inside(self, delta: Image) -> Image:
        """Bring a perturbation back into the ball."""
        return inside(delta[None], self.radius, self.ball)[0]

    def noise_size(self, share: float, shape: tuple[int, ...]) -> float:
        """Return the standard deviation of noise that is `share` times as long as the ball's largest perturbations."""
        pixels = torch.Size(shape).numel()
        return share * self.radius / (pixels**0.5 if self.ball == "l2" else 1.0)


def check_scaled(epsilon: float, ball: Ball, scale: int) -> None:
    """Raise `ParameterError` for a radius that no image with values from 0 to `scale` can have."""
    positive("epsilon", epsilon)
    if scale not in SCALES:
        raise bad_parameter("scale", "must be the value of white, 1 or 255", scale)
    if scale > 1 and ball == "linf" and epsilon > scale:
        raise bad_parameter("epsilon", f"must be at most {scale}, the value of white, in the l-infinity ball", epsilon)
    check_epsilon(epsilon / scale, ball)
