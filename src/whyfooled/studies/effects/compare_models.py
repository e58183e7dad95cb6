"""The same images, attacks and methods on several classifiers, such as one trained plainly and one adversarially."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from whyfooled.attacks import BIM, CarliniWagner
from whyfooled.classifier import Classifier
from whyfooled.classifier.classifier import strongest_other
from whyfooled.classifier.layers import LAST_STAGE
from whyfooled.classifier.passes import Passes, count_passes
from whyfooled.errors import MethodError, ParameterError, at_least
from whyfooled.images import content_digest
from whyfooled.perturbation import sensitivity
from whyfooled.registry import Card
from whyfooled.running.publishing import hide_folders
from whyfooled.saliency import Enhanced, GradCAM, Gradient, GuidedBackprop
from whyfooled.saliency.recovery import random_maps, recovery_curve
from whyfooled.studies.effects import compare_models_account
from whyfooled.studies.effects.compare_models_account import NOISE
from whyfooled.studies.effects.masked_models import MaskedModels
from whyfooled.studies.parts.attacked import ALREADY_WRONG, CLEAN, FAILED, FOOLED, Stage, run_stages
from whyfooled.studies.parts.fooled import AttackedStudy
from whyfooled.studies.parts.held_out import check_share, split
from whyfooled.studies.parts.maps import TitledMaps, compute_maps, make_error_rows, sort_out
from whyfooled.studies.parts.models import Models, check_same_classes
from whyfooled.studies.parts.ranked_units import RankedUnits, rank_units
from whyfooled.studies.prepare import Prepared, Setting
from whyfooled.studies.study import Batch, Measured, check_entries
from whyfooled.studies.table import Columns
from whyfooled.tensors.measures import cosine
from whyfooled.tensors.randomness import image_generators, uniform
from whyfooled.types import Classes, Images, PerImage


@final
@dataclass(frozen=True)
class CompareModels(AttackedStudy):
    """Attack and explain the same images with the run's own classifier and with others, and compare them by image.

    Compared are what each gets right, before and after attacks; how large perturbations are that fool it; how much the
    maps of the true class change, under noise that is the same for all, and where an attack fools it; whether removing
    what the map of the wrong class points at brings the true one back, more than a random order does; to first order,
    what the regions of a perturbation do; and, if asked for, whether masking the units that an attack moves most brings
    the true class back, more than masking random ones does. All models see the same pixels: another input size is
    reached inside.

    Parameters
    ----------
    models
        The models that the run's own is compared with, by the names that ``--model`` takes; they must tell the same
        classes apart.
    attacks
        What the images are attacked with; saved adversarial images are shown to all models instead.
    methods
        Saliency methods.
    noise
        Size of the noise: every value of an image goes up or down by this much, at random (the image stays in [0, 1]).
        [ours]
    random_orders
        How many random orders recovery is compared with, and how many draws of random units masks are. [ours]
    masked
        The share of the units of each of `layers` that is masked: those most sensitive to the attack, as in
        `NeuronMasking`; from 0 to under 1. 0 masks none.
    layers
        Names or patterns of layers that all models have, or ``"last-stage"``; see
        `whyfooled.classifier.layers.choose_layers`. They are masked together.
    fit
        The share of the images that sensitivities are measured on, drawn at random, and that nothing else is measured
        on; above 0 and under 1. Used where units are masked. [ours]
    """

    models: tuple[str, ...] = ("lite1",)
    attacks: tuple[Any, ...] = (BIM(), CarliniWagner())
    target: str | None = None
    methods: tuple[Any, ...] = (Enhanced(), GuidedBackprop(), Gradient(), GradCAM())
    noise: float = 4 / 255
    random_orders: int = 3
    masked: float = 0.0
    layers: tuple[str, ...] = (LAST_STAGE,)
    fit: float = 0.25

    card: ClassVar[Card] = Card(
        name="compare-models",
        title="Models compared",
        summary="What several classifiers get right, and how their perturbations and maps differ, image by image.",
        source="Gu & Tresp 2019, arXiv 1908.08413; Xu et al. 2019, arXiv 1904.02057",
        cost="for each model the attacks, and for each attack the methods' maps of two classes before and after, 7 "
        "forwards for each method and random order, and 2 backwards for the regions; with masks the attacks "
        "of the images that units are ranked on, 2 forwards for the most sensitive units and 1 for each random draw",
    )
    columns: ClassVar[Columns] = {
        "model": "text",
        "attack": "text",
        "outcome": "text",
        "right": "real",
        **dict.fromkeys(compare_models_account.PERTURBATION, "real"),
        **dict.fromkeys(compare_models_account.MASKS, "real"),
        "method": "text",
        **dict.fromkeys(compare_models_account.MAPS, "real"),
    }
    controls: ClassVar[tuple[str, ...]] = (CLEAN, NOISE)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("noise", self.noise, 0)
        at_least("random_orders", self.random_orders, 1)
        check_entries("layers", self.layers, once=True)
        if self.masked:
            check_share("masked", self.masked)
        check_share("fit", self.fit)
        # By which they are told apart in tables, wherever their files lie.
        check_entries("models", [hide_folders(name) for name in self.models], once=True)

    def identity(self, setting: Setting) -> Mapping[str, Any]:
        """Tell the models' weights."""
        models = Models(self.models, setting.seed)
        return {"models_digests": [(name, models.get(name, setting.classifier).digest()) for name in self.models]}

    def prepare(self, setting: Setting) -> Prepared:
        """Load the models, and check that they can be compared."""
        models = Models(self.models, setting.seed)
        check_same_classes(models, setting.classifier, [setting.source])
        digests = [classifier.digest() for classifier in self._list_models(models, setting.classifier).values()]
        if len(digests) < 1 + len(self.models) or len(set(digests)) < len(digests):
            raise ParameterError(
                "`models` must be other models than the run's own, each once; two have the same weights or name."
            )
        if not self.masked:
            return Prepared(setting.places, _Carried(models, {}))
        first, others = split(setting.places, self.fit, setting.seed)
        ranked, passes, notes = {}, Passes(), []
        for number, (name, model) in enumerate(self._list_models(models, setting.classifier).items()):
            ranked[name] = rank_units(
                replace(setting, classifier=model),
                first,
                self.layers,
                self.attacks,
                self.target,
                f"units-{number}.json",
            )
            passes.add(ranked[name].passes)
            notes += [f"Masked units of {name}: {note}" for note in ranked[name].notes]
        return Prepared(others, _Carried(models, ranked), passes, tuple(notes))

    def _list_models(self, models: Models, classifier: Classifier) -> dict[str, Classifier]:
        """List all classifiers by the names that tables have, the run's own first."""
        others = {hide_folders(name): models.get(name, classifier) for name in self.models}
        return {hide_folders(classifier.name): classifier, **others}

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Attack the batch on every model, and measure what it does there."""
        seen = classifier.predict(batch.images)
        # What an image without labels shows is what the run's own model sees in it, for all models.
        labels = tuple(own or (int(now),) for own, now in zip(batch.labels, seen, strict=True))
        whole, rows = Passes(), []
        for name, model in self._list_models(batch.prepared.models, classifier).items():
            masked = self._mask(model, batch.prepared.ranked.get(name), batch.seed)
            copies = [made for each in masked.values() for made in each.models]
            # The run counts those through its own classifier.
            with count_passes(model, *copies, besides=classifier) as passes:
                measured = self._measure_model(model, masked, replace(batch, labels=labels))
                rows += [{**row, "model": name} for row in measured]
            whole.add(passes)
        return Measured(rows, passes=whole)

    def _mask(self, model: Classifier, ranked: RankedUnits | None, seed: int) -> dict[str, MaskedModels]:
        """Mask the units most sensitive to each attack."""
        if ranked is None:
            return {}
        return {
            attack: MaskedModels.of(model, ranked, attack, self.masked, self.random_orders, seed)
            for attack in ranked.pairs
        }

    def _measure_model(
        self, model: Classifier, masked: Mapping[str, MaskedModels], batch: Batch
    ) -> Iterator[dict[str, Any]]:
        """Measure what a model makes of a batch: before attacks, under noise, and under each attack."""
        stages = run_stages(model, batch, self.attacks, self.target)
        clean = next(stages)
        right = batch.right(clean.logits.argmax(1), clean.logits.argmax(1))
        yield from ({**key, "right": float(is_right)} for key, is_right in zip(clean.keys(), right, strict=True))
        if self.noise:
            yield from self._measure_noise(model, batch, clean, right)
        for stage in stages:
            facts = [
                {**key, "right": float(key["outcome"] == FAILED), "l2": length, "linf": largest}
                for key, length, largest in zip(stage.keys(), *_list_norms(stage), strict=True)
            ]
            places = [place for place, outcome in enumerate(stage.outcomes) if outcome == FOOLED]
            if places:
                self._add_regions(model, clean, stage, places, facts)
                if stage.attack in masked:
                    self._add_masks(masked[stage.attack], clean, stage, places, facts)
            yield from facts
            if places:
                yield from self._measure_maps(model, clean, stage, places, batch.seed)

    def _measure_noise(
        self, model: Classifier, batch: Batch, clean: Stage, right: Sequence[bool]
    ) -> Iterator[dict[str, Any]]:
        """Compare the maps of the true class before and after noise, on images that the model gets right."""
        places = [place for place, is_right in enumerate(right) if is_right]
        if not places:
            return
        images, true = clean.images[places], clean.true[places]
        signs = torch.sign(uniform(images, image_generators(images, batch.seed)) - 0.5)
        noisy = (images + self.noise * signs).clamp(0, 1)
        contrast = strongest_other(clean.logits[places], true)
        before = dict(compute_maps(self.methods, model, images, true, contrast))
        keys = [{"place": place, "attack": NOISE, "outcome": ""} for place in places]
        for name, after in compute_maps(self.methods, model, noisy, true, contrast):
            yield from _make_rows(
                keys, name, before[name], after, lambda first, second: {"true_cosine": cosine(first, second)}
            )

    def _add_regions(
        self, model: Classifier, clean: Stage, stage: Stage, places: list[int], facts: list[dict[str, Any]]
    ) -> None:
        """Add what the regions of perturbations do, to first order, to the rows of the images that are fooled."""
        effects = sensitivity(
            model,
            clean.images[places],
            stage.images[places],
            stage.true[places],
            stage.promoted[places],
            method="gradient",
        )
        numbers = {
            "held_down": effects.suppression_share,
            "most_share": effects.carriers(0.8) / (effects.sizes > 0).sum(1),
        }
        for name, values in numbers.items():
            for place, value in zip(places, values.tolist(), strict=True):
                facts[place][name] = value

    def _add_masks(
        self, masked: MaskedModels, clean: Stage, stage: Stage, places: list[int], facts: list[dict[str, Any]]
    ) -> None:
        """Add what masked units change of the images that are fooled, to their rows: before the attack, and after."""
        # Those that units were ranked on may be here again under another name.
        places = [place for place in places if content_digest(clean.images[place]) not in masked.ranked_on]
        if not places:
            return
        true = stage.true[places]
        kept = (masked.most.predict(clean.images[places]) == true).double()
        back, by_chance = masked.tell(stage.images[places], true)
        numbers = zip(places, kept.tolist(), back.tolist(), by_chance.tolist(), strict=True)
        for place, still, right, random in numbers:
            facts[place] |= dict(zip(compare_models_account.MASKS, (still, right, random, right - random), strict=True))

    def _measure_maps(
        self, model: Classifier, clean: Stage, stage: Stage, places: list[int], seed: int
    ) -> Iterator[dict[str, Any]]:
        """Compare the maps of both classes before and after, and let the wrong class's order the pixels."""
        before_images, images = clean.images[places], stage.images[places]
        true, wrong = stage.true[places], stage.promoted[places]
        every = list(stage.keys())
        keys = [every[place] for place in places]

        def recover(maps: Tensor) -> PerImage:
            return recovery_curve(model, images, true, maps, origin=before_images, seed=seed).mean.double()

        orders = [random_maps(before_images, seed + number) for number in range(self.random_orders)]
        chance = torch.stack([recover(order) for order in orders]).mean(0)

        def compare(before: Tensor, after: Tensor) -> dict[str, PerImage]:
            recovered = recover(after[:, 1])
            return {
                "true_cosine": cosine(before[:, 0], after[:, 0]),
                "wrong_cosine": cosine(before[:, 1], after[:, 1]),
                "recovered": recovered,
                "recovered_random": chance,
                "recovered_more": recovered - chance,
            }

        maps_before = dict(self._compute_both(model, before_images, true, wrong))
        for name, after in self._compute_both(model, images, true, wrong):
            yield from _make_rows(keys, name, maps_before[name], after, compare)

    def _compute_both(self, model: Classifier, images: Images, true: Classes, wrong: Classes) -> TitledMaps:
        """Compute (n,2,d,h,w) the maps of the true class and of the wrong one, contrasted with each other."""
        return compute_maps(self.methods, model, images, true, wrong, both=True)

    @classmethod
    def headline_values(cls, rows: Sequence[Mapping[str, Any]]) -> Sequence[float]:
        """Tell of each attacked image, for every model, whether it fools that."""
        outcome = {
            (row["index"], row["model"], row["attack"]): row["outcome"]
            for row in rows
            if row["attack"] not in cls.controls
        }
        return [float(value == FOOLED) for value in outcome.values() if value != ALREADY_WRONG]

    summarise = staticmethod(compare_models_account.summarise)
    draw = staticmethod(compare_models_account.draw)


