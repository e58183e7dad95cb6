"""Going over the images of a fit: every step is a sum over shards, on any engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Protocol, final, runtime_checkable

import torch
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.classifier.passes import Passes, count_passes
from whyfooled.classifier.workers import most_together
from whyfooled.errors import ImageError, MethodError
from whyfooled.images import content_digest, perceptual_hash
from whyfooled.running.engines import Crew, Engine, ModelRecipe, in_order
from whyfooled.saliency.differentiable import DifferentiableMethod
from whyfooled.sources import Sample, Source, mapped
from whyfooled.tensors.randomness import image_generators
from whyfooled.types import Classes, Images, Progress


@final
@dataclass(frozen=True, eq=False)
class Part:
    """Images that a step is computed on together.

    Parameters
    ----------
    images
        (n,c,h,w), values in [0, 1], on the classifier's device.
    classes
        (n,) What they show.
    seed
        Seed of this step's randomness.
    """

    images: Images
    classes: Classes
    seed: int

    def generators(self) -> list[torch.Generator]:
        """Make one generator for each image, another one in every step."""
        return image_generators(self.images, self.seed)


@runtime_checkable
class Step(Protocol):
    """What is computed on images, to be added up over all of them; it can be sent to another machine."""

    def __call__(self, classifier: Classifier, part: Part) -> Mapping[str, Tensor]:
        """Return sums over the images of the part, by name."""
        ...


@final
@dataclass(frozen=True, eq=False)
class _Shard:
    """A task: places in the source, and what to do with the images there."""

    places: Sequence[int]
    do: Callable[[Classifier, Sequence[Sample]], Any]


@final
@dataclass(frozen=True, eq=False)
class FitWork:
    """Reads the images of a shard, does with them what the task says, and counts the passes."""

    source: Source

    def count(self, task: _Shard) -> int:
        """Return how many images a shard has."""
        return len(task.places)

    def __call__(self, classifier: Classifier, task: _Shard, tick: Callable[[int], None]) -> tuple[Any, Passes]:
        """Work on a shard."""
        samples = [self.source[place] for place in task.places]
        # Whatever the caller has switched off: slopes are what a fit follows.
        with torch.enable_grad(), count_passes(classifier) as passes:
            result = task.do(classifier, samples)
        tick(len(samples))
        return result, passes


def _stacked(classifier: Classifier, samples: Sequence[Sample]) -> Images:
    fitted = [sample.fitted(classifier.fit, classifier.channels) for sample in samples]
    return torch.stack(fitted).to(classifier.mean)


def _cut(classifier: Classifier, of_images: Tensor) -> tuple[Tensor, ...]:
    """Cut a shard's images, or what belongs to each, into what is worked on together."""
    return torch.split(of_images, most_together(classifier, len(of_images)))


@final
@dataclass(frozen=True, eq=False)
class _Seen:
    """What is known of an image before the fit: its class, None if it is not to be used; its digests and its look."""

    shows: int | None
    digests: tuple[str, ...]
    look: str


@final
@dataclass(frozen=True, eq=False)
class _Look:
    """Looks at images for the first time."""

    class_map: tuple[int, ...] | None

    def __call__(self, classifier: Classifier, samples: Sequence[Sample]) -> list[_Seen]:
        images = _stacked(classifier, samples)
        predictions = chain.from_iterable(classifier.predict(part).tolist() for part in _cut(classifier, images))
        seen = []
        for sample, image, predicted in zip(samples, images.cpu(), predictions, strict=True):
            labels = mapped(sample.labels, self.class_map)
            digests = (content_digest(sample.image), content_digest(image))
            shows = predicted if predicted in (labels or (predicted,)) else None
            seen.append(_Seen(shows, digests, perceptual_hash(sample.image)))
        return seen


@final
@dataclass(frozen=True, eq=False)
class _Add:
    """Computes a step on images that were looked at before: one sum over all, or one of each that is taken apart."""

    step: Step
    classes: tuple[int, ...]
    seed: int

    def __call__(self, classifier: Classifier, samples: Sequence[Sample]) -> list[dict[str, Tensor]]:
        images = _stacked(classifier, samples)
        classes = torch.tensor(self.classes, device=classifier.device)
        parts = zip(_cut(classifier, images), _cut(classifier, classes), strict=True)
        all_sums = [self.step(classifier, Part(some, shown, self.seed)) for some, shown in parts]
        return [{name: value.detach().cpu() for name, value in sums.items()} for sums in all_sums]


