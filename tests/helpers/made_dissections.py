"""Dissections built by hand, and annotated images held in memory."""

from dataclasses import dataclass, field

import torch
from PIL import Image as PILImage

from whyfooled.classifier import Fit
from whyfooled.classifier.layers import Layer
from whyfooled.classifier.passes import Passes
from whyfooled.images import to_picture
from whyfooled.units.concepts import Annotated, Concepts
from whyfooled.units.dissection.dissection import Dissection
from whyfooled.units.dissection.results import DissectedLayer

CONCEPTS = {"sky": "object", "road": "object", "red": "colour", "blue": "colour"}
PLACES = 4
SIDE = 16


@dataclass(frozen=True)
class HeldReader:
    """Gives images that are held in memory, and notes which were asked for."""

    held: tuple[Annotated, ...]
    asked: list[int] = field(default_factory=list)

    def read(self, index: int) -> Annotated:
        self.asked.append(index)
        return self.held[index]

    def picture(self, index: int) -> PILImage.Image:
        return self.held[index].image

    def files(self):
        return ()


def made_concepts(images: int = 6, concepts: dict[str, str] = CONCEPTS, seed: int = 0) -> Concepts:
    """Make small noisy pictures; a concept of each category is shown on the left half, another on the right."""
    generator = torch.Generator().manual_seed(seed)
    categories = tuple(dict.fromkeys(concepts.values()))
    category_of = tuple(categories.index(kind) for kind in concepts.values())
    held = []
    for number in range(images):
        picture = to_picture(torch.rand(3, SIDE, SIDE, generator=generator))
        maps = torch.full((len(categories), SIDE // 2, SIDE // 2), -1)
        for own in range(len(categories)):
            mine = [index for index, of in enumerate(category_of) if of == own]
            maps[own, :, : SIDE // 4] = mine[number % len(mine)]
            maps[own, :, SIDE // 4 :] = mine[(number + 1) % len(mine)]
        held.append(Annotated(f"{number}.png", picture, maps, (), tuple(range(len(categories)))))
    names = tuple(one.name for one in held)
    return Concepts("made", names, tuple(concepts), category_of, categories, HeldReader(tuple(held)))


def made_layer(
    name: str, units: int, concepts: int, *, images: int = 6, permutations: int = 3, most: int = 2, seed: int = 0
) -> DissectedLayer:
    """Make a layer whose unit 0 is dead, if there are several, and whose other numbers are random but fit together."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    dead = torch.arange(units) == (0 if units > 1 else -1)
    both = (draw(units, concepts) * 50).long().masked_fill(dead[:, None], 0)
    top_maps = draw(units, most, PLACES, PLACES).masked_fill(dead[:, None, None, None], 0)
    top_values = top_maps.flatten(2).amax(2)
    return DissectedLayer(
        layer=Layer(name, "Conv2d", (units, PLACES, PLACES)),
        positions=images * PLACES**2,
        threshold=(0.7 + 0.1 * draw(units)).masked_fill(dead, 0),
        above=torch.randint(1, 9, (units,), generator=generator).masked_fill(dead, 0),
        dead=dead,
        mean=draw(units).double(),
        std=draw(units).double(),
        both=both,
        union=both + 300,
        active_images=torch.full((units,), images).masked_fill(dead, 0),
        most=(both + 1) // 2,
        null_iou=draw(permutations, units).double() / 10,
        top_images=torch.stack([torch.randperm(images, generator=generator)[:most] for _ in range(units)]),
        top_values=top_values,
        top_maps=top_maps,
    )


def made_dissection(
    layers: dict[str, int],
    concepts: dict[str, str] = CONCEPTS,
    seed: int = 0,
    *,
    permutations: int = 3,
    source: bool = True,
) -> Dissection:
    """Make a dissection of layers with so many units each, with its annotated images unless `source` is False."""
    annotated = made_concepts(concepts=concepts, seed=seed)
    own = (
        made_layer(name, units, len(concepts), permutations=permutations, seed=seed + number)
        for number, (name, units) in enumerate(layers.items())
    )
    return Dissection(
        layers=tuple(own),
        concepts=annotated.names,
        category_of=annotated.category_of,
        categories=annotated.categories,
        area=torch.full((len(concepts),), 300),
        images=annotated.images,
        cutoff=0.04,
        model_digest="0123",
        parameters={
            "model": "made",
            "concepts": annotated.title,
            "top": 0.005,
            "permutations": permutations,
            "seed": seed,
            "input_size": [SIDE, SIDE],
            "versions": {"python": "3", "whyfooled": "0"},
        },
        notes=("A note.",),
        seconds={"thresholds": 1.25, "overlaps": 0.1},
        passes=Passes(12, 0),
        source=annotated if source else None,
        fit=Fit((SIDE, SIDE)) if source else None,
    )