@final
@dataclass(frozen=True, eq=False)
class _Carried:
    """What the batches need: the other models, and the units of every model by its name, where some are masked."""

    models: Models
    ranked: Mapping[str, RankedUnits]


def _list_norms(stage: Stage) -> tuple[list[float | None], list[float | None]]:
    """List how large each perturbation is that fools the model; None for the others."""
    flat = stage.delta.flatten(1)
    norms = (flat.norm(dim=1).tolist(), flat.abs().amax(1).tolist())
    first, second = (
        [value if outcome == FOOLED else None for value, outcome in zip(values, stage.outcomes, strict=True)]
        for values in norms
    )
    return first, second


def _make_rows(
    keys: Sequence[Mapping[str, Any]],
    name: str,
    before: Tensor | MethodError,
    after: Tensor | MethodError,
    compare: Callable[[Tensor, Tensor], Mapping[str, PerImage]],
) -> Iterator[dict[str, Any]]:
    """Give each image's row of a method, or why there is none."""
    both, error = sort_out((before, after))
    if error:
        yield from make_error_rows(keys, name, error)
        return
    numbers = {column: values.tolist() for column, values in compare(*both).items()}
    for place, key in enumerate(keys):
        yield {**key, "method": name, **{column: values[place] for column, values in numbers.items()}}
