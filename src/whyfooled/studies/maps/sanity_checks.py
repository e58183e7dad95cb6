"""Whether maps depend on what the model has learned: sanity checks of saliency methods (Adebayo et al. 2018)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from whyfooled.classifier import Classifier
from whyfooled.classifier.classifier import strongest_other
from whyfooled.classifier.passes import Passes, count_passes
from whyfooled.classifier.randomised import PARTS, Part, list_parts, randomise_in_turn
from whyfooled.errors import MethodError, ParameterError, at_least, bad_parameter
from whyfooled.registry import Card
from whyfooled.saliency.alikeness import ALIKENESS
from whyfooled.studies.maps import sanity_checks_account
from whyfooled.studies.maps.sanity_checks_account import CASCADING, LABELS, OTHERS
from whyfooled.studies.parts.defaults import METHODS
from whyfooled.studies.parts.held_out import over_batches
from whyfooled.studies.parts.maps import compute_maps, make_error_rows, sort_out
from whyfooled.studies.parts.models import Models, check_same_classes
from whyfooled.studies.prepare import Prepared, Setting
from whyfooled.studies.study import Batch, Measured, Study, check_methods
from whyfooled.studies.table import Columns
from whyfooled.tensors.randomness import choose
from whyfooled.types import Classes, Images


@final
@dataclass(frozen=True)
class SanityChecks(Study):
    """Compare each method's map of an image with the map that it gives once the model has forgotten what it learned.

    Weights are randomised from the head down, all down to a part (cascading), and one part alone (independent); labels
    by another model, which was trained on shuffled ones. A map explains the class that the model itself sees in the
    image, whatever the other one makes of it; enhanced methods contrast it with the strongest other. Chance is the
    similarity to maps of other images, by the same method.

    Parameters
    ----------
    methods
        Saliency methods.
    parts
        Into how many parts the layers below the head are divided. [ours]: the paper randomises every layer by itself.
    randomised_labels
        A model trained on the same images with shuffled labels, as ``--model`` takes it; labels are left out if "".
    others
        How many other images chance is averaged over. [ours]
    """

    methods: tuple[Any, ...] = METHODS
    parts: int = PARTS
    randomised_labels: str = ""
    others: int = 5

    card: ClassVar[Card] = Card(
        name="sanity-checks",
        title="Sanity checks of saliency methods",
        summary="Whether maps change when the model forgets what it learned: with random weights, and random labels.",
        source="Adebayo et al. 2018, arXiv 1810.03292",
        cost="the methods' maps, once as they are and twice for each part of the model; once more for random labels",
    )
    columns: ClassVar[Columns] = {
        "method": "text",
        "randomised": "text",
        "step": "whole",
        "layers": "text",
        "class": "whole",
        **dict.fromkeys(ALIKENESS, "real"),
    }
    headline: ClassVar[str] = "maps of a random model more alike than by chance"

    def __post_init__(self) -> None:
        check_methods(self.methods)
        at_least("parts", self.parts, 1)
        at_least("others", self.others, 1)

    def identity(self, setting: Setting) -> Mapping[str, Any]:
        """Tell which weights the model trained on shuffled labels has."""
        if not self.randomised_labels:
            return {}
        models = Models((self.randomised_labels,), setting.seed)
        return {"randomised_labels_digest": models.get(self.randomised_labels, setting.classifier).digest()}

    def prepare(self, setting: Setting) -> Prepared:
        """Divide the model into parts, and compute the maps of the images that chance is taken from."""
        if len(setting.places) < 2:
            rule = "must be at least 2, because a map is compared with those of other images"
            raise bad_parameter("images", rule, len(setting.places))
        models = None
        if self.randomised_labels:
            models = Models((self.randomised_labels,), setting.seed)
            _check_another(models.get(self.randomised_labels, setting.classifier), setting.classifier)
            check_same_classes(models, setting.classifier, [setting.source])
        # One more than is needed, for an image that is one of them itself.
        some = choose(len(setting.places), self.others + 1, setting.seed)
        with count_passes(setting.classifier) as passes:
            parts = list_parts(setting.classifier, self.parts)
            seen, notes = over_batches(
                setting, [setting.places[number] for number in some], self._see(setting.classifier), "maps of others"
            )
        if sum(len(other.images) for other in seen) < 2:
            raise ParameterError(f"Chance needs maps of other images, and none can be had. {notes[0]}")
        return Prepared(setting.places, _Carried(parts, _Others.join(seen), models), passes, tuple(notes))

    def _see(self, classifier: Classifier) -> Any:
        def see(batch: Batch) -> _Others:
            maps = compute_maps(self.methods, classifier, batch.images, *_choose_classes(classifier, batch.images))
            return _Others(batch.images, {name: part for name, part in maps if isinstance(part, Tensor)})

        return see

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Compute the maps of the model as it is, and of each randomised one, and compare them."""
        carried: _Carried = batch.prepared
        explained = _choose_classes(classifier, batch.images)
        rows: list[dict[str, Any]] = []
        kept: dict[str, Tensor] = {}
        before: dict[str, Tensor] = {}
        for name, maps in compute_maps(self.methods, classifier, batch.images, *explained):
            if isinstance(maps, MethodError):
                rows += make_error_rows(({"place": place} for place in range(len(batch.images))), name, maps)
                continue
            before[name] = kept[name] = maps
            rows += carried.others.compare(name, batch.images, maps, explained[0])
        whole = Passes()
        for facts, model in self._forget(classifier, carried, batch.seed):
            with count_passes(model, besides=classifier) as passes:
                for name, after in compute_maps(self.methods, model, batch.images, *explained):
                    if name not in before:
                        continue
                    both, error = sort_out((before[name], after))
                    places = ({"place": place, **facts} for place in range(len(batch.images)))
                    rows += (
                        make_error_rows(places, name, error) if error else _compare(name, facts, explained[0], *both)
                    )
                    if isinstance(after, Tensor):
                        kept[f"{facts['randomised']} {facts['step']}/{name}"] = after
            whole.add(passes)
        return Measured(rows, kept, passes=whole)

    def _forget(
        self, classifier: Classifier, carried: _Carried, seed: int
    ) -> Iterator[tuple[dict[str, Any], Classifier]]:
        """Give each model that has forgotten something, and what its rows begin with."""
        for model in randomise_in_turn(classifier, carried.parts, seed):
            facts = {"randomised": model.order, "step": model.step, "layers": model.part.name}
            yield facts, model.classifier
        if carried.models is not None:
            other = carried.models.get(self.randomised_labels, classifier)
            yield {"randomised": LABELS, "step": 1, "layers": self.randomised_labels}, other

    @classmethod
    def headline_values(cls, rows: Sequence[Mapping[str, Any]]) -> Sequence[float]:
        """Tell of each map of the wholly randomised model whether it is more like the model's own than chance is."""
        cascading = [row for row in rows if row["randomised"] == CASCADING]
        last = max((row["step"] for row in cascading), default=0)
        measure = next(iter(ALIKENESS))
        chance = {(row["index"], row["method"]): row[measure] for row in rows if row["randomised"] == OTHERS}
        whole = [row for row in cascading if row["step"] == last]
        return [float(row[measure] > chance.get((row["index"], row["method"]), 1.0)) for row in whole]

    summarise = staticmethod(sanity_checks_account.summarise)
    draw = staticmethod(sanity_checks_account.draw)