@dataclass(eq=False)
class Fitting:
    """One fit as it goes on: the images it may use, and what it has done so far. Lives inside one fit.

    Parameters
    ----------
    shape
        (c,h,w) of the perturbation.
    saliency
        The method whose maps are to change.
    classes
        For each usable image, by its place in the source, the class that it shows.
    digests
        Of the usable images.
    batch_size
        Images in a shard, which are worked on together where they are small or on a GPU.
    seed
        Seed of everything random.
    history
        What the steps came to.
    passes
        Forward and backward passes so far.
    """

    crew: Crew[_Shard, tuple[Any, Passes]]
    shape: tuple[int, int, int]
    saliency: DifferentiableMethod
    batch_size: int
    seed: int
    progress: Progress
    classes: dict[int, int] = field(default_factory=dict)
    digests: frozenset[str] = frozenset()
    looks: frozenset[str] = frozenset()
    history: list[dict[str, float]] = field(default_factory=list)
    passes: Passes = field(default_factory=Passes)
    steps: int = 0

    @property
    def places(self) -> tuple[int, ...]:
        """The usable images' places in the source."""
        return tuple(self.classes)

    def total(self, step: Step, places: Sequence[int] | None = None, doing: str = "fit") -> dict[str, Tensor]:
        """Add up a step over images, all usable ones if None, in double precision and in the same order on any engine.

        Every call draws other random numbers.
        """
        chosen = self.places if places is None else places
        self.steps += 1
        tasks = {
            number: _Shard(shard, _Add(step, tuple(self.classes[place] for place in shard), self.step_seed))
            for number, shard in enumerate(self._split_into_shards(chosen))
        }
        sums: dict[str, Tensor] = {}
        for partial_sums in chain.from_iterable(self._in_order(tasks, doing)):
            for name, value in partial_sums.items():
                sums[name] = value.double() + sums.get(name, 0)
        return sums

    @property
    def step_seed(self) -> int:
        """The seed of this step's randomness."""
        return self.seed * 1_000_003 + self.steps

    def minibatches(self, size: int, passes: int) -> Iterator[Sequence[int]]:
        """Go over the usable images so many times, each time in another random order, `size` of them at once."""
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(passes):
            order = torch.randperm(len(self.classes), generator=generator).tolist()
            for start in range(0, len(order), size):
                yield [self.places[place] for place in order[start : start + size]]

    def start(self) -> Tensor:
        """Draw (c,h,w) independent standard normal values, by the seed."""
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(self.seed))

    def look(self, source: Source, places: Sequence[int], class_map: tuple[int, ...] | None) -> None:
        """Find out which images can be used, and what they show.

        Raises
        ------
        ImageError
            If an image cannot be read, or none is classified as what it shows.
        """
        tasks = {number: _Shard(own, _Look(class_map)) for number, own in enumerate(self._split_into_shards(places))}
        seen = [one for found in self._in_order(tasks, "look") for one in found]
        used = {place: one for place, one in zip(places, seen, strict=True) if one.shows is not None}
        if not used:
            raise ImageError(f"None of the {len(places)} images is classified as what it shows, so none can be used.")
        self.classes = {place: int(one.shows) for place, one in used.items() if one.shows is not None}
        self.digests = frozenset(digest for one in used.values() for digest in one.digests)
        self.looks = frozenset(one.look for one in used.values())

    def _split_into_shards(self, places: Sequence[int]) -> list[Sequence[int]]:
        return [places[start : start + self.batch_size] for start in range(0, len(places), self.batch_size)]

    def _in_order(self, tasks: Mapping[int, _Shard], doing: str) -> Iterator[Any]:
        """Yield the results in the order of the tasks, whichever is finished first, as soon as it is their turn."""
        for _, result in in_order(self._as_they_finish(tasks, doing), tasks):
            yield result

    def _as_they_finish(self, tasks: Mapping[int, _Shard], doing: str) -> Iterator[tuple[int, Any]]:
        done, total = 0, sum(len(task.places) for task in tasks.values())
        for number, (result, passes) in self.crew.run(tasks):
            self.passes.add(passes)
            done += len(tasks[number].places)
            self.progress(done, total, doing)
            yield number, result


@contextmanager
def start_fitting(
    classifier: Classifier,
    source: Source,
    saliency: DifferentiableMethod,
    *,
    places: Sequence[int],
    class_map: tuple[int, ...] | None,
    batch_size: int,
    engine: Engine,
    seed: int,
    progress: Progress,
) -> Iterator[Fitting]:
    """Start the workers, look at all images, and yield what a method fits with."""
    shape = (classifier.channels, *classifier.size)
    most = -(-len(places) // batch_size)
    with engine.start(FitWork(source), ModelRecipe(classifier), most) as crew:
        fit = Fitting(crew, shape, saliency, batch_size, seed, progress)
        fit.look(source, places, class_map)
        yield fit


def make_flat_error(beta: float | None) -> MethodError:
    """Make the error for maps without a slope to follow: with ReLUs, the trap of piecewise linearity.

    Parameters
    ----------
    beta
        Sharpness of the smooth activations that the slopes were taken with; None if with the ReLUs themselves.
    """
    symptom = "The maps do not change with any image, to first order: their slopes are 0 at every pixel"
    if beta is not None:
        return MethodError(
            f"{symptom}, with smooth activations too (beta={beta:g}). The model is linear, or does not depend on the "
            "images; or else `epsilon`, `noise` or `beta` is too large or too small to compute with."
        )
    return MethodError(
        f"{symptom}. A network of ReLUs "
        "is piecewise linear, so a saliency map made of its gradients is constant nearly everywhere. Leave `beta` at a "
        "number, such as 10: the fit then uses smooth activations in place of the ReLUs, and the result is evaluated "
        "on the true network."
    )
