"""What a study is: measurements on a few images at a time, and what to make of the table of all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

from matplotlib.figure import Figure
from torch import Tensor

from whyfooled.attacks import AttackResult
from whyfooled.classifier import Classifier
from whyfooled.classifier.passes import Passes
from whyfooled.drawing.summary import Summary
from whyfooled.errors import ParameterError, bad_parameter
from whyfooled.registry import Card, title
from whyfooled.studies.prepare import Prepared, Setting
from whyfooled.studies.table import Columns, Table
from whyfooled.types import Classes, Images


@final
@dataclass(frozen=True, eq=False)
class Batch:
    """The images that are measured together; no image's result depends on the others.

    Parameters
    ----------
    names
        The images' names.
    images
        (n,c,h,w), values in [0, 1], on the classifier's device.
    labels
        For each image, the classes that it shows; none if that is not known.
    adversaries
        For each attack, as on the command line, what it made of the images, where the study was given saved adversarial
        images; else empty.
    seed
        Seed of everything random; each image draws from its own generator, made from this and its content.
    prepared
        What the study's `Study.prepare` carries.
    sizes
        For each image, the height and width of its photograph before it was brought to the input size; None where it
        was none, or that is not known.
    """

    names: tuple[str, ...]
    images: Images
    labels: tuple[tuple[int, ...], ...]
    adversaries: Mapping[str, AttackResult] = field(default_factory=dict)
    seed: int = 0
    prepared: Any = None
    sizes: tuple[tuple[int, int] | None, ...] = ()

    def true_classes(self, seen: Classes) -> Classes:
        """Return (n,) what each image shows: what is seen in it, if it has no labels or that is one, else the first.

        `seen` are the classes that the classifier gives the clean images.
        """
        true = seen.clone()
        for number, labels in enumerate(self.labels):
            if labels and int(seen[number]) not in labels:
                true[number] = labels[0]
        return true

    def right(self, predicted: Classes, seen: Classes) -> list[bool]:
        """Tell of each image whether a prediction is among its labels; without any, whether it is what was seen."""
        pairs = zip(self.labels, predicted.tolist(), seen.tolist(), strict=True)
        return [now in (labels or (before,)) for labels, now, before in pairs]


@final
@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured on a batch.

    Parameters
    ----------
    rows
        One dictionary for each row: ``place``, the image's place in the batch, and the study's own columns. A method
        that does not work on the model has one row with its ``error``.
    maps
        (n,d,h,w) Saliency maps by name, to be kept beside the table if the user asks for them.
    passes
        Passes through other models than the run's classifier, whose own are counted by the runner.
    """

    rows: Sequence[Mapping[str, Any]]
    maps: Mapping[str, Tensor] = field(default_factory=dict)
    passes: Passes = field(default_factory=Passes)


def check_entries(argument: str, entries: Sequence[Any], *, once: bool = False) -> None:
    """Raise `ParameterError` unless there are some, and each once, if that is asked for."""
    if not entries or (once and len(set(entries)) < len(entries)):
        raise ParameterError(f"`{argument}` must have at least one entry{', and each once' if once else ''}.")


def check_methods(methods: Sequence[Any], argument: str = "methods") -> None:
    """Raise `ParameterError` unless there are saliency methods, with names that tell them apart in a table."""
    check_entries(argument, methods)
    for method in methods:
        if not callable(method) or not hasattr(method, "card"):
            raise bad_parameter(argument, "must be saliency methods, such as Gradient()", repr(method))
    names = [title(method) for method in methods]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ParameterError(f"`{argument}` must have different names; {twice} is there twice.")


class Study(ABC):
    """An experiment over many images that ends in a table, a summary and a figure.

    A study is a frozen dataclass with a ``card``: its fields are its parameters, `measure` does the work on a few
    images at a time, and `summarise` and `draw` see the finished table and nothing else, so that both can be done again
    from it alone. Those two are functions of a module of their own, the account of the study: ``NAME_account.py``. See
    `whyfooled.studies.run_study`.
    """

    card: ClassVar[Card]
    columns: ClassVar[Columns]
    """The columns of the rows."""
    headline: ClassVar[str]
    """What `headline_values` are, in a few words."""
    attacks_again: ClassVar[bool] = False
    """Whether it runs attacks even where it is given saved adversarial images."""

    def identity(self, setting: Setting) -> Mapping[str, Any]:
        """Tell, as plain values, what makes a run of it this one and no other, beside its parameters and the images.

        What it reads by itself, such as other images or other models, by their digests.
        """
        return {}

    def prepare(self, setting: Setting) -> Prepared:
        """Do what is done once, before the images are measured; a run that goes on calls it again.

        Raises
        ------
        WhyfooledError
            If nothing can be measured.
        """
        return Prepared(setting.places)

    @abstractmethod
    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Measure a batch.

        Raises
        ------
        WhyfooledError
            If an image cannot be measured. The others are then measured without it, and the error is kept in the table.
        """

    @classmethod
    @abstractmethod
    def headline_values(cls, rows: Sequence[Mapping[str, Any]]) -> Sequence[float]:
        """Take the values whose mean is shown while the study runs, from those rows of a shard that did not fail."""

    @staticmethod
    @abstractmethod
    def summarise(table: Table, seed: int) -> Summary:
        """Write the finished table up: means with intervals, and what they say."""

    @staticmethod
    @abstractmethod
    def draw(table: Table, seed: int) -> Figure:
        """Draw the finished table."""