def _choose_classes(classifier: Classifier, images: Images) -> tuple[Classes, Classes]:
    """Choose the class that the model sees in each image, and the strongest other."""
    logits = classifier.logits(images)
    seen = logits.argmax(1)
    return seen, strongest_other(logits, seen)


def _check_another(model: Classifier, classifier: Classifier) -> None:
    """Raise `ParameterError` if a model that was to be trained on shuffled labels is the one that is examined."""
    if model.digest() == classifier.digest():
        rule = "must be another model, trained on shuffled labels"
        raise bad_parameter("randomised_labels", rule, f"{model.name}, which has the same weights")


@final
@dataclass(frozen=True, eq=False)
class _Others:
    """Some images, and every method's maps of them."""

    images: Images
    maps: Mapping[str, Tensor]

    @classmethod
    def join(cls, batches: Sequence[_Others]) -> _Others:
        names = [name for name in batches[0].maps if all(name in batch.maps for batch in batches)]
        maps = {name: torch.cat([batch.maps[name] for batch in batches]).cpu() for name in names}
        return cls(torch.cat([batch.images for batch in batches]).cpu(), maps)

    def compare(self, name: str, images: Images, maps: Tensor, classes: Classes) -> Iterator[dict[str, Any]]:
        """Compare the map of each image with those of other images; on average over these, as many for each."""
        if name not in self.maps:
            return
        for place, (image, saliency) in enumerate(zip(images, maps, strict=True)):
            is_other = [not torch.equal(image.cpu(), other) for other in self.images]
            others = self.maps[name][is_other][: len(self.images) - 1].to(saliency)
            same = saliency.expand(len(others), *saliency.shape)
            numbers = {column: float(measure(same, others).nanmean()) for column, measure in ALIKENESS.items()}
            yield {"place": place, "method": name, "randomised": OTHERS, "class": int(classes[place]), **numbers}


@final
@dataclass(frozen=True, eq=False)
class _Carried:
    """What is done once: the model's parts, other images' maps, and the model trained on shuffled labels."""

    parts: tuple[Part, ...]
    others: _Others
    models: Models | None


def _compare(
    name: str, facts: Mapping[str, Any], classes: Classes, before: Tensor, after: Tensor
) -> Iterator[dict[str, Any]]:
    columns = {column: measure(before, after).tolist() for column, measure in ALIKENESS.items()}
    for place, cls in enumerate(classes.tolist()):
        numbers = {column: values[place] for column, values in columns.items()}
        yield {"place": place, "method": name, **facts, "class": cls, **numbers}
