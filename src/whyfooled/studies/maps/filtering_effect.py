"""Whether a map depends on the class it is made for, by its signs or by its size alone (Gu & Tresp 2019, fig. 1)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.errors import MethodError, at_least
from whyfooled.registry import Card, title
from whyfooled.saliency import Deconvnet, Enhanced, Gradient, GuidedBackprop
from whyfooled.studies.maps import filtering_effect_account
from whyfooled.studies.parts.maps import TitledMaps, check_none_works, make_error_rows, scatter_maps
from whyfooled.studies.study import Batch, Measured, Study, check_methods
from whyfooled.studies.table import Columns
from whyfooled.tensors.measures import average_difference, binary_similarity, chance_similarity
from whyfooled.types import Images, Logits

LABELS, PREDICTED = "its labels", "the classifier's top classes"


@final
@dataclass(frozen=True)
class FilteringEffect(Study):
    """Compare the maps of pairs of classes of one image: where they are positive, and how large they are.

    Classes are the image's labels where it has several, else the `top` classes that the classifier gives it.

    Parameters
    ----------
    methods
        Saliency methods that explain classes one by one; enhanced ones do not, and are named as failures.
    top
        How many of the strongest classes stand for those of an image that does not have several labels. [ours]
    """

    methods: tuple[Any, ...] = (Gradient(), Deconvnet(), GuidedBackprop())
    top: int = 3

    card: ClassVar[Card] = Card(
        name="filtering-effect",
        title="The filtering effect",
        summary="How alike the maps of two classes of one image are, by their signs and by their size.",
        source="Gu & Tresp 2019, arXiv 1908.08413, sec. 2 and fig. 1",
        cost="2 forwards, and a backward pass for each class, of each method",
    )
    columns: ClassVar[Columns] = {
        "classes": "text",
        "method": "text",
        "class_a": "whole",
        "class_b": "whole",
        **dict.fromkeys(filtering_effect_account.NUMBERS, "real"),
    }
    headline: ClassVar[str] = "similarity"

    def __post_init__(self) -> None:
        at_least("top", self.top, 2)
        check_methods(self.methods)

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Compute each image's maps for its classes, and compare them two by two."""
        rows: list[dict[str, Any]] = []
        kept: dict[str, Tensor] = {}
        # Images with equally many classes go through the classifier together.
        groups: dict[int, list[_Asked]] = defaultdict(list)
        for asked in self._classes(classifier.logits(batch.images), batch):
            groups[len(asked.classes)].append(asked)
        for group in groups.values():
            places = [asked.place for asked in group]
            for name, maps in self._maps(classifier, batch.images[places], group):
                if isinstance(maps, MethodError):
                    rows += make_error_rows(({"place": place} for place in places), name, maps)
                    continue
                rows += _compare(name, group, maps)
                for rank, of_class in enumerate(maps.unbind(1), start=1):
                    key = f"{name}, class {rank}"
                    kept[key] = kept.get(key, 0) + scatter_maps(of_class, places, len(batch.images))
        return Measured(rows, kept)

    def _classes(self, logits: Logits, batch: Batch) -> Iterator[_Asked]:
        strongest = logits.topk(min(self.top, logits.shape[1]), dim=1).indices.tolist()
        for place, (labels, predicted) in enumerate(zip(batch.labels, strongest, strict=True)):
            yield _Asked(place, LABELS, labels) if len(labels) > 1 else _Asked(place, PREDICTED, tuple(predicted))

    def _maps(self, classifier: Classifier, images: Images, group: Sequence[_Asked]) -> TitledMaps:
        """Compute (n,k,d,h,w) the maps of every method, or say why it has none."""
        classes = torch.tensor([asked.classes for asked in group], device=images.device)
        for method in self.methods:
            if isinstance(method, Enhanced):
                yield title(method), MethodError("It holds a class against another, so it has no map of a class alone.")
                continue
            try:
                yield title(method), method(classifier, images, classes)
            except MethodError as error:
                check_none_works(error, method, classifier, images, classes)
                yield title(method), error

    @classmethod
    def headline_values(cls, rows: Sequence[Mapping[str, Any]]) -> Sequence[float]:
        """Take the similarity under the last method."""
        return [row["similarity"] for row in rows if row["method"] == rows[-1]["method"]]

    summarise = staticmethod(filtering_effect_account.summarise)
    draw = staticmethod(filtering_effect_account.draw)


@dataclass(frozen=True)
class _Asked:
    """The classes that an image is asked about, and where they come from."""

    place: int
    origin: str
    classes: tuple[int, ...]


def _compare(method: str, group: Sequence[_Asked], maps: Tensor) -> Iterator[dict[str, Any]]:
    for a, b in combinations(range(maps.shape[1]), 2):
        pair = maps[:, a], maps[:, b]
        values = [measure(*pair).tolist() for measure in (binary_similarity, chance_similarity, average_difference)]
        for asked, *numbers in zip(group, *values, strict=True):
            yield {
                "place": asked.place,
                "classes": asked.origin,
                "method": method,
                "class_a": asked.classes[a],
                "class_b": asked.classes[b],
                **dict(zip(filtering_effect_account.NUMBERS, numbers, strict=True)),
            }
