"""On which named regions perturbations act, over many images: on the object, or on the background."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from whyfooled.attacks import AttackResult, run_attack
from whyfooled.classifier import Classifier
from whyfooled.errors import ImageError, WhyfooledError, at_least, bad_parameter
from whyfooled.images.label_maps import read_label_map
from whyfooled.images.seals import digest_file
from whyfooled.perturbation.named_effect import NamedEffect, find_named_effect
from whyfooled.registry import Card
from whyfooled.running.publishing import hide_folders
from whyfooled.saliency.recovery import shifted_maps
from whyfooled.studies.effects import object_or_background_account
from whyfooled.studies.parts.attacked import (
    ALREADY_WRONG,
    FOOLED,
    choose_promoted,
    find_attack,
    outcomes_of,
    run_or_load_attacks,
)
from whyfooled.studies.parts.defaults import NORM_ATTACKS
from whyfooled.studies.parts.fooled import AttackedStudy
from whyfooled.studies.prepare import Prepared, Setting
from whyfooled.studies.study import Batch, Measured
from whyfooled.studies.table import Columns
from whyfooled.units.concepts.named_regions import NamedRegions, fit_label_map, name_regions

_SUFFIXES = (".png", ".npy", ".bmp", ".gif", ".tif", ".tiff")


@final
@dataclass(frozen=True)
class ObjectOrBackground(AttackedStudy):
    """See on which named regions perturbations lie, what cleaning one alone does, and what attacks need in one alone.

    Chance is the same region shifted to other places of the image: as large, and of the same shape.

    Parameters
    ----------
    masks
        The folder of the label maps: for each image, one of its name with another ending, of its size or the
        classifier's input size.
    names
        The file that names the labels, a line for each, the first for 0, or CSV with ``label`` and ``name``; labels of
        one name are one region. They are called by their numbers if "".
    attacks
        What the images are attacked with; not used on saved adversarial images, whose own attack is run inside.
    inside
        Whether to run the attacks again inside each region alone, which takes longer than all the rest.
    shifts
        To how many other places a region is shifted, for what cleaning it does by chance; an attack is run inside the
        first of them. [ours]
    """

    masks: str = ""
    names: str = ""
    attacks: tuple[Any, ...] = NORM_ATTACKS
    target: str | None = None
    inside: bool = True
    shifts: int = 3

    card: ClassVar[Card] = Card(
        name="object-or-background",
        title="Object or background",
        summary="On which named regions perturbations act, and what attacks need inside one alone.",
        source="Xu et al. 2019, arXiv 1904.02057",
        cost="each attack once, and twice for each region if `inside`; a forward for each region and shift of it",
    )
    columns: ClassVar[Columns] = {
        "attack": "text",
        "outcome": "text",
        "l2": "real",
        "region": "text",
        **dict.fromkeys(object_or_background_account.NUMBERS, "real"),
    }
    attacks_again: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("shifts", self.shifts, 1)

    def identity(self, setting: Setting) -> Mapping[str, Any]:
        """Tell the content of the label maps, and of their names."""
        files = [*self._find_maps(setting).values(), *([Path(self.names)] if self.names else [])]
        return {"masks_digests": [digest_file(path) for path in files]}

    def prepare(self, setting: Setting) -> Prepared:
        """Find each image's label map."""
        return Prepared(setting.places, self._find_maps(setting))

    def _find_maps(self, setting: Setting) -> dict[str, Path]:
        """Find the label map of each image, by the image's name."""
        if not self.masks:
            fix = "Such as object-or-background(masks=masks/, names=names.txt)."
            raise bad_parameter("masks", "must be a folder with a label map for each image, of its name", "none", fix)
        folder = Path(self.masks).absolute()
        return {name: _find_map(folder, name) for name in (setting.source.name(place) for place in setting.places)}

    def measure(self, classifier: Classifier, batch: Batch) -> Measured:
        """Attack the batch, clean each region alone, and attack inside each alone."""
        regions = [self._read(classifier, batch, place) for place in range(len(batch.images))]
        true = batch.true_classes(classifier.predict(batch.images))
        rows: list[dict[str, Any]] = []
        for name, plain in run_or_load_attacks(classifier, batch, self.attacks, self.target):
            outcomes, promoted = outcomes_of(batch, plain), choose_promoted(plain, true)
            of_region: dict[tuple[int, str], dict[str, Any]] = {}
            for place, outcome in enumerate(outcomes):
                key = {"place": place, "attack": name, "outcome": outcome}
                if outcome == ALREADY_WRONG:
                    rows.append(key)
                    continue
                key["l2"] = float(plain.l2[place]) if outcome == FOOLED else None
                classes = int(true[place]), int(promoted[place])
                facts = self._measure_regions(classifier, plain, place, classes, regions[place], batch.seed)
                for region, numbers in zip(regions[place].names, facts, strict=True):
                    of_region[place, region] = {**key, "region": region, **(numbers if outcome == FOOLED else {})}
            if self.inside:
                self._attack_inside(classifier, batch, name, plain, regions, of_region)
            rows += of_region.values()
        return Measured(rows)

    def _read(self, classifier: Classifier, batch: Batch, place: int) -> NamedRegions:
        path: Path = batch.prepared[batch.names[place]]
        label_map, where = read_label_map(path), hide_folders(str(path))
        size = batch.sizes[place] if batch.sizes else None
        return name_regions(fit_label_map(label_map, classifier.fit, size, where), self.names or None, where)

    def _measure_regions(
        self,
        classifier: Classifier,
        plain: AttackResult,
        place: int,
        classes: tuple[int, int],
        regions: NamedRegions,
        seed: int,
    ) -> list[dict[str, float]]:
        """Measure what each region of an image has of its perturbation, and what it would have by chance."""
        clean, adversarial = plain.clean[place : place + 1], plain.attempted[place : place + 1]
        if torch.equal(clean, adversarial):
            return [{} for _ in regions.names]
        pair = (classifier, clean, adversarial, *classes)
        effect = find_named_effect(*pair, regions.labels, regions.names)
        shifted = shifted_maps(regions.labels[None, None].float(), clean, self.shifts, seed)[:, 0].long()
        chance = [find_named_effect(*pair, labels, regions.names) for labels in shifted]
        first, *others = (_list_numbers(each, classes[0]) for each in (effect, *chance))
        return [
            {
                "area": float(effect.area[number]),
                **numbers,
                **{
                    f"{column}_by_chance": sum(other[number][column] for other in others) / len(others)
                    for column in numbers
                },
            }
            for number, numbers in enumerate(first)
        ]

    def _attack_inside(
        self,
        classifier: Classifier,
        batch: Batch,
        name: str,
        plain: AttackResult,
        regions: Sequence[NamedRegions],
        of_region: Mapping[tuple[int, str], dict[str, Any]],
    ) -> None:
        """Run an attack again inside each region alone, and inside the region shifted, and add what that takes."""
        try:
            attack = find_attack(name, self.attacks)
        except WhyfooledError as error:
            for row in of_region.values():
                row["error"] = f"{name}: {error}"
            return
        for region in dict.fromkeys(region for _, region in of_region):
            places = [place for place, other in of_region if other == region]
            inside = torch.cat([regions[place].find(region, "masks") for place in places])
            shifted = [
                shifted_maps(mask[None].float(), plain.clean[place : place + 1], 1, batch.seed) > 0
                for mask, place in zip(inside, places, strict=True)
            ]
            for ending, mask in (("", inside), ("_by_chance", torch.cat(shifted))):
                chosen = torch.tensor(places, device=plain.clean.device)
                again = run_attack(
                    attack, classifier, plain.clean[chosen], plain.goal.select(chosen), mask=mask.to(chosen.device)
                )
                for number, place in enumerate(places):
                    is_success = bool(again.success[number])
                    of_region[place, region][f"inside{ending}"] = float(is_success)
                    if is_success:
                        of_region[place, region][f"inside_l2{ending}"] = float(again.l2[number])

    summarise = staticmethod(object_or_background_account.summarise)
    draw = staticmethod(object_or_background_account.draw)


def _list_numbers(effect: NamedEffect, true: int) -> list[dict[str, float]]:
    """List for each region what it has of a perturbation."""
    columns: dict[str, Tensor] = {
        "energy": effect.energy,
        "effect": effect.wrong_change - effect.true_change,
        "cleaned": (effect.predictions == true).float(),
    }
    return [{name: float(values[number]) for name, values in columns.items()} for number in range(len(effect.names))]


def _find_map(folder: Path, name: str) -> Path:
    """Find the label map of an image of a name."""
    stem = folder / Path(name).with_suffix("")
    for suffix in _SUFFIXES:
        path = stem.with_name(stem.name + suffix)
        if path.is_file():
            return path
    raise ImageError(
        f"There is no label map of {name} in {hide_folders(str(folder))}: it would be called {stem.name}.png, or end "
        f"in {', '.join(_SUFFIXES[1:])}."
    )
