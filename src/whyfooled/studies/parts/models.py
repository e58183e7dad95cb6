"""Several models that are shown the same pixels, loaded once by each worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from whyfooled.classifier import Classifier
from whyfooled.classifier.resizing import resizing
from whyfooled.classifier.zoo import load_classifier
from whyfooled.errors import ParameterError
from whyfooled.sources import Source, class_map


@final
@dataclass(frozen=True, eq=False)
class Models:
    """Models by name, as `load_classifier` takes them; what is loaded is not sent to other processes.

    Parameters
    ----------
    names
        Their names.
    seed
        Seed of untrained weights.
    """

    names: tuple[str, ...]
    seed: int = 0
    loaded: dict[str, Classifier] = field(default_factory=dict, repr=False)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.names, self.seed)

    def get(self, name: str, like: Classifier) -> Classifier:
        """Return a model that takes images as the run's classifier does; the run's own, if it is called so."""
        if name == like.name:
            return like
        if name not in self.loaded:
            self.loaded[name] = resizing(load_classifier(name, device=str(like.device), seed=self.seed), like.fit)
        return self.loaded[name]


def check_same_classes(models: Models, classifier: Classifier, sources: Sequence[Source]) -> None:
    """Raise `ParameterError` unless all models tell the classes of the run's classifier apart, in its order."""
    called, count = classifier.name, classifier.class_count()
    for name in models.names:
        model = models.get(name, classifier)
        classes = model.class_count()
        if model.channels != classifier.channels:
            raise ParameterError(f"{name} takes {model.channels} channels and {called} {classifier.channels}.")
        if classes != count:
            raise ParameterError(
                f"`models` must tell the same classes apart; {name} has {classes} and {called} {count}."
            )
        if any(class_map(source, model) != class_map(source, classifier) for source in sources):
            raise ParameterError(f"`models` must have their classes in one order; {name} and {called} have another.")
